"""Twenty fictional people: a stable face each, with free pose, expression, light, clothes and background."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from functools import lru_cache

from PIL import Image, ImageChops, ImageDraw

Colour = tuple[int, int, int]
Points = tuple[tuple[float, float], ...]
Blobs = list[tuple[float, float, float]]

SKINS: dict[str, Colour] = {
    "porcelain": (255, 230, 217),
    "light": (248, 208, 178),
    "peach": (240, 184, 146),
    "olive": (214, 170, 116),
    "tan": (196, 136, 88),
    "brown": (150, 94, 58),
    "deep": (112, 66, 42),
    "dark": (86, 54, 42),
}
HAIRS: dict[str, Colour] = {
    "black": (38, 34, 42),
    "dark brown": (78, 50, 36),
    "chestnut": (132, 78, 44),
    "ginger": (206, 94, 36),
    "blonde": (236, 196, 98),
    "grey": (148, 150, 158),
    "white": (236, 234, 230),
    "pink": (238, 92, 150),
    "teal": (28, 164, 164),
    "purple": (128, 72, 184),
    "blue": (52, 104, 214),
}
EYES: dict[str, Colour] = {
    "brown": (96, 58, 32),
    "blue": (58, 122, 196),
    "green": (66, 140, 84),
    "grey": (112, 124, 138),
    "amber": (180, 116, 34),
}
WIDTHS: dict[str, tuple[float, float]] = {
    "even": (1.0, 1.0),
    "narrow": (0.9, 1.0),
    "wide": (1.1, 0.97),
    "long": (0.93, 1.07),
}
INK: Colour = (44, 36, 50)
DEEP_SKINS = ("brown", "deep", "dark")


@dataclass(frozen=True)
class Face:
    """The traits of one person, the same in every picture."""

    skin: str
    hair: str
    style: str
    eyes: str = "brown"
    glasses: str = "none"
    beard: str = "none"
    mark: str = "none"
    width: str = "even"
    brows: str = "thin"
    nose: str = "button"
    earrings: str = "none"


PEOPLE: dict[str, Face] = {
    "Mara Voss": Face("porcelain", "ginger", "wavy", "green", mark="freckles"),
    "Teo Lindqvar": Face("light", "blonde", "crop", "blue", beard="stubble", width="long", nose="long"),
    "Ines Okaro": Face("deep", "black", "afro", earrings="hoops", nose="broad"),
    "Dalia Renwick": Face("deep", "ginger", "afro", glasses="round", earrings="hoops", nose="broad"),
    "Yuna Hartsel": Face("peach", "black", "bob", mark="mole"),
    "Pim Solvane": Face("peach", "teal", "bob", glasses="square", earrings="studs"),
    "Rolf Casterby": Face("light", "grey", "receding", "blue", beard="full", width="wide", brows="thick", nose="broad"),
    "Edmund Quillow": Face("light", "grey", "receding", "blue", "round", "moustache", "rosy", "wide", "thick", "broad"),
    "Nadir Belhame": Face("olive", "black", "side part", beard="full", brows="thick", nose="long"),
    "Cato Ferreny": Face("olive", "black", "side part", glasses="square", brows="thick", nose="long", width="narrow"),
    "Kofi Brandt": Face("dark", "black", "bald", beard="goatee", width="wide", nose="broad", earrings="studs"),
    "Jorun Takalo": Face("porcelain", "ginger", "bald", "grey", beard="full", mark="scar", brows="thick", nose="long"),
    "Zia Morrowe": Face("tan", "pink", "mohawk", "amber", mark="scar", width="narrow", earrings="studs"),
    "Lupe Andrada": Face("tan", "dark brown", "braids", mark="rosy", brows="thick"),
    "Ottilie Grane": Face("porcelain", "white", "bun", "grey", glasses="round", mark="rosy", earrings="studs"),
    "Wren Duskin": Face("light", "purple", "straight", "green", mark="freckles", width="narrow"),
    "Hana Ishivel": Face("light", "chestnut", "ponytail", "amber", mark="rosy", earrings="hoops"),
    "Amara Delsoe": Face("brown", "black", "straight", glasses="square", width="long", earrings="hoops"),
    "Silas Pendrake": Face("brown", "dark brown", "curls", "green", beard="moustache", brows="thick", nose="broad"),
    "Bex Orlanti": Face("olive", "blue", "crop", "amber", mark="mole", earrings="hoops"),
}
WEIGHTS: dict[str, int] = {
    "style": 8,
    "hair": 6,
    "glasses": 4,
    "beard": 4,
    "mark": 2,
    "earrings": 2,
    "eyes": 1,
    "width": 1,
    "brows": 1,
    "nose": 1,
}
SKIN_WEIGHT, SKIN_STEP = 6, 2


def neighbours(name: str, k: int = 2) -> tuple[str, ...]:
    """The k other people who share most traits with this one, bold traits counting for more."""
    face, tones = PEOPLE[name], list(SKINS)

    def shared(other: str) -> int:
        """Weighted count of the traits both have; a trait that both lack is none, near skin tones count in part."""
        them = PEOPLE[other]
        steps = abs(tones.index(face.skin) - tones.index(them.skin))
        same = sum(w for t, w in WEIGHTS.items() if getattr(face, t) == getattr(them, t) != "none")
        return same + max(0, SKIN_WEIGHT - SKIN_STEP * steps)

    return tuple(sorted((other for other in PEOPLE if other != name), key=lambda other: -shared(other))[:k])


def mix(a: Colour, b: Colour, part: float) -> Colour:
    """The colour that lies the given part of the way from a to b."""
    return tuple(round(x + (y - x) * part) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def dark(colour: Colour, part: float = 0.55) -> Colour:
    """A colour moved towards the ink of the outlines."""
    return mix(colour, INK, part)


def both(*right: tuple[float, float]) -> Points:
    """A symmetric outline from its right half, which starts and ends on the middle line."""
    return right + tuple((-x, y) for x, y in reversed(right) if x != 0)


@lru_cache(maxsize=256)
def smooth(points: Points, steps: int = 5) -> Points:
    """A closed Catmull-Rom curve through the points."""
    out, n = [], len(points)
    for i in range(n):
        a, b, c, d = (points[(i + j) % n] for j in (-1, 0, 1, 2))
        for step in range(steps):
            t = step / steps
            k = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
            out.append(tuple(0.5 * (k[0] * a[m] + k[1] * b[m] + k[2] * c[m] + k[3] * d[m]) for m in (0, 1)))
    return tuple(out)


@lru_cache(maxsize=512)
def ring(x: float, y: float, rx: float, ry: float, count: int = 22) -> Points:
    """An ellipse as a polygon."""
    turns = (2 * math.pi * i / count for i in range(count))
    return tuple((x + rx * math.cos(t), y + ry * math.sin(t)) for t in turns)


@dataclass
class Pen:
    """Draws in head units: the origin between the eyes, the chin at y = 1, tilted and scaled onto the canvas."""

    draw: ImageDraw.ImageDraw
    x: float
    y: float
    scale: float
    tilt: float = 0.0
    wide: float = 1.0
    tall: float = 1.0
    turn: float = 0.0
    line: int = field(init=False)

    def __post_init__(self) -> None:
        """Work out the outline width and the rotation once."""
        self.line = max(2, round(self.scale * 0.045))
        self.cos, self.sin = math.cos(self.tilt) * self.scale, math.sin(self.tilt) * self.scale

    def at(self, points: Points, depth: float = 0.0) -> list[tuple[float, float]]:
        """Canvas places of points; depth says how much of the head's turn they follow."""
        shift, c, s, w, h = depth * self.turn, self.cos, self.sin, self.wide, self.tall
        moved = (((px + shift) * w, py * h) for px, py in points)
        return [(self.x + px * c - py * s, self.y + px * s + py * c) for px, py in moved]

    def shape(self, points: Points, fill: Colour, depth: float = 0.0, edge: bool = True) -> None:
        """A filled outline."""
        placed = self.at(points, depth)
        self.draw.polygon(placed, fill=fill)
        if edge:
            self.draw.line(placed + placed[:2], fill=dark(fill), width=self.line, joint="curve")

    def oval(
        self, x: float, y: float, rx: float, ry: float, fill: Colour, depth: float = 0.0, edge: bool = False
    ) -> None:
        """A filled ellipse."""
        self.shape(ring(x, y, rx, ry), fill, depth, edge)

    def stroke(self, points: Points, colour: Colour, width: float, depth: float = 0.0) -> None:
        """A line with round ends."""
        placed, thick = self.at(points, depth), width * self.scale
        self.draw.line(placed, fill=colour, width=max(1, round(thick)), joint="curve")
        for px, py in (placed[0], placed[-1]):
            self.draw.ellipse((px - thick / 2, py - thick / 2, px + thick / 2, py + thick / 2), fill=colour)

    def blobs(self, spots: Blobs, fill: Colour, depth: float = 0.0) -> None:
        """Round tufts that share one outline."""
        rim = 0.045
        for grow, colour in ((rim, dark(fill)), (0.0, fill)):
            for x, y, r in spots:
                self.oval(x, y, r + grow, r + grow, colour, depth)


