"""The drift view: where pictures and words lie before the edit, and where it moves them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from components.cards import cards, cards_value
from components.chart import chart, chart_value, literal
from razor.drift import Drift, PictureDrift, WordDrift
from razor.growth import Growth

STILL = 1e-6  # a smaller move is rounding
VERDICTS = {  # verdict -> colour and symbol
    "correctly forgotten": ("retain", "circle"),
    "not forgotten": ("forget", "circle-open"),
    "overly forgotten": ("neighbour", "x"),
    "kept": ("original", "circle"),
    "never known": ("soft", "circle-open-dot"),
}


@dataclass(frozen=True)
class DriftPanel:
    """The widgets this panel owns."""

    box: gr.Accordion
    run: gr.Button
    auto: gr.Checkbox
    status: gr.HTML
    chart: gr.HTML
    picked: gr.HTML

    def blank(self) -> dict:
        """The view empty."""
        return {
            self.chart: gr.update(value=chart_value([], {})),
            self.picked: gr.update(visible=False),
            self.status: "",
        }


def build() -> DriftPanel:
    with gr.Accordion("What moved?", open=False, elem_id="drift") as box:
        with gr.Row(elem_classes="actions"):
            run = gr.Button("Show what moved", elem_id="drift-run", min_width=180)
            auto = gr.Checkbox(False, label="After every change", elem_id="drift-auto", min_width=180)
        status = gr.HTML(apply_default_css=False, elem_id="drift-status")
        with gr.Row():
            with gr.Column(scale=3, min_width=480, elem_classes="panel"):
                view = chart("drift-chart", "Show what moved to see pictures and words before and after the edit.")
            with gr.Column(scale=1, min_width=256):
                picked = cards("drift-picked", visible=False)
    return DriftPanel(box, run, auto, status, view, picked)


def drift_value(growth: Growth, found: Drift) -> dict:
    """Points after the edit, an arrow from where each lay before, and the class words as labelled diamonds."""
    traces = []
    for verdict, (colour, symbol) in VERDICTS.items():
        mine = [p for p in found.pictures if p.verdict == verdict]
        if not mine:
            continue
        traces.append(_trails(mine, colour))
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"{verdict} ({len(mine)})",
                "x": [p.after[0] for p in mine],
                "y": [p.after[1] for p in mine],
                "customdata": [picture_key(p) for p in mine],
                "text": [literal(f"{p.answer_before} \u2192 {p.answer_after}") for p in mine],
                "hovertemplate": "%{text}<extra>" + verdict + "</extra>",
                "marker": {"size": 8, "symbol": symbol, "color": f"token:{colour}"},
            }
        )
    words = [w for w in found.words if w.axis == growth.task.axis]
    traces.append(_trails(words, "ink"))
    traces.append(
        {
            "type": "scatter",
            "mode": "markers+text",
            "name": "class words",
            "x": [w.after[0] for w in words],
            "y": [w.after[1] for w in words],
            "text": [
                literal(w.name) if w.name == growth.task.concept or w.name in growth.bench.neighbours else ""
                for w in words
            ],
            "hovertext": [literal(w.name) for w in words],
            "hovertemplate": "the word %{hovertext}<extra></extra>",
            "textposition": "top center",
            "marker": {"size": 11, "symbol": "diamond", "color": "token:ink"},
        }
    )
    share = [f"{100 * s:.0f} %" for s in found.explained]
    layout = {
        "xaxis": {"title": {"text": f"first component ({share[0]} of the spread before the edit)"}, "zeroline": False},
        "yaxis": {"title": {"text": f"second component ({share[1]})"}, "zeroline": False},
        "height": 520,
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.08},
    }
    return chart_value(traces, layout, finding=drift_finding(growth, found))


def drift_finding(growth: Growth, found: Drift) -> str:
    """How far pictures and the concept's word moved on the map, and how many pictures are overly forgotten."""
    mean = sum(map(_moved, found.pictures)) / max(1, len(found.pictures))
    word = next(w for w in found.words if (w.axis, w.name) == (growth.task.axis, growth.task.concept))
    still = "Pictures stay where they were" if mean < STILL else f"Pictures move by {mean:.2f} on average"
    counts = ", ".join(f"{found.count(v)} {v}" for v in ("correctly forgotten", "not forgotten", "overly forgotten"))
    return f"{still}; the word {growth.task.concept} moves by {_moved(word):.2f} on this map. Pictures: {counts}."


def picture_key(point) -> str:
    """What the chart knows a picture by."""
    return f"{point.side}/{point.index}"


def no_picture() -> dict:
    """The card beside the chart before a point is picked."""
    return cards_value([], empty="Pick a point to see its picture.")


def _moved(point: PictureDrift | WordDrift) -> float:
    """How far a point moved on the map."""
    return math.dist(point.before, point.after)


def _trails(points: Sequence[PictureDrift | WordDrift], colour: str) -> dict:
    """Thin arrows from before to after."""
    moved = [p for p in points if _moved(p) > STILL]
    line = lambda i: [v for p in moved for v in (p.before[i], p.after[i], None)]  # noqa: E731
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": line(0),
        "y": line(1),
        "marker": {
            "symbol": "arrow",
            "angleref": "previous",
            "size": [0, 9, 0] * len(moved),
            "color": f"token:{colour}",
        },
        "line": {"color": f"token:{colour}", "width": 1},
        "opacity": 0.5,
        "hoverinfo": "skip",
        "showlegend": False,
    }
