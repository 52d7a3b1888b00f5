"""Running out of memory: put off by running rows in parts, and said in one sentence."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from razor.errors import ModelError

T = TypeVar("T")
_SIGNS = ("out of memory", "can't allocate memory", "not enough memory")  # in errors of torch's allocators


@contextmanager
def enough_memory(doing: str, advice: str) -> Iterator[None]:
    """Turn running out of memory inside the block into a ModelError.

    Args:
        doing: what was being done, as in "Memory ran out while ...".
        advice: what to change, as in "Take fewer pictures per step".
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch's own error is a RuntimeError, its CPU allocator's a plain one
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and not any(sign in str(error).lower() for sign in _SIGNS):
            raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise ModelError(f"Memory ran out while {doing}. {advice}. Your session is as it was.") from error


def put_aside(tensor: Tensor) -> Tensor:
    """The tensor in the computer's own memory, where a card's is the scarcer."""
    return tensor.to("cpu")


def in_parts(rows: Tensor, size: int, work: Callable[[Tensor], Tensor]) -> Tensor:
    """What `work` makes of numbered rows, (n, ...), with a graph, as many at a time as fit.

    Rows that do not fit together are run again when their gradient is asked for.
    """
    parts = rows.split(max(1, size))
    if len(parts) == 1:
        return work(rows)
    return torch.cat([run_again(work, part) for part in parts])


def run_again(work: Callable[..., T], *inputs: Any) -> T:
    """What `work` makes of its inputs, with a graph that keeps the inputs alone: its gradient runs it once more.

    Nothing in it may depend on chance, nor on weights or hooks that are gone by then.
    """
    return checkpoint(work, *inputs, use_reentrant=False, preserve_rng_state=False)
