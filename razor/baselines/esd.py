"""ESD-x: train cross-attention to predict the opposite of the concept.

Gandikota et al., ICCV 2023. Points are noised forget pictures instead of states sampled on the way, as all methods here
learn from the same pictures.
"""

from torch import Tensor

from razor.baselines.denoising import Prompted, towards
from razor.baselines.training import RATE, train, trained_tensors
from razor.baselines.tuning import Tuning

GUIDANCE, PROMPT = "negative guidance", "prompt"
GRID = tuple(
    {RATE: rate, PROMPT: prompt, GUIDANCE: 1.0}
    for prompt in ("captions", "concept")
    for rate in (3e-5, 1e-4, 3e-4, 1e-3)
)


def esd(tuning: Tuning) -> None:
    """min |v(c) - (v_0("") - eta (v_0(c) - v_0("")))|^2, c the concept's name or the picture's caption."""
    points, task = tuning.bench.points("forget", "gradient"), tuning.bench.task
    axis = next(a for a in task.axes if a.name == task.axis)
    names, empty = trained_tensors(tuning.adapter), Prompted(tuning, points, [""] * len(points)).frozen()
    prompts = {
        "captions": [e.caption for e in points.examples],
        "concept": [axis.prompts[task.concept][0]] * len(points),
    }
    asked = {kind: Prompted(tuning, points, texts) for kind, texts in prompts.items()}
    frozen = {kind: prompted.frozen() for kind, prompted in asked.items()}
    for setting in tuning.settings(GRID):
        kind = setting[PROMPT]
        train(tuning, setting, names, towards(tuning, asked[kind], opposite(frozen[kind], empty, setting[GUIDANCE])))


def opposite(concept: Tensor, empty: Tensor, eta: float) -> Tensor:
    """v(empty) - eta (v(concept) - v(empty))."""
    return empty - eta * (concept - empty)
