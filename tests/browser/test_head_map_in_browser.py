"""Every gesture of the map in real Chromium, on a page made of the map alone and a desk that keeps the edit set."""

import math
import random
import threading
import time

import gradio as gr
import pytest

from components import theme
from components.head_map import (
    Measure,
    UnitState,
    focus_payload,
    head_map,
    map_value,
    payload,
    picked_value,
    preview,
    tau_payload,
)

pytestmark = pytest.mark.browser
ROOT = "document.querySelector('.head-map')"


# ---------------------------------------------------------------- the page under test


def grids(name, title, layers, heads, seed):
    """A tower of made-up scores: its heads, then one MLP a layer."""
    rng = random.Random(seed)
    cells = [[rng.lognormvariate(0, 1) for _ in range(heads + 1)] for _ in range(layers)]
    units = [
        [*(f"{name}.{row}.head.{column}" for column in range(heads)), f"{name}.{row}.mlp"] for row in range(layers)
    ]
    order = sorted(-phi for line in cells for phi in line)
    return {
        "name": name,
        "title": title,
        "rows": [f"layer {row}" for row in range(layers)],
        "columns": [*map(str, range(heads)), "MLP"],
        "units": units,
        "phi": [[phi / 100 for phi in line] for line in cells],
        "ratio": [[phi**2 for phi in line] for line in cells],
        "pressure": [[phi / 50 for phi in line] for line in cells],
        "separation": [[min(2, phi / 2) for phi in line] for line in cells],
        "rank": [[1 + order.index(-phi) for phi in line] for line in cells],
        "parameters": [[16_384] * heads + [131_584] for _ in cells],
        "low": [[phi / 130 for phi in line] for line in cells],
        "high": [[phi / 80 for phi in line] for line in cells],
        "unstable": [[phi < 0.2 for phi in line] for line in cells],
        "open": [[True] * heads + [False] for _ in cells],
    }


def small(seed=0, **kept):
    towers = [grids("image", "Image tower", 6, 6, seed), grids("text", "Text tower", 6, 4, seed + 1)]
    given = {"tau": 0.5, "alpha": 1.0, "finding": "Six heads press hardest on forgetting red."} | kept
    return map_value(towers, **given)


def tall():
    return map_value([grids("image", "Image tower", 48, 24, 0), grids("text", "Text tower", 24, 16, 1)], tau=0.9)


def deep():
    return map_value([grids("image", "Image tower", 24, 16, 0)], tau=0.5, alpha=1.0)


def unet():
    """Blocks of two kinds of attention; the first block has fewer heads."""
    lines = [
        (block, kind) for block in ("down_blocks.1", "down_blocks.2", "up_blocks.1") for kind in ("attn1", "attn2")
    ]
    heads = [5 if block == "down_blocks.1" else 8 for block, _ in lines]
    tower = {
        "name": "unet",
        "title": "UNet",
        "groups": [block for block, _ in lines],
        "rows": [kind for _, kind in lines],
        "columns": [str(i) for i in range(8)],
        "units": [
            [f"{b}.{k}.{i}" if i < n else None for i in range(8)] for (b, k), n in zip(lines, heads, strict=True)
        ],
        "effect": [[math.sin(3 * row + i) / 4 if i < n else None for i in range(8)] for row, n in enumerate(heads)],
    }
    effect = Measure("effect", "Effect", "share of the answer this head carries", ramp="diverging")
    return map_value([tower], measures=[effect], measure="effect", readonly=True, finding="The up block answers.")


MAPS = {"small": small, "tall": tall, "unet": unet, "deep": deep}


