"""Screen 3 for models that answer in words: questions on both sides of an edit, suggested and a person's own."""

from collections.abc import Callable, Iterator, Sequence
from html import escape

import gradio as gr

from components import answer_panel, compare_panel
from components.desk import Desk, handler
from components.picture_reading import Shown
from components.session import Session
from components.theme import status_html
from razor.adapters.base import Adapter
from razor.adapters.vlm import VlmAdapter
from razor.asking import SUGGESTED, Answered, Ask, answer_both, check, of_table, suggested
from razor.carry import carried, shares_tower
from razor.errors import InputError, RazorError
from razor.examples import Task
from razor.stack import Concept

TOGETHER = 8  # questions answered before the page is told
NOTHING_EDITED = "Nothing is edited yet, so both sides answer the same."


class Asking(Desk):
    """Handlers of the panel for models that answer in words."""

    @handler(lambda page: page.asks.status)
    def ask_both(self, session: Session, left: str, right: str, groups: list[str], count: int) -> Iterator[dict]:
        """Suggested questions on both sides, group by group."""
        session.begin()
        yield {self.page.asks.status: status_html("Getting the model ready", "busy")}
        adapter = self._answering_model(session)
        yield from self.settle_sides(session, left, right)
        if count not in answer_panel.COUNTS:
            known = ", ".join(map(str, answer_panel.COUNTS))
            raise InputError(f"{count!r} questions of each group cannot be suggested; choose {known}.")
        if not groups:
            raise InputError("There is nothing to ask: tick a group of suggested questions, or ask your own below.")
        task = self.current_task(session)
        yield from self._suggested(session, adapter, task, suggested(adapter, task, groups, count, _near(session)))

    def ask_suggested(self, session: Session, note: str = "") -> Iterator[dict]:
        """A few questions of every group, ending on a note; what the story and the guide end on.

        Returns:
            The last update, {} where another target or model was chosen meanwhile.
        """
        session.begin()
        adapter, task = self._answering_model(session), self.current_task(session)
        asked = suggested(adapter, task, SUGGESTED, answer_panel.COUNTS[0], _near(session))
        return (yield from self._suggested(session, adapter, task, asked, note))

    def _suggested(
        self, session: Session, adapter: VlmAdapter, task: Task, asked: Sequence[Ask], note: str = ""
    ) -> Iterator[dict]:
        panel, (chosen, patches) = self.page.asks, self.sides(session)
        names = tuple(map(compare_panel.side_name, chosen))
        session.found["asked"] = Shown(chosen, tuple(patch.key() for patch in patches))
        yield {panel.status: status_html(f"Asking {len(asked)} questions on both sides", "busy"), panel.stale: ""}
        answered = yield from self._answered(session, adapter, task, asked, panel.cards)
        if answered is None:
            return {}
        said = note if any(patch.deltas for patch in patches) else NOTHING_EDITED
        last = {
            panel.cards: answer_panel.answers_shown(
                asked, answered, task.concept, names, finding=answer_panel.finding(answered, task.concept, names)
            ),
            panel.file: self._download(session, answered, names),
            panel.status: status_html(said) if said else "",
            **self.staleness(session),
        }
        yield last
        return last

    @handler(lambda page: page.asks.own_status)
    def ask_own_questions(
        self, session: Session, left: str, right: str, files: list[str] | None, typed: str, rule: str
    ) -> Iterator[dict]:
        """A person's own pictures and questions on both sides, scored by a benchmark's rule where one is chosen."""
        session.begin()
        session.uploads.update(files or ())
        panel = self.page.asks
        yield {panel.own_status: status_html("Reading pictures and questions", "busy")}
        questions, warnings = answer_panel.own_questions(files or (), typed or "")
        answer_panel.check_rule(rule or "", questions)
        adapter, task = self._answering_model(session), self.current_task(session)
        yield from self.settle_sides(session, left, right)
        names = tuple(map(compare_panel.side_name, self.sides(session)[0]))
        asked = of_table(questions)
        yield {panel.own_status: status_html(f"Asking {len(asked)} questions on both sides", "busy")}
        answered = yield from self._answered(
            session, adapter, task, asked, panel.own, lambda shown: gr.update(value=shown, visible=True)
        )
        if answered is None:
            return
        said = [answer_panel.scored_text(rule, questions, answered, names)] if rule else []
        said += [f"The first {answer_panel.MANY} are shown; the file holds all."] * (len(asked) > answer_panel.MANY)
        finding = answer_panel.finding(answered, task.concept, names)
        shown = answer_panel.answers_shown(asked, answered, task.concept, names, finding=finding)
        yield {
            panel.own: gr.update(value=shown, visible=True),
            panel.own_file: self._download(session, answered, names),
            panel.own_status: status_html(" ".join([*said, *warnings]), "problem" if warnings else "ready"),
        }

    # An edit of a CLIP over the same image tower

    def offered(self, session: Session, adapter: Adapter) -> dict:
        """The edit of a CLIP that was left behind, where this model sees through the same image tower."""
        panel, left = self.page.asks, session.clip_edit
        fits = left is not None and adapter.family == "vlm" and shares_tower(left.adapter, adapter)
        said = f'<p class="offer">{escape(answer_panel.offer_text(left, adapter.name))}</p>' if fits else ""
        return {panel.offer: gr.update(visible=fits), panel.offer_text: said}

    @handler(lambda page: page.asks.status)
    def carry(self, session: Session) -> Iterator[dict]:
        """Put the edit of the CLIP on this model's stack, and ask what it does."""
        panel, left, adapter = self.page.asks, session.clip_edit, self._answering_model(session)
        if left is None:
            raise InputError("There is no edit to carry; forget something in the CLIP this model sees through first.")
        yield {panel.status: status_html(f"Carrying the edit of {left.adapter.name}", "busy")}
        found = carried(left.patch, left.adapter, adapter)
        known = {unit.name for unit in adapter.units()}
        units = tuple(name for name in left.edit_set.active if name in known)
        session.edited()
        session.stack = session.stack.push(Concept(left.task, found.patch, units))
        session.clip_edit = None
        yield {panel.offer: gr.update(visible=False), **self.stack_shown(session)}
        yield from self.ask_suggested(session, answer_panel.carried_text(left, found))

    def _answered(
        self,
        session: Session,
        adapter: VlmAdapter,
        task: Task,
        asked: Sequence[Ask],
        cards: gr.HTML,
        show: Callable[[dict], object] = lambda shown: shown,
    ) -> Iterator[dict]:
        """Answer the questions a few at a time, showing each lot; None where another target or model was chosen.

        Raises:
            RazorError: Stop was pressed, or memory ran out; what was answered stays on the page.
        """
        epoch, (chosen, patches) = session.epoch, self.sides(session)
        names, known = tuple(map(compare_panel.side_name, chosen)), session.found.setdefault("answers", {})
        answered: list[Answered] = []

        def shown(busy: bool) -> dict:
            return {cards: show(answer_panel.answers_shown(asked, answered, task.concept, names, busy))}

        check(adapter, task, asked)
        for start in range(0, len(asked), TOGETHER):
            yield shown(busy=True)
            part = asked[start : start + TOGETHER]
            try:
                answered += answer_both(adapter, task, part, patches, known=known, stop=session.stop.is_set)
            except RazorError:
                yield shown(busy=False)
                raise
            if session.epoch != epoch:
                yield self.current(session)
                return None
        return answered

    def _download(self, session: Session, answered: Sequence[Answered], sides: tuple[str, str]) -> dict:
        path = answer_panel.answers_file(answered, sides)
        session.uploads.add(path)
        return gr.update(value=path, visible=True)

    def _answering_model(self, session: Session) -> VlmAdapter:
        adapter = self.model_of(session)
        if adapter.family != "vlm":
            raise InputError(f"{session.model} answers no questions; load a vision-language model on screen 1.")
        return adapter


def _near(session: Session) -> Sequence[str]:
    """The classes nearest to what is forgotten, as far as they were looked for."""
    return session.growth.bench.neighbours if session.growth else ()
