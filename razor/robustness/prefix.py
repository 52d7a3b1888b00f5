"""Free words before the name: a few token vectors, optimised until the concept is recognised again. CLIP alone.

The vectors are fitted on forget pictures of the gradient split and read on the test split. What they find without the
name shows how much is their own doing: enough free vectors can describe any picture.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from razor import metrics
from razor.errors import ModelError
from razor.patches import Patch
from razor.robustness.case import Case, Finding
from razor.robustness.free_words import filler_of, fillers, free_words
from razor.robustness.wording import recognised
from razor.step import edited

WORDS = 3  # free token vectors
STEPS, RATE = 60, 0.05  # of Adam


def prefix(case: Case) -> Iterator[Finding]:
    """The concept named with WORDS free vectors before it, among the usual names of all other classes."""
    attacked, control = case.both(lambda patch: _found(case, patch, case.task.concept))
    alone = _found(case, case.patch, "")
    yield Finding(
        "prefix",
        f"{WORDS} free words before the name",
        case.edited.forget_accuracy,
        attacked,
        control,
        note=f"Free words without the name find {alone.value:.0%} (n = {alone.n}, 95 % interval {alone.low:.0%} to "
        f"{alone.high:.0%}).",
    )


def _found(case: Case, patch: Patch, name: str) -> metrics.Measure:
    adapter, axis = case.adapter, next(a for a in case.task.axes if a.name == case.task.axis)
    target, tokenizer = axis.classes.index(case.task.concept), adapter.tokenizer
    filler, ids = filler_of(lambda text: tokenizer([text])[0].tolist()), tokenizer([fillers(WORDS, name).strip()])
    with edited(adapter, case.bench, patch):
        seen, unseen = (case.bench.picture_embeddings("forget", split, ("image",)) for split in ("gradient", "test"))
        classes = adapter.class_embeddings(axis)
        with free_words([(_embedding(adapter.model), filler)], WORDS) as free:
            (vectors,) = free.vectors
            optimizer = torch.optim.Adam([vectors], lr=RATE)
            for _ in range(STEPS):
                case.tick()
                with torch.enable_grad():
                    text = _encoded(adapter, ids)
                    logits = adapter.scale * seen.to(text.device) @ _with(classes.to(text.device), target, text).T
                    loss = F.cross_entropy(logits, torch.full((len(seen),), target, device=text.device))
                    (vectors.grad,) = torch.autograd.grad(loss, [vectors])
                optimizer.step()
            with torch.no_grad():
                text = _encoded(adapter, ids).float().cpu()
    return metrics.share(recognised(unseen, classes, target, text))


def _embedding(model: nn.Module) -> nn.Embedding:
    """Of the words of the text tower.

    Raises:
        ModelError: there is none.
    """
    text = getattr(model, "text", model)
    embedding = getattr(text, "token_embedding", None)
    if embedding is None and hasattr(getattr(text, "transformer", None), "get_input_embeddings"):
        embedding = text.transformer.get_input_embeddings()
    if not isinstance(embedding, nn.Embedding):
        raise ModelError("The text tower has no token embedding to put free words behind; choose another attack.")
    return embedding


def _encoded(adapter, ids: Tensor) -> Tensor:
    return adapter.encode_text(ids.to(adapter.device), normalize=True)[0]


def _with(classes: Tensor, target: int, text: Tensor) -> Tensor:
    """The class vectors with the target's replaced, keeping the graph."""
    return torch.cat([classes[:target], text[None], classes[target + 1 :]])
