"""Several concepts: what the stack's buttons do."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import gradio as gr

from components import examples_panel, stack_panel
from components.desk import Desk, handler, on_event
from components.session import Session
from components.theme import status_html
from razor.adapters.base import Bench
from razor.config import RazorConfig
from razor.errors import InputError
from razor.examples import Task
from razor.minicanvas.dataset import parse_target
from razor.minicanvas.tasks import axes
from razor.recipe import edit_entry, task_entry
from razor.sharing import bench_for
from razor.stack import Concept, Conflict, conflicts
from razor.wording import tested


class Stacking(Desk):
    """Handlers of the stack of concepts."""

    @handler(lambda page: page.stack.status)
    def push(self, session: Session) -> Iterator[dict]:
        """Put the edit as it stands on the stack, in its old place when the concept was there before."""
        growth = session.need_growth()
        if not growth.patch.deltas:
            raise InputError("Nothing is edited yet; grow the edit first, then put it on the stack.")
        grown = growth.patch.with_recipe({"task": task_entry(growth.task), **edit_entry(growth)})
        session.stack = session.stack.push(Concept(growth.task, grown, growth.edit_set.active, session.grown_on))
        session.found.pop("conflicts", None)
        said = f"{growth.task.concept} is on the stack. Choose another target on screen 1 to forget that one as well."
        yield {**self.stack_shown(session), self.page.stack.status: status_html(said)}

    @handler(lambda page: page.stack.status)
    def check(self, session: Session) -> Iterator[dict]:
        """Measure on the test split what the concepts do to one another."""
        session.begin()
        if not session.stack.active:
            raise InputError("Nothing on the stack is switched on; put an edit on it or switch one on.")
        adapter, stack = self.model_of(session), session.stack
        status, d = self.page.stack.status, RazorConfig()
        what = f"Asking about {', '.join(stack.active)}, each alone and together"

        def work(tell: Callable[[int, int], None]) -> list[Conflict]:
            with ExitStack() as watched:

                def bench_of(task: Task) -> Bench:
                    bench = bench_for(adapter, task, batch=d.batch, mismatch_weight=d.mismatch_weight, seed=d.seed)
                    if adapter.family == "diffusion":  # each concept is drawn several times over
                        watched.enter_context(bench.watch(tell, session.stop.is_set))
                    return bench

                return conflicts(adapter, stack, bench_of, session.stop.is_set)

        found = yield from self.told(status, what, work)
        if session.stack is not stack:
            yield {status: status_html("The stack was changed meanwhile; check again.", "problem")}
            return
        session.found["conflicts"] = {c.name: c for c in found}
        counted = tested(adapter, next(c.task for c in stack.concepts if c.on))
        said = stack_panel.conflict_text(found, counted)
        yield {**self.stack_shown(session), status: status_html(said)}

    @on_event(lambda page: page.stack.status)
    def change_stack(self, session: Session, event: gr.EventData) -> dict:
        """A concept switched, moved, removed, or chosen to be grown again."""
        action, name = stack_panel.stack_change(event, session.stack.names)
        if action == "again":
            return self._again(session, name)
        stack = session.stack
        session.stack = {
            "on": lambda: stack.switch(name, True),
            "off": lambda: stack.switch(name, False),
            "up": lambda: stack.move(name, 1),
            "down": lambda: stack.move(name, -1),
            "drop": lambda: stack.drop(name),
        }[action]()
        session.found.pop("conflicts", None)
        on = ", ".join(session.stack.active) or "nothing"
        said = {self.page.stack.status: status_html(f"Forgotten now: {on}.")}
        return {**self.stack_shown(session), **said, **self.staleness(session)}

    def _again(self, session: Session, name: str) -> dict:
        """Make this concept the target, so that growing it builds on what lies beneath it now."""
        task = session.stack.find(name).task
        session.start_over()
        target = f"{task.axis}:{task.concept}"
        bundled = task.concept in next((a.classes for a in axes() if a.name == task.axis), ())
        if bundled:
            session.target = target
        else:
            session.task = task
        beneath = session.stack.below(name).active
        ground = f"on top of {', '.join(beneath)}" if beneath else "on the unedited model"
        examples = self.page.examples
        gallery = examples_panel.bundled_gallery(parse_target(target)) if bundled else gr.skip()
        return {
            examples.gallery: gallery,
            examples.story: gr.update(value=f"Forget {task.concept} and compare"),
            **self.blank(session),
            **self.stack_shown(session),
            self.page.stack.status: status_html(
                f"Press Grow to target to grow {name} {ground}, then put it on the stack."
            ),
        }

    def stack_shown(self, session: Session) -> dict:
        """The stack as it is."""
        found = session.found.get("conflicts", {})
        seen = {c.name: tested(self.model_of(session), c.task).seen for c in session.stack.concepts if c.name in found}
        return {self.page.stack.list: stack_panel.stack_value(session.stack, found, seen)}
