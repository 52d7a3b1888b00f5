"""Text-to-image diffusion through diffusers: any pipeline of text encoders and a UNet or a joint transformer.

What is editable is found by structure: heads and MLPs of every text encoder, and the heads through which the denoiser
reads the words: cross-attention in a UNet, the text stream in a joint transformer. The denoiser's own attention over
the picture is there too, for a person to open to growth.
"""

import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from razor.adapters.denoising import ADVICE, DiffusionBench, overflowed
from razor.errors import InputError
from razor.examples import Task
from razor.judges import Judge, WorldJudge
from razor.memory import enough_memory, run_again
from razor.minicanvas.dataset import AXES
from razor.patches import Patch, fingerprint, model_lock
from razor.pictures import together_at
from razor.units import Unit, find_units, tower_of

T = TypeVar("T")
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
DENOISERS = ("unet", "transformer")
_TOWERS = {
    "text_encoder": {"text": r"text_encoder\."},
    "text_encoder_2": {"text2": r"text_encoder_2\."},
    "text_encoder_3": {"text3": r"text_encoder_3\."},
    "unet": {"cross": r"unet\..*\.attn2\.", "self": r"unet\."},
    "transformer": {
        "context": r"transformer\..*\.(add_[qkv]_proj|to_add_out|ff_context|norm1_context)\.",
        "self": r"transformer\.",
    },
}
MAX_STEPS, MAX_SIDE = 200, 2048
WARM_UP = 4  # steps at least where a scheduler begins with Runge-Kutta steps
MAX_T5 = 256  # tokens of the third encoder, as the pipeline pads them
SMALL = 128  # pixels a side up to which a step takes as many pictures as on mini-sd
TOGETHER = 32  # pictures drawn at a time at most
ENCODED = 2  # a picture to encode is given the room of drawing one of so many times the side


@dataclass(frozen=True)
class Words:
    """Prompts as the denoiser reads them."""

    states: Tensor  # (n, tokens, width)
    pooled: Tensor | None  # (n, width) where the denoiser takes a summary too

    def __getitem__(self, rows) -> "Words":
        return Words(self.states[rows], None if self.pooled is None else self.pooled[rows])

    def to(self, device: torch.device) -> "Words":
        return Words(self.states.to(device), None if self.pooled is None else self.pooled.to(device))


