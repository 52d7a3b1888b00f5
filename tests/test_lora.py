"""An edit as a LoRA: exact where it can be, cut where asked, refused where a format cannot hold it, and read back."""

import json
import struct

import pytest
import tiny_adapters
import torch
from diffusers.loaders.lora_base import convert_state_dict_to_diffusers, convert_state_dict_to_peft
from diffusers.utils import convert_unet_state_dict_to_peft
from diffusers.utils.peft_utils import get_peft_kwargs
from safetensors.torch import load_file, save_file
from torch import nn

from razor.errors import InputError, PatchError
from razor.export import write_lora
from razor.lora import as_lora, fit, kohya_names, peft_name, read_lora, without_biases
from razor.patches import Patch
from razor.units import Slice


class Plain:
    """An adapter of a bare module."""

    family, name = "clip", "plain"

    def __init__(self, model):
        self.model = model.eval().requires_grad_(False)


def shifted(kind):
    """An adapter whose LayerNorms shift and scale, as in any trained model."""
    adapter, generator = tiny_adapters.fresh(kind), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for module in adapter.model.modules():
            if isinstance(module, nn.LayerNorm) and module.bias is not None:
                module.bias.copy_(0.1 + 0.3 * torch.randn(module.bias.shape, generator=generator))
                module.weight.copy_(1 + 0.2 * torch.randn(module.weight.shape, generator=generator))
    return adapter


@pytest.fixture(scope="module")
def sd():
    return shifted("sd")


@pytest.fixture(scope="module")
def sdxl():
    return shifted("sdxl")


def edit(adapter, *units, seed=0):
    """A random change of a twentieth of the weights on these units."""
    generator, parameters = torch.Generator().manual_seed(seed), dict(adapter.model.named_parameters())
    known = {u.name: u for u in adapter.units(("head", "mlp", "layer"))}
    slices = dict.fromkeys(s for name in units for s in known[name].slices)
    views = {s: s.view(parameters[s.parameter]) for s in slices}
    return Patch({s: 0.05 * max(v.std(), 0.1) * torch.randn(v.shape, generator=generator) for s, v in views.items()})


def dense(patch, model):
    """What a patch adds to each parameter, whole."""
    total = {}
    for where, delta in patch.deltas.items():
        tensor = total.setdefault(where.parameter, torch.zeros(model.get_parameter(where.parameter).shape))
        where.view(tensor).add_(delta)
    return total


def answers(adapter):
    """What the encoders and the denoiser say to one prompt, as one vector."""
    with torch.no_grad():
        words = adapter.encode(["a red cat"])
        return torch.cat(
            [words.states.flatten(), adapter.predict(adapter.noise([0]), torch.tensor([300]), words).flatten()]
        )


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


# ---------------------------------------------------------------- factors


def test_changed_rows_and_columns_are_factors_without_rounding():
    adapter = Plain(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 4)))
    rows, columns = torch.tensor([[1.0, 2, 3, 4], [0, 1, 0, 5]]), torch.tensor([[1.0, 0], [2, 1], [3, 0], [4, 7]])
    lora = as_lora(adapter, Patch({Slice("0.weight", 0, 3, 5): rows, Slice("1.weight", 1, 1, 3): columns}))
    first, second = lora.factors["0.weight"], lora.factors["1.weight"]
    assert torch.equal(first.down, rows) and torch.equal(first.up, torch.eye(6)[:, 3:5])
    assert torch.equal(second.up, columns) and torch.equal(second.down, torch.eye(6)[1:3])
    assert lora.residual == 0 and lora.bytes == 4 * (2 * (4 + 6) + 2 * (6 + 4))


@pytest.mark.parametrize("unit", ["text.1.head.1", "cross.0.head.0", "self.0.head.1"])
def test_one_head_has_exactly_its_size_as_rank_and_comes_back_bit_for_bit(sd, unit):
    patch = edit(sd, unit)
    lora, total = as_lora(sd, patch), dense(patch, sd.model)
    size = next(u for u in sd.units(("head",)) if u.name == unit).slices[0]
    assert {f.rank for f in lora.factors.values()} == {size.stop - size.start}
    again = lora.patch().deltas
    assert {where.parameter for where in again} == total.keys()
    assert all(torch.equal(again[Slice(name)], delta) for name, delta in total.items())


