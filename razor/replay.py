"""Evaluate an edit of a late block without running the blocks before it.

The state in which a batch enters a block depends on nothing from that block on. It is recorded once; from then on the
blocks before it hand their input through untouched and the block starts from the record, which gives the same bits as
the full forward for any edit at or after it. What a model does differently from that is found out by trying.
"""

import itertools
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor, nn

from razor.adapters.base import Adapter
from razor.patches import Patch, model_lock
from razor.units import Unit

LIMIT = 512 * 2**20  # bytes of recorded states one cache may hold
TOGETHER = 1024 * 2**20  # bytes that all caches of a process may hold, however many visitors there are

_CACHES: "weakref.WeakSet[PrefixCache]" = weakref.WeakSet()
_LOCK = threading.Lock()  # of the records of all caches, as one may have to make room for another
_USES = itertools.count()
_BLOCKS: "weakref.WeakKeyDictionary[nn.Module, dict[str, tuple[str, ...]]]" = weakref.WeakKeyDictionary()


def block_paths(adapter: Adapter) -> dict[str, tuple[str, ...]]:
    """Module paths of each tower's blocks, in the order of the map's rows."""
    if adapter.model not in _BLOCKS:
        layers = adapter.units(("layer",), tuple(adapter.towers))
        _BLOCKS[adapter.model] = {
            tower: tuple(_common_path(unit) for unit in layers if unit.tower == tower) for tower in adapter.towers
        }
    return _BLOCKS[adapter.model]


def earliest_blocks(adapter: Adapter, patch: Patch) -> dict[str, int]:
    """The first block the patch touches in each tower it touches; 0 where it edits anything outside the blocks."""
    paths = block_paths(adapter)
    first: dict[str, int] = {}
    for name in {where.parameter for where in patch.deltas}:
        tower = adapter.tower_of(name)
        block = next((i for i, path in enumerate(paths[tower]) if name.startswith(path + ".")), 0)
        first[tower] = min(block, first.get(tower, block))
    return first


@dataclass(frozen=True)
class _Entry:
    """How one batch enters one block."""

    state: Tensor  # the hidden state, on the model's device
    tails: tuple[tuple | None, ...]  # what each earlier block returned besides its state; None: the bare state

    @property
    def bytes(self) -> int:
        tensors = [self.state, *(t for tail in self.tails for t in tail or () if isinstance(t, Tensor))]
        return sum(t.numel() * t.element_size() for t in tensors)


class PrefixCache:
    """States at the entry of blocks, by batch. Holds no weights and leaves the model as found.

    A record stays good as long as nothing before its block changes: keep one cache per set of frozen weights. Where all
    caches together grow beyond TOGETHER, the one used longest ago loses its oldest records.
    """

    def __init__(self, adapter: Adapter, *, limit: int = LIMIT):
        self.model, self.limit = adapter.model, limit
        self.blocks = {tower: [self.model.get_submodule(p) for p in ps] for tower, ps in block_paths(adapter).items()}
        self._entries: OrderedDict[tuple[str, int, Hashable], _Entry] = OrderedDict()  # last used last
        self._works: dict[tuple[str, int], bool] = {}  # (tower, block) -> a replay gave the full forward's bits
        self._used = next(_USES)
        with _LOCK:
            _CACHES.add(self)

    @property
    def bytes(self) -> int:
        """Memory held now."""
        return sum(entry.bytes for entry in self._entries.values())

    def _find(self, place: tuple[str, int, Hashable]) -> _Entry | None:
        """A record, which then counts as used last."""
        with _LOCK:
            if place in self._entries:
                self._entries.move_to_end(place)
                self._used = next(_USES)
            return self._entries.get(place)

    @torch.no_grad()
    def run(self, tower: str, first: int, batch: Hashable, forward: Callable[[], Tensor]) -> Tensor:
        """What `forward()` gives, without the blocks before `first` where they are known already.

        Args:
            first: number of the first block that may be edited; 0 runs everything.
            batch: names the input; one name always stands for the same input.
            forward: runs the tower once over that input.
        """
        if not 0 < first < len(self.blocks[tower]) or self._works.get((tower, first)) is False:
            return forward()
        with model_lock(self.model):
            if entry := self._find((tower, first, batch)):
                return self._replay(tower, first, entry, forward)
            return self._record(tower, first, batch, forward)

    def _record(self, tower: str, first: int, batch: Hashable, forward: Callable[[], Tensor]) -> Tensor:
        """Run from the latest record before `first`, note the state at `first`, and keep it if replaying it works."""
        with _LOCK:
            known = max((k for t, k, b in self._entries if (t, b) == (tower, batch) and k < first), default=0)
            start = self._entries.get((tower, known, batch))
        with _recorded(self.blocks[tower], first) as seen:
            result = self._replay(tower, known, start, forward) if start else forward()
        entry = seen()
        if (tower, first) not in self._works:
            self._works[tower, first] = entry is not None and self._agrees(tower, first, entry, forward, result)
        if self._works[tower, first] and entry is not None:
            self._keep((tower, first, batch), entry)
        return result

    def _agrees(self, tower: str, first: int, entry: _Entry, forward: Callable[[], Tensor], full: Tensor) -> bool:
        try:
            return torch.equal(self._replay(tower, first, entry, forward), full)
        except Exception:  # whatever a block makes of a state it does not expect: this model is run in full
            return False

    def _replay(self, tower: str, first: int, entry: _Entry, forward: Callable[[], Tensor]) -> Tensor:
        with _shortened(self.blocks[tower], first, entry):
            return forward()

    def _keep(self, place: tuple[str, int, Hashable], entry: _Entry) -> None:
        if entry.bytes > min(self.limit, TOGETHER):
            return
        with _LOCK:
            while self.bytes + entry.bytes > self.limit:
                self._entries.popitem(last=False)
            self._entries[place], self._used = entry, next(_USES)
            caches = sorted(_CACHES, key=lambda cache: cache._used)
            while sum(cache.bytes for cache in caches) > TOGETHER:
                next(cache for cache in caches if cache._entries)._entries.popitem(last=False)


