"""python -m razor bench diffusion: forgetting on every bundled target, drawn and judged; times; a real-size model.

Results are written as they come, so that an interrupted run goes on where it stopped.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import torch
from torch import Tensor

from razor import blueprints, metrics, models, pictures, words
from razor.bench.measure import (
    Held,
    called,
    card,
    chosen,
    code_hash,
    due,
    keep_size,
    machine,
    maker,
    mixed,
    opened,
    peak_mib,
    reset_peak,
    signed,
    wanted,
)
from razor.config import RazorConfig
from razor.examples import Split, Task
from razor.minicanvas import captions, tasks
from razor.minicanvas.dataset import AXES, Target, combinations, parse_target
from razor.picture_files import Album

OUT = models.ASSETS / "results" / "diffusion.json"
PARTS = ("targets", "words", "pairs", "story", "size", "held")
SIZE = "Stable Diffusion 1.5, 982 M parameters, random weights"
GOALS = {"UA": ">= 99", "IRA": ">= 97", "CRA": ">= 97", "distance": "<= 1.05"}
KEYS = {
    "UA": "unlearning_accuracy",
    "IRA": "in_domain_retain_accuracy",
    "CRA": "cross_domain_retain_accuracy",
}
CPU_SIDE = 256  # pixels, that a CPU is timed on in minutes
OTHER_SEED = 1  # the second set of pictures of the unedited model


def main(targets: str = "", out: Path | None = None, parts: str = ",".join(PARTS)) -> dict:
    """Run the parts asked for and return all results, old and new."""
    part_names, (results, save) = chosen(parts, PARTS), opened(out or OUT, called("diffusion", targets, parts))
    if kinds := [part for part in ("targets", "words") if part in part_names]:
        run_targets(results, kinds, targets, save)
    for part, measured in (("pairs", pairs), ("story", story), ("held", held)):
        if part in part_names:
            results[part] = measured() | {"machine": machine()}
    if "size" in part_names:
        keep_size(results, real_size)
    save()
    print(report(results))
    return results


def run_targets(results: dict, parts: Sequence[str], names: str, save: Callable[[], None]) -> None:
    """Unlearn every target with the default settings; those this code made already are kept.

    Args:
        parts: "targets" takes the bundled pictures, "words" the name alone; both draw the same pictures at the end,
            those of the unedited model once.
    """
    adapter, config = models.load("mini-sd"), RazorConfig()
    code = code_hash("diffusion", "bench.diffusion")
    by = maker(results, {"model": adapter.fingerprint(), "config": config.to_json(), "code": code})
    world = None
    for target in wanted(names):
        first = None
        for part in parts:
            rows = results.setdefault(part, {})
            if not due(rows, str(target), by):
                continue
            world = world or _world(adapter)
            row, first = _run(adapter, target, part, config, world, first)
            rows[str(target)] = signed(by, results["command"]) | row
            save()
            print(_row_line(target, rows[str(target)]), flush=True)


def _run(adapter, target: Target, part: str, config: RazorConfig, world, first):
    """One row, and the growth it is of.

    Args:
        first: a growth on the same target, whose pictures of the unedited model are taken over.
    """
    from razor.growth import Growth
    from razor.run import finish

    started = time.monotonic()
    task = tasks.task(target) if part == "targets" else words.bundled_task(adapter, target)
    growth = Growth(adapter, task, config)
    if first:
        growth.bench.take_originals(first.bench)
    for _ in growth.run():
        pass
    seconds = time.monotonic() - started
    run = finish(growth)
    row = {
        "before": run.before.to_json(),
        "after": run.after.to_json(),
        "distance": _distance(growth, world),
        "rounds": len(run.rounds),
        "reached": run.reached,
        "units": run.recipe["edit_set"]["members"],
        "parameters_edited": run.patch.parameters_edited,
        "seconds": round(seconds, 2),  # until the target is met, without the pictures drawn to report
    }
    return row, growth


def _world(adapter) -> list[tuple[dict[str, str], Tensor]]:
    """Every object in every style and every person as the unedited model draws them from another seed: features."""
    from razor.adapters.diffusion import seeds_for
    from razor.minicanvas import judge

    made = []
    for part in adapter.batches(combinations()):
        prompts = [captions.full_caption(labels) for labels in part]
        pictures = adapter.draw(prompts, seeds_for(prompts, OTHER_SEED))
        made += zip(part, judge.load().features(judge.to_pixels(pictures)), strict=True)
    return made


def _distance(growth, world) -> float:
    """Kernel distance of edited retained pictures from unedited ones of another seed, over that of unedited ones.

    The edited and the unedited pictures answer the same prompts from the same noise.
    """
    from razor.minicanvas import judge

    task, features = growth.task, judge.load().features
    other = torch.stack([f for labels, f in world if labels.get(task.axis) != task.concept])
    sets = {side: features(judge.to_pixels(growth.bench.pictures[side]["retain"])) for side in ("edited", "original")}
    distance = {side: metrics.kernel_distance(found, other) for side, found in sets.items()}
    return round(distance["edited"] / distance["original"], 4)


def pairs() -> dict:
    """Seconds for eight pairs at 20 steps."""
    adapter = models.load("mini-sd")
    prompts = [captions.full_caption(labels) for labels in combinations()[:: len(combinations()) // 8][:8]]
    adapter.draw(prompts[:1], [0], steps=2)
    started = time.perf_counter()
    for _ in range(2):
        adapter.draw(prompts, range(8), steps=20)
    return {"pairs": 8, "steps": 20, "seconds": round(time.perf_counter() - started, 2)}


def story() -> dict:
    """Seconds from a loaded mini-sd until a style is forgotten and shown in suggested pairs, as the page tells it."""
    from razor.growth import Growth

    adapter, target = models.load("mini-sd"), parse_target("style:neon")
    adapter.draw(["a photo of a fish"], [0], steps=2)
    started = time.perf_counter()
    task = tasks.task(target)
    growth = Growth(adapter, task, RazorConfig())
    for _ in growth.run():
        pass
    grown, settings = time.perf_counter(), pictures.DrawSettings.of(adapter)
    sides = [pictures.Side("original"), pictures.Side("edited", growth.patch)]
    jobs = pictures.pair_jobs([settings.spec(prompt) for prompt in pictures.suggested(task)], sides)
    with TemporaryDirectory() as place:
        pictures.Easel(adapter, Album(Path(place))).draw(jobs, judge=adapter.judge, axes=task.axes)
    done = time.perf_counter()
    return {
        "target": str(target),
        "reached": growth.reached,
        "forget_seconds": round(grown - started, 1),
        "seconds": round(done - started, 1),
    }


def real_size() -> dict:
    """Seconds and peak memory of scoring and one growth round on a randomly initialised Stable Diffusion 1.5."""
    from razor.growth import Growth

    on = card()
    adapter = stable_diffusion(on)
    if not on:
        adapter.side = CPU_SIDE
    alone = _drawing_peak(adapter)
    started = time.perf_counter()
    reset_peak()
    growth = Growth(adapter, _few(4), RazorConfig(inner_steps=2, rounds=1))
    made = time.perf_counter()
    growth.scores()
    scored = time.perf_counter()
    growth.next_round()
    done = time.perf_counter()
    return {
        "model": SIZE,
        "examples": f"{adapter.side} px, 4 forget and 4 retain pictures; 2 inner steps",
        "device": on or "cpu",
        "units": len(growth.units),
        "encode_seconds": made - started,
        "score_seconds": scored - made,
        "round_seconds": done - scored,
        "peak_mib": peak_mib(),
        "drawing_peak_mib": alone,
    }


def held() -> dict:
    """What tensors hold in each phase on a Stable Diffusion 1.5 of random weights at 512 px, counted on the CPU.

    In bfloat16, whose numbers are as large as those of float16 on a card and quicker on a CPU; that a float16
    autoencoder works in float32 is left out. What would wait in the computer's memory beside a card does not count. Two
    pictures a set do: of more, no more are held at once.
    """
    from razor.growth import Growth

    adapter = stable_diffusion(None, torch.bfloat16)
    tensors = Held(adapter.model, adapter.pipeline.vae)
    with tensors, mock.patch("razor.gradients.put_aside", tensors.apart):
        found = {"weights": tensors.peak()}
        adapter.draw(["a photo of a fish"], [0], steps=2)
        found["drawing one picture"] = tensors.peak()
        growth = Growth(adapter, _few(2), RazorConfig(inner_steps=2, rounds=1))
        found["points"] = tensors.peak()
        growth.scores()
        found["score"] = tensors.peak()
        growth.next_round()
        found["round"] = tensors.peak()
    kind = str(adapter.dtype).removeprefix("torch.")
    return {"model": SIZE, "side": adapter.side, "dtype": kind, "mib": {k: round(v) for k, v in found.items()}}


def _few(pictures: int) -> Task:
    """A task of few pictures: not the bundled model's world, but it will do to measure time and memory."""
    whole = tasks.task(parse_target("style:neon"))
    small = {
        side: Split(*(getattr(getattr(whole, side), split)[:pictures] for split in ("gradient", "search", "test")))
        for side in ("forget", "retain")
    }
    return replace(whole, **small, origin={})


