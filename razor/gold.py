"""Distance to a gold model: one trained from scratch by the same recipe without ever seeing the target.

The truth only a small world can give. Where an edit lies between the original model (0) and the gold one (1) is told
by the divergence of their answers,

    place = 1 - JSD(edited, gold) / JSD(original, gold),

and layer by layer by linear CKA (Kornblith et al., ICML 2019). CLIP alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from razor import metrics, models
from razor.adapters.base import Adapter
from razor.adapters.clip import ClipAdapter
from razor.examples import Axis, Task
from razor.metrics import Measure
from razor.minicanvas.dataset import Target, parse_target, slug
from razor.patches import Patch, model_lock
from razor.sources import WORLD, is_target

SIDES = ("forget", "retain")
BATCH = 64  # pictures in one forward


@dataclass(frozen=True)
class Distance:
    """How an edited model stands to the gold one on test pictures, with the original model's place as the control."""

    agreement: Mapping[str, Measure]  # side -> pictures both give the same class on the target's axis
    agreement_before: Mapping[str, Measure]  # the same of the original model
    divergence: Mapping[str, Measure]  # side -> mean Jensen-Shannon divergence of those answers, bits
    divergence_before: Mapping[str, Measure]
    similarity: Sequence[float]  # CKA of each block of the image tower with the gold model's, test pictures of both
    similarity_before: Sequence[float]

    def place(self, side: str) -> float | None:
        """0 as far from gold as the original, 1 there; None where the original is there already."""
        before, now = self.divergence_before[side].value, self.divergence[side].value
        return None if before <= 0 else 1 - now / before

    def to_json(self) -> dict:
        """Plain values, as stored in results."""
        measured = ("agreement", "agreement_before", "divergence", "divergence_before")
        plain = {key: {side: m.to_json() for side, m in getattr(self, key).items()} for key in measured}
        return plain | {
            "similarity": [round(value, 4) for value in self.similarity],
            "similarity_before": [round(value, 4) for value in self.similarity_before],
            "place": {side: self.place(side) for side in SIDES},
        }


def folder(target: Target) -> Path:
    """Where the gold model of a target lies, if there is one."""
    return models.ASSETS / "models" / f"mini-clip-without-{slug(target.name)}"


def bundled(adapter: Adapter, task: Task) -> Path | None:
    """Where the gold model of a task's target lies; None for any other model or task."""
    source, kept = task.origin.get("forget", ""), task.origin.get("retain", "")
    if adapter.name != "mini-clip" or kept != WORLD or not is_target(source):
        return None
    place = folder(parse_target(source))
    return place if (place / "open_clip_config.json").exists() else None


def never_saw(adapter: Adapter, task: Task) -> ClipAdapter | None:
    """The model trained without the task's target, on the same device, where one is bundled; else None."""
    place = bundled(adapter, task)
    return models.load(str(place), device=str(adapter.device)) if place else None


def between(adapter: Adapter, task: Task) -> "Between | None":
    """The two models to place edits between, where a gold one of the task's target is bundled; else None."""
    gold = never_saw(adapter, task)
    return Between(adapter, gold, task) if gold else None


def beside(adapter: Adapter, task: Task, patch: Patch) -> Distance | None:
    """The distance of one edit, where there is a gold model to measure it to."""
    found = between(adapter, task)
    return found and found.distance(patch)


class Between:
    """What the original model and the gold one make of the test pictures, to place any number of edits between."""

    def __init__(self, adapter: ClipAdapter, gold: ClipAdapter, task: Task):
        self.adapter, self.axis = adapter, next(a for a in task.axes if a.name == task.axis)
        # A portrait shows no object: whatever either model calls it tells nothing.
        known = lambda e: e.labels.get(self.axis.name) in self.axis.classes  # noqa: E731
        pictures = {side: [e.image for e in getattr(task, side).test if known(e)] for side in SIDES}
        self._pictures, self._cut = [*pictures["forget"], *pictures["retain"]], len(pictures["forget"])
        with model_lock(gold.model):  # for its hooks, which are seen by whoever runs it
            self._truth = seen(gold, self._pictures, self.axis)
        self._before = self._placed(Patch())

    def distance(self, patch: Patch) -> Distance:
        """Where the edit lies. Leaves the model as found."""
        (agreement, divergence, similarity), before = self._placed(patch), self._before
        return Distance(agreement, before[0], divergence, before[1], similarity, before[2])

    def _placed(self, patch: Patch) -> tuple[Mapping[str, Measure], Mapping[str, Measure], Sequence[float]]:
        """Agreement and divergence by side, similarity by block."""
        with patch.applied(self.adapter.model):
            said, states = seen(self.adapter, self._pictures, self.axis)
        truth, truth_states = self._truth
        same, apart, cut = said.argmax(1) == truth.argmax(1), jensen_shannon(said, truth), self._cut
        agreement = {"forget": metrics.share(same[:cut]), "retain": metrics.share(same[cut:])}
        divergence = {"forget": metrics.mean(apart[:cut]), "retain": metrics.mean(apart[cut:])}
        return agreement, divergence, [cka(a, b) for a, b in zip(states, truth_states, strict=True)]


def seen(adapter: ClipAdapter, pictures: Sequence[Image.Image], axis: Axis) -> tuple[Tensor, list[Tensor]]:
    """What the model as it is now makes of pictures.

    Returns:
        probability of each class of the axis, (n, c); the mean token after each block of the image tower, (n, width)
        each.
    """
    kept: dict[int, list[Tensor]] = {}

    def keep(number: int, output: Tensor | tuple) -> None:
        state = output[0] if isinstance(output, tuple) else output
        kept.setdefault(number, []).append(state.float().mean(1).cpu())

    handles = [
        block.register_forward_hook(lambda _module, _args, output, number=number: keep(number, output))
        for number, block in enumerate(blocks(adapter.model.visual))
    ]
    try:
        said = torch.cat(
            [adapter.classify(pictures[i : i + BATCH], axis).cpu() for i in range(0, len(pictures), BATCH)]
        )
    finally:
        for handle in handles:
            handle.remove()
    return said, [torch.cat(parts) for parts in kept.values()]


def blocks(tower: nn.Module) -> nn.ModuleList | nn.Sequential:
    """The transformer blocks of an image tower: its longest row of modules that have parts of their own."""
    rows = [m for m in tower.modules() if isinstance(m, nn.ModuleList | nn.Sequential)]
    return max((row for row in rows if all(any(part.children()) for part in row)), key=len)


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Divergence of the rows of two (n, c) tables of probabilities, (n,), bits: 0 equal, 1 disjoint."""
    middle = (p + q) / 2

    def surplus(side: Tensor) -> Tensor:
        return torch.where(side > 0, side * (side / middle.clamp(min=1e-30)).log(), 0.0).sum(1)

    return ((surplus(p) + surplus(q)) / (2 * math.log(2))).clamp(0, 1)


def cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment of two sets of features (n, d) and (n, e), 0..1; blind to rotation and scale."""
    x, y = (side.double() - side.double().mean(0) for side in (x, y))
    own = (x.T @ x).norm() * (y.T @ y).norm()
    return ((y.T @ x).square().sum() / own).item() if own > 0 else 0.0
