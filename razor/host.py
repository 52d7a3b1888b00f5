"""Speed on CPUs that hangs on the C libraries under Python, glibc and libgomp on Linux; elsewhere nothing happens."""

import ctypes
import functools
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

HELD = 512 * 2**20  # freed bytes kept for the next tensors at most
LARGEST = 32 * 2**20  # bytes from which on a tensor's memory is fetched and given back by itself; glibc's highest
_ARENA_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD = -8, -3, -1  # of <malloc.h>
_HARD = 2  # omp_pause_hard of <omp.h>


def keep_memory() -> None:
    """Let this process keep freed memory for its next tensors, from now on.

    Left alone, glibc gives the memory of most activations back to the system at every step and fetches it again page by
    page, up to a fifth of a small model's time. One arena for all threads, as what one keeps is of no use to another.
    """
    if sys.platform == "linux" and (option := getattr(ctypes.CDLL(None), "mallopt", None)):
        for number, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, LARGEST), (_TRIM_THRESHOLD, HELD)):
            option(number, value)


def rest_cores() -> None:
    """End the helper threads that this thread's computing on several cores has left waiting for more.

    The next such computing starts new ones, in a millisecond or two. They wait at the ready only while a process has no
    more of them than cores. A server computes now in this thread and now in that; were the helpers of both to stay,
    they would have to be woken for every single operation, and a small model ran at half its speed.
    """
    if pause := _pause():
        pause(_HARD)


@functools.cache
def _pause() -> Callable[[int], int] | None:
    """omp_pause_resource_all of the libgomp that torch brings along."""
    path = next(Path(find_spec("torch").origin).parent.glob("lib/libgomp*"), None)
    return getattr(ctypes.CDLL(str(path)), "omp_pause_resource_all", None) if path else None
