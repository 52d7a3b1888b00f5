"""GA: ascend the forget loss and nothing else."""

from razor.baselines.training import RATES, train, trained_tensors
from razor.baselines.tuning import Tuning


def ascent(tuning: Tuning) -> None:
    """theta <- argmax A_f."""
    names = trained_tensors(tuning.adapter)
    for setting in tuning.settings(RATES):
        train(tuning, setting, names, lambda step: lambda: -tuning.bench.scoring_terms(step)["forget"]())