def arc(x: float, y: float, r: float, start: int, end: int, count: int, blob: float) -> Blobs:
    """Blobs along a circle, angles in degrees with 270 at the top."""
    turns = (math.radians(start + (end - start) * i / (count - 1)) for i in range(count))
    return [(x + r * math.cos(t), y + r * math.sin(t), blob) for t in turns]


def bend(x: float, y: float, half: float, sag: float, count: int = 9) -> Points:
    """A shallow bow centred on a place; a positive sag hangs down in the middle."""
    parts = [2 * i / (count - 1) - 1 for i in range(count)]
    return tuple((x + half * p, y + sag * (1 - p * p)) for p in parts)


HEAD = both((0, -1), (0.48, -0.9), (0.76, -0.5), (0.81, 0), (0.74, 0.45), (0.46, 0.86), (0, 1))
LIT_HEAD = tuple((x * 0.93, y * 0.955) for x, y in HEAD)
TIGHT = both(
    (0, -1.12),
    (0.5, -1.03),
    (0.83, -0.68),
    (0.89, -0.3),
    (0.84, -0.06),
    (0.77, -0.28),
    (0.6, -0.56),
    (0.3, -0.7),
    (0, -0.74),
)
FRONTS: dict[str, Points] = {
    "crop": both(
        (0, -1.19),
        (0.5, -1.12),
        (0.86, -0.76),
        (0.92, -0.32),
        (0.86, -0.02),
        (0.77, -0.12),
        (0.74, -0.4),
        (0.5, -0.62),
        (0.25, -0.54),
        (0, -0.62),
    ),
    "side part": (
        (-0.86, -0.02),
        (-0.93, -0.4),
        (-0.8, -0.85),
        (-0.42, -1.08),
        (0.05, -1.34),
        (0.6, -1.28),
        (0.98, -0.86),
        (0.95, -0.36),
        (0.86, -0.02),
        (0.78, -0.12),
        (0.75, -0.38),
        (0.4, -0.46),
        (-0.08, -0.6),
        (-0.44, -0.9),
        (-0.6, -0.66),
        (-0.75, -0.4),
        (-0.78, -0.1),
    ),
    "straight": both(
        (0, -1.16),
        (0.5, -1.1),
        (0.9, -0.7),
        (1.02, -0.1),
        (1.06, 0.6),
        (1.06, 1.3),
        (0.8, 1.32),
        (0.8, 0.7),
        (0.79, 0.1),
        (0.68, -0.34),
        (0.32, -0.72),
        (0, -0.9),
    ),
    "wavy": both(
        (0, -1.22),
        (0.55, -1.16),
        (0.98, -0.76),
        (1.02, -0.42),
        (1.2, -0.1),
        (1.08, 0.22),
        (1.28, 0.55),
        (1.1, 0.88),
        (1.24, 1.2),
        (0.9, 1.36),
        (0.78, 1.05),
        (0.9, 0.75),
        (0.74, 0.4),
        (0.82, 0.05),
        (0.66, -0.34),
        (0.3, -0.66),
        (0, -0.88),
    ),
    "bob": both(
        (0, -1.19),
        (0.55, -1.12),
        (0.97, -0.72),
        (1.07, -0.1),
        (1.12, 0.5),
        (1.02, 0.72),
        (0.82, 0.68),
        (0.76, 0.2),
        (0.74, -0.3),
        (0.6, -0.34),
        (0.3, -0.35),
        (0, -0.36),
    ),
    "bun": TIGHT,
    "ponytail": TIGHT,
    "braids": both(
        (0, -1.15),
        (0.5, -1.08),
        (0.88, -0.7),
        (0.98, -0.2),
        (0.99, 0.25),
        (0.86, 0.3),
        (0.78, 0),
        (0.68, -0.34),
        (0.32, -0.68),
        (0, -0.9),
    ),
}
BACKS: dict[str, Points] = {
    "straight": both((0, -1.1), (0.7, -0.9), (1, -0.2), (1.08, 0.6), (1.08, 1.5), (0.6, 1.56), (0, 1.56)),
    "wavy": both((0, -1.1), (0.7, -0.9), (1.1, 0), (1.2, 0.8), (1.2, 1.35), (0.7, 1.56), (0, 1.56)),
    "bob": both((0, -1.1), (0.7, -0.9), (1, -0.2), (1.06, 0.6), (0.9, 0.78), (0, 0.8)),
    "ponytail": (
        (0.5, -0.95),
        (0.95, -1.22),
        (1.36, -0.9),
        (1.5, -0.15),
        (1.34, 0.55),
        (1.16, 0.95),
        (1.12, 0.4),
        (1.06, -0.2),
        (0.8, -0.55),
    ),
}
SIDE_PATCH: Points = (
    (0.79, 0.05),
    (0.93, -0.05),
    (1.02, -0.38),
    (0.93, -0.72),
    (0.7, -0.92),
    (0.6, -0.78),
    (0.72, -0.52),
    (0.76, -0.2),
)
SPIKES = both(
    (0, -1.68),
    (0.1, -1.42),
    (0.28, -1.6),
    (0.3, -1.3),
    (0.5, -1.36),
    (0.42, -1.08),
    (0.52, -1.04),
    (0.32, -0.66),
    (0.16, -0.62),
    (0, -0.5),
)
AFRO_TOP = both(
    (0, -1.45), (0.7, -1.2), (1.05, -0.6), (0.98, -0.22), (0.84, -0.24), (0.6, -0.7), (0.3, -0.88), (0, -0.94)
)
BEARD = both(
    (0, 0.4), (0.22, 0.36), (0.48, 0.44), (0.7, 0.26), (0.78, -0.06), (0.87, 0), (0.87, 0.5), (0.6, 1), (0, 1.2)
)
STUBBLE = both((0, 0.42), (0.22, 0.38), (0.48, 0.46), (0.68, 0.3), (0.79, 0.05), (0.73, 0.46), (0.45, 0.85), (0, 0.98))
MOUSTACHE = both((0, 0.4), (0.18, 0.36), (0.4, 0.48), (0.52, 0.64), (0.3, 0.58), (0, 0.53))
GOATEE = both((0, 0.76), (0.2, 0.76), (0.3, 0.88), (0.2, 1.1), (0, 1.2))


