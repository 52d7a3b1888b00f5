"""The compare panel: the same pictures before and after the edit, in groups, worst first."""

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr
from torch import Tensor

from components.cards import cards, cards_value, image_url
from components.examples_panel import read_files
from components.theme import capital
from razor.adapters.clip import ClipAdapter
from razor.errors import InputError
from razor.examples import Axis, Example, Task
from razor.patches import Patch

PER_GROUP = 5  # one row on a wide page
EMPTY = "Run the story, or grow the edit, and the same pictures appear here before and after."


@dataclass(frozen=True)
class ComparePanel:
    """The widgets this panel owns."""

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
        refresh = gr.Button("Compare suggested pictures", elem_id="compare", min_width=240)
    status = gr.HTML(apply_default_css=False, elem_id="compare-status")
    tiles = gr.HTML(apply_default_css=False, elem_id="compare-tiles")
    shown = cards("compare-cards", cards_value([], empty=EMPTY))
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
    return ComparePanel(shown, tiles, refresh, status, files, labels, ask, own)


def suggested(adapter: ClipAdapter, task: Task, patch: Patch, near: Sequence[str]) -> dict:
    """Target, neighbours and unrelated test pictures before and after the edit."""
    test, axis = task.retain.test, next(a for a in task.axes if a.name == task.axis)
    groups = [
        (
            "Target",
            "forget",
            f"pictures of {task.concept}; suppressed is what was asked for",
            _spread(task.forget.test),
        ),
        ("Nearest neighbours", "neighbour", "the first to suffer: " + ", ".join(near), _with_class(test, axis, near)),
        ("Unrelated", "retain", "should answer as before", _unrelated(test, task, near)),
    ]
    built, counts = [], {}
    for title, kind, note, examples in groups:
        if not examples:
            continue
        made = [
            card for chosen, group in _by_axis(examples, task) for card in compare(adapter, chosen, patch, group, task)
        ]
        made.sort(key=lambda card: card.pop("loss"), reverse=kind != "forget")  # worst first
        good = "suppressed" if kind == "forget" else "kept"
        counts[kind] = (sum(card["verdict"] == good for card in made), len(made))
        built.append({"title": title, "kind": kind, "note": note, "cards": made})
    return cards_value(built, _finding(task.concept, counts), EMPTY, forget_label=task.concept)


def own_pictures(adapter: ClipAdapter, patch: Patch, paths: Sequence[str], labels: str, task: Task | None) -> dict:
    """A person's own pictures against their own labels or the task's classes."""
    names = [name.strip() for name in labels.split(",") if name.strip()]
    if len(names) == 1:
        raise InputError("One label leaves nothing to choose from; give at least two, or none.")
    if names:
        axis = Axis(
            "label", {name: (f"a picture of {name}", name, f"a photo of {name}") for name in dict.fromkeys(names)}
        )
    elif task:
        axis = next(a for a in task.axes if a.name == task.axis)
    else:
        raise InputError("Give the labels to choose from, separated by commas.")
    loaded = read_files(paths)
    made = compare(adapter, axis, patch, loaded.examples, None)
    for card in made:
        card.pop("loss")
    changed = sum(card["verdict"] == "changed" for card in made)
    group = {"title": "Your pictures", "kind": "own", "note": " ".join(loaded.warnings), "cards": made}
    finding = f"The first answer changed for {changed} of {len(made)} pictures."
    return cards_value([group], finding, forget_label=task.concept if task else None)


def compare(
    adapter: ClipAdapter, axis: Axis, patch: Patch, examples: Sequence[Example], task: Task | None
) -> list[dict]:
    """One card a picture: probabilities of the likeliest classes before and after."""
    images = [e.image for e in examples]
    before = adapter.classify(images, axis)
    with patch.applied(adapter.model):
        after = adapter.classify(images, axis)
    return [_card(e, axis, b, a, task) for e, b, a in zip(examples, before, after, strict=True)]


def _card(e: Example, axis: Axis, before: Tensor, after: Tensor, task: Task | None) -> dict:
    names, truth = axis.classes, e.labels.get(axis.name)
    order = (before + after).argsort(descending=True)[:4].tolist()
    if truth in names and names.index(truth) not in order:
        order = [names.index(truth), *order[:3]]
    was, now = names[before.argmax()], names[after.argmax()]
    if task and axis.name == task.axis and truth == task.concept and truth in (was, now):
        verdict = "still recognised" if now == truth else "suppressed"
    else:
        verdict = "kept" if now == was else "changed"
    watched = names.index(truth) if truth in names else int(before.argmax())
    return {
        "image": image_url(e.image, 160),
        "title": e.caption,
        "truth": truth,
        "verdict": verdict,
        "bars": [{"label": names[i], "before": before[i].item(), "after": after[i].item()} for i in order],
        "loss": (before[watched] - after[watched]).item(),
    }


def _by_axis(examples: Sequence[Example], task: Task) -> list[tuple[Axis, list[Example]]]:
    """Each picture with the axis it is asked about: the target's where it has a class there, else its first."""
    asked: dict[str, list[Example]] = {}
    for e in examples:
        name = (
            task.axis if task.axis in e.labels else next((a.name for a in task.axes if a.name in e.labels), task.axis)
        )
        asked.setdefault(name, []).append(e)
    return [(next(a for a in task.axes if a.name == name), group) for name, group in asked.items()]


def _spread(examples: Sequence[Example]) -> list[Example]:
    """A few examples from all over the list."""
    count = min(PER_GROUP, len(examples))
    return [examples[i * len(examples) // count] for i in range(count)]


def _with_class(examples: Sequence[Example], axis: Axis, names: Sequence[str]) -> list[Example]:
    """As many of each named class, taking turns."""
    groups = [_spread([e for e in examples if e.labels.get(axis.name) == name]) for name in names]
    turns = [group[i] for i in range(PER_GROUP) for group in groups if i < len(group)]
    return turns[:PER_GROUP]


def _unrelated(examples: Sequence[Example], task: Task, near: Sequence[str]) -> list[Example]:
    """Taking turns between the target's own axis and elsewhere, where there is an elsewhere."""
    same = _spread([e for e in examples if task.axis in e.labels and e.labels[task.axis] not in near])
    other = _spread([e for e in examples if task.axis not in e.labels])
    turns = [group[i] for i in range(PER_GROUP) for group in (same, other) if i < len(group)]
    return turns[:PER_GROUP]


def _finding(concept: str, counts: dict[str, tuple[int, int]]) -> str:
    parts = []
    if "forget" in counts:
        parts.append(f"{concept} is suppressed in {counts['forget'][0]} of {counts['forget'][1]} pictures shown")
    for kind, name in (("neighbour", "neighbours"), ("retain", "unrelated pictures")):
        if kind in counts:
            parts.append(f"{counts[kind][0]} of {counts[kind][1]} {name} keep their answer")
    return capital("; ".join(parts)) + "."
