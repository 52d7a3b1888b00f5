"""What screen 4 does: the gates with the attacks they need, and rivals on the same task."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import gradio as gr

from components import check_panel, rivals
from components.chart import picked_key
from components.desk import Desk, handler, on_event
from components.session import Session
from components.theme import status_html
from components.triage import triage_html
from razor import jsonio, telling
from razor.adapters.base import Adapter
from razor.baselines import find, run
from razor.errors import InputError, RazorError, Stopped
from razor.examples import Task
from razor.gates import Gate, Verdict, judged, usual, verdicts, with_limits
from razor.gold import Distance, between, bundled
from razor.growth import Growth
from razor.membership import Membership, membership
from razor.metrics import Evaluation
from razor.minicanvas.dataset import AXES, parse_target
from razor.recipe import recipe, with_gates
from razor.robustness import Case, Finding, attack, possible, too_few
from razor.sights import sights
from razor.wording import judge_of

NOTHING = "Nothing is edited yet; grow an edit on screen 2, then check it."
STALE_CHECK = "The edit has changed since it was checked; run the checks again to see how it stands now."
STALE_RIVALS = "The edit has changed since methods were compared; the row of this edit is that of the earlier one."
STOPPED = "Stopped; what was found so far stays, and the model is unchanged."


@dataclass
class Check:
    """One run of the checks, as far as it is."""

    revision: int  # of the session, when it was begun
    key: str  # of the edit it is about
    gates: tuple[Gate, ...]
    tested: tuple[Evaluation, Evaluation]
    findings: list[Finding] = field(default_factory=list)
    missed: dict[str, str] = field(default_factory=dict)  # attack, or key of a gate -> why it was not tried
    gold: Distance | None = None  # beside a model that never saw the target, where there is one
    membership: Membership | None = None  # whether the edit gives away what it was made from
    triaged: str = ""  # what became of each case, as the page shows it
    done: bool = False

    @property
    def verdicts(self) -> list[Verdict]:
        """What is known so far says to every gate."""
        return verdicts(self.gates, *self.tested, self.findings, self.missed)

    def to_json(self, growth: Growth) -> dict:
        """Everything behind the verdict, for a file."""
        before, after = self.tested
        return {
            "concept": growth.task.concept,
            **judged(self.verdicts),
            "before": before.to_json(),
            "after": after.to_json(),
            "attacks": [f.to_json() for f in self.findings],
            "not tried": self.missed,
            "gold": self.gold and self.gold.to_json(),
            "membership": self.membership and self.membership.to_json(),
            "recipe": with_gates(recipe(growth), self.gates),
        }


class Checking(Desk):
    """Handlers of the check panel."""

    @handler(lambda page: page.check.status)
    def run_checks(self, session: Session, more: list[str], *limits: float) -> Iterator[dict]:
        """Fix the gates, then gather the evidence each needs, showing it as it comes."""
        growth, panel = session.growth, self.page.check
        if growth is None or not growth.patch.deltas:
            raise InputError(NOTHING)
        key, fixed = growth.patch.key(), session.found.setdefault("limits", {})
        gates = fixed.get(key) or gates_at(growth.task.chance, limits)
        session.begin()
        yield {panel.stale: "", **{number: gr.update(interactive=False) for number in panel.limits}}
        try:
            tested = yield from self.measured(session, growth, panel.status)
        except RazorError:
            yield self.checkable(session)  # nothing was checked, so nothing is fixed
            raise
        check = Check(session.revision, key, gates, tested, missed=too_few(growth.task))
        session.found["check"], fixed[key] = check, gates
        triaged = session.found.setdefault("triaged", {})  # kept, for attacks draw over the pictures it shows
        if key not in triaged:
            triaged[key] = triage_html(growth, *tested)
        check.triaged = triaged[key]
        yield {**self._checked(growth, check), panel.costs: check_panel.costs_html(growth)}
        names = attacks_of(growth.adapter, growth.task, gates, more or ())
        check.missed |= {name: "No judge can read its pictures." for name in more or () if name not in names}
        case = Case(growth.adapter, growth.task, growth.patch, bench=growth.bench, stop=session.stop.is_set)
        case.before, case.edited = tested
        if "never saw" not in session.found:  # attacked once for all edits of a growth
            session.found["never saw"] = case.beside_gold().gold
        case.gold = session.found["never saw"]
        try:
            told = yield from self._gathered(session, growth, check, case, names)
        except Stopped:
            told = STOPPED
        if session.growth is not growth:
            yield self.current(session)
            return
        check.done = True
        shown = self._checked(growth, check)
        if session.revision != check.revision:
            yield {**shown, **self.checkable(session), panel.status: status_html(STALE_CHECK, "problem")}
            return
        yield {**shown, panel.status: status_html(told), **self._kept(session, growth, check)}

    def _gathered(
        self, session: Session, growth: Growth, check: Check, case: Case, names: Sequence[str]
    ) -> Generator[dict, None, str]:
        """Attack by attack, then what else is asked of the edit; returns the sentence to end on.

        Ends early where the edit, the target or the model is another one by now.
        """
        status = self.page.check.status
        overtaken = lambda: session.growth is not growth or session.revision != check.revision  # noqa: E731
        for number, name in enumerate(names, start=1):
            said = f"Attack {number} of {len(names)}: {telling.ATTACK_WORDS[name]}"
            yield {status: status_html(said, "busy")}
            try:
                for found in attack(name, case):
                    if overtaken():
                        return ""
                    check.findings.append(found)
                    yield self._checked(growth, check)
            except Stopped:
                check.missed |= dict.fromkeys(names[number - 1 :], "Stopped before it was done.")
                raise
            except RazorError as error:
                check.missed[name] = str(error)
                yield self._checked(growth, check)
        yield {status: status_html("Asking whether the edit gives its examples away", "busy")}
        done = "Checked."
        try:
            gold = case.gold and (case.gold.adapter, case.gold.bench)
            member = membership(growth.adapter, growth.bench, case.patch, session.stop.is_set, gold)
        except Stopped:
            raise
        except RazorError as error:
            member, done = None, f"Checked, but for whether the edit gives its examples away: {error}"
        if overtaken():
            return ""
        check.membership = member
        if gold := (yield from self._gold(session, growth, status)):
            placed = gold.distance(growth.bench.beneath + case.patch)
            if overtaken():
                return ""
            check.gold = placed
        return done

    @handler(lambda page: page.check.compare_status)
    def compare_methods(self, session: Session, methods: list[str], seconds: float) -> Iterator[dict]:
        """Rivals on the same task, one after the other, beside the edit as it stands."""
        growth, panel = session.growth, self.page.check
        if growth is None or not growth.patch.deltas:
            raise InputError(NOTHING)
        if not methods:
            raise InputError("Tick a method to compare with.")
        for name in methods:
            find(name, growth.adapter.family)
        session.begin()
        status = panel.compare_status
        before, after = yield from self.measured(session, growth, status)
        session.found["rivals"], beneath = session.revision, growth.bench.beneath
        session.found["methods"] = patches = {rivals.OURS: beneath + growth.patch}
        rows = [rivals.own_row(growth, after)]
        yield {panel.cases: ""} | self._compared(rows, before, growth.task)
        if gold := (yield from self._gold(session, growth, status)):
            rows[0] = replace(rows[0], gold=gold.distance(beneath + growth.patch))
            yield self._compared(rows, before, growth.task)
        for name in methods:
            work = rival(session, growth, name, seconds)
            result = yield from self.told(status, f"Tuning {name}, % done", work)
            if session.growth is not growth:
                yield self.current(session)
                return
            if result is None:
                yield {status: status_html(STOPPED)}
                return
            row = rivals.row_of(result)
            if row.after:
                patches[name] = beneath + result.patch
                row = replace(row, gold=gold and gold.distance(patches[name]))
            rows.append(row)
            yield self._compared(rows, before, growth.task)
            if result.stopped:
                yield {status: status_html(STOPPED)}
                return
        said = f"{len(methods)} methods compared on the same pictures. Pick one on the chart to see cases of it."
        yield {status: status_html(said)}

    @on_event(lambda page: page.check.compare_status)
    def pick_method(self, session: Session, event: gr.EventData) -> dict:
        """A method picked on the chart; `show_method` follows."""
        name = picked_key(event, session.found.get("methods", {}))
        session.found["method"] = name
        return {self.page.check.compare_status: status_html(f"Looking at cases of {name}", "busy")}

    @handler(lambda page: page.check.compare_status)
    def show_method(self, session: Session) -> Iterator[dict]:
        """Cases before and after the method picked last."""
        panel, patches, growth = self.page.check, session.found.get("methods", {}), session.growth
        if (name := session.found.pop("method", None)) not in patches:
            return
        session.begin()
        work = partial(
            sights, growth.adapter, growth.task, patches[name], growth.bench.neighbours, stop=session.stop.is_set
        )
        try:
            said = f"Looking at cases of {name}"
            shown = yield from self.told(panel.compare_status, said, lambda tell: work(report=tell))
        except Stopped:
            yield {panel.compare_status: status_html(STOPPED)}
            return
        if session.found.get("methods") is patches:
            yield {panel.cases: rivals.cases_html(name, shown), panel.compare_status: ""}

    def _gold(self, session: Session, growth: Growth, status: gr.HTML) -> Iterator[dict]:
        """The model that never saw the concept, and the original, to place edits between; made once for a growth."""
        if "between" not in session.found:
            if bundled(growth.adapter, growth.task):
                yield {status: status_html(f"Asking a model that never saw {growth.task.concept}", "busy")}
            session.found["between"] = between(growth.adapter, growth.task)
        return session.found["between"]

    def checkable(self, session: Session) -> dict:
        """Whether the gates may be moved and whether the verdict is about the edit as it stands."""
        panel, found = self.page.check, session.found
        check, compared = found.get("check"), found.get("rivals")
        fixed = self.fixed(session)
        holds = check is not None and session.growth is not None and check.key == session.growth.patch.key()
        shown = {number: gr.update(interactive=True) for number in panel.limits}
        if fixed:
            shown = panel.at(fixed, interactive=False)
        shown[panel.reach] = check_panel.reach_html(counted(session))
        shown[panel.stale] = status_html(STALE_CHECK, "problem") if check and not holds else ""
        if compared not in (None, session.revision):
            shown[panel.compare_status] = status_html(STALE_RIVALS, "problem")
        return {**panel.empty(check is None, compared is None), **shown}

    def unchecked(self, session: Session) -> dict:
        """Screen 4 with nothing checked."""
        return self.page.check.blank(chance_of(session))

    def _checked(self, growth: Growth, check: Check) -> dict:
        panel, concept = self.page.check, growth.task.concept
        return {
            panel.verdict: check_panel.verdict_html(check.verdicts, check.findings, concept, check.done),
            panel.evidence: check.triaged
            + check_panel.evidence_html(check.findings, concept)
            + check_panel.missed_html(check.missed)
            + check_panel.membership_html(check.membership, concept)
            + check_panel.gold_html(check.gold, concept),
        }

    def _compared(self, rows: Sequence[rivals.Row], before: Evaluation, task: Task) -> dict:
        panel = self.page.check
        return {
            panel.front: gr.update(value=rivals.front_value(rows, before, task.concept)),
            panel.radar: gr.update(value=rivals.radar_value(rows, before)),
            panel.table: rivals.table_html(rows, before),
        }

    def _kept(self, session: Session, growth: Growth, check: Check) -> dict:
        """The evidence as a file to take away."""
        path = session.new_folder("evidence") / "evidence.json"
        jsonio.write(path, check.to_json(growth))
        session.uploads.add(str(path))
        return {self.page.check.file: gr.update(value=str(path), visible=True)}


def gates_at(chance: float, limits: Sequence[float]) -> tuple[Gate, ...]:
    """The usual gates at these limits in % or points.

    Raises:
        InputError: a limit that is none.
    """
    gates = usual(chance)
    values = [limit if limit is None else limit / 100 for limit in limits]
    return with_limits(gates, {gate.key: value for gate, value in zip(gates, values, strict=True)})


def attacks_of(adapter: Adapter, task: Task, gates: Sequence[Gate], more: Sequence[str]) -> list[str]:
    """Attacks the gates need, then those asked for and possible, in the order they are always run in."""
    wanted = {gate.attack for gate in gates} | {*more}
    return [name for name in possible(adapter, task) if name in wanted]


def counted(session: Session) -> dict[str, int]:
    """How many cases of the test split each of the usual questions counts, by gate; only those known beforehand."""
    growth = session.growth
    if session.tested is not None:
        before = session.tested[0]
        sides = (before.forget_accuracy, before.retain_accuracy, before.neighbor_accuracy)
        return {gate.key: side.n for gate, side in zip(check_panel.LIMITS, sides, strict=False) if side}
    if growth is None or judge_of(growth) is None:
        return {}
    forget, retain = (growth.bench.to_draw(side) for side in ("forget", "retain"))
    return {"forget": len(forget), "retain": sum(axis.name in e.labels for e in retain for axis in growth.task.axes)}


def chance_of(session: Session) -> float:
    """Accuracy of guessing at what is to be forgotten."""
    if session.task is not None:
        return session.task.chance
    return 1 / len(AXES[parse_target(session.target).axis])


def rival(session: Session, growth: Growth, name: str, seconds: float):
    """Work for `told`: tune and measure a method, telling % done; None if stopped before anything was tried."""
    budget = replace(check_panel.RIVAL, seconds=float(seconds))
    options = {"forget_target": growth.goal.target, "beneath": growth.bench.beneath, "stop": session.stop.is_set}

    def work(tell):
        progress = lambda share: tell(round(100 * share), 100)  # noqa: E731
        try:
            return run(name, growth.adapter, growth.task, budget, **options, progress=progress)
        except Stopped:
            return None

    return work
