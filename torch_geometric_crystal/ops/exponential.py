"""The exponential, kept above the smallest normal number."""

import torch
from torch import Tensor


def floored_exp_(exponent: Tensor) -> Tensor:
    """exp(x), in place, for x above -80 (-700 in float64), else that constant: 1.8e-35 (1e-304), nothing beside one.

    Vectorised exponentials on the CPU take a path about ten times slower wherever the result underflows, and most
    Gaussians far from their centre do.
    """
    return exponent.clamp_(min=-700.0 if exponent.dtype == torch.float64 else -80.0).exp_()
