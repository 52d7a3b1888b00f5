"""What the command line takes: every command and its arguments, as --help tells them."""

import argparse
import os
import textwrap
from pathlib import Path

from razor.config import FORGET_LOSSES, RazorConfig

VERSION = "0.1.0"
_WIDTH = 79  # of what argparse leaves as it is written
_USUAL = RazorConfig()

_ABOUT = (
    "Targeted unlearning in vision models: find the attention heads that know a concept, edit as few of them as it "
    "takes, measure what is left, and take the edit away. Everything works offline on the bundled models mini-clip, "
    "mini-sd and mini-vlm. COMMAND --help tells what a command takes and gives examples."
)
_MORE = """\
the usual order:
  score       see which heads and MLPs carry the concept
  unlearn     forget it; writes a folder with patch, recipe and numbers
  evaluate    measure the patch on pictures nothing else has seen, and attack it
  report      one page on the run for people who were not there
  export      the edit as a LoRA or a whole model for other programs

files:
  What --out and --card name is replaced only with --replace. What --json and
  --csv name is written anew each time. A file is written whole or not at all.

exit codes:
  0    done
  2    wrong input, or a file that cannot be read or written; the last line on
       stderr says what, and how to go on
  130  stopped by Ctrl-C (143: by a kill); no model was changed, and nothing is
       left half written
"""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Descriptions and examples as they are written, and names such as hf-hub:owner/model in one piece."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)


def parser() -> argparse.ArgumentParser:
    """Every command with its arguments; `args.command` says which was given."""
    made = argparse.ArgumentParser(
        prog="python -m razor",
        description=textwrap.fill(_ABOUT, _WIDTH),
        epilog=_MORE,
        formatter_class=_Help,
    )
    made.add_argument("--version", action="version", version=f"RAZOR Studio {VERSION}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for add in (
        _add_score, _add_unlearn, _add_evaluate, _add_report, _add_compare, _add_carry, _add_export, _add_diff,
        _add_ask, _add_bench, _add_app,
    ):  # fmt: skip
        add(commands)
    return made


def _command(commands, name: str, summary: str, about: str, *examples: str) -> argparse.ArgumentParser:
    """A command with its paragraph and worked examples."""
    return commands.add_parser(
        name,
        help=summary,
        description=textwrap.fill(about, _WIDTH),
        epilog="\n  ".join(["examples:", *(f"python -m razor {name} {example}" for example in examples)]),
        formatter_class=_Help,
    )


def _add_score(commands) -> None:
    score = _command(
        commands,
        "score",
        "rank every head and MLP by phi",
        "Ranks every attention head and MLP by phi = pressure x separation ** alpha: how hard it pushes on forgetting, "
        "and how little that pulls against what is to be kept. Changes nothing; it shows where unlearn would begin.",
        "--model mini-clip --forget object:cat",
        "--model mini-clip --forget style:neon --alpha 0 --top 5",
        "--model ViT-B-32/laion2b_s34b_b79k --forget my_dog/ --retain dogs.zip --concept 'my dog' --json dog.json",
    )
    _add_task(score, used="Of these alpha, granularity, forget-loss, batch and seed matter to scores.")
    score.add_argument("--top", type=int, default=15, metavar="N", help="units printed (default 15)")
    _add_json(score, "every unit's scores")


def _add_unlearn(commands) -> None:
    unlearn = _command(
        commands,
        "unlearn",
        "forget a concept and save the patch",
        "Forgets one concept: scores the units, edits the best few in small steps, and takes in one more a round until "
        "the forget target is met or the rounds are used up. Then it measures before and after on test pictures and "
        "writes patch.safetensors, recipe.json, run.json and the rounds into a folder. The model stays as it is.",
        "--model mini-clip --forget style:neon --out runs/neon",
        "--model ~/models/sd15 --concept 'Van Gogh' --kind style --judge ViT-L-14/openai --out runs/vg",
        "--recipe runs/neon --out runs/again",
    )
    _add_task(unlearn, said="what --recipe says")
    unlearn.add_argument(
        "--recipe",
        type=Path,
        metavar="R",
        help="repeat the run of a recipe.json, run folder, export, drawn picture or report; settings given beside it "
        "count more, and pictures of your own must be named again (default: none)",
    )
    unlearn.add_argument(
        "--method",
        choices=["razor", "paper"],
        default="razor",
        help="paper: the rule as published, one step a round (default razor)",
    )
    unlearn.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run's folder to write")
    _add_replace(unlearn, "a run that is there")
    _add_json(unlearn, "what run.json in the folder holds")


