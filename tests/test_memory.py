"""The allocator's switch: it must not change results, and says whether it took."""

import subprocess
import sys

PROGRAM = """
import platform, resource
from teamtune.memory import hold_freed_memory
held = hold_freed_memory()
assert held == (platform.libc_ver()[0] == "glibc"), held
def touch():
    return b'x' * (64 * 2**20)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before if held else 0)
"""


def test_freed_memory_is_used_again() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    # Eight blocks of 64 MiB are 131,072 pages of 4 KiB; kept ones are not faulted in again.
    assert int(done.stdout) < 20_000
