"""Drawings put every value where it belongs, and no text on another."""

import re

import pytest

from razor import figures
from razor.metrics import Measure
from razor.robustness import Finding


def of(value, low=None, high=None):
    return Measure(value, 96, value if low is None else low, value if high is None else high)


def taught(curve, steps, attacked, gold=None):
    setting = f"{curve}, {steps} steps"
    return Finding("relearn", setting, of(0.0), of(attacked), of(1.0), steps=steps, gold=gold and of(gold))


def test_what_training_brings_back_is_a_curve_over_its_steps():
    found = [taught("5 pictures", 5, 0.25), taught("5 pictures", 20, 0.5, None)]
    drawn = figures.training_svgs([*found, Finding("probe", "linear", of(0.0), of(1.0), of(1.0))])
    wide, tall = figures.TRAINING
    left, top = figures.LEFT, figures.TOP
    (points,) = re.findall(r'points="([^"]+)"', drawn)
    expected = [(left, top + tall), (left + wide / 4, top + 0.75 * tall), (left + wide, top + tall / 2)]
    places = [tuple(map(float, point.split(","))) for point in points.split()]
    assert [place for pair in places for place in pair] == pytest.approx([v for pair in expected for v in pair])
    assert drawn.count("<svg") == 1 and "Training on 5 pictures" in drawn and "edit 50.0%" in drawn


def test_every_curve_has_its_drawing_and_a_model_that_never_saw_it_its_line():
    found = [taught("1 picture", 1, 0.1, 0.2), taught("1 picture", 20, 0.3, 0.4), taught("5 pictures", 20, 0.5, 0.6)]
    drawn = figures.training_svgs(found)
    assert drawn.count("<svg") == 2 and drawn.count('class="never-saw-it"') == 2 and "never saw it 40.0%" in drawn
    assert figures.training_svgs([]) == ""


def test_names_at_the_ends_of_lines_stand_clear_of_each_other():
    assert figures._apart([50, 52, 100]) == [52 - figures.LINE, 52, 100]
    assert figures._apart([50, 50, 50]) == [50, 50 - figures.LINE, 50 - 2 * figures.LINE]
    assert figures._apart([10, 90]) == [10, 90]
