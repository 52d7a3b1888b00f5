"""The tree of rounds: positions move, undo and redo retrace them, branches never lose one another's rounds."""

import pytest

from razor.edit_set import EditSet
from razor.errors import InputError
from razor.history import MAX_UNDO, History, State


def state(number, parent, *members):
    return State(number, parent, None, EditSet(members), {}, None)


@pytest.fixture
def history():
    """Two rounds on Main; at the second."""
    made = History(state(0, None))
    made.add(state(1, 0, "a"))
    made.add(state(2, 1, "a", "b"))
    return made


def test_a_path_runs_from_the_unedited_model(history):
    assert [s.number for s in history.path(2)] == [0, 1, 2]


def test_undo_and_redo_retrace_rounds_moves_and_changes(history):
    history.change(EditSet(("a",)))
    history.go(0)
    seen = [history.position]
    for _ in range(3):
        history.undo()
        seen.append(history.position)
    assert [p.state for p in seen] == [0, 2, 2, 1]
    assert [p.edit_set.members for p in seen] == [(), ("a",), ("a", "b"), ("a",)]
    for before in reversed(seen[:-1]):
        history.redo()
        assert history.position == before


def test_a_change_that_changes_nothing_is_not_a_step_back(history):
    history.change(history.position.edit_set)
    history.undo()
    assert history.position.state == 1


def test_a_new_change_ends_what_could_be_redone(history):
    history.undo()
    history.change(EditSet(("z",)))
    with pytest.raises(InputError, match=r"^There is nothing to redo\.$"):
        history.redo()


def test_two_hundred_changes_are_remembered_and_no_more(history):
    for i in range(MAX_UNDO + 50):
        history.change(EditSet((f"u{i}",)))
    for _ in range(MAX_UNDO):
        history.undo()
    with pytest.raises(InputError, match=r"^There is nothing to undo\.$"):
        history.undo()


def test_a_round_after_going_back_starts_a_branch(history):
    history.go(1)
    history.add(state(3, 1, "a", "c"))
    assert history.branches == {"Main": 2, "Branch 2": 3} and history.position.branch == "Branch 2"


def test_a_round_at_the_tip_extends_the_branch_a_person_named(history):
    history.branch_from("Without b", 1)
    history.add(state(3, 1, "a", "c"))
    assert history.branches == {"Main": 2, "Without b": 3}


def test_deleting_a_branch_drops_only_the_rounds_it_alone_holds(history):
    history.branch_from("Other", 1)
    history.add(state(3, 1, "a", "c"))
    history.delete("Other")
    assert sorted(history.states) == [0, 1, 2] and history.branches == {"Main": 2}
    assert history.position.state == 2 and history.position.branch == "Main"
    history.undo()  # nothing left in the past refers to what is gone
    assert history.position.state in history.states


def test_deleting_a_branch_one_stands_on_keeps_the_round_shown_where_another_holds_it(history):
    history.branch_from("Other", 1)
    history.delete("Other")
    assert (history.position.state, history.position.branch) == (1, "Main")


def test_the_last_branch_stays(history):
    with pytest.raises(InputError, match=r"^The last branch cannot be deleted"):
        history.delete("Main")


def test_renaming_follows_a_branch_through_undo(history):
    history.go(0)
    history.rename("Main", " First try ")
    history.undo()
    assert history.position.branch == "First try" and history.branches == {"First try": 2}


@pytest.mark.parametrize(
    ("name", "said"),
    [("", "needs 1 to 40 characters"), ("x" * 41, "needs 1 to 40 characters"), ("Main", "There is a branch named")],
)
def test_a_bad_branch_name_is_refused(history, name, said):
    with pytest.raises(InputError, match=said):
        history.branch_from(name, 1)
    assert list(history.branches) == ["Main"]


def test_a_round_that_is_gone_is_named(history):
    for act in (lambda: history.go(9), lambda: history.branch_from("New", 9)):
        with pytest.raises(InputError, match=r"^That round is gone"):
            act()
    with pytest.raises(InputError, match=r"^There is no branch named 'Nope'; there are Main\.$"):
        history.switch("Nope")
