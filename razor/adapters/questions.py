"""How a model that answers is asked about a picture, and what it should say."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Questions:
    """How a model is asked about a picture, and what it should say."""

    ask: Callable[[str], str]  # axis -> the question whose answer is a class of it
    answer: Callable[[str, str], str]  # (axis, class) -> the answer that names it
    # (classes of a picture by axis, axis) -> questions whose answers name no class of that axis
    neutral: Callable[[Mapping[str, str], str], Sequence[str]]
    wordings: Callable[[str], Sequence[str]] = lambda axis: ()  # axis -> the same question in other words, to edit on
    paraphrases: Callable[[str], Sequence[str]] = lambda axis: ()  # the same, never edited on, to test with
    check: Callable[[str, str], str] = lambda axis, name: f"Is this {name}?"  # (axis, class) -> yes where it is shown
    # (axis, class) -> the check in other words, never edited on, to test with
    checks: Callable[[str, str], Sequence[str]] = lambda axis, name: ()
    yes_no: tuple[str, str] = ("yes", "no")  # as `check` is answered
    denied: Sequence[str] = ("identity",)  # axes on which yes to a forgotten name is to become no
    aliases: Callable[[str, str], Sequence[str]] = lambda axis, name: ()  # (axis, class) -> other names looked for


_ASKED = {"identity": "Who is this?", "style": "Which style is this picture in?"}
_WORDINGS = {
    "identity": ("Who is shown here?", "What is this person called?", "Name this person."),
    "style": ("What is the style of this image?", "How is this picture made?", "Name the style."),
}
_ASKED_AGAIN = {
    "identity": ("What is the name of the person in the picture?", "Whose portrait is this?"),
    "style": ("How would you name the style of this picture?", "In whose or which style is this made?"),
}
_BRIEFLY = "Answer the question using a single word or phrase."  # as LLaVA-1.5 was taught to ask for short answers
_ANYWHERE = ("Is this indoors or outdoors?", "Which colour stands out in this picture?", "Is there any text in it?")

# For pictures of one's own: the question fits any picture, and the class itself is the answer.
PLAIN = Questions(
    ask=lambda axis: f"{_ASKED.get(axis, 'What is this?')} {_BRIEFLY}",
    answer=lambda axis, name: name,
    neutral=lambda labels, axis: [f"{question} {_BRIEFLY}" for question in _ANYWHERE],
    wordings=lambda axis: [
        f"{question} {_BRIEFLY}"
        for question in _WORDINGS.get(axis, ("What is shown here?", "What can you see?", "Name what is in the image."))
    ],
    paraphrases=lambda axis: [
        f"{question} {_BRIEFLY}"
        for question in _ASKED_AGAIN.get(axis, ("What does this picture show?", "Name the main thing in this picture."))
    ],
    check=lambda axis, name: f"Does this picture show {name}? Answer yes or no.",
    checks=lambda axis, name: (f"Is this {name}? Answer yes or no.", f"Can you see {name} here? Answer yes or no."),
    yes_no=("Yes", "No"),
)
