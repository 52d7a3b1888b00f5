"""One self-contained page on what was forgotten, what it cost and how that is known; and the same for a model card.

The page asks for nothing from outside, prints, and holds its recipe (`recipe.read` finds it).
"""

import json
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from html import escape

from razor import telling
from razor.config import RazorConfig
from razor.figures import map_svg, rounds_svg
from razor.gates import Gate, Verdict, overall
from razor.gold import Distance
from razor.grids import grids
from razor.growth import Growth
from razor.metrics import Evaluation, Measure
from razor.modelspec import shareable, short_name
from razor.picture_files import image_url
from razor.recipe import left_out, planned, recipe, with_gates
from razor.robustness import Finding
from razor.sights import Sight
from razor.sources import is_target
from razor.tables import alike_table, attack_lead, attack_table, cell, costs, gold_table, wide
from razor.wording import capital, tested, wording

SIDE = 320  # pixels a picture is given at most
MEASURED = {  # Evaluation field -> what a person calls it
    "forget_accuracy": "Concept still there",
    "retain_accuracy": "Other answers right",
    "neighbor_accuracy": "Nearest neighbours right",
    "cross_accuracy": "Other questions about its pictures right",
    "retrieval_stability": "Pictures found again by their captions",
    "prediction_stability": "Retained predictions as before",
    "unlearning_accuracy": "Unlearning accuracy (UA)",
    "in_domain_retain_accuracy": "In-domain retain accuracy (IRA)",
    "cross_domain_retain_accuracy": "Cross-domain retain accuracy (CRA)",
    "affirmed": "Yes said to its name",
    "granted": "Yes said to others' own names",
    "neutral_kl": "Drift on neutral questions, nats",
}
LIMITS = (
    "Suppressed under these tests is all that is claimed. There is no certificate, and this is not the same as "
    "retraining without the data.",
    "Every number rests on the cases counted beside it; other pictures, words or attacks may find more.",
    "The edit names where the concept was; who holds it can bring back what was suppressed.",
)
TEXT_ONLY = (
    "Only text was edited: the word is cut from the picture, and the picture's own features are as they were, so that "
    "a probe trained on them still finds the concept."
)
TOGETHER = "The numbers here are of this edit and those it was grown on; one put on later was not there yet."


@dataclass(frozen=True, eq=False)
class Report:
    """What a report tells.

    Args:
        before, after: the test split, unedited and edited.
        sights: cases to look at; none leaves the pictures out.
        gold: see gold.py.
        verdicts, findings: what screen 4 or `evaluate --attacks` found; empty where nothing was checked.
        reason: why it had to be forgotten, in the words of whoever asked for it.
        stack: the edits it acts together with, as a recipe tells them; see Stack.recipe.
        gates: what the edit has to stand, where that was fixed; the recipe keeps it.
    """

    growth: Growth
    before: Evaluation
    after: Evaluation
    sights: Sequence[Sight] = ()
    verdicts: Sequence[Verdict] = ()
    findings: Sequence[Finding] = ()
    gold: Distance | None = None  # beside a model that never saw the concept, where there is one
    reason: str = ""
    stack: Sequence[Mapping] = ()
    gates: Sequence[Gate] = ()
    made: date = field(default_factory=date.today)

    @property
    def recipe(self) -> dict:
        """The recipe without places on this machine."""
        made = shareable(recipe(self.growth)) | ({"stack": list(self.stack)} if self.stack else {})
        return with_gates(made, self.gates)

    @property
    def lead(self) -> str:
        """The outcome in one or two sentences."""
        return telling.ending(self.growth, self.before, self.after)


def command(growth: Growth) -> str:
    """The command that repeats a run, as far as one can: changes by hand and own pictures need more than it."""
    task, config, usual = growth.task, growth.config, RazorConfig()
    source = task.origin.get("forget", "")
    parts = ["python", "-m", "razor", "unlearn", "--model", short_name(growth.adapter.name)]
    if is_target(source):
        parts += ["--forget", source]
    elif source.startswith("drawn from"):
        parts += ["--concept", task.concept]
    else:
        parts += ["--forget", "YOUR_PICTURES", "--concept", task.concept]
        parts += ["--drawn-too"] if "named" in task.origin else []
    for name, value in vars(config).items():
        if name == "towers" and set(value or ()) == set(growth.growing):
            continue
        if value != getattr(usual, name) and name in _FLAGS:
            parts += [f"--{name.replace('_', '-')}", ",".join(value) if isinstance(value, tuple) else str(value)]
    return shlex.join([*parts, "--out", "runs/again"])


