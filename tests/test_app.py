"""Starting the page: python -m razor app and python app.py take the same, from the command line and the environment."""

import os
import runpy
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

import app
from razor import cli

ROOT = Path(__file__).resolve().parent.parent
SET = ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "RAZOR_AUTH")


@pytest.fixture
def started(monkeypatch):
    """environment, arguments -> what the page would be started with."""
    for name in SET:
        monkeypatch.delenv(name, raising=False)
    found = {}
    monkeypatch.setattr(app, "launch", lambda **given: found.update(given))
    monkeypatch.setattr(app, "check_address", lambda host, port: None)

    def start(*argv: str, **environment: str) -> dict:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        cli.main(["app", *argv])
        return found

    return start


@pytest.fixture
def taken():
    """A port somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_this_machine_alone_is_served_where_nothing_is_said(started):
    given = started()
    assert (given["host"], given["port"], given["auth"]) == ("127.0.0.1", 7860, None)


def test_what_a_container_sets_is_taken_and_the_command_line_counts_more(started):
    there = {"GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SERVER_PORT": "81", "RAZOR_AUTH": "ada:sec:ret"}
    given = started(**there)
    assert (given["host"], given["port"], given["auth"]) == ("0.0.0.0", 81, ("ada", "sec:ret"))
    given = started("--host", "::1", "--port", "82", "--auth", "bob:other")
    assert (given["host"], given["port"], given["auth"]) == ("::1", 82, ("bob", "other"))


def test_empty_settings_are_none(started):
    given = started(GRADIO_SERVER_NAME="", GRADIO_SERVER_PORT="", RAZOR_AUTH="")
    assert (given["host"], given["port"], given["auth"]) == ("127.0.0.1", 7860, None)


@pytest.mark.parametrize("said", ["ada", "ada:", ":secret"])
def test_half_a_password_is_refused_without_repeating_it(started, said, capsys):
    with pytest.raises(SystemExit) as stop:
        started(RAZOR_AUTH=said)
    assert stop.value.code == 2
    assert capsys.readouterr().err == "razor: RAZOR_AUTH needs USER:PASS, such as ada:secret.\n"


def test_the_password_is_in_no_help(monkeypatch, capsys):
    monkeypatch.setenv("RAZOR_AUTH", "ada:hidden")
    with pytest.raises(SystemExit):
        cli.main(["app", "--help"])
    said = capsys.readouterr().out
    assert "RAZOR_AUTH" in said and "hidden" not in said


def test_the_file_itself_takes_the_same_arguments(monkeypatch):
    given = []
    monkeypatch.setattr(cli, "main", given.extend)
    monkeypatch.setitem(sys.modules, "app", app)  # put back afterwards
    monkeypatch.setattr(sys, "argv", ["app.py", "--port", "7899"])
    runpy.run_path(str(ROOT / "app.py"), run_name="__main__")
    assert given == ["app", "--port", "7899"]


def test_an_address_that_will_not_do_is_one_sentence_before_anything_is_loaded(taken, monkeypatch, capsys):
    monkeypatch.setattr(app.models, "load", None)
    again = "Choose another with --port or --host."
    with pytest.raises(SystemExit):
        cli.main(["app", "--port", "65536"])
    assert capsys.readouterr().err == "razor: Port 65536 does not exist; choose one from 1 to 65535.\n"
    for host, port, why in (
        ("127.0.0.1", taken, "Address already in use"),
        ("0.0.0.0", taken, "Address already in use"),
        ("192.0.2.1", 7899, "Cannot assign requested address"),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(["app", "--host", host, "--port", str(port)])
        assert stop.value.code == 2
        assert capsys.readouterr().err == f"razor: Cannot listen on {host}, port {port}: {why}. {again}\n"


def test_tools_that_were_not_started_end_the_page_with_one_sentence(monkeypatch, capsys):
    said, closed = "Error launching MCP server: module 'mcp.types' has no attribute 'Tool'", []
    demo = SimpleNamespace(
        launch=lambda **given: (None, "http://127.0.0.1:7899/", None),
        mcp_server=False,
        mcp_error=said,
        close=lambda verbose: closed.append(True),
    )
    monkeypatch.setattr(app, "build_demo", lambda *_, **__: (demo, None))
    monkeypatch.setattr(app, "find_spec", lambda name: name)
    monkeypatch.setattr(app, "check_address", lambda host, port: None)
    with pytest.raises(SystemExit) as stop:
        cli.main(["app", "--mcp"])
    assert stop.value.code == 2 and closed
    assert capsys.readouterr() == (
        "",
        f"razor: --mcp could not be served ({said}). Run: .venv/bin/python -m pip install 'mcp>=1.21,<2', or leave "
        "--mcp out.\n",
    )


def test_the_page_asks_for_the_password_of_the_environment_and_ends_when_it_is_killed():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = {name: value for name, value in os.environ.items() if name not in SET} | {"RAZOR_AUTH": "ada:secret"}
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", str(port)], cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True
    )
    try:
        started = time.monotonic()
        while b"auth_required" not in _page(port, "/"):
            assert process.poll() is None and time.monotonic() - started < 120
            time.sleep(0.2)
        assert _page(port, "/config") == b"401"
        process.terminate()
        assert process.wait(20) == 143
        assert process.stderr.read() == "razor: stopped; no model was changed.\n"
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def _page(port: int, path: str) -> bytes:
    """What is served there: nothing yet, a number where it is refused, or the page."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as page:
            return page.read()
    except urllib.error.HTTPError as error:
        return str(error.code).encode()
    except OSError:
        return b""
