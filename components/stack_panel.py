"""Several concepts: the stack of patches, their order and switches, and whether one revives another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from types import MappingProxyType
from typing import Any

import gradio as gr

from components.events import field
from components.theme import script
from razor.stack import Conflict, Stack
from razor.wording import Tested

ACTIONS = ("on", "off", "up", "down", "drop", "again")
SEEN = "recognised in"
EMPTY = "When an edit is good, put it on the stack, choose another target on screen 1, and forget that one too."

_revisions = count(1)


@dataclass(frozen=True)
class StackPanel:
    """The widgets this panel owns."""

    push: gr.Button
    check: gr.Button
    status: gr.HTML
    list: gr.HTML


def build() -> StackPanel:
    with gr.Accordion("Several concepts", open=False, elem_id="concepts"):
        with gr.Row(elem_classes="actions"):
            push = gr.Button("Put this edit on the stack", elem_id="stack-push", min_width=220)
            check = gr.Button("Check for conflicts", elem_id="stack-check", min_width=180)
        status = gr.HTML(apply_default_css=False, elem_id="stack-status")
        shown = gr.HTML(
            value=stack_value(Stack(), {}),
            html_template='<div class="stack" data-ready="false"></div>',
            js_on_load=script("stack.js"),
            apply_default_css=False,
            elem_id="stack",
        )
    return StackPanel(push, check, status, shown)


def stack_value(stack: Stack, found: Mapping[str, Conflict], seen: Mapping[str, str] = MappingProxyType({})) -> dict:
    """What the list takes: concepts from first to last, each with what the others do to it where that was measured.

    Args:
        seen: name -> how a test number of this concept is said, as in "recognised in"; see wording.py.
    """
    return {
        "rev": next(_revisions),
        "empty": EMPTY,
        "concepts": [
            {
                "name": c.name,
                "on": c.on,
                "units": len(c.units),
                "beneath": list(c.beneath),
                "stale": stack.stale(c.name),
                "numbers": _numbers(found[c.name], seen.get(c.name, SEEN)) if c.on and c.name in found else None,
            }
            for c in stack.concepts
        ],
    }


def _numbers(c: Conflict, seen: str) -> dict:
    keys = ("unedited", "alone", "together")
    shares = {key: getattr(c, key).forget_accuracy.to_json(None) for key in keys}
    return shares | {"revived": c.revived, "by": c.revived_by, "seen": seen}


def conflict_text(found: Sequence[Conflict], counted: Tested) -> str:
    """Whether any concept is brought back by the others, in one or two sentences."""
    if not found:
        return "Nothing is switched on, so there is nothing to check."
    revived = [c for c in found if c.revived]
    said = [
        f"{c.name} comes back: {counted.seen} {c.together.forget_accuracy.value:.1%} of {c.together.forget_accuracy.n} "
        f"{counted.what} with everything on, {c.alone.forget_accuracy.value:.1%} with its own patch alone"
        + (f"; {c.revived_by} brings it back." if c.revived_by else ".")
        for c in revived
    ]
    if said:
        return " ".join(said)
    names = ", ".join(c.name for c in found)
    worst = max(found, key=lambda c: c.together.forget_accuracy.value).together.forget_accuracy
    return (
        f"No concept revives another: with everything on, none is {counted.seen} more than {worst.value:.1%} of "
        f"{worst.n} {counted.what} ({names})."
    )


def stack_change(evt: Any, names: Sequence[str]) -> tuple[str, str]:
    """(action, name) of a `stack_change` event.

    Raises:
        ValueError: no such action or concept; anyone can send an event.
    """
    action, name = field(evt, "action"), field(evt, "name")
    if action not in ACTIONS or not isinstance(name, str) or name not in names:
        raise ValueError("A change of the stack must name one of its concepts and what to do with it.")
    return action, name
