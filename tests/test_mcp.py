"""An agent finds the endpoints as tools of the real app and calls one; skipped where the package mcp is not there."""

import asyncio
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import torch

from razor import models
from razor.patches import Patch

mcp = pytest.importorskip("mcp")
http = pytest.importorskip("mcp.client.streamable_http")
if not hasattr(http, "streamablehttp_client"):
    pytest.skip("Gradio serves mcp 1, and this is another", allow_module_level=True)

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def tools_url():
    """The real app as `python -m razor app --mcp` serves it to agents."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, "-m", "razor", "app", "--mcp", "--port", str(port)]
    root = Path(__file__).resolve().parents[1]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = next((line for line in process.stdout if line.startswith("RAZOR Studio is at")), None)
            assert said, "the app ended before serving a page"
            yield f"http://127.0.0.1:{port}/gradio_api/mcp/"
        finally:
            process.terminate()


def asked(url, work):
    """What comes of one visit of an agent."""

    async def visit():
        async with (
            http.streamablehttp_client(url) as (incoming, outgoing, _),
            mcp.ClientSession(incoming, outgoing, read_timeout_seconds=timedelta(seconds=240)) as agent,
        ):
            await agent.initialize()
            return await work(agent)

    return asyncio.run(visit())


def test_an_agent_is_offered_the_four_endpoints_with_what_their_arguments_are(tools_url):
    tools = {tool.name: tool for tool in asked(tools_url, lambda agent: agent.list_tools()).tools}
    assert list(tools) == ["score", "unlearn", "predict", "export"]
    assert tools["score"].description.startswith("Rank every head and MLP")
    assert "style:neon" in tools["score"].inputSchema["properties"]["forget"]["description"]
    assert "settings" in tools["unlearn"].inputSchema["properties"]


def test_an_agent_scores_a_concept(tools_url):
    found = asked(tools_url, lambda agent: agent.call_tool("score", {"forget": "object:cat"}))
    said = found.content[0].text
    assert not found.isError and "'concept': 'cat'" in said
    assert said.count("'unit': ") == 72 and said.index("text.0.head.3") < said.index("image.0.head.0")


def test_a_file_an_agent_was_told_of_is_handed_back_by_its_path(tools_url, tmp_path):
    adapter = models.load("mini-clip")
    head, weights = adapter.units()[0], dict(adapter.model.named_parameters())
    deltas = {where: torch.full_like(where.view(weights[where.parameter]), 0.01) for where in head.slices}
    Patch(deltas).bound_to(adapter.model).save(tmp_path / "mine.safetensors")
    with open(tmp_path / "mine.safetensors", "rb") as file:
        (place,) = httpx.post(tools_url.replace("mcp/", "upload"), files={"files": file}).json()
    for _ in range(2):
        handed = {"patch": {"path": place}}
        told = asked(tools_url, lambda agent, handed=handed: agent.call_tool("export", handed)).content[0].text
        place = told.partition("file=")[2]
    assert place.endswith(".safetensors") and Patch.load(place).parameters_edited == Patch(deltas).parameters_edited


def test_a_mistake_reaches_an_agent_in_words(tools_url):
    found = asked(tools_url, lambda agent: agent.call_tool("score", {"forget": "a cat"}))
    assert found.isError and "write axis:name, such as object:cat" in found.content[0].text
