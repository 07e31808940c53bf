"""The public door of reciprocal attention: signature, checks and choice of backend."""

import math

import torch
from torch import Tensor

from torch_geometric_crystal.checks import check_argument, check_shape
from torch_geometric_crystal.ops.backend import choose_backend
from torch_geometric_crystal.ops.reciprocal_attention.reference import reciprocal_attention_reference
from torch_geometric_crystal.ops.reciprocal_attention.registered import attend
from torch_geometric_crystal.ops.wave_vectors import WaveVectors


def reciprocal_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sigma_sq: Tensor,
    waves: WaveVectors,
    *,
    scale: float | None = None,
    floor: float = 1e-6,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Softmax attention over all periodic images with a Gaussian decay, the sum over images taken in reciprocal space.

    .. math::
        \mathbf{y}_i = \sum_j a_{ij} \mathbf{v}_j, \qquad
        a_{ij} \propto \alpha_{ij} \exp(s\, \mathbf{q}_i \cdot \mathbf{k}_j), \qquad
        \alpha_{ij} = \frac{(2 \pi \sigma_i^2)^{3/2}}{V} \max(S_{ij}, \epsilon),

    .. math::
        S_{ij} = \sum_{\mathbf{g}} \exp(-\sigma_i^2 g^2 / 2) \cos(\mathbf{g} \cdot (\mathbf{p}_j - \mathbf{p}_i)),

    per head. By Poisson summation :math:`\alpha_{ij}` is the sum of :math:`\exp(-r^2 / 2 \sigma_i^2)` over all images
    of j, so with :math:`\epsilon = 0` this equals :func:`~torch_geometric_crystal.ops.infinite_attention` at the same
    :math:`\sigma`, without value encoding (Crystalformer, arXiv 2403.11686, section on the reciprocal space).

    Args:
        query: q, shape (N, H, d), float32, float64, float16 or bfloat16. Sums are in float32 or better.
        key: k, shape (N, H, d).
        value: v, shape (N, H, d).
        sigma_sq: squared width of the Gaussian in real space, A^2, positive, shape (N, H). It, positions and vectors
            are of the dtype of q, or float32 where that is of half precision.
        waves: positions and wave vectors, from :func:`~torch_geometric_crystal.ops.gather_wave_vectors`. Gradients flow
            to `pos`, `vector` and `log_volume`.
        scale: factor s of the logits; default :math:`1/\sqrt{d}`.
        floor: :math:`\epsilon`; where it acts no gradient flows through S. The authors' value is 1e-6.
        backend: one of :data:`~torch_geometric_crystal.ops.backend.BACKENDS`; by default what
            :func:`~torch_geometric_crystal.ops.use_backend` set.

    Returns:
        The output y, shape (N, H, d), and the logarithm of :math:`\sum_j \alpha_{ij} \exp(s\, q_i \cdot k_j)`, (N, H).

    Raises:
        ValueError: if shapes or dtypes disagree, or the backend is unknown.
        RuntimeError: if a forced backend cannot run on these tensors.
        TypeError: if an argument is not a tensor.
    """
    _check_arguments(query, key, value, sigma_sq, waves)
    scale = 1.0 / math.sqrt(query.size(-1)) if scale is None else scale
    chosen = choose_backend(backend, query.device, query.dtype)
    if chosen == "reference":
        out, lse = reciprocal_attention_reference(query, key, value, sigma_sq, waves, scale, floor)
    else:
        out, lse = attend(query, key, value, sigma_sq, *waves[:4], chosen, scale, floor)
    log_volume = waves.log_volume[waves.crystal_of_atom()].unsqueeze(-1)
    return out, lse + 1.5 * (2 * math.pi * sigma_sq).log() - log_volume


def _check_arguments(query: Tensor, key: Tensor, value: Tensor, sigma_sq: Tensor, waves: WaveVectors) -> None:
    check_shape("query", query, (waves.pos.size(0), None, None))
    check_shape("key", key, tuple(query.shape))
    check_shape("value", value, tuple(query.shape))
    check_shape("sigma_sq", sigma_sq, tuple(query.shape[:2]))
    check_argument(query.dtype.is_floating_point, "query", "a dtype of floating point", query.dtype)
    for name, tensor in (("key", key), ("value", value)):
        check_argument(tensor.dtype == query.dtype, name, f"the dtype of query, {query.dtype}", tensor.dtype)
    precise = torch.promote_types(query.dtype, torch.float32)
    for name, tensor in (("sigma_sq", sigma_sq), ("waves.pos", waves.pos), ("waves.vector", waves.vector)):
        check_argument(tensor.dtype == precise, name, f"{precise}, beside a query of {query.dtype}", tensor.dtype)
