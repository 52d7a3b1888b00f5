"""Drawn pictures as PNG files that say how they were drawn, a private folder of them, and any picture as an address.

Everything that repeats a picture rides in standard text chunks: "razor" as JSON, and "parameters" in the words other
programs show. Reading trusts nothing: sizes, types and ranges are checked, and no pixel is decoded.
"""

import io
import json
import math
import shutil
import struct
import tempfile
import threading
import time
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from PIL import Image, PngImagePlugin, features

from razor.errors import InputError
from razor.examples import Axis

FORMAT = "razor-picture-1"
MAX_BYTES = 32_000_000  # of a file that is read
MAX_TEXT = 400_000  # characters of the recipe a file carries
MAX_SIDE, MAX_STEPS, MAX_GUIDANCE, MAX_SEED = 2048, 200, 50.0, 2**63 - 1
MAX_PROMPT = 2000  # characters
MAX_KEPT = 480  # pictures of one album: the largest grid, two sides of every pair, and some to go back to
ABANDONED = 24 * 3600.0  # seconds after which a folder left behind by a crash is deleted
_PREFIX = "razor-pictures-"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Spec:
    """What the pixels of a picture depend on besides the weights."""

    prompt: str
    seed: int  # of its noise
    steps: int
    guidance: float
    side: int  # pixels


@dataclass(frozen=True)
class PictureInfo:
    """How a picture was drawn, and by what."""

    spec: Spec
    model: str  # as the person named it
    fingerprint: str  # of the unedited weights
    shown: str  # which side it is: "original", "edited" or a branch
    edit: str = ""  # Patch.key of the edit; "" for the unedited model
    recipe: Mapping = field(default_factory=dict)  # see recipe.py


def png_bytes(image: Image.Image, info: PictureInfo) -> bytes:
    """The picture as a PNG that carries how it was drawn."""
    chunks = PngImagePlugin.PngInfo()
    plain = {"format": FORMAT, **vars(info.spec), **{k: v for k, v in vars(info).items() if k != "spec"}}
    chunks.add_text("razor", json.dumps(plain, allow_nan=False))
    chunks.add_text("parameters", _parameters(info))  # as UTF-8 where Latin-1 does not do
    file = io.BytesIO()
    image.convert("RGB").save(file, "png", pnginfo=chunks)
    return file.getvalue()


def _parameters(info: PictureInfo) -> str:
    spec = info.spec
    facts = {
        "Steps": spec.steps,
        "CFG scale": f"{spec.guidance:g}",
        "Seed": spec.seed,
        "Size": f"{spec.side}x{spec.side}",
        "Model": info.model,
        "Model hash": info.fingerprint,
        "RAZOR": info.shown,
    }
    return f"{spec.prompt}\n{', '.join(f'{name}: {value}' for name, value in facts.items())}"


def read_png(data: bytes, name: str = "This file") -> PictureInfo:
    """How a picture of `png_bytes` was drawn.

    Raises:
        InputError: no PNG, too big, not drawn here, or a recipe that is broken or out of range.
    """
    if len(data) > MAX_BYTES:
        raise InputError(f"{name} is {len(data) / 1e6:.0f} MB; pictures up to {MAX_BYTES / 1e6:.0f} MB are read.")
    if not data.startswith(_SIGNATURE) or data[12:16] != b"IHDR" or len(data) < 33:
        raise InputError(f"{name} is not a PNG; give one that was downloaded from the pairs or the grid.")
    size = struct.unpack(">II", data[16:24])
    if max(size) > MAX_SIDE:
        raise InputError(f"{name} has {size[0]} x {size[1]} pixels; at most {MAX_SIDE} a side are read.")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as file:
            text = file.info.get("razor")
    except (OSError, SyntaxError, ValueError, struct.error) as error:  # what Pillow raises on damaged or huge chunks
        raise InputError(f"{name} cannot be read as a PNG ({type(error).__name__}).") from error
    if not isinstance(text, str):
        raise InputError(
            f"{name} does not say how it was drawn: it was not drawn here, or a program has removed the text since. "
            "Give a PNG that was downloaded from the pairs or the grid."
        )
    if len(text) > MAX_TEXT:
        raise InputError(f"{name} carries {len(text):,} characters of recipe; up to {MAX_TEXT:,} are read.")
    try:
        return _checked(json.loads(text, parse_constant=_refuse), size)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        said = str(error) if isinstance(error, ValueError) and str(error) else type(error).__name__
        raise InputError(f"The recipe in {name} cannot be used ({said}).") from error


