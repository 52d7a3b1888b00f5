"""Screen 5 on a tiny pipeline: every form is written, loaded again and told; what cannot be is one sentence."""

import json
from pathlib import Path

import gradio as gr
import pytest
from tiny_drawing import SETTINGS, last

from components import export_panel, exporting
from razor import recipe
from razor.export import Check, Written
from razor.lora import read_lora
from razor.patches import Patch


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


@pytest.mark.parametrize("begun", [False, True])
def test_locks_and_bans_of_a_recipe_hold_in_the_run_that_repeats_it(studio, edited, tmp_path, begun):
    request, panel, session = edited("a"), studio.page.export, studio.sessions.get("a")
    made, members = recipe.recipe(session.growth), session.growth.edit_set.members
    free = [name for name in session.growth.every if name not in members]
    made["edit_set"] |= {"locked": free[:1], "banned": free[1:3], "strength": 0.5}
    (tmp_path / "r.json").write_text(json.dumps(made), "utf-8")
    if not begun:
        session.growth = None
    before = session.revision
    end = last(studio.bring_in(request, str(tmp_path / "r.json"), False, *SETTINGS))
    assert "Its 1 lock and 2 bans are set. Units were dialled afterwards" in end[panel.bring_status]
    assert not begun or ({*session.growth.edit_set.members} == {*free[:1]} and session.revision > before)
    last(studio.grow(request, *SETTINGS))
    held = session.growth.edit_set
    assert held.locked == {*free[:1]} <= {*held.members} and held.banned == {*free[1:3]}
    session.start_over()
    assert not session.planned.locked, "another target knows nothing of it"


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
