"""Pools of rendered pictures as training loops read them: drawn once, kept on disk, shifted a little when read."""

import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from razor.minicanvas.dataset import AXES, draw, pool

PIXELS = 64


class Pictures:
    """A pool of rendered pictures with their labels, as the training loop reads it."""

    def __init__(self, pixels: np.ndarray, labels: Sequence[Mapping[str, str]]):
        self.pixels, self.labels = pixels, labels  # (N, 64, 64, 3) uint8
        self.people = [i for i, known in enumerate(labels) if "identity" in known]
        self.things = [i for i, known in enumerate(labels) if "identity" not in known]

    @classmethod
    def rendered(cls, split: str, *, per_pair: int, per_person: int, work: Path, one_scene: bool = False) -> "Pictures":
        """Render on every core, or read what an earlier run left in `work`; `one_scene` as in `draw`."""
        work.mkdir(parents=True, exist_ok=True)
        jobs = list(pool(split, per_pair, per_person))
        path = work / f"{split}-{per_pair}-{per_person}{'-scenes' * one_scene}.npy"
        if not path.exists():
            with ProcessPoolExecutor() as workers:
                rows = list(workers.map(partial(_pixels, split=split, one_scene=one_scene), jobs, chunksize=200))
            np.save(path, np.stack(rows))
        return cls(np.load(path, mmap_mode="r"), [labels for labels, _ in jobs])

    def without(self, axis: str, name: str) -> "Pictures":
        """The same pool for a model that is never to see this class: `choose` gives no picture of it."""
        twin = Pictures(self.pixels, self.labels)
        twin.people, twin.things = (
            [i for i in rows if self.labels[i].get(axis) != name] for rows in (self.people, self.things)
        )
        return twin

    def choose(self, rng: random.Random, size: int, people: float = 0.3) -> list[int]:
        """`size` row numbers, a share `people` of them portraits."""
        portraits = round(size * people)
        return rng.choices(self.people, k=portraits) + rng.choices(self.things, k=size - portraits)

    def jittered(self, rows: Sequence[int], rng: random.Random) -> Tensor:
        """Those pictures (B, 3, 64, 64) in about -1..1, each moved and lit a little differently."""
        images = torch.stack([_jitter(torch.from_numpy(np.array(self.pixels[i])), rng) for i in rows])
        return images.permute(0, 3, 1, 2)

    def tensor(self, rows: Sequence[int] | slice = slice(None)) -> Tensor:
        """Those pictures as they are, (B, 3, 64, 64) in -1..1."""
        return scaled(torch.from_numpy(np.array(self.pixels[rows])).permute(0, 3, 1, 2))


def scaled(pixels: Tensor) -> Tensor:
    """uint8 levels as floats in -1..1."""
    return pixels.float() / 127.5 - 1


def codes(labels: Sequence[Mapping[str, str]]) -> Tensor:
    """(B, 3) class numbers on the three axes, -1 where an axis is not given."""
    return torch.tensor([[names.index(k[a]) if a in k else -1 for a, names in AXES.items()] for k in labels])


def _pixels(job: tuple[Mapping[str, str], int], split: str, one_scene: bool) -> np.ndarray:
    labels, index = job
    picture = draw(labels, split, index, one_scene=one_scene)
    return np.asarray(picture.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC))


def _jitter(pixels: Tensor, rng: random.Random) -> Tensor:
    """Shift by up to 4 px and change brightness and contrast a little; (64, 64, 3) uint8 -> float in about -1..1."""
    dx, dy = rng.randint(-4, 4), rng.randint(-4, 4)
    rows = torch.arange(PIXELS).add(dy).clamp(0, PIXELS - 1)
    columns = torch.arange(PIXELS).add(dx).clamp(0, PIXELS - 1)
    return scaled(pixels[rows][:, columns]) * rng.uniform(0.85, 1.15) + rng.uniform(-0.1, 0.1)
