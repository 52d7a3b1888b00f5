"""The timeline, the charts and the glossary on a page of their own, as a person uses them in real Chromium."""

import shutil

import gradio as gr
import pytest

from components import glossary, theme
from components.chart import chart, chart_value, marked_value, picked_key, selected_keys
from components.timeline import branch_changed, round_picked, timeline, timeline_value

pytestmark = pytest.mark.browser
NASTY = "<img src=x onerror=1>"
KEYS = [f"image.{layer}.head.{head}" for layer in range(4) for head in range(4)]


# ---------------------------------------------------------------- the page under test


def point(value, n=64):
    return {"value": value, "low": max(0, value - 0.06), "high": min(1, value + 0.06), "n": n}


def node(id, parent, index, forget, retain, *, accepted=True, **more):
    names = KEYS[4 * (id % 3) : 4 * (id % 3) + (4 if index == 1 else 1)]
    added = [
        {"unit": name, "phi": 0.31 / (i + 1), "pressure": 0.4, "separation": 0.93, "rank": i + 1}
        for i, name in enumerate(names)
    ]
    trials = [
        {"step": s, "length": 0.02 * s, "forget": max(forget, 0.98 - 0.14 * s), "retain": 0.99 - 0.004 * s, "cost": 0.1}
        for s in range(1, 9)
    ]
    return {
        "id": id,
        "parent": parent,
        "kind": "round",
        "index": index,
        "unit": ", ".join(names),
        "accepted": accepted,
        "reason": "Forget accuracy fell and every budget held." if accepted else "Neighbours lost more than allowed.",
        "note": f"forget {100 * forget:.0f} %" if accepted else "",
        "seconds": 1.4,
        "added": added,
        "trials": trials,
        "chosen": 6 if accepted else 0,
        "won": "Forget accuracy fell by 97.9 points, retain accuracy by 0.4." if accepted else "",
        "forget": point(forget),
        "retain": point(retain),
        "neighbour": point(retain - 0.07, n=24),
    } | more


START = {
    "id": 0,
    "parent": None,
    "kind": "start",
    "index": 0,
    "accepted": True,
    "note": "the unedited model",
    "forget": point(0.98),
    "retain": point(0.99),
    "neighbour": point(0.95),
}


def tree():
    """Rounds 1 to 5 on Main, the third rejected; 6 and 7 on Gentle, which parts after round 2."""
    return [
        START,
        node(1, 0, 1, 0.62, 0.985),
        node(2, 1, 2, 0.35, 0.98),
        node(3, 2, 3, 0.30, 0.90, accepted=False),
        node(4, 3, 4, 0.16, 0.975),
        node(5, 4, 5, 0.02, 0.97),
        node(6, 2, 3, 0.28, 0.983),
        node(7, 6, 4, 0.20, 0.981, by_hand="without text.0.head.2; text.1.mlp at 80 %"),
    ]


