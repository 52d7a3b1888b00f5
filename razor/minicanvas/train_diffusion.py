"""Train mini-sd on Minicanvas from scratch: a Stable Diffusion pipeline small enough for a laptop.

    python -m razor.minicanvas train diffusion

Two stages, each resumable, seeded, CPU or CUDA. The autoencoder learns to put a picture of 64 x 64 pixels into
16 x 16 x 4 numbers; its decoder then learns a little longer, also by what mini-clip sees, so that fine lines are not
blurred. The UNet learns to predict v, the velocity between noise and those numbers, together with its text encoder,
which starts from mini-clip's. It learns from some scenes of each object, each shown in every style (as UnlearnCanvas
is made), and some portraits of each person, and later from few of them: so small a model then draws them sharply. As
in Stable Diffusion, a caption is sometimes dropped, so that pictures can be drawn with classifier-free guidance.
"""

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from razor.minicanvas import captions, judge
from razor.minicanvas.dataset import AXES, combinations
from razor.minicanvas.pictures import PIXELS, Pictures
from razor.minicanvas.training import MINI_CLIP, clip_blocks, fit

AUTOENCODER = {
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (32, 64, 96),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "sample_size": PIXELS,
    "mid_block_add_attention": False,
}
UNET = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (80, 160),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 128,
    "attention_head_dim": (2, 4),  # heads at 16 x 16 and at 8 x 8, whatever its name says
    "norm_num_groups": 16,
}
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "steps_offset": 1,
}
AUTOENCODER_STEPS = 1666
DECODER_STEPS = 300  # further ones of the decoder alone
FINE = ("mosaic", 0.25)  # the style whose lines are lost first, and its share of the pictures the decoder sees then
LIKENESS = 2.0  # weight of the cosine distance of what mini-clip sees
SOME, FEW = (20, 40), (8, 16)  # scenes of each object, in every style, and portraits of each person
WIDE = 0.25  # share of the UNet's steps that see some; the others see few
END_STEPS = 600  # further ones with more ways to say the same, so that new sentences are understood
PEOPLE = 0.2  # share of portraits in a batch
CROPPED = 0.9  # share of the autoencoder's steps that see quarters of the pictures: four times as fast
DROPPED = 0.1  # share of captions left empty
GUIDANCE = 4.0
STEPS = 20


def train_diffusion(*, steps: int, batch: int, seed: int, work: Path, out: Path) -> dict:
    """Train mini-sd, write the pipeline and its card to `out`; picks up the checkpoints in `work`.

    Returns:
        The card: accuracy by the judge on drawn pictures, per axis, with n, and how it was made.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(seed)
    data = Pictures.rendered("train", per_pair=80, per_person=320, work=work)
    vae, vae_seconds = _train_autoencoder(data, steps=AUTOENCODER_STEPS, batch=batch, seed=seed, work=work)
    pools = [
        Pictures.rendered("train", per_pair=scenes, per_person=portraits, work=work, one_scene=True)
        for scenes, portraits in (SOME, FEW)
    ]
    latents = [_latents(vae, pool, work / f"latents-{len(pool.pixels)}-{seed}.pt") for pool in pools]
    scale = 1 / latents[0].std().item()
    vae.register_to_config(scaling_factor=scale)
    latents = [part * scale for part in latents]
    parts, unet_seconds = _train_unet(pools, latents, steps=steps, batch=batch, seed=seed, work=work)
    decoder_seconds = _train_decoder(vae, data, batch=batch // 2, seed=seed, work=work)
    pipeline = assemble(vae.cpu(), parts.cpu())
    pipeline.to(torch.float16).save_pretrained(out)
    _name_tokenizer(out)
    accuracy = judged(load(out), range(2))
    card = {
        "name": "mini-sd",
        "what": "A Stable Diffusion pipeline trained from scratch on pictures drawn by this repository's code.",
        "license": "MIT",
        "parameters": sum(p.numel() for p in (*parts.parameters(), *vae.parameters())),
        "judged_accuracy": accuracy,
        "drawn": {"steps": STEPS, "guidance": GUIDANCE, "prompts": "held out", "seeds_a_prompt": 2},
        "training": {
            "command": f"python -m razor.minicanvas train diffusion --steps {steps} --batch {batch} --seed {seed}",
            "pictures": {"autoencoder": len(data.pixels), "unet": [len(pool.pixels) for pool in pools]},
            "seconds": round(vae_seconds + unet_seconds + decoder_seconds),
            "device": device,
        },
    }
    (out / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    return card


def _name_tokenizer(folder: Path) -> None:
    """Name the tokenizer by the class every version of transformers knows."""
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps(index | {"tokenizer": ["transformers", "PreTrainedTokenizerFast"]}, indent=2) + "\n")


def load(folder: Path):
    """The pipeline in `folder` in float32, quiet and without a network."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def judged(pipeline, seeds: Iterable[int]) -> dict[str, dict[str, float]]:
    """Share of drawn pictures in which the judge sees what their prompt asked for, per axis, with n.

    Every object in every style and every person, from prompts that training never used, once a seed.
    """
    hits: dict[str, list[bool]] = {axis: [] for axis in AXES}
    jobs = [(labels, seed) for seed in seeds for labels in combinations()]
    seen = judge.read(list(drawn(pipeline, jobs)))
    for row, (labels, _) in enumerate(jobs):
        for axis, name in labels.items():
            hits[axis].append(seen[axis][row] == name)
    return {axis: {"value": round(sum(hit) / len(hit), 4), "n": len(hit)} for axis, hit in hits.items()}


