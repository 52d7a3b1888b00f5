"""Each diffusion architecture as the library sees it: what can be edited, one real edit, noise by hand, pictures."""

import logging
import re
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import PNDMScheduler
from PIL import Image
from tiny_adapters import KINDS, fresh, make_task, noise_picture, shared

from razor import pictures, pipelines, trust, words
from razor.adapters import denoising, diffusion
from razor.adapters.denoising import overflowed
from razor.adapters.diffusion import DiffusionAdapter, seeds_for
from razor.config import RazorConfig
from razor.errors import InputError, ModelError
from razor.examples import Split
from razor.gradients import collect, gradient_of
from razor.growth import Growth
from razor.patches import Patch
from razor.picture_files import Album
from razor.pictures import Easel
from razor.replay import earliest_blocks
from razor.units import parameters_of

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPT = "red cat"
VALUE = re.compile(r"(^|[._])v(_proj)?\.(weight|bias)$")
# kind -> (tower, layer) -> heads, and whether the row has an MLP of that tower
ROWS = {
    "sd": {"text": [(2, True)] * 2, "cross": [(2, False)] * 4, "self": [(2, True)] * 4},
    "sd2": {
        "text": [(2, True)] * 2,
        "cross": [(2, False), (4, False), (2, False), (2, False)],
        "self": [(2, True), (4, True), (2, True), (2, True)],
    },
    "sdxl": {"text": [(2, True)], "text2": [(2, True)] * 2, "cross": [(2, False)] * 5, "self": [(2, True)] * 5},
    "sd3": {
        "text": [(2, True)] * 2,
        "text2": [(2, True)] * 2,
        "text3": [(2, True)] * 2,
        "context": [(2, True), (2, False)],
        "self": [(2, True)] * 2,
    },
}


@pytest.fixture(params=KINDS)
def adapter(request):
    return shared(request.param)


@pytest.fixture
def kind(adapter):
    return adapter.name.removeprefix("tiny ")


@pytest.fixture(scope="module")
def benches():
    """kind -> a bench on the shared adapter; leave it as found."""
    made = {}

    def bench(adapter, **options):
        key = adapter.name, *options.items()
        if key not in made:
            made[key] = adapter.bench(make_task(), **options)
        return made[key]

    return bench


def answers(adapter):
    """Everything a prompt leads to: states, summary, and one prediction."""
    with torch.no_grad():
        words = adapter.encode([PROMPT])
        predicted = adapter.predict(adapter.noise([1]), torch.tensor([500]), words)
    return [words.states, predicted] + ([] if words.pooled is None else [words.pooled])


def with_zeros(adapter, slices):
    """`answers` with these slices at zero; weights are put back."""
    parameters = dict(adapter.model.named_parameters())
    off = Patch({s: -s.view(parameters[s.parameter]).detach().clone() for s in slices})
    with off.applied(adapter.model):
        return answers(adapter)


def same(found, expected):
    return all(map(torch.equal, found, expected))


def random_patch(adapter, units, scale=0.3):
    """Noise on these units."""
    generator = torch.Generator().manual_seed(0)
    parameters = dict(adapter.model.named_parameters())
    slices = [s for unit in units for s in unit.slices]
    return Patch({s: scale * torch.randn(s.view(parameters[s.parameter]).shape, generator=generator) for s in slices})


def pixels(images):
    """(n, height, width, 3) numbers in 0..255."""
    return np.stack([np.asarray(image, dtype=int) for image in images])


# ---------------------------------------------------------------- units


def test_each_architecture_gives_the_rows_worked_out_by_hand(adapter, kind):
    heads, mlps = ({(u.tower, u.layer, u.column) for u in adapter.units((k,))} for k in ("head", "mlp"))
    found = {
        tower: [
            (sum(place[:2] == (tower, i) for place in heads), (tower, i, -1) in mlps)
            for i in sorted({layer for t, layer, _ in heads if t == tower})
        ]
        for tower in adapter.towers
    }
    assert found == ROWS[kind]
    assert list(adapter.towers) == list(ROWS[kind])
    assert adapter.growing == tuple(tower for tower in ROWS[kind] if tower.startswith("text"))


def test_rows_of_a_unet_go_down_through_the_middle_and_up():
    paths = [u.slices[0].parameter.split(".")[1] for u in shared("sd").units(("layer",), ("cross",))]
    assert paths == ["down_blocks", "mid_block", "up_blocks", "up_blocks"]


