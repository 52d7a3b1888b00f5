"""Means over targets with a 95 % interval.

A mean is uncertain in two ways: another target would have come out otherwise, and each target was read from so many
answers. The interval is the wider one at each end of

- mean -+ t s / sqrt(k)     over the k targets, Student's t with k - 1 degrees of freedom;
- Wilson's, over all their answers together, and for a loss Newcombe's of before and after as separate samples, which
  is wider than one that knew which answers changed.

So targets that all came to 0 of 96 still have an interval, and one target alone has one.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from razor.metrics import Measure, share

T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
       2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)  # fmt: skip


@dataclass(frozen=True)
class Mean:
    """A mean over targets, in shares of 1."""

    value: float
    low: float
    high: float
    targets: int
    answers: int  # of all targets together

    def text(self, digits: int = 1) -> str:
        """In points: the value, and its interval in brackets."""
        value, low, high = (f"{100 * v:.{digits}f}" for v in (self.value, self.low, self.high))
        return f"{_plain(value)} ({_plain(low)} to {_plain(high)})"


def shares(found: Sequence[Mapping]) -> Mean:
    """The mean of shares, one a target, each as Measure.to_json gives it."""
    measures = [Measure.from_json(f) for f in found]
    return _widest([m.value for m in measures], together(measures), (0.0, 1.0))


def losses(before: Sequence[Mapping], after: Sequence[Mapping]) -> Mean:
    """The mean of what shares lost, one a target."""
    sides = [[Measure.from_json(f) for f in side] for side in (before, after)]
    values = [b.value - a.value for b, a in zip(*sides, strict=True)]
    was, now = (together(side) for side in sides)
    gap = was.value - now.value
    low = gap - math.hypot(was.value - was.low, now.high - now.value)
    high = gap + math.hypot(was.high - was.value, now.value - now.low)
    return _widest(values, Measure(gap, now.n, low, high), (-1.0, 1.0))


def ratios(found: Sequence[Mapping]) -> Mean:
    """The mean of numbers that are no shares, such as retrieval stability: over targets alone, or of one its own."""
    measures = [Measure.from_json(f) for f in found]
    own = measures[0] if len(measures) == 1 else None
    answers = sum(m.n for m in measures)
    value = statistics.fmean(m.value for m in measures)
    middle = Measure(value, answers, own.low if own else value, own.high if own else value)
    return _widest([m.value for m in measures], middle, (0.0, math.inf))


def together(measures: Sequence[Measure]) -> Measure:
    """All answers of shares as one share, with Wilson's interval."""
    hits, count = sum(round(m.value * m.n) for m in measures), sum(m.n for m in measures)
    return share([i < hits for i in range(count)])


def _widest(values: Sequence[float], answers: Measure, ends: tuple[float, float]) -> Mean:
    k, value = len(values), statistics.fmean(values)
    half = student(k - 1) * statistics.stdev(values) / math.sqrt(k) if k > 1 else 0.0
    low, high = min(value - half, answers.low), max(value + half, answers.high)
    return Mean(value, max(ends[0], low), min(ends[1], high), k, answers.n)


def student(freedom: int) -> float:
    """The 97.5 % point of Student's t; beyond the table to three digits."""
    return T95[freedom - 1] if freedom <= len(T95) else 1.96 + 2.45 / freedom


def _plain(number: str) -> str:
    """No minus before nothing."""
    return number.lstrip("-") if float(number) == 0 else number
