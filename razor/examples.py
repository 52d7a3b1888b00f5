"""Examples: pictures with captions, where they come from, and the checks they pass before anything uses them.

Pictures arrive from memory, a folder, a zip, or a csv / jsonl table beside the pictures. Nothing is written to disk.
A Task says what to forget, what to keep, and against which classes to measure; its splits never share a picture.
"""

import csv
import hashlib
import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice, zip_longest
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from razor.errors import ExampleError, InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
CAPTION_COLUMNS = ("caption", "text", "prompt", "label")
FILE_COLUMNS = ("file_name", "file", "image", "path", "filename")
MAX_PICTURES = 5000
MAX_PIXELS = 64_000_000
MAX_BYTES = 50_000_000  # one picture
MAX_ZIP_BYTES = 1_000_000_000  # all of an archive, unpacked
MIN_SIDE = 8  # pixels; anything smaller carries nothing a model could read
KEEP_SIDE = 512  # pictures are kept no larger than this
OWN = {"pictures": "own"}  # a label of own forget pictures among drawn ones: where a few are chosen, some are of each


# What Pillow raises on damaged files of one format or another.
_UNREADABLE = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    struct.error,
)


@dataclass(frozen=True, eq=False)
class Example:
    """One picture: RGB, its caption, and what is known of it (axis -> class)."""

    image: Image.Image
    caption: str
    labels: Mapping[str, str] = field(default_factory=dict)
    source: str = ""  # file name, or where in the bundled world it was drawn
    anchor: str = ""  # of a forget example: its caption with the forgotten thing replaced or left out

    @cached_property
    def digest(self) -> str:
        """sha256 of the decoded pixels, shortened; equal for equal pictures whatever their file format."""
        return hashlib.sha256(self.image.tobytes() + repr(self.image.size).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Axis:
    """A question with a closed list of answers: the classes and the prompts that stand for each."""

    name: str
    prompts: Mapping[str, Sequence[str]]  # class -> sentences; the class embedding is their mean

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.prompts)


@dataclass(frozen=True)
class Split:
    """Disjoint sets: gradients come from the first, step sizes from the second, reported numbers from the third."""

    gradient: tuple[Example, ...]
    search: tuple[Example, ...]
    test: tuple[Example, ...]

    def all(self) -> tuple[Example, ...]:
        return self.gradient + self.search + self.test


@dataclass(frozen=True)
class Task:
    """What to forget, what to keep, and how both are measured."""

    concept: str  # how the page names it: "cat"
    axis: str  # the axis it is a class of
    axes: tuple[Axis, ...]
    neighbours: tuple[str, ...]  # classes on that axis most likely to suffer
    forget: Split
    retain: Split
    origin: Mapping[str, str] = field(default_factory=dict)  # where both sets came from; for the recipe

    @property
    def chance(self) -> float:
        """Accuracy of guessing on the target's axis."""
        return 1 / len(next(axis for axis in self.axes if axis.name == self.axis).prompts)


@dataclass(frozen=True)
class Loaded:
    """What a source gave: the usable examples, and one sentence per thing that was skipped or looks wrong."""

    examples: tuple[Example, ...]
    warnings: tuple[str, ...]


