"""What other programs call, on a tiny CLIP: results without a session, and mistakes as one sentence."""

import errno
import time
from pathlib import Path

import gradio as gr
import pytest
import torch
from gradio.utils import get_function_description, get_upload_folder
from gradio_client.utils import json_schema_to_python_type
from tiny_adapters import shared

from components import endpoints
from components.session import OWN
from razor import writing
from razor.adapters import diffusion
from razor.errors import InputError
from razor.patches import Patch
from razor.picture_files import read_png


@pytest.fixture(scope="module")
def calls(trained, task):
    """name -> endpoint, on the tiny model and task."""

    def load(name):
        if name not in ("tiny", "tiny sd"):
            raise InputError(f"No model {name!r}.")
        return trained if name == "tiny" else shared("sd")

    with gr.Blocks() as demo:
        endpoints.add(load, {})
    return {fn.api_name: fn.fn for fn in demo.fns.values()}


@pytest.fixture(autouse=True)
def known_task(monkeypatch, task, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))
    monkeypatch.setattr(endpoints, "resolve", lambda *_, **__: (task, ()))


def sent(path: Path) -> dict:
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def exports():
    """What endpoints wrote for callers and still keep."""
    return [*Path(get_upload_folder()).glob(f"{OWN}*")]


@pytest.fixture
def head(trained):
    """One head of the tiny model, and a change of it."""
    unit, parameters = trained.units(("head",))[0], dict(trained.model.named_parameters())
    return Patch({where: torch.full_like(where.view(parameters[where.parameter]), 0.1) for where in unit.slices})


@pytest.fixture
def stranger(head):
    """The same change as a patch that was made for other weights, as a client sends it."""
    path = Path(get_upload_folder()) / "stranger.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    Patch(head.deltas, {}, {where.parameter: "0" * 16 for where in head.deltas}).save(path)
    return sent(path)


@pytest.fixture
def uploaded(task):
    """Two pictures as a client sends them."""
    folder = Path(get_upload_folder())
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"tiny-upload-{i}.png" for i in range(2)]
    for example, path in zip(task.forget.test, paths, strict=False):
        example.image.save(path)
    return [sent(path) for path in paths]


def test_units_are_ranked_and_the_caller_may_change_the_settings(calls, trained):
    plain, other = (calls["score"]("tiny", "object:x", settings=s) for s in ({}, {"alpha": 0.0}))
    assert [u["rank"] for u in plain["units"]] == list(range(1, len(plain["units"]) + 1))
    assert plain["concept"] == "red" and {u["phi"] for u in plain["units"]} != {u["phi"] for u in other["units"]}


def test_a_run_tells_its_rounds_then_its_numbers_and_hands_over_the_patch(
    calls, trained, uploaded, weights_of, same_weights
):
    before = weights_of(trained.model)
    *rounds, (run, file) = calls["unlearn"]("tiny", "object:x", settings={"retain_budget": 0.3, "rounds": 2})
    assert rounds and all(said["round"] and nothing is None for said, nothing in rounds)
    assert run["before"]["forget_accuracy"]["value"] > 0.8 > run["after"]["forget_accuracy"]["value"]
    assert Patch.load(Path(file["path"])).parameters_edited == run["parameters_edited"] > 0
    said = calls["predict"](["red", "blue"], "tiny", uploaded, file)
    assert len(said["before"]) == len(said["after"]) == 2
    assert sum(said["before"][0].values()) == pytest.approx(1, abs=1e-5) and said["before"] != said["after"]
    assert list(calls["predict"](["red", "blue"], "tiny", uploaded)) == ["before"]
    made = calls["export"](file, "tiny")
    assert Patch.load(Path(made["path"])).key() == Patch.load(Path(file["path"])).key()
    assert same_weights(trained.model, before)


def test_a_patch_of_other_weights_is_refused_unless_it_is_to_be_taken_anyway(calls, trained, uploaded, head, stranger):
    for call, given in (("predict", {"texts": ["red", "blue"], "pictures": uploaded}), ("export", {})):
        with pytest.raises(gr.Error, match=r"made for another model: .*With anyway=True it is taken all the same\."):
            calls[call](**given, model="tiny", patch=stranger)
    said = calls["predict"](["red", "blue"], "tiny", uploaded, stranger, anyway=True)
    assert said["before"] != said["after"]
    made = Patch.load(Path(calls["export"](stranger, "tiny", anyway=True)["path"]))
    made.check(trained.model)
    assert made.key() == head.key() and made.base
    assert made.recipe["model"]["fingerprint"] == trained.fingerprint() and "carried" in made.recipe


