"""The authors' checkpoints (omron-sinicx/crystalformer): their names of settings and weights, translated."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torch_geometric_crystal.checks import check_argument

_DOMAINS = {"real": "real", "reci": "reciprocal", "multihead": "multihead"}
_EMBEDDING = "input_embeddings.weight"


def load_official_checkpoint(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read a state dict, or the one inside a Lightning checkpoint, without running anything that the file contains.

    Raises:
        ValueError: if the file holds no such state dict, or more than tensors and plain values.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(
            f"{os.fspath(path)!r}: expected a checkpoint of tensors and plain values, received a file that is "
            f"damaged or holds other objects, which are never executed. Save its state_dict alone with torch.save"
        ) from error
    if isinstance(content, Mapping) and "state_dict" in content:
        content = content["state_dict"]
    check_argument(
        isinstance(content, Mapping) and all(isinstance(value, Tensor) for value in content.values()),
        "checkpoint", "a state dict of tensors", type(content).__name__,
    )  # fmt: skip
    return dict(content)


def translate_official(
    state_dict: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Constructor arguments and state dict of our Crystalformer. Keys may share a prefix such as ``model.``.

    Raises:
        ValueError: if a setting is not supported, or weights are missing or left over.
    """
    arguments = _arguments(config)
    prefixes = [key[: -len(_EMBEDDING)] for key in state_dict if key.endswith(_EMBEDDING)]
    check_argument(len(prefixes) > 0, "state_dict", f"a key ending in {_EMBEDDING}", sorted(state_dict)[:3])
    prefix = min(prefixes, key=len)
    official = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
    arguments["num_elements"] = official[_EMBEDDING].size(1)
    arguments["num_targets"] = official["mlp.3.bias"].numel() if "mlp.3.bias" in official else 1

    weights = _Reader(official)
    ours = {
        "embedding.weight": weights.take(_EMBEDDING).T,
        "head.hidden.weight": weights.take("mlp.0.weight"),
        "head.hidden.bias": weights.take("mlp.0.bias"),
        "head.out.weight": weights.take("mlp.3.weight"),
        "head.out.bias": weights.take("mlp.3.bias"),
        "normalization.mean": torch.zeros(arguments["num_targets"]),
        "normalization.std": torch.ones(arguments["num_targets"]),
    }
    for index, domain in enumerate(arguments["domain"]):
        block = _block(weights, f"encoder.layers.{index}.", domain, arguments["num_heads"], arguments["num_basis"])
        ours |= {f"blocks.{index}.{name}": value for name, value in block.items()}
    check_argument(not weights.left(), "state_dict", "no keys beyond the model's", weights.left()[:5])
    return arguments, ours


def _arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    num_blocks, r0 = int(config["num_layers"]), float(config["scale_real"])
    width_scale = float(config.get("value_pe_width_scale", 1.0))
    check_argument(width_scale == 1.0, "config['value_pe_width_scale']", "1.0", width_scale)
    dims = list(config["embedding_dim"])
    check_argument(len(dims) == 1, "config['embedding_dim']", "one hidden size", dims)
    basis_range = float(config.get("value_pe_dist_max", -10.0))
    return {
        "channels": int(config["model_dim"]),
        "num_blocks": num_blocks,
        "num_heads": int(config["head_num"]),
        "num_basis": int(config.get("value_pe_dist_real", 0)),
        "domain": _block_domains(config, num_blocks),
        "feedforward_channels": int(config["ff_dim"]),
        "head_channels": int(dims[0]),
        "r0": r0,
        "r0_reciprocal": float(config.get("scale_reci", 2.2)),
        "rho_min": float(config.get("gauss_lb_real", 0.5)),
        "rho_min_reciprocal": float(config.get("gauss_lb_reci", 0.5)),
        "basis_range": -basis_range * r0 if basis_range < 0 else basis_range,
        "elu_beta": float(config.get("elu_beta", 0.1)),
        "reciprocal_floor": float(config.get("reci_clamp", 1e-6)),
    }


def _block_domains(config: Mapping[str, Any], num_blocks: int) -> list[str]:
    """From `layer_domain`, or from `domain`, whose parts joined by a hyphen take turns."""
    names = config.get("layer_domain")
    if names is None:
        turns = str(config["domain"]).split("-")
        names = [turns[index % len(turns)] for index in range(num_blocks)]
    unknown = sorted(set(names) - set(_DOMAINS))
    check_argument(not unknown, "config['layer_domain']", f"names among {sorted(_DOMAINS)}", unknown)
    check_argument(len(names) == num_blocks, "config['layer_domain']", f"{num_blocks} names", list(names))
    return [_DOMAINS[name] for name in names]


def _block(weights: "_Reader", prefix: str, domain: str, num_heads: int, num_basis: int) -> dict[str, Tensor]:
    attention = prefix + "self_attn."
    block = {
        "attention.qkv.weight": torch.cat([weights.take(f"{attention}{name}_proj_weight") for name in "qkv"]),
        "attention.qkv.bias": weights.take(attention + "in_proj_bias"),
        "attention.decay.weight": weights.take(attention + "lattice_pos_weights").view(num_heads, -1),
        "attention.decay.statistics": weights.take(attention + "gauss_scale"),
        "attention.out.weight": weights.take(attention + "out_proj.weight"),
        "attention.out.bias": weights.take(attention + "out_proj.bias"),
        "expand.weight": weights.take(prefix + "linear1.weight"),
        "expand.bias": weights.take(prefix + "linear1.bias"),
        "contract.weight": weights.take(prefix + "linear2.weight"),
        "contract.bias": weights.take(prefix + "linear2.bias"),
    }
    if num_basis and domain != "reciprocal":
        encoding = weights.take(attention + "pe_dist_proj").squeeze(0)  # (H, d, K); reciprocal heads do not use theirs
        block["attention.value_encoding"] = encoding[: num_heads // 2] if domain == "multihead" else encoding
    else:
        weights.drop(attention + "pe_dist_proj")
    weights.drop_if_zero(attention + "atten_scale")  # the code keeps it, and leaves it unused and at zero
    return block


class _Reader:
    """A state dict that knows which of its weights were taken."""

    def __init__(self, weights: dict[str, Tensor]):
        self._weights = dict(weights)

    def take(self, key: str) -> Tensor:
        check_argument(key in self._weights, "state_dict", f"the key {key!r}", "none")
        return self._weights.pop(key).detach()

    def drop_if_zero(self, key: str) -> None:
        """Leave out a weight that changes nothing at zero, where there is one."""
        weight = self._weights.pop(key, None)
        check_argument(weight is None or not bool(weight.any()), "state_dict", f"zeros in {key!r}", "other values")

    def drop(self, key: str) -> None:
        self._weights.pop(key, None)

    def left(self) -> list[str]:
        return sorted(self._weights)
