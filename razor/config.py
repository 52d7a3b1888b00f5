"""Every number a run depends on, with its unit, range and source."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import ClassVar

from razor.errors import InputError

# field -> (lowest, highest) allowed; both ends included unless a message says otherwise
_RANGES = {
    "alpha": (0.0, 8.0),
    "tau": (0.0, 0.999),
    "rho": (0.01, 1.0),
    "retain_weight": (0.0, 10.0),
    "mismatch_weight": (0.0, 100.0),
    "step_size": (1e-4, 0.5),
    "inner_steps": (1, 200),
    "start_units": (1, 256),
    "rounds": (1, 64),
    "forget_target": (0.0, 1.0),
    "retain_budget": (0.0, 1.0),
    "batch": (2, 4096),
}

# What is ascended on forget pictures by models that answer, see adapters/answering.py; the first by default.
FORGET_LOSSES = ("answer", "alignment")

# The rule as published, as far as that says: one unit to begin with, a head or a whole layer, one more a round, and in
# each round one step whose length is searched.
PAPER = {"start_units": 1, "granularity": ("head", "layer"), "inner_steps": 1}


@dataclass(frozen=True)
class RazorConfig:
    """Settings of one run. The paper's own values are unknown where it does not print them; defaults are ours.

    >>> RazorConfig(rounds=2, alpha=0.5).rounds
    2
    >>> RazorConfig(rho=2)
    Traceback (most recent call last):
    razor.errors.InputError: rho is 2; it must be a number from 0.01 to 1.
    """

    alpha: float = 1.0  # exponent on the separation, 0..1 in the paper; 0 ignores the retain set
    tau: float = 0.5  # quantile of phi, 0..1: only units above it may join the edit set
    rho: float = 1.0  # strength of forgetting in the fused direction, in (0, 1] (paper)
    retain_weight: float | None = None  # weight of the unit-norm retain gradient; None: what suits the model's family
    mismatch_weight: float = 1.0  # weight of the unit-norm drift gradient (lambda_m)
    step_size: float = 0.02  # s: length of one inner step as a share of the unit's weight norm
    inner_steps: int = 16  # small steps per growth round, gradients re-evaluated at each; 1 = the paper's one step
    start_units: int = 4  # units in the first round
    rounds: int = 6  # growth rounds at most (paper: 6)
    forget_target: float | None = None  # forget accuracy to reach; None: as the family aims, see Bench.aim
    retain_budget: float = 0.01  # accepted drop of the retain accuracy, as a share of all answers
    batch: int | None = None  # retain examples per inner step; None: what suits the model's family
    granularity: tuple[str, ...] = ("head",)  # kinds of units growth may take in by itself
    towers: tuple[str, ...] | None = None  # towers growth may edit by itself; None: what suits the model
    forget_loss: str | None = None  # A_f, one of FORGET_LOSSES where the family has a choice; None: what it uses itself
    rescore: bool = True  # score again on the edited model before each round (paper); False keeps the first ranking
    seed: int = 0

    ranges: ClassVar[Mapping[str, tuple[float, float]]] = _RANGES

    def __post_init__(self):
        for name, (low, high) in self.ranges.items():
            value = getattr(self, name)
            if name in ("retain_weight", "forget_target", "batch") and value is None:
                continue
            kind = int if isinstance(low, int) else int | float
            if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
                noun = "whole number" if kind is int else "number"
                raise InputError(f"{name} is {value!r}; it must be a {noun} from {low:g} to {high:g}.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**53:
            raise InputError(f"seed is {self.seed!r}; it must be a whole number from 0.")
        if not isinstance(self.rescore, bool):
            raise InputError(f"rescore is {self.rescore!r}; it must be true or false.")
        for name in ("granularity", "towers"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, tuple) and all(isinstance(v, str) for v in value)):
                raise InputError(f"{name} is {value!r}; it must be a list of names.")
        kinds = ("head", "mlp", "layer")
        if not self.granularity or any(entry not in kinds for entry in self.granularity):
            raise InputError(f"granularity is {self.granularity!r}; choose at least one of {', '.join(kinds)}.")
        if self.towers is not None and not self.towers:
            raise InputError("towers is empty; name at least one tower growth may edit.")
        if self.forget_loss not in (None, *FORGET_LOSSES):
            raise InputError(f"forget_loss is {self.forget_loss!r}; choose {' or '.join(FORGET_LOSSES)}.")

    def to_json(self) -> dict:
        """Plain values, as stored in recipes."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict) -> "RazorConfig":
        """The settings stored in a recipe; unknown names are an error, missing ones take their default."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise InputError(f"Unknown settings {', '.join(unknown)}; known are {', '.join(sorted(known))}.")
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
