"""The recipe's optimiser, and the parameters that it leaves alone."""

import difflib
import fnmatch
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from torch_geometric_crystal.benchmark.recipe import Recipe
from torch_geometric_crystal.checks import check_argument

_SHOWN = 4  # names in a message


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimiser over the parameters that are not frozen, in two groups where some do not decay."""
    parameters: Any = [p for p in model.parameters() if p.requires_grad]
    if not recipe.decay_vectors:
        vectors = [p for p in parameters if p.dim() <= 1]
        parameters = [{"params": [p for p in parameters if p.dim() > 1]}, {"params": vectors, "weight_decay": 0.0}]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True
        )
    return torch.optim.AdamW(parameters, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True)


def freeze_parameters(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Let the parameters whose names match any of the patterns ask for no gradients, and the others as before.

    Args:
        model: the model.
        patterns: as ``fnmatch`` has them, such as ``"blocks.0.*"``; upper and lower case differ.

    Returns:
        The names of the frozen parameters.

    Raises:
        ValueError: if a pattern matches no parameter, with names that are near, or if nothing is left to train.
    """
    parameters = dict(model.named_parameters())
    frozen: dict[str, None] = {}
    for pattern in patterns:
        matched = fnmatch.filter(parameters, pattern) if pattern else []
        check_argument(
            len(matched) > 0, "freeze", f"patterns of parameters' names, such as {_near(pattern, parameters)}", pattern
        )
        frozen |= dict.fromkeys(matched)
    check_argument(len(frozen) < len(parameters), "freeze", "patterns that leave parameters to train", list(patterns))
    for name in frozen:
        parameters[name].requires_grad_(False)
    return list(frozen)


def hold_frozen(model: nn.Module) -> None:
    """Put modules whose own parameters are all frozen into evaluation mode.

    A frozen batch norm then normalises by its running statistics and leaves them, and a frozen
    :class:`~torch_geometric_crystal.nn.decay.GaussianDecay` does not take any.
    """
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            module.training = False


def _near(pattern: str, names: Sequence[str] | dict[str, Any]) -> str:
    """Names of parameters, and of groups of them, that resemble a pattern."""
    groups = dict.fromkeys(f"{name[:dot]}.*" for name in names for dot in range(len(name)) if name[dot] == ".")
    choices = [*groups, *names]
    near = difflib.get_close_matches(pattern, choices, _SHOWN, cutoff=0.5)
    return ", ".join(map(repr, near or choices[:_SHOWN]))