class Desk:
    """Stands in for the studio: keeps the states, refuses some units, and writes down what it was sent."""

    def __init__(self):
        self.gate = threading.Event()
        self.clear()

    def clear(self, states=None, isolated=None):
        self.states, self.isolated = dict(states or {}), isolated
        self.events, self.looks, self.taus, self.refused, self.focus = [], [], [], set(), None
        self.gate.set()

    def change(self, evt: gr.EventData):
        units, action, seq = payload(evt)
        self.gate.wait(5)
        self.events.append((action, units))
        self.ack = seq
        for unit in set(units) - self.refused:
            self.apply(unit, action)
        return gr.update(picked=self.picked())

    def apply(self, unit, action):
        was = self.states.get(unit, UnitState("free"))
        state = {"in": "edited", "out": "free", "ban": "banned", "unban": "free"}.get(action, was.state)
        locked = {"lock": True, "unlock": False}.get(action, was.locked)
        self.states[unit] = UnitState(state, was.round, locked, was.strength)
        self.isolated = {"isolate": unit, "restore": None}.get(action, self.isolated)

    def picked(self):
        return picked_value(self.states, getattr(self, "ack", 0), self.isolated, focus=self.focus)

    def look(self, evt: gr.EventData):
        self.looks.append(focus_payload(evt))

    def brush(self, evt: gr.EventData):
        self.taus.append(tau_payload(evt))

    def show(self, name):
        self.taus, self.looks = [], []
        return gr.update(value=MAPS[name](), picked=self.picked())

    def point(self):
        self.focus = "text.1.head.2"
        return gr.update(picked=self.picked())

    def stream(self):
        for seed in range(10):
            yield gr.update(value=small(seed))
            time.sleep(0.05)


@pytest.fixture(scope="module")
def desk():
    return Desk()


@pytest.fixture(scope="module")
def map_url(desk):
    with gr.Blocks() as demo:
        shown = head_map()
        name = gr.Textbox("small", label="map", elem_id="name")
        alpha = gr.Slider(0, 4, 1, step=0.25, label="alpha", elem_id="alpha")
        preview(alpha, "alpha")
        show, stream, point = (gr.Button(text, elem_id=text) for text in ("show", "stream", "point"))
        quiet = {"show_progress": "hidden", "trigger_mode": "multiple"}
        shown.units_change(desk.change, None, shown, **quiet)
        shown.unit_focus(desk.look, None, None, **quiet)
        shown.tau_change(desk.brush, None, None, **quiet)
        show.click(desk.show, name, shown, show_progress="hidden")
        point.click(desk.point, None, shown, show_progress="hidden")
        stream.click(desk.stream, None, shown, show_progress="hidden")
    look = {"theme": theme.studio_theme(), "css": theme.css(), "footer_links": []}
    _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True, run_history=False, **look)
    yield url
    demo.close()


