"""UCE: solve every matrix that reads the words so that the concept is answered as its anchor; no training.

Gandikota et al., WACV 2024. In a joint transformer words and their summary enter through one matrix each, as in the
authors' edit of FLUX.

Where this departs from the public code: keys are all tokens from the concept's last one on, not that one alone, since
those after it know of it; guides are the task's anchors instead of one word for all; every token of the preserved
prompts is kept; and lambda is tuned.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from razor.baselines.closed_form import pairs, positions, remapping, rows_of
from razor.baselines.tuning import Tuning
from razor.patches import Patch
from razor.step import edited
from razor.units import Slice

PAIRS, PRESERVED = 24, 96  # prompts of the concept, and of the rest
RIDGE = "ridge"
GRID = tuple({RIDGE: ridge} for ridge in (0.1, 0.5, 0.01, 1.0, 10.0, 100.0))
_WORDS = (".attn2.to_k.weight", ".attn2.to_v.weight", "transformer.context_embedder.weight")
_SUMMARY = "time_text_embed.text_embedder.linear_1.weight"

Rows = tuple[Tensor, Tensor, Tensor]  # keys, guides and preserved inputs of a matrix, each (n, in)


def uce(tuning: Tuning) -> None:
    """W <- (sum W g k^T + sum W p p^T + lambda W) (sum k k^T + sum p p^T + lambda I)^-1."""
    states, summaries = read(tuning)
    known = [name for name, _ in tuning.adapter.model.named_parameters()]
    inputs = {name: states for name in known if name.endswith(_WORDS)}
    if summaries is not None:
        inputs |= {name: summaries for name in known if name.endswith(_SUMMARY)}
    weights = tuning.weights(list(inputs))
    for setting in tuning.settings(GRID):
        deltas = {
            Slice(name): remapping(weights[name], *(t.to(weights[name].device) for t in rows), setting[RIDGE])
            for name, rows in inputs.items()
        }
        tuning.check(setting, Patch(deltas))


@torch.no_grad()
def read(tuning: Tuning) -> tuple[Rows, Rows | None]:
    """What the denoiser reads of the concept's prompts, of their anchors and of the rest, token by token; and their
    summaries, where a matrix takes these in."""
    adapter, task = tuning.adapter, tuning.bench.task
    asked = pairs(task.forget.gradient, PAIRS)
    kept = list(dict.fromkeys(e.caption for e in task.retain.gradient))[:PRESERVED]
    with edited(adapter, tuning.bench, Patch()):
        concept, anchor = (adapter.encode(list(side)) for side in zip(*asked, strict=True))
        rest = [adapter.encode(kept[i : i + PAIRS]) for i in range(0, len(kept), PAIRS)]
    own, beside = zip(*(places(adapter, prompt, other) for prompt, other in asked), strict=True)
    keys, guides = rows_of(concept.states, own), rows_of(anchor.states, beside)
    states = keys.float(), guides.float(), torch.cat([w.states for w in rest]).flatten(0, 1).float()
    if not adapter.joint:
        return states, None
    return states, (concept.pooled.float(), anchor.pooled.float(), torch.cat([w.pooled for w in rest]).float())


def places(adapter, prompt: str, anchor: str) -> tuple[Sequence[int], Sequence[int]]:
    """`positions` over all stretches of the states the denoiser reads."""
    own, beside, start = [], [], 0
    for tokenizer, length in adapter.tokenizers():
        mine, others = positions(tokenizer, length, prompt, anchor)
        own += [start + i for i in mine]
        beside += [start + i for i in others]
        start += length
    return own, beside
