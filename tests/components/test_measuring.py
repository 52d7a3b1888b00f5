"""Numbers of a model that draws: points are called points, pictures are counted only when asked for, and can stop."""

from dataclasses import replace

import pytest
from tiny_drawing import SETTINGS, Eyes, Guesses, last, told

from components import guide, measure_panel, measuring, reading, story
from razor import telling, wording
from razor.config import RazorConfig
from razor.growth import Growth
from razor.metrics import share


@pytest.fixture
def painted(adapter, monkeypatch):
    """How many pictures each drawing took, in order."""
    calls, paint = [], adapter.draw
    monkeypatch.setattr(adapter, "draw", lambda prompts, *a, **k: calls.append(len(prompts)) or paint(prompts, *a, **k))
    return calls


# What is said to be counted on what -----------------------------------------------------------------------------------


def test_what_an_unedited_model_knows_is_claimed_only_where_a_judge_looked(studio, edited, adapter):
    growth = studio.sessions.get(edited("a").session_hash).growth
    assert growth.base.forget_accuracy.value == 1  # whatever it was asked for
    assert "by definition" in telling.start_text(growth) and "points" in telling.start_text(growth)
    assert wording.unedited(growth).startswith("the unedited model draws red more often than by chance, read by a test")
    growth.bench.judge = Guesses()
    assert "by chance, guessed by tiny (CLIP" in wording.unedited(growth)
    growth.bench.judge = None
    assert "by definition; whether it draws it nobody here can say" in wording.unedited(growth)


def test_nothing_to_forget_names_who_looked(studio, edited):
    growth = studio.sessions.get(edited("a").session_hash).growth
    growth.known = False
    assert "no more often than by chance, read by a test's eyes" in story.nothing_to_forget(growth)


def test_search_numbers_are_predictions_at_points_everywhere(studio, edited):
    session = studio.sessions.get(edited("a").session_hash)
    growth = session.growth
    assert growth.now  # measured, without a picture
    tiles = reading.tiles_of(growth, None)
    assert "Concept still predicted" in tiles and f"n = {growth.now.forget_accuracy.n} search points" in tiles
    assert "the denoiser&#x27;s predictions at search points" in tiles and "pictures, read" not in tiles
    said = [
        telling.map_finding(growth.shown_scores(), growth),
        telling.timeline_finding(growth),
        reading.estimate_html(growth, None, growth.now),
        guide.seen_text(2, session),
        story.drawn_ending(growth),
    ]
    assert all("search points" in text and "recognised" not in text for text in said)
    assert "No picture is counted" in said[-1]
    assert 'Asked for "a red thing a" it is now to draw "a thing a".' in said[-1]


def measured(growth, value):
    counted = share([True] * round(10 * value) + [False] * round(10 - 10 * value))
    names = ("unlearning", "in_domain_retain", "cross_domain_retain")
    return replace(growth.base, forget_accuracy=counted, **{f"{name}_accuracy": counted for name in names})


def test_the_three_of_a_tested_edit_stand_by_name_before_and_after_with_n_and_interval(studio, edited):
    growth = studio.sessions.get(edited("a").session_hash).growth
    before, after = measured(growth, 0.2), measured(growth, 0.9)
    tiles = reading.tiles_of(growth, (before, after))
    for name in ("Unlearning accuracy (UA)", "In-domain retain accuracy (IRA)", "Cross-domain retain accuracy (CRA)"):
        tile = tiles.split(name)[1].split("</div></div>")[0]
        sides = (after.unlearning_accuracy, before.unlearning_accuracy)
        lines = [f"{100 * side.low:.1f} to {100 * side.high:.1f} %" for side in sides]
        assert "20.0%" in tile and "90.0%" in tile and "n = 10 " in tile
        assert f"95 % interval {lines[0]}\nbefore {lines[1]}\n" in tile.replace(reading.NBSP, " ")
    assert "Counted on pictures drawn from test prompts, read by a test&#x27;s eyes." in tiles
    assert "Concept still predicted" not in tiles and "Prediction stability" not in tiles


def test_a_measure_the_task_has_nothing_to_count_for_has_no_tile(studio, edited):
    growth = studio.sessions.get(edited("a").session_hash).growth
    none = replace(measured(growth, 0.5), cross_domain_retain_accuracy=None)
    assert "CRA" not in reading.tiles_of(growth, (none, none))


def test_test_numbers_of_a_clip_judge_are_guesses_and_without_a_judge_points(studio, edited, adapter, monkeypatch):
    session = studio.sessions.get(edited("a").session_hash)
    growth = session.growth
    session.tested = (measured(growth, 0.2), measured(growth, 0.9))
    for judge, said in ((Guesses(), "only a proxy"), (None, "predictions at points of the test split")):
        monkeypatch.setattr(adapter, "judge", judge)
        growth.bench.judge = judge
        assert said in reading.tiles_of(growth, session.tested)
    assert "n = 10 test points" in reading.tiles_of(growth, session.tested)
    assert "Of 10 test points nothing was chosen by, red is still predicted at 90.0%" in guide.seen_text(3, session)


def test_a_clip_is_still_told_of_in_pictures(trained, task):
    growth = Growth(trained, task, RazorConfig())
    assert wording.unedited(growth).startswith("the unedited model recognises red in")
    assert "search pictures" in telling.start_text(growth) and wording.judge_of(growth) is None
    assert "test pictures" in reading.tiles_of(growth, (growth.base, growth.base))


# Growing does not draw, measuring does --------------------------------------------------------------------------------