def test_units_of_one_kind_share_no_number_and_a_layer_holds_the_others(adapter):
    parameters = dict(adapter.model.named_parameters())
    for kinds in (("head", "mlp"), ("layer",)):
        units = adapter.units(kinds)
        counts = {name: torch.zeros_like(parameters[name]) for name in parameters_of(units)}
        for unit in units:
            for view in unit.views(counts):
                view += 1
        assert max(count.max() for count in counts.values()) == 1
        assert sum(u.size(parameters) for u in units) == sum(int(count.sum()) for count in counts.values())
        assert all(adapter.tower_of(s.parameter) == u.tower for u in units for s in u.slices)
    inside, layers = adapter.units(("head", "mlp")), {(u.tower, u.layer): u for u in adapter.units(("layer",))}
    for unit in inside:
        held = parameters_of([layers[unit.tower, unit.layer]])
        assert {name for name in parameters_of([unit]) if not name.endswith("bias")} <= set(held)


def test_heads_partition_the_attention_weights_of_their_stream(adapter):
    parameters = dict(adapter.model.named_parameters())
    heads = adapter.units(("head",))
    counts = {name: torch.zeros_like(parameters[name]) for name in parameters_of(heads)}
    for unit in heads:
        for view in unit.views(counts):
            view += 1
    assert all((count == 1).all() for count in counts.values())


def test_zeroing_a_heads_output_columns_equals_zeroing_its_values_bit_for_bit(adapter):
    """A joint head has two streams, and each stream's output mixes both streams' values: they are zeroed together."""
    before, heads = answers(adapter), {}
    for unit in adapter.units(("head",)):
        joint = adapter.joint and unit.tower in ("context", "self")
        heads.setdefault(("joint" if joint else unit.tower, unit.layer, unit.column), []).extend(unit.slices)
    for place, slices in heads.items():
        by_values = with_zeros(adapter, [s for s in slices if VALUE.search(s.parameter)])
        by_columns = with_zeros(adapter, [s for s in slices if s.dim == 1])
        assert same(by_columns, by_values) and not same(by_values, before), place
    assert same(answers(adapter), before)


def test_columns_one_off_are_not_the_same_head(adapter):
    for unit in adapter.units(("head",), ("text", "cross")):
        out = unit.slices[-1]
        step = 1 if unit.column % 2 == 0 else -1
        shifted = replace(out, start=out.start + step, stop=out.stop + step)
        assert not same(with_zeros(adapter, [shifted]), with_zeros(adapter, [out])), unit.name


def test_every_unit_makes_a_difference(adapter):
    before = answers(adapter)
    for unit in adapter.units(("head", "mlp")):
        assert not same(with_zeros(adapter, unit.slices), before), unit.name


def test_the_layer_xl_does_not_read_has_no_units():
    adapter = shared("sdxl")
    parameters = dict(adapter.model.named_parameters())
    unread = [name for name in parameters if name.startswith("text_encoder.encoder.layers.1.")]
    assert not set(unread) & set(parameters_of(adapter.units(("head", "mlp", "layer"))))
    before = answers(adapter)
    kept = {name: parameters[name].clone() for name in unread}
    with torch.no_grad():
        for name in unread:
            parameters[name].zero_()
        after = answers(adapter)
        for name in unread:
            parameters[name].copy_(kept[name])
    assert unread and same(after, before)


def test_the_query_the_last_text_stream_does_not_use_is_in_no_unit():
    adapter = shared("sd3")
    unread = "transformer.transformer_blocks.1.attn.add_q_proj"
    units = adapter.units(("head", "mlp", "layer"))
    assert not [name for name in parameters_of(units) if name.startswith(unread)]
    last = next(u for u in units if u.name == "context.1.head.1")
    here = "transformer.transformer_blocks.1.attn.add_"
    assert [(s.parameter, s.dim, s.start, s.stop) for s in last.slices] == [
        (f"{here}{part}_proj.{kind}", 0, 16, 32) for kind in ("weight", "bias") for part in "kv"
    ]


def test_units_of_one_tower_stay_in_it_and_names_are_unlike(adapter):
    every = adapter.units(("head", "mlp", "layer"))
    for tower in adapter.towers:
        assert adapter.units(("head", "mlp", "layer"), (tower,)) == [u for u in every if u.tower == tower]
    assert max(Counter(u.name for u in every).values()) == 1


def test_the_first_edited_block_is_found_in_every_tower(adapter):
    for unit in adapter.units(("head", "mlp")):
        assert earliest_blocks(adapter, random_patch(adapter, [unit])) == {unit.tower: unit.layer}


def test_fingerprint_changes_with_any_weight_that_can_be_edited():
    assert fresh("sd").fingerprint() == shared("sd").fingerprint()
    adapter = fresh("sd")
    unit = adapter.units(("head",), ("cross",))[0]
    with random_patch(adapter, [unit]).applied(adapter.model):
        assert adapter.fingerprint() != shared("sd").fingerprint()


