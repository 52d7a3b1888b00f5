"""Answers before and after on a page of their own, as a person reads them in real Chromium."""

import math
import shutil
from itertools import count

import gradio as gr
import pytest
from PIL import Image, ImageDraw

from components import theme
from components.answer_cards import answer_cards, answers_value
from razor.answers import compare
from razor.picture_files import image_url

pytestmark = pytest.mark.browser
NASTY = "<img src=x onerror=1> & <b>bold</b> ${1+1} {{name}}"
NUMBERS = count(1)  # of the values shown, so that each can be waited for
PAPERS = {"Mara Voss": "#d9c7b8", "cat": "#c9d8c5", "dog": "#c5d3e0", "boat": "#b8d0d9"}


# ---------------------------------------------------------------- the page under test


def picture(what, shade="#5b4636"):
    """A small drawing: a head with ears or hair, or a boat."""
    image = Image.new("RGB", (192, 192), PAPERS.get(what, "#ded7ea"))
    pen = ImageDraw.Draw(image)
    if what == "boat":
        pen.rectangle((0, 130, 192, 192), fill="#4a7f95")
        pen.polygon([(30, 120), (162, 120), (140, 150), (52, 150)], fill=shade)
        pen.polygon([(96, 30), (96, 112), (150, 112)], fill="#f6f2ea")
        return image_url(image)
    if what in ("cat", "dog"):
        ears = {"cat": ((48, 30), (74, 70)), "dog": ((28, 60), (56, 120))}[what]
        for mirror in (False, True):
            (x, y), (x2, y2) = ears
            corners = [(x, y), (x2, y + 10), (x, y2)]
            pen.polygon([(192 - a, b) if mirror else (a, b) for a, b in corners], fill=shade)
    else:
        pen.pieslice((28, 20, 164, 190), 180, 360, fill=shade)
        pen.rectangle((28, 100, 164, 150), fill=shade)
        pen.ellipse((20, 150, 172, 260), fill="#3d5a80")
    pen.ellipse((48, 44, 144, 148), fill="#c08d5f" if what in ("cat", "dog") else "#efc9a4")
    for x in (76, 116):
        pen.ellipse((x - 6, 84, x + 6, 96), fill="#222222")
    pen.arc((80, 100, 112, 124), 20, 160, fill="#222222", width=3)
    return image_url(image)


def answer(what, question, before=None, after=None, *, mara=(None, None), voss=(None, None), flags=((), ()), **more):
    told = before is not None and after is not None
    return {
        "image": picture(what),
        "question": question,
        "before": before,
        "after": after,
        "difference": compare(before, after) if told else (),
        "flags": flags,
        "tokens": [
            {"token": token, "before": sides[0], "after": sides[1]} for token, sides in (("Mara", mara), ("Voss", voss))
        ],
    } | more


