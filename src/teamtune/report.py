from pathlib import Path
def write_report(path): return [Path(path)/"report.md"]
def print_comparison(path):
    from teamtune.store import read_table
    for r in read_table(Path(path)/"comparison").rows(): print(r)
def show_run(path): pass
