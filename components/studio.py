"""The handlers of the page: opening it, screen 1, the story and the comparison; the other screens are mixed in."""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from uuid import uuid4

import gradio as gr

from components import compare_panel, edit_panel, examples_panel, guide, model_panel, reading, story
from components.asking import Asking
from components.checking import Checking
from components.desk import Desk, Page, handler
from components.drawing import Drawing
from components.editing import Editing
from components.exporting import Exporting
from components.families import Families
from components.insight import Insight
from components.measuring import Measuring
from components.naming import Naming
from components.session import CLOSING, Session, Sessions
from components.stacking import Stacking
from components.theme import header_html, status_html
from razor import models, saved, telling
from razor.adapters.base import Adapter
from razor.adapters.clip import ClipAdapter
from razor.errors import InputError, RazorError
from razor.growth import Growth
from razor.minicanvas import tasks
from razor.minicanvas.dataset import parse_target
from razor.pictures import cut_captions
from razor.sources import drawn_beside, draws_its_own, made_of, own_task, unnamed
from razor.stack import Stack
from razor.wording import draws, proxy_note, writes

NAME = "RAZOR Studio"
PURPOSE = "Make a vision model forget one thing by editing a few attention heads, and see what it cost."

__all__ = ["NAME", "PURPOSE", "Page", "Studio"]


