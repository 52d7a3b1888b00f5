"""A linear probe: does the image tower still tell the concept apart, whatever the texts say? CLIP alone."""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from razor import metrics
from razor.patches import Patch
from razor.robustness.case import Case, Finding
from razor.step import edited

DECAY = 1e-2  # on the probe's weights


def probe(case: Case) -> Iterator[Finding]:
    """A linear classifier of the target's axis, fitted to features of the gradient split, read on the test split."""
    case.tick()
    attacked, control = case.both(partial(_found, case))
    yield Finding(
        "probe",
        "linear, on picture features",
        case.edited.forget_accuracy,
        attacked,
        control,
        note="An edit of the text tower alone leaves picture features as they were.",
    )


def _found(case: Case, patch: Patch) -> metrics.Measure:
    features, labels = {}, {}
    axis = next(a for a in case.task.axes if a.name == case.task.axis)
    with edited(case.adapter, case.bench, patch):
        for split in ("gradient", "test"):
            parts = [case.bench.picture_embeddings(side, split, ("image",)) for side in ("forget", "retain")]
            names = [
                e.labels.get(case.task.axis)
                for side in ("forget", "retain")
                for e in getattr(getattr(case.task, side), split)
            ]
            known = [i for i, name in enumerate(names) if name in axis.prompts]
            features[split] = torch.cat(parts)[known]
            labels[split] = torch.tensor([axis.classes.index(names[i]) for i in known])
    target = axis.classes.index(case.task.concept)
    w, b = fit(features["gradient"], labels["gradient"], len(axis.classes))
    own = labels["test"] == target
    return metrics.share((features["test"][own] @ w.T + b).argmax(1) == target)


def fit(x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weights (classes, d) and bias of a logistic regression with DECAY * |w|^2 / 2, every class counted alike.

    Args:
        x: (n, d) features, y: (n,) class numbers.
    """
    w, b = (torch.zeros(shape, requires_grad=True) for shape in ((classes, x.shape[1]), (classes,)))
    counts = torch.bincount(y, minlength=classes).clamp(min=1).float()
    optimizer = torch.optim.LBFGS([w, b], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ w.T + b, y, weight=1 / counts) + DECAY / 2 * w.square().sum() / x.shape[1]
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return w.detach(), b.detach()