def _checked(found: Mapping, size: tuple[int, int]) -> PictureInfo:
    """The info in parsed JSON; raises ValueError, KeyError or TypeError for what does not fit."""
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError("another format")
    spec = Spec(
        _text(found, "prompt", MAX_PROMPT),
        _whole(found, "seed", 0, MAX_SEED),
        _whole(found, "steps", 1, MAX_STEPS),
        _number(found, "guidance", 0.0, MAX_GUIDANCE),
        _whole(found, "side", 8, MAX_SIDE),
    )
    if not spec.prompt.strip():
        raise ValueError("an empty prompt")
    if size != (spec.side, spec.side):
        raise ValueError(f"the picture was resized from {spec.side} to {size[0]} x {size[1]} pixels")
    names = {key: _text(found, key, most) for key, most in (("model", 400), ("shown", 80))}
    hashes = {key: _text(found, key, 64) for key in ("fingerprint", "edit")}
    if any(set(value) - set("0123456789abcdef") for value in hashes.values()):
        raise ValueError("a hash that is none")
    if not isinstance(found["recipe"], dict):
        raise TypeError("recipe")
    return PictureInfo(spec, **names, **hashes, recipe=found["recipe"])


def _refuse(word: str):
    raise ValueError(f"{word} is no number")


def _text(found: Mapping, key: str, most: int) -> str:
    value = found[key]
    if not isinstance(value, str) or len(value) > most:
        raise ValueError(f"{key} is no text of up to {most} characters")
    return value


def _whole(found: Mapping, key: str, low: int, high: int) -> int:
    value = found[key]
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{key} is no whole number from {low} to {high}")
    return value


def _number(found: Mapping, key: str, low: float, high: float) -> float:
    value = found[key]
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not low <= value <= high:
        raise ValueError(f"{key} is no number from {low:g} to {high:g}")
    return float(value)


# A folder of them ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """A drawn picture: its file, and what a judge saw in it."""

    path: Path
    axes: tuple[Axis, ...] = ()  # what the judge was asked; none where there is no judge
    saw: Mapping[str, str] = field(default_factory=dict)  # axis -> class or "none"


class Album:
    """One visitor's drawn pictures, in a folder nobody else may list; the longest unused go when there are too many.

    Args:
        root: where the folder is made, once there is something to keep.
    """

    def __init__(self, root: Path, most: int = MAX_KEPT):
        self._root, self._most = root, most
        self._folder: tempfile.TemporaryDirectory | None = None
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()
        self._closed = False
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: Hashable) -> Kept | None:
        """The picture kept under this key, if its file is still there."""
        with self._lock:
            found = self._kept.get(key)
            if found is None or not found.path.exists():
                return None
            self._kept.move_to_end(key)
            return found

    def keep(self, key: Hashable, data: bytes, axes: Sequence[Axis] = (), saw: Mapping[str, str] | None = None) -> Kept:
        """Write a picture under a name nobody can guess; a closed album writes nothing."""
        with self._lock:
            if self._closed:
                return Kept(Path())
            if self._folder is None:
                self._root.mkdir(parents=True, exist_ok=True)
                _expire(self._root)
                self._folder = tempfile.TemporaryDirectory(
                    prefix=_PREFIX, dir=self._root.resolve(), ignore_cleanup_errors=True
                )
            path = Path(self._folder.name) / f"{uuid4().hex}.png"
            path.write_bytes(data)
            return self._put(key, Kept(path, tuple(axes), dict(saw or {})))

    def judged(self, key: Hashable, axes: Sequence[Axis], saw: Mapping[str, str]) -> Kept:
        """Note what a judge saw in a kept picture."""
        with self._lock:
            return self._put(key, Kept(self._kept[key].path, tuple(axes), dict(saw)))

    def _put(self, key: Hashable, kept: Kept) -> Kept:
        self._kept[key] = kept
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)[1].path.unlink(missing_ok=True)
        return kept

    def close(self) -> None:
        """Delete every picture; nothing is kept from now on."""
        with self._lock:
            self._closed = True
            self._kept.clear()
            if self._folder is not None:
                self._folder.cleanup()


def _expire(root: Path) -> None:
    """Delete folders a process left behind that ended without closing its albums."""
    for folder in root.glob(f"{_PREFIX}*"):
        try:
            if folder.is_dir() and time.time() - folder.stat().st_mtime > ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # somebody else is tidying up


def image_url(image: Image.Image, side: int = 256, kind: str = "") -> str:
    """A picture as a data address, no larger than `side` pixels. Drops EXIF and other metadata.

    Args:
        kind: "jpeg" for a page that is to open anywhere; default webp, or png where this Pillow cannot write it.
    """
    clear = kind != "jpeg" and ("transparency" in image.info or image.mode in ("RGBA", "LA"))
    small = image.convert("RGBA" if clear else "RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    kind = kind or ("webp" if features.check("webp") else "png")
    file = io.BytesIO()
    small.save(file, kind, **({"optimize": True} if kind == "png" else {"quality": 90}))
    return f"data:image/{kind};base64,{b64encode(file.getvalue()).decode('ascii')}"
