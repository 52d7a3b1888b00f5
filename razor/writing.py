"""Files and folders that are written whole or not at all, and places that are found wanting before any work."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from safetensors import SafetensorError

from razor.errors import InputError


class WriteError(InputError, OSError):
    """A file that could not be written: the disk is full, or the place may not be written."""


@contextmanager
def whole(*paths: Path, named: str = "", needed: int = 0) -> Iterator[list[Path]]:
    """Places beside `paths` to write files or folders to. They become `paths` at the end of the block, or go.

    Folders on the way are made. Everything is flushed to the disk before it takes its place; when that fails, or the
    block does, nothing is left behind and what was there before is there still. A link, a pipe or a device is written
    as it is: nothing may take its place.

    Args:
        named: what an error calls them; unless given the path, of several their folder.
        needed: bytes that will be written.

    Raises:
        WriteError: the disk is full, or a place cannot be written.
    """
    named = named or str(paths[0] if len(paths) == 1 else paths[0].parent)
    if needed:
        _check_free(paths[0], named, needed)
    parts = {p: p if _stays(p) else p.with_name(f".{p.name}.{uuid4().hex[:8]}.part") for p in paths}
    missing = [folder for path in paths for folder in path.parents if not folder.exists()]
    try:
        modes = {part: _mode_of_new(part) for path, part in parts.items() if part != path}
        yield [*parts.values()]
        for part, mode in modes.items():
            _flush(part, mode)
        for path, part in parts.items():
            if part != path:
                _rename(part, path)
    except (OSError, SafetensorError) as error:
        within = error.__cause__ if isinstance(error, WriteError) else None  # of a file written inside the block
        raise _cannot_write(named, within or error) from error
    finally:
        for part in {*parts.values()} - {*parts}:
            remove(part)
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()  # only what is empty goes


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


def remove(path: Path) -> None:
    """Remove a file or folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    elif path.is_symlink() or path.exists():
        path.unlink()


def _stays(path: Path) -> bool:
    return path.is_symlink() or (path.exists() and not path.is_file() and not path.is_dir())


def _check_free(path: Path, named: str, needed: int) -> None:
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if needed > (free := shutil.disk_usage(folder).free):
        raise WriteError(
            f"Cannot write {named}: {needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free. Make room, or "
            "choose another disk."
        )


def _mode_of_new(part: Path) -> int:
    """Who may read a new file there, folders made on the way: safetensors lets nobody else read what it writes."""
    part.parent.mkdir(parents=True, exist_ok=True)
    part.touch()
    mode = part.stat().st_mode & 0o777
    part.unlink()
    return mode


def _flush(part: Path, mode: int) -> None:
    for path in (part, *part.rglob("*")):
        if path.is_file():
            path.chmod(mode)
            with path.open("rb+") as file:
                os.fsync(file.fileno())


def _rename(part: Path, path: Path) -> None:
    """Put the part in its place; a folder that is there goes only once the new one stands."""
    if not part.is_dir():
        os.replace(part, path)
    elif not path.exists():
        os.rename(part, path)
    else:
        before = part.with_suffix(".old")
        os.rename(path, before)
        try:
            os.rename(part, path)
        except BaseException:
            os.rename(before, path)
            raise
        remove(before)


def _cannot_write(path: Path | str, error: Exception) -> WriteError:
    """The sentence for an error of the system, or of safetensors, which tells its number in words alone."""
    said = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    if isinstance(error, FileExistsError):  # where a folder was to be made
        said = f"{Path(error.filename).name} is no folder"
    number = getattr(error, "errno", None)
    if found := re.search(r"\(os error (\d+)\)", said):
        number = int(found[1])
        said = os.strerror(number)
    full = number in (errno.ENOSPC, errno.EDQUOT)
    advice = "Make room, or choose another disk." if full else "Choose a place that may be written."
    return WriteError(f"Cannot write {path}: {said}. {advice}")
