"""Open a diffusion pipeline safely: a diffusers folder, a .safetensors checkpoint, or a hub model when allowed to.

What a model is, is read from model_index.json and the config.json of its parts before any weight is opened. Weights
come from safetensors alone; a pickle, or code that comes with a model, is refused. Only a hub id may use a network,
and only when asked to; where the hub is out of reach, a whole copy in the hub cache will do.
"""

import contextlib
import importlib
import inspect
import json
import logging
import math
import re
import shutil
import threading
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from razor import blueprints
from razor.device import default_device
from razor.errors import ModelError
from razor.memory import enough_memory

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
CONFIGS = ("model_index.json", "*/*.json", "*/*.txt", "*/*.model")  # all of a hub model but its weights
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
HUB_PATIENCE = 10.0  # seconds to wait for the hub's first answer
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
MEMINFO = Path("/proc/meminfo")  # where Linux says how much memory is free; other systems have no such file
UNUSED = {"safety_checker": None, "feature_extractor": None, "image_encoder": None, "requires_safety_checker": False}
UNET = ("diffusers", "UNet2DConditionModel")
MMDIT = ("diffusers", "SD3Transformer2DModel")
VAE = ("diffusers", "AutoencoderKL")
CLIP = ("transformers", "CLIPTextModel")
CLIP_PROJECTED = ("transformers", "CLIPTextModelWithProjection")
T5 = ("transformers", "T5EncoderModel")
HELPERS = {"scheduler": r"diffusers\.\w*Scheduler", "tokenizer": r"transformers\.\w*Tokenizer\w*"}
PREDICTIONS = ("epsilon", "sample", "v_prediction")  # of a UNet, see DiffusionAdapter.noised
STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}  # what each library calls its weights

# Where a single-file checkpoint keeps each part; the parts it lacks may lie in the folder beside it.
IN_FILE = {
    "unet": ("model.diffusion_model.",),
    "transformer": ("model.diffusion_model.", "joint_blocks."),
    "vae": ("first_stage_model.", "vae."),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0.", "text_encoders.clip_l."),
    "text_encoder_2": ("conditioner.embedders.1.", "text_encoders.clip_g."),
    "text_encoder_3": ("text_encoders.t5xxl.",),
}
EDITABLE_IN_FILE = ("model.diffusion_model.input_blocks.", "model.diffusion_model.joint_blocks.", "joint_blocks.")
EDITABLE_LIKE = (  # what diffusers takes the checkpoints of the families above for
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-xl-base-1.0",
    "stabilityai/stable-diffusion-3-medium-diffusers",
    "stabilityai/stable-diffusion-3.5-large",
    "stabilityai/stable-diffusion-3.5-medium",
)

_loading = threading.RLock()


@dataclass(frozen=True)
class Family:
    """One architecture that can be edited: the parts model_index.json must name, and of which class."""

    title: str
    pipeline: str  # its class in diffusers
    networks: Mapping[str, tuple[str, str]]  # part -> (library, class); the denoiser comes first
    half: torch.dtype  # precision on CUDA
    channels: int  # of the denoiser and of the vae, where their configurations leave it out
    side: int  # latents a side of its pictures, where the denoiser's configuration leaves it out
    optional: tuple[str, ...] = ()  # networks that may be null

    @property
    def denoiser(self) -> str:
        return next(iter(self.networks))


SD = Family(
    "Stable Diffusion 1.x/2.x (UNet)",
    "StableDiffusionPipeline",
    {"unet": UNET, "vae": VAE, "text_encoder": CLIP},
    torch.float16,
    channels=4,
    side=64,
)
SDXL = Family(
    "Stable Diffusion XL",
    "StableDiffusionXLPipeline",
    {"unet": UNET, "vae": VAE, "text_encoder": CLIP, "text_encoder_2": CLIP_PROJECTED},
    torch.float16,
    channels=4,
    side=128,
)
SD3 = Family(
    "Stable Diffusion 3 (MMDiT)",
    "StableDiffusion3Pipeline",
    {
        "transformer": MMDIT,
        "vae": VAE,
        "text_encoder": CLIP_PROJECTED,
        "text_encoder_2": CLIP_PROJECTED,
        "text_encoder_3": T5,
    },
    torch.bfloat16,
    channels=16,
    side=128,
    optional=("text_encoder_3",),
)
SUPPORTED = (
    "what can be edited is Stable Diffusion 1.x, 2.x or XL (a UNet2DConditionModel that reads CLIP text encoders) and "
    "Stable Diffusion 3 or 3.5 (an SD3Transformer2DModel that reads CLIP and T5)"
)


