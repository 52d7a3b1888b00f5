"""python -m razor ask: a table of questions on both sides of a patch, counted by a rule; mistakes are one sentence."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny_vlms
from PIL import Image

from razor import models
from razor.adapters.vlm import VlmAdapter
from razor.cli import main
from razor.patches import Patch
from razor.units import Slice

RED, GREEN = Image.new("RGB", (32, 32), (220, 40, 40)), Image.new("RGB", (32, 32), (40, 200, 60))
TALKS = (
    ("red.png", "Is it red?", "yes"),
    ("green.png", "Is it red?", "no"),
    ("red.png", "Which colour?", "red"),
    ("green.png", "Which colour?", "green"),
)


@pytest.fixture(scope="module")
def adapter():
    """A LLaVA that answers TALKS right. Shared: leave it as found."""
    made = VlmAdapter(*tiny_vlms.tiny("llava", 1), name="tiny")
    pictures = {"red.png": RED, "green.png": GREEN}
    tiny_vlms.learn(made, [(pictures[file], question, answer) for file, question, answer in TALKS], 100, 4)
    return made


@pytest.fixture(autouse=True)
def loaded(adapter, monkeypatch):
    """The model that any name loads."""
    monkeypatch.setattr(models, "load", lambda name, device=None, dtype=None, bits=None: adapter)


@pytest.fixture
def ask(tmp_path):
    """talks, options -> runs the command on a table of them; the table's own folder holds the pictures."""
    RED.save(tmp_path / "red.png")
    GREEN.save(tmp_path / "green.png")

    def run(*options: str, talks=TALKS):
        with (tmp_path / "asked.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("file", "question", "answer"), *talks])
        main(["ask", "--model", "tiny", "--questions", str(tmp_path / "asked.csv"), *options])

    return run


@pytest.fixture
def fail(capsys):
    """Run something that must fail; returns the sentence it printed."""

    def run(work, *options, **more) -> str:
        with pytest.raises(SystemExit) as stop:
            work(*options, **more)
        assert stop.value.code == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("razor: ")]
        return line

    return run


@pytest.fixture
def swapped(adapter, tmp_path):
    """A patch that turns yes into no and no into yes, and nothing else."""
    weight = adapter.model.lm_head.weight.detach()
    yes, no = (adapter.answer_ids(word).item() for word in ("yes", "no"))
    row = lambda number: Slice("lm_head.weight", 0, number, number + 1)  # noqa: E731
    difference = (weight[no] - weight[yes])[None]
    patch = Patch({row(yes): difference, row(no): -difference}).bound_to(adapter.model)
    patch.save(tmp_path / "patch.safetensors")
    return str(tmp_path / "patch.safetensors")


def test_a_patch_that_swaps_yes_and_no_is_scored_on_both_sides(
    ask, adapter, swapped, tmp_path, capsys, weights_of, same_weights
):
    before, out = weights_of(adapter.model), tmp_path / "new" / "out.json"
    ask("--rule", "mme", "--patch", swapped, "--json", str(out), talks=TALKS[:2])
    said = capsys.readouterr().out
    assert "accuracy                100.0%    0.0%     0.0% to  65.8%     2" in said
    assert "2 of 2 answers changed." in said
    found = json.loads(out.read_text())
    assert found["before"]["accuracy"]["value"] == found["before"]["accuracy+"]["value"] == 1
    assert found["after"]["accuracy"]["value"] == 0 and found["changed"] == found["after"]["accuracy"]["n"] == 2
    asked = {"picture": "red.png", "question": "Is it red?", "right": ["yes"], "before": "yes", "after": "no"}
    assert found["answers"][0] == asked
    assert same_weights(adapter.model, before)


def test_answers_no_patch_touches_are_not_counted_as_changed(ask, swapped, capsys):
    ask("--rule", "gqa", "--patch", swapped)
    said = capsys.readouterr().out
    assert "accuracy                100.0%   50.0%" in said and "2 of 4 answers changed." in said
    assert "red.png  Is it red?  'yes' -> 'no'\n" in said and "red.png  Which colour?  'red' -> 'red'\n" in said


def test_without_a_patch_and_a_rule_the_answers_are_printed(ask, capsys):
    ask(talks=[(*talk[:2], "") for talk in TALKS])
    assert capsys.readouterr().out.splitlines() == [f"{file}  {text}  {answer!r}" for file, text, answer in TALKS]


def test_a_name_to_forget_is_looked_for_with_how_likely_it_was(ask, swapped, tmp_path, capsys):
    out = tmp_path / "out.csv"
    ask("--patch", swapped, "--forget", "colour:red", "--csv", str(out))
    assert "names red                25.0%   25.0%" in capsys.readouterr().out  # 1 of 4
    rows = list(csv.DictReader(out.open()))
    assert [row["answer before"] for row in rows] == ["yes", "no", "red", "green"]
    assert [row["flags before"] for row in rows] == ["", "", "still names it", ""]
    likely = [float(row["log p of the name before"]) for row in rows]
    assert max(likely) == likely[2] > -0.5
    ask("--csv", str(out))
    assert "log p of the name before" not in out.read_text()


def test_a_bundled_name_may_be_typed_in_small_letters(ask, capsys):
    ask("--forget", "identity:mara-voss")
    assert "names Mara Voss           0.0%    0.0%" in capsys.readouterr().out


def test_what_will_not_do_is_told_before_the_model_is_loaded(ask, fail, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "load", None)
    nowhere = ["ask", "--model", "tiny", "--questions", str(tmp_path / "none.csv")]
    assert "No table of questions at" in fail(main, nowhere)
    assert "No scoring rule 'vqa'; choose one of mme, gqa, mmbench, textvqa." in fail(ask, "--rule", "vqa")
    talks = [*TALKS, ("red.png", "Why?", "")]
    assert "'Why?' has no right answer in the table; add one" in fail(ask, "--rule", "gqa", talks=talks)
    assert "none of the letters of its options" in fail(ask, "--rule", "mmbench")
    assert "--forget is 'red'; write axis:name, such as identity:mara-voss." in fail(ask, "--forget", "red")
    assert "Cannot read the patch none" in fail(ask, "--patch", str(tmp_path / "none"))


def test_a_question_that_is_too_long_is_one_sentence(ask, fail):
    assert "shorten it by" in fail(ask, talks=[*TALKS, ("red.png", "Is it red, " * 200, "no")])


def test_a_model_that_answers_nothing_is_one_sentence(ask, fail, monkeypatch):
    monkeypatch.setattr(models, "load", lambda name, **_: SimpleNamespace(name="mini-clip", family="clip"))
    assert "mini-clip answers no questions; name a vision-language model" in fail(ask)


def test_a_patch_for_other_weights_is_refused(ask, fail, swapped):
    replace(Patch.load(swapped), base={"lm_head.weight": "0" * 16}).save(swapped)
    assert "made for another model" in fail(ask, "--patch", swapped)
