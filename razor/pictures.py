"""Draw the same prompts on two sides of an edit, from the same noise, and say what changed.

Prompts come in groups: the target, the target in other words, its neighbours, others of its kind, and unrelated things.
A picture is determined by its prompt, noise, settings and edit, so each is drawn once and then found in the album.
"""

import queue
import re
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import torch
from PIL import Image

from razor.errors import InputError
from razor.examples import Axis, Example, Task
from razor.memory import enough_memory
from razor.minicanvas import captions
from razor.minicanvas.dataset import AXES
from razor.patches import Patch, model_lock
from razor.picture_files import MAX_PROMPT, MAX_SEED, Album, Kept, PictureInfo, Spec, png_bytes

if TYPE_CHECKING:
    from razor.adapters.base import Adapter
    from razor.adapters.diffusion import DiffusionAdapter
    from razor.judges import Judge

GROUPS = ("target", "paraphrase", "neighbour", "other", "unrelated")
GROUP_NAMES = {
    "target": "Target",
    "paraphrase": "In other words",
    "neighbour": "Nearest neighbours",
    "other": "Others of its kind",
    "unrelated": "Unrelated",
}
KINDS = {"target": "forget", "paraphrase": "paraphrase", "neighbour": "neighbour", "other": "retain",
         "unrelated": "retain", "own": "own"}  # fmt: skip
CONCEPT = ("forget", "paraphrase")  # kinds of prompts that ask for what is to be forgotten
CUT_NAMED = 3  # prompts named that are too long; more are counted
PAIRS = 8  # drawn unless more are asked for
MAX_OWN = 32  # own prompts at a time
TOGETHER = 16  # pictures drawn at once at most
PIXELS_TOGETHER = 1024 * 1024  # and their pixels, so that large pictures do not fill the memory
SKETCHES = 4  # looks at pictures under way
NONE = "none"  # what a judge says of an axis a picture shows nothing of
_TURNS = ("target", "neighbour", "other", "paraphrase", "unrelated")
_GOLDEN = 0.6180339887
_REWORDED = {
    "thing": ("a drawing of {c}", "an image showing {c}", "a close view of {c}", "{c} in the distance"),
    "style": ("a drawing in {c} style", "artwork that looks like {c}", "a landscape, in the manner of {c}"),
}

T = TypeVar("T")


# Prompts -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prompt:
    """Something to draw on both sides."""

    text: str
    group: str  # one of GROUPS, or "own"
    key: str  # its name, the same whenever it is suggested
    labels: Mapping[str, str] = field(default_factory=dict)  # axis -> class that should be seen; {} where unknown

    @property
    def kind(self) -> str:
        return KINDS[self.group]

    def seed(self, base: int) -> int:
        """Of its noise. A person's own prompt takes the number as it is, so that a picture's own seed repeats it."""
        from razor.adapters.diffusion import seeds_for

        return base if self.group == "own" else seeds_for([self.key], base)[0]


def suggested(task: Task, count: int = PAIRS, groups: Sequence[str] = GROUPS) -> list[Prompt]:
    """Prompts of the test split, groups taking turns; asking for more keeps those there were.

    Args:
        count: of all groups together; fewer where the task has no more.

    Raises:
        InputError: a group there is none of.
    """
    if unknown := [name for name in groups if name not in GROUPS]:
        raise InputError(f"There are no prompts named {unknown[0]!r}; choose among {', '.join(GROUPS)}.")
    waiting = {name: _group(task, name) for name in _TURNS if name in groups}
    chosen: dict[str, list[Prompt]] = {name: [] for name in waiting}
    while sum(map(len, chosen.values())) < count and any(waiting.values()):
        for name, prompts in waiting.items():
            if prompts and sum(map(len, chosen.values())) < count:
                chosen[name].append(prompts.pop(0))
    return [prompt for name in GROUPS for prompt in chosen.get(name, ())]