def _add_evaluate(commands) -> None:
    evaluate = _command(
        commands,
        "evaluate",
        "measure a model with or without a patch",
        "Measures on test pictures what a model still knows of the concept and of everything else, before and after a "
        "patch, each number with its n and 95 % interval. With --attacks it also tries to bring the concept back, "
        "does the same to the unedited model as a control, and says which limits the edit stands.",
        "--model mini-clip --forget style:neon --patch runs/neon/patch.safetensors",
        "--model mini-clip --forget style:neon --patch runs/neon/patch.safetensors --attacks all --gate forget=5",
        "--model mini-vlm --forget identity:mara-voss",
    )
    _add_task(evaluate, used="Of these batch and seed matter here; the others are taken, so that unlearn's can stand.")
    _add_patch(evaluate, required=False)
    _add_attacks(evaluate)
    _add_json(evaluate, "every number, before and after")


def _add_report(commands) -> None:
    report = _command(
        commands,
        "report",
        "one page on a finished run: what was forgotten, at what cost",
        "Writes one self-contained HTML page on a run that unlearn finished: before and after with intervals, cases to "
        "look at, the map with the edit, every round, what it stands, what it took, and how to repeat it.",
        "runs/neon --out neon.html",
        "runs/neon --attacks all --reason 'Licence withdrawn' --out neon.html --card neon.md",
    )
    report.add_argument("run_folder", type=Path, metavar="RUN", help="the folder unlearn wrote")
    report.add_argument(
        "--out", type=Path, metavar="F", default=Path("report.html"), help="the page to write (default report.html)"
    )
    report.add_argument("--card", type=Path, metavar="MD", help="a section for a model card to write (default: none)")
    _add_attacks(report)
    report.add_argument(
        "--reason", default="", metavar="TEXT", help="why it had to be forgotten, in your words (default: not told)"
    )
    report.add_argument("--no-pictures", action="store_true", help="leave pictures and answers out")
    _add_replace(report, "files that are there")
    _add_json(report, "what the page rests on: metrics and gates")
    again = report.add_argument_group("model and examples", "as in the run; pictures of your own must be named again")
    _add_names(again, said="what the run says")


def _add_compare(commands) -> None:
    compare = _command(
        commands,
        "compare",
        "RAZOR beside other methods, all tuned by one rule",
        "Runs RAZOR and other unlearning methods on the same examples with the same target. Of each method's settings "
        "that meet the target on the search pictures the one that retains most is chosen, else the one that forgets "
        "most; test pictures tell what it comes to.",
        "--model mini-clip --forget object:cat --json cat.json",
        "--model mini-clip --forget style:neon --methods razor,slug,ssd --out runs/neon-methods",
    )
    _add_task(compare, used="Of these forget-target, batch and seed hold, for every method alike.")
    compare.add_argument("--methods", default="", metavar="M", help="comma-separated (default: razor and every rival)")
    compare.add_argument(
        "--steps", type=int, default=48, metavar="N", help="training steps of each setting (default 48)"
    )
    compare.add_argument(
        "--checks", type=int, default=6, metavar="N", help="times each is measured on the way (default 6)"
    )
    compare.add_argument(
        "--seconds", type=float, metavar="S", help="limit for each method, all its settings together (default: none)"
    )
    compare.add_argument(
        "--out", type=Path, metavar="DIR", help="keep each method's patch and numbers in a folder here (default: none)"
    )
    _add_replace(compare, "results that are there")
    _add_json(compare, "every setting tried and both evaluations")


def _add_carry(commands) -> None:
    carry = _command(
        commands,
        "carry",
        "take a CLIP's patch into a model that sees through the same tower",
        "Takes what a patch changes in a CLIP's image tower into a vision-language model built on the same tower, as "
        "mini-vlm is on mini-clip's. Nothing is carried between weights that differ. How much the other model then "
        "forgets is measured by evaluate.",
        "--from mini-clip --to mini-vlm --patch runs/neon/patch.safetensors --out runs/vlm.safetensors",
    )
    _add_patch(carry)
    carry.add_argument("--from", dest="source", required=True, metavar="M", help="the CLIP it was made for")
    carry.add_argument("--to", dest="target", required=True, metavar="M", help="the vision-language model")
    carry.add_argument("--out", type=Path, required=True, metavar="P2", help="the patch to write")
    _add_replace(carry, "a file that is there")
    _add_json(carry, "what was carried")
    _add_device(carry)