@dataclass(frozen=True)
class Layout:
    """A model that can be edited, as its configuration describes it; no weight has been read yet."""

    name: str  # as the person named it
    family: Family
    networks: Mapping[str, tuple[str, str]]  # those of the family that this model has
    folder: Path  # holds model_index.json
    files: Collection[str]  # "part/file" of all there is, in the folder or on the hub
    checkpoint: Path | None = None  # the single file that holds the weights
    inside: Collection[str] = ()  # networks whose weights are in that file
    commit: str | None = None  # of the hub model whose weights are still to be fetched


@dataclass(frozen=True)
class Weights:
    """The safetensors files of one network, one per shard."""

    variant: str | None  # as diffusers calls it: None or "fp16"
    files: list[str]  # "part/file"


def load_pipeline(
    source: str,
    *,
    device: str,
    dtype: str | None = None,
    offline: bool = True,
    make_room: Callable[[], None] = lambda: None,
):
    """The diffusers pipeline behind a name, in eval mode, without gradients, safety checker or progress bars.

    Never offloaded: gradients need every weight in place. Prints nothing.

    Args:
        source: a folder with model_index.json; a .safetensors checkpoint, its configuration in a folder of the same
            name or "config" beside it, in the hub cache or in blueprints.py; or a hub id "owner/name".
        device: "cpu", "cuda", "cuda:1", ...
        dtype: "float32", "float16" or "bfloat16"; default float32 on a CPU, on CUDA float16, or bfloat16 for Stable
            Diffusion 3.
        offline: whether a hub id may only come from the hub cache.
        make_room: called once where memory is too small, to let go of what is not needed.

    Raises:
        ModelError: no such model, one that cannot be edited, unsafe or broken files, too little memory or disk, or a
            dtype the device cannot use.
    """
    place = _place(device)
    _refuse_dtype(dtype, place)
    with _quiet():
        layout = _find(source, offline)
        precision = _precision(layout.family, dtype, place)
        weights = _weights(layout, precision)
        _refuse_small_memory(layout, _bytes(layout, weights, precision), precision, place, make_room)
        if layout.commit:
            _download(layout, weights)
        try:
            with enough_memory(f"loading {layout.name}", _to_lower(precision, place)):
                pipeline = _assemble(layout, weights, precision)
                _refuse_hollow(pipeline, layout.name)
                pipeline.to(place)
        except ModelError:
            raise
        except NotImplementedError as error:  # torch's word for a tensor without a value
            raise _incomplete(layout.name, "denoiser or vae", []) from error
        except Exception as error:  # diffusers, transformers and safetensors raise many kinds; all mean the same here
            raise ModelError(f"Cannot load {layout.name!r}: {_first_line(error)}") from error
    for network in _networks(pipeline).values():
        network.eval().requires_grad_(False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def memory_needed(source: str, *, device: str | None = None, dtype: str | None = None, offline: bool = True) -> int:
    """Bytes that the weights behind a name will take on a device, from the headers of its files alone.

    Drawing and scoring come on top. Arguments and errors as for `load_pipeline`; device defaults to CUDA where there
    is one.
    """
    place = torch.device(device or default_device())
    with _quiet():
        layout = _find(source, offline)
        precision = _precision(layout.family, dtype, place)
        return _bytes(layout, _weights(layout, precision), precision)


def native_size(pipeline) -> tuple[int, int]:
    """Height and width, in pixels, of the pictures a pipeline was trained on; where it does not say, of its kind's."""
    family = _family_of(pipeline)
    stated = getattr(pipeline, family.denoiser).config.sample_size
    height, width = _latent_sides(stated, type(pipeline).__name__) or (family.side, family.side)
    return height * pipeline.vae_scale_factor, width * pipeline.vae_scale_factor


def card_of(pipeline) -> dict[str, str]:
    """What a loaded pipeline is: family, parameters of each network, prediction, native size and precision."""
    family = _family_of(pipeline)
    denoiser, (height, width) = getattr(pipeline, family.denoiser), native_size(pipeline)
    networks = {part: network for part in family.networks if (network := getattr(pipeline, part, None)) is not None}
    return {
        "family": family.title,
        **{part: _size(network) for part, network in networks.items()},
        "prediction": "flow" if family is SD3 else pipeline.scheduler.config.prediction_type,
        "size": f"{width} x {height} px" + ("" if denoiser.config.sample_size else ", as is usual for its kind"),
        "precision": str(denoiser.dtype).removeprefix("torch."),
    }


# ---------------------------------------------------------------- finding


def _find(source: str, offline: bool) -> Layout:
    name, path = source.strip(), Path(source.strip())
    if not name:
        raise ModelError("Name a model: a diffusers folder, a .safetensors checkpoint, or a hub id owner/name.")
    if path.is_dir():
        return _layout(path, name, _listing(path))
    if path.suffix.lower() in PICKLES:
        raise ModelError(f"{name} is a pickle, which can run code when opened; convert it to safetensors first.")
    if path.is_file():
        return _single_file(path, name)
    if not HUB_ID.fullmatch(name):
        raise ModelError(
            f"No model {name!r}: it is not a folder with model_index.json, not a .safetensors checkpoint, and not a "
            "hub id owner/name."
        )
    return _in_cache(name) if offline else _on_hub(name)


def _layout(folder: Path, name: str, files: Collection[str], **more) -> Layout:
    """What the configuration in `folder` describes, once it is known to be safe and editable."""
    if not (folder / "model_index.json").is_file():
        raise ModelError(f"{name} has no model_index.json; give a folder as diffusers saves it.")
    index = _read_json(folder / "model_index.json", name)
    _refuse_code(folder, index, files, name)
    named = {part: tuple(pair) for part, pair in index.items() if isinstance(pair, list) and len(pair) == 2 and pair[0]}
    family = _family(named, name)
    networks = {part: kind for part, kind in family.networks.items() if part in named}
    for part in (*networks, *_helpers(networks)):
        if not any(file.startswith(f"{part}/") for file in files):
            raise ModelError(f"model_index.json of {name} names a {part}, but there is no folder {part}; add it.")
    for part in networks:
        _read_json(folder / part / "config.json", name)
    _refuse_other_wiring(folder, family, name)
    _refuse_other_scheduler(folder, named["scheduler"][1], family, name)
    return Layout(name, family, networks, folder, files, **more)


def _single_file(path: Path, name: str) -> Layout:
    """A checkpoint as the original training code writes it; its configuration comes from a folder."""
    if path.suffix.lower() != ".safetensors":
        raise ModelError(f"{name} is not a .safetensors checkpoint; give one, or a diffusers folder.")
    shapes = _header(path, name)
    inside = [part for part, prefixes in IN_FILE.items() if any(key.startswith(prefixes) for key in shapes)]
    like = _looks_like(shapes)
    if like is not None and like not in EDITABLE_LIKE:
        raise _unsupported(name, f"looks like {like}")
    if not any(key.startswith(EDITABLE_IN_FILE) for key in shapes):
        raise ModelError(
            f"{name} holds no denoiser that can be edited (no tensor model.diffusion_model.input_blocks.* or "
            "joint_blocks.*): it may be a LoRA or one part of a model; give a full checkpoint, or the folder that "
            f"holds model_index.json; {SUPPORTED}."
        )
    beside = [
        folder for folder in (path.with_suffix(""), path.parent / "config") if (folder / "model_index.json").is_file()
    ]
    folder = beside[0] if beside else _known_configuration(like, shapes, inside, path, name)
    return _layout(folder, name, _listing(folder), checkpoint=path, inside=inside)


def _looks_like(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The hub model diffusers takes a checkpoint for; Stable Diffusion 1.5 where it knows none of the tensors."""
    from diffusers.loaders.single_file_utils import fetch_diffusers_config

    try:
        bare = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
        return fetch_diffusers_config(bare)["pretrained_model_name_or_path"]
    except Exception:  # it looks at single tensors by name, and trips over what it does not know
        return None


def _known_configuration(like: str | None, shapes: Mapping, inside: Collection[str], path: Path, name: str) -> Path:
    """A folder with the configuration of the model this checkpoint looks like: the hub cache's, else our own."""
    if like is None:
        raise ModelError(f"Cannot tell what architecture {name} has; {SUPPORTED}.")
    beside = f"into {path.stem}/ or config/ beside the file"
    if blueprints.other_noise(shapes):
        raise ModelError(
            f"{name} looks like {like} of another noise schedule or prediction; put model_index.json and the folders "
            f"of its parts, without weights, {beside}."
        )
    folder = _cached(like) or blueprints.configuration(like, shapes, inside)
    if folder is None:
        raise ModelError(
            f"{name} looks like {like}, whose configuration is not on this machine; put model_index.json and the "
            f"folders of its parts, with weights where the file has none, {beside}."
        )
    return folder


def _listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for depth in ("*", "*/*") for path in folder.glob(depth))


def _read_json(path: Path, name: str) -> dict:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path.parent.name}/{path.name} of {name} cannot be read ({_first_line(error)}).") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path.parent.name}/{path.name} of {name} holds no table of settings.")
    return value


