r"""The work in an attention operation, and how fast this machine could do it.

What is counted, for N atoms, E edges in P pairs (i, j), H heads of d dimensions, K basis functions, floats of s bytes:

* bytes: every input read once and every output written once, indices as 64-bit integers: what must cross the memory bus
  even if everything else stays in cache. Forward: q, k, v, y (4 N H d s), rho and log-sum-exp (2 N H s), the mean basis
  (N H K s), W^E (H d K s), distances (E s), one source and one pointer a pair (16 P), two pointers a row (16 N).
  Backward: the same inputs, y and its gradient again, gradients of q, k, v, rho, W^E, and the pairs once more by source
  (16 P + 8 N).
* flops (a product and a sum count two): forward q.k and the sum of v, 4 P H d; the mean basis, 2 E H K; its projection,
  2 N H d K. Backward: q.k again, g.v, and three sums for q, k, v, 10 P H d; the gradient through the basis, 2 E H K;
  its two projections, 4 N H d K. The sums over the images of a pair are of order E H and not counted.
* exps: E (H + K): one weight for each edge and head, and the basis, in the backward pass again.

In reciprocal space, for crystals of n atoms and M waves: S is a product, 2 n^2 H M flops, and attention 4 n^2 H d; its
backward pass repeats S, needs one more such product for sigma, and 10 n^2 H d. Exps: n M (2 + H) for the waves' sines
and cosines and the Gaussians, 2 n^2 H for logarithm and softmax.

The floor is the largest of bytes / copy bandwidth, flops / matmul rate and exps / exp rate, each rate measured here:
copy of a large float32 tensor (read and write both count), a large square product (float32 on the CPU, tf32 on CUDA),
exp of a tensor that stays in cache. The basis is counted in full: a kernel that leaves out the centres far from r may
come out above 100 %. A kernel that splits a product into three to keep float32 accuracy does three times what is
counted.
"""

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from timing import measure


class Work(NamedTuple):
    """What an operation has to do at least."""

    bytes: float
    flops: float
    exps: float


class Rates(NamedTuple):
    """Measured rates of this machine, a second."""

    bytes: float
    flops: float
    exps: float

    def floor(self, work: Work) -> tuple[float, str]:
        """Least seconds for some work, and what bounds it."""
        limits = {name: getattr(work, name) / getattr(self, name) for name in self._fields}
        bound = max(limits, key=lambda name: limits[name])
        return limits[bound], bound


class RealShape(NamedTuple):
    """Sizes of a real-space case."""

    atoms: int
    edges: int
    pairs: int
    heads: int
    head_dim: int
    basis: int
    item: int = 4


def real_work(shape: RealShape) -> dict[str, Work]:
    """Work of the forward and the backward pass in real space."""
    n, e, p, h, d, k, s = shape
    tokens, rows, weights = n * h * d * s, n * h * s, h * d * k * s
    indices, transposed = 16 * p + 16 * n, 16 * p + 8 * n
    forward = Work(
        4 * tokens + 2 * rows + rows * k + weights + e * s + indices,
        4 * p * h * d + 2 * e * h * k + 2 * n * h * d * k,
        e * (h + k),
    )
    backward = Work(
        8 * tokens + 4 * rows + rows * k + 2 * weights + e * s + indices + transposed,
        10 * p * h * d + 2 * e * h * k + 4 * n * h * d * k,
        e * (h + k),
    )
    return {"forward": forward, "backward": backward}


def reciprocal_work(crystals: list[tuple[int, int]], heads: int, head_dim: int, item: int = 4) -> dict[str, Work]:
    """Work of the forward and the backward pass in reciprocal space, for (atoms, waves) of each crystal."""
    atoms, waves = (sum(sizes) for sizes in zip(*crystals, strict=True))
    pairs = sum(n * n for n, _ in crystals)
    products = sum(2 * n * n * heads * m for n, m in crystals)
    around = sum(n * m * (2 + heads) for n, m in crystals) + 2 * pairs * heads
    tokens, rows = atoms * heads * head_dim * item, atoms * heads * item
    places = 3 * (atoms + waves) * item
    return {
        "forward": Work(4 * tokens + 2 * rows + places, products + 4 * pairs * heads * head_dim, around),
        "backward": Work(8 * tokens + 4 * rows + places, 2 * products + 10 * pairs * heads * head_dim, around),
    }


def measured_rates(device: str, quick: bool = False) -> Rates:
    """Copy bandwidth, matmul rate and exp rate of this machine."""
    size = (2**22 if quick else 2**24) * (8 if device == "cuda" else 1)
    side = 256 if quick else 8192 if device == "cuda" else 1024
    source, target = torch.rand(size, device=device), torch.empty(size, device=device)
    left, right = torch.rand(side, side, device=device), torch.rand(side, side, device=device)
    exp, exps = exponentials(device)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if device == "cuda" else "highest")
    functions = {
        "copy": lambda: target.copy_(source),
        "matmul": lambda: left @ right,
        "exp": exp,
    }
    timings = measure(functions, device, rounds=3 if quick else 15)
    torch.set_float32_matmul_precision(before)
    seconds = {name: min(timing.seconds) for name, timing in timings.items()}
    return Rates(8.0 * size / seconds["copy"], 2.0 * side**3 / seconds["matmul"], exps / seconds["exp"])


def exponentials(device: str) -> tuple[Callable[[], Any], int]:
    """A function that does little but exponentials, and how many."""
    if device == "cuda" and importlib.util.find_spec("triton") is not None:
        from exponential_kernel import REPEATS, run

        values = torch.rand(2**22, device=device)
        return lambda: run(values), values.numel() * REPEATS
    values = torch.rand(2**14, device=device)
    out = torch.empty_like(values)
    return lambda: torch.exp(values, out=out), values.numel()
