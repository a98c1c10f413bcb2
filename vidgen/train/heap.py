"""What the C library does with memory that tensors gave back.

Every step of training asks for the same few gigabytes in many pieces. glibc hands large pieces back
to the system as soon as they are free, which has to clear them, page by page, when they are asked
for again: that was a seventh of the time (keyframes of 80 × 128 on two cores, one run before and
after: 24.7 and 28.8 clips a second). A process that trains has no use for giving memory back.
"""

from __future__ import annotations

import ctypes

# mallopt(3): M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD, bytes.
_SETTINGS = {-1: 2**31 - 1, -2: 2**28, -3: 2**30}


def keep_freed() -> bool:
    """Let this process keep what it frees, for its next step; whether the C library can."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return all(mallopt(key, value) == 1 for key, value in _SETTINGS.items())
