"""Questions about pictures on both sides of an edit: which to ask, what is said, and how likely the name still is.

The groups a person needs to see side by side: what should be forgotten, asked outright, in other words and as yes or
no; its nearest neighbours, which must still be named; other things; and neutral questions about the very pictures whose
name is forgotten.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from PIL import Image

from razor.adapters.interview import BESIDE
from razor.adapters.vlm import VlmAdapter
from razor.answers import NAMED, Question, affirms, compare, denies, flags, normalised
from razor.errors import Stopped
from razor.examples import Example, Task, varied
from razor.minicanvas.dataset import AXES
from razor.patches import Patch, model_lock

# group -> (what it is called, what is to be seen in it)
GROUPS = {
    "target": ("Target", "asked outright; the name should be gone"),
    "paraphrase": ("Paraphrase", "the same in words no edit was made on"),
    "check": ("Yes or no", "the name is in the question; yes should be gone"),
    "neighbour": ("Nearest neighbours", "the first to suffer; must still be named"),
    "other": ("Others", "should answer as before"),
    "neutral": ("Neutral", "other questions about the pictures of what is forgotten"),
    "own": ("Your questions", "as you asked them"),
}
SUGGESTED = tuple(group for group in GROUPS if group != "own")
PER_GROUP = 4
LONGEST = 24  # tokens written of an answer, unless asked for more or a name takes more
TOGETHER = 256  # questions of a table whose pictures are held as the model reads them at the same time


@dataclass(frozen=True, eq=False)
class Ask:
    """One question about one picture, and what is known of it."""

    image: Image.Image
    text: str
    group: str = "own"
    right: tuple[str, ...] = ()  # answers that are right, as far as known
    truth: str = ""  # the class of the target's axis that the picture shows, where known
    source: str = ""


@dataclass(frozen=True, eq=False)
class Answered:
    """One question on both sides of an edit, the left first."""

    ask: Ask
    said: tuple[str, str]
    flags: tuple[tuple[str, ...], tuple[str, ...]]  # what is wrong with each, see answers.flags
    name: tuple[list[tuple[str, float]], list[tuple[str, float]]]  # log-probability of each token of the name

    @property
    def difference(self) -> list[tuple[str, str]]:
        """The answers word by word, see answers.compare."""
        return compare(*self.said)

    @property
    def likely(self) -> tuple[float, float]:
        """Log-probability of the whole name as the answer, nats."""
        return tuple(sum(value for _, value in side) for side in self.name)


def suggested(
    adapter: VlmAdapter,
    task: Task,
    groups: Sequence[str] = SUGGESTED,
    per_group: int = PER_GROUP,
    neighbours: Sequence[str] = (),
) -> list[Ask]:
    """Questions about test pictures, group by group; a group the task has nothing for is left out.

    Args:
        neighbours: classes nearest to the concept, where the task names none (Bench.neighbours).
    """
    ask, axis, nearest = adapter.questions, task.axis, task.neighbours or neighbours
    forget = [task.forget.test[i] for i in varied(task.forget.test, per_group)]
    own = [e for e in task.retain.test if axis in e.labels]
    near = [e for e in own if e.labels[axis] in nearest]
    other = [e for e in own if e.labels[axis] not in nearest]
    if not other:
        other = [e for e in task.retain.test if e.labels]
    name = ask.answer(axis, task.concept)
    plain = ask.ask(axis)

    def about(examples: Sequence[Example], group: str) -> list[Ask]:
        chosen = [examples[i] for i in varied(examples, per_group)]
        made = []
        for e in chosen:
            on = axis if axis in e.labels else next(iter(e.labels))
            right = (ask.answer(on, e.labels[on]),)
            made.append(Ask(e.image, ask.ask(on), group, right, e.labels.get(axis, ""), e.source))
        return made

    def of_target(texts: Sequence[str], group: str, right: tuple[str, ...]) -> list[Ask]:
        turns = zip(forget, islice(cycle(texts), len(forget)), strict=True) if texts else ()
        return [Ask(e.image, text, group, right, task.concept, e.source) for e, text in turns]

    made: Mapping[str, Callable[[], list[Ask]]] = {
        "target": lambda: of_target([plain], "target", (name,)),
        "paraphrase": lambda: of_target(ask.paraphrases(axis), "paraphrase", (name,)),
        "check": lambda: of_target([ask.check(axis, task.concept)], "check", ("yes",)),
        "neighbour": lambda: about(near, "neighbour"),
        "other": lambda: about(other, "other"),
        "neutral": lambda: _neutral(ask, forget, axis, task.concept),
    }
    return [asked for group in SUGGESTED if group in groups for asked in made[group]()]


def _neutral(questions, forget: Sequence[Example], axis: str, concept: str) -> list[Ask]:
    """A neutral question about each forget picture, another one each time."""
    found = []
    for turn, e in enumerate(forget):
        texts = questions.neutral(e.labels, axis)
        if texts:
            found.append(Ask(e.image, texts[turn % len(texts)], "neutral", (), concept, e.source))
    return found


def of_table(questions: Sequence[Question]) -> list[Ask]:
    """A person's own table of questions."""
    return [Ask(q.image, q.asked, "own", q.answers, "", q.source) for q in questions]


