"""Message passing layers."""

from torch_geometric_crystal.nn.conv.crystal_graph_conv import CrystalGraphConv
from torch_geometric_crystal.nn.conv.edge_gated_conv import EdgeGatedConv
from torch_geometric_crystal.nn.conv.periodic_infinite_attention import PeriodicInfiniteAttention

__all__ = ["CrystalGraphConv", "EdgeGatedConv", "PeriodicInfiniteAttention"]
