"""Layers and models on crystals."""

from torch_geometric_crystal.nn.conv import CrystalGraphConv, PeriodicInfiniteAttention
from torch_geometric_crystal.nn.models import CGCNN, MODELS, Crystalformer
from torch_geometric_crystal.nn.readout import TargetNormalization

__all__ = ["CGCNN", "MODELS", "CrystalGraphConv", "Crystalformer", "PeriodicInfiniteAttention", "TargetNormalization"]
