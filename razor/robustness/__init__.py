"""Attacks on an edit, one file each, every one with its control: the same done to the unedited model."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from razor.adapters.base import Adapter
from razor.errors import InputError
from razor.examples import Task
from razor.robustness.case import Case, Finding
from razor.robustness.prefix import prefix
from razor.robustness.probe import probe
from razor.robustness.prompts import opened, transfer
from razor.robustness.quantise import quantise
from razor.robustness.relearning import benign, relearn, too_few
from razor.robustness.rewording import reworded
from razor.robustness.wording import wording

_ANY: Mapping[str, Callable[[Case], Iterator[Finding]]] = {"quantise": quantise, "relearn": relearn, "benign": benign}
ATTACKS: Mapping[str, Mapping[str, Callable[[Case], Iterator[Finding]]]] = {
    "clip": {**_ANY, "wording": wording, "prefix": prefix, "probe": probe},
    "diffusion": {**_ANY, "opened": opened, "transfer": transfer},
    "vlm": {**_ANY, "reworded": reworded},
}
_NOTHING_TO_LEARN = ("benign",)  # what was kept teaches no concept: nothing comes back where it never was
DRAWN = ("opened", "transfer")  # read from drawn pictures alone


def possible(adapter: Adapter, task: Task) -> list[str]:
    """The attacks that can be done: none that draws pictures where no judge can say what they show."""
    blind = adapter.family == "diffusion" and not (adapter.judge and adapter.judge.reads(task.axes))
    return [name for name in ATTACKS[adapter.family] if not (blind and name in DRAWN)]


def find(name: str, family: str) -> Callable[[Case], Iterator[Finding]]:
    """The attack of this name on models of a family.

    Raises:
        InputError: there is none.
    """
    known = ATTACKS[family]
    if name not in known:
        raise InputError(f"There is no attack {name!r} on a {family} model; choose one of {', '.join(known)}.")
    return known[name]


def attack(name: str, case: Case) -> Iterator[Finding]:
    """What this attack finds, one setting after the other. Raises InputError as `find` does.

    With an adapter, a task, and a patch that run.unlearn made of them:

    >>> found = list(attack("quantise", Case(adapter, task, patch)))
    >>> [f.setting for f in found]
    ['8 bits', '4 bits']
    >>> found[0].attacked.value < 0.2 < 0.8 < found[0].control.value  # the edit holds; unedited, the concept is known
    True
    """
    work = find(name, case.adapter.family)
    return work(case) if case.gold is None or name in _NOTHING_TO_LEARN else _beside_gold(name, work, case)


def _beside_gold(name: str, work: Callable[[Case], Iterator[Finding]], case: Case) -> Iterator[Finding]:
    """The same with what a model that never saw the concept gives, which is attacked once whatever is edited."""
    known, found = case.gold.known, []
    for own, gold in zip(work(case), known.get(name) or work(case.gold), strict=True):
        found.append(gold)
        yield replace(own, gold=gold.attacked)
    known[name] = found


__all__ = ["ATTACKS", "Case", "Finding", "attack", "find", "possible", "too_few"]
