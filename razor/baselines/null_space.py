"""Null-space projection: take the concept's texts out of the last projection of the image tower; no training.

arXiv:2512.14137. One line of algebra, and so a good test of whether a method does better than the trivial.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from razor.baselines.tuning import Tuning
from razor.errors import ModelError
from razor.patches import Patch
from razor.units import Slice

GAMMA = "gamma"
GRID = tuple({GAMMA: g / 10} for g in range(1, 11))
# last projection of an image tower -> its rows are what features are multiplied with (else its columns)
_PROJECTIONS: Mapping[str, bool] = {"visual.proj": True, "visual.head.proj.weight": False}


def null_space(tuning: Tuning) -> None:
    """W <- W (I - gamma U U^T), U an orthonormal basis of the concept's text embeddings, gamma in (0, 1]."""
    adapter, task = tuning.adapter, tuning.bench.task
    known = dict(adapter.model.named_parameters())
    name = next((name for name in _PROJECTIONS if name in known), None)
    if name is None:
        raise ModelError(
            f"The image tower of {adapter.name!r} has no last projection to edit; choose another method, such as ssd."
        )
    axis = next(a for a in task.axes if a.name == task.axis)
    with torch.no_grad():
        u = basis(adapter.embed_texts(list(axis.prompts[task.concept])))
    weight = tuning.weights([name])[name]
    rows = weight if _PROJECTIONS[name] else weight.T
    for setting in tuning.settings(GRID):
        delta = projected(rows, u.to(rows.device, rows.dtype), setting[GAMMA])
        tuning.check(setting, Patch({Slice(name): delta if _PROJECTIONS[name] else delta.T.contiguous()}))


def basis(texts: Tensor) -> Tensor:
    """Orthonormal columns (d, r) that span the rows of (n, d), in float64; directions below 1e-3 of the first go."""
    _, sizes, rows = torch.linalg.svd(texts.double(), full_matrices=False)
    return rows[sizes > 1e-3 * sizes[0]].T


def projected(weight: Tensor, u: Tensor, gamma: float) -> Tensor:
    """The change -gamma W U U^T of a matrix whose rows are in embedding space."""
    return -gamma * (weight @ u) @ u.T
