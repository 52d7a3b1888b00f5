"""Membership: does the edited model tell which pictures of the concept the edit was made from?

An edit that only hid its own examples, or pushed them further than it pushed the concept, gives them away. The score of
a picture is how well the model still knows it (`Bench.recall`: the cosine with the concept, the log-probability of its
name, or less the denoising error); members are forget pictures of the gradient split, the matched hold-out those of the
test split. The area under the curve is the chance that a member scores higher,

    AUC = P(s(member) > s(unseen)) + P(s(member) = s(unseen)) / 2,

0.5 where nothing can be told, with the interval of Hanley and McNeil (1982). Where the unedited model tells the two
sets apart already, such as pictures it drew from others, they are no matched pair: an edit that moves the area may then
act on the difference, and nothing can be said.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from razor.adapters.base import Adapter, Bench
from razor.errors import Stopped
from razor.memory import enough_memory
from razor.metrics import Measure, Z
from razor.patches import Patch
from razor.step import edited


@dataclass(frozen=True)
class Membership:
    """The area under the curve of the edited and of the unedited model, and by how much it moved."""

    edited: Measure
    original: Measure
    moved: Measure  # edited - original, in -1..1, over the same pictures
    members: int
    unseen: int
    by: str  # what they are told apart by, in words
    gold: Measure | None = None  # the area of a model that never saw the concept, where there is one

    @property
    def told(self) -> bool | None:
        """The edit itself tells: the edited model does more than guess, and otherwise than before the edit.

        None where that may be for a difference of the two sets that the unedited model sees as well.
        """
        guesses, same, matched = (
            side.low <= even <= side.high
            for side, even in ((self.edited, 0.5), (self.moved, 0.0), (self.original, 0.5))
        )
        if guesses or same:
            return False
        return True if matched else None

    def to_json(self) -> dict:
        """Plain values, as stored in results."""
        return {key: value.to_json() if isinstance(value, Measure) else value for key, value in vars(self).items()}


def membership(
    adapter: Adapter,
    bench: Bench,
    patch: Patch,
    stop: Callable[[], bool] = lambda: False,
    gold: tuple[Adapter, Bench] | None = None,
) -> Membership:
    """Whether the edit gives its examples away. Leaves the models as found.

    Args:
        gold: a model that never saw the concept, and the same task on it.

    Raises:
        Stopped: `stop`, asked before each set of pictures is looked at, said so.
    """

    def recall(bench: Bench, split: str) -> Tensor:
        if stop():
            raise Stopped("Stopped before it was known whether the edit gives its examples away.")
        with enough_memory("looking at its examples", "Take fewer pictures, or load the model in half precision"):
            return bench.recall(split)

    def scores(adapter: Adapter, bench: Bench, edit: Patch) -> list[Tensor]:
        with edited(adapter, bench, edit):
            return [recall(bench, split) for split in ("gradient", "test")]

    now, before = scores(adapter, bench, patch), scores(adapter, bench, Patch())
    never = auc(*scores(*gold, Patch())) if gold else None
    by = bench.recalls.format(bench.task.concept)
    return Membership(auc(*now), auc(*before), moved(now, before), *map(len, now), by, never)


def auc(members: Tensor, unseen: Tensor) -> Measure:
    """The area under the curve of two sets of scores, (n,) and (m,), with its interval; n is of both together."""
    n, m = len(members), len(unseen)
    if not n or not m:
        return Measure(math.nan, n + m, 0.0, 1.0)
    a = _area(members, unseen)
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    variance = (a * (1 - a) + (n - 1) * (q1 - a * a) + (m - 1) * (q2 - a * a)) / (n * m)
    if a in (0.0, 1.0):  # where the formula gives no width at all, that of a guess
        variance = (n + m + 1) / (12 * n * m)
    half = Z * math.sqrt(max(0.0, variance))
    return Measure(a, n + m, max(0.0, a - half), min(1.0, a + half))


def moved(now: Sequence[Tensor], before: Sequence[Tensor], *, draws: int = 400, seed: int = 0) -> Measure:
    """The area now less the area before, with a paired bootstrap interval.

    Args:
        now, before: scores of the members (n,) and of the unseen (m,), the same pictures in the same order.
    """
    n, m = map(len, now)
    if not n or not m:
        return Measure(math.nan, n + m, -1.0, 1.0)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(draws):
        rows = [torch.randint(size, (size,), generator=generator) for size in (n, m)]
        areas = [_area(*(side[i] for side, i in zip(sides, rows, strict=True))) for sides in (now, before)]
        found.append(areas[0] - areas[1])
    low, high = torch.tensor(found).quantile(torch.tensor([0.025, 0.975])).tolist()
    value = _area(*now) - _area(*before)
    return Measure(value, n + m, min(low, value), max(high, value))


def _area(members: Tensor, unseen: Tensor) -> float:
    return ((torch.sign(members[:, None].double() - unseen[None].double()).mean() + 1) / 2).item()
