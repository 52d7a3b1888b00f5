"""What other programs call the layers of a model: PEFT and diffusers with dots, kohya's trainer and web UIs flat."""

from collections.abc import Collection, Iterable, Mapping

from torch import nn

from razor.single_file import unet_name

FORMS = ("peft", "kohya")
CLIP_ENCODERS = ("text_encoder", "text_encoder_2")
# The end of a key -> what it holds.
ROLES = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_B.bias": "bias",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".alpha": "alpha",
}


def peft_name(family: str, weight: str) -> str:
    """The layer of a weight in the keys of PEFT and diffusers."""
    layer = weight.removesuffix(".weight")
    if family != "diffusion":
        return f"base_model.model.{layer}"
    part, _, path = layer.partition(".")
    return f"{part}.{_wrapped(part, path)}"


def kohya_names(weight: str, parts: Collection[str]) -> tuple[str, ...]:
    """The layer of a weight in kohya's keys: as it is written, then as others may have written it.

    Args:
        parts: the networks of the pipeline; of two text encoders the first has a number too.
    """
    part, _, path = weight.removesuffix(".weight").partition(".")
    first = ("lora_te1_", "lora_te_") if "text_encoder_2" in parts else ("lora_te_", "lora_te1_")
    starts = {"unet": ("lora_unet_",), "text_encoder": first, "text_encoder_2": ("lora_te2_",)}
    return tuple(start + _wrapped(part, path).replace(".", "_") for start in starts.get(part, ()))


def known_layers(adapter) -> dict[str, str]:
    """Every name a layer of the model may have in a file -> its weight."""
    known = {}
    for path, module in adapter.model.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv2d):
            continue
        weight = f"{path}.weight"
        known |= dict.fromkeys((path, peft_name(adapter.family, weight)), weight)
        if adapter.family == "diffusion":
            known |= dict.fromkeys(kohya_names(weight, adapter.model), weight)
            if path.startswith("unet."):  # kohya's trainer names XL as it was first trained
                trained = unet_name(path.removeprefix("unet."), adapter.model["unet"])
                known["lora_unet_" + trained.replace(".", "_")] = weight
    return known


def split_key(key: str) -> tuple[str, str]:
    """The layer and what of it a key holds, one of ROLES; "" where it is none of them."""
    ending = next((ending for ending in ROLES if key.endswith(ending)), "")
    return key.removesuffix(ending), ROLES.get(ending, "")


def missing_attention(weights: Iterable[str], keys: str, model: nn.Module) -> list[str]:
    """Weights without which diffusers cannot tell in which form the keys of a CLIP text encoder are.

    It looks for attention among PEFT's keys, and for the output projection among kohya's, in each encoder.
    """
    weights, found = list(weights), []
    for part in CLIP_ENCODERS:
        mine = [w for w in weights if w.startswith(f"{part}.")]
        attention = [w for w in mine if ".self_attn." in w]
        if keys == "peft":
            lacks, ending = mine and not attention, ".self_attn.q_proj.weight"
        else:
            lacks, ending = attention and not any(".out_proj." in w for w in attention), ".self_attn.out_proj.weight"
        if lacks:
            names = (name for name, _ in model.named_parameters())
            found.append(next(name for name in names if name.startswith(f"{part}.") and name.endswith(ending)))
    return found


def peft_settings(ranks: Mapping[str, int], biases: bool) -> dict:
    """What PEFT has to be told of layers whose alpha is their rank.

    Args:
        ranks: path of a layer in its network -> its rank.
        biases: whether every layer has a bias of its own; said only where so, since PEFT knows of it from 0.14 on.
    """
    most = max(ranks.values())
    other = {path: rank for path, rank in ranks.items() if rank != most}
    settings = {"r": most, "lora_alpha": most, "rank_pattern": other, "alpha_pattern": other}
    return settings | {"target_modules": sorted(ranks)} | ({"lora_bias": True} if biases else {})


def _wrapped(part: str, path: str) -> str:
    """Files name the text_model around a CLIP text encoder, which transformers has taken out of one of its classes."""
    bare = part in CLIP_ENCODERS and not path.startswith(("text_model.", "text_projection"))
    return f"text_model.{path}" if bare else path
