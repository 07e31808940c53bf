"""The layer of CGCNN."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.typing import Adj

from torch_geometric_crystal.nn.batch_norm import BatchNorm


class CrystalGraphConv(MessagePassing):
    r"""The convolution of CGCNN, with its batch normalisations and closing softplus.

    From `"Crystal Graph Convolutional Neural Networks for an Accurate and Interpretable Prediction of Material
    Properties" <https://arxiv.org/abs/1710.10324>`_ (Xie and Grossman, 2018), as the authors' code computes it:

    .. math::
        (\mathbf{f}_{ji}, \mathbf{s}_{ji}) &= \mathrm{BN}_1 \left( \mathbf{W}
        [ \mathbf{x}_i \, \Vert \, \mathbf{x}_j \, \Vert \, \mathbf{e}_{ji} ] + \mathbf{b} \right)

        \mathbf{x}_i^{\prime} &= \mathrm{softplus} \left( \mathbf{x}_i + \mathrm{BN}_2 \left( \sum_j
        \sigma(\mathbf{f}_{ji}) \odot \mathrm{softplus}(\mathbf{s}_{ji}) \right) \right)

    where :math:`\mathbf{e}_{ji}` are the features of the edge from source :math:`j` to target :math:`i`,
    :math:`\mathrm{BN}_1` normalises over edges and :math:`\mathrm{BN}_2` over atoms.
    :class:`torch_geometric.nn.CGConv` has neither :math:`\mathrm{BN}_1` nor the closing softplus.

    A batch of fewer than two edges (or atoms) has no spread to normalise by: in training, the running statistics are
    then used and left as they are. An atom without edges gets the message 0.

    Args:
        channels (int): Size C of each atom's features.
        edge_channels (int): Size D of each edge's features.
        **kwargs (optional): Additional arguments of :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:** atoms :math:`(N, C)`, edges :math:`(2, E)`, edge features :math:`(E, D)`
        - **output:** atoms :math:`(N, C)`
    """

    def __init__(self, channels: int, edge_channels: int, **kwargs: Any):
        kwargs.setdefault("aggr", "add")
        super().__init__(**kwargs)
        self.channels = channels
        self.edge_channels = edge_channels
        self.lin = nn.Linear(2 * channels + edge_channels, 2 * channels)
        self.edge_norm = BatchNorm(2 * channels)
        self.node_norm = BatchNorm(channels)

    def reset_parameters(self) -> None:
        """Draw the weights anew and forget the running statistics."""
        super().reset_parameters()
        self.lin.reset_parameters()
        self.edge_norm.reset_parameters()
        self.node_norm.reset_parameters()

    def forward(self, x: Tensor, edge_index: Adj, edge_attr: Tensor) -> Tensor:
        """Return the new features of the atoms, shape (N, C)."""
        # The linear map of the concatenation is the sum of three maps, two of which are cheaper per atom than per edge.
        to_target, to_source, to_edge = self.lin.weight.split([self.channels, self.channels, self.edge_channels], dim=1)
        message = self.propagate(
            edge_index,
            target=F.linear(x, to_target, self.lin.bias),
            source=F.linear(x, to_source),
            edge=F.linear(edge_attr, to_edge),
            size=(x.size(0), x.size(0)),
        )
        return F.softplus(x + self.node_norm(message))

    def message(self, target_i: Tensor, source_j: Tensor, edge: Tensor) -> Tensor:
        """Return the gated message of each edge, shape (E, C)."""
        gate, value = self.edge_norm(target_i + source_j + edge).chunk(2, dim=-1)
        return gate.sigmoid() * F.softplus(value)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.channels}, edge_channels={self.edge_channels})"