@pytest.mark.parametrize("form", ["patch", "peft", "full"])
def test_an_export_that_fails_in_the_middle_leaves_nothing(calls, stranger, monkeypatch, form):
    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = exports()
    monkeypatch.setattr(writing.os, "fsync", full)
    with pytest.raises(gr.Error, match=r"Cannot write edited|no program adds a LoRA|no open_clip_config") as caught:
        calls["export"](stranger, "tiny", form, anyway=True)
    assert exports() == before and str(get_upload_folder()) not in str(caught.value)


def test_what_comes_back_is_typed(trained):
    with gr.Blocks() as demo:
        endpoints.add(lambda name: trained, {})
    told = demo.get_api_info()["named_endpoints"]
    score, unlearn, export = (told[f"/{name}"]["returns"] for name in ("score", "unlearn", "export"))
    read = [json_schema_to_python_type(made["type"]) for made in (*score, *unlearn, *export)]
    assert read[0].startswith("dict(model: str, concept: str, units: list[dict(unit: str, kind: str, pressure: float")
    assert "after: dict(forget_accuracy: None | dict(value: float, n: int, low: float, high: float)" in read[1]
    assert read[2:] == ["None | filepath", "filepath"]
    settings = next(p for p in told["/score"]["parameters"] if p["parameter_name"] == "settings")
    assert settings["python_type"]["type"].startswith("dict(alpha: float, tau: float")


def test_numbers_are_told_as_they_are_given(calls):
    *_, (run, _) = calls["unlearn"]("tiny", "object:x", settings={"retain_budget": 0.3, "rounds": 1})
    assert {*run} == {*endpoints.Ended.__annotations__}
    assert {*run["after"]} == {*endpoints.Numbers.__annotations__}
    assert {*calls["score"]("tiny", "object:x")["units"][0]} == {*endpoints.Ranked.__annotations__}


# What a concept is, and what goes with it -----------------------------------------------------------------------------


def test_what_is_said_of_a_concept_goes_to_the_library_as_from_the_command_line(calls, uploaded, monkeypatch):
    seen = []
    for name in ("own_task", "from_words", "resolve"):
        monkeypatch.setattr(endpoints, name, lambda *_, name=name, **given: seen.append((name, given)) or 1 / 0)
    said = {"kind": "style", "labels": ["neon", "mosaic"], "settings": {"seed": 3}}
    own = {"concept": "neon", "forget_pictures": uploaded}
    for work in ("score", "unlearn"):
        for given in (
            own,
            own | {"anchor": "a photo", "drawn_too": True},
            {"concept": "neon"},
            {"forget": "style:neon"},
        ):
            with pytest.raises(ZeroDivisionError):
                list(calls[work]("tiny", **given, **said))
    assert seen[:4] == seen[4:] and [name for name, _ in seen[:4]] == ["own_task", "own_task", "from_words", "resolve"]
    assert all(
        given["kind"] == "style" and given["labels"] == said["labels"] and given["seed"] == 3 for _, given in seen
    )
    assert [given.get("anchor") for _, given in seen[:4]] == ["", "a photo", None, None]
    assert [given["drawn_too"] for _, given in seen[:2]] == [False, True]


def test_what_a_bundled_target_has_no_use_for_is_said(calls, task, monkeypatch):
    monkeypatch.setattr(endpoints, "resolve", lambda *_, **__: (task, ("It has no use for the anchor.",)))
    with pytest.raises(gr.Error, match="has no use for the anchor"):
        calls["score"]("tiny", "style:neon", anchor="a photo")


# Drawn pictures -------------------------------------------------------------------------------------------------------


def test_drawn_pictures_say_how_they_were_made_and_come_a_few_at_a_time(calls, monkeypatch):
    adapter, drawn = shared("sd"), []
    draw = adapter.draw
    monkeypatch.setattr(adapter, "draw", lambda prompts, seeds: drawn.append(len(prompts)) or draw(prompts, seeds))
    monkeypatch.setattr(diffusion, "TOGETHER", 2)
    weights, unit = dict(adapter.model.named_parameters()), adapter.units(("head",))[0]
    deltas = {where: torch.full_like(where.view(weights[where.parameter]), 0.1) for where in unit.slices}
    made = {"model": {"name": "tiny sd"}, "task": {"concept": "cat"}, "edit_set": {}}
    patch = Patch(deltas).bound_to(adapter.model).with_recipe(made)
    path = Path(get_upload_folder()) / "cat.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    patch.save(path)
    found = calls["predict"](["a cat", "a dog", "a cat"], "tiny sd", patch=sent(path), seed=7)
    assert drawn == [2, 1, 2, 1]
    (told,) = calls["predict"](["a hat on a very long table"], "tiny sd")["notes"]
    assert "is too long: the model does not read" in told and "notes" not in found
    with pytest.raises(gr.Error, match="A prompt has 2,001 characters; up to 2,000 are read"):
        calls["predict"](["a" * 2001], "tiny sd")
    before, after = (
        [read_png(Path(file["path"]).read_bytes()) for file in found[side]] for side in ("before", "after")
    )
    assert [(info.spec.prompt, info.spec.seed) for info in before] == [("a cat", 7), ("a dog", 8), ("a cat", 9)]
    assert [info.spec for info in before] == [info.spec for info in after]
    assert (before[0].shown, before[0].edit, after[0].shown, after[0].edit) == ("original", "", "edited", patch.key())
    assert {info.fingerprint for info in (*before, *after)} == {adapter.fingerprint()}
    assert after[0].recipe == made and before[0].recipe["task"] == made["task"] and "edit_set" not in before[0].recipe


