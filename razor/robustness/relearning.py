"""Training on top of the edit: on a few forget pictures, to bring the concept back, or on others, where it may come."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from razor.baselines.denoising import Prompted, towards
from razor.baselines.training import Objective, descend, trained_tensors
from razor.baselines.tuning import Budget, Tuning
from razor.examples import Task
from razor.patches import Patch
from razor.robustness.case import Case, Finding

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
    case.evaluated(lying_on, Patch())  # a bench records the answers it starts from first
    tuning = Tuning(adapter, lying_on, Budget(), 0.0, batch=lying_on.batch, seed=case.seed, stop=case.stop)
    names = list(dict.fromkeys([*trained_tensors(adapter), *(s.parameter for s in case.patch.deltas)]))
    for step, change in descend(tuning, names, objective(tuning), max(STEPS), RATE):
        if step not in STEPS:
            continue
        now = case.evaluated(lying_on, change())
        yield Finding(
            attack,
            f"{what}, {step} {'step' if step == 1 else 'steps'}",
            case.edited.forget_accuracy,
            now.forget_accuracy,
            case.before.forget_accuracy,
            now.retain_accuracy,
            steps=step,
        )
