"""The map-and-edit panel: settings, actions, map, timeline, and the sentences that say what they show."""

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from components.head_map import head_map, map_value, score_domain
from components.theme import capital, tile_html, tiles_html
from components.timeline import timeline, timeline_value
from razor.config import RazorConfig
from razor.growth import Growth
from razor.metrics import Evaluation, Measure
from razor.scoring import UnitScore, ranked, threshold

TOWER_TITLES = {"image": "Image tower", "text": "Text tower"}
_CURVES = ("forget_accuracy", "retain_accuracy")
KINDS = {"heads": "head", "MLPs": "mlp", "whole layers": "layer"}


@dataclass(frozen=True)
class EditPanel:
    """The widgets this panel owns."""

    map: gr.HTML
    timeline: gr.HTML
    tiles: gr.HTML
    table: gr.Dataframe
    status: gr.HTML
    score: gr.Button
    grow_one: gr.Button
    grow: gr.Button
    undo: gr.Button
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
        ]


def build() -> EditPanel:
    d = RazorConfig()
    with gr.Row(elem_classes="actions"):
        score = gr.Button("Score", variant="primary", elem_id="score", min_width=110)
        grow_one = gr.Button("Grow one round", elem_id="grow-one", min_width=140)
        grow = gr.Button("Grow to target", elem_id="grow", min_width=140)
        undo = gr.Button("Undo", elem_id="undo", min_width=90)
        reset = gr.Button("Reset", elem_id="reset", min_width=90)
        stop = gr.Button("Stop", variant="stop", elem_id="stop", min_width=90)
    status = gr.HTML(apply_default_css=False, elem_id="edit-status")
    with gr.Row():
        with gr.Column(scale=7, min_width=560):
            the_map = head_map()
        with gr.Column(scale=2, min_width=220, elem_classes="panel"):
            alpha = gr.Slider(
                0, 4, d.alpha, step=0.25, label="alpha", info="How much a conflict with the retain set counts"
            )
            tau = gr.Slider(0, 0.95, d.tau, step=0.05, label="tau", info="Only units above this share of phi may join")
            rho = gr.Slider(0.05, 1, d.rho, step=0.05, label="rho", info="Strength of forgetting in each step")
            rounds = gr.Slider(1, 12, d.rounds, step=1, label="Rounds at most")
            with gr.Accordion("More settings", open=False):
                step_size = gr.Slider(
                    0.002, 0.1, d.step_size, step=0.002, label="Step size", info="Relative to the weights"
                )
                inner = gr.Slider(
                    1, 32, d.inner_steps, step=1, label="Steps per round", info="1 is the paper's single step"
                )
                budget = gr.Slider(
                    0, 0.1, d.retain_budget, step=0.005, label="Retain budget", info="Accuracy that may be lost"
                )
                towers = gr.CheckboxGroup(["image", "text"], value=list(d.towers), label="Towers growth may edit")
                kinds = gr.CheckboxGroup([*KINDS], value=["heads"], label="Units growth may take")
    tiles = gr.HTML(apply_default_css=False, elem_id="tiles")
    line = timeline()
    with gr.Accordion("Ranked units", open=False):
        table = gr.Dataframe(
            headers=["rank", "unit", "phi", "pressure", "separation", "forget / retain", "state"],
            interactive=False,
            show_search="filter",
            elem_id="ranking",
        )
    return EditPanel(
        the_map, line, tiles, table, status, score, grow_one, grow, undo, reset, stop,
        alpha, tau, rho, rounds, step_size, inner, budget, towers, kinds,
    )  # fmt: skip


def config_from(alpha, tau, rho, rounds, step_size, inner_steps, budget, towers, kinds) -> RazorConfig:
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
    )


def towers_of(scores: Sequence[UnitScore], growth: Growth) -> list[dict]:
    """Scores as the grids the map draws: rows are layers, columns heads, then the MLP and the whole layer."""
    parameters = dict(growth.adapter.model.named_parameters())
    grids = []
    for tower in dict.fromkeys(s.unit.tower for s in scores):
        mine = [s for s in scores if s.unit.tower == tower]
        heads = max((s.unit.column for s in mine), default=-1) + 1
        extra = [kind for kind in ("mlp", "layer") if any(s.unit.kind == kind for s in mine)]
        height = max(s.unit.layer for s in mine) + 1
        grid: dict = {
            key: [[None] * (heads + len(extra)) for _ in range(height)]
            for key in ("units", "phi", "pressure", "separation", "ratio", "rank", "parameters")
        }
        for s in mine:
            column = s.unit.column if s.unit.kind == "head" else heads + extra.index(s.unit.kind)
            cell = {**vars(s), "units": s.unit.name, "parameters": s.unit.size(parameters)}
            for key in grid:
                grid[key][s.unit.layer][column] = cell[key]
        columns = [*map(str, range(heads)), *({"mlp": "MLP", "layer": "all"}[kind] for kind in extra)]
        rows = [f"layer {i}" for i in range(height)]
        grids.append({"name": tower, "title": TOWER_TITLES.get(tower, tower), "rows": rows, "columns": columns, **grid})
    return grids


def map_of(growth: Growth, domain: dict | None = None) -> dict:
    """The map's value for a growth as it stands; pass the first round's domain so that colours stay comparable."""
    scores = growth.shown_scores()
    towers = towers_of(scores, growth)
    return map_value(towers, domain, finding=map_finding(scores, growth))


def domain_of(growth: Growth) -> dict:
    """The colour ranges of the first scoring of a run."""
    return score_domain(map_value(towers_of(growth.shown_scores(), growth))["towers"])


