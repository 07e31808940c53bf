"""Crystalformer under CUDA graphs: recorded once for each of a few sizes, replayed on batches padded to them.

A replay starts all of a pass's kernels with one call, so that small batches do not wait for Python. What depends on a
batch's content (grouping its edges) runs before it, and is copied into the tensors that the recording reads.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.nn.crystal_graph import CrystalGraph
from torch_geometric_crystal.nn.decay import decays_settled
from torch_geometric_crystal.nn.graph_padding import GraphSizes, graph_sizes, pad_graph, padded_sizes
from torch_geometric_crystal.nn.models.crystalformer import Crystalformer
from torch_geometric_crystal.ops import choose_backend
from torch_geometric_crystal.ops.precision import without_autocast

WARM_UPS = 3
"""Runs before recording, in which libraries choose and allocate what they need."""

WASTE = 1.5
"""A recording is used for batches down to so many times smaller than it, before a smaller one is made."""

Results = Sequence[Tensor | None]
Recorder = Callable[[Callable[[], Results]], Callable[[], Results]]


class CUDAGraphRecorder:
    """Records a function without arguments as a CUDA graph; all graphs of a recorder share their memory."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, function: Callable[[], Results]) -> Callable[[], Results]:
        """Return a function that starts the same kernels on the same memory and returns the same tensors."""
        side, current = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                function()
        current.wait_stream(side)
        self._pool = torch.cuda.graph_pool_handle() if self._pool is None else self._pool
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            results = function()

        def replay() -> Results:
            graph.replay()
            return results

        return replay


class CUDAGraphed:
    """A model's inference, from CUDA graphs: ``CUDAGraphed(model)(batch)`` equals ``model(batch)``.

    The first batch of a new size takes as long as several passes. Weights may change in place (training,
    ``load_state_dict``), but the model must stay on its device and in its dtype. Not for several streams at once.

    Args:
        model: on an NVIDIA GPU.
        most: recordings kept; beyond it the least recently used one is dropped.
        record: makes a recording; for tests.

    Raises:
        ValueError: if the model is not on a GPU on which the fused kernels run.
    """

    def __init__(self, model: Crystalformer, most: int = 16, record: Recorder | None = None):
        self.model = model
        self._recordings = _Recordings(self._forward, most, _recorder_for(model, record))

    @torch.no_grad()
    def __call__(self, data: Data) -> Tensor:
        """Predict the targets of each crystal of a batch, shape (B, T), or of each atom, (N, T). No gradients."""
        graph = self.model.gather(data)
        (out,) = self._recordings.run(graph)
        rows = graph.num_crystals if self.model.head.level == "crystal" else graph.z.numel()
        return out[:rows].clone()  # type: ignore[index]

    @property
    def sizes(self) -> list[GraphSizes]:
        """Sizes of the recordings, the most recently used last."""
        return self._recordings.sizes

    def _forward(self, graph: CrystalGraph) -> Results:
        return (self.model.predict(graph)[0],)


class CUDAGraphedGradients:
    """A training step's loss and gradients, from CUDA graphs: forward and backward pass in one replay.

    The gradients are put into the parameters' ``grad``, in place of what was there; the optimiser then steps as usual.

    Args:
        model: on an NVIDIA GPU.
        loss: of predictions and targets (B, T) a scalar tensor, to which targets that are NaN add nothing: the rows of
            the padding have such ones.
        most: recordings kept.
        record: makes a recording; for tests.

    Raises:
        ValueError: if the model is not on a GPU on which the fused kernels run.
    """

    def __init__(
        self,
        model: Crystalformer,
        loss: Callable[[Tensor, Tensor], Tensor],
        most: int = 8,
        record: Recorder | None = None,
    ):
        check_argument(
            model.head.level == "crystal", "model", "one with targets of crystals", "one with those of atoms"
        )
        self.model, self.loss = model, loss
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._recordings = _Recordings(self._gradients, most, _recorder_for(model, record))

    def __call__(self, data: Data) -> Tensor:
        """The loss of a batch with targets `y`, detached; its gradients are in the parameters afterwards.

        Raises:
            ValueError: if the decays have not taken their statistics: run one training step without graphs first.
        """
        check_argument(
            decays_settled(self.model), "model", "decays with statistics, which the first training step takes", "none"
        )
        loss, *gradients = self._recordings.run(self.model.gather(data), data.y)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        return loss.clone()  # type: ignore[union-attr]

    @property
    def sizes(self) -> list[GraphSizes]:
        """Sizes of the recordings, the most recently used last."""
        return self._recordings.sizes

    def _gradients(self, graph: CrystalGraph, target: Tensor) -> Results:
        loss = self.loss(self.model.predict(graph)[0], target)
        with without_autocast(loss.device):  # as autograd's backward passes run
            return (loss.detach(), *torch.autograd.grad(loss, self._parameters, allow_unused=True))


