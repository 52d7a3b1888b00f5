"""Starting from a late block gives the full forward's bits in every family, and falls back where it would not."""

import weakref
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, RobertaConfig, RobertaModel, T5Config, T5EncoderModel

from razor import replay
from razor.patches import Patch
from razor.replay import PrefixCache, block_paths, earliest_blocks
from razor.step import edited_towers, evaluate
from razor.units import Slice, find_units

IMAGE = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
IDS = torch.randint(1, 31, (2, 8), generator=torch.Generator().manual_seed(0))
SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
VIT = {"img_size": 32, "patch_size": 16, "embed_dim": 32, "depth": 3, "num_heads": 2, "num_classes": 0}


def tower(model, forward):
    """An adapter of one tower around any network, and how to run it."""
    adapter = SimpleNamespace(
        model=model.eval(),
        towers={"image": ""},
        units=lambda kinds, towers: find_units(model, {"image": ""}, kinds),
        tower_of=lambda parameter: "image",
    )
    return adapter, {"image": forward}


def clip(**options):
    def build(make_clip, wrap):
        model = make_clip(vision={"layers": 3} | options, text={"layers": 3} | options)
        encode = {"image": lambda: model.encode_image(IMAGE), "text": lambda: model.encode_text(IDS)}
        return wrap(model), encode

    return build


def timm_trunk(make_clip, wrap):
    model = make_clip(vision={"timm_model_name": "test_vit", "timm_model_pretrained": False, "timm_pool": "token"})
    picture = F.interpolate(IMAGE, 160)
    return wrap(model), {"image": lambda: model.encode_image(picture), "text": lambda: model.encode_text(IDS)}


def bare(build, forward):
    return lambda make_clip, wrap: tower(model := build(), lambda: forward(model))


def hf_text():
    return RobertaModel(RobertaConfig(vocab_size=64, max_position_embeddings=40, **SIZES))


LAYOUTS = {
    "open_clip": clip(),
    "open_clip custom attention": clip(scale_attn=True, scale_fc=True),
    "open_clip qk norm": clip(qk_norm=True, scale_heads=True),
    "open_clip inner norm": clip(scale_attn_inner=True),
    "timm trunk": timm_trunk,
    "timm map pool": bare(lambda: VisionTransformer(**VIT, global_pool="map", class_token=False), lambda m: m(IMAGE)),
    "timm EVA": bare(lambda: Eva(**VIT), lambda m: m(IMAGE)),
    "HF vision": bare(
        lambda: CLIPVisionModel(CLIPVisionConfig(image_size=32, patch_size=16, **SIZES)),
        lambda m: m(IMAGE).pooler_output,
    ),
    "HF text": bare(hf_text, lambda m: m(IDS).last_hidden_state),
}


def heads_of(adapter, tower, layer):
    """Noise on every head of one layer."""
    parameters = dict(adapter.model.named_parameters())
    slices = [s for u in adapter.units(("head",), (tower,)) if (u.tower, u.layer) == (tower, layer) for s in u.slices]
    generator = torch.Generator().manual_seed(layer)
    shapes = {s: s.view(parameters[s.parameter]).shape for s in slices}
    return Patch({s: 0.3 * torch.randn(shape, generator=generator) for s, shape in shapes.items()})


def counting(blocks):
    """How often each block really ran: calls of the first norm inside it."""
    runs = [0] * len(blocks)

    def count(i):
        runs[i] += 1

    for i, block in enumerate(blocks):
        norm = next(m for m in block.modules() if isinstance(m, nn.LayerNorm))
        norm.register_forward_hook(lambda *_, i=i: count(i))
    return runs


@pytest.fixture(params=LAYOUTS)
def layout(request, make_clip, wrap):
    torch.manual_seed(0)
    return LAYOUTS[request.param](make_clip, wrap)


# ---------------------------------------------------------------- the bits


def test_any_edit_at_or_after_the_block_gives_the_bits_of_the_full_forward(layout):
    adapter, encode = layout
    cache = PrefixCache(adapter)
    for name, forward in encode.items():
        last = len(cache.blocks[name]) - 1
        for first in range(1, last + 1):
            with torch.no_grad():
                plain = forward()
            assert torch.equal(cache.run(name, first, "batch", forward), plain)
            for layer in (first, last):
                with heads_of(adapter, name, layer).applied(adapter.model), torch.no_grad():
                    full = forward()
                    assert not torch.equal(full, plain)
                    assert torch.equal(cache.run(name, first, "batch", forward), full)
            assert cache._works[name, first]


