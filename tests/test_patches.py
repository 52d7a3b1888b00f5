"""An edit is a value: applied for a while, undone bit for bit, saved with its recipe, refused by other models."""

import json
import threading
import time

import pytest
import torch
from safetensors.torch import save_file

from razor.cli import main
from razor.errors import PatchError
from razor.patches import Patch
from razor.units import Slice, find_units

TOWERS = {"image": "visual.", "text": ""}


def patch_of(model, units, seed=0):
    """A random delta of about a tenth on every slice of these units."""
    generator = torch.Generator().manual_seed(seed)
    parameters = dict(model.named_parameters())
    slices = [s for unit in units for s in unit.slices]
    shapes = {s: s.view(parameters[s.parameter]).shape for s in slices}
    return Patch({s: 0.1 * torch.randn(shape, generator=generator) for s, shape in shapes.items()})


def output(model):
    """Embeddings of one fixed batch of noise pictures."""
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        return model.encode_image(pixels, normalize=True)


@pytest.fixture
def patch(clip):
    """An edit of the first two heads of the image tower."""
    return patch_of(clip, find_units(clip, TOWERS)[:2])


# ---------------------------------------------------------------- applying


def test_patch_is_active_inside_the_block_and_restores_every_weight_bit_for_bit(clip, patch, weights_of, same_weights):
    before, out = weights_of(clip), output(clip)
    with patch.applied(clip) as edited:
        assert edited is clip
        for where, delta in patch.deltas.items():
            now = where.view(dict(clip.named_parameters())[where.parameter])
            assert torch.equal(now, where.view(before[where.parameter]) + delta)
        assert (output(clip) - out).abs().max() > 1e-3
    assert same_weights(clip, before)
    assert torch.equal(output(clip), out)


def test_patch_changes_nothing_outside_its_slices(clip, patch, weights_of):
    before = weights_of(clip)
    with patch.applied(clip):
        after = weights_of(clip)
    for where in patch.deltas:
        for weights in (before, after):
            where.view(weights[where.parameter]).zero_()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_patch_is_undone_when_the_body_raises(clip, patch, weights_of, same_weights):
    before = weights_of(clip)
    with pytest.raises(RuntimeError, match="the body's own error"), patch.applied(clip):
        assert not same_weights(clip, before)
        raise RuntimeError("the body's own error")
    assert same_weights(clip, before)


def test_overlapping_slices_add_up_and_are_undone(clip, weights_of, same_weights):
    units = {u.name: u for u in find_units(clip, TOWERS, ("head", "layer"))}
    layer, head = units["image.0.layer"], units["image.0.head.0"]
    both = patch_of(clip, [layer]) + patch_of(clip, [head], seed=1)
    before, inner = weights_of(clip), head.slices[0]
    with both.applied(clip):
        now = inner.view(dict(clip.named_parameters())[inner.parameter])
        whole = both.deltas[Slice(inner.parameter)]
        expected = inner.view(before[inner.parameter] + whole) + both.deltas[inner]
        assert torch.equal(now, expected)
    assert same_weights(clip, before)


def test_nested_patches_are_undone_in_turn(clip, patch, weights_of, same_weights):
    before = weights_of(clip)
    with patch.applied(clip):
        outer = weights_of(clip)
        with patch.scaled(0.3).applied(clip):
            assert not same_weights(clip, outer)
        assert same_weights(clip, outer)
    assert same_weights(clip, before)


def test_empty_patch_gives_bit_equal_outputs(clip):
    out = output(clip)
    with Patch().applied(clip):
        assert torch.equal(output(clip), out)


def test_patch_is_undone_in_half_precision(clip, patch, weights_of, same_weights):
    clip.bfloat16()
    before = weights_of(clip)
    with patch.applied(clip):
        assert not same_weights(clip, before)
    assert same_weights(clip, before)


