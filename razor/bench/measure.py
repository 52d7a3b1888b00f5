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

import torch

from razor import jsonio, processes
from razor.device import default_device
from razor.errors import InputError


def machine() -> str:
    """The machine in a few words."""
    many = f", {processes.count()} processes" if processes.count() > 1 else ""
    place = f", {card()}" if card() else ""
    return f"{platform.system()} {platform.machine()}, {multiprocessing.cpu_count()} cores{place}{many}"


def card() -> str | None:
    """The name of the CUDA device that a bench runs on; None where it runs on the CPU."""
    return torch.cuda.get_device_name() if default_device() == "cuda" else None


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


def signed(by: str) -> dict[str, str]:
    """What a row begins with: who makes it, and on which machine."""
    return {"by": by, "machine": machine()}


def mixed(rows: Iterable[Mapping]) -> list[str]:
    """For below a table: what to know where its rows were not all made by the same or on the same; else nothing."""
    rows, lines = list(rows), []
    versions, machines = (Counter(row.get(key, "an unknown one") for row in rows) for key in ("by", "machine"))
    if len(versions) > 1:
        told = ", ".join(f"{count} by {name}" for name, count in versions.most_common())
        lines += [
            "",
            f"Rows were made by several versions ({told}); the same command makes again those of another one.",
        ]
    if len(machines) > 1:
        told = ", ".join(f"{count} on {name}" for name, count in machines.most_common())
        lines += ["", f"Rows were made on several machines ({told}): seconds compare within one alone."]
    return lines


def code_hash(*more: str) -> str:
    """A hash of the method's own source, so that rows of two versions can be told apart.

    Args:
        more: folders of razor/ that count as well.
    """
    package = Path(__file__).parent.parent
    files = sorted(file for folder in (".", "adapters", "minicanvas", *more) for file in package.glob(f"{folder}/*.py"))
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16]


def keep_size(results: dict, measured: Callable[[], dict]) -> None:
    """Take a model of real size in a process of its own, and keep what was measured by its "device"."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        found = pool.apply(measured)
    results.setdefault("size", {})[found["device"]] = found


def reset_peak() -> float:
    """Start counting the peak anew, on a CPU under Linux alone; returns the memory held now as `peak_mib` does."""
    if card():
        torch.cuda.reset_peak_memory_stats()
        return peak_mib()
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        return 0.0
    clear.write_text("5")
    return peak_mib()


def peak_mib() -> float:
    """Most memory held at once since `reset_peak`, MiB: on the card where there is one, else by the process."""
    if card():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1024
