"""Weights of the authors' Crystalformer, in their own format.

Their checkpoints are state dictionaries with names of their own (``encoder.layers.0.self_attn.q_proj_weight``, ...) and
a configuration of their own. As no such file comes with this library, the example first writes one: random weights
under those names. One sees it loaded from its path, with ``weights_only=True`` so that nothing in the file is executed,
and a prediction.

    python examples/load_official_checkpoint.py
    python examples/load_official_checkpoint.py --checkpoint FILE --config FILE.json
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from pymatgen.core import Lattice, Structure
from torch import Tensor
from torch_geometric.data import Batch

from torch_geometric_crystal.data import from_structure
from torch_geometric_crystal.nn import Crystalformer

CONFIG: dict[str, Any] = {
    "domain": "real",
    "num_layers": 4,
    "model_dim": 128,
    "head_num": 8,
    "ff_dim": 512,
    "embedding_dim": [128],
    "value_pe_dist_real": 64,
    "value_pe_dist_max": -10.0,
    "value_pe_width_scale": 1.0,
    "scale_real": 1.4,
    "scale_reci": 2.2,
    "gauss_lb_real": 0.5,
    "gauss_lb_reci": 0.5,
}


def official_state_dict(config: dict[str, Any], seed: int) -> dict[str, Tensor]:
    """Random weights under the names, and in the shapes, of the authors' code."""
    width, heads, hidden = config["model_dim"], config["head_num"], config["ff_dim"]
    shapes: dict[str, tuple[int, ...]] = {"input_embeddings.weight": (width, 98)}
    for layer in range(config["num_layers"]):
        block = f"encoder.layers.{layer}."
        attention = block + "self_attn."
        shapes |= {attention + f"{name}_proj_weight": (width, width) for name in "qkv"}
        shapes |= {attention + "in_proj_bias": (3 * width,), attention + "lattice_pos_weights": (width,)}
        shapes |= {attention + "pe_dist_proj": (1, heads, width // heads, config["value_pe_dist_real"])}
        shapes |= {attention + "out_proj.weight": (width, width), attention + "out_proj.bias": (width,)}
        shapes |= {block + "linear1.weight": (hidden, width), block + "linear1.bias": (hidden,)}
        shapes |= {block + "linear2.weight": (width, hidden), block + "linear2.bias": (width,)}
    last = config["embedding_dim"][0]
    shapes |= {"mlp.0.weight": (last, width), "mlp.0.bias": (last,), "mlp.3.weight": (1, last), "mlp.3.bias": (1,)}

    generator = torch.Generator().manual_seed(seed)
    state = {name: 0.05 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for layer in range(config["num_layers"]):
        state[f"encoder.layers.{layer}.self_attn.gauss_scale"] = torch.tensor([1.0, 0.0], dtype=torch.float64)
    return state


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="accepted, as in the other examples: this one is short")
    parser.add_argument("--checkpoint", type=Path, help="a state dictionary of the authors' code; default: write one")
    parser.add_argument("--config", type=Path, help="its configuration as JSON")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    config = CONFIG if arguments.config is None else json.loads(arguments.config.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.checkpoint
        if path is None:
            path = Path(folder) / "official.ckpt"
            torch.save(official_state_dict(config, arguments.seed), path)
            print(f"wrote {path.name}, {path.stat().st_size / 1e6:.1f} MB")
        model = Crystalformer.from_official_state_dict(path, config).eval()
    print(f"loaded {sum(parameter.numel() for parameter in model.parameters()):,} parameters")

    perovskite = Structure.from_spacegroup(
        "Pm-3m", Lattice.cubic(3.905), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
    )
    batch = Batch.from_data_list([model.neighborhood(tol=1e-4)(from_structure(perovskite))])
    with torch.no_grad():
        print(f"SrTiO3: {model(batch).item():.6f} (the target's own units, as trained)")


if __name__ == "__main__":
    main()
