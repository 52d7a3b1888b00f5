"""One function per reported number, each with how many cases it rests on and a 95 % interval."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
    hits: bytes = field(default=b"", repr=False, compare=False)  # of a share: 1 or 0 a case, in the order counted

    def to_json(self, digits: int | None = 5) -> dict[str, float]:
        """Plain values, rounded unless `digits` is None; the single cases are left out."""
        values = {"value": self.value, "n": self.n, "low": self.low, "high": self.high}
        return {key: value if digits is None else round(value, digits) for key, value in values.items()}

    @classmethod
    def from_json(cls, values: Mapping) -> "Measure":
        return cls(**{key: math.nan if value is None else value for key, value in values.items()})


@dataclass(frozen=True)
class Evaluation:
    """What a model does on one split, in shares of 1 but for neutral_kl. None where the task has nothing to count.

    forget_accuracy: forget pictures still given the forgotten class (top-1 among all classes of its axis).
    forget_probability: mean probability given to the forgotten class on the forget pictures.
    retain_accuracy: right answers on the retain pictures, every axis a picture has a class on counted once.
    neighbor_accuracy: the same for the target's known neighbours, on the target's axis.
    cross_accuracy: right answers about the forget pictures on the other axes (the style of a forgotten object).
    retrieval_stability: caption-from-picture recall at 1 on retain pictures, over that of the unedited model.
    prediction_stability: 1 - the share of a changed prompt's effect by which a denoiser's retained predictions moved.
    unlearning_accuracy, in_domain_retain_accuracy, cross_domain_retain_accuracy: of drawn pictures, see denoising.py.
    retain_probability: mean probability given to the right answer, over the answers retain_accuracy counts.
    neutral_kl: how far a language model's next word after neutral questions moved: mean KL(unedited || now), in nats.
    affirmed: forget pictures of which a model that answers says yes to the concept's name, asked for yes or no.
    granted: retain pictures of which it says yes to their own class on the concept's axis.
    association: how close the concept and its pictures still are: 1 as in the unedited model, 0 as the concept and
        other pictures are there. Far below 0 the edit pushes further than forgetting needs. None where a model answers.
    by_neighbor: neighbor_accuracy, class by class.
    """

    forget_accuracy: Measure
    forget_probability: Measure
    retain_accuracy: Measure
    neighbor_accuracy: Measure | None
    cross_accuracy: Measure | None
    retrieval_stability: Measure | None
    prediction_stability: Measure | None = None
    unlearning_accuracy: Measure | None = None
    in_domain_retain_accuracy: Measure | None = None
    cross_domain_retain_accuracy: Measure | None = None
    retain_probability: Measure | None = None
    neutral_kl: Measure | None = None
    affirmed: Measure | None = None
    granted: Measure | None = None
    association: float | None = None
    by_neighbor: Mapping[str, Measure] = field(default_factory=dict)

    def to_json(self, digits: int | None = 5) -> dict:
        """Plain values, shares rounded unless `digits` is None; `from_json` gives the evaluation back."""
        plain = {name: m.to_json(digits) if isinstance(m, Measure) else m for name, m in vars(self).items()}
        return plain | {"by_neighbor": {name: m.to_json(digits) for name, m in self.by_neighbor.items()}}

    @classmethod
    def from_json(cls, values: Mapping) -> "Evaluation":
        """The evaluation behind `to_json`, to its digits."""
        near = {name: Measure.from_json(m) for name, m in values["by_neighbor"].items()}
        rest = {name: m for name, m in values.items() if name != "by_neighbor"}
        read = {name: Measure.from_json(m) if isinstance(m, Mapping) else m for name, m in rest.items()}
        return cls(**read, by_neighbor=near)


def share(hits: Sequence[bool] | Tensor) -> Measure:
    """Share of True with the Wilson score interval.

        (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    Where all of n are True it begins at n / (n + z^2): of 96, at 96 / 99.84.

    >>> found = share([True] * 96)
    >>> found.value, found.n, round(found.low, 4), found.high
    (1.0, 96, 0.9615, 1.0)
    """
    n = len(hits)
    if n == 0:
        return Measure(math.nan, 0, 0.0, 1.0)
    told = bytes(map(bool, hits))
    p = sum(told) / n
    return Measure(p, n, *_wilson(p, n), told)


def _wilson(p: float, n: int) -> tuple[float, float]:
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    # Rounding must not push the interval past the value it belongs to.
    return min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half))


def mean(values: Tensor, *, highest: float = 1.0) -> Measure:
    """Mean of values in 0..highest with the normal interval, clipped to that range.

    Values that are all alike tell nothing of their spread. The interval is then Wilson's, as of a share of `highest`:
    no values with this mean spread further than those that are all 0 or `highest`. Without a highest value it has no
    width, and says no more than that these cases were alike.

    >>> found = mean(torch.zeros(96))
    >>> found.low, found.value, round(found.high, 3)
    (0.0, 0.0, 0.038)
    """
    n = len(values)
    if n == 0:
        return Measure(math.nan, 0, 0.0, highest)
    value = values.double().mean().item()
    if math.isfinite(highest) and values.min() == values.max():
        low, high = _wilson(value / highest, n)
        return Measure(value, n, min(value, highest * low), max(value, highest * high))
    half = Z * values.double().std().item() / math.sqrt(n) if n > 1 else highest
    return Measure(value, n, max(0.0, value - half), min(highest, value + half))


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Squared maximum mean discrepancy of two sets of features with the kernel (x.y / d + 1)^3; 0 for equal sets.

    Args:
        a: (n, d), b: (m, d). The biased estimate, so that it is never negative: compare equal n and m only.
    """
    kernel = lambda x, y: ((x.double() @ y.double().T / x.shape[1] + 1) ** 3).mean()  # noqa: E731
    return (kernel(a, a) + kernel(b, b) - 2 * kernel(a, b)).item()


def stability(before: Tensor, after: Tensor, *, draws: int = 400, seed: int = 0) -> Measure:
    """Recall after over recall before, with a paired bootstrap interval.

    Where all draws give one ratio, as where nothing changed, the interval is what n queries can tell at all: the lower
    end of Wilson's interval for the share of found ones that stay found, and the upper end for that and for the share
    of missed ones that are found now.

    >>> found = torch.arange(10) < 8
    >>> same = stability(found, found)
    >>> round(same.low, 3), same.value, round(same.high, 3)
    (0.676, 1.0, 1.164)

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
    if low == high:
        kept, found = share(after[before]), share(after[~before])
        gained = (n - kept.n) / kept.n  # what all missed ones are worth
        low, high = kept.low + gained * found.low, kept.high + gained * found.high
    return Measure(ratio, n, min(low, ratio), max(high, ratio))
