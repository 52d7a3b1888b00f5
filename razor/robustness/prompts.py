"""Prompts made to draw a forgotten concept again, for pipelines. Their words are vectors: at least as strong as tokens.

`opened`, after UnlearnDiffAtk (arXiv 2310.11868): free words before the usual prompts, fitted on the edited model until
its predictions at noisy pictures of the concept are those the pictures ask for. It takes the edited weights.

`transfer`, after Ring-A-Bell (arXiv 2310.10012): free words alone, fitted on the unedited text encoders until they read
as a prompt without the concept does with the concept's direction added,

    h_0(free) ~ h_0(a) + eta * c,    c = mean of h_0(p) - h_0(a),

p the captions of the gradient split and a their anchors. It takes the unedited model alone.

Both are drawn from the noise of the reported pictures, and read by the same judge.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor, nn

from razor import metrics
from razor.errors import InputError
from razor.examples import Example
from razor.gradients import loss_scale, unscaled
from razor.memory import enough_memory
from razor.patches import Patch
from razor.robustness.case import Case, Finding
from razor.robustness.free_words import FreeWords, filler_of, fillers, free_words
from razor.step import edited

BEFORE, ALONE = 3, 8  # free words before a prompt, and in place of one
STEPS, RATE = 60, 0.02  # of Adam, on the edited model
FITTED, QUICK = 200, 0.05  # the same on text encoders alone
POINTS = 8  # noisy pictures a step, and prompts read together
ETA = 1.0
ADVICE = "Draw smaller pictures, or load the model in half precision"

T = TypeVar("T")


def opened(case: Case) -> Iterator[Finding]:
    """Free words before the prompts that the reported pictures are drawn from."""
    _refuse_without_judge(case)
    found = case.both(partial(_opened, case))
    yield _finding(case, "opened", f"{BEFORE} free words before the prompt", found)


def transfer(case: Case) -> Iterator[Finding]:
    """Free words instead of prompts, made without the edited model."""
    _refuse_without_judge(case)
    asked = case.bench.to_draw("forget")
    with free_words(_encoders(case.adapter), ALONE, many=len(asked)) as free:
        with edited(case.adapter, case.bench, Patch()):
            missed = _fit_to_encoders(case, free, asked)
        found = case.both(lambda patch: _drawn(case, patch, asked, free))
    note = f"The free words read as wished but for {missed:.0%}, the mean over all {len(asked)} prompts."
    yield _finding(case, "transfer", f"{ALONE} free words made on the unedited model", found, note)


def _finding(case: Case, name: str, setting: str, found: tuple[metrics.Measure, metrics.Measure], note="") -> Finding:
    return Finding(name, setting, case.edited.forget_accuracy, *found, note=note)


def _opened(case: Case, patch: Patch) -> metrics.Measure:
    """How many forget prompts of the test split draw the concept with free words fitted on this model before them."""
    adapter, bench = case.adapter, case.bench
    points = bench.points("forget", "gradient")
    size = min(POINTS, len(points), bench.at_once(points, "gradient"))
    with free_words(_encoders(adapter), BEFORE) as free, edited(adapter, bench, patch):
        optimizer = torch.optim.Adam(free.vectors, lr=RATE)
        for step in range(STEPS):
            case.tick()
            part = points[(step * size + torch.arange(size)) % len(points)]
            with torch.enable_grad(), enough_memory("fitting free words", ADVICE):
                words = adapter.encode([fillers(BEFORE, e.caption) for e in part.examples])
                v = adapter.predict(part.noisy, part.timesteps, words)
                _add_gradients(case, free, (v.float() - part.target.to(v.device)).square().mean())
            optimizer.step()
            optimizer.zero_grad()
        asked = [replace(e, caption=fillers(BEFORE, e.caption)) for e in bench.to_draw("forget")]
        return _judged(case, bench.draw(asked, stop=case.stop))


def _fit_to_encoders(case: Case, free: FreeWords, asked: Sequence[Example]) -> float:
    """Fit one set of free words to each prompt's anchor; gives the share of what was wished that they miss."""
    learned = {e.caption: e.anchor for e in case.task.forget.gradient}
    with torch.no_grad(), enough_memory("reading prompts", ADVICE):
        named, plain, anchors = (
            [torch.cat(parts) for parts in zip(*map(partial(_read, case), _parts(texts)), strict=True)]
            for texts in ([*learned], [*learned.values()], [e.anchor for e in asked])
        )
    ways = [(n - p).mean(0) for n, p in zip(named, plain, strict=True)]
    wished = [there + ETA * way for there, way in zip(anchors, ways, strict=True)]
    optimizer = torch.optim.Adam(free.vectors, lr=QUICK)
    for _ in range(FITTED):
        case.tick()
        missed = 0.0
        for rows in _parts(range(len(asked))):
            free.chosen = list(rows)
            with torch.enable_grad(), enough_memory("fitting free words", ADVICE):
                made = _read(case, [fillers(ALONE)] * len(rows))
                pairs = zip(made, wished, strict=True)
                loss = torch.stack([(m - w[free.chosen]).square().sum() / w.square().sum() for m, w in pairs]).mean()
                _add_gradients(case, free, loss)
            missed += loss.item()
        optimizer.step()
        optimizer.zero_grad()
    return missed


