"""Training on top of the edit: on a few forget pictures, to bring the concept back, or on others, where it may come."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from razor.baselines.denoising import Prompted, towards
from razor.baselines.training import Objective, descend, trained_tensors
from razor.baselines.tuning import Budget, Tuning
from razor.examples import Task
from razor.metrics import Evaluation, Measure
from razor.patches import Patch
from razor.robustness.case import Case, Finding, for_the_concept

SHOTS = (1, 5, 10)  # forget pictures of the gradient split, which the test split shares none with
STEPS = (1, 5, 10, 20)  # after which the test split is measured
RATE = 1e-4  # of Adam


def relearn(case: Case) -> Iterator[Finding]:
    """Fine-tune the edited model to know the concept again from 1, 5 and 10 pictures, as far as there are so many."""
    pictures = case.task.forget.gradient
    for shots in (number for number in SHOTS if number <= len(pictures)):
        task = replace(case.task, forget=replace(case.task.forget, gradient=pictures[:shots]))
        yield from _curve(case, "relearn", _named(shots, "picture"), task, _recall)


def too_few(task: Task) -> dict[str, str]:
    """Settings of `relearn` that there are too few pictures for, as gates name them -> why, as a sentence."""
    there = len(task.forget.gradient)
    why = f"Too few pictures to teach it from, {there}."
    return {_key(shots, steps): why for shots in SHOTS if shots > there for steps in STEPS}


def _key(shots: int, steps: int) -> str:
    return f"relearn/{_named(shots, 'picture')}, {_named(steps, 'step')}"


def _named(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


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
    """Forget accuracy after each of STEPS, with what the same training makes of the unedited model."""
    control = _control(case, attack, what, task, objective)
    for step, now in _trained(case, case.patch, task, objective, STEPS):
        yield Finding(
            attack,
            f"{what}, {_named(step, 'step')}",
            case.edited.forget_accuracy,
            now.forget_accuracy,
            control.get(step, now.forget_accuracy if not case.patch.deltas else None),
            now.retain_accuracy,
            steps=step,
        )


def _control(case: Case, attack: str, what: str, task: Task, objective: Callable) -> Mapping[int, Measure]:
    """The unedited model after training, by step: done once for all edits of a task.

    Where measuring takes drawing or writing, it is measured at the end alone.
    """
    if not case.patch.deltas:
        return {}
    steps = STEPS if case.adapter.family == "clip" else STEPS[-1:]
    known, key = case.bench.unedited, ("trained", attack, what, steps, RATE, case.seed)
    if key not in known:
        found = _trained(case, Patch(), for_the_concept(task), objective, steps)
        known[key] = {step: now.forget_accuracy for step, now in found}
    return known[key]


def _trained(
    case: Case, patch: Patch, task: Task, objective: Callable[[Tuning], Objective], steps: Sequence[int]
) -> Iterator[tuple[int, Evaluation]]:
    """The model with this patch on the test split, after each of these steps of training."""
    adapter = case.adapter
    lying_on = adapter.bench(task, seed=case.seed, beneath=case.bench.beneath + patch)
    case.evaluated(lying_on, Patch())  # a bench records the answers it starts from first
    tuning = Tuning(adapter, lying_on, Budget(), 0.0, batch=lying_on.batch, seed=case.seed, stop=case.stop)
    names = list(dict.fromkeys([*trained_tensors(adapter), *(s.parameter for s in patch.deltas)]))
    for step, change in descend(tuning, names, objective(tuning), max(steps), RATE):
        if step in steps:
            yield step, case.evaluated(lying_on, change())
