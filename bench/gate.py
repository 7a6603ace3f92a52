"""How often MAPoRL's gate takes a right answer for a repetition, on recorded outputs of other models.

    python bench/gate.py DATA/graded/*.jsonl.gz        # the recorded outputs of a benchmark collection, a file a line

In, one JSON row a response: {"response": "... The answer is 5.", "label": true, ...}. Out, a JSON line a file: right
answers, and how many of them the gate penalises for repeating themselves.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from teamtune.credit.penalty import Gate, fault

REPETITION = Gate(shortest=0, unread=False, after=False)
"""the gate with nothing else in it"""


def main(files: Sequence[str]) -> None:
    for file in map(Path, files):
        with gzip.open(file, "rt") as lines:
            right = [row["response"] for row in map(json.loads, lines) if row["label"]]
        turns = ({"text": text, "finish": "stop", "token_ids": None} for text in right)
        penalised = sum(fault(turn, None, REPETITION) == "repetition" for turn in turns)
        print(json.dumps({"file": file.name, "right": len(right), "penalised": penalised}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
