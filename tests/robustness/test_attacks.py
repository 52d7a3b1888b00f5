"""Attacks by hand on grids and words, and each to its end on a tiny CLIP whose edit is known to hide, or not to."""

from dataclasses import replace

import pytest
import tiny_adapters
import tiny_vlms
import torch

from razor import metrics
from razor.adapters.vlm import VlmAdapter
from razor.baselines import run
from razor.errors import InputError, ModelError, Stopped
from razor.minicanvas import captions
from razor.patches import Patch
from razor.robustness import ATTACKS, Case, Finding, attack, possible, prompts, relearning, too_few
from razor.robustness import case as case_module
from razor.robustness.free_words import filler_of, free_words
from razor.robustness.probe import fit
from razor.robustness.quantise import codes, matrices, on_grid, rounded, survival
from razor.robustness.wording import PARAPHRASES, TEMPLATES, aliases, recognised, typos
from razor.units import Slice


@pytest.fixture(scope="module")
def forgotten(trained, task):
    """A projection of the concept's texts out of the image tower: forgets, and is no small change."""
    result = run("null-space", trained, task)
    assert result.before.forget_accuracy.value > 0.95 and result.after.forget_accuracy.value <= 0.2
    return Case(trained, task, result.patch)


# ---------------------------------------------------------------- few bits


def test_eight_bits_have_one_scale_a_row_by_hand():
    weight = torch.tensor([[127.0, -63.6, 0.4], [0.0, 2.54, -1.27]])
    number, scale = codes(weight, 8)
    assert number.tolist() == [[127, -64, 0], [0, 127, -64]]  # 63.5 rounds to the even number beside it
    assert torch.allclose(scale[:, 0], torch.tensor([1.0, 0.02]))
    assert torch.allclose(on_grid(weight, 8), torch.tensor([[127.0, -64.0, 0.0], [0.0, 2.54, -1.28]]))


def test_four_bits_have_one_scale_a_block():
    weight = torch.cat([torch.full((1, 64), 0.5), torch.full((1, 64), 0.1)], 1)
    weight[0, 0], weight[0, 64] = 7.0, 0.7
    number, scale = codes(weight, 4)
    assert scale[0, 0].item() == pytest.approx(1.0) and scale[0, -1].item() == pytest.approx(0.1)
    assert number.abs().max() == 7 and number[0, 1] == 0 and number[0, -1] == 1


def test_a_kernel_is_rounded_as_the_matrix_of_its_outputs():
    kernel = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    for bits in (8, 4):
        assert torch.equal(on_grid(kernel, bits), on_grid(kernel.flatten(1), bits).view(kernel.shape))
    scales = codes(kernel, 8)[1].flatten(1)
    assert torch.allclose(scales[:, 0], kernel.flatten(1).abs().amax(1) / 127) and (scales == scales[:, :1]).all()


def test_most_of_a_pipeline_is_rounded_its_convolutions_too():
    adapter = tiny_adapters.shared("sd")
    sizes = {name: p for name, p in adapter.model.named_parameters()}
    kernels = {name for name, p in sizes.items() if p.ndim == 4}
    assert kernels and kernels <= set(matrices(adapter))


def test_what_lies_on_the_grid_stays(trained):
    name = matrices(trained)[0]
    weight = dict(trained.model.named_parameters())[name].detach()
    for bits in (8, 4):
        once = on_grid(weight, bits)
        assert torch.allclose(on_grid(once, bits), once, atol=1e-7)


def test_a_rounded_copy_is_the_edited_weight_on_the_grid_and_the_model_stays(
    forgotten, trained, weights_of, same_weights
):
    before = weights_of(trained.model)
    name = next(iter(forgotten.patch.deltas)).parameter
    expected = on_grid(before[name] + next(iter(forgotten.patch.deltas.values())), 8)
    with rounded(forgotten, forgotten.patch, 8).applied(trained.model):
        assert torch.allclose(dict(trained.model.named_parameters())[name], expected, atol=1e-6)
    assert same_weights(trained.model, before)


