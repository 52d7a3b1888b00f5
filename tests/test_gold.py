"""Distance to a model that never saw the target: measures by hand, and a stand-in that an edit comes nearer to."""

import random
from dataclasses import replace

import pytest
import torch

from components.check_panel import gold_html
from razor import gold as module
from razor.baselines import run
from razor.gold import Between, alignment, blocks, cka, jensen_shannon, seen, way
from razor.minicanvas.__main__ import main
from razor.minicanvas.dataset import parse_target
from razor.minicanvas.pictures import Pictures
from razor.patches import Patch
from razor.telling import gold_text


def test_divergence_by_hand():
    p = torch.tensor([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]])
    q = torch.tensor([[0.0, 1.0], [0.5, 0.5], [0.5, 0.5]])
    # the third: (1 log2(1 / .75) + .5 log2(.5 / .75) + .5 log2(.5 / .25)) / 2
    assert jensen_shannon(p, q).tolist() == pytest.approx([1.0, 0.0, 0.311278], abs=1e-6)
    assert torch.equal(jensen_shannon(p, q), jensen_shannon(q, p))


def test_alignment_is_blind_to_rotation_and_scale_and_sees_the_rest():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 6, generator=generator)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0]
    assert cka(x, 3 * x @ turn + 5) == pytest.approx(1.0)
    assert cka(x, torch.randn(200, 6, generator=generator)) < 0.1
    assert cka(x[:, :1], torch.zeros(200, 2)) == 0.0


def test_alignment_by_hand():
    # Centred, x is (-1, 0, 1) and y (-1, 2, -1): at right angles. z is (-2, -2, 4): x.z = 6, |x||z| = sqrt(2 24)
    x, y, z = (torch.tensor(column)[:, None] for column in ([0.0, 1.0, 2.0], [0.0, 3.0, 0.0], [0.0, 0.0, 6.0]))
    assert cka(x, y) == pytest.approx(0) and cka(x, z) == pytest.approx(36 / 48)


def test_an_alignment_has_the_interval_of_a_jackknife():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 2, generator=generator)
    noisy = x + torch.randn(400, 2, generator=generator)
    wide, narrow = alignment(x[:50], noisy[:50]), alignment(x, noisy)
    assert (wide.n, narrow.n) == (50, 400) and narrow.value == cka(x, noisy)
    assert 0.05 < narrow.high - narrow.low < wide.high - wide.low < 0.6
    assert (alignment(x[:2], x[:2]).low, alignment(x[:2], x[:2]).high) == (0, 1)


def test_the_way_to_gold_has_a_paired_interval():
    before = torch.linspace(0.5, 1.0, 40)
    half = way(before, before / 2)
    assert (half.value, half.n) == (
        pytest.approx(0.5),
        40,
    ) and half.high - half.low < 1e-6  # half of it on every picture
    some = way(before, torch.where(torch.arange(40) % 2 > 0, before, 0.0))
    assert some.low < 0.42 < some.value < 0.58 < some.high
    assert way(torch.zeros(5), torch.ones(5)) is None


@pytest.fixture(scope="module")
def ignorant(wrap, make_clip, trained, task):
    """A stand-in for a gold model: the trained one with red projected out of its pictures."""
    edit = run("null-space", trained, task).patch
    twin = wrap(make_clip(), "gold")
    with edit.applied(trained.model):
        twin.model.load_state_dict(trained.model.state_dict())
    return twin, edit


