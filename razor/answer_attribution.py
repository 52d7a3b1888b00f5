"""Which pixels speak for a name as the answer to a question about a picture, token by token.

    log p(name | picture, question) = sum over its tokens of log p(token | picture, question, tokens before it)

So the map of a name is the sum of its tokens' maps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from razor import attribution
from razor.adapters.answering import VlmBench
from razor.adapters.vlm import ADVICE, VlmAdapter
from razor.errors import ModelError
from razor.memory import enough_memory
from razor.patches import Patch
from razor.step import edited

EDGES = (0.0, 0.25, 0.5, 0.75, 1.0)  # contrasts of the picture between the first stretches of the integral
SQUARES = 8  # hidden squares that fit side by side into the short side of a picture; they overlap by half
TOGETHER = 16  # pictures with a square hidden, between two looks at whether to stop


@dataclass(frozen=True, eq=False)
class AnswerAttribution:
    """Where in one picture the concept's name comes from as the answer, before the edit and after it."""

    method: str  # integrated_gradients | occlusion
    question: str
    picture: Image.Image  # what the maps lie over: under integrated gradients the picture as the model reads it
    tokens: tuple[str, ...]  # of the name
    logprobs_before: tuple[float, ...]  # log-probability of each token after those before it, nats
    logprobs_after: tuple[float, ...]
    maps_before: Tensor  # (tokens, H, W); positive speaks for the token
    maps_after: Tensor
    scale: float  # one for all maps: values this far from zero get the full colour
    error: float | None  # nats by which a name's map misses its gain over a grey picture, the larger of both sides'

    @property
    def before(self) -> Tensor:
        """(H, W) for the whole name, whose log-probability is the sum of its tokens'."""
        return self.maps_before.sum(0)

    @property
    def after(self) -> Tensor:
        return self.maps_after.sum(0)

    @property
    def likely_before(self) -> float:
        """Log-probability of the whole name, nats."""
        return sum(self.logprobs_before)

    @property
    def likely_after(self) -> float:
        return sum(self.logprobs_after)


