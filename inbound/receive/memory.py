"""Large blocks of memory kept apart, so that a growing message is moved by the kernel and never copied.

glibc's malloc maps a large block on its own and grows it with `mremap`, which costs nothing. But it learns: once a block of
32 MiB was freed, blocks of that size come from the common heap, where growing one means copying it (measured: 20 ms for a
message of 40 MB, while every other connection waits) and where what was freed does not go back to the system. Saying the
threshold ourselves stops the learning.
"""

import contextlib
import ctypes

THRESHOLD = 1024 * 1024  # octets; a block this large is worth a system call

_M_MMAP_THRESHOLD = -3  # malloc.h


def keep_large_blocks_apart() -> bool:
    """Tell malloc, for the whole process. False: this C library has no such setting, and nothing was changed."""
    with contextlib.suppress(OSError, AttributeError):
        return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, THRESHOLD))
    return False
