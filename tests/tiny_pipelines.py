"""Diffusion pipelines of random weights, too small to draw anything: one of each architecture, made in a second.

Each function saves a pipeline as diffusers does and returns it. Prompts may hold lower-case letters and spaces.
"""

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

TOKENS = 16  # a prompt's length
SIDE = 16  # pixels of a picture: latents of 8 x 8, twice as large each way


def tiny_sd(folder: Path, **unet):
    """Stable Diffusion 1.x: predicts the noise; convolutions around its attention."""
    torch.manual_seed(0)
    networks = {"unet": _unet(cross_attention_dim=32, **unet), "vae": _vae(), "text_encoder": _clip(32)}
    return _saved(
        StableDiffusionPipeline, folder, networks, DDIMScheduler(clip_sample=False, steps_offset=1), **_unchecked()
    )


def tiny_sd2(folder: Path):
    """Stable Diffusion 2.x: predicts v; linear layers around its attention."""
    torch.manual_seed(1)
    unet = _unet(cross_attention_dim=32, use_linear_projection=True, attention_head_dim=(2, 4))
    networks = {"unet": unet, "vae": _vae(), "text_encoder": _clip(32)}
    scheduler = DDIMScheduler(clip_sample=False, steps_offset=1, prediction_type="v_prediction")
    return _saved(StableDiffusionPipeline, folder, networks, scheduler, **_unchecked())


def tiny_sdxl(folder: Path):
    """Stable Diffusion XL: two text encoders, and the picture's size as a further condition."""
    torch.manual_seed(2)
    unet = _unet(
        cross_attention_dim=32 + 48,
        use_linear_projection=True,
        transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 48,  # six sizes and the pooled text
    )
    networks = {"unet": unet, "vae": _vae(), "text_encoder": _clip(32), "text_encoder_2": _clip(48, projected=True)}
    return _saved(StableDiffusionXLPipeline, folder, networks, EulerDiscreteScheduler(beta_schedule="scaled_linear"))


def tiny_sd35(folder: Path):
    """Stable Diffusion 3.5: queries and keys are normed, and the first block attends to the picture once more."""
    return tiny_sd3(folder, qk_norm="rms_norm", dual_attention_layers=(0,))


def tiny_sd3(folder: Path, *, t5: bool = True, **more):
    """Stable Diffusion 3: a transformer over picture and text tokens, three text encoders, the last one optional."""
    torch.manual_seed(3)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=16,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pooled_projection_dim=32,
        pos_embed_max_size=8,
        **more,
    )
    networks = {
        "transformer": transformer,
        "vae": _vae(use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06),
        "text_encoder": _clip(12, projected=True),
        "text_encoder_2": _clip(20, projected=True),
        "text_encoder_3": _t5() if t5 else None,
    }
    return _saved(StableDiffusion3Pipeline, folder, networks, FlowMatchEulerDiscreteScheduler(shift=3.0))


