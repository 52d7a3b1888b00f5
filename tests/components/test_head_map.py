"""The Python side of the map: what it sends is clean JSON, what it receives is checked."""

import json

import gradio as gr
import pytest

from components import theme
from components.head_map import (
    ACTIONS,
    MEASURES,
    MOST_UNITS,
    Measure,
    UnitState,
    focus_payload,
    head_map,
    map_value,
    payload,
    picked_value,
    score_domain,
    tau_payload,
)

EFFECT = Measure("effect", "Effect", "share of the answer", ramp="diverging")


def tower(**grids):
    return {
        "name": "image",
        "title": "Image tower",
        "rows": ["block 0"],
        "columns": ["0", "1", "MLP"],
        "units": [["a", "b", None]],
    } | grids


# ---------------------------------------------------------------- the widget


def test_the_map_takes_its_three_events_and_keeps_values_out_of_the_template():
    with gr.Blocks() as demo:
        shown = head_map("a-map", 'Map of "heads"')
        for event in (shown.units_change, shown.unit_focus, shown.tau_change):
            event(lambda: None)
    assert demo.get_config_file()
    assert 'aria-label="Map of &quot;heads&quot;"' in shown.html_template
    assert "$" not in shown.html_template and "{{" not in shown.html_template


def test_the_map_needs_no_plotly():
    assert "Plotly" not in head_map().js_on_load and head_map().head is None


def test_the_page_carries_every_sheet_and_the_common_one_first():
    sheet = theme.css()
    texts = [path.read_text(encoding="utf-8") for path in theme.UI.glob("*.css")]
    assert all(text in sheet for text in texts)
    assert sheet.index((theme.UI / "studio.css").read_text(encoding="utf-8")) == min(map(sheet.index, texts))


# ---------------------------------------------------------------- value


def test_map_value_is_json_without_nan_or_infinity():
    value = map_value([tower(phi=[[float("nan"), float("inf"), None]], rank=[[1, 2.0, None]])], tau=0.5, alpha=1)
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["towers"][0]["phi"] == [[None, None, None]]
    assert value["towers"][0]["rank"] == [[1, 2, None]]
    assert (value["tau"], value["alpha"], value["readonly"]) == (0.5, 1.0, False)


def test_measures_left_out_are_blank_and_optional_grids_left_out_stay_out():
    clean = map_value([tower()])["towers"][0]
    assert clean["separation"] == clean["parameters"] == [[None, None, None]]
    assert not {"low", "high", "unstable", "open"} & clean.keys()


def test_flags_and_intervals_are_cleaned():
    clean = map_value([tower(open=[[1, 0, None]], unstable=[[False, True, None]], low=[[1, float("nan"), None]])])
    assert clean["towers"][0]["open"] == [[True, False, None]]
    assert clean["towers"][0]["unstable"] == [[False, True, None]]
    assert clean["towers"][0]["low"] == [[1.0, None, None]]


def test_the_four_measures_come_in_the_order_of_the_switch():
    value = map_value([])
    assert [m["name"] for m in value["measures"]] == ["phi", "ratio", "pressure", "separation"]
    assert value["measure"] == "phi"
    assert set(value["domain"]) == {m.name for m in MEASURES}


def test_another_map_brings_its_own_measures():
    value = map_value([tower(effect=[[-0.2, 0.1, None]])], measures=[EFFECT], measure="effect", readonly=True)
    assert value["towers"][0]["effect"] == [[-0.2, 0.1, None]]
    assert "phi" not in value["towers"][0]
    assert value["readonly"] is True


def test_log_measures_get_a_domain_in_log10_and_separation_does_not():
    domain = score_domain(map_value([tower(phi=[[0.01, 1.0, None]], separation=[[0.25, 1.5, None]])])["towers"])
    assert domain["phi"] == [-2.0, 0.0]
    assert domain["separation"] == [0.25, 1.5]


def test_the_domain_of_the_ratio_is_centred_on_its_median():
    low, high = map_value([tower(ratio=[[0.1, 10.0, 1000.0]])])["domain"]["ratio"]
    assert (low + high) / 2 == pytest.approx(1.0)  # log10 of the median, 10
    assert high == pytest.approx(3.0)


def test_the_domain_of_signed_values_is_centred_on_zero():
    value = map_value([tower(effect=[[-0.2, 0.1, 0.05]])], measures=[EFFECT], measure="effect")
    assert value["domain"]["effect"] == [-0.2, 0.2]


def test_zero_scores_and_equal_scores_still_give_a_domain_with_width():
    assert map_value([tower(phi=[[0.0, 0.0, None]])])["domain"]["phi"] == [0.0, 1.0]
    assert map_value([tower(phi=[[0.1, 0.1, None]])])["domain"]["phi"] == [-1.5, -0.5]
    assert map_value([tower(effect=[[0, 0, 0]])], measures=[EFFECT], measure="effect")["domain"]["effect"] == [
        -0.5,
        0.5,
    ]


