"""A crystal with its atoms displaced at random."""

import math

import torch
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.transforms.graph_fields import remove_fields


class RandomPerturb(BaseTransform):
    r"""Displace each atom by a normal random vector.

    .. math::
        \mathbf{p}_i \leftarrow \mathbf{p}_i + \boldsymbol{\epsilon}_i, \qquad
        \boldsymbol{\epsilon}_i \sim \mathcal{N}(\mathbf{0}, s^2 \mathbf{I})

    The cell stays. Removes the graph, whose distances were those of the old positions: put this before the transform
    that makes the graph.

    Args:
        std (float): Standard deviation s of each coordinate, in A.
        seed (int): Seed of the transform's own generator. Processes that load data in parallel start from the
            same copy.
    """

    def __init__(self, std: float, seed: int):
        check_argument(0.0 <= std < math.inf, "std", "a finite length in A, at least 0", std)
        self.std = std
        self.seed = seed
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, data: Data) -> Data:
        """Return `data` with displaced atoms, without a graph."""
        noise = torch.randn(data.pos.shape, dtype=torch.float64, generator=self.generator)
        remove_fields(data)
        data.pos = data.pos + (self.std * noise).to(data.pos)
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(std={self.std}, seed={self.seed})"