def test_blocks_before_the_edit_are_run_once_and_never_again(layout):
    adapter, encode = layout
    cache = PrefixCache(adapter)
    for name, forward in encode.items():
        runs = counting(cache.blocks[name])
        cache.run(name, 1, "batch", forward)
        assert runs[:2] == [1, 2]  # the first time, the replay is tried out at once
        cache.run(name, 1, "batch", forward)
        assert runs[:2] == [1, 3]


def test_a_later_block_is_recorded_from_an_earlier_record(make_clip, wrap):
    adapter, encode = clip()(make_clip, wrap)
    cache = PrefixCache(adapter)
    cache.run("image", 1, "batch", encode["image"])
    runs = counting(cache.blocks["image"])
    assert torch.equal(cache.run("image", 2, "batch", encode["image"]), encode["image"]())
    assert runs[0] == 1  # by the full forward of the comparison alone


def test_two_batches_do_not_mix(make_clip, wrap):
    adapter, _ = clip()(make_clip, wrap)
    cache, model = PrefixCache(adapter), adapter.model
    for _ in range(2):
        for scale in (1.0, 2.0):
            forward = partial(model.encode_image, IMAGE * scale)
            assert torch.equal(cache.run("image", 2, scale, forward), forward())


# ---------------------------------------------------------------- towers that are not understood


class Shared(nn.Module):
    """A tower whose two blocks are run in turn, twice: the state at a block depends on the blocks after it."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True) for _ in range(2))

    def forward(self, x):
        for block in (*self.blocks, *self.blocks):
            x = block(x)
        return x


def swin():
    return SwinTransformer(img_size=32, patch_size=4, embed_dim=16, depths=(1, 1), num_heads=(2, 2), window_size=4)


@pytest.mark.parametrize(
    "build, forward",
    [
        (Shared, lambda m: m(IMAGE[:, 0, :, :8])),
        (swin, lambda m: m(IMAGE)),
        (
            lambda: T5EncoderModel(T5Config(vocab_size=64, d_model=32, d_kv=16, d_ff=64, num_layers=3, num_heads=2)),
            lambda m: m(IDS).last_hidden_state,
        ),
    ],
    ids=["blocks run twice", "a pyramid", "a bias made by the first block"],
)
def test_other_towers_are_right_all_the_same(build, forward):
    torch.manual_seed(0)
    model = build()
    adapter, _ = tower(model, forward)
    cache = PrefixCache(adapter)
    for first in range(len(cache.blocks["image"])):
        with heads_of(adapter, "image", first).applied(model), torch.no_grad():
            for _ in range(2):
                assert torch.equal(cache.run("image", first, "batch", lambda: forward(model)), forward(model))


def test_blocks_that_are_run_twice_are_never_cached():
    model = Shared()
    adapter, encode = tower(model, lambda: model(IMAGE[:, 0, :, :8]))
    cache = PrefixCache(adapter)
    cache.run("image", 1, "batch", encode["image"])
    assert cache._works == {("image", 1): False} and cache.bytes == 0


# ---------------------------------------------------------------- memory


def test_memory_stays_under_the_limit_and_the_oldest_record_goes_first(make_clip, wrap):
    adapter, encode = clip()(make_clip, wrap)
    one = 2 * 5 * 32 * 4  # pictures x tokens x width x bytes
    cache = PrefixCache(adapter, limit=2 * one)
    for batch in "abac":
        cache.run("image", 2, batch, encode["image"])
    assert cache.bytes == 2 * one
    assert [batch for _, _, batch in cache._entries] == ["a", "c"]


def test_caches_of_a_process_share_one_limit_and_the_one_used_longest_ago_makes_room(make_clip, wrap, monkeypatch):
    monkeypatch.setattr(replay, "_CACHES", weakref.WeakSet())  # those of other tests have no part in it
    adapter, encode = clip()(make_clip, wrap)
    caches = [PrefixCache(adapter) for _ in range(3)]
    for cache, batches in zip(caches, ("ab", "cd", ""), strict=True):
        for batch in batches:
            cache.run("image", 2, batch, encode["image"])
    monkeypatch.setattr(replay, "TOGETHER", sum(cache.bytes for cache in caches))
    caches[0].run("image", 2, "a", encode["image"])  # now the second was used longest ago
    caches[2].run("image", 2, "e", encode["image"])
    assert [[batch for _, _, batch in cache._entries] for cache in caches] == [["b", "a"], ["d"], ["e"]]
    assert torch.equal(caches[1].run("image", 2, "c", encode["image"]), encode["image"]())


def test_a_record_larger_than_the_limit_is_not_kept(make_clip, wrap):
    adapter, encode = clip()(make_clip, wrap)
    cache = PrefixCache(adapter, limit=100)
    assert torch.equal(cache.run("image", 2, "batch", encode["image"]), encode["image"]())
    assert cache.bytes == 0


# ---------------------------------------------------------------- the model is left as found


def traces(model):
    """What a model's modules carry besides what they are made of."""
    return [("forward" in vars(m), *m._forward_hooks, *m._forward_pre_hooks) for m in model.modules()]


