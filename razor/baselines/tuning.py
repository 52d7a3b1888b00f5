"""One rule, one budget and one account for every rival: settings are compared on the search split, and what they cost
is counted in passes.

A method tries its settings and hands each edit to `Tuning.check`. Of the settings that meet the forget target the one
that retains most is chosen; where none does, the one that forgets most. The same rule holds for RAZOR's ablations.

On a pipeline the search split counts predictions, and asks whether they are those of the anchor. A method that leads
elsewhere, as ESD does, may forget and still not meet that. So where no setting does, a judge looks at pictures drawn
with the kept edits, as it does for RAZOR, and those in which it sees nothing of the concept meet the target.
"""

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from razor.adapters.base import Adapter, Bench
from razor.errors import InputError, ModelError, RazorError, Stopped, UnusableGradientError
from razor.gradients import trainable
from razor.metrics import Evaluation
from razor.patches import Patch
from razor.step import edited, evaluate

KEPT = 3  # best edits kept, so that one a closer look turns down has others behind it
DRAWN = 12  # edits short of the target that are kept for a judge to look at pictures of, where there is one
MOST_STEPS = 100_000


class OutOfTime(RazorError):
    """The budget's seconds are used up; what was tried so far counts."""


class Diverged(RazorError):
    """A loss, a gradient, weights or answers that are not finite."""


