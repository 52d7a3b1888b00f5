"""What benchmarks share: which code and machine a number comes from, and peak memory."""

import hashlib
import json
import multiprocessing
import platform
import re
import resource
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from razor import jsonio, processes
from razor.errors import InputError


def machine() -> str:
    """The machine in a few words."""
    many = f", {processes.count()} processes" if processes.count() > 1 else ""
    return f"{platform.system()} {platform.machine()}, {multiprocessing.cpu_count()} cores{many}"


def chosen(parts: str, known: Sequence[str]) -> list[str]:
    """The parts of a bench named on the command line.

    Raises:
        InputError: one that there is not.
    """
    found = [part.strip() for part in parts.split(",")]
    if unknown := set(found) - set(known):
        raise InputError(f"No part named {min(unknown)!r}; pick any of {', '.join(known)}.")
    return found


def opened(path: Path, command: str) -> tuple[dict, Callable[[], None]]:
    """What an earlier run wrote, for this machine and command from now on, and how to write it again.

    Raises:
        InputError: it cannot be read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        results = json.loads(path.read_text("utf-8")) if path.exists() else {}
    except ValueError as error:
        raise InputError(f"{path} holds no results to go on from ({error}); name another file.") from error
    results = processes.agreed(results) | {"machine": machine(), "command": command}
    return results, lambda: jsonio.write(path, results) if processes.first() else None


def maker(results: dict, made_by: Mapping) -> str:
    """A short name, noted among the results, for the weights, settings and code that rows are made by."""
    name = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:8]
    results.setdefault("made_by", {})[name] = dict(made_by)
    return name


def due(rows: Mapping[str, Mapping], name: str, by: str) -> bool:
    """Whether this row is still to be made: there is none, or other weights, settings or code made it."""
    return rows.get(name, {}).get("by") != by


def mixed(rows: Iterable[Mapping]) -> list[str]:
    """For below a table: what to know where its rows were not all made by the same; else nothing."""
    makers = Counter(row.get("by", "an unknown one") for row in rows)
    if len(makers) < 2:
        return []
    counts = ", ".join(f"{count} by {name}" for name, count in makers.most_common())
    return ["", f"Rows were made by several versions ({counts}); the same command makes again those of an older one."]


def code_hash(*more: str) -> str:
    """A hash of the method's own source, so that rows of two versions can be told apart.

    Args:
        more: folders of razor/ that count as well.
    """
    package = Path(__file__).parent.parent
    files = sorted(file for folder in (".", "adapters", "minicanvas", *more) for file in package.glob(f"{folder}/*.py"))
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16]


def reset_peak() -> float:
    """Start counting the peak anew (Linux); returns the resident memory now, MiB."""
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        return 0.0
    clear.write_text("5")
    return peak_mib()


def peak_mib() -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1024
