"""The command line.

python -m razor score    --model mini-clip --forget style:neon
python -m razor unlearn  --model mini-clip --forget style:neon --out runs/neon
python -m razor evaluate --model mini-clip --forget style:neon --patch runs/neon/patch.safetensors
python -m razor evaluate --model mini-clip --forget style:neon --patch runs/neon/patch.safetensors --attacks all
python -m razor compare  --model mini-clip --forget style:neon --methods razor,slug,ssd --json neon.json
python -m razor carry    --from mini-clip --to mini-vlm --patch runs/neon/patch.safetensors --out runs/vlm.safetensors
python -m razor export   --model mini-clip --patch runs/neon/patch.safetensors --as full --out neon-clip
python -m razor report   runs/neon --attacks all --out neon.html
python -m razor diff     runs/neon runs/neon-2/patch.safetensors
python -m razor ask      --model ~/models/llava --questions mme.csv --rule mme --patch runs/ada/patch.safetensors
python -m razor bench clip
python -m razor app
"""

import argparse
import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from razor.arguments import parser
from razor.commands import making, measuring
from razor.commands.given import check_table
from razor.errors import InputError, RazorError
from razor.host import keep_memory


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command. Wrong input ends with one sentence and exit code 2, Ctrl-C with 130, a kill with 143."""
    args = parser().parse_args(argv)
    keep_memory()
    try:
        with _ended_by_kill():
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                _run_together(args)
            else:
                _run(args)
    except (RazorError, OSError) as error:
        print(f"razor: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stopped:
        sys.exit(_told(stopped))


def _told(stopped: KeyboardInterrupt) -> int:
    """Say that the work was ended from outside; gives the exit code."""
    print("razor: stopped; no model was changed.", file=sys.stderr)
    return 143 if isinstance(stopped, _Killed) else 130


class _Killed(KeyboardInterrupt):
    """SIGTERM, of a container being stopped or of kill."""


@contextmanager
def _ended_by_kill() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that nothing is left half written; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():  # only there can signals be answered
        yield
        return

    def end(number: int, _frame) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise _Killed

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(args: argparse.Namespace) -> None:
    """The command that was given, once its results are known to have a place and its patch to be one."""
    for name in ("json", "csv"):
        if (out := getattr(args, name, None)) is not None:
            check_table(out, f"--{name}")
    if getattr(args, "patch", None):
        from razor.patches import Patch

        args.patch = Patch.load(args.patch)
    commands = making.COMMANDS | measuring.COMMANDS | {"bench": _bench, "app": _app}
    commands[args.command](args)


def _run_together(args: argparse.Namespace) -> None:
    """One command in several processes that a launcher started; all but the first print nothing but errors."""
    from razor import processes

    shared = ("targets", "words") if args.command == "bench" and args.family in ("clip", "diffusion", "vlm") else ()
    if args.command not in ("score", "unlearn") and not shared:
        raise InputError(
            f"{args.command} runs in one process; several share score, unlearn, and bench clip, diffusion and vlm."
        )
    if shared:
        from razor.bench import clip, diffusion, vlm

        known = {"clip": clip, "diffusion": diffusion, "vlm": vlm}[args.family].PARTS
        args.parts = args.parts or ",".join(part for part in known if part in shared)
        if alone := sorted({part.strip() for part in args.parts.split(",")} & set(known) - set(shared)):
            raise InputError(f"--parts {alone[0]} measures one process; start it without the others.")
    processes.join(getattr(args, "device", None))
    if not processes.first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, for as long as the process runs
    _run(args)
    processes.leave()


def _bench(args: argparse.Namespace) -> None:
    from razor.bench import clip, diffusion, editing, processes, readme, rivals, vlm

    if args.family == "all":
        if args.json or args.parts:
            raise InputError("bench all writes to assets/results and runs every part; name one bench to choose.")
        for bench in (clip, diffusion, vlm, rivals):
            bench.main(args.targets)
        for bench in (editing, processes):
            bench.main(None)
        readme.main()
    elif args.family == "readme":
        readme.main()
    elif alone := {"editing": editing, "processes": processes}.get(args.family):
        alone.main(args.json)
    else:
        family = {"clip": clip, "diffusion": diffusion, "vlm": vlm, "rivals": rivals}[args.family]
        family.main(args.targets, args.json, args.parts or ",".join(family.PARTS))


def _app(args: argparse.Namespace) -> None:
    option, said = ("--auth", args.auth) if args.auth else ("RAZOR_AUTH", os.environ.get("RAZOR_AUTH", ""))
    user, _, password = said.partition(":")
    if said and not (user and password):
        raise InputError(f"{option} needs USER:PASS, such as ada:secret.")
    auth = (user, password) if said else None
    import app

    app.check_address(args.host, args.port)  # before anything is loaded
    try:
        app.launch(
            host=args.host,
            port=args.port,
            auth=auth,
            share=args.share,
            model=args.model,
            dtype=args.dtype,
            mcp=args.mcp,
        )
    except KeyboardInterrupt as stopped:
        # Visitors' work may be under way in other threads, beneath which an interpreter that ends itself may hang.
        code = _told(stopped)
        atexit._run_exitfuncs()  # these delete temporary files
        sys.stdout.flush()
        os._exit(code)