def evenly(n: int, most: int) -> list[int]:
    """Up to `most` of the numbers 0..n-1, evenly spaced."""
    count = min(n, most)
    return [i * n // count for i in range(count)]


def varied(examples: Sequence[Example], most: int) -> list[int]:
    """Up to `most` rows of the examples, in order: of every kind of labels one before any comes again.

    Pictures of the bundled world come in cycles, so evenly spaced ones may show two styles alone.
    """
    kinds: dict[frozenset, list[int]] = {}
    for row in random.Random(0).sample(range(len(examples)), len(examples)):
        kinds.setdefault(frozenset(examples[row].labels.items()), []).append(row)
    turns = (row for rows in zip_longest(*kinds.values()) for row in rows if row is not None)
    return sorted(islice(turns, most))


def varied_beside(examples: Sequence[Example], most: int, axis: str, names: Sequence[str]) -> list[int]:
    """`varied`, but a quarter or more of the rows have one of these classes on the axis, where so many do: neighbours
    of what is forgotten are the first to suffer."""
    near = [i for i, e in enumerate(examples) if e.labels.get(axis) in names]
    rest = [i for i, e in enumerate(examples) if e.labels.get(axis) not in names]
    few = max(most // 4, most - len(rest))
    quarter = [near[i] for i in varied([examples[row] for row in near], few)]
    return sorted(quarter + [rest[i] for i in varied([examples[row] for row in rest], most - len(quarter))])


def open_image(data: bytes | Path, name: str) -> Image.Image:
    """Decode one picture as RGB, upright, first frame, without metadata.

    Raises:
        ExampleError: empty, corrupt, too big or too small.
    """
    size = len(data) if isinstance(data, bytes) else data.stat().st_size
    if size == 0:
        raise ExampleError(f"{name} is an empty file.")
    if size > MAX_BYTES:
        raise ExampleError(f"{name} is {size / 1e6:.0f} MB; pictures up to {MAX_BYTES / 1e6:.0f} MB are read.")
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as file:
            width, height = file.size
            if width * height > MAX_PIXELS:
                raise ExampleError(f"{name} has {width} x {height} pixels; up to 64 million are read.")
            if min(width, height) < MIN_SIDE:
                raise ExampleError(f"{name} is {width} x {height} pixels; at least {MIN_SIDE} x {MIN_SIDE} are needed.")
            animated = getattr(file, "n_frames", 1) > 1
            upright = ImageOps.exif_transpose(file)
            if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright.convert("RGBA"))
            image = upright.convert("RGB")
    except _UNREADABLE as error:
        raise ExampleError(f"{name} is not a readable picture ({type(error).__name__}).") from error
    image.thumbnail((KEEP_SIDE, KEEP_SIDE), Image.Resampling.LANCZOS)
    image.info = {"animated": True} if animated else {}
    return image


def load_examples(source: str | Path) -> Loaded:
    """Read pictures and captions from a folder, a zip, a csv / jsonl table or one picture.

    Captions come from a table (a caption column, or `metadata.jsonl` / `metadata.csv` in the folder or zip), else
    from the file's name without its number.

    Raises:
        ExampleError: nothing usable inside, or an archive or table that breaks the rules above.
    """
    path = Path(source)
    if not path.exists():
        raise ExampleError(f"No file or folder at {str(source)!r}; give a folder, zip, csv, jsonl or picture.")
    suffix = path.suffix.lower()
    if path.is_dir():
        inside = {str(p.relative_to(path)): p for p in sorted(path.rglob("*")) if p.is_file()}
        files = {name: p for name, p in inside.items() if _is_picture(name)}
        table = _table_in({p.name: p.read_text("utf-8-sig", "replace") for p in path.glob("metadata.*")})
        return collect(((name, file) for name, file in files.items()), table)
    if suffix == ".zip":
        return _load_zip(path)
    if suffix in (".csv", ".jsonl"):
        table = read_table(path.read_text("utf-8-sig", "replace"), path.name)
        inside = ((name, file_inside(path.parent, name)) for name in table)
        return collect(inside, table)
    if suffix in SUFFIXES:
        return collect([(path.name, path)], {})
    raise ExampleError(
        f"{path.name} is not a folder, zip, csv, jsonl or picture; pictures may be {', '.join(SUFFIXES)}."
    )


def collect(files: Iterable[tuple[str, bytes | Path | None]], captions: Mapping[str, str]) -> Loaded:
    """Decode (name, bytes or path) pairs; skip what cannot be used and say why.

    Raises:
        ExampleError: not one picture could be used.
    """
    examples, warnings, seen = [], [], {}
    for name, data in files:
        if len(examples) == MAX_PICTURES:
            warnings.append(f"Only the first {MAX_PICTURES} pictures were read.")
            break
        short = Path(name).name
        try:
            if data is None:
                raise ExampleError(f"{short} is named in the table but is not beside it.")
            image = open_image(data, short)
            if image.info.pop("animated", False):
                warnings.append(f"{short} is animated; its first frame is used.")
        except ExampleError as error:
            warnings.append(str(error))
            continue
        caption = captions.get(name, captions.get(short, "")).strip()
        if captions and not caption:
            warnings.append(f"{short} has no caption; its file name is used.")
        example = Example(image, caption or caption_from_name(short), source=short)
        if example.digest in seen:
            warnings.append(f"{short} is the same picture as {seen[example.digest]}; it is used once.")
            continue
        seen[example.digest] = short
        examples.append(example)
    if not examples:
        reason = warnings[0] if warnings else f"No pictures found; expected {', '.join(SUFFIXES)}."
        raise ExampleError(f"No usable picture: {reason}")
    return Loaded(tuple(examples), tuple(warnings))


def read_table(text: str, name: str) -> dict[str, str]:
    """File name -> caption from csv or jsonl text.

    Raises:
        ExampleError: no file column, no caption column, or not the format its name says.
    """
    try:
        if name.lower().endswith(".jsonl"):
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = list(csv.DictReader(io.StringIO(text)))
    except (json.JSONDecodeError, csv.Error) as error:
        raise ExampleError(f"{name} is not a valid table: {error}.") from error
    columns = list(rows[0]) if rows and isinstance(rows[0], dict) else []
    file_column = next((c for c in FILE_COLUMNS if c in columns), None)
    caption_column = next((c for c in CAPTION_COLUMNS if c in columns), None)
    if file_column is None or caption_column is None:
        raise ExampleError(
            f"{name} has the columns {', '.join(map(str, columns)) or 'none'}; it needs a file column "
            f"({', '.join(FILE_COLUMNS)}) and a caption column ({', '.join(CAPTION_COLUMNS)})."
        )
    return {str(row.get(file_column)): str(row.get(caption_column) or "") for row in rows if isinstance(row, dict)}


def caption_from_name(name: str) -> str:
    """A caption from a file name: 'red_cat-03.png' -> 'red cat'."""
    words = Path(name).stem.replace("_", " ").replace("-", " ").split()
    return " ".join(word for word in words if not word.isdigit()) or Path(name).stem


def shared_pictures(forget: Sequence[Example], retain: Sequence[Example]) -> tuple[Example, ...]:
    """Retain examples whose picture is also in the forget set."""
    known = {example.digest for example in forget}
    return tuple(example for example in retain if example.digest in known)


def check_apart(forget: Sequence[Example], retain: Sequence[Example]) -> None:
    """Raise ExampleError where a picture is to be forgotten and kept."""
    if shared := shared_pictures(forget, retain):
        raise ExampleError(
            f"{len(shared)} picture{'s' if len(shared) > 1 else ''} ({shared[0].source}, ...) stand in both the forget "
            "and the retain set; remove them from one."
        )


def split_examples(examples: Sequence[Example], seed: int = 0) -> Split:
    """Shuffle and cut 60 / 20 / 20, at least one each.

    Raises:
        ExampleError: fewer than three examples, so the three sets cannot be disjoint.
    """
    if len(examples) < 3:
        raise ExampleError(
            f"{len(examples)} picture{'s are' if len(examples) != 1 else ' is'} too few: gradients, step search and "
            "reported numbers need one each that the others never see. Give at least 3, better 10."
        )
    order = list(examples)
    random.Random(seed).shuffle(order)
    held = max(1, round(0.2 * len(order)))
    return Split(tuple(order[2 * held :]), tuple(order[:held]), tuple(order[held : 2 * held]))


def user_task(
    forget: Sequence[Example],
    retain: Sequence[Example],
    *,
    concept: str,
    labels: Sequence[str] = (),
    seed: int = 0,
    anchor: str = "",
    origin: Mapping[str, str] | None = None,
    axis: str = "label",
) -> Task:
    """A task from a person's own pictures, measured on one axis.

    Args:
        concept: what the forget pictures show, in words.
        anchor: what stands in for it where a model draws, in words; "" leaves it out.
        labels: classes to measure against, the concept among them; default: the concept and the retain captions.
        axis: what the axis is called.

    Raises:
        ExampleError: a set is empty or too small, or the two share pictures.
        InputError: no concept, or a concept that is none of the labels.
    """
    concept = concept.strip()
    if not concept:
        raise InputError("Say what to forget: give the concept in words, such as 'red bicycle'.")
    for name, examples in (("forget", forget), ("retain", retain)):
        if not examples:
            raise ExampleError(f"The {name} set is empty; add pictures to it.")
    check_apart(forget, retain)
    captions = list(dict.fromkeys(e.caption for e in retain if e.caption))
    classes = [label.strip() for label in labels if label.strip()] or [concept, *captions[:40]]
    match = {name.lower(): name for name in classes}
    if concept.lower() not in match:
        raise InputError(f"The concept {concept!r} is none of the labels ({', '.join(classes)}); add it to them.")
    if len(match) < 2:
        raise InputError("One label leaves nothing to confuse the concept with; give at least two labels.")
    target = match[concept.lower()]
    prompts = {name: (f"a picture of {name}", name, f"a photo of {name}") for name in match.values()}
    anchors = {e.caption: anchored_caption(e.caption, target, anchor) for e in forget}
    forget = [Example(e.image, e.caption, {axis: target}, e.source, anchors[e.caption]) for e in _distinct(forget)]
    shown = {e.caption: _label_in(e.caption, match, target) for e in retain}
    labels = {caption: {axis: name} if name else {} for caption, name in shown.items()}
    retain = [Example(e.image, e.caption, labels[e.caption], e.source) for e in _distinct(retain)]
    splits = split_examples(forget, seed), _split_labelled(retain, seed)
    return Task(target, axis, (Axis(axis, prompts),), (), *splits, origin or {})


def joined(
    task: Task,
    forget: Sequence[Example],
    retain: Sequence[Example],
    *,
    concept: str,
    seed: int = 0,
    anchor: str = "",
    origin: Mapping[str, str] | None = None,
) -> Task:
    """A task with a person's own pictures added to its sets, own ones and the task's taking turns.

    Args:
        concept, anchor: as the captions of the forget pictures name it, and what stands in for it there.

    Raises:
        ExampleError: fewer than three forget pictures.
    """
    match = {name.lower(): name for axis in task.axes if axis.name == task.axis for name in axis.prompts}
    labels = {task.axis: task.concept} | OWN
    forget = [
        Example(e.image, e.caption, labels, e.source, anchored_caption(e.caption, concept.strip(), anchor))
        for e in _distinct(forget)
    ]
    shown = [(e, _label_in(e.caption, match, task.concept)) for e in _distinct(retain)]
    retain = [Example(e.image, e.caption, {task.axis: name} if name else {}, e.source) for e, name in shown]
    own = {
        "forget": split_examples(forget, seed),
        "retain": split_examples(retain, seed) if len(retain) >= 3 else Split(tuple(retain), (), ()),
    }
    known = {e.digest for e in (*forget, *retain)}
    sides = {}
    for side, mine in own.items():
        pairs = zip(vars(mine).values(), vars(getattr(task, side)).values(), strict=True)
        apart = [zip_longest(part, [e for e in others if e.digest not in known]) for part, others in pairs]
        sides[side] = Split(*(tuple(e for turn in turns for e in turn if e is not None) for turns in apart))
    return replace(task, **sides, origin=origin or task.origin)


def anchored_caption(caption: str, concept: str, anchor: str = "") -> str:
    """The caption with the concept replaced by its anchor, or left out; the anchor alone where it is not named.

    "a photo of a red bicycle" with the concept "red bicycle" and the anchor "vehicle" reads "a photo of a vehicle".
    """
    said, count = re.subn(rf"(?<!\w){re.escape(concept)}(?!\w)", anchor, caption, flags=re.IGNORECASE)
    if not count:
        return anchor
    return re.sub(r"\s*(\b(in the style of|of|by|,|an?)\s*)+$", "", " ".join(said.split())).strip() or anchor


def _distinct(examples: Sequence[Example]) -> list[Example]:
    """Each picture once, so that no two splits can share one."""
    return list({example.digest: example for example in examples}.values())


def _split_labelled(retain: Sequence[Example], seed: int) -> Split:
    """Cut so that every part has pictures whose class is known; the others add to the parts evenly.

    Raises:
        ExampleError: fewer than three have a known class.
    """
    known, other = [e for e in retain if e.labels], [e for e in retain if not e.labels]
    if len(known) < 3:
        raise ExampleError(
            f"{len(known)} of {len(retain)} retain pictures have one of the labels in their caption; at least 3 are "
            "needed to measure what is kept. Add pictures, or put the labels into the captions."
        )
    parts = split_examples(known, seed)
    if len(other) < 3:
        return Split((*parts.gradient, *other), parts.search, parts.test)
    more = split_examples(other, seed)
    return Split(*(getattr(parts, name) + getattr(more, name) for name in ("gradient", "search", "test")))


def _label_in(caption: str, match: Mapping[str, str], target: str) -> str:
    """The longest label the caption contains, or ""; the forgotten one does not count."""
    words = caption.lower()
    found = [low for low in match if match[low] != target and re.search(rf"(?<!\w){re.escape(low)}(?!\w)", words)]
    return match[max(found, key=len)] if found else ""


def _is_picture(name: str) -> bool:
    base = Path(name).name
    return base.lower().endswith(SUFFIXES) and not base.startswith(".") and "__MACOSX" not in name


def file_inside(folder: Path, name: str) -> Path | None:
    """The file `name` inside `folder`, or None when it is missing or points outside."""
    try:
        path = (folder / name).resolve()
        return path if path.is_relative_to(folder.resolve()) and path.is_file() else None
    except (OSError, ValueError):  # a name no file system takes
        return None


def _table_in(texts: Mapping[str, str]) -> dict[str, str]:
    name = next((n for n in ("metadata.jsonl", "metadata.csv") if n in texts), None)
    return read_table(texts[name], name) if name else {}


def _load_zip(path: Path) -> Loaded:
    """Read a zip in memory: nothing is extracted, names never become paths, declared and real sizes are capped."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not m.is_dir() and "__MACOSX" not in m.filename]
            if unsafe := [m.filename for m in members if m.filename.startswith("/") or ".." in Path(m.filename).parts]:
                raise ExampleError(f"{path.name} holds the path {unsafe[0]!r}, which points outside the archive.")
            total = sum(m.file_size for m in members)
            packed = max(1, sum(m.compress_size for m in members))
            if total > MAX_ZIP_BYTES or (total > 50_000_000 and total / packed > 100):
                raise ExampleError(
                    f"{path.name} unpacks to {total / 1e6:.0f} MB ({total / packed:.0f} times its size); "
                    f"archives up to {MAX_ZIP_BYTES / 1e6:.0f} MB that are not mostly padding are read."
                )
            tables = {Path(m.filename).name: m for m in members if Path(m.filename).stem == "metadata"}
            table = _table_in({name: _read(archive, m).decode("utf-8-sig", "replace") for name, m in tables.items()})
            pictures = ((m.filename, _read(archive, m)) for m in members if _is_picture(m.filename))
            return collect(pictures, table)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise ExampleError(f"{path.name} cannot be read as a zip ({error}).") from error


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """At most MAX_BYTES + 1 bytes of a member, whatever size it claims."""
    with archive.open(member) as file:
        return file.read(MAX_BYTES + 1)