def flux_like(folder: Path) -> None:
    """What model_index.json of a Flux pipeline names, with no file behind it."""
    index = {
        "_class_name": "FluxPipeline",
        "_diffusers_version": "0.30.0",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_index.json").write_text(json.dumps(index))


def draw(pipeline, prompt: str = "a red cat", seed: int = 0):
    """One picture in two steps by the stock call, (SIDE, SIDE, 3) in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(prompt, num_inference_steps=2, generator=generator, output_type="np").images[0]


def _saved(kind, folder: Path, networks: dict, scheduler, **options):
    """The pipeline of these networks, each text encoder with its tokenizer, written to `folder`."""
    words = {"clip_text_model": _words, "t5": _t5_words}
    tokenizers = {
        name.replace("text_encoder", "tokenizer"): network and words[network.config.model_type]()
        for name, network in networks.items()
        if name.startswith("text_encoder")
    }
    for network in networks.values():
        if network is not None:
            network.eval().requires_grad_(False)
    pipeline = kind(**networks, **tokenizers, scheduler=scheduler, **options)
    pipeline.save_pretrained(folder)
    return pipeline


def _unchecked() -> dict:
    return {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def _unet(**settings) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "attention_head_dim": 2,  # heads, whatever its name says
            "norm_num_groups": 8,
            **settings,
        }
    )


def _vae(**settings) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIDE,
        **settings,
    )


def _clip(width: int, *, projected: bool = False):
    config = CLIPTextConfig(
        vocab_size=len(_letters()),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=len(_letters()) - 2,
        eos_token_id=len(_letters()) - 1,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def _t5() -> T5EncoderModel:
    return T5EncoderModel(T5Config(vocab_size=30, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2))


def _letters() -> dict[str, int]:
    """CLIP's vocabulary without its merges: every byte, every byte that ends a word, start and end of the text."""
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return {word: number for number, word in enumerate(words)}


def _words() -> CLIPTokenizer:
    return CLIPTokenizer(vocab=_letters(), merges=[], model_max_length=TOKENS)


def _t5_words() -> T5Tokenizer:
    pieces = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    return T5Tokenizer(vocab=[(piece, -2.0) for piece in pieces], extra_ids=0, model_max_length=TOKENS)


# ---------------------------------------------------------------- as one file


def single_file(pipeline, path: Path, *, texts: bool = True) -> None:
    """Write 1.x, XL or 3 as one file, its weights named as in training: the way most models are passed around."""
    tensors = {f"first_stage_model.{k}": v for k, v in _vae_as_trained(pipeline.vae).items()}
    mmdit = hasattr(pipeline, "transformer")
    denoiser = _mmdit_as_trained(pipeline.transformer) if mmdit else _unet_as_trained(pipeline.unet)
    tensors |= {f"model.diffusion_model.{k}": v for k, v in denoiser.items()}
    if texts:
        tensors |= _texts_of_sd3(pipeline) if mmdit else _texts_of_sd(pipeline)
    # Contiguous and apart: what shares memory cannot be saved.
    save_file({name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}, path)


def _texts_of_sd(pipeline) -> dict[str, torch.Tensor]:
    """2.x, and the second encoder of XL, were trained as open_clip models."""
    first, second = pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)
    if second is None and pipeline.unet.config.use_linear_projection:
        return {f"cond_stage_model.model.{k}": v for k, v in _open_clip_as_trained(first).items()}
    place = "cond_stage_model.transformer." if second is None else "conditioner.embedders.0.transformer."
    tensors = {f"{place}text_model.{k}": v for k, v in first.state_dict().items()}
    tensors[f"{place}text_model.embeddings.position_ids"] = torch.arange(TOKENS)[None]  # old files have it
    if second is not None:
        tensors |= {f"conditioner.embedders.1.model.{k}": v for k, v in _open_clip_as_trained(second).items()}
    return tensors


def _texts_of_sd3(pipeline) -> dict[str, torch.Tensor]:
    encoders = {"clip_l": pipeline.text_encoder, "clip_g": pipeline.text_encoder_2, "t5xxl": pipeline.text_encoder_3}
    return {
        f"text_encoders.{name}.transformer.{k}": v
        for name, encoder in encoders.items()
        for k, v in encoder.state_dict().items()
        if k != "encoder.embed_tokens.weight"  # the same tensor as shared.weight
    }


def _renamed(name: str, table: dict[str, str]) -> str:
    for here, there in table.items():
        name = name.replace(here, there)
    return name


