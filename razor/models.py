"""Find and load a model safely: bundled, from a local folder or file, or from a hub when asked for by name.

Only safetensors are read from disk; a pickle is refused. Nothing is fetched unless the name is a hub model's.
"""

import copy
import gc
import json
import logging
import threading
from pathlib import Path
from weakref import WeakValueDictionary

from razor.adapters.base import Adapter
from razor.adapters.clip import ClipAdapter
from razor.errors import ModelError
from razor.judges import ClipJudge, WorldJudge

ASSETS = Path(__file__).resolve().parent.parent / "assets"
_NAMES = ("mini-clip", "mini-sd", "mini-vlm")
BUNDLED = {path.name: path for path in (ASSETS / "models" / name for name in _NAMES) if path.exists()}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

_KINDS = ("model_index.json", "config.json", "open_clip_config.json")  # files that say of what kind a model is

KEPT = 2  # models besides the bundled ones that stay loaded though nobody may be working on them

Key = tuple[str, str, str | None, int | None]  # name, device, dtype, bits

_loaded: dict[Key, Adapter] = {}  # what is kept, the last one asked for at the end
_alive: "WeakValueDictionary[Key, Adapter]" = WeakValueDictionary()  # and all that somebody still holds: one copy each
_shelf = threading.Lock()  # guards both
_loading = threading.Lock()


def load(name: str, *, device: str | None = None, dtype: str | None = None, bits: int | None = None) -> Adapter:
    """The model behind a name; shared, since nothing but Patch.applied writes to it.

    Loaded once for as long as somebody holds it; bundled models and the last two others also after that.

    >>> clip = load("mini-clip")
    >>> clip.family, len(clip.units()), clip.units()[0].name
    ('clip', 72, 'image.0.head.0')
    >>> load("mini-clip") is clip
    True

    Args:
        name: "mini-clip", "mini-sd" or "mini-vlm"; the path of an open_clip folder (open_clip_config.json and a
            .safetensors file), of a diffusers folder (model_index.json), of a transformers folder of a vision-language
            model (config.json) or of a .safetensors checkpoint of Stable Diffusion; an open_clip
            "architecture/pretrained" such as "ViT-B-32/laion2b_s34b_b79k"; or "hf-hub:owner/model" of any kind.
        device: "cpu", "cuda", ...; default: CUDA where there is one. "auto" spreads a vision-language model over all
            cards; other models fit one.
        dtype: precision of a model that draws or answers, "float32", "float16" or "bfloat16"; default half precision
            on CUDA, float32 on a CPU and for bundled models, whose edits fit wherever they were made. A CLIP is always
            float32.
        bits: 8 or 4 stores the language model of a vision-language model in so many; see load_vlm.

    Raises:
        InputError: another number of bits.
        ModelError: no such model, unsafe or broken files, a model without editable heads, too little memory, or a
            dtype or bits that this model or device cannot use.
    """
    from razor.device import default_device

    name = name.strip()
    key = name, device or default_device(), dtype or ("float32" if name in BUNDLED else None), bits
    if (adapter := _known(key)) is not None:
        return adapter  # not waiting for somebody else's download
    with _loading:
        if (adapter := _known(key)) is None:
            adapter = _load(*key)
            if bits is not None and adapter.family != "vlm":
                raise ModelError(f"{name} is loaded whole: only a vision-language model can be stored in {bits} bits.")
            _keep(key, adapter)
        return adapter


def on_this_machine(name: str) -> bool:
    """Whether loading it takes nothing but what is here already."""
    with _shelf:
        loaded = any(name == known for known, *_ in (*_loaded, *_alive))
    try:
        return loaded or name in BUNDLED or Path(name).exists()
    except (OSError, ValueError):  # a name no file system takes
        return False


