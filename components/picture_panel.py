"""The panel of screen 3 for models that draw: prompts on both sides of an edit, grids, and pictures read back."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from components.pairs import pairs, pairs_value
from components.picture_reading import AXIS_NAMES, no_sheet
from components.theme import script
from razor.adapters.diffusion import DiffusionAdapter
from razor.errors import InputError
from razor.picture_grid import AXES
from razor.pictures import GROUP_NAMES, GROUPS, PAIRS, DrawSettings

COUNTS = (8, 16, 32)
MAX_SEED = 2**53 - 1  # the largest whole number a browser keeps
_NOTHING = ("Nothing changes", "")


@dataclass(frozen=True)
class PicturePanel:
    """The widgets this panel owns."""

    box: gr.Column
    prompts: gr.Textbox
    groups: gr.CheckboxGroup
    count: gr.Radio
    seed: gr.Number
    steps: gr.Number
    guidance: gr.Number
    side: gr.Number
    draw: gr.Button
    stop: gr.Button
    status: gr.HTML
    stale: gr.HTML
    notes: gr.HTML
    pairs: gr.HTML
    grid_axes: tuple[gr.Dropdown, ...]  # x, y, z
    grid_values: tuple[gr.Textbox, ...]
    grid_prompt: gr.Textbox
    grid_box: gr.Accordion
    cost: gr.HTML
    draw_grid: gr.Button
    stop_grid: gr.Button
    sheet: gr.HTML
    file: gr.File
    restored: gr.HTML

    def asked(self) -> list[gr.components.Component]:
        """Which prompts, and how they are drawn: `settings_from` reads the last four."""
        return [self.prompts, self.groups, self.count, self.seed, self.steps, self.guidance, self.side]

    def grid(self) -> list[gr.components.Component]:
        """What `Drawing` makes a plan of."""
        axes = [widget for pair in zip(self.grid_axes, self.grid_values, strict=True) for widget in pair]
        return [self.grid_prompt, *axes, self.prompts, self.seed, self.steps, self.guidance, self.side]

    def drawn(self) -> list[gr.components.Component]:
        """Everything handlers write to."""
        return [self.box, *self.asked(), self.status, self.stale, self.notes, self.pairs, self.cost, self.sheet,
                self.restored]  # fmt: skip

    def blank(self) -> dict:
        """The panel with nothing drawn; what a person typed stays."""
        said = dict.fromkeys((self.status, self.stale, self.notes, self.restored, self.cost), "")
        return {**said, self.pairs: pairs_value([]), self.sheet: no_sheet()}


def head() -> str:
    """The script for the page's head that takes a picture dropped anywhere on this screen."""
    return f"<script>\n(() => {{\n{script('drop.js')}}})();\n</script>"


def build() -> PicturePanel:
    with gr.Column(visible=False, elem_id="pictures") as box:
        with gr.Row(elem_id="pictures-ask"):
            with gr.Column(scale=5, min_width=400):
                prompts = gr.Textbox(
                    label="Your own prompts, one a line", lines=3, max_lines=8, elem_id="own-prompts",
                    placeholder="a neon cat\na boat in the style of a neon sign",
                )  # fmt: skip
                with gr.Row():
                    groups = gr.CheckboxGroup(
                        [(GROUP_NAMES[name], name) for name in GROUPS], value=[*GROUPS], label="Suggested prompts",
                        elem_id="prompt-groups", min_width=320, scale=2,
                    )  # fmt: skip
                    count = gr.Radio(
                        [*COUNTS], value=PAIRS, label="Pairs of these", elem_id="pair-count", min_width=264
                    )
            with gr.Column(scale=2, min_width=280):
                settings = _settings()
        with gr.Row(elem_classes="actions"):
            draw = gr.Button("Draw both sides", variant="primary", elem_id="draw-pairs", min_width=180)
            stop = gr.Button("Stop", variant="stop", elem_id="stop-pairs", min_width=90)
        status = gr.HTML(apply_default_css=False, elem_id="pictures-status")
        stale = gr.HTML(apply_default_css=False, elem_id="pictures-stale")
        notes = gr.HTML(apply_default_css=False, elem_id="pictures-notes")
        shown = pairs("picture-pairs")
        grid = _grid()
        with gr.Accordion("Restore from a picture: drop it anywhere on this screen", open=False, elem_id="restore"):
            file = gr.File(file_types=[".png"], label="A PNG that was drawn here", elem_id="restore-file", height=140)
            restored = gr.HTML(apply_default_css=False, elem_id="restored")
    return PicturePanel(
        box=box, prompts=prompts, groups=groups, count=count, draw=draw, stop=stop, status=status, stale=stale,
        notes=notes, pairs=shown, file=file, restored=restored, **settings, **grid,
    )  # fmt: skip


