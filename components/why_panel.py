"""Why this head? Attribution to every head beside phi, one head's card, and where in a picture the concept is seen."""

import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import gradio as gr
from PIL import Image

from components.head_map import Measure, head_map, map_value
from components.theme import finding_html, pictures_html
from razor.answer_attribution import AnswerAttribution
from razor.attention import AttentionMap
from razor.attribution import GateAttribution, HeadCard, PixelAttribution, overlay
from razor.cross_attention import WordMaps
from razor.examples import Task, evenly
from razor.grids import grids
from razor.growth import Growth
from razor.picture_files import image_url
from razor.trust import spearman
from razor.wording import capital, wording

METHODS = {"integrated gradients": "integrated_gradients", "switching off one by one": "ablation"}
PIXEL_METHODS = {"integrated gradients": "integrated_gradients", "hiding squares": "occlusion"}
SIDE = 176  # pixels of a picture in this panel
_TITLES = {"integrated_gradients": "Integrated gradients", "ablation": "Ablation"}
_WORDS = {
    "integrated_gradients": "share each head carries of {what}",
    "ablation": "lost of {what} when the head is switched off alone",
}


@dataclass(frozen=True)
class WhyPanel:
    """The widgets this panel owns."""

    method: gr.Radio
    attribute: gr.Button
    attribute_auto: gr.Checkbox
    attribute_status: gr.HTML
    map: gr.HTML
    explain: gr.Button
    explain_auto: gr.Checkbox
    explain_status: gr.HTML
    card: gr.HTML
    example: gr.Dropdown
    pixel_method: gr.Radio
    look: gr.Button
    look_auto: gr.Checkbox
    look_status: gr.HTML
    pixels: gr.HTML

    def blank(self) -> dict:
        """Every view empty."""
        return {
            self.map: gr.update(value=map_value([]), visible=False),
            self.card: "",
            self.pixels: "",
            self.attribute_status: "",
            self.explain_status: "",
            self.look_status: "",
            self.example: gr.update(choices=[], value=None),
        }


def build() -> WhyPanel:
    with gr.Accordion("Why this head?", open=False, elem_id="why"):
        with gr.Row(elem_classes="actions"):
            explain = gr.Button("Explain the chosen unit", elem_id="explain", min_width=200)
            explain_auto = gr.Checkbox(False, label="Whenever another is chosen", elem_id="explain-auto", min_width=220)
        explain_status = gr.HTML(apply_default_css=False, elem_id="explain-status")
        card = gr.HTML(apply_default_css=False, elem_id="head-card")
        with gr.Row(elem_classes="actions"):
            example = gr.Dropdown([], label="Picture", elem_id="pixel-example", min_width=260)
            pixel_method = gr.Radio(
                [*PIXEL_METHODS], value="integrated gradients", label="Method", elem_id="pixel-method", min_width=260
            )
            look = gr.Button("Show where it is seen", elem_id="look", min_width=200)
            look_auto = gr.Checkbox(False, label="After every change", elem_id="look-auto", min_width=180)
        look_status = gr.HTML(apply_default_css=False, elem_id="look-status")
        pixels = gr.HTML(apply_default_css=False, elem_id="pixels")
        with gr.Row(elem_classes="actions"):
            method = gr.Radio(
                [*METHODS], value="integrated gradients", label="Method", elem_id="gate-method", min_width=260
            )
            attribute = gr.Button("Attribute to every head", elem_id="attribute", min_width=200)
            attribute_auto = gr.Checkbox(False, label="After every round", elem_id="attribute-auto", min_width=180)
        attribute_status = gr.HTML(apply_default_css=False, elem_id="attribute-status")
        the_map = head_map("attribution-map", label="Attribution map", visible=False)
    return WhyPanel(
        method, attribute, attribute_auto, attribute_status, the_map, explain, explain_auto, explain_status, card,
        example, pixel_method, look, look_auto, look_status, pixels,
    )  # fmt: skip


# Every head ----------------------------------------------------------------------------------------------------------


