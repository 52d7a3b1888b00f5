"""Texts read without their padding: the model's own embeddings, and towers that look at the padding are left alone."""

import open_clip
import pytest
import torch
from tiny_clips import END, tokenize

from razor.adapters.short_texts import encoder_of

TEXTS = ["a red on the left", "a blue", "the white on a green on the"]


def places_run(model, encode, tokens):
    """How many places the first block sees."""
    seen = []
    tower = getattr(model, "text", model)
    handle = tower.transformer.resblocks[0].register_forward_pre_hook(lambda _m, args: seen.append(args[0].shape[1]))
    with torch.no_grad():
        encode(tokens)
    handle.remove()
    return seen


def custom(**text):
    """The same towers, the text tower as a module of its own."""
    torch.manual_seed(0)
    vision_cfg = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
    text_cfg = {"context_length": 8, "vocab_size": 32, "width": 32, "heads": 2, "layers": 2, "eos_id": END}
    return open_clip.CustomTextCLIP(embed_dim=32, vision_cfg=vision_cfg, text_cfg=text_cfg | text).eval()


@pytest.fixture(params=["argmax", "eos", "own module", "own module, eos"])
def model(request, make_clip):
    pool = {"pool_type": "eos"} if "eos" in request.param else {}
    return custom(**pool) if "own" in request.param else make_clip(text={"eos_id": END, **pool})


def test_embeddings_are_the_models_own(model):
    encode = encoder_of(model)
    with torch.no_grad():
        assert torch.allclose(encode(tokenize(TEXTS)), model.encode_text(tokenize(TEXTS)), atol=1e-6)
        assert encode(tokenize(TEXTS), normalize=True).norm(dim=1).allclose(torch.ones(3))


def test_gradients_are_the_models_own(model):
    weight = getattr(model, "text", model).transformer.resblocks[0].attn.in_proj_weight
    short, full = (
        torch.autograd.grad(encode(tokenize(TEXTS)).square().mean(), [weight])[0]
        for encode in (encoder_of(model), model.encode_text)
    )
    assert full.abs().max() > 0 and torch.allclose(short, full, atol=1e-6)


def test_places_behind_the_longest_text_are_not_run(model):
    encode = encoder_of(model)
    assert places_run(model, encode, tokenize(["a blue"])) == [3]
    assert places_run(model, encode, tokenize(TEXTS)) == [8]
    assert places_run(model, model.encode_text, tokenize(["a blue"])) == [8]  # whoever runs the model itself


def test_a_text_that_fails_leaves_the_model_to_others_as_it_was(model):
    encode = encoder_of(model)
    with pytest.raises(IndexError):
        encode(torch.tensor([[1, 99, END, 0, 0, 0, 0, 0]]))  # no such word
    assert places_run(model, model.encode_text, tokenize(["a blue"])) == [8]


@pytest.mark.parametrize(
    "text",
    [
        {"pool_type": "last"},
        {"pool_type": "first", "no_causal_mask": True},
        {"no_causal_mask": True},
        {"embed_cls": True},
    ],
    ids=lambda text: " ".join(text),
)
def test_a_tower_that_may_look_at_the_padding_runs_in_full(text):
    model = custom(**text)
    encode = encoder_of(model)
    with torch.no_grad():
        assert torch.equal(encode(tokenize(["a blue"])), model.encode_text(tokenize(["a blue"])))
    assert places_run(model, encode, tokenize(["a blue"]))[0] >= 8
