"""Whether an operation runs now, or is being recorded to run later."""

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode


def is_recorded(tensor: Tensor) -> bool:
    """Whether a compiler, an exporter or a dispatch mode looks on, or a tensor is a stand-in without values.

    Then an operation has to be an operator of ``torch.library``, which is one node of the record. Where it runs at
    once it is called directly: for small batches that wrapping would cost as much as the operation.
    """
    if torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
        return True
    return tensor.is_meta or type(tensor) not in (Tensor, nn.Parameter)
