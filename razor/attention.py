"""What one head looks at: its attention on a picture's patches or a prompt's tokens.

Of CLIP computed from the head's own slices of q and k; of a model that answers noted while it runs, behind rotary
positions and masks. Either way checked against what the attention module gives with all of its heads' weights: an
architecture whose attention is more than that is refused, never drawn wrong.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from razor.adapters.base import Adapter
from razor.errors import InputError, ModelError
from razor.memory import enough_memory
from razor.patches import model_lock
from razor.units import Attention, Unit, find_attention

if TYPE_CHECKING:
    from razor.adapters.vlm import Prompt, VlmAdapter


@dataclass(frozen=True)
class AttentionMap:
    """Where a head looks from, and how its attention is shared out."""

    weights: Tensor  # (grid height, grid width) over patches, or (n,) over tokens; may sum to less than 1
    tokens: tuple[str, ...]  # n tokens in words, or their numbers where the tokenizer cannot tell; () for a picture
    reader: str  # whose attention it is: "class token", "mean over patches", a token, "mean over tokens", "last token"
    words: Tensor | None = None  # (n,) over the tokens, of a head that reads them beside a picture
    picture: Image.Image | None = None  # what the map lies over; None: the picture given, cut to its centre


def attention(
    adapter: Adapter, unit: Unit, given: Image.Image | str, *, question: str | None = None
) -> AttentionMap | None:
    """Attention of one head, from the token the model reads out, on a picture or a prompt; the model as it is now.

        softmax(q k^T / sqrt(d) + mask)

    Of a key-value head that several heads share, their mean.

    Args:
        question: what is asked about the picture, for a head of a language model; the answer is read out at its end.

    Returns:
        None for a unit that is no head.

    Raises:
        InputError: a prompt for an image head, a picture for a text head, or no question for a language model's.
        ModelError: the module does more than that, such as normalised q and k or a relative bias (in CLIP also rotary
            positions), or the model sees the picture as no one grid.
    """
    if unit.kind != "head":
        return None
    if adapter.family == "vlm":
        return _of_answering(adapter, unit, given, question)
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
    parameters = _parameters(adapter, attention)
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
    if not _same(_written(attention, parameters, weights, v), output[0]):
        raise ModelError(
            f"The attention of {attention.path!r} is not softmax(q k^T) of its weights alone (rotary positions, "
            "normalised q and k, a relative bias or the like), so no map of one head can be given."
        )
    return weights


def _parameters(adapter: Adapter, attention: Attention) -> dict[str, Tensor]:
    """Those of one attention module, float32."""
    names = {name for name, _ in (*attention.rows, *attention.shared)} | {attention.columns, _bias(attention)}
    return {name: p.detach().float() for name, p in adapter.model.named_parameters() if name in names}


def _bias(attention: Attention) -> str:
    """Name of the output projection's bias, which there may be."""
    return attention.columns.removesuffix("weight") + "bias"


def _written(attention: Attention, parameters: Mapping[str, Tensor], weights: Tensor, v: Tensor) -> Tensor:
    """What the module gives if its heads attend like this, (queries, width)."""
    found = (weights @ v).transpose(0, 1).flatten(1)
    if not attention.columns.startswith(attention.path + "."):
        return found
    return F.linear(found, parameters[attention.columns], parameters.get(_bias(attention)))


def _projected(attention: Attention, parameters: Mapping[str, Tensor], role: str, x: Tensor) -> Tensor:
    """q, k or v of every head, (heads, n, dim); grouped key-value heads are repeated for each head that reads them."""
    places, roles = (attention.shared, "kv") if attention.shared else (attention.rows, "qkv")
    weights, biases = places[: len(roles)], places[len(roles) :]
    width = attention.heads // attention.groups * attention.dim
    own = lambda name, offset: parameters[name][offset : offset + width]  # noqa: E731
    # Biases of all come in this order; where k has none, the others are named for what they are.
    given = roles if len(biases) == len(roles) else [name.rpartition(".")[2][0] for name, _ in biases]
    named = dict(zip(given, biases, strict=True))
    bias = own(*named[role]) if role in named else None
    found = F.linear(x, own(*weights[roles.index(role)]), bias).unflatten(1, (-1, attention.dim)).transpose(0, 1)
    return found.repeat_interleave(attention.groups, 0)


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


# ---------------------------------------------------------------- models that answer


