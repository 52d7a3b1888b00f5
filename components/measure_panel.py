"""The measure panel, for models that draw: counting on drawn test pictures, which takes long enough to be asked for."""

from dataclasses import dataclass

import gradio as gr

from components.picture_reading import about, duration
from components.theme import status_html
from razor.adapters import denoising
from razor.growth import Growth
from razor.wording import judge_of, read_by

MEASURE, AT_POINTS = "Measure on drawn pictures", "Measure at test points"


@dataclass(frozen=True)
class MeasurePanel:
    """The widgets this panel owns."""

    box: gr.Column
    run: gr.Button
    stop: gr.Button
    status: gr.HTML

    def drawn(self) -> list[gr.components.Component]:
        """Everything handlers write to."""
        return [self.box, self.run, self.status]

    def blank(self) -> dict:
        """The panel while there is nothing to measure."""
        return {self.box: gr.update(visible=False), self.status: ""}


def build() -> MeasurePanel:
    with gr.Column(visible=False, elem_id="measure") as box, gr.Row(elem_classes="actions"):
        run = gr.Button(MEASURE, elem_id="measure-run", min_width=220)
        stop = gr.Button("Stop", variant="stop", elem_id="measure-stop", min_width=90)
        status = gr.HTML(apply_default_css=False, elem_id="measure-status")
    return MeasurePanel(box, run, stop, status)


def shown(panel: MeasurePanel, growth: Growth, seconds: float | None, measured: bool) -> dict:
    """The button as this task needs it, with what pressing it takes; nothing is asked of a model.

    Args:
        seconds: of one picture, where known.
        measured: the tiles show it already.
    """
    label = MEASURE if judge_of(growth) else AT_POINTS
    said = "" if measured else status_html(cost_text(growth, seconds))
    return {panel.box: gr.update(visible=True), panel.run: gr.update(value=label), panel.status: said}


def to_draw(growth: Growth) -> int:
    """Pictures that measuring the edit as it stands draws; those of the unedited model are drawn once."""
    if judge_of(growth) is None:
        return 0
    a_side = sum(min(len(getattr(growth.task, side).test), most) for side, most in denoising.DRAWN.items())
    return a_side * (("original" not in growth.bench.pictures) + bool(growth.patch.deltas))


def cost_text(growth: Growth, seconds: float | None) -> str:
    """What measuring takes, before it is begun."""
    if (judge := judge_of(growth)) is None:
        return "No judge can read its pictures here, so this counts predictions on test prompts, without drawing any."
    count = to_draw(growth)
    if not count:
        return "The unedited model has been measured; edit something to measure that."
    took = "" if seconds is None else f": {about(count * seconds)}"
    return f"The tiles count no pictures yet. This draws {count} of test prompts, {read_by(judge)}{took}."


def done_text(growth: Growth, count: int, seconds: float) -> str:
    """What was measured, and what it took."""
    if judge_of(growth) is None:
        return f"Measured at test points in {duration(seconds)}."
    return f"Measured: {count} pictures drawn and {read_by(judge_of(growth))} in {duration(seconds)}."
