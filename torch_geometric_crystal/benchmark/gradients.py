"""A batch's loss and gradients: eagerly, through torch.compile, or from CUDA graphs."""

from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch

from torch_geometric_crystal.benchmark.config import RunConfig
from torch_geometric_crystal.benchmark.objectives import Objective
from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.nn.cuda_graphs import CUDAGraphedGradients
from torch_geometric_crystal.nn.decay import decays_settled
from torch_geometric_crystal.nn.models import Crystalformer


class Gradients:
    """Runs a model as the configuration says. Steps in which a decay may still take its statistics run eagerly.

    Args:
        model: the model itself.
        module: the same as Fabric set it up.
        fabric: Lightning Fabric.
        config: of the run; ``compile``, ``cuda_graphs`` and the recipe's loss matter here.
        objective: what the loss is.

    Raises:
        ValueError: if CUDA graphs are asked for and the model or device cannot have them.
    """

    def __init__(self, model: nn.Module, module: nn.Module, fabric: Any, config: RunConfig, objective: Objective):
        self.model, self.module, self.fabric = model, module, fabric
        self.objective, self.kind = objective, config.recipe.loss
        whole = isinstance(model, Crystalformer)  # in one graph; others in as many as they need
        self._compiled = torch.compile(model, dynamic=True, fullgraph=whole) if config.compile else None
        self._graphed: CUDAGraphedGradients | None = None
        if config.cuda_graphs:
            if not isinstance(model, Crystalformer):
                raise ValueError(f"cuda_graphs: expected a Crystalformer, received {type(model).__name__!r}")
            check_argument(fabric.device.type == "cuda", "cuda_graphs", "a CUDA device", str(fabric.device))
            self._graphed = CUDAGraphedGradients(model, self.loss)

    def predict(self, batch: Batch) -> Tensor:
        """The model's output, in the run's precision."""
        if not torch.is_grad_enabled() and self.fabric.world_size > 1:
            module: Any = self.model  # what distributes gradients expects all processes to take part
        elif self._compiled is not None and decays_settled(self.model):
            module = self._compiled
        else:
            return self.module(batch)
        with self.fabric.autocast():
            return module(batch)

    def loss(self, prediction: Tensor, target: Tensor, known: float | None = None) -> Tensor:
        """The objective's loss on a batch: the sum over its known targets, divided by their number; 0 without any.

        Args:
            prediction: the model's output.
            target: true values, NaN where unknown.
            known: what to divide by instead.
        """
        std = self.model.normalization.std  # type: ignore[union-attr]
        total = self.objective.total_loss(prediction, target, std, self.kind)  # type: ignore[arg-type]
        return total / ((~target.isnan()).sum().clamp(min=1) if known is None else known)

    def __call__(self, batch: Batch, known: float | None = None) -> Tensor:
        """The batch's loss, detached; the parameters' gradients are its own afterwards, whatever they were before.

        Args:
            batch: of this process.
            known: with several processes the mean number of known targets in their batches. The mean over the
                processes of what this returns, and of the gradients, is then that of one batch with all crystals.
        """
        if self._graphed is not None and decays_settled(self.model):
            with self.fabric.autocast():
                return self._graphed(batch)
        self.module.zero_grad(set_to_none=True)
        loss = self.loss(self.predict(batch), batch.y, known)
        self.fabric.backward(loss)
        return loss.detach()
