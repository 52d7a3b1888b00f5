"""Training with Adam against an objective: what the trained rivals share."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from razor.adapters.base import Adapter
from razor.baselines.tuning import Diverged, Tuning, meets
from razor.patches import Patch
from razor.units import Slice

RATE = "learning rate"
RATES = tuple({RATE: rate} for rate in (1e-5, 3e-5, 1e-4, 3e-4, 1e-3))
_LEFT_ALONE = ("logit_scale", "logit_bias")

Objective = Callable[[int], Callable[[], Tensor]]  # number of the step, from 1 -> the loss that step descends


def trained_tensors(adapter: Adapter) -> list[str]:
    """What rivals train.

    All of a CLIP but its temperature; of a pipeline the cross-attention, or a joint transformer's text stream (ESD's
    esd-x); of a model that answers the towers RAZOR grows in.
    """
    names = [name for name, p in adapter.model.named_parameters() if p.is_floating_point()]
    if adapter.family == "clip":
        return [name for name in names if name.rpartition(".")[2] not in _LEFT_ALONE]
    towers = ("cross", "context") if adapter.family == "diffusion" else adapter.growing
    return [name for name in names if adapter.tower_of(name) in towers]


def train(
    tuning: Tuning,
    setting: Mapping,
    names: Sequence[str],
    objective: Objective,
    *,
    masks: Mapping[str, Tensor] | None = None,
) -> None:
    """Train these parameters for the budget's steps, measured on the way; a training that diverges ends with a note.

    Past the target it goes on only while it retains more. Adam's betas are 0.9 and 0.999; there is no weight decay.

    Args:
        setting: RATE and what else tells this training from the next.
        objective: see Objective.
        masks: name -> bool, weights that may move; the others never do, whatever momentum they would have.
    """
    weights = tuning.weights(names)
    deltas = {name: torch.zeros_like(w) for name, w in weights.items()}
    optimizer = torch.optim.Adam(deltas.values(), lr=setting[RATE])
    retained = -1.0
    for step in range(1, tuning.budget.steps + 1):
        tuning.tick((step - 1) / tuning.budget.steps)
        try:
            grads = tuning.gradient(names, objective(step), _patch(deltas))
        except Diverged as error:
            return tuning.failed({**setting, "steps": step}, error)
        for name, delta in deltas.items():
            delta.grad = grads[name].float()
            if masks:
                delta.grad *= masks[name]
        optimizer.step()
        if step in tuning.budget.measured:
            now = tuning.check({**setting, "steps": step}, _patch({n: d.clone() for n, d in deltas.items()}))
            if now is None or (meets(now, tuning.target) and now.retain_accuracy.value <= retained):
                return None
            if meets(now, tuning.target):
                retained = now.retain_accuracy.value
    return None


def _patch(deltas: Mapping[str, Tensor]) -> Patch:
    return Patch({Slice(name): delta for name, delta in deltas.items()})
