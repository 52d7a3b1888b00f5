"""What a choice on the map costs in time and memory, on the bundled model: `python -m razor bench editing`.

One run forgets "cat" and then does by hand what a person does on the page: toggles, dials, other values of alpha,
and the views that explain the score. Seconds are wall time of the library; the page adds its own round trip, which
`pytest tests/browser -s` prints.
"""

import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from razor import jsonio, models
from razor.bench.measure import peak_mib, reset_peak
from razor.config import RazorConfig
from razor.minicanvas.dataset import parse_target
from razor.minicanvas.tasks import task

TOGGLES = 200
GOALS = {"toggle": 1.0, "memory": 8.0}  # seconds; MiB by which the second half of the toggles may grow the process
TOGGLED = {  # what is toggled -> units, each put in and taken out again
    "text heads": ("text.0.head.1", "text.3.head.0", "text.5.head.1"),
    "late image heads": ("image.5.head.0", "image.5.head.1", "image.4.head.0"),
    "first image heads": ("image.0.head.0", "image.0.head.1", "image.0.head.2"),
}


def main(out: Path | None) -> dict:
    """Measure, print, and write the results."""
    results = measure() | {
        "command": "python -m razor bench editing",
        "machine": f"{platform.system()} {platform.machine()}, {multiprocessing.cpu_count()} cores",
    }
    path = out or models.ASSETS / "results" / "editing.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    jsonio.write(path, results)
    print(report(results))
    return results


def measure() -> dict:
    """All numbers, from one growth."""
    from razor.growth import Growth

    growth = Growth(models.load("mini-clip"), task(parse_target("object:cat")), RazorConfig())
    agreement, alone_seconds = _agreement(growth)
    for _ in growth.run():
        pass
    growth.scores()
    toggles = {what: _toggles(growth, units) for what, units in TOGGLED.items()}
    return {
        "toggle_seconds": toggles,
        "growth_mib": _memory(growth),
        "rescore_24_layers_of_17_ms": _arithmetic(growth),
        "views": _views(growth) | {"edit 72 units alone": alone_seconds},
        "agreement": agreement,
    }


def _toggles(growth, units) -> dict[str, float]:
    """Seconds from a unit being put in or taken out to the new search metrics, which are not remembered."""
    seconds = []
    for name in units:
        for action in ("in", "out"):
            growth._measured.clear()
            seconds.append(_seconds(lambda name=name, action=action: (growth.act(action, [name]), growth.now)))
    return {"median": statistics.median(seconds), "worst": max(seconds)}


def _memory(growth) -> float:
    """MiB by which the second half of 200 toggles of one unit after another raises the peak."""
    names = [u.name for u in growth.units if u.tower == "text"]

    def toggle(count: int) -> None:
        for i in range(count):
            name = names[i % len(names)]
            growth.act("out" if name in growth.edit_set.members else "in", [name])
            growth.now  # noqa: B018

    toggle(TOGGLES // 2)
    before = reset_peak()
    toggle(TOGGLES // 2)
    return peak_mib() - before


def _arithmetic(growth) -> float:
    """Milliseconds to score 24 layers of 17 units at another alpha."""
    from razor.scoring import score

    stats = (growth.shown_stats() * 6)[: 24 * 17]
    return 1000 * _seconds(lambda: score(stats, alpha=0.5))


def _views(growth) -> dict[str, float]:
    """Seconds of each view that explains the score."""
    from razor.attribution import explain_head, head_gates
    from razor.drift import drift
    from razor.trust import bootstrap

    adapter, bench, patch = growth.adapter, growth.bench, growth.scored_patch
    unit = growth.every["image.5.head.3"]
    return {
        "resample, 8 draws": _seconds(lambda: bootstrap(adapter, bench, growth.units, patch)),
        "attribution, integrated gradients": _seconds(lambda: head_gates(adapter, bench, growth.units)),
        "attribution, ablation": _seconds(lambda: head_gates(adapter, bench, growth.units, method="ablation")),
        "explain a head": _seconds(lambda: explain_head(adapter, bench, unit)),
        "what moved": _seconds(lambda: drift(adapter, bench, growth.patch)),
    }


def _agreement(growth) -> tuple[dict, float]:
    """Rank correlation of each score with what editing every unit alone does, and how long that took."""
    from razor.trust import agreement, alone, choices

    started = time.perf_counter()
    stats = growth.stats()
    effects = list(alone(growth.adapter, growth.bench, growth.units, growth.trial_of))
    found = agreement(choices(stats, alpha=growth.config.alpha), effects)
    return {name: vars(a.value) for name, a in found.items()}, time.perf_counter() - started


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def report(results: dict) -> str:
    """The results as markdown, the goals beside them."""
    lines = [
        f"| toggle of | median s | worst s | goal <= {GOALS['toggle']:g} s |",
        "|---|---|---|---|",
    ]
    for what, found in results["toggle_seconds"].items():
        met = "met" if found["worst"] <= GOALS["toggle"] else "missed"
        lines.append(f"| {what} | {found['median']:.2f} | {found['worst']:.2f} | {met} |")
    ranks = sorted(results["agreement"].items(), key=lambda entry: -entry[1]["value"])
    views = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in results["views"].items())
    return "\n".join(
        [
            *lines,
            "",
            f"The second hundred of {TOGGLES} toggles raises peak memory by {results['growth_mib']:.1f} MiB "
            f"(goal <= {GOALS['memory']:g}). Another alpha over 24 x 17 units: "
            f"{results['rescore_24_layers_of_17_ms']:.1f} ms.",
            "",
            f"Views: {views}.",
            "",
            "Rank correlation with forget gain per retain cost of editing each unit alone (95 % interval): "
            + ", ".join(f"{n} {c['value']:+.2f} [{c['low']:+.2f}, {c['high']:+.2f}]" for n, c in ranks)
            + ".",
        ]
    )
