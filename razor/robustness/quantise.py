"""Copies in few bits: an edit smaller than the rounding of the weights would be rounded away.

Grids are real ones: 8 bits symmetric with one scale a row, 4 bits symmetric with one scale a block of BLOCK weights.
They are computed here, on every device; bitsandbytes and torchao, whose grids differ, are not used.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from razor.adapters.base import Adapter
from razor.patches import Patch
from razor.robustness.case import Case, Finding
from razor.step import edited
from razor.units import Slice

BITS = (8, 4)
BLOCK = 64
_LEFT_ALONE = ("embed", "position", "norm", "ln_", "class_embedding")


def quantise(case: Case) -> Iterator[Finding]:
    """The edited and the unedited model, every matrix and kernel rounded to 8 and to 4 bits."""
    for bits in BITS:
        case.tick()
        now, control = case.both(lambda patch, bits=bits: case.measured(rounded(case, patch, bits)))
        told = survival(case, bits)
        yield Finding(
            "quantise",
            f"{bits} bits",
            case.edited.forget_accuracy,
            now.forget_accuracy,
            control.forget_accuracy,
            now.retain_accuracy,
            f"{told.changed:.0%} of the edited weights' codes differ, of all {told.weights:,} that are rounded; cosine "
            f"of the edit with what is left of it after rounding {told.cosine:.2f}.",
        )


def matrices(adapter: Adapter) -> list[str]:
    """Weights that copies in few bits round: every matrix and every kernel of a convolution, but embeddings."""
    return [
        name
        for name, p in adapter.model.named_parameters()
        if p.ndim >= 2 and not any(part in name for part in _LEFT_ALONE)
    ]


def rounded(case: Case, patch: Patch, bits: int) -> Patch:
    """The patch with the rounding on top: applied to the unedited model it gives the rounded copy."""
    names = matrices(case.adapter)
    before, after = _weights(case, Patch(), names), _weights(case, patch, names)
    deltas = {Slice(name): on_grid(after[name], bits) - before[name] for name in names}
    left = {where: delta for where, delta in patch.deltas.items() if where.parameter not in after}
    return Patch({**left, **deltas})


def codes(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Whole numbers on the grid and the scale of each, both shaped like the weight (out, ...), a row to an output.

    code = round(w / s), s = max |w| of the row (8 bits) or of the block (4 bits) / (2^(bits - 1) - 1).
    """
    top = 2 ** (bits - 1) - 1
    rows = weight.float().flatten(1)
    parts = rows.split(rows.shape[1] if bits == 8 else BLOCK, 1)
    scales = [part.abs().amax(1, keepdim=True).clamp(min=1e-12) / top for part in parts]
    found = [(part / s).round() for part, s in zip(parts, scales, strict=True)]
    spread = [s.expand_as(p) for s, p in zip(scales, parts, strict=True)]
    return torch.cat(found, 1).view(weight.shape), torch.cat(spread, 1).view(weight.shape)


def on_grid(weight: Tensor, bits: int) -> Tensor:
    """The weight as its copy in few bits has it, float32."""
    number, scale = codes(weight, bits)
    return number * scale


@dataclass(frozen=True)
class Survival:
    """What rounding leaves of an edit."""

    changed: float  # share of the edited weights whose code differs from the unedited copy's
    cosine: float  # of the edit with the difference between both copies, over the edited weights
    weights: int  # edited ones that are rounded, all of which are counted


def survival(case: Case, bits: int) -> Survival:
    """Compare the copies of the edited and the unedited model where the patch writes."""
    names = [name for name in matrices(case.adapter) if any(s.parameter == name for s in case.patch.deltas)]
    before, after = _weights(case, Patch(), names), _weights(case, case.patch, names)
    differ = edited_count = 0
    edit, left = [], []
    for name in names:
        touched = before[name] != after[name]
        (code, scale), (new, new_scale) = codes(before[name], bits), codes(after[name], bits)
        differ += ((code != new) & touched).sum().item()
        edited_count += touched.sum().item()
        edit.append((after[name] - before[name])[touched])
        left.append((new * new_scale - code * scale)[touched])
    if not edited_count:
        return Survival(0.0, 0.0, 0)
    a, b = torch.cat(edit).double(), torch.cat(left).double()
    length = (a.norm() * b.norm()).item()
    return Survival(differ / edited_count, torch.dot(a, b).item() / length if length else 0.0, edited_count)


def _weights(case: Case, patch: Patch, names: list[str]) -> Mapping[str, Tensor]:
    with edited(case.adapter, case.bench, patch):
        parameters = dict(case.adapter.model.named_parameters())
        return {name: parameters[name].detach().float().cpu().clone() for name in names}
