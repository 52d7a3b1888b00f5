"""What a Space, a container and a fresh environment are told agrees with the code."""

import re
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
HEAD = yaml.safe_load(README.split("---\n")[1])
REQUIRED = {
    found.name: found.specifier
    for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
    for found in [Requirement(line)]
}
INSIDE = (
    "gradio", "diffusers", "transformers", "open_clip_torch", "plotly", "captum", "safetensors", "accelerate",
)  # fmt: skip


@pytest.mark.parametrize("name", REQUIRED)
def test_what_is_installed_is_what_is_required(name):
    assert REQUIRED[name].contains(version(name))


@pytest.mark.parametrize("name", INSIDE)
def test_a_package_whose_insides_are_relied_on_is_held_at_a_minor_version(name):
    assert re.fullmatch(r"==\d+\.\d+\.\*", str(REQUIRED[name]))


def test_the_head_of_the_readme_starts_a_space():
    assert HEAD["sdk"] == "gradio" and (ROOT / HEAD["app_file"]).is_file()
    assert REQUIRED["gradio"].contains(HEAD["sdk_version"])
    assert re.fullmatch(r"3\.1[1-9]", HEAD["python_version"])
    assert HEAD["title"] and len(HEAD["short_description"]) <= 60


def test_a_space_is_sent_all_that_the_page_needs_and_nothing_of_ones_own():
    command = README[README.index("hf upload") :].split("```")[0]
    patterns = re.findall(r'--include "?([^"\s]+)"?', command)
    sent = lambda path: any(fnmatch(path, pattern) for pattern in patterns)  # noqa: E731
    needed = [p for folder in ("razor", "components", "assets") for p in (ROOT / folder).rglob("*") if p.is_file()]
    assert all(sent(str(path.relative_to(ROOT))) for path in [*needed, ROOT / HEAD["app_file"]])
    assert sent("README.md") and sent("requirements.txt")
    assert not any(map(sent, ("runs/neon/patch.safetensors", "my_dog/1.png", "tests/conftest.py", ".git/config")))
