"""The real app with the model that draws, in one visit: pairs, views, Stop, the way back from a file, the story.

RAZOR_SCREENSHOTS=DIR keeps pictures of the screens, RAZOR_STYLE=neon tells the story of another style.
"""

import os
import time
from base64 import b64encode

import pytest

pytestmark = pytest.mark.browser
LONG = 300_000  # milliseconds; generous, since the machine may be busy
PAIRS = "#picture-pairs .pairs"
STYLE = os.environ.get("RAZOR_STYLE", "mosaic")  # the one forgotten soonest


def note(page, selector, text):
    page.locator(f"{selector} .status-line", has_text=text).first.wait_for(timeout=LONG)
    return page.locator(selector).inner_text()


def fill(page, selector, value):
    field = page.locator(f"{selector} input, {selector} textarea").first
    field.fill(str(value))
    field.press("Tab")


def drop(page, selector, file):
    """Drop a file as a person would: dragged over, then let go."""
    held = page.evaluate_handle(
        """([name, all]) => {
            const held = new DataTransfer();
            held.items.add(new File([Uint8Array.from(atob(all), (c) => c.charCodeAt(0))], name, { type: "image/png" }));
            return held;
        }""",
        [file.name, b64encode(file.read_bytes()).decode()],
    )
    for kind in ("dragover", "drop"):
        page.dispatch_event(selector, kind, {"dataTransfer": held})


def choose_style(page):
    page.get_by_role("tab", name="1 Model").click()
    page.locator("#target input").click()
    page.get_by_role("option", name=f"{STYLE} (style)").click()
    page.locator("#story", has_text=f"Forget {STYLE} and compare").wait_for(timeout=LONG)


def shoot(page, name):
    if folder := os.environ.get("RAZOR_SCREENSHOTS"):
        page.wait_for_timeout(1500)
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


@pytest.fixture(scope="module")
def page(visitor):
    """One visitor who loaded mini-sd."""
    page = visitor
    page.locator("#model-name input").fill("mini-sd")
    page.locator("#model-name input").press("Enter")
    page.click("#load-model")
    note(page, "#story-status", "mini-sd is loaded")
    return page


def test_stop_ends_the_sampling_and_leaves_no_half_pictures(page):
    page.get_by_role("tab", name="3 Compare").click()
    fill(page, "#draw-steps", 150)
    page.click("#draw-pairs")
    page.locator(f"{PAIRS} img[src^='data:']").first.wait_for(timeout=LONG)  # a picture under way
    page.click("#stop-pairs")
    assert "Stopped: 0 of 16 pictures" in note(page, "#pictures-status", "Stopped")
    assert page.locator(f"{PAIRS} img[src^='data:']").count() == 0


def test_pairs_are_drawn_wiped_and_restored_from_a_file(page, tmp_path):
    fill(page, "#draw-steps", 4)
    fill(page, "#draw-seed", 7)
    page.click("#draw-pairs")
    assert "8 pictures" in note(page, "#pictures-status", "drawn in")
    assert "Nothing is edited yet" in page.locator("#pictures-notes").inner_text()
    assert page.locator(PAIRS).get_attribute("data-pairs") == "8"
    addresses = page.locator(f"{PAIRS} img[src^='gradio_api']").evaluate_all("all => all.map((i) => i.src)")
    assert (
        len({page.request.get(a).body() for a in addresses}) == 8
    )  # an empty edit draws the same picture, bit for bit

    page.locator("#picture-pairs").get_by_role("radio", name="Wipe").check(force=True)
    assert page.locator(PAIRS).get_attribute("data-view") == "wipe"
    divider = page.locator(f"{PAIRS} [role=slider]").first
    before = divider.get_attribute("aria-valuenow")
    divider.press("ArrowRight")
    assert divider.get_attribute("aria-valuenow") != before
    page.locator("#picture-pairs").get_by_role("radio", name="Side by side").check(force=True)

    file = tmp_path / "drawn.png"
    file.write_bytes(page.request.get(addresses[0]).body())
    fill(page, "#draw-steps", 9)
    fill(page, "#draw-seed", 1)
    page.locator("#restore").get_by_text("Restore from a picture").click()
    page.set_input_files("#restore-file input[type=file]", str(file))
    note(page, "#restored", "it shows the unedited model")
    assert page.locator("#draw-steps input").input_value() == "4"
    assert len(page.locator("#own-prompts textarea").input_value()) > 5


