"""Several concepts forgotten one after another: a stack of patches, each grown on top of those below it.

Patches add up, so the order of a finished stack does not change its sum; it changes what each concept was grown on.
A concept whose ground has changed since is said to be stale, and growing it again settles it on the present one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from razor.adapters.base import Adapter, Bench
from razor.errors import InputError
from razor.examples import Split, Task
from razor.metrics import Evaluation
from razor.modelspec import shareable
from razor.patches import Patch
from razor.step import evaluate

TOLD = ("task", "config", "edit_set", "rounds", "since")  # of a concept's recipe, in that of another
REVIVED = 0.02  # rise of forget accuracy, as a share of 1, that counts as brought back


@dataclass(frozen=True)
class Concept:
    """One forgotten concept."""

    task: Task
    patch: Patch  # its own change, without what lies beneath; its recipe says how it was grown
    units: tuple[str, ...] = ()  # the edit set it came from
    beneath: tuple[str, ...] = ()  # concepts that were on and below it when it was grown
    on: bool = True

    @property
    def name(self) -> str:
        return self.task.concept


@dataclass(frozen=True)
class Stack:
    """Concepts from the first forgotten to the last. A value: every change gives a new stack."""

    concepts: tuple[Concept, ...] = ()

    @property
    def patch(self) -> Patch:
        """All concepts that are on, together."""
        return sum((c.patch for c in self.concepts if c.on), Patch())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.concepts)

    @property
    def active(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.concepts if c.on)

    def recipe(self, own: Mapping, beneath: Sequence[str] = ()) -> dict:
        """A recipe that names, in order, every edit it acts together with, each by what repeats it.

        Args:
            own: recipe of the edit being looked at, in its place in the stack or on top.
            beneath: what that one was grown on.
        """
        name = own["task"]["concept"]
        told = {c.name: _entry(c) for c in self.concepts if c.on or c.name == name}
        told[name] = {"name": name, "beneath": [*beneath]}
        return {**own, "stack": [*told.values()]} if len(told) > 1 else dict(own)

    def below(self, name: str) -> "Stack":
        """The concepts under this one; the whole stack for a concept that is not in it."""
        place = self.names.index(name) if name in self.names else len(self.concepts)
        return Stack(self.concepts[:place])

    def push(self, concept: Concept) -> "Stack":
        """The stack with this concept on top, or in its old place when it was there before."""
        if concept.name in self.names:
            return Stack(tuple(concept if c.name == concept.name else c for c in self.concepts))
        return Stack((*self.concepts, concept))

    def drop(self, name: str) -> "Stack":
        return Stack(tuple(c for c in self.concepts if c is not self.find(name)))

    def switch(self, name: str, on: bool) -> "Stack":
        found = self.find(name)
        return Stack(tuple(replace(c, on=on) if c is found else c for c in self.concepts))

    def move(self, name: str, by: int) -> "Stack":
        """The concept moved up (by = 1, later) or down (by = -1, earlier)."""
        rest = [c for c in self.concepts if c is not self.find(name)]
        rest.insert(max(0, self.names.index(name) + by), self.find(name))
        return Stack(tuple(rest))

    def stale(self, name: str) -> bool:
        """Grown on other concepts than those on and below it now."""
        return self.find(name).beneath != self.below(name).active

    def find(self, name: str) -> Concept:
        """The concept of this name.

        Raises:
            InputError: it is not in the stack.
        """
        for concept in self.concepts:
            if concept.name == name:
                return concept
        raise InputError(f"{name!r} is not in the stack; it holds {', '.join(self.names) or 'nothing'}.")


def _entry(concept: Concept) -> dict:
    held = {key: concept.patch.recipe[key] for key in TOLD if key in concept.patch.recipe}
    found = {"name": concept.name, "beneath": [*concept.beneath], "edit_set": {"members": [*concept.units]}}
    return found | shareable(held)


@dataclass(frozen=True)
class Conflict:
    """What the other concepts do to one, on the test split."""

    name: str
    unedited: Evaluation
    alone: Evaluation  # only this concept's patch
    together: Evaluation  # every concept that is on
    revived_by: str | None  # the concept that, added alone, brings it back the most; None where none does

    @property
    def revived(self) -> bool:
        """Together, more of the concept is recognised than with its own patch alone."""
        return self.together.forget_accuracy.value - self.alone.forget_accuracy.value > REVIVED


def conflicts(
    adapter: Adapter, stack: Stack, bench_of: Callable[[Task], Bench], stop: Callable[[], bool] = lambda: False
) -> list[Conflict]:
    """For each concept that is on: with its own patch, with all, and which other one revives it.

    Args:
        bench_of: a bench of the unedited model (nothing beneath) for a task.
        stop: asked between concepts; True ends with those measured so far.
    """
    found = []
    active = [c for c in stack.concepts if c.on]
    for concept in active:
        if stop():
            break
        others = [c for c in active if c is not concept]
        bench = bench_of(set_aside(concept.task, [c.task for c in others]))
        at = lambda patch, bench=bench: evaluate(adapter, bench, patch, "test")  # noqa: E731
        unedited, alone, together = at(Patch()), at(concept.patch), at(stack.patch)
        pairs = {c.name: at(concept.patch + c.patch) for c in others} if len(others) > 1 else {}
        pairs = pairs or {c.name: together for c in others}
        found.append(Conflict(concept.name, unedited, alone, together, _reviver(alone, pairs)))
    return found


def set_aside(task: Task, others: Sequence[Task]) -> Task:
    """The task without the others' concepts among what it keeps: what is to be forgotten need not be retained."""
    gone = [(other.axis, other.concept) for other in others]
    parts = {
        name: tuple(e for e in examples if not any(e.labels.get(axis) == concept for axis, concept in gone))
        for name, examples in vars(task.retain).items()
    }
    near = tuple(n for n in task.neighbours if (task.axis, n) not in gone)
    return replace(task, retain=Split(**parts), neighbours=near) if gone else task


def _reviver(alone: Evaluation, pairs: Mapping[str, Evaluation]) -> str | None:
    rise = {name: e.forget_accuracy.value - alone.forget_accuracy.value for name, e in pairs.items()}
    worst = max(rise, key=rise.get, default=None)
    return worst if worst is not None and rise[worst] > REVIVED else None
