"""Every example in a docstring of the library gives what it says, and the ways in each have one."""

import ast
import doctest
from importlib import import_module
from pathlib import Path

import pytest

from razor.config import RazorConfig
from razor.run import unlearn

ROOT = Path(__file__).parent.parent
WAYS_IN = (
    "razor.models.load",
    "razor.sources.resolve",
    "razor.run.unlearn",
    "razor.patches.applied",
    "razor.scoring.score",
    "razor.baselines.compare.run",
    "razor.robustness.attack",
)


def examples():
    """module.name -> docstring, of every function, class and module that shows how it is used."""
    found = {}
    for path in sorted((ROOT / "razor").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            takes_one = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            if takes_one and ">>>" in (said := ast.get_docstring(node) or ""):
                found[f"{module}.{getattr(node, 'name', '')}"] = said
    return found


EXAMPLES = examples()


@pytest.fixture(scope="module")
def given(trained, task, one_thread):
    """What an example may take as given: a model, a task, and the edit of the one for the other."""
    return {"adapter": trained, "task": task, "patch": unlearn(trained, task, RazorConfig(rounds=2)).patch}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_gives_what_it_says(name, given):
    module = import_module(name.rpartition(".")[0])
    read = doctest.DocTestParser().get_doctest(EXAMPLES[name], given | vars(module), name, module.__file__, 0)
    said = []
    done = doctest.DocTestRunner(verbose=False).run(read, out=said.append)
    assert done.attempted and not done.failed, "".join(said)


def test_the_ways_into_the_library_show_how_they_are_used():
    assert [name for name in WAYS_IN if name not in EXAMPLES] == []