def _how(report: Report) -> list[str]:
    """What to know of the command."""
    growth, made = report.growth, report.recipe
    if any(r.accepted and not r.chosen for r in growth.rounds):
        return ["This edit was brought in, and only its patch holds it. What growth does instead:"]
    said = ["The command; on another machine the last digits may differ."]
    if growth.by_hand or any(r.by_hand for r in growth.rounds):
        again = "unlearn --recipe does, by this report, the recipe or the patch" if planned(made).steps else "see below"
        said.append(f"It does not repeat what was changed by hand; {again}, and the patch holds it.")
    return said


_FLAGS = ("seed", "alpha", "tau", "rho", "rounds", "start_units", "inner_steps", "step_size", "forget_target",
          "retain_budget", "batch", "towers", "forget_loss", "granularity")  # fmt: skip


# ---------------------------------------------------------------- the page


def html(report: Report) -> str:
    """The report as one HTML page."""
    growth = report.growth
    title = f"{capital(growth.task.concept)} in {short_name(growth.adapter.name)}"
    parts = [_head(report, title), _outcome(report), _cases(report.sights), _map(growth), _rounds(growth),
             _stack(report), _verdict(report), _attacks(report), _gold(report), _costs(growth), _limits(growth),
             _again(report)]  # fmt: skip
    body = "\n".join(part for part in parts if part)
    held = json.dumps(report.recipe).replace("<", "\\u003c")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{escape(title)}: what was forgotten</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n"
        f'<script type="application/json" id="razor-recipe">{held}</script>\n</body>\n</html>\n'
    )


_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def _head(report: Report, title: str) -> str:
    why = f'<p class="reason">Why: {escape(report.reason)}</p>' if report.reason else ""
    return (
        f"<header><p>Unlearning report, {report.made:%d %B %Y}</p><h1>{escape(title)}</h1>"
        f'<p class="lead">{escape(report.lead)}</p>{why}</header>'
    )


def _outcome(report: Report) -> str:
    words = tested(report.growth.adapter, report.growth.task)
    rows = [
        (label, getattr(report.before, name), getattr(report.after, name), name)
        for name, label in MEASURED.items()
        if getattr(report.after, name)
    ]
    body = "".join(
        f"<tr><td>{label}</td><td>{_value(was, name)}{_small(was, name)}</td>"
        f"<td><strong>{_value(now, name)}</strong>{_small(now, name)}</td><td>{now.n:,}</td></tr>"
        for label, was, now, name in rows
    )
    note = f"<p>{escape(words.note)}</p>" if words.note else ""
    said = f"Counted on {escape(words.what)} that neither the edit nor its search has seen, with 95 % intervals."
    return _section("Before and after", f"<p>{said}</p>{_table(('', 'before', 'after', 'n'), body)}{note}")


def _value(measure: Measure | None, name: str) -> str:
    if measure is None or math.isnan(measure.value):
        return "\u2013"
    return f"{measure.value:.4f}" if name == "neutral_kl" else f"{measure.value:.1%}"


def _interval(measure: Measure | None, name: str) -> str:
    """The interval of a value; "" where there is none."""
    if measure is None or math.isnan(measure.value):
        return ""
    form = ".4f" if name == "neutral_kl" else ".1%"
    return f"{measure.low:{form}} to {measure.high:{form}}"


def _small(measure: Measure | None, name: str) -> str:
    return f"<small>{_interval(measure, name)}</small>"


def _cases(sights: Sequence[Sight]) -> str:
    if not sights:
        return ""
    said = "<p>Chosen from all over the test split, not by how they came out.</p>"
    return _section("Cases to look at", said + grouped(sights))


def grouped(sights: Sequence[Sight], level: int = 3) -> str:
    """Cases as figures: pictures, what each side made of them, what that comes to.

    Args:
        level: of the heading over each group.
    """
    groups: dict[str, list[str]] = {}
    for sight in sights:
        groups.setdefault(sight.group, []).append(_case(sight))
    return "".join(
        f'<h{level}>{escape(group)}</h{level}><div class="cases">{"".join(built)}</div>'
        for group, built in groups.items()
    )


