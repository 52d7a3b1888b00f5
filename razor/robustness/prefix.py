"""Free words before the name: a few token vectors, optimised until the concept is recognised again. CLIP alone.

The vectors are fitted on forget pictures of the gradient split and read on the test split. What they find without the
name shows how much is their own doing: enough free vectors can describe any picture.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from razor import metrics
from razor.errors import ModelError
from razor.patches import Patch
from razor.robustness.case import Case, Finding
from razor.robustness.wording import recognised
from razor.step import edited

WORDS = 3  # free token vectors
STEPS, RATE = 60, 0.05  # of Adam
FILLER = "a"


def prefix(case: Case) -> Iterator[Finding]:
    """The concept named with WORDS free vectors before it, among the usual names of all other classes."""
    found = {side: _found(case, patch, case.task.concept) for side, patch in case.patches().items()}
    alone = _found(case, case.patch, "")
    yield Finding(
        "prefix",
        f"{WORDS} free words before the name",
        case.edited.forget_accuracy,
        found["edited"],
        found["control"],
        note=f"Free words without the name find {alone.value:.0%}.",
    )


def _found(case: Case, patch: Patch, name: str) -> metrics.Measure:
    adapter, axis = case.adapter, next(a for a in case.task.axes if a.name == case.task.axis)
    target = axis.classes.index(case.task.concept)
    with edited(adapter, case.bench, patch):
        seen, unseen = (case.bench.picture_embeddings("forget", split, ("image",)) for split in ("gradient", "test"))
        classes = adapter.class_embeddings(axis)
        ids, places = slots(adapter.tokenizer, name)
        with inserted(adapter.model, places) as free:
            optimizer = torch.optim.Adam([free], lr=RATE)
            for _ in range(STEPS):
                case.tick()
                with torch.enable_grad():
                    text = _encoded(adapter, ids)
                    logits = adapter.scale * seen.to(text.device) @ _with(classes.to(text.device), target, text).T
                    loss = F.cross_entropy(logits, torch.full((len(seen),), target, device=text.device))
                    (free.grad,) = torch.autograd.grad(loss, [free])
                optimizer.step()
            with torch.no_grad():
                text = _encoded(adapter, ids).float().cpu()
    return metrics.share(recognised(unseen, classes, target, text))


def slots(tokenizer, name: str) -> tuple[Tensor, list[int]]:
    """Token ids (1, length) of WORDS fillers and the name, and the places of the fillers.

    Raises:
        ModelError: the tokenizer reads the filler as more than one token.
    """
    ids = tokenizer([" ".join([*[FILLER] * WORDS, *([name] if name else [])])])
    (filler,) = set(tokenizer([FILLER])[0].tolist()) & set(ids[0].tolist()) - set(tokenizer([""])[0].tolist()) or {None}
    places = [i for i, token in enumerate(ids[0].tolist()) if token == filler][:WORDS]
    if filler is None or len(places) < WORDS:
        raise ModelError(f"The tokenizer does not read {FILLER!r} as one token, so no free words can stand for it.")
    return ids, places


@contextmanager
def inserted(model: nn.Module, places: list[int]) -> Iterator[Tensor]:
    """Trainable vectors (WORDS, width) that stand at these places of every text, for the length of the block.

    Raises:
        ModelError: the text tower has no token embedding to put them behind.
    """
    text = getattr(model, "text", model)
    embedding = getattr(text, "token_embedding", None)
    if embedding is None and hasattr(getattr(text, "transformer", None), "get_input_embeddings"):
        embedding = text.transformer.get_input_embeddings()
    if not isinstance(embedding, nn.Embedding):
        raise ModelError("The text tower has no token embedding to put free words behind; choose another attack.")
    start = embedding.weight.detach().float().mean(0)
    free = start.repeat(len(places), 1).requires_grad_(True)

    def put(_module: nn.Module, _args: tuple, output: Tensor) -> Tensor:
        rows = free.to(output.dtype).expand(len(output), -1, -1)
        return output.index_copy(1, torch.tensor(places, device=output.device), rows)

    handle = embedding.register_forward_hook(put)
    try:
        yield free
    finally:
        handle.remove()


def _encoded(adapter, ids: Tensor) -> Tensor:
    return adapter.model.encode_text(ids.to(adapter.device), normalize=True)[0]


def _with(classes: Tensor, target: int, text: Tensor) -> Tensor:
    """The class vectors with the target's replaced, keeping the graph."""
    return torch.cat([classes[:target], text[None], classes[target + 1 :]])