def test_two_heads_of_one_layer_have_the_sum_of_their_ranks(sd):
    assert {f.rank for f in as_lora(sd, edit(sd, "text.1.head.0", "text.1.head.1")).factors.values()} == {32}


def test_a_change_of_lower_rank_than_its_rows_is_found_to_be():
    adapter = Plain(nn.Sequential(nn.Linear(12, 8)))
    a, b = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)), torch.randn(2, 12)
    factors = as_lora(adapter, Patch({Slice("0.weight"): a @ b})).factors["0.weight"]
    assert factors.rank == 2 and factors.residual < 1e-6
    assert relative(factors.up @ factors.down, a @ b) < 1e-6


def test_a_limited_rank_keeps_the_largest_part_and_says_what_is_left_out():
    """Singular values 3, 2, 1 cut to 2 leave 1 of sqrt(14); beside a second change of norm 6, 1 of sqrt(50)."""
    adapter = Plain(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)))
    first, second = torch.diag(torch.tensor([1.0, 3, 2])), torch.zeros(3, 3)
    second[2, 0] = 6
    lora = as_lora(adapter, Patch({Slice("0.weight"): first, Slice("1.weight"): second}), rank=2)
    cut = lora.factors["0.weight"]
    assert torch.allclose(cut.up @ cut.down, torch.diag(torch.tensor([0.0, 3, 2])), atol=1e-6)
    assert cut.residual == pytest.approx(14**-0.5) and lora.factors["1.weight"].residual == 0
    assert lora.residual == pytest.approx(50**-0.5)


def test_a_matrix_that_gains_nothing_still_has_factors(sd):
    patch = edit(sd, "text.0.head.0")
    patch = Patch({where: delta * ("k_proj" not in where.parameter) for where, delta in patch.deltas.items()})
    factors = as_lora(sd, patch).factors["text_encoder.encoder.layers.0.self_attn.k_proj.weight"]
    assert factors.rank == 1 and not (factors.up @ factors.down).any()


def test_fused_attention_has_factors_of_the_whole_matrix(wrap, clip):
    adapter = wrap(clip)
    head = adapter.units(("head",), ("image",))[1]
    patch = Patch({s: torch.ones(s.view(clip.get_parameter(s.parameter)).shape) for s in head.slices})
    factors = as_lora(adapter, patch).factors[head.slices[0].parameter]
    assert factors.up.shape[0] == 3 * factors.down.shape[1] and factors.bias.shape == (96,)
    assert torch.equal(factors.up @ factors.down, dense(patch, clip)[head.slices[0].parameter])


@pytest.mark.parametrize(
    "deltas, rank, said",
    [
        ({Slice("1.weight"): torch.ones(4)}, None, r"A LoRA cannot hold the change of '1\.weight', a tensor of shape"),
        ({Slice("2.weight"): torch.ones(3, 4)}, None, r"A LoRA cannot hold the change of '2\.weight'"),
        ({Slice("0.weight"): torch.full((4, 4), torch.nan)}, None, r"The edit adds NaN or infinity to '0\.weight'"),
        ({Slice("0.weight"): torch.ones(4, 4)}, 0, r"A rank of 0 cannot be used; give a whole number from 1"),
        ({Slice("0.weight"): torch.ones(4, 4)}, True, r"A rank of True cannot be used"),
        ({Slice("9.weight"): torch.ones(4, 4)}, None, r"made for another model: it edits '9\.weight'"),
    ],
)
def test_what_no_lora_holds_is_refused(deltas, rank, said):
    adapter = Plain(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Embedding(3, 4)))
    with pytest.raises(InputError, match=said):
        as_lora(adapter, Patch(deltas), rank=rank)


# ---------------------------------------------------------------- biases as weights


