"""The command line on a vision-language model from a folder: scored, edited, measured, reported and exported."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_vlms
from PIL import Image

from razor import recipe, report
from razor.adapters.questions import PLAIN
from razor.adapters.vlm import VlmAdapter
from razor.cli import main
from razor.config import FORGET_LOSSES, RazorConfig
from razor.errors import InputError
from razor.growth import Growth
from razor.patches import Patch

pytestmark = pytest.mark.usefixtures("one_thread")

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220)}
SHORT = ["--rounds", "1", "--inner-steps", "2", "--batch", "4", "--retain-budget", "1", "--device", "cpu"]


def square(colour, seed):
    noise = np.random.default_rng(seed).normal(0, 12, (32, 32, 3))
    return Image.fromarray((np.array(COLOURS[colour]) + noise).clip(0, 255).astype("uint8"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A LLaVA that tells three colours apart, saved, and pictures of what it shall forget and keep."""
    folder = tmp_path_factory.mktemp("vlm")
    model, processor = tiny_vlms.tiny("llava", 1)
    talks = [(square(c, i), PLAIN.ask("object"), c) for c in COLOURS for i in range(12)]
    tiny_vlms.learn(VlmAdapter(model, processor, name="taught"), talks, 60)
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    for side, colours in (("forget", ["red"]), ("retain", ["green", "blue"])):
        (folder / side).mkdir()
        rows = []
        for colour in colours:
            for i in range(12):
                square(colour, 100 + i).save(folder / side / f"{colour}{i}.png")
                rows.append({"file_name": f"{colour}{i}.png", "text": colour})
        (folder / side / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_every_command_takes_a_vision_language_model(place, capsys):
    model = ["--model", str(place / "model")]
    target = ["--forget", str(place / "forget"), "--retain", str(place / "retain"), "--concept", "red"]
    run, patch = place / "run", str(place / "run" / "patch.safetensors")
    main(["score", *model, *target, *SHORT, "--json", str(place / "score.json")])
    assert (place / "score.json").stat().st_size > 1000
    main(["unlearn", *model, *target, *SHORT, "--out", str(run)])
    found = json.loads((run / "run.json").read_text())
    assert found["before"]["forget_accuracy"]["value"] == 1 and "neutral_kl" in found["after"]
    told = [
        found["before"],
        found["after"],
        *(r[k] for r in found["rounds"] for k in ("search_before", "search_after")),
    ]
    measures = [m for side in told for name, m in side.items() if name != "by_neighbor" and m is not None]
    assert len(measures) > 16 and all({"value", "n", "low", "high"} <= m.keys() for m in measures)
    main(["evaluate", *model, *target, *SHORT, "--patch", patch, "--json", str(place / "test.json")])
    assert json.loads((place / "test.json").read_text())["after"]["neutral_kl"]["n"] > 0
    main(["report", str(run), *target, "--device", "cpu", "--out", str(place / "report.html")])
    assert (place / "report.html").stat().st_size > 10_000
    main(["export", *model, "--patch", patch, "--as", "full", "--out", str(place / "full"), "--device", "cpu"])
    main(["diff", str(run), str(run)])
    assert (place / "full" / "config.json").is_file() and Path(patch).is_file()
    assert "Traceback" not in capsys.readouterr().err


def test_the_forget_loss_is_in_the_recipe_which_repeats_it(place):
    target = ["--forget", str(place / "forget"), "--retain", str(place / "retain"), "--concept", "red"]
    first, again = place / "moved", place / "moved-again"
    main(
        ["unlearn", "--model", str(place / "model"), *target, *SHORT, "--forget-loss", "alignment", "--out", str(first)]
    )
    main(["unlearn", "--recipe", str(first), *target, "--device", "cpu", "--out", str(again)])
    made = [recipe.read(run) for run in (first, again)]
    assert [one["config"]["forget_loss"] for one in made] == ["alignment"] * 2 and not recipe.differences(*made)
    assert recipe.planned(recipe.from_link(recipe.to_link(made[0]))).config.forget_loss == "alignment"
    assert all(name.startswith("image.") for name in made[0]["edit_set"]["members"])
    patches = [Patch.load(run / "patch.safetensors") for run in (first, again)]
    assert patches[0].key() == patches[1].key() and patches[0].deltas


def test_another_forget_loss_scores_anew_and_opens_its_own_tower(place, make_task):
    adapter = VlmAdapter(*tiny_vlms.tiny("llava", 1), name="tiny")
    usual = RazorConfig(batch=4, tau=0.0)
    growth = Growth(adapter, make_task(each=1), usual)
    towers = lambda: {s.unit.tower for s in growth.candidates(growth.scores())}  # noqa: E731
    phi = lambda: [s.phi for s in growth.scores()]  # noqa: E731
    before = phi()
    assert towers() == {"language"}
    growth.configure(replace(usual, forget_loss="alignment"))
    assert not growth.scored and towers() == {"image"} and phi() != before
    growth.configure(replace(growth.config, towers=("image",)))
    assert report.command(growth).endswith("--batch 4 --forget-loss alignment --out runs/again")
    growth.configure(replace(usual, forget_loss="answer"))
    assert towers() == {"language"} and phi() == pytest.approx(before)
    growth.configure(usual)
    assert growth.scored  # the usual one is the same by name


def test_models_with_one_forget_loss_refuse_to_choose_before_any_work(trained, task, monkeypatch):
    monkeypatch.setattr(trained, "bench", None)
    with pytest.raises(InputError) as caught:
        Growth(trained, task, RazorConfig(forget_loss="answer"))
    assert str(caught.value) == (
        f"{trained.name} has only one forget loss, and 'answer' is one of models that answer questions; leave "
        "forget_loss out."
    )
    assert (*VlmAdapter.forget_losses,) == FORGET_LOSSES


def test_a_locked_unit_stays_in_and_a_banned_one_out(place, make_task):
    adapter = VlmAdapter(*tiny_vlms.tiny("llava", 1), name="tiny")
    settings = {"start_units": 3, "inner_steps": 1, "rounds": 1, "batch": 4, "tau": 0.0, "retain_budget": 1.0}
    growth = Growth(adapter, make_task(each=1), RazorConfig(**settings))
    best, *_, worst = [s.unit.name for s in sorted(growth.scores(), key=lambda s: s.rank)]
    assert growth.act("lock", [worst]) == growth.act("ban", [best]) == ""
    growth.next_round()
    assert worst in growth.edit_set.members and best not in growth.edit_set.members
    assert "is locked" in growth.act("out", [worst])