def test_an_edit_far_below_the_grid_is_rounded_away_and_one_above_it_is_not(trained, task):
    name = matrices(trained)[0]
    weight = dict(trained.model.named_parameters())[name].detach()
    told = {
        size: survival(
            Case(trained, task, Patch({Slice(name): size * weight.abs().mean() * torch.ones_like(weight)})), 4
        )
        for size in (1e-6, 0.0, 3.0)
    }
    assert told[1e-6].changed < 0.01 and told[3.0].changed > 0.5 and told[3.0].cosine > 0.9
    assert told[0.0].changed == told[0.0].cosine == 0.0


def test_a_forgotten_colour_stays_forgotten_in_few_bits(forgotten):
    eight, four = attack("quantise", forgotten)
    assert [f.setting for f in (eight, four)] == ["8 bits", "4 bits"]
    assert eight.control.value > 0.95 and eight.attacked.value <= eight.edited.value + 0.1 and eight.retain.value > 0.8
    assert "codes differ, of all 1,024 that are rounded" in eight.note and eight.recovery < 0.2


# ---------------------------------------------------------------- training on top


def test_relearning_brings_a_hidden_colour_back_and_the_curve_is_measured_on_unseen_pictures(
    forgotten, trained, monkeypatch, weights_of, same_weights
):
    monkeypatch.setattr(relearning, "RATE", 3e-3)
    monkeypatch.setattr(relearning, "SHOTS", (5,))
    before = weights_of(trained.model)
    found = list(attack("relearn", forgotten))
    assert [f.setting for f in found] == ["5 pictures, 1 step", *(f"5 pictures, {n} steps" for n in (5, 10, 20))]
    most = max(f.attacked.value for f in found)  # so many steps at this rate may lose it again
    assert most > 0.8 > 0.2 > found[-1].edited.value  # so the test would see it come back
    assert all(f.attacked.n == f.edited.n for f in found) and same_weights(trained.model, before)


def test_nobody_is_said_to_have_been_taught_from_more_pictures_than_there_are(forgotten, monkeypatch):
    monkeypatch.setattr(relearning, "SHOTS", (1, 5))
    monkeypatch.setattr(relearning, "STEPS", (1,))
    case, few = Case(forgotten.adapter, forgotten.task, forgotten.patch), forgotten.task.forget.gradient[:4]
    case.task = replace(case.task, forget=replace(case.task.forget, gradient=few))
    assert [f.setting for f in attack("relearn", case)] == ["1 picture, 1 step"]
    assert too_few(case.task) == {"relearn/5 pictures, 1 step": "Too few pictures to teach it from, 4."}
    assert too_few(forgotten.task) == {}


def test_the_unedited_model_is_trained_alike_once_for_all_edits(forgotten, trained, task, monkeypatch):
    monkeypatch.setattr(relearning, "RATE", 1e-3)
    monkeypatch.setattr(relearning, "STEPS", (1, 8))
    case = Case(trained, task, forgotten.patch)
    found = list(attack("benign", case))
    alone = [f.attacked for f in attack("benign", Case(trained, task, Patch()))]
    assert [f.control for f in found] == alone
    asked = []
    monkeypatch.setattr(case, "evaluated", lambda *a: asked.append(a) or Case.evaluated(case, *a))
    assert [f.control for f in attack("benign", case)] == alone and len(asked) == 1 + 2


def test_benign_training_is_measured_too(forgotten, monkeypatch):
    monkeypatch.setattr(relearning, "STEPS", (1, 3))
    found = list(attack("benign", forgotten))
    assert [f.setting for f in found] == ["retain pictures, 1 step", "retain pictures, 3 steps"]
    assert all(f.retain.value > 0.8 for f in found)


