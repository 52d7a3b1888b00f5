"""Screen 4: gates fixed beforehand and what the evidence says to them, what attacks get back, and the bill."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import gradio as gr

from components.chart import chart, chart_value
from razor.baselines import ABLATIONS, NAMES, Budget
from razor.gates import Gate, Verdict, overall, strictest, usual
from razor.gold import Distance
from razor.growth import Growth
from razor.membership import Membership
from razor.robustness import ATTACKS, Finding
from razor.tables import alike_table, attack_lead, attack_table, cell, costs, gold_table
from razor.telling import ALIKE, ATTACK_WORDS, HEADLINE, SAID, gold_text, membership_text, worst_text
from razor.wording import capital

LIMITS = usual(1 / 20)
COUNTED = {"forget": "of its pictures", "retain": "of other answers", "neighbours": "of neighbours' answers"}
SECONDS = (10, 600, 60)  # lowest, highest and usual limit of a rival's tuning
RIVAL, BENCH = Budget(steps=24, checks=4), Budget()  # of each setting of a trained method: here, and in the bench
BUDGETS = (
    f"Here each setting of a trained method gets {RIVAL.steps} steps and is measured {RIVAL.checks} times on the way; "
    f"python -m razor compare and the bench give {BENCH.steps} and {BENCH.checks}, without a limit of time. A "
    "method that the limit stops has a note. After the rivals come RAZOR with its usual settings, as published "
    "(paper), and without one of its parts."
)


@dataclass(frozen=True)
class CheckPanel:
    """The widgets this panel owns."""

    limits: tuple[gr.Number, ...]  # one a gate of LIMITS, in % or points
    reach: gr.HTML
    attacks: gr.CheckboxGroup
    run: gr.Button
    stop: gr.Button
    status: gr.HTML
    stale: gr.HTML
    verdict: gr.HTML
    evidence: gr.HTML
    file: gr.DownloadButton
    methods: gr.CheckboxGroup
    seconds: gr.Slider
    compare: gr.Button
    stop_compare: gr.Button
    compare_status: gr.HTML
    front: gr.HTML
    radar: gr.HTML
    table: gr.HTML
    cases: gr.HTML
    costs: gr.HTML

    def drawn(self) -> list[gr.components.Component]:
        """Everything handlers write to."""
        return [*self.limits, self.reach, self.attacks, self.status, self.stale, self.verdict, self.evidence,
                self.file, self.methods, self.compare_status, self.front, self.radar, self.table, self.cases,
                self.costs]  # fmt: skip

    def blank(self, chance: float) -> dict:
        """Nothing checked yet, the limits as a task of this chance of guessing needs them."""
        return {
            **self.at(usual(chance), interactive=True),
            self.status: "",
            self.stale: "",
            self.reach: "",
            self.compare_status: "",
            **self.empty(True, True),
        }

    def at(self, gates: Sequence[Gate], *, interactive: bool) -> dict:
        """The limits of these gates: to be moved, or those an edit was checked at, which stay."""
        values = (round(100 * gate.limit, 1) for gate in gates)
        pairs = zip(self.limits, values, strict=True)
        return {number: gr.update(value=value, interactive=interactive) for number, value in pairs}

    def empty(self, verdict: bool, rivals: bool) -> dict:
        """Either view with nothing in it, where there is nothing to show."""
        found = {self.verdict: NOTHING_CHECKED, self.evidence: "", self.costs: "", self.file: gr.update(visible=False)}
        blank = gr.update(value=chart_value([], {}))
        other = {self.front: blank, self.radar: blank, self.table: "", self.cases: ""}
        return (found if verdict else {}) | (other if rivals else {})

    def offered(self, family: str) -> dict:
        """Attacks and methods there are for a family of models."""
        extra = [name for name in ATTACKS[family] if name not in {gate.attack for gate in LIMITS}]
        rivals = [*NAMES[family], *ABLATIONS]
        return {
            self.attacks: gr.update(choices=[(ATTACK_WORDS[n], n) for n in extra], value=extra, visible=bool(extra)),
            self.methods: gr.update(choices=rivals, value=[n for n in QUICK if n in rivals]),
        }


TABLE, RADAR = "a table", "a radar"
NOTHING_CHECKED = (
    '<div class="verdict-card" data-said="none"><h3>Nothing is checked yet</h3><p>Set what the edit has to stand, then '
    "run the checks. The limits hold from then on, so that nobody moves them to fit the result.</p></div>"
)
QUICK = ("slug", "ssd", "null-space", "uce", "diffquickfix")  # rivals ticked at first: those that take no training


def build() -> CheckPanel:
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            gr.HTML("<h3>What it has to stand</h3>", apply_default_css=False, elem_classes="check-title")
            limits = tuple(
                gr.Number(
                    100 * gate.limit, label=gate.words, step=0.5, precision=1,
                    info=f"at most so many {gate.unit} {gate.about}",
                    elem_id=f"gate-{number}",
                )
                for number, gate in enumerate(LIMITS)
            )  # fmt: skip
            reach = gr.HTML(apply_default_css=False, elem_id="check-reach")
            attacks = gr.CheckboxGroup([], label="Also try", elem_id="check-attacks")
            with gr.Row(elem_classes="actions"):
                run = gr.Button("Run the checks", variant="primary", elem_id="check-run", min_width=160)
                stop = gr.Button("Stop", variant="stop", elem_id="check-stop", min_width=90)
            status = gr.HTML(apply_default_css=False, elem_id="check-status")
        with gr.Column(scale=5, min_width=520):
            stale = gr.HTML(apply_default_css=False, elem_id="check-stale")
            verdict = gr.HTML(NOTHING_CHECKED, apply_default_css=False, elem_id="check-verdict")
            evidence = gr.HTML(apply_default_css=False, elem_id="check-evidence")
            file = gr.DownloadButton("Save the evidence", visible=False, elem_id="check-file")
            costs = gr.HTML(apply_default_css=False, elem_id="check-costs")
    with gr.Accordion("Would another method do as well?", open=False, elem_id="rivals"):
        with gr.Row():
            methods = gr.CheckboxGroup(
                [], label="Methods, tuned by one rule on the search split", elem_id="rival-methods"
            )
            low, high, usually = SECONDS
            seconds = gr.Slider(
                low, high, usually, step=10, label="Seconds of tuning for each at most", elem_id="rival-seconds"
            )
        gr.HTML(f'<p class="check-reach">{escape(BUDGETS)}</p>', apply_default_css=False)
        with gr.Row(elem_classes="actions"):
            compare = gr.Button("Compare methods", elem_id="rival-run", min_width=160)
            stop_compare = gr.Button("Stop", variant="stop", elem_id="rival-stop", min_width=90)
        compare_status = gr.HTML(apply_default_css=False, elem_id="rival-status")
        with gr.Column(elem_classes="panel"):
            front = chart("rival-chart", "Compare methods to see what each forgets and what it costs elsewhere.")
            look = gr.Radio([TABLE, RADAR], value=TABLE, label="Numbers as", elem_id="rival-look")
        table = gr.HTML(apply_default_css=False, elem_id="rival-table")
        with gr.Column(elem_classes="panel", visible=False) as web:
            radar = chart("rival-radar", "Compare methods to see each as a web.")
        quiet = {"api_visibility": "private", "show_progress": "hidden", "show_progress_on": []}
        look.change(_looked, look, [table, web], queue=False, **quiet)
        cases = gr.HTML(apply_default_css=False, elem_id="rival-cases")
    return CheckPanel(
        limits, reach, attacks, run, stop, status, stale, verdict, evidence, file, methods, seconds, compare,
        stop_compare, compare_status, front, radar, table, cases, costs,
    )  # fmt: skip


def _looked(chosen: str) -> tuple[dict, dict]:
    """The comparison as a table or as a web."""
    return gr.update(visible=chosen == TABLE), gr.update(visible=chosen == RADAR)


# ---------------------------------------------------------------- the verdict


def verdict_html(found: Sequence[Verdict], findings: Sequence[Finding], concept: str, done: bool) -> str:
    """The answer in one line, the most an attack got back, then gate by gate.

    Args:
        done: every attack a gate needs has been run.
    """
    shown = overall(found) if done else "none"
    headline = capital(HEADLINE[shown].format(concept)) if done else "Checking ..."
    rows = "".join(_gate_html(v, waits=not done and v.measure is None and v.gate.attack != "") for v in found)
    worst = f"<p>{escape(worst_text(findings))}</p>" if findings else ""
    return f'<div class="verdict-card" data-said="{shown}"><h3>{escape(headline)}</h3>{worst}<ul>{rows}</ul></div>'


def _gate_html(verdict: Verdict, waits: bool) -> str:
    tone, said, why = ("none", "Waiting", "Not tried yet.") if waits else (
        verdict.said, SAID[verdict.said], verdict.why
    )  # fmt: skip
    return (
        f'<li data-said="{tone}"><span class="gate-said">{said}</span>'
        f"<div><strong>{escape(verdict.gate.words)}</strong><p>{escape(why)}</p></div></li>"
    )


def reach_html(counts: Mapping[str, int]) -> str:
    """What so many cases can show at best, for whoever sets the limits."""
    units = {gate.key: gate.unit for gate in LIMITS}
    told = [f"{100 * strictest(n):.1f} {units[key]} {COUNTED[key]} (n = {n:,})" for key, n in counts.items() if n]
    said = f"The strictest limits that so many cases can pass: {'; '.join(told)}."
    return f'<p class="check-reach">{escape(said)}</p>' if told else ""


def missed_html(missed: Mapping[str, str]) -> str:
    """Which attacks were not tried, and why."""
    rows = "".join(
        f"<li>{escape(capital(ATTACK_WORDS[name]))}: {escape(why)}</li>"
        for name, why in missed.items()
        if name in ATTACK_WORDS
    )
    return f'<section class="check-table"><h3>Not tried</h3><ul>{rows}</ul></section>' if rows else ""


def evidence_html(findings: Sequence[Finding], concept: str) -> str:
    """What every attack got back, beside the same done to the unedited model."""
    if not findings:
        return ""
    heads, rows = attack_table(findings, cell)
    title = f"<h3>What attacks get back of {escape(concept)}</h3>{attack_lead(findings)}"
    return table_section(title, heads, rows)


def table_section(title: str, heads: Sequence[str], rows: str) -> str:
    named = "".join(f"<th>{head}</th>" for head in heads)
    table = f"<table><thead><tr>{named}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<section class="check-table">{title}<div class="table-scroll">{table}</div></section>'


def costs_html(growth: Growth) -> str:
    """What the edit took: seconds by phase, memory, weights and bytes."""
    rows = "".join(f"<div><dt>{escape(label)}</dt><dd>{escape(text)}</dd></div>" for label, text in costs(growth))
    return f'<section class="model-card"><h3>What the edit took</h3><dl>{rows}</dl></section>'


def membership_html(found: Membership | None, concept: str) -> str:
    """Whether the edit gives away which pictures it was made from; "" where that was not asked."""
    if found is None:
        return ""
    said = escape(membership_text(found, concept))
    return f'<section class="check-table"><h3>Does it give its examples away?</h3><p>{said}</p></section>'


def gold_html(found: Distance | None, concept: str) -> str:
    """Where the edit lies between the original and a model that never saw the concept; "" where there is none."""
    if found is None:
        return ""
    title = f"<h3>Beside a model that never saw {escape(concept)}</h3><p>{escape(gold_text(found, concept))}</p>"
    alike = f"<h3>How alike they represent things</h3><p>{ALIKE}</p>"
    return table_section(title, *gold_table(found, concept, cell)) + table_section(alike, *alike_table(found, cell))
