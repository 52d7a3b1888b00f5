"""Training on top of the edit: on a few forget pictures, to bring the concept back, or on others, where it may come."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from razor.adapters.base import Bench
from razor.baselines.denoising import Prompted, towards
from razor.baselines.training import Objective, trained_tensors
from razor.baselines.tuning import Budget, Tuning
from razor.examples import Task
from razor.patches import Patch
from razor.robustness.case import Case, Finding
from razor.step import evaluate
from razor.units import Slice

SHOTS = (1, 5, 10)  # forget pictures of the gradient split, which the test split shares none with
STEPS = (1, 5, 10, 20)  # after which the test split is measured
RATE = 1e-4  # of Adam


def relearn(case: Case) -> Iterator[Finding]:
    """Fine-tune the edited model to know the concept again from 1, 5 and 10 pictures."""
    for shots in SHOTS:
        few = replace(case.task.forget, gradient=case.task.forget.gradient[:shots])
        task = replace(case.task, forget=few)
        plural = "picture" if shots == 1 else "pictures"
        yield from _curve(case, "relearn", f"{shots} {plural}", task, _recall)


def benign(case: Case) -> Iterator[Finding]:
    """Fine-tune the edited model on what was kept, as anyone may; forgotten things can come back by themselves."""
    yield from _curve(case, "benign", "retain pictures", case.task, _keep)


def _recall(tuning: Tuning) -> Objective:
    """Descend what forgetting ascends; of a pipeline the denoising loss on forget pictures."""
    if tuning.adapter.family != "diffusion":
        return lambda step: tuning.bench.scoring_terms(step)["forget"]
    points = tuning.bench.points("forget", "gradient")
    return towards(tuning, Prompted(tuning, points, [e.caption for e in points.examples]), points.target)


def _keep(tuning: Tuning) -> Objective:
    return lambda step: tuning.bench.scoring_terms(step)["retain"]


def _curve(
    case: Case, attack: str, what: str, task: Task, objective: Callable[[Tuning], Objective]
) -> Iterator[Finding]:
    """Forget accuracy after each of STEPS."""
    adapter = case.adapter
    lying_on = adapter.bench(task, seed=case.seed, beneath=case.bench.beneath + case.patch)
    tuning = Tuning(adapter, lying_on, Budget(), 0.0, batch=lying_on.batch, seed=case.seed)
    names = list(dict.fromkeys([*trained_tensors(adapter), *(s.parameter for s in case.patch.deltas)]))
    for step, change in trained(tuning, names, objective(tuning), STEPS, case.tick):
        now = _measured(case, lying_on, change)
        yield Finding(
            attack,
            f"{what}, {step} {'step' if step == 1 else 'steps'}",
            case.edited.forget_accuracy,
            now.forget_accuracy,
            case.before.forget_accuracy,
            now.retain_accuracy,
        )


def trained(
    tuning: Tuning, names: Sequence[str], objective: Objective, wanted: Sequence[int], tick: Callable[[], None]
) -> Iterator[tuple[int, Patch]]:
    """Adam on these parameters; (steps done, change so far) after each of the wanted numbers of steps."""
    deltas = {name: torch.zeros_like(w) for name, w in tuning.weights(names).items()}
    optimizer = torch.optim.Adam(deltas.values(), lr=RATE)
    for step in range(1, max(wanted) + 1):
        tick()
        grads = tuning.gradient(names, objective(step), _patch(deltas))
        for name, delta in deltas.items():
            delta.grad = grads[name].float()
        optimizer.step()
        if step in wanted:
            yield step, _patch({name: delta.detach().clone() for name, delta in deltas.items()})


def _measured(case: Case, lying_on: Bench, change: Patch):
    evaluate(case.adapter, lying_on, Patch(), "test")
    return evaluate(case.adapter, lying_on, change, "test")


def _patch(deltas: dict[str, Tensor]) -> Patch:
    return Patch({Slice(name): delta for name, delta in deltas.items()})
