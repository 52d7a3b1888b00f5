"""Each method on pipelines pinned to its equation: by least squares, by slow loops, by hand."""

import copy

import pytest
import torch
from tiny_adapters import make_task, shared

from razor.baselines import concept_ablation as ablation_module
from razor.baselines import salun_diffusion as salun_module
from razor.baselines.closed_form import pairs, positions, remapping, rows_of
from razor.baselines.concept_ablation import anchor_points, keys_and_values
from razor.baselines.denoising import Prompted, towards
from razor.baselines.diffquickfix import diffquickfix, first_projections, inputs
from razor.baselines.esd import esd, opposite
from razor.baselines.salun_diffusion import guided, salun_diffusion
from razor.baselines.slug import slug
from razor.baselines.training import trained_tensors
from razor.baselines.tuning import Budget, Tuning
from razor.baselines.uce import places, read, uce
from razor.patches import Patch
from razor.step import evaluate
from razor.units import Slice


@pytest.fixture(scope="module")
def tuned():
    """kind -> a fresh tuning of one step on the shared pipeline of that kind."""
    benches = {}

    def start(kind="sd"):
        adapter = shared(kind)
        if kind not in benches:
            benches[kind] = adapter.bench(make_task(), batch=4)
            evaluate(adapter, benches[kind], Patch(), "search")
        return Tuning(adapter, benches[kind], Budget(1, 1), 0.125, batch=4)

    return start


@pytest.fixture
def edits(monkeypatch):
    """Every patch a method has measured; nothing is."""
    seen = []
    monkeypatch.setattr(Tuning, "check", lambda self, setting, patch: seen.append(patch))
    return seen


# ---------------------------------------------------------------- closed forms


def matrices(*shapes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize("ridge", [0.01, 1.0])
@pytest.mark.parametrize("preserved", [0, 6])
def test_the_closed_form_is_the_least_squares_solution(ridge, preserved):
    w, k, g, p = matrices((3, 5), (4, 5), (4, 5), (preserved, 5))
    unknown = torch.cat([ridge**0.5 * torch.eye(5), k, p]).double()
    known = torch.cat([ridge**0.5 * w.T, g @ w.T, p @ w.T]).double()
    expected = torch.linalg.lstsq(unknown, known).solution.T
    assert torch.allclose(w.double() + remapping(w, k, g, p, ridge), expected, atol=1e-4)


def test_keys_give_what_guides_gave_and_what_is_orthogonal_to_them_stays():
    w, k, g = matrices((3, 6), (2, 6), (2, 6))
    apart = torch.linalg.svd(k)[2][2:]
    after = w + remapping(w, k, g, apart, 1e-9)
    assert torch.allclose(k @ after.T, g @ w.T, atol=1e-4)
    assert torch.allclose(apart @ after.T, apart @ w.T, atol=1e-5)


def test_one_key_by_hand():
    # W (g - k) k^T / (lambda + |k|^2) with W = (2, 3), k = (1, 0), g = (0, 1): (-2 + 3) (1, 0) / 2
    found = remapping(torch.tensor([[2.0, 3.0]]), torch.eye(2)[:1], torch.eye(2)[1:], torch.empty(0, 2), 1.0)
    assert found.tolist() == [[0.5, 0.0]]


class Tokenizer:
    """A start, a number for every word, an end, and padding."""

    def __call__(self, text, *, padding, max_length, truncation):
        ids = [1, *(10 + sum(map(ord, word)) for word in text.split()), 2]
        return type("Encoding", (), {"input_ids": ids + [0] * (max_length - len(ids))})


@pytest.mark.parametrize(
    "prompt, anchor, own, beside",
    [
        ("red cat", "red", [2, 3, 4, 5], [1, 2, 3, 4]),  # the cat stands beside the word before it
        ("red cat", "red thing", [2, 3, 4, 5], [2, 3, 4, 5]),
        ("neon cat", "photo cat", [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]),  # what follows the style knows of it
        ("neon sign cat", "photo cat", [2, 3, 4, 5], [1, 2, 3, 4]),  # from the last word of two on
        ("red", "red", [], []),
    ],
)
def test_the_words_that_change_are_the_concepts_last_one_and_all_after_it(prompt, anchor, own, beside):
    assert positions(Tokenizer(), 6, prompt, anchor) == (own, beside)


def test_rows_come_prompt_by_prompt():
    states = torch.arange(12.0).reshape(2, 3, 2)
    assert rows_of(states, [[2], [0, 1]]).tolist() == [[4, 5], [6, 7], [8, 9]]


def test_each_caption_is_asked_once_with_its_anchor():
    forget = make_task(each=3).forget.gradient
    assert pairs(forget, 9) == [("red cat", "red"), ("blue cat", "blue")] and pairs(forget, 1) == [("red cat", "red")]


# ---------------------------------------------------------------- UCE


def test_uce_solves_every_key_and_value_matrix_for_the_words_as_slow_loops_do(tuned, edits):
    tuning = tuned()
    adapter = tuning.adapter
    uce(tuning)
    reading = {n for n, _ in adapter.model.named_parameters() if n.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))}
    assert {where.parameter for where in edits[0].deltas} == reading and len(reading) == 8
    unknown, known = [0.1**0.5 * torch.eye(32)], [0.1**0.5 * torch.eye(32)]
    with torch.no_grad():
        state = {p: adapter.encode([p]).states[0] for p in ("red", "red cat", "blue", "blue cat")}
        for colour in ("red", "blue"):
            own, beside = places(adapter, f"{colour} cat", colour)
            for i, j in zip(own, beside, strict=True):
                unknown.append(state[f"{colour} cat"][i : i + 1])
                known.append(state[colour][j : j + 1])
        for prompt in dict.fromkeys(e.caption for e in tuning.bench.task.retain.gradient):
            unknown.append(adapter.encode([prompt]).states[0])
            known.append(unknown[-1])
    left, right = torch.cat(unknown).double(), torch.cat(known).double()
    for name in list(reading)[:2]:
        w = dict(adapter.model.named_parameters())[name].detach().double()
        expected = torch.linalg.lstsq(left, right @ w.T, driver="gelsd").solution.T - w
        assert torch.allclose(edits[0].deltas[Slice(name)].double(), expected, atol=1e-3 * expected.abs().max())


