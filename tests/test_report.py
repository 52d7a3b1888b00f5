"""The report of a run on a tiny CLIP: it tells what was measured, asks for nothing outside, and holds its recipe."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from razor import recipe, report, run
from razor.config import RazorConfig
from razor.errors import InputError
from razor.gates import usual, verdicts
from razor.gold import Distance
from razor.growth import Growth
from razor.metrics import Measure, share
from razor.robustness import Finding
from razor.sights import Sight, sights
from razor.tables import held


@pytest.fixture(scope="module")
def finished(trained, task):
    return run.unlearn(trained, task, RazorConfig(rounds=2, retain_budget=0.3))


@pytest.fixture
def told(finished):
    return report.Report(finished.growth, finished.before, finished.after)


class Outside(HTMLParser):
    """Every address the page names."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [v for k, v in attrs if k in ("src", "href", "action", "srcset") and not v.startswith("data:")]


def test_it_tells_every_number_with_its_interval_and_n(told, finished):
    page = report.html(told)
    now = finished.after.forget_accuracy
    assert f"<strong>{now.value:.1%}</strong>" in page and f"{now.low:.1%} to {now.high:.1%}" in page
    was = finished.before.forget_accuracy
    assert f"{was.value:.1%}<small>{was.low:.1%} to {was.high:.1%}</small>" in page
    for done in finished.growth.rounds:
        low, high = 100 * done.after.retain_accuracy.low, 100 * done.after.retain_accuracy.high
        assert f"<small>{low:.1f} to {high:.1f}, n = {done.after.retain_accuracy.n:,}</small>" in page
    assert " MiB</td>" in page and f"{held(finished.growth.patch) / 1000:,.0f} kB</td>" in page
    assert f"<td>{now.n:,}</td>" in page and report.command(finished.growth).split(" --out")[0] in page
    for name in finished.growth.edit_set.active:
        assert name in page
    assert "Nothing was attacked" in page and 'class="edited"' in page


def test_the_distance_to_a_model_that_never_saw_it_is_told_block_by_block_with_interval_and_n(finished):
    part = lambda value: Measure(value, 96, value - 0.1, value + 0.1)  # noqa: E731
    sides = lambda value: {side: part(value) for side in ("forget", "retain")}  # noqa: E731
    gold = Distance(
        sides(0.8), sides(0.5), sides(0.25), sides(0.5), [part(0.7)], [part(0.6)], [part(0.9)], [part(0.85)],
        {"forget": part(0.45)},
    )  # fmt: skip
    page = report.html(report.Report(finished.growth, finished.before, finished.after, gold=gold))
    for cells in (
        "way from the original to it, pictures of red</td><td>\u2013</td>"
        '<td class="measure">45.0 %<small>35.0 to 55.0, n = 96',
        '<tr><td>1</td><td class="measure">0.600 <small>0.500 to 0.700, n = 96',
        '<td class="measure">0.900 <small>0.800 to 1.000, n = 96</small></td></tr>',
        'divergence, other pictures</td><td class="measure">0.500 bits<small>0.400 to 0.600, n = 96',
    ):
        assert cells in page, cells


def test_it_asks_for_nothing_from_outside_and_runs_no_script(told):
    page = report.html(told)
    parser = Outside()
    parser.feed(page)
    assert parser.found == [] and "default-src 'none'" in page and "url(" not in page
    assert re.findall(r"<script[^>]*>", page) == ['<script type="application/json" id="razor-recipe">']


def test_the_recipe_is_read_back_from_it(told, tmp_path):
    (tmp_path / "r.html").write_text(report.html(told), "utf-8")
    assert recipe.read(tmp_path / "r.html") == told.recipe
    (tmp_path / "other.html").write_text("<p>no recipe</p>", "utf-8")
    with pytest.raises(InputError, match="holds no recipe"):
        recipe.read(tmp_path / "other.html")


def test_what_was_done_by_hand_is_said_to_be_repeated_by_the_recipe_in_it(trained, task, finished, tmp_path):
    growth = Growth(trained, task, RazorConfig(rounds=1, inner_steps=2))
    growth.scores()
    growth.act("in", [growth.units[3].name])
    growth.next_round()
    growth.history.branch_from("Beside", 0)
    growth.history.switch("Main")
    page = report.html(report.Report(growth, finished.before, finished.after))
    assert "unlearn --recipe does, by this report, the recipe or the patch" in page
    assert "Beside is another branch, not grown again: from the unedited model" in page
    (tmp_path / "r.html").write_text(page, "utf-8")
    again = Growth(trained, task, growth.config)
    again.plan(recipe.planned(recipe.read(tmp_path / "r.html")))
    assert len(list(again.run())) == 1 and again.patch.key() == growth.patch.key()