def _unet_as_trained(unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    """Blocks are one flat list on the way down and one on the way up; resnets and samplers have other names."""
    layers = unet.config.layers_per_block
    resnet = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1"}
    resnet |= {"norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    outer = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
    outer |= {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
    outer |= {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}

    def place(name: str) -> str:
        part, _, rest = name.partition(".")
        if part == "mid_block":
            kind, number, rest = rest.split(".", 2)
            return f"middle_block.{2 * int(number) + (kind == 'attentions')}." + (
                rest if kind == "attentions" else _renamed(rest, resnet)
            )
        if part not in ("down_blocks", "up_blocks"):
            return _renamed(name, outer)
        block, kind, number, rest = rest.split(".", 3)
        block, number, down = int(block), int(number), part == "down_blocks"
        start = block * (layers + 1) + down
        side = "input_blocks" if down else "output_blocks"
        if kind == "downsamplers":
            return f"{side}.{start + layers}.0.{rest.replace('conv', 'op')}"
        if kind == "upsamplers":
            attends = hasattr(unet.up_blocks[block], "attentions")
            return f"{side}.{start + layers}.{1 + attends}.{rest}"
        return f"{side}.{start + number}." + (f"1.{rest}" if kind == "attentions" else f"0.{_renamed(rest, resnet)}")

    return {place(name): value for name, value in unet.state_dict().items()}


def _vae_as_trained(vae: AutoencoderKL) -> dict[str, torch.Tensor]:
    """The way up is numbered from its end; the attention is a convolution of one pixel."""
    last = len(vae.config.block_out_channels) - 1
    table = {"conv_norm_out": "norm_out", "conv_shortcut": "nin_shortcut", ".resnets.": ".block."}
    table |= {"down_blocks": "down", "downsamplers.0": "downsample", "upsamplers.0": "upsample"}
    table |= {f"up_blocks.{i}.": f"up.{last - i}." for i in range(last + 1)}
    table |= {
        "mid_block.block.1": "mid.block_2",
        "mid_block.block.0": "mid.block_1",
        "mid_block.attentions.0": "mid.attn_1",
    }
    table |= {"group_norm": "norm", "to_out.0": "proj_out", "to_q": "q", "to_k": "k", "to_v": "v"}
    named = {_renamed(name, table): value for name, value in vae.state_dict().items()}
    return {k: v[:, :, None, None] if "attn_1" in k and v.ndim == 2 else v for k, v in named.items()}


def _open_clip_as_trained(text: CLIPTextModel | CLIPTextModelWithProjection) -> dict[str, torch.Tensor]:
    """q, k and v of a block are one matrix, and the projection is the other way round."""
    table = {"text_model.": "", "encoder.layers": "transformer.resblocks", "final_layer_norm": "ln_final"}
    table |= {"layer_norm": "ln_", "self_attn": "attn", "fc1": "c_fc", "fc2": "c_proj"}
    table |= {"embeddings.token_embedding": "token_embedding"}
    table |= {"embeddings.position_embedding.weight": "positional_embedding"}
    named = {_renamed(name, table): value for name, value in text.state_dict().items()}
    if "text_projection.weight" in named:
        named["text_projection"] = named.pop("text_projection.weight").T
    for name in [name for name in named if ".attn.q_proj." in name]:
        block, kind = name.split("q_proj.")
        named[f"{block}in_proj_{kind}"] = torch.cat([named.pop(f"{block}{part}_proj.{kind}") for part in "qkv"])
    return named


def _mmdit_as_trained(transformer: SD3Transformer2DModel) -> dict[str, torch.Tensor]:
    """q, k and v are one matrix; the last modulations give the scale and the shift in the other order."""
    last = f"joint_blocks.{transformer.config.num_layers - 1}."
    table = {
        "pos_embed.pos_embed": "pos_embed",
        "pos_embed.proj": "x_embedder.proj",
        "transformer_blocks": "joint_blocks",
    }
    table |= {"time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0", "proj_out": "final_layer.linear"}
    table |= {"time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2"}
    table |= {"time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0"}
    table |= {"time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2"}
    table |= {"norm_out.linear": "final_layer.adaLN_modulation.1"}
    table |= {"norm1.linear": "x_block.adaLN_modulation.1", "norm1_context.linear": "context_block.adaLN_modulation.1"}
    table |= {"attn.to_out.0": "x_block.attn.proj", "attn.to_add_out": "context_block.attn.proj"}
    table |= {f"attn.to_{part}.": f"x_block.attn.{part}." for part in "qkv"}
    table |= {f"attn.add_{part}_proj.": f"context_block.attn.{part}." for part in "qkv"}
    for side in ("ff.", "ff_context."):
        block = "context_block" if "context" in side else "x_block"
        table |= {f".{side}net.0.proj": f".{block}.mlp.fc1", f".{side}net.2": f".{block}.mlp.fc2"}
    named = {_renamed(name, table): value for name, value in transformer.state_dict().items()}
    for name in list(named):
        if ".attn.q." in name:
            named[name.replace(".q.", ".qkv.")] = torch.cat([named.pop(name.replace(".q.", f".{p}.")) for p in "qkv"])
        if name.startswith((f"{last}context_block.adaLN", "final_layer.adaLN")):
            scale, shift = named[name].chunk(2)
            named[name] = torch.cat([shift, scale])
    return named
