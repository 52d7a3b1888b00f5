"""Screen 2: what the buttons, the map and the timeline do."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from html import escape

import gradio as gr

from components import compare_panel, edit_panel, reading, story
from components.chart import picked_key, selected_keys
from components.desk import Desk, handler, on_event
from components.head_map import focus_payload, payload, tau_payload
from components.session import Measured, Session
from components.theme import status_html
from components.timeline import branch_changed, round_picked
from razor import telling
from razor.edit_set import check_names
from razor.errors import InputError, RazorError
from razor.growth import Growth
from razor.wording import draws, judge_of

FREE = "Without locks and bans"


class Editing(Desk):
    """Handlers of the map-and-edit screen."""

    # Scoring and growing

    @handler(lambda page: page.edit.status)
    def score(self, session: Session, *settings) -> Iterator[dict]:
        """Score every unit at the weights the last round left and draw the map."""
        session.begin()
        yield self.note("Getting model and pictures ready", "busy")
        growth = self.start(session, settings)
        yield self.note(f"Scoring {len(growth.units)} units", "busy")
        growth.scores()
        if session.growth is not growth:
            yield self.current(session)
            return
        yield {
            **self.drawn(session, growth),
            **self.note("Scored. Click a head to put it in, press L to lock or B to ban it, then grow."),
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
    def replan(self, session: Session, *settings) -> Iterator[dict]:
        """Grow anew around the locks and bans, beside a plan without them, and say what they cost."""
        growth = session.need_growth()
        if not growth.edit_set.locked and not growth.edit_set.banned:
            raise InputError("Nothing is locked or banned: lock a unit with L or ban one with B, then re-plan.")
        history, start = growth.history, growth.edit_set
        name = f"{len(start.locked)} locked, {len(start.banned)} banned"
        name = name if name not in history.branches else history.free_name()
        free = next((b for b in history.branches if self._is_free(growth, b)), None)
        if free is None:
            yield self.note("Growing a plan without locks and bans to compare with", "busy")
            growth.reset()
            history.branch_from(FREE if FREE not in history.branches else history.free_name(), 0)
            yield from self._grow(session, settings, rounds=None)
            if session.growth is not growth or session.stop.is_set():
                yield self.current(session)
                return
            free = history.position.branch
            history.change(replace(history.position.edit_set, locked=start.locked, banned=start.banned))
        growth.replan(name)
        session.edited()
        yield from self._grow(session, settings, rounds=None)
        if session.growth is growth and not session.stop.is_set():
            yield {**self.drawn(session, growth), **self.note(reading.price_text(growth, free, name))}

    @staticmethod
    def _is_free(growth: Growth, branch: str) -> bool:
        """A branch with rounds, grown without any lock or ban."""
        path = growth.history.path(growth.history.branches[branch])
        by_hand = any(s.edit_set.locked or s.edit_set.banned or (s.round and s.round.by_hand) for s in path)
        return len(path) > 1 and not by_hand and growth.goal.reached(path[-1].evaluation)

    def _grow(self, session: Session, settings, rounds: int | None) -> Iterator[dict]:
        session.begin()
        yield self.note("Getting model and pictures ready", "busy")
        growth = self.start(session, settings)
        if rounds is None:
            asking = f"Asking the unedited model for {growth.task.concept}"
            why = partial(story.nothing_to_forget, growth)
            said = yield from self.watched(session, growth, self.page.edit.status, asking, why)
            if session.growth is not growth:
                yield self.current(session)
                return
            if said or growth.reached:
                yield self.note(said or "The target is met already; grow one more round if you want to go on.")
                return
        for _ in range(rounds or growth.config.rounds):
            if session.stop.is_set() or (growth.rounds and growth.exhausted):
                break
            yield self.note(f"Round {len(growth.rounds) + 1}: scoring, then small steps", "busy")
            done = growth.next_round(session.stop.is_set)
            if session.growth is not growth:
                yield self.current(session)
                return
            session.edited()
            self.sessions.save(session)
            yield {
                **self.drawn(session, growth),
                **self.uncompared(),
                **self.note(f"Round {done.index}. {done.reason}", "busy"),
            }
            if growth.reached:
                break
        if not draws(growth):  # pictures to measure on take long enough to be asked for; see Measuring
            self.test(session, growth)
        elif not session.stop.is_set() and judge_of(growth):
            self.pace(session, growth.adapter)
        if session.growth is not growth:
            yield self.current(session)
            return
        session.look_at_best()
        last = growth.rounds[-1].reason if growth.rounds else "Stopped before the first round."
        yield {**self.drawn(session, growth), **self.note(" ".join(filter(None, [last, growth.lock_price()])))}

    def stop(self, request: gr.Request) -> str:
        """Ask the session's work to end at the next step."""
        session = self.sessions.get(request.session_hash)
        session.halt()
        idle = "Nothing is running, and nothing that waits its turn will begin."
        return status_html("Stopping after this step" if session.running else idle)

    # Going back and forth

    @handler(lambda page: page.edit.status)
    def undo(self, session: Session) -> Iterator[dict]:
        """Take the last change, round or move back."""
        session.need_growth().undo()
        yield self._moved(session, f"Undone. Now: {self._where(session)}.")

    @handler(lambda page: page.edit.status)
    def redo(self, session: Session) -> Iterator[dict]:
        """Do it again."""
        session.need_growth().redo()
        yield self._moved(session, f"Done again. Now: {self._where(session)}.")

    @handler(lambda page: page.edit.status)
    def reset(self, session: Session) -> Iterator[dict]:
        """Back at the unedited model; the rounds stay on the timeline."""
        session.need_growth().reset()
        yield self._moved(session, "Back at the unedited model. The rounds stay on the timeline, and Undo returns.")

    @staticmethod
    def _where(session: Session) -> str:
        """The state shown, in a few words."""
        growth = session.growth
        after = f"after round {growth.rounds[-1].index}" if growth.rounds else "the unedited model"
        return ", ".join(filter(None, [after, growth.by_hand]))

    @on_event(lambda page: page.edit.status)
    def show_round(self, session: Session, event: gr.EventData) -> dict:
        """A round picked on the timeline: everything shows the state it left."""
        growth = session.need_growth()
        aside = " Your changes by hand are set aside; Undo brings them back." if growth.by_hand else ""
        growth.go(round_picked(event, growth.history.states))
        return self._moved(session, telling.round_text(growth) + aside)

    @on_event(lambda page: page.edit.status)
    def change_branch(self, session: Session, event: gr.EventData) -> dict:
        """A branch switched to, started, renamed, deleted or chosen for comparison on the timeline."""
        growth = session.need_growth()
        history = growth.history
        action, name, to, node = branch_changed(event, history.branches, history.states)
        if action == "compare":
            session.sides = compare_panel.toggled(session.sides, name)
            left, right = map(compare_panel.side_name, session.sides or compare_panel.SIDES)
            return {
                self.page.edit.timeline: edit_panel.timeline_of(growth, session.sides),
                **self.note(f"The compare screen shows {left} beside {right}."),
                **compare_panel.side_choices(self.page.compare, history.branches, session.sides),
            }
        growth.still()
        if action == "new":
            history.branch_from(to, node)
        elif action == "rename":
            history.rename(name, to)
            session.sides = compare_panel.renamed(session.sides, name, to)
        elif action == "delete":
            history.delete(name)
            growth.forget_lost()
        else:
            history.switch(name)
        said = {"new": f"On the new branch {to}.", "rename": f"{name} is now {to}.", "delete": f"{name} is deleted."}
        kept = compare_panel.without(session.sides, name) if action == "delete" else session.sides
        lost, session.sides = kept != session.sides, kept
        back = " It was being compared; the comparison is back at the original and the edit." if lost else ""
        return {
            **self._moved(session, said.get(action, f"On branch {name}.") + back),
            **compare_panel.side_choices(self.page.compare, history.branches, session.sides),
        }

    def _moved(self, session: Session, sentence: str) -> dict:
        """Everything drawn anew after the position changed."""
        growth = session.growth
        session.edited()
        known = growth.known_evaluation(growth.edit_set)
        estimate = "" if known else self.estimating(session, growth)
        return {
            **self.drawn(session, growth),
            **self.uncompared(),
            self.page.edit.estimate: estimate,
            **self.note(sentence),
        }

    # The map by hand

    def change_units(self, event: gr.EventData, request: gr.Request) -> list:
        """A gesture on the map. Always answers with the marks, so that a refused one is undrawn."""
        session = self.sessions.get(request.session_hash)
        estimate = status = gr.skip()
        try:
            names, action, seq = payload(event)
            with session.turn(seq):
                growth = session.need_growth()
                before = growth.edit_set
                if said := growth.act(action, check_names(names, growth.every)):
                    gr.Warning(escape(said))
                if growth.edit_set != before:
                    session.edited()
                    estimate, status = self.estimating(session, growth), ""
        except (RazorError, ValueError) as error:
            gr.Warning(escape(str(error)))
        return [
            gr.update(picked=self.picked(session)),
            estimate,
            gr.skip() if session.running else status,
        ]  # a run tells its own story

    def look_at(self, event: gr.EventData, request: gr.Request) -> dict:
        """A cell looked at on the map: its card."""
        session = self.sessions.get(request.session_hash)
        name = focus_payload(event)
        if session.growth is not None and (name is None or name in session.growth.every):
            session.focus = name
        return self.unit_shown(session)

    @on_event(lambda page: page.edit.status)
    def pick_row(self, session: Session, event: gr.SelectData) -> dict:
        """A row of the ranked table: the map looks at its unit."""
        row = event.row_value if isinstance(event.row_value, list) else []
        return self._look_from_elsewhere(session, str(row[1]) if len(row) > 1 else "")

    @on_event(lambda page: page.edit.status)
    def pick_point(self, session: Session, event: gr.EventData) -> dict:
        """A point of the scatter: the map looks at its unit."""
        return self._look_from_elsewhere(session, picked_key(event, session.need_growth().every))

    def _look_from_elsewhere(self, session: Session, name: str) -> dict:
        growth = session.need_growth()
        check_names([name], growth.every)
        session.focus = name
        return {self.page.edit.map: gr.update(picked=self.picked(session)), **self.unit_shown(session)}

    @on_event(lambda page: page.edit.status)
    def brush(self, session: Session, event: gr.EventData) -> dict:
        """Points selected on the scatter: said, and ready to be put in."""
        keys = selected_keys(event, session.need_growth().every)
        session.found["brushed"] = keys
        panel = self.page.edit
        said = f"{len(keys)} units selected: {telling.names(keys)}." if keys else ""
        return {panel.brushed: status_html(said) if said else "", panel.put_in: gr.update(interactive=bool(keys))}

    @handler(lambda page: page.edit.status)
    def put_in(self, session: Session) -> Iterator[dict]:
        """Put the units selected on the scatter in."""
        growth = session.need_growth()
        if said := growth.act("in", session.found.get("brushed", [])):
            gr.Warning(escape(said))
        yield self._moved(session, "The selected units are in.")

    @handler(lambda page: page.edit.status)
    def estimate(self, session: Session) -> Iterator[dict]:
        """Measure the edit as it stands on the search split, from changes and features at hand; scores nothing."""
        growth, revision = session.growth, session.revision
        if growth is None:
            return
        measured, said = session.found.get("estimate", (None, ""))
        if measured == revision:  # an earlier call in the queue has measured this edit already
            yield {self.page.edit.estimate: said}
            return
        at = growth.history.position
        before = session.before(at)
        if growth.known_evaluation(at.edit_set) is None:
            look = growth.first_look()
            yield {self.page.edit.estimate: reading.estimate_html(growth, before, None, look)}
        now = growth.evaluation(at.edit_set)
        if session.growth is not growth or session.revision != revision:
            yield self._but_the_unit(self.current(session))
            return
        session.show(Measured(at.state, at.edit_set, now))
        moved_here = before is not None and before.state == at.state
        said = reading.estimate_html(growth, before, now) if moved_here or growth.by_hand else ""
        session.found["estimate"] = revision, said
        yield {**self._but_the_unit(self.drawn(session, growth)), self.page.edit.estimate: said}
        shown = self.answers(session, growth)
        if session.growth is not growth or session.revision != revision:
            yield self._but_the_unit(self.current(session))
            return
        yield {**shown, self.page.compare.tiles: reading.tiles_of(growth, session.tested)}
        self.sessions.save(session)
        growth.prepare_look()

    def _but_the_unit(self, shown: dict) -> dict:
        """What is shown without the unit looked at: a visitor may look at another one while this is on its way."""
        return {part: value for part, value in shown.items() if part not in self.page.edit.looked_at()}

    def look_again(self, request: gr.Request) -> dict:
        """The card of the unit looked at, after what changed it."""
        return self.unit_shown(self.sessions.get(request.session_hash))

    @staticmethod
    def estimating(session: Session, growth: Growth) -> str:
        """The line under the map until the estimate is made."""
        return reading.estimate_html(growth, session.before(growth.history.position), None)

    # Strength

    @handler(lambda page: page.edit.status)
    def dial(self, session: Session, value: float, guard: bool) -> Iterator[dict]:
        """The whole edit at another strength."""
        yield from self._dial(session, value, guard, None)

    @handler(lambda page: page.edit.status)
    def dial_unit(self, session: Session, value: float, guard: bool) -> Iterator[dict]:
        """The unit looked at, at another strength."""
        if session.growth is None or session.focus not in session.growth.edit_set.members:
            return
        yield from self._dial(session, value, guard, session.focus)

    def _dial(self, session: Session, value: float, guard: bool, name: str | None) -> Iterator[dict]:
        growth = session.growth
        if growth is None or value == (growth.edit_set.strength if name is None else growth.edit_set.strength_of(name)):
            return  # the page moved the slider, not the visitor
        growth.set_strength(value, name)
        session.edited()
        yield {
            self.page.edit.map: gr.update(picked=self.picked(session)),
            self.page.edit.estimate: self.estimating(session, growth),
        }
        if not guard or value <= 1:
            return
        allowed = growth.guarded(value, name)
        if allowed < value and session.growth is growth:
            growth.set_strength(allowed, name)
            session.edited()
            said = f"Overshoot guard: beyond {allowed:.0%} a budget would break, so the strength is {allowed:.0%}."
            estimate = reading.estimate_html(growth, None, growth.known_evaluation(growth.edit_set))
            yield {**self.drawn(session, growth), self.page.edit.estimate: estimate, **self.note(said)}

    # Settings that need no model

    @handler(lambda page: page.edit.status)
    def rescale(self, session: Session, *settings) -> Iterator[dict]:
        """alpha or tau moved: redraw from the stats at hand, without running the model."""
        config = edit_panel.config_from(*settings)
        growth = session.growth
        if growth is None or not growth.showable:
            return
        growth.configure(replace(growth.config, alpha=config.alpha, tau=config.tau))
        yield {self.page.edit.map: gr.update(value=self.map_of(session, growth))}

    @handler(lambda page: page.edit.status)
    def rescaled(self, session: Session) -> Iterator[dict]:
        """What follows the map once alpha or tau has come to rest: table, scatter and card."""
        growth, panel = session.growth, self.page.edit
        if growth is None or not growth.showable:
            return
        yield {
            panel.table: edit_panel.table_of(growth),
            panel.scatter: gr.update(value=edit_panel.scatter_of(growth), marked=edit_panel.marked_of(growth)),
            panel.price: reading.constraints_html(growth),
            **self.unit_shown(session),
        }

    @handler(lambda page: page.edit.status)
    def choose_loss(self, session: Session, forget_loss: str) -> Iterator[dict]:
        """Another forget loss is chosen: the towers it grows in are ticked."""
        yield {self.page.edit.towers: edit_panel.towers_for(self.model_of(session), forget_loss)}

    def brush_tau(self, event: gr.EventData, request: gr.Request) -> float:
        """The threshold dragged on the map: the slider follows."""
        self.sessions.get(request.session_hash)
        try:
            return round(min(tau_payload(event), 0.95), 2)
        except ValueError as error:
            gr.Warning(escape(str(error)))
            return gr.skip()
