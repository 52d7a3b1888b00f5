"""What leaves for the browser: words about one widget must not undo what another was told before its tab was opened."""

import asyncio

import gradio as gr
import pytest

from components.blocks import Blocks


@pytest.fixture(scope="module")
def send():
    """Updates by widget name -> what the browser is sent for map, table and line."""
    with Blocks() as demo:
        widgets = {"map": gr.HTML({}, picked={}), "table": gr.Dataframe(headers=["unit"]), "line": gr.HTML("")}
        gr.Button().click(lambda: None, None, [*widgets.values()])

    def send(**updates):
        told = {widgets[name]: update for name, update in updates.items()}
        return asyncio.run(demo.postprocess_data(demo.fns[0], told, None))

    return send


def test_a_widget_not_spoken_of_keeps_what_stands_beside_its_value(send):
    assert send(line="scored")[:2] == [{"__type__": "update"}] * 2


def test_a_mapping_is_sent_as_an_update_and_words_as_they_are(send):
    shown, table, line = send(map={"towers": []}, table=[["text.0"]], line="scored")
    assert shown == {"__type__": "update", "value": {"towers": []}}
    assert table["__type__"] == "update" and table["value"]["data"] == [["text.0"]]
    assert line == "scored"


def test_what_is_told_beside_the_value_comes_alone(send):
    marks = {"units": {}}
    assert send(map=gr.update(picked=marks))[0] == {"__type__": "update", "props": {"picked": marks}}
    whole = {"__type__": "update", "value": {"towers": []}, "props": {"picked": marks}}
    assert send(map=gr.update(value={"towers": []}, picked=marks))[0] == whole
