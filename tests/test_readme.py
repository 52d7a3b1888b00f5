"""The README's commands and Python are ones this version takes, and use nothing that nobody has made before them."""

import contextlib
import io
import shlex
from pathlib import Path

import pytest
import torch
from readme import blocks

from razor import export, models
from razor.arguments import parser
from razor.patches import Patch, fingerprint

ROOT = Path(__file__).parent.parent
LINES = [line for block in blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
COMMANDS = [line.split("-m razor ", 1)[1] for line in LINES if "-m razor " in line]


def words(command: str) -> list[str]:
    return shlex.split(command, comments=True)


# ---------------------------------------------------------------- commands


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_taken(command):
    assert parser().parse_args(words(command)).command


def test_a_run_is_made_before_it_is_used_and_made_once():
    made = set()
    for command in COMMANDS:
        given = vars(parser().parse_args(words(command)))
        out = str(given.get("out"))
        used = {word.split("/")[1] for word in words(command) if word.startswith("runs/") and word != out}
        assert used <= {Path(place).name for place in made}, command
        if out.startswith("runs/"):
            assert out not in made, command
            made.add(out)


# ---------------------------------------------------------------- Python


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A reader in a folder of their own beside the repository's assets, typing block after block."""
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    monkeypatch.chdir(tmp_path)
    typed, said = {}, io.StringIO()

    def types(block):
        with contextlib.redirect_stdout(said):
            exec(compile(block, "README.md", "exec"), typed)
        return typed, said.getvalue()

    return types


def small_edit(adapter, tower):
    """A patch of one head, as a run would have left it."""
    head = next(unit for unit in adapter.units() if unit.tower == tower and unit.kind == "head")
    weights = dict(adapter.model.named_parameters())
    deltas = {where: torch.full_like(where.view(weights[where.parameter]), 0.01).float() for where in head.slices}
    return Patch(deltas).bound_to(adapter.model)


def same(loaded, network, adapter, patch):
    """What was loaded has, bit for bit, the weights of the edited network."""
    with patch.applied(adapter.model):
        edited = network.state_dict()
        return all(torch.equal(tensor, edited[name]) for name, tensor in loaded.state_dict().items())


def test_every_python_block_is_tried():
    """Those on other programs and on Python are below; the one that calls the page is in test_client.py."""
    tried = {"Taking it away": 2, "From another program": 1, "From Python": 4}
    assert {heading: len(blocks("python", heading)) for heading in tried} == tried
    assert sum(tried.values()) == len(blocks("python"))


def test_what_was_exported_is_loaded_by_diffusers_as_it_says(reader):
    pytest.importorskip("peft")
    adapter = models.load("mini-sd")
    patch = small_edit(adapter, "text")
    export.write_lora(adapter, patch, Path("neon.safetensors"))
    export.write_full(adapter, patch, Path("neon-whole.safetensors"), single_file=True)
    typed, _ = reader(blocks("python", "Taking it away")[0])
    assert typed["pipeline"].get_list_adapters()
    assert same(typed["whole"].text_encoder, adapter.pipeline.text_encoder, adapter, patch)


def test_what_was_exported_is_loaded_by_open_clip_as_it_says(reader):
    adapter = models.load("mini-clip")
    patch = small_edit(adapter, "image")
    export.write_full(adapter, patch, Path("clip-without-cat"))
    typed, _ = reader(blocks("python", "Taking it away")[1])
    assert typed["tokenizer"](["a photo of a cat"]).shape[0] == 1
    assert same(typed["model"], adapter.model, adapter, patch)


def test_the_library_runs_as_it_says_and_leaves_the_model_as_found(reader, small_world):
    adapter = models.load("mini-clip")
    before = fingerprint(adapter.model)
    for block in blocks("python", "From Python"):
        typed, said = reader(block)
    result, axis = typed["result"], typed["axis"]
    assert result.after.forget_accuracy.value < 0.1 < 0.9 < result.before.forget_accuracy.value
    assert (Path("runs") / "thermal" / "patch.safetensors").stat().st_size > 100_000
    assert typed["probabilities"].shape == (len(typed["images"]), len(axis.classes))
    taken = typed["probabilities"].argmax(1).tolist()
    assert taken.count(list(axis.classes).index("thermal")) < 0.1 * len(taken)
    assert typed["growth"].history.position.branch == "Without it" and "8 bits" in said and "4 bits" in said
    assert typed["rival"].after.retain_accuracy.value > 0.5
    assert fingerprint(adapter.model) == before
