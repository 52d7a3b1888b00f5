"""Pictures and words on the map: what an edit leaves alone stays put, and verdicts follow the answers."""

import pytest
import torch

from razor.drift import FORGOTTEN, KEPT, NOT_FORGOTTEN, OVERLY, UNKNOWN, _principal, _verdict, drift
from razor.patches import Patch
from razor.step import edited


@pytest.fixture(scope="module")
def bench(trained, task):
    return trained.bench(task)


def noise(adapter, tower, scale=0.5):
    """Noise on every head of one tower."""
    parameters = dict(adapter.model.named_parameters())
    slices = [s for u in adapter.units(("head",), (tower,)) for s in u.slices]
    generator = torch.Generator().manual_seed(0)
    shapes = {s: s.view(parameters[s.parameter]).shape for s in slices}
    return Patch({s: scale * torch.randn(shape, generator=generator) for s, shape in shapes.items()})


def moved(shown):
    return [entry for entry in shown if entry.before != entry.after]


# ---------------------------------------------------------------- what moves


def test_nothing_moves_without_an_edit(trained, bench):
    found = drift(trained, bench, Patch())
    assert not moved(found.pictures) and not moved(found.words)
    assert found.count(FORGOTTEN) == found.count(OVERLY) == 0
    assert (found.count(NOT_FORGOTTEN), found.count(KEPT)) == (10, 50)  # the probe works before the edit


@pytest.mark.parametrize("tower", ["image", "text"])
def test_an_edit_moves_what_its_tower_embeds_and_nothing_else(trained, bench, tower, weights_of, same_weights):
    weights = weights_of(trained.model)
    found = drift(trained, bench, noise(trained, tower))
    still, moving = (found.words, found.pictures) if tower == "image" else (found.pictures, found.words)
    assert not moved(still) and len(moved(moving)) == len(moving)
    assert same_weights(trained.model, weights)


def test_points_are_projections_of_the_embeddings_worked_out_the_long_way(trained, task, bench):
    patch = noise(trained, "image")
    found = drift(trained, bench, patch, pictures=7)
    images = [getattr(task, p.side).search[p.index].image for p in found.pictures]
    v = trained.embed_images(trained.pixels(images))
    with edited(trained, bench, patch):
        v_after = trained.embed_images(trained.pixels(images))
    t = torch.cat([trained.class_embeddings(axis) for axis in task.axes])
    x = torch.cat([v - v.mean(0), t - t.mean(0)])
    values, vectors = torch.linalg.eigh(x.T.double() @ x.double())
    assert found.explained == pytest.approx((values[[-1, -2]] / values.sum()).tolist(), rel=1e-4)
    for axis in range(2):
        along = vectors[:, -1 - axis].float()
        along = along * along[along.abs().argmax()].sign()
        assert [p.before[axis] for p in found.pictures] == pytest.approx(((v - v.mean(0)) @ along).tolist(), abs=1e-4)
        after = ((v_after - v.mean(0)) @ along).tolist()
        assert [p.after[axis] for p in found.pictures] == pytest.approx(after, abs=1e-4)
        assert [w.before[axis] for w in found.words] == pytest.approx(((t - t.mean(0)) @ along).tolist(), abs=1e-4)


def test_the_map_is_the_same_every_time(trained, bench):
    assert drift(trained, bench, noise(trained, "text")) == drift(trained, bench, noise(trained, "text"))


def test_axes_point_where_their_largest_entry_is_positive():
    x = torch.tensor([[-3.0, 0.1, 0], [3.0, 0.1, 0], [0, 0, 1.0], [0, 0, -1.0]])
    for flip in (1, -1):
        axes, shares = _principal(flip * x)
        assert torch.allclose(axes, torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]), atol=1e-6)
        assert shares == pytest.approx((18 / 20.02, 2 / 20.02))


# ---------------------------------------------------------------- who is shown, and the verdicts


def test_groups_are_forget_neighbours_and_the_rest_each_up_to_the_limit(trained, task, bench):
    found = drift(trained, bench, Patch(), pictures=4)
    assert [p.group for p in found.pictures] == ["forget"] * 4 + ["neighbour"] * 4 + ["retain"] * 4
    for p in found.pictures:
        labels = getattr(task, p.side).search[p.index].labels
        assert (p.axis, p.truth) == ("colour", labels["colour"])
        assert (p.group == "neighbour") == (labels["colour"] in bench.neighbours)
    assert len({(p.side, p.index) for p in found.pictures}) == 12
    assert [(w.axis, w.name) for w in found.words] == [(a.name, c) for a in task.axes for c in a.classes]


def test_answers_are_those_of_the_model_before_and_after(trained, task, bench):
    patch = noise(trained, "text", 1.0)
    found = drift(trained, bench, patch)
    images = [getattr(task, p.side).search[p.index].image for p in found.pictures]
    names = task.axes[0].classes
    guesses = lambda: [names[i] for i in trained.classify(images, task.axes[0]).argmax(1)]  # noqa: E731
    assert [p.answer_before for p in found.pictures] == guesses()
    with edited(trained, bench, patch):
        assert [p.answer_after for p in found.pictures] == guesses()
    assert found.count(OVERLY) > 0
    assert all(p.verdict == _verdict(p.side, p.truth, p.answer_before, p.answer_after) for p in found.pictures)


@pytest.mark.parametrize(
    "side, before, after, verdict",
    [
        ("forget", "cat", "cat", NOT_FORGOTTEN),
        ("forget", "cat", "dog", FORGOTTEN),
        ("forget", "dog", "cat", UNKNOWN),
        ("retain", "cat", "cat", KEPT),
        ("retain", "cat", "dog", OVERLY),
        ("retain", "dog", "cat", UNKNOWN),
    ],
)
def test_verdict_on_a_picture_of_a_cat(side, before, after, verdict):
    assert _verdict(side, "cat", before, after) == verdict
