"""The judge: an independent classifier of Minicanvas pictures, for what a generator draws.

    python -m razor.minicanvas train judge

It has never seen a picture of any other split and no model under edit, and it may answer "none": a picture that
shows no object, no style or no person of this world.
"""

import json
import math
import random
import time
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor

from razor.device import sped_up
from razor.minicanvas.dataset import AXES
from razor.minicanvas.pictures import PIXELS, Pictures, codes, scaled

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "models" / "judge"
WIDTHS = (32, 64, 128, 192)
NONE = "none"


class Judge(nn.Module):
    """A small residual network with one answer an axis; the last class of each is "none"."""

    def __init__(self, classes: dict[str, Sequence[str]] | None = None):
        super().__init__()
        self.classes = {axis: (*names, NONE) for axis, names in (classes or AXES).items()}
        self.stem = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(WIDTHS[0])
        )
        widths = zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False)
        self.blocks = nn.Sequential(*(_Block(before, after) for before, after in widths))
        self.heads = nn.ModuleDict({axis: nn.Linear(WIDTHS[-1], len(names)) for axis, names in self.classes.items()})

    def features(self, pixels: Tensor) -> Tensor:
        """(N, 192) features of pixels (N, 3, 64, 64) in -1..1; distances between sets of pictures use them."""
        return self.blocks(F.relu(self.stem(pixels))).mean((2, 3))

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Logits (N, classes + 1) for each axis."""
        features = self.features(pixels)
        return {axis: head(features) for axis, head in self.heads.items()}


class _Block(nn.Module):
    def __init__(self, before: int, after: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.skip = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


@cache
def load(folder: Path = FOLDER) -> Judge:
    """The bundled judge, ready to read pictures; loaded once."""
    judge = Judge()
    judge.load_state_dict(load_file(folder / "model.safetensors"))
    return judge.eval().requires_grad_(False)


@torch.no_grad()
def read(pictures: Iterable[Image.Image], judge: Judge | None = None) -> dict[str, list[str]]:
    """What each picture shows, axis by axis; "none" where it shows none of that axis."""
    judge = judge or load()
    logits = judge(to_pixels(pictures))
    return {axis: [judge.classes[axis][i] for i in rows.argmax(1)] for axis, rows in logits.items()}


def to_pixels(pictures: Iterable[Image.Image]) -> Tensor:
    """PIL pictures of any size as (N, 3, 64, 64) in -1..1."""
    sized = (p.convert("RGB").resize((PIXELS, PIXELS), Image.Resampling.BICUBIC) for p in pictures)
    return scaled(torch.stack([pil_to_tensor(picture) for picture in sized]))


def train_judge(*, steps: int, batch: int, seed: int, work: Path, out: Path, lr: float = 2e-3) -> dict:
    """Train the judge and write weights and card to `out`.

    Returns:
        The card: accuracy per axis on the test split, with n, and how it was made.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(seed)
    data = Pictures.rendered("judge", per_pair=40, per_person=240, work=work)
    judge = Judge().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=lr, weight_decay=0.05)
    started = time.monotonic()
    for step in range(steps):
        rng = random.Random(f"judge/{seed}/{step}")
        for group in optimizer.param_groups:
            group["lr"] = lr * min((step + 1) / 100, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        rows = data.choose(rng, batch)
        truth = codes([data.labels[i] for i in rows])
        with sped_up(device):
            logits = judge(_worn(data.jittered(rows, rng), rng).to(device))
        loss = sum(F.cross_entropy(logits[a].float(), _answers(truth, a).to(device)) for a in AXES)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}  loss {loss.item():.3f}  {time.monotonic() - started:.0f} s", flush=True)
    judge.eval().cpu()
    out.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in judge.state_dict().items()}, out / "model.safetensors")
    card = {
        "name": "judge",
        "what": "An independent classifier of Minicanvas pictures: object, style and identity, or none of them.",
        "license": "MIT",
        "parameters": sum(p.numel() for p in judge.parameters()),
        "accuracy": accuracy(judge, Pictures.rendered("test", per_pair=5, per_person=30, work=work)),
        "training": {
            "command": f"python -m razor.minicanvas train judge --steps {steps} --batch {batch} --seed {seed}",
            "pictures": len(data.pixels),
            "seconds": round(time.monotonic() - started),
            "device": device,
        },
    }
    (out / "card.json").write_text(json.dumps(card, indent=2) + "\n")
    return card


@torch.no_grad()
def accuracy(judge: Judge, pictures: Pictures) -> dict[str, dict[str, float]]:
    """Share of pictures given their right class among those that have one, per axis, with n."""
    parts = [judge(part) for part in pictures.tensor().split(256)]
    truth, result = codes(pictures.labels), {}
    for column, axis in enumerate(AXES):
        guess = torch.cat([part[axis] for part in parts]).argmax(1)
        known = truth[:, column] >= 0
        right = (guess == truth[:, column])[known].float().mean().item()
        result[axis] = {"value": round(right, 4), "n": int(known.sum())}
    return result


def _answers(truth: Tensor, axis: str) -> Tensor:
    column = truth[:, list(AXES).index(axis)]
    return torch.where(column < 0, len(AXES[axis]), column)


def _worn(images: Tensor, rng: random.Random) -> Tensor:
    """Blurred and grained a little, as a generator's pictures are."""
    size = rng.choice([PIXELS, PIXELS, 48, 32])
    if size != PIXELS:
        small = F.interpolate(images, size, mode="area")
        images = F.interpolate(small, PIXELS, mode="bilinear")
    return images + rng.uniform(0, 0.1) * torch.randn_like(images)