def _header(path: Path, name: str) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor in a safetensors file; reads no tensor."""
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as opened:
            return {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118 (no dict)
    except Exception as error:  # safetensors raises its own kind and the file system's
        raise ModelError(f"Cannot read {path.name} of {name}: {_first_line(error)}") from error


# ---------------------------------------------------------------- what is refused


def _family(named: Mapping[str, tuple[str, str]], name: str) -> Family:
    """Which architecture the named parts make up; `named` leaves out the null ones."""
    family = SD3 if "transformer" in named else SDXL if "text_encoder_2" in named else SD
    if not {"unet", "transformer"} & set(named):
        raise _unsupported(name, "has no unet or transformer")
    for part, kind in family.networks.items():
        if part not in named and part not in family.optional:
            raise _unsupported(name, f"has no {part}")
        if part in named and named[part] != kind:
            raise _unsupported(name, f"names {named[part][1]} from {named[part][0]} as its {part}")
    helpers = _helpers([part for part in family.networks if part in named])
    for part in helpers:
        library, kind = named.get(part, (None, None))
        if part not in named:
            raise _unsupported(name, f"has no {part}")
        if not re.fullmatch(HELPERS[part.partition("_")[0]], f"{library}.{kind}"):
            raise _unsupported(name, f"names {kind} from {library} as its {part}")
    others = sorted(set(named) - {*family.networks, *helpers, *UNUSED, "tokenizer_3"})
    if others:
        raise _unsupported(name, f"has a further part {others[0]} ({named[others[0]][1]})")
    return family


def _helpers(networks: Collection[str]) -> list[str]:
    """The parts without weights: the scheduler, and a tokenizer for each text encoder."""
    texts = [part for part in networks if part.startswith("text_encoder")]
    return ["scheduler", *(part.replace("text_encoder", "tokenizer") for part in texts)]


def _refuse_other_wiring(folder: Path, family: Family, name: str) -> None:
    """A denoiser of the right class may still be made for another job: inpainting, upscaling, image variations."""
    denoiser = _read_json(folder / family.denoiser / "config.json", name)
    latents = _read_json(folder / "vae" / "config.json", name).get("latent_channels", 4)
    reads = denoiser.get("in_channels", family.channels)
    writes = denoiser.get("out_channels") or reads
    if (reads, writes) != (latents, latents):
        raise _unsupported(
            name, f"has a {family.denoiser} that reads {reads} channels and writes {writes} where its vae has {latents}"
        )
    _latent_sides(denoiser.get("sample_size"), name)  # refused before any weight is read
    if family is SD3:
        return
    if "CrossAttn" not in str(denoiser.get("down_block_types", "CrossAttnDownBlock2D")):
        raise _unsupported(name, "has a unet without cross-attention")
    expected = {"addition_embed_type": "text_time" if family is SDXL else None}
    for key in ("addition_embed_type", "class_embed_type", "num_class_embeds", "encoder_hid_dim_type"):
        if denoiser.get(key) != expected.get(key):
            raise _unsupported(name, f"has a unet with {key} {denoiser.get(key)!r}")


def _refuse_other_scheduler(folder: Path, kind: str, family: Family, name: str) -> None:
    """The scheduler knows the noise the denoiser was trained on, and scoring makes that noise; see PREDICTIONS."""
    import diffusers

    settings = _read_json(folder / "scheduler" / "scheduler_config.json", name)
    try:
        scheduler = getattr(diffusers, kind).from_config(settings)
    except Exception as error:  # some want settings, some another library; all mean the same here
        raise ModelError(f"The scheduler of {name} cannot be made: {_first_line(error)}") from error
    predicts = scheduler.config.get("prediction_type", "flow" if "FlowMatch" in kind else "nothing it names")
    if family is SD3:
        fits = predicts in ("flow", "flow_prediction")
    else:
        fits = hasattr(scheduler, "alphas_cumprod") and predicts in PREDICTIONS
    if not fits:
        raise ModelError(
            f"{name} has the scheduler {kind}, predicting {predicts}, which cannot be scored; what can is a UNet whose "
            f"scheduler has alphas_cumprod and predicts {', '.join(PREDICTIONS[:-1])} or {PREDICTIONS[-1]}, such as "
            "DDIMScheduler, and Stable Diffusion 3 with one of flow matching."
        )


def _latent_sides(stated: object, name: str) -> tuple[int, int] | None:
    """Height and width in latents as a denoiser's configuration states them, None where it does not."""
    if stated is None:
        return None
    sides = tuple(stated) if isinstance(stated, list | tuple) else (stated, stated)
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise ModelError(
            f"{name} has sample_size {stated!r}; it must be a whole number above 0, or a height and a width."
        )
    return sides