class Lab:
    """What the handlers of the page keep: the tree, the branches, and every event as it came."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.branches = {"Main": 5, "Gentle": 7}
        self.branch, self.current, self.compared, self.draft = "Main", 5, [], None
        self.picks, self.changes, self.points, self.brushed = [], [], [], []

    def timeline(self):
        branches = [{"name": n, "tip": t, "locks": 2 * (n == "Gentle"), "bans": 1} for n, t in self.branches.items()]
        return timeline_value(
            tree(),
            branches=branches,
            branch=self.branch,
            current=self.current,
            target=0.08,
            finding="Forget accuracy fell from 98 % to 2 % in four kept rounds.",
            compared=self.compared,
            draft=self.draft,
        )

    def fill(self):
        charts = [gr.update(value=v, marked=marked_value([])) for v in (scatter_value(), bars_value(), heat_value())]
        return [self.timeline(), *charts]

    def on_pick(self, evt: gr.EventData):
        self.current = round_picked(evt, range(8))
        self.picks.append(self.current)
        return self.timeline()

    def on_branch(self, evt: gr.EventData):
        action, name, to, node = branch_changed(evt, self.branches, range(8))
        self.changes.append((action, name, to, node))
        if action == "new":
            self.branches[to] = node
            self.branch = to
        elif action == "rename":
            self.branches = {to if n == name else n: tip for n, tip in self.branches.items()}
            self.branch = to if self.branch == name else self.branch
        elif action == "delete":
            del self.branches[name]
        elif action == "compare":
            self.compared = [n for n in self.compared if n != name] + [name] * (name not in self.compared)
        self.branch = name if action == "switch" else self.branch
        self.branch = self.branch if self.branch in self.branches else next(iter(self.branches))
        self.current = self.branches[self.branch]
        return self.timeline()

    def on_point(self, evt: gr.EventData):
        self.points.append(picked_key(evt, KEYS))
        return gr.update(marked=marked_value(self.points[-1:]))

    def on_brush(self, evt: gr.EventData):
        self.brushed.append(selected_keys(evt, KEYS))


def scatter_value():
    x = [i / 4 + (i % 3) / 10 for i in range(16)]
    y = [0.2 + ((7 * i) % 16) / 20 for i in range(16)]
    marker = {"color": "token:edited", "size": 10}
    data = [{"type": "scatter", "mode": "markers", "x": x, "y": y, "customdata": [[k] for k in KEYS], "marker": marker}]
    layout = {"xaxis": {"title": {"text": "pressure"}}, "yaxis": {"title": {"text": "separation"}}}
    return chart_value(data, layout, finding="Two heads push on forgetting alone.", pick="brush")


def bars_value():
    bars = [
        {"type": "bar", "name": name, "x": ["forget", "retain"], "y": y, "marker": {"color": f"token:{name}"}}
        for name, y in (("original", [98, 99]), ("edited", [2, 97]))
    ]
    return chart_value(bars, {"yaxis": {"ticksuffix": " %"}}, finding="The edit forgets and keeps.")


def heat_value():
    z = [[(i * 5 + j * 3) % 11 / 10 for j in range(4)] for i in range(4)]
    cells = [KEYS[4 * i : 4 * i + 4] for i in range(4)]
    trace = {"type": "heatmap", "z": z, "customdata": cells}
    return chart_value([trace], {"height": 260}, alt="phi by layer and head")


def build(lab):
    with gr.Blocks(title="Widgets", fill_width=True) as demo:
        gr.HTML(f"<h1>Widgets</h1><p id='words'>{glossary.term('phi')} and {glossary.term('edit set')}</p>")
        rounds = timeline()
        rounds.round_pick(lab.on_pick, None, rounds, show_progress="hidden", trigger_mode="multiple")
        rounds.branch_change(lab.on_branch, None, rounds, show_progress="hidden", trigger_mode="multiple")
        with gr.Row():
            scatter, bars, heat = chart("scatter"), chart("bars"), chart("heat")
        scatter.point_pick(lab.on_point, None, scatter, show_progress="hidden", trigger_mode="multiple")
        scatter.points_select(lab.on_brush, None, None, show_progress="hidden", trigger_mode="multiple")
        heat.point_pick(lab.on_point, None, heat, show_progress="hidden", trigger_mode="multiple")
        with gr.Row():
            gr.Slider(0, 1, 0.5, label="alpha")
            gr.Number(3, label="Rounds at most")
            gr.Textbox("text", label="Something else")
        gr.Dataframe([["image.0.head.1", 0.3]], headers=["unit", "phi"], interactive=False)
        filled = [rounds, scatter, bars, heat]
        for event in (demo.load, gr.Button("Start over").click):
            event(lab.fill, None, filled, show_progress="hidden")
    return demo


def serve(lab):
    """Launch the page in this process; returns it and its address."""
    demo = build(lab)
    look = {"theme": theme.studio_theme(), "css": theme.css(), "head": glossary.head()}
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
    context = chromium.new_context(viewport={"width": 1440, "height": 1000})
    context.set_default_timeout(5000)
    page = context.new_page()
    page.on("pageerror", lambda error: troubles.append(f"script error: {error}"))
    local = (app_url, "data:", "blob:", "about:")
    page.on("request", lambda request: troubles.extend([] if request.url.startswith(local) else [request.url]))
    page.goto(app_url + "?__theme=light")
    page.locator("#heat .chart[data-ready='true'][data-points='16']").wait_for(timeout=20_000)
    yield page
    context.close()
    assert not troubles, troubles


@pytest.fixture
def page(visit, lab):
    """The page with the tree, the charts and the pointer as they were at first."""
    lab.reset()
    visit.mouse.move(0, 0)
    visit.keyboard.press("Escape")
    visit.locator("#scatter .chart-field").focus()
    visit.keyboard.press("Escape")
    visit.get_by_role("button", name="Start over").click()
    visit.locator(".timeline[data-rounds='6'][data-current='5'][data-branches='2']").wait_for()
    visit.evaluate("document.body.classList.remove('dark'); scrollTo(0, 0)")
    lab.brushed.clear()
    return visit


def wait_until(page, true):
    """Give the page time until a condition on the Python side holds."""
    for _ in range(100):
        if true():
            return
        page.wait_for_timeout(20)
    raise AssertionError("it did not become true within two seconds")


def rounds(page, **data):
    """The timeline once it shows this."""
    wanted = "".join(f"[data-{name}='{value}']" for name, value in data.items())
    found = page.locator(f".timeline{wanted}")
    found.wait_for(timeout=3000)
    return found


def tab(page, name):
    return page.get_by_role("group", name="Branches").get_by_role("button", name=name, exact=True)


def menu_item(page, branch, item):
    page.get_by_role("button", name=f"Menu of branch {branch}").click()
    return page.get_by_role("menu").get_by_text(item, exact=True)


# ---------------------------------------------------------------- timeline


def test_arrow_keys_on_the_scrubber_walk_the_rounds_and_keep_the_focus(page, lab):
    slider = page.get_by_role("slider", name="Round 5 of 5")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    rounds(page, current=4)
    page.keyboard.press("Home")
    rounds(page, current=0)
    wait_until(page, lambda: lab.picks[-1:] == [0])
    assert page.locator(".scrubber").inner_text() == "Start, before round 1 of 5"
    assert page.evaluate("document.activeElement.type") == "range"
    assert page.locator(".round-chip.later").count() == 5


def test_dragging_the_scrubber_sends_few_picks_and_the_last_one(page, lab):
    box = page.locator(".scrubber input").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] - 10, y)
    page.mouse.down()
    for i in range(20):
        page.mouse.move(box["x"] + box["width"] * (1 - i / 20), y)
    page.mouse.move(box["x"] + 10, y)
    page.mouse.up()
    rounds(page, current=0)
    wait_until(page, lambda: lab.picks[-1:] == [0])
    assert len(lab.picks) <= 5  # one each 150 ms, though the thumb passed every round


def test_a_chip_picks_its_round_and_shows_why_it_was_rejected(page, lab):
    chip = page.locator(".round-chip[data-id='3']")
    assert "Neighbours lost more than allowed." in chip.inner_text()
    chip.click()
    rounds(page, current=3)
    wait_until(page, lambda: lab.picks == [3])
    detail = page.locator(".round-detail").inner_text()
    assert "8 steps were tried, none taken" in detail
    assert page.locator(".round-chip[data-id='2'] .round-sign.fork").inner_text() == "branch: Gentle"


def test_the_page_does_not_move_while_rounds_are_picked(page):
    before = page.evaluate("[scrollY, document.querySelector('#scatter').getBoundingClientRect().top]")
    for number in (0, 1, 3, 5):
        page.locator(f".round-chip[data-id='{number}']").click()
        rounds(page, current=number)
    assert page.evaluate("[scrollY, document.querySelector('#scatter').getBoundingClientRect().top]") == before


def test_switching_a_branch_shows_its_path_and_what_was_done_by_hand(page, lab):
    tab(page, "Gentle 2 locks, 1 ban").click()
    rounds(page, branch="Gentle", current=7, rounds=5)
    assert lab.changes == [("switch", "Gentle", None, None)]
    assert "without text.0.head.2; text.1.mlp at 80 %" in page.locator(".round-detail").inner_text()


def test_a_branch_is_made_by_keyboard_from_the_round_shown(page, lab):
    page.locator(".round-chip[data-id='2']").click()
    page.get_by_role("button", name="Branch from here").focus()
    page.keyboard.press("Enter")
    field = page.get_by_role("textbox", name="Name of the new branch")
    assert field.input_value() == "Branch 2"
    page.keyboard.press("Escape")
    assert field.count() == 0
    page.keyboard.press("Enter")  # the focus is back on the button
    page.keyboard.type("Gentle")
    page.keyboard.press("Enter")
    assert (
        page.get_by_role("alert").filter(has_text="already").inner_text() == "There is already a branch of that name."
    )
    page.keyboard.press("Control+a")
    page.keyboard.type("Bold")
    page.keyboard.press("Enter")
    rounds(page, branch="Bold", branches=3, rounds=3)
    assert lab.changes == [("new", "Main", "Bold", 2)]


def test_a_branch_name_is_shown_as_text_everywhere(page, lab):
    menu_item(page, "Gentle", "Rename").click()
    page.keyboard.type(NASTY)
    page.get_by_role("button", name="Rename").click()
    page.locator(".branch-text", has_text=NASTY).wait_for()
    assert lab.changes == [("rename", "Gentle", NASTY, None)]
    assert page.locator("img").count() == 0
    assert f"branch: {NASTY}" in page.locator(".round-chip[data-id='2']").inner_text()
    assert NASTY[:15] in page.locator(".timeline-plot").inner_text()


def test_a_menu_is_operated_by_keyboard(page, lab):
    page.get_by_role("button", name="Menu of branch Gentle").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    wait_until(page, lambda: lab.changes == [("compare", "Gentle", None, None)])
    page.locator(".branch-name", has_text="compared").wait_for()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Menu of branch Gentle"
    page.keyboard.press("Enter")
    assert page.get_by_role("menuitemcheckbox", name="Compare").get_attribute("aria-checked") == "true"
    page.keyboard.press("Escape")
    assert page.get_by_role("menu").count() == 0


def test_deleting_a_branch_asks_first_and_the_last_one_stays(page, lab):
    item = menu_item(page, "Gentle", "Delete")
    item.click()
    assert lab.changes == []
    page.get_by_role("menuitem", name="Really delete?").click()
    rounds(page, branches=1, branch="Main")
    assert lab.changes == [("delete", "Gentle", None, None)]
    last = menu_item(page, "Main", "Delete")
    assert last.get_attribute("aria-disabled") == "true"
    last.click(force=True)  # Playwright waits for what is disabled
    assert lab.changes == [("delete", "Gentle", None, None)]


def test_a_draft_stands_after_the_current_round(page, lab):
    lab.draft = {"text": "without text.0.head.2", "busy": True, "forget": point(0.1)}
    page.locator(".round-chip[data-id='2']").click()
    page.locator(".round-chip[data-id='2'] + .round-chip.draft").wait_for()
    assert "measuring" in page.locator(".round-chip.draft").inner_text()


# ---------------------------------------------------------------- charts


def drawn(page, elem_id, path):
    """Something of the figure as Plotly holds it."""
    return page.evaluate(f"document.querySelector('#{elem_id} .chart-plot').{path}")


def place(page, elem_id, x, y):
    """Where a point of the data lies in the window."""
    page.locator(f"#{elem_id}").scroll_into_view_if_needed()
    axes = "const l = plot._fullLayout, box = plot.getBoundingClientRect()"
    return page.evaluate(
        f"""([x, y]) => {{ const plot = document.querySelector('#{elem_id} .chart-plot'); {axes};
        return [box.left + l._size.l + l.xaxis.d2p(x), box.top + l._size.t + l.yaxis.d2p(y)]; }}""",
        [x, y],
    )


def test_a_click_picks_a_point_and_python_can_mark_it(page, lab):
    trace = drawn(page, "scatter", "data[0]")
    page.mouse.click(*place(page, "scatter", trace["x"][5], trace["y"][5]))
    wait_until(page, lambda: lab.points == [KEYS[5]])
    page.wait_for_function("document.querySelector('#scatter .chart-plot').data.length === 2")
    assert drawn(page, "scatter", "data[1].x") == [trace["x"][5]]


def test_a_cell_of_a_heat_map_is_a_point_too(page, lab):
    page.mouse.click(*place(page, "heat", 2, 1))
    wait_until(page, lambda: lab.points == [KEYS[6]])


def test_arrow_keys_walk_the_points_in_order_of_x_and_enter_picks(page, lab):
    trace = drawn(page, "scatter", "data[0]")
    order = sorted(range(16), key=lambda i: (trace["x"][i], trace["y"][i]))
    page.locator("#scatter .chart-field").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.locator("#scatter .hoverlayer .hovertext").wait_for()
    page.keyboard.press("Enter")
    wait_until(page, lambda: lab.points == [KEYS[order[2]]])


def test_a_box_selects_its_points_and_escape_clears_them(page, lab):
    trace = drawn(page, "scatter", "data[0]")
    inside = [key for key, x, y in zip(KEYS, trace["x"], trace["y"], strict=True) if x < 2 and y < 0.78]
    left, top = place(page, "scatter", -0.15, 0.78)
    right, bottom = place(page, "scatter", 2, 0.17)
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move(right, bottom, steps=4)
    page.mouse.up()
    wait_until(page, lambda: [sorted(keys) for keys in lab.brushed] == [sorted(inside)])
    assert page.locator("#scatter .chart-bar").inner_text().startswith(f"{len(inside)} points selected")
    page.evaluate("document.body.classList.toggle('dark')")
    page.wait_for_timeout(150)
    assert len(drawn(page, "scatter", "data[0].selectedpoints")) == len(inside)  # new colours keep the selection
    page.locator("#scatter .chart-field").focus()
    page.keyboard.press("Escape")
    wait_until(page, lambda: lab.brushed[-1] == [])
    page.wait_for_function("!(document.querySelector('#scatter .chart-plot').layout.selections || []).length")


def test_space_selects_by_keyboard(page, lab):
    page.locator("#scatter .chart-field").focus()
    page.keyboard.press("Home")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    wait_until(page, lambda: [len(keys) for keys in lab.brushed] == [1, 2])


def test_the_dark_switch_recolours_every_chart(visit):
    for mode in ("light", "dark"):
        visit.evaluate(f"document.body.classList.toggle('dark', {str(mode == 'dark').lower()})")
        shade = theme.COLOURS["edited"][mode]
        visit.wait_for_function(f"document.querySelector('#bars .chart-plot').data[1].marker.color === '{shade}'")
        forget = theme.COLOURS["forget"][mode]
        seen = f"document.querySelector('.timeline-plot').data.some((t) => t.line && t.line.color === '{forget}')"
        visit.wait_for_function(seen)


# ---------------------------------------------------------------- glossary


def test_a_term_explains_itself_on_hover_and_the_pointer_may_rest_on_the_card(visit):
    card = visit.get_by_role("tooltip")
    visit.locator("#words .term").first.hover()
    card.wait_for()
    assert card.inner_text().startswith("Phi\n\nHow promising")
    card.hover()
    visit.wait_for_timeout(200)
    assert card.is_visible()
    visit.locator("h1").hover()
    card.wait_for(state="hidden")


def test_a_term_explains_itself_on_focus_until_escape(visit):
    visit.locator("#words .term").first.focus()
    visit.keyboard.press("Tab")
    visit.get_by_role("tooltip").filter(has_text="Edit set").wait_for()
    assert visit.evaluate("document.activeElement.getAttribute('aria-describedby')") == "razor-glossary"
    visit.keyboard.press("Escape")
    assert visit.get_by_role("tooltip").count() == 0
    assert visit.evaluate("document.activeElement.getAttribute('aria-describedby')") is None


def test_labels_that_are_terms_explain_themselves_and_others_stay_plain(visit):
    marked = visit.locator("[data-testid='block-info'].term").all_inner_texts()
    assert [text.strip() for text in marked] == ["alpha", "Rounds at most"]
    assert visit.locator("[data-testid='block-info'].term[tabindex]").count() == 0
    assert visit.locator(".cell-wrap .term").all_inner_texts() == ["unit", "phi"]
    visit.locator("[data-testid='block-info'].term").first.hover()
    visit.get_by_role("tooltip").filter(has_text="Alpha").wait_for()


# ---------------------------------------------------------------- accessibility


def test_axe_finds_nothing_in_either_mode(page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page.get_by_role("button", name="Menu of branch Gentle").click()
    wanted = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"], "resultTypes": ["violations"]}
    ours = {"include": [[".timeline"], [".chart"], ["#words"]]}
    for dark in (False, True):
        page.evaluate("dark => document.body.classList.toggle('dark', dark)", dark)
        page.wait_for_timeout(250)  # colours fade
        found = axe.run(page, ours, wanted).response["violations"]
        assert not found, [(one["id"], one["nodes"][0]["html"][:200]) for one in found]