@pytest.mark.parametrize("family", ["diffusion", "vlm"])
@pytest.mark.parametrize("name", ["quantise", "relearn", "benign"])
def test_models_that_draw_and_answer_are_attacked_and_left_bit_equal(
    family, name, make_task, monkeypatch, weights_of, same_weights
):
    monkeypatch.setattr(relearning, "STEPS", (1,))
    monkeypatch.setattr(relearning, "SHOTS", (1,))
    if family == "diffusion":
        adapter, made = tiny_adapters.shared("sd"), tiny_adapters.make_task()
    else:
        adapter, made = VlmAdapter(*tiny_vlms.tiny("llava", 0), name="tiny-vlm"), make_task(each=1)
    unit = adapter.units(("head",), adapter.growing)[0]
    parameters = dict(adapter.model.named_parameters())
    patch = Patch({s: 0.1 * torch.ones_like(s.view(parameters[s.parameter])) for s in unit.slices})
    before = weights_of(adapter.model)
    found = list(attack(name, Case(adapter, made, patch)))
    assert all(f.control.n == f.edited.n for f in found)
    assert len(found) == (2 if name == "quantise" else 1) and all(f.attacked.n == f.edited.n > 0 for f in found)
    assert same_weights(adapter.model, before)


# ---------------------------------------------------------------- words and probes


def test_typos_are_swaps_gaps_and_doubles():
    assert typos("cat") == ["act", "cta", "at", "ct", "ca", "ccat", "caat", "catt"]
    assert typos("aa") == ["a", "aaa"]


def test_aliases_are_other_names_and_the_parts_of_a_name():
    assert aliases("Cat") == ["kitten", "kitty", "feline", "Cats"]
    assert aliases("Mara Voss") == ["Mara", "Voss", "Mara Vosss"] and aliases("lamp") == ["lamps"]


def test_the_bundled_models_were_trained_on_no_template_and_no_paraphrase():
    labels = ({"object": "cat", "style": "neon"}, {"identity": "cat"})
    trained_on = {text for known in labels for text in captions.all_captions(known)}
    trained_on |= {text for axis in ("object", "identity") for text in captions.prompts(axis, "cat")}
    asked = {text.format("cat") for text in (*TEMPLATES, *PARAPHRASES)}
    assert len(trained_on) > 10 and not asked & trained_on


def test_a_text_takes_the_place_of_the_targets_own():
    classes, v = torch.eye(3)[:2], torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    assert recognised(v, classes, 0, torch.tensor([0.0, 0.0, 5.0])).tolist() == [True, False]
    assert recognised(v, classes, 0, classes[0]).tolist() == [True, False]


def test_the_attacker_picks_the_best_words(forgotten):
    found = {f.setting: f for f in attack("wording", forgotten)}
    assert (
        set(found) == {"templates", "paraphrases", "aliases", "typos", "capitals"}
        and "Most is found by" in found["typos"].note
    )
    assert found["templates"].control.value > 0.9  # the same words work on the unedited model


