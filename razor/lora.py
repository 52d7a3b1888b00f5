"""An edit as a LoRA: factors of every changed matrix, what a format can hold of them, and the way back.

A head owns rows of q, k and v and columns of the output projection, so its change is exactly the product of those rows
or columns with a selector, and as many heads as one likes have the sum of their ranks. Only where a whole matrix
changed, or a smaller rank is asked for, are the factors found by singular values.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from razor.errors import InputError, PatchError, Stopped
from razor.lora_keys import (
    FORMS,
    known_layers,
    kohya_names,
    missing_attention,
    peft_name,
    peft_settings,
    split_key,
)
from razor.modelspec import RECIPE
from razor.patches import Patch
from razor.units import Slice

HALF = 2**-11  # half a unit in the last place of float16, in which web UIs load a LoRA
MOST_LOST = 0.1  # of a bias, when it is written as weights
_SHIFTED = {r"(.*\.)self_attn\.[qkv]_proj": "layer_norm1", r"(.*\.)mlp\.fc1": "layer_norm2"}  # layer -> norm before it
_CONTAINERS = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")


@dataclass(frozen=True)
class Factors:
    """The change of one weight: up @ down, in the weight's shape."""

    shape: torch.Size  # of the weight; a convolution's kernel counts as columns
    up: Tensor  # (rows, rank)
    down: Tensor  # (rank, columns)
    bias: Tensor | None = None  # (rows,), the change of the bias beside the weight
    residual: float = 0.0  # share of the weight's change, by norm, that the rank leaves out

    @property
    def rank(self) -> int:
        return len(self.down)


@dataclass(frozen=True)
class Lora:
    """The factors of an edit."""

    factors: Mapping[str, Factors]  # weight -> its factors
    residual: float  # share of all weights' change, by norm, that the ranks leave out

    @property
    def bytes(self) -> int:
        """What the tensors take in float32."""
        tensors = (t for f in self.factors.values() for t in (f.up, f.down, f.bias) if t is not None)
        return sum(4 * tensor.numel() for tensor in tensors)

    def patch(self) -> Patch:
        """The edit that the factors stand for, one delta a parameter."""
        deltas = {}
        for weight, f in self.factors.items():
            deltas[Slice(weight)] = (f.up @ f.down).reshape(f.shape)
            if f.bias is not None:
                deltas[Slice(_bias_of(weight))] = f.bias
        return Patch(deltas)


def as_lora(adapter, patch: Patch, *, rank: int | None = None, stop: Callable[[], bool] = lambda: False) -> Lora:
    """The factors of every matrix the patch changes.

    Args:
        rank: at most so many in each matrix; None for as many as the change has.
        stop: asked before each matrix.

    Raises:
        InputError: a rank below 1, a change that no LoRA holds, or NaN in it.
        PatchError: the patch was made for another model.
        Stopped: `stop` said so.
    """
    if rank is not None and (type(rank) is not int or rank < 1):
        raise InputError(f"A rank of {rank!r} cannot be used; give a whole number from 1.")
    patch.check(adapter.model)
    changes: dict[str, list[tuple[Slice, Tensor]]] = {}
    for where, delta in patch.deltas.items():
        changes.setdefault(where.parameter, []).append((where, delta))
    factors, norms = {}, {}
    for weight in dict.fromkeys(_weight_of(name) for name in changes):
        if stop():
            raise Stopped("The export was stopped; nothing was written.")
        _refuse_no_matrix(adapter.model, weight, patch)
        change = _change(adapter.model, weight, changes)
        whole = any(where.stop is None for where, _ in changes.get(weight, ()))
        bias = _bias_of(weight)
        found = replace(
            _factors(change.flatten(1), whole, rank),
            shape=change.shape,
            bias=_change(adapter.model, bias, changes) if bias in changes else None,
        )
        factors[weight], norms[weight] = found, change.norm().item()
    left = math.hypot(*(factors[weight].residual * norm for weight, norm in norms.items()))
    return Lora(factors, left / (math.hypot(*norms.values()) or 1))


