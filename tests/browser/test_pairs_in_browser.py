"""The pairs of pictures and a sheet of them on a page of their own, as a person looks at them in real Chromium."""

import io
import shutil
from base64 import b64encode
from itertools import count

import gradio as gr
import pytest
from PIL import Image, ImageDraw, ImageFilter, PngImagePlugin

from components import theme
from components.pairs import pairs, pairs_value, sheet_value

pytestmark = pytest.mark.browser
NASTY = "<img src=x onerror=1> & <b>bold</b>"
SHAPES = ("cat", "boat", "house", "tree")
PAPERS = {"neon": "#101a3a", "sketch": "#f3efe6", "mosaic": "#7a4b2a"}
NUMBERS = count(1)  # of the values shown, so that each can be waited for
VIEW = {"side": "Side by side", "wipe": "Wipe", "flip": "Flip", "difference": "Difference"}


# ---------------------------------------------------------------- the page under test


def picture(shape, style, seed, side=64):
    """A PNG as a data address: one shape on one paper, and in its text chunk how it was drawn."""
    image = Image.new("RGB", (4 * side, 4 * side), PAPERS[style])
    pen = ImageDraw.Draw(image)
    x, y, r = side * (1.6 + seed % 3 / 4), side * (1.8 + seed % 4 / 6), side * (1.1 + SHAPES.index(shape) / 8)
    ink = {"neon": "#ff4fd8", "sketch": "#2b2b2b", "mosaic": "#f2c14e"}[style]
    pen.rectangle((0, 3 * side, 4 * side, 4 * side), fill="#3c5a46" if style != "neon" else "#0b1026")
    pen.regular_polygon((x, y, r), 3 + SHAPES.index(shape), rotation=7 * seed, fill=ink, outline="white")
    pen.ellipse((x - r / 4, y - r / 4, x + r / 4, y + r / 4), fill=PAPERS[style])
    small = image.filter(ImageFilter.GaussianBlur(2)).resize((side, side), Image.Resampling.LANCZOS)
    chunk = PngImagePlugin.PngInfo()
    chunk.add_text("parameters", f"{shape} in {style}, seed {seed}")
    file = io.BytesIO()
    small.save(file, "png", pnginfo=chunk)
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


def pair(id, shape, seed, style="neon", to="sketch", **more):
    words = f"a {style} picture of a {shape}"
    return {
        "id": id,
        "prompt": words,
        "seed": seed,
        "before": picture(shape, style, seed),
        "after": picture(shape, to, seed),
        "saw_before": f"{style}, {shape}",
        "saw_after": f"{to}, {shape}",
        "verdict": "suppressed" if to != style else "still drawn",
    } | more


def gallery(*, first="f0", drawn=8, **kept):
    """Two groups: what to forget, then what to keep, of which the first is drawn alike and some are not drawn yet."""
    target = [pair(f"f{i}", SHAPES[i % 4], i, to="neon" if i == 3 else "sketch") for i in range(8)]
    target[0] |= {"id": first, "prompt": NASTY}
    target[1]["prompt"] = "a small boat in neon light, seen from the side, on a dark sea with a long reflection in it"
    keep = [pair(f"r{i}", SHAPES[i % 4], 11 + i, "mosaic", "mosaic", verdict="kept") for i in range(4)]
    keep[2] |= {"after": picture("boat", "mosaic", 3), "verdict": "changed", "saw_after": "mosaic, boat"}
    blank = {"before": None, "after": None, "saw_before": "", "saw_after": "", "verdict": ""}
    keep = [one if i + 4 < drawn else one | blank for i, one in enumerate(keep)]
    groups = [
        {"title": "The style neon", "kind": "forget", "note": "Asked for by name.", "pairs": target},
        {"title": "Other styles", "kind": "retain", "note": "", "pairs": keep},
    ]
    progress = {"done": 2 * (drawn + 4), "total": 24, "note": "drawing other styles"} if drawn < 8 else None
    given = {"finding": "Neon is gone from 7 of 8 pictures.", "forget_label": "neon", "progress": progress} | kept
    return pairs_value(groups, **given)