def test_growing_leaves_search_numbers_in_the_tiles_and_offers_to_measure_at_a_price(studio, visitor, painted):
    panel = studio.page.edit
    done = last(studio.grow_one(visitor("a"), *SETTINGS))
    session = studio.sessions.get("a")
    assert session.growth.rounds and session.tested is None and session.growth.bench.pictures == {}
    assert "search points" in done[panel.tiles] and done[panel.measure.box]["visible"]
    assert done[panel.measure.run]["value"] == measure_panel.MEASURE
    count = 12 if session.growth.patch.deltas else 6
    assert f"This draws {count} of test prompts, read by a test&#x27;s eyes: " in done[panel.measure.status]


def test_stopping_growth_starts_no_drawing(studio, visitor, painted):
    request = visitor("a")
    work = studio.grow_one(request, *SETTINGS)
    next(work)
    studio.stop(request)
    done = last(work)
    assert painted == [] and "Stopped before the first round" in done[studio.page.edit.status]


def test_measuring_draws_both_sides_once_and_shows_them(studio, edited, painted):
    panel, request = studio.page.edit.measure, edited("a")
    updates = list(studio.measure(request))
    session = studio.sessions.get("a")
    assert painted == [6, 6] and session.tested
    said = told(updates, panel.status)
    assert any("12 of test prompts" in line for line in said) and any("of 12" in line for line in said)
    assert "Measured: 12 pictures drawn and read by a test&#x27;s eyes" in said[-1]
    assert "n = 2 drawn pictures" in last(updates)[studio.page.edit.tiles]
    assert last(updates)[studio.page.compare.tiles] == last(updates)[studio.page.edit.tiles]
    session.growth.act("in", [session.growth.units[1].name])
    session.edited()
    assert measure_panel.to_draw(session.growth) == 6  # the unedited side is known
    last(studio.measure(request))
    assert painted == [6, 6, 6]


def test_stop_ends_the_measurement_within_a_step_and_the_tiles_stay(
    studio, edited, adapter, monkeypatch, weights_of, same_weights
):
    panel, request, session = studio.page.edit.measure, edited("a"), studio.sessions.get("a")
    before, paint = weights_of(adapter.model), adapter.draw
    steps = []

    def stopping(*args, on_step=None, **more):
        return paint(*args, on_step=lambda step, latents: steps.append(step) or session.stop.set(), **more)

    monkeypatch.setattr(adapter, "draw", stopping)
    done = last(studio.measure(request))
    assert steps == [1] and measuring.STOPPED in done[panel.status] and session.tested is None
    assert studio.page.edit.tiles not in done and same_weights(adapter.model, before)


def test_an_edit_changed_while_it_was_measured_lets_the_numbers_go(studio, edited, adapter, monkeypatch):
    request, session, paint = edited("a"), studio.sessions.get("a"), adapter.draw
    monkeypatch.setattr(adapter, "draw", lambda *a, **k: session.edited() or paint(*a, **k))
    done = last(studio.measure(request))
    assert measuring.OVERTAKEN in done[studio.page.edit.measure.status] and session.tested is None


def test_another_target_chosen_while_it_was_measured_blanks_the_page(studio, edited, adapter, monkeypatch):
    request, session, paint = edited("a"), studio.sessions.get("a"), adapter.draw
    monkeypatch.setattr(adapter, "draw", lambda *a, **k: session.start_over() or paint(*a, **k))
    done = last(studio.measure(request))
    panel = studio.page.edit
    assert session.tested is None and done[panel.tiles] == "" and done[panel.measure.box]["visible"] is False
    assert done[panel.measure.status] == ""


def test_without_a_judge_the_same_button_counts_points_and_draws_nothing(studio, edited, adapter, monkeypatch, painted):
    request, session = edited("a"), studio.sessions.get("a")
    session.growth.bench.judge = None
    monkeypatch.setattr(adapter, "judge", None)
    panel = studio.page.edit
    shown = studio.measurable(session, session.growth)
    assert shown[panel.measure.run]["value"] == measure_panel.AT_POINTS and "No judge" in shown[panel.measure.status]
    done = last(studio.measure(request))
    assert painted == [] and "test points" in done[panel.tiles]


def test_a_clip_is_measured_by_itself_and_has_no_such_button(studio, trained, task):
    growth = Growth(trained, task, RazorConfig())
    shown = studio.measurable(studio.sessions.get("a"), growth)
    assert shown[studio.page.edit.measure.box]["visible"] is False


def test_the_story_can_be_stopped_while_the_unedited_model_is_asked(studio, visitor, adapter, monkeypatch):
    request, session, paint = visitor("a"), studio.sessions.get("a"), adapter.draw

    class Red(Eyes):
        def __call__(self, images, axes):
            return [{axis.name: axis.classes[0] for axis in axes} for _ in images]

    def stopping(*args, **more):
        session.stop.set()
        return paint(*args, **more)

    monkeypatch.setattr(adapter, "judge", Red())
    monkeypatch.setattr(adapter, "draw", stopping)
    done = last(studio.tell(request, *SETTINGS))
    assert "Stopped" in done[studio.page.examples.status] and not session.growth.rounds


def test_pictures_of_several_drawings_are_counted_on():
    seen = []
    tell = measuring.in_all(lambda done, total: seen.append((done, total)), 12)
    for done in (2, 4, 6, 2, 6):
        tell(done, 6)
    assert seen == [(2, 12), (4, 12), (6, 12), (8, 12), (12, 12)]


def test_a_judge_that_guesses_is_said_to():
    assert wording.read_by(Eyes()) == "read by a test's eyes"
    assert wording.read_by(Guesses()).startswith("guessed by tiny")
