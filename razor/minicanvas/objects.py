"""The twenty things Minicanvas can show, each a small Pillow drawing with free colour, proportion, place and scale."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

OVERSAMPLE = 3
WHITE, BLACK, PINK, RED = (250, 248, 242), (26, 22, 32), (244, 140, 160), (222, 50, 56)
BRIGHT: list[Colour] = [
    (222, 48, 52), (240, 130, 36), (250, 208, 60), (60, 160, 72), (40, 170, 170), (52, 110, 214), (120, 72, 190),
    (214, 70, 150), (150, 214, 90), (250, 240, 220), (132, 208, 246), (248, 168, 190), (120, 70, 44), (40, 62, 120),
]  # fmt: skip
FUR: list[Colour] = [
    (232, 140, 56), (150, 98, 60), (112, 112, 122), (70, 64, 72), (246, 238, 224), (226, 190, 130), (96, 60, 40),
    (196, 198, 206), (84, 110, 190), (190, 84, 130), (160, 214, 170), (250, 196, 206),
]  # fmt: skip
LEAF: list[Colour] = [(44, 130, 60), (26, 96, 62), (96, 160, 40), (206, 96, 30), (190, 50, 40), (240, 180, 50),
                      (240, 160, 190), (170, 224, 120)]  # fmt: skip
METAL: list[Colour] = [(226, 170, 40), (250, 216, 96), (150, 96, 40), (206, 212, 220), (104, 110, 124), (190, 60, 60),
                       (50, 110, 160)]  # fmt: skip
WOOD: list[Colour] = [(206, 120, 44), (150, 78, 34), (236, 184, 96), (176, 40, 36), (60, 84, 150), (250, 220, 160)]
ROUND = [(math.cos(math.tau * i / 32), math.sin(math.tau * i / 32)) for i in range(32)]


def luma(colour: Sequence[float]) -> float:
    """Return how bright a colour looks, 0 to 255."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Blend two colours; share is the part of the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def arc(x: float, y: float, rx: float, ry: float, start: float, end: float, steps: int = 14) -> list[Point]:
    """Return points along an arc, angles in degrees, clockwise from the right."""
    angles = [math.radians(start + (end - start) * i / steps) for i in range(steps + 1)]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def smooth(points: Sequence[Point], steps: int = 5) -> list[Point]:
    """Return a closed soft curve through the points."""
    out, count = [], len(points)
    for i in range(count):
        a, b, c, d = (points[(i + k) % count] for k in (-1, 0, 1, 2))
        for k in range(steps):
            t = k / steps
            w = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
            out.append(tuple(sum(f * p[j] for f, p in zip(w, (a, b, c, d), strict=True)) / 2 for j in (0, 1)))
    return out


def mirror(points: Sequence[Point], side: int) -> list[Point]:
    """Return the points with x multiplied by side, 1 or -1."""
    return [(x * side, y) for x, y in points]


class Pen:
    """Draws outlined shapes given in object-centred units (-0.5 to 0.5, y down) at one place, scale, tilt and flip."""

    def __init__(self, draw: ImageDraw.ImageDraw, rng: random.Random, side: int, backdrop: float):
        self.draw, self.rng, self.backdrop = draw, rng, backdrop
        self.unit = side * rng.uniform(0.70, 0.86)
        room = (side - self.unit) * 0.42
        self.x, self.y = side / 2 + rng.uniform(-room, room), side / 2 + rng.uniform(-room, room)
        self.flip, self.wide, self.tall = rng.choice((-1, 1)), rng.uniform(0.92, 1.08), rng.uniform(0.92, 1.06)
        self.ink = rng.choice((BLACK, (40, 24, 22), (20, 24, 56)))
        self.edge = max(2, round(side * 1.9 / 128))
        self.lean(rng.uniform(-10, 10))

    def lean(self, degrees: float) -> None:
        """Set the tilt."""
        self.cos, self.sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

    def pick(self, palette: Sequence[Colour], *avoid: Colour) -> Colour:
        """Choose a colour that stands out from the background and differs from those to avoid."""
        free = [c for c in palette if all(sum(abs(p - q) for p, q in zip(c, a, strict=True)) > 140 for a in avoid)]
        clear = [c for c in free if abs(luma(c) - self.backdrop) > 62]
        return self.rng.choice(clear) if clear else max(free or palette, key=lambda c: abs(luma(c) - self.backdrop))

    def against(self, colour: Colour) -> Colour:
        """Return the ink, or white when the colour is too dark for ink lines."""
        return self.ink if luma(colour) > 96 else WHITE

    def at(self, points: Sequence[Point]) -> list[tuple[int, int]]:
        """Map unit points to pixels."""
        a, b, c, d = (self.unit * v for v in (self.cos, self.sin, self.sin, self.cos))
        w, h = self.wide * self.flip, self.tall
        return [(round(self.x + x * w * a - y * h * b), round(self.y + x * w * c + y * h * d)) for x, y in points]

    def poly(self, points: Sequence[Point], fill: Colour, edge: bool = True, soft: bool = False) -> None:
        """Fill a polygon and outline it; soft rounds it to a curve through its points."""
        spots = self.at(smooth(points) if soft else points)
        self.draw.polygon(spots, fill=fill)
        if edge:
            joint = None if len(spots) > 24 else "curve"
            self.draw.line(spots + spots[:2], fill=self.ink, width=self.edge, joint=joint)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Colour, turn: float = 0, edge: bool = True) -> None:
        """Draw an ellipse, turned by some degrees."""
        c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        self.poly([(x + rx * u * c - ry * v * s, y + rx * u * s + ry * v * c) for u, v in ROUND], fill, edge)

    def box(self, left: float, top: float, right: float, bottom: float, fill: Colour, edge: bool = True) -> None:
        """Draw a rectangle."""
        self.poly([(left, top), (right, top), (right, bottom), (left, bottom)], fill, edge)

    def line(self, points: Sequence[Point], fill: Colour, width: float = 0.03, edge: bool = False) -> None:
        """Draw a round-ended stroke, width in units; with edge it gets an outline."""
        spots, thick = self.at(points), max(self.edge, round(width * self.unit))
        for colour, w in ((self.ink, thick + 2 * self.edge), (fill, thick))[0 if edge else 1 :]:
            self.draw.line(spots, fill=colour, width=w, joint="curve")
            for px, py in (spots[0], spots[-1]):
                self.draw.ellipse((px - w / 2, py - w / 2, px + w / 2, py + w / 2), fill=colour)

    def eyes(self, x: float, y: float, r: float, white: Colour = WHITE, slit: bool = False) -> None:
        """Draw a pair of eyes at -x and x, pupils slit or round."""
        for side in (-1, 1):
            self.oval(side * x, y, r, r * 1.05, white)
            self.oval(side * x, y, r * (0.34 if slit else 0.58), r * (0.9 if slit else 0.62), BLACK, edge=False)