def test_change_of_a_bias_becomes_the_same_change_of_weights(sd):
    patch = edit(sd, "text.0.head.1", "text.1.head.0")
    moved, growth = without_biases(sd, patch)
    unbiased = Patch({where: delta for where, delta in patch.deltas.items() if not where.parameter.endswith("bias")})
    with patch.applied(sd.model):
        expected = answers(sd)
    with unbiased.applied(sd.model):
        assert relative(answers(sd), expected) > 1e-3  # the biases do something
    with moved.applied(sd.model):
        assert relative(answers(sd), expected) < 1e-5
    assert not any(where.parameter.endswith("bias") for where in moved.deltas) and 1 < growth < 100
    assert [f.rank for f in as_lora(sd, moved).factors.values()] == [
        f.rank for f in as_lora(sd, patch).factors.values()
    ]


def test_direction_that_never_moves_is_worked_out_from_the_norm():
    """g = (1, 2), b = (3, 2): u = (1, 1/2) / (3 + 1), so a change of 8 adds (2, 1); |u| rms(x) = sqrt(5/64 * 9)."""
    block = nn.Module()
    block.layer_norm1, block.self_attn = nn.LayerNorm(2), nn.Module()
    block.self_attn.q_proj = nn.Linear(2, 1)
    with torch.no_grad():
        block.layer_norm1.weight.copy_(torch.tensor([1.0, 2.0]))
        block.layer_norm1.bias.copy_(torch.tensor([3.0, 2.0]))
    patch = Patch({Slice("0.self_attn.q_proj.bias", 0, 0, 1): torch.tensor([8.0])})
    moved, growth = without_biases(Plain(nn.Sequential(block)), patch)
    assert torch.allclose(moved.deltas[Slice("0.self_attn.q_proj.weight", 0, 0, 1)], torch.tensor([[2.0, 1.0]]))
    assert growth == pytest.approx((5 / 64 * 9) ** 0.5)


def test_bias_behind_no_shifting_norm_is_refused():
    still = tiny_adapters.shared("sd")  # fresh norms shift nothing
    with pytest.raises(InputError, match="the LayerNorm before it shifts nothing"):
        without_biases(still, edit(still, "text.0.head.0"))
    joint = tiny_adapters.shared("sd3")
    with pytest.raises(InputError, match=r"add_q_proj\.bias' cannot be written without a bias: no LayerNorm"):
        without_biases(joint, edit(joint, "context.0.head.0"))


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "weight, parts, peft, kohya",
    [
        (
            "text_encoder.encoder.layers.0.self_attn.q_proj.weight",
            (),
            "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
            "lora_te_text_model_encoder_layers_0_self_attn_q_proj",
        ),
        (
            "text_encoder.encoder.layers.0.mlp.fc1.weight",
            ("text_encoder_2",),
            "text_encoder.text_model.encoder.layers.0.mlp.fc1",
            "lora_te1_text_model_encoder_layers_0_mlp_fc1",
        ),
        (
            "text_encoder_2.text_model.encoder.layers.11.self_attn.out_proj.weight",
            ("text_encoder_2",),
            "text_encoder_2.text_model.encoder.layers.11.self_attn.out_proj",
            "lora_te2_text_model_encoder_layers_11_self_attn_out_proj",
        ),
        (
            "unet.down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_out.0.weight",
            (),
            "unet.down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_out.0",
            "lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn2_to_out_0",
        ),
    ],
)
def test_layers_have_the_names_other_programs_look_for(weight, parts, peft, kohya):
    assert peft_name("diffusion", weight) == peft and kohya_names(weight, parts)[0] == kohya


# ---------------------------------------------------------------- as other programs read it


