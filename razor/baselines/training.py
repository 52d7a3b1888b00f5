"""Training with Adam against an objective: what the trained rivals share."""

from collections.abc import Callable, Iterator, Mapping, Sequence

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

    Past the target it goes on only while it retains more.

    Args:
        setting: RATE and what else tells this training from the next.
        objective: see Objective.
        masks: name -> bool, weights that may move; the others never do, whatever momentum they would have.
    """
    retained, step = -1.0, 0
    try:
        for step, change in descend(tuning, names, objective, tuning.budget.steps, setting[RATE], masks=masks):
            if step not in tuning.budget.measured:
                continue
            now = tuning.check({**setting, "steps": step}, change())
            if now is None or (meets(now, tuning.target) and now.retain_accuracy.value <= retained):
                return
            if meets(now, tuning.target):
                retained = now.retain_accuracy.value
    except Diverged as error:
        tuning.failed({**setting, "steps": step + 1}, error)


def descend(
    tuning: Tuning,
    names: Sequence[str],
    objective: Objective,
    steps: int,
    rate: float,
    *,
    masks: Mapping[str, Tensor] | None = None,
) -> Iterator[tuple[int, Callable[[], Patch]]]:
    """Adam on these parameters, betas 0.9 and 0.999, no weight decay; leaves the model as found.

    Yields:
        After every step its number, from 1, and a way to get a copy of the change so far.

    Raises:
        Diverged, Stopped, OutOfTime: see Tuning.gradient and Tuning.tick.
    """
    deltas = {name: torch.zeros_like(w) for name, w in tuning.weights(names).items()}
    optimizer = torch.optim.Adam(deltas.values(), lr=rate)
    for step in range(1, steps + 1):
        tuning.tick((step - 1) / steps)
        grads = tuning.gradient(names, objective(step), _patch(deltas))
        for name, delta in deltas.items():
            delta.grad = grads[name].float() * masks[name] if masks else grads[name].float()
        optimizer.step()
        yield step, lambda: _patch({name: delta.clone() for name, delta in deltas.items()})


def _patch(deltas: Mapping[str, Tensor]) -> Patch:
    return Patch({Slice(name): delta for name, delta in deltas.items()})