def _unsupported(name: str, found: str) -> ModelError:
    return ModelError(f"{name} {found}; {SUPPORTED}.")


def _refuse_code(folder: Path, index: Mapping, files: Collection[str], name: str) -> None:
    """A pipeline or a part may bring Python of its own; it is never run, and without it the model is not itself."""
    code = [file for file in files if file == "pipeline.py" or (file.endswith(".py") and file.split("/")[0] in index)]
    if isinstance(index.get("_class_name"), list):
        code.append(f"_class_name {index['_class_name']}")
    for file in files:
        if file.endswith(("/config.json", "/tokenizer_config.json")) and (folder / file).is_file():
            code += [f"auto_map in {file}"] if "auto_map" in _read_json(folder / file, name) else []
    if code:
        raise ModelError(f"{name} asks to run code that comes with it ({code[0]}), which is refused; {SUPPORTED}.")


def _refuse_small_memory(
    layout: Layout, needed: int, precision: torch.dtype, place: torch.device, make_room: Callable[[], None]
) -> None:
    if needed > _free(place):
        make_room()
    if needed <= (free := _free(place)):
        return
    whose = place if place.type == "cuda" else "this machine"
    raise ModelError(
        f"The weights of {layout.name} need {needed / 1e9:.1f} GB and {whose} has {free / 1e9:.1f} GB free. "
        f"{_to_lower(precision, place)}."
    )