def _of_answering(adapter: "VlmAdapter", unit: Unit, given: Image.Image | str, question: str | None) -> AttentionMap:
    """`attention` of a vision-language model."""
    asked = unit.tower == "language"
    if isinstance(given, str) or (asked and not question):
        raise InputError(
            f"{unit.name!r} reads {'a picture and a question; give both' if asked else 'pictures; give it one'}."
        )
    (prompt,) = adapter.prompts([given], [question if asked else "?"])
    module, heads = _query_heads(adapter.model, unit)

    def run() -> None:
        features = adapter.features([prompt])
        if asked:
            adapter.logits([prompt], features, [torch.empty(0, dtype=torch.long)])

    advice = "Load the model in half precision, or use a smaller picture"
    with model_lock(adapter.model), torch.no_grad(), enough_memory("noting a head's attention", advice):
        weights, angles = _noted_weights(adapter, module, run)
        weights = weights[heads].mean(0).cpu()  # (queries, keys)
    if asked:
        return _over_question(adapter, prompt, weights[-1], unit, given)
    return _over_places(adapter, prompt, weights, unit, given, angles)


def _query_heads(model: nn.Module, unit: Unit) -> tuple[Attention, list[int]]:
    """The module of a head with its number, or those of all heads that read a shared key-value head."""
    for a in find_attention(model):
        own = ([h] for h in range(a.heads) if a.head(h) == unit.slices)
        read = (
            list(range(g * a.groups, (g + 1) * a.groups))
            for g in range(a.shared_heads)
            if a.shared_head(g) == unit.slices
        )
        if heads := next(chain(own, read), None):
            return a, heads
    raise AssertionError(f"{unit.name} is a head of no module")


class _Noted(TorchFunctionMode):
    """While `listening`, keeps the attention weights that torch computes, (heads, queries, keys) of a first input."""

    def __init__(self):
        super().__init__()
        self.listening, self.parts = False, []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if self.listening and func is F.scaled_dot_product_attention:
            self.parts.append(_softmax(*args, **(kwargs or {}))[0])
        elif self.listening and func in (F.softmax, torch.softmax, Tensor.softmax):
            self.parts.append(found[0].float())
        return found


def _softmax(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, **options
) -> Tensor:
    """The weights within F.scaled_dot_product_attention, (1, heads, queries, keys) of the first input, float32."""
    q, k = q[:1].float(), k[:1].float()
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    logits = q @ k.transpose(2, 3) * (options.get("scale") or q.shape[-1] ** -0.5)
    if options.get("is_causal"):
        attn_mask = logits.new_ones(logits.shape[2:], dtype=torch.bool).tril()
    if attn_mask is not None:
        mask = attn_mask[:1] if attn_mask.ndim == 4 else attn_mask
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask.float()
    return logits.softmax(-1)


def _noted_weights(
    adapter: "VlmAdapter", attention: Attention, run: Callable[[], None]
) -> tuple[Tensor, Tensor | None]:
    """What all heads of a module attend to in its first call within `run`.

    Returns:
        (heads, queries, keys), and the cosines of rotary positions that the module was called with, (keys, ...).

    Raises:
        ModelError: they cannot be noted, or do not explain the module's output.
    """
    module, noted = adapter.model.get_submodule(attention.path), _Noted()
    handles = [
        module.register_forward_pre_hook(lambda *_: setattr(noted, "listening", not noted.parts)),
        module.register_forward_hook(lambda *_: setattr(noted, "listening", False)),
    ]
    try:
        with noted:
            args, kwargs, output = _call_of(module, run)
    finally:
        for handle in handles:
            handle.remove()
    x = args[0] if args else kwargs["hidden_states"]
    x, output = (t[0] if t.ndim == 3 else t for t in (x, output))
    parameters = _parameters(adapter, attention)
    v = _projected(attention, parameters, "v", x.float())
    # A picture may be seen window by window.
    heads = [torch.block_diag(*parts) for parts in zip(*noted.parts, strict=True)]
    weights = torch.stack(heads) if heads else v[:, :, :0]
    if weights.shape != (*v.shape[:2], v.shape[1]) or not _same(_written(attention, parameters, weights, v), output):
        raise ModelError(
            f"What {attention.path!r} gives is not a softmax over its values alone (a gate, a sink, or a kernel that "
            "keeps its weights to itself), so no map of one head can be given; loading the model with "
            "attn_implementation='sdpa' may help."
        )
    return weights, kwargs.get("position_embeddings", (None,))[0]


