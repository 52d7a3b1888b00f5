"""How the judge is trained and scored, on three pictures and for two steps."""

import json

import numpy as np
import pytest
import torch

from razor.minicanvas import judge
from razor.minicanvas.dataset import AXES, draw
from razor.minicanvas.pictures import PIXELS, Pictures

PERSON = AXES["identity"][0]
LABELS = [{"object": "cat", "style": "mosaic"}, {"object": "boat", "style": "photo"}, {"identity": PERSON}]


@pytest.fixture
def three(monkeypatch):
    """Three pictures in place of every pool."""
    pixels = np.stack([np.asarray(draw(labels, "judge", 0).resize((PIXELS, PIXELS))) for labels in LABELS])
    made = Pictures(pixels, LABELS)
    monkeypatch.setattr(Pictures, "rendered", classmethod(lambda cls, *a, **k: made))
    return made


def test_accuracy_counts_right_answers_among_pictures_that_have_one(three):
    said = {"object": ["cat", "cat", "cat"], "style": ["mosaic", "photo", "photo"], "identity": [None, None, None]}

    def answers(pixels):
        rows = {axis: [(*AXES[axis], None).index(name) for name in names] for axis, names in said.items()}
        return {axis: torch.eye(len(AXES[axis]) + 1)[found] for axis, found in rows.items()}

    assert judge.accuracy(answers, three) == {
        "object": {"value": 0.5, "n": 2},
        "style": {"value": 1.0, "n": 2},
        "identity": {"value": 0.0, "n": 1},
    }


def test_training_writes_a_judge_that_reads_pictures_and_the_same_one_again(three, tmp_path):
    told = {"steps": 2, "batch": 3, "seed": 0, "work": tmp_path / "work"}
    card = judge.train_judge(**told, out=tmp_path / "first")
    judge.train_judge(**told, out=tmp_path / "again")
    assert json.loads((tmp_path / "first" / "card.json").read_text()) == card
    assert {axis: found["n"] for axis, found in card["accuracy"].items()} == {"object": 2, "style": 2, "identity": 1}
    first, again = (judge.load(tmp_path / name) for name in ("first", "again"))
    assert all(map(torch.equal, first.state_dict().values(), again.state_dict().values()))
    seen = judge.read([draw(LABELS[0], "judge", 0)], first)
    assert {axis: names[0] in first.classes[axis] for axis, names in seen.items()} == dict.fromkeys(AXES, True)