def test_in_a_joint_transformer_uce_edits_where_words_and_their_summary_enter(tuned, edits):
    tuning = tuned("sd3")
    (keys, guides, preserved), summaries = read(tuning)
    assert keys.shape == guides.shape and keys.shape[1] == preserved.shape[1] == 32
    assert [len(summary) for summary in summaries] == [2, 2, 6]
    uce(tuning)
    ends = {where.parameter.removeprefix("transformer.") for where in edits[0].deltas}
    assert ends == {"context_embedder.weight", "time_text_embed.text_embedder.linear_1.weight"}
    assert all(delta.abs().max() > 0 for delta in edits[0].deltas.values())


# ---------------------------------------------------------------- DiffQuickFix


@pytest.mark.parametrize("kind, towers", [("sd", ["text"]), ("sdxl", ["text", "text2"]), ("sd3", None)])
def test_one_matrix_of_each_encoder_is_edited_the_first_output_projection(tuned, edits, kind, towers):
    tuning = tuned(kind)
    found = first_projections(tuning)
    assert list(found) == (towers or ["text", "text2", "text3"])
    assert all(
        ".0." in name and name.endswith(("out_proj.weight", "SelfAttention.o.weight")) for name in found.values()
    )
    diffquickfix(tuning)
    assert {where.parameter for where in edits[0].deltas} == set(found.values())


def test_inputs_are_what_the_projection_multiplies(tuned):
    tuning = tuned()
    name = first_projections(tuning)["text"]
    module = tuning.adapter.model.get_submodule(name.removesuffix(".weight"))
    outputs = []
    handle = module.register_forward_hook(lambda _module, _args, output: outputs.append(output))
    found = inputs(tuning, [name], ["red cat", "blue"])[name]
    handle.remove()
    assert torch.allclose(module(found), outputs[0], atol=1e-6) and len(found) == 2
    assert not module._forward_hooks and not module._forward_pre_hooks