def _over_places(
    adapter: "VlmAdapter", prompt: "Prompt", weights: Tensor, unit: Unit, picture: Image.Image, angles: Tensor | None
) -> AttentionMap:
    """(queries, keys) of a vision tower -> its patches, which the language model reads all of."""
    grid = _grid(adapter, prompt)
    before = len(weights) - grid[0] * grid[1] if grid else -1  # class and register tokens come first
    places = _places(adapter, prompt, grid) if before >= 0 else torch.empty(0)
    if before < 0 or ("image_grid_thw" in prompt.picture and not _borne_out(places, grid, angles)):
        raise ModelError(f"The layer of {unit.name!r} does not see the picture as one grid of patches.")
    row = weights[before:, before:].mean(0)
    found = torch.empty_like(row).index_put((places,), row).reshape(grid)
    return AttentionMap(found, (), "mean over patches", picture=adapter.as_read(picture))


def _over_question(
    adapter: "VlmAdapter", prompt: "Prompt", row: Tensor, unit: Unit, picture: Image.Image
) -> AttentionMap:
    """(keys,) of the last token -> the picture and the words around it."""
    seen = prompt.ids == adapter.tokenizer.convert_tokens_to_ids(adapter.image_token)
    grid = _grid(adapter, prompt)
    if grid and "image_grid_thw" in prompt.picture:
        grid = tuple(side // adapter.model.config.vision_config.spatial_merge_size for side in grid)
    before = prompt.places - grid[0] * grid[1] if grid else -1
    if before not in (0, 1):  # 1: the class token
        raise ModelError(
            f"{adapter.name} reads this picture as {prompt.places} tokens that form no one grid (several crops, or "
            f"patches pooled together), so the attention of {unit.name!r} cannot be drawn on it."
        )
    word = lambda i: adapter.tokenizer.decode([i]).strip() or adapter.tokenizer.convert_ids_to_tokens(i)  # noqa: E731
    words = tuple(map(word, prompt.ids[~seen].tolist()))
    over = row[seen][before:].reshape(grid)
    return AttentionMap(over, words, "last token", row[~seen], adapter.as_read(picture))


def _grid(adapter: "VlmAdapter", prompt: "Prompt") -> tuple[int, int] | None:
    """Rows and columns of patches that the vision tower cuts the whole picture into; None where that is unknown."""
    side = getattr(getattr(adapter.model.config, "vision_config", None), "patch_size", None)
    sizes, pixels = (prompt.picture.get(name) for name in ("image_grid_thw", "pixel_values"))
    if sizes is not None:
        return tuple(sizes[0, 1:].tolist()) if sizes[:, 0].tolist() == [1] else None
    if pixels is None or not isinstance(side, int) or pixels.ndim < 4 or len(pixels) > 1:
        return None
    return pixels.shape[-2] // side, pixels.shape[-1] // side


def _places(adapter: "VlmAdapter", prompt: "Prompt", grid: tuple[int, int]) -> Tensor:
    """Where in the grid, counted row by row, each patch lies, in the order in which the vision tower runs them."""
    found = torch.arange(grid[0] * grid[1]).reshape(grid)
    if "image_grid_thw" not in prompt.picture:
        return found.flatten()
    from transformers.vision_utils import get_vision_window_index

    vision = adapter.model.config.vision_config
    side = vision.spatial_merge_size
    tokens = found.unflatten(1, (-1, side)).unflatten(0, (-1, side)).transpose(1, 2).reshape(-1, side * side)
    if hasattr(vision, "window_size"):
        sizes = prompt.picture["image_grid_thw"]
        tokens = tokens[get_vision_window_index(sizes, side, vision.window_size, vision.patch_size)[0]]
    return tokens.flatten()


def _borne_out(places: Tensor, grid: tuple[int, int], angles: Tensor | None) -> bool:
    """Each number of the rotary positions depends on the row alone or the column alone, if the places are right."""
    if angles is None or len(angles) != len(places):
        return False
    laid = angles.cpu()[places.argsort()].unflatten(0, grid)  # (rows, columns, dim)
    return bool(((laid == laid[:, :1]).all(1).all(0) | (laid == laid[:1]).all(1).all(0)).all())
