"""What one head looks at: its attention on a picture's patches or a prompt's tokens.

Computed from the head's own slices of q and k, and checked against what the attention module gives with all of its
heads' weights: an architecture whose attention is more than that is refused, never drawn wrong.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from razor.adapters.base import Adapter
from razor.errors import InputError, ModelError
from razor.patches import model_lock
from razor.units import Attention, Unit, find_attention


@dataclass(frozen=True)
class AttentionMap:
    """Where a head looks from, and how its attention is shared out."""

    weights: Tensor  # (grid height, grid width) over patches, or (n,) over tokens; may sum to less than 1
    tokens: tuple[str, ...]  # n tokens in words, or their numbers where the tokenizer cannot tell; () for a picture
    reader: str  # whose attention it is: "class token", "mean over patches", a token, "mean over tokens"


def attention(adapter: Adapter, unit: Unit, given: Image.Image | str) -> AttentionMap | None:
    """Attention of one head, from the token the model reads out, on a picture or a prompt; the model as it is now.

        softmax(q k^T / sqrt(d) + mask)

    Returns:
        None for a unit that is no head.

    Raises:
        InputError: a prompt for an image head, or a picture for a text head.
        ModelError: the module does more than that, such as rotary positions, normalised q and k or a relative bias.
    """
    if unit.kind != "head":
        return None
    if isinstance(given, str) == (unit.tower == "image"):
        raise InputError(f"{unit.name!r} reads {'pictures' if unit.tower == 'image' else 'text'}; give it one.")
    written = unit.slices[-1]
    module = next(a for a in find_attention(adapter.model) if a.columns == written.parameter)
    device = next(adapter.model.parameters()).device
    inputs = (adapter.tokenizer([given]) if unit.tower == "text" else adapter.pixels([given])).to(device)
    encode = adapter.model.encode_text if unit.tower == "text" else adapter.model.encode_image
    with model_lock(adapter.model), torch.no_grad():
        seen = _call_of(adapter.model.get_submodule(module.path), lambda: encode(inputs))
        weights = _attention_weights(adapter, module, *seen)[written.start // module.dim].cpu()  # (queries, keys)
    return _over_tokens(adapter, weights, inputs[0]) if unit.tower == "text" else _over_patches(adapter, weights, unit)


def _call_of(module: nn.Module, run: Callable[[], Tensor]) -> tuple[tuple, dict, Tensor]:
    """Arguments and result of the one call of a module within `run`."""
    calls: list[tuple[tuple, dict, Tensor]] = []
    note = lambda _m, args, kwargs, out: calls.append((args, kwargs, out[0] if isinstance(out, tuple) else out))  # noqa: E731
    handle = module.register_forward_hook(note, with_kwargs=True)
    try:
        run()
    finally:
        handle.remove()
    return calls[0]


def _attention_weights(adapter: Adapter, attention: Attention, args: tuple, kwargs: dict, output: Tensor) -> Tensor:
    """(heads, queries, keys) of one input; ModelError where they do not explain the module's output."""
    module = adapter.model.get_submodule(attention.path)
    parameters = {name: p.detach().float() for name, p in adapter.model.named_parameters()}
    x = args[0] if args else kwargs.get("hidden_states", kwargs.get("query"))
    source = args[1] if isinstance(module, nn.MultiheadAttention) and len(args) > 1 else x
    if not getattr(module, "batch_first", True):
        x, source, output = (t.transpose(0, 1) for t in (x, source, output))
    project = lambda role, t: _projected(attention, parameters, role, t[0].float())  # noqa: E731
    q, k, v = project("q", x), project("k", source), project("v", source)
    logits = q @ k.transpose(1, 2) / attention.dim**0.5
    mask = kwargs.get("attn_mask", kwargs.get("attention_mask"))
    if mask is not None:
        mask = mask.float().masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else mask.float()
        logits = logits + mask.reshape(-1, *mask.shape[-2:])
    weights = logits.softmax(-1)
    expected = (weights @ v).transpose(0, 1).flatten(1)  # (queries, width)
    if attention.columns.startswith(attention.path + "."):
        bias = parameters.get(attention.columns.removesuffix("weight") + "bias")
        expected = F.linear(expected, parameters[attention.columns], bias)
    if not _same(expected, output[0]):
        raise ModelError(
            f"The attention of {attention.path!r} is not softmax(q k^T) of its weights alone (rotary positions, "
            "normalised q and k, a relative bias or the like), so no map of one head can be given."
        )
    return weights


