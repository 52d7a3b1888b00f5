"""One forgetting task on one vision-language model: losses, class scores for the search, written answers.

With a the answer that names the forgotten class, f(x) the mean of a picture's tokens as the language model reads them,
and r the mean of f over the retain pictures, the terms are, with `forget_loss` of the settings,

    A_f = mean -log p(a_1 | picture, question)                       "answer": ascended; a_1 is a up to the token that
                                                                     tells it from the answers of the other classes
    A_f = mean (1 - cos(f(x) - r, mean f_0(forget) - r))             "alignment": ascended; f_0 of the frozen model
    R   = mean -log p(right answer | picture, question)              on retain pictures, over all axes
    M   = mean KL(p_0(next token) || p(next token))                  after neutral questions on pictures of both sets

Steps are made where there is most left to do: of WIDER times as many pictures, "answer" on those that are named most
surely, R and M on those with the least likely right answers. "answer" ascends no further than log c + MARGIN in each,
beyond chance of c classes, and with it -log p(a_2 | picture, question, b_1) up to log c + LATER, for a_2 the rest of
the name and b another class: where a first name alone is forgotten, the last one is said after someone else's. Or it is
said by itself, so that -log p(last name | picture, question) ascends like that of a_1. And a person who is no longer
named is still known where it is asked whether this is them: where the unedited model says yes to that,
-log p(yes | picture, that question) ascends up to log 2 + DENIED, on pictures that are named no longer. So that it does
not learn to deny everybody, M asks of every other retain picture whether it shows its own class, and the search counts
such answers beside the others on both sides; without such pictures yes is left alone. So it is for things and styles:
mini-vlm, made to say no to one, said no to each of them (`Questions.denied`).

What is edited on one question alone is still named where another asks for the same: so every other picture of the
gradient and search splits is asked about in other words (`Questions.wordings`), and the test split in the usual ones.

A step search that wrote answers would take minutes. Inside it every class of an axis is scored by its answer's
log-probability, and the best one counts as the model's answer; where the unedited model would write the right one,
anything else that the model would rather say counts as another. A neighbour counts as kept where its name leads
clearly: few are asked about, and new ones lie on either side of those. Answers are written to confirm a round and for
the reported numbers, and names are looked for in them.
"""

import copy
import math
import random
import statistics
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from razor import losses, metrics, processes
from razor.adapters.base import GLANCE, Terms, ascended, glimpse
from razor.answers import affirms, classes_named, last_names
from razor.errors import ModelError, Stopped
from razor.examples import Example, Task, evenly, varied, varied_beside
from razor.memory import enough_memory, in_parts
from razor.metrics import Evaluation
from razor.patches import Patch
from razor.replay import PrefixCache

if TYPE_CHECKING:
    from razor.adapters.vlm import Prompt, VlmAdapter

SEEING = ("image", "projector")  # towers a picture runs through before the language model
WIDER = 3  # times as many pictures are asked about in a step as it is made on
MARGIN = 6.0  # nats beyond chance from which a forget picture is left alone
DENIED = 3.0  # the same of yes to its name
LATER = 1.0  # the same of the rest of a name, which is only said where nothing is likelier
MOST = {"gradient": (96, 256), "search": (48, 256), "test": (96, 320)}  # forget and retain pictures used at most
WRITTEN = 32  # tokens written of an answer at most, unless asked for more or less, or a name takes more
BESIDE = 8  # tokens written beside the longest name at least
NEUTRAL = 32  # retain pictures behind neutral_kl
CHECKED = {"search": 64, "test": 96}  # retain pictures asked whether they show their own class, at most
DOUBT = 0.5  # nats by which no must lead before yes counts as gone in the search
CONFIRMED = 20  # answers written before a round may say that the target is met
LEAD = 2.5  # nats by which another answer must lead before the name counts as gone, on new pictures too
SAFE = 1.0  # nats by which a neighbour's name must lead before it counts as kept, on new pictures too
STRICTER = 1.0  # nats by which it must lead more, where a written answer still holds the name
KEPT = 256 * 2**20  # bytes of a set of test pictures, as the language model reads them, kept for the next measuring
RECENT = 256  # edits whose scores are remembered
ASIDE = "aside"  # the pictures of the test split whose neutral questions are asked


@dataclass(frozen=True)
class Asked:
    """A question about one picture, about one axis."""

    example: Example
    picture: int  # its number among the pictures of its set
    axis: int  # number of the axis in the task
    right: int  # number of the right class on the axis


@dataclass(frozen=True)
class _Scores:
    """What the model says to a split's questions."""

    forget: list[Tensor]  # for each question, scores of the classes of its axis; see `_choices`
    retain: list[Tensor]
    drift: Tensor  # (n,) KL of the next token after neutral questions, nats
    affirmed: Tensor  # (forget pictures,) nats by which yes to the concept's name leads; none where it is not asked
    granted: Tensor  # (some retain pictures,) the same of yes to their own class


