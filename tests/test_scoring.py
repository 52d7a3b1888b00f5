"""phi = ||g_f|| / ||theta|| * (1 - cos) ** alpha, worked out by hand; ranks and thresholds."""

import pytest
import torch

from razor.gradients import UnitStats
from razor.scoring import ranked, score, threshold
from razor.units import Unit


def stats(g_f, g_r, theta, name="u"):
    """Stats of one unit from its gradients and weights as plain lists."""
    g_f, g_r, theta = (torch.tensor(values, dtype=torch.float64) for values in (g_f, g_r, theta))
    unit = Unit(name, "head", "image", 0, 0, ())
    norms = (t.norm().item() for t in (g_f, g_r, theta))
    return UnitStats(unit, *norms, (g_f @ g_r).item(), len(theta))


def phis(*values):
    """Scores whose phi are these numbers."""
    return score([stats([v], [0.0], [1.0], name=f"u{i}") for i, v in enumerate(values)])


# g_f = (3, 4) and theta = (6, 8): the pressure is 5 / 10
@pytest.mark.parametrize("alpha", [0.5, 1.0, 3.0])
@pytest.mark.parametrize(
    "g_r, separation",
    [([3.0, 4.0], 0.0), ([30.0, 40.0], 0.0), ([-3.0, -4.0], 2.0), ([-4.0, 3.0], 1.0), ([4.0, 3.0], 0.04)],
)
def test_phi_is_the_ratio_times_the_separation_to_alpha(g_r, separation, alpha):
    (one,) = score([stats([3.0, 4.0], g_r, [6.0, 8.0])], alpha=alpha)
    assert one.pressure == pytest.approx(0.5)
    assert one.separation == pytest.approx(separation, abs=1e-12)
    assert one.phi == pytest.approx(0.5 * separation**alpha, abs=1e-6)


def test_alpha_zero_ignores_the_retain_set():
    same, opposite, none = score(
        [stats([3.0, 4.0], g_r, [6.0, 8.0]) for g_r in ([3.0, 4.0], [-3.0, -4.0], [0.0, 0.0])], alpha=0
    )
    assert same.phi == opposite.phi == none.phi == pytest.approx(0.5)


def test_zero_retain_gradient_counts_as_orthogonal():
    (one,) = score([stats([3.0, 4.0], [0.0, 0.0], [6.0, 8.0])])
    assert (one.separation, one.phi) == pytest.approx((1.0, 0.5))


@pytest.mark.parametrize("factor", [1e-3, 7.0, 1e4])
def test_scaling_weights_and_forget_gradient_together_leaves_phi(factor):
    g_f, g_r, theta = [3.0, 4.0], [1.0, -2.0], [6.0, 8.0]
    (plain,) = score([stats(g_f, g_r, theta)])
    (scaled,) = score([stats([factor * x for x in g_f], g_r, [factor * x for x in theta])])
    assert scaled.phi == pytest.approx(plain.phi, rel=1e-5)


def test_phi_does_not_depend_on_the_length_of_the_retain_gradient_but_ratio_does():
    short, long = score([stats([3.0, 4.0], [x, 0.0], [6.0, 8.0]) for x in (1.0, 100.0)])
    assert short.phi == pytest.approx(long.phi)
    assert (short.ratio, long.ratio) == pytest.approx((5.0, 0.05))


def test_all_zero_weights_still_score():
    (one,) = score([stats([1.0], [0.0], [0.0])])
    assert one.phi == pytest.approx(1e8)


def test_rounding_past_parallel_gives_zero_not_nan_or_complex():
    past = UnitStats(Unit("u", "head", "image", 0, 0, ()), 1.0, 1.0, 1.0, 1.0000000001, 1)
    assert score([past], alpha=0.5)[0].phi == 0.0


def test_ranks_go_by_phi_and_ties_keep_the_order_they_came_in():
    scores = phis(1.0, 3.0, 2.0, 3.0, 2.0)
    assert [s.rank for s in scores] == [5, 1, 3, 2, 4]
    assert [s.unit.name for s in ranked(scores)] == ["u1", "u3", "u2", "u4", "u0"]


@pytest.mark.parametrize("tau, level", [(0.25, 2.0), (0.5, 3.0), (0.999, 5.0)])
def test_threshold_is_the_quantile_of_phi(tau, level):
    assert threshold(phis(5.0, 1.0, 4.0, 2.0, 3.0), tau) == pytest.approx(level)


def test_threshold_zero_lets_every_unit_in():
    assert all(s.phi > threshold(phis(0.0, 1.0), 0.0) for s in phis(0.0, 1.0))
    assert threshold([], 0.5) < 0