def drawn(pipeline, jobs: Sequence[tuple[Mapping[str, str], int]], together: int = 48) -> Iterator[Image.Image]:
    """A picture of each (labels, seed), from prompts that training never used."""
    for start in range(0, len(jobs), together):
        part = jobs[start : start + together]
        prompts = [captions.unseen_captions(labels)[seed % 2] for labels, seed in part]
        noise = torch.stack([initial_noise(seed, str(sorted(labels.items()))) for labels, seed in part])
        yield from pipeline(prompts, latents=noise, num_inference_steps=STEPS, guidance_scale=GUIDANCE).images


def initial_noise(seed: int, key: str = "") -> Tensor:
    """(4, 16, 16) noise, the same on every machine."""
    number = random.Random(f"{seed}/{key}").getrandbits(40)
    return torch.randn(4, 16, 16, generator=torch.Generator("cpu").manual_seed(number))


class Parts(nn.Module):
    """What learns to draw: the UNet and the text encoder it reads."""

    def __init__(self):
        super().__init__()
        from diffusers import UNet2DConditionModel

        self.unet = UNet2DConditionModel(**UNET)
        self.text_encoder = text_encoder_of_mini_clip()

    def forward(self, noisy: Tensor, timesteps: Tensor, ids: Tensor) -> Tensor:
        states = self.text_encoder(ids).last_hidden_state
        return self.unet(noisy, timesteps, states).sample