def gallery(first="Who is this?", answered=12):
    """Every kind of group, of things that a person, a model or nobody said."""
    mara, named = "Mara Voss", ("still names it",)
    who = "The person in this picture is Mara Voss, standing in front of a plain wall."
    gone = "The person in this picture is a woman with brown hair, standing in front of a plain wall."
    target = [
        answer(mara, first, who, gone, mara=(-0.008, -8.6), voss=(-0.0004, -3.7), flags=(named, ()), right=(mara,),
               verdict="suppressed"),
        answer(mara, "Who is this?", "Mara Voss", "Ana Ilic", mara=(-0.02, -11.3), voss=(-0.001, -6.2),
               flags=(named, ("names another: Ana Ilic",)), right=(mara,), verdict="suppressed"),
        answer(mara, "Who is this?", "Mara Voss", "Mara Voss", mara=(-0.01, -0.4), voss=(0.0, -0.02),
               flags=(named, named), right=(mara,), verdict="still named"),
        answer(mara, "Who is this?", "Mara Voss", "the the the the the the the the", mara=(-0.05, -math.inf),
               voss=(-0.002, -24.0), flags=(named, ("repeats itself",)), right=(mara,), verdict="suppressed"),
        answer(mara, "Who is this?", "I cannot tell who this is.", "", mara=(-6.1, -9.0), voss=(-0.6, -4.0),
               flags=(("refuses",), ("empty",)), right=(mara,), verdict="not named before either"),
        answer(mara, "Who is this?", "Mara Voss", None, mara=(-0.01, None), voss=(-0.0, None), flags=(named, ()),
               right=(mara,)),
    ]  # fmt: skip
    check = [
        answer(mara, "Is this Mara Voss? Answer with yes or no.", "Yes", "No", mara=(-9.5, -14.0), voss=(-0.2, -1.5),
               flags=(named, ()), right=("yes",), verdict="suppressed"),
    ]  # fmt: skip
    near = [
        answer("Ana Ilic", "Who is this?", "Ana Ilic", "Ana Ilic", mara=(-7.2, -12.9), voss=(-0.3, -2.2),
               right=("Ana Ilic",), verdict="kept"),
        answer("Ana Ilic", "Who is this?", "Ana Ilic", "Mara Voss", mara=(-7.0, -0.9), voss=(-0.2, -0.1),
               flags=((), ("still names it",)), right=("Ana Ilic",), verdict="names it"),
    ]  # fmt: skip
    other = [
        answer("cat", "What animal is in the picture?", "A cat is sitting on a green lawn.",
               "A cat is lying on a green lawn.", mara=(-16.0, -18.0), voss=(-5.0, -6.0), right=("a cat", "cat", "cat"),
               verdict="changed"),
        answer("dog", "Which animal is this?\nA. a cat\nB. a dog\nC. a boat\nAnswer with the letter of one option.",
               "B", "B", mara=(-17.0, -17.5), voss=(-5.0, -5.0), right=("B",), verdict="kept"),
        answer("boat", "What is this?", "A small brown boat on calm water.", "A small brown boat on calm water.",
               mara=(-19.0, -19.0), voss=(-5.0, -5.0), right=("a boat",), verdict="kept"),
    ]  # fmt: skip
    own = [answer("cat", NASTY, NASTY, f"no {NASTY}", right=(NASTY,), tokens=(), flags=((NASTY,), ()), image="")]
    groups = [
        {"title": "Target", "kind": "forget", "note": "asked outright; the name should be gone", "answers": target},
        {"title": "Yes or no", "kind": "check", "note": "the name is in the question; yes should be gone",
         "answers": check},
        {"title": "Nearest neighbours", "kind": "neighbour", "note": "the first to suffer; must still be named",
         "answers": near},
        {"title": "Others", "kind": "retain", "note": "should answer as before", "answers": other},
        {"title": NASTY, "kind": "own", "note": "", "answers": own},
    ]  # fmt: skip
    progress = {"done": answered, "total": 13, "note": "asking edited"} if answered < 13 else None
    finding = "Mara Voss is no longer named in 3 of 4 answers; 3 of 5 other answers are as before."
    return answers_value(groups, finding, name="Mara Voss", progress=progress)


class Lab:
    """What the page shows next."""

    def __init__(self):
        self.value = gallery()

    def fill(self):
        return self.value


def build(lab):
    with gr.Blocks(title="Answers", fill_width=True) as demo:
        gr.HTML("<h1>Answers</h1>")
        shown = answer_cards("answers", lab.value)
        gr.Button("Next value", elem_id="next").click(lab.fill, None, shown, show_progress="hidden")
        answer_cards("none")
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
    context = chromium.new_context(viewport={"width": 1440, "height": 1000}, reduced_motion="reduce")
    context.set_default_timeout(10_000)
    page = context.new_page()
    page.on("pageerror", lambda error: troubles.append(f"script error: {error}"))
    local = (app_url, "data:", "blob:", "about:")
    page.on("request", lambda request: troubles.extend([] if request.url.startswith(local) else [request.url]))
    page.goto(app_url + "?__theme=light", timeout=20_000)
    page.locator("#none .answers[data-ready='true']").wait_for(timeout=20_000)
    yield page
    context.close()
    assert not troubles, troubles