def _to_lower(precision: torch.dtype, place: torch.device) -> str:
    """What a person can do where weights do not fit."""
    card = place.type == "cuda"
    smaller = f"load it with --dtype {'float16' if card else 'bfloat16'}, " if precision is torch.float32 else ""
    return (
        f"Close pages and programs that use {'the card' if card else 'its memory'}, {smaller}or "
        f"{'use --device cpu' if card else 'choose a smaller model'}"
    )


def _free(place: torch.device) -> float:
    """Bytes of memory left for weights; infinite where nothing says how many."""
    if place.type == "cuda":
        return torch.cuda.mem_get_info(place)[0]
    found = re.search(r"^MemAvailable:\s+(\d+) kB", MEMINFO.read_text(), re.M) if MEMINFO.is_file() else None
    return int(found[1]) * 1024 if found and place.type == "cpu" else math.inf


def _refuse_hollow(pipeline, name: str) -> None:
    """A tensor that no file gave a value stays on the meta device."""
    for part, network in _networks(pipeline).items():
        hollow = [key for key, value in (*network.named_parameters(), *network.named_buffers()) if value.is_meta]
        if hollow:
            raise _incomplete(name, part, hollow)


def _incomplete(name: str, part: str, keys: list[str]) -> ModelError:
    which = keys[0] if keys else "a tensor"
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return ModelError(
        f"The weights of {name} lack {which}{more} of its {part}; use a complete copy, or the configuration made for "
        "it."
    )