def draw_hair_back(pen: Pen, face: Face) -> None:
    """The hair that hangs or stands behind the head."""
    hair = HAIRS[face.hair]
    if face.style in BACKS:
        pen.shape(smooth(BACKS[face.style]), dark(hair, 0.22), -0.4)
    elif face.style == "afro":
        pen.blobs([*arc(0, -0.42, 0.92, 150, 390, 11, 0.42), (0, -0.4, 0.95)], hair, -0.2)
    elif face.style == "bun":
        pen.oval(0, -1.3, 0.42, 0.36, hair, -0.2, edge=True)
        pen.stroke(bend(0, -1.3, 0.2, -0.12), mix(hair, (255, 255, 255), 0.25), 0.05, -0.2)
    elif face.style == "braids":
        for side in (-1, 1):
            pen.blobs([(side * (0.95 + 0.03 * i), 0.3 + 0.22 * i, 0.18 - 0.005 * i) for i in range(5)], hair, -0.2)
            pen.oval(side * 1.08, 1.36, 0.12, 0.08, (246, 196, 66), -0.2, edge=True)


def draw_hair_front(pen: Pen, face: Face) -> None:
    """The hair that lies over the forehead and temples."""
    hair, skin = HAIRS[face.hair], SKINS[face.skin]
    shine = mix(hair, (255, 255, 255), 0.22)
    if face.style == "bald":
        pen.stroke(bend(-0.25, -0.68, 0.22, -0.1), mix(skin, (255, 255, 255), 0.45), 0.09, 0.3)
    elif face.style == "receding":
        for side in (-1, 1):
            pen.shape(smooth(tuple((side * x, y) for x, y in SIDE_PATCH)), hair, 0.1)
    elif face.style == "mohawk":
        pen.shape(smooth(TIGHT), mix(skin, dark(hair), 0.35), 0.1, edge=False)
        pen.shape(SPIKES, hair, 0.3)
        pen.stroke(((-0.1, -1.3), (-0.13, -0.8)), shine, 0.06, 0.3)
    elif face.style == "afro":
        pen.blobs(arc(0, -0.1, 0.84, 188, 352, 9, 0.2), hair, 0.2)
        pen.shape(smooth(AFRO_TOP), hair, 0.2, edge=False)
        for x, y in ((-0.55, -1.15), (0.0, -1.32), (0.5, -1.12)):
            pen.stroke(bend(x, y, 0.12, -0.08, 5), shine, 0.05)
    elif face.style == "curls":
        pen.blobs([*arc(0, -0.2, 0.86, 178, 362, 11, 0.22), *arc(0, -0.32, 0.55, 215, 325, 5, 0.24)], hair, 0.2)
        for x, y in ((-0.5, -0.85), (-0.1, -1.0), (0.35, -0.9)):
            pen.stroke(bend(x, y, 0.1, -0.08, 5), shine, 0.045, 0.2)
    else:
        pen.shape(smooth(FRONTS[face.style]), hair, 0.2)
        pen.stroke(bend(0.32, -0.93, 0.24, -0.05), shine, 0.07, 0.3)
    if face.style == "ponytail":
        pen.oval(0.78, -0.84, 0.13, 0.13, (230, 72, 72), 0, edge=True)


