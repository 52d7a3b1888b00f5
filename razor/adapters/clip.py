"""CLIP through open_clip: any model with a vision and a text tower of transformer blocks."""

import copy
import math
import random
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from razor import losses, metrics, processes
from razor.adapters.base import GLANCE, Terms, glimpse
from razor.adapters.short_texts import encoder_of
from razor.errors import ModelError
from razor.examples import Axis, Example, Task
from razor.metrics import Evaluation
from razor.patches import Patch, fingerprint, model_lock
from razor.replay import PrefixCache
from razor.units import Unit, find_units, tower_of

T = TypeVar("T")

MARGIN = 4.0  # nats by which another class must lead before a forget picture is left alone: under 2 % is then left
RECENT = 24  # sets of features kept of edits evaluated lately; an evaluation needs four
EVAL_BATCH = 64  # pictures or texts per forward without a gradient; 256 leaves a CPU cache and took 1.4 x the time

# Runs one forward, given a name for its input: in full, or from a late block on (PrefixCache.run).
Runner = Callable[[Hashable, Callable[[], Tensor]], Tensor]


def _in_full(_batch: Hashable, forward: Callable[[], Tensor]) -> Tensor:
    return forward()


class ClipAdapter:
    """A CLIP model as the library sees it. Shared by all sessions; only Patch.applied writes to it."""

    family = "clip"
    growing = ("image", "text")
    forget_losses: Mapping[str, Sequence[str]] = {}
    batch = 96
    embeds = True
    reruns = False

    def __init__(
        self,
        model: nn.Module,
        preprocess: Callable[[Image.Image], Tensor],
        tokenizer: Callable[[list[str]], Tensor],
        *,
        name: str,
    ):
        self.model, self.preprocess, self.tokenizer, self.name = model.eval(), preprocess, tokenizer, name
        self.towers = {"image": r"visual\.", "text": ""}
        self.encode_text = encoder_of(model)  # (n, places) token ids -> (n, d)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        found = {unit.tower for unit in find_units(model, self.towers)}
        if missing := [tower for tower in self.towers if tower not in found]:
            kind = type(getattr(model.visual, "trunk", model.visual)).__name__
            raise ModelError(
                f"The {missing[0]} tower of {name!r} ({kind if missing[0] == 'image' else 'text'}) has no attention "
                "heads that can be edited one by one; choose a CLIP with transformer towers, such as ViT-B-32."
            )
        convolutional = [m for m in model.visual.modules() if isinstance(m, nn.Conv2d)]
        layers = {unit.layer for unit in find_units(model, self.towers, ("head",)) if unit.tower == "image"}
        if len(layers) < 2 and len(convolutional) > 8:
            raise ModelError(
                f"The image tower of {name!r} is convolutional ({type(model.visual).__name__}): apart from its pooling "
                "layer it has no attention heads to edit; choose a CLIP with a vision transformer, such as ViT-B-32."
            )

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def scale(self) -> float:
        """The inverse temperature the model was trained with."""
        return self.model.logit_scale.exp().item()

    def units(self, kinds: Sequence[str] = ("head", "mlp"), towers: Sequence[str] = ("image", "text")) -> list[Unit]:
        found = find_units(self.model, self.towers, kinds)
        # CoCa's caption decoder is no part of either embedding: no loss reaches it.
        reached = [unit for unit in found if not unit.slices[0].parameter.startswith("text_decoder.")]
        return [unit for unit in reached if unit.tower in towers]

    def tower_of(self, parameter: str) -> str:
        """Which tower a parameter belongs to."""
        return tower_of(self.towers, parameter)

    def fingerprint(self) -> str:
        """A hash of all weights, taken once: only a patch changes them, and that undoes itself."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self.model)

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """Pictures as the model reads them, (n, 3, side, side), on the CPU."""
        return torch.stack([self.preprocess(image) for image in images])

    def embed_images(self, pixels: Tensor, run: Runner = _in_full) -> Tensor:
        """Unit vectors (n, d) on the CPU."""
        return self._embed(self.model.encode_image, pixels, run)

    def embed_texts(self, texts: Sequence[str], run: Runner = _in_full) -> Tensor:
        """Unit vectors (n, d) on the CPU."""
        return self._embed(self.encode_text, self.tokenizer(list(texts)), run)

    @torch.no_grad()
    def _embed(self, encode: Callable[..., Tensor], inputs: Tensor, run: Runner) -> Tensor:
        def embed(mine: Tensor) -> Tensor:
            parts = enumerate(mine.split(EVAL_BATCH))
            done = [run((i, len(part)), partial(encode, part.to(self.device), normalize=True)) for i, part in parts]
            return torch.cat(done).float().cpu()

        return processes.share(inputs, embed)

    def class_embeddings(self, axis: Axis, run: Runner = _in_full) -> Tensor:
        """One unit vector per class (c, d): the mean over its prompts."""
        flat = [text for prompts in axis.prompts.values() for text in prompts]
        groups = self.embed_texts(flat, run).split([len(prompts) for prompts in axis.prompts.values()])
        return F.normalize(torch.stack([group.mean(0) for group in groups]), dim=-1)

    def classify(self, images: Sequence[Image.Image], axis: Axis) -> Tensor:
        """Probability of each class of the axis for each picture, (n, c), each row summing to 1."""
        with model_lock(self.model):
            v, t = self.embed_images(self.pixels(images)), self.class_embeddings(axis)
        return (self.scale * v @ t.T).softmax(-1)

    def bench(
        self,
        task: Task,
        *,
        batch: int | None = None,
        mismatch_weight: float = 1.0,
        seed: int = 0,
        beneath: Patch = Patch(),
    ) -> "ClipBench":
        """The task, made ready to run on this model as it is with `beneath` applied."""
        with beneath.applied(self.model):
            return ClipBench(
                self, task, batch=batch or self.batch, mismatch_weight=mismatch_weight, seed=seed, beneath=beneath
            )


class _Side:
    """The pictures of one example set as tensors, with their captions and classes as numbers."""

    def __init__(self, adapter: ClipAdapter, examples: Sequence[Example], axes: Sequence[Axis]):
        self.pixels = adapter.pixels([e.image for e in examples]) if examples else torch.empty(0, 3, 1, 1)
        self.captions = [e.caption for e in examples]
        # (n, axes): class number, -1 where the picture has none on that axis
        self.classes = torch.tensor(
            [
                [a.classes.index(e.labels[a.name]) if e.labels.get(a.name) in a.prompts else -1 for a in axes]
                for e in examples
            ]
        ).reshape(len(examples), len(axes))


class ClipBench:
    """One task on one CLIP: tensors made once, and the frozen model's features kept for what an edit leaves alone.

    Evaluate a split unedited (`edited=()`) before evaluating it edited: that is when the frozen answers are recorded.
    """

    slow_towers = ("image",)
    read_by = "the model's own answers"
    recalls = "how close they are to {}"
    says = ("Forget accuracy went from", "retain accuracy from")
    retain_weight = 1.0
    spared, mends = 0, False
    measure = 0.0  # an answer is the concept's or another's: nothing to be strict about

    def __init__(
        self, adapter: ClipAdapter, task: Task, *, batch: int, mismatch_weight: float, seed: int, beneath: Patch
    ):
        self.adapter, self.task, self.batch, self.seed, self.beneath = adapter, task, batch, seed, beneath
        self.mismatch_weight = mismatch_weight
        self.aim = task.chance / 2  # leaves room for new pictures
        self.axis = [axis.name for axis in task.axes].index(task.axis)
        self.target = task.axes[self.axis].classes.index(task.concept)
        self._sides: dict[tuple[str, str], _Side] = {}
        self._frozen_images: dict[tuple[str, str], Tensor] = {}
        self._frozen_captions: dict[str, Tensor] = {}
        self._frozen_recall: dict[str, Tensor] = {}
        self.unedited: dict[Hashable, Any] = {}
        self._recent: OrderedDict[tuple, Any] = OrderedDict()
        self._frozen_association: dict[str, tuple[float, float]] = {}
        self._prefixes = PrefixCache(adapter)
        self._frozen_classes = [adapter.class_embeddings(axis) for axis in task.axes]
        for side in ("forget", "retain"):
            self._frozen_images[side, "gradient"] = adapter.embed_images(self._side(side, "gradient").pixels)
        self.neighbours = task.neighbours or self._nearest_classes()

    def another(self) -> "ClipBench":
        """See Bench."""
        made = copy.copy(self)
        made._recent = OrderedDict()
        return made

    # What the method asks for

    def scoring_terms(self, draw: int = 0) -> Terms:
        """A_f over the forget gradient pictures (two batches of them at most) and R over one fixed retain batch.

        Args:
            draw: 0 the fixed pictures; any other number as many, drawn with replacement from the whole split.
        """
        choose = partial(self._redraw, draw) if draw else self._draw
        forget_rows = choose(len(self._side("forget", "gradient").captions), 2 * self.batch, "score/forget")
        rows = choose(len(self._side("retain", "gradient").captions), self.batch, "score")
        return {
            "forget": lambda: self._alignment(forget_rows),
            "retain": lambda: self._retain(rows),
        }

    def step_terms(self, step: int, edited: Sequence[str] = ("image", "text")) -> Terms:
        """A_f and R + lambda_m * M on fresh batches of the gradient split.

        Args:
            edited: towers that are or will be edited; the others' frozen features are used instead of a forward.
        """
        half = max(2, self.batch // 2)
        forget_rows = self._draw(len(self._side("forget", "gradient").captions), half, f"forget/{step}")
        rows = self._draw(len(self._side("retain", "gradient").captions), self.batch, f"retain/{step}")
        beside = forget_rows[: half // 2]
        return {
            "forget": lambda: self._alignment(forget_rows, edited, sated=True),
            "keep": lambda: self._retain(rows, beside=beside, mismatch_weight=self.mismatch_weight, edited=edited),
        }

    def evaluate(
        self,
        split: str,
        edited: Sequence[str] = ("image", "text"),
        first: Mapping[str, int] | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> Evaluation:
        """Metrics on "search", GLANCE or "test". Call under the model's lock when the model is edited.

        Args:
            first: tower -> number of the first edited block, where known: the blocks before it are not run again.
            keys: tower -> name of the edit made to it, where known: a tower edited as it was lately is not run again.
        """
        first, keys = first or {}, {tower: key for tower, key in (keys or {}).items() if tower in edited}
        forget, retain = self._side("forget", split), self._side("retain", split)
        v_forget, v_retain = (
            self._lately(
                "image", keys, (side, split), lambda side=side: self._image_features(side, split, edited, first)
            )
            for side in ("forget", "retain")
        )
        classes = self._lately("text", keys, ("classes",), lambda: self._classes(edited, first))
        forget_guess = torch.stack([(v_forget @ t.T).argmax(1) for t in classes], 1)  # (n, axes)
        retain_guess = torch.stack([(v_retain @ t.T).argmax(1) for t in classes], 1)
        names = self.task.axes[self.axis].classes
        near = torch.tensor([names.index(name) for name in self.neighbours], dtype=torch.long)
        neighbour = torch.isin(retain.classes[:, self.axis], near)
        right = retain_guess == retain.classes
        asked = forget.classes >= 0
        asked[:, self.axis] = False
        recall = self._recall(retain, v_retain, split, edited, first, keys)
        probability = (self.adapter.scale * v_forget @ classes[self.axis].T).softmax(1)[:, self.target]
        near_right = {
            name: right[retain.classes[:, self.axis] == names.index(name), self.axis] for name in self.neighbours
        }
        return Evaluation(
            retain_probability=metrics.mean(self._right_probability(v_retain, retain, classes)),
            association=self._association(v_forget, v_retain, classes[self.axis][self.target], split, edited),
            by_neighbor={name: metrics.share(hits) for name, hits in near_right.items() if len(hits)},
            forget_probability=metrics.mean(probability),
            forget_accuracy=metrics.share(forget_guess[:, self.axis] == self.target),
            retain_accuracy=metrics.share(right[retain.classes >= 0]),
            neighbor_accuracy=metrics.share(right[neighbour, self.axis]) if neighbour.any() else None,
            cross_accuracy=metrics.share((forget_guess == forget.classes)[asked]) if asked.any() else None,
            retrieval_stability=metrics.stability(self._frozen_recall[split], recall),
        )

    def _right_probability(self, v: Tensor, side: _Side, classes: Sequence[Tensor]) -> Tensor:
        """Probability of the right class, for every axis a picture has a class on, in one row."""
        parts = []
        for number, t in enumerate(classes):
            asked = side.classes[:, number] >= 0
            p = (self.adapter.scale * v[asked] @ t.T).softmax(1)
            parts.append(p.gather(1, side.classes[asked, number, None])[:, 0])
        return torch.cat(parts)

    def _association(self, v_forget: Tensor, v_retain: Tensor, t: Tensor, split: str, edited: Sequence[str]) -> float:
        """Evaluation.association; NaN where the unedited model sees no difference."""
        now = (v_forget @ t).mean().item()
        if not edited:
            self._frozen_association[split] = now, (v_retain @ t).mean().item()
        full, none = self._frozen_association[split]
        return (now - none) / (full - none) if full > none else math.nan

    # What explanations ask for

    def similarity(self, pixels: Tensor) -> Tensor:
        """Cosine of each picture (n, 3, side, side) with the concept, (n,), by the model as it is now; with a graph."""
        v = self.adapter.model.encode_image(pixels.to(self.adapter.device), normalize=True)
        return v @ self._class_features(self.axis, ("text",), only=self.target)[0]

    def concept_score(self, rows: Sequence[int]) -> Tensor:
        """Mean similarity of these forget pictures of the search split, a scalar with a graph."""
        return self.similarity(self._side("forget", "search").pixels[list(rows)]).mean()

    def picture_embeddings(
        self, side: str, split: str, edited: Sequence[str], first: Mapping[str, int] | None = None
    ) -> Tensor:
        """Unit vectors (n, d) of one set's pictures, on the CPU."""
        return self._image_features(side, split, edited, first or {})

    def recall(self, split: str) -> Tensor:
        """Cosine of each forget picture of a split with the concept, (n,)."""
        concept = self.class_embeddings(("text",))[self.axis][self.target]
        return self.picture_embeddings("forget", split, ("image",)) @ concept

    def class_embeddings(self, edited: Sequence[str], first: Mapping[str, int] | None = None) -> list[Tensor]:
        """Unit vectors (c, d) of each axis's classes, on the CPU."""
        return self._classes(edited, first or {})

    def knows(self, base: Evaluation) -> bool:
        """The unedited model recognises the concept more often than by guessing."""
        return base.forget_accuracy.value > self.task.chance

    def confirm(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """The search metrics are the model's own answers: nothing to confirm."""
        return True

    def relent(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """The same holds of what they still count."""
        return False

    # Losses

    def _alignment(self, rows: Tensor, edited: Sequence[str] = ("image", "text"), *, sated: bool = False) -> Tensor:
        """A_f; with `sated`, pictures that another class claims by MARGIN are not pushed any further."""
        v = self._gradient_images("forget", rows, edited)
        t = self._class_features(self.axis, edited, only=self.target)[0]
        floor = -1.0
        if sated:
            with torch.no_grad():
                others = self._class_features(self.axis, edited)
            others = torch.cat([others[: self.target], others[self.target + 1 :]])
            floor = (v.detach() @ others.T).amax(1) - MARGIN / self.adapter.scale
        return losses.alignment(v, t, floor=floor)

    def _retain(
        self,
        rows: Tensor,
        *,
        beside: Tensor | None = None,
        mismatch_weight: float = 0.0,
        edited: Sequence[str] = ("image", "text"),
    ) -> Tensor:
        """R on these retain pictures, plus lambda_m * M on the same ones.

        `beside` are forget pictures whose answers on the other axes M keeps too: a forgotten cat is still neon.
        """
        captions = [self._side("retain", "gradient").captions[i] for i in rows.tolist()]
        v = self._gradient_images("retain", rows, edited)
        t = self._encode_texts(captions)
        first = {caption: i for i, caption in reversed(list(enumerate(captions)))}
        code = torch.tensor([first[caption] for caption in captions], device=v.device)
        loss = losses.contrastive(v, t, code[:, None] == code[None], self.adapter.scale)
        if mismatch_weight == 0:
            return loss
        kept = [(v, self._frozen_images["retain", "gradient"][rows], range(len(self.task.axes)))]
        if beside is not None and len(self.task.axes) > 1:
            v_beside = self._gradient_images("forget", beside, edited)
            others = [i for i in range(len(self.task.axes)) if i != self.axis]
            kept.append((v_beside, self._frozen_images["forget", "gradient"][beside], others))
        for number, frozen_classes in enumerate(self._frozen_classes):
            t_class, t_frozen = self._class_features(number, edited), frozen_classes.to(v.device)
            for now, frozen, axes in kept:
                if number in axes:
                    reference = frozen.to(v.device) @ t_frozen.T
                    loss = loss + mismatch_weight * losses.drift(now @ t_class.T, reference, self.adapter.scale)
        return loss

    def _gradient_images(self, side: str, rows: Tensor, edited: Sequence[str]) -> Tensor:
        """Unit vectors of gradient pictures, with a graph when the image tower is edited."""
        if "image" not in edited:
            return self._frozen_images[side, "gradient"][rows].to(self.adapter.device)
        encode, device = self.adapter.model.encode_image, self.adapter.device
        pixels = self._side(side, "gradient").pixels[rows]
        return processes.share(pixels, lambda mine: encode(mine.to(device), normalize=True))

    def _class_features(self, number: int, edited: Sequence[str], only: int | None = None) -> Tensor:
        """Class embeddings of an axis (c, d), or of one class (1, d); with a graph when the text tower is edited."""
        chosen = slice(None) if only is None else slice(only, only + 1)
        if "text" not in edited:
            return self._frozen_classes[number][chosen].to(self.adapter.device)
        prompts = list(self.task.axes[number].prompts.values())[chosen]
        groups = self._encode_texts([text for group in prompts for text in group]).split([len(g) for g in prompts])
        return F.normalize(torch.stack([group.mean(0) for group in groups]), dim=-1)

    # Encoding

    def _encode_texts(self, texts: Sequence[str]) -> Tensor:
        encode, device = self.adapter.encode_text, self.adapter.device
        tokens = self.adapter.tokenizer(list(texts))
        return processes.share(tokens, lambda mine: encode(mine.to(device), normalize=True))

    def _side(self, side: str, split: str) -> _Side:
        if (side, split) not in self._sides:
            sets = getattr(self.task, side)
            examples = glimpse(sets.search) if split == GLANCE else getattr(sets, split)
            self._sides[side, split] = _Side(self.adapter, examples, self.task.axes)
        return self._sides[side, split]

    def _nearest_classes(self, k: int = 2) -> tuple[str, ...]:
        """The k classes whose text lies nearest to the target's, among those with retain pictures to test on."""
        names = self.task.axes[self.axis].classes
        tested = {e.labels.get(self.task.axis) for e in self.task.retain.test}
        t = self._frozen_classes[self.axis]
        order = (t @ t[self.target]).argsort(descending=True).tolist()
        return tuple(names[i] for i in order if i != self.target and names[i] in tested)[:k]

    def _draw(self, n: int, size: int, key: str) -> Tensor:
        return torch.tensor(random.Random(f"{self.seed}/{key}").sample(range(n), min(n, size)))

    def _redraw(self, draw: int, n: int, size: int, key: str) -> Tensor:
        """As many rows as `_draw`, with replacement."""
        return torch.tensor(random.Random(f"{self.seed}/{key}/{draw}").choices(range(n), k=min(n, size)))

    def _from(self, tower: str, first: Mapping[str, int], *batch: Hashable) -> Runner:
        """Forwards of a named batch, from the first edited block on."""
        return lambda part, forward: self._prefixes.run(tower, first.get(tower, 0), (*batch, part), forward)

    def _classes(self, edited: Sequence[str], first: Mapping[str, int]) -> list[Tensor]:
        """Class embeddings of every axis."""
        if "text" not in edited:
            return self._frozen_classes
        runs = [self._from("text", first, "classes", axis.name) for axis in self.task.axes]
        return [self.adapter.class_embeddings(axis, run) for axis, run in zip(self.task.axes, runs, strict=True)]

    def _image_features(self, side: str, split: str, edited: Sequence[str], first: Mapping[str, int]) -> Tensor:
        if "image" in edited:
            pixels = self._side(side, split).pixels
            return self.adapter.embed_images(pixels, self._from("image", first, side, split))
        if (side, split) not in self._frozen_images:
            self._frozen_images[side, split] = self.adapter.embed_images(self._side(side, split).pixels)
        return self._frozen_images[side, split]

    def _lately(self, tower: str, keys: Mapping[str, str], what: tuple, make: Callable[[], T]) -> T:
        """What `make` gives, kept for the last few edits of the tower it rests on."""
        if tower not in keys:
            return make()
        place = (tower, keys[tower], *what)
        if place not in self._recent:
            self._recent[place] = make()
            while len(self._recent) > RECENT:
                self._recent.popitem(last=False)
        self._recent.move_to_end(place)
        return self._recent[place]

    def _recall(
        self,
        retain: _Side,
        v: Tensor,
        split: str,
        edited: Sequence[str],
        first: Mapping[str, int],
        keys: Mapping[str, str],
    ) -> Tensor:
        texts = list(dict.fromkeys(retain.captions))
        if not edited and split not in self._frozen_captions:
            self._frozen_captions[split] = self.adapter.embed_texts(texts)
        t = self._frozen_captions[split]
        if "text" in edited:
            encode = lambda: self.adapter.embed_texts(texts, self._from("text", first, "captions", split))  # noqa: E731
            t = self._lately("text", keys, ("captions", split), encode)
        place = {text: i for i, text in enumerate(texts)}
        own = torch.tensor([place[caption] for caption in retain.captions])
        recall = (v @ t.T).argmax(1) == own
        if not edited:
            self._frozen_recall[split] = recall
        return recall
