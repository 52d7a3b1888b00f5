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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from razor import losses, metrics, processes
from razor.adapters.base import Terms, ascended
from razor.adapters.interview import ASIDE, NEUTRAL, SEEING, Asked, Interview
from razor.answers import affirms, classes_named
from razor.errors import ModelError, Stopped
from razor.examples import Task, evenly, varied
from razor.memory import enough_memory, in_parts
from razor.metrics import Evaluation
from razor.patches import Patch

if TYPE_CHECKING:
    from razor.adapters.vlm import Prompt, VlmAdapter

WIDER = 3  # times as many pictures are asked about in a step as it is made on
MARGIN = 6.0  # nats beyond chance from which a forget picture is left alone
DENIED = 3.0  # the same of yes to its name
LATER = 1.0  # the same of the rest of a name, which is only said where nothing is likelier
DOUBT = 0.5  # nats by which no must lead before yes counts as gone in the search
CONFIRMED = 20  # answers written before a round may say that the target is met
LEAD = 2.5  # nats by which another answer must lead before the name counts as gone, on new pictures too
SAFE = 1.0  # nats by which a neighbour's name must lead before it counts as kept, on new pictures too
STRICTER = 1.0  # nats by which it must lead more, where a written answer still holds the name
KEPT = 256 * 2**20  # bytes of a set of test pictures, as the language model reads them, kept for the next measuring
RECENT = 256  # edits whose scores are remembered


@dataclass(frozen=True)
class _Scores:
    """What the model says to a split's questions."""

    forget: list[Tensor]  # for each question, scores of the classes of its axis; see `_choices`
    retain: list[Tensor]
    drift: Tensor  # (n,) KL of the next token after neutral questions, nats
    affirmed: Tensor  # (forget pictures,) nats by which yes to the concept's name leads; none where it is not asked
    granted: Tensor  # (some retain pictures,) the same of yes to their own class


