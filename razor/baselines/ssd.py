"""SSD: dampen the weights that matter for the forget set far more than for the rest; no training.

Foster et al., AAAI 2024. The forget importance rests on A_f, as in SLUG's comparison.

Where this departs from the public code: importances are divided by their means first, as A_f and R are losses of
different sizes here; alpha is tuned as well as lambda; and the importance of the rest is that of retain pictures alone.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from razor.baselines.training import trained_tensors
from razor.baselines.tuning import Tuning
from razor.patches import Patch
from razor.units import Slice

BATCHES = 8  # squared gradients are averaged over these
ALPHA, LAMBDA = "alpha", "lambda"
# alpha: how many times more a weight must matter for the forget set; lambda: how much of it is left.
GRID = tuple({ALPHA: alpha, LAMBDA: lam} for alpha in (2.0, 5.0, 10.0, 25.0, 50.0) for lam in (0.1, 0.3, 1.0, 2.0, 5.0))


def ssd(tuning: Tuning) -> None:
    """theta_j <- theta_j * min(1, lambda I_r,j / I_f,j) where I_f,j > alpha I_r,j; I = mean of squared gradients."""
    names = trained_tensors(tuning.adapter)
    weights = tuning.weights(names)
    forget, retain = (over_mean(_squares(tuning, names, side)) for side in ("forget", "retain"))
    for setting in tuning.settings(GRID):
        tuning.check(setting, dampened(weights, forget, retain, setting[ALPHA], setting[LAMBDA]))


def dampened(
    weights: Mapping[str, Tensor], forget: Mapping[str, Tensor], retain: Mapping[str, Tensor], alpha: float, lam: float
) -> Patch:
    """The change of the weights that are dampened; 0 elsewhere."""
    deltas = {}
    for name, w in weights.items():
        chosen = forget[name] > alpha * retain[name]
        left = (lam * retain[name] / forget[name].clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1.0)
        deltas[Slice(name)] = torch.where(chosen, w * (left - 1), torch.zeros_like(w))
    return Patch(deltas)


def over_mean(squares: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Importances in units of their mean over all weights, so that losses of different sizes compare."""
    mean = torch.cat([s.flatten() for s in squares.values()]).double().mean()
    return {name: (s / mean.clamp(min=1e-300)).float() for name, s in squares.items()}


def _squares(tuning: Tuning, names: list[str], side: str) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    for number in range(1, BATCHES + 1):
        for name, grad in tuning.gradient(names, tuning.bench.scoring_terms(number)[side]).items():
            total[name] = total.get(name, 0) + grad.double().square() / BATCHES
    return total
