"""One forgetting task on one diffusion pipeline: losses, the cheap search metrics, and drawn pictures at the end.

Predictions of the denoiser are compared at fixed points: a picture's latents, a noise and a noise level. With v_0 the
frozen model's prediction, p a prompt, a its anchor (the prompt without the forgotten thing) and E the mean squared
distance of v_0(p) and v_0(a), the terms are

    A_f = - mean |v(p) - v_0(a) - b (v_0(a) - v_0(p))|^2 / E
          - mean(1 - cos(h(p), h_0(a)))                                 ascended; h: token states of an edited encoder
    R   = mean |v(p) - target|^2                                        denoising, on retain pictures
    M   = mean |v(p) - v_0(p)|^2 / E                                    on retain prompts and anchors

with b = PUSH: an anchor such as "an object" may be drawn as the forgotten thing by chance, so predictions go a little
beyond it.

A step search that drew pictures would take minutes, so inside it the same predictions stand in for them: what remains
of a concept at a point is rho = <v(p) - v_0(a), v_0(p) - v_0(a)> / |v_0(p) - v_0(a)|^2, 1 in the frozen model and 0
where it predicts as for the anchor; a retained prompt is kept where v(p) lies nearer to v_0(p) than to what v_0 says
to any similar prompt. How far token states moved is not counted beside that: whatever it does to a picture is in the
prediction. Pictures are drawn to confirm a round and to report, the reported ones of prompts in sentences that no
gradient was taken on, where there are such. In a round, pictures overrule predictions both ways: where they still show
the concept less of it may remain, and where they show none as much may remain as does.
"""

import copy
import math
import random
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from razor import metrics, processes
from razor.adapters.base import GLANCE, Terms
from razor.errors import InputError, ModelError, Stopped
from razor.examples import Example, Task, varied, varied_beside
from razor.memory import enough_memory, in_parts
from razor.metrics import Evaluation
from razor.minicanvas import tasks
from razor.patches import Patch

if TYPE_CHECKING:
    from razor.adapters.diffusion import DiffusionAdapter, Words

# split -> (forget pictures, retain pictures, noise levels a forget picture, a retain picture) predictions are made at
POINTS = {"gradient": (48, 96, 2, 2), "search": (20, 64, 2, 1)}
LEVELS = (0.25, 1.0)  # noise levels looked at: below, the picture is settled; at 1 drawing begins
RECALLED = (0.3, 0.5, 0.7)  # noise levels at which it is asked how well a picture is known
RIVALS = 3  # similar prompts a retained prediction is told from
EVAL_BATCH = 32  # points, or prompts, per forward without a gradient, where they are small
# Numbers of the denoiser's first layer over all points in one forward: with a gradient, of small pictures and where the
# denoiser's blocks run again for it, and without. Of Stable Diffusion 1.5 at 512 pixels "rerun" is two points, "search"
# eight. Points beyond that run again as a whole, since even a block's inputs add up over many.
AT_ONCE = {"gradient": 2**12 * 320, "rerun": 2**13 * 320, "search": 2**15 * 320}
SURENESS = 12.0  # steepness at the bar: a concept remaining at three quarters of it counts as 5 % still there
DRAWN = {"forget": 24, "retain": 48}  # pictures behind reported numbers, where there are so many prompts
CONFIRMED = 20  # pictures drawn before a round may say that the target is met, at half the usual steps
FEW = 8  # pictures that show what the unedited model draws, where every one of them has it
CHANCE = 0.05  # how often a judge that has to guess may see a forgotten concept more often than is tolerated
PUSH = 0.25  # how far beyond the anchor, away from the concept, predictions are sent
FAINT = 0.5  # of a concept in a guided prediction counts as gone
HALF = 0.5  # of a concept in a prediction: whatever pictures show, it is not gone
SETTLED = 0.75  # share of the bar below which what remains counts as gone for sure
TIGHTER = 0.6  # the bar falls to this share of itself where drawn pictures still show the concept
ADVICE = "Take smaller or fewer pictures, or load the model in half precision"  # where memory ran out
KEPT = 256 * 2**20  # bytes of predictions kept of edits evaluated lately


