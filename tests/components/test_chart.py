"""The Python side of the read-only charts: the figure is plain JSON, and what comes back is checked."""

import json

import gradio as gr
import numpy as np
import pytest

from components.chart import chart, chart_value, literal, marked_value, picked_key, selected_keys


def test_a_figure_becomes_json_without_nan_or_infinity():
    trace = {"type": "scatter", "x": (1, float("nan")), "y": np.array([0.5, np.inf]), "customdata": [["a"], ["b"]]}
    value = chart_value([trace], {"xaxis": {"range": [np.float32(0), 1]}, "showlegend": False})
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["data"] == [{"type": "scatter", "x": [1, None], "y": [0.5, None], "customdata": [["a"], ["b"]]}]
    assert value["layout"] == {"xaxis": {"range": [0.0, 1]}, "showlegend": False}


def test_colour_tokens_are_left_to_the_browser():
    value = chart_value([{"marker": {"color": ["token:forget", "#123456"]}}], {})
    assert value["data"][0]["marker"]["color"] == ["token:forget", "#123456"]


def test_a_figure_does_not_share_the_lists_it_was_given():
    x = [1, 2]
    value = chart_value([{"x": x}], {})
    x.append(3)
    assert value["data"][0]["x"] == [1, 2]


def test_what_is_not_json_is_named():
    with pytest.raises(ValueError, match="not object"):
        chart_value([{"x": [object()]}], {})


def test_an_unknown_way_to_pick_is_refused():
    assert chart_value([], {}, pick="brush")["pick"] == "brush"
    with pytest.raises(ValueError, match="'lasso'"):
        chart_value([], {}, pick="lasso")


def test_equal_marks_are_still_news():
    first, second = marked_value(["a"]), marked_value(["a"])
    assert first["keys"] == second["keys"] == ["a"]
    assert first["rev"] < second["rev"]


def test_literal_takes_the_tags_out_of_a_text():
    assert literal('<b>"a" & b</b>') == '&lt;b&gt;"a" &amp; b&lt;/b&gt;'


def test_a_picked_point_is_one_there_is():
    assert picked_key(gr.EventData(None, {"key": "a"}), ["a", "b"]) == "a"
    for wrong in ({"key": "c"}, {"key": 1}, {"key": ["a"]}, {}, None):
        with pytest.raises(ValueError, match="A picked point must be one of the points on the chart"):
            picked_key(gr.EventData(None, wrong), ["a", "b"])


def test_selected_points_come_once_each_and_a_cleared_selection_is_empty():
    assert selected_keys(gr.EventData(None, {"keys": ["b", "a", "b"]}), {"a", "b"}) == ["b", "a"]
    assert selected_keys({"keys": []}, {"a"}) == []


@pytest.mark.parametrize("sent", [{"keys": "a"}, {"keys": ["a", "c"]}, {"keys": [1]}, {"keys": [["a"]]}, {}, None])
def test_selected_points_there_are_not_are_refused(sent):
    with pytest.raises(ValueError, match="Selected points must be a list of points on the chart"):
        selected_keys(gr.EventData(None, sent), ["a", "b"])


def test_the_widget_takes_its_events_and_keeps_values_out_of_the_template():
    with gr.Blocks() as demo:
        widget = chart("scatter")
        widget.point_pick(lambda: None)
        widget.points_select(lambda: None)
    assert demo.get_config_file()
    assert "$" not in widget.html_template and "{{" not in widget.html_template
