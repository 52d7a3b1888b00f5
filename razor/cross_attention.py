"""Where the words go: how much each place of a picture under way attends to each token of its prompt.

    softmax(q k^T / sqrt(d)),   q of the picture; k of the words, in a joint transformer of picture and words together

Computed beside the denoiser from what enters its attention, head by head, so that what is drawn stays as it is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from razor.adapters.diffusion import DiffusionAdapter
from razor.errors import InputError, ModelError
from razor.patches import Patch
from razor.units import Unit, find_attention

START, END = "<start>", "<end>"
PLACES = 1024  # of the picture, per product with all keys: bounds the memory of one head at a time


@dataclass(frozen=True)
class WordMaps:
    """Where each token of a prompt went while its picture was drawn."""

    tokens: tuple[str, ...]  # without padding; START and END for the marks
    shares: Tensor  # (tokens, h, w) in 0..1: share of each place's attention
    peak: float  # the largest share any word gets anywhere, on either side of an edit where there are two
    picture: Image.Image
    steps: int  # sampling steps averaged over

    @property
    def maps(self) -> Tensor:
        """(tokens, h, w) in 0..1, 1 standing for `peak`. The marks, on which attention rests, may be cut off there."""
        return (self.shares / self.peak).clamp(max=1)


def token_maps(
    adapter: DiffusionAdapter,
    patch: Patch,
    prompt: str,
    seed: int,
    *,
    unit: Unit | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    side: int | None = None,
    at: Sequence[int] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> WordMaps | None:
    """Draw a prompt with the patch applied and watch where its words go. Leaves the model as found.

    The picture is the one DiffusionAdapter.draw gives. Under guidance only the half that reads the prompt counts.

    Args:
        unit: one head through which the picture reads the words; None: the mean over all of them.
        steps, guidance, side: as in DiffusionAdapter.draw.
        at: numbers of the steps to average over, from 1; None: all.
        stop: asked after each step.

    Returns:
        The maps, as fine as the finest of the heads; a joint transformer's hold the tokens of its CLIP encoders, then
        those of T5. None where it was stopped.

    Raises:
        InputError: what cannot be drawn, a step that is not drawn, or a unit that is no head of the denoiser.
        ModelError: a head of the denoiser that reads no words, or what DiffusionAdapter.draw raises.
    """
    steps = adapter.steps if steps is None else steps
    guidance = adapter.guidance if guidance is None else guidance
    side = adapter.side if side is None else side
    adapter.check_drawing([prompt], steps, guidance, side)
    heads = _word_heads(adapter) if unit is None else _heads_of(adapter, unit)
    if at is not None and (not at or not set(at) <= set(range(1, int(steps) + 1))):
        raise InputError(f"The steps to look at are {list(at)}; name some of 1 to {steps}.")
    sums = _Sums(lambda step: at is None or step in at)
    with patch.applied(adapter.model), _watched(heads, sums):
        options = {"steps": steps, "guidance": guidance, "side": side, "stop": stop}
        drawn = adapter.draw([prompt], [seed], on_step=lambda step, _latents: sums.after(step), **options)
    if not drawn:
        return None
    rows, tokens = zip(*_tokens(adapter, prompt), strict=True)
    shares = sums.mean()[list(rows)]
    words = [i for i, token in enumerate(tokens) if token not in (START, END)]
    peak = shares[words].max().item() if words else 0.0
    return WordMaps(tokens, shares, peak or 1.0, drawn[0], len(sums.steps))


def before_after(
    adapter: DiffusionAdapter, patch: Patch, prompt: str, seed: int, **options
) -> tuple[WordMaps, WordMaps] | None:
    """`token_maps` of the unedited and of the patched model, from the same noise and on one scale.

    Args:
        options: those of `token_maps`.
    """
    before = token_maps(adapter, Patch(), prompt, seed, **options)
    after = before and token_maps(adapter, patch, prompt, seed, **options)
    if before is None or after is None:
        return None
    peak = max(before.peak, after.peak)
    return replace(before, peak=peak), replace(after, peak=peak)


def word_shares(module: nn.Module, picture: Tensor, words: Tensor, heads: Sequence[int]) -> Iterator[Tensor]:
    """For each of these heads, the share of every place's attention that each token gets: (places, tokens).

    Rows sum to 1, padding counted; in a joint transformer to less, since places attend to places too.

    Args:
        module: an attention module of diffusers, either kind.
        picture: (places, width) and words: (tokens, width), as they enter the module.
    """
    split = lambda x: x.unflatten(-1, (module.heads, -1)).transpose(0, 1)  # noqa: E731
    normed = lambda norm, x: x if norm is None else norm(x)  # noqa: E731
    q = normed(module.norm_q, split(module.to_q(picture)))  # (heads, places, dim)
    if _is_joint(module):
        of_words = normed(module.norm_added_k, split(module.add_k_proj(words)))
        k = torch.cat([normed(module.norm_k, split(module.to_k(picture))), of_words], 1)
    else:
        k = normed(module.norm_k, split(module.to_k(words)))  # (heads, tokens, dim)
    for head in heads:
        keys = k[head].float().T / k.shape[-1] ** 0.5
        parts = [(part.float() @ keys).softmax(-1)[:, -len(words) :] for part in q[head].split(PLACES)]
        yield torch.cat(parts)


class _Sums:
    """Shares added up by size of the map, over heads and over the steps that are wanted."""

    def __init__(self, wanted: Callable[[int], bool]):
        self.wanted, self.step, self.steps = wanted, 1, set()
        self.found: dict[int, Tensor] = {}  # places -> (places, tokens)
        self.count = 0  # maps added up, of whatever size

    def after(self, step: int) -> None:
        """A step is done."""
        self.step = step + 1

    def add(self, module: nn.Module, heads: Sequence[int], picture: Tensor, words: Tensor) -> None:
        if not self.wanted(self.step):
            return
        self.steps.add(self.step)
        for shares in word_shares(module, picture, words, heads):
            self.found.setdefault(len(shares), torch.zeros_like(shares)).add_(shares)
            self.count += 1

    def mean(self) -> Tensor:
        """(tokens, h, w) at the size of the finest map, on the CPU."""
        side = round(max(self.found) ** 0.5)
        squares = [sums.T.unflatten(1, (round(places**0.5), -1)) for places, sums in self.found.items()]
        finest = [F.interpolate(s[None], (side, side), mode="bilinear", align_corners=False)[0] for s in squares]
        return torch.stack(finest).sum(0).cpu() / self.count


@contextmanager
def _watched(heads: Mapping[nn.Module, Sequence[int]], sums: _Sums) -> Iterator[None]:
    """Add up what the modules' heads attend to for the length of the block; the modules run as they do otherwise."""

    def enter(module: nn.Module, args: tuple, kwargs: dict) -> None:
        picture = args[0] if args else kwargs["hidden_states"]
        words = args[1] if len(args) > 1 else kwargs["encoder_hidden_states"]
        assert kwargs.get("attention_mask") is None, "no pipeline that can be opened masks words"
        # Under guidance the empty prompt comes first and the prompt last.
        sums.add(module, heads[module], picture[-1], words[-1])

    with ExitStack() as hooks:
        for module in heads:
            hooks.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
        yield


