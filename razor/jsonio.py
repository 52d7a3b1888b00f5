"""JSON files that any reader accepts: NaN and infinity become null."""

import json
import math
from pathlib import Path


def write(path: Path, value: object) -> None:
    """Write indented UTF-8 JSON with a final newline."""
    path.write_text(json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n", "utf-8")


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