def test_the_first_layer_comes_to_answer_the_concept_as_its_anchor(tuned, edits):
    tuning = tuned()
    name = first_projections(tuning)["text"]
    diffquickfix(tuning)
    before = inputs(tuning, [name], ["red cat", "red"])[name]
    tokenizer, length = tuning.adapter.tokenizers()[0]
    own, beside = positions(tokenizer, length, "red cat", "red")
    w = tuning.weights([name])[name]
    asked, wanted = before[0][own], before[1][beside] @ w.T
    gap = lambda weight: (asked @ weight.T - wanted).square().sum().item()  # noqa: E731
    assert gap(w + edits[0].deltas[Slice(name)]) < 0.2 * gap(w)


# ---------------------------------------------------------------- SLUG


def test_slug_edits_queries_keys_and_values_together_over_the_published_lengths(tuned, monkeypatch):
    seen = []
    monkeypatch.setattr(Tuning, "check", lambda self, setting, patch: seen.append((setting, patch)))
    slug(tuned())
    heads = [(setting, patch) for setting, patch in seen if ".q_proj." in str(patch.deltas.keys())]
    assert heads and all(len(patch.deltas) == 3 for _, patch in heads)
    assert [setting["length"] for setting, _ in seen[:2]] == pytest.approx([0.4, 0.2])  # no answer: bisected below it


# ---------------------------------------------------------------- trained


def test_the_opposite_by_hand():
    concept, empty = torch.tensor([4.0, 1.0]), torch.tensor([1.0, 1.0])
    assert opposite(concept, empty, 1.0).tolist() == [-2.0, 1.0]  # 2 v(empty) - v(concept)
    assert opposite(concept, empty, 0.0).tolist() == [1.0, 1.0]


def test_esd_starts_twice_the_guidance_away_from_its_goal(tuned):
    tuning = tuned()
    points = tuning.bench.points("forget", "gradient")
    concept, empty = (Prompted(tuning, points, [text] * len(points)) for text in ("a cat", ""))
    v, v_empty = concept.frozen(), empty.frozen()
    rows = tuning.draw(len(points), 4, "points/1")
    loss = towards(tuning, concept, opposite(v, v_empty, 1.0))(1)
    expected = 4 * (v - v_empty)[rows].square().mean()
    with torch.no_grad():
        assert loss().item() == pytest.approx(expected.item(), rel=1e-4) and expected > 0


def test_an_edit_at_esds_own_goal_is_chosen_where_the_judge_sees_nothing_in_its_pictures(tuned, monkeypatch):
    tuning = tuned()
    bench = copy.copy(tuning.bench)
    concept, anchor = bench._rivals_of("forget", "search")[:, :2].unbind(1)
    empty = anchor + 0.8 * (concept - anchor)  # without words the model draws much like the concept
    v = {"forget": opposite(concept, empty, 1.0), "retain": bench._rivals_of("retain", "search")[:, 0]}
    monkeypatch.setattr(bench, "_now", lambda side, *_: v[side], raising=False)
    sees = []
    monkeypatch.setattr(bench, "_gone", lambda stop: not sees.append(1), raising=False)
    bench.judge = "sees nothing"
    tuning = Tuning(tuning.adapter, bench, Budget(1, 1), 0.125, batch=4)
    name = trained_tensors(tuning.adapter)[0]
    at_goal = Patch({Slice(name): torch.zeros_like(tuning.weights([name])[name])})
    tuning.check({"learning rate": 1e-4}, at_goal)
    found = tuning.trials[0].evaluation
    assert found.forget_accuracy.value == 1.0 and found.association == pytest.approx(2 * 0.8 - 1, abs=1e-4)
    trial, patch, reached = tuning.choose()
    assert reached and patch is at_goal and trial.setting == {"learning rate": 1e-4} and sees == [1]
    bench.judge = None
    assert not tuning.choose()[2]


