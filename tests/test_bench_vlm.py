"""The vision-language bench: means and worst by hand, resuming, what is asked otherwise, units of a size counted."""

import json
from types import SimpleNamespace

import pytest
import torch

from razor.adapters.vlm import VlmAdapter
from razor.bench import vlm
from razor.errors import InputError
from razor.examples import Split, Task
from razor.metrics import Evaluation, mean, share
from razor.minicanvas import questions, tasks, train_vlm
from razor.minicanvas.dataset import parse_target
from razor.patches import Patch
from razor.units import Slice


def share_of(hits, n):
    return share([i < hits for i in range(n)])


def evaluation(named, right, near=40, moved=0.0):
    """Of 50 forget pictures `named` with the concept's name; of 200 answers about others, 40 of them near, so many
    right."""
    return Evaluation(
        forget_accuracy=share_of(named, 50),
        forget_probability=share_of(named, 50),
        retain_accuracy=share_of(right, 200),
        neighbor_accuracy=share_of(near, 40),
        cross_accuracy=None,
        retrieval_stability=None,
        neutral_kl=mean(torch.full((10,), moved), highest=9.0),
    )


def row(named=0, right=200, near=40, otherwise=(0, 0), moved=0.0, seconds=60.0):
    said = {
        group: {"before": share_of(50, 50).to_json(), "after": share_of(hits, 50).to_json()}
        for group, hits in zip(("paraphrase", "check"), otherwise, strict=True)
    }
    return {
        "before": evaluation(50, 200).to_json(),
        "after": evaluation(named, right, near, moved).to_json(),
        "otherwise": said,
        "rounds": 2,
        "seconds": seconds,
        "parameters_edited": 1000,
    }


def adapter(fingerprint="0123"):
    return SimpleNamespace(fingerprint=lambda: fingerprint)


@pytest.fixture
def done(monkeypatch):
    """Unlearning that takes no time; the names of what was unlearned, in order."""
    found = []

    def unlearn(adapter, task, config):
        found.append(task)
        patch = SimpleNamespace(parameters_edited=1000)
        seconds = {"rounds": 60.0, "report": 9.0, "total": 69.0}
        recipe = {"edit_set": {"members": ["image.5.head.1"]}}
        sides = {"before": evaluation(50, 200), "after": evaluation(1, 199)}
        return SimpleNamespace(**sides, rounds=[1], reached=True, recipe=recipe, patch=patch, seconds=seconds)

    monkeypatch.setattr(vlm.models, "load", lambda name: {"mini-vlm": adapter()}[name])
    monkeypatch.setattr(tasks, "task", str)
    monkeypatch.setattr(vlm, "otherwise", lambda adapter, task, patch: row()["otherwise"])
    monkeypatch.setattr("razor.run.unlearn", unlearn)
    return found


def test_a_bench_goes_on_where_it_stopped(done, tmp_path, capsys):
    out = tmp_path / "found" / "vlm.json"
    vlm.main("object:cat,style:neon", out, "targets")
    vlm.main("object:cat,identity:mara-voss", out, "targets")
    assert done == ["object:cat", "style:neon", "identity:mara-voss"]
    found = json.loads(out.read_text())
    assert list(found["targets"]) == done
    assert found["targets"]["object:cat"]["seconds"] == 60  # without the answers written to report
    assert "| object (1) | 100.0 | 2.0 | 2.0 | 100.0 to 0.0 |" in capsys.readouterr().out


def test_rows_of_other_weights_are_made_again(done, tmp_path, monkeypatch):
    out = tmp_path / "vlm.json"
    vlm.main("object:cat", out, "targets")
    monkeypatch.setattr(vlm.models, "load", lambda name: adapter("4567"))
    vlm.main("object:cat,style:neon", out, "targets")
    assert done == ["object:cat", "object:cat", "style:neon"]
    assert len({row["by"] for row in json.loads(out.read_text())["targets"].values()}) == 1


def test_a_part_that_is_none_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="No part named 'speed'; pick any of targets, size"):
        vlm.main(out=tmp_path / "x.json", parts="targets,speed")


ROWS = {
    "object:cat": row(named=1, right=198, near=39, otherwise=(2, 5), moved=0.01, seconds=50.0),
    "object:dog": row(named=0, right=199, near=40, otherwise=(1, 0), moved=0.03, seconds=70.0),
    "identity:mara-voss": row(),
}


def test_means_and_worst_are_of_targets_of_one_kind_in_points():
    table = vlm.summary(ROWS)
    assert list(table) == ["object", "identity"]
    expected = {
        "targets": 2,
        "named before": 100,
        "named": 1,  # of 1 and 0 in 50
        "worst named": 2,
        "paraphrase before": 100,
        "paraphrase after": 3,  # of 2 and 1 in 50
        "check before": 100,
        "check after": 5,  # of 5 and 0 in 50
        "lost": 0.75,  # of 2 and 1 in 200
        "worst lost": 1,
        "neighbours lost": 1.25,  # of 1 and 0 in 40
        "neutral KL": 0.02,
        "seconds": 60,
        "parameters": 1000,
    }
    assert table["object"] == {name: pytest.approx(value) for name, value in expected.items()}


