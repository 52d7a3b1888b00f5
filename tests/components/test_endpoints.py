"""What other programs call, on a tiny CLIP: results without a session, and mistakes as one sentence."""

import time
from pathlib import Path

import gradio as gr
import pytest
from gradio.utils import get_function_description, get_upload_folder

from components import endpoints
from razor.errors import InputError
from razor.patches import Patch


@pytest.fixture(scope="module")
def calls(trained, task):
    """name -> endpoint, on the tiny model and task."""

    def load(name):
        if name != "tiny":
            raise InputError(f"No model {name!r}.")
        return trained

    with gr.Blocks() as demo:
        endpoints.add(load, {})
    return {fn.api_name: fn.fn for fn in demo.fns.values()}


@pytest.fixture(autouse=True)
def known_task(monkeypatch, task, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))
    monkeypatch.setattr(endpoints, "resolve", lambda *_, **__: (task, ()))


def sent(path: Path) -> dict:
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


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
        calls[call](**{"model": "tiny", **given})


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
