"""The comparison of methods on a page of its own: a method is picked on the chart, and numbers are a table or a web."""

import gradio as gr
import pytest

from components import check_panel, rivals, theme
from components.chart import picked_key
from razor.metrics import Evaluation, share

pytestmark = pytest.mark.browser


def row(name, forget, retain):
    forget, retain = (share([True] * hits + [False] * (n - hits)) for hits, n in ((forget, 96), (retain, 600)))
    return rivals.Row(name, Evaluation(forget, forget, retain, retain, None, None), True, 1, 1, 1.0, 1)


ROWS = [row(rivals.OURS, 2, 597), row("slug", 30, 560), row("ascent", 1, 300)]
BEFORE = row("", 95, 599).after


def filled(panel):
    return {
        panel.front: gr.update(value=rivals.front_value(ROWS, BEFORE, "cat")),
        panel.radar: gr.update(value=rivals.radar_value(ROWS, BEFORE)),
        panel.table: rivals.table_html(ROWS, BEFORE),
    }


@pytest.fixture(scope="session")
def app_url():
    """Stands in for the whole app."""
    with gr.Blocks() as demo:
        panel = check_panel.build()

        def picked(event: gr.EventData):
            return picked_key(event, [row.name for row in ROWS])

        panel.front.point_pick(picked, None, panel.compare_status)
        demo.load(lambda: filled(panel), None, [panel.front, panel.radar, panel.table])
    look = {"theme": theme.studio_theme(), "css": theme.css()}
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, footer_links=[], run_history=False, **look)
    yield url
    demo.close()


@pytest.fixture
def page(chromium, app_url):
    context = chromium.new_context(viewport={"width": 1440, "height": 1000})
    page, troubles = context.new_page(), []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(app_url + "?__theme=light")
    page.locator("#rivals .label-wrap").click()
    page.locator("#rival-chart .chart[data-ready='true']").wait_for(timeout=20_000)
    yield page
    context.close()
    assert not troubles


def test_a_method_is_picked_on_the_chart_and_tells_n_and_interval_on_the_way(page):
    points = page.locator("#rival-chart .scatterlayer .points path")
    points.nth(3).wait_for(timeout=10_000)
    page.locator("#rival-chart").scroll_into_view_if_needed()
    box = points.nth(2).bounding_box()  # after the unedited model and the edit
    at = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(at[0] + 2, at[1], steps=3)
    told = page.locator("#rival-chart .hoverlayer .hovertext")
    told.wait_for(timeout=10_000)
    assert "still there 31.2 %, 22.9 to 41.1 %, n = 96" in told.text_content()
    page.mouse.click(*at)
    page.locator("#rival-status", has_text="slug").wait_for(timeout=10_000)


def test_the_numbers_are_shown_as_a_table_or_as_a_radar(page):
    table, radar = page.locator("#rival-table table"), page.locator("#rival-radar")
    table.wait_for()
    assert not radar.is_visible()
    page.get_by_label("a radar").check()
    page.locator("#rival-radar .polarlayer").wait_for(timeout=10_000)
    assert not table.is_visible()
    page.get_by_label("a table").check()
    table.wait_for()
