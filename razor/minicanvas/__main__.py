"""Command line of the bundled world: show it, list it, train its models.

python -m razor.minicanvas show OUT.png [--drawn]
python -m razor.minicanvas list
python -m razor.minicanvas train {clip,judge,diffusion,vlm}
"""

import argparse
import importlib
import json
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from razor.errors import InputError
from razor.minicanvas.dataset import AXES, draw, neighbours, parse_target, slug, targets

MODELS = Path(__file__).resolve().parents[2] / "assets" / "models"
RECIPES = {  # what to train: its module and function, its folder, steps, batch
    "clip": ("train_clip", "train_clip", "mini-clip", 4500, 128),
    "judge": ("judge", "train_judge", "judge", 1200, 96),
    "diffusion": ("train_diffusion", "train_diffusion", "mini-sd", 4000, 64),
    "vlm": ("train_vlm", "train_vlm", "mini-vlm", 4000, 32),
}


def cells() -> list[tuple[dict[str, str], int]]:
    """(labels, number) of the pictures on a contact sheet, row by row: styles by objects, then the people twice."""
    objects, styles, people = (AXES[axis] for axis in ("object", "style", "identity"))
    things = [({"object": name, "style": style}, row) for row, style in enumerate(styles) for name in objects]
    return things + [({"identity": name}, row) for row in range(2) for name in people]


def contact_sheet(pictures: Iterable[Image.Image], tile: int = 64) -> Image.Image:
    """Pictures of `cells` on one sheet."""
    across = len(AXES["object"])
    sheet = Image.new("RGB", (across * tile, len(cells()) // across * tile))
    for i, picture in enumerate(pictures):
        sheet.paste(picture.resize((tile, tile)), (i % across * tile, i // across * tile))
    return sheet


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and run one command."""
    parser = argparse.ArgumentParser(prog="python -m razor.minicanvas", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="write a contact sheet of the whole world")
    show.add_argument("out", type=Path, metavar="OUT.png")
    show.add_argument("--drawn", action="store_true", help="as mini-sd draws it, asked in sentences it never saw")
    commands.add_parser("list", help="print every target and its known neighbours")
    train = commands.add_parser("train", help="train a bundled model from scratch")
    train.add_argument("model", choices=list(RECIPES))
    train.add_argument("--steps", type=int, help="default: the bundled model's own")
    train.add_argument("--batch", type=int, help="default: the bundled model's own")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--work", type=Path, default=Path("build/minicanvas"), help="pictures and checkpoints")
    train.add_argument("--out", type=Path, help="default: the bundled model's folder")
    train.add_argument("--without", metavar="TARGET", help="clip alone: never show or name this class (a gold model)")
    args = parser.parse_args(argv)

    if args.command == "show":
        if args.drawn:
            from razor.minicanvas.train_diffusion import drawn, load

            pictures = drawn(load(MODELS / "mini-sd"), cells())
        else:
            pictures = (draw(labels, "train", number) for labels, number in cells())
        contact_sheet(pictures).save(args.out)
    elif args.command == "list":
        for target in targets():
            print(f"{target!s:28} neighbours: {', '.join(map(slug, neighbours(target)))}")
    else:
        module, function, name, steps, batch = RECIPES[args.model]
        more = {}
        if args.without:
            if args.model != "clip":
                parser.error("--without trains a gold model of mini-clip alone; leave it out, or train clip")
            try:
                target = parse_target(args.without)
            except InputError as error:
                parser.error(str(error))
            more, name = {"without": target}, f"{name}-without-{slug(target.name)}"
        train_model = getattr(importlib.import_module(f"razor.minicanvas.{module}"), function)
        card = train_model(
            steps=args.steps or steps,
            batch=args.batch or batch,
            seed=args.seed,
            work=args.work,
            out=args.out or MODELS / name,
            **more,
        )
        print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
