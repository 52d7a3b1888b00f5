"""CLIP as the library sees it: its numbers against slow counting by hand, its shortcuts against the long way."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from razor.adapters.clip import MARGIN, ClipAdapter
from razor.patches import Patch
from razor.step import edited_towers, evaluate

BOTH = ("image", "text")


@pytest.fixture
def bench(trained, task):
    bench = trained.bench(task)
    for split in ("search", "test"):
        bench.evaluate(split, ())
    return bench


def random_patch(adapter, tower, scale=0.3):
    """Noise on every head of one tower."""
    generator = torch.Generator().manual_seed(0)
    parameters = dict(adapter.model.named_parameters())
    slices = [s for unit in adapter.units(("head",), (tower,)) for s in unit.slices]
    shapes = {s: s.view(parameters[s.parameter]).shape for s in slices}
    return Patch({s: scale * torch.randn(shape, generator=generator) for s, shape in shapes.items()})


def slow_guesses(adapter, example, axes):
    """The class of one picture on every axis, one text at a time."""
    with torch.no_grad():
        v = adapter.model.encode_image(adapter.preprocess(example.image)[None])[0]
        answers = {}
        for axis in axes:
            closeness = {}
            for name, prompts in axis.prompts.items():
                texts = [F.normalize(adapter.model.encode_text(adapter.tokenizer([p]))[0], dim=0) for p in prompts]
                closeness[name] = F.cosine_similarity(v, torch.stack(texts).mean(0), dim=0).item()
            answers[axis.name] = max(closeness, key=closeness.get)
    return answers


# ---------------------------------------------------------------- embeddings


def test_classify_gives_each_picture_shares_that_sum_to_one(trained, task):
    shares = trained.classify([e.image for e in task.retain.test[:7]], task.axes[0])
    assert shares.shape == (7, 6) and torch.allclose(shares.sum(1), torch.ones(7))


def test_embeddings_do_not_depend_on_the_batch(trained, task, monkeypatch):
    pixels = trained.pixels([e.image for e in task.forget.test])
    whole = trained.embed_images(pixels)
    monkeypatch.setattr("razor.adapters.clip.EVAL_BATCH", 3)
    assert torch.allclose(trained.embed_images(pixels), whole, atol=1e-6)
    assert torch.allclose(whole.norm(dim=1), torch.ones(len(pixels)))


def test_fingerprint_changes_with_any_weight_and_only_then(trained):
    same, other = (
        ClipAdapter(copy.deepcopy(trained.model), trained.preprocess, trained.tokenizer, name="twin") for _ in range(2)
    )
    with torch.no_grad():
        other.model.visual.proj[0, 0] += 1e-4
    assert same.fingerprint() == trained.fingerprint() != other.fingerprint()


def test_units_of_one_tower_stay_in_it(trained):
    for tower in BOTH:
        units = trained.units(("head", "mlp", "layer"), (tower,))
        assert units and {trained.tower_of(s.parameter) for u in units for s in u.slices} == {tower}


# ---------------------------------------------------------------- metrics


@pytest.mark.parametrize("edit", [None, "image", "text"])
def test_metrics_equal_counting_by_hand(trained, task, bench, edit):
    patch = random_patch(trained, edit) if edit else Patch()
    now = evaluate(trained, bench, patch, "test")
    with patch.applied(trained.model):
        forget = [(e, slow_guesses(trained, e, task.axes)) for e in task.forget.test]
        retain = [(e, slow_guesses(trained, e, task.axes)) for e in task.retain.test]
    near = [(e, g) for e, g in retain if e.labels["colour"] in bench.neighbours]
    mean = lambda hits: sum(hits) / len(hits)  # noqa: E731
    assert now.forget_accuracy.value == mean([g["colour"] == "red" for _, g in forget])
    assert now.retain_accuracy.value == mean([g[axis] == e.labels[axis] for e, g in retain for axis in g])
    assert now.neighbor_accuracy.value == mean([g["colour"] == e.labels["colour"] for e, g in near])
    assert now.cross_accuracy.value == mean([g["side"] == e.labels["side"] for e, g in forget])


@pytest.mark.parametrize("tower", BOTH)
def test_frozen_features_of_the_other_tower_change_no_number(trained, bench, tower):
    patch = random_patch(trained, tower)
    assert edited_towers(trained, patch) == (tower,)
    with patch.applied(trained.model):
        assert bench.evaluate("search", (tower,)) == bench.evaluate("search", BOTH)


def test_known_neighbours_are_used_and_else_the_nearest_texts_are(trained, task, make_task):
    assert "red" not in trained.bench(task).neighbours and len(trained.bench(task).neighbours) == 2
    assert trained.bench(replace(make_task(), neighbours=("white",))).neighbours == ("white",)


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("tower", BOTH)
def test_losses_with_one_tower_frozen_equal_those_with_both(trained, bench, tower):
    with random_patch(trained, tower).applied(trained.model), torch.no_grad():
        short, long = (bench.step_terms(3, edited) for edited in ((tower,), BOTH))
        for side in ("forget", "keep"):
            assert short[side]().item() == pytest.approx(long[side]().item(), rel=1e-4)


def test_drift_is_silent_on_the_frozen_model_and_counts_after_an_edit(trained, task):
    without, weighted = (trained.bench(task, mismatch_weight=weight) for weight in (0.0, 10.0))
    with torch.no_grad():
        costs = [bench.step_terms(1)["keep"]().item() for bench in (without, weighted)]
        assert costs[0] == pytest.approx(costs[1], abs=1e-4)
        with random_patch(trained, "image").applied(trained.model):
            costs = [bench.step_terms(1)["keep"]().item() for bench in (without, weighted)]
            assert costs[1] > costs[0] + 0.1


def test_batches_depend_on_seed_and_step_alone(trained, task):
    with torch.no_grad():
        cost = lambda seed, step: trained.bench(task, batch=8, seed=seed).step_terms(step)["keep"]().item()  # noqa: E731
        assert cost(0, 1) == cost(0, 1)
        assert len({cost(0, 1), cost(0, 2), cost(1, 1)}) == 3


def test_scoring_losses_use_every_forget_picture(trained, task, bench):
    with torch.no_grad():
        v = trained.embed_images(trained.pixels([e.image for e in task.forget.gradient]))
        t = trained.class_embeddings(task.axes[0])[0]
        assert bench.scoring_terms()["forget"]().item() == pytest.approx((1 - v @ t).mean().item(), abs=1e-5)


@pytest.mark.parametrize("scale", [0.0, 0.1, 0.3, 0.6])
def test_pictures_another_class_claims_by_the_margin_are_pushed_no_further(trained, task, bench, scale):
    with random_patch(trained, "image", scale).applied(trained.model), torch.no_grad():
        v = trained.embed_images(trained.pixels([e.image for e in task.forget.gradient]))
        red, *others = (v @ trained.class_embeddings(task.axes[0]).T).T  # red is the first class
        floor = torch.stack(others).amax(0) - MARGIN / trained.scale
        expected = (1 - torch.maximum(red, floor)).mean().item()
        assert bench.step_terms(1)["forget"]().item() == pytest.approx(expected, abs=1e-5)