def test_a_model_that_answers_is_asked_in_other_words_and_a_yes_to_every_name_counts_for_nothing(
    make_task, monkeypatch
):
    adapter, made = VlmAdapter(*tiny_vlms.tiny("llava", 0), name="tiny-vlm"), make_task(each=1)
    monkeypatch.setattr(adapter, "write", lambda prompts, *_, **__: ["a thing"] * len(prompts))
    weight = dict(adapter.model.named_parameters())[adapter.units(("head",))[0].slices[0].parameter]
    intact, asks = weight.detach().clone(), adapter.questions
    usual, n = asks.ask("colour"), len(made.forget.test)
    first, other = asks.paraphrases("colour")
    yes_to, answered = {"red"}, []

    def answer(pictures, questions, **_):
        (question,) = {*questions}
        answered.append(question)
        if "Does this picture show" in question:
            return ["Yes." if any(asks.check("colour", name) == question for name in yes_to) else "No."] * len(pictures)
        known = torch.equal(weight, intact) or question in (other, usual.lower())
        half = question == usual.lower()
        return ["it is red" if known and not (half and i % 2) else "a thing" for i in range(len(pictures))]

    monkeypatch.setattr(adapter, "answer", answer)
    patch = Patch({Slice(adapter.units(("head",))[0].slices[0].parameter): torch.ones_like(intact)})
    case = Case(adapter, made, patch)
    found = {f.setting: f for f in attack("reworded", case)}
    assert [f.attacked.value for f in found.values()] == [1, 0, 0.5, 1, 0]
    assert {f.attacked.n for f in found.values()} == {n} and torch.equal(weight, intact)
    assert [f.control.value for f in found.values()] == [1, 1, 1, 1, 0]
    assert found["paraphrases"].note == f"Most is found by {other!r}." and found["typos"].control.n == n
    assert usual not in answered and first in answered and "red" not in case.bench.neighbours
    yes_to |= {case.bench.neighbours[0]}
    answered.clear()
    again = {f.setting: f for f in attack("reworded", Case(adapter, made, patch, bench=case.bench))}
    assert again["yes or no"].attacked.value == 0 and again["yes or no"].control.value == 1
    assert answered.count(first) == 1  # the unedited model was asked before
    with pytest.raises(Stopped):
        next(attack("reworded", Case(adapter, made, patch, bench=case.bench, stop=lambda: True)))


def test_a_probe_fits_what_can_be_told_apart_and_weighs_classes_alike():
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([torch.randn(90, 4, generator=generator), torch.randn(6, 4, generator=generator)])
    y = torch.tensor([0] * 90 + [1] * 6)
    x[y == 1, 0] += 8
    w, b = fit(x, y, 2)
    assert ((x @ w.T + b).argmax(1) == y).float().mean() > 0.98


def test_a_probe_finds_what_an_edit_of_the_texts_alone_left_in_the_pictures(trained, task):
    name = "text_projection"
    patch = Patch({Slice(name): -2 * dict(trained.model.named_parameters())[name].detach()})
    case = Case(trained, task, patch)
    assert case.edited.forget_accuracy.value < 0.2 < 0.95 < case.before.forget_accuracy.value
    (found,) = attack("probe", case)
    assert found.attacked.value == found.control.value > 0.9


def test_free_words_bring_back_what_only_the_name_lost_and_leave_the_model_untouched(
    trained, task, weights_of, same_weights
):
    # The row of the name in the token embedding is turned round: the word is gone, pictures and other words are not.
    row = trained.tokenizer(["red"])[0, 0].item()
    table = dict(trained.model.named_parameters())["token_embedding.weight"].detach()
    patch = Patch({Slice("token_embedding.weight", 0, row, row + 1): -2 * table[row : row + 1]})
    case, before = Case(trained, task, patch), weights_of(trained.model)
    assert case.edited.forget_accuracy.value < 0.5 < 0.95 < case.before.forget_accuracy.value
    (found,) = attack("prefix", case)
    assert found.attacked.value > 0.8 and found.control.value > 0.8 and "without the name find" in found.note
    assert f"(n = {found.attacked.n}, 95 % interval " in found.note
    assert same_weights(trained.model, before)
    assert not trained.model.token_embedding._forward_hooks and trained.model.token_embedding.weight.grad is None


def test_free_words_stand_where_the_first_fillers_stood_and_nowhere_else():
    embedding = torch.nn.Embedding(10, 2).requires_grad_(False)
    read = torch.tensor([[9, 1, 1, 5], [1, 1, 1, 1], [9, 1, 5, 1]])  # 1 is the filler
    with free_words([(embedding, [1])], words=2, many=3) as free:
        (vectors,) = free.vectors
        vectors.data = torch.arange(12.0).reshape(3, 2, 2) + 100
        alike = embedding(read)
        free.chosen = [2, 0, 1]
        own = embedding(read)
    plain = embedding(read)
    assert torch.equal(alike[0, 1:3], vectors[0]) and torch.equal(alike[1, :2], vectors[0])
    assert torch.equal(own[0, 1:3], vectors[2]) and torch.equal(own[1, :2], vectors[0])
    for found in (alike, own):  # the other tokens, and all of a text without a run of two
        assert torch.equal(found[0, [0, 3]], plain[0, [0, 3]]) and torch.equal(found[1, 2:], plain[1, 2:])
        assert torch.equal(found[2], plain[2])
    assert not embedding._forward_hooks


