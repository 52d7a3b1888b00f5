"""Of models that answer: where in a picture a name comes from, what a head looks at, and what it is answerable for."""

from functools import cache

import pytest
import tiny_vlms
import torch
import torch.nn.functional as F
from PIL import Image
from tiny_vlms import KINDS

from razor import answer_attribution as module
from razor import attribution
from razor.adapters.questions import Questions
from razor.adapters.vlm import VlmAdapter
from razor.answer_attribution import answer_attribution
from razor.attention import attention
from razor.attribution import explain_head, head_gates, overlay
from razor.errors import InputError, ModelError
from razor.examples import Axis, Split, Task
from razor.patches import Patch
from razor.step import edited, evaluate

pytestmark = pytest.mark.usefixtures("one_thread")

ASK = "Which colour is the square?"
QUESTIONS = Questions(
    ask=lambda axis: ASK,
    answer=lambda axis, name: f"{name} left",  # of several tokens
    neutral=lambda labels, axis: ["Is there a square?"],
)
WIDE = Image.effect_noise((48, 32), 90).convert("RGB")
FLAT = Image.new("RGB", (48, 32), (200, 40, 40))
FLAT.paste((40, 60, 220), (20, 0, 48, 20))
UNITS = ("image.1.head.0", "image.2.head.1", "language.0.head.1", "language.1.head.2")


def fresh(kind):
    """An adapter whose answers depend on the picture: random weights, large ones."""
    adapter = VlmAdapter(*tiny_vlms.tiny(kind), name=f"tiny {kind}", questions=QUESTIONS)
    with torch.no_grad():
        for p in adapter.model.parameters():
            p.mul_(4) if p.ndim > 1 else p.add_(0.1 * torch.randn_like(p))
    return adapter


shared = cache(fresh)  # leave them as found


@pytest.fixture(params=KINDS)
def adapter(request):
    return shared(request.param)


@pytest.fixture(scope="module")
def bench_of(make_task):
    """adapter -> its bench on a small task: forget red."""
    made = make_task(each=1)
    keep = lambda split: tuple(e for e in split if e.labels["colour"] in ("red", "green", "blue"))  # noqa: E731
    parts = {s: Split(*map(keep, vars(getattr(made, s)).values())) for s in ("forget", "retain")}
    task = Task("red", "colour", (Axis("colour", {n: (n,) for n in ("red", "green", "blue")}),), ("green",), **parts)
    return cache(lambda adapter: adapter.bench(task))


def named(adapter, name):
    return next(u for u in adapter.units(("head", "mlp", "layer")) if u.name == name)


def noise(adapter, name, scale=0.3):
    """Random deltas on one unit."""
    parameters = dict(adapter.model.named_parameters())
    generator = torch.Generator().manual_seed(0)
    shapes = {s: s.view(parameters[s.parameter]).shape for s in named(adapter, name).slices}
    return Patch({s: scale * torch.randn(shape, generator=generator) for s, shape in shapes.items()})


def zeroed(adapter, slices):
    parameters = dict(adapter.model.named_parameters())
    return Patch({s: -s.view(parameters[s.parameter]).detach().clone() for s in slices})


def plainly(adapter, pixels, answer="red left"):
    """Log-probabilities of the answer's tokens from a call of the model itself, (n, tokens)."""
    ids = adapter.answer_ids(answer)
    inputs = adapter.processor(images=[WIDE], text=[adapter._text(ASK)], return_tensors="pt")
    whole = torch.cat([inputs["input_ids"][0], ids]).expand(len(pixels), -1)
    scores = adapter.model(input_ids=whole, pixel_values=pixels).logits.log_softmax(-1)
    return scores[:, -len(ids) - 1 : -1].gather(2, ids.expand(len(pixels), -1)[..., None])[..., 0]


# ---------------------------------------------------------------- pixels


def test_maps_are_those_of_integrated_gradients_worked_out_slowly(bench_of, monkeypatch):
    adapter = shared("llava")
    monkeypatch.setattr(attribution, "_smoothed", lambda found: found)
    found = answer_attribution(adapter, bench_of(adapter), FLAT, patch=Patch())
    pixels, count = adapter.pixels([FLAT]), 100
    at = ((torch.arange(count) + 0.5) / count)[:, None, None, None] * pixels
    said = plainly(adapter, at.requires_grad_(True)).sum(0)
    grads = [torch.autograd.grad(said[t], at, retain_graph=True)[0].mean(0) for t in range(2)]
    expected = torch.stack([(grad * pixels[0]).sum(0) for grad in grads])
    assert torch.allclose(found.maps_before, expected, atol=0.02 * expected.abs().max())
    assert torch.equal(found.before, found.maps_before[0] + found.maps_before[1])


