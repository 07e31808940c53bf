"""Train Crystalformer on a bundled data set, in a loop of one's own.

``tgcrystal train`` does this with checkpoints, pictures and every option; here are the few lines underneath. One sees
the error on the test crystals fall below that of answering with the mean of the training set.

    python examples/train_bundled.py
"""

import argparse
import time

import torch
from torch_geometric.loader import DataLoader

from torch_geometric_crystal.datasets import FLLA2015
from torch_geometric_crystal.nn import Crystalformer

TARGET = "formation_energy_per_atom"


def mean_absolute_error(model: Crystalformer, loader: DataLoader) -> float:
    """In the units of the target: the model keeps the target's mean and deviation beside its weights."""
    model.eval()
    with torch.no_grad():
        return float(torch.cat([(model(batch) - batch.y).abs() for batch in loader]).mean())


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 crystals and 3 epochs")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    epochs = 3 if arguments.quick else arguments.epochs

    dataset = FLLA2015(target=TARGET)
    split = dataset.split()
    num_train, num_test = (200, 50) if arguments.quick else (len(split["train"]), len(split["test"]))

    model = Crystalformer()
    add_graph = model.neighborhood(tol=1e-2)
    train = [add_graph(dataset[i]) for i in split["train"][:num_train]]
    test = [add_graph(dataset[i]) for i in split["test"][:num_test]]
    y = torch.cat([data.y for data in train])
    model.normalization.fit(y)

    loader = DataLoader(train, batch_size=32, shuffle=True)
    test_loader = DataLoader(test, batch_size=32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, betas=(0.9, 0.98), weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (4000 / (4000 + step)) ** 0.5)

    guess = torch.cat([(data.y - y.mean()).abs() for data in test]).mean()
    print(f"{len(train)} crystals to train on, {len(test)} to test on; mean absolute error in {dataset.units[TARGET]}")
    print(f"the mean: {guess:.3f}")
    start = time.perf_counter()
    for epoch in range(1, epochs + 1):
        model.train()
        for batch in loader:
            optimizer.zero_grad()
            wanted = model.normalization.standardize(batch.y)
            loss = (model.normalization.standardize(model(batch)) - wanted).abs().mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        error = mean_absolute_error(model, test_loader)
        print(f"epoch {epoch:3d}: {error:.3f}   ({time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main()