def as_diffusers_reads(adapter, path):
    """What diffusers would add to each parameter: its own keys and alphas, merged by hand where PEFT is not there."""
    pipeline = adapter.pipeline
    state, alphas, settings = pipeline.lora_state_dict(
        str(path), return_lora_metadata=True, unet_config=pipeline.unet.config
    )
    added = {}
    for part in adapter.model:
        mine = {k.removeprefix(f"{part}."): v for k, v in state.items() if k.startswith(f"{part}.")}
        if not mine:
            continue
        if part == "unet":
            mine = mine if "lora_A" in next(iter(mine)) else convert_unet_state_dict_to_peft(mine)
        else:
            mine = convert_state_dict_to_peft(convert_state_dict_to_diffusers(mine))
        if not hasattr(adapter.model[part], "text_model"):
            mine = {k.removeprefix("text_model."): v for k, v in mine.items()}
        config = {k.removeprefix(f"{part}."): v for k, v in (settings or {}).items() if k.startswith(f"{part}.")}
        if not config:
            ranks = {f"^{k}" * (part == "unet") or k: v.shape[1] for k, v in mine.items() if k.endswith("B.weight")}
            own = {k.removeprefix(f"{part}."): v for k, v in (alphas or {}).items() if k.startswith(f"{part}.")}
            config = get_peft_kwargs(ranks, own, mine, is_unet=part == "unet")
        for layer in {k.split(".lora_")[0] for k in mine}:
            alpha = config["alpha_pattern"].get(layer, config["alpha_pattern"].get(f"^{layer}", config["lora_alpha"]))
            up, down = mine[f"{layer}.lora_B.weight"], mine[f"{layer}.lora_A.weight"]
            added[f"{part}.{layer}.weight"] = alpha / down.shape[0] * (up @ down)
            if f"{layer}.lora_B.bias" in mine:
                added[f"{part}.{layer}.bias"] = alpha / down.shape[0] * mine[f"{layer}.lora_B.bias"]
    return added


def as_webuis_read(adapter, path, strength=1.0):
    """What A1111 and ComfyUI add: strength * alpha / r * up @ down, to the layer of that name with underscores."""
    first = "lora_te1_text_model_" if "text_encoder_2" in adapter.model else "lora_te_text_model_"
    start = {"unet": "lora_unet_", "text_encoder": first, "text_encoder_2": "lora_te2_text_model_"}
    names = {}
    for part, network in adapter.model.items():
        paths = {path: path.removeprefix("text_model.").replace(".", "_") for path, _ in network.named_modules()}
        names |= {start[part] + flat: f"{part}.{path}.weight" for path, flat in paths.items()}
    tensors, added = load_file(path), {}
    for layer in {key.split(".")[0] for key in tensors}:
        up, down = tensors.pop(f"{layer}.lora_up.weight"), tensors.pop(f"{layer}.lora_down.weight")
        added[names[layer]] = strength * tensors.pop(f"{layer}.alpha").item() / len(down) * (up @ down)
    assert not tensors  # a key they do not know is passed over in silence
    return added


ALL = ("text.0.head.0", "text.0.head.1", "text.0.mlp", "cross.0.head.0", "self.1.head.0", "self.1.head.1")
EDITS = [("text.0.head.0",), ("text.0.mlp",), ("cross.0.head.1",), ALL]


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("units", EDITS, ids=["head", "mlp", "cross", "all"])
@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_diffusers_finds_the_whole_change_under_peft_keys(request, tmp_path, kind, units, scale):
    adapter = request.getfixturevalue(kind)
    patch = edit(adapter, *units, *(["text2.0.head.0"] if kind == "sdxl" else []))
    write_lora(adapter, patch, tmp_path / "l.safetensors", scale=scale)
    added, total = as_diffusers_reads(adapter, tmp_path / "l.safetensors"), dense(patch, adapter.model)
    assert total.keys() <= added.keys() and not any(added[name].any() for name in added.keys() - total.keys())
    assert all(torch.allclose(added[name], scale * delta, atol=1e-7) for name, delta in total.items())


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("units", EDITS, ids=["head", "mlp", "cross", "all"])
@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_diffusers_and_web_uis_find_the_same_change_under_kohya_keys(request, tmp_path, kind, units, scale):
    adapter = request.getfixturevalue(kind)
    patch = edit(adapter, *units, *(["text2.0.head.0"] if kind == "sdxl" else []))
    write_lora(adapter, patch, tmp_path / "l.safetensors", keys="kohya", scale=scale)
    total = dense(without_biases(adapter, patch)[0], adapter.model)
    for added in (
        as_diffusers_reads(adapter, tmp_path / "l.safetensors"),
        as_webuis_read(adapter, tmp_path / "l.safetensors"),
    ):
        assert added.keys() == total.keys()
        assert all(torch.allclose(added[name], scale * delta, atol=1e-6, rtol=1e-5) for name, delta in total.items())


