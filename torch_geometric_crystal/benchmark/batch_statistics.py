"""Statistics of batch norms anew, for weights that were averaged."""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch_geometric.data import Batch

_STATISTICS = ("running_mean", "running_var")


def moving_batch_norms(model: nn.Module) -> dict[str, Any]:
    """The batch norms of a model in training whose running statistics move, by their names."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.training and module.running_mean is not None
    }


@torch.no_grad()
def batch_statistics(
    model: nn.Module, weights: Mapping[str, Tensor], batches: Iterable[Batch], predict: Callable[[Batch], Tensor]
) -> dict[str, Tensor]:
    """Running statistics of a model's batch norms with given weights: the mean over batches of mean and variance.

    The mean of weights has activations that none of its members had, so that the mean of their statistics does not fit;
    `Izmailov et al. (2018) <https://arxiv.org/abs/1803.05407>`_ compute them anew in a pass over the training set, as
    this does. Everything else is in evaluation mode meanwhile. The model is afterwards as it was.

    Args:
        model: in training; batch norms that are not (frozen ones) keep their statistics.
        weights: its state dict for the pass.
        batches: of the training set.
        predict: runs the model on a batch.

    Returns:
        The running means and variances by their names in the state dict; without those of norms that met no batch of
        two rows.
    """
    norms, modes = moving_batch_norms(model), {module: module.training for module in model.modules()}
    before, momenta = copy.deepcopy(model.state_dict()), {norm: norm.momentum for norm in norms.values()}
    try:
        model.load_state_dict(weights)
        model.eval()
        for norm in norms.values():
            norm.train()
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
        for batch in batches:
            predict(batch)
        found = {
            f"{name}.{kind}": getattr(norm, kind).clone()
            for name, norm in norms.items()
            if norm.num_batches_tracked > 0
            for kind in _STATISTICS
        }
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
        model.load_state_dict(before)
    return found
