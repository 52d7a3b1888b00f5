"""The command line on a vision-language model from a folder: scored, edited, measured, reported and exported."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_vlms
from PIL import Image

from razor.adapters.questions import PLAIN
from razor.adapters.vlm import VlmAdapter
from razor.cli import main
from razor.config import RazorConfig
from razor.growth import Growth

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
    main(["evaluate", *model, *target, *SHORT, "--patch", patch, "--json", str(place / "test.json")])
    assert json.loads((place / "test.json").read_text())["after"]["neutral_kl"]["n"] > 0
    main(["report", str(run), *target, "--device", "cpu", "--out", str(place / "report.html")])
    assert (place / "report.html").stat().st_size > 10_000
    main(["export", *model, "--patch", patch, "--as", "full", "--out", str(place / "full"), "--device", "cpu"])
    main(["diff", str(run), str(run)])
    assert (place / "full" / "config.json").is_file() and Path(patch).is_file()
    assert "Traceback" not in capsys.readouterr().err


def test_a_locked_unit_stays_in_and_a_banned_one_out(place, make_task):
    adapter = VlmAdapter(*tiny_vlms.tiny("llava", 1), name="tiny")
    settings = {"start_units": 3, "inner_steps": 1, "rounds": 1, "batch": 4, "tau": 0.0, "retain_budget": 1.0}
    growth = Growth(adapter, make_task(each=1), RazorConfig(**settings))
    best, *_, worst = [s.unit.name for s in sorted(growth.scores(), key=lambda s: s.rank)]
    assert growth.act("lock", [worst]) == growth.act("ban", [best]) == ""
    growth.next_round()
    assert worst in growth.edit_set.members and best not in growth.edit_set.members
    assert "is locked" in growth.act("out", [worst])
