"""Models that a user may know, on the same crystals: ours, and two made of PyTorch Geometric's layers."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import SchNet, TransformerConv
from torch_geometric.nn.pool import global_mean_pool

from torch_geometric_crystal import nn as crystal_nn
from torch_geometric_crystal.ops import GaussianBasis


class PeriodicSchNet(nn.Module):
    """PyG's SchNet with its default sizes, on the edges that a crystal comes with; mean of the atoms.

    Args:
        cutoff: largest length of an edge, A.
    """

    def __init__(self, cutoff: float):
        super().__init__()
        self.schnet = SchNet(cutoff=cutoff, readout="mean", interaction_graph=self._edges)
        self._batch: Data | None = None

    def _edges(self, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        return self._batch.edge_index, self._batch.edge_dist.to(self.schnet.lin1.weight.dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> "PeriodicSchNet":
        copied = PeriodicSchNet(self.schnet.cutoff)
        copied.load_state_dict(self.state_dict())
        return copied

    def forward(self, data: Data) -> Tensor:
        """One number a crystal, (B, 1)."""
        self._batch = data
        return self.schnet(data.z, data.pos, data.batch)


class TransformerStack(nn.Module):
    """PyG's TransformerConv with the sizes of Crystalformer: softmax over the same edges, distances as features.

    Four blocks of 8 heads of 16, edge features of 64 Gaussians of the distance, feed-forward parts of 512.
    """

    def __init__(self, channels: int = 128, heads: int = 8, num_blocks: int = 4, num_basis: int = 64, r0: float = 1.4):
        super().__init__()
        self.basis = GaussianBasis(num_basis, 10 * r0 / num_basis)
        self.embedding = nn.Embedding(98, channels)
        self.attention = nn.ModuleList(
            TransformerConv(channels, channels // heads, heads=heads, edge_dim=num_basis) for _ in range(num_blocks)
        )
        self.feedforward = nn.ModuleList(
            nn.Sequential(nn.Linear(channels, 4 * channels), nn.ReLU(), nn.Linear(4 * channels, channels))
            for _ in range(num_blocks)
        )
        self.head = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, 1))

    def forward(self, data: Data) -> Tensor:
        """One number a crystal, (B, 1)."""
        x = self.embedding(data.z - 1)
        features = self.basis(data.edge_dist.to(x.dtype))
        for attention, feedforward in zip(self.attention, self.feedforward, strict=True):
            x = x + attention(x, data.edge_index, features) / math.sqrt(len(self.attention))
            x = x + feedforward(x) / math.sqrt(len(self.attention))
        return self.head(global_mean_pool(x, data.batch, data.num_graphs))


class Peer(NamedTuple):
    """A model, and the transform that makes its graph."""

    model: nn.Module
    transform: Callable[[Data], Data]


INFINITE_PEERS = ("Crystalformer", "Crystalformer, no W^E", "SchNet (PyG)", "TransformerConv (PyG)")
"""Those that run on Crystalformer's own edges. CGCNN and ALIGNN have theirs, to the nearest neighbours."""

PEERS = (*INFINITE_PEERS, "CGCNN", "ALIGNN")

EDGE_LIMIT = 16.0
"""Cutoff in A of SchNet's filters, beyond any edge of the graphs here, so that none of them vanishes."""


def make_peer(name: str, tol: float, seed: int = 0) -> Peer | None:
    """A peer with fresh weights, or None where this version of the package lacks it.

    Raises:
        ValueError: if the name is unknown.
    """
    torch.manual_seed(seed)
    if name.startswith("Crystalformer"):
        model = crystal_nn.Crystalformer(num_basis=0 if "no W^E" in name else 64)
        return Peer(model, model.neighborhood(tol=tol))
    infinite = crystal_nn.Crystalformer().neighborhood(tol=tol)
    if name == "SchNet (PyG)":
        return Peer(PeriodicSchNet(EDGE_LIMIT), infinite)
    if name == "TransformerConv (PyG)":
        return Peer(TransformerStack(), infinite)
    if name in ("CGCNN", "ALIGNN"):
        model_class = getattr(crystal_nn, name, None)
        model = model_class() if model_class is not None else None
        return None if model is None else Peer(model, model.neighborhood())
    raise ValueError(f"peer: expected one of {PEERS}, received {name!r}")
