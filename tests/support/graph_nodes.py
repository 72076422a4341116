"""What a recorded training step consists of: its nodes, and what the host starts beside it, by line and by kind.

    python -m tests.support.graph_nodes [CONFIG] [KEY=VALUE ...]

On the fake CUDA device, so that no GPU is needed. A node of the backward pass stands with the line of the forward pass
that it is the gradient of, unless a line of ours launches it.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.support.fake_product import copy_product, told_by


def main(config: str = "neus_hash", *overrides: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        copy_product(Path(folder) / "product")
        found = told_by(Path(folder) / "product", "--nodes", config, *overrides)
    for name in ("nodes", "starts"):
        rows = [tuple(row) for row in found[name]]
        print(f"\n{len(rows)} {name}")
        print_counted("by line", (f"{line:60}{kind}" for line, kind in rows))
        print_counted("by folder", (line.rpartition("/")[0] for line, _ in rows))
        print_counted("by kind", (kind for _, kind in rows))
    return 0


def print_counted(title: str, rows: Iterable[str]) -> None:
    """A table of how often each row is there, the most frequent first."""
    print(f"  {title}")
    for row, count in Counter(rows).most_common():
        print(f"{count:6}  {row}")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
