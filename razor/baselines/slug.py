"""SLUG: one layer, one gradient, one length found by search.

Cai et al., ICML 2025. Layers on the Pareto front of importance |g_f| / |theta| against alignment |cos(g_f, g_r)| are
tried in turn; on each the step length is searched, and the rule all rivals share picks among the results.

Where this departs from the public code:

- Gradients start from nothing at every run instead of from what was left in .grad, alignment is of the retain gradient
  at the same weights, steps ascend whatever the model, and the first layer of the table can be on the front.
- Lengths are judged on the search split instead of the test set, and forgotten means the target all methods share,
  instead of no hit among the first five answers.
- On a pipeline every layer of the front is tried, not the deepest alone, and a search goes through all its lengths,
  where the public one ends at the first that forgets and costs little.
- The weights of layer norms are left out, which the public code scores in open_clip's models and no others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from razor.baselines.tuning import Tuning
from razor.patches import Patch
from razor.units import Slice

BATCHES = 4  # gradients are averaged over these
LENGTHS = 10  # tried on every layer
FIRST = 0.1  # of the weights' norm
PIPELINE_FIRST, PIPELINE_LONGEST = 0.4, 4.0
TENSOR, LENGTH = "tensor", "length"
_NOT_LAYERS = ("bias", "position", "embedding", "embed", "scale", "norm", "ln_")
_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("fc1", "fc2"), ("to_q", "to_k", "to_v"))


@dataclass(frozen=True)
class Candidate:
    """One layer."""

    name: str
    importance: float  # |g_f| / |theta|
    alignment: float  # |cos(g_f, g_r)|


def slug(tuning: Tuning) -> None:
    """theta_l <- theta_l + s * |theta_l| * g_f / |g_f| on each layer of the front of each tower."""
    adapter = tuning.adapter
    layers = {name: adapter.tower_of(name) for name, p in adapter.model.named_parameters() if p.ndim >= 2}
    names = [
        name for name, tower in layers.items()
        if tower in adapter.growing and not any(part in name for part in _NOT_LAYERS)
    ]  # fmt: skip
    weights = tuning.weights(names)
    forget, retain = (mean_gradient(tuning, names, side) for side in ("forget", "retain"))
    table = candidates(weights, forget, retain)
    chosen = [c for tower in adapter.growing for c in front([entry for entry in table if layers[entry.name] == tower])]
    for setting in tuning.settings([{TENSOR: c.name} for c in chosen]):
        name = setting[TENSOR]
        pipeline = adapter.family == "diffusion"
        edited = together(name, names) if pipeline else [name]
        edit = lambda s, edited=edited, name=name: moved(edited, weights, forget, name, s)  # noqa: E731
        first, longest = (PIPELINE_FIRST, PIPELINE_LONGEST) if pipeline else (FIRST, None)
        search(tuning, setting, edit, first, longest=longest)


def mean_gradient(tuning: Tuning, names: Sequence[str], side: str) -> dict[str, Tensor]:
    """The loss's gradient by these parameters, averaged over BATCHES batches."""
    total: dict[str, Tensor] = {}
    for number in range(1, BATCHES + 1):
        for name, grad in tuning.gradient(names, tuning.bench.scoring_terms(number)[side]).items():
            total[name] = total.get(name, 0) + grad.float() / BATCHES
    return total


def candidates(
    weights: Mapping[str, Tensor], forget: Mapping[str, Tensor], retain: Mapping[str, Tensor]
) -> list[Candidate]:
    """Every layer the forget loss depends on."""
    found = []
    for name, w in weights.items():
        g_f, g_r = forget[name].flatten(), retain[name].flatten()
        if g_f.norm() > 0:
            aligned = torch.dot(g_f, g_r).abs() / (g_f.norm() * g_r.norm()) if g_r.norm() > 0 else torch.zeros(())
            found.append(Candidate(name, (g_f.norm() / w.norm()).item(), aligned.item()))
    return found


def front(table: Sequence[Candidate]) -> list[Candidate]:
    """Candidates that no other beats in both: more important and less aligned."""
    return [c for c in table if not any(o.importance > c.importance and o.alignment < c.alignment for o in table)]


def together(name: str, known: Sequence[str]) -> list[str]:
    """The tensors edited with this one, itself among them: queries with keys and values, both halves of an MLP."""
    for group in _TOGETHER:
        for part in group:
            if f".{part}." in name:
                mates = [name.replace(f".{part}.", f".{other}.") for other in group]
                return [mate for mate in mates if mate in known]
    return [name]


def moved(
    names: Sequence[str], weights: Mapping[str, Tensor], forget: Mapping[str, Tensor], reference: str, s: float
) -> Patch:
    """r g_f on every tensor, r such that the reference one moves by the share s of its norm."""
    rate = s * weights[reference].norm() / forget[reference].norm()
    return Patch({Slice(name): rate * forget[name] for name in names})


def search(
    tuning: Tuning,
    setting: Mapping,
    edit: Callable[[float], Patch],
    first: float,
    *,
    longest: float | None = None,
) -> None:
    """Try LENGTHS lengths: doubled until the target is met, then bisected between the last that fails and the first.

    Args:
        longest: where given, the search bisects below it from the start instead of doubling.
    """
    low, high, s = 0.0, longest, first
    for number in range(LENGTHS):
        tuning.tick(number / LENGTHS)
        now = tuning.check({**setting, LENGTH: s}, edit(s))
        if now is None or now.forget_accuracy.value <= tuning.target:
            high = s
        else:
            low = s
        s = 2 * s if high is None else (low + high) / 2