def with_judge(adapter: Adapter, name: str) -> Adapter:
    """The diffusion model, with an unedited CLIP to look at the pictures it draws.

    A view: it shares the network, its lock and all edits with the adapter, which keeps its own judge.

    Raises:
        ModelError: the model draws no pictures, or the name is no CLIP's.
    """
    clip = load(name)
    if adapter.family != "diffusion" or clip.family != "clip":
        raise ModelError(f"{name!r} cannot judge {adapter.name!r}: a judge is a CLIP that looks at drawn pictures.")
    view = copy.copy(adapter)
    view.judge = ClipJudge(clip)
    view.viewed = adapter  # as long as the view is in use, nobody loads the network a second time
    return view


def stays(adapter: Adapter) -> bool:
    """It is a bundled model itself, not a view of one, and stays loaded."""
    with _shelf:
        return any(kept is adapter for key, kept in _loaded.items() if key[0] in BUNDLED)


def card(name: str) -> dict:
    """What is known of a bundled model: licence, accuracy, the command that made it; {} for any other."""
    path = BUNDLED.get(name, Path()) / "card.json"
    return json.loads(path.read_text()) if name in BUNDLED and path.exists() else {}


def _known(key: Key) -> Adapter | None:
    """The model if it is loaded, which counts as asking for it."""
    if (adapter := _alive.get(key)) is not None:
        _keep(key, adapter)
    return adapter


def _keep(key: Key, adapter: Adapter) -> None:
    with _shelf:
        _alive[key] = adapter
        _loaded.pop(key, None)
        _loaded[key] = adapter
        _let_go(KEPT)


def _make_room() -> None:
    """Let go of every model that is neither bundled nor worked on."""
    with _shelf:
        _let_go(0)


def _let_go(keep: int) -> None:
    """Keep only the last few of the models that are not bundled; hold the shelf's lock."""
    import torch

    others = [key for key in _loaded if key[0] not in BUNDLED]
    if len(others) <= keep:
        return
    for key in others[: len(others) - keep]:
        del _loaded[key]
    gc.collect()  # a pipeline may be part of a cycle, and its memory is wanted now
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _load(name: str, device: str, dtype: str | None, bits: int | None = None) -> Adapter:
    from razor.device import default_device

    if not name:
        raise ModelError(f"Name a model: {', '.join(BUNDLED)}, a local folder, or architecture/pretrained.")
    path, spread = BUNDLED.get(name, Path(name)), device == "auto"
    device = default_device() if spread else device
    if path.is_dir():
        if (path / "model_index.json").is_file():
            return _diffusion(name, path, device, dtype)
        _refuse_part(path, name)
        if (path / "config.json").is_file() and not (path / "open_clip_config.json").is_file():
            return _vlm(name, path, device, dtype, bits, spread)
        return _from_folder(path, name, device, dtype)
    if path.suffix.lower() in PICKLES:
        raise ModelError(f"{name} is a pickle, which can run code when opened; convert it to safetensors first.")
    if path.suffix.lower() == ".safetensors" and (path.parent / "open_clip_config.json").is_file():
        raise ModelError(
            f"{name} is a single file; give the folder that holds open_clip_config.json and the .safetensors file."
        )
    if path.suffix.lower() == ".safetensors":
        return _diffusion(name, path, device, dtype)
    if path.exists():
        raise ModelError(
            f"{name} is neither a folder nor a .safetensors checkpoint; give an open_clip, diffusers or transformers "
            "folder."
        )
    if name.startswith("hf-hub:"):
        repository = name.removeprefix("hf-hub:")
        if _on_hub(repository, "model_index.json"):
            return _diffusion(name, repository, device, dtype)
        if _on_hub(repository, "config.json") and not _on_hub(repository, "open_clip_config.json"):
            return _vlm(name, repository, device, dtype, bits, spread)
        _refuse_code(_hub_text_config(repository), name)
        return _from_open_clip(name, None, name, device, dtype)
    architecture, _, pretrained = name.partition("/")
    import open_clip

    if architecture in open_clip.list_models():
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        if pretrained not in tags:
            raise ModelError(
                f"{architecture} has no weights named {pretrained!r}; pick one of {', '.join(tags) or '-'}."
            )
        return _from_open_clip(architecture, pretrained, name, device, dtype)
    raise ModelError(
        f"No model {name!r}: it is not bundled ({', '.join(BUNDLED)}), not a folder or file, and not an open_clip "
        "architecture/pretrained such as ViT-B-32/laion2b_s34b_b79k. For a model on a hub write hf-hub:owner/model."
    )


