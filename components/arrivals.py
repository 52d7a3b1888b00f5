"""When a request came: work that waits its turn in the queue is not to forget a Stop pressed meanwhile."""

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import gradio as gr

Scope = MutableMapping[str, Any]


class Arrivals:
    """ASGI middleware that notes the time of every request, for `came`."""

    def __init__(self, app: Callable[..., Awaitable[None]]):
        self.app = app

    async def __call__(self, scope: Scope, receive: Callable, send: Callable) -> None:
        if scope["type"] == "http":
            scope.setdefault("state", {})["came"] = time.monotonic()
        await self.app(scope, receive, send)


def came(request: gr.Request) -> float:
    """When a request came, on the monotonic clock; now where that was not noted."""
    return getattr(getattr(request, "state", None), "came", time.monotonic())
