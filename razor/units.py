"""Where a model can be edited: attention heads, MLPs and whole layers, found by structure.

A unit is a name, a place on the map and a list of parameter slices. A head owns its rows of q, k, v (weights and
biases) and its columns of the output projection; the output bias is shared, so it belongs to no head. Whatever the
class of a module, it counts as attention when its parameters match one of LAYOUTS and it says how many heads it has.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, cat, nn


@dataclass(frozen=True)
class Slice:
    """Entries start..stop of one parameter along one axis; stop None means the whole parameter."""

    parameter: str
    dim: int = 0
    start: int = 0
    stop: int | None = None

    def view(self, tensor: Tensor) -> Tensor:
        """The slice as a view: writing to it writes to the tensor."""
        return tensor if self.stop is None else tensor.narrow(self.dim, self.start, self.stop - self.start)


@dataclass(frozen=True)
class Unit:
    """Something that can be edited on its own."""

    name: str  # "image.3.head.5", "text.0.mlp", "image.3.layer"
    kind: str  # head | mlp | layer
    tower: str  # image | text
    layer: int  # row on the map, counted from the input
    column: int  # head number; -1 for an MLP or a layer
    slices: tuple[Slice, ...]
    exact: bool = True  # False: a norm between heads and output mixes heads, so the head is only nearly separate

    def views(self, tensors: Mapping[str, Tensor]) -> list[Tensor]:
        """This unit's part of every tensor, in order, as views."""
        return [s.view(tensors[s.parameter]) for s in self.slices]

    def read(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """This unit's part of the tensors as one float32 vector (n,)."""
        return cat([view.reshape(-1).float() for view in self.views(tensors)])

    def size(self, tensors: Mapping[str, Tensor]) -> int:
        """How many numbers the unit holds."""
        return sum(view.numel() for view in self.views(tensors))


def overlap(a: Unit, b: Unit) -> bool:
    """Whether two different units share weights: a whole layer holds the heads and the MLP inside it."""
    return a != b and (a.tower, a.layer) == (b.tower, b.layer) and "layer" in (a.kind, b.kind)


def parameters_of(units: Iterable[Unit]) -> tuple[str, ...]:
    """Names of all parameters the units touch, each once, in order."""
    return tuple(dict.fromkeys(s.parameter for unit in units for s in unit.slices))


@dataclass(frozen=True)
class Attention:
    """An attention module in terms of its parameters: head h owns rows offset + [h*dim, (h+1)*dim)."""

    path: str
    heads: int
    dim: int  # size of one head
    rows: tuple[tuple[str, int], ...]  # (parameter, offset) of q, k and v
    columns: str  # weight of the output projection
    exact: bool

    def head(self, h: int) -> tuple[Slice, ...]:
        start, stop = h * self.dim, (h + 1) * self.dim
        return (
            *(Slice(name, 0, offset + start, offset + stop) for name, offset in self.rows),
            Slice(self.columns, 1, start, stop),
        )


# Names of q, k, v as (parameter, its place in a fused tensor), the same for biases, then the output projection.
_FUSED = ("in_proj_weight",) * 3, ("in_proj_bias",) * 3
_TIMM = ("qkv.weight",) * 3, ("qkv.bias",) * 3
LAYOUTS: tuple[tuple[Sequence[str], Sequence[str], tuple[str, ...]], ...] = (
    (*_FUSED, ("out_proj.weight",)),
    (("q_proj_weight", "k_proj_weight", "v_proj_weight"), _FUSED[1], ("out_proj.weight",)),
    (*_TIMM, ("proj.weight",)),
    (("q.weight", "kv.weight", "kv.weight"), ("q.bias", "kv.bias", "kv.bias"), ("proj.weight",)),
    (
        ("q_proj.weight", "k_proj.weight", "v_proj.weight"),
        ("q_proj.bias", "k_proj.bias", "v_proj.bias"),
        ("out_proj.weight", "o_proj.weight", "proj.weight"),
    ),
    (
        ("query.weight", "key.weight", "value.weight"),
        ("query.bias", "key.bias", "value.bias"),
        ("../output.dense.weight",),
    ),
)
_SPLIT_BIASES = ("q_bias", "k_bias", "v_bias")  # EVA keeps them beside a fused weight; k may have none
_HEAD_COUNTS = ("num_heads", "n_heads", "num_attention_heads", "heads")
_MLP = re.compile(r"\.(mlp|feed_forward|ff|intermediate|output)\.")


def find_attention(model: nn.Module) -> list[Attention]:
    """Every attention module whose heads can be told apart, in the order of the model."""
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    found = (_describe(path, module, shapes) for path, module in model.named_modules())
    return [attention for attention in found if attention]


def find_units(model: nn.Module, towers: Mapping[str, str], kinds: Sequence[str] = ("head", "mlp")) -> list[Unit]:
    """All units of the given kinds, tower by tower, layer by layer.

    Args:
        towers: tower name -> path prefix of its parameters; the first prefix that fits wins, "" fits everything.
        kinds: any of "head", "mlp", "layer". Layers overlap the heads and MLPs inside them.
    """
    parameters = dict(model.named_parameters())
    tower_of = lambda path: next(tower for tower, prefix in towers.items() if path.startswith(prefix))  # noqa: E731
    blocks: dict[str, list[Attention]] = {}
    for attention in find_attention(model):
        blocks.setdefault(_block(attention.path), []).append(attention)
    units: list[Unit] = []
    for tower in towers:
        inside = [block for block in blocks if tower_of(block) == tower]
        for layer, block in enumerate(inside):
            place = {"tower": tower, "layer": layer}
            if "head" in kinds:
                heads = [(*a.head(h), a.exact) for a in blocks[block] for h in range(a.heads)]
                units += [
                    Unit(f"{tower}.{layer}.head.{i}", "head", column=i, slices=tuple(slices), exact=exact, **place)
                    for i, (*slices, exact) in enumerate(heads)
                ]
            matrices = [n for n in parameters if n.startswith(block + ".") and parameters[n].ndim >= 2]
            owned = {s.parameter for a in blocks[block] for s in a.head(0)}
            mlp = tuple(Slice(n) for n in matrices if n not in owned and _MLP.search(n[len(block) :]))
            if "mlp" in kinds and mlp:
                units.append(Unit(f"{tower}.{layer}.mlp", "mlp", column=-1, slices=mlp, **place))
            if "layer" in kinds:
                whole = tuple(Slice(n) for n in matrices)
                units.append(Unit(f"{tower}.{layer}.layer", "layer", column=-1, slices=whole, **place))
    return units


def _describe(path: str, module: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> Attention | None:
    """The module as Attention when its parameters fit a layout, else None."""
    heads = next((n for key in _HEAD_COUNTS if isinstance(n := getattr(module, key, None), int) and n > 0), None)
    here = path + "." if path else ""
    above = path.rpartition(".")[0] + "."
    full = lambda name: above + name[3:] if name.startswith("../") else here + name  # noqa: E731
    for weights, biases, outputs in LAYOUTS:
        output = next((full(name) for name in outputs if full(name) in shapes), None)
        if heads is None or output is None or any(here + name not in shapes for name in weights):
            continue
        inner = shapes[output][1]  # width of all heads together
        rows = _places(here, weights, inner)
        rows += [place for place in _places(here, biases, inner) if place[0] in shapes]
        rows += [(here + name, 0) for name in _SPLIT_BIASES if here + name in shapes]
        if inner % heads or any(shapes[name][0] < offset + inner for name, offset in rows):
            return None  # grouped key and value heads, or not attention after all
        # A pooling layer has a norm of its own after the output projection; it mixes nothing.
        mixed = here + "ln_inner.weight" in shapes or (here + "norm.weight" in shapes and "kv.weight" not in weights)
        return Attention(path, heads, inner // heads, tuple(rows), output, exact=not mixed)
    return None


def _places(here: str, names: Sequence[str], inner: int) -> list[tuple[str, int]]:
    """(parameter, row offset) of q, k and v; a name that repeats is a fused tensor holding them one after another."""
    return [(here + name, names[:i].count(name) * inner) for i, name in enumerate(names)]


def _block(path: str) -> str:
    """The transformer block an attention module lives in: up to the last numbered part of its path."""
    parts = path.split(".")
    numbered = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbered[-1] + 1]) if numbered else path
