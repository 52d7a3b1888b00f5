"""The Python side of the growth timeline: the tree it is given is sound, and what it hears back is checked."""

import json

import gradio as gr
import pytest

from components.timeline import branch_changed, round_picked, timeline, timeline_value

START = {"id": 0, "parent": None, "kind": "start", "index": 0, "accepted": True}
BRANCHES = [{"name": "Main", "tip": 2}, {"name": "Gentle", "tip": 3, "locks": 1, "bans": 2}]


def grown(id, parent, index, **more):
    return {"id": id, "parent": parent, "kind": "round", "index": index, "accepted": True} | more


def forked():
    """Main runs 0, 1, 2; Gentle leaves it after 1."""
    return [START, grown(1, 0, 1), grown(2, 1, 2), grown(3, 1, 2)]


def shown(nodes=None, **more):
    given = {"branches": BRANCHES, "branch": "Main", "current": 2} | more
    return timeline_value(forked() if nodes is None else nodes, **given)


def test_every_branch_carries_its_path_from_the_start():
    paths = {branch["name"]: branch["path"] for branch in shown()["branches"]}
    assert paths == {"Main": [0, 1, 2], "Gentle": [0, 1, 3]}


def test_a_fork_names_the_other_branches_that_part_there():
    assert shown()["forks"] == {"1": ["Gentle"]}
    assert shown(branch="Gentle", current=3)["forks"] == {"1": ["Main"]}


def test_a_branch_without_rounds_of_its_own_parts_at_its_tip():
    branches = [*BRANCHES, {"name": "New", "tip": 2}]
    assert shown(branches=branches)["forks"] == {"1": ["Gentle"], "2": ["New"]}


def test_a_value_is_json_without_nan_and_a_missing_curve_stays_missing():
    point = {"value": 0.5, "low": float("nan"), "high": 0.6, "n": 64}
    trial = {"step": 1, "length": 0.02, "forget": float("inf"), "retain": 0.9, "cost": 0.1}
    node = grown(1, 0, 1, forget=point, retain=None, trials=[trial])
    value = shown([START, node], branches=[{"name": "Main", "tip": 1}], current=1, target=float("nan"))
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    first = value["nodes"][1]
    assert first["forget"] == {"value": 0.5, "low": None, "high": 0.6, "n": 64}
    assert first["retain"] is None and first["neighbour"] is None
    assert first["trials"][0]["forget"] is None


def test_equal_values_are_still_news():
    assert shown()["rev"] < shown()["rev"]


def test_a_draft_is_plain_and_may_be_unmeasured():
    draft = shown(draft={"text": "without text.0.head.2", "busy": True})["draft"]
    assert draft == {"text": "without text.0.head.2", "busy": True, "forget": None, "retain": None, "neighbour": None}
    assert shown()["draft"] is None


def test_at_most_two_known_branches_are_compared():
    assert shown(compared=["Gone", "Gentle", "Main", "Gentle"])["compared"] == ["Gentle", "Main"]


def test_nothing_grown_needs_no_branch():
    assert timeline_value([], branches=[], branch="", current=0)["nodes"] == []


@pytest.mark.parametrize(
    ("nodes", "changes", "message"),
    [
        (None, {"branch": "Other"}, "No branch named 'Other'. Pick one of Main, Gentle."),
        (None, {"current": 3}, "Node 3 does not lie on the branch 'Main'."),
        ([START, grown(2, 9, 1)], {}, "leads to 9"),
        ([grown(2, 3, 1), grown(3, 2, 2)], {}, "leads to 2"),
        ([START | {"kind": "end"}], {}, "No kind of node named 'end'"),
    ],
)
def test_what_is_no_tree_is_refused(nodes, changes, message):
    with pytest.raises(ValueError, match=message):
        shown(nodes, **changes)


# ---------------------------------------------------------------- events


def test_a_picked_round_is_one_there_is():
    assert round_picked(gr.EventData(None, {"id": 7}), {0, 7}) == 7
    assert round_picked({"id": 0}, [0]) == 0


@pytest.mark.parametrize(
    "sent", [{"id": 3}, {"id": -1}, {"id": True}, {"id": "1"}, {"id": 1.0}, {"id": []}, {}, None, 7]
)
def test_a_picked_round_there_is_not_is_refused(sent):
    with pytest.raises(ValueError, match="A picked round must be one of the rounds on the timeline"):
        round_picked(gr.EventData(None, sent), range(3))


def change(action, name="Main", to=None, node=None):
    sent = {"action": action, "name": name, "to": to, "node": node}
    return branch_changed(gr.EventData(None, sent), ["Main", "Gentle"], range(4))


def test_each_change_of_branches_carries_only_what_it_needs():
    assert change("switch", "Gentle", to="ignored", node=1) == ("switch", "Gentle", None, None)
    assert change("compare") == ("compare", "Main", None, None)
    assert change("delete") == ("delete", "Main", None, None)
    assert change("new", to="  Very \t bold ", node=0) == ("new", "Main", "Very bold", 0)
    assert change("rename", to="<img src=x onerror=1>") == ("rename", "Main", "<img src=x onerror=1>", None)


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"action": "merge"}, "must ask for one of switch, new, rename, delete, compare"),
        ({"action": ["new"]}, "must ask for one of"),
        ({"action": "switch", "name": "Gone"}, "There is no branch of that name"),
        ({"action": "switch", "name": ["Main"]}, "There is no branch of that name"),
        ({"action": "new", "to": "Bold", "node": 4}, "must start at one of the rounds"),
        ({"action": "new", "to": "Bold", "node": True}, "must start at one of the rounds"),
        ({"action": "new", "to": "Bold"}, "must start at one of the rounds"),
        ({"action": "new", "to": "Gentle", "node": 0}, "There is already a branch of that name"),
        ({"action": "rename", "to": " "}, "must be 1 to 40 printable characters"),
        ({"action": "rename", "to": "x" * 41}, "must be 1 to 40 printable characters"),
        ({"action": "rename", "to": "a\u202eb"}, "must be 1 to 40 printable characters"),
        ({"action": "rename", "to": 7}, "must be 1 to 40 printable characters"),
    ],
)
def test_a_change_of_branches_that_makes_no_sense_is_refused(sent, message):
    with pytest.raises(ValueError, match=message):
        branch_changed({"name": "Main"} | sent, ["Main", "Gentle"], range(4))


def test_an_event_without_a_mapping_is_refused():
    with pytest.raises(ValueError, match="must ask for one of"):
        branch_changed(gr.EventData(None, None), ["Main"], [0])


def test_the_last_branch_cannot_be_deleted():
    with pytest.raises(ValueError, match="The last branch cannot be deleted"):
        branch_changed({"action": "delete", "name": "Main"}, ["Main"], [0])


def test_the_widget_takes_its_events_and_keeps_values_out_of_the_template():
    with gr.Blocks() as demo:
        widget = timeline()
        widget.round_pick(lambda: None)
        widget.branch_change(lambda: None)
    assert demo.get_config_file()
    assert "$" not in widget.html_template and "{{" not in widget.html_template
