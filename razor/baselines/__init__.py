"""Rivals of RAZOR and RAZOR without one of its parts, one file each, tuned by one rule (tuning.py)."""

from razor.baselines.ablations import ABLATIONS
from razor.baselines.compare import NAMES, Result, find, run
from razor.baselines.tuning import Budget, Trial

__all__ = ["ABLATIONS", "NAMES", "Budget", "Result", "Trial", "find", "run"]
