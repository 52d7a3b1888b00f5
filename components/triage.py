"""The triage of screen 4: how many cases were forgotten as asked, too little or too much, and which."""

from collections.abc import Sequence
from html import escape

from PIL import Image

from razor.growth import Growth
from razor.metrics import Evaluation, Measure
from razor.picture_files import image_url
from razor.triage import CORRECTLY, FORGET, KEPT, NEVER, NOT, OVERLY, RETAIN, asked, triage
from razor.wording import tested

COLUMNS = (CORRECTLY, NOT, OVERLY, KEPT, NEVER)
SHOWN = 12  # cases of a kind that are shown
SIDE = 96  # px
EMPTY = "<td>\u2013</td>"


def triage_html(growth: Growth, before: Evaluation, after: Evaluation) -> str:
    """The table, and the cases that went wrong; "" where single cases are not known."""
    found, concept = triage(before, after), growth.task.concept
    if not found:
        return ""
    names = {"forget": f"of {concept}", "retain": "others", "neighbours": "of these, nearest neighbours"}
    rows = "".join(
        f"<tr><td>{escape(names[kind])}</td><td>{len(cases.verdicts):,}</td>"
        + "".join(
            _cell(cases.count(column)) if column in (FORGET if kind == "forget" else RETAIN) else EMPTY
            for column in COLUMNS
        )
        + "</tr>"
        for kind, cases in found.items()
    )
    heads = "".join(f"<th>{head}</th>" for head in ("", "n", *COLUMNS))
    what = tested(growth.adapter, growth.task).what
    said = f"Each case of the test split as it was measured, on {what}, before and after the edit; 95 % intervals."
    shown = asked(growth)
    wrong = "".join(
        _cases(verdict, [case for case, was in zip(shown[kind], found[kind].verdicts, strict=True) if was == verdict])
        for kind, verdict in (("forget", NOT), ("retain", OVERLY))
        if kind in found and len(shown[kind]) == len(found[kind].verdicts)
    )
    return (
        f'<section class="check-table"><h3>Forgotten as asked, too little or too much</h3><p>{escape(said)}</p>'
        f'<div class="table-scroll"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>{wrong}'
        "</section>"
    )


def _cell(measure: Measure) -> str:
    count = sum(measure.hits)
    return (
        f'<td class="measure">{count:,}<small>{100 * measure.value:.1f} %, {100 * measure.low:.1f} to '
        f"{100 * measure.high:.1f}</small></td>"
    )


def _cases(verdict: str, cases: Sequence[tuple[Image.Image, str]]) -> str:
    if not cases:
        return ""
    pictures = "".join(
        f'<img src="{image_url(image, SIDE)}" alt="{escape(words)}" title="{escape(words)}">'
        for image, words in cases[:SHOWN]
    )
    more = f", the first {SHOWN}" if len(cases) > SHOWN else ""
    return (
        f'<details class="triage"><summary>{verdict.capitalize()}: {len(cases)}{more}</summary><div>{pictures}</div>'
        "</details>"
    )
