"""The panel of screen 3 for models that answer in words: the same questions on both sides of an edit."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

import gradio as gr
from gradio.utils import get_upload_folder

from components.answer_cards import answer_cards, answers_value
from components.compare_panel import ORIGINAL
from razor.answers import NAMED, RULES, TABLES, Question, read_questions, score
from razor.asking import GROUPS, SUGGESTED, Answered, Ask, table, verdict
from razor.carry import Carried
from razor.errors import InputError
from razor.examples import open_image
from razor.growth import Growth
from razor.picture_files import image_url
from razor.wording import capital

COUNTS = (3, 6, 12)  # three fit side by side
KINDS = {"target": "forget", "paraphrase": "paraphrase", "check": "check", "neighbour": "neighbour", "other": "retain",
         "neutral": "neutral", "own": "own"}  # group -> kind of the widget's group  # fmt: skip
NO_RULE = ("None: only compare", "")
RULE_NAMES = {"mme": "MME", "gqa": "GQA", "mmbench": "MMBench", "textvqa": "TextVQA"}
WAYS = {"target": "asked outright", "paraphrase": "in other words", "check": "asked for yes or no"}
MANY = 200  # cards of one's own questions shown; the table holds them all
THUMB = 160


@dataclass(frozen=True)
class AnswerPanel:
    """The widgets this panel owns."""

    box: gr.Column
    offer: gr.Column  # an edit of a CLIP's image tower that fits this model
    offer_text: gr.HTML
    carry: gr.Button
    groups: gr.CheckboxGroup
    count: gr.Radio
    ask: gr.Button
    stop: gr.Button
    status: gr.HTML
    stale: gr.HTML
    cards: gr.HTML
    file: gr.DownloadButton
    pictures: gr.File
    questions: gr.Textbox
    rule: gr.Dropdown
    ask_own: gr.Button
    own_status: gr.HTML
    own: gr.HTML
    own_file: gr.DownloadButton

    def drawn(self) -> list[gr.components.Component]:
        """Everything handlers write to."""
        return [self.box, self.offer, self.offer_text, self.status, self.stale, self.cards, self.file, self.own_status,
                self.own, self.own_file]  # fmt: skip

    def blank(self) -> dict:
        """The panel with nothing asked; what a person typed stays."""
        return {
            **dict.fromkeys((self.status, self.stale, self.own_status), ""),
            self.cards: answers_value([]),
            self.own: gr.update(visible=False),
            self.file: gr.update(visible=False),
            self.own_file: gr.update(visible=False),
        }


def build() -> AnswerPanel:
    with gr.Column(visible=False, elem_id="asking") as box:
        with gr.Column(visible=False, elem_id="carry-offer", elem_classes="panel") as offer:
            offer_text = gr.HTML(apply_default_css=False)
            carry = gr.Button("Carry it into this model", variant="primary", size="sm", elem_id="carry")
        with gr.Row():
            groups = gr.CheckboxGroup(
                [(GROUPS[name][0], name) for name in SUGGESTED], value=[*SUGGESTED], label="Suggested questions",
                elem_id="question-groups", min_width=420, scale=4,
            )  # fmt: skip
            count = gr.Radio([*COUNTS], value=COUNTS[0], label="Of each", elem_id="question-count", min_width=200)
        with gr.Row(elem_classes="actions"):
            ask = gr.Button("Ask both sides", variant="primary", elem_id="ask-both", min_width=180)
            stop = gr.Button("Stop", variant="stop", elem_id="stop-asking", min_width=90)
            file = gr.DownloadButton("Download the answers", visible=False, elem_id="answers-file", min_width=200)
        status = gr.HTML(apply_default_css=False, elem_id="asking-status")
        stale = gr.HTML(apply_default_css=False, elem_id="asking-stale")
        shown = answer_cards("answer-cards")
        own = _own()
    return AnswerPanel(
        box=box, offer=offer, offer_text=offer_text, carry=carry, groups=groups, count=count, ask=ask, stop=stop,
        status=status, stale=stale, cards=shown, file=file, **own,
    )  # fmt: skip


def _own() -> dict:
    """A person's own pictures and questions, by field of the panel."""
    with gr.Accordion("Ask about your own pictures", open=False, elem_id="ask-own-questions"):
        with gr.Row():
            pictures = gr.File(
                file_count="multiple", file_types=["image", *TABLES], label="Pictures, and maybe a table",
                elem_id="question-files", scale=2, min_width=280,
            )  # fmt: skip
            with gr.Column(scale=3, min_width=320):
                questions = gr.Textbox(
                    label="Questions, one a line", lines=3, max_lines=8, elem_id="own-questions",
                    placeholder="Who is this?\nWhat is the person wearing?",
                    info="Asked about every picture. A csv or jsonl table brings its own: image, question, answer, "
                    "and options A to F; so does a file of MME, GQA, TextVQA or MMBench",
                )  # fmt: skip
                rule = gr.Dropdown(
                    [NO_RULE, *((RULE_NAMES[name], name) for name in RULES)], value="", label="Score a table by",
                    info="The rule of a benchmark, for a table with right answers", elem_id="question-rule",
                )  # fmt: skip
        with gr.Row(elem_classes="actions"):
            ask = gr.Button("Ask these on both sides", elem_id="ask-own-both", min_width=220)
            file = gr.DownloadButton("Download the answers", visible=False, elem_id="own-answers-file", min_width=200)
        status = gr.HTML(apply_default_css=False, elem_id="own-asking-status")
        shown = answer_cards("own-answer-cards", visible=False)
    return {
        "pictures": pictures, "questions": questions, "rule": rule, "ask_own": ask, "own_status": status, "own": shown,
        "own_file": file,
    }  # fmt: skip


