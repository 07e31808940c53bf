"""Training, evaluation, prediction and the benchmark's tasks.

Names are imported when they are first used, so that a command line can read the recipes without loading torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_geometric_crystal.benchmark.batching import BudgetBatchSampler, crystal_loader
    from torch_geometric_crystal.benchmark.calibrate_run import run_calibration
    from torch_geometric_crystal.benchmark.calibration import Calibration, fit_calibration, read_calibration
    from torch_geometric_crystal.benchmark.callbacks import Callback
    from torch_geometric_crystal.benchmark.checkpoint import (
        CheckpointError,
        ModelCard,
        export_model,
        load_model,
        read_checkpoint,
        save_checkpoint,
    )
    from torch_geometric_crystal.benchmark.config import RunConfig, read_config, write_config
    from torch_geometric_crystal.benchmark.ensemble import Ensemble, EnsemblePredictions
    from torch_geometric_crystal.benchmark.evaluation import evaluate, mean_predictor
    from torch_geometric_crystal.benchmark.pool import PredictionPool
    from torch_geometric_crystal.benchmark.prediction import Predictions, make_graphs, predict, predict_files
    from torch_geometric_crystal.benchmark.recipe import PRESETS, Recipe, default_recipe, describe_settings
    from torch_geometric_crystal.benchmark.run import run_training
    from torch_geometric_crystal.benchmark.structures import StructurePredictions, predict_structures
    from torch_geometric_crystal.benchmark.tasks import leaderboard, load_task, run_benchmark, run_fold
    from torch_geometric_crystal.benchmark.training import FitResult, fit

_MODULES = {
    "batching": ("BudgetBatchSampler", "crystal_loader"),
    "calibrate_run": ("run_calibration",),
    "calibration": ("Calibration", "fit_calibration", "read_calibration"),
    "callbacks": ("Callback",),
    "checkpoint": (
        "CheckpointError",
        "ModelCard",
        "export_model",
        "load_model",
        "read_checkpoint",
        "save_checkpoint",
    ),
    "config": ("RunConfig", "read_config", "write_config"),
    "ensemble": ("Ensemble", "EnsemblePredictions"),
    "evaluation": ("evaluate", "mean_predictor"),
    "pool": ("PredictionPool",),
    "prediction": ("Predictions", "make_graphs", "predict", "predict_files"),
    "recipe": ("PRESETS", "Recipe", "default_recipe", "describe_settings"),
    "run": ("run_training",),
    "structures": ("StructurePredictions", "predict_structures"),
    "tasks": ("leaderboard", "load_task", "run_benchmark", "run_fold"),
    "training": ("FitResult", "fit"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "PRESETS",
    "BudgetBatchSampler",
    "Calibration",
    "Callback",
    "CheckpointError",
    "Ensemble",
    "EnsemblePredictions",
    "FitResult",
    "ModelCard",
    "PredictionPool",
    "Predictions",
    "Recipe",
    "RunConfig",
    "StructurePredictions",
    "crystal_loader",
    "default_recipe",
    "describe_settings",
    "evaluate",
    "export_model",
    "fit",
    "fit_calibration",
    "leaderboard",
    "load_model",
    "load_task",
    "make_graphs",
    "mean_predictor",
    "predict",
    "predict_files",
    "predict_structures",
    "read_calibration",
    "read_checkpoint",
    "read_config",
    "run_benchmark",
    "run_calibration",
    "run_fold",
    "run_training",
    "save_checkpoint",
    "write_config",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