@dataclass(frozen=True)
class Points:
    """Where predictions are compared."""

    examples: tuple[Example, ...]  # one a point
    noisy: Tensor  # (n, c, h, w)
    timesteps: Tensor  # (n,)
    target: Tensor  # (n, c, h, w): what the denoiser was trained to predict here

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, rows: Tensor) -> "Points":
        chosen = tuple(self.examples[i] for i in rows.tolist())
        return Points(chosen, self.noisy[rows], self.timesteps[rows], self.target[rows])


@dataclass(frozen=True)
class Drawn:
    """Pictures of one set, and what the judge saw in each, axis by axis."""

    pictures: Sequence[Image.Image]
    seen: Sequence[Mapping[str, str]]


class DiffusionBench:
    """One task on one pipeline; the frozen model's predictions are made once.

    Evaluate a split unedited before evaluating it edited: that is when the frozen answers are recorded.
    """

    slow_towers: tuple[str, ...] = ()
    recalls = "how well it predicts their noise when asked for {}"
    says = ("The concept is still predicted: from", "retained prompts kept: from")
    retain_weight = 1.0
    spared, mends = 0, False

    def __init__(
        self,
        adapter: "DiffusionAdapter",
        task: Task,
        *,
        batch: int,
        mismatch_weight: float,
        seed: int,
        beneath: Patch,
    ):
        self._as_told = task.forget  # captions of all splits alike
        self.task = task = tasks.in_many_ways(task, {split: wanted[:2] for split, wanted in POINTS.items()})
        self.adapter, self.batch, self.seed, self.beneath = adapter, batch, seed, beneath
        self.mismatch_weight = mismatch_weight
        self.aim = task.chance / 2  # leaves room for new pictures
        self.axis = next(axis for axis in task.axes if axis.name == task.axis)
        self.neighbours = task.neighbours
        readable = adapter.judge is not None and adapter.judge.reads(task.axes)
        self.judge = adapter.judge if readable else None
        # The bar: how much of the concept may remain at a point. Guidance draws so many times as much of it.
        self.measure = self._bar = FAINT / max(1.0, adapter.guidance)
        self.unedited: dict[Hashable, Any] = {}
        self._frozen_words: dict[str, Words] = {}
        self._points: dict[tuple[str, str], Points] = {}
        self._rivals: dict[tuple[str, str], Tensor] = {}  # (n, k, c, h, w): v_0 of each point's own prompt, then others
        self._lately: OrderedDict[tuple, Tensor] = OrderedDict()
        self._watched: tuple[Callable, Callable] = (lambda done, total: None, lambda: False)
        self.pictures: dict[str, dict[str, list[Image.Image]]] = {}  # "original" or "edited" -> side -> drawn last
        self._originals: dict[str, Drawn] = {}  # by side
        with enough_memory("encoding the examples", ADVICE):
            forget, retain = self.points("forget", "gradient"), self.points("retain", "gradient")
            self._concept = self._predicted(forget, _captions(forget))
            self._anchor = self._predicted(forget, _anchors(forget))
            self._kept = self._predicted(retain, _captions(retain))
        self.effect = (self._concept - self._anchor).square().mean().item()
        if self.effect == 0 or all(self._ids(e.caption) == self._ids(e.anchor) for e in forget.examples):
            raise self._nothing_to_forget(forget.examples)

    def another(self) -> "DiffusionBench":
        """See Bench."""
        made = copy.copy(self)
        made.measure, made._lately, made.pictures = self._bar, OrderedDict(), {}
        made._watched = lambda done, total: None, lambda: False
        return made

    # What the method asks for

    def scoring_terms(self, draw: int = 0) -> Terms:
        """A_f and R over two batches of forget points and of retain points of the gradient split.

        Args:
            draw: 0 the fixed points; any other number as many, drawn with replacement.
        """
        choose = self._redraw if draw else self._draw
        forget_rows = choose(len(self._concept), 2 * self.batch, f"score/forget/{draw}" if draw else "score/forget")
        rows = choose(len(self._kept), 2 * self.batch, f"score/{draw}" if draw else "score")
        return {
            "forget": lambda: self._alignment(forget_rows),
            "retain": lambda: self._retain(rows),
        }

    def step_terms(self, step: int, edited: Sequence[str] | None = None) -> Terms:
        """A_f and R + lambda_m * M on fresh batches of the gradient split's points."""
        forget_rows = self._draw(len(self._concept), max(2, self.batch // 2), f"forget/{step}")
        rows = self._draw(len(self._kept), self.batch, f"retain/{step}")
        return {
            "forget": lambda: self._alignment(forget_rows, edited),
            "keep": lambda: self._retain(rows, forget_rows[: len(forget_rows) // 2], edited),
        }

    def evaluate(
        self,
        split: str,
        edited: Sequence[str] | None = None,
        first: Mapping[str, int] | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> Evaluation:
        """Search metrics from predictions; on "test" the same numbers counted on drawn pictures where a judge sees."""
        edited = tuple(self.adapter.towers) if edited is None else edited
        if split == "test" and self.judge is not None:
            return self._pictured(edited)
        split = "search" if split == GLANCE else split
        with enough_memory("measuring", ADVICE):
            retain = self.points("retain", split)
            v_forget, v_retain = (self._now(side, split, edited, keys) for side in ("forget", "retain"))
            concept, anchor = self._rivals_of("forget", split)[:, 0], self._rivals_of("forget", split)[:, 1]
        left = remaining(v_forget, concept, anchor)
        most = _by_picture(left)
        right, gap = self._right("retain", split, v_retain), self._gap(v_retain, self._rivals_of("retain", split)[:, 0])
        near = {name: self._with_class(retain, name) for name in self.neighbours}
        beside = torch.stack(list(near.values())).any(0) if near else torch.zeros(len(retain), dtype=torch.bool)
        apart = self._rivals_of("forget", split)[:, 1:]
        others = self._nearest(v_forget, apart) == 0 if apart.shape[1] > 1 else None
        return Evaluation(
            forget_accuracy=metrics.share(most > self.measure),
            forget_probability=metrics.mean(still_there(most, self.measure)),
            retain_accuracy=metrics.share(right),
            neighbor_accuracy=metrics.share(right[beside]) if beside.any() else None,
            cross_accuracy=metrics.share(others) if others is not None else None,
            retrieval_stability=None,
            prediction_stability=metrics.mean(1 - gap.clamp(max=1)),
            association=left.mean().item(),
            by_neighbor={name: metrics.share(right[rows]) for name, rows in near.items() if rows.any()},
        )

    @property
    def read_by(self) -> str:
        """Who says what the reported numbers rest on."""
        return self.judge.name if self.judge else "predictions at fixed noise levels, as no judge looked at pictures"

    def knows(self, base: Evaluation) -> bool:
        """The unedited model draws the concept, as far as there is a judge to say so."""
        if self.judge is None:
            return True
        seen = self._still_drawn(which=slice(FEW))
        if not all(seen):
            seen += self._still_drawn(which=slice(FEW, CONFIRMED))
        return sum(seen) > self.task.chance * len(seen)

    def confirm(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Whether drawn pictures bear the search metrics out; where they do not, less of the concept may remain.

        Call with the model edited. Draws pictures of forget prompts of the search split. None may show the concept; a
        judge that has to name something, such as CLIP, may see it as often as guessing would.
        """
        if self.judge is None or self._gone(stop):
            return True
        self.measure *= TIGHTER
        return False

    def relent(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Whether drawn pictures show nothing of the concept though predictions still lean towards it.

        Then as much as remains here may remain. Where a given class stands in, predictions that lean a fifth of the way
        back to the concept still draw the stand-in. Call with the model edited.
        """
        if self.judge is None:
            return False
        concept, anchor = self._rivals_of("forget", "search")[:, :2].unbind(1)
        now = self._now("forget", "search", tuple(self.adapter.towers), None)
        most = _by_picture(remaining(now, concept, anchor)).max().item()
        if most > HALF or not self._gone(stop):
            return False
        self.measure = most / SETTLED
        return True

    def _gone(self, stop: Callable[[], bool]) -> bool:
        """No picture drawn now of a few forget prompts shows the concept, but for what a guessing judge may see."""
        seen = self._still_drawn(stop)
        return sum(seen) <= (tolerated(len(seen), self.task.chance) if self.judge.guesses else 0)

    def concept_score(self, rows: Sequence[int]) -> Tensor:
        """Mean share of the concept that remains at a point for each of these forget pictures of the search split.

        A scalar with a graph. The points do not take in every picture; one without has that of a picture near it.
        """
        whole, pictures = self.points("forget", "search"), len(self.task.forget.search)
        chosen = torch.tensor([row * len(whole) // pictures for row in rows])
        points, rivals = whole[chosen], self._rivals_of("forget", "search")[chosen]
        v = self._predict(points, self._words(_captions(points), tuple(self.adapter.towers)))
        concept, anchor = rivals[:, 0].to(v.device), rivals[:, 1].to(v.device)
        return remaining(v, concept, anchor).mean()

    @torch.no_grad()
    def recall(self, split: str) -> Tensor:
        """Less the mean squared denoising error of some forget pictures at RECALLED noise levels, (n,)."""
        examples = getattr(self._as_told, split)
        chosen = [examples[i] for i in varied(examples, POINTS["gradient"][0])]
        repeated = tuple(e for e in chosen for _ in RECALLED)
        clean = self.adapter.latents([e.image for e in chosen]).repeat_interleave(len(RECALLED), 0)
        generator = torch.Generator().manual_seed(random.Random(f"{self.seed}/recall/{split}").getrandbits(40))
        noise, levels = torch.randn(clean.shape, generator=generator), torch.tensor(RECALLED).repeat(len(chosen))
        points = Points(repeated, *self.adapter.noised(clean, noise, levels))
        v = self._predicted(points, _captions(points), tuple(self.adapter.towers))
        return -(v - points.target).square().flatten(1).mean(1).reshape(len(chosen), -1).mean(1)

    # Pictures

    @contextmanager
    def watch(self, on_picture: Callable[[int, int], None], stop: Callable[[], bool]) -> Iterator[None]:
        """Tell of the pictures drawn to evaluate the test split, for the length of the block, and let a person stop.

        Args:
            on_picture: called with how many pictures are drawn and how many there will be.
            stop: asked after every step of a drawing; True raises Stopped.
        """
        before, self._watched = self._watched, (on_picture, stop)
        try:
            yield
        finally:
            self._watched = before

    def draw(
        self,
        asked: Sequence[Example],
        steps: int | None = None,
        on_picture: Callable[[int, int], None] = lambda done, total: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> list[Image.Image]:
        """Pictures of the captions, each from the noise its source names; with the model as it is now.

        Raises:
            Stopped: `stop` said so before all were drawn.
        """
        from razor.adapters.diffusion import seeds_for

        def draw(mine: Sequence[Example]) -> list[Image.Image]:
            pictures: list[Image.Image] = []
            for part in self.adapter.batches(mine):
                made = self.adapter.draw(
                    [e.caption for e in part], seeds_for([e.source for e in part], self.seed), steps=steps, stop=stop
                )
                if len(made) < len(part):
                    raise Stopped("Stopped before all pictures were drawn; nothing was changed.")
                pictures += made
                on_picture(len(pictures), len(mine))
            return pictures

        return processes.share_list(asked, draw)

    def take_originals(self, other: "DiffusionBench") -> None:
        """Take over what a bench that reports on the same prompts drew unedited, so that it is not drawn again."""
        if other._originals and self._asked() == other._asked():
            self._originals = other._originals

    def _asked(self) -> tuple:
        """What the reported pictures of the unedited model depend on."""
        asked = [(e.caption, e.source) for side in DRAWN for e in self.to_draw(side)]
        return self.seed, self.beneath.key(), asked, self.judge, self.task.axes

    def _still_drawn(self, stop: Callable[[], bool] = lambda: False, which: slice | None = None) -> list[bool]:
        """Whether the judge sees the concept now, in each of these pictures of forget prompts, or in a few."""
        first: dict[str, Example] = {}
        again = [e for e in self.task.forget.search if first.setdefault(e.caption, e) is not e]
        asked = [*first.values(), *again][which or slice(CONFIRMED)]  # every caption once before any comes again
        pictures = self.draw(asked, steps=self.adapter.quick_steps, stop=stop)
        return [found[self.task.axis] == self.task.concept for found in self.judge(pictures, self.task.axes)]

    def to_draw(self, side: str) -> list[Example]:
        """The prompts whose pictures the reported numbers are read from, each with the noise its source names."""
        examples = getattr(self.task, side).test
        chosen = [examples[i] for i in varied(examples, DRAWN[side])]
        return [tasks.in_unseen_words(e, turn) for turn, e in enumerate(chosen)]

    def _pictured(self, edited: Sequence[str]) -> Evaluation:
        """The reported numbers: what the judge sees in pictures drawn from test prompts.

        UnlearnCanvas's three: unlearning accuracy (pictures of the concept that no longer show it), in-domain retain
        accuracy (other classes of its axis) and cross-domain retain accuracy (the other axes, forget prompts included).
        """
        sides = {side: self.to_draw(side) for side in DRAWN}
        found = {} if edited else self._originals
        if not found:
            on_picture, stop = self._watched
            pictures = self.draw([*sides["forget"], *sides["retain"]], on_picture=on_picture, stop=stop)
            cut = len(sides["forget"])
            drawn = {"forget": pictures[:cut], "retain": pictures[cut:]}
            # In place: what is found of the original is kept for all.
            found.update({side: Drawn(mine, self.judge(mine, self.task.axes)) for side, mine in drawn.items()})
        self.pictures["edited" if edited else "original"] = {side: drawn.pictures for side, drawn in found.items()}
        own, concept = self.task.axis, self.task.concept
        shown = [seen[own] == concept for seen in found["forget"].seen]
        pairs = {side: list(zip(sides[side], found[side].seen, strict=True)) for side in sides}
        hits = lambda side, axes: [  # noqa: E731
            seen[axis] == e.labels[axis] for e, seen in pairs[side] for axis in axes if axis in e.labels
        ]
        others = [axis.name for axis in self.task.axes if axis.name != own]
        near = {
            name: [seen[own] == name for e, seen in pairs["retain"] if e.labels.get(own) == name]
            for name in self.neighbours
        }
        beside = [hit for found_hits in near.values() for hit in found_hits]
        cross = hits("forget", others)
        return Evaluation(
            forget_accuracy=metrics.share(shown),
            forget_probability=metrics.share(shown),
            retain_accuracy=metrics.share(hits("retain", [own, *others])),
            neighbor_accuracy=_counted(beside),
            cross_accuracy=_counted(cross),
            retrieval_stability=None,
            unlearning_accuracy=metrics.share([not hit for hit in shown]),
            in_domain_retain_accuracy=_counted(hits("retain", [own])),
            cross_domain_retain_accuracy=_counted(hits("retain", others) + cross),
            by_neighbor={name: metrics.share(found_hits) for name, found_hits in near.items() if found_hits},
        )

    # Losses

    def _alignment(self, rows: Tensor, edited: Sequence[str] | None = None) -> Tensor:
        """A_f at these forget points; see the module's head."""
        points = self.points("forget", "gradient")[rows]
        edited = tuple(self.adapter.towers) if edited is None else edited
        words = self._words(_captions(points), edited)
        away = self._anchor[rows] + PUSH * (self._anchor[rows] - self._concept[rows])
        (gap,) = self._gaps(points, words, away)
        loss = -gap / self.effect
        if any(tower.startswith("text") for tower in edited):
            frozen = self._frozen(_anchors(points)).states.to(words.states.device)
            loss = loss - token_distance(words.states, frozen, self._matched(points)).mean().to(loss.device)
        return loss

    def _retain(self, rows: Tensor, beside: Tensor | None = None, edited: Sequence[str] | None = None) -> Tensor:
        """R at these retain points; with `beside`, forget points, also M at both, there with the anchor as prompt."""
        points = self.points("retain", "gradient")[rows]
        edited = tuple(self.adapter.towers) if edited is None else edited
        loss, drift = self._gaps(points, self._words(_captions(points), edited), points.target, self._kept[rows])
        if beside is None or self.mismatch_weight == 0:
            return loss
        anchored = self.points("forget", "gradient")[beside]
        (off,) = self._gaps(anchored, self._words(_anchors(anchored), edited), self._anchor[beside])
        return loss + self.mismatch_weight * (drift + off) / self.effect

    def _gaps(self, points: Points, words: "Words", *goals: Tensor) -> Tensor:
        """Mean squared distances of the predictions at these points from each of the goals, (goals,).

        Points that do not fit into memory together are run again when their gradient is asked for.
        """

        def gaps(part: Tensor) -> Tensor:
            v = self._predict(points[part], words[part])
            return torch.stack([(v - goal[part].to(v.device)).square().flatten(1).mean(1) for goal in goals], 1)

        rows, size = torch.arange(len(points)), self.at_once(points, "gradient")
        return processes.share(rows, lambda mine: in_parts(mine, size, gaps)).T.contiguous().mean(1)

    def at_once(self, points: Points, kind: str) -> int:
        """Points in one forward, with a gradient ("gradient") or without ("search")."""
        kind = "rerun" if kind == "gradient" and self.adapter.reruns else kind
        return max(1, AT_ONCE[kind] // (points.noisy[0, 0].numel() * self.adapter.width))

    # Points and predictions

    def points(self, side: str, split: str) -> Points:
        """The points of one set of a split, each with a noise and a level of its own."""
        if (side, split) not in self._points:
            forget_n, retain_n, *draws = POINTS["gradient" if split == "gradient" else "search"]
            most, draws = (forget_n, draws[0]) if side == "forget" else (retain_n, draws[1])
            examples = getattr(getattr(self.task, side), split)
            chosen = [examples[i] for i in self._chosen(side, examples, most)]
            repeated = tuple(e for e in chosen for _ in range(draws))
            clean = self.adapter.latents([e.image for e in chosen]).repeat_interleave(draws, 0)
            rng = random.Random(f"{self.seed}/{side}/{split}")
            generator = torch.Generator().manual_seed(rng.getrandbits(40))
            noise = torch.randn(clean.shape, generator=generator)
            low, high = LEVELS
            spread = [low + (high - low) * (i + 0.5) / len(repeated) for i in range(len(repeated))]
            rng.shuffle(spread)
            self._points[side, split] = Points(repeated, *self.adapter.noised(clean, noise, torch.tensor(spread)))
        return self._points[side, split]

    def _chosen(self, side: str, examples: Sequence[Example], most: int) -> list[int]:
        """Of every kind some; of retain pictures many from the neighbours."""
        if side == "forget":
            return varied(examples, most)
        return varied_beside(examples, most, self.task.axis, self.neighbours)

    def _rivals_of(self, side: str, split: str) -> Tensor:
        """v_0 at every point for its own prompt, then for the prompts it is told from: (n, k, c, h, w)."""
        if (side, split) not in self._rivals:
            points = self.points(side, split)
            own = _captions(points)
            if side == "forget":
                columns = [own, _anchors(points), *_others(_anchors(points), 1)]
            else:
                known = {e.caption: e.labels for e in (*points.examples, *self.points("forget", split).examples)}
                # The same said in other words is no other prompt: its prediction is nearly the same.
                told = [_similar(e.caption, [p for p in known if known[p] != e.labels]) for e in points.examples]
                columns = [own, *(list(column) for column in zip(*told, strict=True))]
            found = [self._predicted(points, prompts) for prompts in columns]
            self._rivals[side, split] = torch.stack(found, 1)
        return self._rivals[side, split]

    def _now(self, side: str, split: str, edited: Sequence[str], keys: Mapping[str, str] | None) -> Tensor:
        """v at every point for its own prompt, as the model is now."""
        if not edited:
            return self._rivals_of(side, split)[:, 0]
        place = (side, split, tuple(sorted((keys or {}).items())))
        if not keys or place not in self._lately:
            points = self.points(side, split)
            found = self._predicted(points, _captions(points), edited)
            if not keys:
                return found
            self._lately[place] = found
            while len(self._lately) > 2 and sum(kept.nbytes for kept in self._lately.values()) > KEPT:
                self._lately.popitem(last=False)
        return self._lately[place]

    @torch.no_grad()
    def _predicted(self, points: Points, prompts: Sequence[str], edited: Sequence[str] = ()) -> Tensor:
        """v at the points for these prompts, on the CPU.

        Raises:
            ModelError: predictions are NaN or infinite.
        """
        words = self._words(prompts, edited)

        def predict(mine: Tensor) -> Tensor:
            rows = mine.split(min(EVAL_BATCH, self.at_once(points, "search")))
            return torch.cat([self._predict(points[part], words[part]).cpu() for part in rows])

        found = processes.share(torch.arange(len(points)), predict)
        if not found.isfinite().all():
            what = "The denoiser's predictions came out as NaN or infinite"
            raise overflowed(what, self.adapter.name, self.adapter.dtype, self.adapter.model)
        return found

    def _predict(self, points: Points, words: "Words") -> Tensor:
        return self.adapter.predict(points.noisy, points.timesteps, words)

    def _words(self, prompts: Sequence[str], edited: Sequence[str]) -> "Words":
        """The prompts as the denoiser reads them now; with a graph where a text encoder is edited."""
        if not any(tower.startswith("text") for tower in edited):
            return self._frozen(prompts)
        unique = list(dict.fromkeys(prompts))
        return self.adapter.encode(unique)[torch.tensor([unique.index(p) for p in prompts])]

    def _frozen(self, prompts: Sequence[str]) -> "Words":
        """The prompts as the frozen encoders give them; each encoded once, before anything is edited."""
        new = [p for p in dict.fromkeys(prompts) if p not in self._frozen_words]
        if new:
            with torch.no_grad():
                for start in range(0, len(new), EVAL_BATCH):
                    part = new[start : start + EVAL_BATCH]
                    made = self.adapter.encode(part)
                    self._frozen_words |= {p: made[i : i + 1].to(torch.device("cpu")) for i, p in enumerate(part)}
        chosen = [self._frozen_words[p] for p in prompts]
        pooled = None if chosen[0].pooled is None else torch.cat([w.pooled for w in chosen])
        return replace(chosen[0], states=torch.cat([w.states for w in chosen]), pooled=pooled)

    def _matched(self, points: Points) -> Tensor:
        """For each token of a point's caption, which token of its anchor stands beside it, (n, tokens)."""
        return torch.stack([self._match(e.caption, e.anchor) for e in points.examples])

    def _match(self, prompt: str, anchor: str) -> Tensor:
        pairs = []
        for ids in zip(self._ids(prompt), self._ids(anchor), strict=True):
            start = sum(map(len, pairs))
            pairs.append([start + i for i in matched(*ids)])
        return torch.tensor([i for part in pairs for i in part])

    def _nothing_to_forget(self, examples: Sequence[Example]) -> InputError:
        concept = self.task.concept
        for e in examples:
            if left := self.adapter.cut(e.caption):
                return InputError(
                    f"The forget caption {e.caption!r} is too long: the model does not read {left!r}, and what it "
                    f"reads does not tell {concept!r} from its anchor. Shorten the captions, or name {concept!r} first."
                )
        return InputError(
            f"Every forget caption is its own anchor, such as {examples[0].caption!r}: nothing is left to forget. Name "
            f"{concept!r} in the captions, or give another anchor."
        )

    def _ids(self, text: str) -> list[list[int]]:
        """The tokens of each stretch of the states, padded; what is too long is cut."""
        return [
            tokenizer(text, padding="max_length", max_length=length, truncation=True).input_ids
            for tokenizer, length in self.adapter.tokenizers()
        ]

    # Metrics

    def _right(self, side: str, split: str, v: Tensor) -> Tensor:
        """Whether each prediction lies nearest to what the frozen model says to its own prompt."""
        return self._nearest(v, self._rivals_of(side, split)) == 0

    @staticmethod
    def _nearest(v: Tensor, rivals: Tensor) -> Tensor:
        return (v[:, None] - rivals).square().flatten(2).sum(2).argmin(1)

    def _gap(self, v: Tensor, frozen: Tensor) -> Tensor:
        """|v - v_0|^2 as a share of what a changed prompt moves, (n,)."""
        return (v - frozen).square().flatten(1).mean(1) / self.effect

    def _with_class(self, points: Points, name: str) -> Tensor:
        return torch.tensor([e.labels.get(self.task.axis) == name for e in points.examples])

    # Drawing lots

    def _draw(self, n: int, size: int, key: str) -> Tensor:
        return torch.tensor(random.Random(f"{self.seed}/{key}").sample(range(n), min(n, size)))

    def _redraw(self, n: int, size: int, key: str) -> Tensor:
        """As many rows as `_draw`, with replacement."""
        return torch.tensor(random.Random(f"{self.seed}/{key}").choices(range(n), k=min(n, size)))


def overflowed(what: str, name: str, dtype: torch.dtype, *networks: torch.nn.Module) -> ModelError:
    """What to do where pictures or predictions hold NaN.

    Args:
        what: as in "... in float16: the numbers grew too large".
        networks: all that took part.
    """
    if not all(p.isfinite().all() for network in networks for p in network.parameters()):
        return ModelError(f"{what}: the weights of {name} hold NaN or infinite values. Use another copy of the model.")
    ways = {torch.float16: "load the model in float32 or bfloat16", torch.bfloat16: "load the model in float32"}
    way = ways.get(dtype, "use another copy of the model where nothing is edited")
    kind = str(dtype).removeprefix("torch.")
    return ModelError(f"{what} in {kind}: the numbers grew too large. Weaken the edit, or {way}.")


def tolerated(count: int, chance: float) -> int:
    """How many of `count` pictures may be taken for the concept by a judge that guesses: more come by CHANCE only."""
    share, k = (1 - chance) ** count, 0
    while share < 1 - CHANCE:
        k += 1
        share += math.comb(count, k) * chance**k * (1 - chance) ** (count - k)
    return k


def _counted(hits: Sequence[bool]) -> metrics.Measure | None:
    return metrics.share(hits) if hits else None


def remaining(v: Tensor, concept: Tensor, anchor: Tensor) -> Tensor:
    """rho, (n,): how far predictions still lean from the anchor's towards the concept's; 1 unedited, 0 as the anchor.

    Args:
        v, concept, anchor: (n, c, h, w) predictions at the same points.
    """
    lean = (concept - anchor).flatten(1)
    return ((v - anchor).flatten(1) * lean).sum(1) / lean.square().sum(1).clamp(min=1e-12)


def _by_picture(left: Tensor) -> Tensor:
    """The most that remains at any point of each picture, (n,): a picture's points are no independent evidence."""
    return left.reshape(-1, POINTS["search"][2]).amax(1)


def still_there(left: Tensor, bar: float) -> Tensor:
    """How sure it is that the concept is still drawn, (n,) in 0..1: a half where what remains is at the bar.

    Below the bar it falls off steeply. Above it grows evenly up to the unedited model's 1, so that every step towards
    the bar counts; the steep curve alone is 1 to the last digit at three times the bar.
    """
    below = torch.sigmoid(SURENESS * (left / bar - 1))
    above = 0.5 + 0.5 * (left - bar) / (1 - bar)
    return torch.where(left < bar, below, above.clamp(max=1))


def token_distance(states: Tensor, anchors: Tensor, match: Tensor) -> Tensor:
    """mean over tokens of 1 - cos(h(p), h_0(a)), (n,).

    Args:
        states, anchors: (n, tokens or more, width).
        match: (n, tokens): which token of the anchor stands beside each token of the prompt.
    """
    beside = anchors.gather(1, match[..., None].expand(-1, -1, anchors.shape[-1]).to(anchors.device))
    return 1 - F.cosine_similarity(states[:, : match.shape[1]].float(), beside.float(), dim=-1).mean(1)


def matched(prompt: Sequence[int], anchor: Sequence[int]) -> list[int]:
    """For each token of a padded prompt, the position in the padded anchor it corresponds to.

    Equal beginnings and equal ends (padding included) stand beside each other; what differs between them stands
    beside the last token of the anchor's differing part, or the one before it where the anchor leaves it out.
    """
    assert len(prompt) == len(anchor), "both are padded to the encoder's length"
    length = len(prompt)
    same = next((i for i in range(length) if prompt[i] != anchor[i]), length)
    content = [_content(ids) for ids in (prompt, anchor)]
    tail = 0
    while tail < min(content) - same and prompt[content[0] - 1 - tail] == anchor[content[1] - 1 - tail]:
        tail += 1
    stand_in = max(content[1] - tail - 1, 0)
    shift = content[1] - content[0]
    found = []
    for i in range(length):
        if i < same:
            found.append(i)
        elif i < content[0] - tail:
            found.append(stand_in)
        else:
            found.append(min(max(i + shift, 0), length - 1))
    return found


def _content(ids: Sequence[int]) -> int:
    """How many tokens there are before the padding: a run of one repeated token at the end, its first one kept."""
    end = len(ids)
    while end > 1 and ids[end - 1] == ids[end - 2]:
        end -= 1
    return end


def _captions(points: Points) -> list[str]:
    return [e.caption for e in points.examples]


def _anchors(points: Points) -> list[str]:
    return [e.anchor for e in points.examples]


def _others(prompts: Sequence[str], count: int) -> list[list[str]]:
    """`count` lists that give each place a prompt other than its own; fewer where all are alike."""
    known = list(dict.fromkeys(prompts))
    if len(known) <= count:
        return []
    return [[known[(known.index(p) + k) % len(known)] for p in prompts] for k in range(1, count + 1)]


def _similar(prompt: str, known: Sequence[str]) -> list[str]:
    """The RIVALS known prompts that share most words with this one, the prompt itself excepted; "" for want of any."""
    words = set(prompt.split())
    overlap = lambda other: len(words & set(other.split())) / len(words | set(other.split()))  # noqa: E731
    others = sorted((p for p in known if p != prompt), key=overlap, reverse=True)
    return (others * RIVALS)[:RIVALS] if others else [""] * RIVALS
