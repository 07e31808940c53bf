"""ALIGNN: atomistic line graph neural network."""

import itertools
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform, Compose

from torch_geometric_crystal.checks import check_argument, check_choice
from torch_geometric_crystal.nn.batch_norm import BatchNorm
from torch_geometric_crystal.nn.conv.edge_gated_conv import EdgeGatedConv
from torch_geometric_crystal.nn.crystal_graph import edge_distances, number_of_crystals, refuse_gradients
from torch_geometric_crystal.nn.models.element_features import NUM_ELEMENT_FEATURES
from torch_geometric_crystal.nn.models.element_features import element_features as tabulated_features
from torch_geometric_crystal.nn.readout import LEVELS, TargetNormalization, pool_atoms
from torch_geometric_crystal.ops.lattice import edge_vectors
from torch_geometric_crystal.transforms.line_graph import LINE_GRAPH_INDEX, line_graph_pairs, pair_cosines
from torch_geometric_crystal.transforms.merge_equivalent import MULTIPLICITIES, MergeEquivalent
from torch_geometric_crystal.transforms.merging import ATOM_MULTIPLICITY, refuse_merged


class ALIGNN(nn.Module):
    r"""The atomistic line graph neural network: convolutions on atoms and bonds, and on bonds and angles.

    From `"Atomistic Line Graph Neural Network for Improved Materials Property Predictions"
    <https://arxiv.org/abs/2106.01829>`_ (Choudhary and DeCost, 2021), as the authors' code defines it. With
    :math:`\mathbf{b}(Z)` the 92 binary features of an element, :math:`d_{ji}` the length of an edge,
    :math:`\theta` the angle between two edges that meet, and an MLP a linear map, batch norm and SiLU,

    .. math::
        \mathbf{x}_i = \mathrm{MLP}(\mathbf{b}(Z_i)), \qquad
        \mathbf{y}_{ji} = \mathrm{MLP}(\mathrm{MLP}(\mathbf{g}(d_{ji}))), \qquad
        \mathbf{z}_{kji} = \mathrm{MLP}(\mathrm{MLP}(\mathbf{g}^{\prime}(\cos \theta_{kji})))

    where :math:`g_k(r) = \exp(-(r - r_k)^2 / \Delta)`, with centres :math:`r_k` at the distance :math:`\Delta` of each
    other from 0 to R, and those of :math:`\mathbf{g}^{\prime}` from -1 to 1 (the authors divide by the spacing, not by
    its square). Then each of the :math:`L` layers is two of
    :class:`~torch_geometric_crystal.nn.conv.edge_gated_conv.EdgeGatedConv`, one on the graph and one on its line graph,
    whose nodes are the edges; :math:`M` convolutions on the graph alone follow:

    .. math::
        (\mathbf{x}, \mathbf{m}) &= \mathrm{Conv}(\mathbf{x}, \mathbf{y}), \qquad
        (\mathbf{y}, \mathbf{z}) = \mathrm{Conv}(\mathbf{m}, \mathbf{z}) \qquad (L \text{ times})

        (\mathbf{x}, \mathbf{y}) &= \mathrm{Conv}(\mathbf{x}, \mathbf{y}) \qquad (M \text{ times}), \qquad
        \mathbf{h} = \frac{1}{N} \sum_i \mathbf{x}_i, \qquad \hat{y} = \mathbf{W} \mathbf{h} + \mathbf{b}

    The defaults are the authors' and have 4,026,753 parameters. The graph differs from theirs where they depend on how
    the crystal is written down: rounding does not split a shell of neighbours, and an edge between an atom and its own
    image is there once in each direction, where their code has it twice.

    Graph: apply :meth:`neighborhood` to each crystal. Without a graph the model refuses. The line graph is made here,
    for the whole batch and on its device, since it is far larger than the graph: 12 neighbours make 144 angles an atom,
    at least. Where crystals come with the `line_graph_index` of
    :class:`~torch_geometric_crystal.transforms.LineGraph`, that one is used. Angles follow positions and cell, so
    that gradients reach these. Where atoms, edges and angles that look alike are merged
    (``neighborhood(merge_tolerance=1e-4)``), the outputs are the same and the work is less.

    Args:
        num_targets (int, optional): Number of targets T. (default: :obj:`1`)
        channels (int, optional): Size of the features of each atom, edge and angle. (default: :obj:`256`)
        embedding_channels (int, optional): Size between the two MLPs of edges and angles. (default: :obj:`64`)
        num_alignn_layers (int, optional): Number of layers L on graph and line graph. (default: :obj:`4`)
        num_gcn_layers (int, optional): Number of layers M on the graph alone. (default: :obj:`4`)
        num_edge_gaussians (int, optional): Gaussians of an edge's length. (default: :obj:`80`)
        num_angle_gaussians (int, optional): Gaussians of an angle's cosine. (default: :obj:`40`)
        num_neighbors (int, optional): Neighbours of an atom in the graph, at least; those as far away as the last one
            come in addition. (default: :obj:`12`)
        cutoff (float, optional): Distance R up to which neighbours are looked for first, and up to which the Gaussians
            reach, in A. (default: :obj:`8.0`)
        level (str, optional): :obj:`"crystal"`, or :obj:`"atom"` for targets of each atom, without the mean.
            (default: :obj:`"crystal"`)

    Shapes:
        - **input:** a batch of B crystals with `z` :math:`(N,)`, `pos` :math:`(N, 3)`, `cell` :math:`(B, 3, 3)`,
          `edge_index` :math:`(2, E)`, `edge_shift` :math:`(E, 3)`, `edge_dist` :math:`(E,)`
        - **output:** targets :math:`(B, T)` in physical units; with ``return_embedding=True`` also
          :math:`\mathbf{h}`, :math:`(B, C)`. At the level of atoms :math:`(N, T)` and :math:`(N, C)`
    """

    element_features: Tensor

    def __init__(
        self,
        num_targets: int = 1,
        channels: int = 256,
        embedding_channels: int = 64,
        num_alignn_layers: int = 4,
        num_gcn_layers: int = 4,
        num_edge_gaussians: int = 80,
        num_angle_gaussians: int = 40,
        num_neighbors: int = 12,
        cutoff: float = 8.0,
        level: str = "crystal",
    ):
        super().__init__()
        check_choice("level", level, LEVELS)
        check_argument(num_targets >= 1, "num_targets", "at least 1", num_targets)
        check_argument(num_alignn_layers >= 0, "num_alignn_layers", "at least 0", num_alignn_layers)
        check_argument(num_gcn_layers >= 0, "num_gcn_layers", "at least 0", num_gcn_layers)
        check_argument(num_edge_gaussians >= 2, "num_edge_gaussians", "at least 2", num_edge_gaussians)
        check_argument(num_angle_gaussians >= 2, "num_angle_gaussians", "at least 2", num_angle_gaussians)
        check_argument(cutoff > 0.0, "cutoff", "a positive distance in A", cutoff)
        self.num_targets = num_targets
        self.channels = channels
        self.embedding_channels = embedding_channels
        self.num_alignn_layers = num_alignn_layers
        self.num_gcn_layers = num_gcn_layers
        self.num_edge_gaussians = num_edge_gaussians
        self.num_angle_gaussians = num_angle_gaussians
        self.num_neighbors = num_neighbors
        self.cutoff = cutoff
        self.level = level

        self.register_buffer("element_features", torch.from_numpy(tabulated_features()).to(torch.get_default_dtype()))
        self.atom_embedding = _MLP(NUM_ELEMENT_FEATURES, channels)
        self.edge_embedding = _MLP(num_edge_gaussians, embedding_channels, channels)
        self.angle_embedding = _MLP(num_angle_gaussians, embedding_channels, channels)
        self.graph_convs = nn.ModuleList(EdgeGatedConv(channels, channels) for _ in range(num_alignn_layers))
        self.line_graph_convs = nn.ModuleList(EdgeGatedConv(channels, channels) for _ in range(num_alignn_layers))
        self.gcn_convs = nn.ModuleList(EdgeGatedConv(channels, channels) for _ in range(num_gcn_layers))
        self.out = nn.Linear(channels, num_targets)
        self.normalization = TargetNormalization(num_targets)

    def reset_parameters(self) -> None:
        """Draw the weights anew and forget the running statistics. The targets' normalisation stays."""
        for module in self.modules():
            if isinstance(module, nn.Linear | BatchNorm):
                module.reset_parameters()

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, so that ``ALIGNN(**model.config())`` has the same architecture."""
        return {
            "num_targets": self.num_targets,
            "channels": self.channels,
            "embedding_channels": self.embedding_channels,
            "num_alignn_layers": self.num_alignn_layers,
            "num_gcn_layers": self.num_gcn_layers,
            "num_edge_gaussians": self.num_edge_gaussians,
            "num_angle_gaussians": self.num_angle_gaussians,
            "num_neighbors": self.num_neighbors,
            "cutoff": self.cutoff,
            "level": self.level,
        }

    def neighborhood(self, merge_tolerance: float | None = None, **kwargs: Any) -> BaseTransform:
        """Return the transform that makes the graph this model needs.

        Args:
            merge_tolerance: with a number, one atom, edge and angle of each kind is kept, see
                :class:`~torch_geometric_crystal.transforms.MergeEquivalent`: the same outputs and gradients of the
                weights, faster. Not for targets of atoms, forces and stress. None keeps all.
            **kwargs: override arguments of :class:`~torch_geometric_crystal.transforms.PeriodicKNNGraph`.

        Raises:
            ValueError: if atoms are to be merged that have targets.
        """
        from torch_geometric_crystal.transforms.periodic_knn_graph import PeriodicKNNGraph

        arguments: dict[str, Any] = {
            "k": self.num_neighbors,
            "cutoff": self.cutoff,
            "ties": "shell",
            "shortage": "grow",
            "mutual": True,
            "zero_length": False,
        }
        graph = PeriodicKNNGraph(**arguments | kwargs)
        if merge_tolerance is None:
            return graph
        check_argument(self.level == "crystal", "merge_tolerance", "None at the level of atoms", merge_tolerance)
        return Compose([graph, MergeEquivalent(merge_tolerance)])

    def forward(self, data: Data, return_embedding: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Predict the targets of each crystal of a batch, or of a single crystal.

        Raises:
            ValueError: if the crystals have no graph, or one with an edge from an atom to itself in the same place.
        """
        _check_graph(data)
        if self.level == "atom":
            refuse_merged(data, "where each has its own targets")
        dtype = self.out.weight.dtype
        edge_index, counts = data.edge_index, _multiplicities(data)
        x = self.atom_embedding(F.embedding(data.z - 1, self.element_features), counts.atoms)
        distance = data.edge_dist if counts.merged else edge_distances(data)
        y = self.edge_embedding(_gaussians(distance.to(dtype), 0.0, self.cutoff, self.num_edge_gaussians), counts.edges)
        if self.num_alignn_layers > 0:
            pairs, cosine = (data[LINE_GRAPH_INDEX], data.line_graph_cosine) if counts.merged else _line_graph(data)
            cosine = _gaussians(cosine.to(dtype), -1.0, 1.0, self.num_angle_gaussians)
            z = self.angle_embedding(cosine, counts.pairs)
            for graph_conv, line_graph_conv in zip(self.graph_convs, self.line_graph_convs, strict=True):
                x, y = graph_conv(x, edge_index, y, counts.atoms, counts.edges_of_atom)
                y, z = line_graph_conv(y, pairs, z, counts.edges, counts.pairs_of_edge)
        for conv in self.gcn_convs:
            x, y = conv(x, edge_index, y, counts.atoms, counts.edges_of_atom)
        if self.level == "crystal":
            x = pool_atoms(x, data.batch, number_of_crystals(data), ptr=data.get("ptr"), multiplicity=counts.atoms)
        out = self.normalization(self.out(x))
        return (out, x) if return_embedding else out

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.config().items())
        return f"{self.__class__.__name__}({settings})"


