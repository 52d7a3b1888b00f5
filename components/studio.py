"""What the buttons do. Every handler works on the visitor's own session and answers in widget updates.

Long work is a generator that yields between steps and asks the session's stop flag; the model is only ever edited
inside Patch.applied, so stopping, closing the page or an error leaves nothing behind.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from html import escape

import gradio as gr

from components import compare_panel, edit_panel, examples_panel, model_panel, story
from components.cards import cards_value
from components.head_map import map_value, payload, picked_value
from components.session import Session, Sessions
from components.theme import header_html, status_html
from components.timeline import round_picked, timeline_value
from razor import models
from razor.adapters.clip import ClipAdapter
from razor.edit_set import EditSet, check_names
from razor.errors import InputError, RazorError
from razor.examples import Task
from razor.growth import Growth
from razor.metrics import Evaluation
from razor.minicanvas import tasks
from razor.minicanvas.dataset import parse_target
from razor.patches import Patch
from razor.sources import own_task
from razor.step import evaluate

NAME = "RAZOR Studio"
PURPOSE = "Make a vision model forget one thing by editing a few attention heads, and see what it cost."


@dataclass(frozen=True)
class Page:
    """All panels of the page."""

    header: gr.HTML
    tabs: gr.Tabs
    model: model_panel.ModelPanel
    examples: examples_panel.ExamplesPanel
    edit: edit_panel.EditPanel
    compare: compare_panel.ComparePanel


def handler(status: Callable[[Page], gr.HTML]):
    """Make a generator method a handler: an error becomes one sentence in the panel's status line and a toast."""

    def wrap(work):
        def run(self: "Studio", request: gr.Request, *args):
            session = self.sessions.get(request.session_hash)
            session.running += 1
            try:
                yield from work(self, session, *args)
            except RazorError as error:
                gr.Warning(escape(str(error)))  # a toast renders HTML, and the sentence may quote a file name
                yield {status(self.page): status_html(str(error), "problem")}
            finally:
                session.running -= 1

        # Not functools.wraps: Gradio finds the request by this signature and its annotations.
        run.__name__, run.__doc__ = work.__name__, work.__doc__
        return run

    return wrap


