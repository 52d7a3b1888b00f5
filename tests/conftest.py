"""Tiny models made in memory: a CLIP of two blocks a tower, a tokenizer that is a function, coloured squares.

And the real app in a process of its own, for tests that call it from outside.
"""

import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_clips import make_clip, make_task, preprocess, same_weights, tokenize, train, weights_of

from razor.adapters.clip import ClipAdapter
from razor.host import keep_memory
from razor.minicanvas import tasks
from razor.models import BUNDLED

keep_memory()  # as the app and the command line do


@pytest.fixture(scope="module")
def one_thread():
    """Networks this small spend their time on starting threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def small_world():
    """Half as many of most bundled pictures, where what is tested does not hang on their number."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tasks, "SIZES", {"gradient": (1, 4, 48), "search": (1, 3, 48), "test": (1, 4, 96)})
        patched.setattr(tasks, "_made", {})
        tasks._world.cache_clear()
        yield
    tasks._world.cache_clear()


@pytest.fixture(name="make_clip", scope="session")
def _make_clip():
    return make_clip


@pytest.fixture(name="make_task", scope="session")
def _make_task():
    return make_task


@pytest.fixture(name="tokenize", scope="session")
def _tokenize():
    return tokenize


@pytest.fixture(name="weights_of", scope="session")
def _weights_of():
    return weights_of


@pytest.fixture(name="same_weights", scope="session")
def _same_weights():
    return same_weights


@pytest.fixture
def clip():
    """A tiny CLIP with random weights."""
    return make_clip()


@pytest.fixture(scope="session")
def wrap():
    """model -> ClipAdapter."""
    return lambda model, name="tiny": ClipAdapter(model, preprocess, tokenize, name=name)


@pytest.fixture(scope="session")
def trained(wrap):
    """A tiny CLIP that tells six colours and two sides apart. Shared: leave it as found."""
    model = make_clip(seed=1)
    train(model)
    return wrap(model)


@pytest.fixture(scope="session")
def task():
    return make_task()


@pytest.fixture
def picture():
    """seed -> a random RGB picture, 16 x 12."""
    return lambda seed: Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8))


@pytest.fixture(scope="session")
def app_url():
    """The real app in a process of its own, as `make app` starts it."""
    assert (BUNDLED["mini-clip"] / "open_clip_model.safetensors").exists(), (
        "the bundled model is part of the repository"
    )
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "razor", "app", "--port", str(port)], cwd=Path(__file__).resolve().parents[1]
    )
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
