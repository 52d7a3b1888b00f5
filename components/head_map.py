"""The map: one cell a unit, one grid a tower; a click puts a unit in, a right-click bans it.

Scores travel in `value` and what is picked travels in `picked`, so a stream of new scores can never wipe a click
made meanwhile. The browser draws a click at once and numbers it; the answer carries the last number it has seen.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import gradio as gr

from components.theme import plotly_head, script

COLOUR_CHOICES = ("phi", "pressure", "separation", "ratio")
LOG_SCORES = ("phi", "pressure", "ratio")
COUNTS = ("rank", "parameters")
STATES = ("edited", "picked", "banned")  # what a unit can be; no entry means none of them
REQUESTS = ("picked", "banned", "none")  # what the browser may ask for

_revisions = count(1)


def head_map(elem_id: str = "head-map") -> gr.HTML:
    """The widget. Props: `value` (see `map_value`), `picked` (see `picked_value`). Event: `units_change`."""
    return gr.HTML(
        value=map_value([]),
        picked={"rev": 0, "ack": 0, "units": {}},
        html_template='<div class="head-map" data-ready="false"></div>',
        head=plotly_head(),
        js_on_load=script("head_map.js"),
        apply_default_css=False,
        elem_id=elem_id,
    )


def map_value(
    towers: Sequence[Mapping[str, Any]],
    domain: Mapping[str, Sequence[float]] | None = None,
    colour: str = "phi",
    finding: str = "",
) -> dict[str, Any]:
    """What `value` takes.

    Args:
        towers: name, title, rows, columns and units (rows x columns; None = no such unit), and any of phi, pressure,
            separation, ratio, rank and parameters in the same shape. NaN and infinity become None.
        domain: (low, high) of each score as drawn, so log10 for phi, pressure and ratio; scores left out get the
            2nd to 98th percentile of these towers. Keep one for a whole run, or rounds cannot be compared.
        colour: the score the map opens on; a visitor's own choice is kept until this changes.
        finding: one sentence that says what the map shows.

    Raises:
        ValueError: a grid is not rows x columns, or `colour` is not a score.
    """
    if colour not in COLOUR_CHOICES:
        raise ValueError(f"No score named {colour!r} to colour the map by. Pick one of {', '.join(COLOUR_CHOICES)}.")
    clean = [_clean_tower(tower) for tower in towers]
    given = {name: [float(low), float(high)] for name, (low, high) in (domain or {}).items()}
    return {"towers": clean, "colour": colour, "domain": score_domain(clean) | given, "finding": finding}


def _clean_tower(tower: Mapping[str, Any]) -> dict[str, Any]:
    rows, columns = [str(row) for row in tower["rows"]], [str(column) for column in tower["columns"]]
    name = str(tower["name"])
    units = _grid(tower["units"], len(rows), len(columns), f"units of tower {name!r}")
    grids = {}
    for key in COLOUR_CHOICES + COUNTS:
        blank = [[None] * len(columns) for _ in rows]
        grid = _grid(tower.get(key, blank), len(rows), len(columns), f"{key} of tower {name!r}")
        grids[key] = [[_number(cell, whole=key in COUNTS) for cell in row] for row in grid]
    title = str(tower.get("title", name))
    return {"name": name, "title": title, "rows": rows, "columns": columns, "units": units} | grids


def _grid(grid: Sequence[Sequence[Any]], height: int, width: int, what: str) -> list[list[Any]]:
    cells = [list(row) for row in grid]
    if len(cells) != height or any(len(row) != width for row in cells):
        shape = f"{len(cells)} rows of {sorted({len(row) for row in cells})} cells"
        raise ValueError(f"The {what} must be {height} rows of {width} cells, one a unit; got {shape}.")
    return cells


def _number(cell: Any, whole: bool = False) -> float | int | None:
    if cell is None or not math.isfinite(cell):
        return None
    return int(cell) if whole else float(cell)


def score_domain(towers: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """(low, high) of every score as drawn: 2nd to 98th percentile; the ratio's is centred on its median."""
    return {name: _domain(towers, name) for name in COLOUR_CHOICES}


def _domain(towers: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    cells = (_drawn(cell, name) for tower in towers for row in tower[name] for cell in row)
    drawn = sorted(cell for cell in cells if cell is not None)
    if not drawn:
        return [0.0, 1.0]
    low, middle, high = (drawn[round(share * (len(drawn) - 1))] for share in (0.02, 0.5, 0.98))
    if name == "ratio":
        reach = max(high - middle, middle - low)
        low, high = middle - reach, middle + reach
    return [low, high] if high > low else [low - 0.5, high + 0.5]


def _drawn(cell: float | None, name: str) -> float | None:
    if cell is None or name not in LOG_SCORES:
        return cell
    return math.log10(cell) if cell > 0 else None


def picked_value(states: Mapping[str, tuple[str, int | None]], ack: int) -> dict[str, Any]:
    """What `picked` takes.

    Args:
        states: unit name -> (state, round), the state one of STATES, the round None where it has none.
        ack: `seq` of the last request that these states take into account; 0 before the first.
    """
    wrong = sorted({state for state, _ in states.values()} - set(STATES))
    if wrong:
        raise ValueError(f"No unit state named {wrong[0]!r}. Pick one of {', '.join(STATES)}.")
    units = {name: {"state": state, "round": turn} for name, (state, turn) in states.items()}
    return {"rev": next(_revisions), "ack": ack, "units": units}


def payload(evt_data: Any) -> tuple[list[str], str, int]:
    """(units, state, seq) of a `units_change` event. Check the names against the model's units as well.

    Args:
        evt_data: the gr.EventData, or the mapping inside it.

    Raises:
        ValueError: a field is missing or has the wrong type; anyone can send an event.
    """
    units, state, seq = (_field(evt_data, name) for name in ("units", "state", "seq"))
    if not isinstance(units, list) or not units or not all(isinstance(unit, str) and unit for unit in units):
        raise ValueError("A change on the map must name its units as a list of one or more names.")
    if state not in REQUESTS:
        raise ValueError(f"A change on the map must ask for one of {', '.join(REQUESTS)}.")
    if isinstance(seq, bool) or not isinstance(seq, int) or seq < 1:
        raise ValueError("A change on the map must carry its number, a whole number from 1.")
    return units, state, seq


def _field(evt_data: Any, name: str) -> Any:
    if isinstance(evt_data, Mapping):
        return evt_data.get(name)
    try:
        return getattr(evt_data, name, None)
    except TypeError:  # the event carried no mapping at all
        return None
