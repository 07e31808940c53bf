"""Baselines that know no structure, in the same protocol and tables as the models: what structure buys."""

from torch_geometric_crystal.benchmark.baselines.composition import predict_from_composition
from torch_geometric_crystal.benchmark.baselines.features import composition_features
from torch_geometric_crystal.benchmark.baselines.fold import BASELINES, run_baseline_fold
from torch_geometric_crystal.benchmark.baselines.mean import predict_mean

__all__ = ["BASELINES", "composition_features", "predict_from_composition", "predict_mean", "run_baseline_fold"]
