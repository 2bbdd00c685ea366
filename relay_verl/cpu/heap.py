"""The memory that a process on CPU has freed and still holds: what the allocator's cache is on a GPU."""

from __future__ import annotations

import ctypes
import ctypes.util

_LIBC = ctypes.CDLL(ctypes.util.find_library("c"))


def trim() -> None:
    """Give freed memory back to the system, where the C library can (glibc)."""
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)
