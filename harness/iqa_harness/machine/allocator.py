"""What a process does with memory that it has freed."""

from __future__ import annotations

import ctypes
import os

KEPT = {
    "MALLOC_MMAP_THRESHOLD_": (-3, 2**30),
    "MALLOC_TRIM_THRESHOLD_": (-1, 2**31 - 1),
    "MALLOC_TOP_PAD_": (-2, 2**26),
}
"""Bytes, by the variable that sets them from outside, beside the number that glibc's `mallopt` has for it."""


def keep_buffers() -> None:
    """Let this process use the large buffers that it frees again, for the rest of its life.

    glibc hands them back to the kernel, which makes every page of the next one anew: the maps and pixels of
    an attack are such buffers, at every step. Up to 2 GiB stay at the end of the heap. Changes no number.
    Nothing is done where one of the variables is set, or with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None and not any(name in os.environ for name in KEPT):
        for number, size in KEPT.values():
            mallopt(number, size)