def sheet():
    x, y = {"name": "seed", "values": list("0123456789AB")}, {"name": "prompt", "values": [NASTY, *SHAPES[1:]]}
    z = {"name": "strength", "values": ["0 %", "100 %"]}
    cells = [
        [
            [{"image": None if s == 5 else picture(shape, style, s), "caption": f"{style}, {shape}"} for s in range(12)]
            for shape in SHAPES
        ]
        for style in ("neon", "sketch")
    ]
    return sheet_value("Prompt by seed", x, y, z, cells, note="The same noise down every column.")


class Lab:
    """What the page shows next."""

    def __init__(self):
        self.value = gallery()

    def fill(self):
        return self.value


def build(lab):
    with gr.Blocks(title="Pairs", fill_width=True) as demo:
        gr.HTML("<h1>Pairs</h1>")
        shown = pairs("pairs", lab.value)
        gr.Button("Next value", elem_id="next").click(lab.fill, None, shown, show_progress="hidden")
        pairs("sheet", sheet())
        pairs("none")
    return demo


def serve(lab):
    """Launch the page in this process; returns it and its address."""
    look = {"theme": theme.studio_theme(), "css": theme.css()}
    demo = build(lab)
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, footer_links=[], run_history=False, **look)
    return demo, url


@pytest.fixture(scope="session")
def lab():
    return Lab()


@pytest.fixture(scope="session")
def app_url(lab):
    """Stands in for the whole app, so that these tests share the browser but not what the app needs to start."""
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        pytest.skip("no Chromium on this machine")
    demo, url = serve(lab)
    yield url
    demo.close()


@pytest.fixture(scope="module")
def visit(chromium, app_url):
    """One visit for all tests here; fails on a script error and on any request that leaves this machine."""
    troubles = []
    context = chromium.new_context(viewport={"width": 1440, "height": 1000}, reduced_motion="reduce", has_touch=True)
    context.set_default_timeout(5000)
    page = context.new_page()
    page.on("pageerror", lambda error: troubles.append(f"script error: {error}"))
    local = (app_url, "data:", "blob:", "about:")
    page.on("request", lambda request: troubles.extend([] if request.url.startswith(local) else [request.url]))
    page.goto(app_url + "?__theme=light")
    page.locator("#none .pairs[data-ready='true']").wait_for(timeout=20_000)
    yield page
    context.close()
    assert not troubles, troubles


@pytest.fixture
def page(visit, lab):
    """The page with its first value, side by side, and nothing open."""
    visit.keyboard.press("Escape")
    visit.evaluate("document.body.classList.remove('dark'); scrollTo(0, 0)")
    send(visit, lab, gallery())
    look(visit, "side")
    return visit


def send(page, lab, value):
    """Show another value. The click goes by script: a person may be in the middle of a drag, or have a dialog open."""
    lab.value = value | {"finding": f"Value {next(NUMBERS)}."}
    page.evaluate("document.querySelector('#next').click()")
    page.locator("#pairs .finding", has_text=lab.value["finding"]).wait_for()


def look(page, view):
    page.get_by_role("radio", name=VIEW[view]).check(force=True)
    page.locator(f"#pairs .pairs[data-view='{view}']").wait_for()


def pictures(page):
    return page.locator("#pairs .pair-open")


def lines(page):
    """Where every line of the wipe stands; one number where all are together."""
    stand = page.locator("#pairs .pair-divider").evaluate_all("all => all.map((line) => line.ariaValueNow)")
    return stand[0] if len(set(stand)) == 1 else stand


def shown_side(page):
    """The sides that can be seen, by picture."""
    seen = "all => all.filter((p) => getComputedStyle(p).visibility === 'visible').map((p) => p.dataset.side)"
    return set(page.locator("#pairs .pair-group .pair-picture").evaluate_all(seen))


