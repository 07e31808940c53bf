"""Errors on the validation part, in one process or shared among several."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

from torch_geometric_crystal.benchmark.gradients import Gradients
from torch_geometric_crystal.benchmark.processes import Group
from torch_geometric_crystal.nn.readout import TargetNormalization


class Validation:
    """Computes a model's errors on the same batches again and again; each process predicts every so many-th of them.

    Args:
        batches: all of the validation part, maybe none; gone through anew each time, so that a loader may read them.
        gradients: what runs the model.
        group: the processes.
    """

    def __init__(self, batches: Sequence[Batch] | DataLoader, gradients: Gradients, group: Group):
        self.batches, self.gradients, self.group = batches, gradients, group

    @torch.no_grad()
    def __call__(self) -> tuple[dict[str, float], float]:
        """Columns for the history and the error by which epochs are compared; none and NaN without batches."""
        if not len(self.batches):
            return {}, float("nan")
        normalization: TargetNormalization = self.gradients.model.normalization  # type: ignore[assignment]
        self.gradients.module.eval()
        outputs: list[Tensor | None] = []
        targets: list[Tensor] = []
        for index, batch in enumerate(self.batches):
            targets.append(batch.y.cpu())
            mine = index % self.group.size == self.group.rank
            outputs.append(self.gradients.predict(batch.to(self.group.device, non_blocking=True)) if mine else None)
        std = normalization.std.cpu()
        rows = [len(target) for target in targets]
        output = self._gather(outputs, rows, std.dtype)
        return self.gradients.objective.validate(output, torch.cat(targets), std)

    def _gather(self, outputs: Sequence[Tensor | None], rows: list[int], dtype: torch.dtype) -> Tensor:
        """The outputs of all batches on the CPU, from whichever process has them."""
        if self.group.size == 1:
            return torch.cat([output for output in outputs if output is not None]).cpu()
        width = self.group.decide(0 if outputs[0] is None else outputs[0].size(1))
        gathered = torch.zeros(sum(rows), width, dtype=dtype, device=self.group.device)
        for part, output in zip(gathered.split(rows), outputs, strict=True):
            if output is not None:
                part.copy_(output)
        return self.group.sum(gathered).cpu()
