"""The same cases before and after an edit, few enough to look at: pictures answered about, prompts drawn, questions.

They come from the test split, never from what an edit was made or searched on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from razor import asking, pictures
from razor.adapters.base import Adapter
from razor.adapters.clip import ClipAdapter
from razor.adapters.diffusion import DiffusionAdapter
from razor.adapters.vlm import VlmAdapter
from razor.errors import InputError, Stopped
from razor.examples import Axis, Example, Task, evenly
from razor.patches import Patch

PER_GROUP = 5  # pictures of a group that a CLIP is asked about
PAIRS = 8  # prompts drawn on both sides
QUESTIONS = 2  # of a group


@dataclass(frozen=True, eq=False)
class Sight:
    """One case on both sides of an edit."""

    group: str  # what it is a case of, such as "Nearest neighbours"
    pictures: tuple[Image.Image, ...]  # one that both sides are asked about, or what each side drew
    words: str  # the picture's caption, the prompt or the question
    said: tuple[str, str]  # what each side answered, or what its picture was seen to show; "" where nobody could say
    verdict: str  # suppressed, kept, changed, ...; "" where nobody could say


def sights(
    adapter: Adapter,
    task: Task,
    patch: Patch,
    neighbours: Sequence[str] = (),
    *,
    report: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Sight]:
    """A few cases of every group before and after an edit. Leaves the model as found.

    Args:
        neighbours: classes nearest to the concept, where the task names none (Bench.neighbours).
        report: told how many of the cases are done; a model that draws takes its time.

    Raises:
        Stopped: `stop` said so.
    """
    if adapter.family == "diffusion":
        return _drawn(adapter, task, patch, report, stop)
    if adapter.family == "vlm":
        return _answered(adapter, task, patch, neighbours, stop)
    return _recognised(adapter, task, patch, neighbours)


# ---------------------------------------------------------------- models that name what they see


def _recognised(adapter: ClipAdapter, task: Task, patch: Patch, neighbours: Sequence[str]) -> list[Sight]:
    groups = picture_groups(task, neighbours)
    asked = [(axis_of(e, task), e) for examples in groups.values() for e in examples]
    before, after = (answers_of(adapter, side, asked) for side in (Patch(), patch))
    named = [group for group, examples in groups.items() for _ in examples]
    found = []
    for group, (axis, e), was, now in zip(named, asked, before, after, strict=True):
        said = tuple(f"{axis.classes[p.argmax()]}, {p.max().item():.0%}" for p in (was, now))
        top = axis.classes[was.argmax()], axis.classes[now.argmax()]
        found.append(Sight(group, (e.image,), e.caption, said, verdict(task, axis, e, *top)))
    return found


def verdict(task: Task | None, axis: Axis, e: Example, was: str, now: str) -> str:
    """What an edit did to the answer about a picture: suppressed, still recognised, kept or changed.

    Args:
        task: None where a picture was never part of one.
        was, now: the likeliest class on the axis, before and after.
    """
    truth = e.labels.get(axis.name)
    if task and axis.name == task.axis and truth == task.concept and truth in (was, now):
        return "still recognised" if now == truth else "suppressed"
    return "kept" if now == was else "changed"


def picture_groups(task: Task, neighbours: Sequence[str]) -> dict[str, list[Example]]:
    """Test pictures by group, a few from all over each; groups without any are left out."""
    test, axis = task.retain.test, next(a for a in task.axes if a.name == task.axis)
    groups = {
        "Target": _spread(task.forget.test),
        "Nearest neighbours": _with_class(test, axis, neighbours),
        "Unrelated": _unrelated(test, task, neighbours),
    }
    return {name: examples for name, examples in groups.items() if examples}


def answers_of(adapter: ClipAdapter, patch: Patch, asked: Sequence[tuple[Axis, Example]]) -> list[Tensor]:
    """Class probabilities for each picture on the axis it is asked about, with every axis encoded once."""
    with patch.applied(adapter.model):
        v = adapter.embed_images(adapter.pixels([e.image for _, e in asked]))
        classes = {name: adapter.class_embeddings(axis) for name, axis in {a.name: a for a, _ in asked}.items()}
    return [(adapter.scale * v[i] @ classes[axis.name].T).softmax(-1) for i, (axis, _) in enumerate(asked)]


def axis_of(e: Example, task: Task) -> Axis:
    """The axis a picture is asked about: the target's where it has a class there, else its first."""
    name = task.axis if task.axis in e.labels else next((a.name for a in task.axes if a.name in e.labels), task.axis)
    return next(a for a in task.axes if a.name == name)


