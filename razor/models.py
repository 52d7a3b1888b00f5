"""Find and load a model safely: bundled, from a local folder or file, or from a hub when asked for by name.

Only safetensors are read from disk; a pickle is refused. Nothing is fetched unless the name is a hub model's.
"""

import json
import logging
import threading
from pathlib import Path

from razor.adapters.base import Adapter
from razor.adapters.clip import ClipAdapter
from razor.errors import ModelError
from razor.judges import ClipJudge, WorldJudge

ASSETS = Path(__file__).resolve().parent.parent / "assets"
BUNDLED = {path.name: path for path in (ASSETS / "models" / name for name in ("mini-clip", "mini-sd")) if path.exists()}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

_loaded: dict[tuple[str, str], Adapter] = {}
_loading = threading.Lock()


def load(name: str, *, device: str | None = None) -> Adapter:
    """The model behind a name; loaded once and shared, since nothing but Patch.applied writes to it.

    Args:
        name: "mini-clip" or "mini-sd"; the path of an open_clip folder (open_clip_config.json and a .safetensors
            file), of a diffusers folder (model_index.json) or of a .safetensors checkpoint of Stable Diffusion; an
            open_clip "architecture/pretrained" such as "ViT-B-32/laion2b_s34b_b79k"; or "hf-hub:owner/model" of either
            kind.
        device: "cpu", "cuda", ...; default: CUDA where there is one.

    Raises:
        ModelError: no such model, unsafe or broken files, or a model without editable heads.
    """
    import torch

    key = name.strip(), device or ("cuda" if torch.cuda.is_available() else "cpu")
    if key in _loaded:
        return _loaded[key]  # not waiting for somebody else's download
    with _loading:
        if key not in _loaded:
            _loaded[key] = _load(*key)
        return _loaded[key]


def with_judge(adapter: Adapter, name: str) -> Adapter:
    """Let an unedited CLIP look at the pictures a diffusion model draws.

    Raises:
        ModelError: the model draws no pictures, or the name is no CLIP's.
    """
    clip = load(name)
    if adapter.family != "diffusion" or clip.family != "clip":
        raise ModelError(f"{name!r} cannot judge {adapter.name!r}: a judge is a CLIP that looks at drawn pictures.")
    adapter.judge = ClipJudge(clip)
    return adapter


def card(name: str) -> dict:
    """What is known of a bundled model: licence, accuracy, the command that made it; {} for any other."""
    path = BUNDLED.get(name, Path()) / "card.json"
    return json.loads(path.read_text()) if name in BUNDLED and path.exists() else {}


def _load(name: str, device: str) -> Adapter:
    if not name:
        raise ModelError("Name a model: mini-clip, mini-sd, a local folder, or architecture/pretrained.")
    path = BUNDLED.get(name, Path(name))
    if path.is_dir():
        diffusion = (path / "model_index.json").is_file()
        return _diffusion(name, path, device) if diffusion else _from_folder(path, name, device)
    if path.suffix.lower() in PICKLES:
        raise ModelError(f"{name} is a pickle, which can run code when opened; convert it to safetensors first.")
    if path.suffix.lower() == ".safetensors" and (path.parent / "open_clip_config.json").is_file():
        raise ModelError(
            f"{name} is a single file; give the folder that holds open_clip_config.json and the .safetensors file."
        )
    if path.suffix.lower() == ".safetensors":
        return _diffusion(name, path, device)
    if path.exists():
        raise ModelError(
            f"{name} is neither a folder nor a .safetensors checkpoint; give an open_clip or diffusers folder."
        )
    if name.startswith("hf-hub:") and _is_pipeline(repository := name.removeprefix("hf-hub:")):
        return _diffusion(name, repository, device)
    if name.startswith("hf-hub:"):
        _refuse_code(_hub_text_config(name.removeprefix("hf-hub:")), name)
        return _from_open_clip(name, None, name, device)
    architecture, _, pretrained = name.partition("/")
    import open_clip

    if architecture in open_clip.list_models():
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        if pretrained not in tags:
            raise ModelError(
                f"{architecture} has no weights named {pretrained!r}; pick one of {', '.join(tags) or '-'}."
            )
        return _from_open_clip(architecture, pretrained, name, device)
    raise ModelError(
        f"No model {name!r}: it is not bundled ({', '.join(BUNDLED)}), not a folder or file, and not an open_clip "
        "architecture/pretrained such as ViT-B-32/laion2b_s34b_b79k. For a model on a hub write hf-hub:owner/model."
    )


