"""The house model: a small base that ships with the package, its corpus and how it is built."""
