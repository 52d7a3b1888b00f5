"""An edit of an image tower, carried into another model that sees through the same tower.

LLaVA-1.5 looks at pictures through the image tower of OpenAI's CLIP, and mini-vlm through mini-clip's: the weights are
the same, their names are not, and q, k and v may be one parameter or three. Parts are paired by what they are to their
block, as units.py finds it, never by name, and nothing is carried between weights that differ.

The tower then does the same in both models. How much of a concept the other model forgets is another question: it reads
the tower in its own way and has to be measured by itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from razor.adapters.base import Adapter
from razor.errors import InputError, ModelError, PatchError
from razor.patches import Patch, model_lock
from razor.recipe import FORMAT, model_entry, versions
from razor.units import Slice, find_attention, parameters_of

SAMPLE = 8  # rows of every part that are compared where a glance is enough


@dataclass(frozen=True)
class Carried:
    """An edit as the model it was carried into knows it."""

    patch: Patch  # bound to that model's weights; its recipe says where it came from
    notes: tuple[str, ...]  # what was left out, a sentence each


def carried(patch: Patch, source: Adapter, target: Adapter) -> Carried:
    """What a patch changes in the image tower of one model, as a patch of another. Leaves both models as found.

    The weights behind every carried slice must be equal in both, but for a rounding of the coarser precision. What the
    patch changes elsewhere, or in blocks that the target does not read, is left out and said.

    Args:
        patch: made for `source`, such as a growth's.
        source: a CLIP.
        target: a vision-language model over its image tower.

    Raises:
        PatchError: the patch was made for another model than `source`, or edits slices that belong to no unit.
        InputError: it changes nothing that the target reads.
        ModelError: the towers differ where it edits them, or a model has no image tower.
    """
    patch.check(source.model)
    mine, theirs = _some_blocks(source), _some_blocks(target)
    number_of = {part.parameter: number for number, block in mine.items() for part in block.parts}
    moves: list[_Move] = []
    outside: list[Slice] = []
    unread: set[int] = set()
    for where, delta in patch.deltas.items():
        number = number_of.get(where.parameter)
        if number is None:
            outside.append(where)
        elif number not in theirs:
            unread.add(number)
        elif why := _unlike(number, mine[number], theirs[number]):
            raise _other_tower(source, target, why)
        else:
            moves += _moves(where, delta, mine[number], theirs[number])
    notes = _left_out(patch.only(outside), sorted(unread), source, target)
    if patch.deltas and not moves:
        raise InputError(
            f"Nothing of this patch can be carried into {target.name}. {' '.join(notes)} Carry an edit of image "
            f"blocks {min(theirs)} to {max(theirs)}."
        )
    held, found = _weights(source, [m.source for m in moves]), _weights(target, [m.target for m in moves])
    for move, a, b in zip(moves, held, found, strict=True):
        if not _equal(a, b):
            differ = f"the weights of {move.source.parameter!r} and {move.target.parameter!r} differ"
            raise _other_tower(source, target, differ)
    origin = {"model": model_entry(source), "recipe": dict(patch.recipe), "left_out": notes}
    recipe = {"format": FORMAT, "model": model_entry(target), "carried": origin, "versions": versions()}
    made = sum((Patch({move.target: move.delta.clone()}) for move in moves), Patch())
    return Carried(made.with_recipe(recipe).bound_to(target.model), tuple(notes))


def shares_tower(source: Adapter, target: Adapter) -> bool:
    """Whether all blocks the target reads are the source's, as far as their build and a few rows of each part tell."""
    mine, theirs = _blocks(source), _blocks(target)
    if not theirs or any(n not in mine or _unlike(n, mine[n], block) for n, block in theirs.items()):
        return False
    held, found = (
        _weights(adapter, [part for n in theirs for part in blocks[n].parts], SAMPLE)
        for adapter, blocks in ((source, mine), (target, theirs))
    )
    return all(map(_equal, held, found))


@dataclass(frozen=True)
class _Block:
    """One block of an image tower as parts in an order that no name decides."""

    heads: tuple[int, ...]  # of each attention
    parts: tuple[Slice, ...]  # rows of q, k, v, then of their biases; the output projection; the MLP's matrices
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class _Move:
    """Where a piece of an edit is, and where it goes."""

    source: Slice
    target: Slice
    delta: Tensor


def _some_blocks(adapter: Adapter) -> dict[int, _Block]:
    if found := _blocks(adapter):
        return found
    raise ModelError(
        f"{adapter.name} has no image tower that can be edited; an edit is carried from a CLIP into a vision-language "
        "model over its image tower."
    )


