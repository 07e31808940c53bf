"""Weights of another run to start from."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from torch_geometric_crystal.benchmark.checkpoint import CheckpointError, ModelCard, load_model
from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.checks import check_argument

HEAD = ("head.", "out.")
"""How the names of parameters begin that come after a model's embedding: they are new where the targets differ."""
_OWN_OPTIONS = ("num_targets", "level")  # set by the targets, not by the checkpoint
_ANONYMOUS = re.compile(r"target(_\d+)?")
"""Names of targets that have none in their files."""
_SHOWN = 6  # names in a message


@dataclass(frozen=True)
class Transfer:
    """What a model took from a checkpoint.

    Args:
        checkpoint: its path.
        taken: names of the tensors that were taken.
        new: names of those that stay as they were drawn.
        same_targets: whether head and normalisation of the targets are the checkpoint's.
        trainings: those of the checkpoint.
    """

    checkpoint: str
    taken: tuple[str, ...]
    new: tuple[str, ...]
    same_targets: bool
    trainings: tuple[Mapping[str, Any], ...]

    def describe(self) -> str:
        """One line for a person."""
        why = "; its targets are others, or have no names, so the head and their normalisation are new"
        why = "; the head and the normalisation of the targets are kept" if self.same_targets else why
        new = ", ".join(self.new[:_SHOWN]) + (f" and {len(self.new) - _SHOWN} more" if len(self.new) > _SHOWN else "")
        return f"{len(self.taken)} tensors taken from {self.checkpoint}, new: {new or 'none'}{why}"


def from_checkpoint(config: RunConfig, path: str | Path | None = None) -> RunConfig:
    """Return the configuration with the architecture and the graph of the checkpoint that it starts from.

    What ``model_options`` and ``neighborhood`` give goes before the checkpoint's. Without ``init_from`` the
    configuration is returned as it is.

    Args:
        config: the configuration.
        path: the checkpoint to read; ``init_from`` if None.

    Raises:
        CheckpointError: if the checkpoint cannot be used.
        ValueError: if it is of another kind of model.
    """
    if not config.init_from:
        return config
    path = config.init_from if path is None else path
    card: ModelCard = load_model(path).card  # type: ignore[assignment]
    expected = f"{card.model}, which {path} is (--model {card.model})"
    check_argument(card.model == config.model, "model", expected, config.model)
    options = {name: value for name, value in card.model_options.items() if name not in _OWN_OPTIONS}
    return dataclasses.replace(
        config,
        model_options=options | dict(config.model_options),
        neighborhood=dict(card.neighborhood) | dict(config.neighborhood),
    )


def take_weights(model: nn.Module, path: str | Path, card: ModelCard) -> Transfer:
    """Give a model the weights of a checkpoint, the averaged ones where there are any.

    Tensors are taken by name and shape. The head (``HEAD``) and the normalisation of the targets stay new unless
    task, level, names and classes of the targets are the same, and their units where both are known; names that files
    without a header give (``target``), without a unit, say nothing.

    Args:
        model: as it was drawn.
        path: a ``.ckpt`` or ``.safetensors`` file, or a run's folder.
        card: of the model.

    Raises:
        CheckpointError: if the checkpoint cannot be used, or nothing in it fits.
    """
    source = load_model(path)
    given_card: ModelCard = source.card  # type: ignore[assignment]
    same = _same_targets(given_card, card)
    given, own = source.state_dict(), model.state_dict()
    left = () if same else (*HEAD, "normalization.")
    taken = [n for n, x in own.items() if not n.startswith(left) and n in given and given[n].shape == x.shape]
    if not any(name in dict(model.named_parameters()) for name in taken):
        raise CheckpointError(path, "has no tensor of this model's names and shapes", "Choose the checkpoint's model.")
    with torch.no_grad():
        for name in taken:
            own[name].copy_(given[name])
    model.load_state_dict(own)
    new = tuple(name for name in own if name not in taken)
    return Transfer(str(path), tuple(taken), new, same, given_card.trainings)


def _same_targets(first: ModelCard, second: ModelCard) -> bool:
    named = any((*first.units, *first.classes)) or not all(map(_ANONYMOUS.fullmatch, first.target_names))
    if first.target_names and not named:
        return False  # "target" may be anything

    def key(card: ModelCard) -> tuple[Any, ...]:
        return card.task, card.level, card.target_names, card.classes

    units = zip(first.units, second.units, strict=False)
    return key(first) == key(second) and all(a == b or not a or not b for a, b in units)