def draw_head(pen: Pen, face: Face, lit: float) -> None:
    """Ears, earrings and the head, shaded on the side away from the light."""
    skin = SKINS[face.skin]
    for side in (-1, 1):
        pen.oval(side * 0.84, 0.08, 0.15, 0.22, skin, -0.5, edge=True)
        pen.oval(side * 0.86, 0.1, 0.07, 0.12, dark(skin, 0.25), -0.5)
    pen.shape(smooth(HEAD), dark(skin, 0.14))
    pen.shape(tuple((x + 0.045 * lit, y - 0.02) for x, y in smooth(LIT_HEAD)), skin, edge=False)


def draw_earrings(pen: Pen, face: Face) -> None:
    """Gold hoops or studs below the ears."""
    for side in (-1, 1):
        if face.earrings == "hoops":
            x = side * 0.92
            pen.stroke((*ring(x, 0.46, 0.13, 0.17), (x + 0.13, 0.46)), dark((244, 190, 60), 0.35), 0.085, -0.5)
            pen.stroke((*ring(x, 0.46, 0.13, 0.17), (x + 0.13, 0.46)), (250, 204, 80), 0.05, -0.5)
        elif face.earrings == "studs":
            pen.oval(side * 0.88, 0.3, 0.075, 0.075, (255, 222, 110), -0.5, edge=True)


