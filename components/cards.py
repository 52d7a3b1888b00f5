"""Before and after cards: the same picture, what the model said about it and what it says now."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from components.theme import script

KINDS = ("forget", "neighbour", "retain", "own")
VERDICTS = ("suppressed", "kept", "changed", "still recognised")
MAX_BARS = 5


def cards(elem_id: str, value: dict[str, Any] | None = None, visible: bool = True) -> gr.HTML:
    """The widget. Prop: `value` (see `cards_value`). Cards without bars become a gallery of small pictures."""
    return gr.HTML(
        value=value or cards_value([]),
        visible=visible,
        html_template='<div class="cards" data-ready="false"></div>',
        js_on_load=script("cards.js"),
        apply_default_css=False,
        elem_id=elem_id,
    )


def cards_value(
    groups: Sequence[Mapping[str, Any]],
    finding: str = "",
    empty: str = "",
    forget_label: str | None = None,
    sides: tuple[str, str] = ("original", "edited"),
) -> dict[str, Any]:
    """What `value` takes.

    Args:
        groups: title, kind (one of KINDS), note, and cards in the order to show them: image (see `image_url`), title,
            truth, verdict (one of VERDICTS) and bars of label, before and after, as shares of 1. A card without bars
            is drawn small, a verdict as its mark.
        finding: one sentence that says what the cards show.
        empty: what to do next, shown while there are no cards.
        forget_label: the class to forget; its bars are tagged. None tags the truth of the cards of kind "forget".
        sides: what before and after are called.

    Raises:
        ValueError: a kind or a verdict is none of those named above.
    """
    clean = [_clean_group(group) for group in groups]
    return {"groups": clean, "finding": finding, "empty": empty, "forget_label": forget_label, "sides": list(sides)}


def _clean_group(group: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "title": str(group["title"]),
        "kind": _one_of(group.get("kind", "own"), KINDS, "kind of group"),
        "note": str(group.get("note") or ""),
        "cards": [_clean_card(card) for card in group["cards"]],
    }


def _clean_card(card: Mapping[str, Any]) -> dict[str, Any]:
    truth, verdict = card.get("truth"), card.get("verdict")
    bars = [_clean_bar(bar) for bar in (card.get("bars") or [])[:MAX_BARS]]
    return {
        "image": str(card["image"]),
        "title": str(card.get("title") or ""),
        "truth": None if truth is None else str(truth),
        "verdict": None if verdict is None else _one_of(verdict, VERDICTS, "verdict"),
        "bars": bars,
    }


def _clean_bar(bar: Mapping[str, Any]) -> dict[str, Any]:
    shares = {side: float(bar[side]) for side in ("before", "after")}
    return {"label": str(bar["label"])} | {side: v if math.isfinite(v) else 0.0 for side, v in shares.items()}


def _one_of(word: str, words: Sequence[str], what: str) -> str:
    if word not in words:
        raise ValueError(f"No {what} named {word!r}. Pick one of {', '.join(words)}.")
    return word
