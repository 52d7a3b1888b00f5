"""Load an export again and compare it with the edited model: weights bit for bit, and what both say."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from razor.errors import ModelError, RazorError
from razor.lora import read_lora
from razor.patches import Patch, model_lock
from razor.pipelines import _first_line

WORDS = "a red cat"


@dataclass(frozen=True)
class Check:
    """How an export compares with the edited model."""

    exact: bool  # all weights are equal bit for bit
    difference: float  # of what both say, relative to its norm; the largest of several answers
    bytes: int  # what was read


def verify(adapter, patch: Patch, path: Path, *, scale: float = 1.0) -> Check:
    """Load what was exported and compare it with the model under this patch. Leaves the model as found.

    A patch or a LoRA is applied to the model itself as its file says; a full model is loaded beside it.

    Args:
        scale: at which the LoRA was written.

    Raises:
        ModelError, PatchError: the export cannot be loaded.
    """
    path, patch = Path(path), patch.scaled(scale)
    size = sum(found.stat().st_size for found in (path, *path.rglob("*")) if found.is_file())
    with model_lock(adapter.model):
        read = _edit_in(path, adapter)
        exact, found, expected = _compare_full(adapter, patch, path) if read is None else _compare(adapter, patch, read)
    return Check(exact, max(_difference(a, b) for a, b in zip(found, expected, strict=True)), size)


def _compare(adapter, patch: Patch, read: Patch) -> tuple[bool, list[Tensor], list[Tensor]]:
    """Whether the weights are equal, and what the exported and the edited model say."""
    weights, said = [], []
    touched = {where.parameter for edit in (patch, read) for where in edit.deltas}
    for edit in (read, patch):
        with edit.applied(adapter.model):
            weights.append({name: adapter.model.get_parameter(name).detach().clone() for name in touched})
            said.append(_answers(adapter))
    return _equal(*weights), *said


def _compare_full(adapter, patch: Patch, path: Path) -> tuple[bool, list[Tensor], list[Tensor]]:
    other = _loaded(adapter, path)
    found = _answers(other)
    with patch.applied(adapter.model):
        return _equal(_weights(other), _weights(adapter)), found, _answers(adapter)


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Bit for bit, and in the same precision."""
    return one.keys() == other.keys() and all(
        tensor.dtype == other[name].dtype and torch.equal(tensor, other[name]) for name, tensor in one.items()
    )


def _difference(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm().clamp(min=1e-30)).item()


def _weights(adapter) -> dict[str, Tensor]:
    """All weights of a model; of a diffusion pipeline, those of its autoencoder too."""
    networks = {"": adapter.model}
    if adapter.family == "diffusion":
        parts = adapter.pipeline.components.items()
        networks = {name: part for name, part in parts if isinstance(part, nn.Module)}
    return {f"{part}.{name}": t for part, net in networks.items() for name, t in net.state_dict().items()}


# ---------------------------------------------------------------- loading


def _edit_in(path: Path, adapter) -> Patch | None:
    """The edit that a patch or a LoRA holds; None of a full model."""
    if path.is_dir():
        return read_lora(path, adapter) if (path / "adapter_model.safetensors").is_file() else None
    try:
        with safe_open(path, "pt") as opened:
            header, keys = opened.metadata() or {}, list(opened.keys())
    except (OSError, SafetensorError) as error:
        raise ModelError(f"The export {path.name} cannot be loaded again: {_first_line(error)}") from error
    if header.get("format") == "razor-patch-1":
        return Patch.load(path)
    return read_lora(path, adapter) if any("lora" in key for key in keys) else None


def _loaded(adapter, path: Path):
    """A full model from disk, as much of an adapter as `_answers` needs; never the one that is kept in memory."""
    try:
        return _LOADERS[adapter.family](adapter, path)
    except RazorError:
        raise
    except Exception as error:  # the libraries raise many kinds; all mean the same here
        raise ModelError(f"The export {path.name} cannot be loaded again: {_first_line(error)}") from error


def _load_clip(adapter, path: Path):
    from razor.models import _load

    return _load(str(path), str(adapter.device), None)


def _load_diffusion(adapter, path: Path):
    from razor import pipelines
    from razor.adapters.diffusion import DiffusionAdapter

    dtype = str(adapter.dtype).removeprefix("torch.")
    if path.is_dir():
        return DiffusionAdapter(
            pipelines.load_pipeline(str(path), device=str(adapter.device), dtype=dtype), name=adapter.name
        )
    with TemporaryDirectory() as place, pipelines._quiet():
        folder = Path(place)
        for name, part in adapter.pipeline.components.items():
            if hasattr(part, "save_config"):
                part.save_config(folder / name)
            elif part is not None:
                (part.config if isinstance(part, nn.Module) else part).save_pretrained(folder / name)
        adapter.pipeline.save_config(folder)
        layout = pipelines._layout(folder, path.name, pipelines._listing(folder), checkpoint=path)
        pipeline = pipelines._assemble(replace(layout, inside=tuple(layout.networks)), {}, adapter.dtype)
    for network in pipelines._networks(pipeline).values():
        network.to(adapter.device).eval().requires_grad_(False)
    return DiffusionAdapter(pipeline, name=adapter.name)


def _load_vlm(adapter, path: Path):
    from razor.pipelines import _quiet

    kinds = {"local_files_only": True, "trust_remote_code": False}
    with _quiet():
        model = type(adapter.model).from_pretrained(path, dtype=adapter.model.dtype, use_safetensors=True, **kinds)
        processor = type(adapter.processor).from_pretrained(path, **kinds)
    model = model.to(adapter.model.device).eval().requires_grad_(False)
    return SimpleNamespace(family="vlm", name=path.name, model=model, processor=processor)


_LOADERS = {"clip": _load_clip, "diffusion": _load_diffusion, "vlm": _load_vlm}


# ---------------------------------------------------------------- what a model says


@torch.no_grad()
def _answers(adapter) -> list[Tensor]:
    """What a model as it is now says of one picture, prompt or noise, as float32 on the CPU."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    if adapter.family == "diffusion":
        words = adapter.encode([WORDS])
        said = [words.states, adapter.predict(adapter.noise([0]), torch.tensor([300]), words)]
    elif adapter.family == "clip":
        pixels, tokens = adapter.pixels([picture]), adapter.tokenizer([WORDS])
        model, place = adapter.model, adapter.device
        said = [model.encode_image(pixels.to(place)), model.encode_text(tokens.to(place))]
    else:
        said = [_next_words(adapter.model, adapter.processor, picture)]
    return [answer.float().cpu() for answer in said]


def _next_words(model: nn.Module, processor, picture: Image.Image) -> Tensor:
    """How likely each word is after a question about the picture, (1, tokens, words)."""
    if getattr(processor, "chat_template", None):
        content = [{"type": "image"}, {"type": "text", "text": WORDS}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    else:
        text = f"{getattr(processor, 'image_token', '<image>')} {WORDS}"
    given = processor(images=[picture], text=[text], return_tensors="pt")
    like = next(p for p in model.parameters() if p.is_floating_point())
    placed = {k: t.to(like.device, like.dtype if t.is_floating_point() else None) for k, t in given.items()}
    return model(**placed).logits
