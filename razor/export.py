"""Take an edit away: as a patch, a LoRA, or a full model, each whole or not at all, and loaded again to be compared.

When writing fails, or a person stops it, nothing is left behind and what was there before is there still (writing.py).
The model is edited only while its weights are read.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from razor import jsonio
from razor.errors import InputError, Stopped
from razor.lora import fit, tensors_of
from razor.models import BUNDLED
from razor.modelspec import kohya_header, modelspec, native_size, recipe_header, shareable, short_name
from razor.patches import Patch
from razor.reloading import Check, verify
from razor.single_file import as_one_file
from razor.writing import whole

__all__ = [
    "WHY_REDACTED",
    "Check",
    "Written",
    "compared",
    "sound",
    "verify",
    "write_full",
    "write_lora",
    "write_patch",
]

WHY_REDACTED = (
    "A patch, a LoRA or a recipe says which heads were edited, and from their places what was removed can be brought "
    "back (arXiv:2603.06640). A redacted export holds the merged weights alone. Whoever has the unedited model "
    "can still compare the two."
)
TOLERANCE = 1e-4  # of the answers' norm, by which those of an exact LoRA may differ
MARKS = ("model_index.json", "open_clip_config.json", "config.json", "adapter_config.json")  # a folder of a model


@dataclass(frozen=True)
class Written:
    """What was written."""

    path: Path
    bytes: int
    notes: tuple[str, ...] = ()  # what a person should know of it, a sentence each
    residual: float = 0.0  # of a LoRA: share of the change, by norm, that its ranks leave out
    ranks: Mapping[str, int] = field(default_factory=dict)  # of a LoRA: weight -> rank


def write_patch(adapter, patch: Patch, out: Path, *, replace: bool = False) -> Written:
    """Write the patch for use with this library. Arguments and errors as for `write_lora`."""
    out = _place(adapter, Path(out), "file", replace)
    patch.check(adapter.model)
    with whole(out, named=out.name, needed=4 * patch.parameters_edited) as (draft,):
        patch.with_recipe(shareable(patch.recipe)).save(draft)
    return Written(out, _size(out))


def write_lora(
    adapter,
    patch: Patch,
    out: Path,
    *,
    keys: str = "peft",
    rank: int | None = None,
    scale: float = 1.0,
    replace: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Written | None:
    """Write the edit as a LoRA: of a diffusion model one file, of any other a folder as PEFT writes it.

    Args:
        keys: "peft" for diffusers and PEFT, "kohya" for web UIs.
        rank: of each matrix at most; None for as much as makes it exact.
        scale: strength of the edit where the LoRA is loaded at 1.
        replace: whether what is there may be replaced.
        stop: asked now and then; True ends the work, and nothing is written.

    Returns:
        What was written, None where it was stopped.

    Raises:
        InputError: arguments that cannot be used, an edit that these keys do not hold, or a place that cannot be
            written.
        PatchError: the patch was made for another model.
    """
    if not abs(scale) < float("inf"):
        raise InputError(f"A scale of {scale} cannot be used; give a finite number, such as 1.")
    one_file = adapter.family == "diffusion"
    out = _place(adapter, Path(out), "file" if one_file else "folder", replace)
    with suppress(Stopped):
        lora, notes = fit(adapter, patch, keys, rank=rank, stop=stop)
        tensors, settings = tensors_of(adapter, lora, keys, scale)
        ranks = {weight: f.rank for weight, f in lora.factors.items()}
        with whole(out, named=out.name, needed=sum(t.nbytes for t in tensors.values())) as (draft,):
            _go_on(stop)
            if one_file:
                header = modelspec(adapter, out.stem, lora=True, recipe=patch.recipe)
                if keys == "kohya":
                    header |= kohya_header(adapter, out.stem, rank=max(ranks.values()), alpha=scale)
                else:
                    header["lora_adapter_metadata"] = json.dumps(
                        {start + key: value for start, own in settings.items() for key, value in own.items()}
                    )
                _save(tensors, draft, header)
            else:
                draft.mkdir()
                _save(tensors, draft / "adapter_model.safetensors", recipe_header(patch.recipe))
                jsonio.write(draft / "adapter_config.json", _peft_config(adapter) | settings[""])
            _go_on(stop)
        return Written(out, _size(out), notes, lora.residual, ranks)
    return None


def write_full(
    adapter,
    patch: Patch,
    out: Path,
    *,
    single_file: bool = False,
    redacted: bool = False,
    replace: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Written | None:
    """Write the edited model whole, as open_clip, diffusers or transformers saves it.

    Args:
        single_file: of a diffusion model, one file as it was first trained; otherwise a folder.
        redacted: say nothing of the edit beside the weights, see WHY_REDACTED.
        replace, stop: as for `write_lora`.

    Returns, Raises: as for `write_lora`; also InputError for an architecture without an exact form as one file.
    """
    if single_file and adapter.family != "diffusion":
        raise InputError(f"Only a diffusion model has the form of one file; export {adapter.name} as a folder.")
    out = _place(adapter, Path(out), "file" if single_file else "folder", replace)
    patch.check(adapter.model)
    recipe = {} if redacted else patch.recipe
    network = adapter.pipeline if adapter.family == "diffusion" else adapter.model
    with suppress(Stopped):
        with whole(out, named=out.name, needed=_bytes_of(network)) as (draft,):
            with patch.applied(adapter.model):
                if single_file:
                    tensors = _on_cpu(as_one_file(adapter.pipeline), stop)
                    title = short_name(adapter.name) if redacted else out.stem
                    _save(tensors, draft, modelspec(adapter, title, lora=False, recipe=recipe))
                else:
                    draft.mkdir()
                    _WRITERS[adapter.family](adapter, draft, stop)
            if not single_file:
                _forget_places(draft)
                if recipe:
                    jsonio.write(draft / "recipe.json", shareable(recipe))
            _go_on(stop)
        return Written(out, _size(out), _single_file_notes(adapter) if single_file else ())
    return None


def sound(written: Written, check: Check) -> bool:
    """What was written is the edit: bit for bit, or as a LoRA within TOLERANCE but for what its ranks leave out."""
    return check.exact or bool(written.ranks and (written.residual or check.difference <= TOLERANCE))


def compared(check: Check) -> str:
    """What came of loading it again, in a sentence."""
    if check.exact:
        return "Loaded again, it is the edited model bit for bit."
    return f"Loaded again, its answers differ from the edited model's by {check.difference:.1e} of their norm."


# ---------------------------------------------------------------- forms


def _write_diffusers(adapter, folder: Path, stop: Callable[[], bool]) -> None:
    from razor.pipelines import _quiet

    with _quiet():
        for name, part in adapter.pipeline.components.items():
            _go_on(stop)
            if isinstance(part, nn.Module):
                _write_network(part, folder / name, stop)
            elif part is not None:
                part.save_pretrained(folder / name)
        adapter.pipeline.save_config(folder)


def _write_network(network: nn.Module, folder: Path, stop: Callable[[], bool]) -> None:
    """A network of diffusers or transformers."""
    state = _on_cpu(network.state_dict(), stop)
    if hasattr(network, "save_config"):
        network.save_config(folder)
        _save(state, folder / "diffusion_pytorch_model.safetensors")
    else:
        network.save_pretrained(folder, state_dict=state)


def _write_open_clip(adapter, folder: Path, stop: Callable[[], bool]) -> None:
    jsonio.write(folder / "open_clip_config.json", _open_clip_config(adapter))
    tokenizer = getattr(adapter.tokenizer, "tokenizer", None)
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(folder)
    _save(_on_cpu(adapter.model.state_dict(), stop), folder / "open_clip_model.safetensors")


def _open_clip_config(adapter) -> dict:
    """The architecture of a CLIP as its folder, its hub model or open_clip itself describes it."""
    import open_clip
    from open_clip.transformer import QuickGELU

    place = _source(adapter) / "open_clip_config.json"
    if adapter.name.startswith("hf-hub:"):
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(adapter.name.removeprefix("hf-hub:"), place.name)
        place = Path(found if isinstance(found, str) else "")
    if place.is_file():
        config = json.loads(place.read_text("utf-8"))
    elif known := open_clip.get_model_config(adapter.name.partition("/")[0]):
        fast = any(isinstance(module, QuickGELU) for module in adapter.model.modules())
        preprocess = dict(getattr(adapter.model.visual, "preprocess_cfg", {}))
        config = {"model_cfg": known | {"quick_gelu": fast}, "preprocess_cfg": preprocess}
    else:
        raise InputError(
            f"{adapter.name} has no open_clip_config.json and is no architecture of open_clip, so a folder of it would "
            "not load; export a patch instead."
        )
    vision, hub = config["model_cfg"]["vision_cfg"], config["model_cfg"]["text_cfg"].get("hf_model_name")
    if hub or "/" in str(vision.get("timm_model_name", "")):
        raise InputError(
            f"{short_name(adapter.name)} takes a tower from a hub ({hub or vision['timm_model_name']}), and a folder "
            "must load without a network; export a patch instead."
        )
    return config


def _write_transformers(adapter, folder: Path, stop: Callable[[], bool]) -> None:
    from razor.pipelines import _quiet

    if getattr(adapter.model, "hf_quantizer", None) is not None:
        raise InputError(
            f"{short_name(adapter.name)} is loaded in few bits, and a full model is exported whole; load it in half "
            "precision, or export a patch."
        )
    with _quiet():
        _write_network(adapter.model, folder, stop)
        adapter.processor.save_pretrained(folder)


_WRITERS = {"diffusion": _write_diffusers, "clip": _write_open_clip, "vlm": _write_transformers}


def _peft_config(adapter) -> dict:
    """What PEFT expects of every LoRA; the base is named only where others can find it by that name."""
    base = adapter.name.removeprefix("hf-hub:") if adapter.name.startswith("hf-hub:") else None
    fixed = {"peft_type": "LORA", "base_model_name_or_path": base, "bias": "none", "lora_dropout": 0.0}
    return fixed | {"inference_mode": True, "task_type": None, "use_dora": False, "use_rslora": False}


def _single_file_notes(adapter) -> tuple[str, ...]:
    height, width = native_size(adapter.pipeline)
    predicts = adapter.pipeline.scheduler.config.prediction_type
    return (
        "One file does not say how the model draws: where a program does not find out by itself, set its prediction to "
        f"{predicts} and its size to {width} x {height} pixels.",
    )


def _forget_places(folder: Path) -> None:
    """Configurations say where a model was loaded from, which is nobody's business."""
    for path in folder.rglob("*.json"):
        found = json.loads(path.read_text("utf-8"))
        kept = _without(found, ("_name_or_path", "name_or_path"))
        if kept != found:
            jsonio.write(path, kept)


