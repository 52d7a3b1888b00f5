"""Predictions of a denoiser at fixed points under one prompt each: what rivals on pipelines train on."""

from collections.abc import Sequence

import torch
from torch import Tensor

from razor.adapters.denoising import Points
from razor.baselines.training import Objective
from razor.baselines.tuning import Tuning
from razor.patches import Patch
from razor.step import edited


class Prompted:
    """Points of noised pictures, each with a prompt as the frozen text encoders read it.

    Args:
        prompts: one a point.
    """

    def __init__(self, tuning: Tuning, points: Points, prompts: Sequence[str]):
        assert len(points) == len(prompts), "one prompt a point"
        self.tuning, self.points, self.prompts = tuning, points, list(prompts)
        with edited(tuning.adapter, tuning.bench, Patch()), torch.no_grad():
            unique = list(dict.fromkeys(self.prompts))
            self.words = tuning.adapter.encode(unique)[torch.tensor([unique.index(p) for p in self.prompts])]

    def predict(self, rows: Tensor) -> Tensor:
        """What the denoiser predicts there now, (rows, c, h, w), with a graph where gradients are on."""
        points = self.points[rows]
        return self.tuning.adapter.predict(points.noisy, points.timesteps, self.words[rows])

    @torch.no_grad()
    def frozen(self) -> Tensor:
        """The same of the unedited model, at all points, on the CPU."""
        with edited(self.tuning.adapter, self.tuning.bench, Patch()):
            rows = torch.arange(len(self.points)).split(self.tuning.batch)
            return torch.cat([self.predict(part).cpu() for part in rows])


def towards(tuning: Tuning, prompted: Prompted, goal: Tensor) -> Objective:
    """mean |v - goal|^2 on a batch of points that follows from the step's number.

    Args:
        goal: (n, c, h, w), one a point.
    """

    def objective(step: int):
        rows = tuning.draw(len(prompted.points), tuning.batch, f"points/{step}")

        def loss() -> Tensor:
            v = prompted.predict(rows)
            return (v - goal[rows].to(v.device)).square().mean()

        return loss

    return objective
