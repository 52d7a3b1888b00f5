"""Screen 5: the edit as a file that other programs load, and a report on it that people read."""

from dataclasses import dataclass

import gradio as gr

from razor.export import WHY_REDACTED

FORMS = {  # form -> what it is, and the families it exists for
    "patch": ("Patch, for this library", ("clip", "diffusion", "vlm")),
    "peft": ("LoRA, for diffusers and PEFT", ("clip", "diffusion", "vlm")),
    "kohya": ("LoRA, for ComfyUI and A1111 (kohya keys)", ("diffusion",)),
    "full": ("The whole model, as a zipped folder", ("clip", "diffusion", "vlm")),
    "single": ("The whole model, as one file", ("diffusion",)),
}
LONGEST = 2000  # characters of a reason
NOTHING = "Nothing is edited yet; grow an edit on screen 2, then take it away."


@dataclass(frozen=True)
class ExportPanel:
    """The widgets this panel owns."""

    form: gr.Radio
    rank: gr.Number
    redacted: gr.Checkbox
    run: gr.Button
    stop: gr.Button
    status: gr.HTML
    file: gr.DownloadButton
    reason: gr.Textbox
    pictures: gr.Checkbox
    report: gr.Button
    stop_report: gr.Button
    report_status: gr.HTML
    report_file: gr.DownloadButton
    card_file: gr.DownloadButton
    brought: gr.File
    anyway: gr.Checkbox
    bring: gr.Button
    bring_status: gr.HTML
    link: gr.Textbox
    make_link: gr.Button

    def drawn(self) -> list[gr.components.Component]:
        """Everything handlers write to."""
        return [self.form, self.status, self.file, self.report_status, self.report_file, self.card_file,
                self.bring_status]  # fmt: skip

    def blank(self) -> dict:
        """Nothing written."""
        hidden = dict.fromkeys((self.file, self.report_file, self.card_file), gr.update(visible=False))
        return {self.status: "", self.report_status: "", self.bring_status: "", **hidden}

    def offered(self, family: str) -> dict:
        """The forms there are for a family of models."""
        return {self.form: gr.update(choices=choices(family), value="patch")}


def choices(family: str) -> list[tuple[str, str]]:
    """(words, form) for a radio."""
    return [(words, form) for form, (words, families) in FORMS.items() if family in families]


def build() -> ExportPanel:
    with gr.Row():
        with gr.Column(min_width=400):
            gr.HTML("<h3>The edit, for other programs</h3>", apply_default_css=False, elem_classes="check-title")
            form = gr.Radio(choices("clip"), value="patch", label="Take the edit away as", elem_id="export-form")
            rank = gr.Number(
                0, label="Rank of a LoRA at most", minimum=0, precision=0, elem_id="export-rank",
                info="0: as high as makes it exact. A lower one makes a smaller file and leaves a part out.",
            )  # fmt: skip
            redacted = gr.Checkbox(False, label="Say nothing of the edit in a whole model", info=WHY_REDACTED)
            with gr.Row(elem_classes="actions"):
                run = gr.Button("Write it", variant="primary", elem_id="export-run", min_width=140)
                stop = gr.Button("Stop", variant="stop", elem_id="export-stop", min_width=90)
            status = gr.HTML(apply_default_css=False, elem_id="export-status")
            file = gr.DownloadButton("Save the file", visible=False, elem_id="export-file")
        with gr.Column(min_width=400):
            gr.HTML("<h3>A report, for people</h3>", apply_default_css=False, elem_classes="check-title")
            reason = gr.Textbox(
                label="Why it had to be forgotten", lines=3, max_lines=6, max_length=LONGEST, elem_id="report-reason",
                info="In your words, for the reader; may stay empty.",
            )  # fmt: skip
            pictures = gr.Checkbox(
                True, label="Show cases before and after", elem_id="report-pictures",
                info="Pictures and answers. Without them it holds numbers, names of units and the recipe alone.",
            )  # fmt: skip
            with gr.Row(elem_classes="actions"):
                report = gr.Button("Write the report", variant="primary", elem_id="report-run", min_width=160)
                stop_report = gr.Button("Stop", variant="stop", elem_id="report-stop", min_width=90)
            report_status = gr.HTML(apply_default_css=False, elem_id="report-status")
            report_file = gr.DownloadButton("Save the report", visible=False, elem_id="report-file")
            card_file = gr.DownloadButton("Save a section for a model card", visible=False, elem_id="card-file")
    with gr.Accordion("Bring one back", open=False, elem_id="bring-back"), gr.Row():
        with gr.Column(min_width=400):
            brought = gr.File(
                label="A patch or LoRA, or a recipe: its json, a report, a picture drawn here",
                file_types=[".safetensors", ".json", ".html", ".png"], elem_id="bring-file",
            )  # fmt: skip
        with gr.Column(min_width=400):
            anyway = gr.Checkbox(
                False, label="Take a patch that was made for other weights", elem_id="bring-anyway",
                info="Of the same shapes, such as a later version of the model. What it does there is measured anew.",
            )  # fmt: skip
            with gr.Row(elem_classes="actions"):
                bring = gr.Button("Bring it in", elem_id="bring-run", min_width=140)
            link = gr.Textbox(
                label="Or a link", elem_id="recipe-link", max_lines=1, buttons=["copy"],
                info="Opens this page with the settings that repeat the run; for bundled models and targets.",
            )  # fmt: skip
            make_link = gr.Button("Make a link to this run", elem_id="make-link", min_width=180, size="sm")
            bring_status = gr.HTML(apply_default_css=False, elem_id="bring-status")
    return ExportPanel(
        form, rank, redacted, run, stop, status, file, reason, pictures, report, stop_report, report_status,
        report_file, card_file, brought, anyway, bring, bring_status, link,
        make_link,
    )  # fmt: skip