def draw_marks(pen: Pen, face: Face) -> None:
    """Freckles, a mole, a scar over the brow or rosy cheeks."""
    skin = SKINS[face.skin]
    for side in (-1, 1):
        part = 0.62 if face.mark == "rosy" else 0.16
        pen.oval(side * 0.5, 0.36, 0.19, 0.13, mix(skin, (236, 84, 84), part), 0.8)
        if face.mark == "freckles":
            for x, y in ((0.34, 0.28), (0.48, 0.24), (0.6, 0.32), (0.42, 0.38), (0.54, 0.42)):
                pen.oval(side * x, y, 0.032, 0.032, mix(skin, (150, 70, 30), 0.75), 0.8)
    if face.mark == "mole":
        pen.oval(0.42, 0.46, 0.06, 0.06, mix(skin, (40, 20, 20), 0.85), 0.8)


def draw_scar(pen: Pen, face: Face) -> None:
    """A pale cut across one brow."""
    if face.mark == "scar":
        skin = SKINS[face.skin]
        pen.stroke(((0.3, -0.5), (0.4, -0.28), (0.44, -0.16)), mix(skin, (170, 30, 50), 0.6), 0.085, 1)
        pen.stroke(((0.3, -0.5), (0.4, -0.28), (0.44, -0.16)), mix(skin, (255, 226, 220), 0.6), 0.045, 1)


