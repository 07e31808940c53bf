"""Whether a fast path gives what the float64 reference gives, on the inputs that are timed: asked before any speed.

Errors are the largest absolute difference relative to the largest absolute value of the expected tensor, those of a
model's gradients the norm of the difference relative to the norm. The reference of a model is the sum over a few
crystals at a time, which needs little memory and is the same: crystals do not see each other.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from torch_geometric_crystal.ops import use_backend

CHUNK_EDGES = 60_000
"""Edges that the float64 reference of a model takes at once: about 3 GB with its gradient."""

SMALL_GRADIENT = 1e-3
"""Part of the largest gradient below which a parameter's gradient is no measure of its own error."""


class Tolerance(NamedTuple):
    """Largest errors with which a speed may be shown."""

    output: float
    gradient: float


TOLERANCES = {
    "float64": Tolerance(1e-10, 1e-10),
    "float32": Tolerance(1e-5, 1e-4),
    "tf32": Tolerance(1e-2, 3e-2),
    "bfloat16": Tolerance(5e-2, 2.5e-1),
}
"""The last two are not promises of the package: they say that nothing is broken, and the errors are recorded."""


class Agreement(NamedTuple):
    """Errors of outputs and gradients, and whether both are within the tolerance of the precision."""

    output: float
    gradient: float
    precision: str

    @property
    def good(self) -> bool:
        """Whether a speed may be shown. A NaN is not good."""
        allowed = TOLERANCES[self.precision]
        return self.output <= allowed.output and self.gradient <= allowed.gradient

    def summary(self) -> dict[str, Any]:
        """For a row of the JSON."""
        return {
            "output_error": float(f"{self.output:.2g}"),
            "gradient_error": float(f"{self.gradient:.2g}"),
            "within_tolerance": self.good,
        }


class ModelResults(NamedTuple):
    """Outputs, and gradients of their weighted sum by parameter name."""

    output: Tensor
    gradients: dict[str, Tensor]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest expected value; where all are zero, to one."""
    if not expected.numel():
        return 0.0
    difference = (actual.detach().to(expected) - expected.detach()).abs().max()
    scale = expected.detach().abs().max()
    return float(difference / scale) if scale > 0 else float(difference)


def compare(
    outputs: Sequence[tuple[Tensor, Tensor]], gradients: Iterable[tuple[Tensor, Tensor]], precision: str = "float32"
) -> Agreement:
    """Largest error over pairs of actual and expected tensors."""
    return Agreement(
        max((relative_error(*pair) for pair in outputs), default=0.0),
        max((relative_error(*pair) for pair in gradients), default=0.0),
        precision,
    )


def reference_results(model: nn.Module, crystals: Sequence[Data], backend: str = "reference") -> ModelResults:
    """Outputs and gradients of a model in float64, for crystals that have their graphs.

    Args:
        model: in any precision.
        crystals: with their graphs.
        backend: ``"blocked"`` where the reference itself would take too long: in float64 the tests hold the two to
            1e-10 of each other.
    """
    judge = copy.deepcopy(model).double().eval()
    weights = output_weights(len(crystals)).to(next(judge.parameters()).device)
    judge.zero_grad()
    outputs, first = [], 0
    with use_backend(backend):
        for chunk in _chunks(crystals):
            batch = Batch.from_data_list(chunk).to(weights.device)
            output = judge(batch)
            (output.squeeze(-1) * weights[first : first + len(chunk)]).sum().backward()
            outputs.append(output.detach())
            first += len(chunk)
    return ModelResults(torch.cat(outputs), gradients_of(judge))


def model_results(model: nn.Module, run: Callable[[Data], Tensor], batch: Data) -> ModelResults:
    """The same of `run`, a fast path of `model`."""
    model.zero_grad()
    output = run(batch)
    (output.squeeze(-1) * output_weights(output.size(0)).to(output)).sum().backward()
    results = ModelResults(output.detach().clone(), gradients_of(model))
    model.zero_grad()
    return results


def model_agreement(actual: ModelResults, expected: ModelResults, precision: str = "float32") -> Agreement:
    """Errors of the outputs, and the largest of any parameter's gradient.

    Gradients of a model are compared by their norms, not their largest elements: where rounding tips a relu, single
    elements change by a whole atom's part, which says nothing about a kernel. A gradient smaller than `SMALL_GRADIENT`
    of the largest of any parameter is measured against that: the bias of the keys, for one, has a gradient of zero,
    since a softmax ignores it, and what float32 finds for it is only noise.
    """
    largest = max(float(gradient.norm()) for gradient in expected.gradients.values())
    errors = [
        float((actual.gradients[name].to(gradient) - gradient).norm())
        / max(float(gradient.norm()), SMALL_GRADIENT * largest)
        for name, gradient in expected.gradients.items()
    ]
    return Agreement(relative_error(actual.output, expected.output), max(errors), precision)


def output_weights(number: int) -> Tensor:
    """Weights of the crystals in the sum whose gradient is compared: all different, so that none can hide."""
    return (1.0 + torch.arange(number, dtype=torch.float64) % 7) / (4.0 * number)


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the gradients that the parameters have, by name."""
    found: Mapping[str, Tensor | None] = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {name: gradient.clone() for name, gradient in found.items() if gradient is not None}


def _chunks(crystals: Sequence[Data]) -> Iterable[list[Data]]:
    chunk: list[Data] = []
    edges = 0
    for data in crystals:
        if chunk and edges + _size(data) > CHUNK_EDGES:
            yield chunk
            chunk, edges = [], 0
        chunk.append(data)
        edges += _size(data)
    yield chunk


def _size(data: Data) -> int:
    return data.edge_index.size(1) if "edge_index" in data else data.num_nodes**2
