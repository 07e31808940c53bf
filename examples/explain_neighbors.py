"""Which neighbours matter to a model, as a picture.

A small model of two ``PeriodicInfiniteAttention`` layers learns formation energies for a few epochs. Then two questions
are put to it about the titanium atom of SrTiO3. What does the last layer look at: its attention weights, summed over
each shell of equal neighbours. And what does the prediction need: the edge mask of PyG's ``GNNExplainer``, which learns
which messages can be left out without changing the answer. One sees both against distance: the atom itself at zero,
oxygen at 1.95 A, strontium at 3.38 A, and how soon images farther away cease to count.

    python examples/explain_neighbors.py --output neighbors.png
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from pymatgen.core import Element, Lattice, Structure
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.loader import DataLoader
from torch_geometric.nn import global_mean_pool

from torch_geometric_crystal.data import from_structure
from torch_geometric_crystal.datasets import FLLA2015
from torch_geometric_crystal.nn import PeriodicInfiniteAttention
from torch_geometric_crystal.transforms import InfiniteNeighborhood

SHELL = 0.01  # A: neighbours of one element whose distances differ by less are one shell
TITANIUM = 1  # its place in the cell below


class TwoLayers(nn.Module):
    """Embedding, two layers of attention, mean over the atoms, one number."""

    def __init__(self, channels: int = 32, heads: int = 4, num_basis: int = 16):
        super().__init__()
        self.embedding = nn.Embedding(119, channels)
        self.first = PeriodicInfiniteAttention(channels, channels, heads=heads, num_basis=num_basis)
        self.second = PeriodicInfiniteAttention(channels, channels, heads=heads, num_basis=num_basis)
        self.head = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, 1))

    def forward(self, x: Tensor, edge_index: Tensor, edge_dist: Tensor, batch: Tensor | None = None) -> Tensor:
        """Atomic numbers `x`, shape (N, 1), to a number for each crystal, shape (B, 1)."""
        h = self.hidden(x, edge_index, edge_dist)
        return self.head(global_mean_pool(h + self.second(h, edge_index, edge_dist), batch))

    def hidden(self, x: Tensor, edge_index: Tensor, edge_dist: Tensor) -> Tensor:
        """What the second layer sees."""
        h = self.embedding(x.squeeze(-1))
        return h + self.first(h, edge_index, edge_dist)

    def attention_weights(self, data: Data) -> Tensor:
        """Weights of the second layer, mean over heads, shape (E,)."""
        with torch.no_grad():
            h = self.hidden(data.z.unsqueeze(-1), data.edge_index, data.edge_dist)
            _, (_, weights) = self.second(h, data.edge_index, data.edge_dist, return_attention_weights=True)
        return weights.mean(-1)


def train(model: TwoLayers, crystals: list[Data], epochs: int) -> None:
    """Fit the standardised target."""
    y = torch.cat([data.y for data in crystals])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for epoch in range(1, epochs + 1):
        total = 0.0
        for batch in DataLoader(crystals, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            predicted = model(batch.z.unsqueeze(-1), batch.edge_index, batch.edge_dist, batch.batch)
            loss = (predicted - (batch.y - y.mean()) / y.std()).abs().mean()
            loss.backward()
            optimizer.step()
            total += loss.item() * batch.num_graphs
        print(f"epoch {epoch:2d}: training error {total / len(crystals):.3f} standard deviations")


def explain(model: TwoLayers, data: Data, steps: int) -> Tensor:
    """How much the prediction needs each edge, 0 to 1, shape (E,)."""
    explainer = Explainer(
        model.eval(),
        algorithm=GNNExplainer(epochs=steps),
        explanation_type="model",
        edge_mask_type="object",
        model_config={"mode": "regression", "task_level": "graph", "return_type": "raw"},
    )
    return explainer(data.z.unsqueeze(-1), data.edge_index, edge_dist=data.edge_dist).edge_mask


def shells(data: Data, atom: int, values: Tensor) -> list[tuple[str, float, int, float]]:
    """Element, distance, number of neighbours and sum of `values` for each shell around `atom`."""
    edges = (data.edge_index[1] == atom).nonzero().flatten()
    symbols = [Element.from_Z(z).symbol for z in data.z[data.edge_index[0, edges]].tolist()]
    found: dict[tuple[str, int], list[int]] = {}
    for symbol, edge in zip(symbols, edges.tolist(), strict=True):
        found.setdefault((symbol, round(float(data.edge_dist[edge]) / SHELL)), []).append(edge)
    nearest_first = sorted(found.items(), key=lambda shell: shell[0][1])
    return [(symbol, step * SHELL, len(where), float(values[where].sum())) for (symbol, step), where in nearest_first]


def draw(panels: dict[str, list[tuple[str, float, int, float]]], path: Path) -> None:
    """A stem for each shell, a panel for each question."""
    figure, axes = plt.subplots(len(panels), 1, sharex=True, figsize=(7, 6), layout="constrained")
    for axis, (title, rows) in zip(np.atleast_1d(axes), panels.items(), strict=True):
        for color, symbol in enumerate(sorted({row[0] for row in rows})):
            chosen = [row for row in rows if row[0] == symbol]
            distances, values = [row[1] for row in chosen], [row[3] for row in chosen]
            axis.vlines(distances, 0, values, color=f"C{color}", linewidth=2)
            axis.plot(distances, values, "o", color=f"C{color}", label=symbol)
        axis.set(ylabel=title, ylim=(0, None))
    np.atleast_1d(axes)[0].legend(title="around Ti in SrTiO3")
    np.atleast_1d(axes)[-1].set_xlabel("distance, A")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 crystals, 2 epochs, 50 steps of the explainer")
    parser.add_argument("--output", type=Path, default=Path("explain_neighbors.png"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    num_crystals, epochs, steps = (200, 2, 50) if arguments.quick else (3000, 10, 300)

    dataset = FLLA2015(target="formation_energy_per_atom")
    add_graph = InfiniteNeighborhood(tol=1e-2)
    model = TwoLayers()
    train(model, [add_graph(dataset[i]) for i in dataset.split()["train"][:num_crystals]], epochs)

    perovskite = Structure.from_spacegroup(
        "Pm-3m", Lattice.cubic(3.905), ["Sr", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
    )
    data = add_graph(from_structure(perovskite))
    attention = shells(data, TITANIUM, model.attention_weights(data))
    needed = shells(data, TITANIUM, explain(model, data, steps))
    mean_needed = [(symbol, distance, number, value / number) for symbol, distance, number, value in needed]

    print("\nneighbours of Ti   distance, A   share of attention   needed (0 to 1)")
    for (symbol, distance, number, share), (*_, need) in zip(attention, mean_needed, strict=True):
        if share >= 1e-3:
            print(f"{number:3d} {symbol:14s} {distance:11.2f} {share:20.3f} {need:17.3f}")
    draw({"share of attention": attention, "needed by the prediction": mean_needed}, arguments.output)
    print(f"\npicture: {arguments.output.name}")


if __name__ == "__main__":
    main()