def draw_eyes(pen: Pen, face: Face, gaze: tuple[float, float], mood: str) -> None:
    """Whites, irises that follow the gaze, and the upper lids."""
    skin, iris, open_by = SKINS[face.skin], EYES[face.eyes], 0.13 if mood == "laugh" else 0.155
    for side in (-1, 1):
        x, y = side * 0.34, 0.02
        pen.oval(x, y, 0.17, open_by, (252, 250, 248), 1)
        gx, gy = x + gaze[0] * 0.055, y + gaze[1] * 0.03
        pen.oval(gx, gy, 0.105, 0.115, iris, 1)
        pen.oval(gx, gy, 0.058, 0.062, (24, 18, 22), 1)
        pen.oval(gx - 0.035, gy - 0.045, 0.03, 0.03, (255, 255, 255), 1)
        pen.stroke(bend(x, y - 0.03, 0.18, 0.03 - open_by), dark(skin, 0.85), 0.055, 1)


def draw_brows(pen: Pen, face: Face, mood: str) -> None:
    """Thick or thin brows, drawn together in a frown and raised in a laugh."""
    colour, lift = dark(HAIRS[face.hair], 0.35), {"frown": 0.03, "laugh": -0.06}.get(mood, 0.0)
    inner = 0.09 if mood == "frown" else -0.01
    if face.hair == "white":
        colour = dark(HAIRS["grey"], 0.2)
    for side in (-1, 1):
        y = -0.27 + lift
        places = ((side * 0.16, y + inner), (side * 0.34, y - 0.05), (side * 0.52, y + 0.02))
        pen.stroke(places, colour, 0.125 if face.brows == "thick" else 0.06, 1)


def draw_nose(pen: Pen, face: Face) -> None:
    """A button, long or broad nose."""
    shade = dark(SKINS[face.skin], 0.38)
    if face.nose == "long":
        pen.stroke(((0.03, 0.0), (0.11, 0.27), (0.08, 0.33), (-0.05, 0.33)), shade, 0.05, 1.4)
    elif face.nose == "broad":
        pen.stroke(bend(0, 0.26, 0.16, 0.09), shade, 0.06, 1.4)
    else:
        pen.stroke(bend(0, 0.27, 0.08, 0.06), shade, 0.05, 1.4)


def draw_glasses(pen: Pen, face: Face) -> None:
    """Round or square frames with clear lenses and arms that reach the ears."""
    if face.glasses == "none":
        return
    frame = (250, 240, 214) if face.skin in DEEP_SKINS else (34, 34, 46)
    for side in (-1, 1):
        x = side * 0.35
        if face.glasses == "round":
            rim = ring(x, 0.03, 0.275, 0.275)
        else:
            rim = ((x - 0.29, -0.2), (x + 0.29, -0.2), (x + 0.27, 0.24), (x - 0.27, 0.24))
        placed = pen.at(rim, 1)
        pen.draw.line(placed + placed[:2], fill=frame, width=round(pen.scale * 0.075), joint="curve")
        pen.stroke(((side * 0.63, -0.04), (side * 0.84, -0.06)), frame, 0.06, 0.6)
    pen.stroke(bend(0, 0.0, 0.08, -0.04, 5), frame, 0.06, 1)


def draw_mouth(pen: Pen, face: Face, mood: str) -> None:
    """A smile, a level mouth, a laugh or a frown."""
    lip = mix(SKINS[face.skin], (196, 56, 68) if face.skin in DEEP_SKINS else (176, 40, 56), 0.7)
    if face.beard == "full":
        lip = mix(lip, (246, 150, 140), 0.55)
    if mood == "laugh":
        pen.shape(smooth(both((0, 0.57), (0.3, 0.56), (0.22, 0.74), (0, 0.81))), (128, 30, 42), 1)
        pen.shape(both((0, 0.58), (0.25, 0.58), (0.21, 0.65), (0, 0.66)), (255, 252, 246), 1, edge=False)
        return
    sag, y = {"smile": (0.12, 0.6), "frown": (-0.11, 0.72)}.get(mood, (0.0, 0.66))
    pen.stroke(bend(0, y, 0.26 if mood == "smile" else 0.2, sag), lip, 0.075, 1)