def test_words_of_others_reach_it_as_text_only(finished):
    evil = '</script><img src=x onerror="alert(1)">'
    picture = Image.new("RGB", (8, 8))
    told = report.Report(
        finished.growth, finished.before, finished.after, [Sight(evil, (picture,), evil, (evil, ""), evil)], reason=evil
    )
    page = report.html(told)
    assert "<img src=x" not in page and page.count("</script>") == 1


def test_a_reason_is_plain_words_in_a_model_card(finished):
    told = report.Report(finished.growth, finished.before, finished.after, reason="<b>a|b</b>\n# `c`")
    card = report.model_card(told)
    assert "> Why: &lt;b&gt;a\\|b&lt;/b&gt;\n> \\# \\`c\\`\n" in card


def test_a_ruined_model_is_no_success(finished):
    lost = replace(
        finished.after, retain_accuracy=share([True] * 10 + [False] * 90), forget_accuracy=share([False] * 30)
    )
    assert "is gone, and much else with it" in report.Report(finished.growth, finished.before, lost).lead


def test_on_paper_five_cases_share_a_row_and_a_closed_recipe_is_left_out(told):
    printed = report.html(told).split("@media print")[1].split("</style>")[0]
    assert ".cases figure { width: calc((100% - 48px) / 5); }" in printed
    assert "details:not([open]) { display: none; }" in printed


def test_verdicts_and_attacks_stand_in_it(told, finished):
    found = Finding("quantise", "8 bits", share([False] * 20), share([True] * 20), share([True] * 20))
    gates = verdicts(usual(0.05), finished.before, finished.after, [found])
    page = report.html(report.Report(finished.growth, finished.before, finished.after, (), gates, [found]))
    assert "Does it hold in a copy of 8 bits?" in page and re.search(r"The most that attacks got back[^<]* 100", page)
    card = report.model_card(report.Report(finished.growth, finished.before, finished.after, (), gates))
    assert "What it was tested against" in card and "| Concept still there |" in card


def test_sights_are_of_the_test_split_and_leave_the_model_as_found(trained, task, finished, weights_of, same_weights):
    before = weights_of(trained.model)
    found = sights(trained, task, finished.patch, finished.growth.bench.neighbours)
    assert same_weights(trained.model, before)
    known = {id(e.image) for e in (*task.forget.test, *task.retain.test)}
    assert found and all(id(s.pictures[0]) in known for s in found) and found[0].group == "Target"


def test_a_run_is_taken_up_from_its_folder_and_another_task_is_refused(trained, task, finished, tmp_path):
    finished.save(tmp_path)
    growth, before, after = run.taken_up(trained, task, tmp_path)
    assert growth.patch.key() == finished.growth.patch.key()
    assert before.forget_accuracy.n == finished.before.forget_accuracy.n
    assert after.retain_accuracy.value == pytest.approx(finished.after.retain_accuracy.value, abs=1e-5)
    fewer = replace(task, retain=replace(task.retain, test=task.retain.test[1:]))
    with pytest.raises(InputError, match=r"not the task of that run; other than then: the retain pictures \(1 of 1"):
        run.taken_up(trained, fewer, tmp_path)
    told = json.loads((tmp_path / "run.json").read_text("utf-8"))
    wrong = {**told["after"], "forget_accuracy": {"value": 17.0, "n": -3, "low": 0, "high": 1}}
    for bad in ({**told, "growth": "of another run"}, {**told, "after": wrong}, {**told, "seconds": {}}):
        (tmp_path / "run.json").write_text(json.dumps(bad), "utf-8")
        with pytest.raises(InputError, match=r"run\.json cannot be read"):
            run.taken_up(trained, task, tmp_path)
    (tmp_path / "run.json").write_text("{}", "utf-8")
    with pytest.raises(InputError, match=r"run\.json cannot be read"):
        run.taken_up(trained, task, tmp_path)
