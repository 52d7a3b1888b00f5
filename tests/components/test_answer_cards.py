"""The Python side of the answers: what goes to the page is clean, and what it could not show is named."""

import json
import math

import gradio as gr
import pytest

from components.answer_cards import LEAST, answer_cards, answers_value
from components.theme import UI, css
from razor.answers import compare

PNG = "data:image/png;base64,AAAA"


def group(*answers, kind="forget"):
    return {"title": "Target", "kind": kind, "answers": answers}


def answer(question="Who is this?", **more):
    return {"image": PNG, "question": question} | more


def shown(**more):
    return answers_value([group(answer(**more))])["groups"][0]["answers"][0]


def token(before, after=None):
    return {"token": "Mara", "before": before, "after": after}


def test_answers_keep_their_order_and_fill_in_what_was_left_out():
    value = answers_value([group(answer("b"), answer("a", image=None, right=None, verdict=None))])
    assert [one["question"] for one in value["groups"][0]["answers"]] == ["b", "a"]
    assert value["groups"][0]["answers"][1] == {
        "image": "",
        "question": "a",
        "right": [],
        "before": None,
        "after": None,
        "difference": [],
        "flags": [[], []],
        "verdict": "",
        "tokens": [],
    }
    assert value["progress"] is None
    assert json.loads(json.dumps(value)) == value


def test_what_the_library_says_of_an_answer_goes_to_the_page_as_it_is():
    before, after = "Mara Voss", "a woman"
    flags = (("still names it",), ("refuses", "empty"))
    one = shown(right=("Mara Voss",), before=before, after=after, difference=compare(before, after), flags=flags)
    assert one["difference"] == [["gone", "Mara Voss"], ["new", "a woman"]]
    assert one["flags"] == [["still names it"], ["refuses", "empty"]]
    assert (one["right"], one["before"], one["after"]) == (["Mara Voss"], before, after)


def test_a_silent_answer_is_not_one_that_is_still_to_come():
    one = shown(before="", after=None)
    assert (one["before"], one["after"]) == ("", None)


@pytest.mark.parametrize(
    ("nats", "sent"), [(-0.5, -0.5), (0, 0.0), (1e-6, 0.0), (-math.inf, LEAST), (-2000, LEAST), (None, None)]
)
def test_log_probabilities_reach_the_page_as_numbers_that_json_knows(nats, sent):
    assert shown(tokens=[token(-1, nats)])["tokens"] == [{"token": "Mara", "before": -1.0, "after": sent}]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (group(answer(), kind="other"), "kind of group named 'other'"),
        (group(answer(verdict="still recognised")), "verdict named 'still recognised'. Pick one of suppressed, still"),
        (group(answer(difference=[("moved", "a")])), "difference named 'moved'. Pick one of same, gone, new."),
        (group(answer(image="https://example.org/a.png")), "shows no picture from 'https://example.org/a.png'"),
        (group(answer(flags=(("empty",),))), "flags of 'Who is this\\?' must be two lists, before and after; got 1"),
        (group(answer(tokens=[token(0.97)])), "log-probability of 'Mara' must be 0 or less, in nats; got 0.97"),
        (group(answer(tokens=[token(math.nan)])), "in nats; got nan"),
    ],
)
def test_what_the_page_could_not_show_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        answers_value([wrong])


def test_progress_counts_up_to_its_total():
    value = answers_value([], progress={"done": 4, "total": 4})
    assert value["progress"] == {"done": 4, "total": 4, "note": ""}
    with pytest.raises(ValueError, match="0 to 4 of 4 questions, got 5"):
        answers_value([], progress={"done": 5, "total": 4})


def test_the_widget_keeps_its_value_out_of_the_template_and_its_sheet_is_in_the_page():
    with gr.Blocks() as demo:
        widget = answer_cards("answers", answers_value([group(answer())]))
    assert demo.get_config_file()
    assert "$" not in widget.html_template
    assert "{{" not in widget.html_template
    assert (UI / "answers.css").read_text(encoding="utf-8") in css()