class DiffusionAdapter:
    """A diffusion pipeline as the library sees it. Shared by all sessions; only Patch.applied writes to it.

    Args:
        judge: says what a drawn picture shows; None where nothing here can.
        guidance, steps: how pictures are drawn unless said otherwise.
        batch: retain pictures per inner step unless the settings say otherwise; default 32 where pictures are small,
            else 8.
    """

    family = "diffusion"
    embeds = False
    forget_losses: Mapping[str, Sequence[str]] = {}

    def __init__(
        self,
        pipeline,
        *,
        name: str,
        judge: Judge | None = None,
        guidance: float = 7.5,
        steps: int = 30,
        batch: int | None = None,
    ):
        self.pipeline, self.name, self.judge = pipeline, name, judge
        self.of_world = isinstance(judge, WorldJudge)  # it draws the bundled world, whoever looks at that later
        self.guidance, self.steps = guidance, steps
        parts = {
            part: found for part in (*ENCODERS, *DENOISERS) if (found := getattr(pipeline, part, None)) is not None
        }
        self.model = nn.ModuleDict(parts).eval()
        for parameter in (*self.model.parameters(), *pipeline.vae.parameters()):
            parameter.requires_grad_(False)
        self.denoiser = parts[next(part for part in DENOISERS if part in parts)]
        self.towers: Mapping[str, str] = {k: v for part in parts for k, v in _TOWERS[part].items()}
        # In mini-sd a round on the text encoder met the target where six on cross-attention did not: growth keeps to
        # the encoders, and a person may open the denoiser to it.
        self.growing = tuple(tower for tower in self.towers if tower.startswith("text"))
        self.joint = "transformer" in parts  # a joint transformer trained by flow matching
        self.side = self.native_side
        self.batch = batch or (32 if self.side <= SMALL else 8)
        self.reruns = self.side > SMALL  # for a gradient the denoiser's blocks keep their inputs and run again
        if self.reruns:
            self.denoiser.enable_gradient_checkpointing(run_again)
        self._say_no_cuts()

    # What the method asks for

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.denoiser.parameters()).dtype

    def units(self, kinds: Sequence[str] = ("head", "mlp"), towers: Sequence[str] | None = None) -> list[Unit]:
        """Everything that can be edited. Layers whose output the pipeline does not read have no units."""
        found = find_units(self.model, self.towers, kinds)
        last = {u.tower: u.layer for u in found}
        # SDXL takes the states before the last layer, and its summary from the second encoder alone.
        unread = {"text"} if "text2" in self.towers and not self.joint else set()
        read = [u for u in found if not (u.tower in unread and u.layer == last[u.tower])]
        return [u for u in read if towers is None or u.tower in towers]

    def tower_of(self, parameter: str) -> str:
        """Which tower a parameter belongs to."""
        return tower_of(self.towers, parameter)

    def fingerprint(self) -> str:
        """A hash of all weights that can be edited, taken once: only a patch changes them, and that undoes itself."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self.model)

    def bench(
        self,
        task: Task,
        *,
        batch: int | None = None,
        mismatch_weight: float = 1.0,
        seed: int = 0,
        beneath: Patch = Patch(),
    ) -> DiffusionBench:
        """The task, made ready to run on this model as it is with `beneath` applied."""
        if not self.of_world and task.origin.get("forget", "").partition(":")[0] in AXES:
            raise InputError(
                f"{task.concept!r} is a thing of the bundled world, which {self.name} never saw. Name what it should "
                "forget in words, or bring pictures of your own."
            )
        with beneath.applied(self.model):
            return DiffusionBench(
                self, task, batch=batch or self.batch, mismatch_weight=mismatch_weight, seed=seed, beneath=beneath
            )

    # Words

    def encode(self, prompts: Sequence[str]) -> Words:
        """Prompts as the denoiser reads them, with a graph where gradients are on."""
        more = {"prompt_2": None, "prompt_3": None} if self.joint else {}
        found = self.pipeline.encode_prompt(
            prompt=list(prompts),
            device=self.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
            **more,
        )
        return Words(found[0], found[2] if len(found) == 4 else None)

    def tokenizers(self) -> list[tuple]:
        """(tokenizer, length) of each stretch of the states `encode` gives.

        Where the third encoder is left out, zeros follow, which are no stretch.
        """
        stretches = [(self.pipeline.tokenizer, self.pipeline.tokenizer.model_max_length)]
        if "text3" in self.towers:
            stretches.append((self.pipeline.tokenizer_3, MAX_T5))
        return stretches

    def tokens(self, prompt: str) -> list[str]:
        """The words of a prompt as the first text encoder reads them, start and end included."""
        tokenizer = self.pipeline.tokenizer
        ids = tokenizer(prompt, truncation=True, max_length=tokenizer.model_max_length).input_ids
        return tokenizer.convert_ids_to_tokens(ids)

    def _say_no_cuts(self) -> None:
        """Neither diffusers nor transformers is to log prompts that are too long: `cut` tells, and what is asked for
        is nobody else's to read."""
        logging.getLogger(type(self.pipeline).__module__).addFilter(_of_no_cut)
        for part in TOKENIZERS:
            if (tokenizer := getattr(self.pipeline, part, None)) is not None:
                tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True

    def cut(self, prompt: str) -> str:
        """What of a prompt some text encoder does not read, the longest such end of it; "" for nothing."""
        found = []
        for part in TOKENIZERS:
            if (tokenizer := getattr(self.pipeline, part, None)) is not None:
                limit = MAX_T5 if part == "tokenizer_3" else tokenizer.model_max_length
                ids = tokenizer(prompt, truncation=False, verbose=False).input_ids
                # The mark at the end stays; what is cut stands before it.
                found.append(tokenizer.decode(ids[limit - 1 : -1]).strip() if len(ids) > limit else "")
        return max(found, key=len)

    # Pictures and noise

    @property
    def scale(self) -> int:
        """Pixels a side of one latent."""
        return 2 ** (len(self.pipeline.vae.config.block_out_channels) - 1)

    @property
    def width(self) -> int:
        """Numbers a latent place takes in the denoiser's first layer."""
        made = self.denoiser.config
        if self.joint:
            return made.num_attention_heads * made.attention_head_dim // made.patch_size**2
        return made.block_out_channels[0]

    @property
    def native_side(self) -> int:
        """Pixels a side of the pictures it was trained on, the shorter one."""
        from razor.pipelines import native_size

        return min(native_size(self.pipeline))

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """Pictures as the autoencoder reads them, (n, 3, side, side) in -1..1: cut to a square, then resized."""
        squares = []
        for image in images:
            width, height = image.size
            edge = min(width, height)
            box = ((width - edge) // 2, (height - edge) // 2, (width + edge) // 2, (height + edge) // 2)
            square = image.convert("RGB").crop(box).resize((self.side, self.side), Image.Resampling.BICUBIC)
            squares.append(torch.from_numpy(np.array(square)))
        return torch.stack(squares).permute(0, 3, 1, 2).float() / 127.5 - 1

    @torch.no_grad()
    def latents(self, images: Sequence[Image.Image]) -> Tensor:
        """What the denoiser works on, (n, channels, h, w), on the CPU."""
        found = []
        with self._autoencoder() as vae:
            for part in self.pixels(images).split(together_at(ENCODED * self.side)):
                mean = vae.encode(part.to(self.device, vae.dtype)).latent_dist.mean.float().cpu()
                found.append((mean - (vae.config.shift_factor or 0)) * vae.config.scaling_factor)
        return torch.cat(found)

    @contextmanager
    def _autoencoder(self) -> Iterator[nn.Module]:
        """The autoencoder for the length of the block: in float32 where float16 would overflow, then as found."""
        vae = self.pipeline.vae
        with model_lock(self.model):
            before = vae.dtype
            try:
                if before == torch.float16 and vae.config.force_upcast:
                    vae.to(torch.float32)
                yield vae
            finally:
                if vae.dtype != before:
                    vae.to(before)

    def noise(self, seeds: Sequence[int], side: int | None = None) -> Tensor:
        """Initial noise (n, channels, h, w) by seed, made on the CPU: the same on every machine and for every edit."""
        shape = (self.denoiser.config.in_channels, *((side or self.side) // self.scale,) * 2)
        made = (torch.randn(shape, generator=torch.Generator("cpu").manual_seed(int(seed))) for seed in seeds)
        return torch.stack(list(made))

    def noised(self, clean: Tensor, noise: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latents at a noise level in 0..1, the timesteps the denoiser is told, and what it was trained to predict.

        Covers epsilon, sample and v prediction (x_t = sqrt(a) x + sqrt(1 - a) e) and flow matching
        (x_t = (1 - s) x + s e, target e - x).
        """
        column = (-1, 1, 1, 1)
        if self.joint:
            sigma = level.reshape(column)
            return (1 - sigma) * clean + sigma * noise, 1000 * level, noise - clean
        alphas = self.pipeline.scheduler.alphas_cumprod.cpu().float()
        timesteps = (level * (len(alphas) - 1)).round().long()
        a = alphas[timesteps].reshape(column)
        noisy = a.sqrt() * clean + (1 - a).sqrt() * noise
        kind = self.pipeline.scheduler.config.prediction_type
        targets = {"epsilon": noise, "sample": clean, "v_prediction": a.sqrt() * noise - (1 - a).sqrt() * clean}
        return noisy, timesteps, targets[kind]

    def predict(self, noisy: Tensor, timesteps: Tensor, words: Words) -> Tensor:
        """What the denoiser predicts, (n, channels, h, w) in float32, with a graph where gradients are on."""
        noisy, timesteps = noisy.to(self.device, self.dtype), timesteps.to(self.device)
        words = words.to(self.device)
        if self.joint:
            found = self.denoiser(
                hidden_states=noisy,
                timestep=timesteps,
                encoder_hidden_states=words.states.to(self.dtype),
                pooled_projections=words.pooled.to(self.dtype),
            )
        else:
            found = self.denoiser(
                noisy,
                timesteps,
                encoder_hidden_states=words.states.to(self.dtype),
                added_cond_kwargs=self._added(words, noisy),
            )
        return found.sample.float()

    def _added(self, words: Words, noisy: Tensor) -> dict[str, Tensor] | None:
        """What SDXL is told besides: the summary of the prompt and the picture's size."""
        if words.pooled is None:
            return None
        height, width = (edge * self.scale for edge in noisy.shape[-2:])
        ids = torch.tensor([[height, width, 0, 0, height, width]], dtype=self.dtype, device=self.device)
        return {"text_embeds": words.pooled.to(self.dtype), "time_ids": ids.repeat(len(noisy), 1)}

    # Drawing

    @property
    def quick_steps(self) -> int:
        """Steps of a picture that is learnt from or checked, not shown: half the usual ones."""
        return max(self.fewest_steps, self.steps // 2)

    @property
    def fewest_steps(self) -> int:
        """PNDM may begin with Runge-Kutta steps."""
        scheduler = self.pipeline.scheduler
        warms_up = type(scheduler).__name__ == "PNDMScheduler" and not scheduler.config.skip_prk_steps
        return WARM_UP if warms_up else 1

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        side: int | None = None,
        on_step: Callable[[int, Tensor], None] = lambda step, latents: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> list[Image.Image]:
        """Draw one picture a prompt from the noise of its seed, with the model as it is now.

        Args:
            side: pixels a side; default the model's own.
            on_step: called after each step with its number from 1 and the latents, for `preview`.
            stop: asked after each step; True ends the drawing and gives no pictures.

        Raises:
            InputError: steps, guidance or size that cannot be drawn.
            ModelError: the numbers overflowed, or memory ran out.
        """
        steps, guidance = self.steps if steps is None else steps, self.guidance if guidance is None else guidance
        side = self.side if side is None else side
        self.check_drawing(prompts, steps, guidance, side)
        assert len(seeds) == len(prompts), "one seed a prompt"
        steps, side = int(steps), int(side)
        stopped = False

        def after(pipeline, step: int, _timestep, tensors: dict) -> dict:
            nonlocal stopped
            on_step(step + 1, tensors["latents"])
            if stop():
                pipeline._interrupt = stopped = True
            return tensors

        with model_lock(self.model):
            precision = self.pipeline.vae.dtype
            try:
                with enough_memory(f"drawing {len(prompts)} pictures of {side} pixels", ADVICE):
                    found = self.pipeline(
                        prompt=list(prompts),
                        latents=self.noise(seeds, side).to(self.device, self.dtype),
                        generator=[torch.Generator("cpu").manual_seed(int(seed)) for seed in seeds],
                        height=side,
                        width=side,
                        num_inference_steps=steps,
                        guidance_scale=guidance,
                        callback_on_step_end=after,
                        output_type="np",
                    ).images
            finally:  # XL's pipeline leaves its autoencoder in float32 when its last step fails
                if self.pipeline.vae.dtype != precision:
                    self.pipeline.vae.to(precision)
        if stopped:
            return []
        if not np.isfinite(found).all():
            networks = self.model, self.pipeline.vae
            raise overflowed("The pictures came out as NaN", self.name, self.dtype, *networks)
        return [Image.fromarray((image * 255).round().clip(0, 255).astype("uint8")) for image in found]

    def check_drawing(self, prompts: Sequence[str], steps: int, guidance: float, side: int) -> None:
        """Raise InputError for what cannot be drawn."""
        if any(not str(prompt).strip() for prompt in prompts) or not prompts:
            raise InputError("A prompt is empty; say what to draw, such as 'a picture of a cat'.")
        if isinstance(steps, bool) or not self.fewest_steps <= steps <= MAX_STEPS or int(steps) != steps:
            raise InputError(
                f"{steps!r} steps cannot be drawn; give a whole number from {self.fewest_steps} to {MAX_STEPS}."
            )
        if not 0 <= guidance <= 50:
            raise InputError(f"Guidance is {guidance!r}; it must be a number from 0 to 50 (1 is none).")
        grain, most = self._sides()
        if not max(grain, 2 * self.scale) <= side <= most or side % grain:
            raise InputError(
                f"A side of {side:g} pixels cannot be drawn; give a multiple of {grain} up to {most}. "
                f"This model was trained at {self.native_side}."
            )

    def batches(self, asked: Sequence[T]) -> Iterator[Sequence[T]]:
        """What is to be drawn, as many at a time as fit: TOGETHER of small pictures, fewer of large ones."""
        size = together_at(self.side, TOGETHER)
        for start in range(0, len(asked), size):
            yield asked[start : start + size]

    def _sides(self) -> tuple[int, int]:
        """Sides that can be drawn, in pixels: multiples of the first number up to the second."""
        if not self.joint:
            return max(8, self.scale), MAX_SIDE
        patch, places = self.denoiser.config.patch_size, self.denoiser.config.pos_embed_max_size
        return max(8, patch * self.scale), min(MAX_SIDE, places * patch * self.scale)

    @torch.no_grad()
    def preview(self, latents: Tensor) -> list[Image.Image]:
        """What the latents of a picture under way look like; noisy at first."""
        with self._autoencoder() as vae:
            scaled = latents.to(self.device) / vae.config.scaling_factor + (vae.config.shift_factor or 0)
            pixels = vae.decode(scaled.to(vae.dtype)).sample.float().clamp(-1, 1).cpu()
        levels = ((pixels + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        return [Image.fromarray(picture) for picture in levels]


def _of_no_cut(record: logging.LogRecord) -> bool:
    return "part of your input was truncated" not in record.getMessage()


def seeds_for(keys: Sequence[str], seed: int = 0) -> list[int]:
    """One picture seed a key, the same on every machine."""
    return [random.Random(f"{seed}/{key}").getrandbits(31) for key in keys]
