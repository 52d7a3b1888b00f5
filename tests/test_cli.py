"""The command line as a person meets it: results in files, mistakes as one sentence and exit code 2."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from razor import baselines, cli, models, run, step, words
from razor.adapters import denoising
from razor.cli import main
from razor.commands import given, making, measuring
from razor.errors import InputError, ModelError
from razor.metrics import Evaluation, share
from razor.minicanvas.dataset import draw
from razor.patches import Patch
from razor.robustness import Finding

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tiny_pipelines import tiny_sd, tiny_sd2, tiny_sd3, tiny_sd35, tiny_sdxl

pytestmark = pytest.mark.usefixtures("small_world")

ROOT = Path(__file__).resolve().parent.parent
KEYS = {"value", "n", "low", "high"}


@pytest.fixture(scope="module")
def style_run(tmp_path_factory):
    """One real run on the bundled model: style:thermal forgotten with default settings."""
    folder = tmp_path_factory.mktemp("run")
    told = str(folder / "told.json")
    main(["unlearn", "--model", "mini-clip", "--forget", "style:thermal", "--out", str(folder), "--json", told])
    return folder


@pytest.fixture
def fail(capsys):
    """Run a command that must fail; returns the sentence it printed."""

    def run(*argv: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main(list(argv))
        assert stop.value.code == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert lines[-1].startswith("razor: ")
        return lines[-1]

    return run


def test_a_bundled_style_is_forgotten_and_the_rest_is_kept(style_run):
    run = json.loads((style_run / "run.json").read_text())
    before, after = run["before"], run["after"]
    assert before["forget_accuracy"]["value"] >= 0.95  # the unedited model knew it
    assert after["forget_accuracy"]["value"] <= 1 / 12 + 0.02
    assert before["retain_accuracy"]["value"] - after["retain_accuracy"]["value"] <= 0.01
    assert before["neighbor_accuracy"]["value"] - after["neighbor_accuracy"]["value"] <= 0.03
    assert after["retrieval_stability"]["value"] >= 0.99


def test_run_json_holds_what_it_promises(style_run):
    run = json.loads((style_run / "run.json").read_text())
    for side in ("before", "after"):
        for name in ("forget_accuracy", "retain_accuracy", "neighbor_accuracy", "retrieval_stability"):
            assert set(run[side][name]) >= KEYS
            assert run[side][name]["low"] <= run[side][name]["value"] <= run[side][name]["high"]
    assert run["patch_bytes"] == (style_run / "patch.safetensors").stat().st_size
    assert run["parameters_edited"] > 0 and run["rounds"] and "total" in run["seconds"]
    told = json.loads((style_run / "told.json").read_text())
    assert (told.pop("model"), told.pop("concept")) == ("mini-clip", "thermal") and told == run
    recipe = json.loads((style_run / "recipe.json").read_text())
    assert recipe["model"]["fingerprint"] == models.load("mini-clip").fingerprint()


def test_evaluating_the_saved_patch_gives_the_reported_numbers(style_run, tmp_path):
    out, patch = tmp_path / "eval.json", str(style_run / "patch.safetensors")
    main(["evaluate", "--model", "mini-clip", "--forget", "style:thermal", "--patch", patch, "--json", str(out)])
    run = json.loads((style_run / "run.json").read_text())
    assert json.loads(out.read_text())["after"] == run["after"]


def test_a_recipe_repeats_its_run_bit_for_bit(style_run, tmp_path, capsys):
    main(["unlearn", "--recipe", str(style_run / "recipe.json"), "--out", str(tmp_path / "again")])
    assert "The units of the recipe." in capsys.readouterr().out
    first, second = (Patch.load(folder / "patch.safetensors") for folder in (style_run, tmp_path / "again"))
    assert first.key() == second.key() and first.recipe == second.recipe


def test_a_recipe_fills_in_what_is_not_given_and_what_is_missing_is_named(style_run, tmp_path, fail, monkeypatch):
    made = json.loads((style_run / "recipe.json").read_text())
    made["edit_set"]["locked"], made["config"]["rho"], began = ["text.1.head.2"], 0.5, []

    def begin(adapter, task, config, *, planned, **_):
        began.append((config.rho, config.alpha, planned.locked))
        raise InputError("far enough")

    def again(*given):
        (tmp_path / "r.json").write_text(json.dumps(made))
        return fail("unlearn", "--recipe", str(tmp_path / "r.json"), "--out", str(tmp_path / "out"), *given)

    monkeypatch.setattr(run, "unlearn", begin)
    assert "far enough" in again("--alpha", "3") and began == [(0.5, 3.0, {"text.1.head.2"})]
    assert "That run forgot 'thermal'" in again("--forget", "style:neon")
    made["task"]["origin"]["forget"] = "/pictures/of/mine"
    assert "forgot own pictures of 'thermal'; name them again with --forget" in again()
    made["model"]["fingerprint"] = "0" * 16
    assert "with weights 0000000000000000, and mini-clip with weights" in again("--forget", "style:thermal")
    assert "Say which model to edit" in fail("unlearn", "--forget", "style:neon", "--out", str(tmp_path / "out"))


def test_attacks_on_the_saved_patch_are_printed_and_written_beside_their_controls(style_run, tmp_path, capsys):
    out, patch = tmp_path / "eval.json", str(style_run / "patch.safetensors")
    chosen = ["--patch", patch, "--attacks", "probe, wording", "--gate", "forget=25", "--json", str(out)]
    main(["evaluate", "--model", "mini-clip", "--forget", "style:thermal", *chosen])
    rows = json.loads(out.read_text())["attacks"]
    assert [row["attack"] for row in rows] == ["probe", *["wording"] * 5]
    assert all(set(row[side]) >= KEYS for row in rows for side in ("edited", "attacked", "control"))
    assert rows[0]["control"]["value"] > 0.9  # the probe can find the style where it is
    said = {gate["gate"]["key"]: gate for gate in json.loads(out.read_text())["gates"]}
    assert said["forget"]["gate"]["limit"] == 0.25 and said["forget"]["verdict"] == "pass"
    assert said["quantise/4 bits"]["why"] == "Not tried: It was not asked for."
    assert json.loads(out.read_text())["verdict"] == "inconclusive"
    printed = capsys.readouterr().out
    assert "\nInconclusive: These tests cannot say yet whether thermal is suppressed.\n" in printed
    assert "  pass          Is it suppressed? 0.0 % of its pictures still recognised (n = 96, " in printed
    assert "95 % interval" in printed and "linear, on picture features" in printed


def test_gates_of_the_runs_recipe_hold_where_the_command_line_names_none(make_task, tmp_path, fail):
    args, made, right = Namespace(gate=["forget=0.01"]), {"gates": {"retain": 0.5, "forget": 0.2}}, share([True] * 50)
    answers = Evaluation(share([False] * 50), right, right, None, None, None)
    found = measuring._verdicts(args, made, ["quantise"], make_task(), (answers, answers), [], {})
    said = {v.gate.key: v for v in found}
    assert (said["forget"].gate.limit, said["retain"].gate.limit) == (pytest.approx(0.0001), 0.5)
    assert said["retain"].said == "pass" and said["quantise/8 bits"].why == "Not tried."
    assert said["benign/retain pictures, 20 steps"].why == "Not tried: It was not asked for."
    assert measuring._verdicts(Namespace(gate=[]), made, [], make_task(), (answers, answers), [], {}) == []
    named = ["evaluate", "--model", "nowhere", "--forget", "style:thermal"]
    assert "There is no gate 'forgot'" in fail(*named, "--gate", "forgot=1")  # before anything is loaded
    (tmp_path / "recipe.json").write_text(json.dumps({"format": "razor-recipe-1"}))
    assert "'forget' is no limit of a gate" in fail("report", str(tmp_path), "--gate", "forget")


def test_a_repeated_run_keeps_the_gates_of_its_recipe(style_run, tmp_path, fail, monkeypatch):
    made, kept = json.loads((style_run / "recipe.json").read_text()) | {"gates": {"forget": 0.05}}, []

    def save(self, folder):
        kept.extend([self.recipe, self.patch.recipe])
        raise InputError("far enough")

    done = run.Run(Patch(), {}, None, None, (), "", True, True, {}, None)
    monkeypatch.setattr(run, "unlearn", lambda *_, **__: done)
    monkeypatch.setattr(run.Run, "save", save)
    (tmp_path / "r.json").write_text(json.dumps(made))
    assert "far enough" in fail("unlearn", "--recipe", str(tmp_path / "r.json"), "--out", str(tmp_path / "again"))
    assert kept == [{"gates": {"forget": 0.05}}] * 2


def test_an_attack_that_fails_is_told_and_the_others_go_on(monkeypatch, capsys):
    found = Finding("wording", "typos", *[share([True, False])] * 4)

    def attack(name, _case):
        if name == "probe":
            raise ModelError("Memory ran out.")
        yield found

    monkeypatch.setattr("razor.robustness.attack", attack)
    case = SimpleNamespace(gold=None, beside_gold=lambda: None)
    assert measuring._attacked(["probe", "wording"], case) == ([found], {"probe": "Memory ran out."})
    assert "probe was not tried to its end: Memory ran out." in "".join(capsys.readouterr())


def test_a_run_is_reported_from_its_folder_alone(style_run, tmp_path, capsys):
    out, card = tmp_path / "new" / "style.html", tmp_path / "style.md"
    options = ["--attacks", "quantise", "--reason", "Asked", "--json", str(tmp_path / "told.json")]
    main(["report", str(style_run), "--out", str(out), "--card", str(card), *options])
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["files"] == [str(out), str(card)] and "Does it hold in a copy of 4 bits?" in [
        gate["gate"]["words"] for gate in told["gates"]
    ]
    page, run = out.read_text("utf-8"), json.loads((style_run / "run.json").read_text())
    assert f"{run['after']['forget_accuracy']['value']:.1%}" in page and "Why: Asked" in page
    assert page.count("data:image/jpeg") == 15 and "Does it hold in a copy of 4 bits?" in page
    assert (
        out.stat().st_size < 5_000_000
        and "--forget style:thermal" in page
        and "style:thermal" in card.read_text("utf-8")
    )
    capsys.readouterr()
    main(["diff", str(style_run), str(out)])
    assert capsys.readouterr().out == "The two recipes are the same.\n"


def test_a_report_of_no_run_or_of_other_examples_is_one_sentence(style_run, tmp_path, fail):
    assert "There is no file" in fail("report", str(tmp_path))
    assert "is a folder" in fail("report", str(style_run), "--out", str(tmp_path))
    out = str(tmp_path / "r.html")
    said = fail("report", str(style_run), "--out", out, "--forget", "style:chalk")
    assert "That run forgot 'thermal', and this task forgets 'chalk'" in said and not (tmp_path / "r.html").exists()


def test_an_unknown_attack_is_told_before_any_is_run(style_run, fail):
    patch = str(style_run / "patch.safetensors")
    told = fail(
        "evaluate", "--model", "mini-clip", "--forget", "style:thermal", "--patch", patch, "--attacks", "probe,x"
    )
    assert told.startswith("razor: There is no attack 'x' on a clip model; choose one of quantise, relearn, benign, ")


def test_methods_are_compared_and_every_setting_is_kept(tmp_path, capsys):
    out, folder = tmp_path / "compare.json", tmp_path / "methods"
    chosen = ["--methods", "null-space", "--seconds", "4", "--json", str(out), "--out", str(folder)]
    main(["compare", "--model", "mini-clip", "--forget", "style:thermal", *chosen])
    (row,) = json.loads(out.read_text())["methods"]
    assert row["method"] == "null-space" and row["grid"] and row["chosen"] in row["grid"]
    assert row["before"]["forget_accuracy"]["value"] >= 0.95
    assert (folder / "null-space" / "patch.safetensors").stat().st_size == row["patch_bytes"]
    assert "gamma" in capsys.readouterr().out


def test_a_comparison_ended_by_ctrl_c_keeps_what_was_tried(tmp_path, capsys, monkeypatch):
    out, mine, asked = tmp_path / "compare.json", signal.getsignal(signal.SIGINT), []
    found = Evaluation(share([True]), share([True]), share([True]), None, None, None)
    tried = baselines.Trial({"gamma": 1}, found, 3, 1.0)

    def tuned(name, *_, stop, **__):
        asked.append(name)
        signal.raise_signal(signal.SIGINT)
        assert stop()
        note = "Stopped; best of 1 setting so far."
        return baselines.Result(
            name, Patch(), found, found, (tried,), tried, False, True, "", 3, {}, note, stopped=True
        )

    adapter = SimpleNamespace(family="clip", name="tiny")
    config = SimpleNamespace(forget_target=None, batch=None, seed=0)
    monkeypatch.setattr(measuring, "prepare", lambda args: (adapter, SimpleNamespace(concept="red"), config))
    monkeypatch.setattr(baselines, "run", tuned)
    monkeypatch.setattr("razor.gold.between", lambda *_: None)
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--model", "m", "--forget", "f", "--methods", "ssd,slug", "--json", str(out)])
    (row,) = json.loads(out.read_text())["methods"]
    assert asked == ["ssd"] and row["stopped"] and row["grid"] == [json.loads(json.dumps(tried.to_json()))]
    told = capsys.readouterr()
    assert stop.value.code == 130 and "gamma 1 (target not met); Stopped; best of 1 setting so far.\n" in told.out
    assert told.err.splitlines()[-1] == "razor: stopped; no model was changed." and "Ctrl-C again ends" in told.err
    assert signal.getsignal(signal.SIGINT) is mine


@pytest.mark.parametrize("file", ["patch.safetensors", "run.json"])
@pytest.mark.parametrize("methods", [[], ["--methods", "slug,null-space"]])
def test_results_of_methods_are_not_replaced_unasked(methods, file, tmp_path, fail, monkeypatch):
    monkeypatch.setattr(models, "load", None)  # nothing is loaded before
    (tmp_path / "null-space").mkdir()
    (tmp_path / "null-space" / file).write_text("mine")
    command = ["compare", "--model", "mini-clip", "--forget", "style:thermal", "--out", str(tmp_path), *methods]
    assert fail(*command) == f"razor: {tmp_path} holds results of null-space; give another folder, or --replace."
    assert "steps is 0" in fail(*command, "--replace", "--steps", "0")


def test_results_of_other_methods_may_stand_beside(tmp_path):
    (tmp_path / "slug").mkdir()
    (tmp_path / "slug" / "run.json").write_text("mine")
    measuring._check_methods_free(tmp_path, ["ssd"], replace=False)
    measuring._check_methods_free(tmp_path, ["slug"], replace=True)
    assert (tmp_path / "slug" / "run.json").read_text() == "mine"


@pytest.mark.parametrize(
    "argv, sentence",
    [
        (["--methods", "x"], "There is no method 'x' for a clip model; choose one of fine-tune, "),
        (["--steps", "0"], "steps is 0; it must be a whole number from 1 to 100000."),
    ],
)
def test_a_comparison_that_cannot_be_made_is_one_sentence(fail, argv, sentence):
    assert fail("compare", "--model", "mini-clip", "--forget", "style:thermal", *argv).startswith(f"razor: {sentence}")


def test_score_writes_every_head_and_mlp_ranked(tmp_path):
    out = tmp_path / "score.json"
    main(["score", "--model", "mini-clip", "--forget", "object:cat", "--json", str(out)])
    units = json.loads(out.read_text())["units"]
    assert [u["rank"] for u in units] == list(range(1, len(units) + 1))
    assert {u["kind"] for u in units} == {"head", "mlp"}
    assert all(a["phi"] >= b["phi"] for a, b in itertools.pairwise(units))


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """mini-clip with every weight a little other."""
    folder = tmp_path_factory.mktemp("moved")
    for file in models.BUNDLED["mini-clip"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    path = folder / "open_clip_model.safetensors"
    save_file({k: v * 1.001 if v.is_floating_point() else v for k, v in load_file(path).items()}, path)
    return str(folder)


def test_a_patch_for_other_weights_is_refused_unless_taken_anyway(style_run, moved, tmp_path, fail, capsys):
    patch, out = str(style_run / "patch.safetensors"), tmp_path / "found.json"
    command = ["evaluate", "--model", moved, "--forget", "style:thermal", "--patch", patch, "--json", str(out)]
    sentence = fail(*command)
    assert "made for another model" in sentence and sentence.endswith("all the same, add --anyway.")
    main([*command, "--anyway"])
    made = Patch.load(style_run / "patch.safetensors").recipe["model"]
    maker = f"{made['name']!r} with the fingerprint {made['fingerprint']}"
    assert f"The patch was made for the weights of {maker}; it is applied to those of" in capsys.readouterr().err
    before, after = (json.loads(out.read_text())[side]["forget_accuracy"]["value"] for side in ("before", "after"))
    assert before >= 0.9 and after <= 0.3  # the weights are nearly those it was made for


def test_an_export_of_a_patch_taken_anyway_is_of_the_model_it_was_taken_for(style_run, moved, tmp_path, fail):
    patch, out = str(style_run / "patch.safetensors"), str(tmp_path / "other.safetensors")
    main(["export", "--model", moved, "--patch", patch, "--anyway", "--as", "patch", "--out", out])
    first, other = Patch.load(style_run / "patch.safetensors"), Patch.load(tmp_path / "other.safetensors")
    assert other.key() == first.key() and other.base.keys() == first.base.keys() and other.base != first.base
    assert other.recipe["model"]["fingerprint"] == models.load(moved).fingerprint()
    assert other.recipe["carried"]["recipe"]["rounds"] == first.recipe["rounds"]
    again = ["export", "--patch", out, "--as", "patch", "--out", str(tmp_path / "again.safetensors")]
    assert "made for another model" in fail(*again, "--model", "mini-clip")
    main([*again, "--model", moved])


def test_a_patch_that_does_not_fit_is_refused_whatever_is_given(style_run, fail):
    patch = ["--patch", str(style_run / "patch.safetensors"), "--anyway"]
    sentence = fail("export", "--model", "mini-vlm", *patch, "--as", "patch", "--out", "no.safetensors")
    assert (
        "which here does not exist" in sentence and "--anyway" not in sentence and not Path("no.safetensors").exists()
    )


def test_a_model_with_nan_weights_says_so(tmp_path, fail):
    for file in models.BUNDLED["mini-clip"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "open_clip_model.safetensors"
    state = load_file(path)
    state["visual.proj"] = torch.full_like(state["visual.proj"], float("nan"))
    save_file(state, path)
    assert "nan" in fail("score", "--model", str(tmp_path), "--forget", "object:cat").lower()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--model", "no-such", "--forget", "object:cat"], "No model 'no-such'"),
        (["--model", "mini-clip", "--forget", "object:unicorn"], "No object named 'unicorn'"),
        (["--model", "mini-clip", "--forget", "/no/such/folder", "--concept", "x"], "No file or folder"),
        (
            ["--model", "mini-clip", "--forget", "object:cat", "--retain", "object:cat"],
            "both the forget and the retain",
        ),
        (["--model", "mini-clip", "--forget", "object:cat", "--alpha", "-1"], "alpha is -1.0"),
        (["--model", "mini-clip", "--forget", "object:cat", "--tau", "7"], "tau is 7.0"),
        (["--model", "mini-clip", "--forget", "object:cat", "--rho", "0"], "rho is 0.0"),
        (["--model", "mini-clip", "--forget", "object:cat", "--towers", "audio"], "mini-clip has no tower 'audio'"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(argv, said, fail):
    assert said in fail("score", *argv)


def test_the_readmes_tables_are_a_bench_of_their_own(monkeypatch):
    done = []
    monkeypatch.setattr("razor.bench.readme.main", lambda: done.append(1))
    main(["bench", "readme"])
    assert done == [1]


def test_own_pictures_need_a_concept_three_pictures_and_a_matching_label(tmp_path, fail):
    command = ["score", "--model", "mini-clip", "--forget", str(tmp_path)]
    assert "No usable picture" in fail(*command)
    draw({"object": "mug", "style": "photo"}, "judge", 0).save(tmp_path / "mug.png")
    assert "Say what to forget" in fail(*command)
    assert "too few" in fail(*command, "--concept", "mug")
    for i in range(1, 4):
        draw({"object": "mug", "style": "photo"}, "judge", i).save(tmp_path / f"mug {i}.png")
    assert "none of the labels" in fail(*command, "--concept", "mug", "--labels", "cat,dog")


def test_own_pictures_are_unlearned_against_the_bundled_world(tmp_path):
    for i in range(10):
        draw({"object": "mug", "style": "photo"}, "judge", i).save(tmp_path / f"mug {i}.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "tiny.png")  # skipped with a warning
    out = tmp_path / "out"
    main(["unlearn", "--model", "mini-clip", "--forget", str(tmp_path), "--concept", "mug", "--out", str(out)])
    run = json.loads((out / "run.json").read_text())
    assert run["before"]["forget_accuracy"]["value"] == 1
    assert run["after"]["forget_accuracy"]["value"] < 1
    assert run["before"]["retain_accuracy"]["value"] - run["after"]["retain_accuracy"]["value"] <= 0.03


# ---------------------------------------------------------------- models that draw


@pytest.fixture(scope="module")
def drawn_run(tmp_path_factory):
    """mosaic forgotten in the bundled model that draws, from its name alone; with few pictures of few steps."""
    folder = tmp_path_factory.mktemp("drawn")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(words, "SIZES", {"gradient": (10, 10), "search": (6, 8)})
        patched.setattr(denoising, "DRAWN", {"forget": 6, "retain": 6})
        patched.setattr(denoising, "CONFIRMED", 6)
        patched.setattr(denoising, "FEW", 3)
        patched.setattr(step, "MEND", 0)
        patched.setattr(models.load("mini-sd"), "steps", 10)
        main(["unlearn", "--model", "mini-sd", "--concept", "mosaic", "--batch", "6", "--out", str(folder)])
    return folder


def test_a_style_is_forgotten_from_its_name_alone(drawn_run):
    run = json.loads((drawn_run / "run.json").read_text())
    unlearned, own, cross = (f"{name}_accuracy" for name in ("unlearning", "in_domain_retain", "cross_domain_retain"))
    assert all(set(run[side][key]) >= KEYS for side in ("before", "after") for key in (unlearned, own, cross))
    assert run["before"][unlearned]["value"] <= 0.1  # the unedited model drew it
    assert run["after"][unlearned]["value"] >= 0.6  # of 6 pictures; the bench draws more
    for key in (own, cross):
        assert run["before"][key]["value"] - run["after"][key]["value"] <= 0.1
    origin = json.loads((drawn_run / "recipe.json").read_text())["task"]["origin"]
    assert origin["forget"] == "drawn from the words 'mosaic'" and origin["retain"] == "drawn by mini-sd itself"


def cats_and_trees(folder):
    """Six red and six green pictures in two folders; the arguments that name them."""
    for side, name, colour in (("forget", "red cat", (200, 30, 30)), ("retain", "green tree", (30, 160, 60))):
        (folder / side).mkdir()
        for i in range(6):
            Image.new("RGB", (16, 16), tuple(c + 5 * i for c in colour)).save(folder / side / f"a {name} {i}.png")
    return ["--forget", str(folder / "forget"), "--retain", str(folder / "retain"), "--concept", "red cat"]


@pytest.mark.parametrize("make", [tiny_sd, tiny_sd2, tiny_sdxl, tiny_sd3, tiny_sd35])
def test_a_saved_pipeline_of_each_architecture_is_edited_by_the_same_command(make, tmp_path, capsys):
    make(tmp_path / "model")
    sets = cats_and_trees(tmp_path)
    command = ["--model", str(tmp_path / "model"), *sets, "--batch", "2"]
    main(["unlearn", *command, "--rounds", "1", "--inner-steps", "1", "--retain-budget", "1", "--out", str(tmp_path)])
    assert given.NO_JUDGE in capsys.readouterr().err
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["parameters_edited"] > 0
    assert run["after"]["association"] < run["before"]["association"]
    out = tmp_path / "again.json"
    main(["evaluate", *command, "--patch", str(tmp_path / "patch.safetensors"), "--json", str(out)])
    assert json.loads(out.read_text())["after"] == run["after"]


def test_a_clip_named_as_judge_reads_the_pictures(tmp_path, capsys):
    tiny_sd(tmp_path / "model")
    sets = cats_and_trees(tmp_path)
    out = tmp_path / "found.json"
    command = ["--model", str(tmp_path / "model"), *sets, "--judge", "mini-clip", "--json", str(out)]
    main(["evaluate", *command])
    found = json.loads(out.read_text())
    out, err = capsys.readouterr()
    assert found["read_by"].startswith("mini-clip") and f"Read by {found['read_by']}." in out
    assert given.NO_JUDGE not in err
    assert found["before"]["unlearning_accuracy"]["n"] > 0  # counted on drawn pictures


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--model", "mini-clip", "--concept", "zeppelin"], "draws no pictures"),
        (["--model", "mini-sd", "--concept", "neon", "--kind", "sound"], "is no kind of thing to forget"),
        (["--model", "mini-sd"], "Say what to forget"),
        (["--model", "mini-sd", "--forget", "style:neon", "--judge", "mini-sd"], "a judge is a CLIP"),
    ],
)
def test_words_that_will_not_do_are_one_sentence(argv, said, fail):
    assert said in fail("score", *argv)


def test_drift_is_printed_in_nats_and_shares_in_percent(capsys):
    one = lambda value: {"value": value, "n": 32, "low": value / 2, "high": 2 * value}  # noqa: E731
    given.print_table({"forget_accuracy": one(0.5), "neutral_kl": one(0.0)}, {"forget_accuracy": one(0.25),
                     "neutral_kl": one(0.0415)})  # fmt: skip
    shares, nats = capsys.readouterr().out.splitlines()[1:]
    assert shares.split() == ["forget", "accuracy", "50.0%", "25.0%", "12.5%", "to", "50.0%", "32"]
    assert nats.split() == ["neutral", "KL,", "nats", "0.0000", "0.0415", "0.0208", "to", "0.0830", "32"]


# ---------------------------------------------------------------- what a person sees and ends


def test_long_work_is_announced(style_run, tmp_path, capsys):
    patch = ["--patch", str(style_run / "patch.safetensors")]
    main(["evaluate", "--model", "mini-clip", "--forget", "style:thermal", *patch])
    said = capsys.readouterr().err.splitlines()
    pictures = r"\d+ examples of 'thermal' and \d+ of what is kept"
    assert re.fullmatch(rf"Reading what mini-clip makes of {pictures}\.", said[0])
    assert said[1:] == [
        "Measuring the unedited model.",
        "Measuring it with the patch.",
        "Looking whether the patch gives its examples away.",
    ]
    main(["export", "--model", "mini-clip", *patch, "--as", "full", "--out", str(tmp_path / "clip")])
    said = capsys.readouterr().err
    assert f"Writing mini-clip, edited, to {tmp_path / 'clip'}.\nLoading it again to compare.\n" in said


def test_an_export_that_is_killed_leaves_nothing_behind(style_run, tmp_path):
    slow = (
        "import sys, time; from razor import cli, export\n"
        "save = export._save\n"
        "def slowly(*given):\n"
        "    save(*given); print('writing', flush=True); time.sleep(60)\n"
        "export._save = slowly\n"
        "cli.main(sys.argv[1:])\n"
    )
    out = tmp_path / "new" / "clip"
    given = ["export", "--model", "mini-clip", "--patch", str(style_run / "patch.safetensors"), "--as", "full"]
    with subprocess.Popen(
        [sys.executable, "-c", slow, *given, "--out", str(out)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "writing\n"
        assert list(tmp_path.rglob("*.part"))
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and said.splitlines()[-1] == "razor: stopped; no model was changed."
    assert not list(tmp_path.rglob("*"))


def test_a_run_that_is_killed_writes_nothing(tmp_path):
    command = ["unlearn", "--model", "mini-clip", "--forget", "style:thermal", "--out", str(tmp_path / "run")]
    with subprocess.Popen(
        [sys.executable, "-m", "razor", *command],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr.readline() == "Forgetting 'thermal' in mini-clip.\n"
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and said == "razor: stopped; no model was changed.\n"
    assert not list(tmp_path.rglob("*"))


def test_ctrl_c_is_told_by_another_exit_code(monkeypatch, capsys):
    def pressed(args):
        raise KeyboardInterrupt

    monkeypatch.setitem(making.COMMANDS, "diff", pressed)
    with pytest.raises(SystemExit) as stop:
        main(["diff", "one", "other"])
    assert stop.value.code == 130 and capsys.readouterr().err == "razor: stopped; no model was changed.\n"


def test_a_second_kill_ends_at_once_and_the_program_around_keeps_its_own_answer():
    mine = signal.getsignal(signal.SIGTERM)
    with pytest.raises(cli._Killed), cli._ended_by_kill():
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("nothing was raised")
    assert signal.getsignal(signal.SIGTERM) is mine
    with pytest.raises(cli._Killed), cli._ended_by_kill():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
