"""Screen 5 on a tiny pipeline: every form is written, loaded again and told; what cannot be is one sentence."""

import errno
import json
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest
from gradio.utils import get_upload_folder
from tiny_drawing import SETTINGS, colour_task, last

from components import export_panel, exporting
from components.session import OWN
from razor import recipe, writing
from razor.export import Check, Written
from razor.gates import usual, with_limits
from razor.lora import read_lora
from razor.patches import Patch
from razor.stack import Concept


@pytest.mark.parametrize("form", ["patch", "peft", "full"])
def test_an_edit_is_written_in_its_form_and_loaded_again(studio, edited, adapter, form, weights_of, same_weights):
    request, panel, before = edited("a"), studio.page.export, weights_of(adapter.model)
    end = last(studio.write_export(request, form, 0, False))
    path = Path(end[panel.file]["value"])
    assert path.name == f"tiny-sd-without-red.{'zip' if form == 'full' else 'safetensors'}" and path.stat().st_size > 0
    assert "Loaded again" in end[panel.status] and 'data-tone="ready"' in end[panel.status]
    session = studio.sessions.get("a")
    assert str(path) in session.uploads and same_weights(adapter.model, before)
    if form == "patch":
        assert Patch.load(path).key() == session.growth.patch.key()
    if form == "peft":
        assert read_lora(path, adapter).deltas


def test_a_lower_rank_says_what_it_leaves_out(studio, edited):
    end = last(studio.write_export(edited("a"), "peft", 1, False))
    assert "Its ranks leave out" in end[studio.page.export.status]


def test_nothing_edited_and_an_unknown_form_are_one_sentence(studio, edited):
    request, panel = edited("a"), studio.page.export
    with pytest.warns(UserWarning):
        end = last(studio.write_export(request, "open_clip", 0, False))
    assert "There is no form &#x27;open_clip&#x27; for tiny-sd" in end[panel.status]
    studio.sessions.get("a").growth.reset()
    with pytest.warns(UserWarning):
        end = last(studio.write_export(request, "patch", 0, False))
    assert "Nothing is edited yet" in end[panel.status]


def test_an_export_that_answers_otherwise_is_thrown_away(studio, edited, monkeypatch, tmp_path):
    monkeypatch.setattr(exporting.export, "verify", lambda *_: Check(False, 0.5, 10))
    monkeypatch.setattr("components.session.Session.new_folder", lambda self, kind: tmp_path / "made")
    (tmp_path / "made").mkdir()
    with pytest.warns(UserWarning):
        end = last(studio.write_export(edited("a"), "patch", 0, False))
    assert (
        "differ from the edited model" in end[studio.page.export.status]
        and "thrown away" in end[studio.page.export.status]
    )
    assert not (tmp_path / "made").exists() and not studio.sessions.get("a").uploads


@pytest.mark.parametrize("form", ["patch", "peft", "kohya", "full", "single"])
def test_an_export_that_fails_or_is_stopped_in_the_middle_leaves_nothing(studio, edited, monkeypatch, form):
    request, panel, session = edited("a"), studio.page.export, studio.sessions.get("a")
    unit = next(u for u in session.growth.units if u.tower == "cross" and u.kind == "head")
    session.growth.act("out", list(session.growth.edit_set.members))
    session.growth.act("in", [unit.name])

    def left():
        return [*Path(get_upload_folder()).glob(f"{OWN}*")], session.uploads

    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.warns(UserWarning):
        patched.setattr(writing.os, "fsync", full)
        end = last(studio.write_export(request, form, 0, False))
    assert "Cannot write tiny-sd-without-red" in end[panel.status] and end[panel.file] == gr.update(visible=False)
    assert left() == ([], set())
    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="in the middle"):
        patched.setattr(exporting.export, "verify", lambda *_: (_ for _ in ()).throw(RuntimeError("in the middle")))
        list(studio.write_export(request, form, 0, False))
    assert left() == ([], set())
    with monkeypatch.context() as patched:
        patched.setattr(session.stop, "is_set", lambda: True)
        end = last(studio.write_export(request, form, 0, False))
    assert "Stopped; nothing was written" in end[panel.status] and left() == ([], set())


def test_a_report_that_fails_in_the_middle_leaves_nothing(studio, edited, monkeypatch):
    request, panel, session = edited("a"), studio.page.export, studio.sessions.get("a")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exporting.report, "model_card", full)
    with pytest.warns(UserWarning):
        end = last(studio.write_report(request, "", False))
    assert "The system could not do this: No space left on device" in end[panel.report_status]
    assert not session.uploads and not [*Path(get_upload_folder()).glob(f"{OWN}*")]


