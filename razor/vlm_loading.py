"""Open a vision-language model safely: a folder as transformers saves it, or a hub model when allowed to.

What a model is, is read from config.json before any weight is opened. Weights come from safetensors alone; a pickle, or
code that comes with a model, is refused, and so is a model with weights missing or a processor that does not fit it.
Only a hub id may use a network, and only when asked to; where the hub is out of reach, a whole copy in the hub cache
will do.
"""

import importlib.util
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from razor import pipelines
from razor.adapters.questions import Questions
from razor.adapters.vlm import VlmAdapter
from razor.errors import InputError, ModelError
from razor.memory import enough_memory

CONFIGS = ("*.json", "*.txt", "*.model", "*.jinja", "additional_chat_templates/*")  # a hub model but its weights
STEM = "model.safetensors"  # what transformers calls the weights
SUPPORTED = (
    "what can be edited is a model of transformers that answers questions about pictures (image-text-to-text), such as "
    "LLaVA-1.5, LLaVA-NeXT, Qwen2-VL or Qwen2.5-VL"
)
ADVICE = "Load it in half precision, in 8 or 4 bits, or over several cards with --device auto"


@dataclass(frozen=True)
class Found:
    """A model that may be edited, as its configuration describes it; no weight has been read yet."""

    name: str  # as the person named it; of one on the hub, its id
    folder: Path  # holds config.json
    config: Mapping
    files: list[str]  # its weights, one a shard
    commit: str | None = None  # of the hub model whose weights are still to be fetched


def load_vlm(
    source: str,
    *,
    device: str,
    dtype: str | None = None,
    name: str | None = None,
    offline: bool = True,
    make_room: Callable[[], None] = lambda: None,
    bits: int | None = None,
    device_map: str | None = None,
    questions: Questions | None = None,
) -> VlmAdapter:
    """The model behind a name, in eval mode and without gradients. Prints nothing.

    Args:
        source: a folder with config.json and safetensors, or a hub id "owner/name".
        device: "cpu", "cuda", "cuda:1", ...
        dtype: "float32", "float16" or "bfloat16"; default float32 on a CPU, on CUDA the half precision it was saved
            in, or bfloat16.
        name: what the model is called in sentences; default the source.
        offline: whether a hub id may only come from the hub cache.
        make_room: called once where free memory is too small, to let go of what is not needed.
        bits: 8 or 4 stores the language model in so many bits (CUDA, with bitsandbytes): it then has no units, and
            growth edits the vision tower.
        device_map: "auto" spreads a model over all CUDA cards; default one card.
        questions: how an axis is asked about and a class named.

    Raises:
        InputError: another number of bits.
        ModelError: no such model, one that cannot be edited, unsafe or broken files, a processor that does not fit,
            too little memory, or a precision the device cannot use.
    """
    name, place = (name or source).strip(), pipelines._place(device)
    pipelines._refuse_dtype(dtype, place)
    if bits not in (None, 8, 4):
        raise InputError(f"A model cannot be loaded in {bits} bits; choose 8 or 4, or none to load it whole.")
    with pipelines._quiet():
        found = _find(source.strip(), name, offline)
        precision = _precision(found.config, dtype, place)
        few = {"quantization_config": _quantisation(bits, place, _outside_language(found))} if bits else {}
        try:
            needed = _numbers(found) * (bits / 8 if bits else precision.itemsize)
            _make_room(name, needed, place, make_room, spread=device_map is not None)
            if found.commit:
                pipelines._download(found, {"": pipelines.Weights(None, found.files)})
            with enough_memory(f"loading {name} ({needed / 1e9:.1f} GB)", ADVICE):
                model = _model(found, precision, place, few, device_map)
        except ModelError:
            raise
        except Exception as error:  # transformers and safetensors raise many kinds; all mean the same here
            raise ModelError(f"Cannot load {name!r}: {pipelines._first_line(error)}") from error
        return VlmAdapter(model, _processor(found), name=name, questions=questions)


# ---------------------------------------------------------------- finding


def _find(source: str, name: str, offline: bool) -> Found:
    path = Path(source)
    if source and path.is_dir():
        return _described(path, name, _listing(path))
    if path.suffix.lower() in pipelines.PICKLES:
        raise ModelError(f"{name} is a pickle, which can run code when opened; save the weights as {STEM}.")
    if source and path.is_file():
        raise ModelError(f"{name} is a single file; give the folder that holds config.json and {STEM}.")
    if not pipelines.HUB_ID.fullmatch(source):
        raise ModelError(f"No model {name!r}: give a folder that holds config.json, or a hub id owner/name.")
    return _in_cache(source, name) if offline else _on_hub(source, name)


