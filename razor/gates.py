"""Gates: what an edit has to stand, fixed before it is tested, and what the evidence says to each.

A gate is passed when its whole 95 % interval lies within the limit, failed when all of it lies beyond, and
inconclusive where the interval holds the limit: too few cases were counted to say.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from razor.errors import InputError
from razor.metrics import Evaluation, Measure, Z, share
from razor.robustness import Finding

PASS, FAIL, OPEN = "pass", "fail", "inconclusive"
FEW = 5  # cases below which nothing is said


@dataclass(frozen=True)
class Gate:
    """One limit, in shares of 1."""

    key: str  # forget | retain | neighbours | "attack/setting"
    words: str  # the question, for a person who was not there
    limit: float
    about: str  # what the number is of, such as "of other answers lost"

    @property
    def unit(self) -> str:
        """What its numbers are in, 100 to the whole."""
        return "points" if self.key in ("retain", "neighbours") else "%"

    @property
    def attack(self) -> str:
        """The attack it needs; "" where the plain test split is enough."""
        return self.key.partition("/")[0] if "/" in self.key else ""


@dataclass(frozen=True)
class Verdict:
    """A gate and what was found."""

    gate: Gate
    measure: Measure | None  # None: there is nothing to count
    said: str  # PASS, FAIL or OPEN
    why: str  # one sentence with the numbers

    def to_json(self) -> dict:
        """Plain values, as stored in run.json."""
        found = self.measure.to_json() if self.measure else None
        return {"gate": vars(self.gate), "measure": found, "verdict": self.said, "why": self.why}


def usual(chance: float) -> tuple[Gate, ...]:
    """Sensible gates for a task: what guessing finds may be found, and little more.

    Args:
        chance: accuracy of guessing on the target's axis.
    """
    found = min(max(0.10, 2 * chance), chance + 0.10)
    taught, five = max(0.50, chance + 0.25), "5 pictures, 5 steps"
    return (
        Gate("forget", "Is it suppressed?", found, "of its pictures still recognised"),
        Gate("retain", "Is the rest kept?", 0.02, "of other answers lost"),
        Gate("neighbours", "Are its nearest neighbours kept?", 0.10, "of their answers lost"),
        Gate("quantise/8 bits", "Does it hold in a copy of 8 bits?", found, "recognised there"),
        Gate("quantise/4 bits", "Does it hold in a copy of 4 bits?", found, "recognised there"),
        Gate("benign/retain pictures, 20 steps", "Does it hold when others train on?", found, "recognised afterwards"),
        Gate(f"relearn/{five}", "Is it hard to teach again?", taught, f"recognised after {five}"),
    )


def with_limits(gates: Sequence[Gate], limits: Mapping[str, float]) -> tuple[Gate, ...]:
    """The gates at other limits.

    Raises:
        InputError: a limit that is no share of 1, or of a gate there is none of.
    """
    known = {gate.key for gate in gates}
    for key, limit in limits.items():
        if key not in known:
            raise InputError(f"There is no gate {key!r}; there are {', '.join(map(repr, sorted(known)))}.")
        number = isinstance(limit, int | float) and not isinstance(limit, bool)
        if not number or not 0 < limit <= 1:
            words = next(gate.words for gate in gates if gate.key == key)
            why = "no number of cases shows that there are none" if limit == 0 else "it is a share"
            said = f"{100 * limit:.4g} %" if number else repr(limit)
            raise InputError(f"The limit of {words!r} is {said}; it must be above 0 and at most 100 %, as {why}.")
    return tuple(replace(gate, limit=float(limits.get(gate.key, gate.limit))) for gate in gates)


def limits_from(texts: Sequence[str]) -> dict[str, float]:
    """Limits as a person types them, in % or points; of two of one gate the later one counts.

    Raises:
        InputError: one that is no limit.

    >>> limits_from(["forget=10", "quantise/8 bits = 12.5 %"])
    {'forget': 0.1, 'quantise/8 bits': 0.125}
    """
    found = {}
    for text in texts:
        if (read := re.fullmatch(r"(.+)=\s*(-?\d*\.?\d+)\s*%?\s*", text)) is None:
            raise InputError(f"{text!r} is no limit of a gate; write KEY=PERCENT, such as forget=10.")
        found[read[1].strip()] = float(read[2]) / 100
    return found


def verdicts(
    gates: Sequence[Gate],
    before: Evaluation,
    after: Evaluation,
    findings: Sequence[Finding],
    missed: Mapping[str, str] = MappingProxyType({}),
) -> list[Verdict]:
    """What the evidence says to every gate, in order.

    Args:
        missed: attack, or key of a gate -> why it was not tried, as a sentence.
    """
    return [
        _verdict(gate, _evidence(gate, before, after, findings), missed.get(gate.key) or missed.get(gate.attack, ""))
        for gate in gates
    ]


def overall(found: Sequence[Verdict]) -> str:
    """FAIL where any gate failed, else OPEN where any is, else PASS."""
    said = {verdict.said for verdict in found}
    return FAIL if FAIL in said else OPEN if OPEN in said or not said else PASS


def judged(found: Sequence[Verdict]) -> dict:
    """The overall word and every verdict as plain values, for a file."""
    return {"verdict": overall(found), "gates": [verdict.to_json() for verdict in found]}


def judge(measure: Measure, limit: float) -> str:
    """PASS, FAIL or OPEN; see the module's head.

    >>> judge(Measure(0.0, n=96, low=0.0, high=0.038), limit=0.1) == PASS
    True
    >>> judge(Measure(0.05, n=20, low=0.009, high=0.236), limit=0.1) == OPEN  # too few to say
    True
    """
    if measure.n < FEW or math.isnan(measure.value):
        return OPEN
    if measure.high <= limit:
        return PASS
    return FAIL if measure.low > limit else OPEN


def lost(before: Measure, after: Measure) -> Measure:
    """before - after of two shares, in -1..1.

    Of the same cases on both sides it is the share lost less the share won, whose Wilson intervals are put together as
    Newcombe puts those of two shares together, here with the correlation of two shares of one whole,

        r = -sqrt(l w / ((1 - l) (1 - w))).

    Where a side does not tell its single cases, as in numbers read from a file, both count as separate samples.

    >>> kept = share([True] * 80 + [False] * 16)
    >>> round(lost(kept, kept).high, 3), round(lost(*(Measure.from_json(kept.to_json()) for _ in range(2))).high, 3)
    (0.038, 0.107)
    """
    if not before.hits or len(before.hits) != len(after.hits):
        return _difference(before, after)
    pairs = list(zip(before.hits, after.hits, strict=True))
    gone, won = share([was > now for was, now in pairs]), share([now > was for was, now in pairs])
    together = gone.value * won.value
    return _difference(gone, won, -math.sqrt(together / ((1 - gone.value) * (1 - won.value))) if together else 0.0)


def strictest(n: int) -> float:
    """The lowest limit that n cases can pass: the upper end of Wilson's interval where none of them is found."""
    return Z**2 / (n + Z**2)


