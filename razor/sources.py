"""From what a person names to a Task: bundled targets, own pictures, or one of each."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from razor import words
from razor.adapters.base import Adapter
from razor.errors import ExampleError, InputError
from razor.examples import OWN, Example, Split, Task, check_apart, joined, load_examples, split_examples, user_task
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
    drawn_too: bool = False,
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
        adapter, drawn_too: the model, where it is loaded, and whether it draws more to forget; see own_task.
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
    kept: tuple[Example, ...] = ()
    if not whole_world and is_target(retain):
        target = parse_target(retain)
        kept = tuple(e for e in _world() if e.labels.get(target.axis) == target.name)
    elif not whole_world:
        loaded = load_examples(retain)
        kept, warnings = loaded.examples, warnings + loaded.warnings
    task = own_task(
        forget_examples,
        kept,
        concept=concept,
        labels=labels,
        seed=seed,
        anchor=anchor_of(anchor, kind),
        source=forget,
        kept_source=retain or WORLD,
        adapter=adapter,
        kind=kind,
        drawn_too=drawn_too and not is_target(forget),
        on_picture=on_picture,
    )
    return task, warnings


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
    stop: Callable[[], bool] = lambda: False,
) -> Task:
    """The task behind a name alone: a class of the bundled world, or what the model itself draws of it.

    Args:
        labels: what else to keep; default: what words.suggest finds.
        on_picture, stop: see words.task_of.

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
        return words.bundled_task(adapter, target, seed=seed, on_picture=on_picture, stop=stop)
    plan = _plan(adapter, concept, kind, anchor, labels)
    return words.task_of(adapter, plan, seed=seed, on_picture=on_picture, stop=stop)


def _plan(adapter: Adapter, concept: str, kind: str, anchor: str, labels: Sequence[str]) -> words.Plan:
    """What is suggested for a name, or what is given to keep in its place."""
    plan = words.suggest(adapter, concept, kind, anchor)
    return words.keeping(plan, [label for label in labels if label.strip().lower() != plan.concept.lower()])


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


def draws_name(adapter: Adapter, concept: str) -> bool:
    """Whether the model can draw a concept from its name, to be forgotten beside a person's own pictures of it."""
    known = draws_its_own(adapter) or words.known_target(concept) is not None
    return adapter.family == "diffusion" and known


def drawn_beside(adapter: Adapter, concept: str, *, kept: bool, drawn_too: bool) -> int:
    """How many pictures the model draws beside a person's own; see own_task.

    Args:
        kept: own retain pictures are given.
    """
    own = draws_its_own(adapter)
    if drawn_too and draws_name(adapter, concept):
        return sum(sum(words.SIZES[split]) for split in (words.SIZES if own else words.LEARNED))
    return sum(retain for _, retain in words.SIZES.values()) if own and not kept else 0


def own_task(
    forget: Sequence[Example],
    retain: Sequence[Example],
    *,
    concept: str,
    labels: Sequence[str] = (),
    seed: int = 0,
    anchor: str = "",
    source: str = "own pictures",
    kept_source: str = "own pictures",
    adapter: Adapter | None = None,
    kind: str = "object",
    drawn_too: bool = False,
    on_picture: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> Task:
    """Own forget pictures, kept against own retain pictures or, when there are none, against the bundled world.

    A model that draws adds what is to be kept where no retain pictures are given, unless it draws the bundled world.

    Args:
        labels: where the model draws, what is to be kept instead of what words.suggest finds.
        adapter: the model, where it is loaded.
        kind: what the concept is, for a model that draws or answers; see words.GENERAL.
        drawn_too: a model that draws adds pictures of the concept's name to forget, and of other names to keep.
        on_picture, stop: see words.task_of.
    """
    axis = _axis(kind, adapter)
    told = {"seed": seed, "on_picture": on_picture, "stop": stop}
    origin = {"forget": source, "retain": kept_source if retain else WORLD}
    if adapter is not None and drawn_too and draws_name(adapter, concept):
        check_apart(forget, retain)
        split_examples(forget)  # what will not do is said before anything is drawn
        others = {"labels": labels, "kind": kind, "anchor": anchor if draws_its_own(adapter) else None}
        named = from_words(adapter, concept=concept, **others, **told)
        drawn = named.origin["retain"]
        origin |= {"retain": kept_source if retain else drawn, "named": drawn}
        return joined(named, forget, retain, concept=concept, seed=seed, anchor=anchor, origin=origin)
    if not retain and adapter is not None and draws_its_own(adapter):
        split_examples(forget)
        plan = _plan(adapter, concept, kind, anchor, labels)
        kept = words.retain_pictures(adapter, plan, **told)
        names = [plan.concept, *plan.neighbours, *plan.others]
        made = user_task(forget, kept, concept=concept, labels=names, seed=seed, anchor=anchor)
        return replace(made, neighbours=plan.neighbours, origin=origin | {"retain": f"drawn by {adapter.name} itself"})
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


def made_of(task: Task) -> str:
    """What the sets of a task of own and drawn pictures are made of, in a sentence; "" for any other task."""
    by = task.origin.get("named", "").removesuffix(" itself")
    if not by:
        return ""
    (own, drawn), keep = map(len, own_and_drawn(task)), len(task.retain.all())
    kept = f"prompts, {by}" if task.origin["retain"].startswith("drawn by") else f"pictures, your own and those {by}"
    return (
        f"To forget: {own} pictures of your own and {drawn} prompts that name {task.concept!r}, {by}. To keep: {keep} "
        f"{kept}."
    )


def drawn_to_keep(task: Task) -> str:
    """What is kept where the model drew all of it, in a sentence; "" for any other task."""
    by = task.origin.get("retain", "")
    if not by.startswith("drawn by"):
        return ""
    near = f"; closest to {task.concept!r}: {', '.join(task.neighbours)}" if task.neighbours else ""
    return f"To keep: {len(task.retain.all())} prompts, {by}{near}."


def unnamed(adapter: Adapter, concept: str) -> str:
    """Why the model adds nothing of the name to own pictures; "" where it does."""
    if draws_name(adapter, concept):
        return ""
    draws = adapter.family == "diffusion"
    why = f"draws the bundled world, which has no {concept.strip()!r}" if draws else "draws no pictures"
    return f"{adapter.name} {why}: your pictures are used alone."


def own_and_drawn(task: Task) -> tuple[list[Example], list[Example]]:
    """The forget pictures of a task: a person's own, and those the model drew beside them."""
    forget, both = task.forget.all(), "named" in task.origin
    drawn = [e for e in forget if both and not OWN.items() <= e.labels.items()]
    return [e for e in forget if e not in drawn], drawn


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
