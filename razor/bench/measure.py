"""What benchmarks share: which code and machine a number comes from, and peak memory."""

import ast
import hashlib
import io
import json
import multiprocessing
import platform
import re
import resource
import tokenize
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from razor import jsonio, processes
from razor.device import default_device
from razor.errors import InputError
from razor.minicanvas.dataset import Target, parse_target, targets

PACKAGE = Path(__file__).parent.parent
METHOD = ("growth", "minicanvas.tasks")  # these and what they import
ADAPTERS = {
    "clip": ("adapters.clip",),
    "diffusion": ("adapters.diffusion", "adapters.denoising"),
    "vlm": ("adapters.vlm", "adapters.answering", "adapters.interview"),
}
# What is imported on the way and changes no result: files and recipes, weights that rows name by their fingerprint,
# wording, and the sharing of work.
APART = frozenset({
    "bench.measure", "device", "errors", "history", "jsonio", "models", "modelspec", "picture_files", "processes",
    "progress", "recipe", "recipe_kinds", "saved", "sharing", "single_file", "sources", "telling", "writing",
})  # fmt: skip


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


def called(bench: str, targets: str, parts: str) -> str:
    """The command that makes these results."""
    return " ".join(["python -m razor bench", bench, *(("--targets", targets) if targets else ()), "--parts", parts])


def wanted(names: str) -> list[Target]:
    """Targets named on the command line; every one where there are none, or "all"."""
    return targets() if names in ("", "all") else [parse_target(name) for name in names.split(",") if name]


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


def signed(by: str, command: str) -> dict[str, str]:
    """What a row begins with: who makes it, on which machine, and by which command."""
    return {"by": by, "machine": machine(), "command": command}


def mixed(rows: Iterable[Mapping], which: str = "Rows") -> list[str]:
    """For below a table: what to know where its rows were not all made by the same or on the same; else nothing."""
    rows, lines = list(rows), []
    versions, machines = (Counter(row.get(key, "an unknown one") for row in rows) for key in ("by", "machine"))
    if len(versions) > 1:
        told = ", ".join(f"{count} by {name}" for name, count in versions.most_common())
        lines += [
            "",
            f"{which} were made by several versions ({told}); the same command makes again those of another one.",
        ]
    if len(machines) > 1:
        told = ", ".join(f"{count} on {name}" for name, count in machines.most_common())
        lines += ["", f"{which} were made on several machines ({told}): seconds compare within one alone."]
    return lines


def code_hash(family: str, *more: str) -> str:
    """A hash of the source a family's results depend on, so that rows of two versions can be told apart.

    It takes in METHOD, the family's adapter, `more`, and what of razor these import, down to APART; not what docstrings
    and comments say.

    Args:
        family: "clip", "diffusion" or "vlm".
        more: modules of razor that count as well, such as "bench.clip".
    """
    others = {module for name, own in ADAPTERS.items() if name != family for module in own}
    found: dict[str, str] = {}
    left = [*METHOD, *ADAPTERS[family], *more]
    while left:
        module = left.pop()
        if module in found or module in APART or module in others:
            continue
        found[module], imported = _read(_file(module).read_text("utf-8"))
        left += imported
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def _file(module: str) -> Path:
    place = PACKAGE.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


@cache
def _read(source: str) -> tuple[str, tuple[str, ...]]:
    """A file's code alone, and the modules of razor it names, these without "razor."."""
    tree = ast.parse(source)
    return _code_of(source, tree), _imported(tree)


def _imported(tree: ast.Module) -> tuple[str, ...]:
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    names = [f"{node.module}.{name.name}" for node in froms for name in node.names] + [node.module for node in froms]
    inside = [name.removeprefix("razor.") for name in names if name.startswith("razor.")]
    return tuple(name for name in inside if _file(name).exists())


def _code_of(source: str, tree: ast.Module) -> str:
    """Without docstrings, comments and empty lines."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            said = node.body[0]
            lines[said.lineno - 1 : said.end_lineno] = [""] * (said.end_lineno - said.lineno + 1)
    return "\n".join(line for line in lines if line)


def keep_size(results: dict, measured: Callable[[], dict]) -> None:
    """Take a model of real size in a process of its own, and keep what was measured by its "device"."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        found = pool.apply(measured)
    results.setdefault("size", {})[found["device"]] = found


class Held(TorchDispatchMode):
    """Counts what tensors made in its block hold at once, without what operations need inside.

    Args:
        networks: whose weights count from the beginning.
    """

    def __init__(self, *networks: nn.Module):
        super().__init__()
        self._alive: dict[int, int] = {}  # storage -> bytes
        self._now = self._most = 0
        for network in networks:
            for weight in (*network.parameters(), *network.buffers()):
                self._add(weight)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        for found in tree_leaves(made):
            if isinstance(found, Tensor):
                self._add(found)
        return made

    def peak(self) -> float:
        """Most bytes held at once since the last time, in MiB; counts anew from what is held now."""
        most, self._most = self._most, self._now
        return most / 2**20

    def apart(self, tensor: Tensor) -> Tensor:
        """The tensor, which counts no more: it stands for one in another memory."""
        place = tensor.untyped_storage()._cdata
        if place in self._alive:
            self._now -= self._alive[place]
            self._alive[place] = 0
        return tensor

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = storage._cdata, storage.nbytes()
        if place not in self._alive:
            self._alive[place] = size
            self._now += size
            self._most = max(self._most, self._now)
            weakref.finalize(storage, self._drop, place)

    def _drop(self, place: int) -> None:
        self._now -= self._alive.pop(place)


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
