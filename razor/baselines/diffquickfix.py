"""DiffQuickFix: solve the first output projection of every text encoder; no training.

Basu et al., ICLR 2024: a text-to-image model's facts sit in the first self-attention of its text encoder.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from razor.baselines.closed_form import pairs, positions, remapping, rows_of
from razor.baselines.tuning import Tuning
from razor.patches import Patch
from razor.step import edited
from razor.units import Slice

PAIRS = 24
RIDGE = "ridge"
GRID = tuple({RIDGE: ridge} for ridge in (0.01, 0.1, 1.0, 10.0))
_OUTPUTS = ("out_proj.weight", "SelfAttention.o.weight")


def diffquickfix(tuning: Tuning) -> None:
    """W <- argmin sum |W k - W_0 g|^2 + lambda |W - W_0|^2 from the concept's last token on."""
    projections, asked = first_projections(tuning), pairs(tuning.bench.task.forget.gradient, PAIRS)
    names, (prompts, anchors) = list(projections.values()), zip(*asked, strict=True)
    weights = tuning.weights(names)
    concept, anchor = inputs(tuning, names, prompts), inputs(tuning, names, anchors)
    rows = {}
    for tower, name in projections.items():
        tokenizer, length = tuning.adapter.tokenizers()[1 if tower == "text3" else 0]
        found = [positions(tokenizer, length, prompt, other) for prompt, other in asked]
        own, beside = zip(*found, strict=True)
        rows[name] = rows_of(concept[name], own).float(), rows_of(anchor[name], beside).float()
    for setting in tuning.settings(GRID):
        deltas = {
            Slice(name): remapping(weights[name], keys, guides, keys[:0], setting[RIDGE])
            for name, (keys, guides) in rows.items()
        }
        tuning.check(setting, Patch(deltas))


def first_projections(tuning: Tuning) -> dict[str, str]:
    """Tower -> the output matrix of its first self-attention."""
    found: dict[str, str] = {}
    for name, _ in tuning.adapter.model.named_parameters():
        tower = tuning.adapter.tower_of(name)
        if tower.startswith("text") and name.endswith(_OUTPUTS):
            found.setdefault(tower, name)
    return found


@torch.no_grad()
def inputs(tuning: Tuning, names: Sequence[str], prompts: Sequence[str]) -> Mapping[str, Tensor]:
    """What these matrices multiply when the prompts are read: name -> (n, tokens, width)."""
    adapter, seen = tuning.adapter, {}
    with edited(adapter, tuning.bench, Patch()):
        handles = [
            adapter.model.get_submodule(name.removesuffix(".weight")).register_forward_pre_hook(
                lambda _module, args, name=name: seen.__setitem__(name, args[0].detach())
            )
            for name in names
        ]
        try:
            adapter.encode(list(prompts))
        finally:
            for handle in handles:
                handle.remove()
    return seen
