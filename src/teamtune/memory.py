"""The process's memory: its allocator, and its peak.

glibc gives large blocks back to the system as soon as they are freed, and a loop that needs them again a moment later
pays for every page anew: a tenth of a rollout's time on a CPU went there, and half of a bare `model.generate`'s.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # names of glibc's mallopt(3)


def hold_freed_memory() -> bool:
    """Keep freed memory in the process for the next step. False where the C library is not glibc: nothing changes.

    For programs, not for libraries: it holds for the whole process, which keeps its peak memory until
    `give_back_freed_memory`.
    """
    libc = _glibc()
    if libc is None:
        return False
    return all([libc.mallopt(MMAP_MAX, 0), libc.mallopt(TRIM_THRESHOLD, 2**31 - 1), libc.mallopt(TOP_PAD, 64 * 2**20)])


def keep_few_kernels() -> None:
    """Bound the kernels that oneDNN and torch keep, one for every shape that they multiplied in bfloat16 on a CPU.

    Of themselves they keep 1,024 each, a gigabyte after a few fits: batches are of many lengths. A batch needs few
    again in its next layer, and 32 cost no time (docs/log.md). For programs, before the first product; a user's own
    settings stay.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, "32")


def give_back_freed_memory() -> None:
    """Give what is free back to the system, and a GPU's to other processes: between stages, whose needs are of other
    sizes, holding it adds up."""
    gc.collect()
    if (cuda := _cuda()) is not None:
        cuda.empty_cache()
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def _glibc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
    except OSError:
        return None


def forget_peak() -> None:
    """Begin a new measurement of peak memory, where the system lets a process do that (Linux; a GPU anywhere)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if (cuda := _cuda()) is not None:
        cuda.reset_peak_memory_stats()


def peak_megabytes() -> float | None:
    """Peak memory since `forget_peak`: of the GPU where there is one, else of the process, what it had kept before
    included. None where the system does not tell."""
    if (cuda := _cuda()) is not None:
        return round(cuda.max_memory_allocated() / 2**20, 1)
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return round(int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024, 1)
    return None


def _cuda() -> Any:
    torch = sys.modules.get("torch")  # who has not imported it uses no GPU
    return torch.cuda if torch is not None and torch.cuda.is_available() else None
