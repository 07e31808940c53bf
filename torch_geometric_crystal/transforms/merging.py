"""What transforms that merge like atoms share: tolerance, checks, and which fields go with atoms and edges."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.ops.lattice import IntArray
from torch_geometric_crystal.transforms.color_refinement import different_rows, levels

ATOM_MULTIPLICITY = "atom_multiplicity"

_CRYSTAL_FIELDS = ("cell", "pbc", "y", "edge_cutoff", "truncation_bound")
_GRAPH_FIELDS = ("edge_index", "edge_shift", "edge_dist", "line_graph_index", "line_graph_cosine")
_FROM_POSITIONS = ("pos", "log_tail")


class Merging(BaseTransform):
    """Base of the transforms that keep one of all atoms that look alike.

    Args:
        merge_tolerance (float, optional): Largest difference of lengths, in A, that are taken for the same.
            (default: :obj:`1e-4`)
    """

    def __init__(self, merge_tolerance: float = 1e-4):
        is_number = isinstance(merge_tolerance, int | float)
        check_argument(
            is_number and merge_tolerance >= 0.0, "merge_tolerance", "a number of at least 0", merge_tolerance
        )
        self.merge_tolerance = float(merge_tolerance)

    def check_unmerged(self, data: Data) -> None:
        """Raise ``ValueError`` for a crystal that is merged already, or has targets for its atoms."""
        if "y" in data and data.y.shape[:1] != (1,):
            raise ValueError("data: expected targets of the crystal, y (1, T): atoms with targets cannot be merged")
        if ATOM_MULTIPLICITY in data:
            raise ValueError("data: expected a crystal with all its atoms, received one whose atoms are merged already")

    def first_colors(self, data: Data) -> tuple[IntArray, IntArray]:
        """Colours of atoms and edges before any refinement: by what is stored of each, but for positions and images."""
        own = [data[name] for name in _fields(data, data.node_attrs()) if name not in _FROM_POSITIONS]
        lengths = torch.from_numpy(self.levels(data.edge_dist))
        return different_rows(own), different_rows([lengths, *(data[n] for n in _fields(data, data.edge_attrs()))])

    def levels(self, values: Tensor) -> IntArray:
        """Number values so that those within the tolerance of each other are the same."""
        return levels(values.double().numpy(), self.merge_tolerance)

    def keep_fields(self, data: Data, atoms: IntArray, edges: IntArray) -> None:
        """Leave the fields of some atoms and edges alone; `edge_index` is to be set anew, `edge_shift` goes."""
        names = (_fields(data, data.node_attrs()), [*_fields(data, data.edge_attrs()), "edge_dist"])
        for chosen, kept in zip(names, (atoms, edges), strict=True):
            for name in chosen:
                data[name] = data[name][torch.from_numpy(kept)]
        if "edge_shift" in data:
            del data.edge_shift

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(merge_tolerance={self.merge_tolerance})"


def refuse_merged(data: Data, where: str) -> None:
    """Raise ``ValueError`` for merged atoms, saying `where` every atom is needed."""
    if ATOM_MULTIPLICITY in data:
        raise ValueError(
            f"data: expected every atom {where}, received merged ones. Apply the model's own neighborhood(), without "
            "merge_tolerance where it does not take it"
        )


def _fields(data: Data, names: Sequence[str]) -> list[str]:
    chosen = [name for name in names if name not in (*_CRYSTAL_FIELDS, *_GRAPH_FIELDS)]
    for name in chosen:
        expected = "a tensor with a row for each atom or edge; make it one, or remove it"
        check_argument(isinstance(data[name], Tensor), f"data.{name}", expected, type(data[name]).__name__)
    return chosen