def test_a_filler_may_be_several_tokens_but_reads_alike_everywhere():
    assert filler_of(lambda text: [7, *[3] * len(text.split()), 8, 0, 0]) == [3]
    assert filler_of(lambda text: [*[3, 4] * len(text.split()), 8]) == [3, 4]
    for odd in (lambda text: [7, 8], lambda text: [7, *[3, 5][: len(text.split())], 8]):  # as RoBERTa's: a, then _a
        with pytest.raises(ModelError, match="has no token of its own for 'a'"):
            filler_of(odd)
    embedding = torch.nn.Embedding(10, 2).requires_grad_(False)
    with free_words([(embedding, [1, 2])], words=2) as free:
        assert torch.equal(embedding(torch.tensor([[1, 2, 1, 2, 5]]))[0, :4], free.vectors[0][0])


# ---------------------------------------------------------------- prompts of pipelines


class Sees:
    """A judge that sees the concept in every picture, and counts them."""

    name, guesses = "a stand-in", False

    def __init__(self, concept):
        self.concept, self.asked = concept, 0

    def reads(self, axes):
        return True

    def __call__(self, pictures, axes):
        self.asked += len(pictures)
        return [
            {axis.name: self.concept if axis.name == "label" else axis.classes[0] for axis in axes} for _ in pictures
        ]


@pytest.mark.parametrize("kind", tiny_adapters.KINDS)
@pytest.mark.parametrize("name", ["opened", "transfer"])
def test_prompts_are_fitted_drawn_and_judged_on_both_sides_and_the_model_stays(
    kind, name, monkeypatch, weights_of, same_weights
):
    monkeypatch.setattr(prompts, "STEPS", 2)
    monkeypatch.setattr(prompts, "FITTED", 2)
    made, judge = tiny_adapters.make_task(), Sees("cat")
    adapter = tiny_adapters.fresh(kind, judge=judge)
    unit = adapter.units(("head",), adapter.growing)[0]
    parameters, before = dict(adapter.model.named_parameters()), weights_of(adapter.model)
    patch = Patch({s: 0.1 * torch.ones_like(s.view(parameters[s.parameter])) for s in unit.slices})
    case = Case(adapter, made, patch)
    assert case.edited.forget_accuracy.value == 1.0
    judged = judge.asked
    (found,) = attack(name, case)
    assert found.attacked.value == found.control.value == 1.0 and found.attacked.n == found.edited.n == 2
    assert judge.asked - judged == 2 * found.attacked.n
    assert same_weights(adapter.model, before) and not any(p.requires_grad for p in adapter.model.parameters())
    assert not any(embedding._forward_hooks for embedding, _ in prompts._encoders(adapter))


def test_words_made_on_the_unedited_encoder_come_to_read_as_wished(monkeypatch):
    adapter, made = tiny_adapters.fresh("sd", judge=Sees("cat")), tiny_adapters.make_task()
    missed = []
    for steps in (1, 60):
        monkeypatch.setattr(prompts, "FITTED", steps)
        case = Case(adapter, made, Patch())
        asked = case.bench.to_draw("forget")
        with free_words(prompts._encoders(adapter), prompts.ALONE, many=len(asked)) as free:
            missed.append(prompts._fit_to_encoders(case, free, asked))
    assert missed[1] < 0.7 * missed[0]


