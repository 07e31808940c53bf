"""What the estimators share: settings, training in a temporary folder, copies, files."""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import nn
from torch_geometric.data import Data

from torch_geometric_crystal.benchmark.callbacks import Callback
from torch_geometric_crystal.benchmark.checkpoint import (
    ModelCard,
    assemble_model,
    build_model,
    load_model,
    read_checkpoint,
    save_checkpoint,
)
from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.progress import random_state, restore_random_state
from torch_geometric_crystal.benchmark.run import train_and_evaluate
from torch_geometric_crystal.benchmark.sources import CrystalParts, random_split
from torch_geometric_crystal.benchmark.structures import graphs_of, predict_structures
from torch_geometric_crystal.checks import InvalidStructureError, check_argument
from torch_geometric_crystal.datasets.check_structures import check_structures


class CrystalEstimator(BaseEstimator):
    """Base of ``CrystalRegressor`` and ``CrystalClassifier``, which describe the arguments."""

    model_: nn.Module
    task: ClassVar[str]

    def __init__(
        self,
        model: str = "crystalformer",
        model_options: Mapping[str, Any] | None = None,
        neighborhood: Mapping[str, Any] | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        recipe: str | Mapping[str, Any] | None = None,
        val_fraction: float = 0.1,
        seed: int = 0,
        device: str = "auto",
        verbose: bool = False,
    ):
        self.model = model
        self.model_options = model_options
        self.neighborhood = neighborhood
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.recipe = recipe
        self.val_fraction = val_fraction
        self.seed = seed
        self.device = device
        self.verbose = verbose

    def save(self, path: str | Path) -> None:
        """Write the fitted model and the settings as a checkpoint, which :meth:`load` and ``tgcrystal`` read.

        Raises:
            sklearn.exceptions.NotFittedError: before :meth:`fit`.
        """
        check_is_fitted(self, "model_")
        description = {"class": type(self).__name__, "params": plain(self.get_params()), **self._fitted()}
        weights = {name: value.detach().cpu() for name, value in self.model_.state_dict().items()}
        card: ModelCard = self.model_.card  # type: ignore[assignment]
        save_checkpoint(path, card, weights, training={"estimator": description})

    @classmethod
    def load(cls, path: str | Path, weights: str = "auto") -> "CrystalEstimator":
        """Make a fitted estimator of a checkpoint: one of :meth:`save`, or of ``tgcrystal train``.

        Args:
            path: a ``.ckpt`` file or a run's folder.
            weights: as in :func:`~torch_geometric_crystal.benchmark.load_model`.

        Raises:
            CheckpointError: if the file cannot be used.
            ValueError: if it is for the other estimator.
        """
        path = Path(path)
        model = load_model(path, weights)
        card: Any = model.card
        received = f"{str(path)!r}, for {card.task} of {card.level}s"
        fits = (card.task, card.level) == (cls.task, "crystal")
        check_argument(fits, "path", f"a checkpoint for {cls.task} of crystals", received)
        params = {"model": card.model, "model_options": dict(card.model_options), "neighborhood": card.neighborhood}
        params["model_options"].pop("num_targets", None)
        description = {}
        if path.suffix != ".safetensors":
            training = read_checkpoint(path / "last.ckpt" if path.is_dir() else path)["training"] or {}
            description = training.get("estimator", {})
        estimator = cls(**(description.get("params") or params))
        estimator._take(model, description)
        return estimator

    def _train(
        self, graphs: list[Data], targets: torch.Tensor, names: tuple[str, ...], classes: tuple[str, ...] = ()
    ) -> nn.Module:
        """Train on graphs with targets (n, T); the weights are those that ``tgcrystal train`` would report."""
        config = self._config()
        for graph, row in zip(graphs, targets, strict=True):
            graph.y = row.view(1, -1)
        parts: dict[str, list[Data]] = {"train": graphs, "val": [], "test": []}
        if config.val_fraction > 0.0 and len(graphs) > 1:
            cut = random_split(len(graphs), config.val_fraction, 0.0, config.seed)
            parts = {part: [graphs[index] for index in indices] for part, indices in cut.items()}
        state = random_state(torch.device("cpu"))
        try:
            with tempfile.TemporaryDirectory(prefix="torch_geometric_crystal-") as folder:
                crystals = CrystalParts(parts, names, ("",) * len(names), classes)
                result = train_and_evaluate(config, crystals, folder, [EpochBar()] if self.verbose else [])
        finally:
            restore_random_state(state, torch.device("cpu"))
        if result.model is None:
            raise KeyboardInterrupt("training was interrupted; the estimator is not fitted")
        self.history_ = result.fit.progress.history
        self.n_iter_ = result.fit.progress.epoch
        return result.model

    def _graphs(self, structures: Sequence[Any]) -> list[Data]:
        config = self._config()
        with torch.random.fork_rng(devices=[]):
            scout = build_model(config.model, config.model_options)
        scout.card = ModelCard(  # type: ignore[assignment]
            model=config.model, model_options={}, neighborhood=config.neighborhood
        )
        graphs = []
        for graph in graphs_of(scout, structures, name="X"):
            if isinstance(graph, InvalidStructureError):
                raise graph
            graphs.append(graph)
        return graphs

    def _predict(self, X: Sequence[Any]) -> np.ndarray:
        """(n, T) values or (n, K) probabilities."""
        check_is_fitted(self, "model_")
        size = {} if self.batch_size is None else {"batch_size": int(self.batch_size)}
        values = predict_structures(self.model_, check_structures(X, "X"), device=self.device, **size)  # type: ignore[arg-type]
        return np.asarray(values, dtype=np.float64)

    def _config(self) -> RunConfig:
        recipe = {"preset": self.recipe} if isinstance(self.recipe, str) else dict(self.recipe or {})
        given = {"epochs": self.epochs, "batch_size": self.batch_size, "lr": self.lr}
        settings = {
            "data": "structures",
            "model": self.model,
            "model_options": dict(self.model_options or {}),
            "neighborhood": dict(self.neighborhood or {}),
            "recipe": recipe | {name: value for name, value in given.items() if value is not None},
            "val_fraction": self.val_fraction,
            "test_fraction": 0.0,
            "seed": self.seed,
            "device": self.device,
            "task": self.task,
        }
        return RunConfig.from_dict(plain(settings))

    def _fitted(self) -> dict[str, Any]:
        """What a fitted estimator has beside its model, as plain values."""
        names = ("history_", "n_iter_", *self._fitted_names)
        return {name: plain(getattr(self, name)) for name in names if hasattr(self, name)}

    _fitted_names: ClassVar[tuple[str, ...]] = ()

    def _take(self, model: nn.Module, fitted: Mapping[str, Any]) -> None:
        self.model_ = model
        for name in ("history_", "n_iter_", *self._fitted_names):
            if name in fitted:
                setattr(self, name, fitted[name])

    def __getstate__(self) -> dict[str, Any]:
        """The settings, and the fitted model as its card and arrays on the CPU."""
        state = dict(super().__getstate__())
        model = state.pop("model_", None)
        if model is not None:
            weights = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
            state["_model_card"], state["_model_weights"] = dataclasses.asdict(model.card), weights
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        card, weights = state.pop("_model_card", None), state.pop("_model_weights", None)
        super().__setstate__(state)
        if card is not None:
            tensors = {name: torch.tensor(value) for name, value in weights.items()}
            self.model_ = assemble_model("of a pickled estimator", ModelCard(**card), tensors)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.no_validation = True  # the input is a list of structures, not an array
        tags.input_tags.two_d_array = False
        tags.target_tags.required = True
        return tags


class EpochBar(Callback):
    """Shows the epochs of a training run as a bar (on a terminal only)."""

    def on_start(self, epochs: int, epoch: int, max_time: float | None) -> None:
        """Open the bar."""
        from tqdm import tqdm

        self.bar = tqdm(total=epochs, initial=epoch, unit="epoch", disable=None)

    def on_epoch_end(self, row: dict[str, float], is_best: bool) -> None:
        """Advance the bar and show the losses."""
        self.bar.set_postfix({name: f"{row[name]:.4g}" for name in row if name == "train_loss" or "val" in name})
        self.bar.update()

    def on_end(self, reason: str) -> None:
        """Close the bar."""
        self.bar.close()


def check_length(X: Sequence[Any], y: np.ndarray) -> None:
    """Raise ``ValueError`` unless there are as many targets as structures."""
    check_argument(len(X) == len(y), "y", f"as many targets as there are structures in X, {len(X)}", len(y))


def plain(value: Any) -> Any:
    """Numbers of numpy, which searches over parameters hand in, as Python's; tuples, lists and mappings likewise."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    return value
