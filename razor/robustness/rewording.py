"""Other words for the question: paraphrases, letters out of order, capitals, and yes or no to the name. Models that
answer alone; the best wording of each kind counts.

An edit is made on the usual question, on it in some other words, and of people on the usual check as well; never on
`Questions.paraphrases` and `Questions.checks`, nor on anything misspelt. A yes to the name counts where the same
picture gets none to the name of another class: who says yes to every name tells nothing.
"""

from collections.abc import Callable, Iterator, Sequence

from razor import metrics
from razor.answers import affirms
from razor.examples import evenly
from razor.patches import Patch
from razor.robustness.case import Case, Finding
from razor.robustness.wording import typos
from razor.step import edited

MISSPELT = 3  # misspellings tried of a question, and of a name


def reworded(case: Case) -> Iterator[Finding]:
    """Ask for the concept otherwise than it was asked for while it was forgotten."""
    asks, axis, concept = case.adapter.questions, case.task.axis, case.task.concept
    usual = asks.ask(axis)
    groups = {
        "paraphrases": (asks.paraphrases(axis), _named),
        "typos": (_misspelt(usual), _named),
        "capitals": ((usual.upper(), usual.lower()), _named),
        "yes or no": ((asks.check(axis, concept), *asks.checks(axis, concept)), _affirmed),
        "yes or no, misspelt": ([asks.check(axis, name) for name in _misspelt(concept)], _affirmed),
    }
    for setting, (questions, given) in groups.items():
        if questions:
            (attacked, asked), (control, _) = case.both(_best(case, setting, questions, given))
            note = f"Most is found by {asked!r}."
            yield Finding("reworded", setting, case.edited.forget_accuracy, attacked, control, note=note)


def _misspelt(text: str) -> list[str]:
    found = typos(text)
    return [found[i] for i in evenly(len(found), MISSPELT)]


def _best(
    case: Case, setting: str, questions: Sequence[str], given: Callable[[Case, Sequence[str]], list[list[bool]]]
) -> Callable[[Patch], tuple[metrics.Measure, str]]:
    """patch -> the most of the test split's forget pictures that any of the questions gets the concept of, and which.

    The unedited model is asked once for all edits of a task.
    """

    def best(patch: Patch) -> tuple[metrics.Measure, str]:
        known = {} if patch.deltas else case.bench.unedited
        if (key := ("reworded", setting)) not in known:
            with edited(case.adapter, case.bench, patch):
                shares = map(metrics.share, given(case, questions))
            known[key] = max(zip(shares, questions, strict=True), key=lambda entry: entry[0].value)
        return known[key]

    return best


def _named(case: Case, questions: Sequence[str]) -> list[list[bool]]:
    """By question, of each forget picture, whether the answer holds the concept's name."""
    return [[case.bench.names_it(text) for text in _said(case, question)] for question in questions]


def _affirmed(case: Case, questions: Sequence[str]) -> list[list[bool]]:
    """The same of a yes, where the answer is not yes to another class in the concept's place."""
    classes = next(axis.classes for axis in case.task.axes if axis.name == case.task.axis)
    other = next(name for name in (*case.bench.neighbours, *classes) if name != case.task.concept)
    anyway = _said(case, case.adapter.questions.check(case.task.axis, other))
    return [
        [affirms(yes) and not affirms(too) for yes, too in zip(_said(case, question), anyway, strict=True)]
        for question in questions
    ]


def _said(case: Case, question: str) -> list[str]:
    """Answers about every forget picture of the model as it is now.

    Raises:
        Stopped: that was asked for.
    """
    case.tick()
    answers = case.bench.ask(question, case.stop)
    case.tick()
    return answers