def _add_export(commands) -> None:
    export = _command(
        commands,
        "export",
        "write an edit for other programs: a LoRA or a full model",
        "Writes an edit in a form other programs load, loads it again, and says whether it is the edited model bit for "
        "bit. What a form cannot hold is refused with the reason, and an export that does not load again as the edited "
        "model is deleted.",
        "--model mini-clip --patch runs/neon/patch.safetensors --as full --out clip-without-neon",
        "--model mini-sd --patch runs/sd-neon/patch.safetensors --as lora --keys kohya --out neon.safetensors",
        "--model mini-sd --patch runs/sd-neon/patch.safetensors --as full --single-file --out whole.safetensors",
    )
    export.add_argument("--model", required=True, metavar="M", help="the model the patch was made for")
    _add_patch(export)
    export.add_argument(
        "--as",
        dest="form",
        required=True,
        choices=["patch", "lora", "full"],
        help="patch: for this program; lora: for diffusers, PEFT and web UIs; full: the edited model",
    )
    export.add_argument("--out", type=Path, required=True, metavar="PLACE", help="the file or folder to write")
    export.add_argument(
        "--keys", choices=["peft", "kohya"], help="of a LoRA: peft for diffusers, kohya for web UIs (default peft)"
    )
    export.add_argument("--rank", type=int, metavar="N", help="of a LoRA, at most (default: as much as makes it exact)")
    export.add_argument("--scale", type=float, metavar="S", help="strength of a LoRA that is loaded at 1 (default 1)")
    export.add_argument("--single-file", action="store_true", help="of a model that draws: one file, not a folder")
    export.add_argument("--redacted", action="store_true", help="of a full model: say nothing of the edit")
    _add_replace(export, "an export that is there")
    _add_json(export, "what was written and how it loads again")
    _add_device(export)
    _add_dtype(export)


def _add_diff(commands) -> None:
    diff = _command(
        commands,
        "diff",
        "where the recipes of two runs differ",
        "Says line by line where the recipes of two runs differ: model, examples, settings, units, rounds, versions.",
        "runs/neon runs/again",
        "runs/neon neon.safetensors",
    )
    diff.add_argument("first", type=Path, metavar="RUN", help="a run's folder, recipe.json, patch, report or picture")
    diff.add_argument("second", type=Path, metavar="OTHER", help="another one")
    _add_json(diff, "the differences")


def _add_ask(commands) -> None:
    ask = _command(
        commands,
        "ask",
        "ask a model a table of questions with or without a patch, and score it",
        "Puts a table of questions about pictures to a vision-language model, with and without a patch. Counts right "
        "answers as a benchmark does, and looks for a name in them. Without --csv and --json it prints the answers.",
        "--model mini-vlm --questions mine.csv",
        "--model ~/models/llava-1.5-7b-hf --questions gqa.jsonl --rule gqa --patch runs/jane/patch.safetensors",
        "--model mini-vlm --questions mine.csv --forget identity:mara-voss --csv said.csv",
    )
    ask.add_argument("--model", required=True, metavar="M", help="a model that answers questions about pictures")
    ask.add_argument(
        "--questions",
        required=True,
        metavar="FILE",
        help="csv or jsonl beside its pictures: a picture, a question, maybe answer, answers and options A to F; or a "
        "file of MME (.txt), GQA or TextVQA (.json) or MMBench (.tsv)",
    )
    _add_patch(ask, required=False)
    ask.add_argument(
        "--rule", metavar="R", help="count right answers as mme, gqa, mmbench or textvqa does (default: do not count)"
    )
    ask.add_argument(
        "--forget",
        metavar="F",
        help="axis:name, such as identity:mara-voss: look for the name, and how likely it is (default: look for none)",
    )
    ask.add_argument("--csv", type=Path, metavar="OUT", help="write every answer as a table (default: do not)")
    _add_json(ask, "every answer and the scores")
    _add_device(ask)
    _add_dtype(ask)
    _add_bits(ask)


