"""Screen 4: methods beside each other, as a chart of what each forgets and keeps, a web, a table, and cases."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from components.chart import chart_value, literal
from components.check_panel import table_section
from razor.baselines import Result
from razor.gold import Distance
from razor.growth import Growth
from razor.metrics import Evaluation, Measure
from razor.report import grouped
from razor.sights import Sight
from razor.tables import cell, held, kilobytes

GOLD = "way to a model that never saw it"
OURS = "RAZOR, this edit"
SYMBOLS = ("square", "diamond", "triangle-up", "triangle-down", "pentagon", "star", "hourglass", "bowtie", "cross",
           "triangle-left", "hexagon", "triangle-right")  # fmt: skip
DASHES = ("dot", "solid", "dash", "longdash", "dashdot", "longdashdot")


@dataclass(frozen=True)
class Row:
    """One method's place in the comparison."""

    name: str
    after: Evaluation | None  # None: it diverged, or was stopped before this was measured
    reached: bool
    settings: int  # tried
    passes: int  # of the chosen one
    seconds: float
    edited: int  # weights changed
    size: int = 0  # bytes of its patch
    note: str = ""
    gold: Distance | None = None  # beside a model that never saw the concept, where there is one
    searched: Evaluation | None = None  # on the search split, where it was stopped before `after` was measured


def row_of(result: Result) -> Row:
    """A rival's result as a row."""
    chosen = result.chosen
    return Row(
        result.name,
        result.after,
        result.reached,
        len(result.trials),
        chosen.passes if chosen else result.passes,
        chosen.seconds if chosen else result.seconds["tuning"],
        result.parameters_edited,
        held(result.patch),
        result.note or ("diverged in every setting" if result.diverged else ""),
        searched=chosen.evaluation if chosen and result.after is None else None,
    )


def own_row(growth: Growth, after: Evaluation) -> Row:
    """The edit on the page as a row."""
    steps = sum(len(done.trials) for done in growth.rounds)
    spent = growth.seconds["score"] + growth.seconds["rounds"]
    passes = 2 * (len(growth.rounds) + steps)
    return Row(OURS, after, growth.reached, 1, passes, spent, growth.patch.parameters_edited, held(growth.patch))


def front_value(rows: Sequence[Row], before: Evaluation, concept: str) -> dict:
    """Forgetting against keeping, every method a shape with its intervals; better is up and to the left.

    A hollow shape missed the target on the search split. Picked, a method's cases are shown.
    """
    points = [row for row in rows if row.after]
    traces = [_front_line(points), _point("unedited model", before, "original", "x-thin-open")]
    rivals = [row.name for row in points if row.name != OURS]
    for row in points:
        symbol = "circle" if row.name == OURS else SYMBOLS[rivals.index(row.name) % len(SYMBOLS)]
        named, hollow = (row.name, "") if row.reached else (f"{row.name}, target not met", "-open")
        drawn = _point(named, row.after, "edited" if row.name == OURS else "soft", symbol + hollow)
        traces.append(drawn | {"customdata": [row.name]})
    layout = {
        "xaxis": {"title": {"text": f"{literal(concept)} still there, % of its test pictures"}, "range": [-3, 104]},
        "yaxis": {"title": {"text": "other answers right, %"}},
        "height": 420,
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.12},
    }
    return chart_value(traces, layout, finding=front_finding(points, concept))


def pareto(rows: Sequence[Row]) -> list[Row]:
    """The methods that no other one beats: none forgets as much and retains as much, and more of one of them."""

    def beaten(row: Row, by: Row) -> bool:
        (x, y), (a, b) = ((r.after.forget_accuracy.value, r.after.retain_accuracy.value) for r in (row, by))
        return a <= x and b >= y and (a, b) != (x, y)

    there = [row for row in rows if row.after]
    best = [row for row in there if not any(beaten(row, other) for other in there)]
    return sorted(best, key=lambda row: row.after.forget_accuracy.value)


def _front_line(rows: Sequence[Row]) -> dict:
    """The front of what was met so far, as steps: to the right of and below it is what some method beats."""
    best = [row.after for row in pareto(rows)]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "front, by the values alone",
        "x": [100 * found.forget_accuracy.value for found in best],
        "y": [100 * found.retain_accuracy.value for found in best],
        "line": {"color": "token:soft", "width": 1.5, "dash": "dot", "shape": "hv"},
        "hoverinfo": "skip",
    }


def _point(name: str, found: Evaluation, colour: str, symbol: str) -> dict:
    x, y = found.forget_accuracy, found.retain_accuracy

    def bars(measure: Measure) -> dict:
        return {
            "type": "data",
            "symmetric": False,
            "array": [100 * (measure.high - measure.value)],
            "arrayminus": [100 * (measure.value - measure.low)],
            "color": f"token:{colour}",
            "thickness": 1,
        }

    return {
        "type": "scatter",
        "mode": "markers",
        "name": literal(name),
        "x": [100 * x.value],
        "y": [100 * y.value],
        "text": [f"{literal(name)}<br>still there {_hovered(x)}<br>other answers right {_hovered(y)}"],
        "error_x": bars(x),
        "error_y": bars(y),
        "marker": {"size": 12, "symbol": symbol, "color": f"token:{colour}", "line": {"width": 2}},
        "hovertemplate": "%{text}<extra></extra>",
    }


