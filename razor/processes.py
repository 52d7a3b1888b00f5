"""Several processes on one job: each runs its part of the examples, and all of them hold every result.

    torchrun --nproc_per_node 2 -m razor unlearn ...        accelerate launch -m razor unlearn ...

Every process does all of the work but the forwards over examples. What those give is gathered with its graph, so that
each process has the whole loss L. With L / processes sent back and the gradients summed, every process ends with the
gradient of one: what reaches a weight by a process's own examples comes from there alone, what reaches it by work that
all of them do comes from each, divided. The gradient of the gathered rows is summed on its way back for the same
reason. One process alone runs as if this were not here.
"""

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from razor.errors import InputError

T = TypeVar("T")


def join(device: str | None = None) -> None:
    """Meet the other processes, where a launcher started several; each takes a card of its own, or a CPU.

    Args:
        device: "cpu" or "cuda"; default CUDA where there is one.

    Raises:
        InputError: another device, or fewer cards than processes on this machine.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        return
    from accelerate import PartialState

    from razor.device import default_device

    cards, here = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device not in (None, "cpu", "cuda"):
        raise InputError(f"--device is {device!r}; several processes take a card each (cuda) or none (cpu).")
    on_cards = (device or default_device()) == "cuda"
    if on_cards and here > cards:
        raise InputError(f"{here} processes were started on a machine with {cards} cards; start one for each card.")
    PartialState(cpu=not on_cards)


def leave() -> None:
    """Part from the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def first() -> bool:
    """Whether this is the one that prints and writes."""
    return count() == 1 or dist.get_rank() == 0


def share(rows: Sequence | Tensor, work: Callable[[Sequence | Tensor], Tensor]) -> Tensor:
    """What `work` makes of rows, each process running it on its part; with a graph where `work` gives one.

    Args:
        rows: a list or a tensor, the same in every process.
        work: rows -> (m, ...), in order, each row giving one or more of the m.
    """
    if count() == 1 or len(rows) < count():
        return work(rows)
    mine = work(rows[_own(len(rows))])
    said = torch.tensor([len(mine), mine.requires_grad], device=_meeting_place(mine.device))
    told = [torch.empty_like(said) for _ in range(count())]
    dist.all_gather(told, said)
    lengths, graphs = zip(*(values.tolist() for values in told), strict=True)
    if any(graphs) and not mine.requires_grad:
        mine = mine.detach().requires_grad_()  # all of them have to meet again on the way back
    return _Gathered.apply(mine, lengths)


def share_list(rows: Sequence, work: Callable[[Sequence], list[T]]) -> list[T]:
    """The same for values that are no tensors, such as words and pictures."""
    if count() == 1 or len(rows) < count():
        return work(rows)
    parts: list = [None] * count()
    dist.all_gather_object(parts, work(rows[_own(len(rows))]))
    return [value for part in parts for value in part]


def agreed(value: T) -> T:
    """The first process's value, where others may know another one, such as of a file of theirs."""
    if count() == 1:
        return value
    told = [value]
    dist.broadcast_object_list(told)
    return told[0]


def summed(gradient: Tensor) -> Tensor:
    """The sum of the processes' gradients of one weight."""
    if count() > 1:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
    return gradient


def _own(n: int) -> slice:
    """The part of n rows that is this process's; the parts differ by one row at most."""
    rank, every = dist.get_rank(), count()
    return slice(n * rank // every, n * (rank + 1) // every)


class _Gathered(torch.autograd.Function):
    """Rows of all processes, in their order; backward sums what the processes send back, and keeps its own."""

    @staticmethod
    def forward(ctx, mine: Tensor, lengths: Sequence[int]) -> Tensor:
        ctx.lengths = lengths
        padded = mine.new_zeros(max(lengths), *mine.shape[1:], device=_meeting_place(mine.device))
        padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, lengths, strict=True)]).to(mine.device)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        there = gradient.device
        whole = gradient.to(_meeting_place(there)).contiguous()
        dist.all_reduce(whole)
        return whole.split(ctx.lengths)[dist.get_rank()].to(there), None


def _meeting_place(there: torch.device) -> torch.device:
    """Where tensors can be exchanged: NCCL knows cards alone."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else there
