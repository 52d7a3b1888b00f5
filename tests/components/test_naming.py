"""Forgetting from words alone, without a browser: handlers called as Gradio calls them, on a tiny pipeline."""

import copy
import re
from types import SimpleNamespace

import pytest
from PIL import Image
from tiny_drawing import colour_task, last
from tiny_pipelines import tiny_sd

import app
from components import examples_panel, naming
from components.session import Sessions
from razor import words
from razor.adapters import diffusion
from razor.adapters.diffusion import DiffusionAdapter
from razor.examples import Example, user_task
from razor.minicanvas.dataset import AXES, Target


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    made = DiffusionAdapter(tiny_sd(tmp_path_factory.mktemp("sd")), name="tiny-sd", steps=1, guidance=1.0)
    made.pipeline.set_progress_bar_config(disable=True)
    return made


@pytest.fixture
def studio(adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(words, "SIZES", {"gradient": (3, 6), "search": (3, 6), "test": (3, 6)})
    monkeypatch.setattr(diffusion, "TOGETHER", 9)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))
    return app.build_demo(lambda name: adapter, model="tiny-sd", sessions=Sessions(tmp_path))[1]


@pytest.fixture
def request_of(studio):
    def enter(name):
        studio.sessions.get(name).model = "tiny-sd"
        return SimpleNamespace(session_hash=name)

    return enter


def test_neighbours_are_suggested_and_may_be_edited(studio, request_of):
    *_, shown = studio.suggest(request_of("a"), "Van Gogh", "style")
    kept = shown[studio.page.words.keep].split(", ")
    assert len(kept) == words.NEIGHBOURS + words.OTHERS and "Van Gogh" not in kept
    assert shown[studio.page.words.anchor] == ""


def test_pictures_are_counted_as_the_model_draws_them_and_become_the_task(studio, request_of):
    updates = list(studio.use_words(request_of("a"), "a cat", "object", "something", "a dog, a horse"))
    status = studio.page.examples.status
    said = [update[status] for update in updates if status in update]
    assert re.search("tiny-sd draws what it knows: 27 pictures, (about|less)", said[1])  # before the first is drawn
    assert any("9 of 27 pictures" in line for line in said) and any("27 of 27" in line for line in said)
    assert "27 pictures drawn by tiny-sd itself" in said[-1]
    task = studio.sessions.get("a").task
    assert task.concept == "a cat" and task.neighbours == ("a dog", "a horse")
    assert {e.labels["label"] for e in task.retain.all()} == {"a dog", "a horse"}


def test_names_too_long_for_the_model_are_said_to_be_cut(studio, request_of, adapter):
    *_, shown = studio.use_words(request_of("a"), "a very long cat", "object", "something", "a dog")
    said = shown[studio.page.examples.status]
    assert said.count("is too long: the model does not read") == 3 and "more prompts are too long as well" in said


def test_stop_ends_the_drawing_and_changes_nothing(studio, request_of):
    request, session = request_of("a"), studio.sessions.get("a")
    updates = studio.use_words(request, "a cat", "object", "something", "a dog")
    for update in updates:
        if "9 of 27" in update[studio.page.examples.status]:
            break
    session.stop.set()
    *_, shown = updates  # no warning: it was asked for
    assert (
        "Stopped before all pictures were drawn; nothing was changed" in shown[studio.page.examples.status]
        and session.task is None
    )


@pytest.mark.parametrize(
    ("concept", "keep", "sentence"),
    [("  ", "", "Say what to forget, in words"), ("a cat", "the cats", "cannot be forgotten and kept")],
)
def test_a_name_that_will_not_do_is_one_sentence(studio, request_of, concept, keep, sentence):
    with pytest.warns(UserWarning, match=sentence):
        *_, shown = studio.use_words(request_of("a"), concept, "object", "something", keep)
    assert sentence in shown[studio.page.examples.status]


# The bundled world ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "anchor", "keep", "said"),
    [
        ("style", "", "", ""),
        ("object", "something", " ", ""),
        ("style", "", "cubism", "everything else of it is kept; your list was not used."),
        ("style", "a photo", "", "kept; what to draw instead was not used."),
        ("object", "a boat", "a dog", "kept; your list and what to draw instead were not used."),
    ],
)
def test_what_a_name_of_the_bundled_world_has_no_use_for_is_said(kind, anchor, keep, said):
    text = naming.unused_text(Target("style", "neon"), kind, anchor, keep)
    assert text.endswith(said) and bool(text) == bool(said)
    assert not text or text.startswith(" neon is one of the styles of the bundled world")


def test_the_list_that_was_not_used_stands_in_the_status_line(studio, request_of, adapter, monkeypatch):
    monkeypatch.setattr(adapter, "of_world", True)
    monkeypatch.setattr(words, "bundled_task", lambda adapter, target, **told: colour_task())
    *_, shown = studio.use_words(request_of("a"), "neon", "style", "", "cubism, mosaic")
    assert "your list was not used." in shown[studio.page.examples.status]
    *_, shown = studio.suggest(request_of("a"), AXES["identity"][0], "person")
    assert "one of the people of the bundled world" in shown[studio.page.examples.status]