def axis_of_labels(labels: Sequence[str]) -> Axis:
    """An axis whose classes are a person's own labels.

    Raises:
        InputError: fewer than two different ones.
    """
    names = dict.fromkeys(labels)
    if len(names) < 2:
        raise InputError("One label leaves nothing to choose from; give at least two different ones.")
    return Axis("label", {name: (f"a picture of {name}", name, f"a photo of {name}") for name in names})


def _spread(examples: Sequence[Example]) -> list[Example]:
    """A few examples from all over the list."""
    return [examples[i] for i in evenly(len(examples), PER_GROUP)]


def _with_class(examples: Sequence[Example], axis: Axis, names: Sequence[str]) -> list[Example]:
    """As many of each named class, taking turns."""
    groups = [_spread([e for e in examples if e.labels.get(axis.name) == name]) for name in names]
    turns = [group[i] for i in range(PER_GROUP) for group in groups if i < len(group)]
    return turns[:PER_GROUP]


def _unrelated(examples: Sequence[Example], task: Task, near: Sequence[str]) -> list[Example]:
    """Taking turns between the target's own axis and elsewhere, where there is an elsewhere."""
    same = _spread([e for e in examples if task.axis in e.labels and e.labels[task.axis] not in near])
    other = _spread([e for e in examples if task.axis not in e.labels])
    turns = [group[i] for i in range(PER_GROUP) for group in (same, other) if i < len(group)]
    return turns[:PER_GROUP]


# ---------------------------------------------------------------- models that draw


def _drawn(adapter: DiffusionAdapter, task: Task, patch: Patch, report, stop) -> list[Sight]:
    """Prompts on both sides from the same noise, and what a judge sees where there is one."""
    settings, judge = pictures.DrawSettings.of(adapter), pictures.judge_for(adapter, task)
    prompts = pictures.suggested(task, PAIRS)
    specs = [settings.spec(prompt) for prompt in prompts]
    size, sides = pictures.together_at(adapter.side), []
    for number, edit in enumerate((Patch(), patch)):
        images: list[Image.Image] = []
        with edit.applied(adapter.model):
            for start in range(0, len(specs), size):
                part = specs[start : start + size]
                images += adapter.draw([s.prompt for s in part], [s.seed for s in part], stop=stop)
                if stop():
                    raise Stopped("Stopped before all pictures were drawn.")
                report(number * len(specs) + len(images), 2 * len(specs))
        sides.append((images, judge(images, task.axes) if judge else [{} for _ in images]))
    (left, saw_left), (right, saw_right) = sides
    return [
        _pair(task, *case) for case in zip(prompts, zip(left, right, strict=True), saw_left, saw_right, strict=True)
    ]


def _pair(task: Task, prompt: pictures.Prompt, images, before: Mapping[str, str], after: Mapping[str, str]) -> Sight:
    said = tuple(pictures.seen_words(prompt, task, saw) for saw in (before, after))
    group = pictures.GROUP_NAMES[prompt.group]
    return Sight(group, images, prompt.text, said, pictures.verdict(prompt, task, before, after))


# ---------------------------------------------------------------- models that answer


def _answered(adapter: VlmAdapter, task: Task, patch: Patch, neighbours: Sequence[str], stop) -> list[Sight]:
    asked = asking.suggested(adapter, task, per_group=QUESTIONS, neighbours=neighbours)
    answered = asking.answer_both(adapter, task, asked, (Patch(), patch), stop=stop)
    return [
        Sight(asking.GROUPS[a.ask.group][0], (a.ask.image,), a.ask.text, a.said, asking.verdict(a)) for a in answered
    ]