def test_esd_trains_all_of_cross_attention_and_moves_predictions_towards_the_goal(tuned, edits):
    tuning = tuned()
    tuning.budget = Budget(3, 1)
    points = tuning.bench.points("forget", "gradient")
    concept = Prompted(tuning, points, ["a cat"] * len(points))
    goal = opposite(concept.frozen(), Prompted(tuning, points, [""] * len(points)).frozen(), 1.0)
    before = (concept.frozen() - goal).square().mean()
    esd(tuning)
    assert {where.parameter for where in edits[-1].deltas} == set(trained_tensors(tuning.adapter))
    assert all(".attn2." in name for name in trained_tensors(tuning.adapter))
    with edits[-1].applied(tuning.adapter.model), torch.no_grad():
        after = (concept.predict(torch.arange(len(points))) - goal).square().mean()
    assert after < before


def test_concept_ablation_learns_on_pictures_drawn_for_the_anchors(tuned, monkeypatch):
    tuning = tuned()
    asked = []
    draw = type(tuning.adapter).draw

    def recorded(self, prompts, seeds, **options):
        asked.extend(prompts)
        return draw(self, prompts, seeds, **options)

    monkeypatch.setattr(type(tuning.adapter), "draw", recorded)
    points = anchor_points(tuning)
    assert asked == ["red", "blue"] and len(points) == 4
    assert [e.anchor for e in points.examples] == ["red", "red", "blue", "blue"]
    assert len(set(points.timesteps.tolist())) == 4
    concept, anchor = (
        Prompted(tuning, points, [getattr(e, k) for e in points.examples]) for k in ("caption", "anchor")
    )
    loss = towards(tuning, concept, anchor.frozen())(1)
    with torch.no_grad():
        assert loss().item() == pytest.approx((concept.frozen() - anchor.frozen()).square().mean().item(), rel=1e-4)
    assert {name.split(".")[-2] for name in keys_and_values(tuning)} == {"to_k", "to_v"}
    assert len(keys_and_values(tuning)) == 8 and len(keys_and_values(tuned("sd3"))) > 0


def test_an_anchor_that_leaves_everything_out_is_drawn_as_a_picture_of_anything(tuned, monkeypatch):
    from dataclasses import replace

    tuning = tuned()
    bench = type("Bench", (), dict(vars(tuning.bench)))()
    forget = tuple(replace(e, anchor="") for e in bench.task.forget.gradient)
    bench.task = replace(bench.task, forget=replace(bench.task.forget, gradient=forget))
    monkeypatch.setattr(tuning, "bench", bench)
    monkeypatch.setattr(ablation_module, "UNSAID", "a thing")
    assert len(anchor_points(tuning)) == 4


def test_guidance_by_hand():
    assert guided(torch.tensor(3.0), torch.tensor(1.0)).item() == pytest.approx(8.5 * 3 - 7.5)


def test_salun_on_a_pipeline_moves_two_fifths_of_cross_attention(tuned, edits):
    tuning = tuned()
    salun_diffusion(tuning)
    moved = [delta != 0 for delta in edits[0].deltas.values()]
    share = sum(m.sum().item() for m in moved) / sum(m.numel() for m in moved)
    assert share == pytest.approx(0.4, abs=0.01)


def test_saluns_objective_on_a_pipeline_is_the_anchors_prediction_and_a_share_of_retention(tuned, monkeypatch):
    tuning, asked = tuned(), []
    monkeypatch.setattr(salun_module, "train", lambda _, setting, __, both, masks: asked.append((setting, both)))
    salun_diffusion(tuning)
    points = tuning.bench.points("forget", "gradient")
    v, goal = (
        Prompted(tuning, points, [getattr(e, k) for e in points.examples]).frozen() for k in ("caption", "anchor")
    )
    rows = tuning.draw(len(points), 4, "points/1")
    with torch.no_grad():
        retain = tuning.bench.scoring_terms(1)["retain"]().item()
        away = (v - goal)[rows].square().mean().item()
        for setting, both in asked:
            assert both(1)().item() == pytest.approx(away + setting["retain weight"] * retain, rel=1e-4)
    assert away > 0 and {setting["retain weight"] for setting, _ in asked} == {0.3, 1.0}
