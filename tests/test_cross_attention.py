"""Where the words go: against the attention the denoiser itself computes, without changing what it draws."""

from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from diffusers import SD3Transformer2DModel
from tiny_adapters import KINDS, fresh, shared

from razor import cross_attention
from razor.adapters.diffusion import DiffusionAdapter
from razor.cross_attention import END, START, before_after, token_maps, word_shares
from razor.errors import InputError, ModelError
from razor.patches import Patch

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPT = "red cat"
TOKENS = (START, "r", "e", "d", "c", "a", "t", END)
PIECES = ("▁", "r", "e", "d", "▁", "c", "a", "t", END)  # as T5 reads it
OPTIONS = {"steps": 2, "guidance": 3.0}


@pytest.fixture(params=KINDS)
def adapter(request):
    return shared(request.param)


@pytest.fixture(scope="module")
def sd35():
    """A joint transformer that normalises q and k, and whose first block attends to the picture a second time."""
    pipeline = fresh("sd3").pipeline
    config = {k: v for k, v in pipeline.transformer.config.items() if not k.startswith("_")}
    torch.manual_seed(5)
    transformer = SD3Transformer2DModel(**config | {"qk_norm": "rms_norm", "dual_attention_layers": (0,)})
    with torch.no_grad():
        for name, p in transformer.named_parameters():
            if "norm_" in name and p.ndim == 1:
                p.add_(0.5 * torch.randn_like(p))
    pipeline.transformer = transformer.eval()
    return DiffusionAdapter(pipeline, name="tiny sd3.5", steps=2)


def heads(adapter):
    """The units through which the picture reads the words."""
    return adapter.units(("head",), ("context" if adapter.joint else "cross",))


@contextmanager
def overheard(adapter):
    """Yields a list that gets softmax(q k^T / sqrt d) of the denoiser's every attention, (heads, queries, keys)."""
    calls, attend, inside = [], F.scaled_dot_product_attention, []

    def listening(q, k, v, **options):
        if inside:
            calls.append((q[-1] @ k[-1].transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1))
        return attend(q, k, v, **options)

    hooks = [
        adapter.denoiser.register_forward_pre_hook(lambda *_: inside.append(1)),
        adapter.denoiser.register_forward_hook(lambda *_: inside.clear()),
    ]
    F.scaled_dot_product_attention = listening
    try:
        yield calls
    finally:
        F.scaled_dot_product_attention = attend
        for hook in hooks:
            hook.remove()


def slow_maps(adapter, **options):
    """(heads of all blocks, tokens with padding, h, w), steps averaged, from what the denoiser computed."""
    with overheard(adapter) as calls:
        adapter.draw([PROMPT], [3], **options)
    # A UNet's block looks at the picture, then at the words; a joint one at 4 x 4 places and the tokens after them.
    to_words = lambda call: call[:, :16, 16:] if adapter.joint else call  # noqa: E731
    calls = [to_words(call) for i, call in enumerate(calls) if (call.shape[1] > 16 if adapter.joint else i % 2)]
    side = max(call.shape[1] for call in calls) ** 0.5
    blocks = len(calls) // options["steps"]
    found = []
    for block in range(blocks):
        mean = torch.stack(calls[block::blocks]).mean(0)  # over steps
        square = mean.transpose(1, 2).unflatten(2, (int(mean.shape[1] ** 0.5), -1))
        found += F.interpolate(square, (int(side), int(side)), mode="bilinear", align_corners=False)
    return torch.stack(found)


# ---------------------------------------------------------------- the maps


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_each_head_goes_where_the_denoiser_itself_looks(adapter, guidance):
    options = {"steps": 2, "guidance": guidance}
    slow = slow_maps(adapter, **options)
    kept = [*range(8), *range(16, 25)] if adapter.joint else range(8)
    units = heads(adapter)
    assert len(slow) == len(units)
    for unit, expected in zip(units, slow, strict=True):
        found = token_maps(adapter, Patch(), PROMPT, 3, unit=unit, **options)
        square = F.interpolate(found.shares[None], expected.shape[1:], mode="bilinear", align_corners=False)[0]
        assert torch.allclose(square, expected[list(kept)], atol=1e-6), unit.name
    found = token_maps(adapter, Patch(), PROMPT, 3, **options)
    assert torch.allclose(found.shares, slow.mean(0)[list(kept)], atol=1e-6)


