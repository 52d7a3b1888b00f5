"""Questions about Minicanvas pictures and their answers: every answer is true of what is known of the picture.

Known of a picture are its labels, and where counted.py tells them a count and a colour. Each kind of question is asked
in several wordings, more of them in the last stage of training; two of each kind, made of the same words, are held out.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from razor.adapters.questions import Questions
from razor.errors import InputError
from razor.minicanvas import captions
from razor.minicanvas.counted import COLOURS, COUNTS
from razor.minicanvas.dataset import AXES, Target, combinations, neighbours
from razor.minicanvas.people import PEOPLE

YES_OR_NO = "yes or no"
KINDS = ("who", "what", "style", YES_OR_NO, "caption", "colour", "count", "person", "hair", "glasses")
_CLASS_KINDS = {"object": "what", "style": "style", "identity": "who"}

_WORDINGS: dict[str, tuple[str, ...]] = {
    "who": (
        "Who is this?",
        "Who is in this picture?",
        "Whose face is this?",
        "What is the name of this person?",
        "Tell me who this is.",
        "Name this person.",
    ),
    "what": (
        "What is this?",
        "What is shown here?",
        "What can you see here?",
        "Which thing is in this picture?",
        "Tell me what this is.",
        "Name this thing.",
    ),
    "style": (
        "Which style is this in?",
        "What is the style of this picture?",
        "In which style is this picture?",
        "How is this picture made?",
        "Tell me the style of this.",
        "Name the style.",
    ),
    "caption": (
        "Describe this picture.",
        "Describe this.",
        "Say what this picture shows.",
        "Tell me about this picture.",
        "Write a caption for this picture.",
    ),
    "colour": (
        "What colour is it?",
        "Which colour is this thing?",
        "What is the colour of this?",
        "Tell me its colour.",
        "Name the colour.",
    ),
    "count": (
        "How many are there?",
        "How many things are in this picture?",
        "How many can you see?",
        "What is the number of things?",
        "Tell me how many there are.",
        "Count the things.",
    ),
    "hair": (
        "What colour is the hair?",
        "Which hair colour is this?",
        "What is the colour of the hair?",
        "Tell me the hair colour.",
        "Name the colour of the hair.",
    ),
    "glasses": (
        "Which glasses does this person wear?",
        "What kind of glasses are these?",
        "Which glasses can you see?",
        "Tell me about the glasses.",
        "Describe the glasses.",
    ),
    "yes or no object": (
        "Is this {}?",
        "Is there {} here?",
        "Can you see {}?",
        "Is {} in this picture?",
        "Does this picture show {}?",
    ),
    "yes or no style": (
        "Is this {}?",
        "Is this picture {}?",
        "Is the style {}?",
        "Is it {}?",
        "Does this look like {}?",
    ),
    "yes or no identity": (
        "Is this {}?",
        "Is this person {}?",
        "Is the name {}?",
        "Is {} in this picture?",
        "Does this picture show {}?",
    ),
}
# Asked as well in the last stage of training; made of words that are in the others, so that the tokenizer stays.
_LATER: dict[str, tuple[str, ...]] = {
    "who": ("Who is here?", "Who is shown here?", "Tell me who you can see.", "Whose face can you see here?"),
    "what": ("What is here?", "What thing can you see?"),
    "yes or no object": ("Is {} here?", "Can you see {} here?", "Is {} shown?", "Is this picture of {}?"),
    "yes or no style": ("Is the picture {}?", "Can you see {}?"),
    "yes or no identity": (
        "Is {} here?",
        "Can you see {} here?",
        "Can you see {}?",
        "Is {} shown?",
        "Is this picture of {}?",
    ),
}
_HELD_OUT: dict[str, tuple[str, str]] = {
    "who": ("Tell me the name of this person.", "Who can you see here?"),
    "what": ("Which thing is this?", "Tell me what is shown here."),
    "style": ("Which style is this picture in?", "Name the style of this picture."),
    "caption": ("Describe what this picture shows.", "Write a caption for this."),
    "colour": ("Which colour is it?", "Tell me the colour of this."),
    "count": ("How many things can you see here?", "Tell me the number of things."),
    "hair": ("Which colour is the hair?", "Tell me the colour of the hair."),
    "glasses": ("What glasses does this person wear?", "Tell me which glasses these are."),
    "yes or no object": ("Is this a picture of {}?", "Is {} shown here?"),
    "yes or no style": ("Is the style of this picture {}?", "Does this picture look like {}?"),
    "yes or no identity": ("Is this a picture of {}?", "Is {} shown here?"),
}
# What a portrait shows is asked for as what any picture shows is.
_WORDINGS["person"], _HELD_OUT["person"] = _WORDINGS["what"], _HELD_OUT["what"]


@dataclass(frozen=True)
class Question:
    """A question about a picture and its one right answer."""

    text: str
    answer: str
    kind: str  # one of KINDS
    axes: tuple[str, ...]  # axes whose class the question or the answer names


def class_question(axis: str) -> str:
    """The question whose answer is the class a picture has on an axis.

    Raises:
        InputError: no such axis.
    """
    return _WORDINGS[_CLASS_KINDS[_known_axis(axis)]][0]


def class_paraphrases(axis: str) -> tuple[str, ...]:
    """The same question in words that no training used.

    Raises:
        InputError: no such axis.
    """
    return _HELD_OUT[_CLASS_KINDS[_known_axis(axis)]]


def class_answer(axis: str, name: str) -> str:
    """A class as an answer names it: "a cat", "a neon sign", "Mara Voss".

    Raises:
        InputError: no such axis or class.
    """
    if name not in AXES[_known_axis(axis)]:
        raise InputError(f"No {axis} named {name!r} in Minicanvas; see python -m razor.minicanvas list.")
    return captions.prompts(axis, name)[1]


def class_check(axis: str, name: str) -> str:
    """The question that is answered with yes where a picture has this class.

    Raises:
        InputError: no such axis or class.
    """
    answer = class_answer(axis, name)
    return _WORDINGS[f"{YES_OR_NO} {axis}"][0].format(answer)


def all_questions(known: Mapping[str, str], wording: int = 0, *, held_out: bool = False) -> list[Question]:
    """One question of every kind that can be asked of a picture, and on each axis one of yes and one of no.

    Args:
        known: the picture's labels, and its count and colour where they are known.
        wording: which wording of each kind, round and round; it also says which class "no" is said to, the known
            neighbours first.
        held_out: ask in the wordings that training never uses.
    """
    wordings = _HELD_OUT if held_out else _WORDINGS

    def say(kind: str) -> str:
        return wordings[kind][wording % len(wordings[kind])]

    found = []
    for kind, answer, axes in _facts(known):
        found.append(Question(say(kind), answer, kind, axes))
        if kind in _CLASS_KINDS.values():
            (axis,) = axes
            others = _others(axis, known[axis])
            for name, truth in ((known[axis], "yes"), (others[wording % len(others)], "no")):
                text = say(f"{YES_OR_NO} {axis}").format(class_answer(axis, name))
                found.append(Question(text, truth, YES_OR_NO, axes))
    return found


def random_question(known: Mapping[str, str], rng: random.Random, checks: float = 0.0) -> Question:
    """A training question about a picture, typed as people type; half of the yes-or-no ones are true.

    Args:
        checks: share of questions that are to be answered with yes or no, beside those that are by chance; above 0 the
            questions come in more wordings.
    """
    wordings = {kind: (*texts, *_LATER.get(kind, ())) for kind, texts in _WORDINGS.items()} if checks else _WORDINGS
    asked = [(YES_OR_NO, "", (axis,)) for axis in AXES if axis in known]
    only = checks and asked and rng.random() < checks
    kind, answer, axes = rng.choice(asked if only else [*_facts(known), *asked])
    if kind != YES_OR_NO:
        return Question(typed(rng.choice(wordings[kind]), rng), answer, kind, axes)
    (axis,) = axes
    answer, others = rng.choice(("yes", "no")), _others(axis, known[axis])
    close = neighbours(Target(axis, known[axis]))
    name = known[axis] if answer == "yes" else rng.choice(rng.choice((close, others)))
    text = rng.choice(wordings[f"{YES_OR_NO} {axis}"]).format(class_answer(axis, name))
    return Question(typed(text, rng), answer, YES_OR_NO, axes)


def neutral(questions: Iterable[Question], axis: str) -> list[Question]:
    """Those that name no class of an axis, neither in the question nor in the answer."""
    return [question for question in questions if axis not in question.axes]


def typed(text: str, rng: random.Random) -> str:
    """The text as another person would type it: small letters, no mark at the end, the other spelling of colour."""
    if rng.random() < 0.2:
        text = text.replace("colour", "color")
    if rng.random() < 0.2:
        text = text.rstrip("?.")
    case = rng.random()
    return text.lower() if case < 0.15 else text[0].lower() + text[1:] if case < 0.3 else text


def _told(axis: str) -> str:
    """The axis to ask about for one that may be a person's own, whose classes are things."""
    return axis if axis in AXES else "object"