def _place(device: str) -> torch.device:
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"No device {device!r}; use cpu, cuda, or cuda:1 for the second card.") from error
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"No device {device!r}: {torch.cuda.device_count()} CUDA cards are here; use --device cpu.")
    return place


def _refuse_dtype(dtype: str | None, place: torch.device) -> None:
    if dtype is not None and dtype not in DTYPES:
        raise ModelError(f"No precision {dtype!r}; choose one of {', '.join(DTYPES)}.")
    if dtype == "float16" and place.type == "cpu":
        raise ModelError("float16 is for graphics cards; on a CPU use --dtype float32, or bfloat16 to save memory.")
    if dtype == "bfloat16" and place.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ModelError(f"{place} cannot compute in bfloat16; use --dtype float16 or float32.")


def _precision(family: Family, dtype: str | None, place: torch.device) -> torch.dtype:
    return DTYPES[dtype] if dtype else family.half if place.type == "cuda" else torch.float32


# ---------------------------------------------------------------- weights


def _weights(layout: Layout, precision: torch.dtype) -> dict[str, Weights]:
    """The files to read for each network that is not inside a single-file checkpoint."""
    return {
        part: _safetensors(layout, part, STEMS[library], precision)
        for part, (library, _) in layout.networks.items()
        if part not in layout.inside
    }


def _safetensors(layout: Layout, part: str, stem: str, precision: torch.dtype) -> Weights:
    """One network's files; of two precisions, the one nearer to what is wanted."""
    there = [file.removeprefix(f"{part}/") for file in layout.files if file.startswith(f"{part}/")]
    for variant in (None, "fp16") if precision is torch.float32 else ("fp16", None):
        dot = f".{variant}" if variant else ""
        index = f"{stem}.safetensors.index{dot}.json"
        if index in there:
            return Weights(variant, _shards(layout, part, index, there))
        if f"{stem}{dot}.safetensors" in there:
            return Weights(variant, [f"{part}/{stem}{dot}.safetensors"])
    pickles = [file for file in there if Path(file).suffix.lower() in PICKLES]
    if pickles:
        found = f"is there only as {pickles[0]}, a pickle, which can run code when opened"
    else:
        found = "is not in the file, nor beside its configuration" if layout.checkpoint else "has no weights"
    raise ModelError(f"The {part} of {layout.name} {found}; save it as {part}/{stem}.safetensors.")


def _shards(layout: Layout, part: str, index: str, there: Collection[str]) -> list[str]:
    """The files that the index of a split network names, all of which must be safetensors and there."""
    table = _read_json(layout.folder / part / index, layout.name).get("weight_map")
    names = sorted(set(map(str, table.values()))) if isinstance(table, dict) else []
    wrong = [name for name in names if name not in there or not name.endswith(".safetensors")]
    if wrong or not names:
        raise ModelError(
            f"{part}/{index} of {layout.name} names {wrong[0] if wrong else 'no file'}, which is not a .safetensors "
            "file beside it; use a complete copy."
        )
    return [f"{part}/{name}" for name in names]