def test_both_streams_of_a_joint_head_give_one_map():
    adapter = shared("sd3")
    for unit in adapter.units(("head",), ("self",)):
        twin = next(u for u in heads(adapter) if (u.layer, u.column) == (unit.layer, unit.column))
        found = [token_maps(adapter, Patch(), PROMPT, 3, unit=u, **OPTIONS).shares for u in (unit, twin)]
        assert torch.equal(*found)


def test_normalised_queries_and_keys_are_followed(sd35):
    slow = slow_maps(sd35, **OPTIONS)
    for unit, expected in zip(heads(sd35), slow, strict=True):
        found = token_maps(sd35, Patch(), PROMPT, 3, unit=unit, **OPTIONS)
        assert torch.allclose(found.shares, expected[[*range(8), *range(16, 25)]], atol=1e-6), unit.name


def test_shares_over_all_tokens_sum_to_one_and_to_less_where_places_attend_to_places(adapter):
    seen = {}
    path = "transformer_blocks.0.attn" if adapter.joint else "mid_block.attentions.0.transformer_blocks.0.attn2"
    module = adapter.denoiser.get_submodule(path)
    note = lambda _m, args, kwargs: seen.update(kwargs if not args else {**kwargs, "hidden_states": args[0]})  # noqa: E731
    hook = module.register_forward_pre_hook(note, with_kwargs=True)
    adapter.draw([PROMPT], [3], steps=1, guidance=1.0)
    hook.remove()
    picture, words = seen["hidden_states"][-1], seen["encoder_hidden_states"][-1]
    with torch.no_grad():
        found = list(word_shares(module, picture, words, [0, 1]))
    assert [f.shape for f in found] == [(len(picture), len(words))] * 2
    total = torch.stack(found).sum(2)
    if adapter.joint:
        assert total.max() < 1 and total.min() > 0.8  # 272 tokens against 16 places
    else:
        assert torch.allclose(total, torch.ones_like(total), atol=1e-6)


def test_shares_equal_those_worked_out_by_hand():
    """Two places, three words, two heads of one number each."""
    module = torch.nn.Module()
    module.heads, module.norm_q, module.norm_k = 2, None, None
    module.to_q, module.to_k = torch.nn.Identity(), torch.nn.Identity()
    picture = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    words = torch.log(torch.tensor([[1.0, 1.0], [2.0, 1.0], [3.0, 2.0]]))
    first, second = word_shares(module, picture, words, [0, 1])
    assert first.flatten().tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1 / 14, 4 / 14, 9 / 14])
    assert second.flatten().tolist() == pytest.approx([1 / 4, 1 / 4, 2 / 4, 1 / 3, 1 / 3, 1 / 3])


def test_the_size_of_a_product_changes_no_map(adapter, monkeypatch):
    whole = token_maps(adapter, Patch(), PROMPT, 3, **OPTIONS)
    monkeypatch.setattr(cross_attention, "PLACES", 5)
    assert torch.allclose(token_maps(adapter, Patch(), PROMPT, 3, **OPTIONS).maps, whole.maps, atol=1e-6)


def test_steps_are_averaged_and_can_be_chosen(adapter):
    at = lambda *steps: token_maps(adapter, Patch(), PROMPT, 3, steps=3, guidance=3.0, at=steps)  # noqa: E731
    one, two, three = (at(step).shares for step in (1, 2, 3))
    assert torch.allclose(at(1, 2, 3).shares, (one + two + three) / 3, atol=1e-6)
    assert torch.allclose(at(3, 1).shares, (one + three) / 2, atol=1e-6)
    assert not torch.allclose(one, three, atol=1e-5)
    assert [at(2).steps, at(1, 3).steps, at(1, 2, 3).steps] == [1, 2, 3]
    assert torch.equal(at(1, 2, 3).maps, token_maps(adapter, Patch(), PROMPT, 3, steps=3, guidance=3.0).maps)


