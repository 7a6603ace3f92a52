"""What this machine can do, measured in a few seconds: for plans, and for utilisation in bench/.

here()  # Device("this machine (CPU, 2 threads)", 25.2, 3.4e11, 1.9e10, on_cpu=True)
"""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil
import torch

from teamtune.models import device, native_bfloat16
from teamtune.resources import GB, Device

COPIED = 2**26
"""numbers of a copy, more than a cache holds"""


def here() -> Device:
    """The accelerator where there is one, else the CPU: its memory, the operations a second of its best matrix product,
    and the bytes a second that a copy reads and writes."""
    where = device()
    if where.type == "cuda":
        found = torch.cuda.get_device_properties(where)
        name, memory = found.name, found.total_memory
    else:
        name, memory = f"{where.type.upper()}, {torch.get_num_threads()} threads", psutil.virtual_memory().total
    on_cpu = where.type == "cpu"
    return Device(f"this machine ({name})", memory / GB, peak_flops(), copied(), on_cpu)


def peak_flops() -> float:
    """Operations a second of the best of some square matrix products, in the precision that fits compute in."""
    where = device()
    dtype = torch.bfloat16 if native_bfloat16(where) else torch.float32
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
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - began)
    return min(spent)
