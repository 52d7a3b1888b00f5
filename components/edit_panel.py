"""The map-and-edit panel: settings, actions, map, timeline, and the values that draw them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import gradio as gr

from components import measure_panel, reading
from components.cards import cards
from components.chart import chart, chart_value, literal, marked_value
from components.compare_panel import branch_of
from components.head_map import UnitState, head_map, map_value
from components.measure_panel import MeasurePanel
from components.timeline import timeline, timeline_value
from razor import telling
from razor.adapters.base import Adapter, ascended, growing
from razor.config import RazorConfig
from razor.edit_set import MAX_STRENGTH
from razor.grids import TOWER_TITLES, grids
from razor.growth import Growth
from razor.history import State
from razor.metrics import Evaluation
from razor.scoring import UnitScore, ranked, threshold
from razor.wording import capital

MARKS = {  # tower -> its symbol and colour on the scatter
    "image": ("circle", "neighbour"),
    "text": ("diamond", "edited"),
    "text2": ("diamond-open", "edited"),
    "text3": ("diamond-wide", "edited"),
    "cross": ("circle", "retain"),
    "context": ("circle", "retain"),
    "self": ("square", "original"),
    "projector": ("square", "retain"),
    "language": ("diamond", "edited"),
}
LOSSES = {"answer": "the name as the answer", "alignment": "what is read of the picture"}
KINDS = {"heads": "head", "MLPs": "mlp", "whole layers": "layer"}
HEADERS = ["rank", "unit", "phi", "pressure", "separation", "forget / retain", "state"]
CURVE_POINTS = 60  # points of the iso-phi curve


@dataclass(frozen=True)
class EditPanel:
    """The widgets this panel owns."""

    map: gr.HTML
    timeline: gr.HTML
    tiles: gr.HTML
    measure: MeasurePanel
    estimate: gr.HTML
    preview: gr.HTML
    table: gr.Dataframe
    scatter: gr.HTML
    brushed: gr.HTML
    put_in: gr.Button
    unit: gr.HTML
    unit_strength: gr.Slider
    strength: gr.Slider
    guard: gr.Checkbox
    price: gr.HTML
    replan: gr.Button
    status: gr.HTML
    score: gr.Button
    grow_one: gr.Button
    grow: gr.Button
    undo: gr.Button
    redo: gr.Button
    reset: gr.Button
    stop: gr.Button
    alpha: gr.Slider
    tau: gr.Slider
    rho: gr.Slider
    rounds: gr.Slider
    step_size: gr.Slider
    inner_steps: gr.Slider
    budget: gr.Slider
    towers: gr.CheckboxGroup
    kinds: gr.CheckboxGroup
    forget_loss: gr.Radio

    def settings(self) -> list[gr.components.Component]:
        """The widgets `config_from` reads, in its order."""
        return [
            self.alpha,
            self.tau,
            self.rho,
            self.rounds,
            self.step_size,
            self.inner_steps,
            self.budget,
            self.towers,
            self.kinds,
            self.forget_loss,
        ]

    def looked_at(self) -> list[gr.components.Component]:
        """What tells of the one unit a visitor looks at."""
        return [self.unit, self.unit_strength]

    def drawn(self) -> list[gr.components.Component]:
        """Everything that follows the growth."""
        return [
            self.map, self.timeline, self.tiles, self.estimate, self.preview, self.table, self.scatter, self.unit,
            self.unit_strength, self.strength, self.price, self.status, *self.measure.drawn(),
        ]  # fmt: skip


def build() -> EditPanel:
    d = RazorConfig()
    with gr.Row(elem_classes="actions"):
        score = gr.Button("Score", variant="primary", elem_id="score", min_width=110)
        grow_one = gr.Button("Grow one round", elem_id="grow-one", min_width=140)
        grow = gr.Button("Grow to target", elem_id="grow", min_width=140)
        stop = gr.Button("Stop", variant="stop", elem_id="stop", min_width=90)
        undo = gr.Button("Undo", elem_id="undo", min_width=90)
        redo = gr.Button("Redo", elem_id="redo", min_width=90)
        reset = gr.Button("Start over", elem_id="reset", min_width=110)
    status = gr.HTML(apply_default_css=False, elem_id="edit-status")
    with gr.Row(elem_classes="edit-row"):
        with gr.Column(scale=7, min_width=560):
            the_map = head_map(label="Layer by head map")
            estimate = gr.HTML(apply_default_css=False, elem_id="estimate")
            preview = cards("preview", visible=False)
        with gr.Column(scale=2, min_width=264, elem_classes=["panel", "side"]):
            unit = gr.HTML(reading.no_unit_html(), apply_default_css=False, elem_id="unit-card")
            unit_strength = gr.Slider(
                0, MAX_STRENGTH, 1, step=0.05, label="Strength of this unit", elem_id="unit-strength", interactive=False
            )
            strength = gr.Slider(
                0, MAX_STRENGTH, 1, step=0.05, label="Strength of the whole edit", elem_id="strength",
                info="1 is the edit as it was grown",
            )  # fmt: skip
            guard = gr.Checkbox(True, label="Overshoot guard", info="Stop before a budget breaks", elem_id="guard")
            price = gr.HTML(apply_default_css=False, elem_id="price")
            replan = gr.Button("Re-plan around locks and bans", size="sm", elem_id="replan")
            alpha = gr.Slider(
                0, 4, d.alpha, step=0.25, label="alpha", info="How much a conflict with the retain set counts",
                elem_id="alpha",
            )  # fmt: skip
            tau = gr.Slider(
                0, 0.95, d.tau, step=0.01, label="tau", info="Only units above this share of phi may join",
                elem_id="tau",
            )  # fmt: skip
            settings = _growth_settings()
    tiles = gr.HTML(apply_default_css=False, elem_id="tiles")
    measure = measure_panel.build()
    line = timeline()
    with gr.Accordion("Ranked units, and pressure against separation", open=False, elem_id="ranked"), gr.Row():
        with gr.Column(scale=5, min_width=420):
            table = gr.Dataframe(
                headers=HEADERS,
                interactive=False,
                show_search="filter",
                elem_id="ranking",
            )
        with gr.Column(scale=4, min_width=420, elem_classes="panel"):
            scatter = chart("scatter", "Score the model to see where its units lie.")
            brushed = gr.HTML(apply_default_css=False, elem_id="brushed")
            put_in = gr.Button("Put the selected units in", size="sm", elem_id="put-in", interactive=False)
    return EditPanel(
        map=the_map, timeline=line, tiles=tiles, measure=measure, estimate=estimate, preview=preview,
        table=table, scatter=scatter, brushed=brushed, put_in=put_in, unit=unit, unit_strength=unit_strength,
        strength=strength, guard=guard, price=price, replan=replan, status=status, score=score, grow_one=grow_one,
        grow=grow, undo=undo, redo=redo, reset=reset, stop=stop, alpha=alpha, tau=tau,
        **settings,
    )  # fmt: skip


def _growth_settings() -> dict:
    """The settings of a round, by field of the panel."""
    d = RazorConfig()
    with gr.Accordion("Growth settings", open=False, elem_id="growth-settings"):
        rounds = gr.Slider(1, 12, d.rounds, step=1, label="Rounds at most")
        rho = gr.Slider(0.05, 1, d.rho, step=0.05, label="rho", info="Strength of forgetting in each step")
        step_size = gr.Slider(0.002, 0.1, d.step_size, step=0.002, label="Step size", info="Relative to the weights")
        inner = gr.Slider(1, 32, d.inner_steps, step=1, label="Steps per round", info="1 is the paper's single step")
        budget = gr.Slider(0, 0.1, d.retain_budget, step=0.005, label="Retain budget", info="Accuracy that may be lost")
        towers = gr.CheckboxGroup(
            _tower_choices(("image", "text")), value=["image", "text"], label="Towers growth may edit", elem_id="towers"
        )
        kinds = gr.CheckboxGroup([*KINDS], value=["heads"], label="Units growth may take")
        forget_loss = gr.Radio(
            [], label="Forget loss", info="What is pushed away from the concept; ticks the towers it goes by",
            visible=False,
            elem_id="forget-loss",
        )  # fmt: skip
    return {
        "rounds": rounds,
        "rho": rho,
        "step_size": step_size,
        "inner_steps": inner,
        "budget": budget,
        "towers": towers,
        "kinds": kinds,
        "forget_loss": forget_loss,
    }


def towers_for(adapter: Adapter, forget_loss: str | None = None) -> dict:
    """The choice of towers for a model: all it has, those growth edits by itself ticked."""
    return gr.update(choices=_tower_choices(adapter.towers), value=list(growing(adapter, forget_loss)))


def losses_for(adapter: Adapter) -> dict:
    """The choice of forget losses for a model, its usual one chosen; hidden where it has only one."""
    choices = [(LOSSES[name], name) for name in adapter.forget_losses]
    return gr.update(choices=choices, value=ascended(adapter, None) or None, visible=bool(choices))


def settings_shown(panel: EditPanel, config: RazorConfig, adapter: Adapter) -> dict:
    """The widgets at these settings; what the page has no widget for keeps its default."""
    kinds = [words for words, kind in KINDS.items() if kind in config.granularity]
    values = (config.alpha, config.tau, config.rho, config.rounds, config.step_size, config.inner_steps,
              config.retain_budget, list(config.towers or growing(adapter, config.forget_loss)), kinds,
              ascended(adapter, config.forget_loss) or None)  # fmt: skip
    return dict(zip(panel.settings(), values, strict=True))


def fitting(config: RazorConfig, adapter: Adapter) -> RazorConfig:
    """The settings without what this model lacks: the page keeps its ticks when another model is loaded.

    The usual forget loss is left open, as where there is no choice.
    """
    towers = tuple(t for t in config.towers or () if t in adapter.towers) or None
    loss = config.forget_loss if config.forget_loss in [*adapter.forget_losses][1:] else None
    return replace(config, towers=towers, forget_loss=loss)


def _tower_choices(towers: Iterable[str]) -> list[tuple[str, str]]:
    return [(TOWER_TITLES.get(tower, tower), tower) for tower in towers]


def config_from(alpha, tau, rho, rounds, step_size, inner_steps, budget, towers, kinds, forget_loss) -> RazorConfig:
    """The settings on the page; raises InputError where one is out of range."""
    return RazorConfig(
        alpha=alpha,
        tau=tau,
        rho=rho,
        rounds=int(rounds),
        step_size=step_size,
        inner_steps=int(inner_steps),
        retain_budget=budget,
        towers=tuple(towers),
        granularity=tuple(KINDS.get(kind, str(kind)) for kind in kinds),
        forget_loss=forget_loss,
    )


# The map -------------------------------------------------------------------------------------------------------------


def towers_of(growth: Growth, scores: Sequence[UnitScore], spread=None) -> list[dict]:
    """The grids of a scoring, with the intervals of phi where the score was resampled."""
    open_units = {s.unit.name for s in growth.candidates(scores)}
    measures = ("phi", "pressure", "separation", "ratio", "rank")
    cells: dict[str, dict] = {key: {s.unit.name: getattr(s, key) for s in scores} for key in measures}
    cells["parameters"] = growth.sizes
    cells["open"] = {s.unit.name: s.unit.name in open_units for s in scores}
    if spread:
        alpha = growth.config.alpha
        for key in ("low", "high", "unstable"):
            cells[key] = {s.unit.name: getattr(s, key)(alpha) for s in spread}
    return grids([s.unit for s in scores], cells)


def map_of(growth: Growth, domain: dict | None = None, spread=None) -> dict:
    """The map's value for a growth as it stands; pass the domain of the one before so that colours stay comparable."""
    scores = growth.shown_scores()
    return map_value(
        towers_of(growth, scores, spread),
        domain=domain,
        finding=telling.map_finding(scores, growth),
        tau=growth.config.tau,
        alpha=growth.config.alpha,
    )


