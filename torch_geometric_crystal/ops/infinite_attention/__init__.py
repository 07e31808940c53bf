"""Attention over all periodic images of all atoms, in real space."""

from torch_geometric_crystal.ops.infinite_attention.api import infinite_attention
from torch_geometric_crystal.ops.infinite_attention.row_blocks import RowBlock, prepare_row_blocks

__all__ = ["RowBlock", "infinite_attention", "prepare_row_blocks"]