def test_the_half_without_the_prompt_does_not_count(adapter):
    guided, plain = (token_maps(adapter, Patch(), PROMPT, 3, steps=1, guidance=g) for g in (9.0, 1.0))
    assert torch.allclose(guided.shares, plain.shares, atol=1e-6)  # the first step starts from the same noise


def test_sums_are_all_that_is_kept(adapter, monkeypatch):
    made = []
    monkeypatch.setattr(
        cross_attention, "_Sums", lambda wanted, kind=cross_attention._Sums: made.append(kind(wanted)) or made[0]
    )
    token_maps(adapter, Patch(), PROMPT, 3, steps=4, guidance=3.0)
    tokens = 16 + 256 * adapter.joint
    assert {places: s.shape for places, s in made[0].found.items()} == (
        {16: (16, tokens)} if adapter.joint else {64: (64, tokens), 16: (16, tokens)}
    )


# ---------------------------------------------------------------- what comes with them


def test_maps_are_for_the_tokens_without_padding_on_one_scale(adapter):
    found = token_maps(adapter, Patch(), PROMPT, 3, **OPTIONS)
    assert found.tokens == (TOKENS + PIECES if adapter.joint else TOKENS)
    side = 4 if adapter.joint else 8
    assert found.maps.shape == (len(found.tokens), side, side) and found.maps.device.type == "cpu"
    words = [i for i, token in enumerate(found.tokens) if token not in (START, END)]
    assert found.maps.min() >= 0 and found.maps[words].max() == 1 == found.maps.max()
    assert 0 < found.peak == found.shares[words].max() < 1 and found.steps == 2
    assert torch.equal(found.maps, (found.shares / found.peak).clamp(max=1))


def test_a_prompt_that_is_too_long_ends_where_the_encoder_does():
    found = token_maps(shared("sd"), Patch(), "abcdefg hijklmn opq", 3, **OPTIONS)
    assert found.tokens == (START, *"abcdefghijklmn", END)


@pytest.mark.parametrize("side", [8, 24])
def test_maps_follow_the_size_of_the_picture(adapter, side):
    found = token_maps(adapter, Patch(), PROMPT, 3, steps=1, guidance=1.0, side=side)
    assert found.picture.size == (side, side) and found.maps.shape[1:] == (side // (4 if adapter.joint else 2),) * 2


def test_the_picture_is_bit_for_bit_the_one_drawn_unwatched(adapter):
    plain = adapter.draw([PROMPT], [3], **OPTIONS)[0].tobytes()
    for unit in (None, heads(adapter)[0]):
        assert token_maps(adapter, Patch(), PROMPT, 3, unit=unit, **OPTIONS).picture.tobytes() == plain


def test_drawing_settings_default_to_the_adapters(adapter):
    found = token_maps(adapter, Patch(), PROMPT, 3)
    assert found.picture.tobytes() == adapter.draw([PROMPT], [3])[0].tobytes() and found.steps == adapter.steps


# ---------------------------------------------------------------- before and after


def stronger(adapter, unit, scale=3.0):
    """A patch that scales a head's weights."""
    parameters = dict(adapter.model.named_parameters())
    return Patch({s: scale * s.view(parameters[s.parameter]).detach().clone() for s in unit.slices})


def test_before_and_after_share_noise_and_scale(adapter, weights_of, same_weights):
    weights, unit = weights_of(adapter.model), heads(adapter)[0]
    patch = stronger(adapter, unit)
    before, after = before_after(adapter, patch, PROMPT, 3, unit=unit, **OPTIONS)
    assert same_weights(adapter.model, weights)
    assert before.peak == after.peak and max(before.maps.max(), after.maps.max()) == 1
    assert not torch.allclose(before.maps, after.maps, atol=1e-3)
    assert before.picture.tobytes() == adapter.draw([PROMPT], [3], **OPTIONS)[0].tobytes()
    with patch.applied(adapter.model):
        assert after.picture.tobytes() == adapter.draw([PROMPT], [3], **OPTIONS)[0].tobytes()
    alone = token_maps(adapter, patch, PROMPT, 3, unit=unit, **OPTIONS)
    assert torch.equal(after.shares, alone.shares)


def test_an_empty_edit_changes_no_map(adapter):
    before, after = before_after(adapter, Patch(), PROMPT, 3, **OPTIONS)
    assert torch.equal(before.maps, after.maps) and before.picture.tobytes() == after.picture.tobytes()


def test_stopping_gives_nothing(adapter):
    calls = []
    stop = lambda: calls.append(1) or len(calls) == 3  # noqa: E731
    assert before_after(adapter, Patch(), PROMPT, 3, stop=stop, **OPTIONS) is None and len(calls) == 3
    assert token_maps(adapter, Patch(), PROMPT, 3, stop=lambda: True, **OPTIONS) is None
    assert hooks_of(adapter) == 0


# ---------------------------------------------------------------- hooks


def hooks_of(adapter):
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in adapter.denoiser.modules())


