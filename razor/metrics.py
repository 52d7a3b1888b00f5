"""One function per reported number, each with how many cases it rests on and a 95 % interval."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

Z = 1.959964  # two-sided 95 %


@dataclass(frozen=True)
class Measure:
    """A number with its evidence."""

    value: float
    n: int  # cases counted
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        return {key: round(value, 5) for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Evaluation:
    """What a model does on one split, in shares of 1. None where the task has nothing to count.

    forget_accuracy: forget pictures still given the forgotten class (top-1 among all classes of its axis).
    forget_probability: mean probability given to the forgotten class on the forget pictures.
    retain_accuracy: right answers on the retain pictures, every axis a picture has a class on counted once.
    neighbor_accuracy: the same for the target's known neighbours, on the target's axis.
    cross_accuracy: right answers about the forget pictures on the other axes (the style of a forgotten object).
    retrieval_stability: caption-from-picture recall at 1 on retain pictures, over that of the unedited model.
    """

    forget_accuracy: Measure
    forget_probability: Measure
    retain_accuracy: Measure
    neighbor_accuracy: Measure | None
    cross_accuracy: Measure | None
    retrieval_stability: Measure

    def to_json(self) -> dict:
        return {name: measure.to_json() if measure else None for name, measure in vars(self).items()}


def share(hits: Sequence[bool] | Tensor) -> Measure:
    """Share of True with the Wilson score interval."""
    n = len(hits)
    if n == 0:
        return Measure(math.nan, 0, 0.0, 1.0)
    p = float(sum(map(bool, hits))) / n
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    # Rounding must not push the interval past the value it belongs to.
    return Measure(p, n, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)))


def mean(values: Tensor) -> Measure:
    """Mean of shares in 0..1 with the normal interval, clipped to that range."""
    n = len(values)
    if n == 0:
        return Measure(math.nan, 0, 0.0, 1.0)
    value = values.double().mean().item()
    half = Z * values.double().std().item() / math.sqrt(n) if n > 1 else 1.0
    return Measure(value, n, max(0.0, value - half), min(1.0, value + half))


def stability(before: Tensor, after: Tensor, *, draws: int = 400, seed: int = 0) -> Measure:
    """Recall after over recall before, with a paired bootstrap interval.

    Args:
        before, after: (n,) bool, the same queries in the same order.
    """
    n = len(before)
    if n == 0 or not before.any():
        return Measure(math.nan, n, 0.0, 1.0)
    ratio = after.sum().item() / before.sum().item()
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(n, (draws, n), generator=generator)
    ratios = after[rows].float().sum(1) / before[rows].float().sum(1).clamp(min=1)
    low, high = ratios.quantile(torch.tensor([0.025, 0.975])).tolist()
    return Measure(ratio, n, min(low, ratio), max(high, ratio))
