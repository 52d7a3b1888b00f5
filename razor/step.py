"""The fused step on the edit set, and the search for how far to go.

    theta_u += s * ||theta_u|| * d / ||d||
    d = rho * g_f / ||g_f|| - w_r * g_k / ||g_k||,   g_k = g_r + lambda_m * g_m

This is the paper's update, theta -= eta * (-lambda_f * rho * g_f + g_r + lambda_m * grad M), with lambda_f balancing
the two gradients unit by unit and eta given as a share s of the unit's weight norm. Two ways to use it:

- few steps (default): `inner_steps` small steps, gradients re-evaluated at each. M is zero-gradient at the frozen
  model, so it acts from the second step on. w_r is the family's, or less of it while less than the budget is lost.
- one step (`inner_steps` = 1, the paper's strictest reading): one direction, its length bracketed and bisected.

Where to stop is decided on the search split, which gradients never see.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from razor.adapters.base import GLANCE, Adapter, Bench
from razor.config import RazorConfig
from razor.errors import ModelError, Stopped, UnusableGradientError
from razor.gradients import gradient_of
from razor.metrics import Evaluation
from razor.patches import Patch
from razor.replay import earliest_blocks
from razor.units import Slice, Unit

SURE = 0.05  # mean probability of the forgotten class that counts as forgotten
ONE_STEP_RETAIN_WEIGHT = 0.3  # a single long step with the full retain gradient does more harm than good
BRACKET = 8  # doublings of the first length in one-step mode
BISECTIONS = 6
DRIFT = 5  # budgets by which predictions of retained prompts may move
LIGHT = 1.0  # w_r at most where nothing is lost: more of it leads the long way round
OVERSHOT = 0.15  # forget accuracy by which a step may raise what is left before it counts as too long
MEND = 6  # steps after the target is met that bring back what the way there cost
HOPE = 3  # of them in a row without a better point, after which it ends
MENDING = 0.3  # rho of those steps, as a share of the others', while the target is met
WORTH_MENDING = 0.1  # share of what may be lost that was, from which on that is tried
LONGEST = 3  # a step may grow to this many times its first length while nothing breaks
SHORTEST = 0.15  # a round ends when what breaks has shortened its steps to this share of the first
STRICTER_AT_MOST = 12  # times a point that is not borne out is measured more strictly
GLANCE_FROM = 96  # retain pictures of the search split from which a glance is worth its time
TRIAL = 0.1  # length of the step a unit gets when it is put in by hand, as a share of its weights' norm


@dataclass(frozen=True)
class Goal:
    """What a round is judged by, on the search split."""

    target: float  # forget accuracy to reach
    budget: float  # retain accuracy that may be lost
    base: Evaluation  # the unedited model
    spared: int = 0  # neighbours that may be lost whatever the budget: one of few is more than a share of points
    mends: bool = False  # a few steps to bring back what was lost on the way are made however little that seems to be

    def damage(self, now: Evaluation) -> float:
        """Loss beyond the budgets, >= 0.

        Retain accuracy and retrieval have the budget; neighbours and other answers about the forget pictures, counted
        on fewer pictures, have three times it, or what `spared` of them come to. Predictions, which move before a
        picture does, have DRIFT times.
        """
        excess = self.base.retain_accuracy.value - now.retain_accuracy.value - self.budget
        assert not math.isnan(excess), "every search split has retain answers to count"
        total = 5 * max(0.0, excess)
        for stable, times in ((now.retrieval_stability, 1), (now.prediction_stability, DRIFT)):
            total += max(0.0, 1 - stable.value - times * self.budget) if stable else 0.0
        for name in ("neighbor_accuracy", "cross_accuracy"):
            before, after = getattr(self.base, name), getattr(now, name)
            if before and after:
                total += max(0.0, before.value - after.value - max(3 * self.budget, self.spared / after.n))
        return total

    def cost(self, now: Evaluation) -> float:
        """How far from the goal, >= 0: excess forget accuracy plus damage."""
        return max(0.0, now.forget_accuracy.value - self.target) + self.damage(now)

    def reached(self, now: Evaluation) -> bool:
        """The forget target is met within the budgets, and not by a hair: with few pictures, a near miss is luck."""
        return self.cost(now) == 0 and now.forget_probability.value <= max(self.target, SURE)

    def lost(self, now: Evaluation) -> float:
        """How much less sure of the right answers the model is; where none is asked for, how far predictions moved."""
        before, after = self.base.retain_probability, now.retain_probability
        if before and after:
            return before.value - after.value
        return 1 - now.prediction_stability.value if now.prediction_stability else 0.0

    def worth_mending(self, now: Evaluation) -> bool:
        """So much was lost on the way to the target that a few steps to bring some of it back are worth their time.

        Always with `mends`.
        """
        allowed = self.budget if now.retain_probability else DRIFT * self.budget
        return self.mends or self.lost(now) >= WORTH_MENDING * allowed

    def spent(self, now: Evaluation) -> float:
        """What is lost, in answers or in how sure they are, as a share of the budget, 0 to 1."""
        lost = max(0.0, self.lost(now), self.base.retain_accuracy.value - now.retain_accuracy.value)
        return min(1.0, lost / self.budget) if self.budget else float(lost > 0)

    def key(self, now: Evaluation) -> tuple[float, float, float]:
        """For min(): damage first; then forgetting, with how sure the model still is as a tie-breaker; then retention.

        A point that breaks a budget is never better than one that does not.
        """
        excess = max(0.0, now.forget_accuracy.value - self.target)
        return self.damage(now), excess + 0.1 * now.forget_probability.value, -now.retain_accuracy.value


@dataclass(frozen=True)
class Trial:
    """One point that was measured on the way."""

    step: int  # inner step, from 1, mending steps included; in one-step mode the number of the attempt
    length: float  # distance gone in this round so far, as a share of the weights' norm
    forget: float  # forget accuracy, search split or a glance of it, see base.GLANCE
    retain: float
    cost: float


@dataclass(frozen=True)
class StepResult:
    """The best point found; `patch` is the start when nothing was better."""

    patch: Patch
    evaluation: Evaluation
    trials: tuple[Trial, ...]
    chosen: int  # step of the chosen trial, 0 for the start


def edited_towers(adapter: Adapter, patch: Patch) -> tuple[str, ...]:
    """Towers the patch touches; the others still give the frozen model's features."""
    return tuple(dict.fromkeys(adapter.tower_of(where.parameter) for where in patch.deltas))