def _is_pipeline(repository: str) -> bool:
    """Whether a hub model is a pipeline of diffusers; asks the hub where the cache does not know."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(repository, "model_index.json"), str):
        return True
    try:
        return HfApi().file_exists(repository, "model_index.json")
    except Exception:  # whatever is wrong is said by whoever loads it
        return False


def _diffusion(name: str, source: Path | str, device: str) -> Adapter:
    """A pipeline of diffusers, from disk or, where the source is a name, from the hub."""
    from razor.adapters.diffusion import DiffusionAdapter
    from razor.pipelines import load_pipeline

    pipeline = load_pipeline(str(source), device=device, offline=isinstance(source, Path))
    if name in BUNDLED:
        drawn = card(name)["drawn"]
        return DiffusionAdapter(
            pipeline, name=name, judge=WorldJudge(), guidance=drawn["guidance"], steps=drawn["steps"]
        )
    return DiffusionAdapter(pipeline, name=name)


def _from_folder(path: Path, name: str, device: str) -> ClipAdapter:
    """A folder as open_clip writes it: open_clip_config.json, one .safetensors file, maybe a tokenizer."""
    config_path = path / "open_clip_config.json"
    if not config_path.is_file():
        raise ModelError(f"{name} has no open_clip_config.json; give a folder as open_clip saves it.")
    try:
        config = json.loads(config_path.read_text("utf-8"))["model_cfg"]
        text, vision = dict(config["text_cfg"]), dict(config["vision_cfg"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{config_path.name} of {name} is not an open_clip configuration ({error!r}).") from error
    _refuse_code(text, name)
    hub_text = text.get("hf_model_name")
    if hub_text or "/" in str(vision.get("timm_model_name", "")):
        raise ModelError(
            f"{name} takes a tower from a hub ({hub_text or vision['timm_model_name']}), and a local folder must load "
            "without a network; load it by its hub name instead."
        )
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        pickles = [p.name for p in path.iterdir() if p.suffix in PICKLES]
        found = f"only {pickles[0]}, a pickle, which can run code when opened" if pickles else "no weights"
        raise ModelError(f"{name} holds {found}; save the weights as open_clip_model.safetensors.")
    preferred = [p for p in weights if p.name == "open_clip_model.safetensors"]
    return _from_open_clip(f"local-dir:{path}", None, name, device, weights=(preferred or weights)[0])


def _hub_text_config(repository: str) -> dict:
    """The text part of a hub model's configuration, read before anything of it is built."""
    from open_clip.factory import _get_hf_config

    try:
        return dict(_get_hf_config(repository)["model_cfg"]["text_cfg"])
    except Exception as error:  # the hub client raises many kinds; all mean the same here
        raise ModelError(f"Cannot read the configuration of {repository!r}: {_first_line(error)}") from error


def _refuse_code(text: dict, name: str) -> None:
    """A tokenizer may ask to run Python that comes with the model; that is never done."""
    if "trust_remote_code" in dict(text.get("tokenizer_kwargs") or {}):
        raise ModelError(
            f"{name} asks to run code that comes with its tokenizer (trust_remote_code), which is refused."
        )


def _from_open_clip(model: str, pretrained: str | None, name: str, device: str, weights: Path | None = None):
    """Build, fill and wrap; anything open_clip or the files object to becomes one sentence."""
    import open_clip
    from open_clip.factory import load_checkpoint

    logging.disable(logging.WARNING)  # open_clip warns of random weights before they are filled in below
    try:
        network, _, preprocess = open_clip.create_model_and_transforms(
            model,
            pretrained,
            device=device,
            load_weights=weights is None,
            require_pretrained=weights is None,
            pretrained_text=False,
        )
        if weights is not None:
            load_checkpoint(network, str(weights), strict=True, device="cpu")
        tokenizer = open_clip.get_tokenizer(model)
    except Exception as error:  # open_clip, safetensors and the hub raise many kinds; all mean the same here
        raise ModelError(f"Cannot load {name!r}: {_first_line(error)}") from error
    finally:
        logging.disable(logging.NOTSET)
    return ClipAdapter(network, preprocess, tokenizer, name=name)


def _first_line(error: Exception) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if len(text) < 240 else text[:240] + "..."
