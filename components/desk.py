"""What all handlers share: the page's widgets, the visitors' sessions, and how a growth is drawn.

Every handler works on the visitor's own session and answers in widget updates. Long work is a generator that yields
between steps and asks the session's stop flag; the model is only ever edited inside Patch.applied, so stopping,
closing the page or an error leaves nothing behind.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from components import compare_panel, edit_panel, examples_panel, guide, model_panel, picture_reading, reading
from components.answer_panel import AnswerPanel
from components.arrivals import came
from components.check_panel import CheckPanel
from components.drift_panel import DriftPanel
from components.export_panel import ExportPanel
from components.head_map import map_value, picked_value
from components.picture_panel import PicturePanel
from components.picture_reading import Shown
from components.session import ASKED, Measured, Session, Sessions
from components.stack_panel import StackPanel
from components.theme import status_html
from components.timeline import timeline_value
from components.trust_panel import TrustPanel
from components.why_panel import WhyPanel
from razor import models
from razor.adapters.base import Adapter
from razor.adapters.clip import ClipAdapter
from razor.adapters.diffusion import DiffusionAdapter
from razor.errors import InputError, RazorError, Stopped
from razor.examples import Task
from razor.gates import Gate
from razor.growth import Growth
from razor.host import rest_cores
from razor.metrics import Evaluation
from razor.minicanvas import tasks
from razor.minicanvas.dataset import parse_target
from razor.patches import Patch
from razor.picture_files import Album
from razor.pictures import Easel, streamed
from razor.stack import set_aside
from razor.step import evaluate
from razor.wording import draws

STALE = "The edit has changed since this was shown; ask both sides again to see it as it is now."
STALE_PAIRS = "The edit has changed since these pairs were drawn; draw both sides again to see it as it is now."


@dataclass(frozen=True)
class Page:
    """All panels of the page."""

    header: gr.HTML
    tabs: gr.Tabs
    guide: guide.Guide
    model: model_panel.ModelPanel
    examples: examples_panel.ExamplesPanel
    words: examples_panel.WordsPanel
    edit: edit_panel.EditPanel
    trust: TrustPanel
    why: WhyPanel
    drift: DriftPanel
    stack: StackPanel
    compare: compare_panel.ComparePanel
    pictures: PicturePanel
    asks: AnswerPanel
    check: CheckPanel
    export: ExportPanel


def handler(status: Callable[[Page], gr.HTML]):
    """Make a generator method a handler: an error becomes one sentence in the panel's status line and a toast."""

    def wrap(work):
        def run(self: "Desk", request: gr.Request, *args):
            silent = True
            with self.sessions.working(request.session_hash) as session:
                asked = came(request)
                ASKED.set(asked)
                try:
                    for update in work(self, session, *args):
                        silent = False
                        rest_cores()  # the next step may be on another thread
                        yield update or gr.skip()
                        ASKED.set(asked)
                    if silent:
                        yield gr.skip()  # a generator that ends without a word would blank every widget
                except Stopped as error:  # as was asked for: nothing to warn of
                    yield {status(self.page): status_html(str(error))}
                except (RazorError, OSError) as error:
                    said = str(error) if isinstance(error, RazorError) else _of_system(error)
                    gr.Warning(escape(said))  # a toast renders HTML, and the sentence may quote a file name
                    yield {status(self.page): status_html(said, "problem")}
                finally:
                    rest_cores()

        # Not functools.wraps: Gradio finds the request by this signature and its annotations.
        run.__name__, run.__doc__ = work.__name__, work.__doc__
        run.work = work  # for handlers made of others
        return run

    return wrap


def _of_system(error: OSError) -> str:
    """What the system could not do, without the place on this machine; the console gets it all."""
    traceback.print_exception(error)
    what = error.strerror or str(error).partition("\n")[0] or type(error).__name__
    return (
        f"The system could not do this: {what}. Free some space or choose another folder, then try again; nothing was "
        "lost."
    )


def on_event(status: Callable[[Page], gr.HTML]):
    """The same for a handler of a widget's own event, which is a plain function of session and event."""

    def wrap(work):
        def run(self: "Desk", event: gr.EventData, request: gr.Request):
            session = self.sessions.get(request.session_hash)
            try:
                return work(self, session, event)
            except (RazorError, ValueError) as error:
                gr.Warning(escape(str(error)))
                return {status(self.page): status_html(str(error), "problem")}
            finally:
                rest_cores()

        run.__name__, run.__doc__ = work.__name__, work.__doc__
        return run

    return wrap


