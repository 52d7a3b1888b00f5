"""Concept ablation: train keys and values of cross-attention to predict for the concept what the anchor gives.

Kumari et al., ICCV 2023, model-based. Pictures learnt on are drawn by the model for the anchors.
"""

import random
from dataclasses import replace

import torch

from razor.adapters.denoising import LEVELS, Points
from razor.adapters.diffusion import seeds_for
from razor.baselines.closed_form import pairs
from razor.baselines.denoising import Prompted, towards
from razor.baselines.training import RATE, train, trained_tensors
from razor.baselines.tuning import Tuning
from razor.errors import Stopped
from razor.patches import Patch
from razor.step import edited

PICTURES = 24  # drawn, one an anchor
DRAWS = 2  # noise levels each is seen at
UNSAID = "a picture"  # what is drawn where the anchor leaves everything out
GRID = tuple({RATE: rate} for rate in (3e-5, 1e-4, 3e-4, 1e-3))
_READING = ("to_k", "to_v", "add_k_proj", "add_v_proj")


def concept_ablation(tuning: Tuning) -> None:
    """min |v(x_a, c) - v_0(x_a, a)|^2 on pictures x_a of the anchors a."""
    points, names = anchor_points(tuning), keys_and_values(tuning)
    anchors = Prompted(tuning, points, [e.anchor for e in points.examples]).frozen()
    concept = Prompted(tuning, points, [e.caption for e in points.examples])
    for setting in tuning.settings(GRID):
        train(tuning, setting, names, towards(tuning, concept, anchors))


def keys_and_values(tuning: Tuning) -> list[str]:
    """The weights and biases that read the words."""
    return [name for name in trained_tensors(tuning.adapter) if name.split(".")[-2] in _READING]


def anchor_points(tuning: Tuning) -> Points:
    """Noised pictures of the anchors, DRAWS a picture, each example a forget one with its caption and anchor."""
    adapter, examples = tuning.adapter, {}
    for e in tuning.bench.task.forget.gradient:
        examples.setdefault((e.caption, e.anchor), e)
    asked = [examples[pair] for pair in pairs(tuning.bench.task.forget.gradient, PICTURES)]
    images = []
    with edited(adapter, tuning.bench, Patch()):
        for part in adapter.batches(asked):
            prompts, seeds = [e.anchor or UNSAID for e in part], seeds_for([e.source for e in part], tuning.seed)
            made = adapter.draw(prompts, seeds, steps=adapter.quick_steps, stop=tuning.stop)
            if len(made) < len(part):
                raise Stopped("Stopped before all pictures were drawn; nothing was changed.")
            images += made
    clean = adapter.latents(images).repeat_interleave(DRAWS, 0)
    repeated = tuple(replace(e, image=image) for e, image in zip(asked, images, strict=True) for _ in range(DRAWS))
    rng = random.Random(f"{tuning.seed}/anchors")
    low, high = LEVELS
    spread = [low + (high - low) * (i + 0.5) / len(repeated) for i in range(len(repeated))]
    rng.shuffle(spread)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(rng.getrandbits(40)))
    return Points(repeated, *adapter.noised(clean, noise, torch.tensor(spread)))
