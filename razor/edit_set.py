"""The edit set K: which units are edited, which must be, which must not."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from razor.errors import InputError
from razor.scoring import UnitScore, ranked, threshold


@dataclass(frozen=True)
class EditSet:
    """Names of units. A value: every change gives a new set."""

    members: tuple[str, ...] = ()  # in K, in the order they joined
    wanted: frozenset[str] = frozenset()  # picked by a person: the next round takes them in first
    banned: frozenset[str] = frozenset()  # never taken in
    rejected: frozenset[str] = frozenset()  # tried in a round that made things worse

    def want(self, names: Iterable[str]) -> "EditSet":
        """Mark units to join in the next round; lifts a ban."""
        names = frozenset(names)
        return replace(self, wanted=self.wanted | names, banned=self.banned - names, rejected=self.rejected - names)

    def ban(self, names: Iterable[str]) -> "EditSet":
        """Keep units out from now on. A unit already edited stays until the round that took it in is undone."""
        names = frozenset(names)
        return replace(self, wanted=self.wanted - names, banned=self.banned | names)

    def clear(self, names: Iterable[str]) -> "EditSet":
        """Neither wanted nor banned."""
        names = frozenset(names)
        return replace(self, wanted=self.wanted - names, banned=self.banned - names)

    def joined(self, names: Iterable[str]) -> "EditSet":
        """The set after a round took these in."""
        new = tuple(name for name in names if name not in self.members)
        return replace(self, members=self.members + new, wanted=self.wanted - set(new))

    def turned_down(self, names: Iterable[str]) -> "EditSet":
        """The set after a round with these was rejected."""
        names = frozenset(names)
        return replace(self, wanted=self.wanted - names, rejected=self.rejected | names)

    def propose(self, scores: Sequence[UnitScore], *, tau: float, count: int) -> list[UnitScore]:
        """Units for the next round: all wanted ones, then the highest phi above tau, up to `count` in all.

        Args:
            tau: quantile of phi, 0..1. More wanted units than `count` are all taken.
        """
        free = [s for s in ranked(scores) if s.unit.name not in self.members]
        first = [s for s in free if s.unit.name in self.wanted]
        level = threshold(scores, tau)
        out = self.wanted | self.banned | self.rejected
        rest = [s for s in free if s.unit.name not in out and s.phi > level]
        return first + rest[: max(0, count - len(first))]


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
