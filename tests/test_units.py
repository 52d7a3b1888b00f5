"""Heads are found by structure: they partition their parameters, and zeroing one removes exactly that head."""

import pytest
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, RobertaConfig, RobertaModel

from razor.errors import ModelError
from razor.units import Slice, Unit, find_attention, find_units, parameters_of

IMAGE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Call(nn.Module):
    """A network under the name `net`, called the same way whatever it is."""

    def __init__(self, net, call):
        super().__init__()
        self.net, self.call = net, call

    def forward(self):
        return self.call(self.net)


def towers(make_clip, **changes):
    """Both towers of a tiny CLIP."""
    ids = torch.randint(1, 31, (2, 8), generator=torch.Generator().manual_seed(0))
    return Call(make_clip(**changes), lambda m: torch.cat([m.encode_image(IMAGE), m.encode_text(ids)]))


def custom(**options):
    return lambda make_clip: towers(make_clip, vision=options, text=options)


def timm_tower(make_clip):
    model = make_clip(vision={"timm_model_name": "test_vit", "timm_model_pretrained": False, "timm_pool": "token"})
    return Call(model.visual, lambda m: m(torch.nn.functional.interpolate(IMAGE, 160)))


def map_pooled(make_clip):
    sizes = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}
    net = VisionTransformer(**sizes, global_pool="map", class_token=False, num_classes=0)
    return Call(net, lambda m: m(IMAGE))


def eva(make_clip):
    sizes = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}
    return Call(Eva(**sizes, qkv_fused=True, num_classes=0), lambda m: m(IMAGE))


def roberta(make_clip):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    net = RobertaModel(RobertaConfig(vocab_size=64, max_position_embeddings=40, **sizes))
    return Call(net, lambda m: m(torch.arange(2, 14).reshape(2, 6)).last_hidden_state)


def hf_clip(make_clip):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    net = CLIPVisionModel(CLIPVisionConfig(image_size=32, patch_size=16, **sizes))
    return Call(net, lambda m: m(IMAGE).last_hidden_state)


def other_widths(make_clip):
    """nn.MultiheadAttention whose keys and values have widths of their own."""
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))
    net = nn.MultiheadAttention(32, 2, kdim=24, vdim=20, batch_first=True)
    return Call(net, lambda m: m(x, x[..., :24], x[..., :20])[0])


MODELS = {
    "open_clip": towers,
    "open_clip qk_norm": custom(qk_norm=True),
    "open_clip scale_heads": custom(scale_heads=True),
    "open_clip attentional pool": lambda m: towers(m, vision={"attentional_pool": True, "attn_pooler_heads": 2}),
    "timm ViT": timm_tower,
    "timm map pooling": map_pooled,
    "timm EVA": eva,
    "HF RoBERTa": roberta,
    "HF CLIP": hf_clip,
    "kdim and vdim": other_widths,
}


@pytest.fixture(params=MODELS)
def model(request, make_clip):
    """A model with no weight, bias or norm left at a value that would hide a mistake."""
    torch.manual_seed(0)
    model = MODELS[request.param](make_clip).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model


def heads_of(model):
    return find_units(model, {"all": ""}, ("head",))


def with_zeros(model, slices):
    """The model's output with these slices at zero; weights are put back."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        kept = {name: parameters[name].clone() for name in {s.parameter for s in slices}}
        for part in slices:
            part.view(parameters[part.parameter]).zero_()
        out = model()
        for name, value in kept.items():
            parameters[name].copy_(value)
    return out


def value_rows(unit):
    """Where v is among a head's slices: q, k, v, their biases if any, output columns."""
    return [unit.slices[2], *([unit.slices[-2]] if len(unit.slices) > 4 else [])]


# ---------------------------------------------------------------- heads, whatever the model


def test_heads_partition_their_parameters(model):
    parameters = dict(model.named_parameters())
    heads = heads_of(model)
    owners = {name: torch.zeros_like(parameters[name]) for name in parameters_of(heads)}
    for unit in heads:
        for view in unit.views(owners):
            view += 1
    assert all((count == 1).all() for count in owners.values())
    assert sum(unit.size(parameters) for unit in heads) == sum(count.numel() for count in owners.values())


def test_zeroing_the_output_columns_of_a_head_equals_zeroing_its_value_rows(model):
    before = model()
    for unit in heads_of(model):
        assert unit.exact
        by_columns, by_values = with_zeros(model, unit.slices[-1:]), with_zeros(model, value_rows(unit))
        assert (by_columns - by_values).abs().max() <= 1e-6
        assert (by_columns - before).abs().max() > 1e-4


def test_columns_one_off_are_not_the_same_head(model):
    for unit in heads_of(model):
        out = unit.slices[-1]
        step = 1 if unit.column % 2 == 0 else -1
        shifted = Slice(out.parameter, out.dim, out.start + step, out.stop + step)
        assert (with_zeros(model, [shifted]) - with_zeros(model, value_rows(unit))).abs().max() > 1e-4