def test_what_is_taken_away_of_a_stack_names_every_edit_in_order(studio, edited, adapter, tmp_path):
    request, panel, session = edited("a"), studio.page.export, studio.sessions.get("a")
    growth = session.growth
    last(studio.push(request))
    pushed = session.stack.concepts[0]
    assert pushed.patch.recipe["edit_set"]["members"] == list(growth.edit_set.members)
    blue = Concept(replace(colour_task(), concept="blue"), pushed.patch.scaled(0.5), pushed.units, ("red",))
    session.stack = session.stack.push(blue)
    end = last(studio.write_export(request, "patch", 0, False))
    assert "It holds the edits of red, blue together, in this order." in end[panel.status]
    path = end[panel.file]["value"]
    assert [entry["name"] for entry in recipe.read(Path(path))["stack"]] == ["red", "blue"]
    assert recipe.read(Path(path))["stack"][1]["rounds"] == [] and recipe.read(Path(path))["stack"][1]["beneath"]
    kept = tmp_path / "kept.safetensors"
    kept.write_bytes(Path(path).read_bytes())
    end = last(studio.write_report(request, "", False))
    page, card = (Path(end[file]["value"]) for file in (panel.report_file, panel.card_file))
    assert "Edits that act together" in page.read_text("utf-8") and "blue" in page.read_text("utf-8")
    assert "Edits that act together, in this order: red, blue." in card.read_text("utf-8")
    assert recipe.read(page)["stack"] == recipe.read(kept)["stack"]
    end = last(studio.bring_in(request, str(page), False, *SETTINGS))
    assert "acted together with other edits, in this order: red, blue; only red is repeated" in end[panel.bring_status]
    end = last(studio.bring_in(request, str(kept), False, *SETTINGS))
    assert "It holds the edits of red, blue together, in this order; here they are one round" in end[panel.bring_status]


def test_families_are_offered_the_forms_there_are_for_them():
    forms = {family: [form for _, form in export_panel.choices(family)] for family in ("clip", "diffusion", "vlm")}
    assert forms["clip"] == forms["vlm"] == ["patch", "peft", "full"] and forms["diffusion"] == list(export_panel.FORMS)


def test_what_is_told_of_an_inexact_lora():
    said = exporting.told(Written(Path("l"), 2000, ("A note.",), 0.25, {"w": 1}), Check(False, 1e-3, 2000))
    assert said == (
        "2 kB written. Loaded again, its answers differ from the edited model's by 1.0e-03 of their norm. Its ranks "
        "leave out 25.0% of the change. A note."
    )


def test_a_new_export_takes_the_place_of_the_one_before_and_all_go_with_the_visitor(studio, edited):
    request, panel, session = edited("a"), studio.page.export, studio.sessions.get("a")
    first = Path(last(studio.write_export(request, "full", 0, False))[panel.file]["value"])
    assert [path.name for path in first.parent.iterdir()] == [first.name]  # the zip alone
    second = Path(last(studio.write_export(request, "patch", 0, False))[panel.file]["value"])
    assert not first.parent.exists() and second.exists()
    session.forget_files()
    assert not second.parent.exists() and not session.uploads


def test_a_redacted_model_is_not_named_after_the_concept(studio, edited):
    panel, request = studio.page.export, edited("a")
    named = {
        redacted: last(studio.write_export(request, "full", 0, redacted))[panel.file] for redacted in (False, True)
    }
    told = {redacted: Path(shown["value"]).name + shown["label"] for redacted, shown in named.items()}
    concept = studio.sessions.get("a").task.concept
    assert concept in told[False] and concept not in told[True] and "edited" in told[True]


def test_a_report_of_the_edit_is_written_with_its_model_card(studio, edited, adapter, weights_of, same_weights):
    request, panel, before = edited("a"), studio.page.export, weights_of(adapter.model)
    end = last(studio.write_report(request, "asked for", True))
    page, card = (Path(end[file]["value"]).read_text("utf-8") for file in (panel.report_file, panel.card_file))
    assert "Why: asked for" in page and page.count("data:image/jpeg") >= 4 and "to forget 'red'" in card
    assert "Nothing was checked" in end[panel.report_status] and same_weights(adapter.model, before)
    end = last(studio.write_report(request, "", False))
    assert "data:image" not in Path(end[panel.report_file]["value"]).read_text("utf-8")


def test_a_report_of_nothing_and_too_long_a_reason_are_one_sentence(studio, edited):
    request, panel = edited("a"), studio.page.export
    with pytest.warns(UserWarning):
        end = last(studio.write_report(request, "x" * 3000, False))
    assert "The reason has 3,000 characters" in end[panel.report_status]
    studio.sessions.get("a").growth.reset()
    with pytest.warns(UserWarning):
        end = last(studio.write_report(request, "", False))
    assert "Nothing is edited yet" in end[panel.report_status]