class Studio(Naming, Editing, Measuring, Drawing, Asking, Checking, Exporting, Insight, Stacking, Families, Desk):
    """The handlers of one page, over all its visitors."""

    def __init__(self, page: Page, load: Callable[[str], ClipAdapter] = models.load, sessions: Sessions | None = None):
        super().__init__(page, load, sessions)

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

    def close(self, request: gr.Request) -> None:
        """The page was left."""
        self.sessions.close(request.session_hash)

    # Screen 1

    @handler(lambda page: page.examples.status)
    def open_page(self, session: Session, target: str, model: str, token: str | None) -> Iterator[dict]:
        """A page was opened: its own session, and rounds of an earlier page of this browser offered back."""
        session.model, session.target = model, target
        session.token = token if isinstance(token, str) and token else uuid4().hex
        panel = self.page.examples
        ready = {panel.token: session.token, panel.status: status_html("Ready. One click runs the whole story.")}
        yield {**ready, **self._offer(session)}
        until = time.monotonic() + CLOSING
        while session.left is None and self.sessions.may_be_leaving(session) and time.monotonic() < until:
            time.sleep(0.2)
            if (offer := self._offer(session)) and session.left:
                yield offer

    def _offer(self, session: Session) -> dict:
        """Rounds of an earlier page of this browser, where there are any."""
        panel, left = self.page.examples, self.sessions.left_behind(session)
        session.left = left
        shown = examples_panel.offer_html(left.note) if left else ""
        return {panel.offer: gr.update(visible=left is not None), panel.offer_text: shown}

    @handler(lambda page: page.examples.status)
    def take_back(self, session: Session) -> Iterator[dict]:
        """The rounds of an earlier page, as they were left."""
        page, left = self.page, session.left
        if left is None:
            raise InputError("There are no rounds to take back any more.")
        yield {page.examples.status: status_html("Taking your rounds back", "busy")}
        session.start_over()
        session.model, session.target = left.note["model"], left.note["target"]
        if left.session is not None:
            old = left.session
            while old.growth.rounding:  # it was told to stop when its page closed, and ends at its next step
                time.sleep(0.1)
            session.growth, session.task, session.stack, session.grown_on = (
                old.growth,
                old.task,
                old.stack,
                old.grown_on,
            )
            session.forget, session.retain, session.domain = old.forget, old.retain, old.domain
            session.judge, session.judged = old.judge, old.judged
            session.uploads, old.uploads = session.uploads | old.uploads, set()
        else:
            session.judge, session.judged = "", None
            adapter, task = self.load(session.model), self.task_of(session)
            growth = Growth(adapter, task, saved.config_of(left.folder))
            saved.restore(growth, left.folder)
            session.growth = growth
        session.left = None
        self.sessions.drop(left)
        self.sessions.save(session)
        growth = session.growth
        rounds = len(growth.history.states) - 1
        many = "1 round" if rounds == 1 else f"{rounds} rounds"
        said = status_html(f"Back again: {many} on {growth.task.concept}. Go on where you left off.")
        adapter, family = growth.adapter, self.comparing(growth.adapter)
        settings = edit_panel.settings_shown(page.edit, growth.config, adapter)
        for widget in (page.edit.towers, page.edit.forget_loss):  # what there is to choose hangs on the model
            settings[widget] = {**family[widget], "value": settings[widget]}
        yield {
            page.examples.offer: gr.update(visible=False),
            **self._examples(session),
            page.model.name: session.model,
            **self._loaded(session, adapter),
            page.examples.status: said,
            page.edit.status: said,
            page.tabs: gr.Tabs(selected="edit"),
            **compare_panel.side_choices(page.compare, growth.history.branches, None),
            **family,
            **settings,
            **self.stack_shown(session),
            **self.drawn(session, growth),
        }

    @handler(lambda page: page.examples.status)
    def discard(self, session: Session) -> Iterator[dict]:
        """The rounds of an earlier page are not wanted."""
        if session.left:
            self.sessions.drop(session.left)
        session.left = None
        yield {self.page.examples.offer: gr.update(visible=False)}

    @handler(lambda page: page.examples.status)
    def choose_model(self, session: Session, name: str) -> Iterator[dict]:
        """Load a model and show its card; the examples stay unless the old one drew them, its scores and edits go."""
        page = self.page
        yield {page.examples.status: status_html(f"Loading {name}", "busy")}
        adapter = self.load(name)
        said, task = f"{name} is loaded.", session.task
        if (other := examples_panel.drawn_by(task)) and other != adapter.name:
            back = "press Use these pictures again" if session.forget else "name it again for this model"
            said += f" The pictures {other} drew for {task.concept} went with it; {back}."
            task = None
        elif task is None and draws_its_own(adapter):
            said += " It knows nothing of the bundled world: name what to forget in words, or bring your own pictures."
        if (left := session.growth) and left.adapter.family == "clip" and left.patch.deltas:
            session.clip_edit = left
        session.start_over()
        session.model, session.task, session.stack = name, task, Stack()
        session.judge, session.judged = "", None
        yield {
            **self._loaded(session, adapter),
            page.examples.status: status_html(said),
            **self._examples(session),
            **self.comparing(adapter),
            **self.blank(session),
            **self.offered(session, adapter),
            **self.stack_shown(session),
        }

    @handler(lambda page: page.examples.status)
    def choose_judge(self, session: Session, name: str) -> Iterator[dict]:
        """Let a CLIP look at what the model draws, or nobody; the examples stay, scores and edits go."""
        page, name = self.page, name.strip()
        adapter = self.load(session.model)
        if not draws_its_own(adapter):
            raise InputError(f"{session.model} needs no CLIP to look at pictures; load another model that draws.")
        judged = None
        if name:
            yield {page.examples.status: status_html(f"Loading {name}", "busy")}
            self.load(name)  # what this page may not load is refused here
            judged = models.with_judge(adapter, name)
        task = session.task
        session.start_over()
        session.task, session.stack, session.judge, session.judged = task, Stack(), name, judged
        said = proxy_note(judged.judge) if judged else "Nobody looks at drawn pictures any more."
        yield {
            page.model.card: model_panel.loaded_card(session.model, model_panel.describe(judged or adapter)),
            page.examples.status: status_html(said),
            **self.blank(session),
            **self.stack_shown(session),
        }

    def _loaded(self, session: Session, adapter: Adapter) -> dict:
        """The card of the session's model, who judges what it draws, and the line above all screens."""
        return {
            self.page.model.card: model_panel.loaded_card(session.model, model_panel.describe(adapter)),
            self.page.model.judge: session.judge,
            self.page.header: header_html(NAME, PURPOSE, f"{session.model} on {adapter.device}"),
        }

    def _examples(self, session: Session) -> dict:
        """Gallery and button as the session's task needs them."""
        panel, task, target = self.page.examples, session.task, parse_target(session.target)
        gallery = examples_panel.task_gallery(task) if task else examples_panel.bundled_gallery(target)
        label = f"Forget {task.concept if task else target.name} and compare"
        return {panel.gallery: gallery, panel.story: gr.update(value=label)}

    @handler(lambda page: page.examples.status)
    def choose_target(self, session: Session, target: str) -> Iterator[dict]:
        """Another bundled target: new gallery, nothing scored."""
        parsed = parse_target(target)
        if target == session.target and session.growth is None and session.task is None:
            yield gr.skip()  # the page was told of it, and tells it back
            return
        session.target = target
        session.start_over()
        yield {
            self.page.examples.gallery: examples_panel.bundled_gallery(parsed),
            self.page.examples.story: gr.update(value=examples_panel.story_label(target)),
            self.page.examples.status: status_html(f"Ready to forget {parsed.name}."),
            **self.blank(session),
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
    def use_own(
        self, session: Session, concept: str, labels: str, anchor: str, kind: str, named: bool, rows: list[list[str]]
    ) -> Iterator[dict]:
        """Turn the uploaded pictures into the task, with what a model draws beside them of the name and to keep."""
        panel = self.page.examples
        yield {panel.status: status_html("Checking your pictures", "busy")}
        forget = examples_panel.with_captions(session.forget, rows or [], "forget")
        retain = examples_panel.with_captions(session.retain, rows or [], "retain")
        names = [name.strip() for name in labels.split(",") if name.strip()]
        adapter = self.model_of(session)
        anchor = anchor if adapter.family == "diffusion" else ""
        chosen = {"concept": concept, "labels": names, "anchor": anchor, "kind": kind, "drawn_too": named}
        make = partial(own_task, forget, retain, **chosen, adapter=adapter)
        if count := drawn_beside(adapter, concept, kept=bool(retain), drawn_too=named):
            session.begin()
            task = yield from self.drawn_task(session, adapter, count, make)
        else:
            task = make()
        session.start_over()
        session.task = task
        used = filter(None, [made_of(task), unnamed(adapter, concept) if named else ""])
        notes = [*used, *examples_panel.data_warnings(forget, retain)]
        said = [f"Ready to forget {task.concept}.", *notes, *cut_captions(adapter, task)]
        yield {
            **self._examples(session),
            panel.status: status_html(" ".join(said)),
            **self.blank(session),
        }

    # The story

    @handler(lambda page: page.examples.status)
    def tell(self, session: Session, *settings) -> Iterator[dict]:
        """The guided run, from pictures to a compared result, ending on the compare screen."""
        page = self.page
        session.begin()
        session.growth, session.shown, session.sides, session.found = None, None, None, {}  # from the start
        yield {page.examples.status: story.told_html(story.Told(0, "getting model and pictures ready"))}
        growth = self.start(session, settings)
        asking = story.told_text(story.Told(1, f"asking the unedited model for {growth.task.concept}"))
        why = partial(story.nothing_to_forget, growth)
        reason = yield from self.watched(session, growth, page.examples.status, asking, why)
        if session.growth is not growth:
            yield self.current(session)
            return
        if reason:
            yield {page.examples.status: status_html(reason, "problem")}
            return
        for told in story.grow_story(growth, session.stop.is_set):
            if session.growth is not growth:
                yield self.current(session)
                return
            if told.redraw:
                session.edited()
                self.sessions.save(session)
            drawn = self.drawn(session, growth) if told.redraw else {}
            yield {page.examples.status: story.told_html(told), **drawn}
        if session.growth is not growth:
            yield self.current(session)
            return
        if session.stop.is_set():
            yield {page.examples.status: status_html("Stopped. What was done so far is kept; the model is unchanged.")}
            return
        if draws(growth):
            yield from self._told_by_drawing(session, growth)
            return
        yield {page.examples.status: story.told_html(story.Told(3, "measuring on pictures nothing has seen"))}
        tested = self.test(session, growth)
        shown = (yield from self.ask_suggested(session)) if writes(growth) else self.answers(session, growth)
        if session.growth is not growth:
            yield self.current(session)
            return
        end = telling.ending(growth, *tested)
        session.found["ended"] = session.revision
        session.look_at_best()
        yield {
            **self.drawn(session, growth),
            **shown,
            page.edit.estimate: "",
            page.compare.tiles: reading.tiles_of(growth, tested),
            page.compare.status: status_html(end),
            page.edit.status: status_html(end),
            page.examples.status: status_html(end),
            page.tabs: gr.Tabs(selected="compare"),
        }

    def _told_by_drawing(self, session: Session, growth: Growth) -> Iterator[dict]:
        """The end of the story for a model that draws: the same prompts from the same noise on both sides."""
        page, end = self.page, status_html(story.drawn_ending(growth))
        session.look_at_best()
        yield {
            **self.drawn(session, growth),
            page.edit.estimate: "",
            page.edit.status: end,
            page.examples.status: end,
            page.tabs: gr.Tabs(selected="compare"),
        }
        yield from self.draw_suggested(session)

    # Screen 3

    @handler(lambda page: page.compare.status)
    def compare(self, session: Session, left: str, right: str) -> Iterator[dict]:
        """The suggested pictures on both sides."""
        family = self.model_of(session).family
        if family in ("diffusion", "vlm"):
            yield from self.draw_suggested(session) if family == "diffusion" else self.ask_suggested(session)
            return
        growth, page = session.need_growth(), self.page
        yield from self.settle_sides(session, left, right)
        yield {page.compare.status: status_html("Asking both models", "busy")}
        if session.sides is None:
            tiles = reading.tiles_of(growth, session.tested or self.test(session, growth))
        else:
            tiles = reading.side_tiles(growth, session.sides)
        shown = self.compared(session, growth)
        if session.growth is not growth:
            yield self.current(session)
            return
        yield {
            page.compare.cards: shown,
            page.compare.tiles: tiles,
            page.compare.status: "",
            page.edit.timeline: edit_panel.timeline_of(growth, session.sides) if growth.showable else gr.skip(),
        }

    @handler(lambda page: page.compare.status)
    def ask(self, session: Session, files: list[str] | None, labels: str) -> Iterator[dict]:
        """A person's own pictures on both sides."""
        if not files:
            raise InputError("Add at least one picture to compare.")
        session.uploads.update(files)
        yield {self.page.compare.status: status_html("Asking both models", "busy")}
        sides, patches = self.sides(session)
        task = self.current_task(session)
        shown = compare_panel.own_pictures(self.model_of(session), patches, files, labels, task, sides)
        note = "" if any(p.deltas for p in patches) else "Nothing is edited yet, so both answers are the same."
        yield {
            self.page.compare.own: gr.update(value=shown, visible=True),
            self.page.compare.status: status_html(note) if note else "",
        }

    # The guide

    @handler(lambda page: page.examples.status)
    def toggle_guide(self, session: Session) -> Iterator[dict]:
        """Open or close the guide; nothing else changes."""
        session.guided = not session.guided
        panel = self.page.guide
        yield {
            panel.box: gr.update(visible=session.guided),
            self.page.tabs: gr.Tabs(selected=guide.STEPS[session.step].tab) if session.guided else gr.skip(),
            panel.toggle: gr.update(value="Close the guide" if session.guided else "Guide me"),
            **guide.shown(panel, session.step, session),
        }

    @handler(lambda page: page.examples.status)
    def guide_to(self, session: Session, number: int) -> Iterator[dict]:
        """A step of the guide, on its screen."""
        session.step = max(0, min(int(number), len(guide.STEPS) - 1))
        yield {
            **guide.shown(self.page.guide, session.step, session),
            self.page.tabs: gr.Tabs(selected=guide.STEPS[session.step].tab),
        }

    @handler(lambda page: page.examples.status)
    def guide_on(self, session: Session) -> Iterator[dict]:
        """The next step."""
        yield from Studio.guide_to.work(self, session, session.step + 1)

    @handler(lambda page: page.edit.status)
    def guide_do(self, session: Session, *settings) -> Iterator[dict]:
        """What the step's button does; the same as the button of its screen."""
        number = session.step
        if number == 0:
            yield from Studio.guide_to.work(self, session, 1)
            return
        yield from {
            1: lambda: Studio.score.work(self, session, *settings),
            2: lambda: Studio.grow.work(self, session, *settings),
            3: lambda: Studio.compare.work(self, session, *(session.sides or compare_panel.SIDES)),
            4: lambda: Studio.resample.work(self, session),
        }[number]()
        yield guide.shown(self.page.guide, session.step, session)