def test_a_zeroed_head_ignores_its_queries_and_keys(model):
    unit = heads_of(model)[0]
    alone, all_of_it = with_zeros(model, unit.slices[-1:]), with_zeros(model, unit.slices)
    assert (alone - all_of_it).abs().max() <= 1e-6


# ---------------------------------------------------------------- particular models


@pytest.mark.parametrize(
    "name, layers, heads",
    [("open_clip", 4, 2), ("timm ViT", 6, 2), ("timm map pooling", 3, 2), ("HF RoBERTa", 2, 2), ("timm EVA", 2, 2)],
)
def test_every_block_gives_its_heads(make_clip, name, layers, heads):
    units = heads_of(MODELS[name](make_clip))
    assert [(unit.layer, unit.column) for unit in units] == [(i, h) for i in range(layers) for h in range(heads)]


def test_fused_attention_gives_the_rows_worked_out_by_hand(clip):
    unit = find_units(clip, {"image": "visual.", "text": ""})[1]
    path = "visual.transformer.resblocks.0.attn."
    assert unit.name == "image.0.head.1"
    assert unit.slices == (
        *(Slice(path + "in_proj_weight", 0, start, start + 16) for start in (16, 48, 80)),
        *(Slice(path + "in_proj_bias", 0, start, start + 16) for start in (16, 48, 80)),
        Slice(path + "out_proj.weight", 1, 16, 32),
    )


def test_a_norm_between_heads_and_output_makes_them_inexact(make_clip):
    mixed = make_clip(vision={"scale_attn_inner": True})
    eva02 = Eva(img_size=32, embed_dim=32, depth=2, num_heads=2, qkv_fused=False, scale_attn_inner=True)
    for model in (mixed.visual, eva02):
        assert [attention.exact for attention in find_attention(model)] == [False, False]
    assert all(attention.exact for attention in find_attention(mixed.transformer))


def test_grouped_key_and_value_heads_are_not_taken_for_plain_ones():
    class Grouped(nn.Module):
        num_heads = 4

        def __init__(self):
            super().__init__()
            self.q_proj, self.o_proj = nn.Linear(32, 32), nn.Linear(32, 32)
            self.k_proj, self.v_proj = nn.Linear(32, 16), nn.Linear(32, 16)

    assert find_attention(Grouped()) == []


# ---------------------------------------------------------------- MLPs, layers, reading


def test_heads_and_mlps_share_no_parameter_and_a_layer_holds_both(clip):
    units = find_units(clip, {"image": "visual.", "text": ""}, ("head", "mlp", "layer"))
    of = {kind: {p for u in units if u.kind == kind for p in parameters_of([u])} for kind in ("head", "mlp", "layer")}
    assert len(of["mlp"]) == 2 * 4 and not of["head"] & of["mlp"]
    matrices = {name for name in of["head"] if not name.endswith("bias")}
    assert matrices | of["mlp"] == of["layer"]


def test_the_first_tower_that_fits_wins(clip):
    units = find_units(clip, {"image": "visual.", "text": ""}, ("layer",))
    assert [unit.name for unit in units] == ["image.0.layer", "image.1.layer", "text.0.layer", "text.1.layer"]


def test_a_unit_reads_its_numbers_in_order_and_writes_through_its_views():
    weight = torch.arange(6.0).reshape(2, 3)
    unit = Unit("u", "head", "image", 0, 0, (Slice("w", 0, 1, 2), Slice("w", 1, 0, 1)))
    assert unit.read({"w": weight}).tolist() == [3, 4, 5, 0, 3]
    assert unit.size({"w": weight}) == 5
    unit.views({"w": weight})[0].zero_()
    assert weight.tolist() == [[0, 1, 2], [0, 0, 0]]


# ---------------------------------------------------------------- towers without heads


def test_a_resnet_tower_is_refused(make_clip, wrap):
    model = make_clip(vision={"layers": [1, 1, 1, 1], "width": 8})
    with pytest.raises(ModelError, match=r"^The image tower of 'tiny' \(ModifiedResNet\) has no attention heads"):
        wrap(model)


@pytest.mark.parametrize("pooling", ["avg", "abs_attn"])
def test_a_convnext_tower_is_refused_with_or_without_attention_pooling(make_clip, wrap, pooling):
    projection = "linear" if pooling == "avg" else ""
    options = {"timm_model_name": "test_convnext", "timm_pool": pooling, "timm_proj": projection}
    with pytest.raises(ModelError, match=r"choose a CLIP with (a vision transformer|transformer towers)") as caught:
        wrap(make_clip(vision=options))
    assert "\n" not in str(caught.value)