def check(adapter: VlmAdapter, task: Task, asked: Sequence[Ask]) -> None:
    """Look at every question before the first is answered.

    Raises:
        InputError: one cannot be asked, see VlmAdapter.prompts.
    """
    longest = _longest_of(adapter, task)
    for part in _parts(asked):
        adapter.prompts(*part, room=longest)


def answer_both(
    adapter: VlmAdapter,
    task: Task,
    asked: Sequence[Ask],
    edits: tuple[Patch, Patch],
    *,
    longest: int | None = None,
    known: dict | None = None,
    on_side: Callable[[int], None] = lambda side: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Answered]:
    """Every question on both sides.

    Args:
        edits: the whole edit of the left and of the right side.
        longest: tokens written of an answer at most; default what the longest name takes and some more.
        known: where what a side said is kept from one call to the next, by edit and question.
        on_side: called with 0 and 1 as each side begins.

    Raises:
        Stopped: `stop` said so before all were answered; the model is as it was.
        InputError: a question that cannot be asked, see VlmAdapter.prompts.
    """
    known = {} if known is None else known
    name = adapter.questions.answer(task.axis, task.concept)
    names, longest = _classes(task), longest or _longest_of(adapter, task)
    aliases = adapter.questions.aliases(task.axis, task.concept)
    sides = []
    for number, edit in enumerate(edits):
        on_side(number)
        sides.append(_answers(adapter, asked, edit, name, longest, known, stop))
    return [
        Answered(
            ask,
            (left[0], right[0]),
            tuple(_flags(ask, side[0], task.concept, names, aliases) for side in (left, right)),
            (left[1], right[1]),
        )
        for ask, left, right in zip(asked, *sides, strict=True)
    ]


def answer_table(
    adapter: VlmAdapter,
    questions: Sequence[Question],
    edits: tuple[Patch, Patch],
    *,
    concept: tuple[str, str] | None = None,
    others: Sequence[str] | None = None,
    on_part: Callable[[int, int], None] = lambda side, done: None,
) -> list[Answered]:
    """A table's questions on both sides; where both are the same edit they are asked once.

    Args:
        edits: see answer_both.
        concept: axis and class whose name is looked for in the answers, and how likely it is; None for no name.
        others: classes that are another name, where not right; default the bundled ones beside a bundled concept.
        on_part: called with 0 or 1 and how many questions that side has answered.

    Raises:
        InputError: a question that cannot be asked, see VlmAdapter.prompts, or a class the model has no name for.
    """
    asked, looked_for = of_table(questions), concept[1] if concept else ""
    if others is None:
        bundled = AXES.get(concept[0], ()) if concept else ()
        others = bundled if looked_for in bundled else ()
    name = adapter.questions.answer(*concept) if concept else ""
    aliases = adapter.questions.aliases(*concept) if concept else ()
    longest = _longest(adapter, [name] if name else [])
    told = _parts(asked)
    for part in told:  # before the first answer, which may be hours before the last
        adapter.prompts(*part, room=longest)
    sides: list[list[tuple]] = []
    for edit in edits[: len({edit.key() for edit in edits})]:
        with model_lock(adapter.model), edit.applied(adapter.model):
            found = []
            for part in told:
                said = adapter.answer(*part, max_new_tokens=longest)
                likely = adapter.name_logprobs(*part, name) if name else [[] for _ in said]
                found += zip(said, likely, strict=True)
                on_part(len(sides), len(found))
            sides.append(found)
    return [
        Answered(
            ask,
            (left[0], right[0]),
            tuple(_flags(ask, said, looked_for, others, aliases) for said, _ in (left, right)),
            (left[1], right[1]),
        )
        for ask, left, right in zip(asked, sides[0], sides[-1], strict=True)
    ]


