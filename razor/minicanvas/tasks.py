"""Ready-made tasks on the bundled world: any target, its neighbours, and pools of pictures that never mix."""

import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

from razor.examples import Axis, Example, Split, Task
from razor.minicanvas import captions
from razor.minicanvas.dataset import AXES, Target, draw, neighbours, pool

# split -> pictures of each object x style, of each person, and of the target at least
SIZES = {"gradient": (1, 8, 48), "search": (1, 3, 48), "test": (2, 8, 96)}
_drawing = threading.Lock()
_made: dict[Target, Task] = {}


def axes() -> tuple[Axis, ...]:
    """The three questions a model of this world is asked."""
    return tuple(
        Axis(name, {entry: captions.prompts(name, entry) for entry in classes}) for name, classes in AXES.items()
    )


def example(labels: Mapping[str, str], split: str, index: int) -> Example:
    """One drawn picture with its full caption."""
    source = "/".join([split, *(f"{axis}:{name}" for axis, name in labels.items()), str(index)])
    return Example(draw(labels, split, index), captions.full_caption(labels), labels, source)


def anchored(e: Example, axis: str) -> Example:
    """The example as one to forget: with its caption as it reads when the class on the axis is not named."""
    return replace(e, anchor=captions.anchor_caption(e.labels, axis))


def in_many_ways(task: Task, at_least: Mapping[str, Sequence[int]]) -> Task:
    """The task with the captions of bundled pictures that edits are made on said in many ways in turn, so that an edit
    does not hang on one sentence; the test split stays as it is.

    Gradients never see the last way to say it. Every other picture of the search split is asked for in it, so that the
    search tells an edit that forgot the thing from one that forgot the sentences.

    Args:
        at_least: split -> forget and retain examples wanted; where there are fewer, pictures come again, described
            otherwise.
    """
    sides = {}
    for number, side in enumerate(("forget", "retain")):
        split = getattr(task, side)
        said = {name: _said(getattr(split, name), task.axis, name, wanted[number]) for name, wanted in at_least.items()}
        sides[side] = replace(split, **said)
    return replace(task, **sides)


def _said(examples: Sequence[Example], axis: str, split: str, wanted: int) -> tuple[Example, ...]:
    numbers = random.Random(0).sample(range(len(examples)), len(examples))  # not in step with styles or objects
    found = [_reworded(e, axis, split, number) for number, e in zip(numbers, examples, strict=True)]
    for turn in range(1, captions.WAYS - 1):
        if len(found) >= wanted:
            break
        again = [_reworded(e, axis, split, number + turn) for number, e in zip(numbers, examples, strict=True)]
        kept = [new for old, new in zip(examples, again, strict=True) if new is not old]
        found += [replace(e, source=f"{e.source}/{turn}") for e in kept]  # a noise of its own where it is drawn
    return tuple(found)


def in_unseen_words(e: Example, turn: int) -> Example:
    """A bundled picture asked for in a sentence that neither model nor edit was trained on; any other as it is."""
    return replace(e, caption=captions.unseen_captions(e.labels)[turn % 2]) if _usual(e) else e


def _usual(e: Example) -> bool:
    """It has the usual caption of a bundled picture, which can be said otherwise."""
    return captions.whole(e.labels) and e.caption == captions.full_caption(e.labels)


def _reworded(e: Example, axis: str, split: str, number: int) -> Example:
    if not _usual(e):
        return e
    last = captions.ways(e.labels) - 1
    turn, unlearnt = (number, False) if split == "gradient" else divmod(number, 2)
    way = last if unlearnt else turn % last
    anchor = captions.anchor_caption(e.labels, axis, way) if e.anchor else ""
    return replace(e, caption=captions.full_caption(e.labels, way), anchor=anchor)


def world(split: str) -> tuple[Example, ...]:
    """The balanced pool of a split, drawn once per process, whoever asks first (a few seconds for all three)."""
    with _drawing:
        return _world(split)


@cache
def _world(split: str) -> tuple[Example, ...]:
    per_pair, per_person, _ = SIZES[split]
    return tuple(example(labels, split, index) for labels, index in pool(split, per_pair, per_person))


def task(target: Target) -> Task:
    """Forget the target, keep everything else of the world; made once."""
    return _made.get(target) or _made.setdefault(target, _task(target))


def stays(task: Task) -> bool:
    """It is one of these tasks itself, not one made from it."""
    return any(made is task for made in _made.values())


def _task(target: Target) -> Task:
    sets = {}
    for split in SIZES:
        shown = [e for e in world(split) if e.labels.get(target.axis) == target.name]
        forgotten = (*shown, *_more(target, split, len(shown)))
        sets["forget", split] = tuple(anchored(e, target.axis) for e in forgotten)
        sets["retain", split] = tuple(e for e in world(split) if e.labels.get(target.axis) != target.name)
    forget, retain = (Split(*(sets[side, split] for split in SIZES)) for side in ("forget", "retain"))
    return Task(
        concept=target.name,
        axis=target.axis,
        axes=axes(),
        neighbours=neighbours(target),
        forget=forget,
        retain=retain,
        origin={"forget": str(target), "retain": "minicanvas"},
    )


def _more(target: Target, split: str, have: int) -> list[Example]:
    """Further pictures of the target, beyond those of the pool, up to the size wanted."""
    per_pair, per_person, wanted = SIZES[split]
    if target.axis == "identity":
        kinds, first = [{"identity": target.name}], per_person
    else:
        other = "style" if target.axis == "object" else "object"
        kinds, first = [{target.axis: target.name, other: name} for name in AXES[other]], per_pair
    kinds = [{axis: kind[axis] for axis in AXES if axis in kind} for kind in kinds]
    count = max(0, wanted - have)
    return [example(kinds[i % len(kinds)], split, first + i // len(kinds)) for i in range(count)]