class VlmBench:
    """One task on one vision-language model; the frozen model's tokens of pictures are made once.

    Evaluate a split unedited before evaluating it edited: that is when the frozen answers are recorded.
    """

    read_by = "the model's own written answers"
    recalls = "how likely it is to name {} in them"
    says = ("Forget accuracy went from", "retain accuracy from")
    aim = 0.01  # of pictures still named: a name is written or not, and no chance of guessing excuses one in fifty
    retain_weight = 3.0  # names share the language model's few heads: at 1 other answers lost up to 2 points
    spared = 1  # names are told apart by a few weights, and one neighbour on the edge would hold up all the others

    def __init__(
        self, adapter: "VlmAdapter", task: Task, *, batch: int, mismatch_weight: float, seed: int, beneath: Patch
    ):
        self.adapter, self.task, self.batch, self.seed, self.beneath = adapter, task, batch, seed, beneath
        self.mismatch_weight = mismatch_weight
        self.axis = [axis.name for axis in task.axes].index(task.axis)
        self.target = task.axes[self.axis].classes.index(task.concept)
        self.slow_towers = tuple(adapter.towers)  # whatever is edited, the language model has to run
        self.measure, self.forget_loss = LEAD, ascended(adapter, None)
        self.unedited: dict[Hashable, Any] = {}
        self._said: dict[tuple[str, str], list[bool]] = {}  # whether the unedited model would write the right answer
        self._named = 0.0  # share of forget pictures of the search split the unedited model names without any lead
        self.answers: dict[str, dict[str, list[str]]] = {}  # "original" or "edited" -> side -> written last, as asked
        say, aliases = adapter.questions.answer, adapter.questions.aliases
        self._names = [
            {name: (name, say(axis.name, name), *aliases(axis.name, name)) for name in axis.classes}
            for axis in task.axes
        ]
        self._ids = [[adapter.answer_ids(say(axis.name, name)) for name in axis.classes] for axis in task.axes]
        self._starts = [beginnings(answers) for answers in self._ids]
        self._later = self._ids[self.axis][self.target][len(self._starts[self.axis][self.target]) :]
        names = task.axes[self.axis].classes
        lasts = {names.index(n): adapter.answer_ids(say(task.axis, last)) for n, last in last_names(names).items()}
        self._lasts = {n: ids for n, ids in lasts.items() if not ids.equal(self._starts[self.axis][n])}
        self._yes, self._no = map(adapter.answer_ids, adapter.questions.yes_no)
        self.affirms = False  # it says yes to the concept's name, and is to say no; nothing is asked for yes or no else
        self._asked: dict[tuple[str, str], list[Asked]] = {}
        self._pictures: dict[tuple[str, str], list[Prompt]] = {}  # each with a neutral question
        self._questions: dict[tuple[str, str], list[Prompt]] = {}  # one for each of the asked
        self._checks: dict[tuple[str, str], tuple[list[int], list[Prompt]]] = {}  # see `checks`
        self._frozen: dict[tuple[str, str], list[Tensor]] = {}  # tokens of each picture
        self._frozen_next: dict[tuple[str, str], Tensor] = {}  # see `_next`, by set and split
        self._lately: OrderedDict[tuple, _Scores] = OrderedDict()
        self._prefixes = PrefixCache(adapter)
        with enough_memory("reading the examples", "Take fewer pictures, or load the model in half precision"):
            forget = self._tokens("forget", "gradient", ())
            guarded = any(map(self._check, self._examples("retain", "gradient")))  # by others said yes to
            self.affirms = task.axis in adapter.questions.denied and guarded and self._says_yes(forget)
            retain = self._tokens("retain", "gradient", ())
            for side, tokens in (("forget", forget), ("retain", retain)):
                self._frozen_next[side, "gradient"] = self._next(self.pictures(side, "gradient"), tokens)
            self.neighbours = task.neighbours or self._most_confused(forget)
        self._middle = _means(retain).mean(0)
        self._direction = _means(forget).mean(0) - self._middle

    def another(self) -> "VlmBench":
        """See Bench."""
        made = copy.copy(self)
        made.measure, made.forget_loss = LEAD, ascended(self.adapter, None)
        made._lately, made.answers = OrderedDict(), {}
        return made

    # What the method asks for

    def scoring_terms(self, draw: int = 0) -> Terms:
        """A_f and R over two batches of forget and of retain pictures of the gradient split.

        Args:
            draw: 0 the fixed pictures; any other number as many, drawn with replacement.
        """
        key, size = f"score/{draw}" if draw else "score", 2 * self.batch
        forget, rows = (self._draw(side, size, f"{key}/{side}", again=draw != 0) for side in ("forget", "retain"))
        return {
            "forget": lambda: self._alignment(forget),
            "retain": lambda: self._retain(rows, turn=draw),
        }

    def step_terms(self, step: int, edited: Sequence[str] | None = None) -> Terms:
        """A_f and R + lambda_m * M on fresh batches of the gradient split.

        Args:
            edited: towers that are or will be edited; without those in SEEING the frozen tokens of pictures are used.
        """
        half = max(2, self.batch // 2)
        forget = self._draw("forget", WIDER * half, f"forget/{step}")
        retain = self._draw("retain", WIDER * self.batch, f"retain/{step}")
        return {
            "forget": lambda: self._alignment(self._best_known(forget, half, edited), edited, sated=True),
            "keep": lambda: self._retain(
                self._least_sure(retain, step, edited), beside=forget[: half // 2], turn=step, edited=edited
            ),
        }

    def evaluate(
        self,
        split: str,
        edited: Sequence[str] | None = None,
        first: Mapping[str, int] | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> Evaluation:
        """Search metrics from class scores; on "test" the same numbers counted on written answers."""
        edited = tuple(self.adapter.towers) if edited is None else edited
        with enough_memory("measuring", "Load the model in half precision, or use smaller pictures"):
            if split == "test":
                return self._written(edited, first or {}) if edited else self._written_unedited()
            if edited and not set(edited) <= set(keys or {}):
                return self._counted(split, self._scored(split, edited, first or {}), edited)
            kept, place = self._lately if edited else self.unedited, (split, *sorted((keys or {}).items()))
            if place not in kept:
                kept[place] = self._scored(split, edited, first or {})
                while len(self._lately) > RECENT:
                    self._lately.popitem(last=False)
        return self._counted(split, kept[place], edited)

    def _says_yes(self, tokens: Sequence[Tensor]) -> bool:
        """Whether the unedited model says yes to the concept's name, about most forget pictures of these tokens."""
        (_, asked), answers = self.checks("forget", "gradient"), [self._yes]
        said, instead = self.adapter.choice_scores(asked, tokens, answers, answers * len(asked))[:, -2:].unbind(1)
        return metrics.share(said > instead).value > 0.5

    def knows(self, base: Evaluation) -> bool:
        """The unedited model names the concept more often than by guessing."""
        return self._named > self.task.chance

    def confirm(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Whether written answers bear the search metrics out; where they do not, other classes must lead by more.

        Call with the model edited. Writes answers about forget pictures of the search split: no more of them may hold
        the name than the aim allows.

        Raises:
            Stopped: `stop` said so before all were written.
        """
        own = [a for a in self.asked("forget", "search") if a.axis == self.axis]
        asked = [own[i] for i in varied([a.example for a in own], CONFIRMED)]
        texts = processes.share_list(
            asked,
            lambda mine: self.adapter.answer(
                [a.example.image for a in mine],
                [self._question(a, "search") for a in mine],
                max_new_tokens=self._length,
                stop=stop,
            ),
        )
        if len(texts) < len(asked):
            raise Stopped("Stopped before all answers were written; nothing was changed.")
        if sum(map(self.names_it, texts)) <= self.aim * len(asked):
            return True
        self.measure += STRICTER
        return False

    def ask(self, question: str, stop: Callable[[], bool] = lambda: False) -> list[str]:
        """What the model as it is now writes on one question about each forget picture of the test split.

        Nothing at all where `stop` said so meanwhile.
        """
        pictures = [a.example.image for a in self.asked("forget", "test") if a.axis == self.axis]
        return self.adapter.answer(pictures, [question] * len(pictures), max_new_tokens=self._length, stop=stop)

    def names_it(self, text: str) -> bool:
        """Whether a written answer holds the concept's name."""
        return self.task.concept in classes_named(text, self._names[self.axis])

    def relent(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Class scores and written answers are the model's own: what the scores still count is still there."""
        return False

    def concept_score(self, rows: Sequence[int]) -> Tensor:
        """Mean log-probability a token of the concept's name, over these forget pictures of the search split.

        A scalar with a graph. Where not all of them are asked about, a picture left out has the score of one near it.
        """
        pictures, count = self.pictures("forget", "search"), len(self.task.forget.search)
        chosen = [row * len(pictures) // count for row in rows]
        tokens, questions = self.adapter.features([pictures[i] for i in chosen]), self._about_concept("search")
        name, asked = self._ids[self.axis][self.target], [questions[i] for i in chosen]
        return torch.cat(self.adapter.token_logprobs(asked, tokens, [name] * len(asked))).mean()

    @torch.no_grad()
    def recall(self, split: str) -> Tensor:
        """Mean log-probability a token of the concept's name as the answer about each of some forget pictures, (n,)."""
        examples, asks, axis = self._examples("forget", split), self.adapter.questions, self.task.axis
        asked, name = [asks.ask(axis)] * len(examples), asks.answer(axis, self.task.concept)
        found = self.adapter.name_logprobs([e.image for e in examples], asked, name)
        return torch.tensor([statistics.fmean(p for _, p in tokens) for tokens in found])

    # Losses

    def _alignment(self, rows: Tensor, edited: Sequence[str] | None = None, *, sated: bool = False) -> Tensor:
        """A_f on these forget pictures; with `sated`, what steps ascend. See the module's head."""
        if self.forget_loss == "alignment":
            means = self._each("forget", rows, edited, lambda _, tokens: _means(tokens))
            middle, direction = (kept.to(means.device) for kept in (self._middle, self._direction))
            return losses.alignment(means - middle, direction)
        chance = math.log(len(self._names[self.axis]))
        words = {self._first_words: chance + MARGIN}
        if sated and len(self._later):
            words[self._later_words] = chance + LATER
        if sated and self.target in self._lasts:
            words[self._last_name] = chance + MARGIN
        if sated and self.affirms:
            words[self._affirmed] = math.log(2) + DENIED
        surprise = lambda mine, tokens: torch.stack([part(mine, tokens) for part in words], 1)  # noqa: E731
        found = self._each("forget", rows, edited, surprise, runs=len(words))  # (n, answers)
        if sated:
            most = found.new_tensor([*words.values()])
            if self.affirms:  # last; of pictures that are still named yes is left alone
                named = (found[:, :-1] < most[:-1]).any(1, keepdim=True)
                found = torch.cat([found[:, :-1], found[:, -1:].where(~named, most[-1])], 1)
            found = found.minimum(most)
        return found.sum(1).mean()

    def _best_known(self, rows: Tensor, count: int, edited: Sequence[str] | None) -> Tensor:
        """So many of these forget pictures of the gradient split as are named most surely, not forgotten already."""
        if self.forget_loss == "alignment" or len(rows) <= count:
            return rows[:count]
        with torch.no_grad():
            unsure = self._each("forget", rows, edited, self._first_words)
        return _lowest(rows, unsure, count)

    def _least_sure(self, rows: Tensor, turn: int, edited: Sequence[str] | None) -> Tensor:
        """A batch of these retain pictures of the gradient split: those on which the right answer is least likely."""
        if len(rows) <= self.batch:
            return rows
        asked = self._one_each(rows, turn)
        with torch.no_grad():
            unsure = self._each(
                "retain", rows, edited, lambda mine, tokens: self._surprise([asked.get(i) for i in mine], tokens)
            )
        return _lowest(rows, -unsure, self.batch)

    def _first_words(self, mine: Sequence[int], tokens: Sequence[Tensor]) -> Tensor:
        """-log p of the name's beginning as the answer about forget pictures of the gradient split, (n,)."""
        return self._unsaid(self._starts[self.axis][self.target], mine, tokens)

    def _last_name(self, mine: Sequence[int], tokens: Sequence[Tensor]) -> Tensor:
        """The same of a person's last name by itself."""
        return self._unsaid(self._lasts[self.target], mine, tokens)

    def _affirmed(self, mine: Sequence[int], tokens: Sequence[Tensor]) -> Tensor:
        """-log p of yes where it is asked whether forget pictures of the gradient split show the concept, (n,)."""
        _, asked = self.checks("forget", "gradient")
        said = self.adapter.token_logprobs([asked[i] for i in mine], tokens, [self._yes] * len(mine))
        return -torch.stack(said).sum(1)

    def _unsaid(self, answer: Tensor, mine: Sequence[int], tokens: Sequence[Tensor]) -> Tensor:
        questions = self._about_concept("gradient")
        said = self.adapter.token_logprobs([questions[i] for i in mine], tokens, [answer] * len(mine))
        return -torch.stack(said).sum(1)

    def _later_words(self, mine: Sequence[int], tokens: Sequence[Tensor]) -> Tensor:
        """-log p of the rest of the name after the beginning of another class, (n,)."""
        questions, starts = self._about_concept("gradient"), self._starts[self.axis]
        others = [start for number, start in enumerate(starts) if number != self.target]
        answers = [torch.cat([others[i % len(others)], self._later]) for i in mine]
        said = self.adapter.token_logprobs([questions[i] for i in mine], tokens, answers)
        return -torch.stack([value[-len(self._later) :].sum() for value in said])

    def _retain(
        self,
        rows: Tensor,
        *,
        beside: Tensor | None = None,
        turn: int = 0,
        edited: Sequence[str] | None = None,
    ) -> Tensor:
        """R on these retain pictures, each asked on one axis; with `beside`, forget pictures, also M on both.

        Args:
            turn: another one asks about other axes.
        """
        chosen = self._one_each(rows, turn)
        known = max(1, sum(i in chosen for i in rows.tolist()))

        def surprise(mine: list[int], tokens: list[Tensor]) -> Tensor:
            return self._surprise([chosen.get(i) for i in mine], tokens)

        def both(mine: list[int], tokens: list[Tensor]) -> Tensor:
            return torch.stack([surprise(mine, tokens), self._moved("retain", mine, tokens)], 1)

        if beside is None or self.mismatch_weight == 0:
            return self._each("retain", rows, edited, surprise).sum() / known
        found = self._each("retain", rows, edited, both, runs=2)  # (n, 2)
        there = self._each("forget", beside, edited, lambda mine, tokens: self._moved("forget", mine, tokens))
        return found[:, 0].sum() / known + self.mismatch_weight * torch.cat([found[:, 1], there]).mean()

    def _one_each(self, rows: Tensor, turn: int) -> dict[int, int]:
        """Picture -> the number of one question about it, another one at another turn; left out where it has none."""
        options: dict[int, list[int]] = {}
        for number, a in enumerate(self.asked("retain", "gradient")):
            options.setdefault(a.picture, []).append(number)
        return {i: options[i][(i + turn) % len(options[i])] for i in rows.tolist() if i in options}

    def _surprise(self, asked: Sequence[int | None], tokens: Sequence[Tensor]) -> Tensor:
        """-log p of the right answer to questions about retain pictures of the gradient split, (n,); 0 for None."""
        rows = [row for row, number in enumerate(asked) if number is not None]
        known = [self.asked("retain", "gradient")[asked[row]] for row in rows]
        found = torch.zeros(len(asked), device=self.adapter.device)
        if not rows:
            return found
        questions = [self.questions("retain", "gradient")[asked[row]] for row in rows]
        right = [self._ids[a.axis][a.right] for a in known]
        said = self.adapter.token_logprobs(questions, [tokens[row] for row in rows], right)
        values = torch.stack([value.sum() for value in said])
        return found.index_add(0, torch.tensor(rows, device=found.device), -values.to(found.device))

    def _moved(self, side: str, mine: Sequence[int], tokens: Sequence[Tensor]) -> Tensor:
        """KL of the next token after the neutral question about pictures of the gradient split, (n,)."""
        pictures = [self.pictures(side, "gradient")[i] for i in mine]
        frozen = self._frozen_next[side, "gradient"][list(mine)]
        return divergence(self._after(pictures, tokens), frozen)

    def _each(
        self,
        side: str,
        rows: Tensor,
        edited: Sequence[str] | None,
        work: Callable[[list[int], list[Tensor]], Tensor],
        runs: int = 1,
    ) -> Tensor:
        """What `work` makes of pictures of the gradient split and their tokens, (n, ...), with a graph.

        Rows that do not fit into memory together are run again when their gradient is asked for.

        Args:
            runs: forwards of the language model that `work` does.
        """
        pictures = self.pictures(side, "gradient")
        seen = edited is None or bool(set(SEEING) & set(edited))

        def part(chosen: Tensor) -> Tensor:
            mine = chosen.tolist()
            if seen:
                return work(mine, self.adapter.features([pictures[i] for i in mine]))
            return work(mine, [self._frozen[side, "gradient"][i] for i in mine])

        longest = max(len(p.ids) for p in (*pictures, *self.questions(side, "gradient"))) + self._room
        size = self.adapter.at_once // (runs * longest)
        return processes.share(rows, lambda mine: in_parts(mine, size, part))

    # Metrics

    def _scored(self, split: str, edited: Sequence[str], first: Mapping[str, int]) -> _Scores:
        forget, retain = (self._tokens(side, split, edited, first) for side in ("forget", "retain"))
        scores = (self._choices(side, split, tokens) for side, tokens in (("forget", forget), ("retain", retain)))
        leads = (self._leads(side, split, tokens) for side, tokens in (("forget", forget), ("retain", retain)))
        return _Scores(*scores, self._drift(split, retain, edited), *leads)

    def _leads(self, side: str, split: str, tokens: Sequence[Tensor]) -> Tensor:
        """By how many nats yes is ahead of no, (n,); see `checks`. None where yes is left alone."""
        if not self.affirms:
            return torch.empty(0)
        rows, asked = self.checks(side, split)
        answers = [self._yes, self._no]
        said = processes.share(
            list(range(len(rows))),
            lambda mine: self.adapter.choice_scores([asked[i] for i in mine], [tokens[rows[i]] for i in mine], answers),
        )
        return said[:, 0] - said[:, 1]

    def _choices(self, side: str, split: str, tokens: Sequence[Tensor]) -> list[Tensor]:
        """For each question asked, the score of every class of its axis.

        That is the log-probability of how its answer begins, which is all it takes to tell; of a right answer that is
        not to be forgotten, that of all of it; where a person should be named, that of the last name by itself as well.
        And one more, (classes + 1,): of what the model would rather say than the right one.

        Raises:
            ModelError: scores are NaN.
        """
        asked, questions = self.asked(side, split), self.questions(side, split)
        found: dict[int, Tensor] = {}
        for axis, (starts, whole) in enumerate(zip(self._starts, self._ids, strict=True)):
            about = side == "forget" and axis == self.axis
            lasts = self._lasts if about else {}
            answers, right = [*starts, *lasts.values()], starts if about else whole
            rows = [i for i, a in enumerate(asked) if a.axis == axis]

            def score(mine: list[int], answers=answers, right=right) -> Tensor:
                pictures, said = [tokens[asked[i].picture] for i in mine], [right[asked[i].right] for i in mine]
                return self.adapter.choice_scores([questions[i] for i in mine], pictures, answers, said)

            made = processes.share(rows, score)
            if made.isnan().any():
                raise ModelError(
                    f"The model's answers came out as NaN in {str(self.adapter.dtype).removeprefix('torch.')}: the "
                    "numbers grew too large. Weaken the edit, or load the model in float32 or bfloat16."
                )
            scores = torch.cat([made[:, : len(starts)], made[:, -1:]], 1)
            scores[range(len(rows)), [asked[i].right for i in rows]] = made[:, -2]
            for column, number in enumerate(lasts, len(starts)):
                scores[:, number] = scores[:, number].logaddexp(made[:, column])
            found |= dict(zip(rows, scores, strict=True))
        return [found[i] for i in range(len(asked))]

    def _drift(self, split: str, tokens: Sequence[Tensor], edited: Sequence[str]) -> Tensor:
        """KL of the next token after neutral questions about retain pictures, (n,), nats."""
        rows = evenly(len(tokens), NEUTRAL)
        now = self._next([self.pictures("retain", split)[i] for i in rows], [tokens[i] for i in rows])
        if not edited:
            self._frozen_next["retain", split] = now
        return divergence(now, self._frozen_next["retain", split])

    def _counted(self, split: str, found: _Scores, edited: Sequence[str]) -> Evaluation:
        """The search metrics."""
        scored = {
            side: list(zip(self.asked(side, split), getattr(found, side), strict=True)) for side in ("forget", "retain")
        }
        own = [i for i, (a, _) in enumerate(scored["forget"]) if a.axis == self.axis]
        about = torch.stack([scored["forget"][i][1] for i in own])  # (n, classes + 1)
        if not edited:
            for side, pairs in scored.items():
                self._said[side, split] = [bool(scores[a.right] > scores[-1]) for a, scores in pairs]
            if split == "search":
                self._named = metrics.share([_lead(scores, self.target, said=False) > 0 for scores in about]).value
        said = {side: self._said[side, split] for side in scored}
        leads = {
            side: [_lead(scores, a.right, was) for (a, scores), was in zip(pairs, said[side], strict=True)]
            for side, pairs in scored.items()
        }
        name, among = about[:, self.target], about[:, :-1].softmax(1)[:, self.target]
        wrote = torch.tensor([said["forget"][i] for i in own])
        right = [scores[:-1].softmax(0)[a.right] for a, scores in scored["retain"]]
        return self._evaluation(
            still=[leads["forget"][i] + self.measure > 0 for i in own],
            right=[
                lead > (SAFE if self._near(a) else 0)
                for lead, (a, _) in zip(leads["retain"], scored["retain"], strict=True)
            ],
            checked=[(found.affirmed + DOUBT > 0).tolist(), (found.granted > 0).tolist()],
            asked=[a for a, _ in scored["retain"]],
            cross=[leads["forget"][i] > 0 for i, (a, _) in enumerate(scored["forget"]) if a.axis != self.axis],
            forget_probability=metrics.mean(torch.where(wrote, name.exp(), among)),
            retain_probability=metrics.mean(torch.stack(right)),
            neutral_kl=metrics.mean(found.drift, highest=math.inf),
        )

    def _written_unedited(self) -> Evaluation:
        """What `_written` tells of the unedited model, which writes once for all."""
        if "written" not in self.unedited:
            self.unedited["written"] = self._written((), {}), self.answers["original"]
        found, self.answers["original"] = self.unedited["written"]
        return found

    def _written(self, edited: Sequence[str], first: Mapping[str, int]) -> Evaluation:
        """The reported numbers: names in written answers. An answer is right that names the right class alone."""
        asked = {side: self.asked(side, "test") for side in ("forget", "retain")}
        texts, yes = {}, {}
        for side in asked:
            tokens = self._tokens(side, "test", edited, first)
            yes[side] = self._said_yes(side, tokens)
            texts[side] = self._write(side, tokens)
        self.answers["edited" if edited else "original"] = texts
        named = {
            side: [classes_named(text, self._names[a.axis]) for a, text in zip(mine, texts[side], strict=True)]
            for side, mine in asked.items()
        }
        alone = lambda a, names: names == (self.task.axes[a.axis].classes[a.right],)  # noqa: E731
        forget, retain = (list(zip(asked[side], named[side], strict=True)) for side in ("forget", "retain"))
        still = [self.task.concept in names for a, names in forget if a.axis == self.axis]
        tokens = self._tokens("retain", ASIDE, edited, first)
        return self._evaluation(
            still=still,
            right=[alone(a, names) for a, names in retain],
            asked=asked["retain"],
            affirmed=metrics.share(yes["forget"]) if yes["forget"] else None,
            granted=metrics.share(yes["retain"]) if yes["retain"] else None,
            cross=[alone(a, names) for a, names in forget if a.axis != self.axis],
            forget_probability=metrics.share(still),
            neutral_kl=metrics.mean(self._drift(ASIDE, tokens, edited), highest=math.inf),
        )

    def _evaluation(
        self,
        *,
        still: Sequence[bool] | Tensor,
        right: Sequence[bool],
        asked: Sequence[Asked],
        cross: Sequence[bool],
        checked: Sequence[Sequence[bool]] = ((), ()),
        **more: metrics.Measure,
    ) -> Evaluation:
        """What both ways of measuring share.

        Args:
            still: whether each forget picture still has the concept for an answer.
            right, asked: the retain questions, and whether the answer is right.
            cross: whether answers about forget pictures on other axes are.
            checked: whether yes is said to the concept's name, and to the retain pictures' own classes, counted beside.
        """
        pairs = list(zip(asked, right, strict=True))
        near = {name: [hit for a, hit in pairs if self._near(a) == name] for name in self.neighbours}
        beside = [hit for hits in near.values() for hit in hits]
        return Evaluation(
            forget_accuracy=metrics.share([*still, *checked[0]]),
            retain_accuracy=metrics.share([*right, *checked[1]]),
            neighbor_accuracy=metrics.share(beside) if beside else None,
            cross_accuracy=metrics.share(cross) if cross else None,
            retrieval_stability=None,
            by_neighbor={name: metrics.share(hits) for name, hits in near.items() if hits},
            **more,
        )

    def _near(self, asked: Asked) -> str | None:
        """The neighbour that is asked for; None for everything else."""
        name = self.task.axes[asked.axis].classes[asked.right]
        return name if asked.axis == self.axis and name in self.neighbours else None

    def _most_confused(self, tokens: Sequence[Tensor], count: int = 2) -> tuple[str, ...]:
        """The classes the model finds likeliest after the target on forget pictures, among those it is tested on."""
        scores = self.adapter.choice_scores(self._about_concept("gradient"), tokens, self._starts[self.axis]).mean(0)
        names = self.task.axes[self.axis].classes
        tested = {e.labels.get(self.task.axis) for e in self.task.retain.test} - {self.task.concept}
        return tuple(names[i] for i in scores.argsort(descending=True).tolist() if names[i] in tested)[:count]

    # Pictures and questions

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
            for number, e in enumerate(self._examples(side, split)):
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
            examples = self._examples(side, split)
            options = [self.adapter.questions.neutral(e.labels, self.task.axis) for e in examples]
            neutral = [told[number % len(told)] for number, told in enumerate(options)]
            if side == "retain" and split == "gradient" and self.affirms:
                for number in range(1, len(examples), 2):
                    neutral[number] = self._check(examples[number]) or neutral[number]
            self._pictures[side, split] = self.adapter.prompts([e.image for e in examples], neutral)
        return self._pictures[side, split]

    def questions(self, side: str, split: str) -> list["Prompt"]:
        """The questions asked about the pictures of a set."""
        if (side, split) not in self._questions:
            asked, pictures = self.asked(side, split), self.pictures(side, split)
            said = [self._question(a, split) for a in asked]
            made = self.adapter.prompts([a.example.image for a in asked], said, room=self._length)
            # Pictures are large, and each is held once.
            shared = [replace(p, picture=pictures[a.picture].picture) for p, a in zip(made, asked, strict=True)]
            self._questions[side, split] = shared
        return self._questions[side, split]

    def checks(self, side: str, split: str) -> tuple[list[int], list["Prompt"]]:
        """Pictures of a set, by number, and for each whether it shows the concept, of some to retain its own class."""
        if (side, split) not in self._checks:
            pictures, examples = self.pictures(side, split), self._examples(side, split)
            said = [self._check(e, self.task.concept if side == "forget" else "") for e in examples]
            rows = [i for i, text in enumerate(said) if text]
            if side == "retain":
                rows = [rows[i] for i in varied([examples[i] for i in rows], CHECKED.get(split, CHECKED["search"]))]
            room, shown = len(self._yes) + 2, [examples[i].image for i in rows]
            made = self.adapter.prompts(shown, [said[i] for i in rows], room=room)
            asked = [replace(p, picture=pictures[i].picture) for p, i in zip(made, rows, strict=True)]
            self._checks[side, split] = rows, asked
        return self._checks[side, split]

    def _check(self, example: Example, name: str = "") -> str:
        """The question whether a picture shows this class, its own one unless told; "" where it has none."""
        name = name or example.labels.get(self.task.axis, "")
        return self.adapter.questions.check(self.task.axis, name) if name in self._names[self.axis] else ""

    @property
    def _room(self) -> int:
        """Tokens of the longest answer."""
        return max(len(ids) for answers in (*self._ids, self._lasts.values()) for ids in answers)

    @property
    def _length(self) -> int:
        """Tokens written of an answer, in which every name has room."""
        return max(WRITTEN, self._room + BESIDE)

    def _question(self, asked: Asked, split: str) -> str:
        """In the usual words; but for the test split, about every other picture in other words, taking turns."""
        axis, asks = self.task.axes[asked.axis].name, self.adapter.questions
        ways = () if split == "test" or asked.picture % 2 == 0 else asks.wordings(axis)
        return ways[asked.picture // 2 % len(ways)] if ways else asks.ask(axis)

    def _said_yes(self, side: str, tokens: Sequence[Tensor]) -> list[bool]:
        """Whether yes is written to the checks of a set's test pictures, whose tokens are given; see `_leads`."""
        if not self.affirms:
            return []
        rows, asked = self.checks(side, "test")
        about, most = [(p, tokens[row]) for p, row in zip(asked, rows, strict=True)], len(self._yes) + 2
        write = lambda mine: self.adapter.write([p for p, _ in mine], [t for _, t in mine], max_new_tokens=most)  # noqa: E731
        return [affirms(text) for text in processes.share_list(about, write)]

    def _write(self, side: str, tokens: Sequence[Tensor]) -> list[str]:
        """Answers in words to every question about the test pictures of a set, whose tokens are given."""
        asked = self.asked(side, "test")
        about = list(zip(self.questions(side, "test"), (tokens[a.picture] for a in asked), strict=True))
        write = lambda mine: self.adapter.write(  # noqa: E731
            [p for p, _ in mine], [t for _, t in mine], max_new_tokens=self._length
        )
        said = processes.share_list(about, write)
        if sum(t.nbytes for t in tokens) > KEPT:
            for held in (self._frozen, self._pictures, self._questions, self._checks):
                held.pop((side, "test"), None)
        return said

    def _about_concept(self, split: str) -> list["Prompt"]:
        """For each forget picture, the question that the concept answers."""
        own, questions = self._own("forget", split), self.questions("forget", split)
        return [questions[own[i]] for i in range(len(own))]

    def _own(self, side: str, split: str) -> dict[int, int]:
        """Picture -> number of the question asked about it on the target's axis."""
        return {a.picture: number for number, a in enumerate(self.asked(side, split)) if a.axis == self.axis}

    def _known(self, example: Example, axis: int) -> bool:
        return example.labels.get(self.task.axes[axis].name) in self.task.axes[axis].prompts

    def _examples(self, side: str, split: str) -> Sequence[Example]:
        """Of every kind some, many of them neighbours."""
        if split == GLANCE:
            return glimpse(self._examples(side, "search"))
        if split == ASIDE:
            examples = getattr(self.task, side).test
            return [examples[i] for i in varied(examples, NEUTRAL)]
        examples, most = getattr(getattr(self.task, side), split), MOST[split][side == "retain"]
        return [examples[i] for i in varied_beside(examples, most, self.task.axis, self.task.neighbours)]

    # What the model reads and says

    def _tokens(
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

    def _after(self, prompts: Sequence["Prompt"], tokens: Sequence[Tensor]) -> Tensor:
        """Log-probabilities of the token after each prompt, (n, vocabulary), with a graph."""
        nothing = [torch.empty(0, dtype=torch.long)] * len(prompts)
        return self.adapter.logits(prompts, tokens, nothing)[:, 0].log_softmax(-1)

    @torch.no_grad()
    def _next(self, prompts: Sequence["Prompt"], tokens: Sequence[Tensor]) -> Tensor:
        """The same without a graph, a few at a time, on the CPU."""

        def after(mine: list[int]) -> Tensor:
            found: dict[int, Tensor] = {}
            asked = [prompts[i] for i in mine]
            for rows in self.adapter.batches(asked):
                part = self._after([asked[i] for i in rows], [tokens[mine[i]] for i in rows])
                found |= dict(zip(rows, part.cpu(), strict=True))
            return torch.stack([found[i] for i in range(len(mine))])

        return processes.share(list(range(len(prompts))), after)

    # Drawing lots

    def _draw(self, side: str, size: int, key: str, *, again: bool = False) -> Tensor:
        """Numbers of pictures of the gradient split; with `again`, a picture may come more than once."""
        count, rng = len(self.pictures(side, "gradient")), random.Random(f"{self.seed}/{key}")
        rows = rng.choices(range(count), k=min(count, size)) if again else rng.sample(range(count), min(count, size))
        return torch.tensor(rows)


def _lowest(rows: Tensor, values: Tensor, count: int) -> Tensor:
    """So many of the rows as have the lowest values, in order."""
    return rows[values.argsort()[:count].cpu().sort().values]


def _lead(scores: Tensor, right: int, said: bool) -> float:
    """By how many nats the right answer is ahead of others.

    Of anything else the model might say, where the unedited model said the right one; else of the other classes.

    Args:
        scores: see `VlmBench._choices`.
    """
    others = scores[-1:] if said else torch.cat([scores[:right], scores[right + 1 : -1]])
    return (scores[right] - others.max()).item()


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


def divergence(now: Tensor, frozen: Tensor) -> Tensor:
    """KL(frozen || now), (n,), nats.

    Args:
        now, frozen: (n, vocabulary) log-probabilities.
    """
    return F.kl_div(now, frozen.to(now.device), reduction="none", log_target=True).sum(-1)


def _means(tokens: Sequence[Tensor]) -> Tensor:
    """The mean token of each picture, (n, width) float32."""
    return torch.stack([t.float().mean(0) for t in tokens])
