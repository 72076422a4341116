"""Publish a run for others to fetch: its weights as safetensors, its config, and a model card."""

from __future__ import annotations

from engine import early
from utils.command_line import Parser, output_folder
from utils.errors import run_script

EXAMPLE = """examples:
  python publish.py runs/shoe published/shoe --data-license "CC BY 4.0, J. Doe"
  python publish.py runs/shoe published/shoe --data-license "own photographs" --checkpoint best

The license of the photographs is yours to say: what they show can be seen in the weights.
Files: model.safetensors, config.yaml, README.md, metrics.json. The data are not published."""


def main() -> int:
    parser = Parser(__doc__, EXAMPLE)
    add = parser.add_argument
    add("run", help="run folder, or one of its checkpoints")
    add("out", type=output_folder, help="folder to write")
    add("--data-license", required=True, metavar="TEXT", help="of the photographs, for the model card")
    add("--checkpoint", choices=("newest", "best"), default="newest", help="default: newest")
    args = parser.parse()
    early.check_run(args.run)

    from engine.published import publish

    path = publish(args.run, args.out, data_license=args.data_license, best=args.checkpoint == "best")
    print(f"{path}: published; fill in what the model card leaves open")
    return 0


if __name__ == "__main__":
    run_script(main)
