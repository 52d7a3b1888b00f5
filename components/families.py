"""The page as each family of models needs it: which panels are shown, and what is offered in them."""

from collections.abc import Iterator

import gradio as gr

from components import edit_panel, picture_panel
from components.desk import Desk, handler
from components.session import Session
from razor.adapters.base import Adapter
from razor.sources import asks_kind, draws_its_own


class Families(Desk):
    """Handlers that fit the page to the model."""

    def comparing(self, adapter: Adapter) -> dict:
        """The page as this family of models needs it, the compare screen above all."""
        draws, writes, page = adapter.family == "diffusion", adapter.family == "vlm", self.page
        shown = {
            page.words.box: gr.update(visible=draws),
            **dict.fromkeys(page.examples.fitted(), gr.update(visible=draws)),
            page.examples.own_kind: gr.update(visible=draws or asks_kind(adapter)),
            page.model.judge_box: gr.update(visible=draws_its_own(adapter)),
            page.edit.towers: edit_panel.towers_for(adapter),
            page.edit.forget_loss: edit_panel.losses_for(adapter),
            page.drift.box: gr.update(visible=adapter.embeds),
            page.why.pixel_method: gr.update(visible=not draws),
            page.compare.answers: gr.update(visible=not draws and not writes),
            page.compare.refresh: gr.update(visible=not draws and not writes),
            page.pictures.box: gr.update(visible=draws),
            page.asks.box: gr.update(visible=writes),
            **page.check.offered(adapter.family),
            **page.export.offered(adapter.family),
        }
        return {**shown, **(picture_panel.defaults(page.pictures, adapter) if draws else {})}

    @handler(lambda page: page.compare.status)
    def show_family(self, session: Session) -> Iterator[dict]:
        """A page was opened: it follows the family of its model."""
        yield self.comparing(self.model_of(session))
