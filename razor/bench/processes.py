"""python -m razor bench processes: how much sooner several processes are done than one, on mini-clip's image tower.

On a CPU every process has one thread, so that twice the processes have twice the cores.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch

from razor import jsonio, models, processes
from razor.bench.measure import machine
from razor.config import RazorConfig
from razor.errors import RazorError
from razor.minicanvas.dataset import parse_target
from razor.minicanvas.tasks import task

PHASES = {"encode": "examples read", "score": "every unit scored", "round": "one round of eight steps"}


def main(out: Path | None) -> dict:
    """Measure one process, then two, and on a machine of many cards as many; print, and write the results."""
    cards = torch.cuda.device_count()
    counts = [n for n in (1, 2, 4, 8) if n <= max(2, cards)]
    results = {
        "command": "python -m razor bench processes",
        "machine": machine(),
        "device": "cuda" if cards >= counts[-1] else "cpu",
        "seconds": {str(n): _launched(n, cards >= counts[-1]) for n in counts},
    }
    path = out or models.ASSETS / "results" / "processes.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    jsonio.write(path, results)
    print(report(results))
    return results


def _launched(number: int, on_cards: bool) -> dict[str, float]:
    """Seconds of each phase in this many processes."""
    env = os.environ | {"OMP_NUM_THREADS": "1"} | ({} if on_cards else {"CUDA_VISIBLE_DEVICES": ""})
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "seconds.json")
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(number)]
        done = subprocess.run(
            [sys.executable, *launcher, "-m", __name__, str(place)],
            env=env,
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        if not place.exists():
            raise RazorError(f"{number} processes came to no result: {done.stderr.strip().splitlines()[-1]}")
        return json.loads(place.read_text())


def _timed(place: Path) -> None:
    """What each process runs; the first writes the seconds."""
    from razor.growth import Growth

    processes.join()
    config = RazorConfig(towers=("image",), inner_steps=8, rounds=1)
    adapter, cat, stamps = models.load("mini-clip"), task(parse_target("object:cat")), [time.perf_counter()]
    growth = Growth(adapter, cat, config)
    for step in (lambda: None, growth.scores, growth.next_round):
        step()
        stamps.append(time.perf_counter())
    if processes.first():
        seconds = [later - earlier for earlier, later in pairwise(stamps)]
        jsonio.write(place, dict(zip(PHASES, seconds, strict=True)))
    processes.leave()


def report(results: dict) -> str:
    """The results as markdown: seconds, and how many times as fast as one process."""
    counts = list(results["seconds"])
    lines = [
        f"On {results['device']}, {results['machine']}:",
        "",
        f"| mini-clip, image tower | {' | '.join(f'processes: {n}' for n in counts)} |",
        "|" + "---|" * (1 + len(counts)),
    ]
    for phase, words in PHASES.items():
        alone = results["seconds"]["1"][phase]
        told = [f"{s[phase]:.1f} s ({alone / s[phase]:.2f} x)" for s in results["seconds"].values()]
        lines.append(f"| {words} | {' | '.join(told)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    _timed(Path(sys.argv[1]))
