"""The library stands alone: no page, and no name that leads nowhere."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import importlib, pkgutil, sys, razor
names = [m.name for m in pkgutil.walk_packages(razor.__path__, "razor.") if not m.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(len(names), [m for m in ("gradio", "app", "components") if m in sys.modules])
"""


def test_razor_never_imports_gradio_or_the_page():
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    count, _, pages = done.stdout.partition(" ")
    assert int(count) > 20 and pages.strip() == "[]"
