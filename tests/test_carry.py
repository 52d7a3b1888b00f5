"""An edit of mini-clip's image tower in the model that answers: the same tower, the same numbers, or one sentence."""

import json
import re
from collections.abc import Mapping

import pytest
import tiny_adapters
import tiny_vlms
import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration, SiglipVisionConfig

from razor import models
from razor.adapters.vlm import VlmAdapter
from razor.carry import carried, shares_tower
from razor.cli import main
from razor.errors import InputError, ModelError, PatchError
from razor.minicanvas import train_vlm
from razor.minicanvas.dataset import draw
from razor.minicanvas.judge import to_pixels
from razor.minicanvas.training import clip_blocks
from razor.patches import Patch
from razor.units import Slice

KINDS = ("head", "mlp", "layer")
EDITED = ("image.0.head.1", "image.2.head.5", "image.3.mlp", "image.4.head.0")


def mini_vlm(dtype=torch.float32, **config):
    """mini-vlm before training, an adapter of its own; `config` goes to its configuration."""
    torch.manual_seed(0)
    processor = train_vlm.build_processor()
    model = train_vlm.build_model(processor.tokenizer)
    for key, value in config.items():
        setattr(model.config, key, value)
    return VlmAdapter(model.to(dtype), processor, name="mini-vlm")


@pytest.fixture(scope="module")
def clip():
    return models.load("mini-clip", device="cpu")


@pytest.fixture(scope="module")
def vlm():
    """Shared: leave it as found."""
    return mini_vlm()


def noise(adapter, slices, scale=0.1):
    """A random edit of these slices."""
    generator, parameters = torch.Generator().manual_seed(0), dict(adapter.model.named_parameters())
    shapes = {where: where.view(parameters[where.parameter]).shape for where in slices}
    return Patch({where: scale * torch.randn(shape, generator=generator) for where, shape in shapes.items()})


def slices_of(adapter, *names) -> list[Slice]:
    units = {u.name: u for u in adapter.units(KINDS, ("image", "text"))}
    return [s for name in names for s in units[name].slices]


@pytest.fixture
def patch(clip):
    """Heads of three blocks, an MLP, and k and v of one more head."""
    return noise(clip, slices_of(clip, *EDITED) + slices_of(clip, "image.1.head.2")[1:3])


def states(clip, vlm) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What comes out of every block of both towers, two pictures, (2, 65, 192) each; as the models are now."""
    pixels = to_pixels(
        [draw({"object": "cat", "style": "photo"}, "test", 0), draw({"identity": "Mara Voss"}, "test", 0)]
    )
    outputs = []
    note = lambda _module, _args, output: outputs.append(output)  # noqa: E731
    handles = [block.register_forward_hook(note) for block in clip.model.visual.transformer.resblocks]
    with torch.no_grad():
        clip.model.encode_image(pixels)
        seen = vlm.model.model.vision_tower(pixels.to(vlm.dtype), output_hidden_states=True)
    for handle in handles:
        handle.remove()
    return outputs, [state.float() for state in seen.hidden_states[1:]]


def under_names_of_vlm(clip) -> Mapping[str, torch.Tensor]:
    """The weights of mini-clip's blocks as they are now, renamed as the bundled model was made."""
    weights = {k.removeprefix("visual."): v for k, v in clip.model.state_dict().items() if k.startswith("visual.")}
    return {f"model.vision_tower.{name}": value.clone() for name, value in clip_blocks(weights, 6).items()}


# ---------------------------------------------------------------- what is carried


