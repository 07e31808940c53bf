"""Pure functions on tensors: the attention operations, their neighbourhoods and certified truncation."""

from torch_geometric_crystal.ops.backend import available_backends, choose_backend, use_backend
from torch_geometric_crystal.ops.infinite_attention import RowBlock, infinite_attention, prepare_row_blocks
from torch_geometric_crystal.ops.neighborhood import Neighborhood, group_edges
from torch_geometric_crystal.ops.radial_basis import GaussianBasis
from torch_geometric_crystal.ops.reciprocal_attention import reciprocal_attention
from torch_geometric_crystal.ops.wave_vectors import WaveVectors, gather_wave_vectors

__all__ = [
    "GaussianBasis",
    "Neighborhood",
    "RowBlock",
    "WaveVectors",
    "available_backends",
    "choose_backend",
    "gather_wave_vectors",
    "group_edges",
    "infinite_attention",
    "prepare_row_blocks",
    "reciprocal_attention",
    "use_backend",
]