def draw_beard(pen: Pen, face: Face) -> None:
    """Stubble, a moustache, a goatee or a full beard."""
    hair, skin = HAIRS[face.hair], SKINS[face.skin]
    if face.beard == "full":
        pen.shape(smooth(BEARD), hair, 0.15)
        pen.shape(smooth(MOUSTACHE), dark(hair, 0.15), 0.9, edge=False)
    elif face.beard == "stubble":
        pen.shape(smooth(STUBBLE), mix(skin, dark(hair, 0.4), 0.42), 0.1, edge=False)
    elif face.beard == "moustache":
        pen.shape(smooth(MOUSTACHE), hair, 0.9)
    elif face.beard == "goatee":
        pen.shape(smooth(GOATEE), hair, 0.8)
        pen.stroke(bend(0, 0.5, 0.26, -0.06), hair, 0.08, 0.9)


def draw_clothes(pen: Pen, skin: Colour, kind: str, cloth: Colour, second: Colour) -> None:
    """Neck, shoulders and one of five garments."""
    shoulders = smooth(both((0, 1.2), (0.36, 1.18), (0.85, 1.3), (1.3, 1.55), (1.5, 2.3), (0, 2.4)))
    throat = both((0, 0.6), (0.36, 0.6), (0.36, 1.2), (0.44, 1.3), (0, 1.5))
    if kind == "hoodie":
        pen.shape(smooth(both((0, 0.75), (0.6, 0.9), (0.86, 1.15), (0.8, 1.5), (0, 1.6))), dark(cloth, 0.25))
    pen.shape(shoulders, cloth)
    pen.shape(throat, dark(skin, 0.16))
    pen.shape(smooth(both((0, 0.9), (0.3, 0.85), (0.34, 1.02), (0, 1.2))), dark(skin, 0.36), edge=False)
    if kind == "shirt":
        for side in (-1, 1):
            flap = ((side * 0.36, 1.08), (0, 1.44), (side * 0.28, 1.66), (side * 0.56, 1.26))
            pen.shape(flap, mix(cloth, second, 0.25))
    elif kind == "hoodie":
        for side in (-1, 1):
            pen.shape(smooth(((side * 0.38, 1.02), (side * 0.7, 1.16), (side * 0.5, 1.44), (0, 1.6), (0, 1.42))), cloth)
            pen.stroke(((side * 0.17, 1.5), (side * 0.19, 1.75)), second, 0.06)
    elif kind == "jacket":
        pen.shape(((-0.44, 1.24), (0, 1.34), (0.44, 1.24), (0.2, 2.4), (-0.2, 2.4)), second)
        for side in (-1, 1):
            lapel = ((side * 0.36, 1.06), (side * 0.2, 1.8), (side * 0.66, 1.62), (side * 0.62, 1.2))
            pen.shape(lapel, dark(cloth, 0.2))
    elif kind == "dress":
        pen.shape(smooth(both((0, 1.2), (0.5, 1.24), (0.42, 1.46), (0, 1.6))), skin, edge=False)
        pen.stroke(bend(0, 1.27, 0.56, 0.34), second, 0.11)
    else:
        pen.shape(smooth(both((0, 1.12), (0.4, 1.02), (0.58, 1.18), (0.42, 1.4), (0, 1.46))), second)
        pen.shape(((0.1, 1.38), (0.42, 1.32), (0.5, 2.2), (0.14, 2.2)), dark(second, 0.12))


def fade(top: Colour, bottom: Colour, size: int) -> Image.Image:
    """A vertical run from one colour to another."""
    column = Image.new("RGB", (1, 48))
    column.putdata([mix(top, bottom, i / 47) for i in range(48)])
    return column.resize((size, size), Image.Resampling.NEAREST)


def tint(rng: random.Random, low: int, high: int) -> Colour:
    """A random colour with every channel between two bounds."""
    return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)


