"""Tables of evidence that the fourth screen and the report share: what attacks get back, the gold model, the bill."""

import math
from collections.abc import Callable, Sequence
from html import escape
from itertools import zip_longest

from razor import telling
from razor.bench.measure import peak_mib
from razor.figures import training_svgs
from razor.gold import Distance
from razor.growth import Growth
from razor.metrics import Measure
from razor.patches import Patch
from razor.robustness import Finding

Cell = Callable[..., str]  # (measure or None, unit, "%" by default) -> a table's cell
Table = tuple[tuple[str, ...], str]  # heads, and rows as HTML
NONE = "<td>\u2013</td>"


def cell(measure: Measure | None, unit: str = "%") -> str:
    """A measure with its interval and its n, a line each, for tables of many columns."""
    return _cell(measure, unit, "</small><small>")


def wide(measure: Measure | None, unit: str = "%") -> str:
    """The same with both in one line."""
    return _cell(measure, unit, ", ")


def _cell(measure: Measure | None, unit: str, between: str) -> str:
    if measure is None or math.isnan(measure.value):
        return NONE
    value, low, high = (
        f"{100 * v:.1f}" if unit == "%" else f"{v:.3f}" for v in (measure.value, measure.low, measure.high)
    )
    return f'<td class="measure">{value} {unit}<small>{low} to {high}{between}n = {measure.n:,}</small></td>'


# ---------------------------------------------------------------- attacks


def attack_table(findings: Sequence[Finding], cell: Cell) -> tuple[tuple[str, ...], str]:
    """Heads and rows of what every attack got back, beside the same done to models that know it and never saw it."""
    golden = any(f.gold for f in findings)
    heads = ("attack", "setting", "before it", "after it", "unedited model, same attack",
             *(["model that never saw it, same attack"] if golden else []), "other answers right")  # fmt: skip
    firsts = {f.attack: f for f in reversed(findings)}
    rows = "".join(
        f"<tr><td>{escape(telling.ATTACK_WORDS[f.attack]) if firsts[f.attack] is f else ''}</td><td>{escape(f.setting)}"
        f"{f'<small>{escape(f.note)}</small>' if f.note else ''}</td>{cell(f.edited)}{cell(f.attacked)}"
        f"{cell(f.control)}{cell(f.gold) if golden else ''}{cell(f.retain)}</tr>"
        for f in findings
    )
    return heads, rows


def attack_lead(findings: Sequence[Finding]) -> str:
    """What stands over the table of attacks: how they compare with a model that never saw it, and training's curves."""
    said = telling.beside_gold_text(findings)
    drawn = training_svgs(findings)
    return (f"<p>{escape(said)}</p>" if said else "") + (f'<div class="trainings">{drawn}</div>' if drawn else "")


# ---------------------------------------------------------------- a model that never saw the concept


def gold_table(found: Distance, concept: str, cell: Cell) -> Table:
    """How near the original and the edit come to a model that never saw the concept."""
    rows = []
    for side, about in (("forget", f"pictures of {concept}"), ("retain", "other pictures")):
        rows += [
            (f"same class as it, {about}", found.agreement_before[side], found.agreement[side], "%"),
            (f"divergence, {about}", found.divergence_before[side], found.divergence[side], "bits"),
        ]
    if went := found.way.get("forget"):
        rows.append((f"way from the original to it, pictures of {concept}", None, went, "%"))
    body = (f"<tr><td>{escape(about)}</td>{cell(was, unit)}{cell(now, unit)}</tr>" for about, was, now, unit in rows)
    return ("", "original", "edited"), "".join(body)


def alike_table(found: Distance, cell: Cell) -> Table:
    """How alike the representations are, block by block of both towers, which may differ in depth."""
    sides = {
        "image tower, original": found.similarity_before,
        "image tower, edited": found.similarity,
        "text tower, original": found.text_similarity_before,
        "text tower, edited": found.text_similarity,
    }
    rows = "".join(
        f"<tr><td>{number}</td>{''.join(cell(measure, '') for measure in blocks)}</tr>"
        for number, blocks in enumerate(zip_longest(*sides.values()), start=1)
    )
    return ("block", *sides), rows


# ---------------------------------------------------------------- the bill


def costs(growth: Growth) -> list[tuple[str, str]]:
    """What the edit took: seconds by phase of its one run, memory, weights and bytes."""
    edited = growth.patch.parameters_edited
    total = sum(p.numel() for p in growth.adapter.model.parameters())
    return [
        *((f"seconds, {phase}", f"{spent:.1f}") for phase, spent in growth.seconds.items()),
        ("most memory this process held since it started, for all its work", f"{peak_mib():,.0f} MiB"),
        ("weights changed", f"{edited:,} of {total:,} ({edited / total:.2%})"),
        ("units edited", f"{len(growth.edit_set.active)} of {len(growth.units)}"),
        ("numbers of the patch, on disk", kilobytes(held(growth.patch))),
    ]


def held(patch: Patch) -> int:
    """Bytes of a patch's numbers; its file has a header beside them."""
    return sum(delta.numel() * delta.element_size() for delta in patch.deltas.values())


def kilobytes(count: int) -> str:
    """Bytes as a person reads them."""
    return f"{count / 1000:,.0f} kB"
