"""Membership: does the edited model tell which pictures of the concept the edit was made from?

An edit that only hid its own examples, or pushed them further than it pushed the concept, gives them away. The score of
a picture is its cosine with the concept; members are the forget pictures of the gradient split, the matched hold-out
those of the test split. The area under the curve is the chance that a member scores higher,

    AUC = P(s(member) > s(unseen)) + P(s(member) = s(unseen)) / 2,

0.5 where nothing can be told, with the interval of Hanley and McNeil (1982). CLIP alone.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from razor.adapters.base import Adapter, Bench
from razor.metrics import Measure, Z
from razor.patches import Patch
from razor.step import edited


@dataclass(frozen=True)
class Membership:
    """The area under the curve, of the edited and of the unedited model."""

    edited: Measure
    original: Measure
    members: int
    unseen: int

    @property
    def told(self) -> bool:
        """The edited model tells, either way, more than guessing would."""
        return not self.edited.low <= 0.5 <= self.edited.high

    def to_json(self) -> dict:
        """Plain values, as stored in results."""
        return vars(self) | {side: getattr(self, side).to_json() for side in ("edited", "original")}


def membership(adapter: Adapter, bench: Bench, patch: Patch) -> Membership | None:
    """Whether the edit gives its examples away; None for models without embeddings. Leaves the model as found."""
    if not adapter.embeds:
        return None
    seen, unseen = (len(getattr(bench.task.forget, split)) for split in ("gradient", "test"))
    found = []
    for edit in (patch, Patch()):
        with edited(adapter, bench, edit):
            v = [bench.picture_embeddings("forget", split, ("image",)) for split in ("gradient", "test")]
            axis = next(i for i, axis in enumerate(bench.task.axes) if axis.name == bench.task.axis)
            concept = bench.class_embeddings(("text",))[axis][bench.task.axes[axis].classes.index(bench.task.concept)]
        found.append(auc(*(side @ concept for side in v)))
    return Membership(*found, seen, unseen)


def auc(members: Tensor, unseen: Tensor) -> Measure:
    """The area under the curve of two sets of scores, (n,) and (m,), with its interval; n is of both together."""
    n, m = len(members), len(unseen)
    if not n or not m:
        return Measure(math.nan, n + m, 0.0, 1.0)
    above = torch.sign(members[:, None].double() - unseen[None].double())
    a = ((above.mean() + 1) / 2).item()
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    variance = (a * (1 - a) + (n - 1) * (q1 - a * a) + (m - 1) * (q2 - a * a)) / (n * m)
    half = Z * math.sqrt(max(0.0, variance))
    return Measure(a, n + m, max(0.0, a - half), min(1.0, a + half))
