"""What training the bundled models shares: the loop with its checkpoints, and mini-clip's blocks under other names."""

import copy
import math
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from razor.device import sped_up
from razor.minicanvas.judge import FOLDER
from razor.writing import whole

MINI_CLIP = FOLDER.parent / "mini-clip"


def clip_blocks(weights: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The blocks of an open_clip tower under the names that transformers gives a CLIP's."""
    names = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    names["attn.out_proj"] = "self_attn.out_proj"
    found = {}
    for layer in range(layers):
        here, there = f"transformer.resblocks.{layer}.", f"encoder.layers.{layer}."
        for kind in ("weight", "bias"):
            for a, b in names.items():
                found[f"{there}{b}.{kind}"] = weights[f"{here}{a}.{kind}"]
            for part, value in zip("qkv", weights[f"{here}attn.in_proj_{kind}"].chunk(3), strict=True):
                found[f"{there}self_attn.{part}_proj.{kind}"] = value
    return found


def fit(
    name: str,
    model: nn.Module,
    loss: Callable[[nn.Module, random.Random, float], Tensor],
    *,
    steps: int,
    seed: int,
    lr: float,
    work: Path,
) -> float:
    """Minimise `loss` with AdamW and a cosine schedule, and leave the averaged weights in `model`.

    A checkpoint is written to `work` every 100 steps and picked up again by a run with the same seed.

    Returns:
        Seconds spent, over all the runs it took.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    average = copy.deepcopy(model).requires_grad_(False)
    checkpoint, first, spent = work / f"{name}.pt", 0, 0.0
    saved = torch.load(checkpoint, map_location=device, weights_only=True) if checkpoint.exists() else {}
    if saved and saved.get("seed", seed) == seed:
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        first, spent = saved["step"], saved["seconds"]
    started, recent = time.monotonic() - spent, []
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min((step + 1) / 100, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        with sped_up(device):
            value = loss(model, random.Random(f"{name}/{seed}/{step}"), step / steps)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            share = 1 - min(0.998, (step + 1) / (step + 10))
            for kept, now in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
                kept.lerp_(now, share) if kept.is_floating_point() else kept.copy_(now)
        recent.append(value.item())
        if (step + 1) % 50 == 0:
            print(
                f"{name} {step + 1}  loss {sum(recent) / len(recent):.4f}  {time.monotonic() - started:.0f} s",
                flush=True,
            )
            recent = []
        if (step + 1) % 100 == 0 or step + 1 == steps:
            state = {"model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"step": step + 1, "seconds": time.monotonic() - started, "seed": seed}
            with whole(checkpoint) as (part,):
                torch.save(state, part)
    model.load_state_dict(average.state_dict())
    return time.monotonic() - started
