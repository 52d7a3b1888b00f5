"""The README's commands are ones this version takes, and none uses a run that no command before it makes."""

import re
import shlex
from pathlib import Path

import pytest

from razor.arguments import parser

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
COMMANDS = [line.split("-m razor ", 1)[1] for line in LINES if "-m razor " in line]


def words(command: str) -> list[str]:
    return shlex.split(command, comments=True)


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
