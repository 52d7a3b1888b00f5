"""Can the score be trusted? How much it owes to the examples drawn, and whether it foretells what an edit does.

Three questions, each with its own numbers: does phi hold on other batches (bootstrap), what would other scores have
chosen (choices), and which of them ranks the units as single edits really turn out (alone, agreement).
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from razor.adapters.base import Adapter, Bench
from razor.gradients import UnitStats, collect
from razor.metrics import Evaluation
from razor.patches import Patch
from razor.scoring import EPS, score
from razor.step import edited, evaluate
from razor.units import Unit

Progress = Callable[[int, int], None]  # model runs done, and in all

UNSTABLE = 2.0  # a 95th percentile this many times the 5th: which batch was drawn matters more than the ranking
NO_COST = 0.001  # added to the cost of an edit, so that a free one has a finite value


# ---------------------------------------------------------------- on other batches


@dataclass(frozen=True)
class UnitSpread:
    """One unit's gradients on several bootstrap batches. Moving alpha runs no model."""

    unit: Unit
    draws: tuple[UnitStats, ...]

    def phis(self, alpha: float = 1.0) -> tuple[float, ...]:
        """phi on each draw."""
        return tuple(s.phi for s in score(self.draws, alpha=alpha))

    def mean(self, alpha: float = 1.0) -> float:
        phis = self.phis(alpha)
        return sum(phis) / len(phis)

    def low(self, alpha: float = 1.0) -> float:
        """5th percentile."""
        return quantile(self.phis(alpha), 0.05)

    def high(self, alpha: float = 1.0) -> float:
        """95th percentile."""
        return quantile(self.phis(alpha), 0.95)

    def unstable(self, alpha: float = 1.0) -> bool:
        """phi is not known to within a factor of UNSTABLE: high > UNSTABLE * low."""
        return self.high(alpha) > UNSTABLE * self.low(alpha)


