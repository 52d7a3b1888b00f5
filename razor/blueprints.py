"""Configurations of Stable Diffusion 1.x and XL, for checkpoints that come as one file and bring none.

Figures are those their makers published. The tokenizer both read is CLIP's, whose merges open_clip ships.
"""

import atexit
import gzip
import json
import shutil
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch

CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
}
CLIP_BIG_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
TEXT = {
    "model_type": "clip_text_model",
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "bos_token_id": 0,
    "eos_token_id": 2,  # old files say so; transformers then looks for the last token of each text
    "pad_token_id": 1,
}
VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
}
PNDM = NOISE | {"skip_prk_steps": True, "set_alpha_to_one": False}
EULER = NOISE | {"timestep_spacing": "leading", "interpolation_type": "linear", "use_karras_sigmas": False}
UNET_1 = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
UNET_XL = {
    "sample_size": 128,
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2,
    "up_block_types": ["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
LATENTS = 4  # channels of them, all that these read
NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")
END, EXCLAMATION = "<|endoftext|>", "!"  # what texts are padded with

# The hub model diffusers takes a checkpoint for -> its pipeline, and of each part library, class and configuration. A
# tokenizer's is the token it pads with.
BLUEPRINTS = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": (
        "StableDiffusionPipeline",
        {
            "unet": ("diffusers", "UNet2DConditionModel", UNET_1),
            "vae": ("diffusers", "AutoencoderKL", VAE | {"sample_size": 512, "scaling_factor": 0.18215}),
            "text_encoder": ("transformers", "CLIPTextModel", TEXT | CLIP_L),
            "tokenizer": ("transformers", "CLIPTokenizer", END),
            "scheduler": ("diffusers", "PNDMScheduler", PNDM),
        },
    ),
    "stabilityai/stable-diffusion-xl-base-1.0": (
        "StableDiffusionXLPipeline",
        {
            "unet": ("diffusers", "UNet2DConditionModel", UNET_XL),
            "vae": ("diffusers", "AutoencoderKL", VAE | {"sample_size": 1024, "scaling_factor": 0.13025}),
            "text_encoder": ("transformers", "CLIPTextModel", TEXT | CLIP_L),
            "text_encoder_2": ("transformers", "CLIPTextModelWithProjection", TEXT | CLIP_BIG_G),
            "tokenizer": ("transformers", "CLIPTokenizer", END),
            "tokenizer_2": ("transformers", "CLIPTokenizer", EXCLAMATION),
            "scheduler": ("diffusers", "EulerDiscreteScheduler", EULER),
        },
    ),
}
# Tensors of these names, empty ones too, mark checkpoints of another noise schedule or prediction.
OTHER_NOISE = frozenset({"v_pred", "ztsnr", "edm_vpred.sigma_max", "edm_vpred.sigma_min"})


def configuration(like: str, shapes: Mapping[str, tuple[int, ...]], inside: Collection[str]) -> Path | None:
    """A folder as diffusers saves it, without weights, for a whole checkpoint of usual sizes; None for any other.

    Args:
        like: the hub model diffusers takes the checkpoint for.
        shapes: of the tensors in the file.
        inside: networks whose weights are in the file.
    """
    if like not in BLUEPRINTS:
        return None
    parts = BLUEPRINTS[like][1]
    unet, first = parts["unet"][2], shapes.get("model.diffusion_model.input_blocks.0.0.weight", ())
    words = [shape for name, shape in shapes.items() if name.endswith(".attn2.to_k.weight")]
    as_wide = bool(words) and all(shape[1:] == (unet["cross_attention_dim"],) for shape in words)
    whole = all(part in inside for part in parts if part in NETWORKS)
    if not (whole and as_wide and first[:2] == (unet["block_out_channels"][0], LATENTS)):
        return None
    if not (_written(like) / "model_index.json").exists():  # somebody tidied up
        _written.cache_clear()
    return _written(like)


def other_noise(shapes: Iterable[str]) -> bool:
    """Whether a checkpoint says that it is of another noise schedule, or predicts something else, than is usual."""
    return not OTHER_NOISE.isdisjoint(shapes)


@cache
def _written(like: str) -> Path:
    """The folder, once a process; it goes with that."""
    import diffusers
    from transformers import CLIPTextConfig

    place = Path(mkdtemp(prefix="razor-configuration-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    pipeline, parts = BLUEPRINTS[like]
    index = {"_class_name": pipeline, "_diffusers_version": diffusers.__version__}
    for part, (library, kind, config) in parts.items():
        index[part] = [library, kind]
        if part.startswith("tokenizer"):
            tokenizer(config).save_pretrained(place / part)
        elif library == "transformers":
            CLIPTextConfig(**config | {"architectures": [kind]}).save_pretrained(place / part)
        else:  # whole: what reads a checkpoint looks for settings that are as usual, too
            with torch.device("cpu" if part == "scheduler" else "meta"):
                getattr(diffusers, kind).from_config(config).save_config(place / part)
    (place / "model_index.json").write_text(json.dumps(index), "utf-8")
    return place


def tokenizer(pad: str):
    """CLIP's, padded with this: every byte, every byte that ends a word, a word for every merge, start and end."""
    import open_clip
    from open_clip.tokenizer import bytes_to_unicode
    from transformers import CLIPTokenizer

    packed = (Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz").read_bytes()
    letters, ends = list(bytes_to_unicode().values()), ("<|startoftext|>", END)
    count = TEXT["vocab_size"] - 2 * len(letters) - len(ends)  # the file holds more
    merges = [tuple(line.split()) for line in gzip.decompress(packed).decode("utf-8").split("\n")[1 : 1 + count]]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), *ends]
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(
        vocab=vocabulary, merges=merges, model_max_length=TEXT["max_position_embeddings"], pad_token=pad
    )
