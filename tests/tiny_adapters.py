"""Adapters of the tiny pipelines, and a task for them: forget cats of two colours, keep dogs, foxes and hats."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tiny_pipelines
from PIL import Image

from razor.adapters.diffusion import DiffusionAdapter
from razor.examples import Axis, Example, Split, Task

KINDS = ("sd", "sd2", "sdxl", "sd3")
COLOURS = ("red", "blue")
NAMES = ("cat", "dog", "fox", "hat")


def fresh(kind, **options):
    """An adapter of its own, which draws in three steps; `t5` goes to the pipeline."""
    made = {"t5": options.pop("t5")} if "t5" in options else {}
    with TemporaryDirectory() as folder:
        pipeline = getattr(tiny_pipelines, f"tiny_{kind}")(Path(folder), **made)
    pipeline.set_progress_bar_config(disable=True)
    return DiffusionAdapter(pipeline, name=f"tiny {kind}", **{"steps": 3, "batch": 4, **options})


@cache
def shared(kind):
    """One adapter of each kind for all tests: leave it as found."""
    return fresh(kind)


def noise_picture(seed):
    """A random picture of 16 x 16."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8))


def example(colour, name, split, number):
    """A random picture called "red cat"; a cat's anchor is "red"."""
    caption = f"{colour} {name}"
    seed = [*map(ord, f"{split}/{caption}/{number}")]
    labels = {"label": name, "colour": colour}
    anchor = colour if name == "cat" else ""
    return Example(noise_picture(seed), caption, labels, f"{split}/{caption}/{number}", anchor)


def make_task(each=1):
    """`each` pictures of every colour and name in every split."""
    parts = {}
    for side, names in (("forget", NAMES[:1]), ("retain", NAMES[1:])):
        parts[side] = Split(
            *(
                tuple(example(c, n, split, i) for n in names for c in COLOURS for i in range(each))
                for split in ("gradient", "search", "test")
            )
        )
    label = Axis("label", {name: (f"a {name}",) for name in NAMES})
    colour = Axis("colour", {name: (name,) for name in COLOURS})
    return Task("cat", "label", (label, colour), ("dog",), parts["forget"], parts["retain"])
