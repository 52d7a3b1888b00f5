"""One finished run: before and after on the test split, the rounds, and what they cost."""

import math
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from razor import jsonio, saved
from razor.adapters.base import Adapter, watched
from razor.config import RazorConfig
from razor.edit_set import EditSet
from razor.errors import InputError
from razor.examples import Task
from razor.growth import Growth
from razor.history import GrowthRound
from razor.metrics import Evaluation, Measure
from razor.patches import Patch
from razor.recipe import check_task, read, recipe
from razor.step import evaluate
from razor.writing import whole

FILES = ("patch.safetensors", "recipe.json", "run.json", saved.TABLE, saved.TENSORS)  # of a run's folder


@dataclass(frozen=True)
class Run:
    """The result of a run. `before` and `after` rest on test pictures nothing else has seen."""

    patch: Patch
    recipe: dict
    before: Evaluation
    after: Evaluation
    rounds: tuple[GrowthRound, ...]
    read_by: str  # who answers on the test split, see Bench.read_by
    known: bool  # the unedited model did better than guessing
    reached: bool  # the goal was met on the search split
    seconds: dict[str, float]  # by phase
    growth: Growth  # the rounds with everything known of them, to go on from

    def to_json(self, patch_bytes: int) -> dict:
        """What run.json holds."""
        return {
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "read_by": self.read_by,
            "reached_on_search_split": self.reached,
            "rounds": [_round_json(r) for r in self.rounds],
            "seconds": {phase: round(s, 3) for phase, s in self.seconds.items()},
            "parameters_edited": self.patch.parameters_edited,
            "patch_bytes": patch_bytes,
            "machine": f"{platform.system()} {platform.machine()}",
        }

    def save(self, folder: Path) -> dict:
        """Write patch.safetensors, recipe.json, run.json and the growth (see saved.py); returns what run.json holds.

        Raises:
            WriteError: they cannot be written; what was there before stays.
        """
        with whole(*(folder / name for name in FILES[:3])) as (patch, recipe, table):
            folder.mkdir(parents=True, exist_ok=True)
            size = self.patch.save(patch)
            recipe.write_text(jsonio.text(self.recipe), "utf-8")
            result = {**self.to_json(size), "growth": saved.save(self.growth, folder)}
            table.write_text(jsonio.text(result), "utf-8")
        return result


def unlearn(
    adapter: Adapter,
    task: Task,
    config: RazorConfig | None = None,
    *,
    planned: EditSet | None = None,
    on_round: Callable[[Growth, GrowthRound], None] = lambda growth, done: None,
    on_picture: Callable[[int, int], None] = lambda done, total: None,
) -> Run:
    """Score, grow to the target, and measure on the test split. Leaves the model as found.

    Warns when the unedited model only guesses; the patch is then empty.

    With an adapter as models.load gives it and a task as sources.resolve does:

    >>> found = unlearn(adapter, task, RazorConfig(rounds=2))
    >>> found.after.forget_accuracy.value < 0.1 < 0.9 < found.before.forget_accuracy.value
    True
    >>> axis = next(axis for axis in task.axes if axis.name == task.axis)
    >>> with found.patch.applied(adapter.model):
    ...     answers = adapter.classify([e.image for e in task.forget.test], axis)  # (pictures, classes)

    Args:
        planned: what to begin with, see Growth.plan.
        on_round: called after every round.
        on_picture: called with how many pictures are drawn to measure, and how many there will be, before the edit and
            again after it; only of a model that draws.

    Raises:
        RazorError: see the functions this calls.
    """
    growth = Growth(adapter, task, config or RazorConfig())
    if not growth.known:
        warnings.warn(f"The unedited model does not know {task.concept!r}: there is nothing to forget.", stacklevel=2)
    else:
        growth.plan(planned or EditSet())
        for done in growth.run():
            on_round(growth, done)
    return finish(growth, on_picture=on_picture)


def finish(growth: Growth, *, on_picture: Callable[[int, int], None] = lambda done, total: None) -> Run:
    """Measure a growth as it stands and bind its patch to the model and the recipe; `on_picture` as in `unlearn`."""
    started = time.monotonic()
    with watched(growth.bench, on_picture):
        before = evaluate(growth.adapter, growth.bench, Patch(), "test")
        after = evaluate(growth.adapter, growth.bench, growth.patch, "test")
    made = recipe(growth)
    patch = growth.patch.bound_to(growth.adapter.model).with_recipe(made)
    seconds = {**growth.seconds, "report": time.monotonic() - started}
    seconds["total"] = sum(seconds.values())
    rounds, read_by = tuple(growth.rounds), growth.bench.read_by
    return Run(patch, made, before, after, rounds, read_by, growth.known, growth.reached, seconds, growth)


def taken_up(adapter: Adapter, task: Task, folder: Path) -> tuple[Growth, Evaluation, Evaluation]:
    """A finished run's growth, and the test split before and after it as the run measured it.

    Args:
        adapter, task: the same as then.

    Raises:
        InputError: no run was saved there, or the model or the examples are others; says which.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no run's folder; give the one that unlearn wrote.")
    check_task(read(folder), task)
    growth = Growth(adapter, task, saved.config_of(folder))
    saved.restore(growth, folder)
    found = jsonio.read(folder / "run.json")
    try:
        if found["growth"] != saved.mark_of(folder):
            raise ValueError("it is of another run")
        growth.seconds |= {phase: float(found["seconds"][phase]) for phase in growth.seconds}
        return growth, _sound(Evaluation.from_json(found["before"])), _sound(Evaluation.from_json(found["after"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{folder / 'run.json'} cannot be read ({error}); run it again.") from error


def _sound(found: Evaluation) -> Evaluation:
    """The evaluation, if its numbers can be ones. Raises ValueError otherwise."""
    for name, measure in vars(found).items():
        if not isinstance(measure, Measure) or measure.n == 0:
            continue
        values = (measure.value, measure.low, measure.high)
        highest = math.inf if name in ("neutral_kl", "retrieval_stability") else 1
        if not all(isinstance(v, int | float) and 0 <= v <= highest for v in values) or not measure.n > 0:
            raise ValueError(f"its {name} is {measure}")
    if not isinstance(found.forget_accuracy, Measure) or not isinstance(found.retain_accuracy, Measure):
        raise ValueError("it lacks forget or retain accuracy")
    return found


def _round_json(done: GrowthRound) -> dict:
    return {
        "index": done.index,
        "by_hand": done.by_hand,
        "added": [
            {"unit": s.unit.name, "phi": s.phi, "pressure": s.pressure, "separation": s.separation, "rank": s.rank}
            for s in done.added
        ],
        "accepted": done.accepted,
        "reason": done.reason,
        "steps_tried": len(done.trials),
        "steps_taken": done.chosen,
        "search_before": done.before.to_json(),
        "search_after": done.after.to_json(),
        "seconds": round(done.seconds, 3),
    }