def test_a_wrong_number_is_one_sentence_and_the_pairs_stay(page):
    fill(page, "#draw-side", 63)
    page.click("#draw-pairs")
    assert "multiple of 8" in note(page, "#pictures-status", "cannot be drawn")
    assert page.locator(PAIRS).get_attribute("data-pairs") == "8"
    fill(page, "#draw-side", 64)
    fill(page, "#draw-steps", 0)
    page.click("#draw-pairs")
    assert "0 steps cannot be drawn" in note(page, "#pictures-status", "steps")
    assert page.locator(PAIRS).get_attribute("data-pairs") == "8"
    fill(page, "#draw-steps", 4)


def test_a_dropped_picture_brings_back_the_target_it_was_drawn_for(page, tmp_path):
    file = tmp_path / "drawn.png"
    file.write_bytes(
        page.request.get(page.locator(f"{PAIRS} img[src^='gradio_api']").first.evaluate("i => i.src")).body()
    )
    choose_style(page)
    drop(page, "#story", file)
    assert page.locator("#story").is_visible()  # the page stays, and nothing is restored from here
    page.get_by_role("tab", name="3 Compare").click()
    assert page.locator("#restored .status-line").count() == 0
    page.locator("#grid").get_by_text("X / Y / Z grid").click()
    assert "grow the edit first" in note(page, "#grid-cost", "strength")  # before anybody asks for it
    drop(page, "#pictures-status", file)
    said = note(page, "#restored", "mini-sd and object:cat with them")
    assert said.endswith("It shows the unedited model: Draw both sides repeats the picture.")
    page.get_by_role("tab", name="1 Model").click()
    page.locator("#story", has_text="Forget cat and compare").wait_for(timeout=LONG)
    assert page.locator("#target input").input_value() == "cat  (object)"


def test_the_story_ends_on_pictures_without_the_concept(page):
    choose_style(page)
    started = time.monotonic()
    page.click("#story")
    note(page, "#pictures-status", "prompts on both sides")
    page.get_by_role("tab", name="2 Map & edit").click()  # for the first time, and no handler speaks of it any more
    page.wait_for_function(
        "+document.querySelector('#head-map .head-map').dataset.units > 0", timeout=LONG, polling=100
    )
    page.wait_for_function("+document.querySelector('.timeline').dataset.rounds > 1", timeout=LONG, polling=100)
    assert page.locator("#pictures-status [data-tone=busy]").count() == 1
    card, cell = (page.locator(f"#head-map {part}").last.bounding_box() for part in (".head-map", "canvas"))
    assert cell["x"] + cell["width"] <= card["x"] + card["width"]  # three towers fit beside one another
    shoot(page, "pictures-map")
    page.get_by_role("tab", name="3 Compare").click()
    said = note(page, "#pictures-status", "drawn in")
    print(f"\nstory on mini-sd: {time.monotonic() - started:.0f} s from click to compared pictures; {said}")
    assert f"{STYLE.capitalize()} is suppressed in" in page.locator(f"{PAIRS} .finding").inner_text()
    assert page.locator(f"{PAIRS} [data-word=suppressed]").count() >= 2
    shoot(page, "pictures")
    if folder := os.environ.get("RAZOR_SCREENSHOTS"):
        page.locator(PAIRS).screenshot(path=f"{folder}/screen-pictures.png")
