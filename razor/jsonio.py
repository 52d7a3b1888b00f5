"""JSON files that any reader accepts: NaN and infinity become null."""

import json
import math
from pathlib import Path

from razor.errors import InputError
from razor.writing import write_text

MAX_BYTES = 8_000_000  # of a file that is read


def write(path: Path, value: object) -> None:
    """Write a value as UTF-8 JSON, whole or not at all. Raises WriteError where it cannot."""
    write_text(path, text(value))


def text(value: object) -> str:
    """Indented JSON with a final newline."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n"


def read(path: Path) -> dict:
    """A JSON object from a file.

    Raises:
        InputError: there is none, it is no JSON object, or it is too large to be one of ours.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path} is larger than {MAX_BYTES // 1_000_000} MB, which none of our files is.")
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}).") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no JSON object.")
    return found


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
