"""Two processes come to the numbers of one: scores, gradients, growth and answers of every family."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_clips
import together

from razor import processes
from razor.cli import main

pytestmark = pytest.mark.usefixtures("one_thread")

HERE = Path(__file__).parent
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]


def launch(launcher, *argv):
    """A command in two processes, which are to meet at a free port."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"}
    env["CUDA_VISIBLE_DEVICES"] = ""
    return subprocess.run(
        [sys.executable, "-m", *launcher, *argv],
        cwd=HERE.parent,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The numbers of each of two processes, and those of this one alone."""
    folder = tmp_path_factory.mktemp("together")
    done = launch(TORCHRUN, str(HERE / "together.py"), str(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)], together.everything()


def test_both_processes_hold_the_same_numbers_to_the_last_digit(both):
    (one, other), _ = both
    assert one == other


@pytest.mark.parametrize("family", ["clip", "llava", "qwen2_vl", "sd", "branches"])
def test_two_processes_come_to_the_numbers_of_one(both, family):
    (found, _), alone = both
    assert found[family].keys() == alone[family].keys()
    for what, values in alone[family].items():
        assert any(values), what
        assert found[family][what] == pytest.approx(values, rel=5e-4, abs=1e-6), what  # single precision


def test_the_gradient_where_one_process_has_no_graph_by_hand(both):
    # rows r = 0..4 in parts of two and three, (r + some)^2 of those below 2 and 3 some: 2 (0 + 1) + 2 (1 + 1) + 3
    (found, _), alone = both
    assert found["branches"]["5 rows"] == alone["branches"]["5 rows"] == [9.0, 9.0]
    assert found["branches"]["1 rows"] == alone["branches"]["1 rows"] == [5.0, 5.0]


def test_accelerate_starts_two_that_write_once_and_say_once(tmp_path):
    out = tmp_path / "scores.json"
    for side, colour in (("forget", "red"), ("retain", "blue")):
        (tmp_path / side).mkdir()
        for e in (e for e in tiny_clips.pool("train", 3) if e.labels["colour"] == colour):
            e.image.save(tmp_path / side / f"{e.source}.png")
    sets = ["--forget", str(tmp_path / "forget"), "--retain", str(tmp_path / "retain"), "--concept", "red"]
    logs = ["--log_dir", str(tmp_path / "logs"), "--tee", "3"]
    command = ["-m", "razor", "score", "--model", "mini-clip", *sets, "--device", "cpu", "--json", str(out)]
    done = launch([*ACCELERATE, *logs], *command)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path.parent.name for path in tmp_path.rglob("stdout.log")} == {"0", "1"}
    assert done.stdout.count("rank  unit") == 1 and len(json.loads(out.read_text())["units"]) == 72


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["carry", "--from", "a", "--to", "b", "--patch", "p", "--out", "o"], "carry runs in one process; several"),
        (["bench", "rivals"], "bench runs in one process; several share score, unlearn, and bench clip"),
        (["bench", "clip", "--parts", "targets, size"], "--parts size measures one process"),
        (
            ["score", "--model", "mini-clip", "--forget", "object:cat", "--device", "cuda:1"],
            "take a card each (cuda) or",
        ),
    ],
)
def test_what_several_processes_cannot_share_is_refused(argv, said, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_one_process_is_left_alone():
    processes.join()
    assert processes.count() == 1 and processes.first()
    assert processes.share([1, 2], lambda rows: rows) == [1, 2]
