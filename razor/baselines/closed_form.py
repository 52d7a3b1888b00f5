"""The ridge regression behind UCE and DiffQuickFix: a matrix that answers some inputs as it answered others.

W' = argmin sum_i |W' k_i - W g_i|^2 + sum_j |W' p_j - W p_j|^2 + lambda |W' - W|^2
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from razor.adapters.denoising import matched
from razor.examples import Example


def remapping(weight: Tensor, keys: Tensor, guides: Tensor, preserved: Tensor, ridge: float) -> Tensor:
    """The change W' - W, shaped and typed like the weight (out, in); solved in float64.

    Args:
        keys, guides: (n, in) inputs, and those whose answers they are to get.
        preserved: (m, in) inputs whose answers stay.
        ridge: lambda > 0.
    """
    w, k, g, p = (t.double() for t in (weight, keys, guides, preserved))
    system = ridge * torch.eye(w.shape[1], dtype=w.dtype, device=w.device) + k.T @ k + p.T @ p
    return torch.linalg.solve(system, k.T @ (g - k) @ w.T).T.to(weight.dtype)


def pairs(examples: Sequence[Example], most: int) -> list[tuple[str, str]]:
    """Captions to forget with their anchors, each once, the first `most` of them."""
    return list(dict.fromkeys((e.caption, e.anchor) for e in examples))[:most]


def positions(tokenizer, length: int, prompt: str, anchor: str) -> tuple[list[int], list[int]]:
    """Places of the concept's last token and of all after it, which know of it, and their places in the anchor.

    ([], []) where prompt and anchor are read alike.
    """
    ids, others = (
        tokenizer(text, padding="max_length", max_length=length, truncation=True).input_ids for text in (prompt, anchor)
    )
    if ids == others:
        return [], []
    beside, first = matched(ids, others), length - 1
    while first > 0 and ids[first] == others[beside[first]]:
        first -= 1
    own = list(range(first, length))
    return own, [beside[i] for i in own]


def rows_of(states: Tensor, places: Sequence[Sequence[int]]) -> Tensor:
    """Some tokens of each prompt, one after the other: (n, tokens, width) -> (rows, width)."""
    return torch.cat([state[list(chosen)] for state, chosen in zip(states, places, strict=True)])
