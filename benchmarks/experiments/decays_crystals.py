"""Small crystals of a bundled set with their shells, made once for each decay: large cells never get a graph."""

import functools
from typing import Any

import numpy as np
from decays_model import DecayShells

from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.sources import PARTS, CrystalParts, load_parts


def small_parts(config: RunConfig, most_atoms: int, train_size: int | None) -> CrystalParts:
    """The crystals of at most so many atoms, in the set's own split.

    Args:
        config: data, target, decay and tolerance.
        most_atoms: in the cell.
        train_size: train on so many of them, the same for all decays; None for all.
    """
    decay = config.model_options["decay"]
    return _small_parts(config.data, config.targets, decay, config.neighborhood["tol"], most_atoms, train_size)


@functools.cache
def _small_parts(
    data: str, targets: tuple[str, ...], decay: str, tol: float, most_atoms: int, train_size: int | None
) -> CrystalParts:
    found = load_parts(data, targets, None)
    chosen: dict[str, list[Any]] = {
        part: [crystal for crystal in found.parts[part] if crystal.num_nodes <= most_atoms] for part in PARTS
    }
    if train_size is not None:
        order = np.random.default_rng(0).permutation(len(chosen["train"]))[:train_size]
        chosen["train"] = [chosen["train"][index] for index in order]
    shells = DecayShells(decay, tol=tol)
    parts = {part: [shells(crystal.clone()) for crystal in crystals] for part, crystals in chosen.items()}
    return CrystalParts(parts, found.target_names, found.units)
