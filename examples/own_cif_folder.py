"""Train and predict on a folder of CIF files.

The folder has CIF files and ``id_prop.csv`` with a line ``id,value`` for each: the layout of CGCNN and ALIGNN.
Without ``--folder`` it is the one in examples/data: 24 binary compounds and their formation energies, eV/atom. One sees
the files read (those that cannot be are listed and left out), a small model trained on most of them, and a table of
what it says about the rest. 20 crystals teach a model little; put in a folder of your own.

    python examples/own_cif_folder.py
    python examples/own_cif_folder.py --folder my_crystals
"""

import argparse
from pathlib import Path

import torch
from torch_geometric.loader import DataLoader

from torch_geometric_crystal.datasets import CrystalDataset
from torch_geometric_crystal.nn import Crystalformer

FOLDER = Path(__file__).parent / "data" / "binary_crystals"


def train(model: Crystalformer, loader: DataLoader, epochs: int) -> None:
    """Fit the model with the L1 loss on standardised targets."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    model.train()
    for epoch in range(1, epochs + 1):
        total = 0.0
        for batch in loader:
            optimizer.zero_grad()
            loss = ((model(batch) - batch.y) / model.normalization.std).abs().mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += loss.item() * batch.num_graphs
        if epoch % max(epochs // 5, 1) == 0:
            print(f"epoch {epoch:3d}: training error {total / len(loader.dataset):.3f} standard deviations")


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small model, 10 epochs")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    epochs = 10 if arguments.quick else arguments.epochs

    model = Crystalformer(channels=32, num_blocks=2, num_heads=4, num_basis=16)
    dataset = CrystalDataset(arguments.folder, pre_transform=model.neighborhood(tol=1e-2), on_error="skip")
    print(f"{len(dataset)} crystals read from {arguments.folder.name}, target {', '.join(dataset.target_names)}")
    for structure_id, fault in dataset.errors:
        print(f"left out: {structure_id}: {fault}")

    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(arguments.seed)).tolist()
    held_out = max(len(dataset) // 6, 1)
    test, train_set = [dataset[i] for i in order[:held_out]], [dataset[i] for i in order[held_out:]]
    model.normalization.fit(torch.cat([data.y for data in train_set]))
    train(model, DataLoader(train_set, batch_size=8, shuffle=True), epochs)

    model.eval()
    print("\nid              target  prediction")
    with torch.no_grad():
        for batch in DataLoader(test, batch_size=8):
            for name, target, value in zip(batch.structure_id, batch.y[:, 0], model(batch)[:, 0], strict=True):
                print(f"{name:14s} {target:7.3f}  {value:10.3f}")


if __name__ == "__main__":
    main()