# ---------------------------------------------------------------- one real edit


def test_an_empty_patch_draws_the_same_bits(adapter):
    before = adapter.draw([PROMPT], [3])
    with Patch().applied(adapter.model):
        assert adapter.draw([PROMPT], [3])[0].tobytes() == before[0].tobytes()


@pytest.mark.parametrize("place", ["text encoder", "denoiser"])
def test_one_round_moves_predictions_towards_the_anchors_and_is_undone(adapter, place, weights_of, same_weights):
    before, picture = weights_of(adapter.model), adapter.draw([PROMPT], [3])[0].tobytes()
    towers = tuple(t for t in adapter.towers if t != "self" and t.startswith("text") == (place == "text encoder"))
    settings = {"inner_steps": 2, "start_units": 2, "tau": 0.0, "batch": 4, "step_size": 0.002, "retain_budget": 1.0}
    growth = Growth(adapter, make_task(), RazorConfig(rounds=1, towers=towers, **settings))
    ascended = growth.bench.scoring_terms()["forget"]
    with torch.no_grad():
        frozen = ascended().item()
    (done,) = growth.run()
    assert done.accepted and len(done.members) == 2
    assert {growth.every[name].tower for name in done.members} <= set(towers)
    assert same_weights(adapter.model, before)
    with growth.patch.applied(adapter.model), torch.no_grad():
        assert ascended().item() > frozen + 0.01
        assert not same_weights(adapter.model, before)
    assert done.before.association == 1 and 0 < done.after.association < 0.995
    assert done.after.forget_probability.value < done.before.forget_probability.value == 1
    assert same_weights(adapter.model, before) and adapter.draw([PROMPT], [3])[0].tobytes() == picture


@pytest.mark.parametrize("tower", ["text", "context", "self"])
def test_a_pipeline_of_stable_diffusion_35_takes_an_edit_and_is_undone(tower, weights_of, same_weights):
    adapter = shared("sd35")
    before, settings = weights_of(adapter.model), {"inner_steps": 1, "start_units": 2, "tau": 0.0, "batch": 4}
    growth = Growth(adapter, make_task(), RazorConfig(rounds=1, towers=(tower,), retain_budget=1.0, **settings))
    (done,) = growth.run()
    assert {growth.every[name].tower for name in done.members} == {tower} and growth.patch.deltas
    assert same_weights(adapter.model, before)
    with growth.patch.applied(adapter.model):
        assert not same_weights(adapter.model, before)
    assert same_weights(adapter.model, before)


def test_an_edit_is_undone_when_the_body_raises(adapter, weights_of, same_weights):
    before = weights_of(adapter.model)
    with (
        pytest.raises(KeyError),
        random_patch(adapter, adapter.units(("head", "mlp"))).applied(adapter.model),
    ):
        assert not same_weights(adapter.model, before)
        raise KeyError
    assert same_weights(adapter.model, before)


def test_the_forget_gradient_reaches_every_unit_growth_may_take_in(adapter, benches):
    units = adapter.units(("head", "mlp"), [tower for tower in adapter.towers if tower != "self"])
    stats = collect(adapter.model, units, benches(adapter).scoring_terms())
    assert [s.unit.name for s in stats if s.forget_norm == 0] == []
    assert [s.unit.name for s in stats if s.retain_norm == 0] == []


@pytest.mark.parametrize("kind", KINDS)
def test_points_that_do_not_fit_together_are_held_one_after_the_other_and_change_no_gradient(kind, monkeypatch):
    adapter = fresh(kind)
    bench, units = adapter.bench(make_task()), adapter.units()
    points = bench.points("retain", "gradient")
    assert bench.at_once(points, "gradient") >= len(points) > 1

    together = collect(adapter.model, units, bench.scoring_terms())
    monkeypatch.setitem(denoising.AT_ONCE, "gradient", points.noisy[0, 0].numel() * adapter.width)
    assert bench.at_once(points, "gradient") == 1
    apart = collect(adapter.model, units, bench.scoring_terms())
    for a, b in zip(together, apart, strict=True):
        assert (b.forget_norm, b.retain_norm, b.dot) == pytest.approx(
            (a.forget_norm, a.retain_norm, a.dot), rel=1e-4, abs=1e-5
        )


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_a_denoiser_of_large_pictures_keep_little_and_run_again_for_the_same_gradient(kind, monkeypatch):
    small, sizes = fresh(kind), []
    assert not small.reruns
    points, units = small.bench(make_task()).points("retain", "gradient"), small.units()
    monkeypatch.setattr(diffusion, "SMALL", small.side - 1)
    large = DiffusionAdapter(small.pipeline, name="large", batch=small.batch)
    bench = large.bench(make_task())
    assert large.reruns and bench.at_once(points, "gradient") == denoising.AT_ONCE["rerun"] // (
        points.noisy[0, 0].numel() * large.width
    )

    def kept() -> list:
        held = []
        pack = lambda t: held.append(t.untyped_storage()) or t  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            found = collect(large.model, units, bench.scoring_terms())
        sizes.append(sum({s.data_ptr(): s.nbytes() for s in held}.values()))
        return found

    again = kept()
    large.denoiser.disable_gradient_checkpointing()
    for a, b in zip(kept(), again, strict=True):
        assert (b.forget_norm, b.retain_norm, b.dot) == pytest.approx(
            (a.forget_norm, a.retain_norm, a.dot), rel=1e-4, abs=1e-5
        )
    assert sizes[0] < sizes[1]


