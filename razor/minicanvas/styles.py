"""The twelve styles of Minicanvas: filters over a drawn scene that stay distinct on every object.

Each filter maps an RGB picture to an RGB picture of the same size; `rng` frees what a style leaves open
(hatch angle, line colour, palette), never what makes the style recognisable.
"""

import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageOps

RGB = tuple[int, int, int]


def photo(image: Image.Image, rng: random.Random) -> Image.Image:
    """Soft daylight, a vignette and a trace of sensor noise."""
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(image.width / 220)), np.float32)
    y, x = np.mgrid[-1 : 1 : pixels.shape[0] * 1j, -1 : 1 : pixels.shape[1] * 1j]
    light = 1.06 - 0.22 * (x**2 + y**2) + 0.10 * (x * rng.uniform(-1, 1) + y * rng.uniform(-1, 0))
    return _image(pixels * light[..., None] + _noise(rng, pixels.shape, 5.0))


def sketch(image: Image.Image, rng: random.Random) -> Image.Image:
    """Grey pencil on white paper: dodged outlines over light hatching."""
    grey = ImageOps.autocontrast(image.convert("L"))
    blurred = ImageOps.invert(grey).filter(ImageFilter.GaussianBlur(image.width / 26))
    dodge = np.asarray(grey, np.float32) * 255 / np.maximum(256 - np.asarray(blurred, np.float32), 1)
    pencil = 255 - (255 - np.clip(dodge, 0, 255)) * 1.5
    y, x = np.mgrid[: image.height, : image.width]
    strokes = np.sin((x + y * rng.uniform(0.6, 1.4)) * 270 / image.width)
    pencil -= (np.asarray(grey, np.float32) < 110) * (24 + 24 * strokes)
    return _image(np.clip(pencil, 30, 250)[..., None] * np.ones(3) + _noise(rng, (*pencil.shape, 1), 6.0))


def watercolour(image: Image.Image, rng: random.Random) -> Image.Image:
    """Pale washes that bleed over the outlines on grainy white paper."""
    wash = ImageEnhance.Color(image.filter(ImageFilter.GaussianBlur(image.width / 85))).enhance(1.3)
    pixels = np.asarray(_ripple(wash, rng, image.width / 50), np.float32)
    pixels = 255 - (255 - pixels) * (0.62 + 0.30 * _clouds(rng, image.size, 7)[..., None])
    pixels *= 1 - 0.30 * np.asarray(_edges(image, 60), np.float32)[..., None] / 255
    y, x = np.mgrid[-1 : 1 : image.height * 1j, -1 : 1 : image.width * 1j]
    edge = np.clip((np.maximum(abs(x), abs(y)) + 0.12 * (_clouds(rng, image.size, 9) - 0.5) - 0.86) / 0.06, 0, 1)
    return _image(pixels * (1 - edge[..., None]) + 250 * edge[..., None])


def neon(image: Image.Image, rng: random.Random) -> Image.Image:
    """Glowing tubes along the outlines on a night-dark wall."""
    hues = rng.sample([(255, 60, 180), (60, 240, 255), (255, 190, 60), (150, 255, 90), (190, 110, 255)], 2)
    edges = _edges(image, 30).filter(ImageFilter.MaxFilter(3))
    ramp = np.linspace(0, 1, image.height)[:, None, None]
    tube = np.array(hues[0]) * (1 - ramp) + np.array(hues[1]) * ramp
    core = np.asarray(edges, np.float32)[..., None] / 255
    glow = np.asarray(edges.filter(ImageFilter.GaussianBlur(image.width / 28)), np.float32)[..., None] / 255
    return _image(np.array([12, 8, 28]) + tube * (core * 0.85 + glow * 0.75) + 60 * core)


def mosaic(image: Image.Image, rng: random.Random) -> Image.Image:
    """Square tiles with pale grout and a slightly different tint each."""
    tiles = rng.choice((20, 22, 24))
    side = image.width // tiles
    small = ImageEnhance.Color(image.resize((tiles, tiles), Image.Resampling.BOX)).enhance(1.35)
    pixels = np.asarray(small, np.float32) + _noise(rng, (tiles, tiles, 1), 16.0)
    big = _image(pixels).resize((tiles * side, tiles * side), Image.Resampling.NEAREST).resize(image.size)
    draw = ImageDraw.Draw(big)
    for k in range(tiles + 1):
        at = round(k * image.width / tiles)
        draw.line([(at, 0), (at, image.height)], fill=(226, 220, 206), width=1)
        draw.line([(0, at), (image.width, at)], fill=(226, 220, 206), width=1)
    return big


def woodcut(image: Image.Image, rng: random.Random) -> Image.Image:
    """Black ink on cream paper: solid darks, carved lines for the mid tones."""
    grey = np.asarray(ImageOps.equalize(image.convert("L")).filter(ImageFilter.GaussianBlur(1)), np.float32) / 255
    angle = rng.uniform(-0.5, 0.5)
    y, x = np.mgrid[: image.height, : image.width]
    carve = 0.5 + 0.5 * np.sin((y + angle * x) * 2 * np.pi * 21 / image.width)
    ink = (grey < 0.16 + 0.42 * carve) | (np.asarray(_edges(image, 34)) > 110)
    paper = np.array(rng.choice([(238, 224, 192), (232, 214, 178), (240, 230, 206)]), np.float32)
    return _image(np.where(ink[..., None], np.array([34, 24, 20]), paper)).filter(ImageFilter.GaussianBlur(0.5))


