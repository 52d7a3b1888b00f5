"""K: what a person wants holds, growth proposes the rest, and every change is a new set."""

import json

import pytest

from razor.edit_set import EditSet, check_names, describe_changes
from razor.errors import InputError
from razor.gradients import UnitStats
from razor.scoring import score
from razor.units import Unit

# phi 6, 5, 4, 3, 2, 1
SCORES = score([UnitStats(Unit(f"u{i}", "head", "image", 0, i, ()), 6.0 - i, 0.0, 1.0, 0.0, 1) for i in range(6)])


def proposed(edit_set, tau=0.0, count=2):
    return [s.unit.name for s in edit_set.propose(SCORES, tau=tau, count=count)]


# ---------------------------------------------------------------- what growth proposes


def test_highest_phi_joins_first():
    assert proposed(EditSet()) == ["u0", "u1"]


def test_members_are_not_proposed_again():
    assert proposed(EditSet(members=("u0", "u2"))) == ["u1", "u3"]


def test_banned_rejected_and_switched_off_units_are_never_proposed():
    edit_set = EditSet(members=("u2",)).act("ban", ["u0"]).turned_down(["u1"]).act("out", ["u2"])
    assert proposed(edit_set, count=9) == ["u3", "u4", "u5"]


def test_tau_keeps_units_at_or_below_the_quantile_out():
    assert proposed(EditSet(), tau=0.5, count=9) == ["u0", "u1"]


# ---------------------------------------------------------------- what a person does


def test_out_and_in_again_remembers_nothing_but_the_order():
    start = EditSet(members=("a", "b"))
    out = start.act("out", ["a"])
    assert out.members == ("b",) and out.off == {"a"}
    assert out.act("in", ["a"]) == EditSet(members=("b", "a"))


def test_a_lock_puts_a_unit_in_and_holds_it_there():
    locked = EditSet().act("lock", ["a"])
    assert locked.members == ("a",) and locked.act("out", ["a"]) == locked
    assert locked.refusal("out", ["a"]) == "a is locked, so nothing changed there; unlock it (L) first."
    assert locked.act("unlock", ["a"]).act("out", ["a"]).members == ()


def test_a_ban_switches_a_unit_off_and_holds_it_out():
    banned = EditSet(members=("a", "b")).act("ban", ["a"])
    assert banned.members == ("b",) and banned.off == {"a"} and banned.act("in", ["a"]) == banned
    assert banned.refusal("in", ["a", "c"]) == "a is banned, so nothing changed there; lift the ban (B) first."
    assert banned.act("unban", ["a"]).act("in", ["a"]).members == ("b", "a")


@pytest.mark.parametrize("first, then", [("lock", "ban"), ("ban", "lock")])
def test_a_unit_cannot_be_locked_and_banned(first, then):
    held = EditSet().act(first, ["a"])
    assert held.act(then, ["a"]) == held
    assert "nothing changed there" in held.refusal(then, ["a"])


def test_many_units_at_once_change_where_nothing_protects_them():
    mixed = EditSet(members=("a",)).act("lock", ["a"]).act("ban", ["a", "b", "c"])
    assert mixed.locked == {"a"} and mixed.banned == {"b", "c"}
    assert mixed.refusal("in", ["b", "c"]).startswith("b and 1 more are banned")


def test_isolating_leaves_one_unit_active_and_restoring_brings_the_rest_back():
    start = EditSet(members=("a", "b"))
    alone = start.act("isolate", ["b"])
    assert alone.active == ("b",) and alone.members == ("a", "b")
    assert alone.act("restore", ["b"]) == start
    assert alone.act("out", ["b"]).isolated is None
    assert describe_changes(start, alone) == "only b"
    assert describe_changes(alone, start) == "not only b any more"


def test_strengths_are_one_unless_set_and_a_round_makes_them_part_of_the_change():
    dialled = EditSet(members=("a", "b")).at_strength(0.5, "a").at_strength(1.25)
    assert (dialled.strength_of("a"), dialled.strength_of("b"), dialled.strength) == (0.5, 1.0, 1.25)
    assert dialled.at_strength(1.0, "a").strengths == ()
    assert dialled.joined(["c"]) == EditSet(members=("a", "b", "c"))


@pytest.mark.parametrize("value", [-0.1, 2.1, True, "1", float("nan")])
def test_a_strength_out_of_range_is_named(value):
    with pytest.raises(InputError, match=r"choose one from 0 to 2\.$"):
        EditSet().at_strength(value)


def test_a_change_gives_a_new_set_and_leaves_the_old_one():
    first = EditSet(members=("a",))
    first.act("in", ["b"]), first.act("ban", ["c"]), first.joined(["d"]), first.turned_down(["e"])
    assert first == EditSet(members=("a",))


def test_a_set_comes_back_from_json():
    full = EditSet(("a", "b"), frozenset("c"), frozenset("a"), frozenset("d"), frozenset("e"), (("b", 0.5),), 1.5, "b")
    assert EditSet.from_json(json.loads(json.dumps(full.to_json()))) == full


def test_check_names_returns_known_names_and_refuses_others():
    assert check_names(["b", "a"], ["a", "b"]) == ("b", "a")
    with pytest.raises(InputError, match=r"^This model has no unit named 'x'; names look like 'a'.$"):
        check_names(["a", "x"], ["b", "a"])


def test_a_banned_unit_never_acts_alone():
    assert EditSet().act("isolate", ["a"]).act("ban", ["a"]).active == ()
