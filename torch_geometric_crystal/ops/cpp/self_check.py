"""Whether the kernels that were built agree with the reference, and how much faster they are."""

import time
from typing import NamedTuple

import torch
from torch import Tensor

from torch_geometric_crystal.ops.infinite_attention.api import infinite_attention
from torch_geometric_crystal.ops.infinite_attention.row_blocks import RowBlock, prepare_row_blocks
from torch_geometric_crystal.ops.neighborhood import Neighborhood, group_edges
from torch_geometric_crystal.ops.radial_basis import GaussianBasis
from torch_geometric_crystal.ops.reciprocal_attention.cpp import backward_cpp, forward_cpp
from torch_geometric_crystal.ops.reciprocal_attention.reference import reciprocal_attention_reference
from torch_geometric_crystal.ops.wave_vectors import WaveVectors

NUM_ATOMS, SOURCES_PER_ATOM, IMAGES = 176, 11, 15
HEADS, HEAD_DIM, NUM_BASIS, SPACING = 8, 16, 64, 14.0 / 64
"""Sixteen crystals of a common size, in a model of default size."""

OUTPUT_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4
"""Largest error, of the largest entry of the reference."""


class SelfCheck(NamedTuple):
    """What was found.

    Attributes:
        output_error: largest error of output and log-sum-exp, of the largest entry.
        gradient_error: the same, of all gradients.
        seconds: shortest time of one forward and backward pass.
        blocked_seconds: the same on the backend in pure torch, its blocks prepared.
    """

    output_error: float
    gradient_error: float
    seconds: float
    blocked_seconds: float

    @property
    def passed(self) -> bool:
        """Whether the errors are within what the library promises."""
        return self.output_error <= OUTPUT_TOLERANCE and self.gradient_error <= GRADIENT_TOLERANCE


def run_self_check(repeats: int = 12) -> SelfCheck:
    """Compare the kernels with the reference on random crystals; time those of real space and the blocked backend."""
    neighborhood, inputs, encoding = _workload()
    expected, expected_gradients = _run(neighborhood, inputs, encoding, "reference")
    actual, gradients = _run(neighborhood, inputs, encoding, "cpp")
    blocks = prepare_row_blocks(neighborhood, GaussianBasis(NUM_BASIS, SPACING))
    seconds: dict[str, list[float]] = {"cpp": [], "blocked": []}
    for _ in range(repeats):
        for backend, times in seconds.items():
            start = time.perf_counter()
            _run(neighborhood, inputs, encoding, backend, blocks)
            times.append(time.perf_counter() - start)
    output_error, gradient_error = _reciprocal_errors()
    return SelfCheck(
        max(output_error, *map(_error, actual, expected)),
        max(gradient_error, *map(_error, gradients, expected_gradients)),
        min(seconds["cpp"]),
        min(seconds["blocked"]),
    )


def _workload() -> tuple[Neighborhood, list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(NUM_ATOMS).repeat_interleave(SOURCES_PER_ATOM * IMAGES)
    cell = target // SOURCES_PER_ATOM * SOURCES_PER_ATOM
    source = cell + torch.arange(SOURCES_PER_ATOM).repeat_interleave(IMAGES).repeat(NUM_ATOMS)
    dist = 8.0 * torch.rand(target.numel(), generator=generator) ** (1 / 3)  # uniform in a ball
    query, key, value = torch.randn(3, NUM_ATOMS, HEADS, HEAD_DIM, generator=generator)
    rho = torch.rand(NUM_ATOMS, HEADS, generator=generator) + 0.55
    encoding = torch.randn(HEADS, HEAD_DIM, NUM_BASIS, generator=generator) / NUM_BASIS**0.5
    return group_edges(torch.stack([source, target]), dist, NUM_ATOMS), [query, key, value, rho], encoding


def _run(
    neighborhood: Neighborhood,
    inputs: list[Tensor],
    encoding: Tensor,
    backend: str,
    blocks: list[RowBlock] | None = None,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
    """Output and log-sum-exp, and the gradients of their squares' sum."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (*inputs, encoding)]
    query, key, value, rho, value_encoding = leaves
    out, lse = infinite_attention(
        query, key, value, rho, neighborhood,
        value_encoding=value_encoding, basis=GaussianBasis(NUM_BASIS, SPACING), blocks=blocks, backend=backend,
    )  # fmt: skip
    return (out, lse), torch.autograd.grad(out.square().sum() + lse.square().sum(), leaves)


def _reciprocal_errors() -> tuple[float, float]:
    """Largest error of the outputs and of the gradients of reciprocal attention, for two crystals of seven atoms."""
    generator = torch.Generator().manual_seed(0)
    pos = torch.rand(14, 3, generator=generator) * 5
    vector = torch.randn(40, 3, generator=generator)
    vector[0], vector[20] = 0.0, 0.0
    waves = WaveVectors(pos, vector, torch.tensor([0, 7, 14]), torch.tensor([0, 20, 40]), torch.zeros(2))
    query, key, value = torch.randn(3, 14, HEADS, HEAD_DIM, generator=generator)
    sigma_sq = torch.rand(14, HEADS, generator=generator) + 4
    scale, floor = HEAD_DIM**-0.5, 1e-6
    leaves = [tensor.double().requires_grad_() for tensor in (query, key, value, sigma_sq)]
    expected = reciprocal_attention_reference(leaves[0], leaves[1], leaves[2], leaves[3], waves, scale, floor)
    expected_gradients = torch.autograd.grad(expected[0].square().sum() + expected[1].square().sum(), leaves)
    actual = out, lse = forward_cpp(query, key, value, sigma_sq, waves, scale, floor)
    gradients = backward_cpp(2 * out, 2 * lse, query, key, value, sigma_sq, waves, scale, floor, out, lse, False)
    found = (gradients.query, gradients.key, gradients.value, gradients.sigma_sq)
    return max(map(_error, actual, expected)), max(map(_error, found, expected_gradients))


def _error(actual: Tensor, expected: Tensor) -> float:
    return float(((actual - expected).abs().max() / expected.abs().max()).detach())