@pytest.mark.parametrize("keys", ["peft", "kohya"])
@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_pipeline_with_the_lora_loaded_is_the_edited_pipeline(request, tmp_path, kind, keys):
    pytest.importorskip("peft")
    adapter = request.getfixturevalue(kind)
    for units in EDITS:
        patch = edit(adapter, *units)
        before = answers(adapter)
        with patch.applied(adapter.model):
            expected = answers(adapter)
        assert relative(before, expected) > 1e-4
        write_lora(adapter, patch, tmp_path / "l.safetensors", keys=keys, replace=True)
        adapter.pipeline.load_lora_weights(str(tmp_path / "l.safetensors"))
        try:
            assert relative(answers(adapter), expected) < 1e-5
        finally:
            adapter.pipeline.unload_lora_weights()
        assert torch.equal(answers(adapter), before)


# ---------------------------------------------------------------- what a format cannot hold


def test_fused_attention_has_no_reader_and_is_refused(tmp_path, wrap, clip):
    adapter = wrap(clip)
    head = adapter.units(("head",), ("image",))[0]
    patch = Patch({s: torch.ones(s.view(clip.get_parameter(s.parameter)).shape) for s in head.slices})
    with pytest.raises(InputError, match="belongs to torch's fused attention, to which no program adds a LoRA rightly"):
        write_lora(adapter, patch, tmp_path / "lora")
    with pytest.raises(InputError, match="kohya keys exist for diffusion models alone, and tiny is none"):
        write_lora(adapter, patch, tmp_path / "lora", keys="kohya")


def test_kohya_keys_refuse_a_bias_that_half_precision_would_lose(tmp_path, sd):
    norm = sd.model["text_encoder"].encoder.layers[0].layer_norm1
    bias, patch = norm.bias.clone(), edit(sd, "text.0.head.0")
    with torch.no_grad():
        norm.bias.sub_((norm.bias / norm.weight).sum() * norm.weight / len(norm.weight)).add_(1e-4)
    try:
        with pytest.raises(InputError, match=r"float16 would lose \d+% of it\. Use peft keys"):
            write_lora(sd, patch, tmp_path / "l.safetensors", keys="kohya")
    finally:
        with torch.no_grad():
            norm.bias.copy_(bias)


def test_stable_diffusion_3_has_peft_keys_but_neither_kohya_keys_nor_its_third_encoder(tmp_path):
    adapter, out = tiny_adapters.shared("sd3"), tmp_path / "l.safetensors"
    written = write_lora(adapter, edit(adapter, "context.0.head.0", "text.0.head.1"), out)
    assert any("PEFT 0.14" in note for note in written.notes)  # its attention has biases behind no plain norm
    with pytest.raises(InputError, match="kohya keys for Stable Diffusion 3 without any effect"):
        write_lora(adapter, edit(adapter, "text.0.head.0"), out, keys="kohya", replace=True)
    with pytest.raises(InputError, match="diffusers loads no LoRA into the text_encoder_3"):
        write_lora(adapter, edit(adapter, "text3.0.head.0"), out, replace=True)


def test_empty_edit_and_unknown_arguments_are_refused(tmp_path, sd):
    out = tmp_path / "l.safetensors"
    with pytest.raises(InputError, match="The edit is empty"):
        write_lora(sd, Patch(), out)
    with pytest.raises(InputError, match="There are no 'xl' keys; choose peft or kohya"):
        write_lora(sd, edit(sd, "text.0.mlp"), out, keys="xl")
    with pytest.raises(InputError, match="A scale of nan cannot be used"):
        write_lora(sd, edit(sd, "text.0.mlp"), out, scale=float("nan"))
    with pytest.raises(InputError, match=r"l is the wrong kind of name for this export; give a \.safetensors file"):
        write_lora(sd, edit(sd, "text.0.mlp"), tmp_path / "l")
    assert not list(tmp_path.iterdir())