def _add_bench(commands) -> None:
    bench = _command(
        commands,
        "bench",
        "measure what the README's tables tell",
        "Runs the benchmarks behind the tables of the README on the bundled models and writes assets/results. What "
        "this code has measured is kept, so that a bench goes on where it was stopped. All of them take many hours.",
        "clip --targets object:cat,style:neon --json some.json",
        "editing",
    )
    bench.add_argument(
        "family",
        metavar="BENCH",
        choices=["all", "clip", "diffusion", "vlm", "rivals", "editing", "processes", "readme"],
        help="clip, diffusion, vlm: every bundled target; rivals: other methods; editing: what a click costs; "
        "processes: what several gain; readme: write the README's tables from the results; or all of them",
    )
    bench.add_argument(
        "--targets", default="", metavar="T", help="only these, comma-separated (default: all; of rivals six)"
    )
    bench.add_argument(
        "--parts",
        default="",
        metavar="P",
        help="of clip any of targets, scoring, size; of diffusion targets, words, pairs, size, held; of vlm targets, "
        "size; of rivals clip, diffusion, vlm, ablation, bits, speed (default: all)",
    )
    bench.add_argument(
        "--json",
        type=Path,
        metavar="OUT",
        help="results file; finished targets in it are kept (default: the bench's own in assets/results)",
    )


def _add_app(commands) -> None:
    app = _command(
        commands,
        "app",
        "start the page",
        "Starts the page and serves it until Ctrl-C. By default only this machine can reach it; with --host 0.0.0.0 "
        "others can, and it then serves the bundled models and the one it was started with, and takes no paths from "
        "visitors. Ask for a password by the environment variable RAZOR_AUTH=USER:PASS: what --auth gives is in the "
        "list of processes.",
        "--port 7899",
        "--model ~/models/llava-1.5-7b-hf --dtype bfloat16",
        "--host 0.0.0.0",
    )
    app.add_argument(
        "--host",
        default=os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1",
        metavar="H",
        help="address to listen at (default: GRADIO_SERVER_NAME, else 127.0.0.1)",
    )
    app.add_argument(
        "--port",
        type=int,
        default=os.environ.get("GRADIO_SERVER_PORT") or 7860,
        metavar="N",
        help="port to listen at (default: GRADIO_SERVER_PORT, else 7860)",
    )
    app.add_argument(
        "--auth", metavar="USER:PASS", help="ask visitors for this (default: RAZOR_AUTH, else nothing is asked)"
    )
    app.add_argument("--share", action="store_true", help="open a public tunnel (asks an outside service)")
    app.add_argument("--model", default="mini-clip", metavar="M", help="what the page begins with (default mini-clip)")
    app.add_argument("--mcp", action="store_true", help="offer score, unlearn, predict, export to agents as well")
    _add_dtype(app)


# ---------------------------------------------------------------- what several commands take


def _add_patch(parser, required: bool = True) -> None:
    rest = "" if required else " (default: none, the model as it is)"
    parser.add_argument("--patch", type=Path, required=required, metavar="P", help=f"patch.safetensors of a run{rest}")
    parser.add_argument(
        "--anyway",
        action="store_true",
        help="take a patch that was made for other weights of the same names and shapes",
    )


def _add_attacks(parser) -> None:
    parser.add_argument(
        "--attacks",
        metavar="A",
        help="try to bring the concept back: all, or any of quantise, relearn, benign; of CLIP wording, prefix, probe; "
        "of models that draw opened, transfer; of models that answer reworded (default: none)",
    )
    parser.add_argument(
        "--gate",
        action="append",
        default=[],
        metavar="KEY=PERCENT",
        help="a limit the edit has to stand, such as forget=10, set before it is tested; any number of times: forget, "
        "retain, neighbours, and of attacks 'quantise/8 bits', 'quantise/4 bits', 'benign/retain pictures, 20 steps', "
        "'relearn/5 pictures, 5 steps' (default: those of the run's recipe, else the usual ones)",
    )


def _add_replace(parser, what: str) -> None:
    parser.add_argument("--replace", action="store_true", help=f"replace {what} (default: refuse)")


def _add_json(parser, what: str) -> None:
    parser.add_argument("--json", type=Path, metavar="OUT", help=f"write {what} (default: do not)")


def _add_device(parser) -> None:
    parser.add_argument(
        "--device",
        metavar="D",
        help="cpu, cuda, cuda:1, or auto, which spreads a model that answers over all cards (default: CUDA where there "
        "is one, else the CPU)",
    )


def _add_dtype(parser) -> None:
    parser.add_argument(
        "--dtype",
        choices=["float32", "float16", "bfloat16"],
        help="precision of --model, where it draws or answers (default: half on CUDA, float32 on a CPU)",
    )