def without_biases(adapter, patch: Patch) -> tuple[Patch, float]:
    """The same edit without changes of biases, for formats that hold none: they become changes of weights.

    What a LayerNorm gives, x = g n + b with sum(n) = 0, never moves along u = (1/g) / sum(b/g): u . x = 1. So the
    change db of a bias behind it is the change outer(db, u) of the weight.

    Returns:
        The edit, and how many times more a rounding error of the weights weighs in it than one of the bias: |u| rms(x)
        of the worst layer, 0 where no bias changed.

    Raises:
        InputError: a bias that no LayerNorm comes before, or one that shifts nothing.
    """
    weights, moved, growth = {}, {}, 0.0
    for where, delta in patch.deltas.items():
        if not where.parameter.endswith("bias"):
            weights[where] = delta
        elif delta.any():
            steady, factor = _steady(adapter.model, where.parameter)
            growth = max(growth, factor)
            moved[replace(where, parameter=_weight_of(where.parameter))] = delta[:, None] * steady
    return replace(patch, deltas=weights) + Patch(moved), growth


def fit(
    adapter, patch: Patch, keys: str, *, rank: int | None = None, stop: Callable[[], bool] = lambda: False
) -> tuple[Lora, tuple[str, ...]]:
    """The edit as a LoRA that programs which read these keys apply as it is, and what a person should know of it.

    Raises:
        InputError: unknown keys, an empty edit, or one that these keys do not hold.
        PatchError, Stopped: as for `as_lora`.
    """
    if keys not in FORMS:
        raise InputError(f"There are no {keys!r} keys; choose {' or '.join(FORMS)}.")
    if not patch.deltas:
        raise InputError("The edit is empty: there is nothing to write as a LoRA. Edit the model first.")
    patch.check(adapter.model)
    _refuse_unread(adapter, patch, keys)
    if keys == "kohya":
        patch, growth = without_biases(adapter, patch)
        if (lost := min(1.0, growth * HALF)) > MOST_LOST:
            raise InputError(
                "Kohya keys hold no biases, and in the weights that stand for the edit's, float16 would lose "
                f"{lost:.0%} of it. Use peft keys, or export a patch or the full model."
            )
    lora = as_lora(adapter, patch, rank=rank, stop=stop)
    return lora, tuple(_notes(adapter, lora))


def tensors_of(adapter, lora: Lora, keys: str, scale: float) -> tuple[dict[str, Tensor], dict]:
    """What a file holds, and what PEFT has to be told of it by network ("" where the model is one).

    Kohya's keys have one alpha for all layers, since diffusers mistakes several; the rank is in the factors.
    """
    filled = dict(lora.factors)
    if adapter.family == "diffusion":
        for weight in missing_attention(filled, keys, adapter.model):
            shape = adapter.model.get_parameter(weight).shape
            filled[weight] = Factors(shape, torch.zeros(shape[0], 1), torch.zeros(1, shape[1:].numel()))
    if keys == "kohya":
        tensors = {}
        for weight, f in filled.items():
            name = kohya_names(weight, adapter.model)[0]
            pair = _in_shape(f, f.up * f.rank)
            tensors |= {f"{name}.lora_up.weight": pair[0], f"{name}.lora_down.weight": pair[1]}
            tensors[f"{name}.alpha"] = torch.tensor(float(scale))
        return tensors, {}
    tensors, settings = {}, {}
    for part, mine in _by_network(adapter, filled).items():
        biased = any(f.bias is not None for f in mine.values())
        for weight, f in mine.items():
            name, (up, down) = peft_name(adapter.family, weight), _in_shape(f, f.up * scale)
            tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
            if biased:
                tensors[f"{name}.lora_B.bias"] = torch.zeros(len(up)) if f.bias is None else f.bias * scale
        ranks = {w.removeprefix(part).removesuffix(".weight"): f.rank for w, f in mine.items()}
        settings[part] = peft_settings(ranks, biased)
    return tensors, settings


