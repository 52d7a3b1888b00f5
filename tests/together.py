"""One job of each family on tiny models, in as many processes as a launcher starts; the numbers go into a file each.

torchrun --nproc_per_node 2 tests/together.py FOLDER
"""

import json
import os
import sys
from pathlib import Path

import tiny_adapters
import tiny_clips
import tiny_vlms
import torch
from torch import nn

from razor import processes
from razor.adapters.clip import ClipAdapter
from razor.adapters.vlm import VlmAdapter
from razor.config import RazorConfig
from razor.gradients import gradient_of
from razor.growth import Growth
from razor.patches import Patch
from razor.step import evaluate


def adapters():
    """Family -> a tiny model and its task."""
    torch.manual_seed(0)
    squares = tiny_clips.make_task(each=2)
    clip = ClipAdapter(tiny_clips.make_clip(), tiny_clips.preprocess, tiny_clips.tokenize, name="clip")
    yield "clip", clip, squares
    for kind in ("llava", "qwen2_vl"):
        yield kind, VlmAdapter(*tiny_vlms.tiny(kind), name=kind), squares
    yield "sd", tiny_adapters.shared("sd"), tiny_adapters.make_task()


def numbers(adapter, task) -> dict[str, list[float]]:
    """What scoring, a step of either tower and both evaluations come to."""
    growth = Growth(adapter, task, RazorConfig(batch=6, inner_steps=2, rounds=1))
    found = {"phi": [s.phi for s in growth.scores()], "norms": [s.retain_norm for s in growth.stats()]}
    for tower in adapter.towers:
        units = [u for u in growth.units if u.tower == tower]
        terms = growth.bench.step_terms(1, (tower,))
        for side in ("forget", "keep"):
            value, grads = gradient_of(adapter.model, units, terms[side], side)
            found[f"{tower} {side}"] = [value, *(part.float().norm().item() for parts in grads for part in parts)]
    done = growth.next_round()
    found["walk"] = [value for t in done.trials for value in (t.forget, t.retain, t.cost)]
    sides = [evaluate(adapter, growth.bench, patch, "test").to_json(None) for patch in (Patch(), growth.patch)]
    found["test"] = [m["value"] for side in sides for m in side.values() if isinstance(m, dict) and "value" in m]
    return found


class Branches(nn.Module):
    """A weight that rows below 2 reach, which only the first of two processes has; the others have no graph at all."""

    def __init__(self):
        super().__init__()
        self.some = nn.Parameter(torch.ones(2))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        plain = rows[:, None].expand(-1, 2)
        return torch.where((rows < 2)[:, None], plain + self.some, plain) if (rows < 2).any() else plain


def branches() -> dict[str, list[float]]:
    """Gradients where the processes' graphs differ, and of fewer rows than processes."""
    found = {}
    for n in (5, 1):
        model = Branches()
        loss = processes.share(torch.arange(n).float(), model).square().sum() + 3 * model.some.sum()
        (loss / processes.count()).backward()
        found[f"{n} rows"] = processes.summed(model.some.grad).tolist()
    words = [f"word {i}" for i in range(5)]
    found["words"] = [
        float(processes.share_list(words, lambda mine: [w.upper() for w in mine]) == [w.upper() for w in words])
    ]
    return found


def everything() -> dict[str, dict[str, list[float]]]:
    return {name: numbers(adapter, task) for name, adapter, task in adapters()} | {"branches": branches()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    processes.join()
    assert processes.count() == int(os.environ["WORLD_SIZE"])
    Path(sys.argv[1], f"{os.environ['RANK']}.json").write_text(json.dumps(everything()))
    processes.leave()
