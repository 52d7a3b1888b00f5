"""Real Chromium pages of the real app that must stay offline and free of script errors."""

import shutil

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def chromium():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def new_page(chromium, app_url):
    """A factory of independent visitors; the test fails if any page had a script error or left this machine."""
    contexts, troubles = [], []

    def visit(query: str = ""):
        context = chromium.new_context(viewport={"width": 1440, "height": 1000})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(f"script error: {error}"))
        page.on("request", lambda request: troubles.extend(_outside(request.url, app_url)))
        page.goto(app_url + query)
        page.wait_for_selector("#gallery .cards[data-ready='true']", timeout=30_000)
        page.wait_for_selector("#story-status .status-line", timeout=30_000)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not troubles, troubles


@pytest.fixture(scope="module")
def visitor(chromium, app_url):
    """One visitor for all tests of a file, on the first screen; fails at the end if the page had a script error."""
    context = chromium.new_context(viewport={"width": 1440, "height": 1000})
    page, troubles = context.new_page(), []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(app_url)
    page.wait_for_selector("#story-status .status-line", timeout=240_000)
    yield page
    context.close()
    assert not troubles, troubles


def _outside(url: str, app_url: str) -> list[str]:
    return [] if url.startswith((app_url, "data:", "blob:", "about:")) else [f"outside request: {url}"]
