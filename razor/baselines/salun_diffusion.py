"""SalUn on a pipeline: on the weights its forget loss depends on most, predict for the concept what the anchor gives.

Fan et al., ICLR 2024, with UnlearnCanvas's mask of two fifths, over cross-attention.
"""

from torch import Tensor

from razor.baselines.denoising import Prompted, towards
from razor.baselines.salun import masks
from razor.baselines.training import RATE, train, trained_tensors
from razor.baselines.tuning import Tuning

SHARE = 0.4  # of the trained weights
GUIDANCE = 7.5
WEIGHT = "retain weight"
GRID = tuple({RATE: rate, WEIGHT: weight} for weight in (0.3, 1.0) for rate in (3e-5, 1e-4, 3e-4, 1e-3))


def salun_diffusion(tuning: Tuning) -> None:
    """min |v(c) - v_0(a)|^2 + alpha R over the largest of |grad |target - guided v(c)|^2|."""
    bench, names = tuning.bench, trained_tensors(tuning.adapter)
    points = bench.points("forget", "gradient")
    concept, anchor, empty = (
        Prompted(tuning, points, texts)
        for texts in ([e.caption for e in points.examples], [e.anchor for e in points.examples], [""] * len(points))
    )
    rows = tuning.draw(len(points), 2 * tuning.batch, "mask")

    def surprise() -> Tensor:
        v = guided(concept.predict(rows), empty.predict(rows))
        return (v - points.target[rows].to(v.device)).square().mean()

    mask = masks(tuning.gradient(names, surprise), SHARE)
    forget = towards(tuning, concept, anchor.frozen())
    for setting in tuning.settings(GRID):
        weight = setting[WEIGHT]

        def both(step: int, weight=weight):
            away, retain = forget(step), bench.scoring_terms(step)["retain"]
            return lambda: away() + weight * retain()

        train(tuning, setting, names, both, masks=mask)


def guided(v: Tensor, empty: Tensor) -> Tensor:
    """(1 + w) v(c) - w v("")."""
    return (1 + GUIDANCE) * v - GUIDANCE * empty
