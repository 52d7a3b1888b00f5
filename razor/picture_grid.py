"""A grid of pictures over up to three things: noise, strength, round, branch, guidance, steps (an X / Y / Z plot).

The plan is a value: it knows how many pictures it takes, and refuses too many, before anything is drawn.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from razor.edit_set import MAX_STRENGTH
from razor.errors import InputError
from razor.growth import Growth
from razor.history import State
from razor.patches import Patch
from razor.picture_files import MAX_GUIDANCE, MAX_SEED, MAX_STEPS, Spec
from razor.pictures import DrawSettings, Job, Side

MAX_CELLS = 200
MAX_TEXT = 2000  # characters of an axis's values
AXES = ("seed", "strength", "round", "branch", "guidance", "steps")
EDITS = ("strength", "round", "branch")  # these change the edit, the others how it is drawn
# name -> kind of number, lowest and highest
_NUMBERS = {
    "seed": (int, 0, MAX_SEED),
    "strength": (float, 0, MAX_STRENGTH),
    "round": (int, 0, None),  # the highest is known only to the growth
    "guidance": (float, 0, MAX_GUIDANCE),
    "steps": (int, 1, MAX_STEPS),
}
_RANGE = re.compile(r"(\d+(?:\.\d+)?)\s*\.\.\s*(\d+(?:\.\d+)?)(?:\s+by\s+(\d+(?:\.\d+)?))?")

Value = int | float | str


@dataclass(frozen=True)
class GridAxis:
    """One thing that changes, and its values."""

    name: str  # one of AXES
    values: tuple[Value, ...]


@dataclass(frozen=True)
class GridPlan:
    """What a grid will draw: one prompt, settings, and up to three axes that override them.

    Raises:
        InputError: an axis twice, a round beside a branch, more than MAX_CELLS pictures, or nothing that changes.
    """

    prompt: str
    settings: DrawSettings
    x: GridAxis
    y: GridAxis | None = None
    z: GridAxis | None = None

    def __post_init__(self):
        names = [axis.name for axis in self.axes]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InputError(f"Two axes of the grid change the {twice}; choose something else for one of them.")
        if {"round", "branch"} <= {*names}:
            raise InputError("A round and a branch both say which edit is drawn; use one of them in a grid.")
        if self.count > MAX_CELLS:
            sizes = " x ".join(str(len(axis.values)) for axis in self.axes)
            product = f"{sizes} = " if len(self.axes) > 1 else ""
            raise InputError(f"{product}{self.count} pictures are too many for one grid; {MAX_CELLS} is the most.")

    @property
    def axes(self) -> tuple[GridAxis, ...]:
        return tuple(axis for axis in (self.x, self.y, self.z) if axis is not None)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Tables, rows and columns."""
        return tuple(1 if axis is None else len(axis.values) for axis in (self.z, self.y, self.x))

    @property
    def count(self) -> int:
        """Pictures in all."""
        tables, rows, columns = self.shape
        return tables * rows * columns

    def cells(self) -> Iterator[tuple[tuple[int, int, int], dict[str, Value]]]:
        """(table, row, column) and what the axes are there, row by row."""
        tables, rows, columns = self.shape
        for z in range(tables):
            for y in range(rows):
                for x in range(columns):
                    at = ((self.z, z), (self.y, y), (self.x, x))
                    yield (z, y, x), {axis.name: axis.values[i] for axis, i in at if axis is not None}

    def spec(self, cell: Mapping[str, Value]) -> Spec:
        """The picture of one cell, but for its edit."""
        drawn = {name: cell[name] for name in ("seed", "steps", "guidance") if name in cell}
        settings = replace(self.settings, **drawn)
        return Spec(self.prompt, settings.seed, settings.steps, settings.guidance, settings.side)

    def denoised(self) -> list[tuple[int, float, int]]:
        """Steps, guidance and side of each picture, for Easel.seconds."""
        specs = (self.spec(cell) for _, cell in self.cells())
        return [(spec.steps, spec.guidance, spec.side) for spec in specs]

    def jobs(self, side_of: Callable[[Mapping[str, Value]], Side]) -> list[Job]:
        """Every cell as a job; the place is (table, row, column).

        Args:
            side_of: the edit of a cell, asked once for each that differs.
        """
        sides: dict[tuple, Side] = {}
        jobs = []
        for place, cell in self.cells():
            edit = tuple((name, cell[name]) for name in EDITS if name in cell)
            if edit not in sides:
                sides[edit] = side_of(dict(edit))
            jobs.append(Job(place, self.spec(cell), sides[edit]))
        return jobs