class _Recording(NamedTuple):
    inputs: list[Tensor]
    replay: Callable[[], Results]


class _Recordings:
    def __init__(self, function: Callable[..., Results], most: int, record: Recorder):
        self.function, self.most, self.record = function, most, record
        self.kept: OrderedDict[tuple[GraphSizes, tuple], _Recording] = OrderedDict()

    @property
    def sizes(self) -> list[GraphSizes]:
        return [sizes for sizes, _ in self.kept]

    def run(self, graph: CrystalGraph, target: Tensor | None = None) -> Results:
        """Pad, copy and replay; recorded first if there is nothing that suits."""
        given, setting = graph_sizes(graph), _autocast(graph.z.device)
        suitable = (sizes for sizes, made_for in self.kept if made_for == setting and _suits(sizes, given))
        sizes = next(suitable, padded_sizes(given))
        key = (sizes, setting)
        padded = pad_graph(graph, sizes)
        new = list(_tensors(padded))
        if target is not None:
            missing = target.new_full((sizes.crystals - given.crystals, *target.shape[1:]), torch.nan)
            new.append(torch.cat([target, missing]))
        if key not in self.kept:
            self.kept[key] = self._make(padded, new, target is not None)
            if len(self.kept) > self.most:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        recording = self.kept[key]
        for is_float in (True, False):  # one kernel for each dtype
            chosen = [index for index, tensor in enumerate(new) if tensor.is_floating_point() == is_float]
            torch._foreach_copy_([recording.inputs[index] for index in chosen], [new[index] for index in chosen])
        return recording.replay()

    def _make(self, padded: CrystalGraph, new: list[Tensor], with_target: bool) -> _Recording:
        inputs = [tensor.detach().clone() for tensor in new]
        arguments = (_with_tensors(padded, inputs), *inputs[len(inputs) - with_target :])
        kind, dtype, enabled = _autocast(padded.z.device)

        def function() -> Results:
            # Without autocast's cache of weights, which would be made outside the graph and grow old.
            with torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=False):
                return self.function(*arguments)

        return _Recording(inputs, self.record(function))


def _recorder_for(model: Crystalformer, record: Recorder | None) -> Recorder:
    if record is not None:
        return record
    weight = model.embedding.weight
    check_argument(weight.is_cuda, "model", "a model on an NVIDIA GPU, for CUDA graphs", weight.device.type)
    chosen = choose_backend(None, weight.device, weight.dtype)
    check_argument(chosen == "triton", "backend", "triton, the only one that CUDA graphs can record", chosen)
    return CUDAGraphRecorder()


def _suits(recorded: GraphSizes, given: GraphSizes) -> bool:
    """Whether a batch fits into a recording without much waste."""
    most = (max(WASTE * size, rounded) for size, rounded in zip(given, padded_sizes(given), strict=True))
    return recorded.hold(given) and all(size <= limit for size, limit in zip(recorded, most, strict=True))


def _autocast(device: torch.device) -> tuple[str, torch.dtype, bool]:
    return device.type, torch.get_autocast_dtype(device.type), torch.is_autocast_enabled(device.type)


def _tensors(graph: CrystalGraph) -> Iterator[Tensor]:
    counts = () if graph.multiplicity is None else (graph.multiplicity,)
    yield from (graph.z, graph.batch, graph.ptr, *(graph.neighborhood or ()), *(graph.waves or ()), *counts)


def _with_tensors(graph: CrystalGraph, tensors: Sequence[Tensor]) -> CrystalGraph:
    """The graph with other tensors in the order of :func:`_tensors`."""
    rest = iter(tensors)
    z, batch, ptr = (next(rest) for _ in range(3))
    edges, waves = graph.neighborhood, graph.waves
    return CrystalGraph(
        z, batch, ptr,
        neighborhood=None if edges is None else type(edges)(*(next(rest) for _ in edges)),
        blocks=None,
        waves=None if waves is None else type(waves)(*(next(rest) for _ in waves)),
        multiplicity=None if graph.multiplicity is None else next(rest),
    )  # fmt: skip
