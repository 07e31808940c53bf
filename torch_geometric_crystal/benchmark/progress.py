"""How far a training run has come, and the random state that its continuation needs."""

import dataclasses
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch


@dataclass
class Progress:
    """Where a run stands; all of it goes into the checkpoint.

    Args:
        epoch: completed epochs.
        batch: completed batches of the epoch under way.
        step: optimiser steps taken.
        seconds: training time so far, of all parts of a resumed run.
        losses: loss of each completed batch of the epoch under way.
        weights: number of known targets in each of them.
        best_epoch: epoch (counted from 1) with the best validation error; 0 if none yet.
        best_error: that error: of a regression the mean over targets of mean absolute error over standard deviation,
            of a classification the cross-entropy.
        history: one row per completed epoch, see :meth:`finish_epoch`.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)
    best_epoch: int = 0
    best_error: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)

    def train_loss(self) -> float:
        """Return the mean loss of the epoch under way, each known target weighted alike."""
        total = math.fsum(loss * weight for loss, weight in zip(self.losses, self.weights, strict=True))
        return total / max(sum(self.weights), 1)

    def finish_epoch(self, lr: float, seconds: float, validation: Mapping[str, float], error: float) -> bool:
        """Close the epoch: append its row to the history and note whether it is the best so far.

        Args:
            lr: learning rate of its last step.
            seconds: its duration.
            validation: errors on the validation part, by the name of their column.
            error: the error by which epochs are compared; NaN without validation data.

        Returns:
            Whether this epoch is the best so far.
        """
        self.epoch += 1
        row = {"epoch": self.epoch, "train_loss": self.train_loss()}
        row |= validation
        self.history.append(row | {"lr": lr, "seconds": seconds})
        self.batch = 0
        self.losses, self.weights = [], []
        if not error < self.best_error:
            return False
        self.best_epoch, self.best_error = self.epoch, error
        return True

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Progress":
        """Return the progress that :meth:`to_dict` described."""
        return cls(**values)


def seed_everything(seed: int) -> None:
    """Seed the global random states of Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (the global state is what user code in a model may draw from)
    torch.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the global random states of Python, numpy, torch and `device` as tensors and plain values."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [str(name), [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Set the global random states to what :func:`random_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