def _settings() -> dict:
    """How pictures are drawn, by field of the panel; what is wrong with a number is for `settings_from` to say."""
    with gr.Row():
        seed = gr.Number(0, label="Seed", elem_id="draw-seed", min_width=100)
        steps = gr.Number(20, label="Steps", elem_id="draw-steps", min_width=100)
    with gr.Row():
        guidance = gr.Number(4, label="Guidance", info="1 is none", step=0.5, elem_id="draw-guidance", min_width=100)
        side = gr.Number(64, label="Size", info="pixels a side", elem_id="draw-side", min_width=100)
    return {"seed": seed, "steps": steps, "guidance": guidance, "side": side}


def _grid() -> dict:
    """The X / Y / Z grid, by field of the panel."""
    chosen = {"X": "seed", "Y": "strength", "Z": ""}
    values = {"X": "1..4", "Y": "0, 0.5, 1", "Z": ""}
    with gr.Accordion("X / Y / Z grid", open=False, elem_id="grid") as box:
        menus, texts = [], []
        with gr.Row():
            for letter, where in (("X", "columns"), ("Y", "rows"), ("Z", "tables")):
                names = [(AXIS_NAMES[name], name) for name in AXES]
                with gr.Column(min_width=220):
                    menus.append(
                        gr.Dropdown(
                            names if letter == "X" else [_NOTHING, *names], value=chosen[letter],
                            label=f"{letter}: {where}", elem_id=f"grid-{letter.lower()}",
                        )
                    )  # fmt: skip
                    texts.append(
                        gr.Textbox(
                            values[letter], label=f"Values of {letter}", info="0, 0.5, 1 or 1..4 or 0..2 by 0.5",
                            elem_id=f"grid-{letter.lower()}-values",
                        )
                    )  # fmt: skip
        prompt = gr.Textbox(
            label="Prompt of the grid", placeholder="Empty: the first prompt above, or the first suggested one",
            elem_id="grid-prompt",
        )  # fmt: skip
        with gr.Row(elem_classes="actions"):
            draw = gr.Button("Draw grid", variant="primary", elem_id="draw-grid", min_width=140)
            stop = gr.Button("Stop", variant="stop", elem_id="stop-grid", min_width=90)
        cost = gr.HTML(apply_default_css=False, elem_id="grid-cost")
        sheet = pairs("picture-sheet", no_sheet())
    return {
        "grid_axes": tuple(menus), "grid_values": tuple(texts), "grid_prompt": prompt, "grid_box": box,
        "cost": cost, "draw_grid": draw, "stop_grid": stop, "sheet": sheet,
    }  # fmt: skip


def defaults(panel: PicturePanel, adapter: DiffusionAdapter) -> dict:
    """Settings as the model is usually drawn with."""
    info = f"pixels a side; trained at {adapter.native_side}"
    side = gr.update(value=adapter.side, step=max(8, adapter.scale), info=info)
    return {panel.steps: adapter.steps, panel.guidance: adapter.guidance, panel.side: side}


def settings_from(seed: Any, steps: Any, guidance: Any, side: Any) -> DrawSettings:
    """The settings on the page; raises InputError where one is missing or no number."""
    values = {"seed": seed, "number of steps": steps, "guidance": guidance, "size": side}
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise InputError(f"The {name} is missing; give a number.")
    for name in ("seed", "number of steps", "size"):
        if not 0 <= values[name] <= MAX_SEED or values[name] != int(values[name]):
            raise InputError(f"The {name} cannot be {values[name]:g}; give a whole number from 0.")
    return DrawSettings(int(seed), int(steps), float(guidance), int(side))
