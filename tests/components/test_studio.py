"""What the buttons do, without a browser: handlers called as Gradio calls them, on a tiny CLIP."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import app
from components import edit_panel, examples_panel, story
from razor.config import RazorConfig
from razor.examples import Example
from razor.metrics import Measure
from razor.patches import Patch
from razor.step import evaluate

SETTINGS = (1.0, 0.0, 1.0, 2, 0.02, 4, 0.05, ["image", "text"], ["heads"])


@pytest.fixture
def studio(trained):
    _, studio = app.build_demo(lambda name: trained)
    return studio


@pytest.fixture
def visitor(studio, task):
    """name -> a request of that visitor, whose session already has the tiny task."""

    def enter(name):
        studio.sessions.get(name).task = task
        return SimpleNamespace(session_hash=name)

    return enter


def last(updates):
    """The last value every widget was given."""
    final = {}
    for update in updates:
        final |= update
    return final


def click(studio, request, units, state, seq):
    return studio.change_units(SimpleNamespace(units=units, state=state, seq=seq), request)["picked"]


def test_scoring_draws_one_cell_for_every_unit(studio, visitor, trained):
    drawn = last(studio.score(visitor("a"), *SETTINGS))
    towers = drawn[studio.page.edit.map]["value"]["towers"]
    cells = [name for tower in towers for row in tower["units"] for name in row if name]
    assert sorted(cells) == sorted(unit.name for unit in trained.units())


def test_growing_edits_nothing_but_the_sessions_own_patch(studio, visitor, trained, weights_of, same_weights):
    before = weights_of(trained.model)
    last(studio.grow_one(visitor("a"), *SETTINGS))
    assert studio.sessions.get("a").growth.patch.deltas
    assert same_weights(trained.model, before)
    assert studio.sessions.get("b").growth is None


def test_two_visitors_growing_in_turns_keep_their_own_rounds(studio, visitor, trained):
    a, b = visitor("a"), visitor("b")
    last(studio.grow_one(a, *SETTINGS))
    kept = dict(studio.sessions.get("a").growth.patch.deltas)
    last(studio.score(b, *SETTINGS))
    click(studio, b, ["text.0.head.1"], "picked", 1)
    last(studio.grow_one(b, *SETTINGS))
    after = studio.sessions.get("a").growth.patch.deltas
    assert kept.keys() == after.keys() and all(torch.equal(kept[k], after[k]) for k in kept)
    assert "text.0.head.1" in studio.sessions.get("b").growth.edit_set.members


def test_a_click_picks_a_ban_bars_and_clearing_lifts_both(studio, visitor):
    request = visitor("a")
    last(studio.score(request, *SETTINGS))
    assert click(studio, request, ["image.0.head.0"], "picked", 1)["units"]["image.0.head.0"]["state"] == "picked"
    assert click(studio, request, ["image.0.head.0"], "banned", 2)["units"]["image.0.head.0"]["state"] == "banned"
    answer = click(studio, request, ["image.0.head.0"], "none", 3)
    assert answer["units"] == {} and answer["ack"] == 3


@pytest.mark.parametrize(
    ("units", "state", "seq"),
    [
        (["image.9.head.9"], "picked", 1),
        ("image.0.head.0", "picked", 1),
        (["image.0.head.0"], "edited", 1),
        ([], "none", 1),
    ],
)
def test_a_forged_click_changes_nothing_and_is_answered(studio, visitor, units, state, seq):
    request = visitor("a")
    last(studio.score(request, *SETTINGS))
    before = studio.sessions.get("a").growth.edit_set
    with pytest.warns(UserWarning):
        assert click(studio, request, units, state, seq)["units"] == {}
    assert studio.sessions.get("a").growth.edit_set == before


def test_an_edited_unit_cannot_be_clicked_out(studio, visitor):
    request = visitor("a")
    last(studio.grow_one(request, *SETTINGS))
    member = studio.sessions.get("a").growth.edit_set.members[0]
    assert click(studio, request, [member], "none", 1)["units"][member]["state"] == "edited"


def test_moving_alpha_redraws_without_running_the_model(studio, visitor, trained, monkeypatch):
    request = visitor("a")
    first = last(studio.score(request, *SETTINGS))
    monkeypatch.setattr(trained.model, "encode_image", None)
    monkeypatch.setattr(trained.model, "encode_text", None)
    moved = last(studio.rescale(request, 0.0, *SETTINGS[1:]))
    phi = [drawn[studio.page.edit.map]["value"]["towers"][0]["phi"] for drawn in (first, moved)]
    assert phi[0] != phi[1]
    assert first[studio.page.edit.map]["value"]["domain"] == moved[studio.page.edit.map]["value"]["domain"]


def test_undo_without_a_score_is_one_sentence(studio, visitor):
    with pytest.warns(UserWarning, match="press Score"):
        said = last(studio.undo(visitor("a")))
    assert "Nothing is scored yet; press Score first." in said[studio.page.edit.status]


def test_settings_out_of_range_are_named(studio, visitor):
    with pytest.warns(UserWarning, match="alpha is -1"):
        last(studio.score(visitor("a"), -1.0, *SETTINGS[1:]))


def test_the_story_ends_on_the_comparison_with_measured_words(studio, visitor, trained, task):
    request = visitor("a")
    told = last(studio.tell(request, *SETTINGS))
    growth = studio.sessions.get("a").growth
    after = evaluate(trained, growth.bench, growth.patch, "test")
    assert (
        f"{after.forget_accuracy.value:.1%} of {len(task.forget.test)} new pictures" in told[studio.page.compare.status]
    )
    assert "removed" not in told[studio.page.compare.status]
    assert next(group["kind"] for group in told[studio.page.compare.cards]["groups"]) == "forget"


def test_a_concept_the_model_does_not_know_is_nothing_to_forget(studio, visitor):
    request = visitor("a")
    last(studio.score(request, *SETTINGS))
    growth = studio.sessions.get("a").growth
    growth.base = replace(growth.base, forget_accuracy=Measure(0.1, 10, 0.0, 0.4))
    assert "nothing to forget" in story.nothing_to_forget(growth)


def test_story_does_not_claim_success_it_did_not_measure(trained, task):
    from razor.growth import Growth

    growth = Growth(trained, task, RazorConfig(forget_target=0.0))
    base = evaluate(trained, growth.bench, Patch(), "test")
    assert "not suppressed yet" in story.ending(growth, base, base)


def test_a_stopped_growth_keeps_what_was_done_and_says_so(studio, visitor):
    request = visitor("a")
    work = studio.grow(request, *SETTINGS)
    next(work)
    studio.stop(request)
    last(work)
    assert studio.sessions.get("a").growth.rounds == []


def test_captions_typed_in_any_row_order_reach_their_pictures(picture):
    examples = tuple(Example(picture(i), f"old {i}", source=f"{i}.png") for i in range(3))
    rows = [[*row[:2], f"new {row[1]}"] for row in examples_panel.caption_rows(examples, examples[:1])]
    rows = [rows[2], ["retain", rows[0][1], "not mine"], rows[0]]
    assert [e.caption for e in examples_panel.with_captions(examples, rows, "forget")] == [
        "new 1  0.png",
        "old 1",
        "new 3  2.png",
    ]


def test_map_rows_have_a_blank_where_a_tower_has_no_such_head(trained, task):
    from razor.growth import Growth

    growth = Growth(trained, task, RazorConfig())
    scores = [s for s in growth.scores() if s.unit.name != "image.1.head.1"]
    image = edit_panel.towers_of(scores, growth)[0]
    assert image["units"][1][1] is None and image["phi"][1][1] is None and image["columns"][-1] == "MLP"


def test_a_target_chosen_while_growing_ends_that_work_and_starts_clean(studio, visitor):
    request = visitor("a")
    work = studio.grow(request, *SETTINGS)
    next(work)
    next(work)
    last(studio.choose_target(request, "object:dog"))
    last(work)
    session = studio.sessions.get("a")
    assert session.growth is None and session.tested is None and session.target == "object:dog"


def test_two_visitors_growing_at_once_get_what_each_gets_alone(studio, visitor, task):
    alone = visitor("alone")
    last(studio.grow_one(alone, *SETTINGS))
    expected = studio.sessions.get("alone").growth.patch.deltas
    requests = [visitor(name) for name in ("a", "b")]
    threads = [threading.Thread(target=lambda r=r: last(studio.grow_one(r, *SETTINGS))) for r in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("a", "b"):
        found = studio.sessions.get(name).growth.patch.deltas
        assert found.keys() == expected.keys() and all(torch.equal(found[k], expected[k]) for k in found)


def test_alpha_still_redraws_after_a_round(studio, visitor):
    request = visitor("a")
    last(studio.grow_one(request, *SETTINGS))
    assert studio.page.edit.map in last(studio.rescale(request, 0.0, *SETTINGS[1:]))


def test_a_ban_made_after_a_round_survives_undoing_it(studio, visitor):
    request = visitor("a")
    last(studio.grow_one(request, *SETTINGS))
    click(studio, request, ["image.0.mlp"], "banned", 1)
    last(studio.undo(request))
    assert "image.0.mlp" in studio.sessions.get("a").growth.edit_set.banned