def read_lora(path: Path, adapter, *, strength: float = 1.0) -> Patch:
    """The edit that a LoRA file, or a folder as PEFT writes it, makes to a model; with the recipe in it, if any.

    Args:
        strength: times what the file says; negative adds what it takes away.

    Raises:
        InputError: a strength that is no finite number.
        PatchError: a file that is missing, broken, no plain LoRA, or made for another model.
    """
    if not math.isfinite(strength):
        raise InputError(f"A strength of {strength} cannot be used; give a finite number, such as 1.")
    path = Path(path)
    file, settings = _container(path)
    tensors, header = _opened(file, path)
    settings = settings or _table(header.get("lora_adapter_metadata"))
    known = known_layers(adapter)
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        layer, role = split_key(key)
        if not role or layer not in known:
            raise PatchError(
                f"{path.name}: its {key[:200]!r} fits nowhere in {adapter.name}. Load the model it was made for; plain "
                "LoRAs are read, but no LoHa, LoKr or DoRA and no full model."
            )
        found.setdefault(known[layer], {})[role] = tensor
    deltas: dict[Slice, Tensor] = {}
    for weight, parts in found.items():
        deltas |= _read_layer(path.name, adapter, weight, parts, settings, strength)
    return Patch(deltas, _table(header.get(RECIPE)))


# ---------------------------------------------------------------- factors


def _weight_of(parameter: str) -> str:
    return parameter.removesuffix("bias") + "weight" if parameter.endswith("bias") else parameter


def _bias_of(weight: str) -> str:
    return weight.removesuffix("weight") + "bias"


def _change(model: nn.Module, name: str, changes: Mapping[str, list[tuple[Slice, Tensor]]]) -> Tensor:
    """All that is added to one parameter, in its shape."""
    total = torch.zeros(model.get_parameter(name).shape)
    for where, delta in changes.get(name, ()):
        where.view(total).add_(delta)
    if not total.isfinite().all():
        raise InputError(f"The edit adds NaN or infinity to {name!r}, so it cannot be exported; weaken or repeat it.")
    return total


def _refuse_no_matrix(model: nn.Module, weight: str, patch: Patch) -> None:
    path, _, leaf = weight.rpartition(".")
    kinds = {"weight": (nn.Linear, nn.Conv2d), "in_proj_weight": (nn.MultiheadAttention,)}
    if not isinstance(model.get_submodule(path), kinds.get(leaf, ())):
        name = next(where.parameter for where in patch.deltas if _weight_of(where.parameter) == weight)
        raise InputError(
            f"A LoRA cannot hold the change of {name!r}, a tensor of shape {tuple(model.get_parameter(name).shape)}: "
            "only matrices of linear layers and convolutions have factors. Export a patch or the full model."
        )


def _factors(change: Tensor, whole: bool, rank: int | None) -> Factors:
    """Factors of a matrix: a selector of its changed rows or columns, or singular vectors where those are fewer."""
    rows, columns = (change.any(axis).nonzero()[:, 0] for axis in (1, 0))
    if not len(rows):
        return Factors(change.shape, torch.zeros(len(change), 1), torch.zeros(1, change.shape[1]))
    least = min(len(rows), len(columns))
    if whole or (rank or least) < least:
        u, s, v = torch.linalg.svd(change[rows][:, columns].double(), full_matrices=False)
        shown = int((s > s[0] * max(len(rows), len(columns)) * torch.finfo(change.dtype).eps).sum())
        keep = min(shown, rank or shown)
        if keep < least:
            root = s[:keep].sqrt()
            up = torch.zeros(len(change), keep).index_copy_(0, rows, (u[:, :keep] * root).float())
            down = torch.zeros(keep, change.shape[1]).index_copy_(1, columns, (root[:, None] * v[:keep]).float())
            return Factors(change.shape, up, down, residual=(s[keep:].norm() / s.norm()).item())
    if len(rows) <= len(columns):
        return Factors(change.shape, F.one_hot(rows, len(change)).float().T.contiguous(), change[rows])
    return Factors(change.shape, change[:, columns].contiguous(), F.one_hot(columns, change.shape[1]).float())