def attribution_map(growth: Growth, found: GateAttribution) -> dict:
    """The attribution as a second map beside phi, with how well the two agree."""
    scores = {s.unit.name: s for s in growth.shown_scores()}
    heads = [growth.every[name] for name in found.values]
    phi = {name: scores[name].phi for name in found.values if name in scores}
    cells, what = {"attribution": found.values, "phi": phi}, wording(growth).attributed
    measures = (
        Measure(
            "attribution",
            _TITLES[found.method],
            _WORDS[found.method].format(what=what),
            ramp="diverging",
            ends=("against", "for"),
        ),
        Measure("phi", "Phi", "phi: pressure \u00d7 separation", log=True),
    )
    return map_value(
        grids(heads, cells), measures=measures, measure="attribution", finding=attribution_finding(phi, found, what),
        readonly=True,
    )  # fmt: skip


def attribution_finding(phi: Mapping[str, float], found: GateAttribution, what: str) -> str:
    """Which head carries most of `what` is attributed, and the rank correlation with phi."""
    top = max(found.values, key=lambda name: abs(found.values[name]))
    shared = [name for name in found.values if name in phi]
    agree = spearman([phi[n] for n in shared], [abs(found.values[n]) for n in shared])
    error = f" The shares add up to the whole within {abs(found.error):.3f}." if found.error is not None else ""
    return (
        f"{top} carries most of {what}, {found.full:.2f} in all ({found.values[top]:+.3f}). Rank "
        f"correlation of its size with phi: {agree:+.2f} over {len(shared)} heads.{error}"
    )


# One head ------------------------------------------------------------------------------------------------------------


def card_html(growth: Growth, found: HeadCard, looks: Sequence[tuple[str, AttentionMap]], task: Task) -> str:
    """What one unit does: switched off alone, what it writes, what moves it most, and what it attends to."""
    name, says = found.unit.name, wording(growth)
    before, after = found.before, found.after
    lost = 100 * (after.retain_accuracy.value - before.retain_accuracy.value)
    alone = (
        f"In the unedited model, switching off {name} alone takes {task.concept} from "
        f"{before.forget_accuracy.value:.0%} to "
        f"{after.forget_accuracy.value:.0%} and {says.answers} by {lost:+.1f} points (n = {after.forget_accuracy.n} "
        f"and {after.retain_accuracy.n} {says.search})."
    )
    parts = [finding_html(alone)]
    if found.nearest:
        about = "what it adds to the pictures of" if found.pictures else "what it adds to the words for"
        near, far = (", ".join(w.name for w in words) for words in (found.nearest, found.farthest))
        words = f"In terms of words, {about} {task.concept} points towards {near}, and away from {far}."
        parts.append(f"<p>{escape(words)}</p>")
    if found.pictures:
        shown = [(getattr(task, m.side).search[m.index], m.norm) for m in found.pictures]
        parts.append("<h4>Pictures that depend on it most</h4>")
        parts.append(pictures_html([(image_url(e.image, SIDE), f"{e.caption} ({norm:.2f})") for e, norm in shown]))
    if found.prompts:
        listed = "".join(f"<li>{escape(m.prompt)} <small>{m.norm:.2f}</small></li>" for m in found.prompts)
        parts.append(f"<h4>Prompts that depend on it most</h4><ul class='prompts'>{listed}</ul>")
    parts += [attention_html(label, look) for label, look in looks]
    return f'<section class="head-card">{"".join(parts)}</section>'


def attention_html(label: str, look: AttentionMap) -> str:
    """A head's attention over a prompt's tokens, as bars."""
    top = max(float(look.weights.max()), 1e-9)
    bars = "".join(
        f'<li><span>{escape(token)}</span><i style="width:{100 * float(w) / top:.0f}%"></i>'
        f"<small>{100 * float(w):.0f} %</small></li>"
        for token, w in zip(look.tokens, look.weights.tolist(), strict=True)
    )
    return f"<h4>Its attention in {escape(label)!s}, from {escape(look.reader)}</h4><ol class='attention'>{bars}</ol>"


def attention_picture(image: Image.Image, look: AttentionMap) -> Image.Image:
    """A head's attention over a picture, drawn on it."""
    return overlay(image, look.weights, float(look.weights.max()))