def bootstrap(
    adapter: Adapter,
    bench: Bench,
    units: Sequence[Unit],
    patch: Patch,
    *,
    draws: int = 8,
    progress: Progress = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[UnitSpread]:
    """Gradient statistics of the patched model on batches drawn with replacement. Leaves the model as found.

    Args:
        stop: asked before each draw; True ends with the draws made so far.

    Returns:
        One spread per unit, in the order given; [] when stopped before the first draw.
    """
    found: list[list[UnitStats]] = []
    for draw in range(1, draws + 1):
        if stop():
            break
        with edited(adapter, bench, patch):
            found.append(collect(adapter.model, units, bench.scoring_terms(draw), sparing=adapter.reruns))
        progress(draw, draws)
    return [UnitSpread(s[0].unit, s) for s in zip(*found, strict=True)]


# ---------------------------------------------------------------- other scores


def choices(stats: Sequence[UnitStats], *, alpha: float = 1.0, seed: int = 0) -> dict[str, dict[str, float]]:
    """Several scores of the same units, the higher the sooner edited: name -> unit name -> value."""
    columns = {
        "phi": [s.phi for s in score(stats, alpha=alpha)],
        "phi, alpha 0": [s.phi for s in score(stats, alpha=0.0)],
        "phi, alpha 0.5": [s.phi for s in score(stats, alpha=0.5)],
        "forget only": [s.forget_norm for s in stats],
        "forget / retain": [s.forget_norm / (s.retain_norm + EPS) for s in stats],
        "SLUG Pareto": slug_pareto(stats),
        "random": random.Random(seed).sample([float(i) for i in range(len(stats))], len(stats)),
    }
    return {name: {s.unit.name: v for s, v in zip(stats, values, strict=True)} for name, values in columns.items()}


def slug_pareto(stats: Sequence[UnitStats]) -> list[float]:
    """SLUG's choice as a score: how many units come after this one (arXiv:2407.11867).

    Front by front, each tower having fronts of its own: a unit is on the first front unless another of its tower has
    more importance ||g_f|| / ||theta|| and less |cos(g_f, g_r)|. SLUG stops at the first front and picks from it by
    eye; here the later fronts are those of what is left, and importance decides within a front.
    """
    importance = [s.forget_norm / (s.weight_norm + EPS) for s in stats]
    conflict = [abs(s.cosine) for s in stats]
    front: dict[int, int] = {}
    left = set(range(len(stats)))
    while left:
        beaten = {
            i
            for i in left
            for j in left
            if stats[i].unit.tower == stats[j].unit.tower
            and importance[j] > importance[i]
            and conflict[j] < conflict[i]
        }
        level = max(front.values(), default=0) + 1
        front |= dict.fromkeys(left - beaten, level)
        left = beaten
    order = sorted(front, key=lambda i: (front[i], -importance[i], i))
    after = {i: float(len(order) - 1 - place) for place, i in enumerate(order)}
    return [after[i] for i in range(len(stats))]


# ---------------------------------------------------------------- what an edit really does


@dataclass(frozen=True)
class AloneEffect:
    """What editing one unit alone did, on the search split."""

    name: str  # of the unit
    gain: float  # forget_probability lost, as wanted; negative when the concept grew stronger
    cost: float  # retain_probability lost, >= 0
    value: float  # gain / (cost + NO_COST)
    before: Evaluation
    after: Evaluation


def alone(
    adapter: Adapter,
    bench: Bench,
    units: Sequence[Unit],
    trial_of: Callable[[str], Patch],
    *,
    patch: Patch = Patch(),
    progress: Progress = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[AloneEffect]:
    """Edit each unit by itself and measure, one at a time; leaves the model as found between and after them.

    Args:
        trial_of: unit name -> the step that unit would take, on top of `patch`.
        stop: asked before each unit.
    """
    base = evaluate(adapter, bench, Patch(), "search")
    before = evaluate(adapter, bench, patch, "search") if patch.deltas else base
    for done, unit in enumerate(units, 1):
        if stop():
            return
        after = evaluate(adapter, bench, patch + trial_of(unit.name), "search")
        gain = before.forget_probability.value - after.forget_probability.value
        cost = max(0.0, before.retain_probability.value - after.retain_probability.value)
        progress(done, len(units))
        yield AloneEffect(unit.name, gain, cost, gain / (cost + NO_COST), before, after)


# ---------------------------------------------------------------- does the score foretell it


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation, and its 95 % bootstrap interval over units; NaN where one side never varies."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """How well a score foretells single edits."""

    value: Correlation  # with gain per cost
    gain: Correlation  # with gain, whatever it costs
    n: int  # units compared


def agreement(
    scores: Mapping[str, Mapping[str, float]], effects: Sequence[AloneEffect], *, draws: int = 400, seed: int = 0
) -> dict[str, Agreement]:
    """Each score against what editing the units alone did. All scores meet the same bootstrap draws."""
    rng, n = random.Random(seed), len(effects)
    rows = [[rng.randrange(n) for _ in range(n)] for _ in range(draws)]
    value, gain = [e.value for e in effects], [e.gain for e in effects]
    found = {}
    for name, by_unit in scores.items():
        own = [by_unit[e.name] for e in effects]
        found[name] = Agreement(_correlation(own, value, rows), _correlation(own, gain, rows), n)
    return found


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation in -1..1, equal values sharing their mean rank; NaN when either side never varies."""
    x, y = ranks(a), ranks(b)
    middle = (len(x) + 1) / 2
    dot = sum((p - middle) * (q - middle) for p, q in zip(x, y, strict=True))
    length = math.sqrt(sum((p - middle) ** 2 for p in x) * sum((q - middle) ** 2 for q in y))
    return dot / length if length > 0 else math.nan


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1, smallest first; equal values get the mean of their places."""
    places: dict[float, list[int]] = {}
    for place, value in enumerate(sorted(values), 1):
        places.setdefault(value, []).append(place)
    return [sum(places[value]) / len(places[value]) for value in values]


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile, straight lines between neighbours."""
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _correlation(a: Sequence[float], b: Sequence[float], rows: Sequence[Sequence[int]]) -> Correlation:
    drawn = [spearman([a[i] for i in row], [b[i] for i in row]) for row in rows]
    usable = [r for r in drawn if not math.isnan(r)] or [math.nan]
    return Correlation(spearman(a, b), quantile(usable, 0.025), quantile(usable, 0.975))
