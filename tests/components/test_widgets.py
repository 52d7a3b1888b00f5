"""The Python side of the page's widgets: what they send is clean, what they receive is checked."""

import base64
import io
import json
import re

import gradio as gr
import pytest
from PIL import Image

from components import theme
from components.cards import cards, cards_value, image_url
from components.head_map import head_map, map_value, payload, picked_value, score_domain
from components.timeline import round_picked, timeline, timeline_value


def tower(**grids):
    return {
        "name": "image",
        "title": "Image tower",
        "rows": ["block 0"],
        "columns": ["0", "1", "MLP"],
        "units": [["a", "b", None]],
    } | grids


# ---------------------------------------------------------------- the map


def test_map_value_is_json_without_nan_or_infinity():
    value = map_value([tower(phi=[[float("nan"), float("inf"), None]], rank=[[1, 2.0, None]])])
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["towers"][0]["phi"] == [[None, None, None]]
    assert value["towers"][0]["rank"] == [[1, 2, None]]


def test_scores_left_out_are_blank_in_the_shape_of_the_units():
    value = map_value([tower()])
    assert value["towers"][0]["separation"] == [[None, None, None]]
    assert value["domain"]["separation"] == [0.0, 1.0]


def test_log_scores_get_a_domain_in_log10_and_separation_does_not():
    domain = score_domain(map_value([tower(phi=[[0.01, 1.0, None]], separation=[[0.25, 1.5, None]])])["towers"])
    assert domain["phi"] == [-2.0, 0.0]
    assert domain["separation"] == [0.25, 1.5]


def test_ratio_domain_is_centred_on_the_median():
    low, high = map_value([tower(ratio=[[0.1, 10.0, 1000.0]])])["domain"]["ratio"]
    assert (low + high) / 2 == pytest.approx(1.0)  # log10 of the median, 10
    assert high == pytest.approx(3.0)


def test_zero_scores_and_equal_scores_still_give_a_domain_with_width():
    assert map_value([tower(phi=[[0.0, 0.0, None]])])["domain"]["phi"] == [0.0, 1.0]
    assert map_value([tower(phi=[[0.1, 0.1, None]])])["domain"]["phi"] == [-1.5, -0.5]


def test_a_given_domain_wins_and_the_others_are_still_filled():
    value = map_value([tower(phi=[[0.1, 1.0, None]])], domain={"phi": (-4, 2)})
    assert value["domain"]["phi"] == [-4.0, 2.0]
    assert set(value["domain"]) == {"phi", "pressure", "separation", "ratio"}


def test_a_grid_of_the_wrong_shape_is_named():
    with pytest.raises(ValueError, match="phi of tower 'image' must be 1 rows of 3 cells"):
        map_value([tower(phi=[[1.0, 2.0]])])


def test_an_unknown_colour_lists_the_choices():
    with pytest.raises(ValueError, match=r"'heat'.*phi, pressure, separation, ratio"):
        map_value([], colour="heat")


def test_picked_value_counts_up_so_that_equal_states_are_still_news():
    first, second = picked_value({"a": ("edited", 2)}, ack=5), picked_value({"a": ("edited", 2)}, ack=5)
    assert second["rev"] > first["rev"]
    assert second["ack"] == 5
    assert second["units"] == {"a": {"state": "edited", "round": 2}}


def test_picked_value_refuses_an_unknown_state():
    with pytest.raises(ValueError, match="'locked'"):
        picked_value({"a": ("locked", None)}, ack=0)


def test_payload_reads_the_event_gradio_delivers_and_a_plain_mapping():
    sent = {"units": ["a", "b"], "state": "banned", "seq": 3}
    assert payload(gr.EventData(None, sent)) == (["a", "b"], "banned", 3)
    assert payload(sent) == (["a", "b"], "banned", 3)


@pytest.mark.parametrize(
    "sent",
    [
        {},
        None,
        "units",
        7,
        {"units": "a", "state": "picked", "seq": 1},
        {"units": [], "state": "picked", "seq": 1},
        {"units": [1], "state": "picked", "seq": 1},
        {"units": ["a"], "state": "edited", "seq": 1},
        {"units": ["a"], "state": ["picked"], "seq": 1},
        {"units": ["a"], "state": "picked", "seq": True},
        {"units": ["a"], "state": "picked", "seq": "1"},
        {"units": ["a"], "state": "picked", "seq": 0},
    ],
)
def test_payload_refuses_whatever_is_not_a_change(sent):
    with pytest.raises(ValueError, match="A change on the map must"):
        payload(gr.EventData(None, sent))


