"""Large blocks of memory kept apart, so that a growing message is moved by the kernel and never copied.

glibc's malloc maps a large block on its own and grows it with `mremap`, which costs nothing. But it learns: once a block of
32 MiB was freed, blocks of that size come from the common heap, where growing one means copying it (measured: 20 ms for a
message of 40 MB, while every other connection waits) and where what was freed does not go back to the system. Saying the
threshold ourselves stops the learning.

A block that began small is in the common heap all the same: it grows in place as long as there is room behind it, beyond any
threshold, and then all of it is copied at once. And where enough is free there a large one is put there too. So a large message
gets all the room that it may need at once. What of it is not written to is no memory yet, only addresses.
"""

import contextlib
import ctypes
import io

THRESHOLD = 1024 * 1024  # octets; a block this large is worth a system call

_M_MMAP_THRESHOLD = -3  # malloc.h


def keep_large_blocks_apart() -> bool:
    """Tell malloc, for the whole process. False: this C library has no such setting, and nothing was changed."""
    with contextlib.suppress(OSError, AttributeError):
        return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, THRESHOLD))
    return False


def roomy(octets: bytes, most: int) -> io.BytesIO:
    """These octets in a buffer to be written on, that need not grow before it holds `most`. Truncate it when all is written."""
    try:
        buffer = io.BytesIO(bytes(most))  # nobody else has these zeros, so it makes them its own
    except MemoryError:  # where addresses are counted as memory (vm.overcommit_memory is 2)
        buffer = io.BytesIO()
    buffer.write(octets)
    return buffer