def test_the_original_is_at_0_and_the_gold_model_itself_at_1(trained, task, ignorant, weights_of, same_weights):
    gold, edit = ignorant
    before = weights_of(trained.model)
    placed = Between(trained, gold, task)
    nothing, whole, half = (placed.distance(patch) for patch in (Patch(), edit, edit.scaled(0.5)))
    assert nothing.place("forget") == 0 and whole.place("forget") == pytest.approx(1.0)
    assert 0 < half.place("forget") < 1
    assert whole.agreement["forget"].value == 1.0 > 0.3 > nothing.agreement["forget"].value
    assert whole.divergence["retain"].value == pytest.approx(0, abs=1e-5)
    assert same_weights(trained.model, before) and not any(b._forward_hooks for b in blocks(trained.model.visual))
    told = half.to_json()
    assert (
        told["place"]["forget"] == half.place("forget")
        and len(told["similarity"]) == len(told["similarity_before"]) == 2
    )
    went = half.way["forget"]
    assert went.value == pytest.approx(half.place("forget")) and went.low < went.value < went.high
    assert told["way"]["forget"] == went.to_json() and nothing.way["forget"].value == 0
    captions = {e.caption for side in (task.forget, task.retain) for e in side.test}
    assert [m.n for m in whole.text_similarity] == 2 * [len(captions)]
    assert [m.value for m in whole.text_similarity] == pytest.approx([1.0, 1.0])
    assert [m.value for m in nothing.similarity] == pytest.approx([1.0, 1.0])  # the edit is behind the last block


def test_a_model_is_seen_block_by_block_and_left_without_hooks(trained, task):
    axis, pictures = task.axes[0], [e.image for e in task.forget.test]
    said, states = seen(trained, pictures, axis)
    assert [tuple(s.shape) for s in states] == [(len(pictures), 32)] * 2
    assert torch.allclose(said, trained.classify(pictures, axis), atol=1e-6)
    assert not any(b._forward_hooks for b in blocks(trained.model.visual))


def test_pictures_without_a_class_on_the_axis_are_left_out(trained, task, ignorant):
    unnamed = [replace(e, labels={}) for e in task.retain.test[:3]]
    more = replace(task, retain=replace(task.retain, test=(*task.retain.test, *unnamed)))
    found = [Between(trained, ignorant[0], mine).distance(Patch()) for mine in (more, task)]
    assert found[0] == found[1]


def test_a_pool_without_a_class_never_gives_it(tmp_path):
    data = Pictures.rendered("train", per_pair=1, per_person=1, work=tmp_path)
    for axis, name in (("style", "neon"), ("object", "cat"), ("identity", "Mara Voss")):
        left = data.without(axis, name)
        rows = left.choose(random.Random(0), 2000)
        assert {data.labels[i].get(axis) for i in rows} >= {None} and name not in {
            data.labels[i].get(axis) for i in rows
        }
        assert len(left.people) + len(left.things) < len(data.labels)


def test_only_a_clip_is_trained_without_a_target(capsys):
    for argv, said in (
        (["train", "vlm", "--without", "object:cat"], "--without trains a gold model of mini-clip alone"),
        (["train", "clip", "--without", "object:unicorn"], "unicorn"),
    ):
        with pytest.raises(SystemExit):
            main(argv)
        assert said in capsys.readouterr().err


def test_a_gold_model_lies_beside_the_bundled_ones():
    assert module.folder(parse_target("identity:mara-voss")).name == "mini-clip-without-mara-voss"


def test_only_a_bundled_target_of_the_bundled_model_has_a_gold_model_beside_it(
    trained, task, ignorant, monkeypatch, tmp_path
):
    assert module.beside(trained, task, Patch()) is None  # neither
    bundled = replace(task, origin={"forget": "object:cat", "retain": "minicanvas"})
    monkeypatch.setattr(trained, "name", "mini-clip")
    monkeypatch.setattr(module, "folder", lambda target: tmp_path)
    assert module.beside(trained, bundled, Patch()) is None  # not trained
    (tmp_path / "open_clip_config.json").write_text("{}")
    monkeypatch.setattr(module, "folder", lambda target: tmp_path)
    monkeypatch.setattr(module.models, "load", lambda name, device: ignorant[0])
    found = module.beside(trained, bundled, Patch())
    assert found.place("forget") == 0
    n = found.divergence["forget"].n
    assert "0 % (0 to 0 %) of the way from the original's" in gold_text(found, "red") and f"(n = {n})" in gold_text(
        found, "red"
    )
    shown = gold_html(found, "red")
    assert "Beside a model that never saw red" in shown and gold_html(None, "red") == ""
    for tower in ("image tower", "text tower"):
        assert shown.count(f"<th>{tower}, original</th><th>{tower}, edited</th>") == 1
    assert shown.count("n = ") >= 2 + 8 + 8