def cat(pen: Pen, rng: random.Random) -> None:
    """Draw a sitting cat: pointed ears, slit eyes, whiskers, a curled tail."""
    fur = pen.pick(FUR)
    dark, line, body = mix(fur, BLACK, 0.35), pen.against(fur), rng.uniform(0.20, 0.25)
    tail = rng.uniform(0.40, 0.48)
    pen.line([(body * 0.6, 0.43), (0.32, 0.44), (tail, 0.34), (tail - 0.02, 0.20), (0.36, 0.14)], fur, 0.075, True)
    pen.poly(
        [(-body, 0.46), (-body, 0.25), (-0.14, 0.1), (0.14, 0.1), (body, 0.25), (body, 0.46), (0, 0.49)], fur, soft=True
    )
    pen.line([(0, 0.36), (0, 0.47)], line)
    tip, wide = rng.uniform(0.46, 0.52), rng.uniform(0.32, 0.37)
    for side in (-1, 1):
        pen.poly(mirror([(0.07, -0.28), (0.31, -tip), (0.35, -0.1)], side), fur)
        pen.poly(mirror([(0.16, -0.28), (0.28, -tip + 0.1), (0.30, -0.18)], side), PINK, edge=False)
    pen.oval(0, -0.08, wide, 0.25, fur)
    if rng.random() < 0.6:
        for x in (-0.09, 0, 0.09):
            pen.line([(x, -0.31), (x * 0.9, -0.22)], dark if line != WHITE else mix(fur, WHITE, 0.4), 0.04)
    pen.eyes(0.15, -0.11, 0.085, rng.choice(((190, 230, 80), (250, 214, 70), (130, 220, 240))), slit=True)
    pen.poly([(-0.045, 0.0), (0.045, 0.0), (0, 0.05)], PINK)
    for side in (-1, 1):
        pen.line(mirror([(0, 0.05), (0.04, 0.1), (0.09, 0.09)], side), line)
        for y, end in ((0.02, -0.03), (0.065, 0.08)):
            pen.line(mirror([(0.16, y), (0.46, end)], side), pen.ink if pen.backdrop > 110 else WHITE, 0.018)


def dog(pen: Pen, rng: random.Random) -> None:
    """Draw a sitting dog: floppy ears, a broad muzzle, a tongue, a collar."""
    fur = pen.pick(FUR)
    ear = mix(fur, BLACK, 0.45) if luma(fur) > 96 else mix(fur, WHITE, 0.3)
    body, drop, pale = rng.uniform(0.22, 0.27), rng.uniform(0.12, 0.2), mix(fur, WHITE, 0.65)
    pen.line([(0.18, 0.42), (0.36, 0.36), (0.44, 0.22)], fur, 0.075, True)
    pen.poly(
        [(-body, 0.47), (-body, 0.28), (-0.14, 0.12), (0.14, 0.12), (body, 0.28), (body, 0.47), (0, 0.5)],
        fur,
        soft=True,
    )
    for side in (-1, 1):
        pen.oval(side * 0.12, 0.46, 0.1, 0.05, pale)
    pen.line([(-0.16, 0.2), (0, 0.24), (0.16, 0.2)], pen.pick(BRIGHT, fur), 0.06, True)
    pen.poly(
        [(-0.26, -0.2), (-0.17, -0.43), (0, -0.48), (0.17, -0.43), (0.26, -0.2), (0.22, 0.1), (0, 0.2), (-0.22, 0.1)],
        fur,
        soft=True,
    )
    if rng.random() < 0.5:
        pen.oval(0.12, -0.19, 0.1, 0.12, ear, edge=False)
    pen.poly([(-0.07, 0.1), (0.07, 0.1), (0.075, 0.24), (0, 0.29), (-0.075, 0.24)], (240, 90, 110), soft=True)
    pen.oval(0, 0.03, 0.18, 0.125, pale)
    pen.eyes(0.11, -0.19, 0.06)
    pen.oval(0, -0.045, 0.085, 0.06, BLACK)
    pen.line([(-0.1, 0.09), (-0.04, 0.11), (0, 0.06), (0.04, 0.11), (0.1, 0.09)], pen.ink, 0.028)
    for side in (-1, 1):
        pen.poly(
            mirror([(0.14, -0.45), (0.3, -0.42), (0.42, -0.1), (0.38, drop), (0.28, drop), (0.24, -0.15)], side),
            ear,
            soft=True,
        )


def rabbit(pen: Pen, rng: random.Random) -> None:
    """Draw a sitting rabbit: two long ears, big teeth, a round tail."""
    fur = pen.pick(FUR)
    line, long, spread = pen.against(fur), rng.uniform(0.2, 0.23), rng.uniform(4, 18)
    pen.oval(0.26, 0.38, 0.09, 0.085, WHITE)
    pen.oval(0, 0.33, rng.uniform(0.22, 0.27), 0.17, fur)
    for side in (-1, 1):
        lean = math.radians(spread) * side
        x, y = side * 0.09 + math.sin(lean) * long, -0.08 - math.cos(lean) * long
        pen.oval(x, y, 0.075, long, fur, math.degrees(lean))
        pen.oval(x, y, 0.036, long * 0.75, PINK, math.degrees(lean), edge=False)
        pen.oval(side * 0.15, 0.46, 0.12, 0.05, mix(fur, WHITE, 0.3))
    pen.oval(0, 0.06, rng.uniform(0.22, 0.25), 0.2, fur)
    pen.eyes(0.1, 0.01, 0.05)
    for side in (-1, 1):
        pen.oval(side * 0.065, 0.12, 0.075, 0.055, mix(fur, WHITE, 0.6), edge=False)
        pen.line(mirror([(0.12, 0.12), (0.33, 0.08)], side), line if luma(fur) > 96 else WHITE, 0.018)
    pen.poly([(-0.045, 0.07), (0.045, 0.07), (0, 0.115)], PINK)
    pen.box(-0.05, 0.15, 0.0, 0.25, WHITE)
    pen.box(0.0, 0.15, 0.05, 0.25, WHITE)


