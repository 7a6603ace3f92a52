"""The process's memory allocator.

glibc gives large blocks back to the system as soon as they are freed, and a loop that needs them again a moment later
pays for every page anew: a tenth of a rollout's time on a CPU went there, and half of a bare `model.generate`'s.
"""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # names of glibc's mallopt(3)


def hold_freed_memory() -> bool:
    """Keep freed memory in the process for the next step. False where the C library is not glibc: nothing changes.

    For programs, not for libraries: it holds for the whole process, which keeps its peak memory until it ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return all([mallopt(MMAP_MAX, 0), mallopt(TRIM_THRESHOLD, 2**31 - 1), mallopt(TOP_PAD, 64 * 2**20)])
