r"""Distance decays: shape, certificate of the tail and Fourier transform, each in one object.

All are functions of :math:`s = r / \ell`, with the length :math:`\ell = r_0 / \sqrt\rho` of an atom and head, are 1 at
s = 0, and have the Gaussian's mean square distance in three dimensions, :math:`\langle s^2 \rangle = 3`. For each,
:math:`-s \phi'(s) / \phi(s)` does not decrease, so the share beyond a cutoff grows with the length: the certificate at
the longest length holds for all (docs/experiments/decays.rst).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor
from typing_extensions import override

FloatArray = NDArray[np.float64]


class Decay(ABC):
    """A shape."""

    @abstractmethod
    def value(self, s: FloatArray) -> FloatArray:
        """The decay at reduced distances."""

    @abstractmethod
    def moments(self, s: float) -> FloatArray:
        r"""Upper bounds of :math:`\int_s^\infty x^k \phi(x) dx` for k = 0, 1, 2, exact where a closed form exists."""

    @abstractmethod
    def transform(self, k: FloatArray) -> FloatArray:
        """Fourier transform in three dimensions, at reduced wave numbers."""

    @abstractmethod
    def log_value(self, square: Tensor, shape: Tensor | None) -> Tensor:
        """Logarithm of the decay at squared reduced distances (N, H, D), differentiable; `shape` is what is learned."""

    def shape(self, heads: int) -> Tensor | None:
        """Where learning of the shape begins; None for a fixed shape."""
        return None

    def certifier(self) -> "Decay":
        """The decay whose share beyond a cutoff bounds this one's, whatever is learned."""
        return self


@dataclass(frozen=True)
class Gaussian(Decay):
    """exp(-s^2 / 2 w^2)."""

    width: float = 1.0

    @override
    def value(self, s: FloatArray) -> FloatArray:
        return np.exp(-0.5 * (np.asarray(s) / self.width) ** 2)

    @override
    def moments(self, s: float) -> FloatArray:
        w, x = self.width, s / self.width
        edge, zeroth = math.exp(-0.5 * x**2), math.sqrt(0.5 * math.pi) * math.erfc(x / math.sqrt(2.0))
        return np.array([w * zeroth, w**2 * edge, w**3 * (x * edge + zeroth)])

    @override
    def transform(self, k: FloatArray) -> FloatArray:
        return (2 * math.pi * self.width**2) ** 1.5 * np.exp(-0.5 * (self.width * np.asarray(k)) ** 2)

    @override
    def log_value(self, square: Tensor, shape: Tensor | None) -> Tensor:
        return square * (-0.5 / self.width**2)


@dataclass(frozen=True)
class Exponential(Decay):
    """exp(-kappa s)."""

    kappa: float = 2.0

    @override
    def value(self, s: FloatArray) -> FloatArray:
        return np.exp(-self.kappa * np.asarray(s))

    @override
    def moments(self, s: float) -> FloatArray:
        return exponential_moments(s, self.kappa)

    @override
    def transform(self, k: FloatArray) -> FloatArray:
        return 8 * math.pi * self.kappa / (self.kappa**2 + np.asarray(k) ** 2) ** 2

    @override
    def log_value(self, square: Tensor, shape: Tensor | None) -> Tensor:
        return _root(square) * -self.kappa


@dataclass(frozen=True)
class Yukawa(Decay):
    r"""Screened Coulomb of a smeared charge, :math:`(e^{-\kappa_1 s} - e^{-\kappa_2 s}) / (\kappa_2 - \kappa_1) s`."""

    kappa: float = math.sqrt(20 / 9)
    ratio: float = 3.0

    @property
    def kappas(self) -> tuple[float, float]:
        """The smaller and the larger one."""
        return self.kappa, self.ratio * self.kappa

    @override
    def value(self, s: FloatArray) -> FloatArray:
        difference = (self.ratio - 1) * self.kappa * np.asarray(s, dtype=np.float64)
        return np.exp(-self.kappa * np.asarray(s)) * special.exprel(-difference)

    @override
    def moments(self, s: float) -> FloatArray:
        low, high = self.kappas
        first, second = exponential_moments(s, low), exponential_moments(s, high)
        zeroth = special.exp1(low * s) - special.exp1(high * s) if s > 0 else math.log(self.ratio)
        return np.array([zeroth, first[0] - second[0], first[1] - second[1]]) / (high - low)

    @override
    def transform(self, k: FloatArray) -> FloatArray:
        low, high = self.kappas
        square = np.asarray(k) ** 2
        return 4 * math.pi / (high - low) * (1 / (square + low**2) - 1 / (square + high**2))

    @override
    def log_value(self, square: Tensor, shape: Tensor | None) -> Tensor:
        s = _root(square)
        difference = s * ((self.ratio - 1) * self.kappa)
        return s * -self.kappa + (torch.expm1(-difference) / -difference).log()