def _case(sight: Sight) -> str:
    sides = ("before", "after")
    names = [f", {side}" for side in sides] if len(sight.pictures) > 1 else [""]
    pictures = "".join(
        f'<img src="{image_url(image, SIDE, "jpeg")}" alt="{escape(sight.words)}{name}">'
        for image, name in zip(sight.pictures, names, strict=True)
    )
    said = "".join(
        f"<dt>{side}</dt><dd>{escape(words)}</dd>" for side, words in zip(sides, sight.said, strict=True) if words
    )
    verdict = f'<p class="verdict" data-said="{escape(sight.verdict)}">{escape(sight.verdict)}</p>'
    return (
        f'<figure data-pictures="{len(sight.pictures)}"><div>{pictures}</div><figcaption>{escape(sight.words)}'
        f"</figcaption>{f'<dl>{said}</dl>' if said else ''}{verdict if sight.verdict else ''}</figure>"
    )


# ---------------------------------------------------------------- where it was edited


def _map(growth: Growth) -> str:
    if not growth.showable:
        return ""
    scores = growth.shown_scores()
    phi = {s.unit.name: s.phi for s in scores}
    logs = sorted(math.log10(value) for value in phi.values() if value > 0)
    low, high = (logs[round(share * (len(logs) - 1))] for share in (0.02, 0.98)) if logs else (0.0, 1.0)
    active = set(growth.edit_set.active)
    drawn = "".join(
        map_svg(tower, phi, (low, high), {name: growth.joined.get(name) for name in active})
        for tower in grids([s.unit for s in scores], {"phi": phi})
    )
    said = telling.map_finding(scores, growth)
    key = (
        "One cell a head or MLP, brighter where it pushes harder on forgetting without pulling against the rest "
        f"(phi, log scale, {10**low:.2g} to {10**high:.2g}). Outlined: edited, with the growth round it joined in, or "
        "+ where it was put in by hand."
    )
    return _section("Where it was edited", f"<p>{escape(said)}</p><div class='towers'>{drawn}</div><p>{key}</p>")


def _rounds(growth: Growth) -> str:
    if not growth.rounds and not growth.by_hand:
        return ""
    rows = "".join(
        f"<tr><td>{r.index}</td><td>{escape(_added(r))}</td>{wide(r.after.forget_accuracy)}"
        f"{wide(r.after.retain_accuracy)}<td>{'taken' if r.accepted else 'not taken'}</td>"
        f"<td>{r.seconds:.1f}</td></tr>"
        for r in growth.rounds
    )
    heads = ("round", "units that joined", wording(growth).forget, wording(growth).retain, "result", "seconds")
    last = f"<p>Since then by hand: {escape(growth.by_hand)}.</p>" if growth.by_hand else ""
    said = f"<p>{escape(telling.timeline_finding(growth))}</p>"
    measured = [growth.base, *(r.after for r in growth.rounds)]
    return _section("How it grew", said + (rounds_svg(measured) + _table(heads, rows) if rows else "") + last)


def _stack(report: Report) -> str:
    """The edits that act together, in order."""
    if not report.stack:
        return ""
    rows = "".join(
        f"<tr><td>{i}</td><td>{escape(entry['name'])}</td><td>{escape(_units(report, entry))}</td>"
        f"<td>{escape(', '.join(entry.get('beneath', ())) or 'the unedited model')}</td></tr>"
        for i, entry in enumerate(report.stack, 1)
    )
    heads = ("", "forgotten", "units edited", "grown on top of")
    return _section("Edits that act together", f"<p>In this order. {TOGETHER}</p>{_table(heads, rows)}")


def _units(report: Report, entry: Mapping) -> str:
    own = entry["name"] == report.growth.task.concept
    members = report.growth.edit_set.active if own else entry.get("edit_set", {}).get("members", ())
    return ", ".join(members) + (" (this report)" if own else "")


def _added(done) -> str:
    hand = [f"by hand: {done.by_hand}"] if done.by_hand else []
    return "; ".join([", ".join(s.unit.name for s in done.added) or "none", *hand])


# ---------------------------------------------------------------- what it stands


def _verdict(report: Report) -> str:
    if not report.verdicts:
        said = "Nothing was attacked. Screen 4, or evaluate --attacks all, tries what an attacker would."
        return _section("What it stands", f"<p>{said}</p>")
    headline = capital(telling.HEADLINE[overall(report.verdicts)].format(report.growth.task.concept))
    rows = "".join(
        f'<tr><td data-said="{v.said}"><strong>{telling.SAID[v.said]}</strong></td><td>{escape(v.gate.words)}</td>'
        f"<td>{escape(v.why)}</td></tr>"
        for v in report.verdicts
    )
    worst = f"<p>{escape(telling.worst_text(report.findings))}</p>" if report.findings else ""
    lead = f"<p><strong>{escape(headline)}</strong> The limits were set before the tests ran.</p>"
    return _section("What it stands", f"{lead}{worst}{_table(('', 'question', 'evidence'), rows)}")