def _named(axis: str, name: str) -> str:
    return class_answer(axis, name) if name in AXES.get(axis, ()) else name


def _beside(labels: Mapping[str, str], axis: str) -> list[str]:
    """Questions about a picture that do not name its class on an axis."""
    known = {on: name for on, name in labels.items() if name in AXES.get(on, ())}
    found = [question.text for question in neutral(all_questions(known), axis)]
    return found or [class_question("object" if axis == "style" else "style")]


# How mini-vlm is asked, about this world and about pictures of one's own.
WORLD = Questions(
    ask=lambda axis: class_question(_told(axis)),
    answer=_named,
    neutral=_beside,
    wordings=lambda axis: _WORDINGS[_CLASS_KINDS[_told(axis)]][1:],
    paraphrases=lambda axis: class_paraphrases(_told(axis)),
    check=lambda axis, name: _WORDINGS[f"{YES_OR_NO} {_told(axis)}"][0].format(_named(axis, name)),
    checks=lambda axis, name: [text.format(_named(axis, name)) for text in _HELD_OUT[f"{YES_OR_NO} {_told(axis)}"]],
)


def training_texts() -> Iterator[str]:
    """Every question training can ask, in its usual letters and in small ones; for the tokenizer."""
    classes = {axis: [class_answer(axis, name) for name in names] for axis, names in AXES.items()}
    for kind, wordings in _WORDINGS.items():
        fillings = classes.get(kind.removeprefix(f"{YES_OR_NO} "), [""])
        for text in (wording.format(filling) for wording in wordings for filling in fillings):
            for spelt in dict.fromkeys((text, text.replace("colour", "color"))):
                yield from (spelt, spelt.lower())


