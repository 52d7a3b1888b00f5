"""A head's attention equals what torch computes, and is refused where it would be a guess."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from razor.attention import attention
from razor.errors import InputError, ModelError


def named(adapter, name):
    return next(u for u in adapter.units(("head", "mlp", "layer")) if u.name == name)


def torch_weights(adapter, path, encode):
    """(heads, queries, keys) that F.multi_head_attention_forward gives for the module's own call."""
    module, calls = adapter.model.get_submodule(path), []
    handle = module.register_forward_pre_hook(lambda _m, a, k: calls.append((a, k)), with_kwargs=True)
    with torch.no_grad():
        encode()
    handle.remove()
    (q, k, v), options = calls[0][0], calls[0][1] | {"need_weights": True, "average_attn_weights": False}
    with torch.no_grad():
        return nn.MultiheadAttention.forward(module, q, k, v, **options)[1][0]


@pytest.mark.parametrize("layer, head", [(0, 0), (0, 1), (1, 1)])
def test_a_heads_look_at_a_picture_equals_torchs(trained, task, layer, head):
    picture = task.forget.search[0].image
    found = attention(trained, named(trained, f"image.{layer}.head.{head}"), picture)
    path = f"visual.transformer.resblocks.{layer}.attn"
    weights = torch_weights(trained, path, lambda: trained.model.encode_image(trained.pixels([picture])))
    assert found.weights.shape == (2, 2) and found.reader == "class token" and found.tokens == ()
    assert torch.allclose(found.weights.flatten(), weights[head, 0, 1:], atol=1e-6)


@pytest.mark.parametrize("layer, head", [(0, 0), (1, 1)])
def test_a_heads_look_at_a_prompt_equals_torchs_and_ends_at_the_token_read_out(trained, tokenize, layer, head):
    found = attention(trained, named(trained, f"text.{layer}.head.{head}"), "a red on the left")
    path, ids = f"transformer.resblocks.{layer}.attn", tokenize(["a red on the left"])
    weights = torch_weights(trained, path, lambda: trained.model.encode_text(ids))
    assert torch.allclose(found.weights, weights[head, 5, :6], atol=1e-6)
    assert found.weights.sum().item() == pytest.approx(1)
    assert found.tokens == ("1", "4", "2", "3", "10", "31") and found.reader == "31"


def test_tokens_are_words_where_the_tokenizer_can_tell(trained, monkeypatch):
    class Speaking:
        def __call__(self, texts):
            return self.tokenize(texts)

        def decode(self, ids):
            return f"<{ids[0]}> "

    speaking = Speaking()
    speaking.tokenize = trained.tokenizer
    monkeypatch.setattr(trained, "tokenizer", speaking)
    assert attention(trained, named(trained, "text.0.head.0"), "a red").tokens == ("<1>", "<4>", "<31>")


def test_a_tower_that_averages_its_patches_looks_from_all_of_them(make_clip, wrap, task):
    options = {"timm_model_name": "vit_tiny_patch16_224", "timm_model_pretrained": False, "timm_pool": "avg"}
    adapter = wrap(make_clip(vision=options))
    small = adapter.preprocess
    adapter.preprocess = lambda image: F.interpolate(small(image)[None], 224)[0]
    found = attention(adapter, named(adapter, "image.0.head.0"), task.forget.search[0].image)
    assert found.weights.shape == (14, 14) and found.reader == "mean over patches"


@pytest.mark.parametrize("options", [{"scale_attn": True}, {"block_type": "custom"}])
def test_custom_attention_that_adds_nothing_is_explained(make_clip, wrap, task, options):
    adapter = wrap(make_clip(vision=options, text=options))
    assert attention(adapter, named(adapter, "image.1.head.0"), task.forget.search[0].image).weights.sum() < 1
    assert attention(adapter, named(adapter, "text.1.head.0"), "a red").weights.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("options", [{"qk_norm": True}, {"scale_attn_inner": True}])
def test_attention_that_is_more_than_q_and_k_is_refused(make_clip, wrap, task, options):
    adapter = wrap(make_clip(vision=options, text=options))
    for name, given in (("image.1.head.0", task.forget.search[0].image), ("text.0.head.1", "a red")):
        with pytest.raises(ModelError, match=r"^The attention of '\S+' is not softmax\(q k\^T\) of its weights alone"):
            attention(adapter, named(adapter, name), given)


def test_only_heads_look_and_each_tower_at_its_own(trained, task):
    picture = task.forget.search[0].image
    assert attention(trained, named(trained, "image.0.mlp"), picture) is None
    assert attention(trained, named(trained, "text.1.layer"), "a red") is None
    with pytest.raises(InputError, match=r"^'image.0.head.0' reads pictures; give it one"):
        attention(trained, named(trained, "image.0.head.0"), "a red")
    with pytest.raises(InputError, match=r"^'text.0.head.0' reads text; give it one"):
        attention(trained, named(trained, "text.0.head.0"), picture)


def test_looking_leaves_no_hook(trained, task):
    hooks = lambda: [(*m._forward_hooks, *m._forward_pre_hooks) for m in trained.model.modules()]  # noqa: E731
    before = hooks()
    attention(trained, named(trained, "image.0.head.0"), task.forget.search[0].image)
    assert hooks() == before
