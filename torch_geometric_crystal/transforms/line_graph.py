"""The graph of a graph's edges, with the angles between them."""

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from torch_geometric_crystal.checks import InvalidStructureError
from torch_geometric_crystal.ops.lattice import edge_vectors
from torch_geometric_crystal.transforms.graph_fields import structure_name

LINE_GRAPH_INDEX = "line_graph_index"

MAX_PAIRS = 100_000_000
"""Largest number of pairs of edges in one crystal: about 5 GB while they are made."""


class LineGraphData(Data):
    """A crystal whose field `line_graph_index` counts edges, so that it is offset by edges where crystals are batched.

    PyG offsets every field with "index" in its name by the number of nodes; here this one is offset by the number of
    edges. In all else it is :class:`torch_geometric.data.Data`.
    """

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key == LINE_GRAPH_INDEX:
            return self.num_edges
        return super().__inc__(key, value, *args, **kwargs)


torch.serialization.add_safe_globals([LineGraphData])


class LineGraph(BaseTransform):
    r"""Connect each edge to the edges that start where it ends, and store the angle between them.

    From `"Atomistic Line Graph Neural Network for Improved Materials Property Predictions"
    <https://arxiv.org/abs/2106.01829>`_ (Choudhary and DeCost, 2021). For each pair of edges :math:`a \to b` and
    :math:`b \to c`, with :math:`\mathbf{r}_{ab}` the vector from a to b,

    .. math::
        \cos \theta = \frac{-\mathbf{r}_{ab} \cdot \mathbf{r}_{bc}}{r_{ab} \, r_{bc}}

    is the cosine of the angle at b. An edge is one periodic image of a pair of atoms: parallel edges between the same
    two atoms stay apart. (:class:`torch_geometric.transforms.LineGraph` merges them.)

    Sets, on a :class:`LineGraphData` with all fields of the given crystal,

    * `line_graph_index` (2, P): row 0 the edge :math:`a \to b`, row 1 the edge :math:`b \to c`, both as positions in
      `edge_index`; sorted by row 1, then by row 0. Batching offsets it by edges.
    * `line_graph_cosine` (P,): :math:`\cos \theta`, in the type of `pos`.

    Args:
        backtracking (bool, optional): Keep the pair of an edge and its own reverse, for which :math:`\theta = 0`.
            ALIGNN does. (default: :obj:`True`)

    Raises:
        ValueError: on a crystal without a graph.
        InvalidStructureError: on an edge of length 0, which has no direction: an atom's edge to itself, as attention
            has it, or two atoms in one place.
    """

    def __init__(self, backtracking: bool = True):
        self.backtracking = backtracking

    def forward(self, data: Data) -> Data:
        """Return `data`, as a :class:`LineGraphData`, with the line graph."""
        if any(field not in data for field in ("edge_index", "edge_shift")):
            raise ValueError(
                "data: expected a crystal with a graph (edge_index, edge_shift). "
                "Apply PeriodicKNNGraph or PeriodicRadiusGraph first"
            )
        if not isinstance(data, LineGraphData):
            data = LineGraphData.from_dict(data.to_dict())
        vectors = edge_vectors(
            data.pos.detach().double(), data.cell.detach().double(), data.edge_index, data.edge_shift
        )
        lengths = vectors.norm(dim=-1)
        if bool((lengths == 0.0).any()):
            raise InvalidStructureError(
                structure_name(data),
                "an edge of its graph has length 0 and so no direction",
                "Use PeriodicKNNGraph or PeriodicRadiusGraph, and remove atoms that share a place",
            )
        _refuse_too_many(data)
        pairs = line_graph_pairs(data.edge_index, data.num_nodes)
        if not self.backtracking:
            pairs = pairs[:, ~_is_reverse(data.edge_index, data.edge_shift, pairs)]
        # The library's vectors lead from target to source: -r_ab is that of the first edge, -r_bc that of the second.
        unit = vectors / lengths.unsqueeze(-1)
        data.line_graph_index = pairs
        data.line_graph_cosine = pair_cosines(unit, pairs).clamp(-1.0, 1.0).to(data.pos.dtype)
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(backtracking={self.backtracking})"


def _refuse_too_many(data: Data) -> None:
    """Raise if there are more than `MAX_PAIRS`: the product of incoming and outgoing edges of each atom, summed."""
    source, target = data.edge_index
    number = float(
        source.bincount(minlength=data.num_nodes).double() @ target.bincount(minlength=data.num_nodes).double()
    )
    if number > MAX_PAIRS:
        raise InvalidStructureError(
            structure_name(data),
            f"its line graph would have {number:.1e} pairs of edges, more than {MAX_PAIRS:.0e}",
            "Check for atoms that share a place, or take fewer neighbours",
        )


def line_graph_pairs(edge_index: Tensor, num_nodes: int) -> Tensor:
    """Pair each edge with the edges that end where it starts.

    Args:
        edge_index: sources and targets of E edges, on any device, in any order, shape (2, E).
        num_nodes: number of atoms.

    Returns:
        Positions in `edge_index` of the edges a -> b (row 0) and b -> c (row 1), sorted by row 1, then by row 0, shape
        (2, P), int64.
    """
    source, target = edge_index[0], edge_index[1]
    degree = target.bincount(minlength=num_nodes)
    incoming = target.argsort(stable=True)
    count = degree[source]
    number = int(count.sum())
    edge = torch.arange(source.numel(), device=source.device)
    second = edge.repeat_interleave(count, output_size=number)
    # The pairs of an edge are consecutive, as are the edges into its source in `incoming`: one offset for each edge.
    offset = (degree.cumsum(0) - degree)[source] - (count.cumsum(0) - count)
    place = torch.arange(number, device=source.device).add_(offset.index_select(0, second))
    return torch.stack([incoming.index_select(0, place), second])


def pair_cosines(unit: Tensor, pairs: Tensor) -> Tensor:
    """Cosine of the angle at the middle atom of each pair of edges.

    Args:
        unit: unit vectors from target to source, shape (E, 3).
        pairs: see :func:`line_graph_pairs`, shape (2, P).

    Returns:
        shape (P,).
    """
    first, second = pairs
    cosine = unit.new_zeros(first.numel())
    for component in unit.T.contiguous():  # four times as fast as a sum over rows of three
        cosine = cosine - component.index_select(0, first) * component.index_select(0, second)
    return cosine


def _is_reverse(edge_index: Tensor, edge_shift: Tensor, pairs: Tensor) -> Tensor:
    """Whether the second edge of a pair is the first one walked back: the same two atoms and the opposite image."""
    first, second = pairs
    reverse = edge_index[0].index_select(0, first) == edge_index[1].index_select(0, second)
    for component in edge_shift.T.contiguous():
        reverse &= component.index_select(0, first) == -component.index_select(0, second)
    return reverse