def stable_diffusion(on: str | None, dtype: torch.dtype = torch.float32):
    """Stable Diffusion 1.5 of random weights.

    Args:
        on: the card's name, for float16 on it; None for the CPU.
        dtype: on the CPU.
    """
    import diffusers
    import transformers

    from razor.adapters.diffusion import DiffusionAdapter

    torch.manual_seed(0)
    place = {"device": "cuda", "dtype": torch.float16} if on else {"device": "cpu", "dtype": dtype}
    _, parts = blueprints.BLUEPRINTS["stable-diffusion-v1-5/stable-diffusion-v1-5"]
    made = {part: config for part, (_, _, config) in parts.items()}
    with torch.device(place["device"]):
        unet = diffusers.UNet2DConditionModel.from_config(made["unet"])
        text = transformers.CLIPTextModel(transformers.CLIPTextConfig(**made["text_encoder"]))
        vae = diffusers.AutoencoderKL.from_config(made["vae"])
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        unet=unet,
        tokenizer=blueprints.tokenizer(made["tokenizer"]),
        scheduler=diffusers.PNDMScheduler.from_config(made["scheduler"]),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).to(**place)
    return DiffusionAdapter(pipeline, name=SIZE, batch=4)


def _drawing_peak(adapter) -> float:
    """Most memory while the unedited pipeline draws one picture in eight steps, MiB."""
    reset_peak()
    adapter.draw(["a photo of a fish"], [0], steps=8)
    return peak_mib()


