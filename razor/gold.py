"""Distance to a gold model: one trained from scratch by the same recipe without ever seeing the target.

The truth only a small world can give. Where an edit lies between the original model (0) and the gold one (1) is told
by the divergence of their answers,

    place = 1 - JSD(edited, gold) / JSD(original, gold),

and layer by layer by linear CKA (Kornblith et al., ICML 2019). CLIP alone.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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
BY_BLOCK = ("similarity", "similarity_before", "text_similarity", "text_similarity_before")
BATCH = 64  # pictures or texts in one forward
FOLDS = 20  # parts of the cases, each left out once, behind the interval of an alignment


@dataclass(frozen=True)
class Distance:
    """How an edited model stands to the gold one on test pictures, with the original model's place as the control."""

    agreement: Mapping[str, Measure]  # side -> pictures both give the same class on the target's axis
    agreement_before: Mapping[str, Measure]  # the same of the original model
    divergence: Mapping[str, Measure]  # side -> mean Jensen-Shannon divergence of those answers, bits
    divergence_before: Mapping[str, Measure]
    similarity: Sequence[Measure]  # CKA of each block of the image tower with the gold model's, test pictures of both
    similarity_before: Sequence[Measure]
    text_similarity: Sequence[Measure] = ()  # the same of the text tower, for the captions of those pictures
    text_similarity_before: Sequence[Measure] = ()
    way: Mapping[str, Measure] = field(default_factory=dict)  # side -> `place` with its interval, where there is one

    def place(self, side: str) -> float | None:
        """0 as far from gold as the original, 1 there; None where the original is there already."""
        before, now = self.divergence_before[side].value, self.divergence[side].value
        return None if before <= 0 else 1 - now / before

    def to_json(self) -> dict:
        """Plain values, as stored in results."""
        measured = ("agreement", "agreement_before", "divergence", "divergence_before")
        plain = {key: {side: m.to_json() for side, m in getattr(self, key).items()} for key in measured}
        return plain | {
            **{key: [m.to_json() for m in getattr(self, key)] for key in BY_BLOCK},
            "place": {side: self.place(side) for side in SIDES},
            "way": {side: m.to_json() for side, m in self.way.items()},
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


@dataclass(frozen=True)
class _Placed:
    """One edit beside the gold model."""

    agreement: Mapping[str, Measure]
    apart: Mapping[str, Tensor]  # side -> divergence of the answers about each picture, (n,)
    images: Sequence[Measure]  # alignment by block
    texts: Sequence[Measure]


class Between:
    """What the original model and the gold one make of the test pictures, to place any number of edits between."""

    def __init__(self, adapter: ClipAdapter, gold: ClipAdapter, task: Task):
        self.adapter, self.axis = adapter, next(a for a in task.axes if a.name == task.axis)
        # A portrait shows no object: whatever either model calls it tells nothing.
        known = lambda e: e.labels.get(self.axis.name) in self.axis.classes  # noqa: E731
        shown = {side: [e for e in getattr(task, side).test if known(e)] for side in SIDES}
        examples = [e for side in SIDES for e in shown[side]]
        self._pictures, self._cut = [e.image for e in examples], len(shown["forget"])
        self._captions = list(dict.fromkeys(e.caption for e in examples))
        with model_lock(gold.model):  # for its hooks, which are seen by whoever runs it
            self._truth = self._looked(gold)
        self._before = self._placed(Patch())

    def distance(self, patch: Patch) -> Distance:
        """Where the edit lies. Leaves the model as found."""
        now, before = self._placed(patch), self._before
        divergence, divergence_before = (
            {side: metrics.mean(apart) for side, apart in placed.apart.items()} for placed in (now, before)
        )
        ways = {side: way(before.apart[side], now.apart[side]) for side in SIDES}
        return Distance(
            now.agreement, before.agreement, divergence, divergence_before, now.images, before.images,
            now.texts, before.texts, {side: found for side, found in ways.items() if found},
        )  # fmt: skip

    def _looked(self, adapter: ClipAdapter) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        return *seen(adapter, self._pictures, self.axis), read(adapter, self._captions)

    def _placed(self, patch: Patch) -> _Placed:
        with patch.applied(self.adapter.model):
            said, images, texts = self._looked(self.adapter)
        truth, truth_images, truth_texts = self._truth
        same, apart, cut = said.argmax(1) == truth.argmax(1), jensen_shannon(said, truth), self._cut
        return _Placed(
            {"forget": metrics.share(same[:cut]), "retain": metrics.share(same[cut:])},
            {"forget": apart[:cut], "retain": apart[cut:]},
            [alignment(*pair) for pair in zip(images, truth_images, strict=True)],
            [alignment(*pair) for pair in zip(texts, truth_texts, strict=True)],
        )


def seen(adapter: ClipAdapter, pictures: Sequence[Image.Image], axis: Axis) -> tuple[Tensor, list[Tensor]]:
    """What the model as it is now makes of pictures.

    Returns:
        probability of each class of the axis, (n, c); the mean token after each block of the image tower, (n, width)
        each.
    """
    parts = [pictures[i : i + BATCH] for i in range(0, len(pictures), BATCH)]
    with _states(adapter.model.visual) as states:
        said = torch.cat([adapter.classify(part, axis).cpu() for part in parts])
    return said, [torch.cat(kept) for kept in states]


def read(adapter: ClipAdapter, texts: Sequence[str]) -> list[Tensor]:
    """The mean token of each text after each block of the text tower as it is now, (n, width) each."""
    model, found = adapter.model, []
    for i in range(0, len(texts), BATCH):
        part = list(texts[i : i + BATCH])
        with _states(getattr(model, "text", None) or model.transformer) as states:
            adapter.embed_texts(part)
        found.append([torch.cat(kept) for kept in states])
    return [torch.cat(kept) for kept in zip(*found, strict=True)]


@contextmanager
def _states(tower: nn.Module) -> Iterator[list[list[Tensor]]]:
    """The mean token after each block of a tower, forward by forward, while the context lasts."""
    rows = blocks(tower)
    kept: list[list[Tensor]] = [[] for _ in rows]

    def keep(number: int, output: Tensor | tuple) -> None:
        state = output[0] if isinstance(output, tuple) else output
        kept[number].append(state.detach().float().mean(1).cpu())

    handles = [
        block.register_forward_hook(lambda _module, _args, output, number=number: keep(number, output))
        for number, block in enumerate(rows)
    ]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


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


def alignment(x: Tensor, y: Tensor) -> Measure:
    """`cka` with the interval of a jackknife over FOLDS parts of the cases."""
    n, value = len(x), cka(x, y)
    folds = min(FOLDS, n)
    if folds < 3:
        return Measure(value, n, 0.0, 1.0)
    parts = torch.arange(n) % folds
    left = torch.tensor([cka(x[parts != i], y[parts != i]) for i in range(folds)], dtype=torch.double)
    half = metrics.Z * math.sqrt((folds - 1) / folds * (left - left.mean()).square().sum().item())
    return Measure(value, n, max(0.0, value - half), min(1.0, max(value, value + half)))


def way(before: Tensor, now: Tensor, *, draws: int = 400, seed: int = 0) -> Measure | None:
    """1 - mean(now) / mean(before), over the same pictures, with a paired bootstrap interval; None where before is 0.

    Args:
        before, now: (n,) divergences from the gold model.
    """
    n = len(before)
    if n == 0 or before.mean() <= 0:
        return None
    rows = torch.randint(n, (draws, n), generator=torch.Generator().manual_seed(seed))
    ratios = 1 - now[rows].double().mean(1) / before[rows].double().mean(1).clamp(min=1e-12)
    value = 1 - (now.double().mean() / before.double().mean()).item()
    low, high = ratios.quantile(torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
    return Measure(value, n, min(low, value), max(high, value))
