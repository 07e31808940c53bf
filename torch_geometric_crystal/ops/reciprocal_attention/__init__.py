"""Attention with the same Gaussian summed over wave vectors, in reciprocal space."""

from torch_geometric_crystal.ops.reciprocal_attention.api import reciprocal_attention

__all__ = ["reciprocal_attention"]