# What is asked -------------------------------------------------------------------------------------------------------


def own_questions(paths: Sequence[str], typed: str) -> tuple[list[Question], tuple[str, ...]]:
    """The questions of a table among the files, or the typed ones about every picture, and what is not as told.

    Raises:
        InputError: several tables, no picture, or no question.
        ExampleError: see answers.read_questions.
    """
    files = [Path(path) for path in paths]
    tables = [file for file in files if file.suffix.lower() in TABLES]
    pictures = [file for file in files if file not in tables]
    if len(tables) > 1:
        raise InputError(f"{tables[0].name} and {tables[1].name} are both tables; give one at a time.")
    if tables:
        questions, warnings = read_questions(tables[0], {file.name: file for file in pictures})
        return list(questions), warnings
    texts = [line.strip() for line in typed.splitlines() if line.strip()]
    if not pictures:
        raise InputError("There is no picture to ask about; add one, or a table with the pictures it names.")
    if not texts:
        raise InputError("There is no question; write one, or add a table of questions.")
    opened = [(open_image(file, file.name), file.name) for file in pictures]
    return [Question(image, text, source=name) for image, name in opened for text in texts], ()


def check_rule(rule: str, questions: Sequence[Question]) -> None:
    """Whether a benchmark can score these questions, before any is asked.

    Raises:
        InputError: see answers.score.
    """
    if rule:
        score(rule, questions, [""] * len(questions))


# An edit of a CLIP over the same image tower --------------------------------------------------------------------------


def offer_text(left: Growth, name: str) -> str:
    """What can be carried, and what is not known of it."""
    units = len(left.edit_set.active)
    return (
        f"{name} sees through the image tower of {left.adapter.name}, where you edited {units} "
        f"unit{'' if units == 1 else 's'} to forget {left.task.concept}. The edit can be carried over; what {name} "
        "forgets by it is another question, and is asked at once."
    )


def carried_text(left: Growth, found: Carried) -> str:
    """What was carried and what was left out."""
    said = f"{found.patch.parameters_edited:,} numbers of the image tower of {left.adapter.name} were carried over."
    where = "Check for conflicts, under Several concepts on the second screen, counts what they do on test pictures."
    return " ".join([said, *found.notes, where])


