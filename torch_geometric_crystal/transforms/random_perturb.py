"""A crystal with its atoms displaced at random."""

import math

import torch
from torch_geometric.data import Data

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.transforms.graph_fields import remove_fields
from torch_geometric_crystal.transforms.random_numbers import RandomTransform


class RandomPerturb(RandomTransform):
    r"""Displace each atom by a normal random vector.

    .. math::
        \mathbf{p}_i \leftarrow \mathbf{p}_i + \boldsymbol{\epsilon}_i, \qquad
        \boldsymbol{\epsilon}_i \sim \mathcal{N}(\mathbf{0}, s^2 \mathbf{I})

    The cell stays. Removes the graph, whose distances were those of the old positions: put this before the transform
    that makes the graph.

    Args:
        std (float): Standard deviation s of each coordinate, in A.
        seed (int, optional): Seed of the transform's own generator, joined with the worker's in a `DataLoader`; with
            :obj:`None` torch's global generator draws. (default: :obj:`None`)
    """

    def __init__(self, std: float, seed: int | None = None):
        super().__init__(seed)
        check_argument(0.0 <= std < math.inf, "std", "a finite length in A, at least 0", std)
        self.std = std

    def forward(self, data: Data) -> Data:
        """Return `data` with displaced atoms, without a graph."""
        noise = torch.randn(data.pos.shape, dtype=torch.float64, generator=self.generator())
        remove_fields(data)
        data.pos = data.pos + (self.std * noise).to(data.pos)
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(std={self.std}, seed={self.seed})"