def test_each_tokens_map_adds_up_to_what_it_gains_over_a_grey_picture(bench_of):
    adapter, patch = shared("llava"), noise(shared("llava"), "image.1.head.0")
    found = answer_attribution(adapter, bench_of(adapter), FLAT, patch=patch)
    pixels = adapter.pixels([FLAT])
    sides = (found.maps_before, found.logprobs_before), (found.maps_after, found.logprobs_after)
    for now, (maps, said) in zip((Patch(), patch), sides, strict=True):
        with torch.no_grad(), now.applied(adapter.model):
            full, grey = plainly(adapter, torch.cat([pixels, 0 * pixels]))
        assert said == pytest.approx(full.tolist(), abs=1e-4)
        assert maps.sum((1, 2)).tolist() == pytest.approx((full - grey).tolist(), abs=0.03)
        assert abs((full - grey).sum()) > 0.2
    assert abs(found.error) < 0.03
    assert found.likely_before == pytest.approx(sum(found.logprobs_before))


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
def test_what_a_hidden_square_takes_away_is_worked_out_by_hand(bench_of, kind, monkeypatch):
    adapter = shared(kind)
    monkeypatch.setattr(module, "SQUARES", 4)
    found = answer_attribution(adapter, bench_of(adapter), WIDE, patch=Patch(), method="occlusion")
    assert found.maps_before.shape[1:] == (8, 12) and found.picture.size == (48, 32) and found.error is None
    grey = tuple(round(255 * mean) for mean in adapter.processor.image_processor.image_mean)

    def hidden(*corners):
        pictures = [WIDE.copy() for _ in corners]
        for picture, (x, y) in zip(pictures, corners, strict=True):
            picture.paste(grey, (x, y, x + 8, y + 8))
        rows = adapter.name_logprobs([WIDE, *pictures], [ASK] * (1 + len(corners)), "red left")
        full, *others = torch.tensor([[value for _, value in row] for row in rows])
        return (full - torch.stack(others)).mean(0)

    assert torch.allclose(found.maps_before[:, 0, 0], hidden((0, 0)), atol=1e-5)
    assert torch.allclose(found.maps_before[:, 7, 11], hidden((40, 24)), atol=1e-5)
    assert torch.allclose(found.maps_before[:, 4, 5], hidden((16, 12), (20, 12), (16, 16), (20, 16)), atol=1e-5)
    assert found.maps_before.abs().max() > 0.01


@pytest.mark.parametrize("kind, method", [("llava", "integrated_gradients"), *((k, "occlusion") for k in KINDS)])
def test_both_sides_differ_by_the_edit_alone_and_the_model_stays(
    bench_of, kind, method, weights_of, same_weights, monkeypatch
):
    adapter = shared(kind)
    monkeypatch.setattr(module, "SQUARES", 2)
    bench, weights, log = bench_of(adapter), weights_of(adapter.model), []
    small, options = WIDE.resize((32, 32)), {"method": method, "steps": 16}
    still = answer_attribution(adapter, bench, small, patch=Patch(), **options)
    patch = noise(adapter, "image.1.head.0")
    moved = answer_attribution(adapter, bench, small, patch=patch, progress=lambda *now: log.append(now), **options)
    assert torch.equal(still.maps_before, still.maps_after) and torch.equal(still.maps_before, moved.maps_before)
    assert still.logprobs_before == still.logprobs_after == moved.logprobs_before
    assert not torch.equal(moved.maps_before, moved.maps_after) and moved.logprobs_before != moved.logprobs_after
    tokens = adapter.name_logprobs([small], [ASK], "red left")[0]
    assert list(zip(moved.tokens, moved.logprobs_before, strict=True)) == tokens
    assert len(moved.maps_before) == len(moved.maps_after) == len(tokens) > 1
    assert moved.scale <= max(moved.before.abs().max(), moved.after.abs().max())
    assert overlay(moved.picture, moved.after, moved.scale).size == moved.picture.size == (32, 32)
    assert log[-1][0] == log[-1][1] and log == sorted(log) and log[0][0] == 0
    assert same_weights(adapter.model, weights)


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion"])
def test_the_model_is_as_found_when_stopped_or_when_something_raises(
    bench_of, method, weights_of, same_weights, monkeypatch
):
    adapter = shared("llava")
    monkeypatch.setattr(module, "TOGETHER", 4)
    monkeypatch.setattr(module, "SQUARES", 4)
    weights, asked = weights_of(adapter.model), []
    options = {"patch": noise(adapter, "image.1.head.0"), "method": method, "steps": 16}
    runs = lambda stop: answer_attribution(adapter, bench_of(adapter), WIDE, stop=stop, **options)  # noqa: E731
    assert runs(lambda: True) is None and runs(lambda: asked.append(0) or len(asked) == 9) is None
    assert len(asked) == 9 and same_weights(adapter.model, weights)

    def fail():
        if not same_weights(adapter.model, weights):
            raise KeyError
        return False

    with pytest.raises(KeyError):
        runs(fail)
    assert same_weights(adapter.model, weights)
    assert not any(p.requires_grad or p.grad is not None for p in adapter.model.parameters())


