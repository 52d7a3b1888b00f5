"""From what a person names to a Task: bundled targets, own pictures, or one of each."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from razor import words
from razor.adapters.base import Adapter
from razor.errors import ExampleError, InputError
from razor.examples import Example, Split, Task, load_examples, user_task
from razor.minicanvas import tasks
from razor.minicanvas.dataset import AXES, parse_target

WORLD = "minicanvas"  # names the whole bundled world as a retain set
KIND_AXES = {"object": "object", "style": "style", "person": "identity"}  # what is asked for each kind of thing


def is_target(text: str) -> bool:
    """Whether the text is meant as a bundled target (`object:cat`) rather than a path."""
    return text.partition(":")[0] in AXES and not Path(text).exists()


def resolve(
    forget: str,
    retain: str | None = None,
    *,
    concept: str = "",
    labels: Sequence[str] = (),
    seed: int = 0,
    anchor: str | None = None,
    kind: str = "object",
    adapter: Adapter | None = None,
    on_picture: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Task, tuple[str, ...]]:
    """The task behind two names, and a sentence for each picture that was skipped and for what was not used.

    >>> task, skipped = resolve("style:thermal")
    >>> task.concept, task.axis, len(task.forget.test), skipped
    ('thermal', 'style', 96, ())
    >>> any(e.labels.get("style") == "thermal" for e in task.retain.all())
    False

    Args:
        forget: a bundled target, or a folder, zip, csv, jsonl or picture.
        retain: the same, or None / "minicanvas" for the whole bundled world.
        concept: what own forget pictures show, in words.
        labels: classes to measure against; default: the retain captions, or the bundled world's classes.
        anchor, kind: what a model that draws puts in the place of own forget pictures' concept; see words.py.
        adapter: the model, where it is loaded; see own_task.
        on_picture: called with how many pictures the model has drawn and how many it will.

    Raises:
        InputError, ExampleError: see examples.py.
    """
    whole_world = retain in (None, "", WORLD)
    if is_target(forget) and not labels and (whole_world or is_target(retain)):
        target = parse_target(forget)
        task, other = tasks.task(target), "" if words.known_target(concept) == target else concept
        unused = _unused(task.axis, concept=other, anchor=anchor, kind=kind)
        said = (f"{forget} is of the bundled world, which has no use for {unused}.",) if unused else ()
        return (task if whole_world else _keeping(task, retain)), said
    warnings: tuple[str, ...] = ()
    if is_target(forget):
        target = parse_target(forget)
        concept, forget_examples = concept or target.name, tasks.task(target).forget.all()
    else:
        loaded = load_examples(forget)
        forget_examples, warnings = loaded.examples, loaded.warnings
    if whole_world:
        chosen = {"concept": concept, "labels": labels, "seed": seed, "anchor": anchor_of(anchor, kind)}
        options = {"source": forget, "adapter": adapter, "kind": kind, "on_picture": on_picture}
        return own_task(forget_examples, (), **options, **chosen), warnings
    if is_target(retain):
        target = parse_target(retain)
        kept = tuple(e for e in _world() if e.labels.get(target.axis) == target.name)
    else:
        loaded = load_examples(retain)
        kept, warnings = loaded.examples, warnings + loaded.warnings
    chosen = {"concept": concept, "labels": labels, "seed": seed, "anchor": anchor_of(anchor, kind)}
    task = user_task(forget_examples, kept, **chosen, axis=_axis(kind, adapter))
    return replace(task, origin={"forget": forget, "retain": retain}), warnings


def anchor_of(anchor: str | None, kind: str) -> str:
    """What stands in for the concept: as given, else what its kind is in general.

    Raises:
        InputError: an unknown kind.
    """
    if kind not in words.GENERAL:
        raise InputError(f"{kind!r} is no kind of thing to forget; choose one of {', '.join(words.GENERAL)}.")
    return words.GENERAL[kind] if anchor is None else anchor


def from_words(
    adapter: Adapter,
    *,
    concept: str,
    labels: Sequence[str] = (),
    seed: int = 0,
    anchor: str | None = None,
    kind: str = "object",
    on_picture: Callable[[int, int], None] = lambda done, total: None,
) -> Task:
    """The task behind a name alone: a class of the bundled world, or what the model itself draws of it.

    Args:
        labels: what else to keep; default: what words.suggest finds.
        on_picture: see words.task_of.

    Raises:
        InputError: an unknown kind; the model draws no pictures and the name is none of the bundled world's; or it is
            one, and labels, anchor or kind are given that its task has no use for.
    """
    target, given = words.known_target(concept), {"labels": labels, "anchor": anchor}
    anchor = anchor_of(anchor, kind)
    if target is not None and not draws_its_own(adapter) and (unused := _unused(target.axis, **given, kind=kind)):
        raise InputError(
            f"{concept!r} is {target} of the bundled world, which has no use for {unused}; leave that out."
        )
    if adapter.family != "diffusion":
        if target is None:
            raise InputError(f"{adapter.name} draws no pictures: give some of {concept!r} with --forget.")
        return tasks.task(target)
    if target is not None and not draws_its_own(adapter):
        return words.bundled_task(adapter, target, seed=seed, on_picture=on_picture)
    plan = words.suggest(adapter, concept, kind, anchor)
    if kept := tuple(label for label in labels if label.lower() != plan.concept.lower()):
        plan = replace(plan, neighbours=kept, others=())
    return words.task_of(adapter, plan, seed=seed, on_picture=on_picture)


def _unused(axis: str, *, kind: str, **given: str | Sequence[str] | None) -> str:
    """What was given and is not used where a class of the bundled world is forgotten: "the anchor"; "" for nothing."""
    names = [f"the {name}" for name, value in given.items() if value]
    names += ["the kind"] if kind != "object" and KIND_AXES.get(kind) != axis else []
    return " and ".join(names)


def draws_its_own(adapter: Adapter) -> bool:
    """Whether the model draws a world of its own, to which pictures of the bundled one mean nothing."""
    return adapter.family == "diffusion" and not adapter.of_world


def asks_kind(adapter: Adapter) -> bool:
    """Whether the model is asked another question for another kind of thing."""
    return adapter.family == "vlm"


def _axis(kind: str, adapter: Adapter | None) -> str:
    """What the axis of one's own pictures is called: a name for their labels, or what the model is asked."""
    return KIND_AXES[kind] if adapter is not None and asks_kind(adapter) else "label"