class _MLP(nn.Sequential):
    """Linear map, batch norm and SiLU from each size to the next."""

    def __init__(self, *sizes: int):
        layers: list[nn.Module] = []
        for size, next_size in itertools.pairwise(sizes):
            layers += [nn.Linear(size, next_size), BatchNorm(next_size), nn.SiLU()]
        super().__init__(*layers)

    def forward(self, x: Tensor, multiplicity: Tensor | None = None) -> Tensor:
        for layer in self:
            x = layer(x, multiplicity) if isinstance(layer, BatchNorm) else layer(x)
        return x


class _Multiplicities(NamedTuple):
    """How many atoms, edges and pairs each one stands for: in all, and at the same target. None: each for itself."""

    atoms: Tensor | None = None
    edges: Tensor | None = None
    pairs: Tensor | None = None
    edges_of_atom: Tensor | None = None
    pairs_of_edge: Tensor | None = None

    @property
    def merged(self) -> bool:
        """Whether there are any."""
        return self.atoms is not None


def _multiplicities(data: Data) -> _Multiplicities:
    if ATOM_MULTIPLICITY not in data:
        return _Multiplicities()
    atoms, edges_of_atom, pairs_of_edge = (data[name] for name in MULTIPLICITIES)
    edges = edges_of_atom * atoms.index_select(0, data.edge_index[1])
    pairs = pairs_of_edge * edges.index_select(0, data[LINE_GRAPH_INDEX][1])
    return _Multiplicities(atoms, edges, pairs, edges_of_atom, pairs_of_edge)


