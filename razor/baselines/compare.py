"""Run one method on one task as fairly as every other: one rule, one budget, the same splits, one form of result."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from razor import jsonio
from razor.adapters.base import Adapter
from razor.baselines.ablations import ABLATIONS
from razor.baselines.ascent import ascent
from razor.baselines.ascent_retain import ascent_retain
from razor.baselines.cliperase import cliperase
from razor.baselines.concept_ablation import concept_ablation
from razor.baselines.diffquickfix import diffquickfix
from razor.baselines.esd import esd
from razor.baselines.fine_tune import fine_tune
from razor.baselines.head_gate import head_gate
from razor.baselines.null_space import null_space
from razor.baselines.salun import salun
from razor.baselines.salun_diffusion import salun_diffusion
from razor.baselines.slug import slug
from razor.baselines.ssd import ssd
from razor.baselines.tuning import Budget, Diverged, OutOfTime, Trial, Tuning
from razor.baselines.uce import uce
from razor.errors import InputError, Stopped
from razor.examples import Task
from razor.metrics import Evaluation
from razor.patches import Patch
from razor.step import edited, evaluate
from razor.writing import whole

USUAL = Budget()

Method = Callable[[Tuning], None]

_ANY: Mapping[str, Method] = {
    "fine-tune": fine_tune,
    "ascent": ascent,
    "ascent-retain": ascent_retain,
    "salun": salun,
    "ssd": ssd,
    "slug": slug,
    "head-gate": head_gate,
}
NAMES: Mapping[str, Mapping[str, Method]] = {
    "clip": {**_ANY, "cliperase": cliperase, "null-space": null_space},
    "vlm": _ANY,
    "diffusion": {
        "esd-x": esd,
        "uce": uce,
        "concept-ablation": concept_ablation,
        "salun": salun_diffusion,
        "diffquickfix": diffquickfix,
        "slug": slug,
    },
}


@dataclass(frozen=True)
class Result:
    """What a method came to. `before` and `after` rest on test pictures no setting was chosen by."""

    name: str
    patch: Patch
    before: Evaluation
    after: Evaluation | None  # None where every setting diverged
    trials: tuple[Trial, ...]  # every setting tried, on the search split
    chosen: Trial | None
    reached: bool  # the chosen one met the target on the search split
    known: bool  # the unedited model did better than guessing
    read_by: str  # who answers on the test split
    passes: int  # forward-and-backward passes of all settings together
    seconds: Mapping[str, float]  # encode, tuning, report, total
    note: str = ""  # what else there is to say

    @property
    def diverged(self) -> bool:
        """No setting gave a model that answers."""
        return self.known and self.chosen is None

    @property
    def parameters_edited(self) -> int:
        """Weights that changed."""
        return sum(int(delta.count_nonzero()) for delta in self.patch.deltas.values())

    def to_json(self, patch_bytes: int) -> dict:
        """What run.json holds."""
        return {
            "method": self.name,
            "before": self.before.to_json(),
            "after": self.after.to_json() if self.after else None,
            "read_by": self.read_by,
            "reached_on_search_split": self.reached,
            "diverged": self.diverged,
            "note": self.note,
            "chosen": self.chosen.to_json() if self.chosen else None,
            "grid": [trial.to_json() for trial in self.trials],
            "passes": self.passes,
            "seconds": {phase: round(s, 3) for phase, s in self.seconds.items()},
            "parameters_edited": self.parameters_edited,
            "patch_bytes": patch_bytes,
        }

    def save(self, folder: Path) -> dict:
        """Write patch.safetensors and run.json, both or none; returns what run.json holds.

        Raises:
            WriteError: they cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with whole(folder / "patch.safetensors", folder / "run.json") as (patch, table):
            result = self.to_json(self.patch.save(patch))
            table.write_text(jsonio.text(result), "utf-8")
        return result


def find(name: str, family: str) -> Method:
    """The method of this name for a model's family.

    Raises:
        InputError: there is none.
    """
    known = {**NAMES.get(family, {}), **ABLATIONS}
    if name not in known:
        raise InputError(f"There is no method {name!r} for a {family} model; choose one of {', '.join(known)}.")
    return known[name]


def run(
    name: str,
    adapter: Adapter,
    task: Task,
    budget: Budget = USUAL,
    *,
    forget_target: float | None = None,
    batch: int | None = None,
    seed: int = 0,
    beneath: Patch = Patch(),
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[float], None] = lambda share: None,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> Result | None:
    """Tune the method on the search split, then measure its choice on the test split. Leaves the model as found.

    With an adapter as models.load gives it and a task as sources.resolve does:

    >>> found = run("null-space", adapter, task)
    >>> len(found.trials) > 1 and found.chosen in found.trials
    True
    >>> found.after.forget_accuracy.value < found.before.forget_accuracy.value
    True

    Args:
        forget_target: forget accuracy to reach; None: as RAZOR aims, see Bench.aim.
        batch: examples of a gradient's batch; None: what suits the model.
        beneath: edits the model carries already.
        progress: called with the share of the settings that are done, 0..1.
        on_trial: called after every setting, or part of one, that was measured.

    Returns:
        None where `stop` ended it.

    Raises:
        InputError: no such method, or a task that cannot be used.
    """
    method, started = find(name, adapter.family), time.monotonic()
    bench = adapter.bench(task, batch=batch, seed=seed, beneath=beneath)
    target = bench.aim if forget_target is None else forget_target
    base = evaluate(adapter, bench, Patch(), "search")
    seconds, started = {"encode": time.monotonic() - started, "tuning": 0.0}, time.monotonic()
    before = evaluate(adapter, bench, Patch(), "test")
    seconds["report"] = time.monotonic() - started
    tuning = Tuning(adapter, bench, budget, target, bench.batch, seed, stop, progress, on_trial)
    with edited(adapter, bench, Patch()):
        known = bench.knows(base)
    if not known:
        note = f"The unedited model does not know {task.concept!r}."
        seconds["total"] = sum(seconds.values())
        return Result(name, Patch(), before, before, (), None, False, False, bench.read_by, 0, seconds, note)
    started, note = time.monotonic(), ""
    try:
        method(tuning)
    except Stopped:
        return None
    except OutOfTime as error:
        note = str(error)
    except Diverged as error:  # before there was a setting to measure
        tuning.failed({}, error)
    try:
        chosen, patch, reached = tuning.choose()
    except Stopped:
        return None
    seconds["tuning"], started = time.monotonic() - started, time.monotonic()
    after = evaluate(adapter, bench, patch, "test") if chosen else None
    if chosen:
        made = {"baseline": {"name": name, "setting": dict(chosen.setting)}, "concept": task.concept, "seed": seed}
        patch = patch.bound_to(adapter.model).with_recipe(made)
    seconds["report"] += time.monotonic() - started
    seconds["total"] = sum(seconds.values())
    progress(1.0)
    return Result(
        name, patch, before, after, tuple(tuning.trials), chosen, reached, True, bench.read_by,
        tuning.passes, seconds, note,
    )  # fmt: skip