def own_task(
    forget: Sequence[Example],
    retain: Sequence[Example],
    *,
    concept: str,
    labels: Sequence[str] = (),
    seed: int = 0,
    anchor: str = "",
    source: str = "own pictures",
    adapter: Adapter | None = None,
    kind: str = "object",
    on_picture: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> Task:
    """Own forget pictures, kept against own retain pictures or, when there are none, against the bundled world.

    Args:
        adapter: the model, where it is loaded. One that draws, and not the bundled world, draws what is to be kept.
        kind: what the concept is, for a model that draws or answers; see words.GENERAL.
        on_picture, stop: see words.retain_pictures.
    """
    axis = _axis(kind, adapter)
    if not retain and adapter is not None and draws_its_own(adapter):
        plan, kept = words.retain_pictures(adapter, concept, kind, seed=seed, on_picture=on_picture, stop=stop)
        names = [plan.concept, *plan.neighbours, *plan.others]
        made = user_task(forget, kept, concept=concept, labels=names, seed=seed, anchor=anchor)
        drawn = {"forget": source, "retain": f"drawn by {adapter.name} itself"}
        return replace(made, neighbours=plan.neighbours, origin=drawn)
    origin = {"forget": source, "retain": "own pictures" if retain else WORLD}
    if retain:
        made = user_task(forget, retain, concept=concept, labels=labels, seed=seed, anchor=anchor, axis=axis)
        return replace(made, origin=origin)
    name = concept.strip().lower()
    if not name:
        raise InputError("Say what to forget: give the concept in words, such as 'red bicycle'.")
    shown = ("object", "identity") if axis == "label" else (axis,)
    classes = list(labels) or [name for part in shown for name in AXES[part]]
    if not labels and name not in (c.lower() for c in classes):
        classes = [concept.strip(), *classes]
    others = [e for e in _world() if name not in {v.lower() for v in e.labels.values()}]
    kept = [_relabelled(e, on, axis) for e in others for on in shown if on in e.labels]
    made = user_task(forget, kept, concept=concept, labels=classes, seed=seed, anchor=anchor, axis=axis)
    return replace(made, origin=origin)


def _keeping(task: Task, retain: str) -> Task:
    """A bundled task that keeps one bundled class only, measured on the same axes."""
    keep = parse_target(retain)
    parts = {
        name: tuple(e for e in examples if e.labels.get(keep.axis) == keep.name)
        for name, examples in vars(task.retain).items()
    }
    if not all(parts.values()):
        raise ExampleError("The same pictures stand in both the forget and the retain set; name another retain set.")
    return replace(task, retain=Split(**parts), origin={**task.origin, "retain": retain})


def _world() -> tuple[Example, ...]:
    return tasks.world("gradient")


def _relabelled(example: Example, on: str, axis: str) -> Example:
    """A bundled picture captioned by its class on one axis, so that this can be read from the caption."""
    return Example(example.image, f"a picture of {example.labels[on]}", {axis: example.labels[on]}, example.source)
