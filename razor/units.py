"""Where a model can be edited: attention heads, MLPs and whole layers, found by structure.

A unit is a name, a place on the map and a list of parameter slices. A head owns its rows of q, k, v (weights and
biases) and its columns of the output projection; the output bias is shared, so it belongs to no head. Where several
query heads read one key-value head, its rows of k and v are a unit of their own and in none of theirs. Whatever the
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
        """The slice as a view: writing to it writes to the tensor.

        >>> from torch import arange
        >>> Slice("out_proj.weight", dim=1, start=2, stop=4).view(arange(8).reshape(2, 4)).tolist()
        [[2, 3], [6, 7]]
        """
        return tensor if self.stop is None else tensor.narrow(self.dim, self.start, self.stop - self.start)


@dataclass(frozen=True)
class Unit:
    """Something that can be edited on its own."""

    name: str  # "image.3.head.5", "language.0.kv.1", "text.0.mlp", "image.3.layer"
    kind: str  # head | mlp | layer; a shared key-value head is a head
    tower: str  # image | text | language | ...
    layer: int  # row on the map, counted from the input
    column: int  # head number, key-value heads after the query heads; -1 for an MLP or a layer
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
    """An attention module in terms of its parameters: head h owns rows offset + [h*dim, (h+1)*dim).

    A joint attention over pictures and text is two of these, one for each stream. With grouped key-value heads, as in
    most language models, heads / groups of them own the rows of k and v, and the query heads those of q alone.
    """

    path: str
    heads: int
    dim: int  # size of one head
    rows: tuple[tuple[str, int], ...]  # (parameter, offset) of q, and of k and v where every head has its own
    columns: str | None  # weight of the output projection; None where this stream's output is not used
    exact: bool
    shared: tuple[tuple[str, int], ...] = ()  # (parameter, offset) of k and v that several heads read
    groups: int = 1  # query heads that read one key-value head

    def head(self, h: int) -> tuple[Slice, ...]:
        """The slices of one query head, its columns of the output projection last."""
        columns = [Slice(self.columns, 1, h * self.dim, (h + 1) * self.dim)] if self.columns else []
        return (*self._rows(self.rows, h), *columns)

    def shared_head(self, g: int) -> tuple[Slice, ...]:
        """The slices of one key-value head that several query heads read."""
        return self._rows(self.shared, g)

    @property
    def shared_heads(self) -> int:
        return self.heads // self.groups if self.shared else 0

    def _rows(self, places: Sequence[tuple[str, int]], h: int) -> tuple[Slice, ...]:
        return tuple(Slice(name, 0, offset + h * self.dim, offset + (h + 1) * self.dim) for name, offset in places)


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
        ("out_proj.weight", "o_proj.weight", "proj.weight", "projection_layer.weight"),
    ),
    (
        ("query.weight", "key.weight", "value.weight"),
        ("query.bias", "key.bias", "value.bias"),
        ("../output.dense.weight",),
    ),
    (("to_q.weight", "to_k.weight", "to_v.weight"), ("to_q.bias", "to_k.bias", "to_v.bias"), ("to_out.0.weight",)),
    (("q.weight", "k.weight", "v.weight"), (), ("o.weight",)),
)
# The text stream of a joint attention, beside the picture stream of the same module.
_CONTEXT = (
    ("add_q_proj.weight", "add_k_proj.weight", "add_v_proj.weight"),
    ("add_q_proj.bias", "add_k_proj.bias", "add_v_proj.bias"),
    ("to_add_out.weight",),
)
_SPLIT_BIASES = ("q_bias", "k_bias", "v_bias")  # EVA keeps them beside a fused weight; k may have none
_HEAD_COUNTS = ("num_heads", "n_heads", "num_attention_heads", "heads")
_MLP = re.compile(r"\.(mlp|feed_forward|ff|ff_context|DenseReluDense|intermediate|output)\.")


def find_attention(model: nn.Module) -> list[Attention]:
    """Every attention module whose heads can be told apart, from the input to the output."""
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    found = [attention for path, module in model.named_modules() for attention in _describe(path, module, shapes)]
    # A UNet lists its middle after its way up.
    return sorted(found, key=lambda a: ("mid_block." in a.path) + 2 * ("up_blocks." in a.path))


def tower_of(towers: Mapping[str, str], parameter: str) -> str:
    """The first tower whose pattern fits the start of a parameter's path; "" fits everything."""
    return next(tower for tower, pattern in towers.items() if re.match(pattern, parameter))


def find_units(model: nn.Module, towers: Mapping[str, str], kinds: Sequence[str] = ("head", "mlp")) -> list[Unit]:
    """All units of the given kinds, tower by tower, layer by layer.

    Args:
        towers: tower name -> regular expression of its parameters' paths, see `tower_of`.
        kinds: any of "head", "mlp", "layer". Layers overlap the heads and MLPs inside them.
    """
    matrices = [name for name, p in model.named_parameters() if p.ndim >= 2]
    home = {name: tower_of(towers, name) for name in matrices}
    blocks: dict[str, dict[str, list[Attention]]] = {tower: {} for tower in towers}
    for attention in find_attention(model):
        first, _ = attention.rows[0]
        blocks[home[first]].setdefault(_block(attention.path, matrices), []).append(attention)
    units: list[Unit] = []
    for tower, inside in blocks.items():
        for layer, (block, attentions) in enumerate(inside.items()):
            mine = [name for name in matrices if name.startswith(block + ".") and home[name] == tower]
            units += _units_of(tower, layer, block, attentions, mine, kinds)
    return units