def _projected(attention: Attention, parameters: Mapping[str, Tensor], role: str, x: Tensor) -> Tensor:
    """q, k or v of every head, (heads, n, dim)."""
    weights, biases = attention.rows[:3], attention.rows[3:]
    own = lambda name, offset: parameters[name][offset : offset + attention.heads * attention.dim]  # noqa: E731
    # Three biases come as q, k, v; where k has none, the others are named for what they are.
    roles = "qkv" if len(biases) == 3 else [name.rpartition(".")[2][0] for name, _ in biases]
    named = dict(zip(roles, biases, strict=True))
    bias = own(*named[role]) if role in named else None
    return F.linear(x, own(*weights["qkv".index(role)]), bias).unflatten(1, (attention.heads, -1)).transpose(0, 1)


def _same(expected: Tensor, output: Tensor) -> bool:
    """Equal to the rounding of the model's own numbers."""
    share = 1e-3 if output.dtype == torch.float32 else 2e-2
    return expected.shape == output.shape and (expected - output.float()).abs().max() <= share * output.abs().max()


def _over_patches(adapter: Adapter, weights: Tensor, unit: Unit) -> AttentionMap:
    """(queries, keys) -> (grid height, grid width)."""
    visual = adapter.model.visual
    trunk = getattr(visual, "trunk", None)
    grid = getattr(visual, "grid_size", None) or getattr(getattr(trunk, "patch_embed", None), "grid_size", None)
    before = weights.shape[1] - grid[0] * grid[1] if grid else -1  # class and register tokens come first
    if before < 0:
        raise ModelError(f"The layer of {unit.name!r} does not see the picture as one grid of patches.")
    pool = getattr(visual, "pool_type", None) or getattr(trunk, "global_pool", None)
    by_class = before > 0 and pool != "avg"
    row = weights[0] if by_class else weights[before:].mean(0)
    return AttentionMap(row[before:].reshape(grid), (), "class token" if by_class else "mean over patches")


def _over_tokens(adapter: Adapter, weights: Tensor, ids: Tensor) -> AttentionMap:
    """(queries, keys) -> (n,), without the tokens at the end that get nothing."""
    words = [_word(adapter.tokenizer, i) for i in ids.tolist()]
    words += ["class token"] * (len(weights) - len(words))
    reader = _text_reader(adapter.model, ids, len(weights))
    row = weights.mean(0) if reader is None else weights[reader]
    used = int(row.nonzero().max()) + 1
    return AttentionMap(row[:used], tuple(words[:used]), "mean over tokens" if reader is None else words[reader])


def _text_reader(model: nn.Module, ids: Tensor, length: int) -> int | None:
    """Place of the token whose state becomes the text's embedding; None where they are averaged."""
    text = getattr(model, "text", model)
    if getattr(text, "cls_emb", None) is not None:
        return length - 1
    end = getattr(model, "text_eos_id", getattr(text, "eos_id", None))
    places = {
        "argmax": lambda: int(ids.argmax()),
        "eos": lambda: int((ids == end).int().argmax()),
        "first": lambda: 0,
        "last": lambda: length - 1,
    }
    pool = getattr(model, "text_pool_type", getattr(text, "pool_type", None))
    return places[pool]() if pool in places else None


def _word(tokenizer: Callable, number: int) -> str:
    """One token as text; its number where the tokenizer cannot say."""
    inner = getattr(tokenizer, "tokenizer", tokenizer)
    if not hasattr(inner, "decode"):
        return str(number)
    return inner.decode([number]).strip() or str(number)
