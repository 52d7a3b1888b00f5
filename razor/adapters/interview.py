"""Which questions are asked about which pictures of a task, which answers are looked for, and what a model reads.

What is edited on one question alone is still named where another asks for the same: so every other picture of the
gradient and search splits is asked about in other words (`Questions.wordings`), and the test split in the usual ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from razor import processes
from razor.adapters.base import GLANCE, glimpse
from razor.answers import last_names
from razor.examples import Example, Task, varied, varied_beside
from razor.replay import PrefixCache

if TYPE_CHECKING:
    from razor.adapters.vlm import Prompt, VlmAdapter

SEEING = ("image", "projector")  # towers a picture runs through before the language model
MOST = {"gradient": (96, 256), "search": (48, 256), "test": (96, 320)}  # forget and retain pictures used at most
WRITTEN = 32  # tokens written of an answer at most, unless asked for more or less, or a name takes more
BESIDE = 8  # tokens written beside the longest name at least
NEUTRAL = 32  # retain pictures behind neutral_kl
CHECKED = {"search": 64, "test": 96}  # retain pictures asked whether they show their own class, at most
ASIDE = "aside"  # the pictures of the test split whose neutral questions are asked


@dataclass(frozen=True)
class Asked:
    """A question about one picture, about one axis."""

    example: Example
    picture: int  # its number among the pictures of its set
    axis: int  # number of the axis in the task
    right: int  # number of the right class on the axis


class Interview:
    """One task's questions to one vision-language model; what it reads of a picture unedited is kept.

    Whoever extends it decides `affirms` and `neighbours` before questions are asked that hang on them.
    """

    def __init__(self, adapter: "VlmAdapter", task: Task):
        self.adapter, self.task = adapter, task
        self.axis = [axis.name for axis in task.axes].index(task.axis)
        self.target = task.axes[self.axis].classes.index(task.concept)
        self.neighbours = task.neighbours  # in the search their pictures are asked on the target's axis alone
        self.affirms = False  # it says yes to the concept's name, and is to say no; nothing is asked for yes or no else
        say, aliases = adapter.questions.answer, adapter.questions.aliases
        self.names = [
            {name: (name, say(axis.name, name), *aliases(axis.name, name)) for name in axis.classes}
            for axis in task.axes
        ]
        self.ids = [[adapter.answer_ids(say(axis.name, name)) for name in axis.classes] for axis in task.axes]
        self.starts = [beginnings(answers) for answers in self.ids]
        self.later = self.ids[self.axis][self.target][len(self.starts[self.axis][self.target]) :]
        names = task.axes[self.axis].classes
        lasts = {names.index(n): adapter.answer_ids(say(task.axis, last)) for n, last in last_names(names).items()}
        self.lasts = {n: ids for n, ids in lasts.items() if not ids.equal(self.starts[self.axis][n])}
        self.yes, self.no = map(adapter.answer_ids, adapter.questions.yes_no)
        self._prefixes = PrefixCache(adapter)
        self._asked: dict[tuple[str, str], list[Asked]] = {}
        self._pictures: dict[tuple[str, str], list[Prompt]] = {}  # each with a neutral question
        self._questions: dict[tuple[str, str], list[Prompt]] = {}  # one for each of the asked
        self._checks: dict[tuple[str, str], tuple[list[int], list[Prompt]]] = {}  # see `checks`
        self._frozen: dict[tuple[str, str], list[Tensor]] = {}  # tokens of each picture

    def asked(self, side: str, split: str) -> list[Asked]:
        """The questions about the pictures of a set, in order.

        A picture is asked on every axis it has a class on, the target's first. Of retain pictures only the test split's
        are. For gradients those with a class on the target's axis are asked on it alone, where an edit does its harm.
        In the search the target's neighbours are, and the others are asked on one axis each, taking turns.
        """
        if (side, split) not in self._asked:
            names = [axis.name for axis in self.task.axes]
            order = [self.axis, *(i for i in range(len(names)) if i != self.axis)]
            found = []
            for number, e in enumerate(self.examples(side, split)):
                rights = {i: self.task.axes[i].classes.index(e.labels[names[i]]) for i in order if self._known(e, i)}
                if side == "retain" and split != "test" and rights:
                    near = split == "gradient" or e.labels.get(self.task.axis) in self.neighbours
                    if self.axis in rights and near:
                        rights = {self.axis: rights[self.axis]}
                    elif split != "gradient":
                        axis = list(rights)[number % len(rights)]
                        rights = {axis: rights[axis]}
                found += [Asked(e, number, axis, right) for axis, right in rights.items()]
            self._asked[side, split] = found
        return self._asked[side, split]

    def pictures(self, side: str, split: str) -> list["Prompt"]:
        """The pictures of a set, each with a neutral question; for gradients half of those to retain with a check."""
        if (side, split) not in self._pictures:
            examples = self.examples(side, split)
            options = [self.adapter.questions.neutral(e.labels, self.task.axis) for e in examples]
            neutral = [told[number % len(told)] for number, told in enumerate(options)]
            if side == "retain" and split == "gradient" and self.affirms:
                for number in range(1, len(examples), 2):
                    neutral[number] = self.check(examples[number]) or neutral[number]
            self._pictures[side, split] = self.adapter.prompts([e.image for e in examples], neutral)
        return self._pictures[side, split]

    def questions(self, side: str, split: str) -> list["Prompt"]:
        """The questions asked about the pictures of a set."""
        if (side, split) not in self._questions:
            asked, pictures = self.asked(side, split), self.pictures(side, split)
            said = [self.question(a, split) for a in asked]
            made = self.adapter.prompts([a.example.image for a in asked], said, room=self.length)
            # Pictures are large, and each is held once.
            shared = [replace(p, picture=pictures[a.picture].picture) for p, a in zip(made, asked, strict=True)]
            self._questions[side, split] = shared
        return self._questions[side, split]

    def checks(self, side: str, split: str) -> tuple[list[int], list["Prompt"]]:
        """Pictures of a set, by number, and for each whether it shows the concept, of some to retain its own class."""
        if (side, split) not in self._checks:
            pictures, examples = self.pictures(side, split), self.examples(side, split)
            said = [self.check(e, self.task.concept if side == "forget" else "") for e in examples]
            rows = [i for i, text in enumerate(said) if text]
            if side == "retain":
                rows = [rows[i] for i in varied([examples[i] for i in rows], CHECKED.get(split, CHECKED["search"]))]
            room, shown = len(self.yes) + 2, [examples[i].image for i in rows]
            made = self.adapter.prompts(shown, [said[i] for i in rows], room=room)
            asked = [replace(p, picture=pictures[i].picture) for p, i in zip(made, rows, strict=True)]
            self._checks[side, split] = rows, asked
        return self._checks[side, split]

    def check(self, example: Example, name: str = "") -> str:
        """The question whether a picture shows this class, its own one unless told; "" where it has none."""
        name = name or example.labels.get(self.task.axis, "")
        return self.adapter.questions.check(self.task.axis, name) if name in self.names[self.axis] else ""

    def about_concept(self, split: str) -> list["Prompt"]:
        """For each forget picture, the question that the concept answers."""
        own, questions = self.own("forget", split), self.questions("forget", split)
        return [questions[own[i]] for i in range(len(own))]

    def own(self, side: str, split: str) -> dict[int, int]:
        """Picture -> number of the question asked about it on the target's axis."""
        return {a.picture: number for number, a in enumerate(self.asked(side, split)) if a.axis == self.axis}

    def _known(self, example: Example, axis: int) -> bool:
        return example.labels.get(self.task.axes[axis].name) in self.task.axes[axis].prompts

    @property
    def room(self) -> int:
        """Tokens of the longest answer."""
        return max(len(ids) for answers in (*self.ids, self.lasts.values()) for ids in answers)

    @property
    def length(self) -> int:
        """Tokens written of an answer, in which every name has room."""
        return max(WRITTEN, self.room + BESIDE)

    def question(self, asked: Asked, split: str) -> str:
        """In the usual words; but for the test split, about every other picture in other words, taking turns."""
        axis, asks = self.task.axes[asked.axis].name, self.adapter.questions
        ways = () if split == "test" or asked.picture % 2 == 0 else asks.wordings(axis)
        return ways[asked.picture // 2 % len(ways)] if ways else asks.ask(axis)

    def examples(self, side: str, split: str) -> Sequence[Example]:
        """Of every kind some, many of them neighbours."""
        if split == GLANCE:
            return glimpse(self.examples(side, "search"))
        if split == ASIDE:
            examples = getattr(self.task, side).test
            return [examples[i] for i in varied(examples, NEUTRAL)]
        examples, most = getattr(getattr(self.task, side), split), MOST[split][side == "retain"]
        return [examples[i] for i in varied_beside(examples, most, self.task.axis, self.task.neighbours)]

    def tokens(
        self, side: str, split: str, edited: Sequence[str], first: Mapping[str, int] | None = None
    ) -> list[Tensor]:
        """What the language model reads of each picture of a set, (places, width) each, on the CPU."""
        if not set(SEEING) & set(edited):
            if (side, split) not in self._frozen:
                whole = self._frozen.get((side, "search")) if split == GLANCE else None
                self._frozen[side, split] = glimpse(whole) if whole else self._seen(side, split, 0)
            return self._frozen[side, split]
        last = len(self._prefixes.blocks["image"]) - 1
        return self._seen(side, split, (first or {}).get("image", 0) if "image" in edited else last)

    def _seen(self, side: str, split: str, block: int) -> list[Tensor]:
        """The same, run from this block of the vision tower on where the blocks before it are known."""
        pictures = self.pictures(side, split)

        def see(mine: list["Prompt"]) -> Tensor:
            found: dict[int, Tensor] = {}
            for number, rows in enumerate(self.adapter.picture_batches(mine)):
                part = [mine[i] for i in rows]
                run = lambda part=part: torch.cat(self.adapter.features(part))  # noqa: E731
                made = self._prefixes.run("image", block, (side, split, number), run).cpu()
                found |= dict(zip(rows, made.split([p.places for p in part]), strict=True))
            return torch.cat([found[i] for i in range(len(mine))])

        return list(processes.share(pictures, see).split([p.places for p in pictures]))

    def drop(self, side: str, split: str) -> None:
        """Let go of what is kept of a set; it is made again when it is asked for."""
        for held in (self._frozen, self._pictures, self._questions, self._checks):
            held.pop((side, split), None)


def beginnings(answers: Sequence[Tensor]) -> list[Tensor]:
    """The tokens of each answer up to the first by which it is told from all the others, (tokens,) each.

    Whole where another goes on from it. A model that answers greedily says an answer only if it likes each of these
    tokens best, and no text begins with two of them.
    """

    def alike(mine: int, length: int) -> bool:
        others = (ids for i, ids in enumerate(answers) if i != mine)
        return any(ids[:length].equal(answers[mine][:length]) for ids in others)

    lengths = (next((n for n in range(1, len(ids)) if not alike(i, n)), len(ids)) for i, ids in enumerate(answers))
    return [ids[:length] for ids, length in zip(answers, lengths, strict=True)]
