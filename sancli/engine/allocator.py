"""How the C library hands out memory: on Linux, its habits cost a training more than a third of its time."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
NEVER = -1


def keep_freed_memory() -> bool:
    """Makes this process keep the memory that it frees; says whether that could be done.

    glibc gives large blocks back to the system once they are free, and gets new ones for the next tensor:
    the system then clears each page again, in every step. A training holds its peak memory anyway.

    Source: measured, SAN10 patchwise, 64 px, batch 32, 2 cores: 41 ms an image before, 25 after.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
