"""Grow the edit set round by round until the forgetting target is met, around what a person wants in or out.

Each round scores the patched model afresh, takes in the best new units, moves the whole set, and is kept only if it
brings the goal nearer on the search split. Between rounds a person may put units in, take them out, lock, ban, dial
their strength, go back and branch; what each unit adds to the weights is kept by itself, so none of that runs a round
again. Stopping between rounds leaves nothing half done.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from typing import Any

from torch import Tensor

from razor.adapters.base import GLANCE, Adapter, ascended, growing
from razor.config import RazorConfig
from razor.edit_set import EditSet, check_names, describe_changes
from razor.errors import InputError
from razor.examples import Task
from razor.gradients import UnitStats, collect
from razor.history import GrowthRound, History, Position, State, moved, moves
from razor.metrics import Evaluation
from razor.patches import Patch
from razor.scoring import UnitScore, score
from razor.sharing import bench_for
from razor.step import (
    Goal,
    StepResult,
    edited,
    edited_towers,
    evaluate,
    take_steps,
    trial_step,
    trial_steps,
    worth_a_glance,
)
from razor.units import Unit, overlap

KINDS = ("head", "mlp", "layer")
TRIALS_KEPT = 64_000_000  # numbers; a model with more to edit gets the step of a unit only when it is asked for
EVALUATIONS_KEPT = 256  # search results of edit sets tried by hand
GUARD_STEP = 0.05  # strengths the overshoot guard looks at


@dataclass(frozen=True)
class Plan(EditSet):
    """The locks and bans of a run that is to be repeated and, where they are known, its moves by hand."""

    config: RazorConfig | None = None  # it ended under
    steps: tuple["Step", ...] = ()  # one before each of its rounds, one after the last; none where they are not known


@dataclass(frozen=True)
class Step:
    """What a person did between two rounds."""

    moves: Mapping[str, Any]  # see history.moves
    settings: Mapping[str, Any]  # of the round that follows, where they are not those of the plan


class Growth:
    """One run on one task: scores, the history of rounds, and what a person made of it. Holds no weights of its own.

    Args:
        beneath: edits the model carries already, such as the patches of concepts forgotten before.
    """

    def __init__(self, adapter: Adapter, task: Task, config: RazorConfig, *, beneath: Patch = Patch()):
        ascended(adapter, config.forget_loss)  # what there is no choice of is refused before any work
        self.adapter, self.task, self.config = adapter, task, config
        self.seconds: dict[str, float] = {"encode": 0.0, "score": 0.0, "rounds": 0.0}
        started = time.monotonic()
        self.bench = bench_for(
            adapter, task, batch=config.batch, mismatch_weight=config.mismatch_weight, seed=config.seed, beneath=beneath
        )
        self.base = evaluate(adapter, self.bench, Patch(), "search")
        self.history = History(State(0, None, None, EditSet(), {}, self.base))
        # K may hold kinds that growth no longer takes in, so units are looked up among all of them.
        self.every = {u.name: u for u in adapter.units(KINDS, tuple(adapter.towers))}
        parameters = dict(adapter.model.named_parameters())
        self.sizes = {name: unit.size(parameters) for name, unit in self.every.items()}
        self.units: list[Unit] = []
        self.forget_loss = ""  # see Bench
        self.rounding = False  # a round is under way
        self._lock = threading.Lock()  # a click on the map may come while a round ends
        self._meanwhile: list[tuple[str, tuple[str, ...]]] = []  # actions since the round under way began
        self._ahead: deque[Step] = deque()  # of a plan that is followed: what is done after the next round, and so on
        self._led_to: tuple[Position, Step] | None = None  # where that plan has led, and the step there
        self._to_repeat: RazorConfig | None = None  # settings of a plan whose rounds `run` has not made yet
        self._stats: dict[int, list[UnitStats]] = {}  # of the patched model, by state
        self._trials: tuple[int, dict[str, Patch]] = (0, {})  # the last state scored; unit -> its trial step there
        self._by_hand: dict[tuple[int, str], Patch] = {}  # (state, unit) -> what putting it in there added
        self._glanced = False
        self._measured: OrderedDict[tuple, Evaluation] = OrderedDict()
        self.configure(config)
        self.seconds["encode"] = time.monotonic() - started

    # What is shown now

    @property
    def edit_set(self) -> EditSet:
        return self.history.position.edit_set

    @property
    def rounds(self) -> list[GrowthRound]:
        """The rounds that led here, rejected ones included."""
        return [s.round for s in self.history.path(self.history.position.state) if s.round]

    @property
    def joined(self) -> dict[str, int]:
        """Unit -> the round, of those that led here, that took it in."""
        return {name: done.index for done in reversed(self.rounds) if done.accepted for name in done.members}

    @property
    def begun(self) -> bool:
        """There is a round, or one is under way."""
        return self.rounding or len(self.history.states) > 1

    @property
    def by_hand(self) -> str:
        """What a person changed since the last round, in words; "" for nothing."""
        return describe_changes(self.history.state.edit_set, self.edit_set)

    @property
    def patch(self) -> Patch:
        """The edit as it stands: every active unit's change at its strength."""
        return self.patch_of(self.edit_set)

    def patch_of(self, edit_set: EditSet, state: State | None = None) -> Patch:
        """The edit a set stands for on a state, the present one unless named."""
        state = state or self.history.state
        patch = Patch()
        for name in edit_set.active:
            patch = patch + self._acting(name, edit_set, state)
        return patch

    def _acting(self, name: str, edit_set: EditSet, state: State) -> Patch:
        """One unit's change at its strength."""
        strength = edit_set.strength * edit_set.strength_of(name)
        change = self.change_of(name, state)
        return change if strength == 1 else change.scaled(strength)

    def change_of(self, name: str, state: State | None = None) -> Patch:
        """What one unit's edit adds to the weights at full strength: as the rounds left it, else its trial step."""
        state = state or self.history.state
        if name in state.changes:
            return state.changes[name]
        if (state.number, name) not in self._by_hand:
            self._by_hand[state.number, name] = self.trial_of(name, state)
        return self._by_hand[state.number, name]

    def trial_of(self, name: str, state: State | None = None) -> Patch:
        """The step a unit gets by hand: from the scoring whose scores are shown, else from gradients of its own."""
        state = state or self.history.state
        scored, steps = self._trials
        if name in steps and scored == self._scored_state(state).number:
            return steps[name]
        return trial_step(self.adapter, self.bench, self.every[name], self._grown(state), self.config)

    @property
    def now(self) -> Evaluation:
        """The edit as it stands on the search split; runs the model only for an edit never measured before."""
        return self.evaluation(self.edit_set)

    def evaluation(self, edit_set: EditSet, state: State | None = None) -> Evaluation:
        """Search metrics of an edit set on a state; the last few hundred are remembered."""
        state = state or self.history.state
        if (known := self.known_evaluation(edit_set, state)) is not None:
            return known
        found = evaluate(self.adapter, self.bench, self.patch_of(edit_set, state), "search")
        self._measured[_key(edit_set, state)] = found
        while len(self._measured) > EVALUATIONS_KEPT:
            self._measured.popitem(last=False)
        return found

    def known_evaluation(self, edit_set: EditSet, state: State | None = None) -> Evaluation | None:
        """The same where it needs no model run, else None."""
        state = state or self.history.state
        if not edit_set.active:
            return self.base
        if _key(edit_set, state) == _key(state.edit_set, state):
            return state.evaluation
        return self._measured.get(_key(edit_set, state))

    def first_look(self) -> Evaluation | None:
        """The edit as it stands on a third of the search pictures, where running all of them takes longer.

        None where the towers that take long are as they were, so that the whole split is as quick, and where the split
        is small.
        """
        patch = self.patch
        if not worth_a_glance(self.bench, edited_towers(self.adapter, patch)):
            return None
        self.prepare_look()
        return evaluate(self.adapter, self.bench, patch, GLANCE)

    def prepare_look(self) -> None:
        """Record the unedited answers a first look needs, once, while nobody waits."""
        if not self._glanced and self.bench.slow_towers:
            evaluate(self.adapter, self.bench, Patch(), GLANCE)
            self._glanced = True

    @cached_property
    def known(self) -> bool:
        """The unedited model does better than guessing, so that there is something to forget."""
        with edited(self.adapter, self.bench, Patch()):
            if "known" not in self.bench.unedited:
                self.bench.unedited["known"] = self.bench.knows(self.base)
            return self.bench.unedited["known"]

    @property
    def reached(self) -> bool:
        """The goal is met: see Goal.reached."""
        return self.goal.reached(self.now)

    def configure(self, config: RazorConfig) -> None:
        """Use other settings from now on; rounds and examples stay as they are."""
        if unknown := sorted(set(config.towers or ()) - set(self.adapter.towers)):
            raise InputError(
                f"{self.adapter.name} has no tower {unknown[0]!r}; growth may edit {', '.join(self.adapter.towers)}."
            )
        loss = ascended(self.adapter, config.forget_loss)
        self.config = config
        # Heads and MLPs are always scored, so that the map is whole; layers, which overlap them, only when asked for.
        kinds = ("head", "mlp", *(["layer"] if "layer" in config.granularity else []))
        units = [u for u in self.every.values() if u.kind in kinds]
        if (units, loss) != (self.units, self.forget_loss):
            self.units, self._stats, self._trials = units, {}, (0, {})
            self.forget_loss = self.bench.forget_loss = loss
        target = self.bench.aim if config.forget_target is None else config.forget_target
        self.goal = Goal(target, config.retain_budget, self.base, self.bench.spared, self.bench.mends)

    # Scores

    @property
    def scored(self) -> bool:
        """Scores of the state shown are at hand, so that asking for them runs no model."""
        return self._stats_at(self.history.state) is not None

    def stats(self) -> list[UnitStats]:
        """Gradient statistics of every unit at the weights the last round left; computed once per state."""
        state = self.history.state
        if (found := self._stats_at(state)) is not None:
            return found
        if self._grown(state).deltas:
            return self.rescore()
        units, config = self.units, self.config
        settings = [unit.name for unit in units], config.rho, config.retain_weight, self.forget_loss
        asked, found, steps = self.bench.unedited.get("scores", (None, [], {}))
        if asked != settings:
            found = self.rescore()
            if self.units is units and self.config is config:  # nobody changed them meanwhile
                self.bench.unedited["scores"] = settings, found, self._trials[1]
            return found
        self._stats[state.number], self._trials = found, (state.number, steps)
        return found

    def rescore(self) -> list[UnitStats]:
        """Score the state shown, whether or not it was; keeps every unit's trial step as well where they fit."""
        return self._collect(self.history.state)

    def _stats_at(self, state: State) -> list[UnitStats] | None:
        """Stats that hold for a state: its own, or its parent's where the round changed nothing or scores are kept."""
        while state.number not in self._stats:
            moved = state.round is not None and (state.round.accepted or state.round.by_hand)
            if state.parent is None or (moved and self.config.rescore):
                return None
            state = self.history.states[state.parent]
        return self._stats[state.number]

    def _collect(self, state: State) -> list[UnitStats]:
        started = time.monotonic()
        small = sum(self.sizes[unit.name] for unit in self.units) <= TRIALS_KEPT
        kept: dict[str, tuple[Tensor, Tensor]] | None = {} if small else None
        with edited(self.adapter, self.bench, self._grown(state)):
            terms, sparing = self.bench.scoring_terms(), self.adapter.reruns
            found = collect(self.adapter.model, self.units, terms, kept=kept, sparing=sparing)
            steps = trial_steps(self.adapter.model, self.bench, self.units, kept, self.config) if kept else {}
        self._trials = state.number, steps
        self._stats[state.number] = found
        self.seconds["score"] += time.monotonic() - started
        return found

    def _grown(self, state: State) -> Patch:
        """The edit as the state's round left it, without what a person did since."""
        return self.patch_of(state.edit_set, state)

    def scores(self) -> list[UnitScore]:
        """phi of every unit; moving alpha costs no model run."""
        return score(self.stats(), alpha=self.config.alpha)

    @property
    def showable(self) -> bool:
        """There are scores to show, of the state shown or of one before it."""
        return any(self._stats_at(state) for state in self.history.path(self.history.position.state))

    def shown_stats(self) -> list[UnitStats]:
        """The stats at hand, running no model: of the state shown, else those its round was chosen by.

        Raises:
            InputError: nothing was scored yet.
        """
        return self._stats_at(self._scored_state(self.history.state))

    @property
    def scored_patch(self) -> Patch:
        """The edit the shown stats were collected at."""
        return self._grown(self._scored_state(self.history.state))

    @property
    def scored_at(self) -> int:
        """The number of the state the shown stats were collected at."""
        return self._scored_state(self.history.state).number

    def _scored_state(self, state: State) -> State:
        """The last state up to this one whose own stats are at hand."""
        for found in reversed(self.history.path(state.number)):
            if found.number in self._stats:
                return found
        raise InputError("Nothing is scored yet; press Score first.")

    def shown_scores(self) -> list[UnitScore]:
        """phi from `shown_stats`."""
        return score(self.shown_stats(), alpha=self.config.alpha)

    @property
    def growing(self) -> Sequence[str]:
        """Towers growth edits by itself unless the settings say otherwise."""
        return growing(self.adapter, self.config.forget_loss)

    def candidates(self, scores: Sequence[UnitScore]) -> list[UnitScore]:
        """Those of a kind and tower growth may take in by itself; tau is a quantile of these."""
        kinds, towers = self.config.granularity, self.config.towers or self.growing
        return [s for s in scores if s.unit.kind in kinds and s.unit.tower in towers]

    def proposal(self) -> list[UnitScore]:
        """The units the next round would take in by itself; empty when none is left, or when a person put some in."""
        return self._proposed(self.scores(), self.edit_set)

    @property
    def exhausted(self) -> bool:
        """No unit is left for a round to take in or to move for the first time."""
        return not self.proposal() and not self._fresh(self.edit_set)

    def _proposed(self, scores: Sequence[UnitScore], edit_set: EditSet) -> list[UnitScore]:
        fresh = self._fresh(edit_set)
        first = not any(r.accepted for r in self.rounds)
        count = self.config.start_units - len(edit_set.members) if first else 1 - len(fresh)
        inside = [self.every[name] for name in edit_set.members]
        free = [s for s in self.candidates(scores) if not any(overlap(s.unit, u) for u in inside)]
        return edit_set.propose(free, tau=self.config.tau, count=count)

    def _fresh(self, edit_set: EditSet) -> list[str]:
        """Members a person put in that no round has moved or tried yet."""
        tried = self.history.state.changes.keys() | edit_set.rejected
        return [name for name in edit_set.members if name not in tried]

    def own_stats(self, number: int) -> list[UnitStats] | None:
        """The stats collected at this state itself, where there are any."""
        return self._stats.get(number)

    def adopt(self, history: History, by_hand: Mapping[str, Patch], stats: Mapping[int, list[UnitStats]]) -> None:
        """Take over a history read from disk, the changes put in by hand at its position, and stats by state."""
        self.history = history
        self._by_hand = {(history.position.state, name): patch for name, patch in by_hand.items()}
        self._stats = {n: found for n, found in stats.items() if [s.unit for s in found] == self.units}
        self._measured.clear()

    def bring_in(self, changes: Mapping[str, Patch], origin: str) -> GrowthRound:
        """An edit made elsewhere, as a round by hand on the unedited model, on a branch of its own.

        Args:
            changes: unit -> its part of the edit, see importing.by_unit.
            origin: what to call it, such as a file's name.

        Raises:
            InputError: it edits nothing, or units this growth has not.
        """
        names = check_names(changes, self.every)
        if not names:
            raise InputError(f"{origin} changes no head and no MLP of {self.adapter.name}.")
        self.still()
        started = time.monotonic()
        edit_set = EditSet(members=names)
        patch = sum((changes[name] for name in names), Patch())
        now = evaluate(self.adapter, self.bench, patch, "search")
        seconds = time.monotonic() - started
        done = GrowthRound(
            index=1,
            added=(),
            by_hand=f"{len(names)} {'units' if len(names) > 1 else 'unit'} brought in from {origin}",
            members=names,
            trials=(),
            chosen=0,
            before=self.base,
            after=now,
            accepted=True,
            reason=f"{origin} was brought in: " + _reason(True, True, self.base, now, self.goal, self.bench.says),
            seconds=seconds,
        )
        self.history.add(State(self.history.new_number(), 0, done, edit_set, dict(changes), now))
        return done

    # What a person does

    def act(self, action: str, names: Iterable[str]) -> str:
        """Put in, take out, lock, ban and so on (edit_set.ACTIONS); safe while a round is under way.

        Returns:
            Why some units stayed as they are, in one sentence; "" when none did.
        """
        names = tuple(names)
        with self._lock:
            before = self.edit_set
            said = before.refusal(action, names)
            if action in ("in", "lock") and (barred := self._barred(before, names)):
                said, names = barred, ()
            self.history.change(before.act(action, names))
            if self.rounding:
                self._meanwhile.append((action, names))
        return said

    def plan(self, planned: EditSet) -> None:
        """Begin as a run began that is to be repeated: with the moves of a Plan, else with the locks and bans.

        The moves between the rounds of a Plan follow as they are made, for as long as nobody goes elsewhere.
        """
        if isinstance(planned, Plan) and planned.steps:
            self._ahead, self._to_repeat = deque(planned.steps), planned.config
            self._follow()
            return
        for action, names in (("ban", planned.banned), ("lock", planned.locked)):
            if names:
                self.act(action, sorted(names))

    def _follow(self) -> None:
        """Do what the plan has next. A unit put in gets its step from the scores at hand, as it does on the page."""
        step = self._ahead.popleft()
        if step.moves:
            if not self.showable:
                self.scores()
            with self._lock:
                self.history.change(moved(self.edit_set, step.moves))
            for name in self.edit_set.active:
                self.change_of(name)
        self._led_to = self.history.position, step

    def _barred(self, edit_set: EditSet, names: Sequence[str]) -> str:
        """Why these cannot be in together: a whole layer overlaps the heads and the MLP inside it."""
        units = [self.every[name] for name in {*edit_set.members, *names}]
        for name in names:
            for other in units:
                if overlap(self.every[name], other):
                    return f"{name} overlaps {other.name}, and a weight can belong to one edited unit; choose one."
        return ""

    def set_strength(self, value: float, name: str | None = None) -> None:
        """Dial all units together, or one; 1 is the edit as it was found."""
        self.still()
        self.history.change(self.edit_set.at_strength(value, name))

    def guarded(self, value: float, name: str | None = None) -> float:
        """The largest strength up to `value` that costs no more than the budgets allow, found by bisection.

        Strengths up to 1 are let through: weakening an edit is no overshoot.
        """
        held = self.goal.damage(self.evaluation(self.edit_set.at_strength(1.0, name)))
        fits = lambda s: self.goal.damage(self.evaluation(self.edit_set.at_strength(s, name))) <= held  # noqa: E731
        if value <= 1 or fits(value):
            return value
        low, high = 0, round((value - 1) / GUARD_STEP)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(round(1 + middle * GUARD_STEP, 2)) else (low, middle)
        return round(1 + low * GUARD_STEP, 2)

    def undo(self) -> None:
        """Take back the last change, round or move."""
        self.still()
        self.history.undo()

    def redo(self) -> None:
        """Do it again."""
        self.still()
        self.history.redo()

    def go(self, number: int) -> None:
        """Show a state as its round left it."""
        self.still()
        self.history.go(number)

    def reset(self) -> None:
        """Back at the unedited model without locks and bans; the rounds stay in the history."""
        self.still()
        self.history.go(0)

    def replan(self, name: str) -> None:
        """Start a branch at the unedited model that keeps the present locks and bans."""
        self.still()
        free = EditSet(banned=self.edit_set.banned).act("lock", sorted(self.edit_set.locked))
        self.history.branch_from(name, 0, free)

    def still(self) -> None:
        """Raise InputError while a round is under way."""
        if self.rounding:
            raise InputError("A round is under way; stop it or wait for its end.")

    # Rounds

    def next_round(self, stop: Callable[[], bool] = lambda: False) -> GrowthRound:
        """Take in the best new units, move the set, keep the result if it helps.

        Raises:
            InputError: nothing is left to take in, or a round is under way already.
        """
        if self._led_to is None or self._led_to[0] != self.history.position:
            self._ahead.clear()
        if not self._ahead:
            return self._one_round(stop)
        asked = self.config
        self.configure(replace(asked, **self._led_to[1].settings))
        try:
            done = self._one_round(stop)
        finally:
            self.configure(asked)
        if stop() or self._meanwhile:
            self._ahead.clear()
        else:
            self._follow()
        return done

    def _one_round(self, stop: Callable[[], bool]) -> GrowthRound:
        with self._lock:
            self.still()
            self._meanwhile, self.rounding = [], True
            state, start = self.history.state, replace(self.edit_set, isolated=None)
        try:
            scores = self.scores()
            added = self._proposed(scores, start)
            if not added and not self._fresh(start):
                raise InputError(self._nothing_left(scores, start))
            started, measure = time.monotonic(), self.bench.measure
            names = [*start.members, *(s.unit.name for s in added)]
            before, patch = self.evaluation(start, state), self.patch_of(start, state)
            found = take_steps(
                self.adapter,
                self.bench,
                [self.every[name] for name in names],
                patch,
                self.goal,
                self._eased(),
                before=before,
                first_batch=1000 * len(self.rounds),
                stop=stop,
            )
            if self.bench.measure != measure:
                state = self._measure_again(state)
                before = self.evaluation(start, state)
            done = self._round(state, start, added, before, found, time.monotonic() - started)
            self._keep(state, start, done, found.patch)
        finally:
            self.rounding = False
        return done

    def _eased(self) -> RazorConfig:
        """The settings, with half the pull of what is kept for every round turned down since the last accepted one.

        A round that failed would fail again; its budgets hold as before. The paper's single step has no such rule.
        """
        turned_down = sum(1 for _ in takewhile(lambda done: not done.accepted, reversed(self.rounds)))
        if not turned_down or self.config.inner_steps == 1:
            return self.config
        weight = self.bench.retain_weight if self.config.retain_weight is None else self.config.retain_weight
        return replace(self.config, retain_weight=weight / 2**turned_down)

    def _measure_again(self, state: State) -> State:
        """Measure every state as strictly as the bench now counts, so that their numbers compare; gives that state."""
        self._measured.clear()
        for number, held in self.history.states.items():
            patch = self.patch_of(held.edit_set, held)
            now = evaluate(self.adapter, self.bench, patch, "search") if patch.deltas else self.base
            self.history.states[number] = replace(held, evaluation=now)
        return self.history.states[state.number]

    def _round(self, state, start: EditSet, added, before, found: StepResult, seconds: float) -> GrowthRound:
        accepted = found.chosen > 0
        self.seconds["rounds"] += seconds
        return GrowthRound(
            index=len(self.rounds) + 1,
            added=tuple(added),
            by_hand=describe_changes(state.edit_set, start),
            members=(*start.members, *(s.unit.name for s in added)) if accepted else start.members,
            trials=found.trials,
            chosen=found.chosen,
            before=before,
            after=found.evaluation,
            accepted=accepted,
            reason=_reason(accepted, bool(found.trials), before, found.evaluation, self.goal, self.bench.says),
            seconds=seconds,
            start=moves(state.edit_set, start),
            settings=self.config.to_json(),
        )

    def _keep(self, state: State, start: EditSet, done: GrowthRound, patch: Patch) -> None:
        """Put the round into the history, then do again what a person did while it ran."""
        names = [s.unit.name for s in done.added]
        edit_set = start.joined(names)
        if not done.accepted:
            edit_set = start.joined(()).turned_down(names if done.trials else ())
        changes = {name: patch.only(self.every[name].slices) for name in edit_set.members}
        # Switched-off units too: strengths are part of every change after a round.
        parked = {name: self._acting(name, start, state) for name in edit_set.off if name not in changes}
        new = State(self.history.new_number(), state.number, done, edit_set, changes | parked, done.after)
        with self._lock:
            self.history.add(new)
            for action, units in self._meanwhile:
                free = [n for n in units if not (action in ("in", "lock") and self._barred(self.edit_set, [n]))]
                self.history.change(self.edit_set.act(action, free))
            self.rounding = False

    def forget_lost(self) -> None:
        """Let go of what was kept for states that are no longer in the history."""
        held = self.history.states
        self._stats = {n: found for n, found in self._stats.items() if n in held}
        self._by_hand = {place: patch for place, patch in self._by_hand.items() if place[0] in held}
        for key in [key for key in self._measured if key[0] not in held]:
            del self._measured[key]

    def run(self, stop: Callable[[], bool] = lambda: False) -> Iterator[GrowthRound]:
        """Rounds until the target is met, the rounds are used up, or `stop` says so. May be run again to go on.

        After `plan`, under the settings planned, those of the run that is repeated and no more.
        """
        repeats = self._to_repeat is not None and self._usual(self._to_repeat) == self._usual(self.config)
        count, self._to_repeat = len(self._ahead) if repeats else self.config.rounds, None
        for _ in range(count):
            if stop() or (self.rounds and self.exhausted) or (self.reached and not repeats):
                return
            yield self.next_round(stop)

    def _usual(self, config: RazorConfig) -> RazorConfig:
        """The settings with the towers and the forget loss named."""
        towers, loss = config.towers or growing(self.adapter, config.forget_loss), config.forget_loss
        return replace(config, towers=tuple(sorted(towers)), forget_loss=ascended(self.adapter, loss) or None)

    def _nothing_left(self, scores: Sequence[UnitScore], edit_set: EditSet) -> str:
        open_units = [s.unit.name for s in self.candidates(scores)]
        if open_units and edit_set.banned.issuperset(open_units):
            return f"All {len(open_units)} units open to growth are banned; lift a ban, or allow another tower or kind."
        return "No unit is left to take in: lower tau, lift a ban or allow another tower or kind of unit."

    # The price of locks and bans

    def passed_over(self) -> list[UnitScore]:
        """Units the next round would take if nothing were banned, and now does not."""
        scores = self.scores()
        taken = {s.unit.name for s in self._proposed(scores, self.edit_set)}
        free = self._proposed(scores, replace(self.edit_set, banned=frozenset()))
        return [s for s in free if s.unit.name not in taken]

    def lock_price(self) -> str:
        """What the locked units cost where the target is not met, in one sentence; "" where they cost nothing."""
        locked = tuple(n for n in self.edit_set.members if n in self.edit_set.locked)
        if not locked or self.reached:
            return ""
        without = replace(self.edit_set, locked=frozenset()).act("out", locked)
        damage, free = self.goal.damage(self.now), self.goal.damage(self.evaluation(without))
        if damage <= free:
            return ""
        names = ", ".join(locked[:2]) + (f" and {len(locked) - 2} more" if len(locked) > 2 else "")
        return (
            f"{names} locked in: that alone breaks the budgets by {100 * (damage - free):.1f} points, so the target "
            "cannot be met; unlock it, weaken it, or raise the retain budget."
        )


def _key(edit_set: EditSet, state: State) -> tuple:
    """What a set's evaluation depends on."""
    active = sorted((name, edit_set.strength_of(name)) for name in edit_set.active)
    return state.number, edit_set.strength, tuple(active)


def _reason(
    accepted: bool, tried: bool, before: Evaluation, after: Evaluation, goal: Goal, says: tuple[str, str]
) -> str:
    if not tried:
        return "Stopped before a step was done and borne out, so nothing was changed."
    if not accepted:
        return "Rejected: no step brought the goal nearer, so nothing was changed."
    forget, retain = (
        f"{getattr(before, name).value:.1%} to {getattr(after, name).value:.1%}"
        for name in ("forget_accuracy", "retain_accuracy")
    )
    end = " The target is met." if goal.reached(after) else ""
    return f"{says[0]} {forget}, {says[1]} {retain}.{end}"