@pytest.fixture(scope="module")
def opened(chromium, map_url):
    """One page for all tests: opening it is what takes long."""
    context = chromium.new_context(viewport={"width": 1440, "height": 1100})
    page = context.new_page()
    page.troubles = []
    own = (map_url, "data:", "blob:", "about:")
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.on("request", lambda sent: page.troubles.extend([] if sent.url.startswith(own) else [sent.url]))
    page.add_init_script("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.goto(map_url)
    page.wait_for_selector(".head-map[data-ready='true']", timeout=30_000)
    yield page
    context.close()


@pytest.fixture
def page(opened, desk):
    """The page as new: the small map, nothing picked, searched or focused."""
    open_map(opened, desk, "small")
    yield opened
    assert not opened.troubles, opened.troubles


def open_map(page, desk, name, states=None, isolated=None):
    desk.clear(states, isolated)
    page.mouse.move(2, 2)
    page.evaluate("document.activeElement.blur()")
    if page.is_visible(".map-search"):
        page.fill(".map-search input", "")
    page.fill("#name textarea, #name input", name)
    page.evaluate(f"{ROOT}.dataset.drawMs = ''")
    page.click("#show")
    first = MAPS[name]()["towers"][0]
    drawn = (
        f"([title, rows]) => {ROOT}.dataset.drawMs && document.querySelector('.map-tower h3')?.textContent === title"
        " && document.querySelectorAll('.map-tower:first-child .map-rows .map-header').length === rows"
    )
    page.wait_for_function(drawn, arg=[first["title"], len(first["rows"])])


def spot(page, tower, row, column):
    """Where the middle of a cell is: below its column's header and beside its row's."""
    across = page.locator(f".map-tower:nth-child({tower + 1}) .map-columns .map-header").nth(column).bounding_box()
    down = page.locator(f".map-tower:nth-child({tower + 1}) .map-rows .map-header").nth(row).bounding_box()
    return across["x"] + across["width"] / 2, down["y"] + down["height"] / 2


def click(page, tower, row, column, *keys, button="left"):
    for key in keys:
        page.keyboard.down(key)
    page.mouse.click(*spot(page, tower, row, column), button=button)
    for key in keys:
        page.keyboard.up(key)


def focus(page, tower=0):
    """Puts the keyboard on the first cell of a tower."""
    page.locator(".map-field").nth(tower).focus()
    page.keyboard.press("Home")
    for _ in range(7):
        page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowDown")


def answered(page, units):
    """Waits until every request is answered and `units` are in."""
    done = f"{ROOT}.dataset.pending === '0' && +{ROOT}.dataset.units === units"
    page.wait_for_function(f"units => {done}", arg=units, timeout=5000)


def until(page, claim):
    for _ in range(100):
        if claim():
            return
        page.wait_for_timeout(30)
    assert claim()


def shown(page, selector=".map-tip"):
    return page.locator(selector).inner_text()


# ---------------------------------------------------------------- clicks


def test_a_click_puts_a_unit_in_and_the_next_takes_it_out(page, desk):
    click(page, 0, 2, 3)
    answered(page, 1)
    click(page, 0, 2, 3)
    answered(page, 0)
    assert desk.events == [("in", ["image.2.head.3"]), ("out", ["image.2.head.3"])]
    assert desk.looks == ["image.2.head.3"] * 2


def test_a_switched_off_unit_goes_back_in(page, desk):
    open_map(page, desk, "small", {"text.0.mlp": UnitState("off", 2)})
    click(page, 1, 0, 4)
    answered(page, 1)
    assert desk.events == [("in", ["text.0.mlp"])]


@pytest.mark.parametrize(
    ("state", "note"),
    [(UnitState("banned"), "banned; press B to lift the ban"), (UnitState("free", locked=True), "press L to unlock")],
)
def test_a_banned_or_locked_unit_says_how_to_free_it(page, desk, state, note):
    open_map(page, desk, "small", {"image.0.head.0": state})
    click(page, 0, 0, 0)
    assert note in shown(page)
    assert note in page.locator(".head-map > [aria-live]").inner_text()
    assert desk.events == []


def test_shift_click_puts_in_the_rectangle_and_again_takes_it_out(page, desk):
    click(page, 0, 1, 1)
    click(page, 0, 3, 2, "Shift")
    answered(page, 6)
    click(page, 0, 3, 2, "Shift")
    answered(page, 0)
    assert [(action, len(units)) for action, units in desk.events] == [("in", 1), ("in", 5), ("out", 6)]


def test_a_drag_puts_in_the_rectangle_under_a_visible_band(page, desk):
    open_map(page, desk, "small", {"image.1.head.1": UnitState("banned"), "image.1.head.2": UnitState("edited", 1)})
    page.mouse.move(*spot(page, 0, 0, 0))
    page.mouse.down()
    page.mouse.move(*spot(page, 0, 1, 2), steps=4)
    assert page.locator(".map-range.band").is_visible()
    page.mouse.up()
    answered(page, 5)
    assert desk.events == [("in", ["image.0.head.0", "image.0.head.1", "image.0.head.2", "image.1.head.0"])]


def test_a_drag_with_alt_takes_out(page, desk):
    open_map(page, desk, "small", {"image.0.head.1": UnitState("edited")})
    page.mouse.move(*spot(page, 0, 0, 0))
    page.keyboard.down("Alt")
    page.mouse.down()
    page.mouse.move(*spot(page, 0, 0, 3), steps=3)
    page.mouse.up()
    page.keyboard.up("Alt")
    answered(page, 0)
    assert desk.events == [("out", ["image.0.head.1"])]


def test_ctrl_click_adds_and_never_removes(page, desk):
    click(page, 0, 0, 0, "Control")
    answered(page, 1)
    click(page, 0, 0, 0, "Control")
    assert "already in" in shown(page)
    assert desk.events == [("in", ["image.0.head.0"])]


def test_row_and_column_names_take_all_their_units(page, desk):
    page.locator(".map-tower:nth-child(2) .map-rows .map-header").nth(1).click()
    answered(page, 5)
    page.locator(".map-tower:nth-child(2) .map-columns .map-header").nth(0).click()
    answered(page, 10)
    page.locator(".map-tower:nth-child(2) .map-columns .map-header").nth(0).click()
    answered(page, 4)
    assert [(action, len(units)) for action, units in desk.events] == [("in", 5), ("in", 5), ("out", 6)]


def test_a_double_click_isolates_without_leaving_a_toggle_and_another_restores(page, desk):
    open_map(page, desk, "small", {"image.2.head.2": UnitState("edited", 3)})
    page.mouse.dblclick(*spot(page, 0, 2, 2))
    answered(page, 1)
    assert "Only image.2.head.2 is at work" in shown(page, ".map-alone")
    page.mouse.dblclick(*spot(page, 0, 2, 2))
    answered(page, 1)
    assert [action for action, _ in desk.events] == ["out", "in", "isolate", "out", "in", "restore"]
    assert shown(page, ".map-alone") == ""


def test_escape_restores_an_isolation(page, desk):
    open_map(page, desk, "small", {"image.0.head.0": UnitState("edited", 3)}, "image.0.head.0")
    focus(page)
    page.keyboard.press("Escape")
    answered(page, 1)
    assert desk.events == [("restore", ["image.0.head.0"])]


def test_a_right_click_bans_and_lifts_the_ban(page, desk):
    click(page, 0, 0, 1, button="right")
    click(page, 0, 0, 1, button="right")
    answered(page, 0)
    assert desk.events == [("ban", ["image.0.head.1"]), ("unban", ["image.0.head.1"])]


def test_a_ring_follows_the_unit_looked_at_here_or_elsewhere(page, desk):
    page.wait_for_timeout(1600)  # past the time in which an answer may be older than the last click
    page.click("#point")
    page.wait_for_function(f"{ROOT}.dataset.focus === 'text.1.head.2'")
    box = page.locator(".map-tower:nth-child(2) .map-looked").bounding_box()
    assert (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) == pytest.approx(spot(page, 1, 1, 2), abs=1)
    click(page, 0, 0, 0)
    answered(page, 1)
    assert page.evaluate(f"{ROOT}.dataset.focus") == "image.0.head.0"


def test_twenty_quick_clicks_all_register(page, desk):
    places = [spot(page, 0, i // 6, i % 6) for i in range(20)]
    for place in places:
        page.mouse.click(*place)
        page.wait_for_timeout(50)
    answered(page, 20)
    assert len(desk.events) == 20


def test_a_refused_click_is_drawn_and_then_undrawn(page, desk):
    desk.refused = {"image.0.head.0"}
    desk.gate.clear()
    click(page, 0, 0, 0)
    page.wait_for_function(f"{ROOT}.dataset.units === '1'")
    desk.gate.set()
    answered(page, 0)


def test_a_stream_of_scores_wipes_no_click(page, desk):
    page.click("#stream")
    for row in range(5):
        click(page, 0, row, row)
        page.wait_for_timeout(60)
    page.wait_for_timeout(400)
    answered(page, 5)


# ---------------------------------------------------------------- keys


def test_keys_toggle_ban_lock_and_isolate(page, desk):
    focus(page)
    for key in ("Space", "l", "l", "i", "i", "b", "b", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    answered(page, 1)
    first = [action for action, units in desk.events if units == ["image.0.head.0"]]
    assert first == ["in", "lock", "unlock", "isolate", "restore", "ban", "unban"]  # in order, however slow the answers
    assert ("in", ["image.0.head.1"]) in desk.events


def test_arrows_reach_the_headers_and_end_the_last_column(page, desk):
    focus(page)
    page.keyboard.press("End")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowUp")
    assert "focus" in page.locator(".map-columns .map-header").nth(6).get_attribute("class")
    page.keyboard.press("Space")
    answered(page, 6)
    assert desk.events[0] == ("in", ["image.0.mlp"])


def test_shift_arrows_stretch_a_selection_that_enter_applies(page, desk):
    focus(page)
    for key in ("Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowDown", "Enter"):
        page.keyboard.press(key)
    answered(page, 6)
    assert page.locator(".map-range").first.is_visible()
    page.keyboard.press("Escape")
    assert not page.locator(".map-range").first.is_visible()
    assert len(desk.events) == 1


def test_a_unit_is_told_only_where_the_keyboard_rests(page, desk):
    focus(page)
    until(page, lambda: desk.looks)
    desk.looks.clear()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    until(page, lambda: desk.looks)
    page.wait_for_timeout(200)
    assert desk.looks == ["image.0.head.3"]


def test_the_card_of_a_unit_says_all_there_is(page, desk):
    open_map(page, desk, "small", {"text.0.head.3": UnitState("edited", 2, True, 0.8)})
    page.mouse.move(*spot(page, 1, 0, 3))
    text = shown(page)
    for said in (
        "Text tower, layer 0, head 3",
        "text.0.head.3",
        "Interval of phi",
        "of 72",
        "16,384",
        "round 2",
        "80%",
    ):
        assert said in text
    terms = page.eval_on_selector_all(".map-tip .term", "nodes => nodes.map(node => node.dataset.term)")
    assert terms == ["phi", "ratio", "pressure", "separation", "rank"]


def test_help_opens_takes_the_focus_and_closes_on_escape(page):
    page.click(".map-help")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "dialog"
    page.keyboard.press("Escape")
    assert not page.is_visible(".map-help-panel")
    assert page.evaluate("document.activeElement.className").endswith("map-help")


# ---------------------------------------------------------------- search, copy, threshold


def test_search_counts_what_its_words_match(page):
    expected = {
        "text mlp": 6,
        "visual 3": 7,
        "vision": 42,
        "layer 3 head 2": 2,
        "image.1.head": 6,
        "head 1": 12,
        "x": 0,
    }
    for query, found in expected.items():
        page.fill(".map-search input", query)
        page.locator(".map-count", has_text=f"{found} of 72 units").wait_for()


def test_a_search_is_applied_as_a_whole_and_taken_back(page, desk):
    focus(page)
    page.keyboard.press("/")
    page.keyboard.type("text mlp")
    page.get_by_role("button", name="Put in 6").click()
    answered(page, 6)
    page.get_by_role("button", name="Take out 6").click()
    answered(page, 0)
    page.locator(".map-search input").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    answered(page, 1)
    assert desk.events[-1] == ("in", ["text.0.mlp"])
    page.locator(".map-search input").focus()
    page.keyboard.press("Escape")
    assert page.input_value(".map-search input") == ""


def test_a_group_and_a_kind_find_their_units_on_a_read_only_map(page, desk):
    open_map(page, desk, "unet")
    page.fill(".map-search input", "up_blocks.1 attn2")
    page.locator(".map-count", has_text="8 of 42 units").wait_for()
    assert not page.is_visible(".map-brush")
    click(page, 0, 5, 0)
    page.keyboard.press("Space")
    until(page, lambda: desk.looks)
    assert desk.events == []
    assert set(desk.looks) == {"up_blocks.1.attn2.0"}


def test_copy_csv_copies_a_row_for_every_unit(page, desk):
    open_map(page, desk, "small", {"image.0.head.0": UnitState("edited", 2, False, 0.5)})
    page.click(".map-copy")
    page.locator(".map-copy", has_text="72 rows copied").wait_for()
    head, first, *others = page.evaluate("window.copied").split("\r\n")
    measured = "phi,ratio,pressure,separation,rank,parameters"
    assert head == f"tower,layer,column,unit,{measured},state,round,locked,strength"
    assert first.startswith("image,layer 0,0,image.0.head.0,") and first.endswith(",edited,2,false,0.5")
    assert len(others) == 71


def test_c_copies_by_selection_where_the_clipboard_is_closed(page):
    page.evaluate("""() => {
        window.writeText = navigator.clipboard.writeText;
        navigator.clipboard.writeText = async () => { throw new Error("not on this page"); };
        document.execCommand = () => { window.copied = getSelection().toString(); return true; };
    }""")
    focus(page)
    page.keyboard.press("c")
    page.locator(".map-copy", has_text="72 rows copied").wait_for()
    page.evaluate("() => { navigator.clipboard.writeText = window.writeText; delete document.execCommand; }")
    assert len(page.evaluate("window.copied").splitlines()) == 73
    assert page.evaluate("document.activeElement.className") == "map-field"


def test_the_threshold_moves_by_keys(page, desk):
    line = page.get_by_role("slider", name="tau")
    assert line.get_attribute("aria-valuetext") == "tau 0.50: 29 of 60 units above"
    line.press("PageUp")
    line.press("ArrowRight")
    assert line.get_attribute("aria-valuetext") == "tau 0.61: 23 of 60 units above"
    until(page, lambda: desk.taus[-1:] == [0.61])
    line.press("Home")
    assert line.get_attribute("aria-valuetext") == "tau 0.00: 60 of 60 units above"


def test_the_threshold_moves_by_drag_and_reports_calmly(page, desk):
    box = page.locator(".map-brush-chart").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    started = time.monotonic()
    page.mouse.down()
    for i in range(30):
        page.mouse.move(box["x"] + box["width"] * (0.5 + i / 100), box["y"] + 20)
        page.wait_for_timeout(10)
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 20)
    page.mouse.up()
    until(page, lambda: desk.taus[-1:] == [0.8])
    assert 2 <= len(desk.taus) <= 2 + (time.monotonic() - started) / 0.1


# ---------------------------------------------------------------- size and access


def test_a_tall_map_is_quick_scrolls_inside_and_fits_the_page(page, desk):
    open_map(page, desk, "tall")
    assert float(page.evaluate(f"{ROOT}.dataset.drawMs")) < 100
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    focus(page)
    for _ in range(4):
        page.keyboard.press("PageDown")
    head = page.locator(".map-columns").first.bounding_box()
    cursor = page.locator(".map-cursor").first.bounding_box()
    frame = page.locator(".map-scroll").first.bounding_box()
    assert head["y"] == pytest.approx(frame["y"], abs=1)
    assert head["y"] + head["height"] <= cursor["y"] + 1
    assert cursor["y"] + cursor["height"] <= frame["y"] + frame["height"] + 1
    page.keyboard.press("Space")
    answered(page, 1)
    assert desk.events == [("in", ["image.40.head.0"])]


TIMED = """(next) => new Promise((done) => {
  const root = document.querySelector(".head-map");
  const input = document.querySelector("#alpha input[type=range]");
  const started = performance.now();
  const watch = new MutationObserver(() => {
    if (!root.querySelector(".map-legend-words").textContent.includes(`alpha ${next}`)) return;
    watch.disconnect();
    done(performance.now() - started);
  });
  watch.observe(root, { attributes: true, childList: true, subtree: true });
  input.value = next;
  input.dispatchEvent(new Event("input", { bubbles: true }));
})"""


def test_moving_alpha_redraws_a_24_by_17_map_before_the_server_is_asked(page, desk):
    open_map(page, desk, "deep")
    tower = deep()["towers"][0]
    spent = []
    for alpha in (2, 0, 3, 0.5):
        spent.append(page.evaluate(TIMED, alpha))
        page.mouse.move(*spot(page, 0, 2, 3))
        expected = tower["pressure"][2][3] * tower["separation"][2][3] ** alpha
        shown = page.locator(".map-tip dd").first.inner_text().replace("\u2212", "-")
        assert float(shown) == pytest.approx(expected, rel=0.01)
        page.mouse.move(2, 2)
    print(f"\nalpha slider to redrawn 24 x 17 map: {max(spent):.0f} ms at worst of {len(spent)}")


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing(page, desk, dark):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.evaluate("dark => document.body.classList.toggle('dark', dark)", dark)
    page.wait_for_timeout(500)  # colours fade from one mode to the other
    page.fill(".map-search input", "layer 1")
    page.mouse.move(*spot(page, 0, 0, 3))
    rules = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}
    found = axe.run(page, context=".head-map", options=rules).response["violations"]
    page.evaluate("document.body.classList.remove('dark')")
    assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == []
