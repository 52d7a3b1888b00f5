"""The Python side of the pairs: what goes to the page is clean, and what it could not show is named."""

import json

import gradio as gr
import pytest

from components.pairs import SCRIPTS, pairs, pairs_value, sheet_value
from components.theme import UI, css

PNG = "data:image/png;base64,AAAA"
X = {"name": "seed", "values": [1, 2, 3]}
Y = {"name": "prompt", "values": ["a cat", "a boat"]}


def group(*pairs, kind="forget"):
    return {"title": "Target", "kind": kind, "pairs": pairs}


def pair(id="a", **more):
    return {"id": id, "prompt": "a cat", "seed": 3, "before": PNG, "after": None} | more


def cells(deep=1, tall=2, wide=3):
    return [[[{"image": PNG, "caption": ""}] * wide for _ in range(tall)] for _ in range(deep)]


def test_pairs_keep_their_order_and_fill_in_what_was_left_out():
    value = pairs_value([group(pair("b"), pair("a", verdict=None, saw_before=None))])
    assert [one["id"] for one in value["groups"][0]["pairs"]] == ["b", "a"]
    assert value["groups"][0]["pairs"][1] == {
        "id": "a",
        "prompt": "a cat",
        "seed": "3",
        "before": PNG,
        "after": None,
        "saw_before": "",
        "saw_after": "",
        "verdict": "",
    }
    assert value["sheet"] is None
    assert json.loads(json.dumps(value)) == value


def test_a_seed_of_64_bits_reaches_the_page_unrounded():
    seeds = [
        one["seed"] for one in pairs_value([group(pair(seed=2**63 - 1), pair("b", seed=None))])["groups"][0]["pairs"]
    ]
    assert seeds == ["9223372036854775807", ""]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (group(pair(), kind="other"), "kind of group named 'other'"),
        (group(pair(verdict="fine")), "verdict named 'fine'. Pick one of suppressed, still drawn, kept, changed."),
        (group(pair(before="https://example.org/a.png")), "shows no picture from 'https://example.org/a.png'"),
        (group(pair(after="javascript:alert(1)")), "shows no picture from 'javascript"),
        (group(pair("a"), pair("b"), pair("a")), "more than one has 'a'"),
    ],
)
def test_what_the_page_could_not_show_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        pairs_value([wrong])


def test_two_groups_may_not_share_a_pair():
    with pytest.raises(ValueError, match="more than one has 'a'"):
        pairs_value([group(pair()), group(pair())])


def test_progress_counts_up_to_its_total():
    shown = pairs_value([], progress={"done": 4, "total": 4})["progress"]
    assert shown == {"done": 4, "total": 4, "note": ""}
    with pytest.raises(ValueError, match="0 to 4 of 4 pictures, got 5"):
        pairs_value([], progress={"done": 5, "total": 4})


def test_a_sheet_has_a_table_for_each_value_of_z_and_one_without_z():
    z = {"name": "strength", "values": ["0 %", "100 %"]}
    sheet = sheet_value("Seeds", X, Y, z, cells(deep=2))["sheet"]
    assert (len(sheet["cells"]), sheet["x"]["values"]) == (2, ["1", "2", "3"])
    assert sheet_value("Seeds", X, Y, None, cells())["sheet"]["z"] is None


@pytest.mark.parametrize("shape", [{"deep": 2}, {"tall": 3}, {"wide": 2}])
def test_a_sheet_whose_cells_do_not_fit_names_both_shapes(shape):
    with pytest.raises(ValueError, match="must be 1 tables of 2 rows of 3 cells; got"):
        sheet_value("Seeds", X, Y, None, cells(**shape))


def test_the_widget_keeps_its_value_out_of_the_template_and_its_sheet_is_in_the_page():
    with gr.Blocks() as demo:
        widget = pairs("pairs", pairs_value([group(pair())]))
    assert demo.get_config_file()
    assert "$" not in widget.html_template
    assert "{{" not in widget.html_template
    assert (UI / "pairs.css").read_text(encoding="utf-8") in css()
    assert sorted(SCRIPTS) == sorted(path.name for path in UI.glob("pairs*.js"))