def states_of(growth: Growth) -> dict[str, UnitState]:
    """What the map marks: edited with its round, switched off, banned; and locks and strengths."""
    edit_set, joined = growth.edit_set, growth.joined
    states = {name: UnitState("off") for name in edit_set.off}
    states |= {name: UnitState("banned") for name in edit_set.banned}
    for name in edit_set.members:
        strength = edit_set.strength * edit_set.strength_of(name)
        states[name] = UnitState("edited", joined.get(name), name in edit_set.locked, strength)
    return states


# The table and the scatter -------------------------------------------------------------------------------------------


def table_of(growth: Growth | None) -> dict:
    """The ranked table; without a growth, its headers alone."""
    return {"headers": HEADERS, "data": rows_of(growth) if growth else []}


def rows_of(growth: Growth) -> list[list]:
    """One row a unit, highest phi first."""
    states = states_of(growth)
    return [
        [s.rank, s.unit.name, *(round(v, 4) for v in (s.phi, s.pressure, s.separation, s.ratio)), _words(states, s)]
        for s in ranked(growth.shown_scores())
    ]


def _words(states: Mapping[str, UnitState], s: UnitScore) -> str:
    found = states.get(s.unit.name)
    if found is None:
        return ""
    when = f" in round {found.round}" if found.round else " by hand" if found.state == "edited" else ""
    return f"{found.state}{when}{', locked' if found.locked else ''}"


