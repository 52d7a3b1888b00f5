"""CLIPErase: forget, retain and stay consistent with the frozen model, over all weights.

Yang et al., ACL 2025. Its consistency term is what RAZOR calls mismatch.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from razor import losses
from razor.baselines.training import RATES, train, trained_tensors
from razor.baselines.tuning import Tuning

WEIGHTS = (1.0, 3.0, 3.0)  # of retain, forget and consistency


def cliperase(tuning: Tuning) -> None:
    """theta <- argmin l1 InfoNCE(D_r) + l2 mean cos(v, t on D_f) + l3 [KL over captions + KL over pictures on D_r]."""
    names, pairs = trained_tensors(tuning.adapter), Pairs(tuning)
    for setting in tuning.settings(RATES):
        train(tuning, setting, names, lambda step: objective(tuning, pairs, step))


def objective(tuning: Tuning, pairs: "Pairs", step: int) -> Callable[[], Tensor]:
    """The three terms on the batches of this step."""
    forget = tuning.bench.scoring_terms(step)["forget"]

    def loss() -> Tensor:
        retain, consistency = pairs.losses(step)
        return WEIGHTS[0] * retain + WEIGHTS[1] * (1 - forget()) + WEIGHTS[2] * consistency

    return loss


class Pairs:
    """Retain pictures of the gradient split with their captions, and what the frozen model makes of them."""

    def __init__(self, tuning: Tuning):
        self.tuning, adapter = tuning, tuning.adapter
        examples = tuning.bench.task.retain.gradient
        self.captions = [e.caption for e in examples]
        self.pixels = adapter.pixels([e.image for e in examples])
        with tuning.bench.beneath.applied(adapter.model):
            self.frozen = adapter.embed_images(self.pixels), adapter.embed_texts(self.captions)

    def losses(self, step: int) -> tuple[Tensor, Tensor]:
        """R and the consistency term, both scalars with a graph, on a batch that follows from the step's number."""
        adapter = self.tuning.adapter
        rows = self.tuning.draw(len(self.captions), self.tuning.batch, f"pairs/{step}")
        captions = [self.captions[i] for i in rows]
        v = adapter.model.encode_image(self.pixels[rows].to(adapter.device), normalize=True)
        t = adapter.encode_text(adapter.tokenizer(captions).to(adapter.device), normalize=True)
        before_v, before_t = (side[rows].to(v.device) for side in self.frozen)
        code = torch.tensor([captions.index(caption) for caption in captions], device=v.device)
        retain = losses.contrastive(v, t, code[:, None] == code[None], adapter.scale)
        before, now = adapter.scale * before_v @ before_t.T, adapter.scale * v @ t.T
        kl = lambda p, q: F.kl_div(q.log_softmax(1), p.log_softmax(1), log_target=True, reduction="batchmean")  # noqa: E731
        return retain, kl(before, now) + kl(before.T, now.T)
