"""`python -m teamtune` is `teamtune`."""

from teamtune.cli import main

main()
