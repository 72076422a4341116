"""Which views are for training and which for tests, where a data set lists them by the names of their pictures."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence

from dataio.files import notice, shown
from utils.errors import InputError


def split_labels(names: Sequence[str], lists: Mapping[str, tuple[str, Sequence[str]]], *, where: str) -> list[str]:
    """The split of each view, "" for none; of a view that several lists name that of the last one.

    names: of the views, in any spelling of a relative path. lists: by split, in which place it stands, and its names.
    where: the file or folder, for messages. Says in a line each which names have no view, which views are in several
    splits, and how many are in none. Raises InputError where no view is in any.
    """
    view_of = {posixpath.normpath(name): view for view, name in enumerate(names)}
    label, lost, twice = [""] * len(names), [], []
    for split, (place, listed) in lists.items():
        for name in dict.fromkeys(listed):
            view = view_of.get(posixpath.normpath(name))
            if view is None:
                lost.append(f"{place}: {shown(name)}")
                continue
            if "train" in (label[view], split) and label[view] not in ("", split):
                twice.append(name)
            label[view] = split
    if lost and not any(label):
        raise InputError(f"{where}: {lost[0]} - expected the file_path of a frame; none of {len(lost)} names is one")
    if lost:
        notice(f"{where}: {len(lost)} names of its splits have no frame, the first is {lost[0]} - left out")
    if twice:
        notice(f"{where}: {len(twice)} pictures are listed for training and for tests: taken for tests, as {twice[0]}")
    _say_unused(names, label, where)
    return label


def _say_unused(names: Sequence[str], label: Sequence[str], where: str) -> None:
    unused = [name for name, split in zip(names, label, strict=True) if not split]
    if unused:
        notice(f"{where}: {len(unused)} of {len(names)} pictures are in none of its splits, as {unused[0]} - not used")
