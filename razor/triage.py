"""What became of every case of the test split: forgotten as asked, not forgotten, forgotten beyond that, or kept.

A case is a picture, a picture drawn for a prompt, or a question; see `asked`. It is counted as it was measured, before
and after the edit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from razor.growth import Growth
from razor.metrics import Evaluation, Measure, share

CORRECTLY, NOT, OVERLY = "correctly forgotten", "not forgotten", "overly forgotten"
KEPT, NEVER = "kept", "never known"
FORGET = (CORRECTLY, NOT, NEVER)  # what becomes of cases of the concept
RETAIN = (KEPT, OVERLY, NEVER)  # and of all others


@dataclass(frozen=True)
class Triage:
    """The cases of one kind, in the order measured."""

    verdicts: tuple[str, ...]

    def count(self, verdict: str) -> Measure:
        """The share of cases with this verdict."""
        return share([found == verdict for found in self.verdicts])


def triage(before: Evaluation, after: Evaluation) -> dict[str, Triage]:
    """The verdict on every case, by kind: "forget", "retain" and "neighbours", which are among "retain".

    A kind whose single cases are not told, as in numbers read from a file, is left out.

    >>> known, gone = share([True, True, False]), share([False, True, False])
    >>> sides = [Evaluation(m, m, m, None, None, None) for m in (known, gone)]
    >>> found = triage(*sides)
    >>> found["forget"].verdicts
    ('correctly forgotten', 'not forgotten', 'never known')
    >>> found["retain"].verdicts
    ('overly forgotten', 'kept', 'never known')
    """
    kinds = {"forget": "forget_accuracy", "retain": "retain_accuracy", "neighbours": "neighbor_accuracy"}
    found = {}
    for kind, name in kinds.items():
        was, now = getattr(before, name), getattr(after, name)
        if was and now and was.hits and len(was.hits) == len(now.hits):
            judged = _forgotten if kind == "forget" else _retained
            found[kind] = Triage(tuple(judged(*pair) for pair in zip(was.hits, now.hits, strict=True)))
    return found


def _forgotten(before: int, after: int) -> str:
    return NOT if after else CORRECTLY if before else NEVER


def _retained(before: int, after: int) -> str:
    return NEVER if not before else KEPT if after else OVERLY


def asked(growth: Growth) -> Mapping[str, Sequence[tuple[Image.Image, str]]]:
    """The picture and the words of each case of "forget" and "retain", in the order measured.

    Of a model that draws, they are the pictures drawn last with the edit and their prompts; without a judge there are
    none.
    """
    bench, task, family = growth.bench, growth.task, growth.adapter.family
    if family == "vlm":
        sides = {side: bench.asked(side, "test") for side in ("forget", "retain")}
        own = [a for a in sides["forget"] if task.axes[a.axis].name == task.axis]
        return {
            side: [(a.example.image, f"{task.axes[a.axis].name}: {task.axes[a.axis].classes[a.right]}") for a in mine]
            for side, mine in (sides | {"forget": own}).items()
        }
    if family == "diffusion":
        drawn = bench.pictures.get("edited", {})
        sides = {side: list(zip(pictures, bench.to_draw(side), strict=True)) for side, pictures in drawn.items()}
        axes = sorted(task.axes, key=lambda axis: axis.name != task.axis)  # the concept's own first
    else:
        sides = {side: [(e.image, e) for e in getattr(task, side).test] for side in ("forget", "retain")}
        axes = task.axes
    return {
        "forget": [(image, e.caption) for image, e in sides.get("forget", ())],
        "retain": [
            (image, f"{e.caption}: {e.labels[axis.name]}")
            for image, e in sides.get("retain", ())
            for axis in axes
            if e.labels.get(axis.name) in axis.prompts
        ],
    }