# ---------------------------------------------------------------- timeline and cards


def test_timeline_value_keeps_a_missing_curve_missing():
    point = {"value": 0.5, "low": float("nan"), "high": 0.6, "n": 64}
    value = timeline_value([{"index": 0, "accepted": True, "forget": point, "retain": None}], target=0.07)
    first = value["rounds"][0]
    assert first["forget"] == {"value": 0.5, "low": None, "high": 0.6, "n": 64}
    assert first["retain"] is None and first["neighbour"] is None and first["unit"] is None
    assert json.dumps(value, allow_nan=False)


def test_round_picked_accepts_only_rounds_there_are():
    assert round_picked(gr.EventData(None, {"index": 2}), rounds=3) == 2
    for wrong in ({"index": 3}, {"index": -1}, {"index": True}, {"index": "1"}, {}, None):
        with pytest.raises(ValueError, match="from 0 to 2"):
            round_picked(gr.EventData(None, wrong), rounds=3)


def test_cards_value_keeps_the_order_and_at_most_five_bars():
    bars = [{"label": str(i), "before": 0.1, "after": float("nan")} for i in range(7)]
    group = {"title": "Target", "kind": "forget", "cards": [{"image": "x", "title": t, "bars": bars} for t in "ba"]}
    shown = cards_value([group])["groups"][0]["cards"]
    assert [card["title"] for card in shown] == ["b", "a"]
    assert [bar["label"] for bar in shown[0]["bars"]] == list("01234")
    assert shown[0]["bars"][0]["after"] == 0.0


def test_cards_value_names_a_wrong_kind_or_verdict():
    with pytest.raises(ValueError, match="kind of group named 'other'"):
        cards_value([{"title": "", "kind": "other", "cards": []}])
    with pytest.raises(ValueError, match="verdict named 'fine'"):
        cards_value([{"title": "", "kind": "own", "cards": [{"image": "x", "verdict": "fine"}]}])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK"])
def test_image_url_is_a_small_picture_that_opens_again(mode):
    url = image_url(Image.new(mode, (600, 300)), side=128)
    head, data = url.split(",")
    assert head in ("data:image/webp;base64", "data:image/png;base64")
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (128, 64)


def test_image_url_does_not_change_the_picture_it_is_given():
    picture = Image.new("RGB", (600, 300))
    image_url(picture, side=16)
    assert picture.size == (600, 300)


# ---------------------------------------------------------------- theme and widgets


def test_every_widget_takes_its_events_and_keeps_values_out_of_the_template():
    with gr.Blocks() as demo:
        hm, tl, cd = head_map(), timeline(), cards("compare")
        hm.units_change(lambda: None)
        tl.round_pick(lambda: None)
    assert demo.get_config_file()
    assert all("$" not in widget.html_template and "{{" not in widget.html_template for widget in (hm, tl, cd))


def test_plotly_comes_from_a_relative_address():
    assert theme.plotly_js().is_file()
    assert theme.plotly_head().startswith('<script src="gradio_api/file=')


def test_css_declares_every_colour_once_per_mode():
    sheet = theme.css()
    for name, shade in theme.COLOURS.items():
        declared = re.findall(rf"--razor-{name}: (#\w+);", sheet)
        assert declared == [shade["light"], shade["dark"]]


def test_theme_fetches_no_font():
    assert not theme.studio_theme()._stylesheets


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("name", sorted(theme.COLOURS))
@pytest.mark.parametrize(("mode", "paper"), [("light", "#f8f9fc"), ("dark", "#161d2b")])
def test_meaning_colours_read_as_text(name, mode, paper):
    high, low = sorted((luminance(theme.COLOURS[name][mode]), luminance(paper)), reverse=True)
    assert (high + 0.05) / (low + 0.05) >= 4.5


def test_markup_helpers_escape_what_they_are_given():
    bad = '<img src=x onerror="alert(1)">'
    made = [
        theme.header_html(bad, bad, bad, bad),
        theme.empty_state_html(bad, bad),
        theme.finding_html(bad),
        theme.status_html(bad, bad),
        theme.tile_html(bad, bad, bad, bad, bad),
        theme.model_card_html(bad, [(bad, bad)], bad),
    ]
    assert not [text for text in made if "<img" in text]