def test_lora_larger_than_its_matrices_says_so(tmp_path, sd):
    written = write_lora(sd, edit(sd, "text.0.mlp"), tmp_path / "l.safetensors")
    assert any("takes more room" in note for note in written.notes)
    short = write_lora(sd, edit(sd, "text.0.mlp"), tmp_path / "s.safetensors", rank=2)
    assert short.notes == () and 0 < short.residual < 1 and set(short.ranks.values()) == {2}
    assert short.bytes < written.bytes


def test_lora_that_peft_can_load_but_not_merge_says_so():
    adapter = Plain(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, bias=False)))
    delta = torch.ones(4, 1) @ torch.ones(1, 4)
    patch = Patch({Slice("0.weight"): delta, Slice("0.bias"): torch.ones(4), Slice("1.weight"): delta})
    assert any("not merge it" in note for note in fit(adapter, patch, "peft")[1])
    assert not any("not merge it" in note for note in fit(adapter, patch.only([Slice("0.bias")]), "peft")[1])


def test_bias_that_only_some_layers_have_comes_back(tmp_path):
    """PEFT has a bias in every layer once one has it; where the base has none, it is zero and passed over."""
    adapter = Plain(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, bias=False)))
    deltas = {Slice("0.weight"): torch.eye(4), Slice("0.bias"): torch.ones(4), Slice("1.weight"): torch.eye(4)}
    write_lora(adapter, Patch(deltas), tmp_path / "lora")
    read = read_lora(tmp_path / "lora", adapter).deltas
    assert read.keys() == deltas.keys() and all(torch.equal(read[where], deltas[where]) for where in deltas)


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("keys", ["peft", "kohya"])
@pytest.mark.parametrize("strength", [1.0, 0.3, -1.0])
def test_lora_comes_back_as_the_edit_at_any_strength(tmp_path, sd, keys, strength):
    patch = edit(sd, *ALL).with_recipe({"task": {"concept": "cat"}})
    write_lora(sd, patch, tmp_path / "l.safetensors", keys=keys)
    read = read_lora(tmp_path / "l.safetensors", sd, strength=strength)
    expected = dense(without_biases(sd, patch)[0] if keys == "kohya" else patch, sd.model)
    found = dense(read, sd.model)
    assert all(torch.allclose(found[n], strength * delta, atol=1e-6, rtol=1e-5) for n, delta in expected.items())
    assert read.recipe == {"task": {"concept": "cat"}}
    with patch.scaled(strength).applied(sd.model):
        edited = answers(sd)
    with read.applied(sd.model):
        assert relative(answers(sd), edited) < 1e-5


LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"
FLAT = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_q"


def pair(sd, layer=LAYER, rank=2):
    """Random factors that fit a layer: down and up."""
    shape = sd.model.get_parameter(f"{layer}.weight").shape
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rank, shape[1:].numel(), generator=generator), torch.randn(shape[0], rank, generator=generator)


def test_alpha_of_others_is_heeded(tmp_path, sd):
    down, up = pair(sd)
    save_file(
        {f"{FLAT}.lora_down.weight": down, f"{FLAT}.lora_up.weight": up, f"{FLAT}.alpha": torch.tensor(0.5)},
        tmp_path / "k.safetensors",
    )
    assert torch.allclose(read_lora(tmp_path / "k.safetensors", sd).deltas[Slice(f"{LAYER}.weight")], up @ down / 4)
    settings = {"unet.lora_alpha": 8, "unet.alpha_pattern": {LAYER.removeprefix("unet."): 1}}
    header = {"lora_adapter_metadata": json.dumps(settings)}
    save_file({f"{LAYER}.lora_A.weight": down, f"{LAYER}.lora_B.weight": up}, tmp_path / "p.safetensors", header)
    assert torch.allclose(read_lora(tmp_path / "p.safetensors", sd).deltas[Slice(f"{LAYER}.weight")], up @ down / 2)