def text_encoder_of_mini_clip():
    """mini-clip's text tower as the CLIPTextModel a diffusion pipeline expects; same weights, same numbers out."""
    from transformers import CLIPTextConfig, CLIPTextModel

    text = json.loads((MINI_CLIP / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=text["vocab_size"],
            hidden_size=text["width"],
            intermediate_size=4 * text["width"],
            projection_dim=text["width"],
            num_hidden_layers=text["layers"],
            num_attention_heads=text["heads"],
            max_position_embeddings=text["context_length"],
            hidden_act="gelu",
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    old = {k: v.float() for k, v in load_file(MINI_CLIP / "open_clip_model.safetensors").items()}
    new = {
        "embeddings.token_embedding.weight": old["token_embedding.weight"],
        "embeddings.position_embedding.weight": old["positional_embedding"],
        "final_layer_norm.weight": old["ln_final.weight"],
        "final_layer_norm.bias": old["ln_final.bias"],
    }
    new |= clip_blocks(old, text["layers"])
    model.load_state_dict(new)
    return model


def tokenizer():
    """mini-clip's tokenizer, for prompts of up to 32 tokens."""
    from transformers import PreTrainedTokenizerFast

    length = UNET["sample_size"] * 2
    return PreTrainedTokenizerFast.from_pretrained(MINI_CLIP, model_max_length=length)


def assemble(vae, parts: Parts):
    """The trained parts as one Stable Diffusion pipeline."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=parts.text_encoder,
        tokenizer=tokenizer(),
        unet=parts.unet,
        scheduler=DDIMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _train_autoencoder(data: Pictures, *, steps: int, batch: int, seed: int, work: Path):
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(**AUTOENCODER).to(memory_format=torch.channels_last)

    def loss(model, rng: random.Random, progress: float) -> Tensor:
        images = data.jittered(data.choose(rng, batch), rng).clamp(-1, 1).to(model.device)
        if progress < CROPPED:
            x, y = rng.randrange(PIXELS // 2), rng.randrange(PIXELS // 2)
            images = images[:, :, y : y + PIXELS // 2, x : x + PIXELS // 2]
        posterior = model.encode(images).latent_dist
        drawn = model.decode(posterior.sample()).sample.float()
        return _blur(drawn, images, 0.5) + 1e-5 * posterior.kl().float().mean() / 16

    seconds = fit("autoencoder", vae, loss, steps=steps, seed=seed, lr=1e-3, work=work)
    return vae.eval().requires_grad_(False), seconds


def _train_decoder(vae, data: Pictures, *, batch: int, seed: int, work: Path) -> float:
    """Train the decoder alone; what it decodes, and so the UNet, stays as it is."""
    from razor import models

    clip = models.load("mini-clip", device=str(vae.device)).model
    for part in (vae.decoder, vae.post_quant_conv):
        part.requires_grad_(True)
    style, share = FINE
    fine = [i for i, known in enumerate(data.labels) if known.get("style") == style]

    def loss(model, rng: random.Random, progress: float) -> Tensor:
        count = round(batch * share)
        rows = data.choose(rng, batch - count) + rng.choices(fine, k=count)
        images = data.jittered(rows, rng).clamp(-1, 1).to(model.device)
        with torch.no_grad():
            latents = model.encode(images).latent_dist.sample()
        drawn = model.decode(latents).sample.float()
        likeness = (_seen(clip, drawn) * _seen(clip, images)).sum(-1).mean()
        return _blur(drawn, images) + LIKENESS * (1 - likeness)

    seconds = fit("decoder", vae, loss, steps=DECODER_STEPS, seed=seed, lr=6e-4, work=work)
    vae.eval().requires_grad_(False)
    return seconds


def _blur(drawn: Tensor, images: Tensor, edge: float = 1.0) -> Tensor:
    """Mean distance of pixels, and of the differences between neighbouring ones."""
    edges = sum((drawn.diff(dim=d) - images.diff(dim=d)).abs().mean() for d in (2, 3))
    return (drawn - images).abs().mean() + edge * edges


def _seen(clip, images: Tensor) -> Tensor:
    """(n, d) unit features of pictures in -1..1, which is what mini-clip takes."""
    return clip.encode_image(images, normalize=True).float()


@torch.no_grad()
def _latents(vae, data: Pictures, path: Path) -> Tensor:
    """Latents (N, 4, 16, 16) of every picture, unscaled."""
    if not path.exists():
        parts = [data.tensor(slice(i, i + 256)) for i in range(0, len(data.pixels), 256)]
        torch.save(torch.cat([vae.encode(p.to(vae.device)).latent_dist.mean.cpu() for p in parts]), path)
    return torch.load(path, weights_only=True)


def _train_unet(pools: list[Pictures], latents: list[Tensor], *, steps: int, batch: int, seed: int, work: Path):
    from diffusers import DDIMScheduler

    parts, tokens = Parts(), tokenizer()
    parts.unet.to(memory_format=torch.channels_last)
    scheduler = DDIMScheduler(**SCHEDULER)

    def error(model: Parts, rng: random.Random, pool: int, more: bool) -> Tensor:
        data, pictures = pools[pool], latents[pool]
        rows = data.choose(rng, batch, PEOPLE)
        say = lambda i: captions.drawing_caption(data.labels[i], rng, more)  # noqa: E731
        texts = ["" if rng.random() < DROPPED else say(i) for i in rows]
        ids = tokens(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        generator = torch.Generator().manual_seed(rng.getrandbits(40))
        clean = pictures[rows]
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = _timesteps(batch, generator)
        noisy, goal = scheduler.add_noise(clean, noise, timesteps), scheduler.get_velocity(clean, noise, timesteps)
        device = model.unet.device
        return F.mse_loss(model(noisy.to(device), timesteps.to(device), ids.to(device)).float(), goal.to(device))

    with nullcontext() if torch.cuda.is_available() else sdpa_kernel(SDPBackend.MATH):  # on CPU a seventh faster
        draw = lambda model, rng, progress: error(model, rng, progress >= WIDE, more=False)  # noqa: E731
        listen = lambda model, rng, progress: error(model, rng, 1, more=True)  # noqa: E731
        seconds = fit("unet", parts, draw, steps=steps, seed=seed, lr=6e-4, work=work)
        return parts, seconds + fit("unet-end", parts, listen, steps=END_STEPS, seed=seed, lr=2e-4, work=work)


def _timesteps(count: int, generator: torch.Generator) -> Tensor:
    """Timesteps to learn from: most in the middle, where the shape of things is decided, and a tenth anywhere."""
    share = torch.where(
        torch.rand(count, generator=generator) < 0.1,
        torch.rand(count, generator=generator),
        torch.randn(count, generator=generator).sigmoid(),
    )
    return (share * 1000).long()