class Studio:
    """The handlers of one page, over all its visitors."""

    def __init__(self, page: Page, load: Callable[[str], ClipAdapter] = models.load):
        self.page, self.load, self.sessions = page, load, Sessions()

    def warm_up(self, model: str) -> threading.Thread:
        """Load the first model and draw the bundled world in the background, so that the first click need not wait."""

        def work():
            try:
                self.load(model)
                for split in tasks.SIZES:
                    tasks.world(split)
            except RazorError:
                pass  # whoever asks for it next is told why

        thread = threading.Thread(target=work, name="warm-up", daemon=True)
        thread.start()
        return thread

    # Screen 1 -------------------------------------------------------------------------------------------------------

    @handler(lambda page: page.examples.status)
    def open_page(self, session: Session, target: str, model: str) -> Iterator[dict]:
        """A page was opened: its own session. Gallery and card are laid out with the page."""
        session.model, session.target = model, target
        yield {self.page.examples.status: status_html("Ready. One click runs the whole story.")}

    @handler(lambda page: page.examples.status)
    def choose_model(self, session: Session, name: str) -> Iterator[dict]:
        """Load a model and show its card; the examples stay, scores and edits of the old model go."""
        yield {self.page.examples.status: status_html(f"Loading {name}", "busy")}
        adapter = self.load(name)
        task = session.task
        session.start_over()
        session.model, session.task = name, task
        yield {
            self.page.model.card: model_panel.loaded_card(name, model_panel.describe(adapter)),
            self.page.header: header_html(NAME, PURPOSE, f"{name} on {adapter.device}"),
            self.page.examples.status: status_html(f"{name} is loaded."),
            **self._blank(session),
        }

    @handler(lambda page: page.examples.status)
    def choose_target(self, session: Session, target: str) -> Iterator[dict]:
        """Another bundled target: new gallery, nothing scored."""
        parsed = parse_target(target)
        session.target = target
        session.start_over()
        yield {
            self.page.examples.gallery: examples_panel.bundled_gallery(parsed),
            self.page.examples.story: gr.update(value=examples_panel.story_label(target)),
            self.page.examples.status: status_html(f"Ready to forget {parsed.name}."),
            **self._blank(session),
        }

    @handler(lambda page: page.examples.status)
    def read_own(self, session: Session, forget: list[str] | None, retain: list[str] | None) -> Iterator[dict]:
        """Uploaded files: decode, check, list captions."""
        panel = self.page.examples
        session.uploads.update([*(forget or []), *(retain or [])])
        if not forget and not retain:
            session.forget, session.retain = (), ()
            yield {panel.captions: gr.update(value=[], visible=False)}
            return
        read = {"forget": forget, "retain": retain}
        loaded = {side: examples_panel.read_files(paths) if paths else None for side, paths in read.items()}
        session.forget, session.retain = (loaded[side].examples if loaded[side] else () for side in read)
        notes = [w for part in loaded.values() if part for w in part.warnings]
        notes += examples_panel.data_warnings(session.forget, session.retain)
        counts = f"{len(session.forget)} forget and {len(session.retain)} retain pictures read."
        rows = examples_panel.caption_rows(session.forget, session.retain)
        yield {
            panel.captions: gr.update(value=rows, visible=True),
            panel.status: status_html(" ".join([counts, *notes]), "problem" if notes else "ready"),
        }

    @handler(lambda page: page.examples.status)
    def use_own(self, session: Session, concept: str, labels: str, rows: list[list[str]]) -> Iterator[dict]:
        """Turn the uploaded pictures into the task."""
        panel = self.page.examples
        yield {panel.status: status_html("Checking your pictures", "busy")}
        forget = examples_panel.with_captions(session.forget, rows or [], "forget")
        retain = examples_panel.with_captions(session.retain, rows or [], "retain")
        names = [name.strip() for name in labels.split(",") if name.strip()]
        task = own_task(forget, retain, concept=concept, labels=names)
        session.start_over()
        session.task = task
        notes = examples_panel.data_warnings(forget, retain)
        yield {
            panel.gallery: examples_panel.own_gallery(forget, retain, task.forget),
            panel.story: gr.update(value=f"Forget {task.concept} and compare"),
            panel.status: status_html(" ".join([f"Ready to forget {task.concept}.", *notes])),
            **self._blank(session),
        }

    # The story ------------------------------------------------------------------------------------------------------

    @handler(lambda page: page.examples.status)
    def tell(self, session: Session, *settings) -> Iterator[dict]:
        """The guided run, from pictures to a compared result, ending on the compare screen."""
        page = self.page
        session.stop.clear()
        session.growth = None  # from the start
        yield {page.examples.status: story.told_html(story.Told(0, "getting model and pictures ready"))}
        growth = self._start(session, settings)
        if reason := story.nothing_to_forget(growth):
            yield {page.examples.status: status_html(reason, "problem")}
            return
        for told in story.grow_story(growth, session.stop.is_set):
            if session.growth is not growth:
                yield self._current(session)
                return
            drawn = self._drawn(session, growth) if told.redraw else {}
            yield {page.examples.status: story.told_html(told), **drawn}
        if session.growth is not growth:
            yield self._current(session)
            return
        if session.stop.is_set():
            yield {page.examples.status: status_html("Stopped. What was done so far is kept; the model is unchanged.")}
            return
        yield {page.examples.status: story.told_html(story.Told(3, "measuring on pictures nothing has seen"))}
        tested = self._test(session, growth)
        shown = self._compared(growth)
        if session.growth is not growth:
            yield self._current(session)
            return
        end = story.ending(growth, *tested)
        yield {
            **self._drawn(session, growth),
            page.compare.cards: shown,
            page.compare.tiles: edit_panel.tiles_of(growth, tested),
            page.compare.status: status_html(end),
            page.edit.status: status_html(end),
            page.examples.status: status_html(end),
            page.tabs: gr.Tabs(selected="compare"),
        }

    # Screen 2 -------------------------------------------------------------------------------------------------------

    @handler(lambda page: page.edit.status)
    def score(self, session: Session, *settings) -> Iterator[dict]:
        """Score every unit at the patched weights and draw the map."""
        session.stop.clear()
        yield self._note("Getting model and pictures ready", "busy")
        growth = self._start(session, settings)
        yield self._note(f"Scoring {len(growth.units)} units", "busy")
        growth.scores()
        if session.growth is not growth:
            yield self._current(session)
            return
        yield {
            **self._drawn(session, growth),
            **self._note("Scored. Click heads to pick or right-click to ban them, then grow."),
        }

    @handler(lambda page: page.edit.status)
    def grow_one(self, session: Session, *settings) -> Iterator[dict]:
        """One growth round."""
        yield from self._grow(session, settings, rounds=1)

    @handler(lambda page: page.edit.status)
    def grow(self, session: Session, *settings) -> Iterator[dict]:
        """Rounds until the target is met, the rounds are used up, or Stop."""
        yield from self._grow(session, settings, rounds=None)

    @handler(lambda page: page.edit.status)
    def undo(self, session: Session) -> Iterator[dict]:
        """Take the last round back."""
        growth = session.need_growth()
        growth.undo()
        session.tested = None
        yield {**self._drawn(session, growth), **self._uncompared(), **self._note("The last round is undone.")}

    @handler(lambda page: page.edit.status)
    def reset(self, session: Session) -> Iterator[dict]:
        """Take every round, pick and ban back."""
        growth = session.need_growth()
        growth.reset()
        session.tested = None
        yield {**self._drawn(session, growth), **self._uncompared(), **self._note("Back at the unedited model.")}

    @handler(lambda page: page.edit.status)
    def rescale(self, session: Session, *settings) -> Iterator[dict]:
        """alpha or tau moved: redraw from the stats at hand, without running the model."""
        config = edit_panel.config_from(*settings)
        growth = session.growth
        if growth is None or not (growth.scored or growth.rounds):
            return
        growth.configure(replace(growth.config, alpha=config.alpha, tau=config.tau))
        yield self._drawn(session, growth)

    def change_units(self, event: gr.EventData, request: gr.Request) -> dict:
        """A click on the map: pick, ban or clear units. Always answers, so that a refused click is undrawn."""
        session = self.sessions.get(request.session_hash)
        try:
            names, state, seq = payload(event)
            session.ack = max(session.ack, seq)
            growth = session.need_growth()
            names = check_names(names, (unit.name for unit in growth.units))
            act = {"picked": EditSet.want, "banned": EditSet.ban, "none": EditSet.clear}
            free = [name for name in names if name not in growth.edit_set.members]
            growth.change(lambda edit_set: act[state](edit_set, free))
            if state == "none" and any(name in growth.edit_set.members for name in names):
                gr.Info("An edited unit leaves the set when its round is undone.")
        except (RazorError, ValueError) as error:
            gr.Warning(escape(str(error)))
        states = edit_panel.states_of(session.growth) if session.growth else {}
        return gr.update(picked=picked_value(states, session.ack))

    def show_round(self, event: gr.EventData, request: gr.Request) -> str:
        """A click on a round of the timeline: what it did, in full."""
        growth = self.sessions.get(request.session_hash).growth
        try:
            index = round_picked(event, len(growth.rounds) + 1 if growth else 0)
        except ValueError as error:
            return status_html(str(error), "problem")
        return status_html(edit_panel.round_text(growth, index))

    def stop(self, request: gr.Request) -> str:
        """Ask the session's work to end at the next step."""
        session = self.sessions.get(request.session_hash)
        session.stop.set()
        return status_html("Stopping after this step" if session.running else "Nothing is running.")

    def close(self, request: gr.Request) -> None:
        """The page was left."""
        self.sessions.close(request.session_hash)

    # Screen 3 -------------------------------------------------------------------------------------------------------

    @handler(lambda page: page.compare.status)
    def compare(self, session: Session) -> Iterator[dict]:
        """The suggested pictures before and after."""
        growth = session.need_growth()
        yield {self.page.compare.status: status_html("Asking both models", "busy")}
        tested = session.tested or self._test(session, growth)
        shown = self._compared(growth)
        if session.growth is not growth:
            yield self._current(session)
            return
        yield {
            self.page.compare.cards: shown,
            self.page.compare.tiles: edit_panel.tiles_of(growth, tested),
            self.page.compare.status: "",
        }

    @handler(lambda page: page.compare.status)
    def ask(self, session: Session, files: list[str] | None, labels: str) -> Iterator[dict]:
        """A person's own pictures before and after."""
        if not files:
            raise InputError("Add at least one picture to compare.")
        session.uploads.update(files)
        yield {self.page.compare.status: status_html("Asking both models", "busy")}
        growth = session.growth
        patch = growth.patch if growth else Patch()
        task = growth.task if growth else self._task(session)
        shown = compare_panel.own_pictures(self.load(session.model), patch, files, labels, task)
        note = "" if patch.deltas else "Nothing is edited yet, so both answers are the same."
        yield {
            self.page.compare.own: gr.update(value=shown, visible=True),
            self.page.compare.status: status_html(note) if note else "",
        }

    # Shared ---------------------------------------------------------------------------------------------------------

    def _task(self, session: Session) -> Task:
        return session.task or tasks.task(parse_target(session.target))

    def _start(self, session: Session, settings) -> Growth:
        """The session's growth under these settings, made when there is none."""
        config = edit_panel.config_from(*settings)
        session.settle(config)
        if (growth := session.growth) is None:
            epoch = session.epoch
            growth = Growth(self.load(session.model), self._task(session), config)
            if session.epoch != epoch:
                raise InputError("Another target or model was chosen meanwhile; press the button again.")
            session.growth, session.tested, session.domain = growth, None, None
        return growth

    def _grow(self, session: Session, settings, rounds: int | None) -> Iterator[dict]:
        session.stop.clear()
        yield self._note("Getting model and pictures ready", "busy")
        growth = self._start(session, settings)
        if rounds is None and (growth.reached or not growth.known):
            met = "The target is met already; grow one more round if you want to go on."
            yield self._note(story.nothing_to_forget(growth) or met)
            return
        limit = rounds or growth.config.rounds
        for _ in range(limit):
            if session.stop.is_set() or (growth.rounds and not growth.proposal()):
                break
            yield self._note(f"Round {len(growth.rounds) + 1}: scoring, then small steps", "busy")
            done = growth.next_round(session.stop.is_set)
            if session.growth is not growth:
                yield self._current(session)
                return
            session.tested = None
            note = self._note(f"Round {done.index}. {done.reason}", "busy")
            yield {**self._drawn(session, growth), **self._uncompared(), **note}
            if growth.reached:
                break
        self._test(session, growth)
        if session.growth is not growth:
            yield self._current(session)
            return
        last = growth.rounds[-1].reason if growth.rounds else "Stopped before the first round."
        yield {**self._drawn(session, growth), **self._note(last)}

    def _test(self, session: Session, growth: Growth) -> tuple[Evaluation, Evaluation]:
        """Before and after on the test split; kept by the session while this is still its growth."""
        before = evaluate(growth.adapter, growth.bench, Patch(), "test")
        tested = before, evaluate(growth.adapter, growth.bench, growth.patch, "test")
        if session.growth is growth:
            session.tested = tested
        return tested

    def _compared(self, growth: Growth) -> dict:
        return compare_panel.suggested(growth.adapter, growth.task, growth.patch, growth.bench.neighbours)

    def _drawn(self, session: Session, growth: Growth) -> dict:
        """Map, outlines, timeline, tiles and table of the growth as it stands."""
        panel = self.page.edit
        if not growth.scored and not growth.rounds:
            return {}
        picked = picked_value(edit_panel.states_of(growth), session.ack)
        if session.domain is None:
            session.domain = edit_panel.domain_of(growth)
        return {
            panel.map: gr.update(value=edit_panel.map_of(growth, session.domain), picked=picked),
            panel.timeline: edit_panel.timeline_of(growth),
            panel.tiles: edit_panel.tiles_of(growth, session.tested),
            panel.table: edit_panel.rows_of(growth),
        }

    def _current(self, session: Session) -> dict:
        """What the page should show now. Gradio sends a handler's last update again when it ends, so work that was
        overtaken by another target must end on this rather than on what it drew before."""
        if session.growth is not None and (session.growth.scored or session.growth.rounds):
            return self._drawn(session, session.growth)
        return self._blank(session)

    def _uncompared(self) -> dict:
        """The compare screen without results, which would be those of an earlier edit."""
        panel = self.page.compare
        return {
            panel.cards: cards_value([], empty=compare_panel.EMPTY),
            panel.own: gr.update(visible=False),
            panel.tiles: "",
            panel.status: "",
        }

    def _blank(self, session: Session) -> dict:
        """The same widgets with nothing scored."""
        panel = self.page.edit
        session.domain = None
        return {
            panel.map: gr.update(value=map_value([]), picked=picked_value({}, session.ack)),
            panel.timeline: timeline_value([]),
            panel.tiles: "",
            panel.table: [],
            panel.status: status_html("Press Score to see which heads matter."),
            **self._uncompared(),
        }

    def _note(self, sentence: str, tone: str = "ready") -> dict:
        return {self.page.edit.status: status_html(sentence, tone)}