def bird(pen: Pen, rng: random.Random) -> None:
    """Draw a bird from the side: beak, wing, tail and two legs."""
    coat = pen.pick(BRIGHT)
    wing, leg = mix(coat, BLACK, 0.35) if luma(coat) > 96 else mix(coat, WHITE, 0.4), (240, 150, 40)
    tail, beak = rng.uniform(0.46, 0.54), rng.uniform(0.46, 0.54)
    for x in (-0.04, 0.09):
        pen.line([(x, 0.22), (x, 0.44), (x - 0.09, 0.46)], leg, 0.035, True)
        pen.line([(x, 0.44), (x + 0.07, 0.46)], leg, 0.035)
    pen.poly([(0.2, 0.0), (tail, -0.16), (tail + 0.03, -0.02), (tail - 0.06, 0.08), (0.2, 0.16)], wing)
    pen.poly([(-beak, -0.2), (-0.3, -0.3), (-0.3, -0.13)], leg)
    pen.poly(
        [
            (-0.34, -0.24),
            (-0.2, -0.4),
            (-0.03, -0.3),
            (0.1, -0.1),
            (0.32, 0.04),
            (0.16, 0.24),
            (-0.12, 0.26),
            (-0.3, 0.06),
        ],
        coat,
        soft=True,
    )
    pen.poly([(-0.26, 0.04), (-0.12, 0.0), (-0.02, 0.16), (-0.12, 0.24)], mix(coat, WHITE, 0.65), False, soft=True)
    if rng.random() < 0.5:
        pen.poly([(-0.06, -0.1), (0.12, -0.08), (0.4, 0.1), (0.2, 0.14), (0.02, 0.12)], wing, soft=True)
    else:
        pen.poly([(-0.08, 0.06), (0.02, -0.2), (0.24, -0.48), (0.3, -0.2), (0.18, 0.08)], wing, soft=True)
    pen.oval(-0.2, -0.24, 0.055, 0.055, WHITE)
    pen.oval(-0.21, -0.24, 0.028, 0.03, BLACK, edge=False)


def fish(pen: Pen, rng: random.Random) -> None:
    """Draw a fish from the side: tail, fins, stripes, a round eye."""
    scale = pen.pick(BRIGHT)
    fin, tall, tail = pen.pick(BRIGHT, scale), rng.uniform(0.23, 0.31), rng.uniform(0.2, 0.3)
    pen.poly([(0.2, 0), (0.5, -tail), (0.44, 0), (0.5, tail)], fin)
    pen.poly([(-0.14, -tall * 0.8), (0.0, -tall - 0.15), (0.24, -tall - 0.06), (0.18, -0.1)], fin)
    pen.poly([(-0.02, tall * 0.8), (0.14, tall + 0.12), (0.2, 0.1)], fin)
    pen.poly(
        [
            (-0.5, 0.02),
            (-0.34, -tall * 0.75),
            (-0.1, -tall),
            (0.16, -tall * 0.6),
            (0.3, 0),
            (0.16, tall * 0.6),
            (-0.1, tall),
            (-0.34, tall * 0.75),
        ],
        scale,
        soft=True,
    )
    stripe = mix(fin, WHITE, 0.3) if abs(luma(fin) - luma(scale)) > 40 else pen.against(scale)
    for x in (-0.06, 0.07, 0.18)[: rng.randint(0, 3)]:
        reach = tall * (0.88 - abs(x) * 2.2)
        pen.line(arc(x - 0.03, 0, 0.05, reach, -80, 80, 6), stripe, 0.045)
    pen.line(arc(-0.28, 0, 0.07, tall * 0.6, -75, 75, 8), pen.against(scale), 0.028)
    pen.oval(-0.34, -0.06, 0.065, 0.065, WHITE)
    pen.oval(-0.35, -0.06, 0.035, 0.038, BLACK, edge=False)
    pen.line([(-0.47, 0.06), (-0.39, 0.09)], pen.against(scale), 0.028)


def butterfly(pen: Pen, rng: random.Random) -> None:
    """Draw a butterfly from above: four spotted wings, a slim body, feelers."""
    wing = pen.pick(BRIGHT)
    low, spot, top = mix(wing, pen.pick(BRIGHT, wing), 0.6), pen.pick(BRIGHT, wing), rng.uniform(0.42, 0.5)
    feeler = pen.ink if pen.backdrop > 110 else WHITE
    for side in (-1, 1):
        pen.poly(
            mirror([(0.02, 0.06), (0.24, 0.02), (0.4, 0.16), (0.34, 0.4), (0.2, 0.46), (0.08, 0.3)], side),
            low,
            soft=True,
        )
        pen.poly(
            mirror(
                [
                    (0.02, 0.06),
                    (0.06, -0.16),
                    (0.24, -top + 0.02),
                    (0.46, -top),
                    (0.52, -0.22),
                    (0.4, 0.04),
                    (0.2, 0.1),
                ],
                side,
            ),
            wing,
            soft=True,
        )
        pen.oval(side * 0.34, -0.24, 0.09, 0.11, spot)
        pen.oval(side * 0.23, 0.25, 0.065, 0.075, mix(spot, WHITE, 0.3))
        pen.line(mirror([(0.01, -0.2), (0.06, -0.38), (0.13, -0.46)], side), feeler, 0.025)
    pen.oval(0, 0.06, 0.05, 0.28, mix(BLACK, wing, 0.25))
    pen.oval(0, -0.21, 0.06, 0.06, mix(BLACK, wing, 0.25))


