"""An edit made elsewhere comes back unit by unit: bit for bit from a patch, to rounding from a LoRA."""

import pytest
import torch
from tiny_pipelines import tiny_sd

from razor import export
from razor.adapters.diffusion import DiffusionAdapter
from razor.config import RazorConfig
from razor.errors import InputError, PatchError
from razor.growth import Growth
from razor.importing import by_unit, read_edit
from razor.patches import Patch
from razor.units import Slice

KINDS = ("head", "mlp", "layer")


def edit_of(adapter, names, size=0.1):
    """A random change of some units."""
    parameters = dict(adapter.model.named_parameters())
    units = {u.name: u for u in adapter.units(KINDS, tuple(adapter.towers))}
    torch.manual_seed(0)
    slices = [where for name in names for where in units[name].slices]
    deltas = {where: size * torch.randn_like(where.view(parameters[where.parameter]).detach()) for where in slices}
    return Patch(deltas).bound_to(adapter.model), units


def test_a_patch_comes_back_bit_for_bit(trained, tmp_path):
    edit, units = edit_of(trained, ["text.0.head.1", "image.1.mlp"])
    edit.save(tmp_path / "p.safetensors")
    changes = by_unit(read_edit(tmp_path / "p.safetensors", trained), units.values(), trained.model)
    assert set(changes) == {"text.0.head.1", "image.1.mlp"}
    assert sum(changes.values(), Patch()).key() == edit.key()


def test_a_lora_comes_back_on_the_heads_it_was_made_of(tmp_path):
    adapter = DiffusionAdapter(tiny_sd(tmp_path / "sd"), name="tiny-sd", steps=3, guidance=2.0)
    edit, units = edit_of(adapter, ["text.0.head.1"])
    export.write_lora(adapter, edit, tmp_path / "l.safetensors")
    changes = by_unit(read_edit(tmp_path / "l.safetensors", adapter), units.values(), adapter.model)
    assert list(changes) == ["text.0.head.1"]
    for where, delta in changes["text.0.head.1"].deltas.items():
        if where in edit.deltas and delta.ndim == 2:
            assert torch.allclose(delta, edit.deltas[where], atol=1e-5 * edit.deltas[where].norm().item())


def test_weights_of_no_unit_are_refused_with_their_name(trained):
    name = next(n for n, p in trained.model.named_parameters() if "ln_final.weight" in n)
    stray = Patch({Slice(name): torch.ones_like(trained.model.get_parameter(name))})
    with pytest.raises(InputError, match=r"ln_final\.weight' where there is no head and no MLP"):
        by_unit(stray, trained.units(KINDS, tuple(trained.towers)), trained.model)


def test_a_lora_with_a_recipe_of_other_weights_is_refused_unless_taken_anyway(tmp_path):
    adapter = DiffusionAdapter(tiny_sd(tmp_path / "sd"), name="tiny-sd", steps=3, guidance=2.0)
    edit, _ = edit_of(adapter, ["text.0.head.1"])
    for name, there in (("mine", adapter.fingerprint()), ("other", "0" * 16)):
        made = edit.with_recipe({"model": {"name": "tiny-sd", "fingerprint": there}})
        export.write_lora(adapter, made, tmp_path / f"{name}.safetensors")
    assert read_edit(tmp_path / "mine.safetensors", adapter).deltas
    with pytest.raises(PatchError, match="weights of 'tiny-sd' had the fingerprint 0000"):
        read_edit(tmp_path / "other.safetensors", adapter)
    assert read_edit(tmp_path / "other.safetensors", adapter, anyway=True).deltas


def test_nan_is_refused_and_a_change_of_nothing_is_no_edit(trained):
    edit, units = edit_of(trained, ["text.0.head.1"])
    nothing = Patch({where: torch.zeros_like(delta) for where, delta in edit.deltas.items()})
    assert by_unit(nothing, units.values(), trained.model) == {}
    broken = Patch({where: delta / 0 for where, delta in edit.deltas.items()})
    with pytest.raises(PatchError, match="holds NaN or infinity"):
        by_unit(broken, units.values(), trained.model)


def test_other_weights_are_refused_unless_taken_anyway_and_no_patch_is_one_sentence(trained, make_clip, wrap, tmp_path):
    edit, _ = edit_of(trained, ["text.0.head.1"])
    edit.save(tmp_path / "p.safetensors")
    other = wrap(make_clip(seed=7))
    with pytest.raises(PatchError, match=r"another model: \d of the \d weights .* \(hash \w{8} here, \w{8} there\)"):
        read_edit(tmp_path / "p.safetensors", other)
    assert read_edit(tmp_path / "p.safetensors", other, anyway=True).key() == edit.key()
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(PatchError, match=r"x\.safetensors cannot be read"):
        read_edit(tmp_path / "x.safetensors", trained)


def test_it_is_a_round_by_hand_on_a_branch_of_its_own_and_acts_as_the_file(trained, task, weights_of, same_weights):
    before = weights_of(trained.model)
    edit, units = edit_of(trained, ["text.0.head.1", "text.1.head.0"])
    growth = Growth(trained, task, RazorConfig(rounds=1))
    changes = by_unit(edit, units.values(), trained.model)
    done = growth.bring_in(changes, "there.safetensors")
    assert growth.patch.key() == edit.key() and done.by_hand == "2 units brought in from there.safetensors"
    assert growth.now is done.after and growth.history.position.branch == "Main"
    growth.act("out", ["text.0.head.1"])
    assert set(growth.patch.deltas) == set(units["text.1.head.0"].slices)
    growth.bring_in(changes, "again.safetensors")
    assert growth.history.position.branch == "Branch 2" and growth.history.state.parent == 0
    growth.undo()
    assert growth.edit_set.members == ("text.1.head.0",)
    assert same_weights(trained.model, before)
    with pytest.raises(InputError, match="changes no head and no MLP"):
        growth.bring_in({}, "empty.safetensors")