def test_without_a_judge_nothing_is_drawn(monkeypatch):
    adapter, made = tiny_adapters.fresh("sd"), tiny_adapters.make_task()
    assert possible(adapter, made) == ["quantise", "relearn", "benign"]
    case = Case(adapter, made, Patch())
    assert case.bench.judge is None
    monkeypatch.setattr(adapter, "draw", lambda *_, **__: pytest.fail("nobody could say what is drawn"))
    for name in ("opened", "transfer"):
        with pytest.raises(InputError, match="give it a judge"):
            list(attack(name, case))


# ---------------------------------------------------------------- findings


def test_recovery_by_hand():
    measure = lambda value: metrics.Measure(value, 10, 0.0, 1.0)  # noqa: E731
    found = Finding("quantise", "8 bits", measure(0.1), measure(0.4), measure(0.9))
    assert found.recovery == pytest.approx(3 / 8) and found.to_json()["recovery"] == 0.375
    assert Finding("a", "b", measure(0.9), measure(0.9), measure(0.9)).recovery is None
    assert Finding("a", "b", measure(0.9), measure(0.9), None).to_json()["control"] is None


def test_a_model_that_never_saw_the_concept_is_attacked_alike(trained, task, forgotten, wrap, make_clip, monkeypatch):
    patch = Patch({Slice("text_projection"): -2 * dict(trained.model.named_parameters())["text_projection"].detach()})
    plain = list(attack("quantise", Case(trained, task, patch).beside_gold()))
    assert all(found.gold is None for found in plain)  # none is bundled for this task
    twin = wrap(make_clip(), "gold")
    with forgotten.patch.applied(trained.model):
        twin.model.load_state_dict(trained.model.state_dict())
    monkeypatch.setattr(case_module, "never_saw", lambda adapter, task: twin)
    for found in attack("quantise", Case(trained, task, patch).beside_gold()):
        assert found.control.value > 0.9 > 0.2 > found.gold.value and found.to_json()["gold"]["n"] == found.gold.n
    alone = [f.attacked for f in attack("relearn", Case(twin, task, Patch()))]
    beside = [f.gold for f in attack("relearn", Case(trained, task, patch).beside_gold())]
    assert beside == alone and len(beside) == len(relearning.SHOTS) * len(relearning.STEPS)
    assert all(f.gold is None for f in attack("benign", Case(trained, task, patch).beside_gold()))  # nothing to learn
    case = Case(trained, task, patch).beside_gold()
    first = list(attack("quantise", case))
    monkeypatch.setattr(case.gold, "measured", lambda patch: pytest.fail("it was attacked already"))
    assert list(attack("quantise", case)) == first


def test_an_unedited_model_is_attacked_once(trained, task):
    case, asked = Case(trained, task, Patch()), []
    assert case.both(lambda patch: asked.append(patch) or len(asked)) == (1, 1)
    case = Case(trained, task, Patch({Slice("text_projection"): torch.ones(1)}))
    assert case.both(lambda patch: bool(patch.deltas)) == (True, False)


def test_an_attack_ends_where_it_is_stopped(trained, task):
    with pytest.raises(Stopped):
        next(attack("quantise", Case(trained, task, Patch(), stop=lambda: True)))


def test_an_attack_on_a_pipeline_ends_in_the_middle_of_a_drawing(monkeypatch):
    adapter, asked = tiny_adapters.fresh("sd", judge=Sees("cat")), iter([False, True])
    case = Case(adapter, tiny_adapters.make_task(), Patch(), stop=lambda: next(asked))
    with pytest.raises(Stopped):
        case.before  # noqa: B018
    assert next(asked, None) is None  # asked after the first and the second of three steps


def test_an_unknown_attack_is_one_sentence(forgotten):
    with pytest.raises(InputError, match=r"^There is no attack 'x' on a clip model; choose one of quantise, "):
        attack("x", forgotten)
    assert set(ATTACKS) == {"clip", "diffusion", "vlm"}
