"""Why this head? What the concept's score owes to every head, to every pixel, and what one head alone does.

The score is the concept's similarity with pictures, or, of a model that answers, the log-probability of its name.

A head's gate g multiplies what the head adds, which is the same as scaling its columns of the output projection:
exact in every family, and it reaches nn.MultiheadAttention, which never calls its output projection as a module.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.func import functional_call

from razor.adapters.base import Adapter, Bench
from razor.errors import InputError
from razor.examples import evenly
from razor.memory import enough_memory, run_again
from razor.metrics import Evaluation
from razor.patches import Patch
from razor.replay import earliest_blocks
from razor.step import edited, edited_towers, evaluate
from razor.units import Slice, Unit

Progress = Callable[[int, int], None]  # model runs done, and in all

FOR, AGAINST = (230, 97, 1), (94, 60, 153)  # the ends of ColorBrewer's PuOr: safe for colour-blind readers
COVER = 0.85  # opacity of the strongest pixels of an overlay
EDGES = (0.0, 0.001, 0.01, 0.1, 1.0)  # gates between the first stretches of the integral
POINTS = 4  # Gauss-Legendre points of a stretch
TOLERANCE = 0.02  # share of the score's whole change that the stretches may leave unexplained
ADVICE = "Choose ablation, which keeps no graph, or load the model in half precision"  # where memory ran out
VALUES = r"\.(add_v_proj|v_proj|value|to_v|v)\."  # in the names of the parameters that make values


# ---------------------------------------------------------------- every head


@dataclass(frozen=True)
class GateAttribution:
    """How much of the concept's score each head is answerable for."""

    method: str  # integrated_gradients | ablation
    values: Mapping[str, float]  # unit name -> its share; under ablation, what closing its gate alone takes away
    full: float  # the score with every gate open: the model as it is
    closed: float  # the score with every gate shut
    error: float | None  # sum of the values - (full - closed); integrated gradients make it small, ablation has none
    seconds: float


class _Stopped(Exception):
    """Raised inside captum, which has no other way out."""


class _Score(nn.Module):
    """The concept's score as a module, so that functional_call can lend the model other weights."""

    def __init__(self, model: nn.Module, score: Callable[[Sequence[int]], Tensor]):
        super().__init__()
        self.model, self.score = model, score

    def forward(self, rows: Sequence[int]) -> Tensor:
        return self.score(rows)


class _Gates:
    """The score as a function of the gates, (1, L, H): a row per layer of either tower, a column per head.

    Args:
        score: of the pictures of these numbers, their mean.
        parts: numbers of all pictures; those of several parts are run part by part, and again for their gradient.
    """

    def __init__(
        self,
        model: nn.Module,
        units: Sequence[Unit],
        score: Callable[[Sequence[int]], Tensor],
        parts: Sequence[Sequence[int]],
    ):
        self.score, self.device = _Score(model, score), next(model.parameters()).device
        self.parts = parts
        rows = {place: i for i, place in enumerate(dict.fromkeys((u.tower, u.layer) for u in units))}
        self.places = [(rows[u.tower, u.layer], u.column) for u in units]
        self.shape = (1, len(rows), 1 + max(u.column for u in units))
        parameters = dict(model.named_parameters())
        self.weights = {u.slices[-1].parameter: parameters[u.slices[-1].parameter].detach() for u in units}
        self.columns = [u.slices[-1] for u in units]

    def __call__(self, gates: Tensor) -> Tensor:
        """(1, L, H) -> (1,)."""
        if len(self.parts) == 1:
            return self._of(gates, self.parts[0])
        found = [len(part) * run_again(self._of, gates, part) for part in self.parts]
        return torch.stack(found).sum(0) / sum(map(len, self.parts))

    def _of(self, gates: Tensor, rows: Sequence[int]) -> Tensor:
        factors = {name: weight.new_ones(weight.shape[1]) for name, weight in self.weights.items()}
        for where, (row, column) in zip(self.columns, self.places, strict=True):
            factors[where.parameter][where.start : where.stop] = gates[0, row, column]
        lent = {f"model.{name}": weight * factors[name] for name, weight in self.weights.items()}
        return functional_call(self.score, lent, (rows,)).reshape(1)

    def features(self) -> Tensor:
        """(1, L, H) of head numbers; places without a head join the first one, which they do not change."""
        numbers = torch.zeros(self.shape, dtype=torch.long, device=self.device)
        for i, (row, column) in enumerate(self.places):
            numbers[0, row, column] = i
        return numbers


