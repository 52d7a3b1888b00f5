"""What the method needs from a model family. The core is written against these two protocols alone."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

from PIL import Image
from torch import Tensor, nn

from razor.errors import InputError
from razor.examples import Task
from razor.metrics import Evaluation
from razor.patches import Patch
from razor.units import Unit

GLANCE = "glance"  # a part of the search split, see `glimpse`

T = TypeVar("T")

# The three losses of one step, in the sign convention of losses.py; each call runs the model.
Terms = Mapping[str, Callable[[], Tensor]]  # "forget" -> A_f, "retain" -> R, "keep" -> R + lambda_m * M


class Bench(Protocol):
    """One task on one model: pictures and texts already encoded for it, and the frozen model's answers."""

    task: Task
    batch: int  # retain examples of an inner step
    neighbours: Sequence[str]  # classes on the target's axis most likely to suffer
    beneath: Patch  # edits the model already carries when this task starts, such as earlier concepts' patches
    slow_towers: Sequence[str]  # an edit of these takes long to evaluate, so that a first look is worth its time
    read_by: str  # who answers on the test split, as in "read by ..."
    recalls: str  # what `recall` tells of a picture of {}, in words
    says: tuple[str, str]  # how a round's sentence begins that names its forget and its retain accuracy
    aim: float  # forget accuracy to reach on the search split where the settings leave it open
    retain_weight: float  # w_r of the fused step where the settings leave it open, see step.py
    spared: int  # neighbours the search may lose whatever the budget, see step.Goal
    mends: bool  # an edit is mended however little it seems to cost, see step.Goal
    forget_loss: str  # A_f where the family has a choice, else ""; see `ascended`
    measure: float  # what remains of the concept is counted by it; numbers counted by different ones do not compare
    unedited: dict[Hashable, Any]  # what else was found out about the unedited model, for all who share the bench

    def another(self) -> "Bench":
        """A bench for somebody else on the same task, as this one was when it was new.

        Both share what is known of the unedited model, also what is found out later.
        """

    def scoring_terms(self, draw: int = 0) -> Terms:
        """A_f over all forget gradient examples and R over the retain ones: what phi is computed from.

        Any `draw` but 0 takes as many examples with replacement instead, the same ones for the same number.
        """

    def step_terms(self, step: int, edited: Sequence[str]) -> Terms:
        """The losses of one inner step, on a batch drawn from the gradient split by the step's number."""

    def evaluate(
        self,
        split: str,
        edited: Sequence[str],
        first: Mapping[str, int] | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> Evaluation:
        """Metrics of the model as it is now; towers not named in `edited` are known to be as they were.

        Args:
            split: "search", GLANCE or "test".
            first: tower -> number of its first edited block, where known; the blocks before it need not run again.
            keys: tower -> name of the edit made to it, where known; equal names stand for equal edits.
        """

    def knows(self, base: Evaluation) -> bool:
        """Whether the unedited model does better than guessing, so that there is something to forget.

        Args:
            base: its evaluation on the search split.
        """

    def confirm(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Whether closer inspection bears out that the target is met; called with the model edited.

        Where it does not, `measure` changes: what counts as forgotten is stricter from now on.

        Raises:
            Stopped: `stop` said so before there was an answer.
        """

    def relent(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Whether closer inspection finds nothing of the concept where the search metrics still count it; called with
        the model edited.

        `measure` then changes: as much as is left now may be left from now on.

        Raises:
            Stopped: `stop` said so before there was an answer.
        """

    def recall(self, split: str) -> Tensor:
        """How well the model as it is now still knows each forget picture of a split, (n,); many are cut to some."""

    def similarity(self, pixels: Tensor) -> Tensor:
        """How close the model now finds the concept to each picture, (n,) with a graph; pixels as it reads them."""

    def concept_score(self, rows: Sequence[int]) -> Tensor:
        """Mean similarity of the concept and these forget pictures of the search split, a scalar with a graph."""

    def picture_embeddings(
        self, side: str, split: str, edited: Sequence[str], first: Mapping[str, int] | None = None
    ) -> Tensor:
        """Unit vectors (n, d) of the "forget" or "retain" pictures of a split, arguments as in `evaluate`."""

    def class_embeddings(self, edited: Sequence[str], first: Mapping[str, int] | None = None) -> list[Tensor]:
        """Unit vectors (c, d) of the classes of each axis of the task, arguments as in `evaluate`."""


def glimpse(search: Sequence[T]) -> Sequence[T]:
    """What GLANCE takes of the search split: every third picture."""
    return search[::3]


def watched(
    bench: Bench,
    on_picture: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> AbstractContextManager[None]:
    """Where measuring takes drawing, tell of the pictures and let a person stop, for the length of the block.

    Args:
        on_picture, stop: see DiffusionBench.watch.
    """
    watch = getattr(bench, "watch", None)
    return watch(on_picture, stop) if watch else nullcontext()


class Adapter(Protocol):
    """A loaded model, read-only for everything but Patch.applied."""

    family: str
    name: str  # as the person named it
    model: nn.Module
    towers: Mapping[str, str]  # tower -> regular expression of its parameters' paths, see units.tower_of
    growing: Sequence[str]  # towers growth edits by itself unless the settings say otherwise
    forget_losses: Mapping[str, Sequence[str]]  # A_f to choose from, the usual one first -> `growing` with it; else {}
    batch: int  # retain examples per inner step unless the settings say otherwise
    embeds: bool  # pictures and texts have embeddings in one space, so that they can be compared and placed
    reruns: bool  # so large a pass that memory counts for more than time: what it needs is made again, not kept

    def units(self, kinds: Sequence[str], towers: Sequence[str]) -> list[Unit]:
        """Everything that can be edited."""

    def tower_of(self, parameter: str) -> str:
        """Which tower a parameter belongs to."""

    def fingerprint(self) -> str:
        """A hash of all weights: equal for equal models."""

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """Pictures as the model reads them, (n, 3, height, width)."""

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (n, d)."""

    def bench(
        self, task: Task, *, batch: int | None, mismatch_weight: float, seed: int, beneath: Patch = Patch()
    ) -> Bench:
        """The task, made ready to run on this model as it is with `beneath` applied."""


def ascended(adapter: Adapter, forget_loss: str | None) -> str:
    """The loss that is ascended on forget pictures: the one chosen, else the family's own; "" where it has only one.

    Raises:
        InputError: one is chosen where there is no choice.
    """
    if forget_loss is not None and forget_loss not in adapter.forget_losses:
        raise InputError(
            f"{adapter.name} has only one forget loss, and {forget_loss!r} is one of models that answer questions; "
            "leave forget_loss out."
        )
    return forget_loss or next(iter(adapter.forget_losses), "")


def growing(adapter: Adapter, forget_loss: str | None) -> Sequence[str]:
    """Towers growth edits by itself with this forget loss, unless the settings say otherwise."""
    return adapter.forget_losses.get(forget_loss, adapter.growing)
