"""The real app with the model that answers, in one visit: the story, and a person's own picture and question.

RAZOR_SCREENSHOTS=DIR keeps pictures of the screens.
"""

import os
import time

import pytest

from razor.minicanvas.dataset import draw

pytestmark = pytest.mark.browser
LONG = 300_000  # milliseconds; generous, since the machine may be busy
CARDS = "#answer-cards .answers"


def note(page, selector, text):
    page.locator(f"{selector} .status-line", has_text=text).first.wait_for(timeout=LONG)
    return page.locator(selector).inner_text()


def shoot(page, name):
    if folder := os.environ.get("RAZOR_SCREENSHOTS"):
        page.wait_for_timeout(1500)
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


@pytest.fixture(scope="module")
def page(visitor):
    """One visitor who loaded mini-vlm."""
    page = visitor
    page.locator("#model-name input").fill("mini-vlm")
    page.locator("#model-name input").press("Enter")
    page.click("#load-model")
    note(page, "#story-status", "mini-vlm is loaded")
    return page


def test_the_story_ends_on_answers_without_the_name(page):
    page.locator("#target input").click()
    page.get_by_role("option", name="mosaic (style)").click()
    page.locator("#story", has_text="Forget mosaic and compare").wait_for(timeout=LONG)
    started = time.monotonic()
    page.click("#story")
    finding = page.locator(f"{CARDS} .finding", has_text="asked outright in 3 \u2192 0 of 3")
    finding.wait_for(timeout=LONG)
    print(f"\nstory on mini-vlm: {time.monotonic() - started:.0f} s from click to compared answers")
    assert page.locator(f"{CARDS} .verdict", has_text="suppressed").count() >= 3
    assert "named in" in note(page, "#compare-status", "Mosaic is suppressed under this test")
    page.locator("#compare-tiles", has_text="Drift on neutral questions").wait_for(timeout=LONG)
    shoot(page, "answers")
    page.get_by_role("tab", name="2 Map & edit").click()
    page.wait_for_function(
        "+document.querySelector('#head-map .head-map').dataset.units > 0", timeout=LONG, polling=100
    )
    page.wait_for_function("+document.querySelector('.timeline').dataset.rounds > 1", timeout=LONG, polling=100)
    shoot(page, "answers-map")


def test_an_own_question_is_asked_about_an_own_picture(page, tmp_path):
    page.get_by_role("tab", name="3 Compare").click()
    page.locator("#ask-own-questions").get_by_text("Ask about your own pictures").click()
    file = tmp_path / "mine.png"
    draw({"object": "dog", "style": "photo"}, "test", 5).save(file)
    page.set_input_files("#question-files input[type=file]", str(file))
    page.locator("#question-files tr.file", has_text="mine").wait_for(timeout=LONG)  # listed, not just on its way
    page.locator("#own-questions textarea").fill("What is this?\n<b>Is this a cat?</b>")
    page.click("#ask-own-both")
    page.locator("#own-answers-file").wait_for(timeout=LONG)
    shown = page.locator("#own-answer-cards .answers")
    assert "a dog" in shown.inner_text() and "<b>Is this a cat?</b>" in shown.inner_text()
    assert shown.locator("b").count() == 0
