"""Can I trust the score? Its spread over resampled batches, other ways to score, and what single edits really do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import gradio as gr

from components.chart import chart, chart_value
from razor.growth import Growth
from razor.scoring import ranked
from razor.trust import Agreement, AloneEffect, UnitSpread

TOP = 20  # units shown in a chart


@dataclass(frozen=True)
class TrustPanel:
    """The widgets this panel owns."""

    resample: gr.Button
    resample_auto: gr.Checkbox
    spread: gr.HTML
    choices: gr.HTML
    alone: gr.Button
    alone_auto: gr.Checkbox
    agreement: gr.HTML
    status: gr.HTML

    def blank(self) -> dict:
        """Every view empty."""
        charts = (self.spread, self.choices, self.agreement)
        return {c: gr.update(value=chart_value([], {})) for c in charts} | {self.status: ""}


def build() -> TrustPanel:
    with gr.Accordion("Can I trust the score?", open=False, elem_id="trust"):
        with gr.Row(elem_classes="actions"):
            resample = gr.Button("Resample the score", elem_id="resample", min_width=200)
            resample_auto = gr.Checkbox(False, label="After every scoring", elem_id="resample-auto", min_width=180)
            alone = gr.Button("Edit every unit alone", elem_id="alone", min_width=200)
            alone_auto = gr.Checkbox(False, label="After every scoring", elem_id="alone-auto", min_width=180)
        status = gr.HTML(apply_default_css=False, elem_id="trust-status")
        with gr.Row():
            with gr.Column(min_width=420, elem_classes="panel"):
                spread = chart("spread", "Resample the score to see which units keep their rank.")
            with gr.Column(min_width=420, elem_classes="panel"):
                choices = chart("choices", "Score the model to see how other scores would rank its units.")
        with gr.Column(elem_classes="panel"):
            agreement = chart("agreement", "Edit every unit alone to see which score foretells what an edit does.")
    return TrustPanel(resample, resample_auto, spread, choices, alone, alone_auto, agreement, status)


def spread_value(growth: Growth, found: Sequence[UnitSpread]) -> dict:
    """phi of the best units with the interval it takes over resampled batches."""
    alpha = growth.config.alpha
    by_name = {s.unit.name: s for s in found}
    best = [s for s in ranked(growth.shown_scores()) if s.unit.name in by_name][:TOP]
    names = [s.unit.name for s in best]
    ends = [(by_name[name].low(alpha), by_name[name].high(alpha)) for name in names]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [s.phi for s in best],
        "y": names,
        "customdata": names,
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [max(0.0, high - s.phi) for s, (_, high) in zip(best, ends, strict=True)],
            "arrayminus": [max(0.0, s.phi - low) for s, (low, _) in zip(best, ends, strict=True)],
            "color": "token:soft",
            "thickness": 1.5,
        },
        "marker": {"size": 9, "color": ["token:soft" if by_name[n].unstable(alpha) else "token:edited" for n in names]},
        "hovertemplate": "%{y}: phi %{x:.3g}<extra></extra>",
    }
    layout = {
        "xaxis": {"type": "log", "title": {"text": "phi, 5th to 95th percentile of resampled batches"}},
        "yaxis": {"autorange": "reversed", "automargin": True},
        "height": 24 * len(names) + 96,
    }
    return chart_value([trace], layout, finding=spread_finding(found, alpha))


def spread_finding(found: Sequence[UnitSpread], alpha: float) -> str:
    """How many units' scores hold when the batches change."""
    unstable = sum(s.unstable(alpha) for s in found)
    draws = len(found[0].draws) if found else 0
    return (
        f"{len(found) - unstable} of {len(found)} units keep their score over {draws} resampled batches; "
        f"the {unstable} that do not are faded on the map."
    )


def choices_value(growth: Growth, scores: Mapping[str, Mapping[str, float]]) -> dict:
    """The rank each way of scoring gives the units that phi ranks highest, side by side."""
    order = {name: _ranks(values) for name, values in scores.items()}
    names = [s.unit.name for s in ranked(growth.shown_scores())][:TOP]
    ranks = [[order[choice][name] for choice in order] for name in names]
    trace = {
        "type": "heatmap",
        "x": list(order),
        "y": names,
        "z": ranks,
        "zmin": 1,
        "zmax": len(next(iter(order.values()))),
        "colorscale": "Cividis",
        "reversescale": True,
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
        "text": ranks,
        "texttemplate": "%{text}",
        "hovertemplate": "%{y} is number %{z} by %{x}<extra></extra>",
    }
    layout = {
        "xaxis": {"side": "top", "tickangle": -30},
        "yaxis": {"autorange": "reversed", "automargin": True},
        "height": 24 * len(names) + 120,
    }
    first = {choice: next(n for n, rank in order[choice].items() if rank == 1) for choice in order}
    agree = sum(name == names[0] for name in first.values())
    finding = f"{agree} of {len(first)} ways to score put {names[0]} first."
    return chart_value([trace], layout, finding=finding)


def _ranks(values: Mapping[str, float]) -> dict[str, int]:
    order = sorted(values, key=values.get, reverse=True)
    return {name: place + 1 for place, name in enumerate(order)}


def agreement_value(found: Mapping[str, Agreement], effects: Sequence[AloneEffect]) -> dict:
    """Rank correlation of every way to score with what editing each unit alone really does."""
    names = sorted(found, key=lambda name: found[name].value.value)
    traces = []
    for key, title, colour in (
        ("value", "forget gain per retain cost", "edited"),
        ("gain", "forget gain", "forget"),
    ):
        values = [getattr(found[name], key) for name in names]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": title,
                "y": names,
                "x": [v.value for v in values],
                "marker": {"color": f"token:{colour}"},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [v.high - v.value for v in values],
                    "arrayminus": [v.value - v.low for v in values],
                    "color": "token:soft",
                    "thickness": 1.5,
                },
                "hovertemplate": f"%{{y}}: %{{x:.2f}} with {title}<extra></extra>",
            }
        )
    layout = {
        "barmode": "group",
        "xaxis": {"range": [-1, 1], "title": {"text": "rank correlation with what editing the unit alone does"}},
        "yaxis": {"automargin": True},
        "height": 48 * len(names) + 96,
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.08},
    }
    return chart_value(traces, layout, finding=agreement_finding(found, effects))


def agreement_finding(found: Mapping[str, Agreement], effects: Sequence[AloneEffect]) -> str:
    """Which score foretells best what a single edit does, and whether the intervals tell it from phi."""
    best = max(found, key=lambda name: found[name].value.value)
    phi = found["phi"].value
    said = f"phi {phi.value:+.2f} [{phi.low:+.2f}, {phi.high:+.2f}]"
    if best != "phi":
        top = found[best].value
        apart = "clearly better than" if top.low > phi.high else "not told apart from"
        said += f"; {best} {top.value:+.2f} [{top.low:+.2f}, {top.high:+.2f}], {apart} it"
    return f"Over {len(effects)} units edited alone, rank correlation with forget gain per retain cost: {said}."
