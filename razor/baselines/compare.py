"""Run one method on one task as fairly as every other: one rule, one budget, the same splits, one form of result."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from razor import jsonio
from razor.adapters.base import Adapter, Bench, watched
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
    after: Evaluation | None  # None where every setting diverged, or it was stopped before this was measured
    trials: tuple[Trial, ...]  # every setting tried, on the search split
    chosen: Trial | None
    reached: bool  # the chosen one met the target on the search split
    known: bool  # the unedited model did better than guessing
    read_by: str  # who answers on the test split
    passes: int  # forward-and-backward passes of all settings together
    seconds: Mapping[str, float]  # encode, tuning, report, total
    note: str = ""  # what else there is to say
    stopped: bool = False  # a person ended it; the best of what was tried so far counts

    @property
    def diverged(self) -> bool:
        """No setting gave a model that answers."""
        return self.known and self.chosen is None and not self.stopped

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
            "stopped": self.stopped,
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
) -> Result:
    """Tune the method on the search split, then measure its choice on the test split. Leaves the model as found.

    Where `stop` ends it, the best of what was tried so far counts. That is measured on the test split only where it
    takes neither drawing nor writing.

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

    Raises:
        InputError: no such method, or a task that cannot be used.
        Stopped: `stop` ended it before anything was tried.
    """
    method, seconds = find(name, adapter.family), dict.fromkeys(("encode", "tuning", "report"), 0.0)
    with _timed(seconds, "encode"):
        bench = adapter.bench(task, batch=batch, seed=seed, beneath=beneath)
        base = evaluate(adapter, bench, Patch(), "search")
    with _timed(seconds, "report"), watched(bench, stop=stop):
        before = evaluate(adapter, bench, Patch(), "test")
    target = bench.aim if forget_target is None else forget_target
    tuning = Tuning(adapter, bench, budget, target, bench.batch, seed, stop, progress, on_trial)
    with edited(adapter, bench, Patch()):
        known = bench.knows(base)
    if not known:
        note = f"The unedited model does not know {task.concept!r}."
        return Result(name, Patch(), before, before, (), None, False, False, bench.read_by, 0, _summed(seconds), note)
    with _timed(seconds, "tuning"):
        (chosen, patch, reached), note, stopped = _tuned(method, tuning)
    with _timed(seconds, "report"):
        after = _measured(adapter, bench, patch, stop) if chosen and (adapter.embeds or not stopped) else None
    if chosen:
        made = {"baseline": {"name": name, "setting": dict(chosen.setting)}, "concept": task.concept, "seed": seed}
        patch = patch.bound_to(adapter.model).with_recipe(made)
    if stopped := stopped or (chosen is not None and after is None):
        note = _so_far(tuning.trials, after)
    progress(1.0)
    return Result(
        name, patch, before, after, tuple(tuning.trials), chosen, reached, True, bench.read_by,
        tuning.passes, _summed(seconds), note, stopped,
    )  # fmt: skip


def _tuned(method: Method, tuning: Tuning) -> tuple[tuple[Trial | None, Patch, bool], str, bool]:
    """What `Tuning.choose` or, stopped, `Tuning.best` gives of the method's settings; a note; whether it was stopped.

    Raises:
        Stopped: a person ended it before anything was tried.
    """
    try:
        note = _tried(method, tuning)
        return tuning.choose(), note, False
    except Stopped:
        if not tuning.trials:
            raise
        return tuning.best(), "", True


def _tried(method: Method, tuning: Tuning) -> str:
    """Try the method's settings; returns what ended that early, "" for nothing."""
    try:
        method(tuning)
    except OutOfTime as error:
        return str(error)
    except Diverged as error:  # before there was a setting to measure
        tuning.failed({}, error)
    return ""


def _measured(adapter: Adapter, bench: Bench, patch: Patch, stop: Callable[[], bool]) -> Evaluation | None:
    """The edit on the test split; None where that takes drawing and a person ended it."""
    try:
        with watched(bench, stop=stop):
            return evaluate(adapter, bench, patch, "test")
    except Stopped:
        return None


def _so_far(trials: Sequence[Trial], after: Evaluation | None) -> str:
    """What a method that was stopped came to."""
    many = f"{len(trials)} setting{'' if len(trials) == 1 else 's'}"
    if all(trial.evaluation is None for trial in trials):
        return f"Stopped; {many} so far diverged."
    return f"Stopped; best of {many} so far{'' if after else ', on the search split alone'}."


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Add what the block takes to the phase."""
    started = time.monotonic()
    try:
        yield
    finally:
        seconds[phase] += time.monotonic() - started


def _summed(seconds: Mapping[str, float]) -> dict[str, float]:
    return {**seconds, "total": sum(seconds.values())}
