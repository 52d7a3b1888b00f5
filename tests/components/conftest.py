"""The page on a tiny pipeline that draws, and visitors of it."""

from types import SimpleNamespace

import pytest
from tiny_drawing import CONFIG, Eyes, colour_task
from tiny_pipelines import tiny_sd

import app
from components.session import Sessions
from razor.adapters.diffusion import DiffusionAdapter
from razor.growth import Growth


@pytest.fixture(scope="session")
def adapter(tmp_path_factory):
    """A pipeline of random weights. Shared: leave it as found."""
    made = DiffusionAdapter(tiny_sd(tmp_path_factory.mktemp("sd")), name="tiny-sd", steps=3, guidance=2.0)
    made.pipeline.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="session")
def page(adapter):
    """The page's handlers, laid out once; every test has visitors of its own."""
    return app.build_demo(lambda name: adapter, model="tiny-sd")[1]


@pytest.fixture
def studio(page, adapter, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))
    monkeypatch.setattr(adapter, "judge", Eyes())
    monkeypatch.setattr(page, "sessions", Sessions(tmp_path / "saved"))
    return page


@pytest.fixture
def visitor(studio):
    """name -> a request of that visitor, whose session has a tiny model and task."""

    def enter(name, task=None):
        session = studio.sessions.get(name)
        session.model, session.task = "tiny-sd", task or colour_task()
        return SimpleNamespace(session_hash=name)

    return enter


@pytest.fixture
def edited(studio, visitor, adapter):
    """The same, with a unit put in by hand."""

    def enter(name):
        request = visitor(name)
        session = studio.sessions.get(name)
        session.growth = Growth(adapter, session.task, CONFIG)
        session.growth.scores()
        session.growth.act("in", [session.growth.units[0].name])
        return request

    return enter