def test_a_given_domain_wins_and_the_others_are_still_filled():
    value = map_value([tower(phi=[[0.1, 1.0, None]])], domain={"phi": (-4, 2)})
    assert value["domain"]["phi"] == [-4.0, 2.0]
    late = map_value([tower(phi=[[10.0, 1000.0, None]])], domain=value["domain"])["domain"]
    assert late["phi"] == [-4.0, 2.0]  # 100, the middle, is at its edge
    later = map_value([tower(phi=[[100.0, 10_000.0, None]])], domain=late)["domain"]
    assert later["phi"] == [2.0, 4.0]  # all would be of one colour
    assert set(value["domain"]) == {"phi", "pressure", "separation", "ratio"}


def test_a_grid_of_the_wrong_shape_is_named():
    with pytest.raises(ValueError, match="phi of tower 'image' must be 1 rows of 3 cells"):
        map_value([tower(phi=[[1.0, 2.0]])])
    with pytest.raises(ValueError, match="open of tower 'image' must be 1 rows of 3 cells"):
        map_value([tower(open=[[True]])])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"measure": "heat"}, r"'heat'.*phi, ratio, pressure, separation"),
        ({"measures": [EFFECT, EFFECT], "measure": "effect"}, "a name of its own"),
        ({"measures": [Measure("phi", "", "", ramp="rainbow")]}, "no ramp named 'rainbow'"),
        ({"tau": 1.5}, "from 0 to 1, got 1.5"),
        ({"tau": float("nan")}, "from 0 to 1, got nan"),
        ({"alpha": -1}, "from 0, got -1"),
        ({"towers": [tower(groups=["a", "b"])]}, "one group for each of its 1 rows, got 2"),
    ],
)
def test_misuse_is_a_sentence(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        map_value(**({"towers": []} | given))


# ---------------------------------------------------------------- picked


def test_picked_value_counts_up_so_that_equal_states_are_still_news():
    given = {"ack": 5, "isolated": "a", "focus": "b"}
    first, second = (picked_value({"a": UnitState("edited", 2)}, **given) for _ in range(2))
    assert second["rev"] > first["rev"]
    assert {name: second[name] for name in given} == given
    assert second["units"] == {"a": {"state": "edited", "round": 2, "locked": False, "strength": 1.0}}


def test_picked_value_takes_mappings_too():
    units = picked_value({"a": {"state": "free", "locked": True}, "b": {"state": "off", "strength": 0.5}}, 0)["units"]
    assert units["a"]["locked"] is True
    assert units["b"]["strength"] == 0.5


def test_picked_value_refuses_what_no_unit_can_be():
    with pytest.raises(ValueError, match=r"'picked'.*edited, off, banned, free"):
        picked_value({"a": UnitState("picked")}, ack=0)
    for strength in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="strength of unit 'a'"):
            picked_value({"a": UnitState("edited", strength=strength)}, ack=0)


# ---------------------------------------------------------------- events


@pytest.mark.parametrize("action", ACTIONS)
def test_payload_reads_the_event_gradio_delivers_and_a_plain_mapping(action):
    sent = {"units": ["a", "b"], "action": action, "seq": 3}
    assert payload(gr.EventData(None, sent)) == (["a", "b"], action, 3)
    assert payload(sent) == (["a", "b"], action, 3)


@pytest.mark.parametrize(
    "sent",
    [
        {},
        None,
        "units",
        7,
        {"units": "a", "action": "in", "seq": 1},
        {"units": [], "action": "in", "seq": 1},
        {"units": [1], "action": "in", "seq": 1},
        {"units": ["a"] * (MOST_UNITS + 1), "action": "in", "seq": 1},
        {"units": ["a"], "action": "edited", "seq": 1},
        {"units": ["a"], "action": ["in"], "seq": 1},
        {"units": ["a"], "action": "in", "seq": True},
        {"units": ["a"], "action": "in", "seq": "1"},
        {"units": ["a"], "action": "in", "seq": 0},
    ],
)
def test_payload_refuses_whatever_is_not_a_change(sent):
    with pytest.raises(ValueError, match="A change on the map must"):
        payload(gr.EventData(None, sent))


def test_focus_payload_reads_one_unit_or_none():
    assert focus_payload(gr.EventData(None, {"unit": "a", "seq": 1})) == "a"
    assert focus_payload({"unit": None, "seq": 2}) is None
    for wrong in ("", 3, ["a"], {"name": "a"}):
        with pytest.raises(ValueError, match="must name one unit"):
            focus_payload({"unit": wrong})


def test_tau_payload_reads_a_number_below_one():
    assert tau_payload(gr.EventData(None, {"tau": 0.5, "seq": 1})) == 0.5
    assert tau_payload({"tau": 0}) == 0.0
    assert tau_payload({"tau": 0.999}) == 0.999
    for wrong in (None, True, "0.5", -0.01, 1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"from 0 to 0\.999"):
            tau_payload({"tau": wrong})