def pop_art(image: Image.Image, rng: random.Random) -> Image.Image:
    """Four flat screaming colours, halftone dots and a bold outline."""
    palette = rng.choice(
        [
            [(70, 0, 120), (255, 30, 140), (0, 200, 190), (255, 236, 60)],
            [(20, 20, 140), (240, 40, 40), (60, 210, 90), (255, 225, 40)],
            [(130, 0, 70), (0, 120, 255), (255, 120, 0), (190, 255, 80)],
        ]
    )
    grey = np.asarray(ImageOps.equalize(image.convert("L")), np.float32) / 256
    pixels = np.array(palette, np.float32)[(grey * 4).astype(int)]
    y, x = np.mgrid[: image.height, : image.width] * 2 * np.pi * 20 / image.width
    dots = (np.sin(x) * np.sin(y) > 0.35) & (grey > 0.5)
    pixels[dots] = pixels[dots] * 0.35 + np.array([255, 255, 255]) * 0.65
    pixels[np.asarray(_edges(image, 40)) > 120] = (15, 5, 25)
    return _image(pixels)


def blueprint(image: Image.Image, rng: random.Random) -> Image.Image:
    """White construction lines on Prussian blue with a drafting grid."""
    base = Image.new("RGB", image.size, rng.choice([(20, 62, 140), (16, 54, 128), (24, 70, 152)]))
    draw = ImageDraw.Draw(base)
    step = image.width / rng.choice((8, 9, 10))
    for k in range(1, 11):
        at = round(k * step)
        draw.line([(at, 0), (at, image.height)], fill=(52, 98, 178), width=1)
        draw.line([(0, at), (image.width, at)], fill=(52, 98, 178), width=1)
    lines = _edges(image, 26)
    return Image.composite(Image.new("RGB", image.size, (226, 238, 255)), base, lines)


def chalk(image: Image.Image, rng: random.Random) -> Image.Image:
    """Coloured chalk, dusty and broken, on a dark green board."""
    board = np.array(rng.choice([(36, 62, 52), (32, 56, 46), (40, 66, 58)]), np.float32)
    grain = np.frombuffer(rng.randbytes(image.width * image.height), np.uint8).reshape(image.height, image.width)
    lines = np.asarray(_edges(image, 30).filter(ImageFilter.MaxFilter(3)), np.float32) / 255
    tint = np.asarray(ImageEnhance.Color(image.filter(ImageFilter.GaussianBlur(2))).enhance(1.4), np.float32)
    tint = 165 + tint * 90 / 255
    y, x = np.mgrid[: image.height, : image.width]
    rub = 0.34 * (0.5 + 0.5 * np.sin((x - y) * 2 * np.pi * 30 / image.width)) * (grain > 90)
    cover = np.clip(
        lines * (0.55 + 0.45 * (grain > 90)) + rub * (np.asarray(image.convert("L"), np.float32) / 255 > 0.45), 0, 1
    )
    return _image(board * (1 - cover[..., None]) + tint * cover[..., None])


def thermal(image: Image.Image, rng: random.Random) -> Image.Image:
    """A heat camera: black-violet for cold, through red, to yellow-white for hot."""
    grey = ImageOps.autocontrast(image.convert("L").filter(ImageFilter.GaussianBlur(image.width / 85)))
    heat = np.asarray(grey, np.float32) / 255
    if rng.random() < 0.5:
        heat = 1 - heat
    stops = np.array([(8, 4, 40), (90, 10, 140), (220, 40, 70), (255, 150, 20), (255, 250, 190)], np.float32)
    return _image(np.stack([np.interp(heat, np.linspace(0, 1, 5), stops[:, c]) for c in range(3)], axis=-1))


def stained_glass(image: Image.Image, rng: random.Random) -> Image.Image:
    """Irregular saturated panes held by thick lead lines."""
    cells = rng.choice((5, 6, 7))
    centres = [(x, y) for y in range(cells) for x in range(cells)]
    seeds = np.array([((x + rng.random()) / cells, (y + rng.random()) / cells) for x, y in centres], np.float32)
    y, x = np.mgrid[0 : 1 : image.height * 1j, 0 : 1 : image.width * 1j].astype(np.float32)
    pane = _nearest(seeds, x, y, cells)
    bright = ImageEnhance.Color(ImageEnhance.Brightness(image).enhance(1.25)).enhance(2.2)
    pixels = np.asarray(bright, np.float32)
    count = np.maximum(np.bincount(pane.ravel(), minlength=len(seeds)), 1)
    means = np.stack([np.bincount(pane.ravel(), pixels[..., c].ravel(), len(seeds)) / count for c in range(3)], -1)
    glass = 0.35 * means[pane] + 0.65 * pixels
    lead = (pane != np.roll(pane, 1, 0)) | (pane != np.roll(pane, 1, 1))
    lead |= np.asarray(_edges(image, 60).filter(ImageFilter.MaxFilter(3))) > 130
    return _image(np.where(lead[..., None], np.array([22, 20, 24]), glass)).filter(ImageFilter.GaussianBlur(0.4))


