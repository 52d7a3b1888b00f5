"""Command line of the bundled world: show it, list it, train its models.

python -m razor.minicanvas show OUT.png
python -m razor.minicanvas list
python -m razor.minicanvas train {clip,judge,diffusion}
"""

import argparse
import importlib
import json
from pathlib import Path

from PIL import Image

from razor.minicanvas.dataset import AXES, draw, neighbours, slug, targets

RECIPES = {  # what to train: its module and function, its folder, steps, batch
    "clip": ("train_clip", "train_clip", "mini-clip", 4500, 128),
    "judge": ("judge", "train_judge", "judge", 1200, 96),
    "diffusion": ("train_diffusion", "train_diffusion", "mini-sd", 6000, 64),
}


def contact_sheet(tile: int = 64) -> Image.Image:
    """Styles by objects, then the twenty people twice, as one picture."""
    objects, styles, people = (AXES[axis] for axis in ("object", "style", "identity"))
    sheet = Image.new("RGB", (len(objects) * tile, (len(styles) + 2) * tile))
    for row, style in enumerate(styles):
        for column, name in enumerate(objects):
            picture = draw({"object": name, "style": style}, "train", row, 2 * tile)
            sheet.paste(picture.resize((tile, tile)), (column * tile, row * tile))
    for row in range(2):
        for column, name in enumerate(people):
            picture = draw({"identity": name}, "train", row, 2 * tile)
            sheet.paste(picture.resize((tile, tile)), (column * tile, (len(styles) + row) * tile))
    return sheet


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and run one command."""
    parser = argparse.ArgumentParser(prog="python -m razor.minicanvas", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="write a contact sheet of the whole world")
    show.add_argument("out", type=Path, metavar="OUT.png")
    commands.add_parser("list", help="print every target and its known neighbours")
    train = commands.add_parser("train", help="train a bundled model from scratch")
    train.add_argument("model", choices=list(RECIPES))
    train.add_argument("--steps", type=int, help="default: the bundled model's own")
    train.add_argument("--batch", type=int, help="default: the bundled model's own")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--work", type=Path, default=Path("build/minicanvas"), help="pictures and checkpoints")
    train.add_argument("--out", type=Path, help="default: the bundled model's folder")
    args = parser.parse_args(argv)

    if args.command == "show":
        contact_sheet().save(args.out)
    elif args.command == "list":
        for target in targets():
            print(f"{target!s:28} neighbours: {', '.join(map(slug, neighbours(target)))}")
    else:
        module, function, name, steps, batch = RECIPES[args.model]
        train_model = getattr(importlib.import_module(f"razor.minicanvas.{module}"), function)
        card = train_model(
            steps=args.steps or steps,
            batch=args.batch or batch,
            seed=args.seed,
            work=args.work,
            out=args.out or Path("assets/models") / name,
        )
        print(json.dumps(card, indent=2))


if __name__ == "__main__":
    main()
