"""The compare panel: the same pictures on two sides, before and after an edit or two branches, worst first."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import gradio as gr
from torch import Tensor

from components.cards import cards, cards_value
from components.examples_panel import read_files
from razor.adapters.clip import ClipAdapter
from razor.errors import InputError
from razor.examples import Axis, Example, Task
from razor.growth import Growth
from razor.patches import Patch
from razor.picture_files import image_url
from razor.sights import answers_of, axis_of, axis_of_labels, picture_groups, verdict
from razor.wording import capital

EMPTY = "Run the story, or grow the edit, and the same pictures appear here before and after."
ORIGINAL, NOW = "original", "now"  # what a side can show, besides a branch's end
SIDES = (ORIGINAL, NOW)
_BRANCH = "branch:"


@dataclass(frozen=True)
class ComparePanel:
    """The widgets this panel owns."""

    left: gr.Dropdown
    right: gr.Dropdown
    answers: gr.Column  # what a CLIP answers; a model that draws has picture_panel.py instead
    cards: gr.HTML
    tiles: gr.HTML
    refresh: gr.Button
    status: gr.HTML
    files: gr.File
    labels: gr.Textbox
    ask: gr.Button
    own: gr.HTML


def build() -> ComparePanel:
    with gr.Row(elem_classes="actions"):
        choices = _choices(())
        left = gr.Dropdown(choices, value=ORIGINAL, label="Before", elem_id="compare-left", min_width=200)
        right = gr.Dropdown(choices, value=NOW, label="After", elem_id="compare-right", min_width=200)
        refresh = gr.Button("Compare suggested pictures", elem_id="compare", min_width=240)
    status = gr.HTML(apply_default_css=False, elem_id="compare-status")
    tiles = gr.HTML(apply_default_css=False, elem_id="compare-tiles")
    with gr.Column(elem_id="answers") as answers:
        shown = cards("compare-cards", nothing())
        with gr.Accordion("Ask about your own pictures", open=True, elem_id="ask-own"), gr.Row():
            with gr.Column(scale=2, min_width=280):
                files = gr.File(file_count="multiple", file_types=["image"], label="Pictures", elem_id="ask-files")
            with gr.Column(scale=3, min_width=320):
                labels = gr.Textbox(
                    label="Labels",
                    placeholder="cat, dog, rabbit",
                    info="Comma-separated; empty uses the classes of the task",
                    elem_id="ask-labels",
                )
                ask = gr.Button("Compare these", elem_id="ask")
        own = cards("own-cards", visible=False)
    return ComparePanel(left, right, answers, shown, tiles, refresh, status, files, labels, ask, own)


# Sides ---------------------------------------------------------------------------------------------------------------


def branch_of(side: str) -> str | None:
    """The branch a side shows; None for the original and the edit as it stands."""
    return side.removeprefix(_BRANCH) if side.startswith(_BRANCH) else None


def side_of(branch: str) -> str:
    """The side that shows a branch."""
    return _BRANCH + branch


def side_name(side: str) -> str:
    """What a side is called on the page."""
    return {ORIGINAL: "original", NOW: "edited"}.get(side) or branch_of(side)


def toggled(sides: tuple[str, str] | None, name: str) -> tuple[str, str] | None:
    """The sides after a branch was chosen for comparison, or let go: one beside the edit, or two beside each other."""
    chosen = [b for side in sides or () if (b := branch_of(side)) is not None]
    chosen = [b for b in chosen if b != name] if name in chosen else [*chosen, name][-2:]
    if not chosen:
        return None
    return _BRANCH + chosen[0], _BRANCH + chosen[1] if len(chosen) > 1 else NOW


def renamed(sides: tuple[str, str] | None, name: str, to: str) -> tuple[str, str] | None:
    """The sides after a branch got another name."""
    return sides and tuple(_BRANCH + to if branch_of(side) == name else side for side in sides)


def without(sides: tuple[str, str] | None, name: str) -> tuple[str, str] | None:
    """The sides after a branch was deleted: the usual ones where it was among them."""
    return None if any(branch_of(side) == name for side in sides or ()) else sides


def side_choices(panel: ComparePanel, branches: Collection[str], sides: tuple[str, str] | None) -> dict:
    """Both menus for the branches there are."""
    left, right = sides or SIDES
    choices = _choices(branches)
    return {panel.left: gr.update(choices=choices, value=left), panel.right: gr.update(choices=choices, value=right)}


def checked(left: str, right: str, branches: Collection[str]) -> tuple[str, str]:
    """The sides chosen in the menus.

    Raises:
        InputError: a side is none there is, such as a branch that was deleted meanwhile.
    """
    for side in (left, right):
        if side not in SIDES and branch_of(str(side)) not in branches:
            raise InputError(
                f"There is no branch {branch_of(str(side)) or side!r} any more; compare the original with the edit, "
                "or pick another branch."
            )
    return left, right


def _choices(branches: Collection[str]) -> list[tuple[str, str]]:
    named = [(f"Branch: {name}", _BRANCH + name) for name in branches]
    return [("The original model", ORIGINAL), ("The edit as it stands", NOW), *named]


# Cards ---------------------------------------------------------------------------------------------------------------


def nothing() -> dict:
    """The cards before anything is compared."""
    return cards_value([], empty=EMPTY)


def suggested(
    growth: Growth, patches: Sequence[Patch], sides: tuple[str, str] = SIDES, known: dict | None = None
) -> dict:
    """Target, neighbours and unrelated test pictures on both sides.

    Args:
        patches: the whole edit of the left and of the right side.
        known: where the unedited model's answers are kept from one call to the next.
    """
    task, known = growth.task, {} if known is None else known
    groups = [(*group, [(axis_of(e, task), e) for e in examples]) for *group, examples in _groups(growth)]
    asked = [pair for *_, pairs in groups for pair in pairs]
    answers = []
    for patch in patches:
        if patch.deltas:
            answers.append(answers_of(growth.adapter, patch, asked))
        else:
            answers.append(_unedited(growth, asked, known))
    rows = zip(asked, *answers, strict=True)
    built, counts = [], {}
    for title, kind, note, pairs in groups:
        made = [_card(e, axis, *next(rows)[1:], task) for axis, e in pairs]
        made.sort(key=lambda card: card["loss"], reverse=kind != "forget")  # worst first
        counts[kind] = [card.pop("seen") for card in made]
        for card in made:
            card.pop("loss")
        built.append({"title": title, "kind": kind, "note": note, "cards": made})
    names = tuple(map(side_name, sides))
    finding = _finding(task.concept, counts, names if sides[0] != ORIGINAL else None)
    return cards_value(built, finding, EMPTY, forget_label=task.concept, sides=names)


def _unedited(growth: Growth, asked: Sequence[tuple[Axis, Example]], known: dict) -> list[Tensor]:
    if "unedited" not in known:
        known["unedited"] = answers_of(growth.adapter, Patch(), asked)
    return known["unedited"]


def _groups(growth: Growth) -> list[tuple[str, str, str, list[Example]]]:
    near = growth.bench.neighbours
    notes = {
        "Target": ("forget", f"pictures of {growth.task.concept}; suppressed is what was asked for"),
        "Nearest neighbours": ("neighbour", "the first to suffer: " + ", ".join(near)),
        "Unrelated": ("retain", "should answer as before"),
    }
    return [(title, *notes[title], examples) for title, examples in picture_groups(growth.task, near).items()]


def preview(shown: dict) -> dict:
    """The suggested comparison in small: each picture with its verdict."""
    groups = [{**group, "note": "", "cards": [{**c, "bars": []} for c in group["cards"]]} for group in shown["groups"]]
    return cards_value(groups, shown["finding"], EMPTY)


def own_pictures(
    adapter: ClipAdapter,
    patches: Sequence[Patch],
    paths: Sequence[str],
    labels: str,
    task: Task | None,
    sides: tuple[str, str] = SIDES,
) -> dict:
    """A person's own pictures against their own labels or the task's classes."""
    names = [name.strip() for name in labels.split(",") if name.strip()]
    if names:
        axis = axis_of_labels(names)
    elif task:
        axis = next(a for a in task.axes if a.name == task.axis)
    else:
        raise InputError("Give the labels to choose from, separated by commas.")
    loaded = read_files(paths)
    made = compare(adapter, axis, patches, loaded.examples, None)
    changed = sum(card["verdict"] == "changed" for card in made)
    for card in made:
        card.pop("loss"), card.pop("seen")
    group = {"title": "Your pictures", "kind": "own", "note": " ".join(loaded.warnings), "cards": made}
    finding = f"The first answer changed for {changed} of {len(made)} pictures."
    return cards_value(
        [group], finding, forget_label=task.concept if task else None, sides=tuple(map(side_name, sides))
    )


def compare(
    adapter: ClipAdapter, axis: Axis, patches: Sequence[Patch], examples: Sequence[Example], task: Task | None
) -> list[dict]:
    """One card a picture: probabilities of the likeliest classes under each of two edits."""
    asked = [(axis, e) for e in examples]
    answers = [answers_of(adapter, patch, asked) for patch in patches]
    return [_card(e, axis, b, a, task) for e, b, a in zip(examples, *answers, strict=True)]


def _card(e: Example, axis: Axis, before: Tensor, after: Tensor, task: Task | None) -> dict:
    names, truth = axis.classes, e.labels.get(axis.name)
    order = (before + after).argsort(descending=True)[:4].tolist()
    if truth in names and names.index(truth) not in order:
        order = [names.index(truth), *order[:3]]
    was, now = names[before.argmax()], names[after.argmax()]
    watched = names.index(truth) if truth in names else int(before.argmax())
    return {
        "image": image_url(e.image, 160),
        "title": e.caption,
        "truth": truth,
        "verdict": verdict(task, axis, e, was, now),
        "bars": [{"label": names[i], "before": before[i].item(), "after": after[i].item()} for i in order],
        "loss": (before[watched] - after[watched]).item(),
        "seen": (was == truth, now == truth, was == now),
    }


def _finding(concept: str, counts: dict[str, list[tuple]], names: tuple[str, str] | None) -> str:
    """What the cards show; `names` are the two sides' where neither is the original."""
    parts = []
    if "forget" in counts:
        seen, n = counts["forget"], len(counts["forget"])
        left, right = (sum(card[i] for card in seen) for i in range(2))
        if names:
            parts.append(f"of {n} pictures of {concept} {names[0]} recognises {left} and {names[1]} {right}")
        else:
            gone = sum(was and not now for was, now, _ in seen)
            parts.append(f"{concept} is suppressed in {gone} of {n} pictures shown")
    for kind, name in (("neighbour", "neighbours"), ("retain", "unrelated pictures")):
        if kind in counts:
            same = sum(alike for _, _, alike in counts[kind])
            parts.append(f"{same} of {len(counts[kind])} {name} {'answer alike' if names else 'keep their answer'}")
    return capital("; ".join(parts)) + "."
