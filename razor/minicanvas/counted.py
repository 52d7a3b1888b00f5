"""Pictures to count in, and what else is true of a picture: how many things it shows, and a thing's colour."""

import random
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from razor.minicanvas import objects, styles
from razor.minicanvas.dataset import AXES, SIZE, SPLITS, pool
from razor.minicanvas.objects import Colour, Pen
from razor.minicanvas.pictures import PIXELS, Pictures

COUNTS = ("one", "two", "three", "four")
COUNTABLE = ("photo", "sketch", "neon", "pop art", "blueprint", "chalk")  # styles in which small things stay apart

# Things that are mostly of one colour, and the styles that keep it.
ONE_COLOUR = ("cat", "dog", "rabbit", "bird", "fish", "tree", "flower", "mushroom", "car", "mug", "star")
COLOURED = ("photo", "watercolour", "mosaic")
# The colours of objects.py that everyone calls the same; of cream, teal, rust and their like nothing is told.
COLOURS: dict[str, tuple[Colour, ...]] = {
    "red": ((222, 48, 52), (222, 50, 56), (190, 50, 40)),
    "orange": ((240, 130, 36), (232, 140, 56), (206, 96, 30), (240, 150, 40)),
    "yellow": ((250, 208, 60),),
    "green": ((60, 160, 72), (150, 214, 90), (44, 130, 60), (26, 96, 62), (96, 160, 40), (170, 224, 120)),
    "blue": ((52, 110, 214), (132, 208, 246), (40, 62, 120), (84, 110, 190), (50, 110, 190)),
    "purple": ((120, 72, 190), (130, 70, 170)),
    "pink": ((214, 70, 150), (248, 168, 190), (250, 196, 206), (240, 160, 190), (250, 190, 200)),
    "brown": ((120, 70, 44), (150, 98, 60), (96, 60, 40), (120, 76, 50)),
    "grey": ((112, 112, 122), (196, 198, 206)),
}
_NAMES = {shade: name for name, shades in COLOURS.items() for shade in shades}


def known(labels: Mapping[str, str], split: str, index: int) -> dict[str, str]:
    """The labels of the picture `draw` draws of a thing, with its count and, where it can be told, its colour."""
    if "object" not in labels:
        return dict(labels)
    told = colour(labels, split, index)
    return {**labels, "count": COUNTS[0]} | ({"colour": told} if told else {})


def colour(labels: Mapping[str, str], split: str, index: int) -> str | None:
    """The plain name of the colour the thing in a picture has; None where it has several or the style hides it."""
    if labels.get("object") not in ONE_COLOUR or labels["style"] not in COLOURED:
        return None
    _, body = _redrawn(labels, split, index)
    return _NAMES.get(body)


def known_pictures(split: str, *, per_pair: int, per_person: int, work: Path) -> Pictures:
    """The rendered pool of a split (see Pictures.rendered), with everything known of each picture as its labels."""
    rendered = Pictures.rendered(split, per_pair=per_pair, per_person=per_person, work=work)
    return Pictures(rendered.pixels, [known(labels, split, i) for labels, i in pool(split, per_pair, per_person)])


def counted_pictures(split: str, *, each: int, work: Path) -> Pictures:
    """`each` pictures of one to four of every object in every countable style, kept in `work` as a pool is.

    Their labels are the style and the count: too small a thing to be sure of is not asked for.
    """
    work.mkdir(parents=True, exist_ok=True)
    kinds = [{"object": name, "style": style} for style in COUNTABLE for name in AXES["object"]]
    jobs = [(kind, count, i) for kind in kinds for count in range(1, len(COUNTS) + 1) for i in range(each)]
    path = work / f"{split}-counted-{each}.npy"
    if not path.exists():
        with ProcessPoolExecutor() as workers:
            np.save(path, np.stack(list(workers.map(partial(_pixels, split=split), jobs, chunksize=100))))
    labels = [{"style": kind["style"], "count": COUNTS[count - 1]} for kind, count, _ in jobs]
    return Pictures(np.load(path, mmap_mode="r"), labels)


def draw_counted(labels: Mapping[str, str], count: int, split: str, index: int, size: int = SIZE) -> Image.Image:
    """The picture number `index` of `count` things of one kind in one style in this split; RGB, size x size."""
    assert split in SPLITS, split
    rng = random.Random(f"{split}/count={count}/object={labels['object']}/style={labels['style']}/{index}")
    return styles.STYLES[labels["style"]](counted_scene(labels["object"], count, rng, size), rng)


def counted_scene(name: str, count: int, rng: random.Random, size: int) -> Image.Image:
    """`count` things (0 to 4) of one kind, each in a quarter of its own, before one background; RGB, size x size."""
    side = size * objects.OVERSAMPLE
    image = objects.background(rng, side, rng.choice(objects.PLACES[name]))
    half = side // 2
    for quarter in rng.sample(range(4), count):
        left, top = quarter % 2 * half, quarter // 2 * half
        backdrop = objects.luma(image.getpixel((left + half // 2, top + half // 2)))
        pen = Pen(ImageDraw.Draw(image), rng, half, backdrop)
        pen.x, pen.y = pen.x + left, pen.y + top
        objects.OBJECTS[name](pen, rng)
    return image.reduce(objects.OVERSAMPLE)


class _WatchedPen(Pen):
    """Remembers the first colour picked, which is that of the thing's body."""

    body: Colour | None = None

    def pick(self, palette, *avoid):
        found = super().pick(palette, *avoid)
        self.body = self.body or found
        return found


def _redrawn(labels: Mapping[str, str], split: str, index: int) -> tuple[Image.Image, Colour]:
    """The scene behind the picture `draw` gives, before its style, and the colour of the thing in it.

    It is drawn again as objects.draw_scene draws it, but for the pen.
    """
    rng = random.Random(f"{split}/object={labels['object']}/style={labels['style']}/{index}")
    side = SIZE * objects.OVERSAMPLE
    image = objects.background(rng, side, rng.choice(objects.PLACES[labels["object"]]))
    backdrop = sum(objects.luma(image.getpixel((side // 2, side * part // 4))) for part in (1, 3)) / 2
    pen = _WatchedPen(ImageDraw.Draw(image), rng, side, backdrop)
    objects.OBJECTS[labels["object"]](pen, rng)
    return image.reduce(objects.OVERSAMPLE), pen.body


def _pixels(job: tuple[Mapping[str, str], int, int], split: str) -> np.ndarray:
    picture = draw_counted(*job[:2], split, job[2])
    return np.asarray(picture.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC))
