"""What the header of a file says of it: ModelSpec 1.0.0 and, beside kohya's keys, what kohya's trainer writes."""

import json
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

from razor.pipelines import native_size

RECIPE = "razor.recipe"
ONE_FILE = "https://github.com/Stability-AI/generative-models"  # whose names for the weights it has
_PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}


def recipe_header(recipe: Mapping) -> dict[str, str]:
    """The recipe as an entry of a header; nothing where there is none."""
    return {RECIPE: json.dumps(shareable(recipe))} if recipe else {}


def shareable(recipe: Mapping) -> dict:
    """The recipe without the places of the model and the pictures on this machine."""
    found = dict(recipe)
    if "name" in (model := recipe.get("model") or {}):
        found["model"] = {**model, "name": short_name(str(model["name"]))}
    if "origin" in (task := recipe.get("task") or {}):
        found["task"] = {**task, "origin": {side: short_name(str(place)) for side, place in task["origin"].items()}}
    return found


def short_name(name: str) -> str:
    """The name of a model or a set of pictures; of a folder or file on this machine its last part."""
    return Path(name).name if Path(name).is_absolute() or os.path.exists(name) else name


def modelspec(adapter, title: str, *, lora: bool, recipe: Mapping) -> dict[str, str]:
    """The header of a file of a diffusion model.

    Args:
        recipe: of the edit; empty where the file is to say nothing of it.
    """
    pipeline, (height, width) = adapter.pipeline, native_size(adapter.pipeline)
    found = {
        "sai_model_spec": "1.0.0",
        "architecture": _architecture(pipeline) + ("/lora" if lora else ""),
        "implementation": "diffusers" if lora else ONE_FILE,
        "title": title,
        "resolution": f"{width}x{height}",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "prediction_type": _PREDICTIONS.get(pipeline.scheduler.config.get("prediction_type")),
        "description": described(adapter, recipe),
    }
    return {f"modelspec.{key}": value for key, value in found.items() if value} | recipe_header(recipe)


def described(adapter, recipe: Mapping) -> str:
    """What was done to the model; "" where the recipe names nothing that was forgotten."""
    stack = [entry if isinstance(entry, str) else str(entry.get("name")) for entry in recipe.get("stack") or ()]
    names = stack or [name for name in [(recipe.get("task") or {}).get("concept")] if name]
    said = " and ".join(map(repr, names))
    return f"Makes {short_name(adapter.name)} forget {said}. Made with RAZOR Studio." if names else ""


def kohya_header(adapter, title: str, *, rank: int, alpha: float) -> dict[str, str]:
    """What web UIs look up to tell for which base model a LoRA is."""
    pipeline = adapter.pipeline
    xl, two = hasattr(pipeline, "text_encoder_2"), _is_two(pipeline)
    v = pipeline.scheduler.config.get("prediction_type") == "v_prediction"
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": f"{alpha:g}",
        "ss_base_model_version": "sdxl_base_v1-0" if xl else f"sd_v{1 + two}" + "_v" * v,
        "ss_v2": str(two),
        "ss_output_name": title,
    }


def _architecture(pipeline) -> str:
    if not hasattr(pipeline, "unet"):
        return "stable-diffusion-3"
    if hasattr(pipeline, "text_encoder_2"):
        return "stable-diffusion-xl-v1-base"
    v = pipeline.scheduler.config.get("prediction_type") == "v_prediction"
    return f"stable-diffusion-v2-{'768-v' if v else '512'}" if _is_two(pipeline) else "stable-diffusion-v1"


def _is_two(pipeline) -> bool:
    """Whether it is 2.x: its attention has linear layers around it, and it has one text encoder."""
    return not hasattr(pipeline, "text_encoder_2") and bool(pipeline.unet.config.use_linear_projection)
