"""Edges to the nearest periodic images."""

import numpy as np
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from torch_geometric_crystal.checks import InvalidStructureError, check_argument, check_choice
from torch_geometric_crystal.data.neighbors import neighbor_list
from torch_geometric_crystal.ops.lattice import FloatArray, IntArray
from torch_geometric_crystal.transforms.graph_fields import crystal_arrays, store_graph, structure_name

Edges = tuple[IntArray, IntArray, IntArray, FloatArray]


class PeriodicKNNGraph(BaseTransform):
    r"""Connect each atom to its nearest periodic images of atoms, among those within a cutoff.

    In a crystal many neighbours have the same distance, so the k nearest are not well defined. The neighbours of an
    atom are first grouped into shells: in the order of their distance, a neighbour starts a new shell where it is
    farther than the one before it by more than `tie_tolerance`. Rounding of positions then does not decide.

    * ``ties="shell"`` keeps whole shells, up to and with the one that holds the k-th neighbour: at least k edges where
      there are that many, and the same graph for every choice of cell and order of atoms.
    * ``ties="cut"`` keeps exactly k, in the order of shell, source atom, image: the last shell is cut in a way that
      depends on the order of the atoms.

    Neighbours count as within the cutoff up to ``cutoff + tie_tolerance``. Where an atom has fewer than k of them,

    * ``shortage="keep"`` leaves it with fewer, or with none;
    * ``shortage="grow"`` raises the cutoff for the whole crystal, to the longest periodic lattice vector if that is
      longer, else to twice what it was, until each atom has k (or, in a molecule, all the other atoms).

    CGCNN takes the 12 nearest within 8 A and no more: ``PeriodicKNNGraph(12, 8.0, ties="cut")``. ALIGNN takes the 12
    nearest and all ties with the 12th, lets the cutoff grow, and stores each edge in both directions:
    ``PeriodicKNNGraph(12, 8.0, ties="shell", shortage="grow", mutual=True)``.

    Sets `edge_index` (2, E), `edge_shift` (E, 3), `edge_dist` (E,) and `edge_cutoff` (1,), sorted by target, then by
    distance; removes an earlier graph. The atom itself is no neighbour of its own, its periodic images are.

    Args:
        k (int, optional): Number of neighbours. (default: :obj:`12`)
        cutoff (float, optional): Largest distance of a neighbour, in A. (default: :obj:`8.0`)
        ties (str, optional): ``"shell"`` or ``"cut"``. (default: :obj:`"shell"`)
        shortage (str, optional): ``"keep"`` or ``"grow"``. (default: :obj:`"keep"`)
        mutual (bool, optional): Also add the reverse of each edge, where it is not among the edges already. An atom
            can then have more than k. (default: :obj:`False`)
        tie_tolerance (float, optional): Largest gap between the distances of one shell, in A. (default: :obj:`1e-4`)
        zero_length (bool, optional): Whether there may be edges of length 0, between atoms that share a place; layers
            that need the edges' directions cannot take them. (default: :obj:`True`)

    Raises:
        InvalidStructureError: on a crystal that :func:`~torch_geometric_crystal.data.validate_crystal` refuses, or,
            with ``zero_length=False``, in which atoms share a place.
    """

    def __init__(
        self,
        k: int = 12,
        cutoff: float = 8.0,
        ties: str = "shell",
        shortage: str = "keep",
        mutual: bool = False,
        tie_tolerance: float = 1e-4,
        zero_length: bool = True,
    ):
        check_argument(k >= 1, "k", "at least 1", k)
        check_argument(cutoff > 0.0, "cutoff", "a positive distance in A", cutoff)
        check_choice("ties", ties, ("shell", "cut"))
        check_choice("shortage", shortage, ("keep", "grow"))
        check_argument(tie_tolerance >= 0.0, "tie_tolerance", "a distance in A, at least 0", tie_tolerance)
        self.k = k
        self.cutoff = float(cutoff)
        self.ties = ties
        self.shortage = shortage
        self.mutual = mutual
        self.tie_tolerance = float(tie_tolerance)
        self.zero_length = zero_length

    def forward(self, data: Data) -> Data:
        """Return `data` with the graph."""
        pos, cell, pbc = crystal_arrays(data)
        cutoff, name = self.cutoff, structure_name(data)
        edges = neighbor_list(pos, cell, pbc, cutoff + self.tie_tolerance, name)
        if self.shortage == "grow":
            wanted = self.k if pbc.any() else min(self.k, len(pos) - 1)
            longest = float(np.linalg.norm(cell[pbc], axis=1).max(initial=0.0))
            while np.bincount(edges[0], minlength=len(pos)).min() < wanted:
                cutoff = longest if longest > cutoff else 2.0 * cutoff
                edges = neighbor_list(pos, cell, pbc, cutoff + self.tie_tolerance, name)
        touching = np.flatnonzero(edges[3] == 0.0)
        if not self.zero_length and len(touching):
            first = int(touching[0])
            raise InvalidStructureError(
                name,
                f"atoms {int(edges[1][first])} and {int(edges[0][first])} share a place, and the edge between them has "
                "no direction",
                "Remove one of them",
            )
        edges = self._nearest(edges)
        if self.mutual:
            edges = _with_reverse(edges)
        return store_graph(data, *edges, cutoff=cutoff)

    def _nearest(self, edges: Edges) -> Edges:
        """Choose each target's edges by shell."""
        target, source, shift, dist = edges
        if len(target) == 0:
            return edges
        order = np.lexsort((dist, target))
        starts_target = np.diff(target[order], prepend=-1) > 0
        starts_shell = starts_target | (np.diff(dist[order], prepend=0.0) > self.tie_tolerance)
        shell = np.cumsum(starts_shell)
        first = np.flatnonzero(starts_target)
        count = np.diff(first, append=len(order))
        last_shell = shell[first + np.minimum(self.k, count) - 1]
        within = shell <= np.repeat(last_shell, count)
        kept, shell = order[within], shell[within]
        if self.ties == "cut":
            # Only what is left has to be put into the order in which the last shell is cut.
            keys = (shift[kept, 2], shift[kept, 1], shift[kept, 0], source[kept], shell)
            kept = kept[np.lexsort(keys)]
            first = np.flatnonzero(np.diff(target[kept], prepend=-1) > 0)
            rank = np.arange(len(kept)) - np.repeat(first, np.diff(first, append=len(kept)))
            kept = kept[rank < self.k]
        return target[kept], source[kept], shift[kept], dist[kept]

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}(k={self.k}, cutoff={self.cutoff}, ties={self.ties!r}, "
            f"shortage={self.shortage!r}, mutual={self.mutual}, tie_tolerance={self.tie_tolerance})"
        )


def _with_reverse(edges: Edges) -> Edges:
    """Add (j, i, -n) for each edge (i, j, n), without doubles."""
    target, source, shift, dist = edges
    keys = np.column_stack([target, source, shift])
    reversed_keys = np.column_stack([source, target, -shift])
    keys, chosen = np.unique(np.concatenate([keys, reversed_keys]), axis=0, return_index=True)
    return keys[:, 0], keys[:, 1], keys[:, 2:], np.concatenate([dist, dist])[chosen]