def _described(folder: Path, name: str, listed: Collection[str], commit: str | None = None) -> Found:
    """What the configuration in `folder` describes, once it is known to be safe and of a kind that can be edited.

    Args:
        listed: files of the model, in the folder or on the hub.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{name} has no config.json; give a folder as transformers saves it.")
    config = pipelines._read_json(folder / "config.json", name)
    settings = [file for file in sorted(listed) if file.endswith("config.json") and (folder / file).is_file()]
    if code := [file for file in settings if "auto_map" in pipelines._read_json(folder / file, name)]:
        raise ModelError(
            f"{name} asks to run code that comes with it (auto_map in {code[0]}), which is refused; {SUPPORTED}."
        )
    _refuse_other_kinds(str(config.get("model_type")), name)
    return Found(name, folder, config, _weights(folder, name, listed), commit)


def _refuse_other_kinds(kind: str, name: str) -> None:
    """By the kind of model that config.json names: one that sees and speaks, as far as transformers knows it."""
    from transformers.models.auto import modeling_auto as auto

    if kind in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return
    seeing = (
        auto.MODEL_FOR_IMAGE_MAPPING_NAMES,
        auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    )
    if kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        said = f"is a language model without a vision tower ({kind}), so it reads no pictures"
    elif any(kind in known for known in seeing):
        said = f"reads pictures but has no language model ({kind}), so it answers nothing"
    else:
        said = f"is of a type that transformers does not know to answer questions about pictures ({kind!r})"
    raise ModelError(f"{name} {said}; {SUPPORTED}.")


def _weights(folder: Path, name: str, listed: Collection[str]) -> list[str]:
    """The safetensors files of the weights."""
    if STEM in listed:
        return [STEM]
    if (index := f"{STEM}.index.json") in listed:
        table = pipelines._read_json(folder / index, name).get("weight_map")
        shards = sorted(set(map(str, table.values()))) if isinstance(table, Mapping) else []
        wrong = [file for file in shards if file not in listed or not file.endswith(".safetensors")]
        if wrong or not shards:
            raise ModelError(
                f"Cannot load {name!r}: {index} names {wrong[0] if wrong else 'no file'}, which is not a .safetensors "
                "file beside it; use a complete copy."
            )
        return shards
    pickles = sorted(file for file in listed if Path(file).suffix.lower() in pipelines.PICKLES)
    held = f"only {pickles[0]}, a pickle, which can run code when opened" if pickles else "no weights"
    raise ModelError(f"{name} holds {held}; save the weights as {STEM}.")


def _listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


# ---------------------------------------------------------------- precision and memory


def _precision(config: Mapping, dtype: str | None, place: torch.device) -> torch.dtype:
    if dtype or place.type != "cuda":
        return pipelines.DTYPES[dtype or "float32"]
    saved = str(config.get("dtype", config.get("torch_dtype")))
    halves = ("float16", "bfloat16") if torch.cuda.is_bf16_supported() else ("float16",)
    return pipelines.DTYPES[saved if saved in halves else halves[-1]]


def _quantisation(bits: int, place: torch.device, whole: Iterable[str] = ()):
    """Settings of bitsandbytes.

    Args:
        whole: modules to keep in half precision.

    Raises:
        ModelError: no CUDA, or no bitsandbytes.
    """
    found = place.type == "cuda" and importlib.util.find_spec("bitsandbytes") is not None
    if not found:
        lacks = "bitsandbytes is not installed" if place.type == "cuda" else f"{place} is no CUDA card"
        raise ModelError(f"A model loads in {bits} bits only on CUDA with bitsandbytes, and {lacks}; load it whole.")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(**{f"load_in_{bits}bit": True}, llm_int8_skip_modules=list(whole))


def _outside_language(found: Found) -> list[str]:
    """Modules beside the language model, which edits are made on: those that hold no word embeddings."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(str(found.folder), local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            bare = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    except Exception as error:  # a configuration may be wrong in many ways; all mean the same here
        raise ModelError(f"Cannot load {found.name!r}: {pipelines._first_line(error)}") from error
    words = bare.get_input_embeddings()
    language = next(path for path, module in bare.named_modules() if module is words).rpartition(".")[0]
    beside, at, path = [], bare, ""
    for part in language.split("."):
        beside += [path + name for name, _ in at.named_children() if name != part]
        at, path = at.get_submodule(part), f"{path}{part}."
    return beside


