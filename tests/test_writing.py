"""What is written is whole or not there; a place that cannot be written is one sentence, told before any work."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn, ones

from razor import jsonio, models
from razor.cli import main
from razor.config import RazorConfig
from razor.export import Check
from razor.patches import Patch
from razor.run import FILES, unlearn
from razor.writing import WriteError, check_place, whole, write_text

FULL = "I/O error: No space left on device (os error 28)"


@pytest.fixture
def full_disk(monkeypatch):
    """Text is cut short after a few letters."""

    def cut(path, text, encoding=None):
        with path.open("w") as file:
            file.write(text[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", cut)


@pytest.fixture
def fail(capsys, monkeypatch):
    """Run a command that must fail before any model is loaded; returns the sentence it printed."""

    def run(*argv) -> str:
        with monkeypatch.context() as patched, pytest.raises(SystemExit) as stop:
            patched.setattr(models, "load", lambda *_, **__: pytest.fail("a model was loaded"))
            main([*map(str, argv)])
        assert stop.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return run


def test_text_replaces_what_was_there_and_leaves_no_part(tmp_path):
    for text in ("one", "two"):
        write_text(tmp_path / "a.txt", text)
        assert (tmp_path / "a.txt").read_text() == text and len([*tmp_path.iterdir()]) == 1


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path, full_disk):
    (tmp_path / "a.json").write_bytes(b"before")
    with pytest.raises(WriteError, match=r"Cannot write .*/a.json: No space left on device. Make room, or choose"):
        jsonio.write(tmp_path / "a.json", {"a": 1})
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_an_error_of_safetensors_is_told_in_the_words_of_the_system(tmp_path):
    with pytest.raises(OSError, match=r"Cannot write .*: No space left on device. Make room"), whole(tmp_path / "p"):
        raise SafetensorError(f"Error while serializing: {FULL} at path p")


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "b").write_text("before")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    check_place(tmp_path / "a")
    write_text(tmp_path / "a", "after")
    assert (tmp_path / "a").is_symlink() and (tmp_path / "b").read_text() == "after"
    write_text(Path("/dev/null"), "nothing")
    assert not Path("/dev/null").is_file()


def test_a_folder_is_whole_or_as_it_was_and_the_folders_on_the_way_go_with_it(tmp_path):
    out = tmp_path / "new" / "newer" / "model"
    for text in ("one", "two"):
        with pytest.raises(KeyboardInterrupt), whole(out) as (part,):
            part.mkdir()
            (part / "a.txt").write_text("half")
            raise KeyboardInterrupt
        assert text == "two" or not [*tmp_path.iterdir()]
        with whole(out) as (part,):
            part.mkdir()
            write_text(part / "inside" / "a.txt", text)
        assert (out / "inside" / "a.txt").read_text() == text and [*out.parent.iterdir()] == [out]


def test_an_error_inside_is_told_of_what_was_to_be_written_by_the_name_given(tmp_path, full_disk):
    out = tmp_path / "model"
    with pytest.raises(WriteError, match=r"^Cannot write model: No space left on device\."), whole(out, named="model"):
        write_text(tmp_path / "part.json", "{}")
    with pytest.raises(WriteError, match=r"^Cannot write .*model: .* GB are needed and"), whole(out, needed=10**18):
        pytest.fail("there is no room for it")
    assert not [*tmp_path.iterdir()]


def test_tensors_may_be_read_by_whoever_may_read_other_new_files(tmp_path):
    (tmp_path / "other").touch()
    with whole(tmp_path / "a.safetensors") as (part,):
        save_file({"a": ones(1)}, part)
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_checking_a_place_leaves_nothing_behind(tmp_path):
    check_place(tmp_path / "new" / "newer" / "a.json")
    assert not [*tmp_path.iterdir()]
    with pytest.raises(WriteError, match=r"Choose a place that may be written\."):
        check_place(Path("/proc/new/a.json"))


def test_a_run_that_cannot_be_saved_leaves_the_run_that_was_there(trained, task, tmp_path, monkeypatch):
    run = unlearn(trained, task, RazorConfig(inner_steps=1, rounds=1))
    run.save(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert before.keys() == {*FILES}

    def fails(*_):
        raise SafetensorError(FULL)

    for place in ("razor.patches.save_file", "razor.saved.save_file"):
        with monkeypatch.context() as patched, pytest.raises(WriteError, match=r"Cannot write .*/run: No space left"):
            patched.setattr(place, fails)
            run.save(tmp_path / "run")
        assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


# ---------------------------------------------------------------- from the command line

SCORED = ["--model", "mini-clip", "--forget", "style:neon"]
CARRIED = ["carry", "--from", "mini-clip", "--to", "mini-vlm"]


@pytest.fixture
def edit(tmp_path):
    Patch().save(tmp_path / "p.safetensors")
    return ["--patch", tmp_path / "p.safetensors"]


def test_a_place_that_cannot_be_written_is_told_before_the_work(tmp_path, edit, fail):
    (tmp_path / "file").touch()
    bad = tmp_path / "file" / "a"
    export = ["export", "--model", "mini-clip", *edit, "--as", "patch"]
    for command in (
        ["unlearn", *SCORED, "--out", bad],
        ["unlearn", *SCORED, "--out", tmp_path / "run", "--json", bad],
        ["compare", *SCORED, "--out", bad],
        [*CARRIED, *edit, "--out", bad],
        [*export, "--out", bad],
        ["score", *SCORED, "--json", bad],
        ["diff", *edit[1:], *edit[1:], "--json", bad],
        ["ask", "--model", "mini-vlm", "--questions", "none.csv", "--csv", bad],
    ):
        said = fail(*command)
        assert said.startswith(f"razor: Cannot write {bad}") and said.endswith("Choose a place that may be written.")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "p.safetensors"}


def test_what_is_there_is_replaced_only_when_told_to(tmp_path, edit, fail):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    unlearns = ["unlearn", *SCORED, "--out", tmp_path / "run"]
    assert fail(*unlearns) == f"razor: {tmp_path / 'run'} holds a run; give another folder, or --replace."
    assert "rho is 0.0" in fail(*unlearns, "--replace", "--rho", "0")  # one step further
    out = tmp_path / "q.safetensors"
    out.write_text("before")
    for command in ([*CARRIED, *edit], ["export", "--model", "mini-clip", *edit, "--as", "patch"]):
        said = fail(*command, "--out", out)
        assert said == f"razor: {out} exists already; choose another name, or --replace."
    assert out.read_text() == "before"


def test_a_carried_patch_replaces_another_when_told_to(tmp_path, edit, clip, monkeypatch):
    out = tmp_path / "q.safetensors"
    out.write_text("before")
    carried = type("Carried", (), {"patch": Patch(), "notes": ()})
    monkeypatch.setattr(models, "load", lambda *_, **__: SimpleNamespace(name="tiny", model=nn.Module()))
    monkeypatch.setattr("razor.carry.carried", lambda *_: carried)
    main([*map(str, [*CARRIED, *edit, "--out", out, "--replace"])])
    assert not Patch.load(out).deltas and {path.name for path in tmp_path.iterdir()} == {out.name, edit[1].name}


@pytest.mark.parametrize("form, out", [("patch", "q.safetensors"), ("full", "whole")])
def test_an_export_that_is_not_the_edited_model_is_deleted(tmp_path, edit, form, out, capsys, monkeypatch):
    monkeypatch.setattr("razor.export.verify", lambda *_, **__: Check(False, 0.5, 1))
    with pytest.raises(SystemExit) as stop:
        main([*map(str, ["export", "--model", "mini-clip", *edit, "--as", form, "--out", tmp_path / out])])
    assert stop.value.code == 2 and f"{out} was deleted" in capsys.readouterr().err
    assert not (tmp_path / out).exists()
