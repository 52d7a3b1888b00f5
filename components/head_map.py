"""The map: one cell a unit, one grid a tower; the page's editor of the edit set.

Scores travel in `value` and what is picked travels in `picked`, so a stream of new scores can never wipe a click
made meanwhile. The browser draws a click at once and numbers it; the answer carries the last number it has seen.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from itertools import count
from typing import Any

import gradio as gr

from components.events import field, whole_number
from components.theme import script
from razor.edit_set import ACTIONS

RAMPS = ("sequential", "diverging")
COUNTS = ("rank", "parameters")
STATES = ("edited", "off", "banned", "free")
MOST_UNITS = 20_000  # names in one event; far above any model, far below what would stall the server
HIGHEST_TAU = 0.999

# In this order: the last file starts the widget with what the others declare.
SCRIPTS = ("head_map_paint.js", "head_map_brush.js", "head_map_tools.js", "head_map_gestures.js", "head_map.js")

_revisions = count(1)


@dataclass(frozen=True)
class Measure:
    """A number the map can be coloured by."""

    name: str  # the key of its grid in a tower
    title: str  # on the switch
    words: str  # beside the legend
    log: bool = False
    ramp: str = "sequential"  # diverging: centred on the median where log, else on 0
    ends: tuple[str, str] = ("low", "high")  # what the two ends of the legend mean


MEASURES = (
    Measure("phi", "Phi", "phi: pressure × separation", log=True),
    Measure(
        "ratio",
        "Forget / retain",
        "forget gradient over retain gradient",
        log=True,
        ramp="diverging",
        ends=("more retain", "more forget"),
    ),
    Measure("pressure", "Pressure", "pressure: forget gradient over weight size", log=True),
    Measure("separation", "Separation", "separation: 0 gradients agree, 1 unrelated, 2 opposed"),
)


@dataclass(frozen=True)
class UnitState:
    """How a unit stands with the edit set."""

    state: str  # edited | off (was edited; switched off, its change kept) | banned | free
    round: int | None = None  # None: put in by hand
    locked: bool = False
    strength: float = 1.0  # share of its change that is applied


def head_map(elem_id: str = "head-map", label: str = "Head map", visible: bool = True) -> gr.HTML:
    """The widget. Props: `value` (see `map_value`), `picked` (see `picked_value`).

    Events: `units_change` (see `payload`), `unit_focus` (see `focus_payload`), `tau_change` (see `tau_payload`).
    """
    return gr.HTML(
        value=map_value([]),
        picked={"rev": 0, "ack": 0, "units": {}, "isolated": None, "focus": None},
        label=label,
        visible=visible,
        html_template=f'<div class="head-map" role="group" aria-label="{escape(label)}" data-ready="false"></div>',
        js_on_load="\n".join(script(name) for name in SCRIPTS),
        apply_default_css=False,
        elem_id=elem_id,
    )


def preview(slider: gr.Slider, what: str, elem_id: str = "head-map") -> None:
    """Draw another alpha or tau on the map while its slider moves, before the server is asked.

    Args:
        what: "alpha" or "tau".
    """
    send = f"new CustomEvent('preview-{what}', {{ detail: value }})"
    js = f"(value) => {{ document.querySelector('#{elem_id} .head-map')?.dispatchEvent({send}); return []; }}"
    slider.change(None, slider, None, js=js, show_progress="hidden", show_progress_on=[], api_visibility="private")


def map_value(
    towers: Sequence[Mapping[str, Any]],
    *,
    measures: Sequence[Measure] = MEASURES,
    domain: Mapping[str, Sequence[float]] | None = None,
    measure: str = "phi",
    finding: str = "",
    tau: float | None = None,
    alpha: float | None = None,
    readonly: bool = False,
) -> dict[str, Any]:
    """What `value` takes.

    Args:
        towers: name, title, rows, columns and units (rows x columns; None = no such unit); one grid in the same shape
            for every measure; and any of the grids rank, parameters, low and high (interval of phi), unstable and
            open (growth may take it by itself). groups is one label a row. NaN and infinity become None.
        measures: what the map can be coloured by, in the order of the switch.
        domain: (low, high) of each measure as drawn, so log10 where it is log; measures left out get the 2nd to 98th
            percentile of these towers. Keep the one that comes back, or rounds cannot be compared; where the middle of
            what there is lies beyond it, it gives way to a new one, or all cells would look alike.
        measure: the one the map opens on; a visitor's own choice is kept until this changes.
        finding: one sentence that says what the map shows.
        tau: the quantile of phi that growth asks for, 0..1; None draws no threshold.
        alpha: the exponent on separation, shown beside phi.
        readonly: nothing can be picked; hover, keys, search and CSV still work.

    Raises:
        ValueError: a grid is not rows x columns, `measure` is none of the measures, tau or alpha is out of range.
    """
    _check_measures(measures, measure)
    if tau is not None and not 0 <= tau <= 1:
        raise ValueError(f"tau is a quantile from 0 to 1, got {tau!r}.")
    if alpha is not None and not (math.isfinite(alpha) and alpha >= 0):
        raise ValueError(f"alpha must be a finite number from 0, got {alpha!r}.")
    clean = [_clean_tower(tower, measures) for tower in towers]
    found = score_domain(clean, measures)
    return {
        "towers": clean,
        "measures": [asdict(m) | {"ends": list(m.ends)} for m in measures],
        "measure": measure,
        "domain": found | _fitting(domain or {}, found),
        "finding": finding,
        "tau": None if tau is None else float(tau),
        "alpha": None if alpha is None else float(alpha),
        "readonly": bool(readonly),
    }


def _check_measures(measures: Sequence[Measure], opened: str) -> None:
    names = [m.name for m in measures]
    if opened not in names:
        raise ValueError(f"No measure named {opened!r} to colour the map by. Pick one of {', '.join(names)}.")
    if len(set(names)) < len(names):
        raise ValueError(f"Every measure of a map needs a name of its own, got {', '.join(names)}.")
    for m in measures:
        if m.ramp not in RAMPS:
            raise ValueError(f"Measure {m.name!r} has no ramp named {m.ramp!r}. Pick one of {', '.join(RAMPS)}.")


def _clean_tower(tower: Mapping[str, Any], measures: Sequence[Measure]) -> dict[str, Any]:
    rows, columns = [str(row) for row in tower["rows"]], [str(column) for column in tower["columns"]]
    name = str(tower["name"])
    groups = [str(group) for group in tower.get("groups") or ()]
    if groups and len(groups) != len(rows):
        raise ValueError(f"Tower {name!r} needs one group for each of its {len(rows)} rows, got {len(groups)}.")

    def grid(key: str, clean) -> list[list[Any]]:
        blank = [[None] * len(columns) for _ in rows]
        cells = _grid(tower.get(key, blank), len(rows), len(columns), f"{key} of tower {name!r}")
        return [[clean(cell) for cell in row] for row in cells]

    told = [key for key in ("low", "high", "unstable", "open") if key in tower]  # the rest would only be weight
    numbers = [m.name for m in measures] + [key for key in told if key in ("low", "high")]
    return (
        {"name": name, "title": str(tower.get("title", name)), "rows": rows, "columns": columns, "groups": groups}
        | {"units": grid("units", lambda unit: unit)}
        | {key: grid(key, _number) for key in numbers}
        | {key: grid(key, _count) for key in COUNTS}
        | {key: grid(key, _flag) for key in told if key in ("unstable", "open")}
    )


def _grid(grid: Sequence[Sequence[Any]], height: int, width: int, what: str) -> list[list[Any]]:
    cells = [list(row) for row in grid]
    if len(cells) != height or any(len(row) != width for row in cells):
        shape = f"{len(cells)} rows of {sorted({len(row) for row in cells})} cells"
        raise ValueError(f"The {what} must be {height} rows of {width} cells, one a unit; got {shape}.")
    return cells


def _number(cell: Any) -> float | None:
    return float(cell) if cell is not None and math.isfinite(cell) else None


def _count(cell: Any) -> int | None:
    return int(cell) if cell is not None and math.isfinite(cell) else None


def _flag(cell: Any) -> bool | None:
    return None if cell is None else bool(cell)


def score_domain(towers: Sequence[Mapping[str, Any]], measures: Sequence[Measure] = MEASURES) -> dict[str, list[float]]:
    """(low, high) of every measure as drawn: 2nd to 98th percentile, centred where the ramp diverges."""
    return {m.name: _domain(towers, m) for m in measures}


def _fitting(kept: Mapping[str, Sequence[float]], found: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """The ranges that still hold the middle of what was found."""
    middles = {name: (low + high) / 2 for name, (low, high) in found.items()}
    fits = lambda name, low, high: name not in found or low <= middles[name] <= high  # noqa: E731
    return {name: [float(low), float(high)] for name, (low, high) in kept.items() if fits(name, low, high)}


def _domain(towers: Sequence[Mapping[str, Any]], measure: Measure) -> list[float]:
    cells = (_drawn(cell, measure) for tower in towers for row in tower[measure.name] for cell in row)
    drawn = sorted(cell for cell in cells if cell is not None)
    if not drawn:
        return [0.0, 1.0]
    low, middle, high = (drawn[round(share * (len(drawn) - 1))] for share in (0.02, 0.5, 0.98))
    if measure.ramp == "diverging":
        middle = middle if measure.log else 0.0
        reach = max(abs(high - middle), abs(middle - low))
        low, high = middle - reach, middle + reach
    return [low, high] if high > low else [low - 0.5, high + 0.5]


def _drawn(cell: float | None, measure: Measure) -> float | None:
    if cell is None or not measure.log:
        return cell
    return math.log10(cell) if cell > 0 else None


def picked_value(
    states: Mapping[str, UnitState | Mapping[str, Any]],
    ack: int,
    isolated: str | None = None,
    *,
    focus: str | None = None,
) -> dict[str, Any]:
    """What `picked` takes.

    Args:
        states: unit name -> UnitState, or a mapping of its fields; units left out are untouched.
        ack: `seq` of the last request that these states take into account; 0 before the first.
        isolated: the one unit that is at work, or None when all of the edit set is.
        focus: the unit looked at, from wherever it was chosen; it gets a ring, and the map goes there when it changes.

    Raises:
        ValueError: a state or a strength is none that a unit can have.
    """
    units = {name: _clean_state(name, state) for name, state in states.items()}
    return {"rev": next(_revisions), "ack": ack, "units": units, "isolated": isolated, "focus": focus}


def _clean_state(name: str, given: UnitState | Mapping[str, Any]) -> dict[str, Any]:
    state = given if isinstance(given, UnitState) else UnitState(**given)
    if state.state not in STATES:
        raise ValueError(f"No unit state named {state.state!r}. Pick one of {', '.join(STATES)}.")
    if not (math.isfinite(state.strength) and state.strength >= 0):
        raise ValueError(f"The strength of unit {name!r} must be a finite number from 0, got {state.strength!r}.")
    return asdict(state)


def payload(evt: Any) -> tuple[list[str], str, int]:
    """(units, action, seq) of a `units_change` event. Check the names against the model's units as well.

    Args:
        evt: the gr.EventData, or the mapping inside it.

    Raises:
        ValueError: a field is missing or has the wrong type; anyone can send an event.
    """
    units, action, seq = (field(evt, name) for name in ("units", "action", "seq"))
    if not isinstance(units, list) or not units or not all(isinstance(unit, str) and unit for unit in units):
        raise ValueError("A change on the map must name its units as a list of one or more names.")
    if len(units) > MOST_UNITS:
        raise ValueError(f"A change on the map must name at most {MOST_UNITS:,} units, got {len(units):,}.")
    if action not in ACTIONS:
        raise ValueError(f"A change on the map must ask for one of {', '.join(ACTIONS)}.")
    if not whole_number(seq) or seq < 1:
        raise ValueError("A change on the map must carry its number, a whole number from 1.")
    return list(dict.fromkeys(units)), action, seq


def focus_payload(evt: Any) -> str | None:
    """The unit of a `unit_focus` event; None where the visitor let go of it. Raises ValueError as `payload` does."""
    unit = field(evt, "unit")
    if unit is not None and not (isinstance(unit, str) and unit):
        raise ValueError("A look at the map must name one unit, or none.")
    return unit


def tau_payload(evt: Any) -> float:
    """The tau of a `tau_change` event, 0 to 0.999. Raises ValueError as `payload` does."""
    tau = field(evt, "tau")
    if isinstance(tau, bool) or not isinstance(tau, int | float) or not 0 <= tau <= HIGHEST_TAU:
        raise ValueError(f"The threshold on the map must be a number from 0 to {HIGHEST_TAU}.")
    return float(tau)