def test_a_forward_that_raises_leaves_no_trace(make_clip, wrap):
    adapter, encode = clip()(make_clip, wrap)
    cache, model = PrefixCache(adapter), adapter.model
    before = traces(model)

    def broken():
        encode["image"]()
        raise ZeroDivisionError("its own error")

    for known in (False, True):
        if known:
            cache.run("image", 2, "batch", encode["image"])
        with pytest.raises(ZeroDivisionError, match="its own error"):
            cache.run("image", 2, "batch", broken)
        assert traces(model) == before


def test_a_forward_a_block_was_given_is_put_back(make_clip, wrap):
    adapter, encode = clip()(make_clip, wrap)
    block = adapter.model.visual.transformer.resblocks[0]
    own = block.forward
    block.forward = own
    cache = PrefixCache(adapter)
    for _ in range(2):
        cache.run("image", 1, "batch", encode["image"])
    assert vars(block)["forward"] is own


def test_weights_are_left_as_found(layout, weights_of, same_weights):
    adapter, encode = layout
    before, traced, cache = weights_of(adapter.model), traces(adapter.model), PrefixCache(adapter)
    for name, forward in encode.items():
        for _ in range(2):
            cache.run(name, 1, "batch", forward)
    assert same_weights(adapter.model, before) and traces(adapter.model) == traced


# ---------------------------------------------------------------- which block is the first


def test_blocks_are_the_rows_of_the_map(trained):
    assert block_paths(trained) == {
        "image": ("visual.transformer.resblocks.0", "visual.transformer.resblocks.1"),
        "text": ("transformer.resblocks.0", "transformer.resblocks.1"),
    }


@pytest.mark.parametrize(
    "parameters, first",
    [
        ([], {}),
        (["visual.transformer.resblocks.1.attn.in_proj_weight"], {"image": 1}),
        (
            ["visual.transformer.resblocks.1.ln_1.bias", "transformer.resblocks.1.ln_1.bias"],
            dict(image=1, text=1),
        ),
        (["transformer.resblocks.1.ln_1.bias", "transformer.resblocks.0.ln_1.bias"], {"text": 0}),
        (["transformer.resblocks.1.ln_1.bias", "token_embedding.weight"], {"text": 0}),
        (["visual.proj"], {"image": 0}),
    ],
)
def test_the_earliest_edited_block_of_each_tower_is_found(trained, parameters, first):
    assert earliest_blocks(trained, Patch({Slice(name): torch.zeros(1) for name in parameters})) == first


# ---------------------------------------------------------------- in an evaluation


@pytest.mark.parametrize("name", ["image", "text"])
def test_an_evaluation_from_a_late_block_counts_the_same(trained, task, name):
    bench = trained.bench(task)
    base = evaluate(trained, bench, Patch(), "search")
    patch = heads_of(trained, name, 1)
    with patch.applied(trained.model):
        full = bench.evaluate("search", edited_towers(trained, patch))
        for _ in range(2):
            assert bench.evaluate("search", (name,), earliest_blocks(trained, patch)) == full
    assert full != base and bench._prefixes.bytes > 0
    assert bench._prefixes._works == {(name, 1): True}
