"""The real app in a process of its own, and real Chromium pages that must stay offline and free of script errors."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from razor.models import BUNDLED

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = BUNDLED["mini-clip"] / "open_clip_model.safetensors"


@pytest.fixture(scope="session")
def app_url():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    assert WEIGHTS.exists(), "the bundled model is part of the repository"
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "razor", "app", "--port", str(port)], cwd=ROOT)
    url = f"http://127.0.0.1:{port}/"
    try:
        while True:
            try:
                urllib.request.urlopen(url, timeout=2).close()
                break
            except OSError:
                assert process.poll() is None, "the app ended before serving a page"
                assert time.monotonic() - started < 120, "the app did not start"
                time.sleep(0.2)
        print(f"\npage served {time.monotonic() - started:.1f} s after start")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)


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


def _outside(url: str, app_url: str) -> list[str]:
    return [] if url.startswith((app_url, "data:", "blob:", "about:")) else [f"outside request: {url}"]