def _without(value, keys: tuple[str, ...]):
    if isinstance(value, dict):
        return {key: _without(entry, keys) for key, entry in value.items() if key not in keys}
    return [_without(entry, keys) for entry in value] if isinstance(value, list) else value


# ---------------------------------------------------------------- places


def _source(adapter) -> Path:
    """The folder or file of a model on this machine; a path to nothing where it has none."""
    return BUNDLED.get(adapter.name, Path(adapter.name))


def _place(adapter, out: Path, kind: str, replace: bool) -> Path:
    """Where to write, at the end of any link, once it is known to be free or to hold an export that may be replaced."""
    expected = "a .safetensors file" if kind == "file" else "a folder"
    if (out.suffix.lower() == ".safetensors") != (kind == "file"):
        raise InputError(f"{out.name} is the wrong kind of name for this export; give {expected}.")
    place, mine = out.resolve(), _source(adapter).resolve()
    if mine.exists() and (mine == place or place in mine.parents or mine in place.parents):
        is_it = "lies in" if mine in place.parents else "holds" if mine != place else "is"
        raise InputError(f"{out.name} {is_it} the model that is being edited; choose another place.")
    settled = place if out.is_symlink() else out
    if not out.exists():
        return settled
    if not replace:
        raise InputError(f"{out.name} exists already; choose another name, or allow it to be replaced.")
    if out.is_dir() != (kind == "folder"):
        raise InputError(f"{out.name} is not {expected}, so it is not replaced; choose another name.")
    of_model = any((out / mark).is_file() for mark in MARKS) and any(out.rglob("*.safetensors"))
    if out.is_dir() and any(out.iterdir()) and not of_model:
        raise InputError(f"{out.name} is a folder that holds no model, so it is not replaced; choose another name.")
    return settled


def _save(tensors: Mapping[str, Tensor], path: Path, header: Mapping[str, str] | None = None) -> None:
    save_file({name: t.contiguous() for name, t in tensors.items()}, path, {"format": "pt", **(header or {})})


def _on_cpu(tensors: Mapping[str, Tensor], stop: Callable[[], bool]) -> dict[str, Tensor]:
    found = {}
    for name, tensor in tensors.items():
        _go_on(stop)
        found[name] = tensor.detach().cpu().contiguous()
    return found


def _go_on(stop: Callable[[], bool]) -> None:
    if stop():
        raise Stopped("The export was stopped; nothing was written.")


def _bytes_of(model) -> int:
    """What the weights of a model or of all parts of a pipeline take."""
    parts = model.components.values() if hasattr(model, "components") else (model,)
    networks = (part for part in parts if isinstance(part, nn.Module))
    return sum(tensor.nbytes for network in networks for tensor in network.state_dict().values())


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(found.stat().st_size for found in (path, *path.rglob("*")) if found.is_file())
