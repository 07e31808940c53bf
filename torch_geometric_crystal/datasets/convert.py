"""Any source to a compact store."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from torch_geometric_crystal.checks import check_choice
from torch_geometric_crystal.datasets.compact_store import write_compact_store
from torch_geometric_crystal.datasets.open_source import open_source
from torch_geometric_crystal.datasets.processing import Processed, Recipe, stream
from torch_geometric_crystal.datasets.source import Source, refuse_repeated_ids


class Conversion(NamedTuple):
    """What a conversion did.

    Attributes:
        num_structures: Structures written.
        target_names: Their targets.
        errors: (id, message) of each structure left out.
        notes: Warnings about structures that were written.
    """

    num_structures: int
    target_names: tuple[str, ...]
    errors: list[tuple[str, str]]
    notes: list[str]


def convert(
    source: str | Path | Sequence[Any] | Source,
    path: str | os.PathLike,
    target: str | Sequence[str] | None = None,
    on_error: str = "raise",
    num_workers: int | None = None,
    dtype: type = np.float32,
    progress: bool = True,
) -> Conversion:
    """Write any source that `open_source` reads as a compact store.

    Args:
        source: A path, a list, or a `Source`.
        path: File to write, ending in ``.npz``. It appears whole or not at all.
        target: Name, or names, of the targets. Default: as `open_source`.
        on_error: ``"raise"`` at the first invalid structure, or ``"skip"`` them and report them.
        num_workers: Processes used for parsing; as in `CrystalDataset`.
        dtype: Type of the stored coordinates, float32 or float64.
        progress: Whether to show a progress bar (on a terminal only).

    Raises:
        InvalidStructureError: at the first invalid structure, if `on_error` is ``"raise"``.
        ValueError: if no structure is left.
        OSError: if the file cannot be written; an older one is left whole.
    """
    check_choice("on_error", on_error, ("raise", "skip"))
    opened = open_source(source, target)
    entries = refuse_repeated_ids(list(opened))
    result = Processed()
    recipe = Recipe(pre_transform=None, pre_filter=None, dtype=torch.float64)
    crystals = stream(entries, recipe, result, num_workers, on_error == "skip", progress, opened.name)
    number = write_compact_store(path, crystals, opened.target_names, dtype=dtype)
    errors = [(fault.structure_id, f"{fault.fault}. {fault.remedy}") for fault in result.faults]
    return Conversion(number, opened.target_names, errors, result.notes)