def tree(pen: Pen, rng: random.Random) -> None:
    """Draw a tree: a bare trunk under a cloud of leaves, or a fir of three tiers."""
    leaf, bark, thick = pen.pick(LEAF), rng.choice(((126, 78, 44), (160, 108, 66))), rng.uniform(0.06, 0.085)
    pen.poly(
        [
            (-thick, 0.0),
            (thick, 0.0),
            (thick + 0.01, 0.44),
            (thick + 0.07, 0.5),
            (-thick - 0.07, 0.5),
            (-thick - 0.01, 0.44),
        ],
        bark,
    )
    if rng.random() < 0.4:
        wide = rng.uniform(0.32, 0.4)
        for y, share in ((0.32, 1.0), (0.1, 0.8), (-0.12, 0.58)):
            pen.poly([(0, y - 0.38), (wide * share, y), (-wide * share, y)], mix(leaf, BLACK, 0.3 * share - 0.15))
        return
    puffs = [
        (-0.24, 0.02, 0.19),
        (0.24, 0.02, 0.19),
        (-0.17, -0.21, 0.2),
        (0.17, -0.21, 0.2),
        (0, -0.3, 0.2),
        (0, -0.04, 0.2),
    ]
    puffs = [(x, y, r * rng.uniform(0.94, 1.1)) for x, y, r in puffs]
    for x, y, r in puffs:
        pen.oval(x, y, r, r, leaf)
    for x, y, r in puffs:
        pen.oval(x, y, r - 0.012, r - 0.012, leaf, edge=False)
    fruit = rng.choice((None, pen.pick(BRIGHT, leaf)))
    for x, y in ((-0.22, -0.02), (0.2, 0.04), (0.02, -0.3), (-0.08, -0.16), (0.2, -0.2)):
        if fruit:
            pen.oval(x, y, 0.045, 0.045, fruit)
        else:
            pen.line(arc(x, y, 0.07, 0.05, 10, 170, 6), mix(leaf, BLACK, 0.5), 0.028)


def flower(pen: Pen, rng: random.Random) -> None:
    """Draw a flower: a ring of petals round a disc, a stem, two leaves."""
    petal = pen.pick(BRIGHT)
    heart, green = pen.pick([(250, 208, 60), (120, 70, 44), WHITE], petal), rng.choice(((50, 140, 60), (120, 180, 60)))
    count, reach, y = rng.choice((5, 6, 7, 8)), rng.uniform(0.19, 0.22), -0.18
    pen.line([(0, 0.0), (0.02, 0.25), (0, 0.48)], green, 0.05, True)
    for side in (-1, 1):
        pen.poly(mirror([(0.01, 0.42), (0.12, 0.26), (0.3, 0.22), (0.2, 0.38)], side), green, soft=True)
    start = rng.uniform(0, 360)
    for i in range(count):
        turn = start + 360 * i / count
        x, dy = reach * math.cos(math.radians(turn)), reach * math.sin(math.radians(turn))
        pen.oval(x, y + dy, 0.135, 0.6 / count + 0.015, petal, turn)
    pen.oval(0, y, 0.115, 0.115, heart)


def mushroom(pen: Pen, rng: random.Random) -> None:
    """Draw a mushroom: a domed cap with round spots on a pale stem."""
    cap = pen.pick([RED, (190, 80, 40), (130, 70, 170), (50, 110, 190), (240, 150, 40), (250, 190, 200), (120, 76, 50)])
    spot = WHITE if luma(cap) < 170 else RED
    wide, tall, stem = rng.uniform(0.42, 0.5), rng.uniform(0.46, 0.54), rng.uniform(0.11, 0.15)
    pen.poly(
        [(-stem, 0.0), (stem, 0.0), (stem, 0.3), (stem + 0.06, 0.48), (-stem - 0.06, 0.48), (-stem, 0.3)],
        (250, 238, 214),
    )
    pen.poly([*arc(0, 0.06, wide, tall, 180, 360, 22), *arc(0, 0.06, wide, 0.09, 0, 180, 10)], cap)
    pen.poly(arc(0, 0.12, stem + 0.05, 0.06, 0, 180, 8), (226, 206, 176))
    for x, y, r in ((-0.24, -0.08, 0.075), (0.02, -0.2, 0.1), (0.26, -0.1, 0.07), (0.03, 0.02, 0.05)):
        size = r * rng.uniform(0.85, 1.15)
        pen.oval(x * wide / 0.45, y * tall / 0.45 - 0.01, size, size * 0.9, spot)


def house(pen: Pen, rng: random.Random) -> None:
    """Draw a house: a gable roof, a door, windows and sometimes a chimney."""
    wall = pen.pick([(250, 236, 200), (232, 190, 130), (240, 240, 244), (170, 70, 60), (70, 120, 170), (196, 220, 160)])
    roof, eave = pen.pick(BRIGHT, wall), rng.uniform(-0.12, -0.04)
    wide, pane = rng.uniform(0.34, 0.4), rng.choice(((255, 232, 130), (170, 220, 250)))
    if rng.random() < 0.6:
        pen.box(0.17, -0.46, 0.29, -0.1, mix(roof, BLACK, 0.35))
    pen.box(-wide, eave, wide, 0.47, wall)
    pen.poly([(-wide - 0.1, eave), (0, -0.5), (wide + 0.1, eave)], roof)
    door, middle = pen.pick(BRIGHT, wall), rng.random() < 0.5
    x = 0 if middle else -wide * 0.45
    pen.box(x - 0.08, 0.18, x + 0.08, 0.47, door)
    for wx in (-wide * 0.64, wide * 0.64) if middle else (wide * 0.4,):
        size = 0.075 if middle else 0.11
        top = 0.1 if middle else 0.12
        pen.box(wx - size, top, wx + size, top + 0.17, pane)
        pen.line([(wx, top), (wx, top + 0.17)], pen.ink, 0.02)
        pen.line([(wx - size, top + 0.085), (wx + size, top + 0.085)], pen.ink, 0.02)
    pen.oval(0, (eave - 0.5) / 2 + 0.06, 0.06, 0.06, pane)


