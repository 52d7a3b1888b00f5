"""FT: train on the retain set alone and hope that the rest fades."""

from razor.baselines.training import RATES, train, trained_tensors
from razor.baselines.tuning import Tuning


def fine_tune(tuning: Tuning) -> None:
    """theta <- argmin R."""
    names = trained_tensors(tuning.adapter)
    for setting in tuning.settings(RATES):
        train(tuning, setting, names, lambda step: tuning.bench.scoring_terms(step)["retain"])