# Every pixel ---------------------------------------------------------------------------------------------------------


def pixels_html(image: Image.Image, found: PixelAttribution, concept: str) -> str:
    """The picture, and what speaks for the concept in it before and after the edit, on one scale."""
    shown = [
        (png_url(image), "the picture"),
        (png_url(overlay(image, found.before, found.scale)), f"before: similarity {found.similarity_before:+.2f}"),
        (png_url(overlay(image, found.after, found.scale)), f"after: similarity {found.similarity_after:+.2f}"),
    ]
    said = (
        f"The picture's similarity with {concept} goes from {found.similarity_before:+.2f} to "
        f"{found.similarity_after:+.2f}. Orange speaks for it, purple against; both pictures use one scale."
    )
    return finding_html(said) + pictures_html(shown)


def answer_html(found: AnswerAttribution, concept: str) -> str:
    """The picture, and what in it speaks for the concept's name as the answer, before and after, token by token."""
    rows = []
    sides = (
        ("before", found.before, found.maps_before, found.logprobs_before, found.likely_before),
        ("after", found.after, found.maps_after, found.logprobs_after, found.likely_after),
    )
    for label, whole, maps, likely, total in sides:
        drawn = [(whole, f"the whole name: log p {total:.2f}")]
        if len(found.tokens) > 1:
            drawn += [
                (m, f"\u201c{token.strip()}\u201d: log p {value:.2f}")
                for token, m, value in zip(found.tokens, maps, likely, strict=True)
            ]
        shown = [(png_url(found.picture), "the picture")] if label == "before" else []
        shown += [(png_url(overlay(found.picture, m, found.scale)), caption) for m, caption in drawn]
        rows.append(f"<h4>{capital(label)} the edit</h4>{pictures_html(shown)}")
    said = (
        f"Asked \u201c{found.question}\u201d, the log-probability of answering with {concept} goes from "
        f"{found.likely_before:.2f} to {found.likely_after:.2f}. Orange speaks for a word of the name, purple against; "
        "all pictures use one scale."
    )
    return finding_html(said) + "".join(rows)


def words_html(before: WordMaps, after: WordMaps, where: str) -> str:
    """Where each word of a prompt goes in its picture, before the edit and after it, on one scale."""
    scale = max(float(before.maps.max()), float(after.maps.max()), 1e-9)
    rows = []
    for label, found in (("before", before), ("after", after)):
        words = [(i, clean_token(token)) for i, token in enumerate(found.tokens)]
        shown = [(png_url(found.picture), "the picture")]
        shown += [(png_url(overlay(found.picture, found.maps[i], scale)), word) for i, word in words if word]
        rows.append(f"<h4>{capital(label)} the edit</h4>{pictures_html(shown)}")
    said = f"Where {where} takes each word, averaged over {before.steps} steps; both rows use one scale."
    return finding_html(said) + "".join(rows)


def clean_token(token: str) -> str:
    """A token as a person reads it; "" for those that only mark the start or the end."""
    word = token.replace("\u0120", "").replace("</w>", "").replace("\u2581", "").strip()
    return "" if word.startswith("<") and word.endswith(">") else word


def png_url(image: Image.Image) -> str:
    """A picture as a data address, enlarged without blurring its pixels."""
    scale = max(1, SIDE // max(image.size))
    file = io.BytesIO()
    image.convert("RGB").resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(file, "png")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode('ascii')}"


def example_choices(task: Task) -> list[tuple[str, str]]:
    """Search pictures to look into: some to forget, some to keep."""
    return [
        (f"{side} {i + 1}: {getattr(task, side).search[i].caption}", f"{side}/{i}")
        for side, most in (("forget", 12), ("retain", 12))
        for i in evenly(len(getattr(task, side).search), most)
    ]


def example_of(task: Task, choice: str):
    """The example behind a choice, or None."""
    side, _, number = str(choice).partition("/")
    examples = getattr(task, side).search if side in ("forget", "retain") else ()
    return examples[int(number)] if number.isdecimal() and int(number) < len(examples) else None