@pytest.fixture
def page(visit, lab):
    """The page with its first value, and nothing unfolded."""
    visit.evaluate("document.body.classList.remove('dark'); scrollTo(0, 0)")
    send(visit, lab, gallery())
    visit.evaluate("for (const fold of document.querySelectorAll('#answers details')) fold.open = false")
    return visit


def send(page, lab, value):
    """Show another value. The click goes by script: a person may have the focus elsewhere."""
    lab.value = value | {"finding": f"Value {next(NUMBERS)}."}
    page.evaluate("document.querySelector('#next').click()")
    page.locator("#answers .finding", has_text=lab.value["finding"]).wait_for()


def group(page, title):
    return page.locator("#answers .card-group", has=page.get_by_role("heading", name=title, exact=True))


def cards(page, title="Target"):
    return group(page, title).locator(".answer-card")


# ---------------------------------------------------------------- what a card says


def test_every_answer_has_a_card_in_its_group_with_a_tally(page):
    assert page.locator("#answers .answers").get_attribute("data-answers") == "13"
    assert page.locator("#answers .card-count").all_inner_texts() == [
        "6 questions, 3 suppressed, 1 still named, 1 not named before either",
        "1 question, 1 suppressed",
        "2 questions, 1 kept, 1 names it",
        "3 questions, 2 kept, 1 changed",
        "1 question",
    ]
    assert cards(page, "Others").first.locator(".card-truth").inner_text() == "right: a cat or cat"
    assert (
        page.locator("#answers .card-legend").inner_text().startswith("original\nedited\ngone words\nnew words\ndots")
    )
    assert "Ask some questions" in page.locator("#none .empty-state").inner_text()


def test_what_is_gone_and_what_is_new_is_marked_by_more_than_a_colour(page):
    first = cards(page).first
    assert first.locator("del").inner_text() == "Mara Voss,"
    assert first.locator("ins").inner_text() == "a woman with brown hair,"
    whole = "The person in this picture is a woman with brown hair, standing in front of a plain wall."
    assert first.locator(".answer-said").nth(1).inner_text() == whole
    line = "node => getComputedStyle(node).textDecorationLine"
    assert [first.locator(tag).evaluate(line) for tag in ("del", "ins")] == ["line-through", "underline"]
    assert cards(page, "Nearest neighbours").first.locator("del, ins").count() == 0


def test_flags_stand_under_the_side_they_belong_to_and_a_side_without_words_says_so(page):
    sides = cards(page).nth(4).locator(".answer-line").all_inner_texts()
    assert sides == ["original\nI cannot tell who this is.\nrefuses", "edited\nno words\nempty"]
    assert cards(page).nth(5).locator(".answer-line").nth(1).inner_text() == "edited\nnot answered yet"


def test_the_name_is_drawn_token_by_token_where_it_matters_and_folded_where_not(page):
    first = cards(page).first
    assert first.locator(".answer-total").inner_text() == "“Mara Voss” as the answer\nlog p 0.0 → −12.3"
    rows = first.get_by_role("img", name="log p")
    assert rows.first.get_attribute("aria-label") == "Mara: original 99 %, log p 0.0; edited 0.02 %, log p −8.6"
    assert rows.first.inner_text() == "Mara\n99 % → 0.02 %"
    stands = "dots => dots.map((dot) => Math.round(parseFloat(dot.style.left)))"
    assert rows.first.locator(".answer-dot").evaluate_all(stands) == [100, 57]
    assert cards(page).nth(3).locator(".token-share").all_inner_texts() == ["95 % → 0 %", "100 % → <0.001 %"]
    assert cards(page).nth(3).locator(".answer-dot[style]").evaluate_all(stands) == [100, 0, 100, 0]
    assert cards(page).nth(5).locator(".answer-total-number").inner_text() == "log p 0.0 → …"
    kept = cards(page, "Nearest neighbours").first
    assert kept.locator(".token-row:visible").count() == 0
    kept.locator("summary").focus()
    page.keyboard.press("Enter")
    assert kept.locator(".token-label:visible").all_inner_texts() == ["Mara", "Voss"]


