"""What this machine can do, measured in a few seconds: for plans, and for utilisation in bench/.

here()  # Device("this machine (CPU, 2 threads)", 25.2, low=3.4e11, wide=1.6e11, moved=1.9e10, on_cpu=True)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from teamtune.models import device, native_bfloat16
from teamtune.resources import GB, Device

COPIED = 2**26
"""numbers of a copy, more than a cache holds"""
LIMIT = Path("/sys/fs/cgroup/memory.max")
"""of a container"""


def here() -> Device:
    """The accelerator where there is one, else the CPU: its memory, the operations a second of its best matrix product
    in bfloat16 and in float32, and the bytes a second that a copy reads and writes."""
    where = device()
    if where.type == "cuda":
        found = torch.cuda.get_device_properties(where)
        name, memory = found.name, found.total_memory
    else:
        name, memory = f"{where.type.upper()}, {torch.get_num_threads()} threads", memory_here()
    low = peak_flops()
    wide = peak_flops(torch.float32) if native_bfloat16(where) else low
    return Device(f"this machine ({name})", memory / GB, low, wide, copied(), on_cpu=where.type == "cpu")


def memory_here() -> int:
    """Bytes that a process may take: the machine's, or its container's."""
    whole = psutil.virtual_memory().total
    told = LIMIT.read_text().strip() if LIMIT.exists() else ""
    return min(whole, int(told)) if told.isdigit() else whole


def peak_flops(dtype: torch.dtype | None = None) -> float:
    """Operations a second of the best of some square matrix products; by itself in the precision that fits compute
    in."""
    where = device()
    dtype = dtype or (torch.bfloat16 if native_bfloat16(where) else torch.float32)
    best = 0.0
    for size in (512, 1024, 2048, *((4096, 8192) if where.type == "cuda" else ())):
        a, b = (torch.randn(size, size, dtype=dtype, device=where) for _ in range(2))
        best = max(best, 2 * size**3 / quickest(lambda a=a, b=b: torch.mm(a, b), 8))
    return best


def copied() -> float:
    """Bytes a second, read and written alike, of a large copy."""
    source = torch.zeros(COPIED, device=device())
    target = torch.empty_like(source)
    return 2 * source.nbytes / quickest(lambda: target.copy_(source), 4)


def quickest(work: Callable[[], object], times: int) -> float:
    """Seconds of the quickest of some calls, each to its end."""
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        spent.append(time.perf_counter() - began)
    return min(spent)