def _attacks(report: Report) -> str:
    if not report.findings:
        return ""
    heads, rows = attack_table(report.findings, cell)
    return _section("What attacks get back", attack_lead(report.findings) + _table(heads, rows))


def _gold(report: Report) -> str:
    if report.gold is None:
        return ""
    found, concept = report.gold, report.growth.task.concept
    said = f"<p>{escape(telling.gold_text(found, concept))}</p>{_table(*gold_table(found, concept, wide))}"
    alike = f"<p>{telling.ALIKE}</p>{_table(*alike_table(found, wide))}"
    return _section("Beside a model that never saw it", said + alike)


# ---------------------------------------------------------------- costs, limits, again


def _costs(growth: Growth) -> str:
    rows = "".join(f"<tr><td>{escape(label)}</td><td>{escape(text)}</td></tr>" for label, text in costs(growth))
    return _section("What it took", _table((), rows))


def limits(growth: Growth) -> list[str]:
    """What a reader must not take the numbers for."""
    towers = {growth.every[name].tower for name in growth.edit_set.active}
    text_only = growth.adapter.family == "clip" and towers and "image" not in towers
    return [*LIMITS, *([TEXT_ONLY] if text_only else [])]


def _limits(growth: Growth) -> str:
    return _section("Limits", f"<ul>{''.join(f'<li>{escape(limit)}</li>' for limit in limits(growth))}</ul>")


def _again(report: Report) -> str:
    growth = report.growth
    held = json.dumps(report.recipe, indent=1)
    said = "".join(f"<p>{escape(line)}</p>" for line in [*_how(report), *left_out(report.recipe)])
    return _section(
        "How to repeat it",
        f"{said}<pre>{escape(command(growth))}</pre>"
        "<details><summary>The recipe: model and pictures by hash, settings, edit set, rounds, versions</summary>"
        f"<pre>{escape(held)}</pre></details>",
    )


def _section(title: str, inside: str) -> str:
    return f"<section><h2>{title}</h2>{inside}</section>"


def _table(heads: Iterable[str], rows: str) -> str:
    named = "".join(f"<th>{escape(head)}</th>" for head in heads)
    return f"<table>{f'<thead><tr>{named}</tr></thead>' if named else ''}<tbody>{rows}</tbody></table>"


