"""RAZOR with one of its parts taken away: what each part is worth. The step length is tuned as for every rival."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from razor.baselines.tuning import Tuning
from razor.config import PAPER, RazorConfig
from razor.edit_set import EditSet
from razor.errors import UnusableGradientError
from razor.growth import Growth
from razor.scoring import UnitScore

STEP = "step size"
SIZES = tuple({STEP: size} for size in (0.02, 0.01, 0.04))
FINE = tuple({STEP: size} for size in (0.002, 0.001, 0.005))  # where every layer moves at once
_ALL = {"granularity": ("layer",), "tau": 0.0, "start_units": 256, "inner_steps": 96, "rounds": 1}


@dataclass(frozen=True)
class Forgetless(RazorConfig):
    """Settings whose steps follow what is kept alone: rho = 0, which a run meant to forget refuses."""

    rho: float = 0.0

    ranges: ClassVar = {**RazorConfig.ranges, "rho": (0.0, 0.0)}


class ByLot(Growth):
    """Growth that draws its units by lot among those open to it."""

    def _proposed(self, scores: Sequence[UnitScore], edit_set: EditSet) -> list[UnitScore]:
        lot = lambda s: random.Random(f"{self.config.seed}/{s.unit.name}").random()  # noqa: E731
        drawn = sorted(scores, key=lot)
        return super()._proposed([replace(s, rank=place) for place, s in enumerate(drawn, 1)], edit_set)


def start(tuning: Tuning, config: RazorConfig, by_lot: bool = False) -> Growth:
    """A growth on the tuning's model and task."""
    grown = ByLot if by_lot else Growth
    return grown(tuning.adapter, tuning.bench.task, config, beneath=tuning.bench.beneath)


def ablation(
    tuning: Tuning,
    changes: Mapping,
    *,
    settings: type[RazorConfig] = RazorConfig,
    sizes: Sequence[Mapping] | None = None,
    by_lot: bool = False,
) -> None:
    """Grow to the target with these settings changed.

    Args:
        sizes: step lengths to tune over; None: SIZES.
    """
    for setting in tuning.settings(sizes or SIZES):
        plain = {"step_size": setting[STEP], "forget_target": tuning.target, "seed": tuning.seed}
        growth = start(tuning, settings(**plain | dict(changes)), by_lot)
        try:
            for done in growth.run(tuning.stop):
                tuning.passes += 2 + 2 * len(done.trials)  # one scoring, then two gradients a step
                tuning.tick(len(growth.rounds) / growth.config.rounds)
        except UnusableGradientError as error:
            tuning.failed({**setting, "rounds": len(growth.rounds)}, error)
            continue
        tuning.check({**setting, "rounds": len(growth.rounds)}, growth.patch)


def _without(**changes) -> Callable[[Tuning], None]:
    return partial(ablation, changes=changes)


ABLATIONS: Mapping[str, Callable[[Tuning], None]] = {
    "razor": _without(),
    "no-retain": _without(retain_weight=0.0),
    "no-mismatch": _without(mismatch_weight=0.0),
    "no-forget": partial(ablation, changes={}, settings=Forgetless),
    "all-layers": partial(ablation, changes=_ALL, sizes=FINE),
    "no-growth": _without(rounds=1),
    "one-step": _without(inner_steps=1),
    "paper": _without(**PAPER),
    "random-units": partial(ablation, changes={"tau": 0.0}, by_lot=True),
    "alpha-0": _without(alpha=0.0),
}