def scatter_of(growth: Growth) -> dict:
    """Each unit at its pressure and separation, with the curve of equal phi at tau."""
    scores = growth.shown_scores()
    level = threshold(growth.candidates(scores), growth.config.tau)
    above = sum(s.phi > level for s in growth.candidates(scores))
    towers = dict.fromkeys(s.unit.tower for s in scores)
    traces = [_points(scores, tower) for tower in towers]
    curve = iso_phi(level, growth.config.alpha, [s.pressure for s in scores])
    line = {"type": "scatter", "mode": "lines", "name": f"phi at tau = {level:.2g}", "hoverinfo": "skip"}
    traces.append(line | {"x": curve[0], "y": curve[1], "line": {"color": "token:soft", "dash": "dash", "width": 1.5}})
    layout = {
        "xaxis": {"type": "log", "title": {"text": "pressure"}},
        "yaxis": {"title": {"text": "separation: 0 conflict, 1 unrelated, 2 opposed"}},
        "height": 420,
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.12},
    }
    finding = f"{above} units open to growth lie above the dashed curve of phi at tau."
    return chart_value(traces, layout, finding=finding, alt=finding, pick="brush")


def no_scatter() -> dict:
    """The scatter before anything is scored."""
    return chart_value([], {})


def iso_phi(level: float, alpha: float, pressures: Sequence[float]) -> tuple[list[float], list[float]]:
    """Points (pressure, separation) at which phi is `level`: separation = (level / pressure) ** (1 / alpha).

    With alpha 0 separation does not count, and the curve is the upright line pressure = level.
    """
    positive = [p for p in pressures if p > 0]
    if level <= 0 or not positive:
        return [], []
    if alpha == 0:
        return [level, level], [0.0, 2.0]
    low, high = min(positive) * 0.8, max(positive) * 1.25
    xs = [low * (high / low) ** (i / (CURVE_POINTS - 1)) for i in range(CURVE_POINTS)]
    points = [(x, (level / x) ** (1 / alpha)) for x in xs]
    return [x for x, y in points if y <= 2], [y for _, y in points if y <= 2]