def test_both_towers_give_the_same_numbers_under_the_edit_and_others_without(clip, vlm, patch):
    found = carried(patch, clip, vlm)
    before, _ = states(clip, vlm)
    with patch.applied(clip.model), found.patch.applied(vlm.model):
        here, there = states(clip, vlm)
    assert len(here) == len(there) == 6 and found.notes == ()
    for unedited, a, b in zip(before, here, there, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
        assert (a - unedited).abs().max() > 0.1


def test_carried_edit_gives_the_weights_a_renamed_copy_of_the_edited_clip_has(
    clip, vlm, patch, weights_of, same_weights
):
    before = weights_of(vlm.model)
    with patch.applied(clip.model):
        expected = under_names_of_vlm(clip)
    with carried(patch, clip, vlm).patch.applied(vlm.model):
        assert same_weights(vlm.model, before | expected) and not same_weights(vlm.model, before)
    assert same_weights(vlm.model, before)


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_of_whole_units_is_one_of_the_units_of_the_same_name(clip, vlm, kind):
    names = [u.name for u in clip.units((kind,), ("image",))]
    found = carried(noise(clip, slices_of(clip, *names)), clip, vlm).patch
    assert {*found.deltas} == {*slices_of(vlm, *names)}


def test_rows_across_q_and_k_are_parted(clip, vlm):
    fused = "visual.transformer.resblocks.1.attn.in_proj_weight"
    patch = noise(clip, [Slice(fused, 0, 190, 200)])
    found = carried(patch, clip, vlm).patch
    q, k = (f"model.vision_tower.encoder.layers.1.self_attn.{part}_proj.weight" for part in "qk")
    assert list(found.deltas) == [Slice(q, 0, 190, 192), Slice(k, 0, 0, 8)]
    assert torch.equal(torch.cat([*found.deltas.values()]), patch.deltas[Slice(fused, 0, 190, 200)])


def test_an_edit_carried_there_and_back_is_itself(clip, vlm, patch):
    back = carried(carried(patch, clip, vlm).patch, vlm, clip).patch
    assert back.deltas.keys() == patch.deltas.keys()
    assert all(torch.equal(back.deltas[where], delta) for where, delta in patch.deltas.items())


def test_no_edit_carried_is_no_edit(clip, vlm):
    found = carried(Patch(), clip, vlm)
    assert found.patch.deltas == {} and found.notes == ()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_copy_in_half_precision_is_edited_too_within_its_precision(clip, patch, dtype, weights_of, same_weights):
    vlm = mini_vlm(dtype)
    before = weights_of(vlm.model)
    with patch.applied(clip.model):
        expected = under_names_of_vlm(clip)
    with carried(patch, clip, vlm).patch.applied(vlm.model), patch.applied(clip.model):
        for name, value in expected.items():
            step = torch.finfo(dtype).eps
            torch.testing.assert_close(vlm.model.get_parameter(name).float(), value, atol=step, rtol=2 * step)
        here, there = states(clip, vlm)
    assert (here[-1] - there[-1]).norm() < 0.05 * here[-1].norm()
    assert same_weights(vlm.model, before)


# ---------------------------------------------------------------- towers of other build


@pytest.fixture
def fused_and_split(make_clip, wrap):
    """A CLIP over a timm tower, whose q, k, v are one parameter, and a LLaVA over a SigLIP with the same blocks."""
    clip = wrap(make_clip(vision={"timm_model_name": "test_vit", "timm_model_pretrained": False, "timm_pool": "token"}))
    sizes = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 6, "num_attention_heads": 2}
    tower = SiglipVisionConfig(**sizes, image_size=32, patch_size=8)
    model, processor = tiny_vlms.tiny("llava")
    processor.num_additional_image_tokens, processor.vision_feature_select_strategy = 0, "full"
    reads = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full", "image_token_id": 3}
    text = model.config.text_config
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=tower, text_config=text, **reads))
    model.load_state_dict(timm_blocks(clip), strict=False)
    return clip, VlmAdapter(model, processor, name="a LLaVA")


def timm_blocks(clip) -> dict[str, torch.Tensor]:
    """The blocks of a timm tower as they are now, under the names of a SigLIP in a LLaVA."""
    found = {}
    for number, block in enumerate(clip.model.visual.trunk.blocks):
        there = f"model.vision_tower.encoder.layers.{number}"
        for kind in ("weight", "bias"):
            fused = getattr(block.attn.qkv, kind)
            for part, value in zip("qkv", fused.detach().chunk(3), strict=True):
                found[f"{there}.self_attn.{part}_proj.{kind}"] = value.clone()
            others = {"self_attn.out_proj": block.attn.proj, "mlp.fc1": block.mlp.fc1, "mlp.fc2": block.mlp.fc2}
            found |= {f"{there}.{name}.{kind}": getattr(m, kind).detach().clone() for name, m in others.items()}
    return found