def summary(rows: dict[str, dict]) -> dict[str, dict[str, float]]:
    """Means over the targets of each kind, in points (shares of 100)."""
    table = {}
    for axis in AXES:
        mine = [row for name, row in rows.items() if name.startswith(axis + ":")]
        if mine:
            means = {
                f"{short} {when}": statistics.fmean(100 * row[when][key]["value"] for row in mine)
                for short, key in KEYS.items()
                for when in ("before", "after")
            }
            table[axis] = {
                "targets": len(mine),
                **means,
                "worst UA": min(100 * row["after"]["unlearning_accuracy"]["value"] for row in mine),
                "distance": statistics.fmean(row["distance"] for row in mine),
                "seconds": statistics.fmean(row["seconds"] for row in mine),
                "parameters": statistics.fmean(row["parameters_edited"] for row in mine),
            }
    return table


def report(results: dict) -> str:
    """The results as markdown, the goals beside them."""
    lines: list[str] = []
    titles = {"targets": "From pictures of the bundled world", "words": "From the name alone"}
    for part, title in titles.items():
        if rows := results.get(part):
            lines += ["", f"{title}:", "", *_table(rows), *mixed(rows.values())]
    if s := results.get("pairs"):
        lines += ["", f"{s['pairs']} before and after pairs at {s['steps']} steps: {s['seconds']:.1f} s (goal <= 10)."]
    if s := results.get("story"):
        lines += [
            "",
            f"Story: {s['target']} is forgotten in {s['forget_seconds']:.0f} s and shown in pairs after "
            f"{s['seconds']:.0f} s (goal <= 90).",
        ]
    for s in results.get("size", {}).values():
        alone = s.get("drawing_peak_mib")
        whole = sum(s[f"{phase}_seconds"] for phase in ("encode", "score", "round"))
        beside = f", {s['peak_mib'] / alone:.2f} x that of drawing one picture (goal on a card <= 1.3)" if alone else ""
        lines += [
            "",
            f"{s['model']} ({s['units']} units) on {s['device']}, {s['examples']}: points {s['encode_seconds']:.1f} s, "
            f"score {s['score_seconds']:.1f} s, one growth round {s['round_seconds']:.1f} s, "
            f"in all {whole:.1f} s (goal on a card <= 20); peak {s['peak_mib']:.0f} MiB{beside}.",
        ]
    if s := results.get("held"):
        most, drawing = max(s["mib"].values()), s["mib"]["drawing one picture"]
        told = ", ".join(f"{phase} {mib:,}" for phase, mib in s["mib"].items())
        lines += [
            "",
            f"What the tensors of {s['model']} hold at {s['side']} px in {s['dtype']}, in MiB: {told}; at most "
            f"{most / drawing:.2f} x what drawing one picture takes (goal on a card <= 1.3).",
        ]
    return "\n".join(lines).strip()


def _table(rows: dict[str, dict]) -> list[str]:
    heads = ("kind (targets)", "UA before", "UA", "worst UA", "IRA before", "IRA", "CRA before", "CRA", "distance",
             "s to forget", "parameters edited")  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for axis, m in summary(rows).items():
        lines.append(
            f"| {axis} ({m['targets']}) | {m['UA before']:.1f} | {m['UA after']:.1f} | {m['worst UA']:.1f} | "
            f"{m['IRA before']:.1f} | {m['IRA after']:.1f} | {m['CRA before']:.1f} | {m['CRA after']:.1f} | "
            f"{m['distance']:.2f} | {m['seconds']:.0f} | {m['parameters']:,.0f} |"
        )
    goal = f"| goal | | {GOALS['UA']} | | | {GOALS['IRA']} | | {GOALS['CRA']} | {GOALS['distance']} | | |"
    return [*lines, goal]


def _row_line(target: Target, row: dict) -> str:
    cells = [f"{short} {row['before'][k]['value']:.1%} -> {row['after'][k]['value']:.1%}" for short, k in KEYS.items()]
    return f"{target!s:26} {', '.join(cells)}, distance {row['distance']}, {row['rounds']} rounds, {row['seconds']} s"
