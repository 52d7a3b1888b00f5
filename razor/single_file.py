"""A Stable Diffusion pipeline as one file, its weights named as in training: 1.x, 2.x and XL.

What is named here is named back by diffusers' own conversion before anything is written: an architecture that does not
come back whole is refused.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from razor.errors import InputError

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE = {
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
    ".resnets.": ".block.",
    "down_blocks": "down",
    "downsamplers.0": "downsample",
    "upsamplers.0": "upsample",
    "mid_block.block.0": "mid.block_1",
    "mid_block.block.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "group_norm": "norm",
    "to_out.0": "proj_out",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
}
_OPEN_CLIP = {
    "text_model.": "",
    "encoder.layers": "transformer.resblocks",
    "final_layer_norm": "ln_final",
    "layer_norm": "ln_",
    "self_attn": "attn",
    "fc1": "c_fc",
    "fc2": "c_proj",
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
}


def as_one_file(pipeline) -> dict[str, Tensor]:
    """All weights of a pipeline under the names of one file; tensors are the pipeline's own where their shape allows.

    Raises:
        InputError: an architecture that has no exact form as one file.
    """
    if not hasattr(pipeline, "unet"):
        raise InputError(
            "Stable Diffusion 3 cannot be written as one file: there is no exact way back from it. Export a folder "
            "instead."
        )
    unet = pipeline.unet
    tensors = {f"model.diffusion_model.{unet_name(k, unet)}": v for k, v in unet.state_dict().items()}
    tensors |= {f"first_stage_model.{k}": v for k, v in _trained_vae(pipeline.vae).items()}
    for part, start in _texts(pipeline).items():
        named = _open_clip if start.endswith(".model.") else _wrapped
        tensors |= {start + k: v for k, v in named(getattr(pipeline, part)).items()}
    _refuse_inexact(pipeline, tensors)
    return tensors


def unet_name(name: str, unet: nn.Module) -> str:
    """A parameter or module of a UNet as it was named in training, where its blocks are one flat list each way."""
    part, _, rest = name.partition(".")
    if part not in ("down_blocks", "mid_block", "up_blocks"):
        return _renamed(name, _UNET)
    if part == "mid_block":
        kind, number, rest = rest.split(".", 2)
        attends = kind == "attentions"
        return f"middle_block.{2 * int(number) + attends}." + (rest if attends else _renamed(rest, _RESNET))
    block, kind, number, rest = rest.split(".", 3)
    layers, down = unet.config.layers_per_block, part == "down_blocks"
    side, start = "input_blocks" if down else "output_blocks", int(block) * (layers + 1) + down
    if kind == "downsamplers":
        return f"{side}.{start + layers}.0.{rest.replace('conv', 'op')}"
    if kind == "upsamplers":
        attends = hasattr(unet.up_blocks[int(block)], "attentions")
        return f"{side}.{start + layers}.{1 + attends}.{rest}"
    place = f"{side}.{start + int(number)}."
    return place + (f"1.{rest}" if kind == "attentions" else f"0.{_renamed(rest, _RESNET)}")


def _trained_vae(vae: nn.Module) -> dict[str, Tensor]:
    """The way up is numbered from its end, and the attention is made of convolutions of one pixel."""
    last = len(vae.config.block_out_channels) - 1
    table = _VAE | {f"up_blocks.{i}.": f"up.{last - i}." for i in range(last + 1)}
    named = {_renamed(name, table): value for name, value in vae.state_dict().items()}
    return {k: v[:, :, None, None] if "attn_1" in k and v.ndim == 2 else v for k, v in named.items()}


def _texts(pipeline) -> dict[str, str]:
    """Text encoder -> where it is in the file. 2.x, and the second encoder of XL, were trained as open_clip models."""
    if hasattr(pipeline, "text_encoder_2"):
        starts = ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model.")
        return dict(zip(("text_encoder", "text_encoder_2"), starts, strict=True))
    two = pipeline.unet.config.use_linear_projection
    return {"text_encoder": "cond_stage_model." + ("model." if two else "transformer.")}


def _wrapped(text: nn.Module) -> dict[str, Tensor]:
    """Files name the text_model, whether the class has it or not."""
    return {f"text_model.{k.removeprefix('text_model.')}": v for k, v in text.state_dict().items()}


def _open_clip(text: nn.Module) -> dict[str, Tensor]:
    """q, k and v of a block are one matrix, and the projection is the other way round."""
    named = {_renamed(name, _OPEN_CLIP): value for name, value in text.state_dict().items()}
    if "text_projection.weight" in named:
        named["text_projection"] = named.pop("text_projection.weight").T
    for name in [name for name in named if ".attn.q_proj." in name]:
        block, kind = name.split("q_proj.")
        named[f"{block}in_proj_{kind}"] = torch.cat([named.pop(f"{block}{p}_proj.{kind}") for p in "qkv"])
    return named


def _refuse_inexact(pipeline, tensors: Mapping[str, Tensor]) -> None:
    """Read the file's tensors back as diffusers does, and refuse what does not come back as it was."""
    from diffusers.loaders import single_file_utils as diffusers

    tensors = dict(tensors)
    _refuse_changed("unet", pipeline.unet, diffusers.convert_ldm_unet_checkpoint(tensors, dict(pipeline.unet.config)))
    _refuse_changed("vae", pipeline.vae, diffusers.convert_ldm_vae_checkpoint(tensors, dict(pipeline.vae.config)))
    for part, start in _texts(pipeline).items():
        text = getattr(pipeline, part)
        if start.endswith(".model."):
            back = diffusers.convert_open_clip_checkpoint(text, tensors, prefix=start)
        else:
            back = diffusers.convert_ldm_clip_checkpoint(tensors)
        _refuse_changed(part, text, back)


def _refuse_changed(part: str, network: nn.Module, back: Mapping[str, Tensor | None]) -> None:
    bare = {name.removeprefix("text_model."): value for name, value in back.items()}
    for name, value in sorted(network.state_dict().items(), key=lambda entry: entry[0]):
        found = bare.get(name.removeprefix("text_model."))
        if found is None or found.shape != value.shape or not torch.equal(found, value):
            raise InputError(
                f"The {part} has no exact form as one file (its {name!r} has no place). Export a folder instead."
            )


def _renamed(name: str, table: Mapping[str, str]) -> str:
    for here, there in table.items():
        name = name.replace(here, there)
    return name