def own_prompts(text: str) -> list[Prompt]:
    """A person's prompts, one a line; empty lines and repetitions are left out.

    Raises:
        InputError: too many, or too long.
    """
    lines = list(dict.fromkeys(" ".join(line.split()) for line in text.splitlines()))
    lines = [line for line in lines if line]
    if len(lines) > MAX_OWN:
        raise InputError(f"{len(lines)} prompts of your own are too many at a time; give up to {MAX_OWN}.")
    if long := next((line for line in lines if len(line) > MAX_PROMPT), None):
        raise InputError(f"The prompt {long[:40]!r}... has {len(long):,} characters; up to {MAX_PROMPT:,} are read.")
    return [Prompt(line, "own", f"own/{line}") for line in lines]


def cut_notes(adapter: "DiffusionAdapter", prompts: Sequence[str]) -> list[str]:
    """A sentence for the first prompts that the model does not read to their end, and how many more there are."""
    cut = [(prompt, left) for prompt in prompts if (left := adapter.cut(prompt))]
    quoted = [(f"\u201c{short(prompt)}\u201d", f"\u201c{short(left)}\u201d") for prompt, left in cut]
    said = [f"{prompt} is too long: the model does not read {left}." for prompt, left in quoted]
    more = len(said) - CUT_NAMED
    return said[:CUT_NAMED] + ([f"{more} more prompts are too long as well."] if more > 0 else [])


def cut_captions(adapter: "Adapter", task: Task) -> list[str]:
    """The same for the captions of a task, where they are prompts."""
    captions = dict.fromkeys(e.caption for e in (*task.forget.all(), *task.retain.all()))
    return cut_notes(adapter, list(captions)) if adapter.family == "diffusion" else []


def short(text: str, most: int = 48) -> str:
    """The beginning of a long text."""
    return text if len(text) <= most else f"{text[:most].rstrip()}\u2026"


def _group(task: Task, name: str) -> list[Prompt]:
    """Every prompt a group has to offer, the first ones from all over the split."""
    if name == "paraphrase":
        return _paraphrases(task)
    if name == "target":
        rows = list(enumerate(task.forget.test))
    else:
        rows = [(i, e) for i, e in enumerate(task.retain.test) if _belongs(e, task, name)]
    turns = _by_class(rows, task.axis) if name == "neighbour" else _spread(rows, GROUPS.index(name))
    return [Prompt(e.caption, name, f"{name}/{i}", e.labels) for i, e in turns if e.caption.strip()]


def _belongs(e: Example, task: Task, name: str) -> bool:
    shown = e.labels.get(task.axis)
    if name == "unrelated":
        return shown is None
    return shown is not None and (shown in task.neighbours) == (name == "neighbour")


def _spread(rows: Sequence[tuple[int, Example]], start: int = 0) -> list[tuple[int, Example]]:
    """The rows so ordered that any first few come from all over, other captions before the same one again.

    Args:
        start: another number begins elsewhere, so that two groups of like captions do not begin alike.
    """
    times: dict[str, int] = {}
    ranked = []
    for place in sorted(range(len(rows)), key=lambda i: (i + 3 * start) * _GOLDEN % 1):
        caption = rows[place][1].caption
        times[caption] = times.get(caption, 0) + 1
        ranked.append((times[caption], rows[place]))
    return [row for _, row in sorted(ranked, key=lambda entry: entry[0])]


def _by_class(rows: Sequence[tuple[int, Example]], axis: str) -> list[tuple[int, Example]]:
    """The classes taking turns."""
    classes: dict[str, list] = {}
    for row in _spread(rows, 1):
        classes.setdefault(row[1].labels[axis], []).append(row)
    longest = max(map(len, classes.values()), default=0)
    return [found[i] for i in range(longest) for _, found in sorted(classes.items()) if i < len(found)]