def grab(page, locator):
    box = locator.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    return x, y


# ---------------------------------------------------------------- the four views


def test_every_line_follows_the_one_that_moves_even_while_new_values_come(page, lab):
    look(page, "wipe")
    second = page.locator("#pairs .pair-divider").nth(1)
    second.focus()
    page.keyboard.press("Home")
    assert lines(page) == "0"
    page.keyboard.press("PageUp")
    page.keyboard.press("ArrowRight")
    assert lines(page) == "12"
    x, y = grab(page, page.locator("#pairs .pair-divider").first)
    page.mouse.move(x + 64, y, steps=3)
    assert lines(page) == "62"
    send(page, lab, gallery(drawn=5))
    assert lines(page) == "62"
    page.mouse.move(x + 32, y + 200)  # the pointer may leave the picture
    assert lines(page) == "37"
    page.mouse.up()
    assert page.get_by_role("dialog").count() == 0


def test_a_drag_across_a_picture_wipes_and_a_click_on_it_opens_it(page):
    look(page, "wipe")
    x, y = grab(page, pictures(page).nth(2))
    page.mouse.move(x + 32, y, steps=3)
    page.mouse.up()
    assert lines(page) == "75"
    assert page.get_by_role("dialog").count() == 0
    box = pictures(page).nth(2).bounding_box()
    page.mouse.click(box["x"] + 20, box["y"] + 20)
    assert page.get_by_role("dialog").is_visible()


def test_a_finger_wipes_too(page):
    look(page, "wipe")
    fingers = page.context.new_cdp_session(page)
    box = pictures(page).nth(1).bounding_box()

    def touch(kind, *xs):
        points = [{"x": box["x"] + x, "y": box["y"] + 64} for x in xs]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 64)
    for x in (40, 36, 32):
        touch("touchMove", x)
    touch("touchEnd")
    assert lines(page) == "25"
    assert page.get_by_role("dialog").count() == 0


def test_the_key_the_button_and_a_held_press_flip_every_pair(page):
    look(page, "flip")
    bar = page.locator("#pairs .pairs-bar")
    assert shown_side(page) == {"before"}
    page.keyboard.press("f")
    assert shown_side(page) == {"after"}
    assert bar.locator(".pairs-shown").inner_text() == "edited shown"
    bar.get_by_role("button", name="Show original (F)").click()
    assert shown_side(page) == {"before"}
    grab(page, pictures(page).nth(1))
    page.locator("#pairs .pairs[data-side='after']").wait_for()
    page.mouse.up()
    assert shown_side(page) == {"before"}
    assert page.get_by_role("dialog").count() == 0


def test_a_difference_is_worked_out_when_seen_and_equal_pictures_say_so(page):
    cells = page.locator("#pairs .pair-difference")
    states = "all => all.map((cell) => cell.dataset.state).join(' ')"
    assert set(cells.evaluate_all(states).split()) <= {"waiting", "identical", "changed"}
    look(page, "difference")
    page.wait_for_function("!document.querySelector('#pairs .pair-difference[data-state=waiting]')")
    expected = ["changed"] * 3 + ["identical"] + ["changed"] * 4 + ["identical"] * 2 + ["changed", "identical"]
    assert cells.evaluate_all(states).split() == expected
    assert cells.nth(3).inner_text() == "identical"
    pixel = "cell => [...cell.querySelector('canvas').getContext('2d').getImageData(2, 2, 1, 1).data]"
    # From neon's paper (16, 26, 58) to the sketch's (243, 239, 230): twice the change, at most 255.
    assert cells.nth(1).evaluate(pixel) == [255, 255, 255, 255]
    assert cells.nth(10).evaluate(pixel) == [0, 0, 0, 255]


