"""K: picks come first, bans hold, and every change is a new set."""

import pytest

from razor.edit_set import EditSet, check_names
from razor.errors import InputError
from razor.gradients import UnitStats
from razor.scoring import score
from razor.units import Unit

# phi 6, 5, 4, 3, 2, 1
SCORES = score([UnitStats(Unit(f"u{i}", "head", "image", 0, i, ()), 6.0 - i, 0.0, 1.0, 0.0, 1) for i in range(6)])


def proposed(edit_set, tau=0.0, count=2):
    return [s.unit.name for s in edit_set.propose(SCORES, tau=tau, count=count)]


def test_highest_phi_joins_first():
    assert proposed(EditSet()) == ["u0", "u1"]


def test_members_are_not_proposed_again():
    assert proposed(EditSet(members=("u0", "u2"))) == ["u1", "u3"]


def test_wanted_units_come_first_and_count_towards_the_number():
    assert proposed(EditSet().want(["u4"])) == ["u4", "u0"]


def test_wanted_units_are_all_taken_even_below_tau_and_beyond_the_count():
    assert proposed(EditSet().want(["u5", "u4", "u3"]), tau=0.9) == ["u3", "u4", "u5"]


def test_banned_and_rejected_units_are_never_proposed():
    assert proposed(EditSet().ban(["u0"]).turned_down(["u1"]), count=9) == ["u2", "u3", "u4", "u5"]


def test_tau_keeps_units_at_or_below_the_quantile_out():
    assert proposed(EditSet(), tau=0.5, count=9) == ["u0", "u1"]


def test_wanting_lifts_a_ban_and_a_rejection_and_a_ban_lifts_a_want():
    assert EditSet().ban(["a"]).turned_down(["a"]).want(["a"]) == EditSet(wanted=frozenset("a"))
    assert EditSet().want(["a"]).ban(["a"]) == EditSet(banned=frozenset("a"))
    assert EditSet().want(["a"]).ban(["b"]).clear(["a", "b"]) == EditSet()


def test_joining_keeps_the_order_and_uses_up_the_want():
    joined = EditSet(members=("a",)).want(["b"]).joined(["b", "a", "c"])
    assert joined == EditSet(members=("a", "b", "c"))


def test_a_change_gives_a_new_set_and_leaves_the_old_one():
    first = EditSet(members=("a",))
    first.want(["b"]), first.ban(["c"]), first.joined(["d"]), first.turned_down(["e"])
    assert first == EditSet(members=("a",))


def test_check_names_returns_known_names_and_refuses_others():
    assert check_names(["b", "a"], ["a", "b"]) == ("b", "a")
    with pytest.raises(InputError, match=r"^This model has no unit named 'x'; names look like 'a'.$"):
        check_names(["a", "x"], ["b", "a"])