@pytest.mark.parametrize("form", ["patch", "peft"])
def test_what_was_taken_away_can_be_brought_back(studio, edited, form):
    request, panel, session = edited("a"), studio.page.export, studio.sessions.get("a")
    key, members = session.growth.patch.key(), session.growth.edit_set.members
    path = last(studio.write_export(request, form, 0, False))[panel.file]["value"]
    session.growth.reset()
    end = last(studio.bring_in(request, path, False, *SETTINGS))
    assert "was brought in" in end[panel.bring_status] and session.growth.edit_set.members == members
    if form == "patch":
        assert session.growth.patch.key() == key


def test_a_recipe_alone_sets_the_settings_that_repeat_it(studio, edited, tmp_path):
    request, panel, session = edited("a"), studio.page.export, studio.sessions.get("a")
    session.growth.act("out", list(session.growth.edit_set.members))
    session.growth.history.go(0)
    made = recipe.recipe(session.growth)
    made["config"]["alpha"] = 2.5
    (tmp_path / "r.json").write_text(json.dumps(made), "utf-8")
    end = last(studio.bring_in(request, str(tmp_path / "r.json"), False, *SETTINGS))
    assert end[studio.page.edit.alpha] == 2.5 and "Grow to target repeats it" in end[panel.bring_status]
    made["model"]["fingerprint"] = "0" * 16
    (tmp_path / "r.json").write_text(json.dumps(made), "utf-8")
    with pytest.warns(UserWarning):
        end = last(studio.bring_in(request, str(tmp_path / "r.json"), False, *SETTINGS))
    assert "load it on screen 1" in end[panel.bring_status]
    with pytest.warns(UserWarning):
        end = last(studio.bring_in(request, None, False, *SETTINGS))
    assert "Choose a file first" in end[panel.bring_status]


def test_gates_that_a_check_fixed_are_taken_away_and_come_back_with_the_recipe(studio, edited, tmp_path):
    request, panel, session = edited("a"), studio.page.export, studio.sessions.get("a")
    first, check = session.growth.patch, studio.page.check
    session.found["limits"] = {first.key(): with_limits(usual(1 / 3), {"forget": 0.25, "retain": 0.04})}
    path = Path(last(studio.write_export(request, "patch", 0, False))[panel.file]["value"])
    made = recipe.read(path)
    assert made["gates"]["forget"] == 0.25 and len(made["gates"]) == len(usual(1 / 3))
    page = Path(last(studio.write_report(request, "", False))[panel.report_file]["value"])
    assert recipe.read(page)["gates"] == made["gates"]
    (tmp_path / "r.json").write_text(json.dumps(made), "utf-8")
    for file in (path, tmp_path / "r.json"):
        session.growth.act("out", list(session.growth.edit_set.members))
        end = last(studio.bring_in(request, str(file), False, *SETTINGS))
        assert [end[number]["value"] for number in check.limits[:2]] == [25, 4] and exporting.LIMITS_SET in str(end)
    session.growth.act("in", [session.growth.units[1].name])
    assert "gates" not in recipe.read(Path(last(studio.write_export(request, "patch", 0, False))[panel.file]["value"]))
    (tmp_path / "r.json").write_text(json.dumps(made | {"gates": {"forget": 2}}), "utf-8")
    with pytest.warns(UserWarning):
        end = last(studio.bring_in(request, str(tmp_path / "r.json"), False, *SETTINGS))
    assert "The gates of the recipe cannot be used: " in end[panel.bring_status]


@pytest.mark.parametrize("begun", [False, True])
def test_moves_by_hand_of_a_recipe_are_made_again_on_the_way(studio, edited, tmp_path, begun):
    request, panel, session = edited("a"), studio.page.export, studio.sessions.get("a")
    growth = session.growth
    free = [name for name in growth.every if name not in growth.edit_set.members]
    growth.act("lock", free[:1])
    growth.act("ban", free[1:3])
    last(studio.grow_one(request, *SETTINGS))
    growth.set_strength(0.5)
    (tmp_path / "r.json").write_text(json.dumps(recipe.recipe(growth)), "utf-8")
    if not begun:
        session.growth = None
    before = session.revision
    end = last(studio.bring_in(request, str(tmp_path / "r.json"), False, *SETTINGS))
    said = end[panel.bring_status]
    assert "Grow to target repeats it, with what was done by hand" in said and "Grow one round does" in said
    assert not begun or ("It is on Branch 2, by itself" in said and session.revision > before)
    last(studio.grow_one(request, *SETTINGS))
    assert session.growth.edit_set == growth.edit_set and session.growth.edit_set.strength == 0.5
    assert session.growth.rounds[-1].by_hand == growth.rounds[-1].by_hand and (begun or session.growth is not growth)
    session.start_over()
    assert not session.planned.locked, "another target knows nothing of it"


