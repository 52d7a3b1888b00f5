"""GAFT, or NegGrad+: ascend the forget loss and descend the retain loss at once."""

from collections.abc import Callable

from torch import Tensor

from razor.baselines.training import RATES, train, trained_tensors
from razor.baselines.tuning import Tuning


def ascent_retain(tuning: Tuning) -> None:
    """theta <- argmin R - A_f, both on fresh batches at every step."""
    names = trained_tensors(tuning.adapter)
    for setting in tuning.settings(RATES):
        train(tuning, setting, names, lambda step: both(tuning, step))


def both(tuning: Tuning, step: int) -> Callable[[], Tensor]:
    """R - A_f on the batches of this step."""
    terms = tuning.bench.scoring_terms(step)
    return lambda: terms["retain"]() - terms["forget"]()