def test_convolution_of_others_is_read(tmp_path, sd):
    """W[o, i, y, x] += up[o, r] down[r, i, y, x], as every program merges it."""
    layer = "unet.down_blocks.0.resnets.0.conv1"
    shape = sd.model.get_parameter(f"{layer}.weight").shape
    down, up = pair(sd, layer)
    flat = "lora_unet_" + layer.removeprefix("unet.").replace(".", "_")
    tensors = {f"{flat}.lora_down.weight": down.reshape(2, *shape[1:]), f"{flat}.lora_up.weight": up[:, :, None, None]}
    save_file(tensors, tmp_path / "c.safetensors")
    found = read_lora(tmp_path / "c.safetensors", sd).deltas[Slice(f"{layer}.weight")]
    assert torch.allclose(found, torch.einsum("or,riyx->oiyx", up, tensors[f"{flat}.lora_down.weight"]), atol=1e-5)


def test_convolution_is_written_as_it_is_read(tmp_path, sd):
    where = Slice("unet.down_blocks.0.resnets.0.conv1.weight")
    delta = torch.zeros(sd.model.get_parameter(where.parameter).shape)
    delta[3:5] = torch.randn(delta[3:5].shape, generator=torch.Generator().manual_seed(2))
    for keys in ("peft", "kohya"):
        path = tmp_path / f"{keys}.safetensors"
        written = write_lora(sd, Patch({where: delta}), path, keys=keys)
        assert written.ranks == {where.parameter: 2} and {t.ndim for t in load_file(path).values()} <= {0, 4}
        assert torch.allclose(read_lora(path, sd).deltas[where], delta)


def test_names_of_the_first_training_are_read(tmp_path, sdxl):
    """kohya's trainer names XL's blocks as one list: the first attention on the way down is input block 1, part 1."""
    down, up = pair(sdxl)
    flat = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_q"
    save_file({f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}, tmp_path / "l.safetensors")
    assert torch.allclose(read_lora(tmp_path / "l.safetensors", sdxl).deltas[Slice(f"{LAYER}.weight")], up @ down)


@pytest.mark.parametrize("keys, lacks", [("peft", "self_attn.q_proj"), ("kohya", "self_attn_out_proj")])
def test_text_edit_that_diffusers_could_not_place_has_a_layer_of_zeros_besides(tmp_path, sd, keys, lacks):
    name = "text_encoder.encoder.layers.1." + ("mlp.fc2.weight" if keys == "peft" else "self_attn.v_proj.weight")
    delta = torch.zeros(sd.model.get_parameter(name).shape)
    delta[0, 1] = 1.0
    patch = Patch({Slice(name): delta})
    written = write_lora(sd, patch, tmp_path / "l.safetensors", keys=keys)
    added = as_diffusers_reads(sd, tmp_path / "l.safetensors")
    assert torch.equal(added.pop(name), delta) and len(added) == 1 and not next(iter(added.values())).any()
    assert any(lacks in key for key in load_file(tmp_path / "l.safetensors"))
    assert written.ranks == {name: 1} and read_lora(tmp_path / "l.safetensors", sd).deltas.keys() == patch.deltas.keys()


def test_folder_of_peft_is_read_with_its_alphas(tmp_path, wrap, clip):
    adapter, layer = wrap(clip), "visual.transformer.resblocks.0.mlp.c_fc"
    down, up = torch.randn(4, 32), torch.randn(128, 4)
    name = f"base_model.model.{layer}"
    save_file({f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}, tmp_path / "adapter_model.safetensors")
    for settings, scale in (
        ({"lora_alpha": 8}, 2.0),
        ({"lora_alpha": 8, "use_rslora": True}, 4.0),
        ({"lora_alpha": 8, "alpha_pattern": {"resblocks.0.mlp.c_fc": 1}}, 0.25),
    ):
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
        assert torch.allclose(read_lora(tmp_path, adapter).deltas[Slice(f"{layer}.weight")], scale * (up @ down))
    (tmp_path / "adapter_config.json").write_text('{"use_dora": true}')
    with pytest.raises(PatchError, match="describes no plain LoRA"):
        read_lora(tmp_path, adapter)