def test_two_threads_never_see_each_others_weights(clip):
    heads = find_units(clip, TOWERS, ("head",))
    patches = [patch_of(clip, heads[i : i + 1], seed=i) for i in range(2)]
    expected, seen = [], [[], []]
    for patch in patches:
        with patch.applied(clip):
            expected.append(output(clip))

    def work(i):
        for _ in range(20):
            with patches[i].applied(clip):
                time.sleep(0.001)
                seen[i].append(torch.equal(output(clip), expected[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not torch.equal(*expected)
    assert seen == [[True] * 20] * 2


# ---------------------------------------------------------------- arithmetic


def test_sum_of_patches_adds_equal_slices_and_keeps_the_others():
    a, b, c = (Slice(name) for name in "abc")
    left = Patch({a: torch.tensor([1.0]), b: torch.tensor([2.0])}, {"made": "left"})
    right = Patch({b: torch.tensor([3.0]), c: torch.tensor([4.0])}, {"made": "right"})
    total = left + right
    assert {where.parameter: delta.item() for where, delta in total.deltas.items()} == {"a": 1, "b": 5, "c": 4}
    assert total.recipe == {"made": "left"}
    assert left.deltas[b].item() == 2


def test_scaled_patch_is_that_multiple_of_the_edit(clip, patch, weights_of, same_weights):
    before = weights_of(clip)
    with patch.scaled(0.0).applied(clip):
        assert same_weights(clip, before)
    doubled = patch.scaled(2.0)
    assert all(torch.equal(doubled.deltas[where], 2 * delta) for where, delta in patch.deltas.items())


def test_tiny_patch_has_a_tiny_effect(clip, patch):
    out = output(clip)
    with patch.scaled(1e-6).applied(clip):
        assert 0 < (output(clip) - out).abs().max() < 1e-5


def test_parameters_edited_counts_numbers():
    assert Patch({Slice("a"): torch.zeros(2, 3), Slice("b", 0, 0, 4): torch.zeros(4)}).parameters_edited == 10


# ---------------------------------------------------------------- files


def test_patch_survives_its_file(tmp_path, clip, patch):
    made = patch.bound_to(clip).with_recipe({"model": {"name": "tiny"}, "rounds": [1, 2], "words": "größer"})
    size = made.save(tmp_path / "patch.safetensors")
    read = Patch.load(tmp_path / "patch.safetensors")
    assert size == (tmp_path / "patch.safetensors").stat().st_size > 4 * patch.parameters_edited
    assert list(read.deltas) == list(made.deltas)
    assert all(torch.equal(read.deltas[where], delta) for where, delta in made.deltas.items())
    assert read.recipe == made.recipe and read.base == made.base
    read.check(clip)


def test_empty_patch_survives_its_file(tmp_path):
    Patch(recipe={"rounds": []}).save(tmp_path / "p.safetensors")
    read = Patch.load(tmp_path / "p.safetensors")
    assert read.deltas == {} and read.recipe == {"rounds": []}


def test_check_accepts_the_model_it_was_made_for_and_refuses_another(clip, make_clip, patch):
    made = patch.bound_to(clip)
    made.check(clip)
    with pytest.raises(PatchError, match=r"made for another model: 2 of the 3 weights .* the weights of 'visual"):
        made.check(make_clip(seed=1))


def test_check_sees_a_single_changed_weight(clip, patch):
    made = patch.bound_to(clip)
    name = next(iter(made.base))
    with torch.no_grad():
        dict(clip.named_parameters())[name].view(-1)[0] += 1e-3
    with pytest.raises(PatchError, match=name):
        made.check(clip)


def write_nothing(path):
    pass


def write_garbage(path):
    path.write_bytes(b"not a safetensors file at all" * 9)


def write_other_tensors(path):
    save_file({"delta.0": torch.zeros(2)}, path)


def write_without_slices(path):
    save_file({"delta.0": torch.zeros(2)}, path, {"format": "razor-patch-1"})


def write_broken_json(path):
    save_file({"delta.0": torch.zeros(2)}, path, {"format": "razor-patch-1", "slices": "[[", "recipe": "", "base": ""})


def write_too_few_tensors(path):
    slices = json.dumps([["w", 0, 0, 2], ["w", 0, 2, 4]])
    header = {"format": "razor-patch-1", "slices": slices, "recipe": "{}", "base": "{}"}
    save_file({"delta.0": torch.zeros(2)}, path, header)


def write_header(slices="[]", recipe="{}", base="{}", delta=None):
    """A way to write a patch with these entries in its header."""
    delta = torch.zeros(2, 4) if delta is None else delta
    header = {"format": "razor-patch-1", "slices": slices, "recipe": recipe, "base": base}
    return lambda path: save_file({"delta.0": delta, "delta.1": delta.clone()}, path, header)


BROKEN = (
    write_nothing,
    write_garbage,
    write_other_tensors,
    write_without_slices,
    write_broken_json,
    write_too_few_tensors,
    write_header(recipe="[" * 100_000),
    write_header(recipe='{"model": 5}'),
    write_header(recipe='{"task": ["word"]}'),
    write_header(recipe='{"task": {"origin": "word"}}'),
    write_header(base="[" * 100_000),
    write_header(slices="[" * 100_000),
    write_header(slices='{"w": 0}'),
    *(
        write_header(slices=json.dumps([entry]))
        for entry in (
            "word",
            ["w"],
            [7, 0, 0, 2],
            [["w"], 0, 0, 2],
            ["w", 0, "a", "b"],
            ["w", True, 0, 2],
            ["w", 0, False, 2],
            ["w", 0.0, 0, 2],
            ["w", -1, 0, 4],
            ["w", 0, -2, 0],
            ["w", 0, 2, 2],
            ["w", 0, 4, 2],
            ["w", 0, None, None],
            ["w", 2, 0, 2],
            ["w", 0, 0, 3],
            ["w", 0, 0, 2, 5],
        )
    ),
    write_header(slices='[["w", 0, 0, 2], ["w", 0, 0, 2]]'),
    write_header(slices='[["w", 0, 0, 2]]', delta=torch.zeros(2, 4, dtype=torch.int64)),
    write_header(slices='[["w", 0, 0, 2]]', delta=torch.zeros(2, 4, dtype=torch.bool)),
)


@pytest.mark.parametrize("write", BROKEN)
def test_load_refuses(write, tmp_path):
    path = tmp_path / "mine.safetensors"
    write(path)
    with pytest.raises(PatchError, match=r"mine\.safetensors") as caught:
        Patch.load(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_export_of_a_hostile_patch_ends_with_one_sentence(tmp_path, capsys):
    write_header(slices="[" * 100_000)(tmp_path / "mine.safetensors")
    with pytest.raises(SystemExit) as caught:
        main(["export", "--model=mini-clip", f"--patch={tmp_path / 'mine.safetensors'}", "--as=patch", "--out=out"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("razor: Cannot read the patch mine.safetensors: ")


# ---------------------------------------------------------------- patches of the wrong shape


@pytest.mark.parametrize(
    "where, shape, reason",
    [
        (Slice("visual.nowhere"), (2,), "'visual.nowhere', which here does not exist"),
        (Slice("visual.proj"), (3, 3), "'visual.proj', which here has another shape"),
        (Slice("visual.proj", 0, 30, 40), (10, 32), "'visual.proj', which here has another shape"),
        (Slice("visual.proj", 0, 0, 4), (5, 32), "'visual.proj', which here has another shape"),
        (Slice("visual.proj", 7, 0, 4), (4, 32), "'visual.proj', which here has another shape"),
        (Slice("visual.proj", 0, 4, 0), (4, 32), "'visual.proj', which here has another shape"),
    ],
)
def test_patch_of_another_shape_is_refused_and_changes_nothing(clip, weights_of, same_weights, where, shape, reason):
    before = weights_of(clip)
    good = Slice("visual.class_embedding")
    bad = Patch({good: torch.ones(32), where: torch.ones(shape)})
    with pytest.raises(PatchError, match=reason), bad.applied(clip):
        pass
    assert same_weights(clip, before)