def answer_attribution(
    adapter: VlmAdapter,
    bench: VlmBench,
    picture: Image.Image,
    *,
    patch: Patch,
    method: str = "integrated_gradients",
    question: str | None = None,
    steps: int = 64,
    progress: attribution.Progress = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> AnswerAttribution | None:
    """Which pixels carry the log-probability of the concept's name as the answer. Leaves the model as found.

    Args:
        method: "integrated_gradients" from a picture of average grey, for models that read a whole picture as one
            array of pixels, or "occlusion", hiding one square of the picture at a time behind that grey, for all.
        question: what is asked about the picture; None: what asks for a class of the concept's axis.
        steps: points of an integral at most, for each token of the name; fewer are used where they explain the score.
        stop: asked between runs of the model; True ends it all.

    Returns:
        None when stopped.

    Raises:
        InputError: no such method, or a question that cannot be asked, see VlmAdapter.prompts.
        ModelError: integrated gradients on a model that reads a picture in parts, or memory ran out.
    """
    attribution._check_pixel_method(method)
    axis, asks = bench.task.axis, adapter.questions
    question = asks.ask(axis) if question is None else question
    name = asks.answer(axis, bench.task.concept)
    whole = method == "integrated_gradients"
    side = _Integrated(adapter, picture, question, name, steps) if whole else _Hidden(adapter, picture, question, name)
    runs, found = 0, []

    def ran(count: int) -> None:
        nonlocal runs
        if stop():
            raise attribution._Stopped
        progress(min(runs, 2 * side.most), 2 * side.most)
        runs += count

    try:
        for now in (Patch(), patch):
            with edited(adapter, bench, now):
                found.append((adapter.name_logprobs([picture], [question], name)[0], *side.maps(ran)))
    except attribution._Stopped:
        return None
    progress(2 * side.most, 2 * side.most)
    said, maps, errors = zip(*found, strict=True)
    return AnswerAttribution(
        method,
        question,
        side.picture,
        tuple(token for token, _ in said[0]),
        *(tuple(value for _, value in row) for row in said),
        *maps,
        attribution._full_colour([m.sum(0) for m in maps]),
        max(errors, key=abs) if whole else None,
    )


class _Integrated:
    """Integrated gradients from a grey picture to this one."""

    def __init__(self, adapter: VlmAdapter, picture: Image.Image, question: str, name: str, steps: int):
        self.adapter, self.ids, self.steps = adapter, adapter.answer_ids(name), steps
        (self.prompt,) = adapter.prompts([picture], [question], room=len(self.ids))
        pixels = self.prompt.picture.get("pixel_values")
        if pixels is None or pixels.ndim != 4 or len(pixels) != 1:
            raise ModelError(
                f"{adapter.name} reads a picture in parts, not as one array of pixels, so that no gradient can be "
                "followed back to the whole of it; choose occlusion."
            )
        self.pixels, self.picture = pixels, adapter.as_read(picture)
        self.most = len(self.ids) * (steps + steps // attribution.POINTS + 1) + 2

    def maps(self, ran: Callable[[int], None]) -> tuple[Tensor, float]:
        """(tokens, H, W), and how far their sum is from what the picture gains over the grey one."""

        def score(pixels: Tensor) -> Tensor:
            """(n, 3, H, W) -> (n, tokens)."""
            ran(len(pixels))
            rows = [replace(self.prompt, picture={**self.prompt.picture, "pixel_values": p[None]}) for p in pixels]
            said = self.adapter.token_logprobs(rows, self.adapter.features(rows), [self.ids] * len(rows))
            return torch.stack(said)

        count = len(self.ids)
        at_once = max(1, self.adapter.at_once // (len(self.prompt.ids) + count))
        with enough_memory("following a name back to the pixels", ADVICE):
            with torch.no_grad():
                gained = (score(self.pixels) - score(0 * self.pixels)).sum().item()
            enough = attribution.TOLERANCE * max(1.0, abs(gained)) / count
            made = [
                attribution._integral(lambda x, t=t: score(x)[:, t], self.pixels, EDGES, self.steps, enough, at_once)
                for t in range(count)
            ]
        found = torch.cat(made).sum(1).cpu()  # (tokens, H, W)
        return torch.stack([attribution._smoothed(m) for m in found]), found.sum().item() - gained


class _Hidden:
    """What hiding each square of the picture takes away; where squares overlap, their mean."""

    def __init__(self, adapter: VlmAdapter, picture: Image.Image, question: str, name: str):
        self.adapter, self.picture, self.asked = adapter, picture.convert("RGB"), (question, name)
        mean = getattr(adapter.processor.image_processor, "image_mean", None) or (0.5,) * 3
        self.grey = tuple(round(255 * part) for part in mean)
        width, height = picture.size
        short = min(2 * SQUARES, width, height)
        self.shape = tuple(round(short * side / min(width, height)) for side in (height, width))  # half squares
        self.squares = [(y, x) for y in range(max(1, self.shape[0] - 1)) for x in range(max(1, self.shape[1] - 1))]
        self.most = len(self.squares)

    def maps(self, ran: Callable[[int], None]) -> tuple[Tensor, None]:
        """(tokens, h, w) of half squares; there is nothing they should add up to."""
        (full,) = self._said([self.picture])
        lost = []
        for start in range(0, len(self.squares), TOGETHER):
            part = self.squares[start : start + TOGETHER]
            ran(len(part))
            lost += [full - said for said in self._said([self._without(*square) for square in part])]
        sums, times = torch.zeros(len(full), *self.shape), torch.zeros(self.shape)
        for (y, x), gone in zip(self.squares, lost, strict=True):
            sums[:, y : y + 2, x : x + 2] += gone[:, None, None]
            times[y : y + 2, x : x + 2] += 1
        return sums / times, None

    def _said(self, pictures: Sequence[Image.Image]) -> Tensor:
        """(n, tokens) log-probabilities of the name's tokens."""
        question, name = self.asked
        rows = self.adapter.name_logprobs(pictures, [question] * len(pictures), name)
        return torch.tensor([[value for _, value in row] for row in rows])

    def _without(self, y: int, x: int) -> Image.Image:
        """The picture with four half squares hidden, of which this is the first."""
        hidden = self.picture.copy()
        (height, width), (rows, columns) = (hidden.height, hidden.width), self.shape
        place = lambda i, cells, size: round(min(i, cells) * size / cells)  # noqa: E731
        left, right = (place(i, columns, width) for i in (x, x + 2))
        top, bottom = (place(i, rows, height) for i in (y, y + 2))
        ImageDraw.Draw(hidden).rectangle((left, top, right - 1, bottom - 1), fill=self.grey)
        return hidden
