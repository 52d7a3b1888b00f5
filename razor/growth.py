"""Grow the edit set round by round until the forgetting target is met.

Each round scores the patched model afresh, takes in the best new units, moves the whole set, and is kept only if it
brings the goal nearer on the search split. A round can be undone; stopping between rounds leaves nothing half done.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from razor.adapters.base import Adapter
from razor.config import RazorConfig
from razor.edit_set import EditSet
from razor.errors import InputError
from razor.examples import Task
from razor.gradients import UnitStats, collect
from razor.metrics import Evaluation
from razor.patches import Patch
from razor.scoring import UnitScore, score
from razor.step import Goal, Trial, evaluate, take_steps
from razor.units import Unit


@dataclass(frozen=True)
class GrowthRound:
    """What one round did and why. Metrics are on the search split."""

    index: int  # from 1
    added: tuple[UnitScore, ...]  # units taken in, with the scores that chose them
    members: tuple[str, ...]  # the edit set the round moved
    trials: tuple[Trial, ...]
    chosen: int  # step of the chosen trial
    before: Evaluation
    after: Evaluation
    accepted: bool
    reason: str  # one sentence
    patch: Patch  # after the round; the one before it when the round was rejected
    seconds: float


class Growth:
    """One run on one task: scores, edit set, rounds and the patch so far. Holds no weights of its own."""

    def __init__(self, adapter: Adapter, task: Task, config: RazorConfig):
        self.adapter, self.task, self.config = adapter, task, config
        self.seconds: dict[str, float] = {"encode": 0.0, "score": 0.0, "rounds": 0.0}
        started = time.monotonic()
        self.bench = adapter.bench(task, batch=config.batch, mismatch_weight=config.mismatch_weight, seed=config.seed)
        self.base = evaluate(adapter, self.bench, Patch(), "search")
        self.units: list[Unit] = []
        self._lock = threading.Lock()  # a click on the map may come while a round ends
        self.edit_set = EditSet()
        self.rounds: list[GrowthRound] = []
        self._undo: list[tuple[EditSet, list[UnitStats]]] = []  # edit set and stats before each round
        self._stats: list[UnitStats] | None = None  # of the patched model; None when the patch has moved since
        self.configure(config)
        self.seconds["encode"] = time.monotonic() - started

    @property
    def patch(self) -> Patch:
        """The edit so far."""
        return self.rounds[-1].patch if self.rounds else Patch()

    @property
    def now(self) -> Evaluation:
        """The patched model on the search split."""
        accepted = [r.after for r in self.rounds if r.accepted]
        return accepted[-1] if accepted else self.base

    @property
    def known(self) -> bool:
        """The unedited model does better than guessing, so that there is something to forget."""
        return self.base.forget_accuracy.value > self.task.chance

    @property
    def reached(self) -> bool:
        """The goal is met: see Goal.reached."""
        return self.goal.reached(self.now)

    def configure(self, config: RazorConfig) -> None:
        """Use other settings from now on; rounds and examples stay as they are."""
        self.config = config
        # Heads and MLPs are always scored, so that the map is whole; layers, which overlap them, only when asked for.
        kinds = ("head", "mlp", *(["layer"] if "layer" in config.granularity else []))
        units = self.adapter.units(kinds, tuple(self.adapter.towers))
        if units != self.units:
            self.units, self._stats = units, None
        target = self.task.chance / 2 if config.forget_target is None else config.forget_target
        self.goal = Goal(target, config.retain_budget, self.base)

    @property
    def scored(self) -> bool:
        """Scores are at hand, so that asking for them runs no model."""
        return self._stats is not None

    def stats(self) -> list[UnitStats]:
        """Gradient statistics of every unit at the patched weights; computed once per patch."""
        if self._stats is None:
            started = time.monotonic()
            with self.patch.applied(self.adapter.model):
                self._stats = collect(self.adapter.model, self.units, self.bench.scoring_terms())
            self.seconds["score"] += time.monotonic() - started
        return self._stats

    def scores(self) -> list[UnitScore]:
        """phi of every unit; moving alpha costs no model run."""
        return score(self.stats(), alpha=self.config.alpha)

    def shown_scores(self) -> list[UnitScore]:
        """The scores at hand, running no model: the present ones, else those the last round was chosen by.

        Raises:
            InputError: nothing was scored yet.
        """
        stats = self._stats or (self._undo[-1][1] if self._undo else None)
        if stats is None:
            raise InputError("Nothing is scored yet; score first.")
        return score(stats, alpha=self.config.alpha)

    def proposal(self) -> list[UnitScore]:
        """The units the next round would take in; empty when none is left."""
        count = self.config.start_units if not self.edit_set.members else 1
        return self.edit_set.propose(self.candidates(self.scores()), tau=self.config.tau, count=count)

    def candidates(self, scores: Sequence[UnitScore]) -> list[UnitScore]:
        """Those of a kind and tower growth may take in, and those a person picked; tau is a quantile of these."""
        kinds, towers, wanted = self.config.granularity, self.config.towers, self.edit_set.wanted
        return [s for s in scores if s.unit.name in wanted or (s.unit.kind in kinds and s.unit.tower in towers)]

    def change(self, act: Callable[[EditSet], EditSet]) -> None:
        """Pick, ban or clear units; safe while a round is under way."""
        with self._lock:
            self.edit_set = act(self.edit_set)

    def next_round(self, stop: Callable[[], bool] = lambda: False) -> GrowthRound:
        """Take in the best new units, move the set, keep the result if it helps.

        Raises:
            InputError: nothing is left to take in.
        """
        added = self.proposal()
        started = time.monotonic()
        if not added:
            raise InputError(
                "No unit is left to take in: lower tau, lift a ban or allow another tower or kind of unit."
            )
        names = tuple(s.unit.name for s in added)
        members = self.edit_set.members + names
        # K may hold kinds that growth no longer takes in, so its units are looked up among all of them.
        by_name = {u.name: u for u in self.adapter.units(("head", "mlp", "layer"), tuple(self.adapter.towers))}
        before = self.now
        found = take_steps(
            self.adapter,
            self.bench,
            [by_name[name] for name in members],
            self.patch,
            self.goal,
            self.config,
            before=before,
            first_batch=1000 * len(self.rounds),
            stop=stop,
        )
        accepted = found.chosen > 0
        done = GrowthRound(
            index=len(self.rounds) + 1,
            added=tuple(added),
            members=members if accepted else self.edit_set.members,
            trials=found.trials,
            chosen=found.chosen,
            before=before,
            after=found.evaluation,
            accepted=accepted,
            reason=_reason(accepted, bool(found.trials), before, found.evaluation, self.goal),
            patch=found.patch,
            seconds=time.monotonic() - started,
        )
        self.seconds["rounds"] += done.seconds
        with self._lock:
            self._undo.append((self.edit_set, self.stats()))
            if found.trials:
                self.edit_set = self.edit_set.joined(names) if accepted else self.edit_set.turned_down(names)
        self.rounds.append(done)
        if accepted and self.config.rescore:
            self._stats = None
        return done

    def run(self, stop: Callable[[], bool] = lambda: False) -> Iterator[GrowthRound]:
        """Rounds until the target is met, the rounds are used up, or `stop` says so. May be run again to go on."""
        for _ in range(self.config.rounds):
            if self.reached or stop() or (self.rounds and not self.proposal()):
                return
            yield self.next_round(stop)

    def undo(self) -> None:
        """Take the last round back; picks and bans made since stay.

        Raises:
            InputError: there is none.
        """
        if not self.rounds:
            raise InputError("There is no round to undo.")
        self.rounds.pop()
        with self._lock:
            old, stats = self._undo.pop()
            self._stats = self._usable(stats)
            now = self.edit_set
            self.edit_set = replace(old, wanted=(old.wanted | now.wanted) - now.banned, banned=now.banned)

    def reset(self) -> None:
        """Take every round back and forget picks and bans."""
        if self._undo:
            self._stats = self._usable(self._undo[0][1])
        self.rounds, self._undo, self.edit_set = [], [], EditSet()

    def _usable(self, stats: list[UnitStats]) -> list[UnitStats] | None:
        """Earlier stats, unless the kinds of units scored have changed since."""
        return stats if [s.unit for s in stats] == self.units else None


def _reason(accepted: bool, tried: bool, before: Evaluation, after: Evaluation, goal: Goal) -> str:
    if not tried:
        return "Stopped before the first step, so nothing was changed."
    if not accepted:
        return "Rejected: no step brought the goal nearer, so nothing was changed."
    forget, retain = (
        f"{getattr(before, name).value:.1%} to {getattr(after, name).value:.1%}"
        for name in ("forget_accuracy", "retain_accuracy")
    )
    end = " The target is met." if goal.reached(after) else ""
    return f"Forget accuracy went from {forget}, retain accuracy from {retain}.{end}"