_STYLE = """
:root { --ink: #1f2838; --soft: #5d6b82; --line: #e1e6ef; --pass: #0b746b; --fail: #c2371f; --open: #94600a; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 40px 32px 64px; max-width: 960px; color: var(--ink); background: #fff;
  font: 15px/24px system-ui, -apple-system, "Segoe UI", sans-serif; }
header { border-bottom: 2px solid var(--ink); padding-bottom: 16px; }
header > p:first-child { margin: 0; color: var(--soft); }
h1 { margin: 4px 0 12px; font-size: 28px; line-height: 36px; }
h2 { margin: 40px 0 12px; font-size: 19px; line-height: 28px; }
h3 { margin: 24px 0 8px; font-size: 15px; }
p { margin: 0 0 12px; max-width: 80ch; overflow-wrap: anywhere; }
.reason { white-space: pre-line; }
.lead { font-size: 18px; line-height: 28px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 16px 6px 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 400; }
table + p { margin-top: 16px; }
small { display: block; color: var(--soft); font-size: 13px; line-height: 20px; }
.measure, td[data-said] { white-space: nowrap; }
figure { margin: 0; break-inside: avoid; }
figcaption { font-size: 13px; line-height: 20px; color: var(--soft); overflow-wrap: anywhere; }
.trainings { display: flex; flex-wrap: wrap; gap: 16px; margin-bottom: 12px; }
.cases { display: flex; flex-wrap: wrap; gap: 16px; }
.cases figure { width: 160px; }
.cases figure[data-pictures="2"] { width: 280px; }
.cases figure > div { display: flex; gap: 4px; }
.cases img { width: 100%; min-width: 0; flex: 1; border-radius: 4px; aspect-ratio: 1; object-fit: cover; }
dl { display: grid; grid-template-columns: auto 1fr; gap: 0 8px; margin: 4px 0; font-size: 13px; line-height: 20px; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.verdict { margin: 0; font-size: 13px; line-height: 20px; font-weight: 700; }
.verdict[data-said^="suppressed"], .verdict[data-said="kept"], [data-said="pass"] { color: var(--pass); }
.verdict[data-said^="still"], .verdict[data-said="names it"], [data-said="fail"] { color: var(--fail); }
.verdict[data-said="changed"], [data-said="inconclusive"] { color: var(--open); }
.towers { display: flex; flex-wrap: wrap; gap: 24px; margin-bottom: 12px; }
.towers figcaption { color: var(--ink); font-weight: 700; }
.towers svg { max-width: 100%; height: auto; }
svg text { font: 10px system-ui, sans-serif; fill: var(--soft); }
svg .edited { fill: #fff; fill-opacity: 0.72; stroke: #3f51d6; stroke-width: 2.5; }
.curves .rule { stroke: var(--line); }
.curves polyline { fill: none; stroke-width: 2; }
.curves .forget, .curves .edit { stroke: var(--fail); }
.curves .retain { stroke: var(--pass); }
.curves .never-saw-it { stroke: var(--soft); stroke-dasharray: 4 3; }
.curves g text { stroke: none; font-size: 12px; font-weight: 700; }
.curves .forget text, .curves .edit text { fill: var(--fail); }
.curves .retain text { fill: var(--pass); }
svg .round { fill: #1f2838; font-weight: 700; font-size: 11px; }
pre { margin: 0 0 12px; padding: 12px; background: #f0f3f8; border-radius: 4px; font-size: 13px; line-height: 20px;
  white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; }
@page { margin: 16mm 14mm; }
@media print {
  body { padding: 0; max-width: none; font-size: 11pt; line-height: 1.45; }
  section { break-inside: auto; }
  h2, h3, p:has(+ table), tbody tr:first-child, tbody tr:nth-last-child(2) { break-after: avoid; }
  h2 { margin-top: 24px; }
  p, tr, figure { break-inside: avoid; }
  section:has(.towers) { break-inside: avoid; }
  .cases { gap: 12px; }
  .cases figure { width: calc((100% - 48px) / 5); }
  .cases figure[data-pictures="2"] { width: calc((100% - 24px) / 3); }
  details:not([open]) { display: none; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""


# ---------------------------------------------------------------- the model card


def _plain(text: str) -> str:
    """Somebody's words as they are: nothing in them counts as Markdown or HTML."""
    return escape(re.sub(r"([\\`*_{}\[\]()#+\-.!|~])", r"\\\1", text), quote=False)


def _bracketed(measure: Measure | None, name: str) -> str:
    """A value with its interval in brackets."""
    interval = _interval(measure, name)
    return _value(measure, name) + (f" ({interval})" if interval else "")


def model_card(report: Report) -> str:
    """A section for the card of an edited model, in Markdown."""
    growth, words = report.growth, tested(report.growth.adapter, report.growth.task)
    stack = ", ".join(_plain(entry["name"]) for entry in report.stack)
    rows = [
        f"| {label} | {_bracketed(getattr(report.before, name), name)} | {_bracketed(now, name)} | {now.n:,} |"
        for name, label in MEASURED.items()
        if (now := getattr(report.after, name))
    ]
    checked = [f"- {v.gate.words} {telling.SAID[v.said]}: {v.why}" for v in report.verdicts]
    lines = [
        f"## Edited to forget {growth.task.concept!r}",
        "",
        report.lead,
        "",
        *([*(f"> {_plain(line)}" for line in f"Why: {report.reason}".splitlines()), ""] if report.reason else []),
        f"Base model: {short_name(growth.adapter.name)}, weights hash `{growth.adapter.fingerprint()}`. "
        f"{growth.patch.parameters_edited:,} weights changed, in {telling.names(list(growth.edit_set.active))}.",
        "",
        f"Counted on {words.what}, with 95 % intervals. {words.note}".strip(),
        "",
        "| | before | after | n |",
        "|---|---|---|---|",
        *rows,
        "",
        *([f"Edits that act together, in this order: {stack}. {TOGETHER}", ""] if stack else []),
        *(["What it was tested against:", "", *checked, ""] if checked else []),
        "Limits:",
        "",
        *(f"- {limit}" for limit in limits(growth)),
        "",
        "Made with RAZOR Studio.",
        "",
        *_how(report),
        *map(_plain, left_out(report.recipe)),
        "",
        "```sh",
        command(growth),
        "```",
    ]
    return "\n".join(lines) + "\n"