def _add_bits(parser) -> None:
    parser.add_argument(
        "--bits",
        type=int,
        choices=[8, 4],
        help="store the language model of one that answers in so many bits, on CUDA with bitsandbytes; its vision "
        "tower is edited then (default: whole)",
    )


def _add_names(parser, said: str = "") -> None:
    """The model and what is forgotten and kept; `said` is who names them where the command line need not."""
    parser.add_argument(
        "--model",
        required=not said,
        metavar="M",
        help="mini-clip, mini-sd, mini-vlm, a folder, a .safetensors checkpoint, architecture/pretrained, "
        f"hf-hub:owner/model{f' (default: {said})' if said else ''}",
    )
    parser.add_argument(
        "--forget",
        metavar="F",
        help="object:cat, style:neon, identity:NAME, or a folder, zip, csv, jsonl (default: "
        f"{f'{said}, else ' if said else ''}--concept alone)",
    )
    parser.add_argument(
        "--retain",
        metavar="R",
        help="what is kept, named likewise (default: everything else of the bundled world; with a model that draws "
        "another world, its own pictures of similar things)",
    )
    parser.add_argument(
        "--concept",
        default="",
        metavar="WORDS",
        help="what to forget, in words; alone, the model draws the pictures (default: what --forget names)",
    )
    parser.add_argument(
        "--drawn-too",
        action="store_true",
        help="forget, beside the pictures of --forget, what a model that draws makes of the words",
    )
    parser.add_argument(
        "--kind", default="object", metavar="K", help="what the words name: object, style or person (default object)"
    )
    parser.add_argument(
        "--anchor", metavar="WORDS", help="what is drawn instead, in words (default: what the kind is in general)"
    )
    parser.add_argument(
        "--labels",
        default="",
        metavar="L",
        help="classes to measure against, or to keep, comma-separated (default: those the examples bring)",
    )
    parser.add_argument(
        "--judge",
        metavar="CLIP",
        help="a CLIP that looks at what models of your own draw (default: none; mini-sd has a bundled judge)",
    )
    _add_device(parser)
    _add_dtype(parser)
    _add_bits(parser)


def _add_task(parser: argparse.ArgumentParser, said: str = "", used: str | None = None) -> None:
    _add_names(parser, said)
    settings = parser.add_argument_group("settings", used)
    add = settings.add_argument
    add("--alpha", type=float, metavar="X", help=f"exponent on the separation (default {_USUAL.alpha:g})")
    add("--tau", type=float, metavar="X", help=f"quantile of phi a unit must exceed (default {_USUAL.tau:g})")
    add("--rho", type=float, metavar="X", help=f"strength of forgetting, in (0, 1] (default {_USUAL.rho:g})")
    add("--rounds", type=int, metavar="N", help=f"growth rounds at most (default {_USUAL.rounds})")
    add(
        "--start-units",
        type=int,
        metavar="N",
        help=f"units in the first round (default {_USUAL.start_units}; as published 1)",
    )
    add(
        "--inner-steps",
        type=int,
        metavar="N",
        help=f"steps per round; 1 is the paper's single step (default {_USUAL.inner_steps})",
    )
    add(
        "--step-size",
        type=float,
        metavar="X",
        help=f"length of a step relative to the weights (default {_USUAL.step_size:g})",
    )
    add(
        "--forget-target",
        type=float,
        metavar="X",
        help="forget accuracy to reach (default: half of chance; 0.01 where a name is written)",
    )
    add(
        "--retain-budget",
        type=float,
        metavar="X",
        help=f"retain accuracy that may be lost (default {_USUAL.retain_budget:g})",
    )
    add(
        "--batch",
        type=int,
        metavar="N",
        help="retain pictures per step; less needs less memory (default: CLIP 96, others 32, or 8 where large)",
    )
    add(
        "--towers",
        metavar="T",
        help="towers growth may edit, comma-separated (default: of CLIP image,text; of models that draw the text "
        "encoders; of models that answer language, with --forget-loss alignment image)",
    )
    add(
        "--forget-loss",
        choices=FORGET_LOSSES,
        help="of models that answer alone, what is driven up on forget pictures: answer, how unlikely the name is as "
        "the answer; alignment, how far what the language model reads of them is from what it read (default answer)",
    )
    add(
        "--granularity",
        metavar="KINDS",
        help=f"any of head, mlp, layer, comma-separated (default {','.join(_USUAL.granularity)})",
    )
    add("--seed", type=int, metavar="N", help=f"of everything drawn by chance (default {_USUAL.seed})")