SPOKES = {
    "forgotten": lambda found: _less(found.forget_accuracy),
    "other answers right": lambda found: found.retain_accuracy,
    "neighbours right": lambda found: found.neighbor_accuracy,
    "other questions about its pictures right": lambda found: found.cross_accuracy,
}


def _less(measure: Measure) -> Measure:
    """The share that is not."""
    return Measure(1 - measure.value, measure.n, 1 - measure.high, 1 - measure.low)


def radar_value(rows: Sequence[Row], before: Evaluation) -> dict:
    """The same shares as a web, further out is better: forgetting, and what is kept of each kind."""
    sides = [("unedited model", before, "original")]
    sides += [(row.name, row.after, "edited" if row.name == OURS else "soft") for row in rows if row.after]
    spokes = {name: share for name, share in SPOKES.items() if all(share(found) for _, found, _ in sides)}
    traces = []
    for number, (name, found, colour) in enumerate(sides):
        told = {spoke: share(found) for spoke, share in spokes.items()}
        names, shares = [*told, next(iter(told))], [*told.values(), next(iter(told.values()))]  # round to the first
        traces.append({
            "type": "scatterpolar", "mode": "lines+markers", "name": literal(name), "theta": names,
            "r": [100 * m.value for m in shares],
            "text": [f"{literal(name)}<br>{spoke} {_hovered(m)}" for spoke, m in zip(names, shares, strict=True)],
            "hovertemplate": "%{text}<extra></extra>",
            "line": {"color": f"token:{colour}", "dash": DASHES[number % len(DASHES)], "width": 2},
            "marker": {"color": f"token:{colour}", "size": 6},
        })  # fmt: skip
    axis = {"range": [0, 100], "gridcolor": "token:line", "ticksuffix": " %", "angle": 90, "tickangle": 90}
    layout = {
        "polar": {"radialaxis": axis, "angularaxis": {"gridcolor": "token:line"}, "bgcolor": "token:paper"},
        "height": 460,
        "margin": {"t": 48, "b": 96, "l": 48, "r": 48},
        "showlegend": True,
        "legend": {"orientation": "h", "y": -0.2},
    }
    return chart_value(traces, layout, finding="Further out is better on every spoke; hover for n and interval.")


def _hovered(measure: Measure) -> str:
    return f"{100 * measure.value:.1f} %, {100 * measure.low:.1f} to {100 * measure.high:.1f} %, n = {measure.n:,}"


def front_finding(rows: Sequence[Row], concept: str) -> str:
    """Which method keeps most of those that forget, and which lie within its interval."""
    there = [row for row in rows if row.reached]
    if not there:
        return f"No method met the target for {concept} on the search split."
    best = max(there, key=lambda row: row.after.retain_accuracy.value)
    tied = [
        row.name for row in there
        if row is not best and row.after.retain_accuracy.high >= best.after.retain_accuracy.low
    ]  # fmt: skip
    beside = f"; {', '.join(tied)} lie{'s' if len(tied) == 1 else ''} within its interval" if tied else ""
    right = best.after.retain_accuracy
    kept = (
        f"{100 * right.value:.1f} % of other answers (n = {right.n:,}, 95 % interval {100 * right.low:.1f} to "
        f"{100 * right.high:.1f} %)"
    )
    if len(there) == 1:
        return f"Only {best.name} met the target; it keeps {kept}."
    return f"Of {len(there)} methods that met the target, {best.name} keeps most: {kept}{beside}."


def table_html(rows: Sequence[Row], before: Evaluation) -> str:
    """Every method with its numbers and what it took."""
    golden = any(row.gold for row in rows)
    heads = ("method", "still there", "other answers right", "neighbours right", *([GOLD] if golden else []),
             "settings tried", "passes", "seconds", "weights changed", "patch")  # fmt: skip
    lines = [("unedited model", _measures(before) + ("<td>0 %</td>" if golden else ""), ("", "", "", "", ""))]
    for row in rows:
        said = row.note or ("" if row.reached else "target not met on the search split")
        name = f"{escape(row.name)}{f'<small>{escape(said)}</small>' if said else ''}"
        found = row.after or row.searched
        numbers = _measures(found) if found else "<td></td><td></td><td></td>"
        numbers += _way(row.gold) if golden else ""
        lines.append(
            (name, numbers, (row.settings, row.passes, f"{row.seconds:.1f}", f"{row.edited:,}", kilobytes(row.size)))
        )
    body = "".join(
        f"<tr><td>{name}</td>{numbers}{''.join(f'<td>{cost}</td>' for cost in costs)}</tr>"
        for name, numbers, costs in lines
    )
    return table_section("", heads, body)


def _measures(found: Evaluation) -> str:
    return "".join(map(cell, (found.forget_accuracy, found.retain_accuracy, found.neighbor_accuracy)))


def _way(found: Distance | None) -> str:
    """How far an edit's answers about the concept's pictures went towards those of a model that never saw it."""
    went = found and found.way.get("forget")
    return cell(went)


def cases_html(name: str, shown: Sequence[Sight]) -> str:
    """A few cases before and after one method's edit."""
    return f'<section class="check-table"><h3>Cases of {escape(name)}</h3>{grouped(shown, 4)}</section>'
