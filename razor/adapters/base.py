"""What the method needs from a model family. The core is written against these two protocols alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from torch import Tensor, nn

from razor.examples import Task
from razor.metrics import Evaluation
from razor.units import Unit

# The three losses of one step, in the sign convention of losses.py; each call runs the model.
Terms = Mapping[str, Callable[[], Tensor]]  # "forget" -> A_f, "retain" -> R, "keep" -> R + lambda_m * M


class Bench(Protocol):
    """One task on one model: pictures and texts already encoded for it, and the frozen model's answers."""

    task: Task

    def scoring_terms(self) -> Terms:
        """A_f over all forget gradient examples and R over the retain ones: what phi is computed from."""

    def step_terms(self, step: int, edited: Sequence[str]) -> Terms:
        """The losses of one inner step, on a batch drawn from the gradient split by the step's number."""

    def evaluate(self, split: str, edited: Sequence[str]) -> Evaluation:
        """Metrics of the model as it is now; towers not named in `edited` are known to be as they were."""


class Adapter(Protocol):
    """A loaded model, read-only for everything but Patch.applied."""

    family: str
    name: str  # as the person named it
    model: nn.Module
    towers: Mapping[str, str]  # tower -> path prefix of its parameters

    def units(self, kinds: Sequence[str], towers: Sequence[str]) -> list[Unit]:
        """Everything that can be edited."""

    def tower_of(self, parameter: str) -> str:
        """Which tower a parameter belongs to."""

    def fingerprint(self) -> str:
        """A hash of all weights: equal for equal models."""

    def bench(self, task: Task, *, batch: int, mismatch_weight: float, seed: int) -> Bench:
        """The task, made ready to run on this model."""