@dataclass(frozen=True)
class InversePower(Decay):
    """(1 + s^2)^-3: falls as the sixth power, as dispersion does."""

    @override
    def value(self, s: FloatArray) -> FloatArray:
        return (1 + np.asarray(s) ** 2) ** -3.0

    @override
    def moments(self, s: float) -> FloatArray:
        orders = np.arange(3)
        with np.errstate(divide="ignore"):
            beyond = np.float64(s) ** (orders - 5.0) / (5.0 - orders)
        whole = np.array([3 * math.pi / 16, 1 / 4, math.pi / 16])
        return np.minimum(beyond, whole)

    @override
    def transform(self, k: FloatArray) -> FloatArray:
        k = np.asarray(k)
        return math.pi**2 / 4 * (1 + k) * np.exp(-k)

    @override
    def log_value(self, square: Tensor, shape: Tensor | None) -> Tensor:
        return torch.log1p(square) * -3.0


@dataclass(frozen=True)
class Compact(Decay):
    """(1 - s^2 / 9)^2 within s = 3, nothing beyond."""

    support: float = 3.0

    @override
    def value(self, s: FloatArray) -> FloatArray:
        return np.maximum(1 - (np.asarray(s) / self.support) ** 2, 0.0) ** 2

    @override
    def moments(self, s: float) -> FloatArray:
        x = min(s / self.support, 1.0)
        found = [
            sum(factor * (1 - x ** (k + p + 1)) / (k + p + 1) for p, factor in ((0, 1), (2, -2), (4, 1)))
            for k in range(3)
        ]
        return np.maximum(found, 0.0) * self.support ** np.arange(1, 4)

    @override
    def transform(self, k: FloatArray) -> FloatArray:
        x = np.maximum(np.asarray(k, dtype=np.float64) * self.support, 1e-3)
        return 2 * math.pi**1.5 * self.support**3 * (2 / x) ** 3.5 * special.jv(3.5, x)

    @override
    def log_value(self, square: Tensor, shape: Tensor | None) -> Tensor:
        inside = 1 - square / self.support**2
        return torch.where(inside > 1e-6, 2 * inside.clamp(min=1e-6).log(), -torch.inf)


@dataclass(frozen=True)
class GaussianMixture(Decay):
    r"""Sum of Gaussians whose weights and widths are learned by each head, no width above `widest`.

    The odds of the part beyond a cutoff are at most the largest of the components' (mediants), and these grow with the
    width: the widest Gaussian certifies every mixture.
    """

    widest: float = math.sqrt(2.0)
    start: tuple[float, ...] = (0.4, 0.8, 1.1)

    @override
    def value(self, s: FloatArray) -> FloatArray:
        return np.mean([Gaussian(width).value(s) for width in self.start], axis=0)

    @override
    def moments(self, s: float) -> FloatArray:
        return np.mean([Gaussian(width).moments(s) for width in self.start], axis=0)

    @override
    def transform(self, k: FloatArray) -> FloatArray:
        return np.mean([Gaussian(width).transform(k) for width in self.start], axis=0)

    @override
    def log_value(self, square: Tensor, shape: Tensor | None) -> Tensor:
        if shape is None:
            raise ValueError("shape: expected weights and widths of the components, received None")
        log_weight = shape[0].log_softmax(-1)[:, None]  # (H, 1, K)
        exponent = -0.5 / (self.widest * shape[1].sigmoid()).square()[:, None]
        return (square.unsqueeze(-1) * exponent + log_weight).logsumexp(-1)

    @override
    def shape(self, heads: int) -> Tensor | None:
        share = torch.tensor(self.start) / self.widest
        return torch.stack([torch.zeros_like(share), share.logit()])[:, None].repeat(1, heads, 1)

    @override
    def certifier(self) -> Decay:
        return Gaussian(self.widest)


DECAYS: dict[str, Decay] = {
    "gaussian": Gaussian(),
    "exponential": Exponential(),
    "yukawa": Yukawa(),
    "inverse-power": InversePower(),
    "compact": Compact(),
    "mixture": GaussianMixture(),
}
"""By the name in settings and results."""


def exponential_moments(s: float, kappa: float) -> FloatArray:
    r""":math:`\int_s^\infty x^k e^{-\kappa x} dx` for k = 0, 1, 2."""
    edge = math.exp(-kappa * s)
    zeroth = edge / kappa
    first = (s * edge + zeroth) / kappa
    return np.array([zeroth, first, (s**2 * edge + 2 * first) / kappa])


def _root(square: Tensor) -> Tensor:
    """Square root with a finite derivative at the self image."""
    return (square + 1e-12).sqrt()
