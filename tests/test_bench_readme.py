"""The README's tables: equal to what the results give, intervals by hand, missing and diverged methods said."""

import math

import pytest

from razor.bench import readme, rivals
from razor.bench.means import losses, ratios, shares, student, together
from razor.errors import InputError
from razor.metrics import Measure, share


def of(hits, n):
    return share([i < hits for i in range(n)]).to_json()


def test_the_readme_holds_what_the_results_give():
    text = readme.README.read_text("utf-8")
    assert readme.filled(text) == text, "run python -m razor bench readme"


def test_what_stands_around_a_table_stays_and_a_table_of_old_numbers_goes(tmp_path):
    text = readme.README.read_text("utf-8")
    old = text.replace("<!-- table: speed -->\n", "<!-- table: speed -->\n| of another day |\n")
    file = tmp_path / "README.md"
    file.write_text(old, "utf-8")
    readme.main(file)
    assert file.read_text("utf-8") == text != old


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("<!-- table: speed -->", "", "The README has no place for the table 'speed'; put <!-- table: speed --> in."),
        ("<!-- end: speed -->", "", "The README's table 'speed' has no <!-- end: speed --> below it."),
        ("<!-- table: speed -->", "<!-- table: sped -->", "The README asks for a table 'sped'; there are clip, "),
    ],
)
def test_a_marker_that_is_missing_or_unknown_is_one_sentence(old, new, said):
    with pytest.raises(InputError) as caught:
        readme.filled(readme.README.read_text("utf-8").replace(old, new))
    assert str(caught.value).startswith(said)


def test_results_that_are_not_there_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"clip\.json holds no results .*; run the bench that writes it\.$"):
        readme.filled(readme.README.read_text("utf-8"), tmp_path)


def test_published_figures_have_a_column_of_their_own_and_methods_without_rows_say_so():
    (heads, _, *lines) = readme._rivals("clip")({"clip": {}})[: 2 + len(rivals.METHODS["clip"])]
    assert heads.endswith("| published: forgotten, kept, stable |")
    slug = next(line for line in lines if line.startswith("| slug (0)"))
    assert "| not measured |" in slug and slug.endswith("| 67.5, 87.5, 96.5 |")


def test_a_method_that_diverged_counts_as_the_unedited_model_and_is_named():
    side = {"forget_accuracy": of(96, 96), "retain_accuracy": of(900, 1000), "neighbor_accuracy": None}
    row = {"before": side, "after": None, "passes": 1, "parameters_edited": 0, "reached": False}
    still, worst, lost, _, near, *_, met, _ = readme._rival([row])
    assert still.startswith("100.0 (") and worst == "100.0" and lost.startswith("0.00 (")
    assert near == readme.NOTHING and met == "0 of 1, 1 diverged"


# ---------------------------------------------------------------- means


def test_the_interval_over_targets_by_hand_where_it_is_the_wider_one():
    found = shares([of(0, 1000), of(300, 1000), of(600, 1000)])  # mean 0.3, s = 0.3, t with 2 degrees 4.303
    half = 4.303 * 0.3 / math.sqrt(3)
    assert found.value == pytest.approx(0.3) and found.low == 0.0 and found.high == pytest.approx(min(1, 0.3 + half))
    near = shares([of(290, 1000), of(300, 1000), of(310, 1000)])
    assert near.high == pytest.approx(max(0.3 + 4.303 * 0.01 / math.sqrt(3), together_high(900, 3000)))


def together_high(hits, n):
    return share([i < hits for i in range(n)]).high


def test_targets_that_all_came_to_nothing_have_the_interval_of_their_answers_together():
    found = shares([of(0, 96)] * 3)
    assert (found.value, found.low, found.targets, found.answers) == (0, 0, 3, 288)
    assert found.high == pytest.approx(1.959964**2 / (288 + 1.959964**2))
    assert found.text() == "0.0 (0.0 to 1.3)"


def test_one_target_has_wilsons_interval():
    assert together([Measure.from_json(of(90, 96))]) == share([i < 90 for i in range(96)])
    found, own = shares([of(90, 96)]), share([i < 90 for i in range(96)])
    assert (found.low, found.high) == (own.low, own.high)


def test_a_loss_of_one_target_has_newcombes_interval():
    # Newcombe 1998, method 10: 56 of 70 against 48 of 80 is a difference of 0.2 from 0.0524 to 0.3339
    found = losses([of(56, 70)], [of(48, 80)])
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    assert losses([of(10, 10)], [of(10, 10)]).text(2).startswith("0.00 (-")


def test_a_ratio_of_one_target_has_its_own_interval_and_of_several_that_over_them():
    one = {"value": 0.98, "n": 600, "low": 0.97, "high": 0.99}
    assert ratios([one]).text() == "98.0 (97.0 to 99.0)"
    assert ratios([one, one | {"value": 1.0}]).high == pytest.approx(0.99 + 12.706 * 0.01, abs=1e-6)


def test_students_points_are_those_of_the_tables():
    assert [student(n) for n in (1, 2, 19, 30)] == [12.706, 4.303, 2.093, 2.042]
    assert student(60) == pytest.approx(2.000, abs=2e-3)


def test_a_loss_below_what_is_shown_has_no_minus():
    assert losses([of(9999, 10000)], [of(10000, 10000)]).text(1).startswith("0.0 (")
