"""The model panel: which model, and what is known of it."""

from collections.abc import Mapping
from dataclasses import dataclass

import gradio as gr

from components.theme import model_card_html
from razor.models import BUNDLED, card
from razor.pipelines import card_of
from razor.wording import read_by

TOWER_NAMES = {
    "text2": "second text encoder",
    "text3": "third text encoder",
    "cross": "cross-attention",
    "context": "text stream",
    "self": "picture attention",
    "language": "language model",
}
PLURALS = {"object": "objects", "style": "styles", "identity": "people"}
# What a card measured -> family, what was counted, the model in a few words, and what it can do by kind.
_KNOWN = {
    "zero_shot_accuracy": (
        "CLIP",
        "held-out pictures",
        "A small CLIP that knows",
        {axis: f"Knows {names}" for axis, names in PLURALS.items()},
    ),
    "judged_accuracy": (
        "Stable Diffusion (UNet)",
        "drawn pictures, by an independent judge",
        "A small Stable Diffusion that draws",
        {axis: f"Draws {names}" for axis, names in PLURALS.items()},
    ),
    "right_answers": (
        "LLaVA",
        "held-out questions",
        "A small LLaVA that answers questions about",
        {"what": "Names objects", "style": "Names styles", "who": "Names people", "yes or no": "Says yes or no",
         "count": "Counts"},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class ModelPanel:
    """The widgets this panel owns."""

    name: gr.Dropdown
    load: gr.Button
    card: gr.HTML
    judge_box: gr.Column  # for models that draw and have no judge of their own
    judge: gr.Textbox
    use_judge: gr.Button


def build(model: str = "mini-clip") -> ModelPanel:
    with gr.Column(elem_classes="panel"):
        name = gr.Dropdown(
            choices=[*BUNDLED],
            value=model,
            allow_custom_value=True,
            label="Model",
            info="Bundled, a local open_clip, diffusers or transformers folder, a .safetensors checkpoint, "
            "architecture/pretrained, or hf-hub:owner/model",
            elem_id="model-name",
        )
        load = gr.Button("Load model", size="sm", elem_id="load-model")
        first = bundled_card(model, known) if (known := card(model)) else ""
        shown = gr.HTML(first, apply_default_css=False, elem_id="model-card")
        with gr.Column(visible=False, elem_id="judge-box") as judge_box:
            judge = gr.Textbox(
                label="A CLIP to look at drawn pictures (optional)",
                placeholder="ViT-L-14/openai",
                info="Named like a model. It guesses, so it is only a proxy for a judge; empty: nobody looks",
                elem_id="judge-name",
            )
            use = gr.Button("Let it look", size="sm", elem_id="use-judge")
    return ModelPanel(name, load, shown, judge_box, judge, use)


def bundled_card(name: str, known: Mapping) -> str:
    """What the card file says, shown before any weight is read."""
    measured = next(key for key in _KNOWN if key in known)
    family, counted, what, does = _KNOWN[measured]
    facts = [
        ("Family", f"{family}, trained from scratch for this app"),
        ("Size", f"{known.get('parameters', 0) / 1e6:.1f} M"),
    ]
    right = {label: known[measured][kind] for kind, label in does.items() if kind in known[measured]}
    facts += [(label, f"{a['value']:.1%} of {a['n']} {counted}") for label, a in right.items()]
    facts += [("Licence", str(known.get("license", "unknown"))), ("Memory", "well under 1 GB; runs on a laptop")]
    return model_card_html(name, facts, f"{what} a world of objects, styles and people.")


def loaded_card(name: str, facts: Mapping[str, str]) -> str:
    """What the loaded model says of itself."""
    return model_card_html(name, list(facts.items()), "Read-only: edits live in your session and leave no trace here.")


def describe(adapter) -> dict[str, str]:
    """Facts of a loaded model, in words."""
    weights = [*adapter.model.parameters()]
    heads = adapter.units(("head",))
    kind, judge = {"Family": "CLIP (open_clip)"}, {}
    if adapter.family == "diffusion":
        known = card_of(adapter.pipeline)
        kind = {"Family": known["family"], "Predicts": known["prediction"], "Pictures": known["size"]}
        judge = {"What its pictures show is": read_by(adapter.judge) if adapter.judge else "for you to see: no judge"}
        weights += adapter.pipeline.vae.parameters()
    elif adapter.family == "vlm":
        kind = {"Family": f"Vision-language model ({type(adapter.model).__name__})"}
    towers = []
    for tower in adapter.towers:
        mine = [unit for unit in heads if unit.tower == tower]
        towers.append(f"{TOWER_NAMES.get(tower, tower)}: {len({u.layer for u in mine})} layers, {len(mine)} heads")
    size, held = sum(p.numel() for p in weights), sum(p.numel() * p.element_size() for p in weights)
    precisions = dict.fromkeys(str(p.dtype).removeprefix("torch.") for p in weights)
    return {
        **kind,
        "Size": f"{size / 1e6:.1f} M parameters, {' and '.join(precisions)}",
        "Towers": "; ".join(towers),
        "Device": str(adapter.device),
        "Memory": f"{memory_text(held)} of weights, more while scoring",
        **judge,
    }


def memory_text(count: int) -> str:
    """A number of bytes, to two digits or so."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