def _paraphrases(task: Task) -> list[Prompt]:
    """The target asked for in sentences the edit was not made on, and for the bundled world no training used."""
    rows = _spread(list(enumerate(task.forget.test)), GROUPS.index("paraphrase"))
    if rows and all(_of_world(e.labels) for _, e in rows):
        said = [(captions.unseen_captions(e.labels)[turn % 2], e.labels, i) for turn, (i, e) in enumerate(rows)]
    else:
        used = {e.caption for e in task.forget.all()}
        named = (f"style of {task.concept}".lower(), f"{task.concept} style".lower())
        kind = "style" if any(name in caption.lower() for caption in used for name in named) else "thing"
        concept = task.concept if kind == "style" else _with_article(task.concept)
        sentences = [sentence.format(c=concept) for sentence in _REWORDED[kind]]
        labels = {task.axis: task.concept}
        said = [(text, labels, i) for i, text in enumerate(sentences) if text not in used]
    return [Prompt(text, "paraphrase", f"paraphrase/{i}", labels) for text, labels, i in said]


def _of_world(labels: Mapping[str, str]) -> bool:
    """The labels are whole ones of the bundled world, so that its captions can be made of them."""
    return captions.whole(labels) and all(name in AXES.get(axis, ()) for axis, name in labels.items())


def _with_article(concept: str) -> str:
    if concept != concept.lower() or re.match(r"(an?|the|some) ", concept):
        return concept  # a name, or it has one
    return ("an " if concept[:1] in "aeiou" else "a ") + concept


# Verdicts ------------------------------------------------------------------------------------------------------------


def judge_for(adapter: "DiffusionAdapter", task: Task) -> "Judge | None":
    """Who can say what pictures show of the task's classes; None where nobody can."""
    return adapter.judge if adapter.judge is not None and adapter.judge.reads(task.axes) else None


def seen_words(prompt: Prompt, task: Task, saw: Mapping[str, str]) -> str:
    """What a judge saw, as the page says it: "cat, neon"; "" where none was asked."""
    names = [saw[axis] for axis in _looked_at(prompt, task) if saw.get(axis, NONE) != NONE]
    return ", ".join(names) or ("nothing it knows" if saw else "")


def verdict(prompt: Prompt, task: Task, before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """What the edit did to a prompt's picture, as one of pairs.VERDICTS.

    A prompt that asks for the concept gives "suppressed" or "still drawn", and "" where neither side drew it. So does
    a person's own prompt whose picture showed the concept before. Any other gives "kept" or "changed": whether what it
    should show is seen as before, on every axis it has a class on.
    """
    if not before or not after:
        return ""
    was, now = (saw.get(task.axis) == task.concept for saw in (before, after))
    if prompt.kind in CONCEPT or (prompt.kind == "own" and was):
        return "still drawn" if now else "suppressed" if was else ""
    axes = [axis for axis in _looked_at(prompt, task) if axis in prompt.labels or not prompt.labels]
    return "kept" if all(before.get(axis) == after.get(axis) for axis in axes) else "changed"


def _looked_at(prompt: Prompt, task: Task) -> list[str]:
    """The axes worth naming for a prompt: those it has a class on, and the target's; all for an own one."""
    return [a.name for a in task.axes if not prompt.labels or a.name in prompt.labels or a.name == task.axis]


# Drawing -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DrawSettings:
    """How pictures are drawn."""

    seed: int  # see Prompt.seed
    steps: int
    guidance: float  # 1 is none
    side: int  # pixels

    @classmethod
    def of(cls, adapter: "DiffusionAdapter", seed: int = 0) -> "DrawSettings":
        """As the model is usually drawn with."""
        return cls(seed, adapter.steps, adapter.guidance, adapter.side)

    def check(self, adapter: "DiffusionAdapter", prompts: Sequence[str]) -> None:
        """Raise InputError for what cannot be drawn."""
        adapter.check_drawing(prompts, self.steps, self.guidance, self.side)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"{self.seed!r} is no seed; give a whole number from 0.")

    def spec(self, prompt: Prompt) -> Spec:
        return Spec(prompt.text, prompt.seed(self.seed), self.steps, self.guidance, self.side)


@dataclass(frozen=True)
class Side:
    """One state of the model: what it is called, its whole edit, and how that came about."""

    name: str
    patch: Patch = Patch()
    recipe: Mapping = field(default_factory=dict)  # goes into the pictures' files


