"""Sessions: each visitor its own, nothing kept once a page was left for good."""

import asyncio
import time

from fastapi import Request

from components import session as module
from components.arrivals import Arrivals, came
from components.session import Sessions


def test_each_key_has_its_own_session_and_keeps_it():
    sessions = Sessions()
    assert sessions.get("a") is sessions.get("a") is not sessions.get("b")


def test_a_closed_session_stops_at_once_and_goes_after_the_grace_period(monkeypatch, tmp_path):
    upload = tmp_path / "picture.png"
    upload.write_bytes(b"x")
    sessions = Sessions()
    session = sessions.get("a")
    session.uploads.add(str(upload))
    sessions.close("a")
    assert session.stop.is_set() and upload.exists()
    monkeypatch.setattr(module, "GRACE", -1.0)
    sessions.sweep()
    assert not upload.exists() and sessions.get("a") is not session


def test_a_request_is_told_by_when_it_came():
    found = []

    async def page(scope, receive, send):
        found.append(Request(scope))

    began = time.monotonic()
    asyncio.run(Arrivals(page)({"type": "http", "state": {}}, None, None))
    then = came(found[0])
    assert began <= then <= time.monotonic() and came(found[0]) == then


def test_coming_back_within_the_grace_period_keeps_everything():
    sessions = Sessions()
    session = sessions.get("a")
    sessions.close("a")
    assert sessions.get("a") is session and session.closed_at is None


def test_the_longest_idle_visitor_makes_room(monkeypatch):
    monkeypatch.setattr(module, "MAX_SESSIONS", 2)
    sessions = Sessions()
    first = sessions.get("a")
    sessions.get("b")
    sessions.get("c")
    sessions.sweep()
    assert len(sessions) == 2 and sessions.get("a") is not first