class Desk:
    """The visitors of one page and what is drawn for them."""

    def __init__(self, page: Page, load: Callable[[str], ClipAdapter] = models.load, sessions: Sessions | None = None):
        self.page, self.load = page, load
        self.sessions = Sessions() if sessions is None else sessions  # an empty one counts as false

    # The model

    def model_of(self, session: Session) -> Adapter:
        """The session's model, with the CLIP that looks at what it draws where the visitor named one."""
        return session.judged or self.load(session.model)

    def easel(self, session: Session, adapter: DiffusionAdapter) -> Easel:
        """The visitor's easel for this model; pictures of another model go."""
        if session.easel is None or session.easel.adapter is not adapter:
            if session.easel is not None:
                session.easel.album.close()
            session.easel = Easel(adapter, Album(picture_reading.picture_folder()))
        return session.easel

    def pace(self, session: Session, adapter: DiffusionAdapter) -> None:
        """Find out how long a picture takes, where nothing was drawn yet that would tell."""
        easel = self.easel(session, adapter)
        if not easel.timed:
            easel.probe(adapter.side)

    def picture_seconds(self, session: Session, steps: int | None = None) -> float | None:
        """What one picture takes, in so many steps or as the session's model usually draws it; None if not known."""
        if (easel := session.easel) is None:
            return None
        return easel.seconds([(steps or easel.adapter.steps, easel.adapter.guidance, easel.adapter.side)])

    # A growth and what is known of it

    def task_of(self, session: Session) -> Task:
        """What the session is to forget."""
        return session.task or tasks.task(parse_target(session.target))

    def current_task(self, session: Session) -> Task:
        """What is being forgotten; before anything is scored, what is to be."""
        return session.growth.task if session.growth else self.task_of(session)

    def start(self, session: Session, settings) -> Growth:
        """The session's growth under these settings, made when there is none."""
        adapter = self.model_of(session)
        config = edit_panel.fitting(edit_panel.config_from(*settings), adapter)
        session.settle(config)
        if (growth := session.growth) is None:
            epoch, task = session.epoch, self.task_of(session)
            below = session.stack.below(task.concept)
            others = [c.task for c in session.stack.concepts if c.name != task.concept and c.on]
            growth = Growth(adapter, set_aside(task, others), config, beneath=below.patch)
            if session.epoch != epoch:
                raise InputError("Another target or model was chosen meanwhile; press the button again.")
            growth.plan(session.planned)
            session.growth, session.grown_on = growth, below.active
            session.tested, session.domain, session.found = None, None, {}
            session.shown, session.earlier = None, None
            session.revision += 1
        return growth

    def test(self, session: Session, growth: Growth) -> tuple[Evaluation, Evaluation]:
        """Before and after on the test split; kept by the session while this is still its edit."""
        revision = session.revision
        before = evaluate(growth.adapter, growth.bench, Patch(), "test")
        tested = before, evaluate(growth.adapter, growth.bench, growth.patch, "test")
        if session.growth is growth and session.revision == revision:
            session.tested = tested
        return tested

    def side(self, session: Session, side: str) -> Patch:
        """The whole edit a side of the comparison stands for: nothing, the edit as it stands, or a branch's end."""
        growth = session.growth
        if side == compare_panel.ORIGINAL:
            return Patch()
        others = self.others(session)
        if growth is None:
            return others
        if (branch := compare_panel.branch_of(side)) is None:
            return others + growth.patch
        state = growth.history.states[growth.history.branches[branch]]
        return others + growth.patch_of(state.edit_set, state)

    def others(self, session: Session) -> Patch:
        """The edits of the stack's concepts, but for the one being grown."""
        growth, stack = session.growth, session.stack
        own = growth is not None and growth.task.concept in stack.names
        return (stack.drop(growth.task.concept) if own else stack).patch

    def sides(self, session: Session) -> tuple[tuple[str, str], list[Patch]]:
        """The two sides of the comparison and their edits."""
        chosen = session.sides or compare_panel.SIDES
        return chosen, [self.side(session, side) for side in chosen]

    def compared(self, session: Session, growth: Growth) -> dict:
        """The suggested pictures on both sides of the comparison."""
        chosen, patches = self.sides(session)
        return compare_panel.suggested(growth, patches, chosen, session.found)

    def answers(self, session: Session, growth: Growth) -> dict:
        """The comparison of the edit as it stands, on screens 2 and 3; a model that draws or writes is too slow."""
        if not growth.adapter.embeds:
            return {}
        shown = self.compared(session, growth)
        small = gr.update(value=compare_panel.preview(shown), visible=bool(growth.patch.deltas))
        return {self.page.edit.preview: small, self.page.compare.cards: shown}

    def settle_sides(self, session: Session, left: str, right: str) -> Iterator[dict]:
        """Take over the sides chosen in the menus; where one is gone, the menus go back to the usual two.

        Raises:
            InputError: one is gone.
        """
        branches = session.growth.history.branches if session.growth else ()
        try:
            sides = compare_panel.checked(left, right, branches)
        except InputError:
            session.sides = None
            yield compare_panel.side_choices(self.page.compare, branches, None)
            raise
        session.sides = None if sides == compare_panel.SIDES else sides

    def staleness(self, session: Session) -> dict:
        """Whether what screen 3 shows and says is of the edit as it stands."""
        page, found = self.page, {}
        for view, widget, said in (("pairs", page.pictures.stale, STALE_PAIRS), ("asked", page.asks.stale, STALE)):
            if isinstance(shown := session.found.get(view), Shown):
                found[widget] = status_html(said, "problem") if self._moved_on(session, shown) else ""
        if session.found.get("ended", session.revision) != session.revision:
            del session.found["ended"]
            found[page.compare.status] = ""  # what the story ended on was said of the edit before
        return found

    def _moved_on(self, session: Session, shown: Shown) -> bool:
        branches = session.growth.history.branches if session.growth else ()
        try:
            compare_panel.checked(*shown.sides, branches)
        except InputError:
            return True  # a branch that is gone or has another name
        return tuple(self.side(session, side).key() for side in shown.sides) != shown.edits

    def measurable(self, session: Session, growth: Growth) -> dict:
        """Whether there are pictures to measure on; see Measuring."""
        return {}

    def checkable(self, session: Session) -> dict:
        """Whether the verdict on screen 4 is about the edit as it stands; see Checking."""
        return {}

    def reported(self, session: Session) -> dict:
        """No report of an edit that has changed since."""
        if session.found.get("report") in (None, session.revision):
            return {}
        del session.found["report"]
        panel = self.page.export
        hidden = dict.fromkeys((panel.report_file, panel.card_file), gr.update(visible=False))
        return {panel.report_status: status_html("The edit has changed; write the report again."), **hidden}

    def fixed(self, session: Session) -> tuple[Gate, ...]:
        """What the edit as it stands has to stand, fixed when it was checked; () where it was not."""
        limits = session.found.get("limits")
        return limits.get(session.growth.patch.key(), ()) if limits and session.growth else ()

    def unchecked(self, session: Session) -> dict:
        """Screen 4 with nothing checked; see Checking."""
        return {}

    # Work that takes its time

    def told(self, status: gr.HTML, what: str, work: Callable[[Callable[[int, int], None]], Any]) -> Iterator[dict]:
        """Run `work(tell)` on a thread of its own, saying how far it is; returns its result.

        An error in it is raised here.
        """
        made = []

        def run(report: Callable, _closed: Callable) -> None:
            made.append(work(lambda done, total: report((done, total))))

        yield {status: status_html(what, "busy")}
        with closing(streamed(run)) as events:
            for *_, (done, total) in events:
                yield {status: status_html(f"{what}: {done} of {total}", "busy")}
        return made[0]

    def watched(
        self,
        session: Session,
        growth: Growth,
        status: gr.HTML,
        what: str,
        work: Callable[[], Any],
        tally: Callable[[Callable], Callable] = lambda tell: tell,
    ) -> Iterator[dict]:
        """`told` for work on a growth that may draw: its pictures are counted as they come, and Stop works at any.

        Args:
            tally: makes what is told of one drawing into what is said of them all.

        Raises:
            Stopped: Stop was pressed before all pictures were drawn.
        """

        def watching(tell: Callable[[int, int], None]) -> Any:
            if not draws(growth):
                return work()
            with growth.bench.watch(tally(tell), session.stop.is_set):
                return work()

        return (yield from self.told(status, what, watching))

    def measured(self, session: Session, growth: Growth, status: gr.HTML) -> Iterator[dict]:
        """Before and after on the test split, measured where they are not known yet; returns both."""
        what = "Measuring on the test split"
        yield {status: status_html(what, "busy")}
        if session.tested is None:
            return (yield from self.watched(session, growth, status, what, lambda: self.test(session, growth)))
        return session.tested

    # Drawing

    def drawn(self, session: Session, growth: Growth) -> dict:
        """Map, marks, timeline, tiles, tables and cards of the growth as it stands; runs no model."""
        panel = self.page.edit
        at = growth.history.position
        if (known := growth.known_evaluation(at.edit_set)) is not None:
            session.show(Measured(at.state, at.edit_set, known))
        if not growth.showable:  # never scored, or other kinds of units are asked for since
            return {
                panel.map: gr.update(picked=self.picked(session)),
                panel.timeline: edit_panel.timeline_of(growth, session.sides),
                panel.tiles: reading.tiles_of(growth, session.tested),
                **self.measurable(session, growth),
                **self.checkable(session),
                **self.reported(session),
            }
        return {
            panel.map: gr.update(value=self.map_of(session, growth), picked=self.picked(session)),
            panel.timeline: edit_panel.timeline_of(growth, session.sides),
            panel.tiles: reading.tiles_of(growth, session.tested),
            panel.table: edit_panel.table_of(growth),
            panel.scatter: gr.update(value=edit_panel.scatter_of(growth), marked=edit_panel.marked_of(growth)),
            panel.price: reading.constraints_html(growth),
            panel.strength: growth.edit_set.strength,
            **self.unit_shown(session),
            **self.staleness(session),
            **self.measurable(session, growth),
            **self.checkable(session),
            **self.reported(session),
        }

    def picked(self, session: Session) -> dict:
        """The marks on the map."""
        growth = session.growth
        if growth is None:
            return picked_value({}, session.ack)
        return picked_value(edit_panel.states_of(growth), session.ack, growth.edit_set.isolated, focus=session.focus)

    def unit_shown(self, session: Session) -> dict:
        """The card of the unit looked at, and its strength."""
        panel, growth, name = self.page.edit, session.growth, session.focus
        if growth is None or name is None or not growth.showable:
            return {panel.unit: reading.no_unit_html(), panel.unit_strength: gr.update(value=1.0, interactive=False)}
        inside = name in growth.edit_set.members
        return {
            panel.unit: reading.unit_html(growth, name, session.kept("spread"), session.kept("alone")),
            panel.unit_strength: gr.update(value=growth.edit_set.strength_of(name), interactive=inside),
        }

    def current(self, session: Session) -> dict:
        """What the page should show now. Gradio sends a handler's last update again when it ends, so work that was
        overtaken by another target must end on this rather than on what it drew before."""
        if session.growth is not None and session.growth.showable:
            return self.drawn(session, session.growth)
        return self.blank(session)

    def map_of(self, session: Session, growth: Growth) -> dict:
        """The map as it stands, in the colours of the one before where these still tell units apart."""
        value = edit_panel.map_of(growth, session.domain, session.kept("spread"))
        session.domain = value["domain"]
        return value

    def blank(self, session: Session) -> dict:
        """The widgets of screens 2 and 3 with nothing scored."""
        panel = self.page.edit
        session.domain = None
        return {
            panel.map: gr.update(value=map_value([]), picked=picked_value({}, session.ack)),
            panel.timeline: timeline_value([], branches=[], branch="", current=0),
            panel.tiles: "",
            panel.table: edit_panel.table_of(None),
            panel.scatter: gr.update(value=edit_panel.no_scatter()),
            panel.price: "",
            panel.estimate: "",
            panel.preview: gr.update(visible=False),
            panel.strength: 1.0,
            panel.status: status_html("Press Score to see which heads matter."),
            **panel.measure.blank(),
            **self.unit_shown(session),
            **self.uncompared(),
            **self.page.pictures.blank(),
            **self.page.asks.blank(),
            **self.unexplained(),
            **self.unchecked(session),
            **self.page.export.blank(),
        }

    def uncompared(self) -> dict:
        """The compare screen without results, which would be those of an earlier edit."""
        panel = self.page.compare
        return {
            panel.cards: compare_panel.nothing(),
            panel.own: gr.update(visible=False),
            panel.tiles: "",
            panel.status: "",
        }

    def unexplained(self) -> dict:
        """The expensive views, empty."""
        return {**self.page.trust.blank(), **self.page.why.blank(), **self.page.drift.blank()}

    def note(self, sentence: str, tone: str = "ready") -> dict:
        """The status line of screen 2."""
        return {self.page.edit.status: status_html(sentence, tone)}