def test_no_hook_stays_whatever_happens(adapter, monkeypatch, weights_of, same_weights):
    weights, patch = weights_of(adapter.model), stronger(adapter, heads(adapter)[0])
    token_maps(adapter, patch, PROMPT, 3, **OPTIONS)
    assert hooks_of(adapter) == 0

    def broken(*_, **__):
        raise RuntimeError("broken")

    monkeypatch.setattr(adapter.pipeline.vae, "decode", broken)
    with pytest.raises(RuntimeError, match="broken"):
        token_maps(adapter, patch, PROMPT, 3, **OPTIONS)
    monkeypatch.undo()
    monkeypatch.setattr(cross_attention, "word_shares", broken)
    with pytest.raises(RuntimeError, match="broken"):
        token_maps(adapter, patch, PROMPT, 3, **OPTIONS)
    assert hooks_of(adapter) == 0 and same_weights(adapter.model, weights)


# ---------------------------------------------------------------- what is refused


def test_units_that_are_no_heads_of_the_denoiser_are_refused(adapter):
    tower = "context" if adapter.joint else "cross"
    for unit in (adapter.units(("head",), ("text",))[0], adapter.units(("mlp",), ("self",))[0]):
        with pytest.raises(InputError) as caught:
            token_maps(adapter, Patch(), PROMPT, 3, unit=unit)
        assert str(caught.value) == f"{unit.name!r} is no head of the denoiser; choose one of tower {tower!r}."


@pytest.mark.parametrize("kind", ["sd", "sd3.5"])
def test_heads_that_look_at_the_picture_alone_are_refused(kind, sd35):
    adapter = sd35 if kind == "sd3.5" else shared(kind)
    unit = next(u for u in adapter.units(("head",), ("self",)) if ".attn." not in u.slices[0].parameter)
    with pytest.raises(ModelError) as caught:
        token_maps(adapter, Patch(), PROMPT, 3, unit=unit)
    assert str(caught.value) == (
        f"{unit.name!r} looks from the picture at the picture and reads no words; choose a head of tower "
        f"{'context' if adapter.joint else 'cross'!r}."
    )


@pytest.mark.parametrize("at", [(), (0,), (3,), (1, 4)])
def test_steps_that_are_not_drawn_are_refused(at):
    with pytest.raises(InputError) as caught:
        token_maps(shared("sd"), Patch(), PROMPT, 3, at=at, **OPTIONS)
    assert str(caught.value) == f"The steps to look at are {list(at)}; name some of 1 to 2."


def test_what_cannot_be_drawn_is_refused_before_anything_runs():
    with pytest.raises(InputError, match=r"^A prompt is empty"):
        token_maps(shared("sd"), Patch(), " ", 3)
