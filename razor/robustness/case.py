"""What every attack is given, and what it reports."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from razor.adapters.base import Adapter, Bench, watched
from razor.errors import Stopped
from razor.examples import Task
from razor.gold import never_saw
from razor.metrics import Evaluation, Measure
from razor.patches import Patch
from razor.sharing import bench_for
from razor.step import evaluate

T = TypeVar("T")
FEW = 32  # retain pictures of the test split where only the concept is looked for


@dataclass(frozen=True)
class Finding:
    """How much of the concept an attack got back, in shares of forget pictures of the test split."""

    attack: str  # key of ATTACKS
    setting: str  # in words: "5 pictures, 20 steps"
    edited: Measure  # still there before the attack
    attacked: Measure  # after it
    control: Measure | None  # what the same attack finds in the unedited model
    retain: Measure | None = None  # right answers of the attacked model about everything else
    note: str = ""
    steps: int | None = None  # of training, where the attack is one; `setting` without them names the curve
    gold: Measure | None = None  # what the same attack gets from a model that never saw the concept, where there is one

    @property
    def curve(self) -> str:
        """What findings of one training have in common: "5 pictures"."""
        return self.setting.rpartition(", ")[0] if self.steps else self.setting

    @property
    def recovery(self) -> float | None:
        """(attacked - edited) / (control - edited): 0 nothing came back, 1 all of it; None where nothing was lost."""
        if self.control is None or self.control.value <= self.edited.value:
            return None
        return (self.attacked.value - self.edited.value) / (self.control.value - self.edited.value)

    def to_json(self) -> dict:
        """Plain values, as stored in run.json."""
        plain = {key: value.to_json() if isinstance(value, Measure) else value for key, value in vars(self).items()}
        return plain | {"recovery": None if self.recovery is None else round(self.recovery, 4)}


def for_the_concept(task: Task) -> Task:
    """The task where only the concept is looked for: few retain pictures stand in the test split, and cost no time."""
    return replace(task, retain=replace(task.retain, test=task.retain.test[:FEW]))


class Case:
    """One edit of one model, and its answers on the test split before any attack.

    Args:
        patch: the edit under attack.
        bench: the task on the unedited model, where there is one already.
        stop: asked between steps; True raises Stopped.

    Attributes:
        gold: the same task on a model that never saw the concept, to attack alike; see `beside_gold`.
        known: attack -> what it found, of a `gold`.
    """

    def __init__(
        self,
        adapter: Adapter,
        task: Task,
        patch: Patch,
        *,
        bench: Bench | None = None,
        seed: int = 0,
        stop: Callable[[], bool] = lambda: False,
    ):
        self.adapter, self.task, self.patch, self.seed, self.stop = adapter, task, patch, seed, stop
        self._bench = bench
        self.gold: Case | None = None
        self.known: dict[str, list[Finding]] = {}

    @cached_property
    def bench(self) -> Bench:
        """The task on the unedited model."""
        return self._bench or bench_for(self.adapter, self.task, seed=self.seed)

    @cached_property
    def before(self) -> Evaluation:
        """The unedited model."""
        return self.evaluated(self.bench, Patch())

    @cached_property
    def edited(self) -> Evaluation:
        """The edited model."""
        self.before  # noqa: B018  a bench records the unedited answers first
        return self.evaluated(self.bench, self.patch)

    def measured(self, patch: Patch) -> Evaluation:
        """The unedited model with this patch, on the test split."""
        self.before  # noqa: B018
        return self.evaluated(self.bench, patch)

    def evaluated(self, bench: Bench, patch: Patch) -> Evaluation:
        """A patch on a bench of the model, on the test split; where that takes drawing, it may be stopped meanwhile."""
        with watched(bench, stop=self.stop):
            return evaluate(self.adapter, bench, patch, "test")

    def both(self, attacked: Callable[[Patch], T]) -> tuple[T, T]:
        """What an attack finds in the edited and in the unedited model."""
        found = attacked(self.patch)
        return found, attacked(Patch()) if self.patch.deltas else found

    def beside_gold(self) -> "Case":
        """The same, attacking the model trained without the concept alike, where one is bundled."""
        if gold := never_saw(self.adapter, self.task):
            self.gold = Case(gold, for_the_concept(self.task), Patch(), seed=self.seed, stop=self.stop)
        return self

    def tick(self) -> None:
        """End here where that was asked for."""
        if self.stop():
            raise Stopped("Stopped before every attack was done; what was found so far stays.")
