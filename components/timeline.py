"""The growth timeline: what each round added, and what forgetting and retention did meanwhile."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from components.theme import plotly_head, script

CURVES = ("forget", "retain", "neighbour")


def timeline(elem_id: str = "timeline") -> gr.HTML:
    """The widget. Prop: `value` (see `timeline_value`). Event: `round_pick`, with the round's `index`."""
    return gr.HTML(
        value=timeline_value([]),
        html_template='<div class="timeline" data-ready="false"></div>',
        head=plotly_head(),
        js_on_load=script("timeline.js"),
        apply_default_css=False,
        elem_id=elem_id,
    )


def timeline_value(
    rounds: Sequence[Mapping[str, Any]], target: float | None = None, finding: str = ""
) -> dict[str, Any]:
    """What `value` takes.

    Args:
        rounds: index, unit (None for the unedited model), accepted, note, seconds, and forget, retain and neighbour,
            each None or a mapping of value, low, high (shares of 1) and n. A rejected round carries what was measured
            before it was taken back.
        target: the forget accuracy to reach, a share of 1; None draws no line.
        finding: one sentence that says what the curves show.
    """
    clean = [_clean_round(one) for one in rounds]
    return {"rounds": clean, "target": _share(target), "finding": finding}


def _clean_round(one: Mapping[str, Any]) -> dict[str, Any]:
    unit = one.get("unit")
    return {
        "index": int(one["index"]),
        "unit": None if unit is None else str(unit),
        "accepted": bool(one["accepted"]),
        "note": str(one.get("note") or ""),
        "seconds": _share(one.get("seconds")),
    } | {name: _clean_point(one.get(name)) for name in CURVES}


def _clean_point(point: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if point is None or _share(point.get("value")) is None:
        return None
    n = point.get("n")
    ends = {name: _share(point.get(name)) for name in ("value", "low", "high")}
    return ends | {"n": None if n is None else int(n)}


def _share(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else float(number)


def round_picked(evt_data: Any, rounds: int) -> int:
    """The index in a `round_pick` event, checked against how many rounds there are.

    Raises:
        ValueError: there is no such round; anyone can send an event.
    """
    try:
        index = evt_data.get("index") if isinstance(evt_data, Mapping) else getattr(evt_data, "index", None)
    except TypeError:  # the event carried no mapping at all
        index = None
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < rounds:
        raise ValueError(f"A picked round must be a whole number from 0 to {rounds - 1}.")
    return index
