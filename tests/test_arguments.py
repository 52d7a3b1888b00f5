"""--help teaches the command line: every argument is told with its default, and every example is taken."""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from razor.arguments import VERSION, parser
from razor.config import RazorConfig

ROOT = Path(__file__).resolve().parent.parent
(SUBPARSERS,) = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
COMMANDS = SUBPARSERS.choices


def arguments(command: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in command._actions if not isinstance(action, argparse._HelpAction)]


def told(command: str, name: str) -> str:
    (action,) = (action for action in arguments(COMMANDS[command]) if action.dest == name)
    return action.help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_is_told_with_its_default(name):
    for action in arguments(COMMANDS[name]):
        assert action.help, f"{action.dest} of {name}"
        may_be_left_out = action.option_strings and not action.required
        if may_be_left_out and not isinstance(action, argparse._StoreTrueAction):
            assert "default" in action.help, f"{action.dest} of {name}"
            if action.default and name != "app":
                assert f"default {action.default})" in action.help


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_a_paragraph_and_examples_that_are_taken(name):
    command = COMMANDS[name]
    assert len(command.description.split()) > 12
    title, *examples = command.epilog.splitlines()
    assert title == "examples:" and 1 <= len(examples) <= 3
    for example in examples:
        words = shlex.split(example)
        assert words[:3] == ["python", "-m", "razor"] and parser().parse_args(words[3:]).command == name


@pytest.mark.parametrize("name", ["score", "unlearn", "evaluate", "compare"])
def test_the_defaults_told_are_those_of_the_settings(name):
    for setting, value in vars(RazorConfig()).items():
        if setting in ("retain_weight", "mismatch_weight", "rescore") or value is None:
            continue
        shown = value[0] if isinstance(value, tuple) else f"{value:g}"
        assert re.search(rf"default {re.escape(shown)}[;)]", told(name, setting))


def test_the_top_tells_order_files_and_exit_codes():
    said = " ".join(parser().format_help().split())
    for word in ("score", "unlearn", "evaluate", "report", "export"):
        said = said[said.index(f" {word} ", said.index("the usual order:") if word == "score" else 0) :]
    assert "replaced only with --replace" in said and "written anew each time" in said
    assert all(code in said for code in ("0 done", "2 wrong input", "130 stopped", "143"))


@pytest.mark.parametrize("name", ["evaluate", "carry", "export", "ask"])
def test_a_patch_may_be_taken_anyway(name):
    takes = {name for name, command in COMMANDS.items() if any(a.dest == "patch" for a in arguments(command))}
    assert name in takes and len(takes) == 4
    assert told(name, "anyway")


def test_the_version_is_the_projects_and_asking_loads_nothing_heavy():
    assert f'\nversion = "{VERSION}"\n' in (ROOT / "pyproject.toml").read_text("utf-8")
    look = (
        "import sys; from razor.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print({'torch', 'numpy', 'gradio', 'PIL'} & set(sys.modules))"
    )
    for asked, said in (("--version", f"RAZOR Studio {VERSION}"), ("--help", "the usual order:")):
        done = subprocess.run([sys.executable, "-c", look, asked], cwd=ROOT, capture_output=True, text=True, check=True)
        assert said in done.stdout and done.stdout.endswith("set()\n")
