"""A CLIP of two blocks a tower, a tokenizer that is a function, and coloured squares to tell apart."""

import random

import numpy as np
import open_clip
import torch
from PIL import Image

from razor.examples import Axis, Example, Split, Task

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 200, 60),
    "blue": (50, 70, 230),
    "yellow": (235, 220, 50),
    "cyan": (60, 215, 225),
    "white": (240, 240, 240),
}
SIDES = ("left", "right")
WORDS = ("a", "on", "the", *COLOURS, *SIDES)
END = 31  # the highest id, where open_clip reads the sentence


def tokenize(texts):
    """Word numbers, then END, then zeros: (n, 8)."""
    ids = torch.zeros(len(texts), 8, dtype=torch.long)
    for row, text in zip(ids, texts, strict=True):
        codes = [1 + WORDS.index(word) if word in WORDS else 20 for word in text.split()[:7]] + [END]
        row[: len(codes)] = torch.tensor(codes)
    return ids


def preprocess(image):
    """(3, 32, 32) in -1..1."""
    pixels = np.asarray(image.convert("RGB").resize((32, 32)), dtype=np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1


def make_clip(seed=0, vision=None, text=None):
    """A CLIP of random weights: two blocks of two heads in each tower, width 32."""
    torch.manual_seed(seed)
    vision_cfg = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
    text_cfg = {"context_length": 8, "vocab_size": 32, "width": 32, "heads": 2, "layers": 2}
    custom = "timm_model_name" in (vision or {})
    build = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    return build(embed_dim=32, vision_cfg=vision_cfg | (vision or {}), text_cfg=text_cfg | (text or {})).eval()


def square(colour, side, seed):
    """A noisy coloured square on the left or right."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 90, (32, 32, 3), dtype=np.uint8)
    x = (2 if side == "left" else 18) + rng.integers(-2, 3)
    y = 10 + rng.integers(-4, 5)
    pixels[y : y + 12, max(0, x) : x + 12] = COLOURS[colour]
    caption = f"a {colour} on the {side}"
    return Example(Image.fromarray(pixels), caption, {"colour": colour, "side": side}, f"{colour}-{side}-{seed}")


def pool(split, each):
    """`each` squares of every colour on every side; splits never share a seed."""
    start = {"train": 0, "gradient": 10_000, "search": 20_000, "test": 30_000}[split]
    kinds = [(colour, side) for colour in COLOURS for side in SIDES]
    return [square(c, s, start + 100 * i + j) for i, (c, s) in enumerate(kinds) for j in range(each)]


def make_task(concept="red", each=5):
    """Forget one colour of six, keep the other five and both sides."""
    pools = [pool(split, each) for split in ("gradient", "search", "test")]
    forget = Split(*(tuple(e for e in p if e.labels["colour"] == concept) for p in pools))
    retain = Split(*(tuple(e for e in p if e.labels["colour"] != concept) for p in pools))
    colour = Axis("colour", {name: (f"a {name}", name) for name in COLOURS})
    side = Axis("side", {name: (f"on the {name}",) for name in SIDES})
    return Task(concept, "colour", (colour, side), (), forget, retain)


FORMS = {("colour",): "a {colour}", ("side",): "on the {side}", ("colour", "side"): "a {colour} on the {side}"}


def train(model, steps=80):
    """Teach the model its squares: symmetric cross-entropy in which every true caption of a picture counts."""
    examples = pool("train", 12)
    pixels = torch.stack([preprocess(e.image) for e in examples])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rng = random.Random(0)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 10) * (1 - step / steps)
        rows = rng.sample(range(len(examples)), 48)
        known = [examples[i].labels for i in rows]
        stated = [rng.choice(list(FORMS)) for _ in rows]
        texts = [FORMS[axes].format(**labels) for axes, labels in zip(stated, known, strict=True)]
        said = [{axis: labels[axis] for axis in axes} for axes, labels in zip(stated, known, strict=True)]
        true = torch.tensor([[float(claim.items() <= labels.items()) for claim in said] for labels in known])
        v = model.encode_image(pixels[rows], normalize=True)
        t = model.encode_text(tokenize(texts), normalize=True)
        logits = model.logit_scale.exp() * v @ t.T
        by_image, by_text = true / true.sum(1, keepdim=True), true / true.sum(0, keepdim=True)
        loss = -(by_image * logits.log_softmax(1)).sum(1).mean() - (by_text * logits.log_softmax(0)).sum(0).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    optimizer.zero_grad()


def weights_of(model):
    """A copy of every parameter."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same_weights(model, before):
    """Every parameter is bit for bit what it was."""
    now = dict(model.named_parameters())
    return now.keys() == before.keys() and all(torch.equal(now[name], before[name]) for name in before)
