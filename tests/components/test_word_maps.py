"""Why this head, for a model that draws: word maps count their steps, stop, and never land on another target."""

import pytest
from tiny_drawing import last, told

from components import insight, why_panel
from razor.attribution import GateAttribution


@pytest.fixture
def looking(studio, edited):
    """A visitor looking at a head of cross-attention, and what each of the two buttons does."""
    request = edited("a")
    session = studio.sessions.get("a")
    session.focus = next(u.name for u in session.growth.units if u.tower == "cross" and u.kind == "head")
    why = studio.page.why
    views = {
        "explain": (lambda: studio.explain(request), why.card, why.explain_status),
        "look": (lambda: studio.look(request, "forget/0", "integrated gradients"), why.pixels, why.look_status),
    }
    return session, views


@pytest.mark.parametrize("button", ["explain", "look"])
def test_word_maps_count_their_steps_and_are_shown(looking, button):
    _, views = looking
    press, shown, status = views[button]
    updates = list(press())
    assert any("step by step: " in line and line.rstrip("</p>").endswith("of 6") for line in told(updates, status))
    assert "Before the edit" in last(updates)[shown] and last(updates)[status] == ""


@pytest.mark.parametrize("button", ["explain", "look"])
def test_stop_ends_them_after_the_step_under_way(looking, adapter, monkeypatch, button):
    session, views = looking
    press, shown, status = views[button]
    steps, paint = [], adapter.draw

    def stopping(*args, on_step, **more):
        return paint(
            *args, on_step=lambda step, x: steps.append(step) or session.stop.set() or on_step(step, x), **more
        )

    monkeypatch.setattr(adapter, "draw", stopping)
    done = last(press())
    assert steps == [1] and "Stopped." in done[status] and "Before the edit" not in done.get(shown, "")


@pytest.mark.parametrize("button", ["explain", "look"])
def test_they_do_not_land_on_a_target_chosen_meanwhile(looking, monkeypatch, button):
    session, views = looking
    press, shown, status = views[button]
    draw = insight.before_after

    def overtaken(*args, **more):
        found = draw(*args, **more)
        session.start_over()
        session.stop.clear()  # as the new target's own work would
        return found

    monkeypatch.setattr(insight, "before_after", overtaken)
    updates = list(press())
    assert all(shown not in update for update in updates) and updates[-1] == {status: ""}


def test_attribution_follows_predictions_here_and_similarity_in_a_clip(looking):
    session, _ = looking
    names = [u.name for u in session.growth.units if u.kind == "head"][:2]
    found = GateAttribution("ablation", {names[0]: 0.5, names[1]: 0.1}, 1.0, 0.0, None, 0.0)
    value = why_panel.attribution_map(session.growth, found)
    assert "most of what is still predicted of the concept, 1.00 in all" in value["finding"]
    assert "similarity" not in str(value)
    said = why_panel.attribution_finding({names[0]: 2.0, names[1]: 1.0}, found, "the concept's similarity")
    assert "most of the concept's similarity, 1.00 in all (+0.500)" in said and "+1.00 over 2 heads" in said
