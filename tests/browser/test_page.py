"""What a person does on the page, in real Chromium.

RAZOR_SCREENSHOTS=DIR keeps pictures of the screens as the story leaves them; the README's come from there.
"""

import os
import time

import pytest
from PIL import Image

from razor.minicanvas.dataset import draw

pytestmark = pytest.mark.browser
LONG = 240_000  # milliseconds; generous, since the machine may be busy


def ready_map(page):
    return page.locator("#head-map .head-map[data-ready='true']")


def go(page, tab):
    page.get_by_role("tab", name=tab).click()


def wait_for_note(page, selector, text):
    page.locator(f"{selector} .status-line", has_text=text).wait_for(timeout=LONG)


def shoot(page, name, height=None):
    if folder := os.environ.get("RAZOR_SCREENSHOTS"):
        page.wait_for_timeout(1500)
        part = {"clip": {"x": 0, "y": 0, "width": 1440, "height": height}} if height else {}
        page.screenshot(path=f"{folder}/{name}.png", full_page=True, **part)


def test_one_click_tells_the_whole_story_and_ends_on_the_comparison(new_page):
    page = new_page()
    shoot(page, "screen-1")
    started = time.monotonic()
    page.click("#story")
    wait_for_note(page, "#compare-status", "suppressed under this test")
    print(f"\nstory: {time.monotonic() - started:.1f} s from click to compared result")
    cards = page.locator("#compare-cards .cards")
    assert int(cards.get_attribute("data-cards")) >= 12
    assert "suppressed in 5 of 5" in page.locator("#compare-cards .finding").inner_text()
    tiles = page.locator("#compare-tiles .tile").all_inner_texts()
    assert any("Forget accuracy" in tile and "100.0%" in tile for tile in tiles)  # it knew the concept before
    shoot(page, "screen-3")
    go(page, "2 Map & edit")
    ready_map(page).wait_for(timeout=LONG)
    shoot(page, "screen-map", height=2235)  # as far as the curves
    check(page)


def check(page):
    """The fourth screen: limits are fixed at the first check, evidence comes row by row, Stop keeps it."""
    go(page, "4 Check")
    assert "Nothing is checked yet" in page.locator("#check-verdict").inner_text()
    page.click("#check-run")
    attacked = page.locator("#check-evidence section", has=page.get_by_role("heading", name="What attacks get back"))
    rows = attacked.locator("tbody tr")
    rows.nth(1).wait_for(timeout=LONG)
    assert page.locator("#gate-0 input").is_disabled()
    page.click("#check-stop")
    wait_for_note(page, "#check-status", "what was found so far stays")
    verdict = page.locator("#check-verdict .verdict-card")
    assert verdict.get_attribute("data-said") == "inconclusive" and "attack" in verdict.locator("p").first.inner_text()
    assert verdict.locator("li[data-said='pass']").count() >= 3 and rows.count() >= 2
    assert "100.0 %" in rows.first.inner_text()  # the unedited model, in the same few bits
    with page.expect_download(timeout=LONG) as saved:
        page.click("#check-file")
    assert saved.value.suggested_filename == "evidence.json"
    shoot(page, "screen-4")


def test_growing_before_undo_needs_a_score_says_so_in_one_sentence(new_page):
    page = new_page()
    go(page, "2 Map & edit")
    page.click("#undo")
    wait_for_note(page, "#edit-status", "Nothing is scored yet; press Score first.")


def test_another_target_changes_pictures_and_button(new_page):
    page = new_page()
    page.locator("#target input").click()
    page.get_by_role("option", name="neon (style)").click()
    page.locator("#story", has_text="Forget neon and compare").wait_for(timeout=LONG)
    page.locator("#gallery .finding", has_text="Forget neon").wait_for(timeout=LONG)


def test_ten_pictures_of_ones_own_become_a_task(new_page, tmp_path):
    for i in range(10):
        draw({"object": "mug", "style": "photo"}, "judge", i).save(tmp_path / f"my mug {i}.png")
    page = new_page()
    page.locator("#own").get_by_text("Use your own pictures").click()
    page.set_input_files("#own-forget input[type=file]", sorted(map(str, tmp_path.iterdir())))
    wait_for_note(page, "#story-status", "10 forget and 0 retain pictures read.")
    page.locator("#own-concept textarea, #own-concept input").first.fill("mug")
    page.click("#use-own")
    page.locator("#story", has_text="Forget mug and compare").wait_for(timeout=LONG)
    page.click("#story")
    wait_for_note(page, "#compare-status", "mug")
    assert int(page.locator("#compare-cards .cards").get_attribute("data-cards")) > 0


def test_bad_pictures_are_named_and_nothing_is_lost(new_page, tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    page = new_page()
    page.locator("#own").get_by_text("Use your own pictures").click()
    page.set_input_files("#own-forget input[type=file]", [str(tmp_path / "empty.png"), str(tmp_path / "dot.png")])
    wait_for_note(page, "#story-status", "is an empty file")
    assert page.locator("#gallery .cards").get_attribute("data-cards") != "0"


def test_a_missing_model_is_one_sentence(new_page):
    page = new_page()
    page.locator("#model-name input").fill("no/such-model")
    page.locator("#model-name input").press("Enter")
    page.click("#load-model")
    wait_for_note(page, "#story-status", "No model 'no/such-model'")


def test_own_pictures_and_labels_are_answered_before_and_after(new_page, tmp_path):
    draw({"object": "clock", "style": "photo"}, "judge", 0).save(tmp_path / "clock.png")
    page = new_page()
    go(page, "3 Compare")
    page.set_input_files("#ask-files input[type=file]", str(tmp_path / "clock.png"))
    page.locator("#ask-labels textarea, #ask-labels input").first.fill("clock, <img src=x onerror=alert(1)>")
    page.wait_for_timeout(800)
    page.click("#ask")
    page.locator("#own-cards .cards[data-ready='true']").wait_for(timeout=LONG)
    text = page.locator("#own-cards").inner_text()
    assert "clock" in text and "<img src=x" in text  # shown as text, never as markup
