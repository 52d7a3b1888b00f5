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
from torch import Tensor, nn

from razor import metrics, models
from razor.adapters.base import Adapter
from razor.adapters.clip import EVAL_BATCH, ClipAdapter
from razor.examples import Example, Task
from razor.metrics import Measure
from razor.minicanvas.dataset import Target, parse_target, slug
from razor.patches import Patch, model_lock
from razor.sources import WORLD, is_target

SIDES = ("forget", "retain")


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


def beside(adapter: Adapter, task: Task, patch: Patch) -> Distance | None:
    """The distance, where a gold model of the task's target is bundled; None for any other model or task."""
    source, kept = task.origin.get("forget", ""), task.origin.get("retain", "")
    if adapter.name != "mini-clip" or kept != WORLD or not is_target(source):
        return None
    place = folder(parse_target(source))
    if not (place / "open_clip_config.json").exists():
        return None
    return distance(adapter, models.load(str(place)), task, patch)


def distance(adapter: ClipAdapter, gold: ClipAdapter, task: Task, patch: Patch) -> Distance:
    """Compare the edited model, and the original, with the gold one."""
    pictures = {side: getattr(task, side).test for side in SIDES}
    truth = {side: answers(gold, task, examples) for side, examples in pictures.items()}
    both = [e for examples in pictures.values() for e in examples]
    with model_lock(gold.model):  # for its hooks, which are seen by whoever runs it
        truth_states = states(gold, both)
    found = []
    for edit in (Patch(), patch):
        with edit.applied(adapter.model):
            said = {side: answers(adapter, task, examples) for side, examples in pictures.items()}
            now = states(adapter, both)
        agreement = {side: metrics.share(said[side].argmax(1) == truth[side].argmax(1)) for side in SIDES}
        divergence = {side: metrics.mean(jensen_shannon(said[side], truth[side])) for side in SIDES}
        found.append((agreement, divergence, [cka(a, b) for a, b in zip(now, truth_states, strict=True)]))
    (agreement_before, divergence_before, similarity_before), (agreement, divergence, similarity) = found
    return Distance(agreement, agreement_before, divergence, divergence_before, similarity, similarity_before)


def answers(adapter: ClipAdapter, task: Task, examples: Sequence[Example]) -> Tensor:
    """Probability of each class of the target's axis, (n, c), by the model as it is now."""
    axis = next(a for a in task.axes if a.name == task.axis)
    return adapter.classify([e.image for e in examples], axis)


@torch.no_grad()
def states(adapter: ClipAdapter, examples: Sequence[Example]) -> list[Tensor]:
    """The mean token after each block of the image tower, (n, width) each."""
    seen: dict[int, list[Tensor]] = {}

    def keep(number: int, output: Tensor | tuple) -> None:
        state = output[0] if isinstance(output, tuple) else output
        seen.setdefault(number, []).append(state.float().mean(1).cpu())

    handles = [
        block.register_forward_hook(lambda _module, _args, output, number=number: keep(number, output))
        for number, block in enumerate(blocks(adapter.model.visual))
    ]
    try:
        for part in adapter.pixels([e.image for e in examples]).split(EVAL_BATCH):
            adapter.model.encode_image(part.to(adapter.device))
    finally:
        for handle in handles:
            handle.remove()
    return [torch.cat(parts) for parts in seen.values()]


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
