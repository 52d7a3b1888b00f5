"""The expensive views: can I trust the score, why this head, what moved. Each with its own button and progress."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import gradio as gr

from components import compare_panel, drift_panel, trust_panel, why_panel
from components.cards import cards_value
from components.chart import picked_key
from components.desk import Desk, handler, on_event
from components.session import Session
from components.theme import finding_html, pictures_html, status_html
from razor import trust
from razor.adapters.diffusion import seeds_for
from razor.answer_attribution import answer_attribution
from razor.attention import AttentionMap, attention
from razor.attribution import explain_head, head_gates, pixel_attribution
from razor.cross_attention import WordMaps, before_after
from razor.drift import drift
from razor.errors import InputError, ModelError
from razor.examples import Example, varied
from razor.growth import Growth
from razor.patches import Patch
from razor.step import edited
from razor.units import Unit
from razor.wording import draws, writes

LOOKED_AT = 4  # pictures a head's attention is drawn over


class Insight(Desk):
    """Handlers of the expensive views."""

    # Can I trust the score?

    @handler(lambda page: page.trust.status)
    def resample(self, session: Session) -> Iterator[dict]:
        """phi on resampled batches: its spread, and faded cells on the map."""
        growth, panel = self._scored(session), self.page.trust
        session.begin()
        patch = growth.scored_patch
        work = lambda tell: trust.bootstrap(  # noqa: E731
            growth.adapter, growth.bench, growth.units, patch, progress=tell, stop=session.stop.is_set
        )  # fmt: skip
        found = yield from self._told(session, panel.status, "Scoring on resampled batches", work)
        if found is None or session.growth is not growth:
            yield {panel.status: "" if session.growth is not growth else status_html("Stopped.")}
            return
        session.keep("spread", found)
        yield {
            **self.drawn(session, growth),
            panel.spread: gr.update(value=trust_panel.spread_value(growth, found)),
            panel.status: "",
        }

    @handler(lambda page: page.trust.status)
    def choices(self, session: Session) -> Iterator[dict]:
        """How other scores would rank the units, and which pictures can be looked into; runs no model."""
        growth, example = session.growth, self.page.why.example
        if growth is None or not growth.showable:
            return
        scores = trust.choices(growth.shown_stats(), alpha=growth.config.alpha)
        shown = {self.page.trust.choices: gr.update(value=trust_panel.choices_value(growth, scores))}
        if not session.found.get("examples"):
            pictures = why_panel.example_choices(growth.task)
            session.found["examples"] = True
            shown[example] = gr.update(choices=pictures, value=pictures[0][1])
        yield shown

    @handler(lambda page: page.trust.status)
    def alone(self, session: Session) -> Iterator[dict]:
        """Edit every unit alone by its trial step, and see which score foretold the outcome."""
        growth, panel = self._scored(session), self.page.trust
        session.begin()
        growth.scores()
        patch = growth.patch_of(growth.history.state.edit_set)
        inside = growth.history.state.changes
        outside = [u for u in growth.units if u.name not in inside]
        effects = []
        for effect in trust.alone(
            growth.adapter, growth.bench, outside, growth.trial_of, patch=patch, stop=session.stop.is_set
        ):
            effects.append(effect)
            if session.growth is not growth:
                yield {panel.status: ""}
                return
            if len(effects) % 4 == 0:
                said = f"Editing every unit alone: {len(effects)} of {len(outside)}"
                yield {panel.status: status_html(said, "busy")}
        if len(effects) < 3:
            yield {panel.status: status_html("Stopped before there was anything to compare.")}
            return
        session.keep("alone", {e.name: e for e in effects})
        scores = trust.choices(growth.stats(), alpha=growth.config.alpha)
        found = trust.agreement(scores, effects)
        note = "" if len(effects) == len(outside) else f"Stopped after {len(effects)} of {len(outside)} units."
        yield {
            panel.agreement: gr.update(value=trust_panel.agreement_value(found, effects)),
            panel.status: status_html(note) if note else "",
            **self.unit_shown(session),
        }

    # Why this head?

    @handler(lambda page: page.why.attribute_status)
    def attribute(self, session: Session, method: str) -> Iterator[dict]:
        """Attribution to every head's gate, as a second map beside phi."""
        growth, panel = self._scored(session), self.page.why
        session.begin()
        work = lambda tell: head_gates(  # noqa: E731
            growth.adapter, growth.bench, growth.units, method=why_panel.METHODS.get(method, method),
            patch=growth.scored_patch, progress=tell, stop=session.stop.is_set,
        )  # fmt: skip
        found = yield from self._told(session, panel.attribute_status, "Attributing to heads", work)
        if found is None or session.growth is not growth:
            yield {panel.attribute_status: "" if session.growth is not growth else status_html("Stopped.")}
            return
        yield {
            panel.map: gr.update(value=why_panel.attribution_map(growth, found), visible=True),
            panel.attribute_status: "",
        }

    @handler(lambda page: page.why.explain_status)
    def explain(self, session: Session) -> Iterator[dict]:
        """The card of the unit looked at."""
        growth, panel = self._scored(session), self.page.why
        if session.focus is None:
            raise InputError("Choose a unit first: click a cell of the map.")
        session.begin()
        unit = growth.every[session.focus]
        yield {panel.explain_status: status_html(f"Switching {unit.name} off and on", "busy")}
        card = explain_head(growth.adapter, growth.bench, unit)  # what the head does before anything is edited
        if draws(growth):
            words = yield from self._words(session, growth, panel.explain_status, unit)
            if session.growth is not growth:
                yield {panel.explain_status: ""}
                return
            html = why_panel.card_html(growth, card, [], growth.task) + (words or "")
            yield {panel.card: html, panel.explain_status: status_html("Stopped.") if words is None else ""}
            return
        with edited(growth.adapter, growth.bench, Patch()):
            looks, pictures, note = self._attention(growth, unit, card)
        if session.growth is not growth:
            yield {panel.explain_status: ""}
            return
        html = why_panel.card_html(growth, card, looks, growth.task) + pictures
        yield {panel.card: html, panel.explain_status: status_html(note) if note else ""}

    @staticmethod
    def _attention(growth, unit, card) -> tuple[list, str, str]:
        """The head's attention in a prompt as bars, or over a few pictures as overlays; a note where it has none."""
        task = growth.task
        try:
            if unit.kind != "head":
                return [], "", ""
            if writes(growth):
                return *_while_answering(growth, unit), ""
            if unit.tower == "text":
                prompt = next(iter(next(a for a in task.axes if a.name == task.axis).prompts[task.concept]))
                return [(f"\u201c{prompt}\u201d", attention(growth.adapter, unit, prompt))], "", ""
            shown = [getattr(task, m.side).search[m.index] for m in card.pictures[:4]]
            made = [
                (
                    why_panel.png_url(why_panel.attention_picture(e.image, attention(growth.adapter, unit, e.image))),
                    e.caption,
                )
                for e in shown
            ]
            return [], "<h4>Where it looks in them</h4>" + pictures_html(made), ""
        except ModelError as error:
            return [], "", str(error)

    def _words(
        self,
        session: Session,
        growth: Growth,
        status: gr.HTML,
        unit: Unit | None = None,
        example: Example | None = None,
    ) -> Iterator[dict]:
        """Where the words of a prompt go, before and after: through one head, or through all; None when stopped."""
        if unit is not None and (unit.kind != "head" or unit.tower.startswith("text")):
            return ""
        example, adapter, patch = example or growth.task.forget.search[0], growth.adapter, growth.patch
        seed = seeds_for([example.source], growth.config.seed)[0]

        def work(tell: Callable[[int, int], None]) -> tuple[WordMaps, WordMaps] | None:
            steps, both = count(1), 2 * adapter.steps

            def stop() -> bool:  # asked once after each step, so that it counts them as well
                tell(min(next(steps), both), both)  # some samplers take a step more
                return session.stop.is_set()

            with edited(adapter, growth.bench, Patch()):
                return before_after(adapter, patch, example.caption, seed, unit=unit, stop=stop)

        what = "Drawing the prompt before and after and watching where its words go, step by step"
        try:
            found = yield from self._told(session, status, what, work)
        except ModelError as error:
            return finding_html(str(error))
        return found and why_panel.words_html(*found, unit.name if unit else "the denoiser, all heads together,")

    @handler(lambda page: page.why.look_status)
    def look(self, session: Session, choice: str | None, method: str) -> Iterator[dict]:
        """Which pixels speak for the concept in one picture, before and after."""
        growth, panel = self._scored(session), self.page.why
        example = why_panel.example_of(growth.task, choice or "forget/0")
        if example is None:
            raise InputError("Choose one of the pictures in the list.")
        session.begin()
        if draws(growth):
            words = yield from self._words(session, growth, panel.look_status, example=example)
            if words is None or session.growth is not growth:
                yield {panel.look_status: "" if session.growth is not growth else status_html("Stopped.")}
                return
            yield {panel.pixels: words, panel.look_status: ""}
            return
        if writes(growth):
            yield from self._look_for_name(session, growth, example, method)
            return
        yield {panel.look_status: status_html("Following the similarity back to the pixels", "busy")}
        found = pixel_attribution(
            growth.adapter, growth.bench, example.image, patch=growth.patch,
            method=why_panel.PIXEL_METHODS.get(method, method),
        )  # fmt: skip
        if session.growth is not growth:
            yield {panel.look_status: ""}
            return
        yield {panel.pixels: why_panel.pixels_html(example.image, found, growth.task.concept), panel.look_status: ""}

    def _look_for_name(self, session: Session, growth: Growth, example: Example, method: str) -> Iterator[dict]:
        """Which pixels speak for the concept's name as the answer, before and after."""
        panel = self.page.why
        work = lambda tell: answer_attribution(  # noqa: E731
            growth.adapter, growth.bench, example.image, patch=growth.patch,
            method=why_panel.PIXEL_METHODS.get(method, method), progress=tell, stop=session.stop.is_set,
        )  # fmt: skip
        found = yield from self._told(session, panel.look_status, "Following the name back to the pixels", work)
        if found is None or session.growth is not growth:
            yield {panel.look_status: "" if session.growth is not growth else status_html("Stopped.")}
            return
        yield {panel.pixels: why_panel.answer_html(found, growth.task.concept), panel.look_status: ""}

    # What moved?

    @handler(lambda page: page.drift.status)
    def move(self, session: Session) -> Iterator[dict]:
        """Where pictures and words lie before and after the edit."""
        growth, panel = self._scored(session), self.page.drift
        if not growth.adapter.embeds:
            raise InputError(f"{growth.adapter.name} has no embeddings to place; compare its pictures on screen 3.")
        yield {panel.status: status_html("Placing pictures and words", "busy")}
        found = drift(growth.adapter, growth.bench, growth.patch)
        if session.growth is not growth:
            yield {panel.status: ""}
            return
        session.found["drift"] = {drift_panel.picture_key(p): p for p in found.pictures}
        note = "" if growth.patch.deltas else "Nothing is edited yet, so nothing has moved."
        yield {
            panel.chart: gr.update(value=drift_panel.drift_value(growth, found)),
            panel.picked: gr.update(value=drift_panel.no_picture(), visible=True),
            panel.status: status_html(note) if note else "",
        }

    @on_event(lambda page: page.drift.status)
    def pick_picture(self, session: Session, event: gr.EventData) -> dict:
        """A point of the drift view: its picture, and what was answered before and after."""
        growth = session.need_growth()
        point = session.found.get("drift", {})[picked_key(event, session.found.get("drift", {}))]
        example = getattr(growth.task, point.side).search[point.index]
        axis = next(a for a in growth.task.axes if a.name == point.axis)
        card = compare_panel.compare(growth.adapter, axis, self.sides(session)[1], [example], growth.task)[0]
        card.pop("loss"), card.pop("seen")
        group = {"title": point.verdict, "kind": "own", "note": "", "cards": [card]}
        shown = cards_value([group], forget_label=growth.task.concept)
        return {self.page.drift.picked: gr.update(value=shown, visible=True)}

    # Views that run by themselves while their switch is on

    @handler(lambda page: page.trust.status)
    def after_score(self, session: Session, resample: bool, alone: bool) -> Iterator[dict]:
        """Scores changed."""
        if session.growth is None or not session.growth.showable or session.stop.is_set():
            return
        if resample:
            yield from Insight.resample.work(self, session)
        if alone and not session.stop.is_set():
            yield from Insight.alone.work(self, session)

    @handler(lambda page: page.why.attribute_status)
    def after_round(self, session: Session, attribute: bool, method: str) -> Iterator[dict]:
        """A round ended."""
        if attribute and session.growth is not None and session.growth.showable and not session.stop.is_set():
            yield from Insight.attribute.work(self, session, method)

    @handler(lambda page: page.drift.status)
    def after_change(self, session: Session, look: bool, choice: str, method: str, move: bool) -> Iterator[dict]:
        """The edit changed."""
        if session.growth is None or not session.growth.showable:
            return
        if look:
            yield from Insight.look.work(self, session, choice, method)
        if move:
            yield from Insight.move.work(self, session)

    @handler(lambda page: page.why.explain_status)
    def after_look(self, session: Session, explain: bool) -> Iterator[dict]:
        """Another unit is looked at."""
        if explain and session.focus is not None and session.growth is not None:
            yield from Insight.explain.work(self, session)

    def _scored(self, session: Session):
        """The growth, scored; else a sentence saying how to get there."""
        growth = session.need_growth()
        growth.shown_stats()
        return growth

    def _told(self, session: Session, status: gr.HTML, what: str, work: Callable[[Callable], Any]) -> Iterator[dict]:
        """`told` for what is worth nothing unless it is whole: None where it was stopped."""
        result = yield from self.told(status, what, work)
        return None if session.stop.is_set() else result


def _while_answering(growth: Growth, unit: Unit) -> tuple[list[tuple[str, AttentionMap]], str]:
    """A head's attention while the model is asked about forget pictures: over the question's words, and as overlays."""
    adapter, task = growth.adapter, growth.task
    question = adapter.questions.ask(task.axis)
    pictures = [task.forget.search[i].image for i in varied(task.forget.search, LOOKED_AT)]
    found = [attention(adapter, unit, picture, question=question) for picture in pictures]
    overlays = [
        (why_panel.png_url(why_panel.attention_picture(look.picture or picture, look)), f"from the {look.reader}")
        for picture, look in zip(pictures, found, strict=True)
    ]
    words = [(question, AttentionMap(look.words, look.tokens, look.reader)) for look in found[:1] if look.tokens]
    return words, "<h4>Where it looks in them</h4>" + pictures_html(overlays)
