"""The attention layer inside an ordinary PyTorch Geometric model.

A model in which PyG's own ``CGConv`` looks at the nearest neighbours and ``PeriodicInfiniteAttention`` at all periodic
images at once; both take (x, edge_index, ...) and give x. One sees its error on crystals that it was not trained on
fall below that of answering with the mean.

    python examples/mix_into_pyg_model.py
"""

import argparse

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import CGConv, global_mean_pool

from torch_geometric_crystal.datasets import FLLA2015
from torch_geometric_crystal.nn import PeriodicInfiniteAttention
from torch_geometric_crystal.transforms import InfiniteNeighborhood

NEAR = 4.0  # A: reach of CGConv


class LocalAndInfinite(nn.Module):
    """Convolution over near neighbours, then attention over all images, as often as there are blocks."""

    def __init__(self, channels: int = 64, num_blocks: int = 2, num_gaussians: int = 16):
        super().__init__()
        self.embedding = nn.Embedding(119, channels)
        self.centers = nn.Buffer(torch.linspace(0.0, NEAR, num_gaussians))
        self.local = nn.ModuleList(CGConv(channels, num_gaussians, aggr="mean") for _ in range(num_blocks))
        self.infinite = nn.ModuleList(PeriodicInfiniteAttention(channels, channels) for _ in range(num_blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(num_blocks))
        self.head = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, 1))

    def forward(self, data: Data) -> Tensor:
        """Standardised target of each crystal, shape (B, 1)."""
        near = (data.edge_dist > 0) & (data.edge_dist < NEAR)
        near_index = data.edge_index[:, near]
        near_attr = torch.exp(-((data.edge_dist[near, None] - self.centers) ** 2) * 4)
        x = self.embedding(data.z)
        for local, infinite, norm in zip(self.local, self.infinite, self.norms, strict=True):
            x = local(x, near_index, near_attr)
            x = x + infinite(norm(x), data.edge_index, data.edge_dist)
        return self.head(global_mean_pool(x, data.batch))


def mean_absolute_error(model: nn.Module, loader: DataLoader, mean: Tensor, std: Tensor) -> float:
    """In the units of the target."""
    model.eval()
    with torch.no_grad():
        errors = [(model(batch) * std + mean - batch.y[:, :1]).abs() for batch in loader]
    return float(torch.cat(errors).mean())


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 crystals and 3 epochs")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    num_train, num_test, epochs = (200, 50, 3) if arguments.quick else (2000, 500, 20)

    dataset = FLLA2015()
    split = dataset.split()
    add_graph = InfiniteNeighborhood(tol=1e-2)
    train = [add_graph(dataset[i]) for i in split["train"][:num_train]]
    test = [add_graph(dataset[i]) for i in split["test"][:num_test]]
    y = torch.cat([data.y[:, :1] for data in train])
    mean, std = y.mean(), y.std()

    model = LocalAndInfinite()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loader, test_loader = DataLoader(train, batch_size=32, shuffle=True), DataLoader(test, batch_size=32)
    guess = torch.cat([(data.y[:, :1] - mean).abs() for data in test]).mean()
    print(f"formation energy, eV/atom: mean absolute error on {len(test)} test crystals")
    print(f"the mean: {guess:.3f}")
    for epoch in range(1, epochs + 1):
        model.train()
        for batch in loader:
            optimizer.zero_grad()
            loss = (model(batch) - (batch.y[:, :1] - mean) / std).abs().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        print(f"epoch {epoch:2d}: {mean_absolute_error(model, test_loader, mean, std):.3f}")


if __name__ == "__main__":
    main()