def test_the_view_and_the_line_are_remembered_in_the_session(page):
    look(page, "wipe")
    page.locator("#pairs .pair-divider").first.focus()
    page.keyboard.press("End")
    page.reload()
    page.locator("#pairs .pairs[data-view='wipe'][data-ready='true']").wait_for(timeout=20_000)
    assert lines(page) == "100"
    assert page.get_by_role("radio", name="Wipe").is_checked()


# ---------------------------------------------------------------- the dialog


def test_the_dialog_outlives_new_values_and_hands_out_the_file_itself(page, lab):
    pictures(page).first.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    words = dialog.inner_text()
    assert "Seed\n0" in words
    assert "suppressed" in words
    with page.expect_download() as started:
        dialog.get_by_role("link", name="Download original").click()
    assert started.value.suggested_filename == "before-0.png"
    with Image.open(started.value.path()) as file:
        assert file.text == {"parameters": "cat in neon, seed 0"}
    send(page, lab, gallery(drawn=6))
    assert dialog.is_visible()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.closest('.pair').dataset.id") == "f0"
    page.keyboard.press("Enter")
    send(page, lab, gallery(first="another"))
    assert page.get_by_role("dialog").count() == 0


def test_what_a_person_wrote_is_shown_as_text(page):
    pair = page.locator("#pairs .pair").first
    assert pair.locator(".pair-prompt").inner_text() == NASTY
    assert pair.locator(".pair-prompt").get_attribute("title") == NASTY
    pictures(page).first.click()
    assert page.get_by_role("dialog").get_by_role("heading").inner_text() == NASTY
    assert page.locator("#sheet tbody th").first.inner_text() == NASTY
    assert page.locator("img[src='x'], .pairs b").count() == 0


def test_pictures_not_drawn_yet_have_a_calm_place_and_a_count(page, lab):
    send(page, lab, gallery(drawn=5))
    assert page.locator("#pairs [role='progressbar']").get_attribute("aria-valuenow") == "18"
    assert page.locator("#pairs .pairs-progress").inner_text() == "18 of 24, drawing other styles"
    assert page.locator("#pairs .pair-open:disabled").count() == 3
    assert page.locator("#pairs .pair-tally").all_inner_texts() == [
        "8 pairs, 7 suppressed, 1 still drawn",
        "4 pairs, 1 kept",
    ]


# ---------------------------------------------------------------- the sheet


def test_a_sheet_is_tables_with_headers_that_stay_in_a_box_of_its_own(page):
    box = page.locator("#sheet .pair-sheet-scroll").first
    assert page.locator("#sheet h4").all_inner_texts() == ["strength: 0 %", "strength: 100 %"]
    assert box.locator("thead th").all_inner_texts() == list("0123456789AB")
    assert box.locator("tbody img:visible").count() == 4 * 11
    box.evaluate("box => { box.scrollLeft = 300; box.scrollTop = 40; }")
    corner, frame = box.locator(".pair-sheet-corner").bounding_box(), box.bounding_box()
    assert [round(corner[side] - frame[side]) for side in "xy"] == [1, 1]  # the frame's border
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    box.get_by_role("button", name="Enlarge boat, 3, 0 %").click()
    dialog = page.get_by_role("dialog")
    assert dialog.get_by_role("link", name="Download picture").get_attribute("download") == "boat-3-0.png"


# ---------------------------------------------------------------- accessibility


def test_axe_finds_nothing_in_either_mode(page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    wanted = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"], "resultTypes": ["violations"]}

    def troubles(*parts):
        found = axe.run(page, {"include": [[part] for part in parts]}, wanted).response["violations"]
        return [(one["id"], one["nodes"][0]["html"][:200]) for one in found]

    for dark in (False, True):
        page.evaluate("dark => document.body.classList.toggle('dark', dark)", dark)
        page.wait_for_timeout(200)  # colours fade
        assert troubles("#sheet", "#none") == []
        for view in VIEW:
            look(page, view)
            assert troubles("#pairs") == [], view
        pictures(page).nth(3).click()
        assert troubles("#pairs dialog") == []
        page.keyboard.press("Escape")