def car(pen: Pen, rng: random.Random) -> None:
    """Draw a car from the side: saloon, van or beetle body, windows, two wheels."""
    paint, glass = pen.pick(BRIGHT), (196, 232, 250)
    pen.lean(rng.uniform(-6, 6))
    kind, top = rng.choice(("saloon", "van", "beetle")), rng.uniform(-0.33, -0.27)
    cabins = {
        "saloon": [(-0.3, 0.0), (-0.17, top), (0.16, top), (0.32, 0.0)],
        "van": [(-0.4, 0.0), (-0.28, top), (0.44, top), (0.48, 0.0)],
        "beetle": arc(0.02, 0.02, 0.36, -top + 0.04, 180, 360, 12),
    }
    panes = {
        "saloon": (-0.22, -0.15, 0.02, 0.14, 0.24),
        "van": (-0.31, -0.24, -0.02, 0.38, 0.4),
        "beetle": (-0.24, -0.14, 0.03, 0.19, 0.28),
    }
    pen.poly(cabins[kind], paint)
    a, b, mid, c, d = panes[kind]
    for quad in (
        [(a, -0.02), (b, top + 0.06), (mid - 0.02, top + 0.06), (mid - 0.02, -0.02)],
        [(mid + 0.02, -0.02), (mid + 0.02, top + 0.06), (c, top + 0.06), (d, -0.02)],
    ):
        pen.poly(quad, glass)
    pen.poly([(-0.52, 0.06), (-0.47, -0.01), (0.46, -0.01), (0.52, 0.05), (0.52, 0.24), (-0.52, 0.24)], paint)
    pen.oval(-0.48, 0.09, 0.035, 0.045, (255, 240, 150))
    pen.line([(0.07, 0.07), (0.14, 0.07)], pen.against(paint), 0.028)
    for x in (-0.28, 0.29):
        pen.oval(x, 0.25, 0.135, 0.135, (44, 42, 50))
        pen.oval(x, 0.25, 0.065, 0.065, (224, 226, 232))


def boat(pen: Pen, rng: random.Random) -> None:
    """Draw a sailing boat: a hull, a mast, one or two sails, a flag."""
    hull, sail = pen.pick(BRIGHT), pen.pick([WHITE, *BRIGHT[:8]])
    mast, bow, two = (150, 96, 56), rng.uniform(0.44, 0.5), rng.random() < 0.65
    pen.line([(0, 0.2), (0, -0.48)], mast, 0.035, True)
    pen.poly([(0, -0.5), (0.15, -0.44), (0, -0.39)], RED if sail != RED else (250, 208, 60))
    pen.poly([(0.05, -0.36), (0.05, 0.13), (rng.uniform(0.36, 0.42), 0.13)], sail)
    if two:
        pen.poly([(-0.05, -0.3), (-0.05, 0.13), (rng.uniform(-0.36, -0.28), 0.13)], mix(sail, WHITE, 0.5))
    if rng.random() < 0.5:
        pen.line([(0.06, -0.02), (0.25, -0.02)], pen.against(sail), 0.03)
    pen.poly([(-bow, 0.2), (bow, 0.2), (bow * 0.68, 0.44), (-bow * 0.62, 0.44)], hull)
    pen.line([(-bow * 0.8, 0.29), (bow * 0.82, 0.29)], mix(hull, WHITE, 0.75) if luma(hull) < 180 else RED, 0.04)


def rocket(pen: Pen, rng: random.Random) -> None:
    """Draw a rocket: a pointed hull, side fins, a porthole, a flame."""
    hull = pen.pick([(240, 240, 244), (222, 48, 52), (250, 208, 60), (70, 120, 200), (120, 130, 146), (150, 214, 90)])
    trim, wide, fire = pen.pick(BRIGHT, hull), rng.uniform(0.15, 0.19), rng.uniform(0.44, 0.54)
    pen.lean(rng.uniform(-24, 24))
    pen.poly(
        [(-0.1, 0.24), (-0.13, 0.38), (-0.05, 0.36), (0, fire), (0.05, 0.36), (0.13, 0.38), (0.1, 0.24)], (250, 150, 40)
    )
    pen.poly([(-0.05, 0.25), (0, 0.4), (0.05, 0.25)], (255, 236, 120), edge=False)
    for side in (-1, 1):
        fin = [(wide - 0.02, -0.02), (wide + 0.17, 0.2), (wide + 0.15, 0.37), (wide - 0.04, 0.24)]
        pen.poly(mirror(fin, side), trim)
    half = [(0.0, -0.52), (wide * 0.6, -0.36), (wide, -0.12), (wide, 0.1), (wide * 0.72, 0.26)]
    pen.poly([*half, *mirror(half[:0:-1], -1)], hull)
    nose = [(0.0, -0.52), (wide * 0.6, -0.36), (wide * 0.78, -0.26)]
    pen.poly([*nose, *mirror(nose[:0:-1], -1)], trim)
    pen.oval(0, -0.1, 0.085, 0.085, WHITE)
    pen.oval(0, -0.1, 0.05, 0.05, (50, 110, 190), edge=False)
    if rng.random() < 0.5:
        pen.oval(0, 0.1, 0.05, 0.05, trim)
    else:
        pen.line([(0, 0.08), (0, 0.28)], trim, 0.06, True)


