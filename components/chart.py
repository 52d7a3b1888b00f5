"""A read-only chart: a Plotly figure as plain JSON, in the page's own colours and type, whose points can be picked."""

import math
from collections.abc import Collection, Mapping, Sequence
from html import escape
from itertools import count
from typing import Any

import gradio as gr

from components.events import field
from components.theme import plotly_head, script

TOKENS = ("forget", "retain", "neighbour", "original", "edited", "ink", "soft", "line", "paper")
PICKS = (None, "brush")

_revisions = count(1)


def chart(elem_id: str, empty: str = "Run the edit to draw this chart.") -> gr.HTML:
    """The widget. Props: `value` (see `chart_value`), `marked` (see `marked_value`). Events: `point_pick` {key} (see
    `picked_key`) and `points_select` {keys} (see `selected_keys`).

    Args:
        empty: what to do next, shown while there is nothing to draw.
    """
    return gr.HTML(
        value=chart_value([], {}),
        marked=marked_value([]),
        html_template=f'<div class="chart" data-ready="false" data-empty="{escape(empty)}"></div>',
        head=plotly_head(),
        js_on_load=script("chart.js"),
        apply_default_css=False,
        elem_id=elem_id,
    )


def chart_value(
    data: Sequence[Mapping[str, Any]],
    layout: Mapping[str, Any],
    *,
    finding: str = "",
    alt: str = "",
    pick: str | None = None,
) -> dict[str, Any]:
    """What `value` takes.

    A string "token:forget" (or another of TOKENS) anywhere in the figure becomes that colour of the present mode.
    Plotly reads tags in its texts, so words a person wrote go through `literal`. NaN and infinity become None.

    Args:
        data: Plotly traces: scatter, bar, heatmap, box or violin. A point can be picked when its customdata, or the
            first entry of it, is a text: the point's key.
        layout: Plotly layout, laid over the page's own: fonts, colours, margins, grid and a height of 320 px.
        finding: one sentence that says what the chart shows.
        alt: what a screen reader hears; the finding where it is empty.
        pick: "brush" also lets a person draw a box around points (a lasso with layout.dragmode "lasso").

    Raises:
        ValueError: `pick` is none of PICKS, or the figure holds something that is not JSON.
    """
    if pick not in PICKS:
        raise ValueError(f"No way to pick named {pick!r}. Pick 'brush' or None.")
    figure = {"data": _plain(list(data)), "layout": _plain(layout)}
    return figure | {"finding": finding, "alt": alt, "pick": pick, "rev": next(_revisions)}


def marked_value(keys: Sequence[str]) -> dict[str, Any]:
    """What `marked` takes: keys of the points to draw a ring around, since they are selected elsewhere."""
    return {"rev": next(_revisions), "keys": [str(key) for key in keys]}


def literal(text: str) -> str:
    """A text as Plotly shows it unchanged, whatever tags it seems to hold."""
    return escape(text, quote=False)


def _plain(part: Any) -> Any:
    if part is None or isinstance(part, str | bool | int):
        return part
    if isinstance(part, float):
        return part if math.isfinite(part) else None
    if isinstance(part, Mapping):
        return {str(key): _plain(value) for key, value in part.items()}
    if isinstance(part, Sequence):
        return [_plain(value) for value in part]
    if hasattr(part, "tolist"):  # numpy and torch
        return _plain(part.tolist())
    raise ValueError(f"A figure takes numbers, texts, lists and mappings, not {type(part).__name__}.")


# ---------------------------------------------------------------- events


def picked_key(evt_data: Any, keys: Collection[str]) -> str:
    """The key in a `point_pick` event, checked against the keys there are.

    Raises:
        ValueError: there is no such point; anyone can send an event.
    """
    key = field(evt_data, "key")
    if not isinstance(key, str) or key not in keys:
        raise ValueError("A picked point must be one of the points on the chart.")
    return key


def selected_keys(evt_data: Any, keys: Collection[str]) -> list[str]:
    """The keys in a `points_select` event, each once, in the order sent; empty when a selection was cleared.

    Raises:
        ValueError: it is no list, or one of them is no point of the chart; anyone can send an event.
    """
    sent = field(evt_data, "keys")
    if not isinstance(sent, list) or not all(isinstance(key, str) and key in keys for key in sent):
        raise ValueError("Selected points must be a list of points on the chart.")
    return list(dict.fromkeys(sent))
