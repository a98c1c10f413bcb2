"""How much memory there is, and work that wouldn't fit refused before it begins."""

from __future__ import annotations

import os
from contextlib import suppress

import torch

from vidgen.errors import OutOfMemory
from vidgen.io.record import human_bytes


def free_bytes(device: torch.device) -> int | None:
    """Bytes that a new tensor on the device could take; None where the system doesn't say. Of the
    CPU: what Linux can make free, elsewhere all that the machine has."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    with suppress(OSError, ValueError), open("/proc/meminfo", encoding="ascii") as f:
        for line in f:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def resident_bytes() -> int | None:
    """Bytes of this process in memory now; None where the system doesn't say."""
    with suppress(OSError, ValueError), open("/proc/self/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None


def require_memory(needed: int, device: torch.device, *, what: str, next: str) -> None:
    """OutOfMemory if `needed` bytes are more than there are. `what` needs them; `next`: what takes
    less."""
    free = free_bytes(device)
    if free is not None and needed > free:
        raise OutOfMemory(
            f"{what} takes about {human_bytes(needed)}, and {device} has {human_bytes(free)} free",
            why="it is refused before any work is done",
            next=next,
        )