def balloon(pen: Pen, rng: random.Random) -> None:
    """Draw a hot-air balloon: a striped envelope, ropes, a basket."""
    first = pen.pick(BRIGHT)
    second, wide, low = pen.pick(BRIGHT, first), rng.uniform(0.36, 0.41), 0.2
    for x in (-1, 1):
        pen.line([(x * 0.17, 0.16), (x * 0.085, 0.38)], pen.ink if pen.backdrop > 110 else WHITE, 0.025)

    def gore(share: float) -> list[Point]:
        """Return the side of the envelope at a share of its width, top to bottom."""
        ends = arc(0, -0.14, wide * share, 0.36, -90, 15, 12)
        return [*ends, (wide * share * 0.74, 0.08), (0.13 * share, low)]

    shares = rng.choice(((1.0, 0.6, 0.2), (1.0, 0.33), (1.0, 0.72, 0.42, 0.14)))
    for i, share in enumerate(shares):
        pen.poly([*gore(share), *gore(-share)[::-1]], second if i % 2 else first)
    pen.box(-0.13, low - 0.01, 0.13, low + 0.04, second)
    pen.poly([(-0.12, 0.36), (0.12, 0.36), (0.09, 0.51), (-0.09, 0.51)], (176, 116, 60))
    pen.line([(-0.1, 0.42), (0.1, 0.42)], (96, 58, 30), 0.025)


def umbrella(pen: Pen, rng: random.Random) -> None:
    """Draw an open umbrella: a scalloped canopy in panels and a hooked handle."""
    first = pen.pick(BRIGHT)
    second, wide = rng.choice((mix(first, WHITE, 0.55), pen.pick(BRIGHT, first), mix(first, BLACK, 0.25))), 0.5
    handle, tall = pen.pick([(150, 86, 44), (240, 200, 120), (60, 60, 76)]), rng.uniform(0.38, 0.46)
    pen.line([(0, -0.5), (0, -0.4)], handle, 0.035, True)
    pen.line([(0, 0.0), (0, 0.38), *arc(0.1, 0.38, 0.1, 0.1, 180, 0, 10)], handle, 0.05, True)
    edges = [-wide, -wide * 0.36, wide * 0.36, wide]
    for i in (0, 2, 1):
        left, right = edges[i], edges[i + 1]
        rise = arc(0, 0.02, left, tall, 0, -90, 12)
        fall = arc(0, 0.02, right, tall, -90, 0, 12)
        scallop = arc((left + right) / 2, 0.02, (right - left) / 2, 0.07, 0, -180, 8)
        pen.poly([*rise, *fall, *scallop], second if i % 2 else first)


def mug(pen: Pen, rng: random.Random) -> None:
    """Draw a steaming mug with a big handle and a stripe, a heart or dots."""
    clay = pen.pick(BRIGHT)
    trim, low, top = pen.pick(BRIGHT, clay), rng.uniform(0.22, 0.28), rng.uniform(-0.2, -0.14)
    pen.line(arc(0.27, 0.14, 0.2, 0.17, -100, 100, 14), clay, 0.075, True)
    pen.poly([(-0.31, top), (0.31, top), *arc(0, 0.42, low + 0.02, 0.07, 0, 180, 10)], clay)
    kind = rng.choice(("stripe", "dots", "heart"))
    if kind == "stripe":
        pen.poly([(-0.295, 0.06), (0.295, 0.06), (0.285, 0.22), (-0.285, 0.22)], trim)
    elif kind == "dots":
        for x, y in ((-0.16, 0.04), (0.13, 0.06), (-0.01, 0.2), (-0.17, 0.33), (0.15, 0.34)):
            pen.oval(x, y, 0.055, 0.055, trim)
    else:
        pen.poly(
            [
                (0, 0.33),
                (-0.15, 0.15),
                (-0.12, 0.04),
                (-0.03, 0.04),
                (0, 0.1),
                (0.03, 0.04),
                (0.12, 0.04),
                (0.15, 0.15),
            ],
            trim,
        )
    pen.oval(0, top, 0.31, 0.085, mix(clay, WHITE, 0.4))
    pen.oval(0, top + 0.01, 0.24, 0.05, (92, 52, 32))
    steam = WHITE if pen.backdrop < 150 else (110, 116, 140)
    for x in (-0.12, 0.1):
        pen.line([(x, -0.26), (x + 0.05, -0.33), (x - 0.02, -0.4), (x + 0.04, -0.48)], steam, 0.035)


def clock(pen: Pen, rng: random.Random) -> None:
    """Draw a clock: a round face, ticks and two hands; sometimes with bells and feet."""
    rim, face = pen.pick(BRIGHT), rng.choice((WHITE, (255, 244, 200), (220, 240, 250)))
    bells = rng.random() < 0.5
    r, y = (0.38, 0.06) if bells else (0.46, 0.0)
    if bells:
        for side in (-1, 1):
            pen.line([(side * 0.22, 0.36), (side * 0.3, 0.47)], rim, 0.06, True)
            pen.oval(side * 0.24, -0.34, 0.15, 0.1, mix(rim, WHITE, 0.3), side * 36)
        pen.line([(0, -0.3), (0, -0.46)], rim, 0.05, True)
    pen.oval(0, y, r, r, rim)
    pen.oval(0, y, r - 0.075, r - 0.075, face)
    for i in range(12):
        c, s = math.cos(math.tau * i / 12), math.sin(math.tau * i / 12)
        if i % 3 == 0 or not bells:
            near, far = r - (0.16 if i % 3 == 0 else 0.13), r - 0.105
            pen.line([(near * c, y + near * s), (far * c, y + far * s)], BLACK, 0.035 if i % 3 == 0 else 0.02)
    minute = math.tau * rng.randrange(12) / 12
    hour = minute + rng.uniform(0.9, math.tau - 0.9)
    for turn, reach, wide in ((hour, r * 0.42, 0.055), (minute, r * 0.66, 0.035)):
        pen.line([(0, y), (reach * math.cos(turn), y + reach * math.sin(turn))], BLACK, wide)
    pen.oval(0, y, 0.045, 0.045, RED)


