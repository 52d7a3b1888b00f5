"""What the command line takes: every command and its arguments, as --help tells them."""

import argparse
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """Every command with its arguments; `args.command` says which was given."""
    made = argparse.ArgumentParser(
        prog="python -m razor", description="See, steer and verify targeted unlearning in vision models."
    )
    commands = made.add_subparsers(dest="command", required=True)

    for add in (_add_runs, _add_carrying, _add_asking, _add_bench, _add_app):
        add(commands)
    return made


def _add_runs(commands) -> None:
    score = commands.add_parser("score", help="rank every head and MLP by phi")
    _add_task(score)
    score.add_argument("--top", type=int, default=15, help="units printed (default 15)")
    score.add_argument("--json", type=Path, metavar="OUT", help="write all scores")

    unlearn = commands.add_parser("unlearn", help="forget a concept and save the patch")
    _add_task(unlearn, required=False)
    unlearn.add_argument(
        "--recipe",
        type=Path,
        metavar="R",
        help="repeat the run of a recipe.json, run folder, export, drawn picture or report; settings given beside it "
        "count more, and pictures of your own must be named again",
    )
    unlearn.add_argument(
        "--method", choices=["razor", "paper"], default="razor", help="paper: the rule as published, one step a round"
    )
    unlearn.add_argument("--out", type=Path, required=True, metavar="DIR")
    unlearn.add_argument("--replace", action="store_true", help="replace a run that is there")
    unlearn.add_argument("--json", type=Path, metavar="OUT", help="write what run.json in the folder holds")

    evaluate = commands.add_parser("evaluate", help="measure a model with or without a patch")
    _add_task(evaluate)
    evaluate.add_argument("--patch", type=Path, metavar="P", help="patch.safetensors of a run")
    evaluate.add_argument(
        "--attacks",
        metavar="A",
        help="all, or any of quantise, relearn, benign; of CLIP wording, prefix, probe; of models that draw opened, "
        "transfer: what they get back",
    )
    evaluate.add_argument("--json", type=Path, metavar="OUT")

    report = commands.add_parser("report", help="one page on a finished run: what was forgotten, at what cost")
    report.add_argument("run_folder", type=Path, metavar="RUN", help="the folder unlearn wrote")
    report.add_argument("--out", type=Path, metavar="F", default=Path("report.html"), help="default report.html")
    report.add_argument("--card", type=Path, metavar="MD", help="write a section for a model card as well")
    report.add_argument("--attacks", metavar="A", help="try these first, as evaluate does; all for all")
    report.add_argument("--reason", default="", metavar="TEXT", help="why it had to be forgotten, in your words")
    report.add_argument("--json", type=Path, metavar="OUT", help="write what the page rests on: metrics and gates")
    report.add_argument("--replace", action="store_true", help="replace files that are there")
    report.add_argument("--no-pictures", action="store_true", help="leave pictures and answers out")
    again = report.add_argument_group("model and examples", "as in the run; pictures of your own must be named again")
    _add_names(again, required=False)

    compare = commands.add_parser("compare", help="RAZOR beside other methods, all tuned by one rule")
    _add_task(compare)
    compare.add_argument("--methods", default="", metavar="M", help="comma-separated (default: razor and every rival)")
    compare.add_argument("--steps", type=int, default=48, help="training steps of each setting (default 48)")
    compare.add_argument("--checks", type=int, default=6, help="times each is measured on the way (default 6)")
    compare.add_argument("--seconds", type=float, help="limit for each method, all its settings together")
    compare.add_argument("--out", type=Path, metavar="DIR", help="keep every method's patch and settings")
    compare.add_argument("--json", type=Path, metavar="OUT", help="write every setting tried and both evaluations")


def _add_carrying(commands) -> None:
    carry = commands.add_parser("carry", help="take a CLIP's patch into a model that sees through the same tower")
    carry.add_argument("--patch", type=Path, required=True, metavar="P", help="patch.safetensors of a run")
    carry.add_argument("--from", dest="source", required=True, metavar="M", help="the CLIP it was made for")
    carry.add_argument("--to", dest="target", required=True, metavar="M", help="the vision-language model")
    carry.add_argument("--out", type=Path, required=True, metavar="P2", help="the patch to write")
    carry.add_argument("--replace", action="store_true", help="replace a file that is there")
    carry.add_argument("--json", type=Path, metavar="OUT", help="write what was carried")
    carry.add_argument("--device", help="cpu, cuda, cuda:1, auto (default: CUDA where there is one)")

    export = commands.add_parser("export", help="write an edit for other programs: a LoRA or a full model")
    export.add_argument("--model", required=True, metavar="M", help="the model the patch was made for")
    export.add_argument("--patch", type=Path, required=True, metavar="P", help="patch.safetensors of a run")
    export.add_argument("--as", dest="form", required=True, choices=["patch", "lora", "full"])
    export.add_argument("--out", type=Path, required=True, metavar="PLACE", help="the file or folder to write")
    export.add_argument("--keys", choices=["peft", "kohya"], help="of a LoRA: for diffusers (default) or web UIs")
    export.add_argument("--rank", type=int, metavar="N", help="of a LoRA, at most (default: as much as makes it exact)")
    export.add_argument("--scale", type=float, metavar="S", help="strength of a LoRA that is loaded at 1 (default 1)")
    export.add_argument("--single-file", action="store_true", help="of a model that draws: one file, not a folder")
    export.add_argument("--redacted", action="store_true", help="of a full model: say nothing of the edit")
    export.add_argument("--replace", action="store_true", help="replace an export that is there")
    export.add_argument("--json", type=Path, metavar="OUT", help="write what was written and how it loads again")
    export.add_argument("--device", help="cpu, cuda, cuda:1, auto (default: CUDA where there is one)")
    _add_dtype(export)

    diff = commands.add_parser("diff", help="where the recipes of two runs differ")
    diff.add_argument("first", type=Path, help="a run's folder, recipe.json, patch, or picture drawn here")
    diff.add_argument("second", type=Path, help="another one")
    diff.add_argument("--json", type=Path, metavar="OUT", help="write the differences")