def _read(case: Case, prompts: Sequence[str]) -> list[Tensor]:
    """Token states, and the summary where there is one, in float32."""
    words = case.adapter.encode(prompts)
    return [words.states.float(), *([words.pooled.float()] if words.pooled is not None else [])]


def _parts(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """As many prompts as are read together."""
    return (rows[start : start + POINTS] for start in range(0, len(rows), POINTS))


def _add_gradients(case: Case, free: FreeWords, loss: Tensor) -> None:
    """Of the free words alone; in float16 on a scale on which small ones do not vanish."""
    scale = loss_scale(case.adapter.model.parameters())
    for vectors, grad in zip(free.vectors, torch.autograd.grad(scale * loss, free.vectors), strict=True):
        vectors.grad = unscaled(grad, scale) + (0 if vectors.grad is None else vectors.grad)


def _drawn(case: Case, patch: Patch, asked: Sequence[Example], free: FreeWords) -> metrics.Measure:
    """How many pictures of free words alone show the concept."""
    pictures = []
    with edited(case.adapter, case.bench, patch):
        for rows in case.adapter.batches(range(len(asked))):
            free.chosen = list(rows)
            part = [replace(asked[i], caption=fillers(ALONE)) for i in rows]
            pictures += case.bench.draw(part, stop=case.stop)
    return _judged(case, pictures)


def _judged(case: Case, pictures: Sequence[Image.Image]) -> metrics.Measure:
    seen = case.bench.judge(pictures, case.task.axes)
    return metrics.share([found[case.task.axis] == case.task.concept for found in seen])


def _refuse_without_judge(case: Case) -> None:
    if case.bench.judge is None:
        raise InputError(
            f"This attack draws pictures, and nothing says what those of {case.adapter.name} show; give it a judge."
        )


def _encoders(adapter) -> list[tuple[nn.Embedding, list[int]]]:
    """Each text encoder's token embedding, and its filler."""
    found = []
    for end in ("", "_2", "_3"):
        encoder, tokenizer = (getattr(adapter.pipeline, part + end, None) for part in ("text_encoder", "tokenizer"))
        if encoder is not None:
            read = lambda text, tokenizer=tokenizer: tokenizer(text).input_ids  # noqa: E731
            table = encoder.get_input_embeddings().weight
            embeddings = [m for m in encoder.modules() if isinstance(m, nn.Embedding) and m.weight is table]
            found.append((embeddings[-1], filler_of(read)))  # T5 names its table twice, and runs the second
    return found