def test_another_question_gets_an_answer_of_its_own(bench_of):
    adapter = shared("llava")
    asked = {"patch": Patch(), "method": "integrated_gradients", "steps": 16}
    found = answer_attribution(adapter, bench_of(adapter), WIDE, question="What is this?", **asked)
    assert (
        list(zip(found.tokens, found.logprobs_before, strict=True))
        == adapter.name_logprobs([WIDE], ["What is this?"], "red left")[0]
    )
    with pytest.raises(InputError, match=r"^A question is empty; "):
        answer_attribution(adapter, bench_of(adapter), WIDE, question="", **asked)


def test_maps_lie_over_the_picture_as_the_model_reads_it():
    grey = Image.new("RGB", (64, 32), (100, 120, 140))
    grey.paste((200, 40, 40), (0, 0, 16, 32))  # a quarter of it
    cut, pressed, whole = (shared(kind).as_read(grey) for kind in ("llava", "llava_next", "qwen2_vl"))
    assert cut.size == pressed.size == (32, 32) and whole.size == (64, 32)
    assert cut.getpixel((3, 16)) == pytest.approx((100, 120, 140), abs=2)
    assert pressed.getpixel((3, 16)) == pytest.approx((200, 40, 40), abs=2)
    assert whole.tobytes() == grey.tobytes()


def test_a_picture_smaller_than_its_squares_is_hidden_pixel_by_pixel(bench_of):
    adapter = shared("llava")
    small = WIDE.resize((9, 3))
    found = answer_attribution(adapter, bench_of(adapter), small, patch=Patch(), method="occlusion")
    assert found.maps_before.shape == (2, 3, 9) and found.maps_before.isfinite().all()


@pytest.mark.parametrize("kind", ["llava_next", "qwen2_vl", "qwen2_5_vl"])
def test_a_picture_read_in_parts_has_no_gradient_to_follow(bench_of, kind):
    adapter = shared(kind)
    with pytest.raises(ModelError) as caught:
        answer_attribution(adapter, bench_of(adapter), WIDE, patch=Patch())
    assert str(caught.value) == (
        f"tiny {kind} reads a picture in parts, not as one array of pixels, so that no gradient can be followed back "
        "to the whole of it; choose occlusion."
    )
    with pytest.raises(InputError, match=r"^No attribution method 'magic'; choose integrated_gradients or occlusion"):
        answer_attribution(adapter, bench_of(adapter), WIDE, patch=Patch(), method="magic")


# ---------------------------------------------------------------- attention


