"""The bench of rivals on a tiny CLIP: rows are kept, a diverged method counts as having done nothing, tables add up."""

import json
from types import SimpleNamespace

import pytest

from razor import models
from razor.baselines import ABLATIONS, NAMES, Budget
from razor.bench import clip, diffusion, editing, processes, rivals, vlm
from razor.cli import main
from razor.errors import InputError
from razor.minicanvas import tasks


@pytest.fixture
def small(trained, task, monkeypatch):
    """Two methods on a tiny CLIP instead of all on mini-clip."""
    monkeypatch.setattr(models, "load", lambda name: trained)
    monkeypatch.setattr(tasks, "task", lambda target: task)
    monkeypatch.setitem(rivals.METHODS, "clip", ("null-space", "head-gate"))
    monkeypatch.setattr(rivals, "BUDGET", Budget(2, 1))


def test_every_method_has_a_row_that_a_second_run_keeps(small, tmp_path, monkeypatch, capsys):
    out = tmp_path / "rivals.json"
    rivals.main("object:cat", out, "clip")
    first = json.loads(out.read_text())
    assert list(first["clip"]["object:cat"]) == ["null-space", "head-gate"]
    row = first["clip"]["object:cat"]["null-space"]
    assert row["command"] == first["command"] == "python -m razor bench rivals --targets object:cat --parts clip"
    assert first["made_by"][row["by"]]["seed"] == 0
    assert row["reached"] and row["settings"] == 10 and row["setting"]["gamma"] > 0
    still = 100 * row["after"]["forget_accuracy"]["value"]
    assert f"| null-space | 1 | {still:.1f} |" in capsys.readouterr().out
    monkeypatch.setattr(rivals.baselines, "run", lambda *_: pytest.fail("this row is there already"))
    rivals.main("object:cat", out, "clip")
    assert json.loads(out.read_text())["clip"] == first["clip"]


def test_a_row_placed_beside_another_gold_model_is_made_again(small, trained, tmp_path, monkeypatch):
    golds = {"gold": SimpleNamespace(fingerprint=lambda: "first")}
    monkeypatch.setattr(rivals, "never_saw", lambda adapter, task: golds["gold"])
    monkeypatch.setattr(rivals, "between", lambda adapter, task: None)
    ran = []
    monkeypatch.setattr(rivals.baselines, "run", lambda name, *_, seed: ran.append(name))
    monkeypatch.setattr(rivals, "_row", lambda result, gold: {"before": None, "after": None})
    monkeypatch.setattr(rivals, "report", lambda results: "")
    out = tmp_path / "rivals.json"
    rivals.main("object:cat", out, "clip")
    rivals.main("object:cat", out, "clip")
    assert ran == ["null-space", "head-gate"]  # the second time all is there
    golds["gold"] = SimpleNamespace(fingerprint=lambda: "second")
    rows = rivals.main("object:cat", out, "clip")["clip"]["object:cat"]
    assert len(ran) == 4 and {row["gold_model"] for row in rows.values()} == {"second"}


def test_copies_in_few_bits_are_measured_beside_the_edit(small, tmp_path, capsys):
    results = rivals.main("object:cat", tmp_path / "rivals.json", "bits")
    copies = results["bits"]["object:cat"]["razor"]["copies"]
    assert [copy["setting"] for copy in copies] == ["8 bits", "4 bits"]
    printed = capsys.readouterr().out
    assert "| full precision | 1 |" in printed and "| 4 bits | 1 |" in printed


def test_razor_and_slug_are_timed_one_after_the_other_and_kept(small, tmp_path, capsys):
    out = tmp_path / "rivals.json"
    row = rivals.main("object:cat", out, "speed")["speed"]["object:cat"]
    assert row["met"]["razor"] and all(seconds > 0 for seconds in row["seconds"].values())
    assert capsys.readouterr().out.startswith("speed      object:cat")
    assert rivals.main("object:cat", out, "speed")["speed"]["object:cat"] == row