@contextmanager
def _recorded(blocks: Sequence[nn.Module], first: int) -> Iterator[Callable[[], _Entry | None]]:
    """Watch a forward. Yields a function giving what was seen; None unless every block ran once, in a known form."""
    states: list[Tensor] = []
    tails: dict[int, list[tuple | None]] = {i: [] for i in range(first)}

    def enter(_module: nn.Module, args: tuple, kwargs: dict) -> None:
        if (place := _place(args, kwargs)) is not None:
            states.append(_read(args, kwargs, place).clone())

    def leave(i: int, output: object) -> None:
        tails[i].append(output[1:] if isinstance(output, tuple) else None)

    def seen() -> _Entry | None:
        once = len(states) == 1 and all(len(calls) == 1 for calls in tails.values())
        return _Entry(states[0], tuple(calls[0] for calls in tails.values())) if once else None

    with ExitStack() as hooks:
        for i, block in enumerate(blocks[:first]):
            handle = block.register_forward_hook(lambda _m, _args, output, i=i: leave(i, output))
            hooks.callback(handle.remove)
        hooks.callback(blocks[first].register_forward_pre_hook(enter, with_kwargs=True).remove)
        yield seen


@contextmanager
def _shortened(blocks: Sequence[nn.Module], first: int, entry: _Entry) -> Iterator[None]:
    """The blocks before `first` hand their input through and `first` starts from the entry; undone on the way out."""

    def enter(_module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        place = _place(args, kwargs)
        state = entry.state.clone()  # a block may write to its input
        return ((state, *args[1:]), kwargs) if place == 0 else (args, kwargs | {place: state})

    with ExitStack() as undo:
        for block, tail in zip(blocks[:first], entry.tails, strict=True):
            undo.callback(_put_back, block, vars(block).get("forward"))
            block.forward = _through(tail)
        undo.callback(blocks[first].register_forward_pre_hook(enter, with_kwargs=True).remove)
        yield


def _through(tail: tuple | None) -> Callable:
    """A forward that returns its state as it came, in the form the block itself answers in."""

    def forward(*args, **kwargs):
        state = _read(args, kwargs, _place(args, kwargs))
        return state if tail is None else (state, *tail)

    return forward


def _put_back(block: nn.Module, own: Callable | None) -> None:
    """Some libraries give a module a forward of its own; most leave it to the class."""
    if own is None:
        del block.forward
    else:
        block.forward = own


def _place(args: tuple, kwargs: Mapping) -> int | str | None:
    """Where a block's call carries the hidden state: 0 or a keyword; None when it is not to be found."""
    if args and isinstance(args[0], Tensor):
        return 0
    return next((name for name in ("hidden_states", "x") if isinstance(kwargs.get(name), Tensor)), None)


def _read(args: tuple, kwargs: Mapping, place: int | str) -> Tensor:
    return args[0] if place == 0 else kwargs[place]


def _common_path(layer: Unit) -> str:
    """The module that holds all of a layer's parameters."""
    levels = zip(*(where.parameter.split(".") for where in layer.slices), strict=False)
    return ".".join(names[0] for names in takewhile(lambda names: len(set(names)) == 1, levels))
