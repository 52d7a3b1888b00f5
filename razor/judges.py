"""Who says what a drawn picture shows: the bundled judge of the bundled world, or an unedited CLIP as a stand-in.

A judge is never the model under edit. CLIP's answer is a similarity, not a verdict; wherever it is used it is named.
"""

from collections.abc import Sequence
from typing import Protocol

from PIL import Image

from razor.adapters.clip import ClipAdapter
from razor.examples import Axis
from razor.memory import enough_memory
from razor.minicanvas.dataset import AXES


class Judge(Protocol):
    """Names what pictures show."""

    name: str  # as the page gives it
    guesses: bool  # it always names a class, also where a picture shows none of them

    def reads(self, axes: Sequence[Axis]) -> bool:
        """Whether it can answer on all of these axes."""

    def __call__(self, images: Sequence[Image.Image], axes: Sequence[Axis]) -> list[dict[str, str]]:
        """For each picture, axis -> class, or "none" where it shows none of the axis."""


class WorldJudge:
    """The independent classifier of the bundled world."""

    name, guesses = "the judge", False

    def reads(self, axes: Sequence[Axis]) -> bool:
        return all(set(axis.classes) <= set(AXES.get(axis.name, ())) for axis in axes)

    def __call__(self, images: Sequence[Image.Image], axes: Sequence[Axis]) -> list[dict[str, str]]:
        from razor.minicanvas import judge

        with enough_memory("looking at pictures", "Draw fewer of them at once"):
            seen = judge.read(images) if images else {}
        return [{axis.name: seen[axis.name][i] for axis in axes} for i in range(len(images))]


class ClipJudge:
    """The class an unedited CLIP finds most similar; it never answers "none"."""

    guesses = True

    def __init__(self, adapter: ClipAdapter):
        self.adapter, self.name = adapter, f"{adapter.name} (CLIP similarity, a stand-in for a judge)"

    def reads(self, axes: Sequence[Axis]) -> bool:
        return True

    def __call__(self, images: Sequence[Image.Image], axes: Sequence[Axis]) -> list[dict[str, str]]:
        found: list[dict[str, str]] = [{} for _ in images]
        for axis in axes if images else ():
            with enough_memory("looking at pictures", "Name a smaller CLIP as their judge"):
                best = self.adapter.classify(images, axis).argmax(1).tolist()
            for seen, number in zip(found, best, strict=True):
                seen[axis.name] = axis.classes[number]
        return found