def test_the_report_puts_the_goals_beside_the_results():
    lines = vlm.report({"targets": ROWS}).splitlines()
    done = "0.00 | 0.00 | 0.00 | 0.0000 | 60.0 | 1,000 |"
    assert lines[2:] == [
        "| object (2) | 100.0 | 1.0 | 2.0 | 100.0 to 3.0 | 100.0 to 5.0 | 0.75 | 1.00 | 1.25 | 0.0200 | 60.0 | 1,000 |",
        f"| identity (1) | 100.0 | 0.0 | 0.0 | 100.0 to 0.0 | 100.0 to 0.0 | {done}",
        "| goal | | <= 2 | | | | <= 1 | | | | | |",
    ]
    assert {line.count("|") for line in lines} == {13}


# ---------------------------------------------------------------- on a model


@pytest.fixture(scope="module")
def untrained():
    """mini-vlm as it is before training: it sees, and what it says means nothing."""
    torch.manual_seed(0)
    processor = train_vlm.build_processor()
    return VlmAdapter(train_vlm.build_model(processor.tokenizer), processor, name="mini-vlm", questions=questions.WORLD)


@pytest.fixture(autouse=True, scope="module")
def few():
    """A world of few pictures, for time: forget Mara Voss, keep Kofi Brandt and neon cats."""
    kept = ({"identity": "Kofi Brandt"}, {"object": "cat", "style": "neon"})
    target = parse_target("identity:mara-voss")

    def examples(*known):
        draw = lambda split: tuple(tasks.example(labels, split, i) for labels in known for i in range(4))  # noqa: E731
        return Split(*map(draw, tasks.SIZES))

    forget = examples({"identity": target.name})
    made = Task(target.name, target.axis, tasks.axes(), ("Kofi Brandt",), forget, examples(*kept))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tasks, "task", {target: made}.__getitem__)
        yield made


def test_names_and_yes_are_counted_on_both_sides(untrained, few, monkeypatch):
    """A model that names Mara and says yes; edited, it names Kofi and says yes to every other picture."""
    weight, asked = untrained.model.lm_head.weight, []
    unedited = weight.detach().clone()

    def answer(pictures, texts, **_):
        asked.extend(texts)
        if torch.equal(weight, unedited):
            return ["Yes." if text.startswith("Is") else "It is Mara." for text in texts]
        return ["Kofi Brandt" if not text.startswith("Is") else ("yes", "no")[i % 2] for i, text in enumerate(texts)]

    monkeypatch.setattr(untrained, "answer", answer)
    found = vlm.otherwise(untrained, few, Patch({Slice("lm_head.weight"): torch.ones_like(weight)}))
    values = {group: [found[group][when]["value"] for when in ("before", "after")] for group in found}
    assert values == {"paraphrase": [1, 0], "check": [1, 0.5]}
    assert found["check"]["after"]["n"] == found["paraphrase"]["after"]["n"] == 4
    assert set(asked) == {*questions.class_paraphrases("identity"), "Is this Mara Voss?"}


def test_a_target_is_unlearned_measured_and_written(untrained, monkeypatch, tmp_path):
    monkeypatch.setattr(vlm.models, "load", lambda name: untrained)
    with pytest.warns(UserWarning, match="does not know 'Mara Voss'"):
        results = vlm.main("identity:mara-voss", tmp_path / "vlm.json", "targets")
    (found,) = results["targets"].values()
    assert found["before"] == found["after"] and found["parameters_edited"] == 0
    assert found["before"]["forget_accuracy"]["n"] == found["otherwise"]["check"]["after"]["n"] == 4
    assert "neutral_kl" in found["after"] and results == json.loads((tmp_path / "vlm.json").read_text())


# ---------------------------------------------------------------- real size


@pytest.fixture
def thin(monkeypatch):
    """LLaVA-1.5-7B's heads and depths, with two numbers to a head and pictures of 56 px."""
    monkeypatch.setattr(vlm, "VISION", vlm.VISION | {"hidden_size": 32, "intermediate_size": 48, "image_size": 56})
    monkeypatch.setattr(vlm, "LANGUAGE", vlm.LANGUAGE | {"hidden_size": 64, "intermediate_size": 96})


def test_llava_of_7b_has_the_units_the_adapter_finds(thin):
    from transformers import LlavaForConditionalGeneration

    processor = vlm._processor()
    config = vlm._config(*vlm.DEPTH, processor.tokenizer)
    found = VlmAdapter(LlavaForConditionalGeneration(config), processor, name="thin").units()
    counted = vlm.counted(config)["units"]
    assert counted == {tower: sum(u.tower == tower for u in found) for tower in counted}
    assert counted == {"image": 23 * 17, "projector": 2, "language": 32 * 33}


def test_the_size_is_that_of_llava_1_5_7b():
    found = vlm.counted(vlm._config(*vlm.DEPTH, train_vlm.build_tokenizer()))
    assert 7.05e9 < found["parameters"] < 7.08e9


def test_scoring_and_a_round_are_timed_on_a_model_that_knows_the_name(thin, monkeypatch):
    monkeypatch.setattr(vlm, "CUT_DEPTH", (3, 2))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = vlm.real_size()
    assert found["units"] == 2 * 17 + 2 + 2 * 33
    assert found["model"].startswith("LLaVA-1.5-7B cut to 3 of 24 vision blocks and 2 of 32 language layers, ")
    assert all(found[phase]["seconds"] > 0 and found[phase]["peak_mib"] > 0 for phase in ("encode", "score", "round"))
    assert found["examples"] == "56 px, 2 forget and 2 retain pictures; 2 inner steps"
    said = vlm.report({"size": {"cpu": found}})
    assert "1,449 units (image 391, projector 2, language 1,056), counted without its weights." in said
