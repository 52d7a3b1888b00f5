"""Drawings as SVG, which need no script and print: the map of an edit, its rounds, what relearning gets back.

Lines and texts are coloured by class, in report.py and in the page's style sheets; the map by RAMP.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from razor.metrics import Evaluation, Measure
from razor.robustness import Finding

CELL = 22  # px
RAMP = ("#00224e", "#575d6d", "#a59c74", "#fee838")  # low to high
LEFT, TOP, LINE = 44, 20, 13  # px beside and above curves, and of a line of text
ROUNDS, TRAINING = (420, 150), (140, 100)  # px, wide and tall


def map_svg(
    tower: Mapping, phi: Mapping[str, float], domain: tuple[float, float], edited: Mapping[str, int | None]
) -> str:
    """One tower's units, brighter where phi is higher; edited ones outlined with the round they joined in.

    Args:
        tower: see grids.grids.
        domain: log10 of the phi drawn darkest and brightest.
        edited: unit -> round, None where it was put in by hand.
    """
    rows, columns = tower["rows"], tower["columns"]
    left, top = 64, 18
    cells = []
    for r, line in enumerate(tower["units"]):
        cells.append(f'<text x="{left - 6}" y="{top + r * CELL + 15}" text-anchor="end">{escape(rows[r])}</text>')
        for c, name in enumerate(line):
            if name is None:
                continue
            x, y = left + c * CELL, top + r * CELL
            fill = _colour(phi[name], domain)
            cells.append(
                f'<rect x="{x}" y="{y}" width="{CELL - 1}" height="{CELL - 1}" fill="{fill}">'
                f"<title>{escape(name)}, phi {phi[name]:.3g}</title></rect>"
            )
            if name in edited:
                number = "+" if edited[name] is None else edited[name]
                cells.append(
                    f'<rect x="{x + 1}" y="{y + 1}" width="{CELL - 3}" height="{CELL - 3}" class="edited"/>'
                    f'<text x="{x + CELL / 2}" y="{y + 15}" text-anchor="middle" class="round">{number}</text>'
                )
    heads = "".join(
        f'<text x="{left + c * CELL + CELL / 2}" y="12" text-anchor="middle">{escape(name)}</text>'
        for c, name in enumerate(columns)
    )
    width, height = left + len(columns) * CELL + 4, top + len(rows) * CELL + 4
    return (
        f"<figure><figcaption>{escape(tower['title'])}</figcaption>"
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(tower["title"])}: phi of every unit">{heads}{"".join(cells)}</svg></figure>'
    )


def _colour(phi: float, domain: tuple[float, float]) -> str:
    """The ramp at phi's place in the domain of its logarithm."""
    low, high = domain
    at = (math.log10(phi) - low) / (high - low) if phi > 0 and high > low else 0.0
    place = min(1.0, max(0.0, at)) * (len(RAMP) - 1)
    first = min(int(place), len(RAMP) - 2)
    ends = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in RAMP[first : first + 2]]
    mixed = (round(a + (b - a) * (place - first)) for a, b in zip(*ends, strict=True))
    return "#" + "".join(f"{value:02x}" for value in mixed)


def rounds_svg(measured: Sequence[Evaluation]) -> str:
    """Forget and retain accuracy before any round and after each, with their intervals."""
    names = ["unedited", *(f"round {i}" for i in range(1, len(measured)))]
    places = [at / max(1, len(measured) - 1) for at in range(len(measured))]
    lines = [
        (words, places, [getattr(found, name) for found in measured])
        for name, words in (("forget_accuracy", "forget"), ("retain_accuracy", "retain"))
    ]
    return _curves(ROUNDS, zip(places, names, strict=True), lines, "Forget and retain accuracy by round")


def training_svgs(findings: Iterable[Finding]) -> str:
    """What training brings back of a concept by its steps, one drawing a curve, beside a model that never saw it."""
    curves: dict[tuple[str, str], list[Finding]] = {}
    for found in findings:
        if found.steps:
            curves.setdefault((found.attack, found.curve), []).append(found)
    return "".join(_training(name, found) for (_, name), found in curves.items())


def _training(name: str, found: Sequence[Finding]) -> str:
    last = max(f.steps for f in found)
    steps = [0, *(f.steps for f in found)]
    places = [step / last for step in steps]
    lines = [("edit", places, [found[0].edited, *(f.attacked for f in found)])]
    if all(f.gold for f in found):
        lines.append(("never saw it", places[1:], [f.gold for f in found]))
    drawn = _curves(TRAINING, [(0, "0"), (1, f"{last} steps")], lines, f"Still there after training on {name}")
    return f"<figure><figcaption>Training on {escape(name)}</figcaption>{drawn}</figure>"


def _curves(
    size: tuple[int, int],
    ticks: Iterable[tuple[float, str]],
    lines: Iterable[tuple[str, Sequence[float], Sequence[Measure]]],
    label: str,
) -> str:
    """Shares over places in 0..1, each with its interval, every line's name and last value at its end.

    Args:
        lines: what a line is called and styled by, its places, its values.
    """
    wide, tall = size
    x, y = (lambda at: LEFT + wide * at), (lambda share: TOP + tall * (1 - share))
    drawn = [
        f'<line x1="{LEFT}" x2="{LEFT + wide}" y1="{y(share)}" y2="{y(share)}" class="rule"/>'
        f'<text x="{LEFT - 6}" y="{y(share) + 3}" text-anchor="end">{share:.0%}</text>'
        for share in (0.0, 0.5, 1.0)
    ]
    drawn += [
        f'<text x="{x(at):.1f}" y="{TOP + tall + 16}" text-anchor="middle">{escape(words)}</text>'
        for at, words in ticks
    ]
    lines = list(lines)
    ends = _apart([y(found[-1].value) + 4 for _, _, found in lines])
    for (words, places, found), end in zip(lines, ends, strict=True):
        points = " ".join(f"{x(at):.1f},{y(m.value):.1f}" for at, m in zip(places, found, strict=True))
        bars = "".join(
            f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{y(m.low):.1f}" y2="{y(m.high):.1f}"/>'
            for at, m in zip(places, found, strict=True)
        )
        said = f'<text x="{LEFT + wide + 8}" y="{end:.1f}">{escape(words)} {found[-1].value:.1%}</text>'
        drawn.append(f'<g class="{words.replace(" ", "-")}">{bars}<polyline points="{points}"/>{said}</g>')
    width, height = LEFT + wide + 124, TOP + tall + 24
    return (
        f'<svg class="curves" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(label)}">{"".join(drawn)}</svg>'
    )


def _apart(heights: Sequence[float]) -> list[float]:
    """The same heights, raised where texts would stand in each other; px from the top."""
    found, lowest = list(heights), math.inf
    for i in sorted(range(len(found)), key=lambda i: -found[i]):
        found[i] = lowest = min(found[i], lowest - LINE)
    return found
