"""Layers and models on crystals."""

from torch_geometric_crystal.nn.conv import CrystalGraphConv, EdgeGatedConv, PeriodicInfiniteAttention
from torch_geometric_crystal.nn.cuda_graphs import CUDAGraphed, CUDAGraphedGradients
from torch_geometric_crystal.nn.models import ALIGNN, CGCNN, MODELS, Crystalformer
from torch_geometric_crystal.nn.readout import TargetNormalization

__all__ = [
    "ALIGNN",
    "CGCNN",
    "MODELS",
    "CUDAGraphed",
    "CUDAGraphedGradients",
    "CrystalGraphConv",
    "Crystalformer",
    "EdgeGatedConv",
    "PeriodicInfiniteAttention",
    "TargetNormalization",
]