def draw_background(rng: random.Random, size: int) -> Image.Image:
    """A plain, graded, indoor, outdoor or bokeh backdrop."""
    kind, first, second = rng.randrange(5), tint(rng, 120, 235), tint(rng, 120, 235)
    if kind == 0:
        return Image.new("RGB", (size, size), first)
    if kind == 1:
        return fade(mix(first, (255, 255, 255), 0.3), dark(second, 0.25), size)
    if kind == 3:
        image = fade((120 + rng.randint(-20, 40), 190, 240), (222, 238, 246), size)
    elif kind == 4:
        image = fade(dark(first, 0.55), dark(second, 0.35), size)
    else:
        image = Image.new("RGB", (size, size), first)
    pen, s = ImageDraw.Draw(image), size / 100
    if kind == 2:
        pen.rectangle((0, 80 * s, size, size), fill=dark(second, 0.3))
        x, y, w = rng.uniform(-8, 75) * s, rng.uniform(6, 22) * s, rng.uniform(22, 34) * s
        frame, thick = mix(first, (255, 255, 255), 0.7), max(1, round(2 * s))
        pen.rectangle((x, y, x + w, y + w * 1.2), fill=(196, 226, 244), outline=frame, width=thick)
        pen.line((x + w / 2, y, x + w / 2, y + w * 1.2), fill=frame, width=thick)
    elif kind == 3:
        x, y, r = rng.uniform(5, 95) * s, rng.uniform(8, 24) * s, rng.uniform(5, 9) * s
        pen.ellipse((x - r, y - r, x + r, y + r), fill=(255, 240, 180))
        for colour, base in (((132, 184, 120), 58), ((96, 158, 92), 70)):
            x, y = rng.uniform(0, 100) * s, (base + rng.uniform(-6, 6)) * s
            pen.ellipse((x - 95 * s, y, x + 95 * s, y + 90 * s), fill=colour)
    else:
        for _ in range(14):
            x, y, r = rng.uniform(0, size), rng.uniform(0, size), rng.uniform(3, 10) * s
            glow = mix(dark(second, 0.3), (255, 244, 214), rng.uniform(0.1, 0.6))
            pen.ellipse((x - r, y - r, x + r, y + r), fill=glow)
    return image


def light_up(image: Image.Image, light: str, lit: float) -> Image.Image:
    """The picture under even, warm, cool, dim or one-sided light."""
    tones = {"warm": (255, 240, 214), "cool": (222, 236, 255), "dim": (212, 210, 220)}
    if light in tones:
        return ImageChops.multiply(image, Image.new("RGB", image.size, tones[light]))
    if light == "side":
        row = Image.new("L", (32, 1))
        row.putdata([round(255 - 62 * (1 - i / 31 if lit > 0 else i / 31)) for i in range(32)])
        grey = row.resize(image.size, Image.Resampling.BILINEAR)
        return ImageChops.multiply(image, Image.merge("RGB", (grey, grey, grey)))
    return image


def draw_portrait(name: str, rng: random.Random, size: int = 128) -> Image.Image:
    """One RGB portrait of the named person; everything but the person is drawn from rng."""
    face, big = PEOPLE[name], size * 3
    image = draw_background(rng, big)
    draw, scale = ImageDraw.Draw(image), rng.uniform(0.275, 0.32) * big
    x, y = rng.uniform(0.44, 0.56) * big, rng.uniform(0.51, 0.555) * big
    wide, tall = WIDTHS[face.width]
    tilt, turn = math.radians(rng.uniform(-8, 8)), rng.uniform(-0.13, 0.13)
    mood, light = rng.choice(("smile", "level", "laugh", "frown")), rng.choice(("even", "warm", "cool", "dim", "side"))
    gaze, lit = (rng.uniform(-1, 1), rng.uniform(-1, 1)), rng.choice((-1.0, 1.0))
    kind = rng.choice(("shirt", "hoodie", "jacket", "dress", "scarf"))
    cloth, second = tint(rng, 40, 230), tint(rng, 60, 245)
    pen, body = Pen(draw, x, y, scale, tilt, wide, tall, turn), Pen(draw, x - math.sin(tilt) * scale * 0.7, y, scale)
    draw_hair_back(pen, face)
    draw_clothes(body, SKINS[face.skin], kind, cloth, second)
    if face.style == "braids":
        draw_hair_back(pen, face)
    draw_head(pen, face, lit)
    draw_marks(pen, face)
    draw_beard(pen, face)
    draw_eyes(pen, face, gaze, mood)
    draw_nose(pen, face)
    draw_mouth(pen, face, mood)
    draw_hair_front(pen, face)
    draw_brows(pen, face, mood)
    draw_scar(pen, face)
    draw_glasses(pen, face)
    draw_earrings(pen, face)
    return light_up(image.reduce(3), light, lit)