def _refuse_part(path: Path, name: str) -> None:
    """A folder inside a pipeline's is no model by itself."""
    whole = path.absolute().parent
    if (whole / "model_index.json").is_file() and not (path / "open_clip_config.json").is_file():
        raise ModelError(f"{name} is one part of a pipeline of diffusers; give the whole, {whole}.")


def _on_hub(repository: str, file: str) -> bool:
    """Whether a hub model has this file, which says of what kind it is; asks the hub where the cache does not know.

    Raises:
        ModelError: the hub is out of reach, and nothing in the cache says of what kind the model is.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    from razor.pipelines import hub_errors

    kept = [known for known in _KINDS if isinstance(try_to_load_from_cache(repository, known), str)]
    if file in kept:
        return True
    try:
        with hub_errors(repository):
            return HfApi().file_exists(repository, file)
    except ModelError:
        if not kept:
            raise
        return False


def _diffusion(name: str, source: Path | str, device: str, dtype: str | None) -> Adapter:
    """A pipeline of diffusers, from disk or, where the source is a name, from the hub."""
    from razor.adapters.diffusion import DiffusionAdapter
    from razor.pipelines import load_pipeline

    offline = isinstance(source, Path)
    pipeline = load_pipeline(str(source), device=device, dtype=dtype, offline=offline, make_room=_make_room)
    if name in BUNDLED:
        drawn = card(name)["drawn"]
        return DiffusionAdapter(
            pipeline, name=name, judge=WorldJudge(), guidance=drawn["guidance"], steps=drawn["steps"]
        )
    return DiffusionAdapter(pipeline, name=name)


def _vlm(name: str, source: Path | str, device: str, dtype: str | None, bits: int | None, spread: bool) -> Adapter:
    """A vision-language model of transformers, from disk or, where the source is a name, from the hub.

    Args:
        spread: over all cards.
    """
    from razor.minicanvas.questions import WORLD
    from razor.vlm_loading import load_vlm

    return load_vlm(
        str(source),
        device=device,
        dtype=dtype,
        name=name,
        offline=isinstance(source, Path),
        make_room=_make_room,
        bits=bits,
        device_map="auto" if spread else None,
        questions=WORLD if name in BUNDLED else None,
    )


def _from_folder(path: Path, name: str, device: str, dtype: str | None) -> ClipAdapter:
    """A folder as open_clip writes it: open_clip_config.json, one .safetensors file, maybe a tokenizer."""
    config_path = path / "open_clip_config.json"
    if not config_path.is_file():
        raise ModelError(
            f"{name} has none of open_clip_config.json, as open_clip saves a CLIP, model_index.json, as diffusers "
            "saves a pipeline, and config.json, as transformers saves a vision-language model; give a folder with one."
        )
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
    return _from_open_clip(f"local-dir:{path}", None, name, device, dtype, weights=(preferred or weights)[0])


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


def _from_open_clip(
    model: str, pretrained: str | None, name: str, device: str, dtype: str | None, weights: Path | None = None
):
    """Build, fill and wrap; anything open_clip or the files object to becomes one sentence."""
    if dtype not in (None, "float32"):
        raise ModelError(
            f"{name} is a CLIP, which is loaded in float32 alone, not in {dtype}; leave out --dtype, or name a model "
            "that draws or answers."
        )
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