def test_the_mean_ratio_of_seconds_is_geometric_by_hand():
    def row(ours, theirs, **met):
        return {"by": "a", "machine": "m", "seconds": {"razor": ours, "slug": theirs}, "met": met}

    rows = {"a": row(1.0, 4.0, razor=True, slug=False), "b": row(2.0, 2.0, razor=False, slug=False)}
    told = rivals.report({"speed": rows}).splitlines()
    assert told[-3:] == [
        "| a | 1.0 | 4.0 | 0.25 | razor |",
        "| b | 2.0 | 2.0 | 1.00 | by neither |",
        "| geometric mean | | | 0.50 | |",
    ]


def test_means_by_hand_and_a_diverged_method_counts_as_the_unedited_model():
    def side(forget, retain, near):
        return {key: {"value": v} for key, v in zip(
            ("forget_accuracy", "retain_accuracy", "neighbor_accuracy"), (forget, retain, near), strict=True
        )}  # fmt: skip

    def row(after, reached):
        cost = {"passes": 10, "seconds": 1.0, "parameters_edited": 100}
        return {"before": side(1.0, 0.9, 1.0), "after": after, "reached": reached, **cost}

    rows = {"a": {"ssd": row(side(0.1, 0.8, 0.9), True)}, "b": {"ssd": row(None, False)}}
    found = rivals.summary(rows)["ssd"]
    assert (found["still there"], found["worst still there"]) == pytest.approx((55.0, 100.0))
    assert (found["lost"], found["worst lost"], found["neighbours lost"]) == pytest.approx((5.0, 10.0, 5.0))
    assert (found["targets"], found["met"], found["diverged"]) == (2, 1, 1)
    assert rivals._table(rows)[-1].endswith("| 1, 1 diverged |")


def test_neighbours_that_nobody_counted_are_not_said_to_be_none_lost():
    side = {"forget_accuracy": {"value": 0.0}, "retain_accuracy": {"value": 1.0}, "neighbor_accuracy": None}
    cost = {"passes": 1, "seconds": 1.0, "parameters_edited": 1, "reached": True}
    assert "| none counted |" in rivals._table({"a": {"ssd": {"before": side, "after": side, **cost}}})[-1]


def test_published_figures_are_marked_as_theirs_and_name_methods_there_are():
    for part, tables in rivals.PUBLISHED.items():
        known = {"razor", *ABLATIONS, *NAMES.get(part, {})}
        assert {name for figures in tables.values() for name in figures} <= known
    text = rivals.report({"vlm": {"a": {}}})
    assert "Published, on other models (arXiv 2603.14819)" in text


def test_parts_are_named_and_the_command_line_reaches_them(small, tmp_path, capsys):
    with pytest.raises(
        InputError, match=r"^No part named 'x'; pick any of clip, diffusion, vlm, ablation, bits, speed\.$"
    ):
        rivals.main(parts="x")
    out = str(tmp_path / "r.json")
    main(["bench", "rivals", "--targets", "object:cat", "--parts", "clip", "--json", out])
    assert "head-gate" in capsys.readouterr().out


def test_all_benches_run_one_after_the_other(monkeypatch, capsys):
    ran = []
    for bench in (clip, diffusion, vlm, rivals, editing, processes):
        monkeypatch.setattr(bench, "main", lambda given, bench=bench: ran.append((bench, given)))
    main(["bench", "all", "--targets", "object:cat"])
    assert ran == [*((b, "object:cat") for b in (clip, diffusion, vlm, rivals)), (editing, None), (processes, None)]
    with pytest.raises(SystemExit):
        main(["bench", "all", "--parts", "size"])
    assert "name one bench to choose" in capsys.readouterr().err


def test_where_methods_lie_beside_a_gold_model_by_hand():
    def gold(place, now, before):
        sides = lambda value: {"forget": {"value": value}, "retain": {"value": value / 10}}  # noqa: E731
        return {"place": {"forget": place}, "divergence": sides(now), "divergence_before": sides(before)}

    rows = {
        "object:cat": {"razor": {"gold": gold(0.5, 0.4, 0.8)}, "ssd": {"gold": None}},
        "style:neon": {"razor": {"gold": gold(0.25, 0.6, 0.8)}},
        "object:boat": {"razor": {"gold": None}},
    }
    told = rivals._gold_table(rows)
    assert told[1].startswith("Beside models trained from scratch without object:cat, style:neon:")
    assert told[-1] == "| razor | 2 | 38 | 0.500 (0.800) | 0.050 (0.080) |"
    assert rivals._gold_table({"object:boat": rows["object:boat"]}) == []
