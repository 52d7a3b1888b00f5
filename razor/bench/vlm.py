"""python -m razor bench vlm: forgetting on every bundled target, asked in several ways; a model of LLaVA-1.5-7B's size.

Results are written as they come, so that an interrupted run goes on where it stopped.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from razor import asking, models
from razor.answers import NAMED, normalised
from razor.asking import Answered
from razor.bench.measure import (
    called,
    card,
    chosen,
    code_hash,
    due,
    keep_size,
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
from razor.metrics import share
from razor.minicanvas import tasks
from razor.minicanvas.dataset import AXES, Target, parse_target
from razor.patches import Patch
from razor.units import find_units

OUT = models.ASSETS / "results" / "vlm.json"
PARTS = ("targets", "size")
GOALS = {"named": "<= 2", "lost": "<= 1"}  # in points
ASKED = 96  # test pictures asked about in other words, and as many with yes or no
OTHERWISE: dict[str, Callable[[Answered, int], bool]] = {  # group of asking.GROUPS -> the answer gives the concept
    "paraphrase": lambda answered, side: NAMED in answered.flags[side],
    "check": lambda answered, side: normalised(answered.said[side]).split()[:1] == ["yes"],
}
# LLaVA-1.5-7B: CLIP ViT-L/14-336 and a Llama of 7 B
VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
LANGUAGE = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "vocab_size": 32064}
CONTEXT = 4096
DEPTH = 24, 32  # blocks of the vision tower, layers of the language model
CUT_DEPTH = 4, 1  # what two cores run in minutes, at full width
LIKELY = 12.0  # logits; random weights leave every token of the vocabulary near -10 nats
PICTURES = 2  # to forget, and as many to retain, in each split

T = TypeVar("T")


def main(targets: str = "", out: Path | None = None, parts: str = ",".join(PARTS)) -> dict:
    """Run the parts asked for and return all results, old and new."""
    part_names, (results, save) = chosen(parts, PARTS), opened(out or OUT, called("vlm", targets, parts))
    if "targets" in part_names:
        run_targets(results, targets, save)
    if "size" in part_names:
        keep_size(results, real_size)
    save()
    print(report(results))
    return results


def run_targets(results: dict, names: str, save: Callable[[], None]) -> None:
    """Unlearn every target with the default settings; those this code made already are kept."""
    from razor.run import unlearn

    adapter, config = models.load("mini-vlm"), RazorConfig()
    rows = results.setdefault("targets", {})
    made_by = {"model": adapter.fingerprint(), "config": config.to_json(), "code": code_hash("vlm", "bench.vlm")}
    by = maker(results, made_by)
    for target in wanted(names):
        if not due(rows, str(target), by):
            continue
        task = tasks.task(target)
        run = unlearn(adapter, task, config)
        rows[str(target)] = {
            **signed(by, results["command"]),
            "before": run.before.to_json(),
            "after": run.after.to_json(),
            "otherwise": otherwise(adapter, task, run.patch),
            "rounds": len(run.rounds),
            "reached": run.reached,
            "units": run.recipe["edit_set"]["members"],
            "parameters_edited": run.patch.parameters_edited,
            # until the target is met, without the answers written to report
            "seconds": round(run.seconds["total"] - run.seconds["report"], 2),
        }
        save()
        print(_row_line(target, rows[str(target)]), flush=True)


def otherwise(adapter, task: Task, patch: Patch) -> dict[str, dict[str, dict]]:
    """How often answers about test pictures give the concept away when it is asked for otherwise, before and after.

    Returns:
        "paraphrase": it is named where the question is put in other words; "check": yes is said to its name.
    """
    asked = asking.suggested(adapter, task, tuple(OTHERWISE), ASKED)
    answered = asking.answer_both(adapter, task, asked, (Patch(), patch))
    found = {}
    for group, gives in OTHERWISE.items():
        mine = [a for a in answered if a.ask.group == group]
        sides = enumerate(("before", "after"))
        found[group] = {when: share([gives(a, side) for a in mine]).to_json() for side, when in sides}
    return found


def summary(rows: dict[str, dict]) -> dict[str, dict[str, float]]:
    """Means over the targets of each kind, in points (shares of 100); neutral KL in nats."""
    kinds = {axis: [row for name, row in rows.items() if name.startswith(axis + ":")] for axis in AXES}
    return {axis: _summary(mine) for axis, mine in kinds.items() if mine}


def _summary(rows: list[dict]) -> dict[str, float]:
    def mean(value: Callable[[dict], float]) -> float:
        return statistics.fmean(map(value, rows))

    named = {when: [100 * row[when]["forget_accuracy"]["value"] for row in rows] for when in ("before", "after")}
    given = {
        f"{group} {when}": mean(lambda row, group=group, when=when: 100 * row["otherwise"][group][when]["value"])
        for group in OTHERWISE
        for when in named
    }
    return {
        "targets": len(rows),
        "named before": statistics.fmean(named["before"]),
        "named": statistics.fmean(named["after"]),
        "worst named": max(named["after"]),
        **given,
        "lost": mean(lambda row: _drop(row, "retain_accuracy")),
        "worst lost": max(_drop(row, "retain_accuracy") for row in rows),
        "neighbours lost": mean(lambda row: _drop(row, "neighbor_accuracy")),
        "neutral KL": mean(lambda row: row["after"]["neutral_kl"]["value"]),
        "seconds": mean(lambda row: row["seconds"]),
        "parameters": mean(lambda row: row["parameters_edited"]),
    }


def _drop(row: dict, key: str) -> float:
    return 100 * (row["before"][key]["value"] - row["after"][key]["value"])


# ---------------------------------------------------------------- real size


def real_size() -> dict:
    """Units of a LLaVA-1.5-7B, and what scoring and one growth round cost at its width with random weights.

    At full depth on CUDA; on a CPU with few blocks and layers, which the result says.
    """
    from transformers import AutoModelForImageTextToText

    from razor.adapters.vlm import VlmAdapter
    from razor.growth import Growth

    torch.manual_seed(0)
    on = card()
    device, depth, dtype = ("cuda", DEPTH, torch.bfloat16) if on else ("cpu", CUT_DEPTH, torch.float32)
    processor = _processor()
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(_config(*depth, processor.tokenizer), dtype=dtype)
    adapter = VlmAdapter(model, processor, name="LLaVA-1.5-7B's size, random weights", batch=PICTURES)
    portraits = tasks.task(parse_target("identity:mara-voss"))
    kept = {"origin": {}}  # not the bundled model's world, but it will do to measure time
    small = {
        side: Split(*(getattr(getattr(portraits, side), name)[-PICTURES:] for name in ("gradient", "search", "test")))
        for side in ("forget", "retain")
    }
    task, config = replace(portraits, **small, **kept), RazorConfig(inner_steps=2, rounds=1)
    _teach(adapter, portraits)
    growth, encode = _measured(lambda: Growth(adapter, task, config))
    _, score = _measured(growth.scores)
    done, round_ = _measured(growth.next_round)
    numbers, steps = sum(p.numel() for p in model.parameters()), len(done.trials)
    depths = f"{depth[0]} of {DEPTH[0]} vision blocks and {depth[1]} of {DEPTH[1]} language layers"
    return {
        "whole": counted(_config(*DEPTH, processor.tokenizer)),
        "model": f"LLaVA-1.5-7B {'whole' if depth == DEPTH else f'cut to {depths}'}, {numbers / 1e6:,.0f} M parameters",
        "examples": f"{VISION['image_size']} px, {PICTURES} forget and {PICTURES} retain pictures; {steps} inner steps",
        "device": on or "cpu",
        "dtype": str(dtype).removeprefix("torch."),
        "units": len(growth.units),
        "encode": encode,
        "score": score,
        "round": round_,
    }


@torch.no_grad()
def _teach(adapter, task: Task) -> None:
    """Let random weights answer with the concept's name, so that there is something to forget; writes the output layer.

    Each of the name's tokens is given LIKELY by what stands before the output layer in its place.
    """
    head, seen, ask = adapter.model.lm_head, [], adapter.questions
    ids = adapter.answer_ids(ask.answer(task.axis, task.concept))
    prompts = adapter.prompts([task.forget.gradient[0].image], [ask.ask(task.axis)], room=len(ids))
    handle = head.register_forward_pre_hook(lambda _module, args: seen.append(args[0][0].float()))
    adapter.logits(prompts, adapter.features(prompts), [ids])
    handle.remove()
    for number, state in zip(ids.tolist(), seen[0], strict=False):  # (tokens + 1, width): after the last comes the end
        head.weight[number] += (LIKELY * state / state.square().sum()).to(head.weight.dtype)


def _measured(work: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """What the work gives, its seconds, and the peak memory of the card, or on a CPU of the process, MiB."""
    reset_peak()
    started = time.perf_counter()
    found = work()
    seconds = time.perf_counter() - started
    peak = peak_mib()
    return found, {"seconds": round(seconds, 2), "peak_mib": round(peak)}


def counted(config) -> dict:
    """Numbers and units of a LLaVA of this configuration by tower, as VlmAdapter.units finds them, without weights."""
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    towers = {"image": r"model\.vision_tower\.", "projector": r"model\.multi_modal_projector\.", "language": ""}
    read = config.vision_config.num_hidden_layers + 1 + config.vision_feature_layer  # blocks the language model reads
    units = [u.tower for u in find_units(model, towers) if u.tower == "language" or u.layer < read]
    units += ["projector" for part in model.model.multi_modal_projector.modules() if isinstance(part, torch.nn.Linear)]
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "units": {tower: units.count(tower) for tower in towers},
    }


def _config(blocks: int, layers: int, tokenizer):
    """LLaVA-1.5-7B with so many blocks in its vision tower and layers in its language model."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    from razor.minicanvas.train_vlm import IMAGE

    ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    return LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION, num_hidden_layers=blocks),
        text_config=LlamaConfig(**LANGUAGE, **ids, num_hidden_layers=layers, max_position_embeddings=CONTEXT),
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def _processor():
    """LLaVA-1.5's way to read pictures; its words are mini-vlm's, a part of the vocabulary."""
    from transformers import CLIPImageProcessor, LlavaProcessor

    from razor.minicanvas.train_vlm import CHAT, build_tokenizer

    side, tokenizer = VISION["image_size"], build_tokenizer()
    tokenizer.model_max_length = CONTEXT
    return LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
        tokenizer,
        patch_size=VISION["patch_size"],
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )


# ---------------------------------------------------------------- the report


def report(results: dict) -> str:
    """The results as markdown, the goals beside them."""
    lines: list[str] = []
    if rows := results.get("targets"):
        lines += [*_table(rows), *mixed(rows.values())]
    sizes = list(results.get("size", {}).values())
    if sizes:
        whole = sizes[0]["whole"]
        units = whole["units"]
        lines += [
            "",
            f"LLaVA-1.5-7B has {whole['parameters'] / 1e9:.2f} B parameters and {sum(units.values()):,} units "
            f"({', '.join(f'{tower} {count:,}' for tower, count in units.items())}), counted without its weights.",
        ]
    for s in sizes:
        lines += [
            "",
            f"{s['model']}, random weights ({s['units']} units) on {s['device']} in {s['dtype']}, {s['examples']}: "
            + ", ".join(
                f"{name} {s[phase]['seconds']:.1f} s (peak {s[phase]['peak_mib']:,.0f} MiB)"
                for phase, name in (("encode", "encode"), ("score", "score"), ("round", "one growth round"))
            )
            + ".",
        ]
    return "\n".join(lines).strip()


def _table(rows: dict[str, dict]) -> list[str]:
    heads = ("kind (targets)", "named before", "named", "worst", "in other words", "yes to the name", "others lost",
             "worst", "neighbours lost", "neutral KL", "s to forget", "parameters edited")  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for axis, m in summary(rows).items():
        lines.append(
            f"| {axis} ({m['targets']}) | {m['named before']:.1f} | {m['named']:.1f} | {m['worst named']:.1f} | "
            f"{m['paraphrase before']:.1f} to {m['paraphrase after']:.1f} | "
            f"{m['check before']:.1f} to {m['check after']:.1f} | {m['lost']:.2f} | {m['worst lost']:.2f} | "
            f"{m['neighbours lost']:.2f} | {m['neutral KL']:.4f} | {m['seconds']:.1f} | {m['parameters']:,.0f} |"
        )
    return [*lines, f"| goal | | {GOALS['named']} | | | | {GOALS['lost']} | | | | | |"]


def _row_line(target: Target, row: dict) -> str:
    keys = {"named": "forget_accuracy", "other answers": "retain_accuracy"}
    said = {name: {when: row[when][key] for when in ("before", "after")} for name, key in keys.items()}
    cells = [
        f"{name} {sides['before']['value']:.1%} -> {sides['after']['value']:.1%}"
        for name, sides in (said | row["otherwise"]).items()
    ]
    return f"{target!s:26} {', '.join(cells)}, {row['rounds']} rounds, {row['seconds']} s"