def _steady(model: nn.Module, bias: str) -> tuple[Tensor, float]:
    """The direction (columns,) along which the input of a layer is always 1, and |u| rms(x)."""
    layer, said = bias.removesuffix(".bias"), f"The change of {bias!r} cannot be written without a bias"
    advice = "Use peft keys, or export a patch or the full model."
    places = ((re.fullmatch(pattern, layer), norm) for pattern, norm in _SHIFTED.items())
    names = [match[1] + norm for match, norm in places if match]
    norm = dict(model.named_modules()).get(names[0]) if names else None
    if not isinstance(norm, nn.LayerNorm) or norm.bias is None:
        raise InputError(f"{said}: no LayerNorm that shifts its input comes right before it. {advice}")
    g, b = norm.weight.detach().double().cpu(), norm.bias.detach().double().cpu()
    u = (1 / g) / (b / g).sum()
    growth = (u.norm() * (g**2 + b**2).mean().sqrt()).item()
    if not growth < 1e6:
        raise InputError(f"{said}: the LayerNorm before it shifts nothing along what never moves. {advice}")
    return u.float(), growth


# ---------------------------------------------------------------- what formats hold


def _refuse_unread(adapter, patch: Patch, keys: str) -> None:
    """What programs that read these keys would pass over, or apply wrongly."""
    if keys == "kohya" and adapter.family != "diffusion":
        raise InputError(f"The kohya keys exist for diffusion models alone, and {adapter.name} is none; use peft keys.")
    if keys == "kohya" and "transformer" in adapter.model:
        raise InputError("Programs load kohya keys for Stable Diffusion 3 without any effect; use peft keys.")
    modules = dict(adapter.model.named_modules())
    for name in dict.fromkeys(where.parameter for where in patch.deltas):
        if adapter.family == "diffusion" and name.startswith("text_encoder_3."):
            raise InputError(
                f"diffusers loads no LoRA into the text_encoder_3, which this edit changes ({name!r}); leave its units "
                "out, or export a patch or the full model."
            )
        path = name.rpartition(".")[0]
        around = (modules[path], modules.get(path.rpartition(".")[0]))
        if any(isinstance(m, nn.MultiheadAttention) or getattr(m, "q_bias", None) is not None for m in around):
            raise InputError(
                f"{name!r} belongs to torch's fused attention, to which no program adds a LoRA rightly; export a patch "
                "or the full model."
            )


def _notes(adapter, lora: Lora) -> list[str]:
    notes, biased = [], []
    for mine in _by_network(adapter, lora.factors).values():
        if any(f.bias is not None for f in mine.values()):
            biased += list(mine)
    if biased:
        notes.append("It changes biases, which PEFT 0.14 and later apply; other programs may pass over them.")
    bare = [w for w in biased if getattr(adapter.model.get_submodule(w.rpartition(".")[0]), "bias", None) is None]
    if bare:
        notes.append(f"PEFT can load but not merge it, since {bare[0].removesuffix('.weight')!r} has no bias.")
    if lora.bytes > sum(4 * f.shape.numel() for f in lora.factors.values()):
        notes.append("It takes more room than the matrices it changes; a smaller rank, or a patch, takes less.")
    return notes


def _by_network(adapter, factors: Mapping[str, Factors]) -> dict[str, dict[str, Factors]]:
    """The factors of each network of a pipeline, by the start of its parameters' names; "" where a model is one."""
    found: dict[str, dict[str, Factors]] = {}
    for weight, f in factors.items():
        part = weight.partition(".")[0] + "." if adapter.family == "diffusion" else ""
        found.setdefault(part, {})[weight] = f
    return found


def _in_shape(f: Factors, up: Tensor) -> tuple[Tensor, Tensor]:
    """Factors as a file has them: of a convolution, two convolutions."""
    if len(f.shape) == 2:
        return up, f.down
    return up[:, :, None, None], f.down.reshape(f.rank, *f.shape[1:])


# ---------------------------------------------------------------- reading


def _container(path: Path) -> tuple[Path, dict]:
    """The file with the tensors, and PEFT's settings beside it."""
    if not path.is_dir():
        if path.suffix.lower() != ".safetensors":
            raise PatchError(f"{path.name} is no LoRA that can be read; give a .safetensors file, or PEFT's folder.")
        return path, {}
    held = [path / name for name in _CONTAINERS if (path / name).is_file()]
    if not held:
        raise PatchError(f"{path.name} holds no LoRA; give a folder with {_CONTAINERS[0]}, or a .safetensors file.")
    beside = path / "adapter_config.json"
    return held[0], _table(beside.read_text("utf-8", errors="replace")) if beside.is_file() else {}


