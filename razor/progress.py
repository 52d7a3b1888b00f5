"""On the terminal, how far a long piece of work is; in a file or another program, lines alone."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for the length of the block, moved by calling what it gives with how much is done, and of how much.

    It comes up with the first call, and starts again where the count does or was at its end. Nothing is drawn where
    stderr is no terminal, and by any process of several but the first.
    """
    shown: tqdm | None = None

    def tell(done: int, total: int) -> None:
        nonlocal shown
        if shown is None or done < shown.n or shown.n == shown.total:
            close()
            silent = None if _first() else True  # None: unless stderr is a terminal
            options = {"file": sys.stderr, "disable": silent, "leave": False, "bar_format": _FORM, "mininterval": 0}
            shown = tqdm(desc=label, total=total, initial=done, **options)
        shown.update(done - shown.n)

    def close() -> None:
        if shown is not None:
            shown.close()

    try:
        yield tell
    finally:
        close()


_FORM = "{desc}: {bar:24} {n_fmt} of {total_fmt}, {elapsed} so far"


def note(text: str) -> None:
    """A line for the person at the terminal, above any bar; results alone go to stdout."""
    if _first():
        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()


def _first() -> bool:
    """This is the only process, or the first that a launcher started."""
    return os.environ.get("RANK", "0") == "0"
