"""Where pictures and words stand before and after an edit, on one flat map.

The map's axes are the two directions in which the unedited embeddings vary most. Pictures and words are centred each
on their own mean first: CLIP keeps the two apart, and that gap would otherwise be the first axis.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from razor.adapters.base import Adapter, Bench
from razor.examples import Example, evenly
from razor.patches import Patch
from razor.replay import earliest_blocks
from razor.step import edited, edited_towers, evaluate

Point = tuple[float, float]

FORGOTTEN = "correctly forgotten"  # a forget picture that was known and no longer is
NOT_FORGOTTEN = "not forgotten"  # a forget picture that is still known
OVERLY = "overly forgotten"  # another picture, answered right before and wrong now
KEPT = "kept"  # another picture, answered right before and now
UNKNOWN = "never known"  # answered wrong before the edit


@dataclass(frozen=True)
class PictureDrift:
    """One picture on the map. Its question is the task's own where it has an answer there, else its first one."""

    group: str  # forget | neighbour | retain
    side: str  # forget | retain: which set it is from
    index: int  # of getattr(task, side), in the split looked at
    before: Point
    after: Point
    axis: str  # the question it is asked
    truth: str
    answer_before: str
    answer_after: str
    verdict: str


@dataclass(frozen=True)
class WordDrift:
    """One class word on the map."""

    axis: str
    name: str
    before: Point
    after: Point


@dataclass(frozen=True)
class Drift:
    """All that moved, and all that did not."""

    pictures: tuple[PictureDrift, ...]
    words: tuple[WordDrift, ...]
    explained: Point  # share of the unedited embeddings' variance along each axis of the map

    def count(self, verdict: str) -> int:
        """How many pictures got this verdict."""
        return sum(p.verdict == verdict for p in self.pictures)


def drift(adapter: Adapter, bench: Bench, patch: Patch, *, split: str = "search", pictures: int = 48) -> Drift:
    """Embeddings and answers before and after the edit. Leaves the model as found.

    Args:
        pictures: at most this many each of forget, neighbour and other retain pictures, spread evenly over the split.
    """
    chosen = _chosen(bench, split, pictures)
    evaluate(adapter, bench, Patch(), split)  # records the answers of what the edit leaves alone
    looks = [_look(adapter, bench, now, split, chosen) for now in (Patch(), patch)]
    (v, classes), _ = looks
    centres = v.mean(0), torch.cat(classes).mean(0)
    axes, explained = _principal(torch.cat([v - centres[0], torch.cat(classes) - centres[1]]))
    points = [((v - centres[0]) @ axes.T, (torch.cat(t) - centres[1]) @ axes.T) for v, t in looks]
    (v_before, t_before), (v_after, t_after) = ([part.tolist() for part in pair] for pair in points)
    shown = []
    for row, (group, side, index) in enumerate(chosen):
        about = _question(bench, side, split, index)
        answers = [_answer(bench, v[row], t, about[0]) for v, t in looks]
        place = tuple(v_before[row]), tuple(v_after[row])
        shown.append(PictureDrift(group, side, index, *place, *about, *answers, _verdict(side, about[1], *answers)))
    names = [(axis.name, name) for axis in bench.task.axes for name in axis.classes]
    words = [WordDrift(*name, tuple(b), tuple(a)) for name, b, a in zip(names, t_before, t_after, strict=True)]
    return Drift(tuple(shown), tuple(words), explained)


def _chosen(bench: Bench, split: str, most: int) -> list[tuple[str, str, int]]:
    """(group, side, index) of the pictures to show."""
    retain = getattr(bench.task.retain, split)
    near = [i for i, e in enumerate(retain) if e.labels.get(bench.task.axis) in bench.neighbours]
    groups = {
        ("forget", "forget"): list(range(len(getattr(bench.task.forget, split)))),
        ("neighbour", "retain"): near,
        ("retain", "retain"): sorted({i for i, e in enumerate(retain) if _answers(bench, e)} - set(near)),
    }
    return [(*group, i) for group, rows in groups.items() for i in (rows[k] for k in evenly(len(rows), most))]


def _answers(bench: Bench, example: Example) -> list[tuple[str, str]]:
    """(axis, class) of what is known of a picture, the task's axis first."""
    asked = [(a.name, example.labels[a.name]) for a in bench.task.axes if example.labels.get(a.name) in a.prompts]
    return sorted(asked, key=lambda pair: pair[0] != bench.task.axis)


def _look(adapter, bench, patch: Patch, split: str, chosen) -> tuple[Tensor, list[Tensor]]:
    """Embeddings of the chosen pictures (n, d), and of every class, axis by axis (c, d)."""
    towers, first = edited_towers(adapter, patch), earliest_blocks(adapter, patch)
    with edited(adapter, bench, patch):
        v = {side: bench.picture_embeddings(side, split, towers, first) for side in ("forget", "retain")}
        return torch.stack([v[side][i] for _, side, i in chosen]), bench.class_embeddings(towers, first)


def _principal(x: Tensor) -> tuple[Tensor, Point]:
    """Two directions of most variance (2, d) and their shares of it; each points where its largest entry is > 0."""
    _, s, axes = torch.linalg.svd(x.double(), full_matrices=False)
    axes = axes[:2]
    sign = axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    shares = s.square() / s.square().sum()
    return (axes * sign).to(x.dtype), tuple(shares[:2].tolist())


def _question(bench: Bench, side: str, split: str, index: int) -> tuple[str, str]:
    """(axis, right answer) a picture is asked about; a forget picture always about the concept."""
    if side == "forget":
        return bench.task.axis, bench.task.concept
    return _answers(bench, getattr(bench.task.retain, split)[index])[0]


def _answer(bench: Bench, v: Tensor, classes: Sequence[Tensor], axis: str) -> str:
    number = [a.name for a in bench.task.axes].index(axis)
    return bench.task.axes[number].classes[int((classes[number] @ v).argmax())]


def _verdict(side: str, truth: str, before: str, after: str) -> str:
    if before != truth:
        return UNKNOWN
    if side == "forget":
        return NOT_FORGOTTEN if after == truth else FORGOTTEN
    return KEPT if after == truth else OVERLY