def _answers(adapter, asked: Sequence[Ask], edit: Patch, name: str, longest: int, known: dict, stop) -> list[tuple]:
    """(what is said, log-probability of each token of the name) for each question under one edit."""
    places = [(edit.key(), longest, name, ask.text, ask.image.tobytes()) for ask in asked]
    fresh = [i for i, place in enumerate(places) if place not in known]
    if fresh:
        pictures, texts = [asked[i].image for i in fresh], [asked[i].text for i in fresh]
        with model_lock(adapter.model), edit.applied(adapter.model):
            said = adapter.answer(pictures, texts, max_new_tokens=longest, stop=stop)
            if len(said) < len(fresh):
                raise Stopped("Stopped before all questions were answered; nothing was changed.")
            likely = adapter.name_logprobs(pictures, texts, name)
        known |= {places[i]: pair for i, pair in zip(fresh, zip(said, likely, strict=True), strict=True)}
    return [known[place] for place in places]


def _classes(task: Task) -> tuple[str, ...]:
    """The classes of the target's axis."""
    return next(axis for axis in task.axes if axis.name == task.axis).classes


def _parts(asked: Sequence[Ask]) -> list[tuple[list[Image.Image], list[str]]]:
    """The pictures and questions, as many at a time as are held together."""
    parts = [asked[start : start + TOGETHER] for start in range(0, len(asked), TOGETHER)]
    return [([ask.image for ask in part], [ask.text for ask in part]) for part in parts]


def _longest_of(adapter: VlmAdapter, task: Task) -> int:
    return _longest(adapter, [adapter.questions.answer(task.axis, name) for name in _classes(task)])


def _longest(adapter: VlmAdapter, names: Sequence[str]) -> int:
    """Tokens to write of an answer, in which each of these names has room."""
    return max([LONGEST, *(len(adapter.answer_ids(name)) + BESIDE for name in names)])


def _flags(ask: Ask, said: str, concept: str, names: Sequence[str], aliases: Sequence[str]) -> tuple[str, ...]:
    """What is wrong with an answer; of the yes-or-no question a yes counts as naming it, and a no never does."""
    others = [name for name in names if name != concept]
    found = flags(said, concept, others, aliases=aliases, truth=ask.truth, right=ask.right)
    if ask.group != "check" or not (affirms(said) or denies(said)):
        return found
    return (*((NAMED,) if affirms(said) else ()), *(flag for flag in found if flag != NAMED))


def verdict(answered: Answered) -> str:
    """What became of an answer, in two words or three."""
    left, now = (NAMED in flagged for flagged in answered.flags)
    if answered.ask.group in ("target", "paraphrase", "check"):
        return "still named" if now else "suppressed" if left else "not named before either"
    if now:
        return "names it"
    return "kept" if normalised(answered.said[0]) == normalised(answered.said[1]) else "changed"


def table(answered: Sequence[Answered], sides: tuple[str, str]) -> str:
    """The answers as csv: one row a question, both sides, their flags and, of a name, how likely it was."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head, named = ("group", "picture", "question", "right answer"), any(a.name[0] for a in answered)
    told = ("answer", "flags", *(("log p of the name",) if named else ()))
    writer.writerow([*head, *(f"{what} {side}" for what in told for side in sides)])
    for a in answered:
        flagged, likely = ("; ".join(found) for found in a.flags), (f"{value:.4f}" for value in a.likely if named)
        row = [a.ask.group, a.ask.source, a.ask.text, "|".join(a.ask.right), *a.said, *flagged, *likely]
        writer.writerow([_inert(str(cell)) for cell in row])
    return out.getvalue()


def _inert(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell[:1] in ("=", "+", "@", "\t", "\r") or (cell[:1] == "-" and not _number(cell)) else cell


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