@contextmanager
def edited(adapter: Adapter, bench: Bench, patch: Patch) -> Iterator[None]:
    """The model as it is with what the bench starts from and the patch on top, for the length of the block."""
    with bench.beneath.applied(adapter.model), patch.applied(adapter.model):
        yield


def evaluate(adapter: Adapter, bench: Bench, patch: Patch, split: str) -> Evaluation:
    """Metrics of the patched model on a split."""
    towers = edited_towers(adapter, patch)
    keys = {tower: patch.key(lambda name, tower=tower: adapter.tower_of(name) == tower) for tower in towers}
    with edited(adapter, bench, patch):
        return bench.evaluate(split, towers, earliest_blocks(adapter, patch), keys)


def take_steps(
    adapter: Adapter,
    bench: Bench,
    units: Sequence[Unit],
    start: Patch,
    goal: Goal,
    config: RazorConfig,
    *,
    before: Evaluation | None = None,
    first_batch: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> StepResult:
    """Move the units from `start` towards the goal and return the best point met. Leaves the model as found.

    Args:
        before: search metrics of `start`, where the caller has them.
        first_batch: number of the first gradient batch, so that later rounds see fresh ones.
        stop: asked between inner steps; True ends the search with the best point so far.
    """
    search = _one_step if config.inner_steps == 1 else _few_steps
    best = StepResult(start, before or evaluate(adapter, bench, start, "search"), (), 0)
    return search(adapter, bench, units, best, goal, config, first_batch, stop)


@dataclass(frozen=True)
class _Point:
    """A place on a walk and what was measured there."""

    patch: Patch
    now: Evaluation
    by: Goal  # on the whole search split, or on a glance of it
    step: int = 0  # that led here
    length: float = 0.0  # gone until here

    @property
    def spent(self) -> float:
        return self.by.spent(self.now)

    def breaks(self, ground: "_Point") -> bool:
        """It does more damage than where the step to it began, or much more of the concept is left than there."""
        left = ground.now.forget_accuracy.value + OVERSHOT
        return self.by.damage(self.now) > ground.by.damage(ground.now) or self.now.forget_accuracy.value > left


def _few_steps(adapter, bench, units, best, goal, config, first_batch, stop) -> StepResult:
    """Walk while the budgets hold. A step that breaks them is taken back and the next one is half as long.

    So is one that overshoots: after which much more of the concept is left than before it. Steps that have become too
    short to lead anywhere end the walk. Where the target is met, what the way there cost is mended; a point that meets
    it counts once it is borne out, and where a person stops that, the best one before it stays. Where measuring takes
    long, a glance does for a point that is far from the target and breaks nothing.
    """
    towers = _towers(adapter, best.patch, units)
    glance = _glance(adapter, bench, towers, goal)
    ground = point = _Point(best.patch, best.evaluation, goal)
    s, trials = config.step_size, []
    doubted: StepResult | None = None  # met the target last, and was not borne out

    def whole(patch: Patch, step: int, length: float) -> _Point:
        nonlocal best
        now = evaluate(adapter, bench, patch, "search")
        if not goal.reached(now) and goal.key(now) < goal.key(best.evaluation):
            best = StepResult(patch, now, (), step)
        return _Point(patch, now, goal, step, length)

    for step in range(1, config.inner_steps + 1):
        if stop():
            break
        terms, weight = bench.step_terms(first_batch + step, towers), _retain_weight(bench, config, point.spent)
        direction = _direction(adapter, bench, terms, units, ground.patch, config.rho, weight)
        place = _moved(ground.patch, direction, s), step, ground.length + s
        point = _glimpsed(adapter, bench, goal, glance, ground, *place) or whole(*place)
        trials.append(_trial(step, point.length, point.now, point.by))
        if point.by is goal and goal.reached(point.now):
            try:
                if _confirmed(adapter, bench, point.patch, stop):
                    best = StepResult(point.patch, point.now, (), step)
                    best, mending = _mended(
                        adapter, bench, units, best, goal, config, first_batch + step, point.length, stop
                    )
                    return StepResult(best.patch, best.evaluation, (*trials, *mending), best.chosen)
            except Stopped:
                return replace(best, trials=tuple(trials) if best.chosen else ())
            point = replace(point, now=evaluate(adapter, bench, point.patch, "search"))  # by a stricter measure
            doubted = StepResult(point.patch, point.now, (), step)
            if not goal.reached(point.now):
                best = doubted
        if point.breaks(ground) and ground.by is not goal:  # perhaps not this step's doing
            ground = whole(ground.patch, ground.step, ground.length)
        if not point.breaks(ground):
            ground, s = point, min(s * 1.25, LONGEST * config.step_size)
        elif (s := s / 2) < SHORTEST * config.step_size:
            break
    if ground.by is not goal:
        ground = whole(ground.patch, ground.step, ground.length)
        if goal.reached(ground.now):
            doubted = StepResult(ground.patch, ground.now, (), ground.step)
    if doubted is not None and goal.reached(doubted.evaluation):
        try:
            best = _borne_out(adapter, bench, goal, doubted, stop)
        except Stopped:
            return replace(best, trials=tuple(trials) if best.chosen else ())
    best = _inspected(adapter, bench, goal, best, stop)
    return StepResult(best.patch, best.evaluation, tuple(trials), best.chosen)


def worth_a_glance(bench: Bench, towers: Sequence[str]) -> bool:
    """An edit of these towers takes so long to measure that a part of the search split goes first."""
    return bool(set(bench.slow_towers).intersection(towers)) and len(bench.task.retain.search) >= GLANCE_FROM


def _glance(adapter: Adapter, bench: Bench, towers: Sequence[str], goal: Goal) -> Goal | None:
    """The goal on a glance of the search split, where that is worth it."""
    return replace(goal, base=evaluate(adapter, bench, Patch(), GLANCE)) if worth_a_glance(bench, towers) else None


def _glimpsed(adapter, bench, goal, glance: Goal | None, ground: _Point, patch, step, length) -> _Point | None:
    """This place by a glance; None where that does not do: it may meet the target, or something breaks."""
    if glance is None:
        return None
    point = _Point(patch, evaluate(adapter, bench, patch, GLANCE), glance, step, length)
    return point if _far(point.now, goal) and not point.breaks(ground) else None


def _far(glanced: Evaluation, goal: Goal) -> bool:
    """So much of the concept is left on a part of the search pictures that all of them cannot meet the target."""
    left, every = glanced.forget_accuracy, goal.base.forget_accuracy.n
    return left.value * left.n > goal.target * every


def _mended(adapter, bench, units, met, goal, config, first_batch, length, stop) -> tuple[StepResult, list[Trial]]:
    """The best of a few steps more at and around a point that meets the target, and what they measured.

    Best is where the model is least sure of the concept and surest of everything else: accuracies of a search split are
    too coarse to tell. Steps pull mostly for what is kept, and fully for forgetting where the target is lost meanwhile.
    The point itself stays where closer inspection does not bear the best out.
    """
    best, now, trials, towers = met, met, [], _towers(adapter, met.patch, units)
    left = lambda found: found.forget_probability.value + goal.lost(found)  # noqa: E731
    steps = MEND if goal.worth_mending(met.evaluation) else 0
    for number in range(1, steps + 1):
        if stop():
            break
        rho = config.rho * (MENDING if goal.reached(now.evaluation) else 1)
        terms, weight = bench.step_terms(first_batch + number, towers), _retain_weight(bench, config)
        try:
            direction = _direction(adapter, bench, terms, units, now.patch, rho, weight)
            patch = _moved(now.patch, direction, config.step_size)
            found = evaluate(adapter, bench, patch, "search")
        except (ModelError, UnusableGradientError):  # numbers grew too large: the target stays met
            break
        now, length = StepResult(patch, found, (), met.chosen + number), length + config.step_size
        trials.append(_trial(now.chosen, length, now.evaluation, goal))
        if goal.reached(now.evaluation) and left(now.evaluation) < left(best.evaluation):
            best = now
        if number - (best.chosen - met.chosen) == HOPE:
            break
    if best is not met:
        measure = bench.measure
        if not _confirmed(adapter, bench, best.patch, stop):
            best, bench.measure = met, measure
    return best, trials


def _one_step(adapter, bench, units, best, goal, config, first_batch, stop) -> StepResult:
    """One direction from the start; its length doubled until the target is met, then bisected."""
    start, before = best.patch, best
    terms = bench.step_terms(first_batch + 1, _towers(adapter, start, units))
    weight = _retain_weight(bench, config, single=True)
    direction = _direction(adapter, bench, terms, units, start, config.rho, weight)
    trials: list[Trial] = []

    def attempt(s: float) -> Evaluation:
        nonlocal best
        patch = _moved(start, direction, s)
        now = evaluate(adapter, bench, patch, "search")
        trials.append(_trial(len(trials) + 1, s, now, goal))
        if goal.key(now) < goal.key(best.evaluation):
            best = StepResult(patch, now, (), len(trials))
        return now

    low, high = 0.0, None
    s = config.step_size
    for _ in range(BRACKET):
        if stop():
            break
        now = attempt(s)
        if now.forget_accuracy.value <= goal.target:
            high = s
            break
        low, s = s, 2 * s
    for _ in range(BISECTIONS if high is not None else 0):
        if stop():
            break
        middle = (low + high) / 2
        if attempt(middle).forget_accuracy.value <= goal.target:
            high = middle
        else:
            low = middle
    try:
        best = _borne_out(adapter, bench, goal, best, stop) if best.chosen else best
    except Stopped:
        return before
    best = _inspected(adapter, bench, goal, best, stop)
    return StepResult(best.patch, best.evaluation, tuple(trials), best.chosen)


def _confirmed(adapter: Adapter, bench: Bench, patch: Patch, stop: Callable[[], bool] = lambda: False) -> bool:
    with edited(adapter, bench, patch):
        return bench.confirm(stop)


def _borne_out(adapter: Adapter, bench: Bench, goal: Goal, best: StepResult, stop: Callable[[], bool]) -> StepResult:
    """The point; where it meets the target and closer inspection does not bear that out, measured ever more strictly
    until it does, or no longer meets it.

    Raises:
        Stopped: `stop` said so before that was known.
    """
    for _ in range(STRICTER_AT_MOST):
        if not goal.reached(best.evaluation) or _confirmed(adapter, bench, best.patch, stop):
            break
        best = replace(best, evaluation=evaluate(adapter, bench, best.patch, "search"))
    return best


def _inspected(adapter: Adapter, bench: Bench, goal: Goal, best: StepResult, stop: Callable[[], bool]) -> StepResult:
    """The best point of a search that did not meet the target; closer inspection may find that it does."""
    if best.chosen == 0 or goal.reached(best.evaluation) or goal.damage(best.evaluation) > 0 or stop():
        return best
    try:
        with edited(adapter, bench, best.patch):
            relented = bench.relent(stop)
    except Stopped:
        return best
    return replace(best, evaluation=evaluate(adapter, bench, best.patch, "search")) if relented else best


def _towers(adapter: Adapter, patch: Patch, units: Sequence[Unit]) -> tuple[str, ...]:
    """Towers that are edited already or about to be."""
    return tuple(dict.fromkeys([*edited_towers(adapter, patch), *(unit.tower for unit in units)]))


def _trial(step: int, length: float, now: Evaluation, goal: Goal) -> Trial:
    return Trial(step, length, now.forget_accuracy.value, now.retain_accuracy.value, goal.cost(now))


def _retain_weight(bench: Bench, config: RazorConfig, spent: float = 1.0, single: bool = False) -> float:
    """w_r of a step that others follow, or of a single long one.

    Args:
        spent: see Goal.spent; where the budget is not, the family's weight is eased towards LIGHT.
    """
    weight = bench.retain_weight if config.retain_weight is None else config.retain_weight
    if config.retain_weight is None and weight > LIGHT:
        weight = LIGHT + (weight - LIGHT) * spent
    return ONE_STEP_RETAIN_WEIGHT * weight if single else weight


def _direction(adapter, bench, terms, units, patch, rho: float, retain_weight: float) -> Mapping[Slice, Tensor]:
    """||theta_u|| * d_u / ||d_u|| per unit, on the CPU, at the patched weights."""
    steps: dict[Slice, Tensor] = {}
    with edited(adapter, bench, patch):
        _, forget = gradient_of(adapter.model, units, terms["forget"], "forget")
        _, keep = gradient_of(adapter.model, units, terms["keep"], "retain")
        parameters = dict(adapter.model.named_parameters())
        weights = [unit.read(parameters).norm() for unit in units]
    for unit, g_f, g_k, size in zip(units, forget, keep, weights, strict=True):
        steps |= _unit_step(unit, g_f, g_k, size, rho, retain_weight)
    return steps


def _unit_step(unit, g_f, g_k, size: Tensor, rho: float, retain_weight: float) -> dict[Slice, Tensor]:
    """One unit's part of the direction; nothing where both gradients are zero."""
    d = _fused([g.float() for g in g_f], [g.float() for g in g_k], rho, retain_weight)
    length = torch.stack([part.square().sum() for part in d]).sum().sqrt()
    return {where: (p * (size / length)).cpu() for where, p in zip(unit.slices, d, strict=True)} if length > 0 else {}


def trial_steps(
    model: nn.Module,
    bench: Bench,
    units: Sequence[Unit],
    gradients: Mapping[str, tuple[Tensor, Tensor]],
    config: RazorConfig,
) -> dict[str, Patch]:
    """Unit name -> one fused step of length TRIAL for that unit alone: what putting it in by hand adds at once.

    Args:
        gradients: (g_f, g_r) by parameter at the present weights, as `gradients.collect` keeps them.
    """
    parameters = dict(model.named_parameters())
    forget, keep = ({name: pair[i] for name, pair in gradients.items()} for i in range(2))
    weight = _retain_weight(bench, config, single=True)
    steps = {}
    for unit in units:
        size = unit.read(parameters).norm()
        step = _unit_step(unit, unit.views(forget), unit.views(keep), size, config.rho, weight)
        steps[unit.name] = _moved(Patch(), step, TRIAL)
    return steps


def trial_step(adapter: Adapter, bench: Bench, unit: Unit, patch: Patch, config: RazorConfig) -> Patch:
    """The same for one unit, from gradients of its own; for models too large to keep every unit's step."""
    terms = bench.step_terms(0, _towers(adapter, patch, [unit]))
    weight = _retain_weight(bench, config, single=True)
    return _moved(Patch(), _direction(adapter, bench, terms, [unit], patch, config.rho, weight), TRIAL)


def _fused(g_f: Sequence[Tensor], g_k: Sequence[Tensor], rho: float, retain_weight: float) -> list[Tensor]:
    """rho * g_f / ||g_f|| - w * g_k / ||g_k|| for one unit; a zero gradient contributes nothing.

    >>> g_f, g_k = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])
    >>> [round(x, 6) for x in _fused([g_f], [g_k], rho=1, retain_weight=0.5)[0].tolist()]  # (0.6, 0.8) - 0.5 (0, 1)
    [0.6, 0.3]
    """

    def unit(parts: Sequence[Tensor]) -> list[Tensor]:
        norm = torch.stack([p.square().sum() for p in parts]).sum().sqrt()
        return [p / norm if norm > 0 else torch.zeros_like(p) for p in parts]

    return [rho * f - retain_weight * k for f, k in zip(unit(g_f), unit(g_k), strict=True)]


def _moved(patch: Patch, direction: Mapping[Slice, Tensor], s: float) -> Patch:
    return patch + Patch({where: step * s for where, step in direction.items()})
