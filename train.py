"""Train a model: posed photographs in, a run folder out. The same command again resumes the run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from engine import early
from utils.command_line import Parser, number, override
from utils.errors import MEMORY, RANK_LOST, memory_line, out_of_memory, run_script

if TYPE_CHECKING:
    from engine.experiment import ExperimentConfig
    from utils.distributed import Ranks

NOT_FINITE, VIEW_PORT = 3, 7007
EXAMPLE = """examples:
  python train.py configs/neus_hash.yaml data.path=DATA train.minutes=10
  python train.py configs/neus_hash.yaml data.path=DATA --view
  python train.py configs/neus_hash.yaml data.path=DATA --check
  torchrun --nproc-per-node=2 train.py configs/neus_hash.yaml data.path=DATA

exit codes: 0 done, 2 bad input, 3 loss not finite, 4 storage, 5 memory, 6 a rank was lost,
75 or 130 after a signal"""

SMALLER = (
    "a smaller train.micro_batch, fewer train.rays or train.samples, a smaller data.ram or a larger data.downscale may"
    " help"
)


def main() -> int:
    parser = Parser(__doc__, EXAMPLE, keys=early.keys)
    add = parser.add_argument
    add("config", help="a YAML file, see configs/")
    add("overrides", type=override, nargs="*", default=[], metavar="key.sub=value", help="changes to the config")
    add("--check", action="store_true", help="check config and data, then stop")
    add("--print-config", action="store_true", help="print the resolved config, then stop")
    add("--allow-config-change", action="store_true", help="resume although the config differs")
    add("--view", action="store_true", help="with the viewer of view.py, as long as the training lasts")
    add("--view-port", type=number(int, 1024, 65535), metavar="N", help="the same, on port N or the next free one")
    args = parser.parse()
    port = args.view_port or (VIEW_PORT if args.view else None)
    if port:
        early.check_viewer()
    tree = early.check_config(args.config, args.overrides)
    folder = early.output_folder(tree, args.config)
    if not args.print_config:
        early.check_places(tree, folder)

    from engine import experiment, memory_estimate, suits
    from utils import distributed
    from utils.config.loading import to_yaml
    from utils.loggers.wandb import check_installed

    config = experiment.read_config(args.config, args.overrides)
    if args.print_config:
        print(to_yaml(config), end="")
        return 0
    if args.check:
        estimate, model = memory_estimate.check_memory(config, distributed.choose_device(config.device))
        if config.log.wandb:
            check_installed()
        found = config.data.inspect()
        for warning in suits.warnings_before(config, found):
            print(f"warning: {warning}", file=sys.stderr)
        print(memory_estimate.before_data(estimate, config, model, found).line())
        print(f"{args.config}: fits; {found.line}")
        return 0
    return train(config, folder, args.allow_config_change, view_port=port)


def train(
    config: ExperimentConfig, folder: Path, allow_config_change: bool, *, view_port: int | None = None
) -> int:
    """Train until the budget is used or a signal comes; returns the exit code. view_port: of a viewer, None: no viewer.
    """
    from engine import resume, signals
    from engine.report.page import try_to_write  # before memory is limited: its libraries crash where they cannot load
    from engine.viewer.beside import view_beside
    from utils import distributed

    several = config.distributed
    ranks = distributed.setup(config.device, timeout=several.timeout, meet_within=several.meet_within)
    try:
        run = resume.open_trainer(config, folder, ranks, allow_config_change=allow_config_change)
        if ranks.is_main:
            signals.mark_preempted(folder, preempted=False)
        if run is None:
            return 0
        stop = signals.StopSignals()
        viewer = None
        if view_port and ranks.is_main:
            viewer = view_beside(folder, view_port, str(ranks.device), run.line.message)
        try:
            while run.progress < 1 and not run.leaves(stop.received):
                run.step_once()
                run.attend(lambda: stop.received)
                if viewer is not None:
                    viewer.attend()
            code = 0 if run.progress >= 1 else int(distributed.largest_of_ranks(stop.exit_code))
            run.finish()
            if code == signals.PREEMPTED_CODE and ranks.is_main:
                signals.mark_preempted(folder, preempted=True)
            distributed.barrier()  # torchrun ends all ranks as soon as one has ended with another code than 0
            if ranks.is_main:
                try_to_write(folder)
        except Exception as error:
            code = code_of(error, ranks)
            if code == 0:
                raise
        finally:
            if viewer is not None:
                viewer.close()
            run.close()
        return code
    finally:
        distributed.cleanup()


def code_of(error: Exception, ranks: Ranks) -> int:
    """Say in one line what ended a training; the exit code, 0 where it is an error that nobody can act on."""
    from engine.step_guard import NumbersError
    from utils import distributed

    if isinstance(error, NumbersError):
        print(f"error: {error} - the checkpoints before are kept; a smaller optimizer.lr may help", file=sys.stderr)
        return NOT_FINITE
    if distributed.rank_is_gone(error):
        distributed.abandon()
        print(f"error: {ranks.loss_line(error)}", file=sys.stderr)
        return RANK_LOST
    if out_of_memory(error):
        print(f"error: {memory_line(error, f'the checkpoints before are kept; {SMALLER}')}", file=sys.stderr)
        return MEMORY
    return 0


if __name__ == "__main__":
    run_script(main, memory=SMALLER)