def test_lora_for_another_architecture_is_refused_by_its_first_key_that_fits_nowhere(tmp_path, sd, sdxl):
    down, up = pair(sd)
    strange = LAYER.replace("down_blocks.0", "down_blocks.7")
    save_file({f"{strange}.lora_A.weight": down, f"{strange}.lora_B.weight": up}, tmp_path / "a.safetensors")
    with pytest.raises(PatchError, match=r"its 'unet\.down_blocks\.7.*lora_A\.weight' fits nowhere in tiny sd\. Load"):
        read_lora(tmp_path / "a.safetensors", sd)
    write_lora(sdxl, edit(sdxl, "cross.0.head.0"), tmp_path / "xl.safetensors")
    with pytest.raises(PatchError, match=r"was made for another model: it adds to 'unet.*attn2\.to_[kv]\.weight' with"):
        read_lora(tmp_path / "xl.safetensors", sd)


# ---------------------------------------------------------------- files that are not what they should be


def raw(path, table, data=b"", length=None):
    """A safetensors file with any header one likes."""
    text = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def entry(start, stop, shape=(2, 2)):
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [start, stop]}


KEY = f"{LAYER}.lora_A.weight"
HOSTILE = {
    "an endless header": lambda p: raw(p, {KEY: entry(0, 16)}, bytes(16), length=2**62),
    "a header past the end": lambda p: raw(p, {KEY: entry(0, 16)}, bytes(16), length=10_000),
    "too little data": lambda p: raw(p, {KEY: entry(0, 16)}, bytes(8)),
    "overlapping tensors": lambda p: raw(p, {KEY: entry(0, 16), f"{LAYER}.lora_B.weight": entry(8, 24)}, bytes(24)),
    "a size that is not its shape's": lambda p: raw(p, {KEY: entry(0, 16, (2, 9))}, bytes(16)),
    "no header at all": lambda p: p.write_bytes(b"no"),
    "nothing": lambda p: None,
    "no tensor": lambda p: save_file({}, p),
    "infinity": lambda p: save_file({KEY: torch.full((2, 2), torch.inf)}, p),
    "whole numbers": lambda p: save_file({KEY: torch.ones(2, 2, dtype=torch.int32)}, p),
    "one factor of two": lambda p: save_file({KEY: torch.ones(2, 32)}, p),
    "factors that do not meet": lambda p: save_file(
        {KEY: torch.ones(2, 32), f"{LAYER}.lora_B.weight": torch.ones(32, 3)}, p
    ),
    "a LoHa": lambda p: save_file({f"{FLAT}.hada_w1_a": torch.ones(2, 2)}, p),
    "a full model": lambda p: save_file({"model.diffusion_model.out.2.weight": torch.ones(2, 2)}, p),
    "an alpha of many numbers": lambda p: save_file(
        {
            f"{FLAT}.lora_down.weight": torch.ones(2, 32),
            f"{FLAT}.lora_up.weight": torch.ones(32, 2),
            f"{FLAT}.alpha": torch.ones(3),
        },
        p,
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_broken_or_hostile_file_is_refused_in_one_sentence(tmp_path, sd, what):
    path = tmp_path / "mine.safetensors"
    HOSTILE[what](path)
    with pytest.raises(PatchError, match=r"mine\.safetensors") as caught:
        read_lora(path, sd)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_file_of_another_kind_a_folder_without_a_lora_and_a_wrong_strength_are_refused(tmp_path, sd):
    with pytest.raises(PatchError, match=r"l\.pt is no LoRA that can be read; give a \.safetensors file"):
        read_lora(tmp_path / "l.pt", sd)
    with pytest.raises(PatchError, match="holds no LoRA; give a folder with adapter_model"):
        read_lora(tmp_path, sd)
    with pytest.raises(InputError, match="A strength of inf cannot be used"):
        read_lora(tmp_path / "l.safetensors", sd, strength=float("inf"))


def test_header_full_of_nonsense_is_passed_over(tmp_path, sd):
    down, up = pair(sd)
    header = {"lora_adapter_metadata": "[" * 100_000, "razor.recipe": '"no table"'}
    save_file({f"{LAYER}.lora_A.weight": down, f"{LAYER}.lora_B.weight": up}, tmp_path / "l.safetensors", header)
    read = read_lora(tmp_path / "l.safetensors", sd)
    assert read.recipe == {} and torch.allclose(read.deltas[Slice(f"{LAYER}.weight")], up @ down)
