"""Rank units by how well an edit there would forget without disturbing what is retained.

    phi(l) = ||g_f|| / (||theta|| + eps) * (1 - cos(g_f, g_r)) ** alpha        arXiv:2603.14819

g_f is the gradient of the loss that is ascended, so moving along it changes the retain loss by <g_f, g_r>: a positive
cosine is a conflict and lowers phi. Heads, MLPs and layers share this code. Everything here is arithmetic on
UnitStats; alpha and tau can be moved without running a model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from razor.gradients import UnitStats
from razor.units import Unit

EPS = 1e-8  # added to ||theta||, so that a unit whose weights are all zero still scores


@dataclass(frozen=True)
class UnitScore:
    """One unit on the map."""

    unit: Unit
    pressure: float  # ||g_f|| / (||theta|| + eps), the forget gradient relative to the weights
    separation: float  # 1 - cos(g_f, g_r): 0 same direction, 1 orthogonal, 2 opposite
    phi: float  # pressure * separation ** alpha
    ratio: float  # ||g_f|| / (||g_r|| + eps), how much more it pushes on forgetting than on keeping
    rank: int  # 1 is the highest phi


def score(stats: Sequence[UnitStats], *, alpha: float = 1.0) -> list[UnitScore]:
    """Scores in the order given, ranks filled in; ties rank in that order.

    Two units with weights of norm 2 and the forget gradient (3, 4), of norm 5. The retain gradient of one, (4, 3), goes
    nearly the same way: cos = 24 / 25, phi = 5 / 2 * (1 - 0.96). That of the other, (-4, 3), is at a right angle to it.

    >>> one, other = (Unit(f"text.0.head.{i}", "head", "text", 0, i, ()) for i in range(2))
    >>> stats = [UnitStats(one, 5, 5, 2, dot=24, size=2), UnitStats(other, 5, 5, 2, dot=0, size=2)]
    >>> [(s.unit.name, round(s.pressure, 6), round(s.separation, 6), round(s.phi, 6), s.rank) for s in score(stats)]
    [('text.0.head.0', 2.5, 0.04, 0.1, 2), ('text.0.head.1', 2.5, 1.0, 2.5, 1)]
    >>> [s.unit.name for s in ranked(score(stats))]
    ['text.0.head.1', 'text.0.head.0']
    >>> [round(s.phi, 6) for s in score(stats, alpha=0)]
    [2.5, 2.5]

    Args:
        alpha: exponent on the separation, >= 0; 0 ignores the retain set.
    """
    values = [_phi(s, alpha) for s in stats]
    order = sorted(range(len(stats)), key=lambda i: -values[i])
    rank = {i: place + 1 for place, i in enumerate(order)}
    return [
        UnitScore(
            s.unit,
            pressure=s.forget_norm / (s.weight_norm + EPS),
            separation=1 - s.cosine,
            phi=values[i],
            ratio=s.forget_norm / (s.retain_norm + EPS),
            rank=rank[i],
        )
        for i, s in enumerate(stats)
    ]


def ranked(scores: Sequence[UnitScore]) -> list[UnitScore]:
    """Highest phi first."""
    return sorted(scores, key=lambda s: s.rank)


def threshold(scores: Sequence[UnitScore], tau: float) -> float:
    """The phi at quantile tau (0..1): units strictly above it may join the edit set."""
    values = sorted(s.phi for s in scores)
    return values[min(int(tau * len(values)), len(values) - 1)] if tau > 0 and values else -1.0


def _phi(stats: UnitStats, alpha: float) -> float:
    # 1 - cos is clamped by UnitStats.cosine: a base just below zero to a fractional alpha would be complex.
    return stats.forget_norm / (stats.weight_norm + EPS) * (1 - stats.cosine) ** alpha