def key(pen: Pen, rng: random.Random) -> None:
    """Draw a key: a ring or clover bow, a shaft, a bit with teeth."""
    metal = pen.pick(METAL)
    pen.lean(rng.choice((-35, 35, 0, 55)) + rng.uniform(-10, 10))
    bow, teeth = rng.uniform(0.15, 0.18), rng.choice((2, 3))
    shaft = [(-0.045, -0.1), (0.045, -0.1), (0.045, 0.5), (-0.045, 0.5)]
    pen.poly(shaft, metal)
    for i in range(teeth):
        y, reach = 0.46 - i * 0.12, rng.choice((0.16, 0.2, 0.24))
        pen.poly([(0.03, y - 0.07), (reach, y - 0.07), (reach, y), (0.03, y)], metal)
    pen.poly([(x * 0.7, y * 0.985) for x, y in shaft], metal, edge=False)
    pen.box(-0.1, -0.1, 0.1, -0.04, metal)
    if rng.random() < 0.4:
        for x, y in ((-0.14, -0.2), (0.14, -0.2), (0, -0.38)):
            pen.line(arc(x, y, 0.095, 0.095, 0, 370, 20), metal, 0.07, True)
    else:
        pen.line(arc(0, -0.28, bow + 0.02, bow, 0, 370, 28), metal, 0.1, True)


def guitar(pen: Pen, rng: random.Random) -> None:
    """Draw a guitar: a waisted body, a sound hole, a fretted neck, a head with pegs."""
    wood = pen.pick(WOOD)
    neck, waist, hip = mix(wood, BLACK, 0.55), rng.uniform(0.13, 0.16), rng.uniform(0.24, 0.28)
    pen.lean(rng.choice((-1, 1)) * rng.uniform(15, 40))
    for y in (-0.52, -0.45):
        pen.line([(-0.1, y), (0.1, y)], WHITE, 0.03, True)
    pen.poly([(-0.06, -0.58), (0.06, -0.58), (0.045, -0.38), (-0.045, -0.38)], wood)
    half = [(0.1, -0.1), (0.19, -0.02), (waist, 0.14), (hip, 0.3), (0.2, 0.47)]
    pen.poly([(0, -0.1), *half, (0, 0.52), *mirror(half[::-1], -1)], wood, soft=True)
    pen.box(-0.045, -0.4, 0.045, 0.06, neck)
    for y in (-0.32, -0.24, -0.16, -0.08):
        pen.line([(-0.04, y), (0.04, y)], WHITE, 0.02)
    pen.oval(0, 0.12, 0.09, 0.09, BLACK)
    pen.box(-0.12, 0.33, 0.12, 0.38, neck)
    for x in (-0.022, 0.022):
        pen.line([(x, -0.38), (x, 0.35)], WHITE, 0.012)


def star(pen: Pen, rng: random.Random) -> None:
    """Draw a five-pointed star: plain, with an inner star, facets or a face."""
    gold = pen.pick(
        [(250, 208, 60), (255, 240, 160), (240, 130, 36), RED, (52, 110, 214), (214, 70, 150), (60, 160, 72)]
    )
    inner, kind = rng.uniform(0.2, 0.27), rng.choice(("plain", "double", "facets", "face"))

    def ring(size: float) -> list[Point]:
        """Return the ten corners of the star at a size."""
        spokes = [(size * (inner if i % 2 else 0.52), math.tau * (i / 10 - 0.25)) for i in range(10)]
        return [(r * math.cos(a), 0.03 + r * math.sin(a)) for r, a in spokes]

    pen.poly(ring(1), gold)
    if kind == "double":
        pen.poly(ring(0.52), mix(gold, WHITE, 0.6) if luma(gold) < 180 else RED)
    elif kind == "facets":
        spots = ring(0.96)
        for i in range(0, 10, 2):
            pen.poly([(0, 0.03), spots[i], spots[i + 1]], mix(gold, BLACK, 0.35), edge=False)
        pen.poly([*ring(1)[:2], (0, 0.03)], mix(gold, BLACK, 0.35), edge=False)
        pen.line([*ring(1), ring(1)[0]], pen.ink, 0.02)
    elif kind == "face":
        pen.eyes(0.085, -0.02, 0.05)
        pen.line(arc(0, 0.08, 0.08, 0.06, 10, 170, 8), pen.against(gold), 0.03)


OBJECTS: dict[str, Callable[[Pen, random.Random], None]] = {
    "cat": cat, "dog": dog, "rabbit": rabbit, "bird": bird, "fish": fish, "butterfly": butterfly, "tree": tree,
    "flower": flower, "mushroom": mushroom, "house": house, "car": car, "boat": boat, "rocket": rocket,
    "balloon": balloon, "umbrella": umbrella, "mug": mug, "clock": clock, "key": key, "guitar": guitar, "star": star,
}  # fmt: skip

NEIGHBOURS: dict[str, tuple[str, ...]] = {
    "cat": ("dog", "rabbit"), "dog": ("cat", "rabbit"), "rabbit": ("cat", "dog"), "bird": ("butterfly", "fish"),
    "fish": ("bird", "boat"), "butterfly": ("bird", "flower"), "tree": ("flower", "mushroom"),
    "flower": ("butterfly", "mushroom"), "mushroom": ("umbrella", "tree"), "house": ("car", "tree"),
    "car": ("house", "boat"), "boat": ("car", "fish"), "rocket": ("balloon", "star"), "balloon": ("rocket", "umbrella"),
    "umbrella": ("mushroom", "balloon"), "mug": ("clock", "key"), "clock": ("mug", "key"), "key": ("guitar", "clock"),
    "guitar": ("key", "mug"), "star": ("rocket", "flower"),
}  # fmt: skip

PLACES: dict[str, tuple[str, ...]] = {
    "cat": ("lawn", "room", "plain"), "dog": ("lawn", "room", "plain"), "rabbit": ("lawn", "room", "plain"),
    "bird": ("lawn", "sky", "plain"), "fish": ("water", "tank", "plain"), "butterfly": ("lawn", "sky", "plain"),
    "tree": ("lawn", "plain"), "flower": ("lawn", "room", "plain"), "mushroom": ("lawn", "room", "plain"),
    "house": ("lawn", "plain"), "car": ("lawn", "plain"), "boat": ("water", "water", "plain"),
    "rocket": ("night", "sky", "plain"), "balloon": ("sky", "lawn", "plain"), "umbrella": ("lawn", "room", "plain"),
    "mug": ("room", "room", "plain"), "clock": ("room", "plain"), "key": ("room", "plain"), "guitar": ("room", "plain"),
    "star": ("night", "sky", "plain"),
}  # fmt: skip

