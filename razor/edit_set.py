"""The edit set K: which units are edited and how strongly, which must be, which must not."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from razor.errors import InputError
from razor.scoring import UnitScore, ranked, threshold

ACTIONS = ("in", "out", "lock", "unlock", "ban", "unban", "isolate", "restore")
MAX_STRENGTH = 2.0


@dataclass(frozen=True)
class EditSet:
    """Names of units. A value: every change gives a new set. No unit is both locked and banned."""

    members: tuple[str, ...] = ()  # in K, in the order they joined
    off: frozenset[str] = frozenset()  # edited before and switched off; their change is kept, growth leaves them out
    locked: frozenset[str] = frozenset()  # must be in
    banned: frozenset[str] = frozenset()  # must stay out
    rejected: frozenset[str] = frozenset()  # tried by growth in a round that made things worse
    strengths: tuple[tuple[str, float], ...] = ()  # units whose own strength is not 1, by name
    strength: float = 1.0  # of all units together
    isolated: str | None = None  # the one unit that acts, to see what it does alone

    def act(self, action: str, names: Iterable[str]) -> "EditSet":
        """The set after one of ACTIONS; units a lock or a ban protects stay as they are (see `refusal`).

        >>> chosen = EditSet().act("in", ["text.0.mlp"]).act("lock", ["text.0.head.1"]).act("ban", ["image.0.mlp"])
        >>> chosen.act("in", ["image.0.mlp"]).act("out", ["text.0.head.1", "text.0.mlp"]).members
        ('text.0.head.1',)
        >>> chosen.refusal("out", ["text.0.head.1"])
        'text.0.head.1 is locked, so nothing changed there; unlock it (L) first.'
        """
        return getattr(self, f"_{action}")(dict.fromkeys(names))

    def _in(self, names: Iterable[str]) -> "EditSet":
        new = tuple(n for n in names if n not in self.members and n not in self.banned)
        return replace(self, members=self.members + new, off=self.off - {*new}, rejected=self.rejected - {*new})

    def _out(self, names: Iterable[str]) -> "EditSet":
        gone = {n for n in names if n in self.members and n not in self.locked}
        left = tuple(n for n in self.members if n not in gone)
        return replace(self, members=left, off=self.off | gone, isolated=self._unless(self.isolated, gone))

    def _lock(self, names: Iterable[str]) -> "EditSet":
        free = [n for n in names if n not in self.banned]
        return replace(self._in(free), locked=self.locked | {*free})

    def _unlock(self, names: Iterable[str]) -> "EditSet":
        return replace(self, locked=self.locked - {*names})

    def _ban(self, names: Iterable[str]) -> "EditSet":
        free = {n for n in names if n not in self.locked}
        out = self._out(free)
        return replace(out, banned=self.banned | free, isolated=self._unless(out.isolated, free))

    def _unban(self, names: Iterable[str]) -> "EditSet":
        return replace(self, banned=self.banned - {*names})

    def _isolate(self, names: Iterable[str]) -> "EditSet":
        return replace(self, isolated=next((n for n in names if n not in self.banned), self.isolated))

    def _restore(self, names: Iterable[str]) -> "EditSet":
        return replace(self, isolated=None)

    @staticmethod
    def _unless(name: str | None, gone: set[str]) -> str | None:
        return None if name in gone else name

    def refusal(self, action: str, names: Iterable[str]) -> str:
        """Why `act` leaves some of these units as they are, in one sentence; "" when it takes all of them."""
        guard, key, undo = {
            "in": (self.banned, "banned", "lift the ban (B)"),
            "lock": (self.banned, "banned", "lift the ban (B)"),
            "isolate": (self.banned, "banned", "lift the ban (B)"),
            "out": (self.locked & {*self.members}, "locked", "unlock it (L)"),
            "ban": (self.locked, "locked", "unlock it (L)"),
        }.get(action, (frozenset(), "", ""))
        kept = [n for n in names if n in guard]
        if not kept:
            return ""
        more = f" and {len(kept) - 1} more are" if len(kept) > 1 else " is"
        return f"{kept[0]}{more} {key}, so nothing changed there; {undo} first."

    @property
    def active(self) -> tuple[str, ...]:
        """The units whose change acts now."""
        return self.members if self.isolated is None else (self.isolated,)

    def strength_of(self, name: str) -> float:
        """A unit's own strength, 1 unless set."""
        return dict(self.strengths).get(name, 1.0)

    def at_strength(self, value: float, name: str | None = None) -> "EditSet":
        """The set with all units, or one, at this strength (1 is the change as it was found).

        Raises:
            InputError: the strength is no number from 0 to MAX_STRENGTH.
        """
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_STRENGTH:
            raise InputError(f"A strength of {value!r} cannot be used; choose one from 0 to {MAX_STRENGTH:g}.")
        if name is None:
            return replace(self, strength=float(value))
        others = {n: s for n, s in self.strengths if n != name}
        return replace(self, strengths=tuple(sorted((others | ({name: float(value)} if value != 1 else {})).items())))

    def joined(self, names: Iterable[str]) -> "EditSet":
        """The set after a round took these in; strengths are part of the change from then on."""
        return replace(self._in(names), strengths=(), strength=1.0, isolated=None)

    def turned_down(self, names: Iterable[str]) -> "EditSet":
        """The set after a round that tried these was rejected."""
        return replace(self, rejected=self.rejected | {*names})

    def propose(self, scores: Sequence[UnitScore], *, tau: float, count: int) -> list[UnitScore]:
        """The `count` units of highest phi above tau that may join.

        Args:
            tau: quantile of phi, 0..1.
        """
        level = threshold(scores, tau)
        out = {*self.members} | self.off | self.banned | self.rejected
        return [s for s in ranked(scores) if s.unit.name not in out and s.phi > level][: max(0, count)]

    def to_json(self) -> dict:
        """Plain values, as stored in recipes and saved sessions."""
        plain = {key: sorted(v) if isinstance(v, frozenset) else v for key, v in vars(self).items()}
        return plain | {"members": list(self.members), "strengths": dict(self.strengths)}

    @classmethod
    def from_json(cls, values: dict) -> "EditSet":
        """The set behind `to_json`."""
        sets = {key: frozenset(values[key]) for key in ("off", "locked", "banned", "rejected")}
        read = {"members": tuple(values["members"]), "strengths": tuple(sorted(values["strengths"].items()))}
        return cls(**values | sets | read)


def describe_changes(before: EditSet, after: EditSet) -> str:
    """What turned one edit set into another, in words: "without a; b at 80 %"."""
    put_in = [n for n in after.members if n not in before.members]
    out = [n for n in before.members if n not in after.members]
    dialled = [
        f"{n} at {after.strength_of(n):.0%}" for n in after.members if after.strength_of(n) != before.strength_of(n)
    ]
    said = [f"with {', '.join(put_in)}"] if put_in else []
    said += [f"without {', '.join(out)}"] if out else []
    said += dialled
    said += [f"all at {after.strength:.0%}"] if after.strength != before.strength else []
    if after.isolated != before.isolated:
        said.append(f"only {after.isolated}" if after.isolated else f"not only {before.isolated} any more")
    return "; ".join(said)


def check_names(names: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    """The names, if every one is a unit of this model.

    Raises:
        InputError: one is not.
    """
    names, known = tuple(names), set(known)
    if unknown := [name for name in names if name not in known]:
        raise InputError(
            f"This model has no unit named {unknown[0]!r}; names look like {next(iter(sorted(known)), '')!r}."
        )
    return names