def _opened(file: Path, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file, once every number in it is known to be one."""
    try:
        with safe_open(file, "pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (no dict)
            header = opened.metadata() or {}
    except (OSError, SafetensorError, ValueError, TypeError, RuntimeError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise PatchError(f"Cannot read {path.name}: {said[:240]}. Give a LoRA in safetensors.") from error
    if not tensors:
        raise PatchError(f"{path.name} holds no LoRA: there is no tensor in it. Use a complete copy.")
    for key, tensor in tensors.items():
        counts = key.endswith(".alpha")  # some trainers write it as a whole number
        if not (tensor.is_floating_point() or counts) or not tensor.float().isfinite().all():
            raise PatchError(
                f"{path.name} is broken: its {key[:200]!r} holds NaN, infinity or whole numbers. Use another copy."
            )
    return tensors, header


def _table(text: str | None) -> dict:
    """A table of settings in JSON; an empty one where it is anything else."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _read_layer(
    name: str, adapter, weight: str, parts: Mapping[str, Tensor], settings: Mapping, strength: float
) -> dict[Slice, Tensor]:
    """What the factors of one layer add to its weight and bias; nothing where they are all zeros."""
    layer, parameters = weight.removesuffix(".weight"), dict(adapter.model.named_parameters())
    if "up" not in parts or "down" not in parts:
        raise PatchError(f"{name} is broken: it lacks one of the two factors of {layer!r}. Use a complete copy.")
    up, down, shape = parts["up"].float(), parts["down"].float(), parameters[weight].shape
    bias = parts.get("bias")
    if bias is not None and not bias.any():
        bias = None  # PEFT has one in all layers or in none, and so in layers whose base has none
    fits = min(up.ndim, down.ndim) > 1 and up.flatten(1).shape == (shape[0], len(down))
    fits = fits and len(down) > 0 and down[0].numel() == shape[1:].numel()
    if not fits or (bias is not None and bias.shape != getattr(parameters.get(_bias_of(weight)), "shape", None)):
        raise PatchError(
            f"{name} was made for another model: it adds to {weight!r} with factors of {tuple(up.shape)} and "
            f"{tuple(down.shape)}, and here that is {tuple(shape)}. Load the model it was made for."
        )
    scale = strength * _scale(name, adapter, layer, len(down), parts.get("alpha"), settings)
    deltas = {Slice(weight): scale * (up.flatten(1) @ down.flatten(1)).reshape(shape)}
    if bias is not None:
        deltas[Slice(_bias_of(weight))] = scale * bias.float()
    if not all(delta.isfinite().all() for delta in deltas.values()):
        raise PatchError(f"{name} is broken: what it adds to {weight!r} is no finite number. Use another copy.")
    return {where: delta for where, delta in deltas.items() if delta.any()}


def _scale(name: str, adapter, layer: str, rank: int, alpha: Tensor | None, settings: Mapping) -> float:
    """Alpha over rank, from the file's own tensor or PEFT's settings; 1 where neither says."""
    if alpha is not None:
        if alpha.numel() != 1:
            raise PatchError(f"{name} is broken: alpha of {layer!r} is {alpha.numel()} numbers, not one.")
        return alpha.item() / rank
    part, path = layer.split(".", 1) if adapter.family == "diffusion" else ("", layer)
    own = {k.removeprefix(f"{part}."): v for k, v in settings.items() if not part or k.startswith(f"{part}.")}
    pattern = own.get("alpha_pattern") or {}
    if own.get("use_dora") or own.get("peft_type", "LORA") != "LORA" or not isinstance(pattern, Mapping):
        raise PatchError(f"{name} describes no plain LoRA in its settings; only plain ones can be read.")
    ends = (path.split(".", i)[-1] for i in range(path.count(".") + 1))  # PEFT matches the end of a path too
    chosen = next((pattern[name] for name in (f"^{path}", *ends) if name in pattern), own.get("lora_alpha", rank))
    if isinstance(chosen, bool) or not isinstance(chosen, int | float):
        raise PatchError(f"{name} describes no plain LoRA: its alpha of {layer!r} is no number.")
    return chosen / (math.sqrt(rank) if own.get("use_rslora") else rank)
