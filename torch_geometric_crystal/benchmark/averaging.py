"""The running mean of a model's weights."""

from collections.abc import Mapping

import torch
from torch import Tensor


class WeightAverage:
    r"""Plain running mean of weights, :math:`\bar\theta_n = \bar\theta_{n-1} + (\theta_n - \bar\theta_{n-1}) / n`.

    It is kept in float64 on the CPU, so that rounding does not build up over updates. Floating-point buffers (the
    targets' mean and standard deviation) are averaged like the weights; integer buffers are those of the last update.
    Batch norms' running statistics are averaged, too, until :meth:`settle` puts those of the mean weights in their
    place.

    Attributes:
        count: number of updates.
        is_settled: whether the statistics are those of the mean weights.
    """

    def __init__(self) -> None:
        self.count = 0
        self.is_settled = False
        self._mean: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, state_dict: Mapping[str, Tensor]) -> None:
        """Take the weights in `state_dict` into the mean."""
        self.count += 1
        self.is_settled = False
        for name, value in state_dict.items():
            if not value.is_floating_point():
                self._mean[name] = value.detach().to("cpu", copy=True)
            elif self.count == 1:
                self._mean[name] = value.detach().to("cpu", torch.float64, copy=True)
            else:
                mean = self._mean[name]
                mean += (value.to(mean) - mean) / self.count

    def settle(self, statistics: Mapping[str, Tensor]) -> None:
        """Take the batch norms' statistics, from
        :func:`~torch_geometric_crystal.benchmark.batch_statistics.batch_statistics` of the mean weights.
        """
        for name, value in statistics.items():
            self._mean[name] = value.detach().to("cpu", torch.float64, copy=True)
        self.is_settled = True

    def reset(self) -> None:
        """Forget all updates."""
        self.count, self.is_settled = 0, False
        self._mean = {}

    def averaged(self, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean weights in the dtypes and on the devices of `like`."""
        return {name: self._mean[name].to(value) for name, value in like.items()}

    def state_dict(self) -> dict[str, object]:
        """Return the state: the number of updates, whether it is settled, and the mean in float64."""
        return {"count": self.count, "is_settled": self.is_settled, "mean": dict(self._mean)}

    def load_state_dict(self, state: Mapping) -> None:
        """Take the state that :meth:`state_dict` returned."""
        self.count, self.is_settled = int(state["count"]), bool(state.get("is_settled", False))
        self._mean = {name: value.clone() for name, value in state["mean"].items()}
