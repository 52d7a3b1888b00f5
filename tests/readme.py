"""What the README tells a reader to type."""

import re
from pathlib import Path

_README = Path(__file__).parent.parent / "README.md"
_SECTIONS = re.split(r"^(?=## )", _README.read_text("utf-8"), flags=re.MULTILINE)


def blocks(language: str, heading: str = "") -> list[str]:
    """The blocks in a language under one heading, or all of them."""
    text = "".join(section for section in _SECTIONS if section.startswith(f"## {heading}") or not heading)
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
