"""The model panel: which model, and what is known of it."""

from collections.abc import Mapping
from dataclasses import dataclass

import gradio as gr

from components.theme import model_card_html
from razor.models import BUNDLED, card
from razor.pipelines import card_of

TOWER_NAMES = {
    "text2": "second text encoder",
    "text3": "third text encoder",
    "cross": "cross-attention",
    "context": "text stream",
    "self": "picture attention",
}
PLURALS = {"object": "objects", "style": "styles", "identity": "people"}


@dataclass(frozen=True)
class ModelPanel:
    """The widgets this panel owns."""

    name: gr.Dropdown
    load: gr.Button
    card: gr.HTML


def build(model: str = "mini-clip") -> ModelPanel:
    with gr.Column(elem_classes="panel"):
        name = gr.Dropdown(
            choices=[*BUNDLED],
            value=model,
            allow_custom_value=True,
            label="Model",
            info="Bundled, a local open_clip or diffusers folder, architecture/pretrained, or hf-hub:owner/model",
            elem_id="model-name",
        )
        load = gr.Button("Load model", size="sm", elem_id="load-model")
        first = bundled_card(model, known) if (known := card(model)) else ""
        shown = gr.HTML(first, apply_default_css=False, elem_id="model-card")
    return ModelPanel(name, load, shown)


def bundled_card(name: str, known: Mapping) -> str:
    """What the card file says, shown before any weight is read."""
    draws = "judged_accuracy" in known
    family = "Stable Diffusion (UNet)" if draws else "CLIP"
    accuracy = known.get("judged_accuracy") or known.get("zero_shot_accuracy", {})
    counted = "drawn pictures, by an independent judge" if draws else "held-out pictures"
    facts = [
        ("Family", f"{family}, trained from scratch for this app"),
        ("Size", f"{known.get('parameters', 0) / 1e6:.1f} M"),
    ]
    facts += [
        (f"{'Draws' if draws else 'Knows'} {PLURALS.get(axis, axis)}", f"{a['value']:.1%} of {a['n']} {counted}")
        for axis, a in accuracy.items()
    ]
    facts += [("Licence", str(known.get("license", "unknown"))), ("Memory", "well under 1 GB; runs on a laptop")]
    what = "A small Stable Diffusion that draws" if draws else "A small CLIP that knows"
    return model_card_html(name, facts, f"{what} a world of objects, styles and people.")


def loaded_card(name: str, facts: Mapping[str, str]) -> str:
    """What the loaded model says of itself."""
    return model_card_html(name, list(facts.items()), "Read-only: edits live in your session and leave no trace here.")


def describe(adapter) -> dict[str, str]:
    """Facts of a loaded model, in words."""
    size = sum(p.numel() for p in adapter.model.parameters())
    heads = adapter.units(("head",))
    kind = {"Family": "CLIP (open_clip)"}
    if adapter.family == "diffusion":
        known = card_of(adapter.pipeline)
        kind = {"Family": known["family"], "Predicts": known["prediction"], "Pictures": known["size"]}
    towers = []
    for tower in adapter.towers:
        mine = [unit for unit in heads if unit.tower == tower]
        towers.append(f"{TOWER_NAMES.get(tower, tower)}: {len({u.layer for u in mine})} layers, {len(mine)} heads")
    precision = str(next(adapter.model.parameters()).dtype).removeprefix("torch.")
    return {
        **kind,
        "Size": f"{size / 1e6:.1f} M parameters, {precision}",
        "Towers": "; ".join(towers),
        "Device": str(adapter.device),
        "Memory": f"{size * 4 / 1e9:.2f} GB of weights, more while scoring",
    }