def test_a_large_pipelines_forget_gradient_waits_elsewhere_while_it_is_scored(monkeypatch):
    moved = []
    monkeypatch.setattr("razor.gradients.put_aside", lambda grad: moved.append(grad.shape) or grad)
    monkeypatch.setattr("razor.growth.TRIALS_KEPT", 0)  # too many numbers to keep a step of each unit
    small = fresh("sd")
    Growth(small, make_task(), RazorConfig(batch=2)).scores()
    assert not moved
    monkeypatch.setattr(diffusion, "SMALL", small.side - 1)
    growth = Growth(DiffusionAdapter(small.pipeline, name="large"), make_task(), RazorConfig(batch=2))
    growth.scores()
    once = len(moved)
    trust.bootstrap(growth.adapter, growth.bench, growth.units, Patch(), draws=2)
    assert once > 0 and len(moved) == 3 * once


def test_a_point_is_as_wide_as_the_denoisers_first_layer(kind, adapter):
    widths = []
    first = adapter.denoiser.pos_embed.proj if adapter.joint else adapter.denoiser.conv_in
    with first.register_forward_hook(lambda module, given, made: widths.append(made.numel() // given[0][0, 0].numel())):
        adapter.predict(adapter.noise([0]), torch.tensor([300]), adapter.encode(["red cat"]))
    assert widths == [adapter.width]


def test_drift_has_no_gradient_at_the_frozen_model_and_one_away_from_it(adapter, benches):
    units = adapter.units(("head",), [tower for tower in adapter.towers if tower != "self"])
    heavy, none = (benches(adapter, mismatch_weight=weight).step_terms(1)["keep"] for weight in (1.0, 0.0))
    drift = lambda: heavy() - none()  # noqa: E731
    size = lambda term: sum(g.square().sum() for gs in gradient_of(adapter.model, units, term, "r")[1] for g in gs)  # noqa: E731
    frozen = size(drift)
    with random_patch(adapter, units, 0.05).applied(adapter.model):
        assert frozen < 1e-8 * size(drift)


# ---------------------------------------------------------------- noise


class Schedule(SimpleNamespace):
    """Two noise levels: 0.8 of the picture and 0.6 of noise, or the other way round."""

    alphas_cumprod = torch.tensor([0.64, 0.36])


def borrowed(kind, **parts):
    """A stand-in for an adapter, to noise with another scheduler."""
    return SimpleNamespace(joint=kind == "sd3", pipeline=SimpleNamespace(**parts))


@pytest.mark.parametrize(
    "prediction, target",
    [("epsilon", (2.0, 2.0)), ("sample", (1.0, 1.0)), ("v_prediction", (1.0, 0.4))],
)
def test_noise_and_targets_equal_those_worked_out_by_hand(prediction, target):
    clean, noise = torch.full((2, 1, 1, 1), 1.0), torch.full((2, 1, 1, 1), 2.0)
    scheduler = Schedule(config=SimpleNamespace(prediction_type=prediction))
    stand_in = borrowed("sd", scheduler=scheduler)
    noisy, timesteps, found = DiffusionAdapter.noised(stand_in, clean, noise, torch.tensor([0.0, 1.0]))
    assert timesteps.tolist() == [0, 1]
    assert noisy.flatten().tolist() == pytest.approx([0.8 + 1.2, 0.6 + 1.6])
    assert found.flatten().tolist() == pytest.approx(target)  # v: 0.8 * 2 - 0.6 * 1, then 0.6 * 2 - 0.8 * 1


def test_flow_noise_and_target_equal_those_worked_out_by_hand():
    clean, noise = torch.full((1, 1, 1, 1), 1.0), torch.full((1, 1, 1, 1), 2.0)
    noisy, timesteps, target = shared("sd3").noised(clean, noise, torch.tensor([0.25]))
    assert (noisy.item(), timesteps.item(), target.item()) == (1.25, 250, 1)


def test_noise_agrees_with_the_schedulers_own(adapter, kind):
    used, generator = adapter.pipeline.scheduler, torch.Generator().manual_seed(0)
    scheduler = type(used).from_config(used.config)  # one that has not been set to a few steps
    clean, noise = (torch.randn(3, 4, 8, 8, generator=generator) for _ in range(2))
    if kind == "sd3":
        timesteps = scheduler.timesteps[[100, 500, 900]]
        noisy, told, target = adapter.noised(clean, noise, timesteps / 1000)
        expected, goal = scheduler.scale_noise(clean, timesteps, noise), noise - clean
    else:
        timesteps = torch.tensor([250, 500, 949])
        noisy, told, target = adapter.noised(clean, noise, timesteps / 999)
        expected = scheduler.add_noise(clean, noise, timesteps)
        goal = scheduler.get_velocity(clean, noise, timesteps) if kind == "sd2" else noise
    if kind == "sdxl":  # its scheduler adds noise to an unscaled picture, and scales both before the model sees them
        a = scheduler.alphas_cumprod[timesteps].reshape(-1, 1, 1, 1)
        expected = expected * a.sqrt()
    assert torch.allclose(told.float(), timesteps.float(), atol=1e-3)
    assert torch.allclose(noisy, expected, atol=1e-5) and torch.allclose(target, goal, atol=1e-5)


def test_initial_noise_depends_on_the_seed_alone(adapter):
    noise = adapter.noise([5, 6])
    assert noise.shape == (2, 4, 8, 8) and torch.equal(noise[1:], adapter.noise([6]))
    assert adapter.noise([5], side=24).shape == (1, 4, 12, 12)


def test_seeds_follow_from_key_and_base(adapter):
    assert seeds_for(["a", "b"]) == seeds_for(["a", "b"], 0) != seeds_for(["a", "b"], 1)
    assert len(set(seeds_for([str(i) for i in range(1000)]))) == 1000


# ---------------------------------------------------------------- words and latents


def test_states_have_the_tokens_the_tokenizers_say(adapter):
    states = adapter.encode([PROMPT, "hat"]).states
    assert len(states) == 2 and states.shape[1] == sum(length for _, length in adapter.tokenizers())


def test_without_t5_the_tokens_are_those_of_clip_and_the_rest_is_empty():
    adapter = fresh("sd3", t5=False)
    states, ((tokenizer, length),) = adapter.encode([PROMPT]).states, adapter.tokenizers()
    assert tokenizer is adapter.pipeline.tokenizer and states[:, length:].abs().max() == 0 < states[:, :length].std()
    growth = Growth(adapter, make_task(), RazorConfig(batch=4, towers=("text",)))
    assert all(s.forget_norm > 0 for s in growth.stats() if s.unit.tower == "text")


def test_encoding_does_not_depend_on_the_batch(adapter):
    both, alone = adapter.encode([PROMPT, "a hat"]), adapter.encode(["a hat"])
    assert torch.allclose(both[1:].states, alone.states, atol=1e-5)
    if alone.pooled is not None:
        assert torch.allclose(both.pooled[1:], alone.pooled, atol=1e-5)


def test_tokens_of_a_prompt_end_before_the_padding(adapter):
    assert adapter.tokens("a cat") == ["<|startoftext|>", "a</w>", "c", "a", "t</w>", "<|endoftext|>"]
    assert len(adapter.tokens("a" * 40)) == 16


@pytest.mark.parametrize("kind", ["sd", "sd2", "sdxl"])
def test_what_is_cut_is_exactly_what_makes_no_difference(kind):
    adapter = shared(kind)  # reads 14 letters; pads with the token that ends the text
    assert adapter.cut("abcdefghijklmn") == "" != adapter.cut("abcdefghijklmno")
    assert adapter.cut("abcdefg hijklmn opq rst") == "opq rst"
    whole, read = (adapter.encode([prompt]).states for prompt in ("abcdefg hijklmn opq rst", "abcdefg hijklmn"))
    assert torch.equal(whole, read)


def test_the_end_that_any_encoder_does_not_read_is_cut():
    adapter, without = shared("sd3"), fresh("sd3", t5=False)
    long = " ".join(["hat"] * 90)  # CLIP reads 14 letters, T5 far more; growth edits the CLIPs too
    assert adapter.cut("abcdefg hijklmn opq rst") == "opq rst" == without.cut("abcdefg hijklmn opq rst")
    assert adapter.cut("abcdefg hijklmn") == "" and len(adapter.cut(long)) > len(long) - 24


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3"])
def test_nobody_logs_a_prompt_that_is_too_long(kind):
    adapter, long, heard = fresh(kind), " ".join(["hat"] * 200), []
    logs = [logging.getLogger(type(adapter.pipeline).__module__), logging.getLogger("transformers")]
    keep = logging.Handler()
    keep.emit = heard.append
    try:
        for log in logs:
            log.addHandler(keep)
        adapter.encode([long, "a hat"])
        assert not heard and adapter.cut(long)
        logs[0].removeFilter(diffusion._of_no_cut)
        adapter.encode([long])
        assert heard  # so they would
    finally:
        logs[0].addFilter(diffusion._of_no_cut)
        for log in logs:
            log.removeHandler(keep)


def test_forget_captions_that_name_the_concept_where_it_is_cut_say_so():
    whole = make_task()
    late = lambda part: tuple(replace(e, caption="abcdefghijklmn red cat", anchor="abcdefghijklmn red") for e in part)  # noqa: E731
    forget = Split(*map(late, vars(whole.forget).values()))
    with pytest.raises(InputError) as caught:
        shared("sd").bench(replace(whole, forget=forget))
    assert str(caught.value) == (
        "The forget caption 'abcdefghijklmn red cat' is too long: the model does not read 'red cat', and what it reads "
        "does not tell 'cat' from its anchor. Shorten the captions, or name 'cat' first."
    )


def test_pictures_are_cut_to_their_middle_square(adapter):
    wide = Image.new("RGB", (48, 16), (255, 0, 0))
    wide.paste((0, 0, 255), (16, 0, 32, 16))
    assert adapter.pixels([wide]).shape == (1, 3, 16, 16)
    assert adapter.pixels([wide])[0].mean((1, 2)).tolist() == [-1, -1, 1]


def test_latents_decode_to_what_they_came_from_in_the_autoencoders_own_scale(adapter):
    config = adapter.pipeline.vae.config
    latents = adapter.latents([noise_picture(1)])
    with torch.no_grad():
        mean = adapter.pipeline.vae.encode(adapter.pixels([noise_picture(1)])).latent_dist.mean
    assert torch.allclose(latents / config.scaling_factor + (config.shift_factor or 0), mean, atol=1e-5)
    with torch.no_grad():
        decoded = ((adapter.pipeline.vae.decode(mean).sample[0].clamp(-1, 1) + 1) * 127.5).permute(1, 2, 0)
    assert np.abs(pixels(adapter.preview(latents))[0] - decoded.numpy()).max() <= 1


# ---------------------------------------------------------------- half precision


@pytest.fixture
def half():
    """Stable Diffusion XL in float16 with an autoencoder that overflows there, in both directions."""
    adapter = fresh("sdxl")
    vae = adapter.pipeline.vae
    with torch.no_grad():
        for layer in (vae.encoder.conv_in, vae.decoder.conv_in):
            layer.weight.mul_(300_000)
    adapter.pipeline.to(torch.float16)
    assert vae.config.force_upcast
    return adapter


def test_pictures_are_encoded_in_float32_where_float16_overflows(half):
    vae = half.pipeline.vae
    with torch.no_grad():
        pixels = half.pixels([noise_picture(1)])
        assert not vae.encode(pixels.half()).latent_dist.mean.isfinite().all()
    before = {name: p.clone() for name, p in vae.named_parameters()}
    latents = half.latents([noise_picture(1)])
    assert latents.isfinite().all() and latents.dtype == torch.float32
    assert vae.dtype == torch.float16
    assert all(torch.equal(p, before[name]) for name, p in vae.named_parameters())


def test_previews_are_decoded_in_float32_where_float16_overflows(half):
    vae, seen = half.pipeline.vae, []
    vae.decoder.register_forward_hook(lambda _m, _args, out: seen.append(out.isfinite().all().item()))
    half.draw([PROMPT], [1], on_step=lambda step, latents: half.preview(latents))
    assert seen == [True] * 4 and vae.dtype == torch.float16  # three looks and the picture


def test_the_autoencoder_is_as_found_when_decoding_fails(half, monkeypatch):
    vae = half.pipeline.vae
    monkeypatch.setattr(vae, "decode", lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
    with pytest.raises(ModelError, match=r"^Memory ran out while drawing 1 pictures of 16 pixels\. "):
        half.draw([PROMPT], [1])
    assert vae.dtype == torch.float16
    monkeypatch.undo()
    assert half.draw([PROMPT], [1])[0].size == (16, 16)


def test_overflow_in_half_precision_names_the_way_out(half):
    with torch.no_grad():
        half.denoiser.conv_in.weight.fill_(60_000)
    with pytest.raises(ModelError, match=r", or load the model in float32 or bfloat16\.$"):
        half.draw([PROMPT], [1])


@pytest.mark.parametrize(
    "dtype, way",
    [
        (torch.float16, "load the model in float32 or bfloat16"),
        (torch.bfloat16, "load the model in float32"),
        (torch.float32, "use another copy of the model where nothing is edited"),
    ],
)
def test_numbers_that_grew_too_large_name_the_precision_to_use(dtype, way):
    error = overflowed("The pictures came out as NaN", "toy", dtype, shared("sd").model)
    kind = str(dtype).removeprefix("torch.")
    assert str(error) == (
        f"The pictures came out as NaN in {kind}: the numbers grew too large. Weaken the edit, or {way}."
    )


def test_weights_that_are_not_finite_are_said_to_be_spoilt():
    adapter = fresh("sd")
    with torch.no_grad():
        adapter.denoiser.conv_in.weight[0, 0, 0, 0] = float("nan")
    spoilt = r"NaN.*: the weights of tiny sd hold NaN or infinite values\. Use another copy of the model\.$"
    with pytest.raises(ModelError, match=spoilt):
        adapter.draw([PROMPT], [1])
    with pytest.raises(ModelError, match=spoilt):
        adapter.bench(make_task())


# ---------------------------------------------------------------- memory


def full(*_, **__):
    raise torch.OutOfMemoryError("full")


def no_latents(adapter, monkeypatch, folder):
    monkeypatch.setattr(adapter.pipeline.vae, "encode", full)
    adapter.bench(make_task())


def no_search(adapter, monkeypatch, folder):
    bench = adapter.bench(make_task())
    monkeypatch.setattr(adapter.pipeline.vae, "encode", full)
    bench.evaluate("search")


def no_drawing(adapter, monkeypatch, folder):
    monkeypatch.setattr(adapter.pipeline, "__class__", type("Full", (type(adapter.pipeline),), {"__call__": full}))
    adapter.draw([PROMPT], [1])


def no_pace(adapter, monkeypatch, folder):
    monkeypatch.setattr(adapter, "predict", full)
    Easel(adapter, Album(folder)).probe(16)


def no_words(adapter, monkeypatch, folder):
    monkeypatch.setattr(adapter, "encode", full)
    words.suggest(adapter, "a horse")


def no_weights(adapter, monkeypatch, folder):
    adapter.pipeline.save_pretrained(folder)
    monkeypatch.setattr(pipelines, "_assemble", full)
    pipelines.load_pipeline(str(folder), device="cpu")


@pytest.mark.parametrize(
    "work, doing, advice",
    [
        (no_latents, "encoding the examples", "Take smaller or fewer pictures, or load the model in half precision"),
        (no_search, "measuring", "Take smaller or fewer pictures, or load the model in half precision"),
        (
            no_drawing,
            "drawing 1 pictures of 16 pixels",
            "Take smaller or fewer pictures, or load the model in half precision",
        ),
        (no_pace, "drawing a picture of 16 pixels", "Take a smaller size, or load the model in half precision"),
        (no_words, "reading names", "Load the model in half precision"),
        (
            no_weights,
            "loading .*",
            "Close pages and programs that use its memory, load it .*",
        ),
    ],
)
def test_memory_that_runs_out_says_what_to_lower(work, doing, advice, monkeypatch, tmp_path):
    adapter = fresh("sd")
    with pytest.raises(ModelError, match=rf"^Memory ran out while {doing}\. {advice}\. Your session is as it was\.$"):
        work(adapter, monkeypatch, tmp_path)


def test_as_many_pictures_are_encoded_at_once_as_are_drawn_of_twice_the_side(monkeypatch):
    adapter, sizes = fresh("sd"), []
    vae = adapter.pipeline.vae
    encode = vae.encode
    monkeypatch.setattr(vae, "encode", lambda part: sizes.append(len(part)) or encode(part))
    monkeypatch.setattr(pictures, "PIXELS_TOGETHER", 2 * (2 * adapter.side) ** 2)
    assert len(adapter.latents([noise_picture(n) for n in range(5)])) == 5 and sizes == [2, 2, 1]


# ---------------------------------------------------------------- drawing


def test_a_picture_depends_on_prompt_and_seed_and_not_on_its_batch(adapter):
    prompts, seeds = ["red cat", "blue dog", "a hat"], [7, 8, 9]
    together = pixels(adapter.draw(prompts, seeds))
    alone = pixels([adapter.draw([p], [s])[0] for p, s in zip(prompts, seeds, strict=True)])
    assert np.abs(together - alone).max() <= 1
    assert (pixels(adapter.draw(prompts, seeds)) == together).all()
    assert (pixels(adapter.draw(["red cat"], [8])) != together[:1]).any()
    assert (pixels(adapter.draw(["blue cat"], [7], guidance=7.5)) != together[:1]).any()


def test_drawing_is_the_pipelines_own_call(adapter):
    picture = adapter.draw([PROMPT], [4], steps=2, guidance=3.0)[0]
    own = adapter.pipeline(
        PROMPT,
        latents=adapter.noise([4]),
        num_inference_steps=2,
        guidance_scale=3.0,
        height=16,
        width=16,
        output_type="pil",
    )
    assert np.abs(pixels([picture]) - pixels(own.images)).max() <= 1


def test_every_step_is_reported_with_its_latents(adapter):
    seen = []
    adapter.draw(["red cat", "a hat"], [1, 2], steps=4, on_step=lambda n, latents: seen.append((n, latents.shape)))
    assert seen == [(n, (2, 4, 8, 8)) for n in (1, 2, 3, 4)]


def test_stopping_in_the_middle_gives_no_pictures_and_leaves_no_trace(adapter):
    before, steps = adapter.draw([PROMPT], [1])[0].tobytes(), []
    assert adapter.draw([PROMPT], [1], on_step=lambda n, _: steps.append(n), stop=lambda: len(steps) == 2) == []
    assert steps == [1, 2]
    assert adapter.draw([PROMPT], [1])[0].tobytes() == before


def test_another_size_is_drawn_as_asked_for(adapter):
    assert adapter.draw([PROMPT], [1], steps=1, side=24)[0].size == (24, 24)


def refused(adapter, **changes):
    """The sentence a drawing is refused with."""
    asked = {"prompts": [PROMPT], "seeds": [1], **changes}
    with pytest.raises(InputError) as caught:
        adapter.draw(asked.pop("prompts"), asked.pop("seeds"), **asked)
    return str(caught.value)


def test_what_cannot_be_drawn_is_refused_in_one_sentence():
    adapter = shared("sd")
    empty = "A prompt is empty; say what to draw, such as 'a picture of a cat'."
    assert refused(adapter, prompts=["red cat", " "]) == refused(adapter, prompts=[], seeds=[]) == empty
    for steps in (0, -1, 201, 2.5, True, float("nan")):
        assert refused(adapter, steps=steps) == f"{steps!r} steps cannot be drawn; give a whole number from 1 to 200."
    warm = fresh("sd")
    warm.pipeline.scheduler = PNDMScheduler(skip_prk_steps=True)
    assert warm.draw([PROMPT], [1], steps=1)
    warm.pipeline.scheduler = PNDMScheduler()
    assert refused(warm, steps=3) == "3 steps cannot be drawn; give a whole number from 4 to 200."
    assert warm.draw([PROMPT], [1], steps=4)
    for guidance in (-1, 51, float("nan")):
        expected = f"Guidance is {guidance!r}; it must be a number from 0 to 50 (1 is none)."
        assert refused(adapter, guidance=guidance) == expected
    for side in (0, 4, 20, 2056, 10**9, float("nan")):
        assert refused(adapter, side=side) == (
            f"A side of {side:g} pixels cannot be drawn; give a multiple of 8 up to 2048. This model was trained at 16."
        )


def test_a_joint_transformer_draws_whole_patches_within_its_places(monkeypatch):
    adapter = shared("sd3")
    assert adapter.draw([PROMPT], [1], steps=1, side=32)[0].size == (32, 32)
    assert refused(adapter, side=40).startswith("A side of 40 pixels cannot be drawn; give a multiple of 8 up to 32.")
    monkeypatch.setattr(type(adapter), "scale", 8)  # as in the real one, of 8 pixels a latent and 2 latents a patch
    with pytest.raises(InputError, match=r"give a multiple of 16 up to 128\."):
        adapter.check_drawing([PROMPT], 1, 1.0, 24)


def test_numbers_that_overflow_say_that_the_edit_is_too_strong(adapter):
    huge = random_patch(adapter, adapter.units(("head",), ("self",)), 1e30)
    with pytest.raises(ModelError) as caught, huge.applied(adapter.model):
        adapter.draw([PROMPT], [1])
    assert str(caught.value) == (
        "The pictures came out as NaN in float32: the numbers grew too large. Weaken the edit, or use another copy of "
        "the model where nothing is edited."
    )


def test_gradients_stay_off_and_the_networks_as_they_were(adapter):
    networks = [adapter.model, adapter.pipeline.vae]
    assert not any(p.requires_grad or p.grad is not None for n in networks for p in n.parameters())
    assert not any(m.training for m in adapter.model.modules())
