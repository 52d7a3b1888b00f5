"""A growth written to disk and read back is the same growth, and a broken file is one sentence."""

import json

import pytest
import torch

from razor.config import RazorConfig
from razor.errors import InputError
from razor.growth import Growth
from razor.saved import TABLE, TENSORS, config_of, read_note, restore, save

CONFIG = RazorConfig(inner_steps=2, start_units=2)


def same(a, b):
    return a.deltas.keys() == b.deltas.keys() and all(torch.equal(d, b.deltas[w]) for w, d in a.deltas.items())


@pytest.fixture
def grown(trained, task):
    """Two rounds, a branch, and changes by hand."""
    growth = Growth(trained, task, CONFIG)
    growth.next_round()
    growth.next_round()
    growth.go(1)
    growth.history.branch_from("By hand", 1)
    growth.scores()
    growth.act("out", growth.edit_set.members[:1])
    growth.act("in", ["image.1.mlp"])
    growth.act("ban", ["text.1.mlp"])
    growth.set_strength(0.9)
    return growth


def test_a_saved_growth_comes_back_bit_for_bit(grown, trained, task, tmp_path):
    save(grown, tmp_path, {"target": "colour:red"})
    again = Growth(trained, task, config_of(tmp_path))
    restore(again, tmp_path)
    assert again.config == CONFIG and again.edit_set == grown.edit_set
    assert again.history.branches == grown.history.branches and again.history.position == grown.history.position
    assert same(again.patch, grown.patch)
    for tip in again.history.branches.values():
        again.go(tip), grown.go(tip)
        assert same(again.patch, grown.patch)
        assert [r.reason for r in again.rounds] == [r.reason for r in grown.rounds]
    assert [s.phi for s in again.shown_scores()] == pytest.approx([s.phi for s in grown.shown_scores()])


def test_the_note_tells_what_was_saved_and_no_picture_or_caption_is_in_it(grown, task, tmp_path):
    save(grown, tmp_path, {"target": "colour:red"})
    assert read_note(tmp_path) == {"target": "colour:red", "concept": "red", "rounds": 2}
    text = (tmp_path / TABLE).read_text()
    assert not any(e.source in text for e in task.forget.all()) and "on the left" not in text


def test_another_model_or_concept_is_refused(grown, trained, wrap, make_clip, make_task, tmp_path):
    save(grown, tmp_path)
    other = Growth(trained, make_task("blue"), CONFIG)
    with pytest.raises(InputError, match=r"^These rounds forget red, not blue"):
        restore(other, tmp_path)
    model = wrap(make_clip(seed=5))
    with pytest.raises(InputError, match=r"^These rounds were grown on tiny; load that model"):
        restore(Growth(model, make_task("red"), CONFIG), tmp_path)


@pytest.mark.parametrize("damage", ["missing", "garbage", "half", "tensors"])
def test_a_broken_file_is_one_sentence(grown, trained, task, tmp_path, damage):
    save(grown, tmp_path)
    if damage == "missing":
        (tmp_path / TABLE).unlink()
    elif damage == "garbage":
        (tmp_path / TABLE).write_text("{")
    elif damage == "half":
        table = json.loads((tmp_path / TABLE).read_text())
        del table["states"][0]["edit_set"]
        (tmp_path / TABLE).write_text(json.dumps(table))
    else:
        (tmp_path / TENSORS).write_bytes(b"no tensors")
    fresh = Growth(trained, task, CONFIG)
    with pytest.raises(InputError, match=r"start a new run\.$"):
        restore(fresh, tmp_path)
    assert fresh.rounds == [] and fresh.edit_set.members == ()


def test_a_unit_put_in_and_out_by_hand_comes_back_bit_for_bit_after_reading(trained, task, tmp_path):
    growth = Growth(trained, task, CONFIG)
    growth.scores()
    growth.act("in", ["text.0.mlp"])
    before = growth.patch
    growth.act("out", ["text.0.mlp"])
    save(growth, tmp_path)
    again = Growth(trained, task, CONFIG)
    restore(again, tmp_path)
    again.act("in", ["text.0.mlp"])
    assert same(again.patch, before)


def test_numbers_come_back_unrounded(grown, trained, task, tmp_path):
    save(grown, tmp_path)
    again = Growth(trained, task, CONFIG)
    restore(again, tmp_path)
    assert again.history.states[1].evaluation == grown.history.states[1].evaluation