@dataclass(frozen=True)
class Budget:
    """What each setting of a method may cost."""

    steps: int = 48  # gradient steps of a setting that is trained
    checks: int = 6  # times it is measured on the way, the end included
    seconds: float | None = None  # for all settings together; None: as long as they take

    def __post_init__(self):
        for name in ("steps", "checks"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_STEPS:
                raise InputError(f"{name} is {value!r}; it must be a whole number from 1 to {MOST_STEPS}.")
        if self.seconds is not None and not self.seconds > 0:
            raise InputError(f"seconds is {self.seconds!r}; it must be more than 0, or None for no limit.")

    @property
    def measured(self) -> frozenset[int]:
        """Steps after which a trained setting is measured: evenly spread, the last one always."""
        return frozenset(max(1, round(self.steps * i / self.checks)) for i in range(1, self.checks + 1))


@dataclass(frozen=True)
class Trial:
    """One setting that was tried."""

    setting: Mapping[str, object]
    evaluation: Evaluation | None  # on the search split; None where it diverged
    passes: int  # forward-and-backward passes it took, with those all settings share
    seconds: float  # the same in time, without measuring
    note: str = ""  # why it cannot be chosen

    def to_json(self) -> dict:
        """Plain values, as stored in run.json."""
        found = self.evaluation.to_json() if self.evaluation else None
        return {**vars(self), "setting": dict(self.setting), "evaluation": found, "seconds": round(self.seconds, 3)}


def meets(now: Evaluation, target: float) -> bool:
    """The forget target is met."""
    return now.forget_accuracy.value <= target


def preference(now: Evaluation, target: float) -> tuple[bool, float, float]:
    """For min(): at the target, the more retained the better; short of it, the more forgotten."""
    forget, retain = now.forget_accuracy.value, now.retain_accuracy.value
    return (False, -retain, forget) if meets(now, target) else (True, forget, -retain)


def worth_drawing(short: Mapping[int, Evaluation]) -> list[int]:
    """Of edits short of the target, by number, those that no other beats: less of the concept and no less retained, or
    as little and more retained. At most DRAWN, those with least of it.
    """
    left = {number: now.forget_probability.value for number, now in short.items()}
    kept = {number: now.retain_accuracy.value for number, now in short.items()}

    def beaten(a: int) -> bool:
        return any(
            left[b] <= left[a] and kept[b] >= kept[a] and (left[b], kept[b]) != (left[a], kept[a]) for b in short
        )

    return sorted((number for number in short if not beaten(number)), key=left.get)[:DRAWN]


@dataclass
class Tuning:
    """One method at work on one task: what it may read, what it has tried, and the best edits so far."""

    adapter: Adapter
    bench: Bench
    budget: Budget
    target: float  # forget accuracy to reach on the search split
    batch: int = 16
    seed: int = 0
    stop: Callable[[], bool] = lambda: False
    progress: Callable[[float], None] = lambda share: None
    on_trial: Callable[[Trial], None] = lambda trial: None
    trials: list[Trial] = field(default_factory=list)
    passes: int = 0  # of all settings together

    def __post_init__(self):
        self._best: dict[int, Patch] = {}  # number of the trial -> its edit, best first
        self._started = time.monotonic()
        self._aside = 0.0  # seconds spent measuring, which count for no setting
        self._shared = self._mark = (0, 0.0)  # passes and seconds before the first setting; at this setting's start
        self._number, self._settings = 0, 1

    # What a method calls

    def settings(self, grid: Sequence[Mapping]) -> Iterator[dict]:
        """The settings one after the other; what was done before the first counts for each of them."""
        self._shared, self._settings = self._spent(), max(1, len(grid))
        for self._number, setting in enumerate(grid):
            self.tick(0.0)
            self._mark = self._spent()
            yield dict(setting)
        self._number = len(grid)
        self.tick(0.0)

    def tick(self, share: float) -> None:
        """Say how much of the present setting is done, 0..1, and end here where that was asked for.

        Raises:
            Stopped: a person ended it.
            OutOfTime: the budget's seconds are used up.
        """
        if self.stop():
            raise Stopped("Stopped before every setting was tried; nothing was changed.")
        if self._late():
            raise OutOfTime(f"The {self.budget.seconds:g} seconds were used up before every setting was tried.")
        self.progress(min(1.0, (self._number + share) / self._settings))

    def weights(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Copies of these parameters as the method finds them, with earlier edits, in float32."""
        with edited(self.adapter, self.bench, Patch()):
            parameters = dict(self.adapter.model.named_parameters())
            return {name: parameters[name].detach().float().clone() for name in names}

    def gradient(
        self, names: Sequence[str], loss: Callable[[], Tensor], patch: Patch | None = None
    ) -> dict[str, Tensor]:
        """The loss's gradient by these parameters at the patched weights; one pass.

        Raises:
            Diverged: the loss or a gradient is NaN or infinite.
        """
        self.passes += 1
        with edited(self.adapter, self.bench, patch or Patch()), trainable(self.adapter.model, names) as parameters:
            with torch.enable_grad():
                value = loss()
            if not value.isfinite():
                raise Diverged("the loss or its gradient is not finite")
            grads = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
            found = {
                name: torch.zeros_like(p) if grad is None else grad.detach()
                for (name, p), grad in zip(parameters.items(), grads, strict=True)
            }
        if not all(grad.isfinite().all() for grad in found.values()):
            raise Diverged("the loss or its gradient is not finite")
        return found

    def draw(self, n: int, size: int, key: str) -> Tensor:
        """Row numbers of a batch, all of them where there are no more than `size`; the same ones for the same key."""
        return torch.tensor(random.Random(f"{self.seed}/{key}").sample(range(n), min(n, size)))

    def check(self, setting: Mapping, patch: Patch) -> Evaluation | None:
        """Measure an edit on the search split and keep it where it is among the best.

        Returns:
            None where it diverged, which its trial says.

        Raises:
            Stopped, OutOfTime: see `tick`.
        """
        if self._late():
            raise OutOfTime(f"The {self.budget.seconds:g} seconds were used up before every setting was tried.")
        cost = self._cost()
        if not all(delta.isfinite().all() for delta in patch.deltas.values()):
            return self._note(setting, cost, "its weights are not finite")
        started = time.monotonic()
        try:
            now = evaluate(self.adapter, self.bench, patch, "search")
        except ModelError as error:
            return self._note(setting, cost, str(error))
        finally:
            self._aside += time.monotonic() - started
        if not all(math.isfinite(m.value) for m in (now.forget_accuracy, now.forget_probability, now.retain_accuracy)):
            return self._note(setting, cost, "its answers are not finite")
        self._record(Trial(dict(setting), now, *cost))
        self._keep(patch)
        return now

    def failed(self, setting: Mapping, error: RazorError) -> None:
        """Record a setting that diverged before there was an edit to measure."""
        self._note(setting, self._cost(), str(error))

    # What the run asks for

    def over(self) -> bool:
        """No further setting would be tried: a person stopped it, or time is up."""
        return self.stop() or self._late()

    def choose(self) -> tuple[Trial | None, Patch, bool]:
        """The setting the rule chooses, its edit, and whether it meets the target, also on closer inspection.

        Returns:
            (None, the empty patch, False) where every setting diverged.

        Raises:
            Stopped: a person ended it.
        """
        met = [number for number in self._best if self._meets(number)]
        short = [number for number in self._best if not self._meets(number)] if self._judged else []
        for number in (*met, *sorted(short, key=lambda n: -self.trials[n].evaluation.retain_accuracy.value)):
            try:
                gone = self._confirmed(self._best[number])
            except (ModelError, UnusableGradientError) as error:
                self._say(number, f"diverged: {error}")
                continue
            if gone and number in short:
                self._say(number, "pictures show nothing of the concept, though predictions lean to it")
            if gone:
                return self.trials[number], self._best[number], True
            self._say(number, "a closer look still finds the concept")
        left = [number for number in self._best if not self.trials[number].note.startswith("diverged")]
        if not left:
            return None, Patch(), False
        number = min(left, key=lambda n: self.trials[n].evaluation.forget_accuracy.value)
        return self.trials[number], self._best[number], False

    def best(self) -> tuple[Trial | None, Patch, bool]:
        """The same by the search metrics alone: nothing more is run."""
        if not self._best:
            return None, Patch(), False
        number = next(iter(self._best))
        return self.trials[number], self._best[number], self._meets(number)

    @property
    def _judged(self) -> bool:
        """Somebody looks at pictures, whatever the search metrics say."""
        return getattr(self.bench, "judge", None) is not None

    def _meets(self, number: int) -> bool:
        return meets(self.trials[number].evaluation, self.target)

    def _confirmed(self, patch: Patch) -> bool:
        """A closer look finds nothing of the concept; what counts as forgotten stays as it was."""
        measure = getattr(self.bench, "measure", None)
        try:
            with edited(self.adapter, self.bench, patch):
                return self.bench.confirm(self.stop)
        finally:
            self.bench.measure = measure

    def _keep(self, patch: Patch) -> None:
        """Take this edit, of the last trial, among the best, and let go of those it puts out of question."""
        found = {**self._best, len(self.trials) - 1: patch}
        order = sorted(found, key=lambda number: preference(self.trials[number].evaluation, self.target))
        short = {number: self.trials[number].evaluation for number in order if not self._meets(number)}
        wanted = {*order[:KEPT], *(worth_drawing(short) if self._judged else ())}
        self._best = {number: found[number] for number in order if number in wanted}

    def _say(self, number: int, note: str) -> None:
        self.trials[number] = replace(self.trials[number], note=note)

    def _spent(self) -> tuple[int, float]:
        return self.passes, time.monotonic() - self._started - self._aside

    def _cost(self) -> tuple[int, float]:
        (passes, seconds), (begun, at), (shared, before) = self._spent(), self._mark, self._shared
        return shared + passes - begun, before + seconds - at

    def _late(self) -> bool:
        return self.budget.seconds is not None and time.monotonic() - self._started > self.budget.seconds

    def _note(self, setting: Mapping, cost: tuple[int, float], why: str) -> None:
        self._record(Trial(dict(setting), None, *cost, f"diverged: {why}"))

    def _record(self, trial: Trial) -> None:
        self.trials.append(trial)
        self.on_trial(trial)
