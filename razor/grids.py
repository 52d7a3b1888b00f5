"""Units laid out as a map shows them: one grid a tower, rows of layers, columns of heads."""

from collections.abc import Mapping, Sequence

from razor.units import Unit

TOWER_TITLES = {
    "image": "Image tower",
    "text": "Text encoder",
    "text2": "Second text encoder",
    "text3": "Third text encoder",
    "cross": "Cross-attention to the words",
    "context": "Text stream of the denoiser",
    "self": "The denoiser's own attention",
    "projector": "Projector",
    "language": "Language model",
}


def grids(units: Sequence[Unit], cells: Mapping[str, Mapping[str, object]]) -> list[dict]:
    """Towers as the map takes them: rows are layers, columns heads, shared key-value heads, the MLP, the whole layer.

    Args:
        cells: grid name -> unit name -> what stands in its cell.
    """
    towers = []
    for tower in dict.fromkeys(u.tower for u in units):
        mine = [u for u in units if u.tower == tower]
        heads = max((u.column for u in mine), default=-1) + 1
        extra = [kind for kind in ("mlp", "layer") if any(u.kind == kind for u in mine)]
        height = max(u.layer for u in mine) + 1
        grid: dict = {key: [[None] * (heads + len(extra)) for _ in range(height)] for key in ("units", *cells)}
        for u in mine:
            column = u.column if u.kind == "head" else heads + extra.index(u.kind)
            grid["units"][u.layer][column] = u.name
            for key, values in cells.items():
                grid[key][u.layer][column] = values.get(u.name)
        shared = {u.column: u.name.split(".")[-1] for u in mine if ".kv." in u.name}
        columns = [f"kv {shared[i]}" if i in shared else str(i) for i in range(heads)]
        columns += [{"mlp": "MLP", "layer": "all"}[kind] for kind in extra]
        rows = [f"layer {i}" for i in range(height)]
        towers.append(
            {"name": tower, "title": TOWER_TITLES.get(tower, tower), "rows": rows, "columns": columns, **grid}
        )
    return towers