def test_a_tower_of_other_names_is_found_by_its_build(fused_and_split, same_weights, weights_of):
    clip, vlm = fused_and_split
    assert shares_tower(clip, vlm) and shares_tower(vlm, clip)
    before = weights_of(vlm.model)
    patch = noise(clip, slices_of(clip, "image.0.head.1", "image.2.mlp", "image.5.layer"))
    with patch.applied(clip.model):
        expected = timm_blocks(clip)
    found = carried(patch, clip, vlm).patch
    with found.applied(vlm.model):
        assert same_weights(vlm.model, before | expected) and not same_weights(vlm.model, before)
    with carried(found, vlm, clip).patch.applied(clip.model):
        now = timm_blocks(clip)
    assert all(torch.equal(now[name], expected[name]) for name in expected)


def test_rounding_to_half_precision_makes_no_other_tower(fused_and_split):
    clip, vlm = fused_and_split
    layers = noise(clip, slices_of(clip, *(f"image.{number}.layer" for number in range(6))))
    vlm.model.half()
    assert any(not torch.equal(vlm.model.get_parameter(name), was) for name, was in timm_blocks(clip).items())
    assert shares_tower(clip, vlm)
    assert carried(layers, clip, vlm).patch.parameters_edited == layers.parameters_edited


# ---------------------------------------------------------------- what is left out


def test_an_edit_of_the_text_tower_stays_behind_and_is_said(clip, vlm, patch):
    words = noise(clip, slices_of(clip, "text.3.mlp"))
    found = carried(patch + words, clip, vlm)
    count = f"{words.parameters_edited:,}"
    assert found.notes == (f"What it changes outside the image blocks is left out: {count} numbers of the text tower.",)
    assert found.patch.deltas.keys() == carried(patch, clip, vlm).patch.deltas.keys()
    alone = (
        f"Nothing of this patch can be carried into mini-vlm. {found.notes[0]} Carry an edit of image blocks 0 to 5."
    )
    with pytest.raises(InputError, match=f"^{re.escape(alone)}$"):
        carried(words, clip, vlm)


def test_blocks_that_are_not_read_stay_behind_and_are_said(clip, patch):
    vlm = mini_vlm(vision_feature_layer=-3)
    last = noise(clip, slices_of(clip, "image.4.mlp", "image.5.head.0"))
    found = carried(patch + last, clip, vlm)
    assert found.notes == ("What it changes in image blocks 4 and 5, which mini-vlm does not read, is left out.",)
    assert not any(re.search(r"layers\.[45]\.", where.parameter) for where in found.patch.deltas)
    with pytest.raises(InputError, match=r"Nothing of this patch .* image block 5, which mini-vlm .* blocks 0 to 3\.$"):
        carried(noise(clip, slices_of(clip, "image.5.head.0")), clip, vlm)
    assert shares_tower(clip, vlm)


# ---------------------------------------------------------------- what is refused


def test_another_tower_is_refused_with_what_differs(clip, vlm, patch):
    other = VlmAdapter(*tiny_vlms.tiny("llava"), name="tiny")
    with pytest.raises(
        ModelError,
        match=r"^mini-clip and tiny do not see through the same image tower: block 0 has 6 heads in one and 2 in the "
        r"other\. Carry an edit of the CLIP whose tower tiny was built on\.$",
    ):
        carried(patch, clip, other)
    assert shares_tower(clip, vlm) and not shares_tower(clip, other)


def test_blocks_of_another_width_are_refused(make_clip, wrap):
    clip, other = (
        wrap(make_clip(vision={"layers": 4, "mlp_ratio": 2.0})),
        VlmAdapter(*tiny_vlms.tiny("llava"), name="x"),
    )
    with pytest.raises(
        ModelError, match=r"block 1 has weights of shape \(64, 32\) in 'visual.*' and \(48, 32\) in 'm.*'"
    ):
        carried(noise(clip, slices_of(clip, "image.1.head.0")), clip, other)
    assert not shares_tower(clip, other)


def test_a_tower_trained_further_is_refused_where_it_was_changed_and_only_there(clip, patch):
    vlm = mini_vlm()
    with torch.no_grad():
        vlm.model.get_parameter("model.vision_tower.encoder.layers.4.self_attn.v_proj.weight")[0, 0] += 1e-3
    kept = patch.only(slices_of(clip, *EDITED[:3]))
    assert len(carried(kept, clip, vlm).patch.deltas) == len(slices_of(clip, *EDITED[:3]))
    with pytest.raises(
        ModelError, match=r"the weights of 'visual\S*4.attn.in_proj_weight' and '\S*v_proj.weight' differ"
    ):
        carried(patch, clip, vlm)
    assert not shares_tower(clip, vlm)


