"""The layer of ALIGNN."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.typing import Adj, OptTensor

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.nn.batch_norm import BatchNorm

GATE_SUM_FLOOR = 1e-6
"""What the authors' code adds to the sum of gates by which it divides."""


class EdgeGatedConv(MessagePassing):
    r"""Edge-gated graph convolution, which updates the features of nodes and of edges.

    From `"Residual Gated Graph ConvNets" <https://arxiv.org/abs/1711.07553>`_ (Bresson and Laurent, 2017), in the form
    that the code of `ALIGNN <https://arxiv.org/abs/2106.01829>`_ (Choudhary and DeCost, 2021) gives it:

    .. math::
        \mathbf{m}_{ji} &= \mathbf{A} \mathbf{x}_j + \mathbf{B} \mathbf{x}_i + \mathbf{C} \mathbf{e}_{ji}, \qquad
        \mathbf{g}_{ji} = \sigma(\mathbf{m}_{ji})

        \mathbf{x}_i^{\prime} &= \mathbf{x}_i + \mathrm{SiLU} \Big( \mathrm{BN} \Big( \mathbf{E} \mathbf{x}_i +
        \frac{\sum_j \mathbf{g}_{ji} \odot \mathbf{D} \mathbf{x}_j}{\sum_j \mathbf{g}_{ji} + 10^{-6}} \Big) \Big)

        \mathbf{e}_{ji}^{\prime} &= \mathbf{e}_{ji} + \mathrm{SiLU}(\mathrm{BN}(\mathbf{m}_{ji}))

    where :math:`\mathbf{e}_{ji}` are the features of the edge from source :math:`j` to target :math:`i` and
    :math:`\mathbf{A}` to :math:`\mathbf{E}` are linear maps with bias. Parallel edges count each for itself. The new
    features of edges are made from the old ones of nodes. With ``residual=False`` the terms :math:`\mathbf{x}_i` and
    :math:`\mathbf{e}_{ji}` before SiLU are left out:

    .. math::
        \mathbf{x}_i^{\prime} = \mathrm{SiLU}(\mathrm{BN}(\dots)), \qquad
        \mathbf{e}_{ji}^{\prime} = \mathrm{SiLU}(\mathrm{BN}(\mathbf{m}_{ji}))

    A batch of fewer than two nodes (or edges) has no spread to normalise by: in training, the running statistics are
    then used and left as they are. A node without edges gets the message 0.

    On a graph from :class:`~torch_geometric_crystal.transforms.MergeEquivalent`, where a node stands for
    `node_multiplicity` nodes and an edge for `edge_multiplicity` edges to its target, both sums over :math:`j` count
    each edge that often, and batch norm each row as often as it is there in all.

    Args:
        in_channels (int): Size C of each node's features.
        out_channels (int): Size C' of each node's and edge's new features.
        edge_channels (int, optional): Size D of each edge's features. (default: `in_channels`)
        residual (bool, optional): Add the old features to the new ones, for which all three sizes must be the same.
            (default: :obj:`True`)
        **kwargs (optional): Additional arguments of :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:** nodes :math:`(N, C)`, edges :math:`(2, E)`, edge features :math:`(E, D)`; `node_multiplicity`
          :math:`(N,)` and `edge_multiplicity` :math:`(E,)`, both or neither
        - **output:** nodes :math:`(N, C')`, edge features :math:`(E, C')`

    Raises:
        ValueError: for old features that are to be added to new ones of another size.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        edge_channels: int | None = None,
        residual: bool = True,
        **kwargs: Any,
    ):
        kwargs.setdefault("aggr", "add")
        super().__init__(**kwargs)
        edge_channels = in_channels if edge_channels is None else edge_channels
        check_argument(
            not residual or in_channels == edge_channels == out_channels,
            "out_channels",
            f"with residual=True the size of the nodes' and edges' features, {in_channels} and {edge_channels}",
            out_channels,
        )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.edge_channels = edge_channels
        self.residual = residual
        # The four maps of the nodes, A, B, D, E, in one product.
        self.lin_node = nn.Linear(in_channels, 4 * out_channels)
        self.lin_edge = nn.Linear(edge_channels, out_channels)
        self.node_norm = BatchNorm(out_channels)
        self.edge_norm = BatchNorm(out_channels)

    def reset_parameters(self) -> None:
        """Draw the weights anew and forget the running statistics."""
        super().reset_parameters()
        self.lin_node.reset_parameters()
        self.lin_edge.reset_parameters()
        self.node_norm.reset_parameters()
        self.edge_norm.reset_parameters()

    def forward(
        self,
        x: Tensor,
        edge_index: Adj,
        edge_attr: Tensor,
        node_multiplicity: OptTensor = None,
        edge_multiplicity: OptTensor = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the new features of the nodes, shape (N, C'), and of the edges, shape (E, C')."""
        source, target, value, skip = self.lin_node(x).chunk(4, dim=-1)
        size = (x.size(0), x.size(0))
        gate = self.edge_updater(edge_index, source=source, target=target, edge=self.lin_edge(edge_attr), size=size)
        weight, total = gate.sigmoid(), None
        if node_multiplicity is not None and edge_multiplicity is not None:
            weight = weight * edge_multiplicity.to(gate).unsqueeze(-1)
            total = edge_multiplicity * node_multiplicity.index_select(0, edge_index[1])
        message = self.propagate(edge_index, value=value, gate=weight, size=size)
        nodes = F.silu(self.node_norm(skip + message, node_multiplicity))
        edges = F.silu(self.edge_norm(gate, total))
        return (x + nodes, edge_attr + edges) if self.residual else (nodes, edges)

    def edge_update(self, source_j: Tensor, target_i: Tensor, edge: Tensor) -> Tensor:
        """Return m of each edge, shape (E, C')."""
        return source_j + target_i + edge

    def message(self, value_j: Tensor, gate: Tensor) -> Tensor:
        """Return the gated value of each edge, shape (E, C')."""
        return gate * value_j

    def aggregate(self, inputs: Tensor, gate: Tensor, index: Tensor, ptr: OptTensor, dim_size: int) -> Tensor:
        """Return the mean of the values that reach each node, weighted by their gates, shape (N, C')."""
        total = super().aggregate(inputs, index, ptr, dim_size)
        return total / (super().aggregate(gate, index, ptr, dim_size) + GATE_SUM_FLOOR)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}, "
            f"edge_channels={self.edge_channels}, residual={self.residual})"
        )