# What is shown -------------------------------------------------------------------------------------------------------


def answers_shown(
    asked: Sequence[Ask],
    answered: Sequence[Answered],
    concept: str,
    sides: tuple[str, str],
    busy: bool = False,
    finding: str = "",
) -> dict:
    """The cards: every question with its two answers, group by group; while `busy` also those not answered yet.

    Args:
        asked: all questions, in order.
        answered: the first of them.
    """
    found, original = dict(zip(map(id, asked), answered, strict=False)), sides[0] == ORIGINAL
    groups = []
    for group in dict.fromkeys(ask.group for ask in asked):
        title, note = GROUPS[group]
        mine = [ask for ask in asked if ask.group == group][:MANY]
        cards = [_card(ask, found.get(id(ask)), original) for ask in mine if busy or id(ask) in found]
        if cards:
            groups.append({"title": title, "kind": KINDS[group], "note": note, "answers": cards})
    progress = {"done": len(answered), "total": len(asked)} if busy else None
    return answers_value(groups, finding=finding, sides=sides, name=concept, progress=progress)


def _card(ask: Ask, found: Answered | None, original: bool) -> dict:
    """One question; that the unedited model names what is to be forgotten is no fault of it."""
    card = {"image": image_url(ask.image, THUMB), "question": ask.text, "right": ask.right}
    if found is None:
        return {**card, "before": None, "after": None, "difference": [], "flags": ((), ()), "verdict": "", "tokens": []}
    left, right = found.flags
    tokens = [
        {"token": token, "before": was, "after": now}
        for (token, was), (_, now) in zip(*found.name, strict=True)
    ]  # fmt: skip
    return {
        **card,
        "before": found.said[0],
        "after": found.said[1],
        "difference": found.difference,
        "flags": (tuple(flag for flag in left if not (original and flag == NAMED)), right),
        "verdict": verdict(found),
        "tokens": tokens,
    }


def finding(answered: Sequence[Answered], concept: str, sides: tuple[str, str]) -> str:
    """What the answers come to, counted."""
    counts: dict[str, list[Answered]] = {}
    for a in answered:
        counts.setdefault(a.ask.group, []).append(a)
    said = []
    for group, what in WAYS.items():
        if mine := counts.get(group):
            named = [sum(NAMED in a.flags[side] for a in mine) for side in (0, 1)]
            said.append(f"{what} in {named[0]} \u2192 {named[1]} of {len(mine)} answers")
    kept = [a for group in ("neighbour", "other", "neutral", "own") for a in counts.get(group, ())]
    parts = [f"{capital(concept)} is named, {sides[0]} \u2192 {sides[1]}: {', '.join(said)}."] if said else []
    if kept:
        same = sum(verdict(a) == "kept" for a in kept)
        parts.append(f"Of {len(kept)} other answers {same} {'is' if same == 1 else 'are'} the same word for word.")
    return " ".join(parts)


def scored_text(rule: str, questions: Sequence[Question], answered: Sequence[Answered], sides: tuple[str, str]) -> str:
    """How both sides do by a benchmark's rule, with intervals."""
    said = []
    for number, side in enumerate(sides):
        found = score(rule, questions, [a.said[number] for a in answered])
        shares = [
            f"{name} {m.value:.1%} (95 % interval {m.low:.1%} to {m.high:.1%}, n = {m.n})" for name, m in found.items()
        ]
        said.append(f"{side} {', '.join(shares)}")
    return f"By the rule of {RULE_NAMES[rule]}: {'; '.join(said)}."


def answers_file(answered: Sequence[Answered], sides: tuple[str, str]) -> str:
    """The path of a csv with every answer; it goes when the visitor does."""
    folder = Path(get_upload_folder())
    folder.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", encoding="utf-8", prefix="answers-", suffix=".csv", dir=folder, delete=False) as file:
        file.write(table(answered, sides))
    return file.name