def parse_axis(name: str, text: str, *, rounds: int | None = None, branches: Sequence[str] = ()) -> GridAxis:
    """An axis from what a person typed: "0, 0.5, 1", "1..4", "0..2 by 0.5", or names of branches.

    Args:
        rounds: rounds that led to the edit shown; None where nothing was grown.

    Raises:
        InputError: no such axis, no values, or a value that is none or out of range.
    """
    if name not in AXES:
        raise InputError(f"A grid has no axis {name!r}; choose among {', '.join(AXES)}.")
    if name in EDITS and rounds is None:
        raise InputError(f"Nothing was grown yet, so the {name} cannot change; grow the edit first.")
    if name == "branch":
        return GridAxis(name, _branches(text, branches))
    if len(text) > MAX_TEXT:
        raise InputError(f"The values of the {name} are {len(text):,} characters long; up to {MAX_TEXT:,} are read.")
    kind, low, high = _NUMBERS[name]
    high = rounds if name == "round" else high
    values: list[Value] = []
    for part in filter(None, (entry.strip() for entry in re.split(r"[,;\n]", text))):
        values += _numbers(name, part, kind)
    if not values:
        raise InputError(f"Say which values of the {name} to draw, such as {example_values(name)!r}.")
    for value in values:
        if not low <= value <= high:
            raise InputError(f"The {name} cannot be {value:g}; it goes from {low:g} to {high:g}.")
    return GridAxis(name, tuple(dict.fromkeys(values)))


def example_values(name: str, *, rounds: int | None = None, branches: Sequence[str] = ()) -> str:
    """Values to start from, as a person would type them."""
    last = max(1, rounds or 0)
    return {
        "seed": "1..4",
        "strength": "0, 0.5, 1",
        "round": f"0..{last}",
        "branch": ", ".join(branches),
        "guidance": "1, 4, 8",
        "steps": "10, 20",
    }.get(name, "")


def _branches(text: str, branches: Sequence[str]) -> tuple[str, ...]:
    if text.strip() in branches:  # a name may hold commas
        return (text.strip(),)
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in branches]:
        raise InputError(f"There is no branch {unknown[0]!r}; there are {', '.join(branches)}.")
    if not names:
        raise InputError(f"Say which branches to draw; there are {', '.join(branches)}.")
    return tuple(dict.fromkeys(names))


def _numbers(name: str, text: str, kind: type) -> list[Value]:
    """One entry of a list: a number, or a range with both ends in it."""
    if found := _RANGE.fullmatch(text):
        low, high, step = (float(part) if part else 1.0 for part in found.groups())
        if step == 0 or low > high:
            raise InputError(f"The range {text!r} of the {name} is empty; write it as in {example_values('seed')!r}.")
        if (high - low) / step > MAX_CELLS:
            raise InputError(f"The range {text!r} of the {name} has too many values; a grid holds {MAX_CELLS}.")
        values = [low + i * step for i in range(int((high - low) / step + 1e-9) + 1)]
    else:
        values = [_number(name, text)]
    if kind is int:
        if broken := next((value for value in values if value != int(value)), None):
            raise InputError(f"The {name} cannot be {broken:g}; it is a whole number.")
        return [int(value) for value in values]
    return [round(value, 6) for value in values]


def _number(name: str, text: str) -> int | float:
    if re.fullmatch(r"\d{1,19}", text):
        return int(text)  # a seed may be longer than a float is exact
    if not re.fullmatch(r"-?\d+(\.\d+)?", text):
        raise InputError(f"{text[:40]!r} is no {name}; write numbers, as in {example_values(name)!r}.")
    return float(text)


# The edit of a cell --------------------------------------------------------------------------------------------------


def state_of(growth: Growth, cell: Mapping[str, Value]) -> State | None:
    """The state a cell's round or branch stands for; None for the edit as it stands."""
    history = growth.history
    if "branch" in cell:
        return history.states[history.branches[cell["branch"]]]
    if "round" in cell:
        return history.path(history.position.state)[cell["round"]]
    return None


def patch_of(growth: Growth, cell: Mapping[str, Value], others: Patch = Patch()) -> Patch:
    """The whole edit of a cell.

    Args:
        others: edits that are there besides, such as concepts forgotten before; the strength leaves them alone.
    """
    state = state_of(growth, cell)
    own = growth.patch if state is None else growth.patch_of(state.edit_set, state)
    strength = cell.get("strength", 1.0)
    if strength == 0:
        return others
    return others + (own if strength == 1 else own.scaled(strength))