def map_finding(scores: Sequence[UnitScore], growth: Growth) -> str:
    """One sentence over the map."""
    best = ranked(scores)[0]
    middle = sorted(s.phi for s in scores)[len(scores) // 2]
    times = f"{best.phi / middle:.0f} times" if middle > 0 else "far more than"
    candidates = growth.candidates(scores)
    above = sum(s.phi > threshold(candidates, growth.config.tau) for s in candidates)
    when = "" if growth.scored or not growth.rounds else f"Before round {len(growth.rounds)}, "
    return (
        f"{when}{best.unit.name} presses hardest on forgetting {growth.task.concept}: {times} the median unit. "
        f"{above} of the {len(candidates)} units open to growth stand above tau."
    )


def states_of(growth: Growth) -> dict[str, tuple[str, int | None]]:
    """What the map outlines: edited with its round, picked, banned."""
    joined = {}
    for done in growth.rounds:
        for s in done.added if done.accepted else ():
            joined[s.unit.name] = done.index
    states = {name: ("edited", joined.get(name)) for name in growth.edit_set.members}
    states |= {name: ("picked", None) for name in growth.edit_set.wanted}
    return states | {name: ("banned", None) for name in growth.edit_set.banned if name not in states}


def rows_of(growth: Growth) -> list[list]:
    """The ranked table."""
    states = states_of(growth)
    return [
        [s.rank, s.unit.name, *(round(v, 4) for v in (s.phi, s.pressure, s.separation, s.ratio)), _state(states, s)]
        for s in ranked(growth.shown_scores())
    ]


def timeline_of(growth: Growth) -> dict:
    """The timeline's value: the unedited model, then every round, on the search split."""
    rounds = [_point(0, None, True, "unedited", 0.0, growth.base)]
    for r in growth.rounds:
        names = ", ".join(s.unit.name for s in r.added)
        shares = [f"{getattr(e, name).value:.0%}" for name in _CURVES for e in (r.before, r.after)]
        note = "forget {} to {}, retain {} to {}".format(*shares)
        rounds.append(_point(r.index, names, r.accepted, note, r.seconds, r.after))
    return timeline_value(rounds, growth.goal.target, finding=timeline_finding(growth))


def timeline_finding(growth: Growth) -> str:
    """One sentence over the curves."""
    if not growth.rounds:
        return start_text(growth)
    now, base = growth.now, growth.base
    lost = 100 * (base.retain_accuracy.value - now.retain_accuracy.value)
    kept = f"retained answers lose {lost:.1f} points" if lost > 0.05 else "retained answers lose nothing"
    return (
        f"{len(growth.edit_set.members)} units take {growth.task.concept} from {base.forget_accuracy.value:.0%} to "
        f"{now.forget_accuracy.value:.0%}; {kept}. Curves are on the search split."
    )


def start_text(growth: Growth) -> str:
    """What the unedited model knows."""
    known = f"{growth.base.forget_accuracy.value:.0%} of the search pictures"
    return f"{capital(growth.task.concept)} is recognised in {known} before any edit."


def round_text(growth: Growth, index: int) -> str:
    """What one round did, in full; 0 is the unedited model."""
    if index == 0:
        return start_text(growth)
    done = growth.rounds[index - 1]
    added = ", ".join(f"{s.unit.name} (phi {s.phi:.2g}, rank {s.rank})" for s in done.added)
    return f"Round {index} tried {added} in {len(done.trials)} steps, {done.seconds:.1f} s. {done.reason}"


def tiles_of(growth: Growth, tested: tuple[Evaluation, Evaluation] | None) -> str:
    """Metric tiles: measured on the test split once it has been, and saying so."""
    before, after = tested or (growth.base, growth.now)
    split = "test pictures" if tested else "search pictures"
    tiles = [
        _tile("Forget accuracy", before.forget_accuracy, after.forget_accuracy, "forget", split),
        _tile("Retain accuracy", before.retain_accuracy, after.retain_accuracy, "retain", f"answers about {split}"),
    ]
    if before.neighbor_accuracy and after.neighbor_accuracy:
        tiles.append(_tile("Nearest neighbours", before.neighbor_accuracy, after.neighbor_accuracy, "neighbour", split))
    tiles.append(_tile("Retrieval stability", None, after.retrieval_stability, "original", split))
    total = sum(p.numel() for p in growth.adapter.model.parameters())
    edited = growth.patch.parameters_edited
    size = f"{edited:,} of {total / 1e6:.1f} M; {sum(growth.seconds.values()):.1f} s"
    tiles.append(tile_html("Parameters edited", f"{edited / total:.1%}", "", size, "edited"))
    return tiles_html(tiles)


def _tile(label: str, before: Measure | None, after: Measure, kind: str, split: str) -> str:
    if after.n == 0:
        return tile_html(label, "not measured", "", f"none of the {split} can be counted", kind)
    was = f"{before.value:.1%}" if before else ""
    interval = f"95 % interval {after.low:.1%} to {after.high:.1%}, n = {after.n} {split}"
    return tile_html(label, f"{after.value:.1%}", was, interval, kind)


def _state(states: dict, s: UnitScore) -> str:
    state, turn = states.get(s.unit.name, ("", None))
    return f"{state} in round {turn}" if turn else state


def _point(index: int, unit: str | None, accepted: bool, note: str, seconds: float, e: Evaluation) -> dict:
    curves = {"forget": e.forget_accuracy, "retain": e.retain_accuracy, "neighbour": e.neighbor_accuracy}
    points = {name: vars(m) if m else None for name, m in curves.items()}
    return {"index": index, "unit": unit, "accepted": accepted, "note": note, "seconds": seconds, **points}