def _is_joint(module: nn.Module) -> bool:
    return getattr(module, "add_k_proj", None) is not None


def _word_heads(adapter: DiffusionAdapter) -> dict[nn.Module, list[int]]:
    """Every module through which the picture reads the words, with the numbers of its heads."""
    modules = {a.path: a.heads for a in find_attention(adapter.model) if _reads_words(adapter, a.path)}
    return {adapter.model.get_submodule(path): list(range(heads)) for path, heads in modules.items()}


def _heads_of(adapter: DiffusionAdapter, unit: Unit) -> dict[nn.Module, list[int]]:
    """The module of one head with the head's number; both streams of a joint attention have the same heads."""
    if unit.kind != "head" or unit.tower.startswith("text"):
        raise InputError(f"{unit.name!r} is no head of the denoiser; choose one of tower {_tower(adapter)!r}.")
    found = ((a.path, h) for a in find_attention(adapter.model) for h in range(a.heads) if a.head(h) == unit.slices)
    path, number = next(found)
    if not _reads_words(adapter, path):
        raise ModelError(
            f"{unit.name!r} looks from the picture at the picture and reads no words; choose a head of tower "
            f"{_tower(adapter)!r}."
        )
    return {adapter.model.get_submodule(path): [number]}


def _reads_words(adapter: DiffusionAdapter, path: str) -> bool:
    return adapter.tower_of(f"{path}.to_q.weight") == "cross" or _is_joint(adapter.model.get_submodule(path))


def _tower(adapter: DiffusionAdapter) -> str:
    return "context" if adapter.joint else "cross"


def _tokens(adapter: DiffusionAdapter, prompt: str) -> Iterator[tuple[int, str]]:
    """(place among the states, word) of each token that is no padding."""
    start = 0
    for tokenizer, length in adapter.tokenizers():
        marks = {tokenizer.bos_token_id: START, tokenizer.eos_token_id: END}
        ids = tokenizer(prompt, truncation=True, max_length=length).input_ids
        for i, number in enumerate(ids):
            word = tokenizer.decode([number]).strip() or tokenizer.convert_ids_to_tokens(number)
            yield start + i, marks.get(number, word)
        start += length
