"""Judges say what a picture shows, on the axes they know, and never the wrong way round."""

import pytest
import torch

from razor.errors import ModelError
from razor.examples import Axis
from razor.judges import ClipJudge, WorldJudge
from razor.minicanvas import tasks
from razor.minicanvas.dataset import draw

pytestmark = pytest.mark.usefixtures("one_thread")

SHOWN = [{"object": "cat", "style": "photo"}, {"object": "house", "style": "mosaic"}]


def world(name):
    return next(axis for axis in tasks.axes() if axis.name == name)


# ---------------------------------------------------------------- the bundled judge


def test_the_judge_reads_the_bundled_axes_and_parts_of_them_only():
    judge = WorldJudge()
    assert judge.reads(tasks.axes()) and judge.reads([world("style")])
    assert judge.reads([Axis("object", {"cat": ("a cat",)})])
    assert not judge.reads([Axis("object", {"cat": ("a cat",), "unicorn": ("a unicorn",)})])
    assert not judge.reads([world("object"), Axis("label", {"cat": ("a cat",)})])


def test_the_judge_names_what_is_drawn_on_the_axes_asked_for():
    seen = WorldJudge()([draw(labels, "judge", 3) for labels in SHOWN], tasks.axes())
    assert [{axis: found[axis] for axis in ("object", "style")} for found in seen] == SHOWN
    assert [found["identity"] for found in seen] == ["none", "none"]
    only = WorldJudge()([draw(SHOWN[0], "judge", 3)], [world("style")])
    assert only == [{"style": "photo"}]


def test_a_portrait_shows_no_object():
    name = world("identity").classes[0]
    (found,) = WorldJudge()([draw({"identity": name}, "judge", 3)], tasks.axes())
    assert found["identity"] == name and found["object"] == "none"


def test_no_pictures_give_no_answers(trained):
    assert WorldJudge()([], tasks.axes()) == [] == ClipJudge(trained)([], tasks.axes())


# ---------------------------------------------------------------- CLIP as a stand-in


def test_clip_gives_each_picture_its_most_similar_class_on_every_axis(trained, task):
    judge, examples = ClipJudge(trained), (*task.retain.test[:8], *task.forget.test[:2])
    assert judge.reads(task.axes)
    found = judge([e.image for e in examples], task.axes)
    assert found == [dict(e.labels) for e in examples]  # it was trained to tell them apart
    for axis in task.axes:
        best = trained.classify([e.image for e in examples], axis).argmax(1).tolist()
        assert [seen[axis.name] for seen in found] == [axis.classes[i] for i in best]


@pytest.mark.parametrize("judge", ["the world's", "CLIP"])
def test_memory_that_runs_out_while_judging_is_one_sentence(judge, trained, task, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("razor.minicanvas.judge.read", full)
    monkeypatch.setattr(trained, "classify", full)
    looks = ClipJudge(trained) if judge == "CLIP" else WorldJudge()
    with pytest.raises(ModelError, match=r"^Memory ran out while looking at pictures\. .* as it was\.$"):
        looks([draw(SHOWN[0], "judge", 3)], tasks.axes())


def test_clip_is_named_as_a_stand_in(trained):
    assert ClipJudge(trained).name == "tiny (CLIP similarity, a stand-in for a judge)"
