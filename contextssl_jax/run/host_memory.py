"""Allocation of the host's memory by glibc, for programs that run on CPUs."""

import ctypes
import os
import platform
from collections.abc import Mapping
from importlib.util import find_spec

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # of glibc's malloc.h
_SETTINGS = (
    (_M_MMAP_MAX, 0),  # allocate from the heap, not by mmap
    (_M_TRIM_THRESHOLD, -1),  # never return the heap's end to the kernel
    (_M_ARENA_MAX, 1),  # one heap for all threads: others have at most 64 MiB
)
_MADV_HUGEPAGE = 14
_HUGE_PAGE = 1 << 21


def reuse_freed_memory(environ: Mapping[str, str]) -> bool:
    """Keep freed memory in the process, in huge pages, if JAX has only CPUs.

    XLA allocates the temporary arrays of a program at every execution. By default, glibc returns
    those of 32 MiB or more to the kernel, and the next execution waits for a page fault per 4 KiB.
    With these settings the process keeps its peak memory until its end. Call this at the start:
    glibc ignores the number of heaps after other threads have allocated.

    Args:
      environ: environment variables.

    Returns:
      Whether the settings are in effect; False without glibc.
    """
    if platform.libc_ver()[0] != "glibc" or not _has_only_cpus(environ):
        return False
    libc = ctypes.CDLL(None)
    for parameter, value in _SETTINGS:
        libc.mallopt(parameter, value)
    _use_huge_pages(libc)
    return True


def _has_only_cpus(environ: Mapping[str, str]) -> bool:
    """Return whether JAX cannot find accelerators, without importing it."""
    if platforms := environ.get("JAX_PLATFORMS"):
        return platforms == "cpu"
    return not (find_spec("jax_plugins") or find_spec("libtpu"))


def _use_huge_pages(libc: ctypes.CDLL) -> None:
    """Advise huge pages for a part of the heap that is large enough for most runs.

    The part takes addresses only, up to the first use. A kernel that refuses it, or huge pages,
    leaves the heap with its usual pages.
    """
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    libc.malloc.restype = ctypes.c_void_p
    start = libc.malloc(ctypes.c_size_t(size))
    if start is None:
        return
    aligned = -(-start // _HUGE_PAGE) * _HUGE_PAGE
    length = ctypes.c_size_t(start + size - aligned)
    libc.madvise(ctypes.c_void_p(aligned), length, _MADV_HUGEPAGE)
    libc.free(ctypes.c_void_p(start))