def test_what_is_drawn_instead_follows_the_kind_until_a_person_types(studio):
    assert studio.kind_chosen("person", "something") == "a person"
    assert studio.kind_chosen("style", "a person") == "" and studio.kind_chosen("object", "") == "something"
    assert studio.kind_chosen("person", "my neighbour") == "my neighbour"


# Own pictures ---------------------------------------------------------------------------------------------------------


def photos(name, green=90):
    made = (Image.new("RGB", (16, 16), (40 * i, green, 200)) for i in range(4))
    return tuple(Example(image, f"a photo of a {name}", {}, f"{name} {i}.png") for i, image in enumerate(made))


def test_own_pictures_take_what_to_draw_instead(studio, request_of):
    request, session = request_of("a"), studio.sessions.get("a")
    session.forget, session.retain = photos("red cat"), photos("tree", green=20)
    last(studio.use_own(request, "red cat", "", "dog", "object", False, []))
    assert {e.anchor for e in session.task.forget.all()} == {"a photo of a dog"}
    last(studio.use_own(request, "red cat", "", "", "object", False, []))
    assert {e.anchor for e in session.task.forget.all()} == {"a photo"}


def test_the_fields_are_there_for_models_that_draw_alone(studio, adapter, trained):
    panel = studio.page.examples
    assert panel.own_anchor.value == "something" and panel.own_named.value is False
    for model, shown in ((adapter, True), (trained, False)):
        found = studio.comparing(model)
        assert [found[field]["visible"] for field in panel.fitted()] == [shown] * 4


@pytest.mark.parametrize("named", [True, False])
def test_own_pictures_are_forgotten_beside_what_is_drawn_of_their_name_or_alone(studio, request_of, named):
    request, session, panel = request_of("a"), studio.sessions.get("a"), studio.page.examples
    session.forget = photos("red cat")
    updates = list(studio.use_own(request, "red cat", "red cat, a dog, a horse", "dog", "object", named, []))
    said = [update.get(panel.status, "") for update in updates]
    assert any(f"draws what it knows: {27 if named else 18} pictures" in line for line in said)
    assert examples_panel.drawn_by(session.task) == "tiny-sd" and session.task.neighbours == ("a dog", "a horse")
    groups = {group["title"]: group for group in last(updates)[panel.gallery]["groups"]}
    assert groups["Forget set"]["note"].startswith("4 pictures")
    drawn = [e for e in session.task.forget.all() if "photo of a red cat" not in e.caption]
    if named:
        assert groups["Drawn from the name"]["note"] == "9 prompts drawn by tiny-sd itself"
        assert "4 pictures of your own and 9 prompts that name" in said[-1]
        assert len(drawn) == 9 and all(e.anchor == e.caption.replace("red cat", "dog") for e in drawn)
    else:
        assert not drawn and "drawn by tiny-sd" in groups["Retain set"]["note"]


def test_labels_are_suggested_beside_own_pictures(studio, request_of):
    *_, shown = studio.suggest_beside(request_of("a"), "red cat", "object")
    names = shown[studio.page.examples.labels].split(", ")
    assert names[0] == "red cat" and len(names) == 1 + words.NEIGHBOURS + words.OTHERS


def test_a_caption_too_long_for_the_model_is_said_to_be_cut(studio, request_of):
    session = studio.sessions.get("a")
    session.forget, session.retain = photos("red cat on the sofa"), photos("tree", green=20)
    done = last(studio.use_own(request_of("a"), "red cat", "", "dog", "object", False, []))
    assert "red cat on the sofa\u201d is too long: the model does not read" in done[studio.page.examples.status]


def test_own_pictures_kept_beside_the_bundled_world_say_so(studio, request_of, adapter, monkeypatch):
    monkeypatch.setattr(adapter, "of_world", True)
    request, session, panel = request_of("a"), studio.sessions.get("a"), studio.page.examples
    session.forget = photos("red cat")
    done = last(studio.use_own(request, "red cat", "", "something", "object", True, []))
    assert "tiny-sd draws the bundled world, which has no &#x27;red cat&#x27;" in done[panel.status]
    gallery = done[panel.gallery]
    assert gallery["finding"].endswith("What is kept is the bundled world, as rendered.")


# Another model --------------------------------------------------------------------------------------------------------


def test_pictures_a_model_drew_go_when_another_is_loaded_and_own_ones_stay(studio, request_of, adapter):
    request, session, panel = request_of("a"), studio.sessions.get("a"), studio.page.examples
    other = copy.copy(adapter)
    other.name = "other-sd"
    studio.load = lambda name: other if name == "other-sd" else adapter
    last(studio.use_words(request, "a cat", "object", "something", "a dog"))
    last(studio.choose_model(request, "tiny-sd"))
    assert session.task.concept == "a cat"  # the same model again
    done = last(studio.choose_model(request, "other-sd"))
    assert session.task is None
    assert "The pictures tiny-sd drew for a cat went with it; name it again" in done[panel.status]
    assert done[panel.story]["value"] == "Forget cat and compare" and "drawn" not in str(done[panel.gallery]["finding"])
    session.task = user_task(
        photos("red cat"), photos("tree", green=20), concept="red cat", origin={"retain": "own pictures"}
    )
    done = last(studio.choose_model(request, "tiny-sd"))
    assert session.task.concept == "red cat" and "went with it" not in done[panel.status]
    assert done[panel.story]["value"] == "Forget red cat and compare"