@dataclass(frozen=True)
class Job:
    """One picture to draw."""

    place: Hashable  # the caller's own name for it
    spec: Spec
    side: Side


@dataclass(frozen=True)
class Drawn:
    """A job is done."""

    job: Job
    kept: Kept
    fresh: bool  # drawn now, and neither found in the album nor the same as another job's


@dataclass(frozen=True)
class Sketch:
    """Jobs under way: what their pictures look like so far."""

    jobs: Sequence[Job]
    images: Sequence[Image.Image]


class Easel:
    """Draws one model's pictures for one visitor, each once."""

    def __init__(self, adapter: "DiffusionAdapter", album: Album):
        self.adapter, self.album = adapter, album
        self._pace: tuple[float, int] | None = None  # seconds of one denoiser pass a picture, and its side

    def draw(
        self,
        jobs: Sequence[Job],
        *,
        judge: "Judge | None" = None,
        axes: Sequence[Axis] = (),
        together: int = TOGETHER,
        report: Callable[[Drawn | Sketch], None] = lambda event: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Draw the jobs, in their order but for those found in the album, which come first. Leaves the model as found.

        Args:
            judge, axes: asked what each finished picture shows; nobody is where the judge is None.
            together: pictures drawn at once at most, where neighbouring jobs share edit and settings.
            report: called with every finished picture, and with a few looks at those under way.
            stop: asked after each denoising step; pictures under way are lost then, finished ones are not.

        Raises:
            InputError, ModelError: see DiffusionAdapter.draw.
        """
        keys = self._keys(jobs)
        alike: dict[tuple, list[Job]] = {}
        axes = tuple(axes) if judge is not None else ()
        for job in jobs:
            alike.setdefault(keys[job.place], []).append(job)
        waiting = []
        for key, (first, *others) in alike.items():
            if (kept := self.album.find(key)) is None:
                waiting.append(first)
                continue
            kept = self._judged(key, kept, judge, axes)
            for job in (first, *others):
                report(Drawn(job, kept, fresh=False))
        for part in _runs(waiting, together):
            if stop():
                return
            images = self._drawn(part, report, stop)
            seen = judge(images, axes) if judge is not None else [{} for _ in images]
            for job, image, saw in zip(part, images, seen, strict=False):  # no image where it was stopped
                key = keys[job.place]
                kept = self.album.keep(key, png_bytes(image, self._info(job, key)), axes, saw)
                for one in alike[key]:
                    report(Drawn(one, kept, fresh=one is job))

    def _keys(self, jobs: Sequence[Job]) -> dict[Hashable, tuple[str, Spec]]:
        """place -> what determines the picture: the edit's hash, "" for none, and the rest."""
        edits = {id(job.side): job.side.patch.key() if job.side.patch.deltas else "" for job in jobs}
        return {job.place: (edits[id(job.side)], job.spec) for job in jobs}

    def _drawn(self, part: Sequence[Job], report, stop) -> list[Image.Image]:
        """The pictures of jobs that share edit and settings; none where it was stopped."""
        spec, looking = part[0].spec, 0.0
        shown = {round(spec.steps * k / (SKETCHES + 1)) for k in range(1, SKETCHES + 1)} - {0, spec.steps}

        def on_step(step: int, latents) -> None:
            nonlocal looking
            if step in shown and not stop():
                began = time.monotonic()
                report(Sketch(part, self.adapter.preview(latents)))
                looking += time.monotonic() - began

        with part[0].side.patch.applied(self.adapter.model):
            started = time.monotonic()
            images = self.adapter.draw(
                [job.spec.prompt for job in part],
                [job.spec.seed for job in part],
                steps=spec.steps,
                guidance=spec.guidance,
                side=spec.side,
                on_step=on_step,
                stop=stop,
            )
        if images:
            took = time.monotonic() - started - looking
            self._pace = took / (len(part) * passes(spec.steps, spec.guidance)), spec.side
        return images

    def _judged(self, key: tuple, kept: Kept, judge, axes: tuple[Axis, ...]) -> Kept:
        """The kept picture with what the judge sees on these axes, asked where it was not before."""
        if judge is None or kept.axes == axes:
            return kept
        with Image.open(kept.path) as image:
            return self.album.judged(key, axes, judge([image.convert("RGB")], axes)[0])

    def _info(self, job: Job, key: tuple[str, Spec]) -> PictureInfo:
        model = self.adapter
        return PictureInfo(job.spec, model.name, model.fingerprint(), job.side.name, key[0], dict(job.side.recipe))

    # How long it takes

    @property
    def timed(self) -> bool:
        """Something was drawn or probed, so that `seconds` is known."""
        return self._pace is not None

    def seconds(self, denoised: Iterable[tuple[int, float, int]]) -> float | None:
        """What drawing would take, from the last drawing's pace; None before there was one.

        Args:
            denoised: steps, guidance and side of each picture.
        """
        if self._pace is None:
            return None
        pace, side = self._pace
        return sum(passes(steps, guidance) * pace * (edge / side) ** 2 for steps, guidance, edge in denoised)

    def probe(self, side: int) -> None:
        """Measure the pace with two passes of one picture, where nothing was drawn yet."""
        if self._pace is not None:
            return
        adapter, advice = self.adapter, "Take a smaller size, or load the model in half precision"
        doing = f"drawing a picture of {side} pixels"
        with model_lock(adapter.model), torch.no_grad(), enough_memory(doing, advice):
            words, noise, level = adapter.encode([" "]), adapter.noise([0], side), torch.tensor([500])
            adapter.predict(noise, level, words)  # the first pass also sets things up
            started = time.monotonic()
            adapter.predict(noise, level, words).cpu()
            self._pace = time.monotonic() - started, side


def passes(steps: int, guidance: float) -> int:
    """Denoiser passes of one picture: guidance asks a second time, without the prompt."""
    return steps * (2 if guidance > 1 else 1)


def pair_jobs(specs: Sequence[Spec], sides: Sequence[Side]) -> list[Job]:
    """Every picture on both sides; the place is (row, side). So ordered that pairs become whole early."""
    size = together_at(specs[0].side) if specs else 1
    return [
        Job((row, at), specs[row], side)
        for start in range(0, len(specs), size)
        for at, side in enumerate(sides)
        for row in range(start, min(start + size, len(specs)))
    ]


def together_at(side: int, most: int = TOGETHER) -> int:
    """How many pictures of so many pixels a side are drawn at once."""
    return max(1, min(most, PIXELS_TOGETHER // side**2))


def _runs(jobs: Sequence[Job], together: int) -> Iterator[list[Job]]:
    """Neighbouring jobs of one edit and the same settings, a few at a time."""
    run: list[Job] = []
    for job in jobs:
        same = run and job.side is run[0].side and _settings(job) == _settings(run[0])
        if run and (not same or len(run) == min(together, together_at(job.spec.side))):
            yield run
            run = []
        run.append(job)
    if run:
        yield run


def _settings(job: Job) -> tuple:
    return job.spec.steps, job.spec.guidance, job.spec.side


def streamed(work: Callable[[Callable[[T], None], Callable[[], bool]], None]) -> Iterator[list[T]]:
    """What `work(report, closed)` reports, as it happens, from a thread of its own: a model's callback cannot yield.

    Gives everything reported since the last time. An error in `work` is raised here. Closing this iterator makes
    `closed()` true and does not wait for the thread.
    """
    told: queue.SimpleQueue = queue.SimpleQueue()
    closed, ended = threading.Event(), object()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work(told.put, closed.is_set)
        except BaseException as error:  # handed to whoever listens
            failed.append(error)
        finally:
            told.put(ended)

    threading.Thread(target=run, name="drawing", daemon=True).start()
    try:
        going = True
        while going:
            events = [told.get()]
            while not told.empty():
                events.append(told.get())
            going = ended not in events
            if events := [event for event in events if event is not ended]:
                yield events
    finally:
        closed.set()
    if failed:
        raise failed[0]
