"""Pooled features of crystals as a file that other programs read: .npz or .parquet."""

from pathlib import Path
from typing import Any

import numpy as np

from torch_geometric_crystal.benchmark.checkpoint import ModelCard
from torch_geometric_crystal.benchmark.prediction import Predictions
from torch_geometric_crystal.benchmark.recording import column_names
from torch_geometric_crystal.checks import MissingDependencyError
from torch_geometric_crystal.datasets.atomic_write import atomic_write

SUFFIXES = (".npz", ".parquet")


def check_embedding_path(path: str | Path) -> None:
    """Raise unless features can be written to `path`, before they are computed.

    Raises:
        ValueError: if its name ends otherwise than in .npz or .parquet.
        MissingDependencyError: for .parquet without pandas and pyarrow.
    """
    suffix = Path(path).suffix
    if suffix not in SUFFIXES:
        raise ValueError(f"output: expected a name that ends in .npz or .parquet, received {str(path)!r}")
    if suffix == ".parquet":
        _pandas()


def write_embedding(path: str | Path, predictions: Predictions, card: ModelCard) -> None:
    """Write ids, pooled features and predictions, atomically.

    An .npz file has the arrays ids (n), embedding (n, C) and prediction (n, T); a .parquet file a row for each crystal,
    with the columns id, prediction (or prediction_<name>, probability_<class>) and embedding_0 to embedding_<C - 1>.

    Args:
        path: the file.
        predictions: with the embedding.
        card: of the model.

    Raises:
        ValueError: if the file's name ends otherwise, or there is no embedding.
        MissingDependencyError: for .parquet without pandas and pyarrow.
    """
    check_embedding_path(path)
    if predictions.embedding is None:
        raise ValueError("predictions: expected those with an embedding; predict with embedding=True")
    embedding, values = predictions.embedding.numpy(), predictions.prediction.numpy()
    if Path(path).suffix == ".npz":
        ids = np.array(predictions.ids, dtype=np.str_)
        with atomic_write(path) as file:
            np.savez(file, ids=ids, embedding=embedding, prediction=values)
        return
    names = [f"probability_{name}" for name in card.classes] or column_names(card.target_names)[1]
    columns = {"id": predictions.ids} | dict(zip(names, values.T, strict=True))
    columns |= {f"embedding_{index}": column for index, column in enumerate(embedding.T)}
    table = _pandas().DataFrame(columns)
    with atomic_write(path) as file:
        table.to_parquet(file, engine="pyarrow", index=False)


def _pandas() -> Any:
    try:
        import pandas
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(error.name or "pyarrow", "parquet") from error
    return pandas
