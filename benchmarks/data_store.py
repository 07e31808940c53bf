"""Training from a graph store on the disk against training from memory, and the store against PyG's database of rows.

    python benchmarks/data_store.py                       elastic_2015, all three models
    python benchmarks/data_store.py --quick
    python benchmarks/data_store.py --models cgcnn --rounds 9

An epoch of training (batches made, loss, backward pass, optimiser step) from a list in memory, from the store, from the
store with a worker that reads ahead, and reading alone, from both and from PyG's OnDiskDataset (SQLite, a column of
bytes for each tensor). All take turns in each round; the ratio is the median over rounds of the quotient within a
round. Items are compared to the bit before anything is timed. Writes results/data_store.json.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from command_line import digits, show
from provenance import record
from timing import measure, median_ratio
from torch_geometric.data import Data, OnDiskDataset

from torch_geometric_crystal.benchmark.batching import crystal_loader
from torch_geometric_crystal.benchmark.checkpoint import build_model
from torch_geometric_crystal.datasets import (
    CompactStore,
    CrystalDataset,
    Elastic2015,
    OnDiskCrystals,
    write_compact_store,
    write_graph_store,
)

BATCH_SIZE = 64


class RowStore(OnDiskDataset):
    """PyG's database of rows, a column of bytes for each tensor: nothing is pickled."""

    def __init__(self, root: str, example: Data):
        self.kind = type(example)
        schema = {
            name: {"dtype": value.dtype, "size": tuple(_free(example, name, value))}
            for name, value in example.to_dict().items()
            if isinstance(value, torch.Tensor)
        }
        super().__init__(root, backend="sqlite", schema=schema)

    def serialize(self, data: Data) -> dict[str, Any]:
        """The tensors of a crystal."""
        return {name: data[name] for name in self.schema}

    def deserialize(self, data: dict[str, Any]) -> Data:
        """A crystal from its tensors."""
        return self.kind.from_dict(data)


def _free(example: Data, name: str, value: torch.Tensor) -> list[int]:
    """The size of a field, -1 along the dimension in which crystals are joined."""
    size = list(value.shape)
    size[example.__cat_dim__(name, value)] = -1
    return size


def same_to_the_bit(first: Data, second: Data) -> bool:
    """Whether two crystals have the same fields with the same bits."""
    one, other = first.to_dict(), second.to_dict()
    return set(one) == set(other) and all(
        torch.equal(value, other[name]) and value.dtype == other[name].dtype
        if isinstance(value, torch.Tensor)
        else value == other[name]
        for name, value in one.items()
    )


def epoch(model: torch.nn.Module, crystals: Sequence[Data], workers: int = 0) -> Callable[[], None]:
    """A function that trains for one epoch, always in the same order."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    loader = crystal_loader(crystals, BATCH_SIZE, shuffle=True, workers=workers)

    def train() -> None:
        model.train()
        for batch in loader:
            optimizer.zero_grad()
            (model(batch) - torch.nan_to_num(batch.y)).abs().mean().backward()
            optimizer.step()

    return train


def read(crystals: Sequence[Data]) -> Callable[[], None]:
    """A function that makes the batches of one epoch."""
    loader = crystal_loader(crystals, BATCH_SIZE, shuffle=True)
    return lambda: [None for _ in loader].clear()


def first_crystals(number: int, folder: Path) -> Path:
    """A compact store of the first `number` crystals."""
    dataset = Elastic2015(root=folder / "source", log=False)
    path = folder / "crystals.npz"
    write_compact_store(path, [dataset[index] for index in range(number)], dataset.target_names)
    return path


def compare(name: str, source: Path, rounds: int, folder: Path) -> dict[str, Any]:
    """Figures of one model's graphs of the crystals in a compact store."""
    model = build_model(name, {"num_targets": len(CompactStore(source).target_names)})
    transform = model.neighborhood()  # type: ignore[operator]
    dataset = CrystalDataset(source, root=folder / "cache", pre_transform=transform, log=False)
    number = len(dataset)
    start = time.perf_counter()
    write_graph_store(source, folder / name, transform, dataset.target_names, progress=False)
    written = time.perf_counter() - start
    in_memory = [dataset[index] for index in range(number)]
    on_disk: Any = OnDiskCrystals(folder / name)
    same = all(same_to_the_bit(first, second) for first, second in zip(in_memory, on_disk, strict=True))
    if not same:
        raise RuntimeError(f"{name}: the store's crystals are not those in memory")
    rows: Any = RowStore(str(folder / f"{name}-rows"), in_memory[0])
    rows.extend(in_memory)
    size = sum(path.stat().st_size for path in (folder / name).iterdir())
    model(next(iter(crystal_loader(in_memory, 2))))
    epochs = {"memory": epoch(model, in_memory), "store": epoch(model, on_disk), "worker": epoch(model, on_disk, 1)}
    training = measure(epochs, "cpu", rounds, budget=600.0)
    reading = measure(
        {"memory": read(in_memory), "store": read(on_disk), "rows": read(rows)}, "cpu", rounds, budget=60.0
    )
    microseconds = {f"read_{key}_us": digits(1e6 * t.processor_median / number) for key, t in reading.items()}
    return {
        "model": name,
        "crystals": number,
        "edges_per_crystal": round(statistics.mean(c.num_edges for c in in_memory)),
        "store_MB": round(size / 1e6, 1),
        "write_s": digits(written, 3),
        "same_to_the_bit": same,
        "train_memory_s": digits(training["memory"].median),
        "train_store_s": digits(training["store"].median),
        "ratio": digits(median_ratio(training["store"], training["memory"])),
        "ratio_worker": digits(median_ratio(training["worker"], training["memory"])),
        "ratio_processor": digits(median_ratio(training["store"], training["memory"], processor=True)),
        **microseconds,
        "rounds": len(training["memory"].seconds),
    }


def main() -> None:
    """Run, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small run that only shows that everything works")
    parser.add_argument("--models", nargs="+", default=["crystalformer", "cgcnn", "alignn"])
    parser.add_argument("--number", type=int, default=1181, help="crystals of elastic_2015")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="JSON file (default: results/data_store.json)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.quick:
        options.number, options.rounds, options.models = 16, 3, ["cgcnn"]
    with tempfile.TemporaryDirectory() as folder:
        source = first_crystals(options.number, Path(folder))
        rows = [compare(name, source, options.rounds, Path(folder)) for name in options.models]
    show(rows)
    output = options.output or (Path(tempfile.gettempdir()) / "data_store.json" if options.quick else None)
    print(record("data_store", {"data": "elastic_2015", "batch_size": BATCH_SIZE, "rows": rows}, output))


if __name__ == "__main__":
    main()