@contextmanager
def _run_once(model: nn.Module) -> Iterator[None]:
    """For the length of the block no layer runs again for its gradient: the weights lent to it are gone by then."""
    again = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
    try:
        for module in again:
            module.gradient_checkpointing = False
        yield
    finally:
        for module in again:
            module.gradient_checkpointing = True


def head_gates(
    adapter: Adapter,
    bench: Bench,
    units: Sequence[Unit],
    *,
    method: str = "integrated_gradients",
    patch: Patch = Patch(),
    pictures: int = 16,
    steps: int = 64,
    progress: Progress = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> GateAttribution | None:
    """Share of the concept's mean score on the search split's forget pictures by head. Leaves the model as found.

    Args:
        units: those that are no head, or a key-value head that others share, are passed over.
        method: "integrated_gradients" along all gates from shut to open, or "ablation", shutting one at a time.
        pictures: forget pictures to average over, spread evenly over the split.
        steps: points on the way of the integral at most; fewer are used where they explain the score.
        stop: asked before every model run; True ends it all.

    Returns:
        None when stopped.

    Raises:
        InputError: no such method, or no head among the units.
        ModelError: memory ran out.
    """
    if method not in ("integrated_gradients", "ablation"):
        raise InputError(f"No attribution method {method!r}; choose integrated_gradients or ablation.")
    heads = [unit for unit in units if unit.kind == "head" and unit.slices[-1].dim == 1]  # those with an output
    if not heads:
        raise InputError("None of these units is an attention head; only heads have gates.")
    started, runs = time.monotonic(), 0
    most = 2 + (2 * steps if method == "integrated_gradients" else len(heads) + 1)
    rows = evenly(len(bench.task.forget.search), pictures)

    def score(gates: Tensor) -> Tensor:
        nonlocal runs
        if stop():
            raise _Stopped
        value = gated(gates)
        runs += 1
        progress(min(runs, most), most)
        return value

    try:
        with edited(adapter, bench, patch), _run_once(adapter.model), enough_memory("attributing to heads", ADVICE):
            parts = [[row] for row in rows] if adapter.reruns else [rows]
            gated = _Gates(adapter.model, heads, bench.concept_score, parts)
            opened = torch.ones(gated.shape, device=gated.device)
            full, closed = _value(score, opened), _value(score, 0 * opened)
            if method == "ablation":
                found = _ablation(score, opened, gated.features())
            else:
                found = _integral(score, opened, EDGES, steps, TOLERANCE * abs(full - closed))
    except _Stopped:
        return None
    progress(most, most)
    values = {unit.name: found[0, row, column].item() for unit, (row, column) in zip(heads, gated.places, strict=True)}
    error = sum(values.values()) - (full - closed) if method == "integrated_gradients" else None
    return GateAttribution(method, values, full, closed, error, time.monotonic() - started)


def _ablation(score: Callable[[Tensor], Tensor], opened: Tensor, features: Tensor) -> Tensor:
    """What shutting each gate alone takes away, (1, L, H)."""
    from captum.attr import FeatureAblation

    return FeatureAblation(score).attribute(opened, baselines=0, feature_mask=features)


@dataclass(frozen=True)
class _Stretch:
    """A part of the straight line from zero to a point, the same share of every number, and its integral."""

    low: float
    high: float
    found: Tensor  # (1, ...)
    error: float  # sum of `found` - the score's change along the stretch


def _integral(
    score: Callable[[Tensor], Tensor],
    end: Tensor,
    edges: Sequence[float],
    steps: int,
    enough: float,
    at_once: int = 1,
) -> Tensor:
    """Integrated gradients of a score on the way from zero to `end`, (1, ...).

    The score can leap on a short part of the way (where gates are all but shut), which evenly spread points miss. So
    the line is walked in stretches, and the one that explains its own change of score worst is halved, until the
    errors are small together.

    Args:
        edges: ends of the first stretches.
        steps: points at most.
        enough: error that may be left.
        at_once: points that `score` takes together.
    """
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(score)
    at = {edge: _value(score, edge * end) for edge in edges}

    def walk(low: float, high: float) -> _Stretch:
        with torch.enable_grad():
            found = method.attribute(
                high * end, baselines=low * end, n_steps=POINTS, internal_batch_size=min(at_once, POINTS)
            )
        return _Stretch(low, high, found.detach(), found.sum().item() - (at[high] - at[low]))

    stretches = [walk(low, high) for low, high in pairwise(edges)]
    while sum(abs(s.error) for s in stretches) > enough and (len(stretches) + 1) * POINTS <= steps:
        worst = max(stretches, key=lambda s: abs(s.error))
        middle = (worst.low + worst.high) / 2
        at[middle] = _value(score, middle * end)
        stretches.remove(worst)
        stretches += [walk(worst.low, middle), walk(middle, worst.high)]
    return torch.stack([s.found for s in stretches]).sum(0)


def _value(score: Callable[[Tensor], Tensor], gates: Tensor) -> float:
    with torch.no_grad():
        return score(gates).item()


# ---------------------------------------------------------------- every pixel


@dataclass(frozen=True)
class PixelAttribution:
    """Where in one picture the concept's similarity comes from, before the edit and after it."""

    method: str  # integrated_gradients | occlusion
    before: Tensor  # (H, W) of the picture as the model reads it; positive speaks for the concept
    after: Tensor
    scale: float  # one for both maps: values this far from zero get the full colour
    similarity_before: float  # cosine of the picture with the concept
    similarity_after: float


def pixel_attribution(
    adapter: Adapter, bench: Bench, picture: Image.Image, *, patch: Patch, method: str = "integrated_gradients"
) -> PixelAttribution:
    """Which pixels carry the similarity between the picture and the concept. Leaves the model as found.

    Args:
        method: "integrated_gradients" from a picture of zeros (the grey the model's normalisation calls average), or
            "occlusion", hiding one square at a time behind that grey.

    Raises:
        InputError: no such method.
    """
    _check_pixel_method(method)
    pixels = adapter.pixels([picture]).to(next(adapter.model.parameters()).device)
    maps, similarities = [], []
    for now in (Patch(), patch):
        with edited(adapter, bench, now):
            maps.append(_pixel_map(bench.similarity, pixels, method))
            with torch.no_grad():
                similarities.append(bench.similarity(pixels).item())
    return PixelAttribution(method, *maps, _full_colour(maps), *similarities)


def overlay(image: Image.Image, map: Tensor, scale: float) -> Image.Image:
    """The picture under a pixel map: orange speaks for the concept, purple against it, small values stay clear.

    Args:
        map: (H, W). A picture of another shape is cut to the centre, as models that read squares do.
        scale: value that gets the full colour.
    """
    height, width = map.shape
    side = max(1, min(image.width // width, image.height // height))
    base = ImageOps.fit(image.convert("RGB"), (side * width, side * height))
    strength = (map.float().cpu() / scale).clamp(-1, 1)
    colours = torch.where((strength > 0)[..., None], torch.tensor(FOR), torch.tensor(AGAINST)).to(torch.uint8)
    cover = Image.fromarray((strength.abs() * COVER * 255).to(torch.uint8).numpy()).resize(base.size, Image.BILINEAR)
    return Image.composite(Image.fromarray(colours.numpy()).resize(base.size, Image.NEAREST), base, cover)


def _check_pixel_method(method: str) -> None:
    if method not in ("integrated_gradients", "occlusion"):
        raise InputError(f"No attribution method {method!r}; choose integrated_gradients or occlusion.")


def _full_colour(maps: Sequence[Tensor]) -> float:
    """Value that gets the full colour: so high that few pixels go beyond it."""
    return torch.cat([m.abs().flatten() for m in maps]).quantile(0.995).item() or 1.0


def _pixel_map(similarity: Callable[[Tensor], Tensor], pixels: Tensor, method: str) -> Tensor:
    """(1, 3, H, W) -> (H, W): the sum over the colours; under occlusion they are hidden together and count once."""
    from captum.attr import IntegratedGradients, Occlusion

    if method == "integrated_gradients":
        with torch.enable_grad():
            found = IntegratedGradients(similarity).attribute(pixels, baselines=0, n_steps=32, internal_batch_size=16)
        return _smoothed(found[0].sum(0).detach().cpu())
    side = max(1, pixels.shape[-1] // 8)
    window, strides = (pixels.shape[1], side, side), (pixels.shape[1], max(1, side // 2), max(1, side // 2))
    found = Occlusion(similarity).attribute(pixels, window, strides=strides, baselines=0, perturbations_per_eval=32)
    return found[0].mean(0).cpu()


def _smoothed(map: Tensor) -> Tensor:
    """Every pixel's share spread over a square around it; the sum stays. One pixel of a gradient map means little."""
    size = map.shape[-1] // 32 * 2 + 1
    spread = lambda m: F.avg_pool2d(m[None, None], size, 1, size // 2)[0, 0]  # noqa: E731
    return spread(map / spread(torch.ones_like(map)))


# ---------------------------------------------------------------- one head


@dataclass(frozen=True)
class MovedPicture:
    """A picture whose embedding leans on the unit."""

    side: str  # forget | retain
    index: int  # of getattr(task, side), in the split looked at
    norm: float  # ||write||, on unit-length embeddings


@dataclass(frozen=True)
class MovedPrompt:
    """A prompt whose embedding leans on the unit."""

    axis: str
    name: str  # the class it stands for
    prompt: str
    norm: float


@dataclass(frozen=True)
class Word:
    """A class word beside the direction a unit writes in."""

    axis: str
    name: str
    cosine: float  # with the class embedding, centred within its axis


@dataclass(frozen=True)
class HeadCard:
    """What one unit does, found by switching it off.

        write(x) = embedding of x - embedding of x with the unit's output at zero

    That is its total effect: later blocks answer to the change as they would. A model without embeddings has no
    `write`: pictures, prompts and words are empty there.
    """

    unit: Unit
    before: Evaluation  # with the unit
    after: Evaluation  # switched off alone
    pictures: tuple[MovedPicture, ...]  # those that move most; () for a unit of the text tower
    prompts: tuple[MovedPrompt, ...]  # the same for a unit of the text tower
    shift: float | None  # ||mean write|| over the forget pictures, or over the concept's prompts
    nearest: tuple[Word, ...]  # class words along the mean write, nearest first
    farthest: tuple[Word, ...]  # the words it writes against, farthest first


def explain_head(
    adapter: Adapter, bench: Bench, unit: Unit, *, patch: Patch = Patch(), split: str = "search"
) -> HeadCard:
    """Switch one unit off and tell what changes. Works for heads, MLPs and layers; leaves the model as found."""
    base = evaluate(adapter, bench, Patch(), split)
    if not adapter.embeds:
        return _without_writes(adapter, bench, unit, patch, base, split)
    with edited(adapter, bench, patch):
        towers, first = edited_towers(adapter, patch), earliest_blocks(adapter, patch)
        before = bench.evaluate(split, towers, first) if patch.deltas else base
        words = bench.class_embeddings(towers, first)
        embedded = _embeddings(adapter, bench, unit.tower, split, towers, first)
        with _switched_off(adapter, unit) as off:
            towers, first = edited_towers(adapter, patch + off), earliest_blocks(adapter, patch + off)
            after = bench.evaluate(split, towers, first)
            write = embedded - _embeddings(adapter, bench, unit.tower, split, towers, first)
    about = _about_concept(bench, unit.tower, split)
    mean = write[about].mean(0)
    norms = write.norm(dim=1)
    ranked = _ranked_words(bench, words, mean)
    return HeadCard(
        unit,
        before,
        after,
        pictures=_moved_pictures(bench, split, norms) if unit.tower == "image" else (),
        prompts=_moved_prompts(bench, norms) if unit.tower == "text" else (),
        shift=mean.norm().item(),
        nearest=tuple(ranked[:5]),
        farthest=tuple(ranked[:-4:-1]),
    )


def _without_writes(adapter, bench, unit: Unit, patch: Patch, base: Evaluation, split: str) -> HeadCard:
    """The card of a model without embeddings: what switching the unit off does to the metrics."""
    before = evaluate(adapter, bench, patch, split) if patch.deltas else base
    with edited(adapter, bench, patch), _switched_off(adapter, unit) as off:
        after = bench.evaluate(split, edited_towers(adapter, patch + off))
    return HeadCard(unit, before, after, (), (), None, (), ())


@contextmanager
def _switched_off(adapter: Adapter, unit: Unit) -> Iterator[Patch]:
    """The model with the unit's output at zero: minus the weights, so that every bit comes back."""
    parameters = dict(adapter.model.named_parameters())
    off = Patch({s: -s.view(parameters[s.parameter]).detach().float().cpu() for s in _outputs(adapter, unit)})
    with off.applied(adapter.model):
        yield off


def _outputs(adapter: Adapter, unit: Unit) -> list[Slice]:
    """The last matrix of a head or an MLP is what it writes with; a layer writes with those of its parts.

    A text head of a joint attention writes to the picture through its values, whatever becomes of its own output; so
    does a key-value head that others share, which has none.
    """
    if unit.kind == "layer":
        parts = adapter.units(("head", "mlp"), (unit.tower,))
        return [where for part in parts if part.layer == unit.layer for where in _outputs(adapter, part)]
    shared = unit.kind == "head" and unit.slices[-1].dim == 0
    values = [s for s in unit.slices if re.search(VALUES if shared else r"\.add_v_proj\.", s.parameter)]
    return values or [unit.slices[-1]]


def _embeddings(adapter, bench, tower: str, split: str, towers: Sequence[str], first: Mapping[str, int]) -> Tensor:
    """Forget then retain pictures, or every prompt of every axis, (n, d)."""
    if tower == "text":
        return adapter.embed_texts([prompt for _, _, prompt in _prompts(bench)])
    return torch.cat([bench.picture_embeddings(side, split, towers, first) for side in ("forget", "retain")])


def _prompts(bench: Bench) -> list[tuple[str, str, str]]:
    """(axis, class, prompt) of every prompt of the task."""
    return [(a.name, name, prompt) for a in bench.task.axes for name, texts in a.prompts.items() for prompt in texts]


def _about_concept(bench: Bench, tower: str, split: str) -> list[int]:
    """Rows of `_embeddings` that are about the concept."""
    if tower == "image":
        return list(range(len(getattr(bench.task.forget, split))))
    concept = (bench.task.axis, bench.task.concept)
    return [i for i, (axis, name, _) in enumerate(_prompts(bench)) if (axis, name) == concept]


def _moved_pictures(bench: Bench, split: str, norms: Tensor, count: int = 6) -> tuple[MovedPicture, ...]:
    forget = len(getattr(bench.task.forget, split))
    order = norms.argsort(descending=True)[:count].tolist()
    places = [("forget", i) if i < forget else ("retain", i - forget) for i in order]
    return tuple(MovedPicture(*place, norms[i].item()) for place, i in zip(places, order, strict=True))


def _moved_prompts(bench: Bench, norms: Tensor, count: int = 6) -> tuple[MovedPrompt, ...]:
    prompts = _prompts(bench)
    return tuple(MovedPrompt(*prompts[i], norms[i].item()) for i in norms.argsort(descending=True)[:count].tolist())


def _ranked_words(bench: Bench, classes: Sequence[Tensor], direction: Tensor) -> list[Word]:
    """Class words by the cosine of their centred embeddings with a direction (d,), highest first.

    Centred axis by axis: what all styles share tells one style from another no better than it does an object.
    """
    found = []
    for axis, t in zip(bench.task.axes, classes, strict=True):
        cosines = F.normalize(t - t.mean(0), dim=1) @ F.normalize(direction, dim=0)
        found += [Word(axis.name, name, c) for name, c in zip(axis.classes, cosines.tolist(), strict=True)]
    return sorted(found, key=lambda word: -word.cosine)