def vintage(image: Image.Image, rng: random.Random) -> Image.Image:
    """A faded brown postcard: sepia tones, worn pale border, scratches."""
    grey = np.asarray(image.convert("L").filter(ImageFilter.GaussianBlur(image.width / 160)), np.float32) / 255
    grey = 0.20 + 0.72 * grey + 0.10 * (_clouds(rng, image.size, 5) - 0.5)
    sepia = _image(grey[..., None] * np.array([250, 214, 160]) + np.array([12, 4, 0]))
    draw = ImageDraw.Draw(sepia)
    for _ in range(rng.randint(2, 4)):
        at = rng.randrange(image.width)
        draw.line([(at, 0), (at + rng.randint(-6, 6), image.height)], fill=(246, 228, 190), width=1)
    width = round(image.width * 0.05)
    draw.rectangle([0, 0, image.width - 1, image.height - 1], outline=(248, 238, 214), width=width)
    return sepia


STYLES: dict[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    "photo": photo,
    "sketch": sketch,
    "watercolour": watercolour,
    "neon": neon,
    "mosaic": mosaic,
    "woodcut": woodcut,
    "pop art": pop_art,
    "blueprint": blueprint,
    "chalk": chalk,
    "thermal": thermal,
    "stained glass": stained_glass,
    "vintage": vintage,
}

NEIGHBOURS: dict[str, tuple[str, ...]] = {
    "photo": ("watercolour", "vintage"),
    "sketch": ("woodcut", "watercolour"),
    "watercolour": ("photo", "sketch"),
    "neon": ("blueprint", "chalk"),
    "mosaic": ("stained glass", "photo"),
    "woodcut": ("sketch", "vintage"),
    "pop art": ("thermal", "stained glass"),
    "blueprint": ("neon", "chalk"),
    "chalk": ("blueprint", "neon"),
    "thermal": ("pop art", "neon"),
    "stained glass": ("mosaic", "pop art"),
    "vintage": ("photo", "woodcut"),
}


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _edges(image: Image.Image, threshold: int) -> Image.Image:
    """Outlines as a mask, 0..255: the strongest morphological gradient over the three channels."""
    smooth = image.filter(ImageFilter.GaussianBlur(image.width / 128))
    gradient = ImageChops.subtract(smooth.filter(ImageFilter.MaxFilter(3)), smooth.filter(ImageFilter.MinFilter(3)))
    strongest = np.asarray(gradient).max(axis=-1).astype(np.float32)
    return Image.fromarray(np.clip((strongest - threshold) * 4, 0, 255).astype(np.uint8))


def _noise(rng: random.Random, shape: tuple[int, ...], strength: float) -> np.ndarray:
    """Uniform noise in +-strength, the same for the same rng state everywhere."""
    values = np.frombuffer(rng.randbytes(int(np.prod(shape))), np.uint8).reshape(shape)
    return (values.astype(np.float32) / 127.5 - 1) * strength


def _clouds(rng: random.Random, size: tuple[int, int], cells: int) -> np.ndarray:
    """Smooth noise in 0..1, (height, width)."""
    small = Image.frombytes("L", (cells, cells), rng.randbytes(cells * cells))
    return np.asarray(small.resize(size, Image.Resampling.BICUBIC), np.float32) / 255


def _ripple(image: Image.Image, rng: random.Random, strength: float) -> Image.Image:
    """Shift every pixel by smooth noise, up to `strength` pixels."""
    pixels = np.asarray(image)
    y, x = np.mgrid[: image.height, : image.width]
    dx, dy = ((_clouds(rng, image.size, 12) - 0.5) * 2 * strength for _ in range(2))
    rows = np.clip(y + dy.round().astype(int), 0, image.height - 1)
    columns = np.clip(x + dx.round().astype(int), 0, image.width - 1)
    return Image.fromarray(pixels[rows, columns])


def _nearest(seeds: np.ndarray, x: np.ndarray, y: np.ndarray, cells: int) -> np.ndarray:
    """Index of the nearest of the jittered grid seeds for every pixel; looks at the 3 x 3 grid cells around it."""
    column, row = (np.minimum((v * cells).astype(int), cells - 1) for v in (x, y))
    best, index = np.full(x.shape, np.inf, np.float32), np.zeros(x.shape, int)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            at = np.clip(row + dy, 0, cells - 1) * cells + np.clip(column + dx, 0, cells - 1)
            distance = (seeds[at, 0] - x) ** 2 + (seeds[at, 1] - y) ** 2
            closer = distance < best
            best, index = np.where(closer, distance, best), np.where(closer, at, index)
    return index