def test_a_patch_of_another_clip_is_refused(clip, vlm, patch, make_clip):
    with pytest.raises(PatchError, match="made for another model"):
        carried(noise(clip, slices_of(clip, "image.0.mlp")), vlm, clip)
    stranger = Patch(patch.deltas, {}, dict.fromkeys(patch.bound_to(clip.model).base, "0" * 16))
    with pytest.raises(PatchError, match="made for another model"):
        carried(stranger, clip, vlm)


def test_columns_of_q_k_and_v_belong_to_no_unit(clip, vlm):
    with pytest.raises(PatchError, match=r"edits columns of '\S*in_proj_weight', which are no part of a head"):
        carried(noise(clip, [Slice("visual.transformer.resblocks.1.attn.in_proj_weight", 1, 190, 192)]), clip, vlm)


def test_a_model_without_an_image_tower_is_named(clip, patch):
    drawing = tiny_adapters.shared("sd")
    with pytest.raises(ModelError, match=r"^tiny sd has no image tower that can be edited"):
        carried(patch, clip, drawing)
    assert not shares_tower(clip, drawing)


# ---------------------------------------------------------------- files and the command line


@pytest.fixture
def both(clip, vlm, monkeypatch):
    """Both models behind their names."""
    monkeypatch.setattr(models, "load", lambda name, **_: {"mini-clip": clip, "mini-vlm": vlm}[name])


def test_carried_patch_is_a_file_that_says_where_it_came_from(clip, vlm, patch, both, tmp_path, capsys):
    words = noise(clip, slices_of(clip, "text.3.mlp"))
    layer = noise(clip, slices_of(clip, "image.5.layer"))
    made = (patch + words + layer).bound_to(clip.model).with_recipe({"rounds": [1, 2]})
    made.save(tmp_path / "p.safetensors")
    paths = ["--patch", str(tmp_path / "p.safetensors"), "--out", str(tmp_path / "new" / "q.safetensors")]
    told = tmp_path / "told.json"
    main(["carry", "--from", "mini-clip", "--to", "mini-vlm", *paths, "--json", str(told)])
    said = capsys.readouterr()
    found = Patch.load(tmp_path / "new" / "q.safetensors")
    found.check(vlm.model)
    expected = carried(made, clip, vlm)
    assert found.deltas.keys() == expected.patch.deltas.keys() and found.recipe == expected.patch.recipe
    assert found.recipe["model"] == {"family": "vlm", "name": "mini-vlm", "fingerprint": vlm.fingerprint()}
    origin = found.recipe["carried"]
    assert origin["model"]["fingerprint"] == clip.fingerprint() and origin["recipe"] == {"rounds": [1, 2]}
    assert origin["left_out"] == [*expected.notes] and expected.notes[0] in said.err
    assert "What mini-vlm forgets by it was not measured" in said.out
    told = json.loads(told.read_text())
    assert told["notes"] == [*expected.notes] and told["parameters_edited"] == found.parameters_edited
    assert told["patch_bytes"] == (tmp_path / "new" / "q.safetensors").stat().st_size


@pytest.mark.parametrize(
    ("out", "said"),
    [("q.safetensors", "Nothing of this patch can be carried into mini-vlm."), (".", "--out needs the file to write")],
)
def test_what_cannot_be_carried_or_written_is_one_sentence(clip, both, tmp_path, capsys, out, said):
    noise(clip, slices_of(clip, "text.3.mlp")).save(tmp_path / "p.safetensors")
    paths = ["--patch", str(tmp_path / "p.safetensors"), "--out", str(tmp_path / out)]
    with pytest.raises(SystemExit) as stop:
        main(["carry", "--from", "mini-clip", "--to", "mini-vlm", *paths])
    assert stop.value.code == 2 and [path.name for path in tmp_path.iterdir()] == ["p.safetensors"]
    assert capsys.readouterr().err.startswith(f"razor: {said}")
