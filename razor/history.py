"""The history of one growth: a tree of states that can be walked, undone and branched. Runs no model.

A state is the unedited model or the end of a growth round. What a person changes by hand on top of a state is a small
edit set, so a position in the history is a state, an edit set and a branch; undo and redo move between positions.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from razor.edit_set import EditSet
from razor.errors import InputError
from razor.metrics import Evaluation
from razor.patches import Patch
from razor.scoring import UnitScore
from razor.step import Trial

MAIN = "Main"
MAX_NAME = 40  # characters of a branch name
MAX_UNDO = 200  # positions kept


@dataclass(frozen=True)
class GrowthRound:
    """What one round did and why. Metrics are on the search split."""

    index: int  # from 1, along its branch
    added: tuple[UnitScore, ...]  # units growth took in, with the scores that chose them
    by_hand: str  # what a person had changed before the round, in words; "" for nothing
    members: tuple[str, ...]  # the edit set after the round
    trials: tuple[Trial, ...]
    chosen: int  # step of the chosen trial
    before: Evaluation
    after: Evaluation
    accepted: bool
    reason: str  # one sentence
    seconds: float
    start: Mapping[str, Any] | None = None  # what a person had changed before it, see `moves`; None: it does not tell
    settings: Mapping[str, Any] = field(default_factory=dict)  # RazorConfig.to_json as it was then

    @property
    def gain(self) -> float:
        """Forget accuracy taken away, as a share of 1."""
        return self.before.forget_accuracy.value - self.after.forget_accuracy.value

    @property
    def price(self) -> float:
        """Retain accuracy lost, as a share of 1; negative when it rose."""
        return self.before.retain_accuracy.value - self.after.retain_accuracy.value


@dataclass(frozen=True)
class State:
    """The unedited model, or where a round led."""

    number: int  # unique in the history; 0 is the unedited model
    parent: int | None
    round: GrowthRound | None
    edit_set: EditSet
    changes: Mapping[str, Patch]  # unit -> what its edit adds to the weights, switched-off units included
    evaluation: Evaluation  # search split


@dataclass(frozen=True)
class Position:
    """What is shown: a state, what a person made of its edit set, and the branch it is looked at on."""

    state: int
    edit_set: EditSet
    branch: str


@dataclass(frozen=True)
class Offshoot:
    """A branch seen from another: what it holds beyond the point where the two part."""

    name: str
    leaves: str  # the branch it parts from
    after: int  # rounds of that branch it shares
    states: tuple[State, ...]  # its own, in order; none where nothing was grown there yet
    edit_set: EditSet  # at its end


class History:
    """States, named branches (each a tip), and the position among them."""

    def __init__(self, start: State):
        self.states: dict[int, State] = {start.number: start}
        self._next = start.number + 1
        self.branches: dict[str, int] = {MAIN: start.number}
        self.position = Position(start.number, start.edit_set, MAIN)
        self._past: deque[Position] = deque(maxlen=MAX_UNDO)
        self._future: list[Position] = []

    @property
    def state(self) -> State:
        return self.states[self.position.state]

    def path(self, number: int) -> list[State]:
        """The states from the unedited model to this one."""
        found = [self.states[number]]
        while found[-1].parent is not None:
            found.append(self.states[found[-1].parent])
        return found[::-1]

    def offshoots(self, number: int) -> list[Offshoot]:
        """What the branches hold beyond the path to a state: each from the branch before it that it shares most with.

        The branch that holds the state comes first, where it goes on.
        """
        here = self.holding(number)
        known, found = {here: self.path(number)}, []
        for name in [here, *(name for name in self.branches if name != here)]:
            path = self.path(self.branches[name])
            leaves, shared = max(((n, _shared(path, other)) for n, other in known.items()), key=lambda pair: pair[1])
            known[name] = path
            if name != here or len(path) > shared:
                found.append(Offshoot(name, leaves, shared - 1, tuple(path[shared:]), path[-1].edit_set))
        return found

    @classmethod
    def of(cls, states: Mapping[int, State], branches: Mapping[str, int], position: Position) -> "History":
        """A history as it was written down; nothing of it can be undone.

        Raises:
            ValueError: a state has no path to the unedited model, or a branch or the position names none there is.
        """
        history = cls(states[0])
        history.states, history.branches, history.position = dict(states), dict(branches), position
        parents = all(s.parent in states and s.parent < s.number for s in states.values() if s.number)
        named = {*branches.values(), position.state} <= states.keys() and position.branch in branches
        if not parents or not named:
            raise ValueError("its rounds do not hang together")
        return history

    def new_number(self) -> int:
        """A number no state of this history has or had."""
        self._next = max(self._next, *(number + 1 for number in self.states))
        self._next += 1
        return self._next - 1

    # Moving

    def change(self, edit_set: EditSet) -> None:
        """Another edit set on the same state."""
        if edit_set != self.position.edit_set:
            self._move(replace(self.position, edit_set=edit_set))

    def go(self, number: int) -> None:
        """Show a state as the round left it, on the present branch if it lies there, else on one that holds it.

        Raises:
            InputError: there is no such state.
        """
        if number not in self.states:
            raise InputError("That round is gone: its branch was deleted. Pick one of the rounds shown.")
        self._move(Position(number, self.states[number].edit_set, self.holding(number)))

    def add(self, state: State) -> None:
        """A new round's end. It extends the branch, or starts one of its own where the branch has gone on already."""
        self.states[state.number] = state
        branch = self.position.branch
        if self.branches[branch] != state.parent:
            branch = self.free_name()
        self.branches[branch] = state.number
        self._move(Position(state.number, state.edit_set, branch))

    def undo(self) -> None:
        """Back to the position before the last change, round or move.

        Raises:
            InputError: there is none.
        """
        if not self._past:
            raise InputError("There is nothing to undo.")
        self._future.append(self.position)
        self.position = self._past.pop()

    def redo(self) -> None:
        """Forward again after `undo`.

        Raises:
            InputError: nothing was undone.
        """
        if not self._future:
            raise InputError("There is nothing to redo.")
        self._past.append(self.position)
        self.position = self._future.pop()

    def _move(self, position: Position) -> None:
        self._past.append(self.position)
        self._future.clear()
        self.position = position

    # Branches

    def free_name(self) -> str:
        """A name for the next branch."""
        return next(name for i in range(2, len(self.branches) + 3) if (name := f"Branch {i}") not in self.branches)

    def branch_from(self, name: str, number: int, edit_set: EditSet | None = None) -> None:
        """Start a branch at a state and go there, with the state's edit set or another.

        Raises:
            InputError: the name is empty, too long or taken, or there is no such state.
        """
        name = self._new_name(name)
        if number not in self.states:
            raise InputError("That round is gone: its branch was deleted. Branch from one of the rounds shown.")
        self.branches[name] = number
        self._move(Position(number, edit_set or self.states[number].edit_set, name))

    def switch(self, name: str) -> None:
        """Go to the tip of a branch."""
        tip = self.branches[self._known(name)]
        self._move(Position(tip, self.states[tip].edit_set, name))

    def rename(self, name: str, to: str) -> None:
        """Call a branch something else.

        Raises:
            InputError: there is no such branch, or the new name is empty, too long or taken.
        """
        if self._known(name) == to.strip():
            return
        to = self._new_name(to)
        self.branches = {to if key == name else key: tip for key, tip in self.branches.items()}
        swap = lambda p: replace(p, branch=to) if p.branch == name else p  # noqa: E731
        self.position = swap(self.position)
        self._past = deque(map(swap, self._past), MAX_UNDO)
        self._future = [swap(p) for p in self._future]

    def delete(self, name: str) -> None:
        """Drop a branch and the rounds only it holds.

        Raises:
            InputError: there is no such branch, or it is the last one.
        """
        self._known(name)
        if len(self.branches) == 1:
            raise InputError("The last branch cannot be deleted; use Start over to drop every round.")
        del self.branches[name]
        held = {s.number for tip in self.branches.values() for s in self.path(tip)}
        self.states = {number: state for number, state in self.states.items() if number in held}
        lost = lambda p: p.state not in held or p.branch not in self.branches  # noqa: E731
        if self.position.state not in held:
            first = next(iter(self.branches))
            self.position = Position(tip := self.branches[first], self.states[tip].edit_set, first)
        elif lost(self.position):
            self.position = replace(self.position, branch=self.holding(self.position.state))
        self._past = deque((p for p in self._past if not lost(p)), MAX_UNDO)
        self._future = [p for p in self._future if not lost(p)]

    def holding(self, number: int) -> str:
        """A branch with this state on it, the present one if it is among them."""
        holding = [name for name, tip in self.branches.items() if number in (s.number for s in self.path(tip))]
        return self.position.branch if self.position.branch in holding else holding[0]

    def _known(self, name: str) -> str:
        if name not in self.branches:
            raise InputError(f"There is no branch named {name!r}; there are {', '.join(self.branches)}.")
        return name

    def _new_name(self, name: str) -> str:
        name = name.strip()
        if not 0 < len(name) <= MAX_NAME:
            raise InputError(f"A branch name needs 1 to {MAX_NAME} characters.")
        if name in self.branches:
            raise InputError(f"There is a branch named {name!r} already; choose another name.")
        return name