class VlmBench(Interview):
    """One task on one vision-language model; the frozen model's tokens of pictures are made once.

    Evaluate a split unedited before evaluating it edited: that is when the frozen answers are recorded.
    """

    read_by = "the model's own written answers"
    recalls = "how likely it is to name {} in them"
    says = ("Forget accuracy went from", "retain accuracy from")
    aim = 0.01  # of pictures still named: a name is written or not, and no chance of guessing excuses one in fifty
    retain_weight = 3.0  # names share the language model's few heads: at 1 other answers lost up to 2 points
    spared = 1  # names are told apart by a few weights, and one neighbour on the edge would hold up all the others
    mends = True  # also where the search, which asks about few pictures, finds no loss: other pictures gain by it

    def __init__(
        self, adapter: "VlmAdapter", task: Task, *, batch: int, mismatch_weight: float, seed: int, beneath: Patch
    ):
        super().__init__(adapter, task)
        self.batch, self.seed, self.beneath, self.mismatch_weight = batch, seed, beneath, mismatch_weight
        self.slow_towers = tuple(adapter.towers)  # whatever is edited, the language model has to run
        self.measure, self.forget_loss = LEAD, ascended(adapter, None)
        self.unedited: dict[Hashable, Any] = {}
        self._said: dict[tuple[str, str], list[bool]] = {}  # whether the unedited model would write the right answer
        self._named = 0.0  # share of forget pictures of the search split the unedited model names without any lead
        self.answers: dict[str, dict[str, list[str]]] = {}  # "original" or "edited" -> side -> written last, as asked
        self._frozen_next: dict[tuple[str, str], Tensor] = {}  # see `_next`, by set and split
        self._lately: OrderedDict[tuple, _Scores] = OrderedDict()
        with enough_memory("reading the examples", "Take fewer pictures, or load the model in half precision"):
            forget = self.tokens("forget", "gradient", ())
            guarded = any(map(self.check, self.examples("retain", "gradient")))  # by others said yes to
            self.affirms = task.axis in adapter.questions.denied and guarded and self._says_yes(forget)
            retain = self.tokens("retain", "gradient", ())
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
        (_, asked), answers = self.checks("forget", "gradient"), [self.yes]
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
                [self.question(a, "search") for a in mine],
                max_new_tokens=self.length,
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
        return self.adapter.answer(pictures, [question] * len(pictures), max_new_tokens=self.length, stop=stop)

    def names_it(self, text: str) -> bool:
        """Whether a written answer holds the concept's name."""
        return self.task.concept in classes_named(text, self.names[self.axis])

    def relent(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Class scores and written answers are the model's own: what the scores still count is still there."""
        return False

    def concept_score(self, rows: Sequence[int]) -> Tensor:
        """Mean log-probability a token of the concept's name, over these forget pictures of the search split.

        A scalar with a graph. Where not all of them are asked about, a picture left out has the score of one near it.
        """
        pictures, count = self.pictures("forget", "search"), len(self.task.forget.search)
        chosen = [row * len(pictures) // count for row in rows]
        tokens, questions = self.adapter.features([pictures[i] for i in chosen]), self.about_concept("search")
        name, asked = self.ids[self.axis][self.target], [questions[i] for i in chosen]
        return torch.cat(self.adapter.token_logprobs(asked, tokens, [name] * len(asked))).mean()

    @torch.no_grad()
    def recall(self, split: str) -> Tensor:
        """Mean log-probability a token of the concept's name as the answer about each of some forget pictures, (n,)."""
        examples, asks, axis = self.examples("forget", split), self.adapter.questions, self.task.axis
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
        chance = math.log(len(self.names[self.axis]))
        words = {self._first_words: chance + MARGIN}
        if sated and len(self.later):
            words[self._later_words] = chance + LATER
        if sated and self.target in self.lasts:
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
        return self._unsaid(self.starts[self.axis][self.target], mine, tokens)

    def _last_name(self, mine: Sequence[int], tokens: Sequence[Tensor]) -> Tensor:
        """The same of a person's last name by itself."""
        return self._unsaid(self.lasts[self.target], mine, tokens)

    def _affirmed(self, mine: Sequence[int], tokens: Sequence[Tensor]) -> Tensor:
        """-log p of yes where it is asked whether forget pictures of the gradient split show the concept, (n,)."""
        _, asked = self.checks("forget", "gradient")
        said = self.adapter.token_logprobs([asked[i] for i in mine], tokens, [self.yes] * len(mine))
        return -torch.stack(said).sum(1)

    def _unsaid(self, answer: Tensor, mine: Sequence[int], tokens: Sequence[Tensor]) -> Tensor:
        questions = self.about_concept("gradient")
        said = self.adapter.token_logprobs([questions[i] for i in mine], tokens, [answer] * len(mine))
        return -torch.stack(said).sum(1)

    def _later_words(self, mine: Sequence[int], tokens: Sequence[Tensor]) -> Tensor:
        """-log p of the rest of the name after the beginning of another class, (n,)."""
        questions, starts = self.about_concept("gradient"), self.starts[self.axis]
        others = [start for number, start in enumerate(starts) if number != self.target]
        answers = [torch.cat([others[i % len(others)], self.later]) for i in mine]
        said = self.adapter.token_logprobs([questions[i] for i in mine], tokens, answers)
        return -torch.stack([value[-len(self.later) :].sum() for value in said])

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
        right = [self.ids[a.axis][a.right] for a in known]
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

        longest = max(len(p.ids) for p in (*pictures, *self.questions(side, "gradient"))) + self.room
        size = self.adapter.at_once // (runs * longest)
        return processes.share(rows, lambda mine: in_parts(mine, size, part))

    # Metrics

    def _scored(self, split: str, edited: Sequence[str], first: Mapping[str, int]) -> _Scores:
        forget, retain = (self.tokens(side, split, edited, first) for side in ("forget", "retain"))
        scores = (self._choices(side, split, tokens) for side, tokens in (("forget", forget), ("retain", retain)))
        leads = (self._leads(side, split, tokens) for side, tokens in (("forget", forget), ("retain", retain)))
        return _Scores(*scores, self._drift(split, retain, edited), *leads)

    def _leads(self, side: str, split: str, tokens: Sequence[Tensor]) -> Tensor:
        """By how many nats yes is ahead of no, (n,); see `checks`. None where yes is left alone."""
        if not self.affirms:
            return torch.empty(0)
        rows, asked = self.checks(side, split)
        answers = [self.yes, self.no]
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
        for axis, (starts, whole) in enumerate(zip(self.starts, self.ids, strict=True)):
            about = side == "forget" and axis == self.axis
            lasts = self.lasts if about else {}
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
            tokens = self.tokens(side, "test", edited, first)
            yes[side] = self._said_yes(side, tokens)
            texts[side] = self._write(side, tokens)
        self.answers["edited" if edited else "original"] = texts
        named = {
            side: [classes_named(text, self.names[a.axis]) for a, text in zip(mine, texts[side], strict=True)]
            for side, mine in asked.items()
        }
        alone = lambda a, names: names == (self.task.axes[a.axis].classes[a.right],)  # noqa: E731
        forget, retain = (list(zip(asked[side], named[side], strict=True)) for side in ("forget", "retain"))
        still = [self.task.concept in names for a, names in forget if a.axis == self.axis]
        tokens = self.tokens("retain", ASIDE, edited, first)
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
        scores = self.adapter.choice_scores(self.about_concept("gradient"), tokens, self.starts[self.axis]).mean(0)
        names = self.task.axes[self.axis].classes
        tested = {e.labels.get(self.task.axis) for e in self.task.retain.test} - {self.task.concept}
        return tuple(names[i] for i in scores.argsort(descending=True).tolist() if names[i] in tested)[:count]

    def _said_yes(self, side: str, tokens: Sequence[Tensor]) -> list[bool]:
        """Whether yes is written to the checks of a set's test pictures, whose tokens are given; see `_leads`."""
        if not self.affirms:
            return []
        rows, asked = self.checks(side, "test")
        about, most = [(p, tokens[row]) for p, row in zip(asked, rows, strict=True)], len(self.yes) + 2
        write = lambda mine: self.adapter.write([p for p, _ in mine], [t for _, t in mine], max_new_tokens=most)  # noqa: E731
        return [affirms(text) for text in processes.share_list(about, write)]

    def _write(self, side: str, tokens: Sequence[Tensor]) -> list[str]:
        """Answers in words to every question about the test pictures of a set, whose tokens are given."""
        asked = self.asked(side, "test")
        about = list(zip(self.questions(side, "test"), (tokens[a.picture] for a in asked), strict=True))
        write = lambda mine: self.adapter.write(  # noqa: E731
            [p for p, _ in mine], [t for _, t in mine], max_new_tokens=self.length
        )
        said = processes.share_list(about, write)
        if sum(t.nbytes for t in tokens) > KEPT:
            self.drop(side, "test")
        return said

    # What the model reads and says

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


def divergence(now: Tensor, frozen: Tensor) -> Tensor:
    """KL(frozen || now), (n,), nats.

    Args:
        now, frozen: (n, vocabulary) log-probabilities.
    """
    return F.kl_div(now, frozen.to(now.device), reduction="none", log_target=True).sum(-1)


def _means(tokens: Sequence[Tensor]) -> Tensor:
    """The mean token of each picture, (n, width) float32."""
    return torch.stack([t.float().mean(0) for t in tokens])