def _left_out(outside: Patch, unread: Sequence[int], source: Adapter, target: Adapter) -> list[str]:
    """What is not carried, a sentence each: the part of the patch outside the image blocks, and unread blocks."""
    notes = []
    if outside.deltas:
        towers = " and ".join(
            f"the {name} tower" for name in sorted({source.tower_of(w.parameter) for w in outside.deltas})
        )
        count = f"{outside.parameters_edited:,} numbers"
        notes.append(f"What it changes outside the image blocks is left out: {count} of {towers}.")
    if unread:
        blocks = f"block{'s' if len(unread) > 1 else ''} {' and '.join(map(str, unread))}"
        notes.append(f"What it changes in image {blocks}, which {target.name} does not read, is left out.")
    return notes


def _blocks(adapter: Adapter) -> dict[int, _Block]:
    """The blocks of the image tower that the model reads, by number from the input."""
    parameters = dict(adapter.model.named_parameters())
    attentions = find_attention(adapter.model)
    found = {}
    for unit in adapter.units(("layer",), ("image",)):
        names = parameters_of([unit])
        inside = [a for a in attentions if a.rows[0][0] in names]
        parts: list[Slice] = []
        for a in inside:
            parts += [Slice(name, 0, start, start + a.heads * a.dim) for name, start in a.rows]
            parts += [Slice(name, 0, start, start + a.shared_heads * a.dim) for name, start in a.shared]
            parts += [Slice(a.columns)] if a.columns else []
        owned = {part.parameter for part in parts}
        parts += [Slice(name) for name in names if name not in owned]
        shapes = tuple(tuple(part.view(parameters[part.parameter]).shape) for part in parts)
        # Rows that are all of a parameter are the parameter.
        parts = [
            Slice(part.parameter) if shape == parameters[part.parameter].shape else part
            for part, shape in zip(parts, shapes, strict=True)
        ]
        found[unit.layer] = _Block(tuple(a.heads for a in inside), tuple(parts), shapes)
    return found


def _moves(where: Slice, delta: Tensor, mine: _Block, theirs: _Block) -> Iterator[_Move]:
    """An edit of one slice, piece by piece where q, k and v are one parameter here or there."""
    for a, b, shape in zip(mine.parts, theirs.parts, mine.shapes, strict=True):
        if a.parameter != where.parameter:
            continue
        if a.stop is None and b.stop is None:
            yield _Move(where, replace(where, parameter=b.parameter), delta)
            continue
        if where.dim:
            raise PatchError(
                f"The patch edits columns of {where.parameter!r}, which are no part of a head, an MLP or a layer; "
                "carry a patch of those."
            )
        begin = 0 if where.stop is None else where.start
        start, stop = max(begin, a.start), min(begin + len(delta), a.start + shape[0])
        if start >= stop:
            continue
        first = b.start + start - a.start
        whole = where.stop is None and b.stop is None
        there = Slice(b.parameter) if whole else Slice(b.parameter, 0, first, first + stop - start)
        yield _Move(Slice(a.parameter, 0, start, stop), there, delta[start - begin : stop - begin])


def _unlike(number: int, mine: _Block, theirs: _Block) -> str:
    """What tells two blocks apart before any weight is compared; "" for nothing."""
    if mine.heads != theirs.heads:
        counts = [" and ".join(map(str, block.heads)) for block in (mine, theirs)]
        return f"block {number} has {counts[0]} heads in one and {counts[1]} in the other"
    for a, b, here, there in zip(mine.parts, theirs.parts, mine.shapes, theirs.shapes, strict=False):
        if here != there:
            return f"block {number} has weights of shape {here} in {a.parameter!r} and {there} in {b.parameter!r}"
    if len(mine.parts) != len(theirs.parts):
        return f"block {number} has {len(mine.parts)} weights and biases in one and {len(theirs.parts)} in the other"
    return ""


def _other_tower(source: Adapter, target: Adapter, why: str) -> ModelError:
    return ModelError(
        f"{source.name} and {target.name} do not see through the same image tower: {why}. Carry an edit of the CLIP "
        f"whose tower {target.name} was built on."
    )


def _weights(adapter: Adapter, slices: Sequence[Slice], rows: int | None = None) -> list[Tensor]:
    """Copies of slices of the unedited model, or of their first few rows, on the CPU."""
    with model_lock(adapter.model):
        parameters = dict(adapter.model.named_parameters())
        return [s.view(parameters[s.parameter]).detach()[:rows].to("cpu", copy=True) for s in slices]


def _equal(a: Tensor, b: Tensor) -> bool:
    """The same numbers, but for one step of the coarser precision, which near zero is of one size."""
    if a.shape != b.shape:
        return False
    held = [torch.finfo(tensor.dtype) for tensor in (a, b)]
    step, least = max(h.eps for h in held), max(h.smallest_normal * h.eps for h in held)
    return torch.allclose(a.float(), b.float(), rtol=step, atol=least)
