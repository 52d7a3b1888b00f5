"""Free words: vectors that stand in a prompt where fillers stood, for an attack to fit."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from razor.errors import ModelError

FILLER = "a"


@dataclass
class FreeWords:
    """The vectors of each text encoder, (m, tokens, width); m differ where prompts are to have words of their own."""

    vectors: list[Tensor]
    chosen: list[int] = field(default_factory=lambda: [0])  # which of the m stand in the prompts read next, or in all


@contextmanager
def free_words(encoders: Sequence[tuple[nn.Embedding, list[int]]], words: int, many: int = 1) -> Iterator[FreeWords]:
    """Trainable vectors in place of the first run of `words` fillers of every text, for the length of the block.

    Args:
        encoders: the token embedding of each text encoder, and what its tokenizer makes of FILLER.
        many: sets of vectors.
    """
    free = FreeWords(
        [
            embedding.weight.detach().float().mean(0).repeat(many, words * len(filler), 1).requires_grad_(True)
            for embedding, filler in encoders
        ]
    )

    def put(number: int, filler: list[int], _module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        wanted = torch.tensor(words * filler, device=output.device)
        runs = (args[0].unfold(1, len(wanted), 1) == wanted).all(-1)  # (n, places)
        places = runs.float().argmax(1)[:, None] + torch.arange(len(wanted), device=output.device)
        rows = free.vectors[number][free.chosen].to(output.dtype).expand(len(output), -1, -1)
        changed = output.scatter(1, places[..., None].expand_as(rows), rows)
        return torch.where(runs.any(1)[:, None, None], changed, output)

    with ExitStack() as stack:
        for number, (embedding, filler) in enumerate(encoders):
            stack.callback(embedding.register_forward_hook(partial(put, number, filler)).remove)
        yield free


def filler_of(read: Callable[[str], Sequence[int]]) -> list[int]:
    """The tokens of FILLER, one or more.

    Args:
        read: the tokens of a text, with its marks of beginning and end and its padding.

    Raises:
        ModelError: the tokenizer does not read it, or reads it in another way at the beginning of a text.
    """
    marks = set(read(""))
    once, twice = ([t for t in read(text) if t not in marks] for text in (FILLER, fillers(2)))
    if not once or twice != 2 * once:
        raise ModelError(f"The tokenizer has no token of its own for {FILLER!r}, so no free words can stand for it.")
    return once


def fillers(words: int, *more: str) -> str:
    """A text that begins with so many fillers."""
    return " ".join([*[FILLER] * words, *more])
