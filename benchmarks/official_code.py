"""The authors' code (github.com/omron-sinicx/crystalformer), from a checkout that the user has.

Nothing of it is kept here: their model class is imported from the checkout and called as their own scripts call it. On
CUDA it needs CuPy and pytorch-pfn-extras, for their kernels; on the CPU it runs their PyTorch path, which sums a fixed
box of images.
"""

import contextlib
import importlib
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

SETTINGS = "params/latticeformer/default.json"

VARIANT_SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "simplified": {"value_pe_dist_real": 0},
    "half_reciprocal": {"domain": "multihead"},
}

UNUSED_WEIGHTS = "self_attn.atten_scale"
"""A parameter of theirs that stays zero and unused with softmax attention."""


class UnusableCheckoutError(RuntimeError):
    """The checkout is not what is expected, or cannot run here."""


def official_settings(checkout: Path, variant: str, device: str, lattice_range: int) -> dict[str, Any]:
    """Their default settings, for a variant and a device.

    Raises:
        UnusableCheckoutError: if there are none.
    """
    path = checkout / SETTINGS
    if not path.is_file():
        raise UnusableCheckoutError(f"{checkout}: expected a clone of omron-sinicx/crystalformer, with {SETTINGS}")
    if variant == "half_reciprocal" and device == "cpu":
        raise UnusableCheckoutError(
            "half_reciprocal: their CPU path leaves the value encoding of the real heads out, so it is another model. "
            "Compare it on CUDA"
        )
    settings = json.loads(path.read_text())
    # ddp: their single-device branch, however many GPUs there are.
    settings |= {"use_cuda_code": device == "cuda", "lattice_range": lattice_range, "ddp": True}
    return settings | VARIANT_SETTINGS[variant]


def official_model(checkout: Path, settings: dict[str, Any], device: str, reproducibility: int = 0) -> nn.Module:
    """Their model with fresh weights. What it prints is dropped.

    Raises:
        UnusableCheckoutError: if its dependencies are not installed.
    """
    sys.path.insert(0, str(checkout))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            module = importlib.import_module("models.latticeformer")
            if device == "cuda" and not importlib.import_module("models.cuda_funcs").CUPY_AVAILABLE:
                raise UnusableCheckoutError("their CUDA path needs CuPy and pytorch-pfn-extras")
            importlib.import_module("models.global_config").REPRODUCIBLITY_STATE = reproducibility
            model = module.Latticeformer(SimpleNamespace(**settings))
    except ImportError as error:
        raise UnusableCheckoutError(f"{checkout}: {error}") from error
    finally:
        sys.path.remove(str(checkout))
    return model.to(device)


def official_batch(crystals: list[Data], device: str) -> Data:
    """Crystals in the form that their model takes."""
    rows = [
        Data(
            x=torch.nn.functional.one_hot(data.z - 1, 98).float(),
            pos=data.pos.float(),
            trans_vec=data.cell.float(),
            sizes=torch.tensor([data.num_nodes]),
        )
        for data in crystals
    ]
    return Batch.from_data_list(rows).to(device)


def initialise(model: nn.Module, batch: Data) -> None:
    """Let the model take its data-dependent statistics, as in its first training step."""
    with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        model.train()(batch)


def translatable_state(model: nn.Module) -> dict[str, Tensor]:
    """Their state dict as Crystalformer.from_official_state_dict reads it.

    Raises:
        UnusableCheckoutError: if a parameter that must be unused is not.
    """
    state = model.state_dict()
    unused = {key: value for key, value in state.items() if key.endswith(UNUSED_WEIGHTS)}
    if any(bool(value.any()) for value in unused.values()):
        raise UnusableCheckoutError(f"expected zeros in {sorted(unused)}")
    return {key: value.clone() for key, value in state.items() if key not in unused}


def translatable_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Their settings with the one length that each of their lists holds."""
    lengths = {name: settings[name] for name in ("scale_real", "scale_reci")}
    if any(isinstance(value, list) and len(value) != 1 for value in lengths.values()):
        raise UnusableCheckoutError(f"expected one length for all blocks, received {lengths}")
    return settings | {name: value[0] if isinstance(value, list) else value for name, value in lengths.items()}
