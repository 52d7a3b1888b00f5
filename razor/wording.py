"""What the page calls the same numbers for one family of models and another, and what they were counted on.

A CLIP answers about pictures, on every split. A model that draws is searched by its denoiser's predictions at points,
which are no pictures; its test numbers are drawn pictures where a judge can read them, and points where none can. A
vision-language model is searched by how likely the name of each class is as its answer; its test numbers are read from
answers it wrote.
"""

from dataclasses import dataclass

from razor.adapters.base import Adapter
from razor.examples import Task
from razor.growth import Growth
from razor.judges import Judge
from razor.pictures import judge_for


@dataclass(frozen=True)
class Wording:
    """Words for what the search split measures."""

    seen: str  # "cat is ... 98 % of"
    search: str  # what the search split counts
    forget: str  # tile over forget_accuracy
    retain: str
    knows: str  # "the unedited model ... cat in 98 % of"
    answers: str  # what retain_accuracy is a share of: "... lose 1.2 points"
    attributed: str  # what attribution follows to the heads: "carries most of ..."
    note: str  # one sentence on what the search split's numbers are; "" where they speak for themselves


_WORDING = {
    "clip": Wording(
        "recognised in", "search pictures", "Forget accuracy", "Retain accuracy", "recognises", "retained answers",
        "the concept's similarity", "",
    ),
    "vlm": Wording(
        "the likeliest answer about", "search pictures", "Forget accuracy", "Retain accuracy", "names",
        "retained answers", "how likely the concept's name is",
        "Counted by the class whose name is the likeliest answer, and of people by yes or no to the name as well; test "
        "numbers are read from written answers.",
    ),
    "diffusion": Wording(
        "still predicted at",
        "search points",
        "Concept still predicted",
        "Retained prompts kept",
        "draws",
        "retained prompts",
        "what is still predicted of the concept",
        "Counted on the denoiser's predictions at search points, which stand in for pictures. The unedited model is at "
        "100 % by definition.",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Tested:
    """Words for what the test split measures."""

    what: str  # "n = 24 ..."
    seen: str  # "cat ... 98 % of"
    note: str  # one sentence on what these are; "" where they speak for themselves


def wording(growth: Growth) -> Wording:
    """The words for this growth's family."""
    return _WORDING.get(growth.adapter.family, _WORDING["clip"])


def writes(growth: Growth) -> bool:
    """It is a model that answers in words, question by question."""
    return growth.adapter.family == "vlm"


def draws(growth: Growth) -> bool:
    """It is a model that draws, so that measuring on pictures takes its time."""
    return growth.adapter.family == "diffusion"


def judge_of(growth: Growth) -> Judge | None:
    """Who reads the drawn pictures of this growth; None where nobody can, and for models that draw none."""
    return growth.bench.judge if draws(growth) else None


def read_by(judge: Judge) -> str:
    """How a judge's word is given: a CLIP in its place guesses."""
    return f"{'guessed' if judge.guesses else 'read'} by {judge.name}"


def proxy_note(judge: Judge) -> str:
    """What to think of a judge that guesses."""
    return (
        f"{judge.name} guesses what each picture shows: it names a class whatever there is to see, so its word is only "
        "a proxy."
    )


def tested(adapter: Adapter, task: Task) -> Tested:
    """The words for numbers of the test split."""
    if adapter.family == "vlm":
        return Tested(
            "test pictures", "named in", "Read from answers the model wrote, names looked for, and aliases where given."
        )
    if adapter.family != "diffusion":
        return Tested("test pictures", "recognised in", "")
    if (judge := judge_for(adapter, task)) is None:
        note = "No judge can read pictures of this task, so these are predictions at points of the test split."
        return Tested("test points", "still predicted at", note)
    more = "; it names a class whatever a picture shows, so this is only a proxy" if judge.guesses else ""
    note = f"Counted on pictures drawn from test prompts, {read_by(judge)}{more}."
    return Tested("drawn pictures", "still drawn in", note)


def unedited(growth: Growth) -> str:
    """What is known of the concept in the unedited model, once it was asked for it."""
    concept, share = growth.task.concept, growth.base.forget_accuracy.value
    if not draws(growth):
        return f"the unedited model {wording(growth).knows} {concept} in {share:.0%} of the {wording(growth).search}"
    if (judge := judge_of(growth)) is None:
        return (
            f"what the unedited model predicts for {concept} counts as 100 % from here on, by definition; whether it "
            "draws it nobody here can say"
        )
    return (
        f"the unedited model draws {concept} more often than by chance, {read_by(judge)}; what it predicts for it "
        "counts as 100 % from here on"
    )


def capital(sentence: str) -> str:
    """The sentence with its first letter upper case and the rest left alone."""
    return sentence[:1].upper() + sentence[1:]
