"""SalUn: ascent with retain, on the half of the weights the forget loss depends on most.

Fan et al., ICLR 2024, on CLIP as SLUG runs it. Public code lets Adam's momentum and weight decay move weights outside
the mask; here they stay.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from razor.baselines.ascent_retain import both
from razor.baselines.training import RATES, train, trained_tensors
from razor.baselines.tuning import Tuning

SHARE = 0.5  # of all weights


def salun(tuning: Tuning) -> None:
    """m = 1[|grad A_f| among the largest half]; theta <- argmin R - A_f over the weights in m."""
    names = trained_tensors(tuning.adapter)
    mask = masks(tuning.gradient(names, tuning.bench.scoring_terms()["forget"]), SHARE)
    for setting in tuning.settings(RATES):
        train(tuning, setting, names, lambda step: both(tuning, step), masks=mask)


def masks(grads: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Name -> bool: this share of all numbers together, those of the largest magnitude; never one that is 0."""
    flat = torch.cat([grad.abs().flatten() for grad in grads.values()])
    count = round(share * len(flat))
    if count == 0:
        return {name: torch.zeros_like(grad, dtype=torch.bool) for name, grad in grads.items()}
    least = flat.kthvalue(len(flat) - count + 1).values
    return {name: (grad.abs() >= least) & (grad != 0) for name, grad in grads.items()}
