"""The terms RAZOR adds up, each a function of embeddings. All are losses in the usual sense: small is good.

    J = R - lambda_f * rho * A_f + lambda_m * M

A_f, the alignment on the forget set, is the loss that is ascended; R and M are descended. arXiv:2603.14819 prints
the sum with the forget term already negated; the sign convention here is kept throughout the library.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def alignment(v: Tensor, t: Tensor, *, floor: Tensor | float = -1.0) -> Tensor:
    """A_f = mean(1 - cos(v_i, t)), each picture counted only while its cosine is above its floor.

    The paper's form is floor = -1 (always counted). A picture that some other class already claims by a margin needs
    no further push, and pushing on would only cost what is kept.

    Cosines of 1 and 0.6 with the concept make a mean of 0 and 0.4; with a floor of 0.8 the second counts as 0.2.

    >>> pictures, cat = torch.tensor([[2.0, 0.0], [3.0, 4.0]]), torch.tensor([1.0, 0.0])
    >>> round(alignment(pictures, cat).item(), 6), round(alignment(pictures, cat, floor=0.8).item(), 6)
    (0.2, 0.1)

    Args:
        v: (n, d) picture embeddings.
        t: (d,) or (n, d) embedding of the concept.
        floor: cosine below which a picture has no gradient, one for all or (n,).
    """
    cos = F.cosine_similarity(v, t.expand_as(v), dim=-1)
    return (1 - torch.maximum(cos, torch.as_tensor(floor, dtype=cos.dtype, device=cos.device))).mean()


def contrastive(v: Tensor, t: Tensor, same: Tensor, scale: Tensor | float) -> Tensor:
    """R: symmetric InfoNCE in which equal captions are all positives of one another.

    Args:
        v, t: (n, d) unit vectors of paired pictures and captions.
        same: (n, n) bool, [i, j] where caption j is also true of picture i; the diagonal is True.
        scale: inverse temperature.
    """
    logits = scale * v @ t.T
    positive = same.float()
    by_image = positive / positive.sum(1, keepdim=True)
    by_text = positive / positive.sum(0, keepdim=True)
    image_term = (by_image * logits.log_softmax(1)).sum(1).mean()
    text_term = (by_text * logits.log_softmax(0)).sum(0).mean()
    return -0.5 * (image_term + text_term)


def drift(similarity: Tensor, reference: Tensor, scale: float) -> Tensor:
    """M: how far the edited model's similarities moved from the frozen model's, as a mean KL divergence.

    Each row is read as a distribution over the texts. The gradient is zero at the frozen model, so M starts to act
    at the second inner step.

    Args:
        similarity, reference: (n, m) cosine similarities of the same pictures and texts.
        scale: inverse temperature.
    """
    p = (scale * reference).log_softmax(-1)
    q = (scale * similarity).log_softmax(-1)
    return F.kl_div(q, p, log_target=True, reduction="batchmean")