def _check_graph(data: Data) -> None:
    """Raise ``ValueError`` for crystals without a graph, or with merged atoms where positions ask for gradients."""
    merged = ATOM_MULTIPLICITY in data
    fields = ("edge_index", "edge_dist") if merged else ("edge_index", "edge_shift", "edge_dist")
    if any(field not in data for field in fields):
        raise ValueError(
            f"data: expected crystals with a graph ({', '.join(fields)}). Apply model.neighborhood() first"
        )
    if merged:
        refuse_gradients(data)
        if any(name not in data for name in MULTIPLICITIES):
            refuse_merged(data, "or those that MergeEquivalent keeps")


def _gaussians(values: Tensor, first: float, last: float, number: int) -> Tensor:
    """Gaussians around `number` centres between two values, shape (n, number)."""
    centers = torch.linspace(first, last, number, dtype=values.dtype, device=values.device)
    spacing = (last - first) / (number - 1)
    return torch.exp(-((values.unsqueeze(-1) - centers) ** 2) / spacing)


def _line_graph(data: Data) -> tuple[Tensor, Tensor]:
    """Pairs of edges that meet, (2, P), and the cosine of the angle of each, (P,)."""
    vectors = edge_vectors(data.pos, data.cell, data.edge_index, data.edge_shift, data.batch)
    lengths = vectors.norm(dim=-1, keepdim=True)
    if bool((lengths == 0.0).any()):
        raise ValueError(
            "data: expected edges between different places, received one of length 0, which has no direction. "
            "Apply model.neighborhood() to the crystals, and remove atoms that share a place"
        )
    pairs = data[LINE_GRAPH_INDEX] if LINE_GRAPH_INDEX in data else line_graph_pairs(data.edge_index, data.z.numel())
    return pairs, pair_cosines(vectors / lengths, pairs)
