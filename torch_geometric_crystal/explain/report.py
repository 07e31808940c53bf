"""The files that ``tgcrystal explain`` writes: pictures and tables of what a model looks at."""

import re
from collections.abc import Sequence
from pathlib import Path

from torch_geometric_crystal.benchmark.plots import save_figure
from torch_geometric_crystal.benchmark.recording import write_table
from torch_geometric_crystal.explain.attention_map import AttentionMap
from torch_geometric_crystal.explain.bonds import Bonds
from torch_geometric_crystal.explain.distances import weight_by_distance
from torch_geometric_crystal.explain.pictures import (
    plot_atoms,
    plot_sigma,
    plot_species_pairs,
    plot_weight_by_distance,
)
from torch_geometric_crystal.explain.species import weight_by_species
from torch_geometric_crystal.explain.tables import head_rows, pair_rows, weight_rows

LARGEST_ROW = 1e-3


def write_report(
    maps: Sequence[AttentionMap],
    folder: str | Path,
    bonds: Sequence[Bonds] | None = None,
    min_weight: float = LARGEST_ROW,
) -> list[str]:
    """Write pictures and tables of attention on some crystals; the names of the files are returned.

    ``weights.csv`` (:func:`~torch_geometric_crystal.explain.weight_rows`), ``heads.csv``
    (:func:`~torch_geometric_crystal.explain.head_rows`), ``pairs.csv`` where there are heads in reciprocal space
    (:func:`~torch_geometric_crystal.explain.pair_rows`), ``distance.png``, ``species.png``, ``species_relative.png``,
    ``sigma.png``, and ``atoms_<structure>.png`` for each crystal. A model whose heads are all in reciprocal space gets
    ``pairs.csv`` and ``sigma.png`` alone.

    Args:
        maps: of one model.
        folder: made if it is not there.
        bonds: of each map.
        min_weight: images and pairs whose weight is less in all heads are left out of the tables.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    if maps[0].reciprocal is not None:
        write_table(folder / "pairs.csv", [row for each in maps for row in pair_rows(each, min_weight)])
        names.append("pairs.csv")
    figures = {"sigma.png": plot_sigma(maps).figure}
    if maps[0].has_image_weights.any():
        of_each = list(bonds) if bonds is not None else [None] * len(maps)
        rows = [row for each, bond in zip(maps, of_each, strict=True) for row in weight_rows(each, bond, min_weight)]
        write_table(folder / "weights.csv", rows)
        write_table(folder / "heads.csv", head_rows(maps, bonds))
        names += ["weights.csv", "heads.csv"]
        pairs = weight_by_species(maps)
        figures["distance.png"] = plot_weight_by_distance(weight_by_distance(maps))[0].figure
        figures["species.png"] = plot_species_pairs(pairs).figure
        figures["species_relative.png"] = plot_species_pairs(pairs, relative=True).figure
        for each, bond in zip(maps, of_each, strict=True):
            figures[f"atoms_{_file_name(each.structure_id)}.png"] = plot_atoms(each, bond)[0, 0].figure
    for name, figure in figures.items():
        save_figure(figure, folder / name)
    return names + list(figures)


def _file_name(structure_id: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", structure_id).strip("_") or "structure"
