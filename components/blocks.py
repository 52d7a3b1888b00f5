"""Gradio's Blocks, but for two of its ways that lose what a widget was told before its tab or accordion was opened."""

from typing import Any

import gradio as gr
from gradio.blocks import BlockFunction
from gradio.components.api_component import Api
from gradio.state_holder import SessionState


class Blocks(gr.Blocks):
    """Blocks whose widgets start from all they were told, also while a generator goes on about others.

    The browser keeps what a widget that is not on the page yet is told, and starts it from that. Two things a widget
    never told to change would lose it by: a mapping sent as it is becomes, in place, whatever the generator sends
    next, "no change" too; and "no change" itself stands in for all that a gr.HTML was given beside its value.
    """

    async def postprocess_data(
        self, block_fn: BlockFunction, predictions: list | dict, state: SessionState | None
    ) -> list[Any]:
        """What goes to the browser for every output: a mapping as an update of the value, and no empty props."""
        found = await super().postprocess_data(block_fn, predictions, state)
        return found if any(isinstance(block, Api) for block in block_fn.outputs) else [_update(sent) for sent in found]


def _update(sent: Any) -> Any:
    if not isinstance(sent, dict):
        return sent
    if "__type__" not in sent:
        return {"__type__": "update", "value": sent}
    props = {name: prop for name, prop in sent.get("props", {}).items() if name != "__type__"}
    return {name: told for name, told in sent.items() if name != "props"} | ({"props": props} if props else {})
