"""Bars are for a person at a terminal; a file gets lines alone."""

import io
import sys

from razor.progress import bar, note


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def at(monkeypatch, made):
    """stderr from here on; pytest puts its own there between a fixture and its test."""
    monkeypatch.setattr(sys, "stderr", made)
    return made


def test_a_bar_says_how_much_is_done_and_starts_again_where_the_count_does(monkeypatch):
    terminal = at(monkeypatch, Terminal())
    with bar("Drawing") as tell:
        assert terminal.getvalue() == ""  # nothing to say yet
        for done, total in ((0, 4), (4, 4), (1, 2)):
            tell(done, total)
    told = terminal.getvalue()
    assert "Drawing: " in told and all(count in told for count in ("0 of 4", "4 of 4", "1 of 2"))
    with bar("Drawing") as tell:
        tell(72, 72)
        before = len(terminal.getvalue())
        tell(72, 72)  # a second drawing, reported at its end too
        assert "72 of 72" in terminal.getvalue()[before:]


def test_lines_go_above_a_bar_and_the_bar_is_gone_at_the_end(monkeypatch):
    terminal = at(monkeypatch, Terminal())
    with bar("Rounds, at most") as tell:
        tell(0, 6)
        note("Round 1: done.")
    assert "Round 1: done.\n" in terminal.getvalue()
    assert terminal.getvalue().rpartition("\r")[2].strip() == ""


def test_files_and_further_processes_get_no_bar(monkeypatch):
    terminal = at(monkeypatch, Terminal())
    monkeypatch.setenv("RANK", "1")
    with bar("Drawing") as tell:
        tell(1, 2)
        note("A second voice.")
    assert terminal.getvalue() == ""
    monkeypatch.setenv("RANK", "0")
    file = at(monkeypatch, io.StringIO())
    with bar("Drawing") as tell:
        tell(1, 2)
        note("A line.")
    assert file.getvalue() == "A line.\n"
