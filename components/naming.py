"""Forget from words alone: suggest what to keep, let the model draw, and use its pictures as the task."""

from collections.abc import Iterator
from dataclasses import replace

import gradio as gr

from components import examples_panel
from components.desk import Desk, handler
from components.session import Session
from components.theme import status_html
from razor import sources, words
from razor.adapters.diffusion import DiffusionAdapter
from razor.errors import InputError


class Naming(Desk):
    """Handlers of the panel that takes a name instead of pictures."""

    def _drawing(self, session: Session) -> DiffusionAdapter:
        adapter = self.load(session.model)
        if adapter.family != "diffusion":
            raise InputError(f"{session.model} draws no pictures; load a diffusion model such as mini-sd.")
        return adapter

    @handler(lambda page: page.examples.status)
    def suggest(self, session: Session, concept: str, kind: str) -> Iterator[dict]:
        """Neighbours and others for a name, to be edited."""
        adapter, panel = self._drawing(session), self.page.words
        if adapter.name in sources.BUNDLED and (target := words.known_target(concept)):
            said = f"{target.name} is one of the bundled world's {target.axis}s: everything else of that world is kept."
            yield {self.page.examples.status: status_html(said)}
            return
        yield {self.page.examples.status: status_html(f"Asking what is like {concept.strip()}", "busy")}
        plan = words.suggest(adapter, concept, kind)
        yield {
            panel.keep: ", ".join((*plan.neighbours, *plan.others)),
            panel.anchor: plan.anchor,
            self.page.examples.status: status_html("Edit what to keep, then let the model draw."),
        }

    @handler(lambda page: page.examples.status)
    def use_words(self, session: Session, concept: str, kind: str, anchor: str, keep: str) -> Iterator[dict]:
        """Draw the pictures and make them the task."""
        adapter, panel = self._drawing(session), self.page.examples
        session.stop.clear()
        status = lambda said, tone="busy": {panel.status: status_html(said, tone)}  # noqa: E731
        count = sum(map(sum, words.SIZES.values()))
        yield status(f"{adapter.name} draws {count} pictures of what it knows; this takes a minute or less on a laptop")
        options = {"stop": session.stop.is_set}
        target = words.known_target(concept) if adapter.name in sources.BUNDLED else None
        if target is not None:
            task = words.bundled_task(adapter, target, **options)
        else:
            plan = words.suggest(adapter, concept, kind, anchor)
            if kept := tuple(name.strip() for name in keep.split(",") if name.strip()):
                near = words.NEIGHBOURS
                plan = replace(plan, neighbours=kept[:near], others=kept[near:])
            task = words.task_of(adapter, plan, **options)
        session.start_over()
        session.task = task
        yield {
            panel.gallery: examples_panel.drawn_gallery(task, adapter.name),
            panel.story: gr.update(value=f"Forget {task.concept} and compare"),
            **status(f"Ready to forget {task.concept}: {count} pictures drawn by {adapter.name} itself.", "ready"),
            **self.blank(session),
        }
