"""Head gate: shut the heads whose closing forgets most and costs least; no training.

Importance as in Michel et al., NeurIPS 2019: the derivative of a loss by a gate on the head's output.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from razor.baselines.tuning import Tuning
from razor.patches import Patch
from razor.units import Unit

BATCHES = 4
HEADS, WEIGHT = "heads", "retain weight"
COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
WEIGHTS = (0.3, 1.0, 3.0)


def head_gate(tuning: Tuning) -> None:
    """Shut the k heads of the highest score, k and the weight of retention tuned."""
    heads = tuning.adapter.units(("head",), tuning.adapter.growing)
    names = list(dict.fromkeys(unit.slices[-1].parameter for unit in heads))
    weights = tuning.weights(names)
    forget, retain = (_mean_importance(tuning, heads, weights, side) for side in ("forget", "retain"))
    counts = [count for count in COUNTS if count <= len(heads)]
    for setting in tuning.settings([{WEIGHT: weight, HEADS: count} for weight in WEIGHTS for count in counts]):
        order = scores(forget, retain, setting[WEIGHT]).argsort(descending=True, stable=True).tolist()
        tuning.check(setting, shut([heads[i] for i in order[: setting[HEADS]]], weights))


def importance(heads: Sequence[Unit], weights: Mapping[str, Tensor], grads: Mapping[str, Tensor]) -> Tensor:
    """dL/d gate at an open gate, (n,): the gate multiplies a head's part of the output matrix, so <W_out, g_out>."""
    outs = [unit.slices[-1] for unit in heads]
    return torch.stack([(o.view(weights[o.parameter]) * o.view(grads[o.parameter])).sum() for o in outs])


def scores(forget: Tensor, retain: Tensor, weight: float) -> Tensor:
    """To first order, by how much closing a head raises A_f, less the retain loss it adds; in norms of each."""
    gain, harm = -forget, (-retain).clamp(min=0)
    return gain / forget.norm().clamp(min=1e-12) - weight * harm / retain.norm().clamp(min=1e-12)


def shut(heads: Sequence[Unit], weights: Mapping[str, Tensor]) -> Patch:
    """What takes away all that these heads add."""
    outs = [unit.slices[-1] for unit in heads]
    return Patch({o: -o.view(weights[o.parameter]).contiguous() for o in outs})


def _mean_importance(tuning: Tuning, heads: Sequence[Unit], weights: Mapping[str, Tensor], side: str) -> Tensor:
    names = list(weights)
    found = [
        importance(heads, weights, tuning.gradient(names, tuning.bench.scoring_terms(number)[side]))
        for number in range(1, BATCHES + 1)
    ]
    return torch.stack(found).mean(0)