def _numbers(found: Found) -> int:
    """How many numbers the weights hold, from the headers of their files, here or on the hub."""
    if found.commit:
        return sum(pipelines._numbers(found, file) for file in found.files)
    from safetensors import safe_open

    count = 0
    for file in found.files:
        with safe_open(found.folder / file, "pt") as opened:
            count += sum(math.prod(opened.get_slice(key).get_shape()) for key in opened.keys())  # noqa: SIM118 (no dict)
    return count


def _make_room(name: str, needed: float, place: torch.device, make_room: Callable[[], None], *, spread: bool) -> None:
    """Let go of what is not needed where free memory is too small; refuse what can never fit.

    Raises:
        ModelError: the device could not hold the weights with nothing else in it.
    """
    if needed > pipelines._free(place):
        make_room()
    if needed > (most := _capacity(place, spread)):
        whose = "all CUDA cards here have" if spread else f"{place if place.type == 'cuda' else 'this machine'} has"
        raise ModelError(
            f"The weights of {name} need {needed / 1e9:.1f} GB and {whose} {most / 1e9:.1f} GB. {ADVICE}, or choose a "
            "smaller model."
        )


def _capacity(place: torch.device, spread: bool) -> float:
    """Bytes of memory a device has in all; infinite where nothing says how many."""
    if place.type == "cuda":
        cards = range(torch.cuda.device_count()) if spread else [place]
        return sum(torch.cuda.get_device_properties(card).total_memory for card in cards)
    meminfo = pipelines.MEMINFO
    found = re.search(r"^MemTotal:\s+(\d+) kB", meminfo.read_text(), re.M) if meminfo.is_file() else None
    return int(found[1]) * 1024 if found and place.type == "cpu" else math.inf


# ---------------------------------------------------------------- loading


def _model(found: Found, precision: torch.dtype, place: torch.device, few: Mapping, device_map: str | None):
    from transformers import AutoModelForImageTextToText

    where = {"device_map": device_map or {"": place}} if place.type == "cuda" else {}
    model, report = AutoModelForImageTextToText.from_pretrained(
        str(found.folder),
        dtype=precision,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
        **where,
        **few,
    )
    hollow = [key for key, value in (*model.named_parameters(), *model.named_buffers()) if value.is_meta]
    if lacking := sorted({*report["missing_keys"], *hollow}):
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise ModelError(
            f"{len(lacking)} of the weights of {found.name} are missing or do not fit on the cards here ({lacking[0]}"
            f"{more}); use a complete copy, or load it in fewer bits."
        )
    return model


def _processor(found: Found):
    """What makes tokens of questions and pictures.

    Raises:
        ModelError: it is missing or broken.
    """
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(str(found.folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # files may be missing or wrong in many ways; all mean the same here
        raise ModelError(
            f"The processor of {found.name} cannot be loaded ({pipelines._first_line(error)}); add the files it was "
            "saved with."
        ) from error
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise ModelError(
            f"The processor of {found.name} lacks the part for pictures or the one for words; add the files it was "
            "saved with."
        )
    return processor


# ---------------------------------------------------------------- the hub


def _in_cache(repository: str, name: str) -> Found:
    from huggingface_hub import try_to_load_from_cache

    try:
        held = try_to_load_from_cache(repository, "config.json")
    except ValueError:  # it looks like an id, but no hub model may be named so
        held = None
    if not isinstance(held, str):
        raise ModelError(
            f"No model {name!r}: there is no such folder, and the hub cache does not hold it; check the name, or allow "
            "it to be downloaded."
        )
    folder = Path(held).parent
    return _described(folder, name, _listing(folder))


def _on_hub(repository: str, name: str) -> Found:
    """The configuration of a hub model, fetched; its weights stay there until they are known to be usable.

    Where the hub cannot be reached, is switched off or fails, a whole copy in the hub cache is taken instead.
    """
    from huggingface_hub import HfApi, snapshot_download

    try:
        with pipelines.hub_errors(repository):
            info = HfApi().model_info(repository, timeout=pipelines.HUB_PATIENCE)
            listed = [entry.rfilename for entry in info.siblings or ()]
            if "config.json" not in listed:
                raise ModelError(f"{repository} has no config.json on the hub, so transformers cannot open it.")
            folder = Path(snapshot_download(repository, allow_patterns=list(CONFIGS)))
    except ModelError as error:
        if not pipelines._out_of_reach(error):
            raise
        try:
            return _in_cache(repository, name)
        except ModelError:
            raise error from error.__cause__
    return replace(_described(folder, name, listed, folder.name), name=repository)
