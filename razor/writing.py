"""Files that are written whole or not at all, and places that are found wanting before any work."""

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from safetensors import SafetensorError

from razor.errors import InputError


class WriteError(InputError, OSError):
    """A file that could not be written: the disk is full, or the place may not be written."""


@contextmanager
def whole(*paths: Path) -> Iterator[list[Path]]:
    """Places beside `paths` to write to. They become `paths` at the end of the block, or go if anything fails.

    A link, a pipe or a device is written as it is: nothing may take its place.

    Raises:
        WriteError: a file cannot be written.
    """
    parts = [path if _stays(path) else path.with_name(f".{path.name}.{uuid4().hex[:8]}.part") for path in paths]
    try:
        yield parts
        for part, path in zip(parts, paths, strict=True):
            if part != path:
                part.replace(path)
    except WriteError:
        raise  # of other files, written inside the block; it names them
    except (OSError, SafetensorError) as error:
        raise _cannot_write(paths[0] if len(paths) == 1 else paths[0].parent, error) from error
    finally:
        for part in {*parts} - {*paths}:
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all. Raises WriteError as `whole` does."""
    with whole(path) as (part,):
        part.write_text(text, "utf-8")


def check_place(path: Path) -> None:
    """Find out whether a file could be written, its folders included. Leaves nothing behind.

    Raises:
        WriteError: it could not.
    """
    try:
        if _stays(path) and path.exists():
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        folder = next(parent for parent in path.resolve().parents if parent.exists())
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError as error:
        raise _cannot_write(path, error) from error


def _stays(path: Path) -> bool:
    return path.is_symlink() or (path.exists() and not path.is_file())


def _cannot_write(path: Path, error: Exception) -> WriteError:
    """The sentence for an error of the system, or of safetensors, which tells its number in words alone."""
    said = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    number = getattr(error, "errno", None)
    if found := re.search(r"\(os error (\d+)\)", said):
        number = int(found[1])
        said = os.strerror(number)
    full = number in (errno.ENOSPC, errno.EDQUOT)
    advice = "Make room, or choose another disk." if full else "Choose a place that may be written."
    return WriteError(f"Cannot write {path}: {said}. {advice}")
