"""A grid knows what it takes before it starts, refuses too much, and draws the edits its axes name."""

import pytest
import torch

from razor.config import RazorConfig
from razor.errors import InputError
from razor.growth import Growth
from razor.patches import Patch
from razor.picture_grid import MAX_CELLS, GridAxis, GridPlan, example_values, parse_axis, patch_of
from razor.pictures import DrawSettings, Side
from razor.units import Slice

SETTINGS = DrawSettings(7, 20, 4.0, 64)
BRANCHES = ("Main", "Branch 2", "odd, name")


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("seed", "1..4", (1, 2, 3, 4)),
        ("seed", "7, 3 ,7; 1 .. 2", (7, 3, 1, 2)),
        ("seed", "9007199254740993", (9007199254740993,)),  # no float holds it
        ("strength", "0, 0.5, 1", (0.0, 0.5, 1.0)),
        ("strength", "0..2 by 0.5", (0.0, 0.5, 1.0, 1.5, 2.0)),
        ("strength", "0..0.3 by 0.1", (0.0, 0.1, 0.2, 0.3)),
        ("round", "0..2", (0, 1, 2)),
        ("branch", "Branch 2, Main", ("Branch 2", "Main")),
        ("branch", "odd, name", ("odd, name",)),
        ("guidance", "1, 7.5", (1.0, 7.5)),
        ("steps", "10\n20", (10, 20)),
    ],
)
def test_values_are_read_as_a_person_writes_them(name, text, values):
    assert parse_axis(name, text, rounds=2, branches=BRANCHES) == GridAxis(name, values)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("colour", "1", "no axis 'colour'; choose among seed, strength"),
        ("seed", "", r"which values of the seed to draw, such as '1\.\.4'"),
        ("seed", "one", "'one' is no seed; write numbers"),
        ("seed", "1.5", "The seed cannot be 1.5; it is a whole number"),
        ("seed", "-1", "The seed cannot be -1; it goes from 0"),
        ("seed", "1e9", "'1e9' is no seed"),
        ("seed", "nan", "'nan' is no seed"),
        ("seed", "4..1", r"The range '4\.\.1' of the seed is empty"),
        ("seed", "1..2 by 0", r"The range '1\.\.2 by 0' of the seed is empty"),
        ("seed", "1..999999999", "too many values; a grid holds 200"),
        ("seed", "1," * 1001, "2,002 characters long"),
        ("strength", "0, 2.5", "The strength cannot be 2.5; it goes from 0 to 2"),
        ("round", "0..3", "The round cannot be 3; it goes from 0 to 2"),
        ("branch", "Branch 3", "no branch 'Branch 3'; there are Main, Branch 2"),
        ("branch", "", "which branches to draw; there are Main"),
        ("guidance", "51", "The guidance cannot be 51"),
        ("steps", "0", "The steps cannot be 0; it goes from 1 to 200"),
    ],
)
def test_values_that_cannot_be_drawn_are_named(name, text, said):
    with pytest.raises(InputError, match=said):
        parse_axis(name, text, rounds=2, branches=BRANCHES)


@pytest.mark.parametrize("name", ["strength", "round", "branch"])
def test_the_edit_cannot_change_where_nothing_was_grown(name):
    with pytest.raises(InputError, match=f"Nothing was grown yet, so the {name} cannot change"):
        parse_axis(name, "1")


@pytest.mark.parametrize("name", ["seed", "strength", "round", "branch", "guidance", "steps"])
def test_the_values_offered_to_start_from_can_be_drawn(name):
    text = example_values(name, rounds=2, branches=("Main", "Branch 2"))
    assert parse_axis(name, text, rounds=2, branches=("Main", "Branch 2")).values


def test_a_plan_counts_its_pictures_and_what_each_takes():
    plan = GridPlan("a cat", SETTINGS, GridAxis("seed", (1, 2, 3)), GridAxis("guidance", (1.0, 4.0)))
    assert (plan.count, plan.shape) == (6, (1, 2, 3))
    assert plan.denoised() == [(20, 1.0, 64)] * 3 + [(20, 4.0, 64)] * 3
    places = [place for place, _ in plan.cells()]
    assert places == [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0), (0, 1, 1), (0, 1, 2)]


def test_what_no_axis_changes_is_as_in_the_settings():
    plan = GridPlan("a cat", SETTINGS, GridAxis("steps", (5,)))
    ((_, cell),) = plan.cells()
    spec = plan.spec(cell)
    assert (spec.prompt, spec.seed, spec.steps, spec.guidance, spec.side) == ("a cat", 7, 5, 4.0, 64)


def test_too_large_a_grid_is_refused_before_it_starts():
    many = GridAxis("seed", tuple(range(21)))
    with pytest.raises(InputError) as refused:
        GridPlan("a cat", SETTINGS, many, GridAxis("steps", tuple(range(1, 11))))
    assert str(refused.value) == f"21 x 10 = 210 pictures are too many for one grid; {MAX_CELLS} is the most."


def test_axes_that_contradict_each_other_are_refused():
    seeds = GridAxis("seed", (1, 2))
    with pytest.raises(InputError, match="Two axes of the grid change the seed"):
        GridPlan("a cat", SETTINGS, seeds, seeds)
    with pytest.raises(InputError, match="A round and a branch both say which edit is drawn"):
        GridPlan("a cat", SETTINGS, GridAxis("round", (0, 1)), z=GridAxis("branch", ("Main",)))


def test_each_edit_is_asked_for_once():
    asked = []
    plan = GridPlan("a cat", SETTINGS, GridAxis("seed", (1, 2)), GridAxis("strength", (0.0, 1.0)))
    jobs = plan.jobs(lambda cell: asked.append(cell) or Side(str(cell)))
    assert asked == [{"strength": 0.0}, {"strength": 1.0}] and len(jobs) == 4
    assert [job.spec.seed for job in jobs] == [1, 2, 1, 2]


# The edit of a cell ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def growth(trained, task):
    growth = Growth(trained, task, RazorConfig(inner_steps=2, tau=0.0, rounds=2))
    growth.next_round()
    growth.next_round()
    return growth


def equal(a, b):
    return a.deltas.keys() == b.deltas.keys() and all(torch.allclose(a.deltas[k], b.deltas[k]) for k in a.deltas)


def test_a_cell_without_an_edit_of_its_own_is_the_edit_as_it_stands(growth):
    assert growth.patch.deltas and equal(patch_of(growth, {}), growth.patch)


def test_the_strength_scales_the_edit_and_leaves_other_concepts_alone(growth):
    others = Patch({Slice("elsewhere"): torch.ones(2)})
    assert equal(patch_of(growth, {"strength": 0.5}, others), others + growth.patch.scaled(0.5))
    assert equal(patch_of(growth, {"strength": 0.0}, others), others)


def test_a_round_is_the_state_it_left(growth):
    first = growth.history.path(growth.history.position.state)[1]
    assert not patch_of(growth, {"round": 0}).deltas
    assert equal(patch_of(growth, {"round": 1}), growth.patch_of(first.edit_set, first))
    assert equal(patch_of(growth, {"round": 2}), growth.patch)


def test_a_branch_is_its_end(growth):
    growth.history.branch_from("Unedited", 0)
    try:
        assert not patch_of(growth, {"branch": "Unedited"}).deltas
        tip = growth.history.states[growth.history.branches["Main"]]
        twice = growth.patch_of(tip.edit_set, tip).scaled(2.0)
        assert equal(patch_of(growth, {"branch": "Main", "strength": 2.0}), twice)
    finally:
        growth.history.switch("Main")
