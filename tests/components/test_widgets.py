"""The Python side of the page's widgets: what they send is clean, what they receive is checked."""

import base64
import io
import re

import gradio as gr
import pytest
from PIL import Image

from components import theme
from components.cards import cards, cards_value
from components.head_map import head_map

# ---------------------------------------------------------------- cards
from razor.picture_files import image_url


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
        hm, cd = head_map(), cards("compare")
        hm.units_change(lambda: None)
    assert demo.get_config_file()
    assert all("$" not in widget.html_template and "{{" not in widget.html_template for widget in (hm, cd))


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
        theme.finding_html(bad),
        theme.status_html(bad, bad),
        theme.tile_html(bad, bad, bad, bad, bad),
        theme.model_card_html(bad, [(bad, bad)], bad),
    ]
    assert not [text for text in made if "<img" in text]