def _shared(one: list[State], other: list[State]) -> int:
    """How many states two paths begin with in common."""
    return sum(a.number == b.number for a, b in zip(one, other, strict=False))


# What a person changed, as plain values

_ORDER = ("unlock", "unban", "in", "out", "lock", "ban")


def moves(before: EditSet, after: EditSet) -> dict[str, Any] | None:
    """What a person did to turn one edit set into another: units by action of edit_set.ACTIONS, and strengths.

    None where no such moves lead from the one to the other.
    """
    off = after.off - before.off
    done = {
        "unlock": before.locked - after.locked,
        "unban": before.banned - after.banned,
        "in": [*(n for n in after.members if n not in before.members), *sorted(off - {*before.members})],
        "out": ({*before.members} - {*after.members}) | off,
        "lock": after.locked - before.locked,
        "ban": after.banned - before.banned,
    }
    found = {action: names if action == "in" else sorted(names) for action, names in done.items() if names}
    if after.strengths != before.strengths:
        found["strengths"] = dict(after.strengths)
    if after.strength != before.strength:
        found["strength"] = after.strength
    if after.isolated != before.isolated:
        found["isolated"] = after.isolated
    return found if moved(before, found) == after else None


def moved(before: EditSet, done: Mapping[str, Any]) -> EditSet:
    """The edit set after `moves`.

    Raises:
        InputError: a strength out of range.
    """
    found = before
    for action in _ORDER:
        found = found.act(action, done.get(action, ()))
    if "strengths" in done:
        found = replace(found, strengths=())
    for name, value in done.get("strengths", {}).items():
        found = found.at_strength(value, name)
    found = found.at_strength(done["strength"]) if "strength" in done else found
    return replace(found, isolated=done["isolated"]) if "isolated" in done else found