def _bytes(layout: Layout, weights: Mapping[str, Weights], precision: torch.dtype) -> int:
    numbers = sum(_numbers(layout, file) for part in weights.values() for file in part.files)
    if layout.checkpoint:
        absent = [IN_FILE[part] for part in layout.family.networks if part not in layout.networks]
        unread = ("model_ema.", *(prefix for prefixes in absent for prefix in prefixes))  # averages kept for training
        shapes = _header(layout.checkpoint, layout.name)
        numbers += sum(_product(shape) for key, shape in shapes.items() if not key.startswith(unread))
    return numbers * precision.itemsize


def _numbers(layout: Layout, file: str) -> int:
    """How many numbers a weight file holds, from its header, here or on the hub."""
    if not layout.commit:
        return sum(map(_product, _header(layout.folder / file, layout.name).values()))
    from huggingface_hub import HfApi

    with hub_errors(layout.name):
        header = HfApi().parse_safetensors_file_metadata(layout.name, file, revision=layout.commit)
        return sum(header.parameter_count.values())


def _product(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


# ---------------------------------------------------------------- loading


def _assemble(layout: Layout, weights: Mapping[str, Weights], dtype: torch.dtype):
    """Build the pipeline around the networks that come from folders; the rest is in the checkpoint."""
    import diffusers

    kind = getattr(diffusers, layout.family.pipeline)
    absent = [part for part in layout.family.networks if part not in layout.networks]
    parts = {part: _network(layout, part, files.variant, dtype) for part, files in weights.items()}
    parts |= dict.fromkeys((*absent, *_helpers(absent)[1:]))
    parts |= {part: value for part, value in UNUSED.items() if part in inspect.signature(kind).parameters}
    if layout.checkpoint:
        where = {"config": str(layout.folder), "dtype": dtype, "local_files_only": True}
        pipeline = kind.from_single_file(str(layout.checkpoint), **where, **parts)
        if "text_encoder_3" in layout.inside and "text_encoder_3" in layout.networks:
            pipeline.text_encoder_3.tie_weights()  # a file may hold T5's word embedding once for its two names
        return pipeline
    return kind.from_pretrained(str(layout.folder), local_files_only=True, use_safetensors=True, **parts)


def _network(layout: Layout, part: str, variant: str | None, dtype: torch.dtype) -> nn.Module:
    library, kind = layout.networks[part]
    network, report = getattr(importlib.import_module(library), kind).from_pretrained(
        str(layout.folder / part),
        variant=variant,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
        dtype=dtype,
    )
    if report["missing_keys"]:
        raise _incomplete(layout.name, part, sorted(report["missing_keys"]))
    return network


def _family_of(pipeline) -> Family:
    named = {name: (type(part).__module__.split(".")[0], type(part).__name__) for name, part in _parts(pipeline)}
    return _family(named, "This pipeline")


def _parts(pipeline) -> list[tuple[str, object]]:
    return [(name, part) for name, part in pipeline.components.items() if part is not None]


def _networks(pipeline) -> dict[str, nn.Module]:
    return {name: part for name, part in _parts(pipeline) if isinstance(part, nn.Module)}


def _size(network: nn.Module) -> str:
    numbers = sum(parameter.numel() for parameter in network.parameters())
    return f"{numbers / 1e6:,.1f} M parameters" if numbers >= 1e6 else f"{numbers:,} parameters"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing is logged, warned of or drawn as a bar inside; one thread at a time, since those switches are global."""
    import diffusers.utils.logging as diffusers_log
    import huggingface_hub.utils as hub
    import transformers.utils.logging as transformers_log

    with _loading, warnings.catch_warnings():
        level, hidden = logging.root.manager.disable, hub.are_progress_bars_disabled()
        restore = [log.enable_progress_bar for log in (diffusers_log, transformers_log) if log._tqdm_active]
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        diffusers_log.disable_progress_bar()
        transformers_log.disable_progress_bar()  # the hub's too
        try:
            yield
        finally:
            logging.disable(level)
            for enable in restore:
                enable()
            (hub.disable_progress_bars if hidden else hub.enable_progress_bars)()


# ---------------------------------------------------------------- the hub


def _cached(repository: str) -> Path | None:
    """The folder of a hub model in the cache, if its model_index.json was ever fetched."""
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(repository, "model_index.json")
    except ValueError:  # it looks like an id, but no hub model may be named so
        return None
    return Path(found).parent if isinstance(found, str) else None


def _in_cache(name: str) -> Layout:
    folder = _cached(name)
    if folder is None:
        raise ModelError(
            f"No model {name!r}: there is no such folder or file, and the hub cache does not hold it; check the name, "
            "or allow it to be downloaded."
        )
    return _layout(folder, name, _listing(folder))


def _on_hub(name: str) -> Layout:
    """The configuration of a hub model, fetched; its weights stay there until they are known to be usable.

    Where the hub cannot be reached, is switched off or fails, a whole copy in the hub cache is taken instead.
    """
    from huggingface_hub import HfApi, snapshot_download

    try:
        with _quiet(), hub_errors(name):
            files = [entry.rfilename for entry in HfApi().model_info(name, timeout=HUB_PATIENCE).siblings or ()]
            if "model_index.json" not in files:
                raise ModelError(
                    f"{name} has no model_index.json on the hub, so it is not a diffusers pipeline; {SUPPORTED}."
                )
            folder = Path(snapshot_download(name, allow_patterns=list(CONFIGS)))
    except ModelError as error:
        if not _out_of_reach(error) or (kept := _whole_in_cache(name)) is None:
            raise
        return kept
    return _layout(folder, name, files, commit=folder.name)


def _out_of_reach(error: ModelError) -> bool:
    """Whether it was the way to the hub that failed; a model the hub has not, or keeps to itself, is not in the way."""
    from huggingface_hub.errors import RepositoryNotFoundError  # GatedRepoError is one too

    return error.__cause__ is not None and not isinstance(error.__cause__, RepositoryNotFoundError)


def _whole_in_cache(name: str) -> Layout | None:
    """A hub model from the cache, unless fetching it was cut short."""
    try:
        layout = _in_cache(name)
        _weights(layout, torch.float32)
    except ModelError:
        return None
    return layout


def _download(layout: Layout, weights: Mapping[str, Weights]) -> None:
    """Fetch the chosen weight files into the hub cache, if the disk has room for those not there yet."""
    from huggingface_hub import snapshot_download

    wanted = {"revision": layout.commit, "allow_patterns": [file for part in weights.values() for file in part.files]}
    with hub_errors(layout.name):
        listed = snapshot_download(layout.name, dry_run=True, **wanted)
        needed, free = sum(f.file_size or 0 for f in listed if f.will_download), shutil.disk_usage(layout.folder).free
        if needed > free:
            raise ModelError(
                f"{layout.name} is {needed / 1e9:.1f} GB to download and the disk of the hub cache has "
                f"{free / 1e9:.1f} GB free; make room, or set HF_HOME to a larger disk."
            )
        snapshot_download(layout.name, **wanted)


@contextlib.contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Whatever the hub or the way to it objects to becomes one sentence."""
    from huggingface_hub import errors

    try:
        yield
    except ModelError:
        raise
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{name} is gated: accept its terms on its page, then log in here with `hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"The hub has no model {name!r} that this machine may see; check the name, or log in with `hf auth login`."
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise ModelError(f"{name} is to be downloaded, but HF_HUB_OFFLINE is set; unset it.") from error
    except errors.HfHubHTTPError as error:
        raise ModelError(f"The hub did not hand out {name}: {_first_line(error)}") from error
    except Exception as error:  # the ways a connection or a disk can fail
        raise ModelError(
            f"Cannot fetch {name} from the hub ({_first_line(error)}); check the connection and the disk, or give the "
            "path of a copy on this machine."
        ) from error


def _first_line(error: Exception) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if len(text) < 240 else text[:240] + "..."