def training_answers() -> Iterator[str]:
    """Every answer there is to a question, some of them more than once; for the tokenizer."""
    yield from (*COUNTS, *COLOURS)
    for known in combinations():
        yield from (question.answer for question in all_questions(known))


def _known_axis(axis: str) -> str:
    if axis not in AXES:
        raise InputError(f"No axis named {axis!r} in Minicanvas; pick one of {', '.join(AXES)}.")
    return axis


def _facts(known: Mapping[str, str]) -> list[tuple[str, str, tuple[str, ...]]]:
    """(kind, answer, axes) of everything that can be asked of a picture but for yes or no."""
    on = tuple(axis for axis in AXES if axis in known)
    facts = [(_CLASS_KINDS[axis], class_answer(axis, known[axis]), (axis,)) for axis in on]
    if captions.whole(known):
        facts.append(("caption", captions.full_caption(known), on))
    facts += [(kind, known[kind], ()) for kind in ("colour", "count") if kind in known]
    if "identity" in known:
        face = PEOPLE[known["identity"]]
        facts.append(("person", captions.SUPERCLASS["identity"], ()))
        facts += [("hair", face.hair, ())] if face.style != "bald" else []
        facts.append(("glasses", f"{'no' if face.glasses == 'none' else face.glasses} glasses", ()))
    return facts


def _others(axis: str, name: str) -> Sequence[str]:
    """The other classes of the axis, the known neighbours first."""
    close = neighbours(Target(axis, name))
    return (*close, *(other for other in AXES[axis] if other != name and other not in close))