SKIES: list[tuple[Colour, Colour]] = [((120, 190, 246), (214, 238, 252)), ((250, 190, 150), (252, 234, 200)),
                                      ((196, 176, 240), (248, 226, 240)), ((46, 62, 120), (96, 96, 160))]  # fmt: skip
WALLS: list[tuple[Colour, Colour]] = [((244, 228, 196), (236, 212, 176)), ((206, 226, 222), (190, 214, 214)),
                                      ((70, 74, 104), (56, 58, 86)), ((240, 206, 206), (230, 190, 196)),
                                      ((66, 96, 84), (50, 78, 70))]  # fmt: skip


def gradient(side: int, top: Colour, bottom: Colour) -> Image.Image:
    """Return a square that fades from the top colour to the bottom one."""
    pair = Image.new("RGB", (1, 2), top)
    pair.putpixel((0, 1), bottom)
    return pair.resize((side, side), Image.Resampling.BILINEAR, box=(0, 0.5, 1, 1.5))


def cloud(draw: ImageDraw.ImageDraw, rng: random.Random, side: int, fill: Colour) -> None:
    """Draw one small cloud in the upper part."""
    x, y, r = rng.uniform(0, side), rng.uniform(0.05, 0.35) * side, rng.uniform(0.04, 0.08) * side
    for dx, grow in ((-1.3, 0.75), (0, 1.0), (1.3, 0.7)):
        draw.ellipse((x + dx * r - r * grow, y - r * grow, x + dx * r + r * grow, y + r * grow * 0.7), fill=fill)


def background(rng: random.Random, side: int, place: str) -> Image.Image:
    """Return one empty place: lawn, sky, water, tank, room, night or plain."""
    top, bottom = rng.choice(SKIES)
    dark = luma(top) < 100
    if place == "night":
        top, bottom = rng.choice(
            (((14, 16, 44), (48, 40, 92)), ((8, 22, 40), (20, 66, 90)), ((34, 14, 50), (86, 36, 84)))
        )
    elif place == "tank":
        top, bottom = rng.choice(
            (((150, 224, 240), (90, 180, 220)), ((30, 86, 140), (16, 44, 90)), ((170, 236, 214), (110, 200, 190)))
        )
    elif place == "room":
        top, bottom = rng.choice(WALLS)
    elif place == "plain":
        hue = rng.choice((*BRIGHT, *BRIGHT[9:12]))
        shift = (WHITE, 0.62) if rng.random() < 0.7 else (BLACK, 0.68)
        top, bottom = mix(hue, *shift), mix(hue, shift[0], shift[1] + 0.18)
    image = gradient(side, top, bottom)
    draw = ImageDraw.Draw(image)
    level = rng.uniform(0.58, 0.78) * side
    veil = mix(bottom, WHITE, 0.18 if dark else 0.55)
    if place in ("lawn", "sky", "water"):
        if rng.random() < 0.35:
            x, r = rng.uniform(0.05, 0.95) * side, rng.uniform(0.05, 0.09) * side
            draw.ellipse((x - r, 0.12 * side - r, x + r, 0.12 * side + r), fill=(255, 240, 170))
        for _ in range(rng.randint(0, 3)):
            cloud(draw, rng, side, veil)
    if place == "lawn":
        green = rng.choice(((150, 206, 110), (186, 214, 120), (226, 208, 150), (226, 236, 244)))
        green = mix(green, BLACK, 0.6) if dark else green
        if rng.random() < 0.6:
            x, r = rng.uniform(0, side), rng.uniform(0.3, 0.6) * side
            draw.ellipse((x - r, level - r * 0.4, x + r, level + r), fill=mix(green, bottom, 0.45))
        draw.rectangle((0, level, side, side), fill=green)
    elif place == "water":
        sea = rng.choice(((110, 190, 226), (120, 206, 196), (150, 170, 220)))
        sea = mix(sea, BLACK, 0.55) if dark else mix(sea, WHITE, 0.2)
        draw.rectangle((0, level, side, side), fill=sea)
        for _ in range(5):
            x, y = rng.uniform(0, side), rng.uniform(level + 8, side)
            draw.line((x, y, x + 0.12 * side, y), fill=mix(sea, WHITE, 0.4), width=side // 96)
    elif place == "tank":
        for _ in range(rng.randint(2, 6)):
            x, y, r = rng.uniform(0, side), rng.uniform(0, side), rng.uniform(0.01, 0.03) * side
            draw.ellipse((x - r, y - r, x + r, y + r), outline=mix(top, WHITE, 0.5), width=side // 128)
        if rng.random() < 0.6:
            draw.rectangle((0, 0.9 * side, side, side), fill=mix((226, 206, 150), bottom, 0.35))
    elif place == "room":
        if rng.random() < 0.5:
            gap = rng.randint(side // 9, side // 5)
            for x in range(rng.randrange(gap), side, gap):
                draw.line((x, 0, x, side), fill=mix(top, WHITE, 0.14), width=side // 40)
        board = mix((206, 160, 110), BLACK if luma(top) < 110 else WHITE, 0.55 if luma(top) < 110 else 0.25)
        draw.rectangle((0, level, side, side), fill=board)
    elif place == "night" or rng.random() < 0.3:
        tint = WHITE if place == "night" else mix(top, WHITE, 0.35)
        for _ in range(12):
            x, y, r = rng.uniform(0, side), rng.uniform(0, side), rng.uniform(0.004, 0.01) * side
            draw.ellipse((x - r, y - r, x + r, y + r), fill=tint)
    return image


def draw_scene(name: str, rng: random.Random, size: int = 128) -> Image.Image:
    """Return a size x size RGB picture of one named object before a background."""
    side = size * OVERSAMPLE
    image = background(rng, side, rng.choice(PLACES[name]))
    backdrop = luma(image.getpixel((side // 2, side // 4))) / 2 + luma(image.getpixel((side // 2, side * 3 // 4))) / 2
    OBJECTS[name](Pen(ImageDraw.Draw(image), rng, side, backdrop), rng)
    return image.reduce(OVERSAMPLE)
