"""A whole block of Crystalformer as one call of the C++ kernels, where these can do it."""

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torch_geometric_crystal.nn.conv.periodic_infinite_attention import PeriodicInfiniteAttention, RowStatistics
from torch_geometric_crystal.nn.crystal_graph import CrystalGraph
from torch_geometric_crystal.nn.decay import GaussianDecay
from torch_geometric_crystal.ops.backend import choose_backend
from torch_geometric_crystal.ops.cpp import extension
from torch_geometric_crystal.ops.neighborhood import Neighborhood
from torch_geometric_crystal.ops.radial_basis import NO_BASIS
from torch_geometric_crystal.ops.tracing import is_recorded

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def can_run_fused(block: Any, x: Tensor, graph: CrystalGraph) -> bool:
    """Whether :func:`run_fused` can replace the parts of a block, so that nobody notices but by the time it takes.

    It needs the backend ``"cpp"`` in float32, heads in real space alone, and distances without a gradient. A part that
    was exchanged for another, has hooks or waits for the statistics of its first batch is run itself.
    """
    attention: PeriodicInfiniteAttention = block.attention
    if type(attention) is not PeriodicInfiniteAttention or type(attention.decay) is not GaussianDecay:
        return False  # first of all: what was put in its place may take another graph
    if graph.neighborhood is None or graph.neighborhood.dist.requires_grad or attention.domain != "real":
        return False
    if not x.is_cpu or is_recorded(x) or torch.is_autocast_enabled("cpu"):
        return False
    decay, parts = attention.decay, (attention.qkv, attention.out, block.expand, block.contract)
    if (decay.training and not decay.settled) or choose_backend(None, x.device, x.dtype) != "cpp":
        return False
    if not all(type(part) is nn.Linear and part.bias is not None for part in parts):
        return False
    return not any(getattr(part, name) for part in (attention, decay, *parts) for name in HOOKS)


def run_fused(block: Any, x: Tensor, graph: CrystalGraph) -> tuple[Tensor, RowStatistics]:
    """The new states (N, C) of a block for which :func:`can_run_fused`, and what bounds on the truncation need."""
    attention: PeriodicInfiniteAttention = block.attention
    assert graph.neighborhood is not None
    inputs = (tensor.contiguous() for tensor in (x, *_weights_of(block)))
    out, projected, rho, lse = _FusedBlock.apply(block, graph, *inputs)
    query, key, _ = projected.view(-1, 3, attention.heads, attention.head_dim).unbind(1)
    return out, RowStatistics(query, key, rho, lse, attention.scale)


def _weights_of(block: Any) -> tuple[Tensor, ...]:
    """The weights in the order of the kernels."""
    return tuple(operator.attrgetter(name)(block) for name in _names_of_weights(block))


def _names_of_weights(block: Any) -> tuple[str, ...]:
    encoding = () if block.attention.value_encoding is None else ("attention.value_encoding",)
    return (
        "attention.qkv.weight", "attention.qkv.bias", "attention.decay.weight", "attention.out.weight",
        "attention.out.bias", "expand.weight", "expand.bias", "contract.weight", "contract.bias", *encoding,
    )  # fmt: skip


def _settings_of(block: Any, neighborhood: Neighborhood) -> tuple[Any, ...]:
    """What the kernels take after the weights."""
    attention: PeriodicInfiniteAttention = block.attention
    basis = attention.basis
    num_basis, spacing = basis or NO_BASIS
    return (
        attention.decay.statistics.double(), neighborhood.dist, neighborhood.kernel_indices(),
        attention.r0, attention.scale, attention.rho_min, attention.decay.elu_beta, num_basis, spacing,
    )  # fmt: skip


class _FusedBlock(torch.autograd.Function):
    """States, W_qkv x + b, rho and log-sum-exp of a block; only the states have a gradient."""

    @staticmethod
    def forward(
        ctx: Any, block: Any, graph: CrystalGraph, x: Tensor, *weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        assert graph.neighborhood is not None
        settings = _settings_of(block, graph.neighborhood)
        out, *saved = extension.load().block(x, weights, *settings)
        ctx.block, ctx.graph, ctx.settings, ctx.num_saved = block, graph, settings, len(saved)
        ctx.save_for_backward(*saved, x, *weights)
        _, projected, rho, _, lse, *_ = saved
        projected = projected[: x.size(0)]
        ctx.mark_non_differentiable(projected, rho, lse)
        ctx.set_materialize_grads(False)
        return out, projected, rho, lse

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Any, ...]:
        saved, (x, *weights) = ctx.saved_tensors[: ctx.num_saved], ctx.saved_tensors[ctx.num_saved :]
        if grad is None:
            grads: Sequence[Tensor | None] = [None] * (1 + len(weights))
        elif torch.is_grad_enabled():  # second derivatives: autograd records the parts
            grads = _recorded_gradients(ctx, grad, (x, *weights))
        else:
            grads = extension.load().block_backward(grad.contiguous(), weights, saved, *ctx.settings)
        return None, None, *grads


def _recorded_gradients(ctx: Any, grad: Tensor, inputs: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients of those inputs that ask for one, from the parts of the block, differentiable again.

    The weights are those of the forward pass, which may have been others than the block's own (``functional_call``).
    """
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    statistics = ctx.settings[0].to(ctx.block.attention.decay.statistics.dtype)
    state = dict(zip(_names_of_weights(ctx.block), inputs[1:], strict=True))
    state["attention.decay.statistics"] = statistics
    state = {f"block.{name}": tensor for name, tensor in state.items()}
    out, _ = torch.func.functional_call(_Parts(ctx.block), state, (inputs[0], ctx.graph))
    found = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
    return [next(found) if tensor.requires_grad else None for tensor in inputs]


class _Parts(nn.Module):
    """A block whose forward pass runs the parts."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, graph: CrystalGraph) -> tuple[Tensor, RowStatistics | None]:
        return self.block.run_parts(x, graph)  # type: ignore[operator]