@pytest.mark.parametrize("begun", [False, True])
def test_a_unit_put_in_by_hand_alone_is_in_again(studio, edited, tmp_path, begun):
    request, panel, session = edited("a"), studio.page.export, studio.sessions.get("a")
    members, key = session.growth.edit_set.members, session.growth.patch.key()
    (tmp_path / "r.json").write_text(json.dumps(recipe.recipe(session.growth)), "utf-8")
    if not begun:
        session.growth = None
    end = last(studio.bring_in(request, str(tmp_path / "r.json"), False, *SETTINGS))
    told = "What was done by hand is done again" if begun else "Score does again what was done by hand"
    assert told in end[panel.bring_status]
    if not begun:
        last(studio.score(request, *SETTINGS))
    assert session.growth.edit_set.members == members and session.growth.patch.key() == key


def test_what_a_recipe_does_not_bring_back_is_named(studio, edited, tmp_path):
    request, panel, session = edited("a"), studio.page.export, studio.sessions.get("a")
    growth = session.growth
    last(studio.grow_one(request, *SETTINGS))
    growth.history.branch_from("Beside", 0)
    growth.history.switch("Main")
    made = recipe.recipe(growth)
    made["config"] |= {"seed": 5, "start_units": 2}

    def brought(made):
        (tmp_path / "r.json").write_text(json.dumps(made), "utf-8")
        return last(studio.bring_in(request, str(tmp_path / "r.json"), False, *SETTINGS))[panel.bring_status]

    said = brought(made)
    assert "The page has no setting for start_units 2, seed 5, so it grows otherwise: unlearn --recipe repeats" in said
    assert "Beside is another branch, not grown again: from the unedited model, nothing was grown." in said
    by_hand = made["rounds"][0]["by_hand"]
    made["rounds"][0] = {key: v for key, v in made["rounds"][0].items() if key != "start"} | {"added": ["text.0.mlp"]}
    said = brought(made)
    assert f"before round 1 is left to do: {by_hand}." in said and "but for what was done by hand" in said
    made["rounds"] = [{"by_hand": "1 unit brought in from x", "added": [], "accepted": True, "steps": 0}]
    said = brought(made)
    assert "Round 1 was not grown (1 unit brought in from x)" in said and "Grow to target" not in said


def test_a_recipe_of_other_versions_says_so_and_one_of_unknown_units_is_refused(studio, edited, tmp_path):
    request, panel, session = edited("a"), studio.page.export, studio.sessions.get("a")
    made = recipe.recipe(session.growth)

    def brought():
        (tmp_path / "r.json").write_text(json.dumps(made), "utf-8")
        return last(studio.bring_in(request, str(tmp_path / "r.json"), False, *SETTINGS))[panel.bring_status]

    assert "It was made with" not in brought()
    made["versions"]["torch"] = "1.0"
    assert "It was made with torch 1.0 (here " in brought()
    made["edit_set"]["members"] = ["text.99.head.1"]
    with pytest.warns(UserWarning):
        assert "names &#x27;text.99.head.1&#x27; in &#x27;edit_set.members&#x27;" in brought()
    made["edit_set"]["members"] = 5
    with pytest.warns(UserWarning):
        said = brought()
    assert "its &#x27;edit_set.members&#x27; is &#x27;5&#x27;" in said and str(tmp_path) not in said
    with pytest.warns(UserWarning):
        end = last(studio.follow_link(request, recipe.to_link(made)))
    assert "its &#x27;edit_set.members&#x27; is &#x27;5&#x27;" in end[panel.bring_status]


def test_a_link_that_will_not_do_leaves_the_rounds_where_they_are(studio, edited, monkeypatch):
    request, panel, session = edited("a"), studio.page.export, studio.sessions.get("a")
    growth = session.growth
    monkeypatch.setitem(exporting.BUNDLED, "tiny-sd", Path("there"))
    made = recipe.recipe(growth)
    made["task"]["origin"]["forget"] = "object:cat"
    with pytest.warns(UserWarning):
        end = last(studio.follow_link(request, recipe.to_link(made)))
    assert "this task forgets &#x27;cat&#x27;" in end[panel.bring_status] and session.growth is growth
    assert list(studio.follow_link(request, "")) == [gr.skip()]


def test_a_report_of_an_edit_that_has_changed_is_no_longer_offered(studio, edited):
    request, panel, session = edited("a"), studio.page.export, studio.sessions.get("a")
    last(studio.write_report(request, "", False))
    assert studio.reported(session) == {}
    session.growth.act("out", list(session.growth.edit_set.members))
    session.edited()
    assert studio.reported(session)[panel.report_file]["visible"] is False