def _units_of(
    tower: str, layer: int, block: str, attentions: Sequence[Attention], matrices: Sequence[str], kinds: Sequence[str]
) -> list[Unit]:
    """The units of one row of the map."""
    place, units = {"tower": tower, "layer": layer}, []
    if "head" in kinds:
        heads = [(a.head(h), a.exact) for a in attentions for h in range(a.heads)]
        shared = [(a.shared_head(g), a.exact) for a in attentions for g in range(a.shared_heads)]
        for name, first, found in (("head", 0, heads), ("kv", len(heads), shared)):
            units += [
                Unit(f"{tower}.{layer}.{name}.{i}", "head", column=first + i, slices=slices, exact=exact, **place)
                for i, (slices, exact) in enumerate(found)
            ]
    owned = {name for a in attentions for name, _ in (*a.rows, *a.shared)} | {a.columns for a in attentions}
    mlp = tuple(Slice(n) for n in matrices if n not in owned and _MLP.search(n[len(block) :]))
    if "mlp" in kinds and mlp:
        units.append(Unit(f"{tower}.{layer}.mlp", "mlp", column=-1, slices=mlp, **place))
    if "layer" in kinds:
        unread = {f"{a.path}.{_CONTEXT[0][0]}" for a in attentions if a.columns is None}
        whole = tuple(Slice(n) for n in matrices if n not in unread)
        units.append(Unit(f"{tower}.{layer}.layer", "layer", column=-1, slices=whole, **place))
    return units


def _describe(path: str, module: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> list[Attention]:
    """The module as Attention, stream by stream, when its parameters fit a layout; else nothing."""
    own = vars(module)  # not getattr: some libraries answer with what only their configuration says
    stated = lambda *keys: next((n for key in keys if isinstance(n := own.get(key), int) and n > 0), None)  # noqa: E731
    heads, dim, groups = stated(*_HEAD_COUNTS), stated("head_dim"), stated("num_key_value_groups") or 1
    if heads is None and dim is None:
        return []
    fit = lambda layout: _fit(path, heads, dim, groups, layout, shapes)  # noqa: E731
    picture = next((found for layout in LAYOUTS if (found := fit(layout))), None)
    context = fit(_CONTEXT) if picture else None
    return [found for found in (picture, context) if found]


def _fit(
    path: str,
    heads: int | None,
    dim: int | None,
    groups: int,
    layout: Sequence[Sequence[str]],
    shapes: Mapping[str, tuple[int, ...]],
) -> Attention | None:
    """One layout tried on one module.

    Args:
        heads: how many the module says it has; None where it says how wide each is, as `dim`.
        groups: query heads that read one key-value head.
    """
    weights, biases, outputs = layout
    here = path + "." if path else ""
    above = path.rpartition(".")[0] + "."
    full = lambda name: above + name[3:] if name.startswith("../") else here + name  # noqa: E731
    output = next((full(name) for name in outputs if full(name) in shapes), None)
    unused = output is None and layout is _CONTEXT  # the last block hands no text on, so nothing reads its queries
    if unused:
        weights, biases = weights[1:], biases[1:]
    if any(here + name not in shapes for name in weights) or (output is None and not unused):
        return None
    inner = shapes[here + weights[0]][0] if unused else shapes[output][1]  # width of all heads together
    heads = heads or inner // dim
    if not heads or inner % heads:
        return None
    apart = groups > 1 and len(set(weights)) == 3  # k and v are tensors of their own, with fewer rows than q
    own, grouped = (slice(1), slice(1, None)) if apart else (slice(None), slice(0))
    places = lambda part: [  # noqa: E731
        place for names in (weights, biases) for place in _places(here, names[part], inner) if place[0] in shapes
    ]
    rows, shared = places(own), places(grouped)
    rows += [(here + name, 0) for name in _SPLIT_BIASES if here + name in shapes]
    fits = lambda found, width: all(  # noqa: E731
        shapes[name][0] == width * sum(other == name for other, _ in found) for name, _ in found
    )
    if not fits(rows, inner) or not fits(shared, inner // groups):
        return None  # heads grouped in a way the module does not state, or not attention after all
    # A pooling layer has a norm of its own after the output projection; it mixes nothing.
    mixed = here + "ln_inner.weight" in shapes or (here + "norm.weight" in shapes and "kv.weight" not in weights)
    return Attention(path, heads, inner // heads, tuple(rows), output, not mixed, tuple(shared), groups if apart else 1)


def _places(here: str, names: Sequence[str], inner: int) -> list[tuple[str, int]]:
    """(parameter, row offset) of q, k and v; a name that repeats is a fused tensor holding them one after another."""
    return [(here + name, names[:i].count(name) * inner) for i, name in enumerate(names)]


def _block(path: str, matrices: Sequence[str]) -> str:
    """The transformer block an attention module lives in: the innermost numbered part that holds an MLP too."""
    parts = path.split(".")
    numbered = [".".join(parts[: i + 1]) for i, part in enumerate(parts) if part.isdigit()][::-1]
    whole = (b for b in numbered if any(n.startswith(b + ".") and _MLP.search(n[len(b) :]) for n in matrices))
    return next(whole, numbered[0] if numbered else path)
