"""CGCNN: crystal graph convolutional neural networks."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from torch_geometric_crystal.checks import check_argument, check_choice
from torch_geometric_crystal.nn.conv.crystal_graph_conv import CrystalGraphConv
from torch_geometric_crystal.nn.crystal_graph import edge_distances, number_of_crystals
from torch_geometric_crystal.nn.models.element_features import NUM_ELEMENT_FEATURES
from torch_geometric_crystal.nn.models.element_features import element_features as tabulated_features
from torch_geometric_crystal.nn.readout import LEVELS, TargetNormalization, pool_atoms
from torch_geometric_crystal.transforms.merging import refuse_merged


class CGCNN(nn.Module):
    r"""The crystal graph convolutional neural network.

    From `"Crystal Graph Convolutional Neural Networks for an Accurate and Interpretable Prediction of Material
    Properties" <https://arxiv.org/abs/1710.10324>`_ (Xie and Grossman, 2018), as the authors' code defines it. With
    :math:`\mathbf{b}(Z)` the 92 binary features of an element and :math:`d_{ji}` the length of an edge,

    .. math::
        \mathbf{x}_i^{(0)} &= \mathbf{W}_0 \mathbf{b}(Z_i) + \mathbf{b}_0, \qquad
        (\mathbf{e}_{ji})_k = \exp \left( -(d_{ji} - k w)^2 / w^2 \right), \quad k w = 0, w, \dots, R

        \mathbf{h} &= \mathrm{softplus} \Big( \mathbf{W}_1 \, \mathrm{softplus} \Big( \frac{1}{N} \sum_i
        \mathbf{x}_i^{(L)} \Big) + \mathbf{b}_1 \Big), \qquad \hat{y} = \mathbf{W}_2 \mathbf{h} + \mathbf{b}_2

    with :math:`L` layers of :class:`~torch_geometric_crystal.nn.conv.crystal_graph_conv.CrystalGraphConv` between. The
    defaults are the authors' and have 80,833 parameters. Where an atom has fewer neighbours than `num_neighbors` within
    the cutoff it simply has fewer; the authors' code invents edges to atom 0 there.

    Graph: apply :meth:`neighborhood` to each crystal. Without a graph the model refuses.

    Args:
        num_targets (int, optional): Number of targets T. (default: :obj:`1`)
        channels (int, optional): Size of each atom's features. (default: :obj:`64`)
        num_layers (int, optional): Number of layers L. (default: :obj:`3`)
        hidden_channels (int, optional): Size of the hidden features of a crystal. (default: :obj:`128`)
        num_neighbors (int, optional): Neighbours of an atom in the graph. (default: :obj:`12`)
        cutoff (float, optional): Largest distance of a neighbour, R, in A. (default: :obj:`8.0`)
        edge_step (float, optional): Spacing and width w of the Gaussians, in A. (default: :obj:`0.2`)
        level (str, optional): :obj:`"crystal"`, or :obj:`"atom"` for targets of each atom, without the mean.
            (default: :obj:`"crystal"`)

    Shapes:
        - **input:** a batch of B crystals with `z` :math:`(N,)`, `edge_index` :math:`(2, E)`, `edge_dist` :math:`(E,)`
        - **output:** targets :math:`(B, T)` in physical units; with ``return_embedding=True`` also
          :math:`\mathbf{h}`, :math:`(B, C)`. At the level of atoms :math:`(N, T)` and :math:`(N, C)`
    """

    element_features: Tensor

    def __init__(
        self,
        num_targets: int = 1,
        channels: int = 64,
        num_layers: int = 3,
        hidden_channels: int = 128,
        num_neighbors: int = 12,
        cutoff: float = 8.0,
        edge_step: float = 0.2,
        level: str = "crystal",
    ):
        super().__init__()
        check_choice("level", level, LEVELS)
        check_argument(num_targets >= 1, "num_targets", "at least 1", num_targets)
        check_argument(num_layers >= 1, "num_layers", "at least 1", num_layers)
        check_argument(cutoff > 0.0, "cutoff", "a positive distance in A", cutoff)
        check_argument(
            0.0 < edge_step <= cutoff, "edge_step", "a positive distance, at most the cutoff, in A", edge_step
        )
        self.num_targets = num_targets
        self.channels = channels
        self.num_layers = num_layers
        self.hidden_channels = hidden_channels
        self.num_neighbors = num_neighbors
        self.cutoff = cutoff
        self.edge_step = edge_step
        self.level = level

        self.num_gaussians = round(cutoff / edge_step) + 1
        self.register_buffer("element_features", torch.from_numpy(tabulated_features()).to(torch.get_default_dtype()))
        self.atom_embedding = nn.Linear(NUM_ELEMENT_FEATURES, channels)
        self.convs = nn.ModuleList(CrystalGraphConv(channels, self.num_gaussians) for _ in range(num_layers))
        self.hidden = nn.Linear(channels, hidden_channels)
        self.out = nn.Linear(hidden_channels, num_targets)
        self.normalization = TargetNormalization(num_targets)

    def reset_parameters(self) -> None:
        """Draw the weights anew and forget the running statistics. The targets' normalisation stays."""
        self.atom_embedding.reset_parameters()
        for conv in self.convs:
            cast(CrystalGraphConv, conv).reset_parameters()
        self.hidden.reset_parameters()
        self.out.reset_parameters()

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, so that ``CGCNN(**model.config())`` has the same architecture."""
        return {
            "num_targets": self.num_targets,
            "channels": self.channels,
            "num_layers": self.num_layers,
            "hidden_channels": self.hidden_channels,
            "num_neighbors": self.num_neighbors,
            "cutoff": self.cutoff,
            "edge_step": self.edge_step,
            "level": self.level,
        }

    def neighborhood(self, **kwargs: Any) -> BaseTransform:
        """Return the transform that makes the graph this model needs; `kwargs` override its arguments."""
        from torch_geometric_crystal.transforms.periodic_knn_graph import PeriodicKNNGraph

        arguments: dict[str, Any] = {"k": self.num_neighbors, "cutoff": self.cutoff, "ties": "cut", "shortage": "keep"}
        return PeriodicKNNGraph(**arguments | kwargs)

    def forward(self, data: Data, return_embedding: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Predict the targets of each crystal of a batch, or of a single crystal.

        Raises:
            ValueError: if the crystals have no graph, or merged atoms.
        """
        if "edge_index" not in data or "edge_dist" not in data:
            raise ValueError(
                "data: expected crystals with a graph (edge_index, edge_dist). Apply model.neighborhood() first"
            )
        refuse_merged(data, "for CGCNN")
        x = self.atom_embedding(F.embedding(data.z - 1, self.element_features))
        edge_attr = self._edge_features(data)
        for conv in self.convs:
            x = conv(x, data.edge_index, edge_attr)
        if self.level == "crystal":
            x = pool_atoms(x, data.batch, number_of_crystals(data), ptr=data.get("ptr"))
        embedding = F.softplus(self.hidden(F.softplus(x)))
        out = self.normalization(self.out(embedding))
        return (out, embedding) if return_embedding else out

    def _edge_features(self, data: Data) -> Tensor:
        """Gaussians of the edges' lengths, (E, K); differentiable in positions and cell where these ask for it."""
        dtype = self.out.weight.dtype
        distance = edge_distances(data).to(dtype).unsqueeze(-1)
        centers = torch.arange(self.num_gaussians, dtype=dtype, device=distance.device) * self.edge_step
        return torch.exp(-(((distance - centers) / self.edge_step) ** 2))

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.config().items())
        return f"{self.__class__.__name__}({settings})"
