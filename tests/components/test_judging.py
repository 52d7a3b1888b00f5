"""A CLIP in the place of a judge: named on the page, for one visitor, and said to be a proxy wherever it speaks."""

from types import SimpleNamespace

import pytest
from tiny_drawing import SETTINGS, colour_task, last

import app
from components.session import Sessions
from razor import models
from razor.errors import InputError


@pytest.fixture
def loaded():
    """Names the page asked for, in order."""
    return []


@pytest.fixture
def studio(adapter, trained, tmp_path, monkeypatch, loaded):
    """A page that serves a model that draws, without a judge, and two CLIPs."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))

    def load(name):
        loaded.append(name)
        if name not in ("tiny-sd", "tiny-clip"):
            raise InputError(f"This page serves tiny-sd, tiny-clip; {name} is neither.")
        return adapter if name == "tiny-sd" else trained

    monkeypatch.setattr(models, "load", load)
    return app.build_demo(load, model="tiny-sd", sessions=Sessions(tmp_path))[1]


@pytest.fixture
def visitor(studio):
    def enter(name):
        session = studio.sessions.get(name)
        session.model, session.task = "tiny-sd", colour_task()
        return SimpleNamespace(session_hash=name)

    return enter


def test_the_field_is_there_for_models_that_draw_a_world_of_their_own(studio, adapter, trained, monkeypatch):
    box = studio.page.model.judge_box
    assert studio.comparing(adapter)[box]["visible"] is True
    assert studio.comparing(trained)[box]["visible"] is False
    monkeypatch.setattr(adapter, "of_world", True)
    assert studio.comparing(adapter)[box]["visible"] is False


def test_a_clip_looks_for_the_visitor_who_named_it_and_for_nobody_else(studio, visitor, adapter):
    a, b = visitor("a"), visitor("b")
    done = last(studio.choose_judge(a, " tiny-clip "))
    assert "only a proxy" in done[studio.page.examples.status]
    assert "guessed by tiny (CLIP similarity" in done[studio.page.model.card]
    for request in (a, b):
        last(studio.score(request, *SETTINGS))
    growths = {name: studio.sessions.get(name).growth for name in "ab"}
    assert growths["a"].bench.judge.guesses and growths["b"].bench.judge is None and adapter.judge is None
    assert growths["a"].adapter.model is growths["b"].adapter.model is adapter.model  # no second copy of the weights
    assert studio.sessions.get("a").task is not None  # the examples stay


def test_what_it_says_under_pairs_is_called_a_guess(studio, visitor):
    request, panel = visitor("a"), studio.page.pictures
    last(studio.choose_judge(request, "tiny-clip"))
    done = last(studio.draw_both(request, "original", "now", "", ["target"], 8, 5, 3, 2.0, 16))
    assert "only a proxy" in done[panel.notes] and done[panel.pairs]["judged"].startswith("guessed by tiny")
    easel = studio.sessions.get("a").easel
    last(studio.draw_both(request, "original", "now", "", ["target"], 8, 5, 3, 2.0, 16))
    assert studio.sessions.get("a").easel is easel  # one view, so that pictures are found again


def test_an_empty_name_lets_nobody_look_again_and_another_model_begins_without(studio, visitor):
    request, session = visitor("a"), studio.sessions.get("a")
    last(studio.choose_judge(request, "tiny-clip"))
    done = last(studio.choose_judge(request, ""))
    assert session.judged is None and "Nobody looks" in done[studio.page.examples.status]
    last(studio.choose_judge(request, "tiny-clip"))
    done = last(studio.choose_model(request, "tiny-clip"))
    assert session.judged is None and session.judge == "" and done[studio.page.model.judge] == ""


def test_a_name_the_page_may_not_load_is_refused_and_changes_nothing(studio, visitor, loaded):
    request, session = visitor("a"), studio.sessions.get("a")
    with pytest.warns(UserWarning, match="This page serves tiny-sd, tiny-clip"):
        last(studio.choose_judge(request, "/etc/passwd"))
    assert loaded[-1] == "/etc/passwd" and session.judged is None and session.judge == ""


def test_a_clip_itself_needs_nobody_to_look(studio, visitor):
    request = visitor("a")
    studio.sessions.get("a").model = "tiny-clip"
    with pytest.warns(UserWarning, match="needs no CLIP to look at pictures"):
        last(studio.choose_judge(request, "tiny-clip"))
