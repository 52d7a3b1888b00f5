"""Leave out the padding when a CLIP reads short texts.

A text tower with a causal mask that is read off at the end of the text never looks at what comes behind it, yet takes
time for it: a caption fills some 10 of 77 places.
"""

from collections.abc import Callable
from contextvars import ContextVar

import torch
from torch import Tensor, nn

_LENGTH: ContextVar[int | None] = ContextVar("length", default=None)  # of the texts being read; None: all places

Encode = Callable[..., Tensor]


def encoder_of(model: nn.Module) -> Encode:
    """`model.encode_text`, without the places behind the end of the longest text where the tower allows that.

    The result equals the model's own to rounding. From the call on, the model carries a hook that does nothing while
    others run it.

    Args:
        model: a CLIP of open_clip, with a tower of its own (`model.text`) or within (`model.transformer`).
    """
    tower = getattr(model, "text", model)
    end = _end_of(model, tower)
    mask = getattr(tower, "attn_mask", None)
    appended = getattr(tower, "cls_emb", None) is not None  # CoCa reads a token of its own behind the padding
    if end is None or appended or not isinstance(mask, Tensor) or not _causal(mask):
        return model.encode_text
    tower.transformer.register_forward_pre_hook(_cut, with_kwargs=True)

    def encode(tokens: Tensor, normalize: bool = False) -> Tensor:
        before = _LENGTH.set(int(end(tokens).max()) + 1)
        try:
            return model.encode_text(tokens, normalize=normalize)
        finally:
            _LENGTH.reset(before)

    return encode


def _end_of(model: nn.Module, tower: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Token ids (n, places) -> the place each text is read at, (n,); None where that is no place of the text's own."""
    inside = tower is model
    pool = getattr(tower, "text_pool_type" if inside else "pool_type", None)
    if pool == "argmax":
        return lambda tokens: tokens.argmax(1)
    if pool == "eos":
        number = getattr(tower, "text_eos_id" if inside else "eos_id", None)
        return lambda tokens: (tokens == number).int().argmax(1)
    return None


def _causal(mask: Tensor) -> bool:
    """No place sees a later one."""
    return mask.ndim == 2 and torch.equal(mask, torch.full_like(mask, -torch.inf).triu(1))


def _cut(_transformer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    length = _LENGTH.get()
    if length is None or len(args) != 1 or kwargs.get("attn_mask") is None:
        return None
    return (args[0][:, :length],), {**kwargs, "attn_mask": kwargs["attn_mask"][:length, :length]}