def marked_of(growth: Growth) -> dict:
    """The edited units, ringed on the scatter."""
    return marked_value(growth.edit_set.members)


def _points(scores: Sequence[UnitScore], tower: str) -> dict:
    symbol, colour = MARKS.get(tower, MARKS["image"])
    mine = [s for s in scores if s.unit.tower == tower]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": TOWER_TITLES.get(tower, tower),
        "x": [s.pressure for s in mine],
        "y": [s.separation for s in mine],
        "customdata": [s.unit.name for s in mine],
        "text": [f"{literal(s.unit.name)}<br>phi {s.phi:.3g}, rank {s.rank}" for s in mine],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"symbol": symbol, "size": 9, "color": f"token:{colour}"},
    }


# The timeline --------------------------------------------------------------------------------------------------------


def timeline_of(growth: Growth, sides: tuple[str, str] | None = None) -> dict:
    """The timeline's value: every state and branch on the search split, and what was changed by hand since."""
    history = growth.history
    branches = [
        {"name": name, "tip": tip, "locks": len(s.edit_set.locked), "bans": len(s.edit_set.banned)}
        for name, tip in history.branches.items()
        for s in [history.states[tip]]
    ]
    return timeline_value(
        [_node(growth, state) for state in history.states.values()],
        branches=branches,
        branch=history.position.branch,
        current=history.position.state,
        target=growth.goal.target,
        finding=telling.timeline_finding(growth),
        compared=[branch for side in sides or () if (branch := branch_of(side)) in history.branches],
        draft=_draft(growth),
    )


def _draft(growth: Growth) -> dict | None:
    if not growth.by_hand:
        return None
    now = growth.known_evaluation(growth.edit_set)
    return {"text": growth.by_hand, "busy": now is None, **(_curves(now) if now else {})}


def _node(growth: Growth, state: State) -> dict:
    done = state.round
    if done is None:
        return {
            "id": state.number,
            "parent": None,
            "kind": "start",
            "index": 0,
            "accepted": True,
            "note": "unedited",
        } | (_curves(state.evaluation))
    return {
        "id": state.number,
        "parent": state.parent,
        "kind": "round",
        "index": done.index,
        "unit": ", ".join(s.unit.name for s in done.added),
        "by_hand": done.by_hand,
        "accepted": done.accepted,
        "reason": done.reason,
        "note": f"forget {-100 * done.gain:+.0f}, retain {-100 * done.price:+.1f} points",
        "seconds": done.seconds,
        "added": [{**vars(s), "unit": s.unit.name} for s in done.added],
        "trials": [vars(t) for t in done.trials],
        "chosen": done.chosen,
        "won": capital(telling.won_text(growth, done)),
    } | _curves(done.after)


def _curves(e: Evaluation) -> dict:
    curves = {"forget": e.forget_accuracy, "retain": e.retain_accuracy, "neighbour": e.neighbor_accuracy}
    return {name: m.to_json(None) if m else None for name, m in curves.items()}