def by_hand(adapter, unit, picture, question=ASK):
    """softmax(q k^T / sqrt(d)) of one head from what enters its module, (queries, keys); the whole picture's."""
    path = unit.slices[-1].parameter.rsplit(".", 2)[0]
    module, calls = adapter.model.get_submodule(path), []
    handle = module.register_forward_pre_hook(lambda _m, args, kwargs: calls.append((args, kwargs)), with_kwargs=True)
    prompts = adapter.prompts([picture], [question])
    with torch.no_grad():
        adapter.logits(prompts, adapter.features(prompts), [torch.tensor([], dtype=torch.long)])
        handle.remove()
        args, kwargs = calls[0]
        x = args[0] if args else kwargs["hidden_states"]
        x = x[0] if x.ndim == 3 else x
        if hasattr(module, "qkv"):
            q, k, _ = module.qkv(x).chunk(3, -1)
        else:
            q, k = module.q_proj(x), module.k_proj(x)
    h, dim = unit.column, module.head_dim
    g = h * k.shape[-1] // q.shape[-1]  # several heads read one of k
    q, k = q[:, h * dim : (h + 1) * dim], k[:, g * dim : (g + 1) * dim]
    if angles := kwargs.get("position_embeddings"):
        cos, sin = (a.reshape(-1, dim) for a in angles)
        turn = lambda t: t * cos + torch.cat([-t[:, dim // 2 :], t[:, : dim // 2]], 1) * sin  # noqa: E731
        q, k = turn(q), turn(k)
    logits = q @ k.T / dim**0.5
    if unit.tower == "language":
        logits = logits.masked_fill(torch.ones_like(logits, dtype=torch.bool).triu(1), -torch.inf)
    if "cu_seqlens" in kwargs:  # windows see themselves alone
        window = torch.bucketize(torch.arange(len(x)), kwargs["cu_seqlens"], right=True)
        logits = logits.masked_fill(window[:, None] != window, -torch.inf)
    return logits.softmax(-1)


def order_of(adapter, size):
    """Number of the patch, counted row by row, that each token of the vision tower stands for: told by its grey."""
    columns, rows = size[0] // 4, size[1] // 4
    stairs = Image.new("RGB", size)
    for i in range(rows * columns):
        stairs.paste((2 * i,) * 3, (i % columns * 4, i // columns * 4, i % columns * 4 + 4, i // columns * 4 + 4))
    calls, block = [], adapter.model.model.visual.blocks[0]
    handle = block.register_forward_pre_hook(lambda _m, args: calls.append(args[0]))
    with torch.no_grad():
        adapter.features(adapter.prompts([stairs], ["?"]))
    handle.remove()
    return (calls[0] @ (calls[0][1] - calls[0][0])).argsort().argsort()  # the first two tokens are in order


def drawn(adapter, unit, weights):
    """(queries, keys) of a vision tower as a map of the patches."""
    if not hasattr(adapter.model.model, "visual"):
        return weights[1:, 1:].mean(0).reshape(4, 4)  # a class token that the language model does not read
    found = torch.empty(len(weights))
    found[order_of(adapter, WIDE.size)] = weights.mean(0)
    return found.reshape(8, 12)


@pytest.mark.parametrize("name", ["image.1.head.0", "image.2.head.1"])
def test_a_vision_heads_look_equals_softmax_worked_out_by_hand(adapter, name):
    unit = named(adapter, name)
    found, expected = attention(adapter, unit, WIDE), drawn(adapter, unit, by_hand(adapter, unit, WIDE))
    assert torch.allclose(found.weights, expected, atol=1e-5) and expected.std() > 0.02 * expected.mean()
    assert found.reader == "mean over patches" and found.tokens == () and found.words is None
    assert found.picture.size == ((48, 32) if "qwen" in adapter.name else (32, 32))


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl", "qwen2_5_vl"])
@pytest.mark.parametrize("name", ["language.0.head.1", "language.1.head.2"])
def test_a_language_heads_look_equals_softmax_worked_out_by_hand(kind, name):
    adapter = shared(kind)
    found, row = (
        attention(adapter, named(adapter, name), WIDE, question=ASK),
        by_hand(adapter, named(adapter, name), WIDE)[-1],
    )
    (prompt,) = adapter.prompts([WIDE], [ASK])
    seen = prompt.ids == adapter.model.config.image_token_id
    assert found.weights.shape == ((4, 4) if kind == "llava" else (4, 6))
    assert torch.allclose(found.weights.flatten(), row[seen], atol=1e-5) and row[seen].std() > 0.02 * row[seen].mean()
    assert torch.allclose(found.words, row[~seen], atol=1e-5)
    assert (found.weights.sum() + found.words.sum()).item() == pytest.approx(1, abs=1e-5)
    assert len(found.tokens) == len(found.words) and found.reader == "last token"
    assert {"colour", "square", "?"} <= set(found.tokens) and "" not in found.tokens


def test_a_shared_key_value_head_is_the_mean_of_those_that_read_it():
    adapter = shared("qwen2_vl")
    shown, first, second = (
        attention(adapter, named(adapter, f"language.0.{name}"), WIDE, question=ASK)
        for name in ("kv.1", "head.2", "head.3")
    )
    assert torch.allclose(shown.weights, (first.weights + second.weights) / 2, atol=1e-6)
    assert torch.allclose(shown.words, (first.words + second.words) / 2, atol=1e-6)


@pytest.mark.parametrize("kind", ["llava", "qwen2_5_vl"])
def test_the_way_in_which_attention_is_computed_makes_no_difference(kind):
    adapter, other = shared(kind), fresh(kind)
    other.model.load_state_dict(adapter.model.state_dict())
    other.model.set_attn_implementation("eager")
    for name in UNITS:
        a, b = (attention(x, named(x, name), WIDE, question=ASK) for x in (adapter, other))
        assert torch.allclose(a.weights, b.weights, atol=1e-5)


def test_a_class_token_that_is_read_is_no_part_of_the_map():
    model, processor = tiny_vlms.tiny("llava")
    model.config.vision_feature_select_strategy = processor.vision_feature_select_strategy = "full"
    adapter = VlmAdapter(model, processor, name="full", questions=QUESTIONS)
    unit = named(adapter, "language.1.head.0")
    (prompt,), row = adapter.prompts([WIDE], [ASK]), by_hand(adapter, unit, WIDE)[-1]
    assert prompt.places == 17
    found = attention(adapter, unit, WIDE, question=ASK)
    assert torch.allclose(found.weights.flatten(), row[prompt.ids == 3][1:], atol=1e-6)


def test_several_crops_form_no_grid_for_the_language_model():
    adapter = shared("llava_next")
    with pytest.raises(ModelError) as caught:
        attention(adapter, named(adapter, "language.0.head.1"), WIDE, question=ASK)
    places = adapter.prompts([WIDE], [ASK])[0].places
    assert str(caught.value) == (
        f"tiny llava_next reads this picture as {places} tokens that form no one grid (several crops, or patches "
        "pooled together), so the attention of 'language.0.head.1' cannot be drawn on it."
    )


def test_an_order_of_patches_that_positions_do_not_bear_out_is_refused(monkeypatch):
    adapter = shared("qwen2_5_vl")
    monkeypatch.delattr(type(adapter.model.config.vision_config), "window_size")
    monkeypatch.delattr(adapter.model.config.vision_config, "window_size")
    with pytest.raises(ModelError, match=r"^The layer of 'image.1.head.0' does not see the picture as one grid"):
        attention(adapter, named(adapter, "image.1.head.0"), WIDE)


@pytest.mark.parametrize("name", ["image.1.head.0", "language.1.head.2", "language.0.kv.1"])
def test_attention_that_is_more_than_a_softmax_of_values_is_refused(name):
    adapter = fresh("llava")
    unit = named(adapter, name)
    path = unit.slices[-1].parameter.rsplit(".", 2)[0]
    adapter.model.get_submodule(path).register_forward_hook(lambda _m, _a, out: (1.1 * out[0], *out[1:]))
    with pytest.raises(ModelError, match=rf"^What '{path}' gives is not a softmax over its values alone \("):
        attention(adapter, unit, WIDE, question=ASK)


def test_weights_that_a_kernel_keeps_to_itself_are_refused(monkeypatch):
    adapter, kernel = fresh("llava"), F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *args, **options: kernel(*args, **options))
    with pytest.raises(ModelError, match="a kernel that keeps its weights to itself"):
        attention(adapter, named(adapter, "image.1.head.0"), WIDE)


def test_only_heads_look_and_at_what_they_read(adapter):
    assert attention(adapter, named(adapter, "image.0.mlp"), WIDE) is None
    assert attention(adapter, named(adapter, "projector.0.mlp"), WIDE) is None
    with pytest.raises(InputError, match=r"^'image.0.head.0' reads pictures; give it one\.$"):
        attention(adapter, named(adapter, "image.0.head.0"), ASK)
    for given, question in ((ASK, None), (WIDE, None), (WIDE, "")):
        with pytest.raises(InputError, match=r"^'language.0.head.0' reads a picture and a question; give both\.$"):
            attention(adapter, named(adapter, "language.0.head.0"), given, question=question)


@pytest.mark.parametrize("fails", [False, True])
def test_looking_leaves_no_hook_and_the_same_bits(adapter, fails, weights_of, same_weights, monkeypatch):
    weights, unit = weights_of(adapter.model), named(adapter, "image.1.head.0")
    said = lambda: adapter.name_logprobs([WIDE], [ASK], "red")  # noqa: E731
    before = said()
    hooks = lambda: sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in adapter.model.modules())  # noqa: E731
    count = hooks()
    if fails:
        with monkeypatch.context() as patched, pytest.raises(KeyError):
            patched.setattr(adapter, "features", lambda _: {}["nothing"])
            attention(adapter, unit, WIDE)
    else:
        attention(adapter, unit, WIDE)
    assert hooks() == count and same_weights(adapter.model, weights) and said() == before


# ---------------------------------------------------------------- heads


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
def test_a_shut_gate_is_the_head_zeroed(bench_of, kind):
    adapter = shared(kind)
    bench, patch = bench_of(adapter), noise(adapter, "language.0.mlp", 0.05)
    found = head_gates(adapter, bench, adapter.units(), method="ablation", patch=patch, pictures=2)
    heads = [u for u in adapter.units(("head",)) if ".kv." not in u.name]
    assert list(found.values) == [u.name for u in heads]
    for name in UNITS:
        with edited(adapter, bench, patch), torch.no_grad():
            full = bench.concept_score([0, 1]).item()
            with zeroed(adapter, named(adapter, name).slices[-1:]).applied(adapter.model):
                off = bench.concept_score([0, 1]).item()
        assert found.values[name] == pytest.approx(full - off, abs=1e-4)
        assert found.full == pytest.approx(full, abs=1e-4)


@pytest.mark.parametrize("kind", ["llava", "qwen2_5_vl"])
def test_shares_of_heads_add_up_to_the_score_between_shut_and_open(bench_of, kind, weights_of, same_weights):
    adapter = shared(kind)
    weights = weights_of(adapter.model)
    found = head_gates(adapter, bench_of(adapter), adapter.units(), pictures=2)
    assert abs(found.full - found.closed) > 0.03
    assert sum(found.values.values()) == pytest.approx(found.full - found.closed + found.error)
    assert abs(found.error) <= 0.02 * abs(found.full - found.closed)
    assert same_weights(adapter.model, weights)


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
@pytest.mark.parametrize(
    "name",
    ["image.2.head.1", "image.1.mlp", "projector.0.mlp", "language.1.head.2", "language.0.kv.1", "language.1.mlp"],
)
def test_a_unit_is_explained_by_the_model_without_what_it_writes(kind, bench_of, name, weights_of, same_weights):
    adapter = shared(kind)
    bench, unit, weights = bench_of(adapter), named(adapter, name), weights_of(adapter.model)
    patch = noise(adapter, "image.0.mlp", 0.1)
    card = explain_head(adapter, bench, unit, patch=patch)
    if ".kv." in name:  # without its values both heads that read it write nothing
        off = zeroed(adapter, [named(adapter, f"language.0.head.{h}").slices[-1] for h in (2, 3)])
    else:
        off = zeroed(adapter, unit.slices[-1:])
    assert card.before == evaluate(adapter, bench, patch, "search")
    expected = evaluate(adapter, bench, patch + off, "search")
    for measure in ("forget_probability", "retain_probability", "neutral_kl"):
        value, other = (getattr(e, measure).value for e in (card.after, expected))
        assert value == pytest.approx(other, abs=1e-5) and value != getattr(card.before, measure).value
    assert card.pictures == card.prompts == card.nearest == () and card.shift is None
    assert same_weights(adapter.model, weights)


@pytest.mark.parametrize("name", ["image.2.layer", "language.0.layer"])
def test_a_layer_is_explained_by_all_of_its_parts(bench_of, name):
    adapter = shared("llava")
    unit, bench = named(adapter, name), bench_of(adapter)
    parts = [u for u in adapter.units() if (u.tower, u.layer) == (unit.tower, unit.layer) and ".kv." not in u.name]
    off = zeroed(adapter, [u.slices[-1] for u in parts])
    card = explain_head(adapter, bench, unit)
    expected = evaluate(adapter, bench, off, "search").forget_probability.value
    assert card.after.forget_probability.value == pytest.approx(expected, abs=1e-5)
