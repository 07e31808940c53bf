"""How a model is run: the backend, torch.compile, CUDA graphs and reduced precision, each one switch.

This is the one place that knows how the package offers them.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from agreement import ModelResults, gradients_of, model_results, output_weights
from torch import Tensor, nn
from torch_geometric.data import Data
from workloads import inference, make_optimizer, training_step

from torch_geometric_crystal.nn import CUDAGraphed, CUDAGraphedGradients
from torch_geometric_crystal.ops import available_backends, use_backend


class FastPath(NamedTuple):
    """What is switched on.

    Attributes:
        backend: of the attention operations.
        compiled: the model through ``torch.compile(fullgraph=True)``.
        cuda_graphs: training step and inference replayed from captured CUDA graphs.
        precision: "float32", "tf32" (matrix products) or "bfloat16" (autocast).
    """

    backend: str = "auto"
    compiled: bool = False
    cuda_graphs: bool = False
    precision: str = "float32"

    @property
    def name(self) -> str:
        """For tables: the backend and what is switched on beside it."""
        parts = [self.backend, "compile" * self.compiled, "graphs" * self.cuda_graphs]
        return "+".join([part for part in parts if part] + [self.precision] * (self.precision != "float32"))


def add_fast_path_options(parser: argparse.ArgumentParser) -> None:
    """--backend, --compile, --cuda-graphs, --autocast and --tf32."""
    parser.add_argument("--backend", nargs="+", help="backends to time (default: all that can run but the reference)")
    parser.add_argument("--compile", action="store_true", help="also through torch.compile(fullgraph=True)")
    parser.add_argument("--cuda-graphs", action="store_true", help="also from captured CUDA graphs")
    parser.add_argument("--autocast", action="store_true", help="also under bfloat16 autocast")
    parser.add_argument("--tf32", action="store_true", help="also with tf32 matrix products (CUDA)")


def fast_paths(options: argparse.Namespace) -> list[FastPath]:
    """Every backend plainly; the fastest of them with each switch that was asked for, alone."""
    backends = options.backend or timed_backends(options.device)
    paths = [FastPath(backend) for backend in backends]
    first = backends[0]
    if options.compile:
        paths.append(FastPath(first, compiled=True))
    if options.cuda_graphs:
        paths.append(FastPath(first, cuda_graphs=True))
    if options.autocast:
        paths.append(FastPath(first, precision="bfloat16"))
    if options.tf32:
        paths.append(FastPath(first, precision="tf32"))
    return paths


def timed_backends(device: str) -> list[str]:
    """The backends that can run on a device, without the reference, which is not made to be fast."""
    return [backend for backend in available_backends(device) if backend != "reference"]


class Runs(NamedTuple):
    """What a benchmark does with a model and a batch on a path. To be called inside :func:`switched_on`.

    Attributes:
        results: outputs and gradients, for the comparison with the reference.
        train: a training step.
        infer: an inference.
    """

    results: Callable[[], ModelResults]
    train: Callable[[], None]
    infer: Callable[[], None]


def runs_of(model: nn.Module, path: FastPath, batch: Data, device: str) -> Runs:
    """The runs of a path. Autocast is around the forward pass only, as it is meant to be."""
    if path.cuda_graphs:
        return graphed_runs(model, batch)
    compiled = torch.compile(model, fullgraph=True, dynamic=True) if path.compiled else model

    def forward(data: Data) -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=path.precision == "bfloat16"):
            return compiled(data)

    return Runs(
        lambda: model_results(model.eval(), forward, batch),
        training_step(model, forward, batch),
        inference(model, forward, batch),
    )


def graphed_runs(model: nn.Module, batch: Data, **options: Any) -> Runs:
    """The runs from captured CUDA graphs. The graphs are captured in the first call of each.

    Args:
        model: the model.
        batch: the batch.
        **options: of CUDAGraphed and CUDAGraphedGradients.
    """
    infer, weighted = CUDAGraphed(model, **options), CUDAGraphedGradients(model, _weighted_sum, **options)
    train = CUDAGraphedGradients(model, _l1, **options)
    optimizer = make_optimizer(model)
    judged, timed = batch.clone(), batch.clone()
    judged.y = output_weights(batch.num_graphs).to(batch.pos).unsqueeze(1)
    timed.y = torch.zeros_like(judged.y)

    def results() -> ModelResults:
        weighted(judged)
        found = ModelResults(infer(batch), gradients_of(model))
        model.zero_grad()
        return found

    def step() -> None:
        train(timed)
        optimizer.step()

    return Runs(results, step, lambda: infer(batch))


def _weighted_sum(prediction: Tensor, weights: Tensor) -> Tensor:
    """Sum of the predictions with weights, which are NaN for what pads a batch."""
    return (prediction * weights.nan_to_num(0.0)).sum()


def _l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error over the targets that are not NaN."""
    known = ~target.isnan()
    return ((prediction - target.nan_to_num(0.0)) * known).abs().sum() / known.sum()


def on_path(path: FastPath, function: Callable[[], Any]) -> Callable[[], None]:
    """`function` with the path switched on around each call."""

    def call() -> None:
        with switched_on(path):
            function()

    return call


@contextmanager
def switched_on(path: FastPath) -> Iterator[None]:
    """Backend of a path, and the precision of matrix products."""
    before = torch.get_float32_matmul_precision()
    with use_backend(path.backend):
        torch.set_float32_matmul_precision("high" if path.precision == "tf32" else "highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
