"""The allocator's switch: it must not change results, and says whether it took."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


BETWEEN = """
import gc
from teamtune.memory import forget_peak, give_back_freed_memory, hold_freed_memory, peak_megabytes
if not hold_freed_memory() or peak_megabytes() is None:
    print(0, 0, 0)
else:
    forget_peak()
    before = peak_megabytes()
    big = [b"x" * 2**20 for _ in range(256)]
    top = b"y" * 2**20  # lies above, so that the rest cannot leave from the top
    del big
    give_back_freed_memory()
    most = peak_megabytes()
    forget_peak()
    print(before, most, peak_megabytes())
"""


def test_a_stage_gives_back_what_it_freed_and_its_peak_is_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", BETWEEN], capture_output=True, text=True, check=True)
    before, most, after = map(float, done.stdout.split())
    if most:
        assert most - before > 200 and after - before < 60


SHAPES = """
import sys, torch
from pathlib import Path
from teamtune.memory import keep_few_kernels
if sys.argv[1] == "few":
    keep_few_kernels()
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
weight = torch.randn(512, 512, dtype=torch.bfloat16)
torch.randn(64, 512, dtype=torch.bfloat16) @ weight
before = resident()
for rows in range(65, 365):
    torch.randn(rows, 512, dtype=torch.bfloat16) @ weight
print(resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell a process's memory")
def test_kernels_of_many_shapes_are_not_kept() -> None:
    clean = {name: value for name, value in os.environ.items() if not name.endswith("CACHE_CAPACITY")}

    def grown(how: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", SHAPES, how], capture_output=True, text=True, check=True, env=clean
        )
        return int(done.stdout)

    every = grown("all")
    if every < 8 * 2**20:
        pytest.skip("oneDNN keeps no large kernels on this machine")
    assert grown("few") < every / 2
