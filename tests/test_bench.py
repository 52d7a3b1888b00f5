"""What the benchmarks do around the runs they time: resuming, means, tables, and which results are not mixed."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from tiny_adapters import fresh, make_task

from razor.bench import diffusion, measure, processes
from razor.config import RazorConfig
from razor.errors import InputError
from razor.metrics import Evaluation, share


def share_of(hits, n):
    return share([i < hits for i in range(n)])


def evaluation(ua, ira, cra):
    """Of 20 forget pictures `ua` without the concept; of 40 others so many as they should be."""
    return Evaluation(
        forget_accuracy=share_of(20 - ua, 20),
        forget_probability=share_of(20 - ua, 20),
        retain_accuracy=share_of(ira, 40),
        neighbor_accuracy=None,
        cross_accuracy=None,
        retrieval_stability=None,
        unlearning_accuracy=share_of(ua, 20),
        in_domain_retain_accuracy=share_of(ira, 40),
        cross_domain_retain_accuracy=share_of(cra, 40),
    )


def row(ua=20, distance=1.0):
    before, after = evaluation(0, 40, 40), evaluation(ua, 38, 39)
    return {
        "before": before.to_json(),
        "after": after.to_json(),
        "distance": distance,
        "seconds": 60.0,
        "parameters_edited": 1000,
    }


@pytest.fixture
def runs(monkeypatch):
    """Unlearning that takes no time; the names of what was unlearned, in order, and whose originals were shared."""
    done, shared = [], []

    def finish(growth):
        done.append(growth.task)
        recipe = {"edit_set": {"members": ["text.0.head.1"]}}
        patch = SimpleNamespace(parameters_edited=1000)
        before, after = evaluation(0, 40, 40), evaluation(20, 40, 40)
        return SimpleNamespace(before=before, after=after, rounds=[1], reached=True, recipe=recipe, patch=patch)

    def growth(adapter, task, config):
        bench = SimpleNamespace(take_originals=lambda other: shared.append((task, other.task)), task=task)
        return SimpleNamespace(task=task, bench=bench, run=lambda: iter(()))

    adapter = SimpleNamespace(fingerprint=lambda: "0123")
    monkeypatch.setattr(diffusion.models, "load", lambda name: adapter)
    monkeypatch.setattr(diffusion.tasks, "task", str)
    monkeypatch.setattr(diffusion.words, "bundled_task", lambda adapter, target: f"{target} from words")
    monkeypatch.setattr(diffusion, "_world", lambda adapter: [])
    monkeypatch.setattr(diffusion, "_distance", lambda growth, world: 1.0)
    monkeypatch.setattr("razor.run.finish", finish)  # before the next line, which what it imports must not see
    monkeypatch.setattr("razor.growth.Growth", growth)
    return SimpleNamespace(done=done, shared=shared)


def test_a_bench_goes_on_where_it_stopped(runs, tmp_path, capsys):
    out = tmp_path / "found" / "diffusion.json"
    diffusion.main("object:cat,style:neon", out, "targets")
    diffusion.main("object:cat,object:dog", out, "targets,words")
    assert runs.done == ["object:cat", "style:neon", "object:cat from words", "object:dog", "object:dog from words"]
    assert runs.shared == [("object:dog from words", "object:dog")]  # the cat of pictures was no part of this run
    found = json.loads(out.read_text())
    assert list(found["targets"]) == ["object:cat", "style:neon", "object:dog"]
    assert list(found["words"]) == ["object:cat", "object:dog"]
    assert "| object (2) | 0.0 | 100.0 |" in capsys.readouterr().out


def test_rows_say_who_made_them_and_those_of_other_weights_are_made_again(runs, tmp_path, monkeypatch, capsys):
    out = tmp_path / "diffusion.json"
    diffusion.main("object:cat,object:dog", out, "targets,words")
    assert "several versions" not in capsys.readouterr().out
    monkeypatch.setattr(diffusion.models, "load", lambda name: SimpleNamespace(fingerprint=lambda: "4567"))
    runs.done.clear()
    diffusion.main("object:cat,style:neon", out, "targets")
    assert runs.done == ["object:cat", "style:neon"]
    found, told = json.loads(out.read_text()), capsys.readouterr().out
    model = {name: found["made_by"][row["by"]]["model"] for name, row in found["targets"].items()}
    assert model == {"object:cat": "4567", "object:dog": "0123", "style:neon": "4567"}
    assert f"(2 by {found['targets']['object:cat']['by']}, 1 by {found['targets']['object:dog']['by']})" in told
    assert told.count("several versions") == 1  # all of the other table's are of one


def test_rows_of_several_machines_say_so():
    row = {"by": "a", "machine": "one"}
    assert measure.mixed([row, row]) == []
    told = "Rows were made on several machines (2 on one, 1 on an unknown one): seconds compare within one alone."
    assert measure.mixed([row, row, {"by": "a"}]) == ["", told]


def test_rows_depend_on_the_code_of_their_own_family_and_not_on_how_it_is_called_or_described(tmp_path, monkeypatch):
    package = tmp_path / "razor"
    shutil.copytree(measure.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(measure, "PACKAGE", package)
    mark = lambda: [measure.code_hash(family, f"bench.{family}") for family in measure.ADAPTERS]  # noqa: E731

    def changed(name, old, new):
        before, file = mark(), package / name
        source = file.read_text()
        assert old in source
        file.write_text(source.replace(old, new, 1))
        return [a != b for a, b in zip(before, mark(), strict=True)]

    for name in ("cli", "arguments", "report", "export", "recipe", "host", "bench/measure", "bench/rivals"):
        assert changed(f"{name}.py", "import", "import  ") == [False] * 3, name
    assert changed("step.py", "Move the units", "Carry the units") == [False] * 3  # a docstring
    assert changed("step.py", "  # steps after", "  # so many steps after") == [False] * 3  # a comment
    assert changed("step.py", "BRACKET = 8", "BRACKET = 9") == [True] * 3
    assert changed("replay.py", "import", "import  ") == [True] * 3  # imported by what is imported
    assert changed("adapters/clip.py", "import", "import  ") == [True, False, False]
    assert changed("judges.py", "guesses = True", "guesses = False") == [False, True, False]
    assert changed("answers.py", "import", "import  ") == [False, False, True]
    assert changed("bench/clip.py", "GOALS", "GOALS ") == [True, False, False]


def test_a_part_that_is_none_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="No part named 'speed'; pick any of targets, words, pairs, story, size, held"):
        diffusion.main(out=tmp_path / "x.json", parts="targets,speed")


def test_targets_are_named_or_all():
    assert [str(target) for target in measure.wanted("object:cat,style:neon")] == ["object:cat", "style:neon"]
    assert measure.wanted("all") == measure.wanted("") and len(measure.wanted("all")) == 52


def test_means_are_of_targets_of_one_kind_in_points():
    rows = {"object:cat": row(20, 1.0), "object:dog": row(19, 1.1), "style:neon": row(20, 0.9)}
    table = diffusion.summary(rows)
    assert list(table) == ["object", "style"]
    found = table["object"]
    assert found["targets"] == 2
    assert found["UA before"] == 0 and found["UA after"] == pytest.approx(97.5) and found["worst UA"] == 95
    assert found["IRA after"] == 95 and found["CRA after"] == 97.5 and found["distance"] == pytest.approx(1.05)


def test_distance_is_one_for_an_edit_that_changes_no_retained_picture(monkeypatch):
    from razor.minicanvas import judge

    monkeypatch.setattr(judge, "to_pixels", lambda pictures: torch.stack([p for p in pictures]))
    monkeypatch.setattr(judge, "load", lambda: SimpleNamespace(features=lambda pixels: pixels))
    generator = torch.Generator().manual_seed(0)
    original = list(torch.randn(30, 4, generator=generator))
    world = [({"object": "dog"}, f) for f in torch.randn(30, 4, generator=generator) + 0.5]
    world += [({"object": "cat"}, torch.full((4,), 1e3))]  # pictures of the concept are left out
    task = SimpleNamespace(axis="object", concept="cat")

    def ratio(edited):
        pictures = {"original": {"retain": original}, "edited": {"retain": edited}}
        return diffusion._distance(SimpleNamespace(task=task, bench=SimpleNamespace(pictures=pictures)), world)

    assert ratio(original) == 1.0
    assert ratio([f + 2 for f in original]) > 2


def test_before_and_after_pairs_of_the_bundled_model_are_counted(monkeypatch):
    drawn = []
    adapter = SimpleNamespace(draw=lambda prompts, seeds, steps: drawn.append((len(prompts), list(seeds), steps)))
    monkeypatch.setattr(diffusion.models, "load", lambda name: adapter)
    found = diffusion.pairs()
    assert drawn[1:] == [(8, list(range(8)), 20)] * 2 and found["pairs"] == 8
    assert "8 before and after pairs at 20 steps" in diffusion.report({"pairs": found})


def test_a_story_is_forgetting_and_pairs(monkeypatch):
    adapter, drawn = fresh("sd"), []
    draw = adapter.draw
    adapter.steps = 2
    adapter.draw = lambda prompts, *more, **how: drawn.append(len(prompts)) or draw(prompts, *more, **how)
    monkeypatch.setattr(diffusion.models, "load", lambda name: adapter)
    monkeypatch.setattr(diffusion.tasks, "task", lambda target: make_task())
    monkeypatch.setattr(diffusion, "RazorConfig", lambda: RazorConfig(rounds=1, inner_steps=1, batch=2))
    found = diffusion.story()
    assert 0 < found["forget_seconds"] <= found["seconds"] and len(drawn) > 1
    told = diffusion.report({"story": found | {"forget_seconds": 20.0, "seconds": 35.0}})
    assert told == "Story: style:neon is forgotten in 20 s and shown in pairs after 35 s (goal <= 90)."


def test_the_speed_of_several_processes_by_hand():
    seconds = {"1": {"encode": 4.0, "score": 2.0, "round": 9.0}, "2": {"encode": 2.0, "score": 1.6, "round": 6.0}}
    told = processes.report({"device": "cpu", "machine": "two cores", "seconds": seconds}).splitlines()
    assert told[2] == "| mini-clip, image tower | processes: 1 | processes: 2 |"
    assert told[-1] == "| one round of eight steps | 9.0 s (1.00 x) | 6.0 s (1.50 x) |"


def test_what_tensors_hold_at_once_is_counted_storage_by_storage():
    network = torch.nn.Linear(256, 256, bias=False)  # 256 KiB
    with measure.Held(network) as held:
        assert held.peak() == 0.25
        kept = torch.zeros(256, 256)
        view, gone = kept[1:].T, kept + 1
        del gone
        assert held.peak() == 0.75
        more = network(kept)
        del more
        assert held.peak() == 0.75 and view is not None
        del kept
        assert held.peak() == 0.5  # the view holds all of it
        del view
        held.peak()
        assert held.peak() == 0.25
        elsewhere = held.apart(torch.zeros(256, 256))
        assert held.peak() == 0.5 and held.peak() == 0.25
        assert elsewhere[1:].sum() == 0 and held.peak() < 0.26
        del elsewhere
        assert held.peak() < 0.26 and held.peak() == 0.25


def test_time_and_memory_of_a_real_size_pipeline_are_told_beside_those_of_drawing(monkeypatch):
    monkeypatch.setattr(diffusion, "stable_diffusion", lambda on, dtype=None: fresh("sd"))
    monkeypatch.setattr(diffusion, "CPU_SIDE", 16)
    monkeypatch.setattr(diffusion, "_few", lambda pictures: make_task())
    monkeypatch.setattr(measure, "card", lambda: None)
    monkeypatch.setattr(diffusion, "card", lambda: None)
    size, held = diffusion.real_size(), diffusion.held()
    assert size["drawing_peak_mib"] > 0 and size["peak_mib"] > 0 and size["units"] > 10
    assert list(held["mib"]) == ["weights", "drawing one picture", "points", "score", "round"]
    held["mib"] = {"weights": 60, "drawing one picture": 100, "points": 90, "score": 154, "round": 1}
    told = diffusion.report({"size": {"cpu": size}, "held": held})
    assert told.startswith(diffusion.SIZE) and " x that of drawing one picture (goal on a card <= 1.3)." in told
    assert "score 154, round 1; at most 1.54 x what drawing one picture takes (goal on a card <= 1.3)." in told