def _add_asking(commands) -> None:
    ask = commands.add_parser("ask", help="ask a model a table of questions with or without a patch, and score it")
    ask.add_argument("--model", required=True, metavar="M", help="a model that answers questions about pictures")
    ask.add_argument(
        "--questions",
        required=True,
        metavar="FILE",
        help="csv or jsonl beside its pictures: a picture, a question, maybe answer, answers and options A to F",
    )
    ask.add_argument("--patch", type=Path, metavar="P", help="patch.safetensors of a run")
    ask.add_argument("--rule", metavar="R", help="count right answers as mme, gqa, mmbench or textvqa does")
    ask.add_argument(
        "--forget", metavar="F", help="axis:name, such as identity:mara-voss: look for the name, and how likely it is"
    )
    ask.add_argument("--csv", type=Path, metavar="OUT", help="write every answer as a table")
    ask.add_argument("--json", type=Path, metavar="OUT", help="write every answer and the scores")
    ask.add_argument("--device", help="cpu, cuda, cuda:1, auto (default: CUDA where there is one)")
    _add_dtype(ask)


def _add_bench(commands) -> None:
    bench = commands.add_parser(
        "bench",
        help="clip, diffusion, vlm: every bundled target; rivals: other methods; editing: what a click costs; "
        "processes: what several gain; all of them",
    )
    bench.add_argument("family", choices=["all", "clip", "diffusion", "vlm", "rivals", "editing", "processes"])
    bench.add_argument("--targets", default="", help="only these, comma-separated (default: all; of rivals six)")
    bench.add_argument(
        "--parts",
        default="",
        help="clip: targets, scoring, size; diffusion: targets, words, pairs, size; vlm: targets, size; "
        "rivals: clip, diffusion, vlm, ablation, bits",
    )
    bench.add_argument("--json", type=Path, metavar="OUT", help="results file; finished targets in it are kept")


def _add_app(commands) -> None:
    app = commands.add_parser("app", help="start the page")
    app.add_argument("--host", default="127.0.0.1")
    app.add_argument("--port", type=int, default=7860)
    app.add_argument("--auth", metavar="USER:PASS")
    app.add_argument("--share", action="store_true", help="open a public tunnel (asks an outside service)")
    app.add_argument("--model", default="mini-clip")
    app.add_argument("--mcp", action="store_true", help="offer score, unlearn, predict, export to agents as well")
    _add_dtype(app)


def _add_dtype(parser) -> None:
    parser.add_argument(
        "--dtype",
        choices=["float32", "float16", "bfloat16"],
        help="precision of --model, where it draws or answers (default: half on CUDA, float32 on a CPU)",
    )


def _add_names(parser, required: bool = True) -> None:
    """The model and what is forgotten and kept."""
    parser.add_argument(
        "--model",
        required=required,
        metavar="M",
        help="mini-clip, mini-sd, mini-vlm, a folder, a .safetensors checkpoint, architecture/pretrained, "
        "hf-hub:owner/model",
    )
    parser.add_argument(
        "--forget",
        metavar="F",
        help="object:cat, style:neon, identity:NAME, or a folder, zip, csv, jsonl; without it --concept alone",
    )
    parser.add_argument("--retain", metavar="R", help="the same; default: everything else of the bundled world")
    parser.add_argument("--concept", default="", help="what to forget, in words; alone, the model draws the pictures")
    parser.add_argument("--kind", default="object", help="what the words name: object, style or person")
    parser.add_argument("--anchor", help="what is drawn instead, in words (default: what the kind is in general)")
    parser.add_argument("--labels", default="", help="classes to measure against, or to keep, comma-separated")
    parser.add_argument("--judge", metavar="CLIP", help="a CLIP that looks at drawn pictures of models of your own")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, auto (default: CUDA where there is one)")
    _add_dtype(parser)


def _add_task(parser: argparse.ArgumentParser, required: bool = True) -> None:
    _add_names(parser, required)
    settings = parser.add_argument_group("settings")
    settings.add_argument("--start-units", type=int, help="units in the first round (default 4; as published 1)")
    settings.add_argument("--seed", type=int)
    settings.add_argument("--alpha", type=float, help="exponent on the separation")
    settings.add_argument("--tau", type=float, help="quantile of phi a unit must exceed")
    settings.add_argument("--rho", type=float, help="strength of forgetting, in (0, 1]")
    settings.add_argument("--rounds", type=int, help="growth rounds at most")
    settings.add_argument("--inner-steps", type=int, help="steps per round; 1 is the paper's single step")
    settings.add_argument("--step-size", type=float, help="length of a step relative to the weights")
    settings.add_argument(
        "--forget-target",
        type=float,
        help="forget accuracy to reach (default: half of chance; 1 percent where a name is written)",
    )
    settings.add_argument("--retain-budget", type=float, help="retain accuracy that may be lost (default 0.01)")
    settings.add_argument(
        "--batch", type=int, help="retain pictures per step (CLIP 96, diffusion 32; less needs less memory)"
    )
    settings.add_argument("--towers", help="towers growth may edit, comma-separated")
    settings.add_argument("--granularity", metavar="KINDS", help="any of head, mlp, layer, comma-separated")
