"""An edit made elsewhere, a patch or a LoRA, taken apart into the units of a map."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from razor.adapters.base import Adapter
from razor.errors import InputError, OtherWeightsError, PatchError
from razor.lora import read_lora
from razor.patches import Patch
from razor.units import Slice, Unit

NOISE = 1e-5  # of the change of a parameter; a product of factors is not exactly 0 where the edit was
PATCH = "razor-patch"


def read_edit(path: Path, adapter: Adapter, *, anyway: bool = False) -> Patch:
    """The edit in a patch, or in a LoRA as a file or a folder, for this model.

    Args:
        anyway: an edit made for other weights of the same shapes is taken too.

    Raises:
        PatchError: neither, broken, or made for another model; OtherWeightsError where `anyway` would take it.
    """
    if not path.is_dir() and _header(path).get("format", "").startswith(PATCH):
        patch = Patch.load(path)
        if anyway:
            patch = Patch(patch.deltas, patch.recipe)
        patch.check(adapter.model)
        return patch
    patch = read_lora(path, adapter)
    made = patch.recipe.get("model")
    there = made.get("fingerprint") if isinstance(made, Mapping) else None  # other programs' LoRAs say nothing of it
    if there and not anyway and there != adapter.fingerprint():
        raise OtherWeightsError(
            f"{path.name} was made for another model: the weights of {made.get('name')!r} had the fingerprint {there}, "
            f"those of {adapter.name} have {adapter.fingerprint()}. Load the model it was made for."
        )
    return patch


def _header(path: Path) -> Mapping[str, str]:
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise PatchError(f"{path.name} cannot be read ({error}); give a patch or a LoRA in safetensors.") from error


def by_unit(patch: Patch, units: Iterable[Unit], model: torch.nn.Module) -> dict[str, Patch]:
    """Unit name -> its part of the edit. A unit whose slices the edit names keeps its deltas bit for bit.

    Args:
        units: heads and MLPs; whole layers count where the edit names exactly their slices.

    Raises:
        PatchError: it holds NaN or infinity.
        InputError: the edit changes weights that belong to no unit, so a map could not show it.
    """
    if not all(delta.isfinite().all() for delta in patch.deltas.values()):
        raise PatchError("This edit holds NaN or infinity, so it cannot be taken in; make it again.")
    units, found = list(units), {}
    left = {where: delta for where, delta in patch.deltas.items() if delta.any()}
    for unit in sorted(units, key=lambda u: u.kind != "layer"):
        if all(where in patch.deltas for where in unit.slices) and any(where in left for where in unit.slices):
            found[unit.name] = Patch({where: patch.deltas[where] for where in unit.slices})
            for where in unit.slices:
                left.pop(where, None)
    if left:
        found |= _dense(left, [u for u in units if u.kind != "layer" and u.name not in found], model)
    return found


def _dense(deltas: Mapping[Slice, Tensor], units: Iterable[Unit], model: torch.nn.Module) -> dict[str, Patch]:
    """Changes of whole parameters, cut along the units."""
    parameters = dict(model.named_parameters())
    totals: dict[str, Tensor] = {}
    for where, delta in deltas.items():
        shape = parameters[where.parameter].shape
        where.view(totals.setdefault(where.parameter, torch.zeros(shape))).add_(delta)
    floors = {name: NOISE * total.norm() for name, total in totals.items()}
    found = {}
    for unit in units:
        views = {where: where.view(totals[where.parameter]) for where in unit.slices if where.parameter in totals}
        if any(view.norm() > floors[where.parameter] for where, view in views.items()):
            found[unit.name] = Patch({where: view.clone() for where, view in views.items()})
        for view in views.values():
            view.zero_()
    for name, total in totals.items():
        if total.norm() > floors[name]:
            raise InputError(
                f"This edit changes {name!r} where there is no head and no MLP, so the map cannot show it; apply it "
                "from Python with Patch.applied."
            )
    return found