def test_only_what_was_sent_along_is_read(calls, uploaded, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"x")
    for place in (str(tmp_path / "secret.png"), f"{get_upload_folder()}/../secret.png", 3, None):
        with pytest.raises(gr.Error, match="A file must be sent along"):
            calls["predict"](["a", "b"], "tiny", [{"path": place}])
    with pytest.raises(gr.Error, match="A file must be sent along"):
        calls["export"]({"path": str(tmp_path)}, "tiny")


@pytest.mark.parametrize(
    ("call", "given", "said"),
    [
        ("score", {"model": "other"}, "No model 'other'"),
        ("score", {"settings": {"depth": 1}}, "Unknown settings depth"),
        ("score", {"settings": {"rounds": "many"}}, "must be a whole number"),
        ("score", {"forget": "a cat"}, "write axis:name"),
        ("score", {"forget": ""}, "Say what to forget"),
        ("score", {"concept": "red"}, "draws no pictures.*Here: forget_pictures"),
        ("score", {"forget": "object:x", "concept": "red"}, "not both"),
        ("score", {"forget": "object:x", "forget_pictures": [{}]}, "not both"),
        ("score", {"model": 5}, "model is '5'; it should be a valid string"),
        ("score", {"settings": [1]}, "settings is '.1.'; it should be a valid dictionary"),
        ("score", {"settings": {"forget_loss": "cosine"}}, "forget_loss is 'cosine'; choose answer or alignment"),
        ("score", {"forget": "object:x", "settings": {"forget_loss": "answer"}}, "tiny has only one forget loss"),
        ("score", {"kind": "animal"}, "kind is 'animal'; it should be 'object', 'style' or 'person'"),
        ("unlearn", {"labels": "cat, dog"}, "labels is 'cat, dog'; it should be a valid list"),
        ("score", {"drawn_too": 1}, "drawn_too is '1'; it should be a valid boolean"),
        ("score", {"settings": {"towers": 5}}, "towers is 5; it must be a list of names"),
        ("score", {"settings": {"seed": "1"}}, "seed is '1'"),
        ("score", {"forget_pictures": 5}, "forget_pictures is '5'; it should be a valid list"),
        ("predict", {"texts": "neon"}, "texts is 'neon'; it should be a valid list"),
        ("predict", {"texts": ["a"], "seed": True}, "seed is 'True'; it should be a valid integer"),
        ("predict", {"texts": ["a", "b"], "pictures": [{"path": "a\0b"}]}, "must be sent along"),
        ("export", {"patch": {}, "form": "zip"}, "form is 'zip'; it should be 'patch', 'peft'"),
        ("export", {"patch": {}, "form": "peft", "redacted": True}, "redacted is for the forms full and single alone"),
        ("predict", {"texts": []}, "must be 1 to 32 texts"),
        ("predict", {"texts": ["red", "red"]}, "no picture|two different"),
        ("predict", {"texts": ["red", "blue"]}, "no picture to look at"),
    ],
)
def test_a_mistake_is_one_sentence(calls, call, given, said):
    with pytest.raises(gr.Error, match=said):
        list(calls[call](**{"model": "tiny", **given}))


@pytest.mark.parametrize("work", [endpoints.score, endpoints.unlearn, endpoints.predict, endpoints.export])
def test_every_argument_is_described_in_whole_to_callers_and_agents(work):
    described, told, _ = get_function_description(endpoints.offered(work, lambda name: None))
    assert described.endswith(".") and "load" not in told
    assert all(words.endswith(".") for words in told.values()), told


def test_files_of_long_ago_are_let_go(monkeypatch):
    monkeypatch.setattr(endpoints, "KEPT", 0.01)
    first, until = endpoints._home(), time.monotonic() + 10
    while first.exists() and time.monotonic() < until:
        time.sleep(0.01)
    monkeypatch.undo()
    assert endpoints._home().exists() and not first.exists()