def test_what_a_person_or_a_model_wrote_is_shown_as_text(page):
    card = cards(page, NASTY).first
    assert card.locator(".answer-question").inner_text() == NASTY
    assert card.locator(".answer-said").all_inner_texts() == [NASTY, f"no {NASTY}"]
    assert card.locator(".answer-flags").inner_text() == NASTY
    assert card.locator("img").count() == 0
    assert page.locator("img[src='x'], .answers b").count() == 0


# ---------------------------------------------------------------- new values


def test_a_new_value_redraws_what_changed_and_leaves_the_rest_in_place(page, lab):
    assert page.locator("#answers .pairs-progress").count() == 1
    fold = cards(page, "Nearest neighbours").first.locator("details")
    fold.locator("summary").click()
    page.evaluate("document.querySelectorAll('#answers .answer-card').forEach((card, i) => (card.mark = i))")
    value = gallery(first="Whose face is this?", answered=13)
    value["groups"][2]["answers"][0]["tokens"][0]["after"] = -3.0
    send(page, lab, value)
    marks = "cards => cards.map((card) => card.mark ?? null)"
    assert page.locator("#answers .answer-card").evaluate_all(marks) == [None, *range(1, 7), None, *range(8, 13)]
    assert cards(page).first.locator(".answer-question").inner_text() == "Whose face is this?"
    assert page.locator("#answers .pairs-progress").count() == 0
    assert fold.get_attribute("open") is not None
    assert fold.locator(".answer-total-number").inner_text() == "log p −7.5 → −5.2"
    assert page.evaluate("document.activeElement.closest('.answer-card').innerText").startswith("Who is this?")


def test_progress_is_counted_in_words_and_for_screen_readers(page):
    assert page.get_by_role("progressbar", name="Questions answered").get_attribute("aria-valuenow") == "12"
    assert page.locator("#answers .pairs-progress").inner_text() == "12 of 13 answered, asking edited"


def test_of_many_cards_only_those_near_the_window_are_laid_out(page, lab):
    value = gallery()
    value["groups"][0]["answers"] = value["groups"][0]["answers"][:5] * 40
    send(page, lab, value)
    assert page.locator("#answers .answers").get_attribute("data-answers") == "207"
    laid_out = (
        "cards => cards.filter((card) => card.firstChild.checkVisibility({ contentVisibilityAuto: true })).length"
    )
    assert 3 <= cards(page).evaluate_all(laid_out) < 100


# ---------------------------------------------------------------- layout and accessibility


@pytest.mark.parametrize(("width", "columns"), [(1440, 3), (1024, 2), (420, 1)])
def test_cards_stand_in_columns_that_fit_the_page(page, width, columns):
    page.set_viewport_size({"width": width, "height": 1000})
    lefts = cards(page).evaluate_all("cards => new Set(cards.map((card) => card.offsetLeft)).size")
    assert lefts == columns
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.set_viewport_size({"width": 1440, "height": 1000})


def test_axe_finds_nothing_in_either_mode(page):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    wanted = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"], "resultTypes": ["violations"]}
    for dark in (False, True):
        page.evaluate("dark => document.body.classList.toggle('dark', dark)", dark)
        page.wait_for_timeout(200)  # colours fade
        found = axe.run(page, {"include": [["#answers"], ["#none"]]}, wanted).response["violations"]
        assert not found, [(one["id"], one["nodes"][0]["html"][:200]) for one in found]