def least(limit: float) -> int:
    """The fewest cases that can pass a limit above 0.

    >>> least(0.10), least(0.02)
    (35, 189)
    """
    return math.ceil(Z**2 * (1 - limit) / limit)


def _difference(a: Measure, b: Measure, r: float = 0.0) -> Measure:
    """a - b with the interval of Newcombe (1998, method 10), for shares of correlation r."""

    def beyond(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * r * x * y + y * y))

    low = a.value - b.value - beyond(a.value - a.low, b.high - b.value)
    high = a.value - b.value + beyond(a.high - a.value, b.value - b.low)
    return Measure(a.value - b.value, min(a.n, b.n), max(-1.0, low), min(1.0, high))


def _evidence(gate: Gate, before: Evaluation, after: Evaluation, findings: Sequence[Finding]) -> Measure | None:
    if gate.key == "forget":
        return after.forget_accuracy
    if gate.key in ("retain", "neighbours"):
        key = "retain_accuracy" if gate.key == "retain" else "neighbor_accuracy"
        pair = getattr(before, key), getattr(after, key)
        return lost(*pair) if all(pair) else None
    return next((f.attacked for f in findings if f"{f.attack}/{f.setting}" == gate.key), None)


def _verdict(gate: Gate, measure: Measure | None, missed: str) -> Verdict:
    if measure is None or measure.n == 0:
        return Verdict(gate, measure, OPEN, _nothing(gate, measure, missed))
    said, unit = judge(measure, gate.limit), gate.unit
    numbers = (
        f"{100 * measure.value:.1f} {unit} {gate.about} (n = {measure.n:,}, 95 % interval {_range(measure, unit)})"
    )
    limit = f"the limit is {100 * gate.limit:.3g} {unit}"
    return Verdict(gate, measure, said, f"{numbers}; {limit}{_doubt(gate, measure.n) if said == OPEN else ''}.")


def _nothing(gate: Gate, measure: Measure | None, missed: str) -> str:
    """Why a gate has no number."""
    if measure is None and gate.attack:
        return f"Not tried: {missed}" if missed else "Not tried."
    return "No pictures are held out for this."


def _doubt(gate: Gate, n: int) -> str:
    """Why a number says neither yes nor no."""
    if n < FEW:
        return f"; of fewer than {FEW} cases nothing is said"
    if n < least(gate.limit):
        return f"; so few cases can pass no limit under {100 * strictest(n):.1f} {gate.unit}, and this one takes " + (
            f"{least(gate.limit)} of them"
        )
    return "; it is too near the limit for so many cases to say"


def _range(measure: Measure, unit: str) -> str:
    return f"{100 * measure.low:.1f} to {100 * measure.high:.1f} {unit}"
