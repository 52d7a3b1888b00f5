"""Forget from words alone: suggest what to keep, let the model draw, and use its pictures as the task."""

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

import gradio as gr

from components import examples_panel
from components.desk import Desk, handler
from components.model_panel import PLURALS
from components.picture_reading import about
from components.session import Session
from components.theme import status_html
from razor import sources, words
from razor.adapters.base import Adapter
from razor.adapters.diffusion import DiffusionAdapter
from razor.errors import InputError
from razor.examples import Task
from razor.minicanvas.dataset import Target
from razor.pictures import cut_captions, streamed


class Naming(Desk):
    """Handlers of the panel that takes a name instead of pictures."""

    def _drawing(self, session: Session) -> DiffusionAdapter:
        adapter = self.model_of(session)
        if adapter.family != "diffusion":
            raise InputError(f"{session.model} draws no pictures; load a diffusion model such as mini-sd.")
        return adapter

    def kind_chosen(self, kind: str, anchor: str) -> str:
        """What to draw instead of another kind of thing; what a person typed stays."""
        return words.GENERAL.get(kind, "") if anchor.strip() in words.GENERAL.values() else anchor

    @handler(lambda page: page.examples.status)
    def suggest(self, session: Session, concept: str, kind: str) -> Iterator[dict]:
        """Neighbours and others for a name, to be edited."""
        panel = self.page.words
        if plan := (yield from self._likened(session, concept, kind)):
            yield {panel.keep: ", ".join((*plan.neighbours, *plan.others)), panel.anchor: plan.anchor}

    @handler(lambda page: page.examples.status)
    def suggest_beside(self, session: Session, concept: str, kind: str) -> Iterator[dict]:
        """The same as labels of one's own pictures, the concept among them."""
        if plan := (yield from self._likened(session, concept, kind)):
            yield {self.page.examples.labels: ", ".join((plan.concept, *plan.neighbours, *plan.others))}

    def _likened(self, session: Session, concept: str, kind: str) -> Iterator[dict]:
        """What a name's plan would be, saying so; None where it is one of the bundled world's."""
        adapter, status = self._drawing(session), self.page.examples.status
        if target := _bundled(adapter, concept):
            yield {status: status_html(f"{_of_world(target)}: everything else of it is kept.")}
            return None
        yield {status: status_html(f"Asking what is like {concept.strip()}", "busy")}
        plan = words.suggest(adapter, concept, kind)
        yield {status: status_html("Edit what to keep, then let the model draw.")}
        return plan

    @handler(lambda page: page.examples.status)
    def use_words(self, session: Session, concept: str, kind: str, anchor: str, keep: str) -> Iterator[dict]:
        """Draw the pictures and make them the task."""
        adapter, panel = self._drawing(session), self.page.examples
        session.begin()
        yield {panel.status: status_html(f"Getting {adapter.name} ready", "busy")}
        target = _bundled(adapter, concept)
        if target:
            draw, splits = partial(words.bundled_task, adapter, target), words.LEARNED
        else:
            draw, splits = self._named(adapter, concept, kind, anchor, keep), tuple(words.SIZES)
        count = sum(sum(words.SIZES[split]) for split in splits)
        task = yield from self.drawn_task(session, adapter, count, draw)
        session.start_over()
        session.task = task
        ready = f"Ready to forget {task.concept}: {count} pictures drawn by {adapter.name} itself."
        unused = unused_text(target, kind, anchor, keep) if target else ""
        said = " ".join([ready + unused, *cut_captions(adapter, task)])
        yield {
            panel.gallery: examples_panel.drawn_gallery(task, adapter.name),
            panel.story: gr.update(value=f"Forget {task.concept} and compare"),
            panel.status: status_html(said),
            **self.blank(session),
        }

    def _named(self, adapter: DiffusionAdapter, concept: str, kind: str, anchor: str, keep: str) -> Callable[..., Task]:
        """What makes the task of a name; takes `on_picture` and `stop`."""
        plan = words.keeping(words.suggest(adapter, concept, kind, anchor), keep.split(","))
        return partial(words.task_of, adapter, plan)

    def drawn_task(
        self, session: Session, adapter: DiffusionAdapter, count: int, draw: Callable[..., Task]
    ) -> Iterator[dict]:
        """Let the model draw what a task needs, saying beforehand how long that takes and then how far it is.

        Args:
            count: pictures there will be.
            draw: makes the task; takes `on_picture` and `stop`.

        Returns:
            The task.

        Raises:
            Stopped: Stop was pressed before all were drawn.
            InputError: another target or model was chosen meanwhile.
        """
        epoch, status, made = session.epoch, self.page.examples.status, []
        self.pace(session, adapter)
        takes = f"{count} pictures, {about(count * self.picture_seconds(session, adapter.quick_steps))}"
        yield {status: status_html(f"{adapter.name} draws what it knows: {takes}", "busy")}

        def work(report: Callable, closed: Callable) -> None:
            stop = lambda: closed() or session.stop.is_set()  # noqa: E731
            made.append(draw(on_picture=lambda done, total: report((done, total)), stop=stop))

        with closing(streamed(work)) as events:
            for *_, (done, total) in events:
                said = f"{adapter.name} draws what it knows: {done} of {total} pictures"
                yield {status: status_html(said, "busy")}
        if session.epoch != epoch:
            raise InputError("Another target or model was chosen meanwhile; press the button again.")
        return made[0]


def unused_text(target: Target, kind: str, anchor: str, keep: str) -> str:
    """What was typed and is not used where a name is one of the bundled world, as a sentence to add; "" for nothing."""
    typed = ["your list"] if keep.strip() else []
    typed += ["what to draw instead"] if anchor.strip() != words.GENERAL.get(kind, "") else []
    if not typed:
        return ""
    were = "were" if len(typed) > 1 else "was"
    return f" {_of_world(target)}, so everything else of it is kept; {' and '.join(typed)} {were} not used."


def _bundled(adapter: Adapter, concept: str) -> Target | None:
    """The class of the bundled world a name stands for, where the model draws that world."""
    return None if sources.draws_its_own(adapter) else words.known_target(concept)


def _of_world(target: Target) -> str:
    return f"{target.name} is one of the {PLURALS[target.axis]} of the bundled world"
