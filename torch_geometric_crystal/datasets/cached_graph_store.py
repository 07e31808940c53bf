"""The graph store of a source in the cache folder, made when it is first asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch_geometric.data import Data

from torch_geometric_crystal.datasets.cache import cache_path, default_cache_folder
from torch_geometric_crystal.datasets.file_lock import holding_lock
from torch_geometric_crystal.datasets.graph_store import OnDiskCrystals, is_graph_store
from torch_geometric_crystal.datasets.source import Source
from torch_geometric_crystal.datasets.write_graph_store import graph_store_key, write_graph_store


def cached_graph_store(
    source: Source,
    transform: Callable[[Data], Data] | None = None,
    root: str | Path | None = None,
    num_workers: int | None = None,
    progress: bool = True,
    on_error: str = "raise",
) -> OnDiskCrystals:
    """Open a source's graph store in the cache, as `CrystalDataset` does with data that fit into memory.

    Its name holds a hash of the source's content, of the transform and of the library's version. Processes that start
    at once wait for the one that writes; what an interrupted one has written is kept.

    Args:
        source: Where the crystals come from, see `open_source`.
        transform: Makes the graphs; for a model, ``model.neighborhood()``.
        root: Folder of the cache. Default: ``~/.cache/torch_geometric_crystal``.
        num_workers: Processes that parse and make graphs; as in `CrystalDataset`.
        progress: Whether to show a progress bar (on a terminal only).
        on_error: ``"raise"`` at the first invalid structure, or ``"skip"`` them and list them in the store's `errors`.

    Raises:
        InvalidStructureError: at the first structure that cannot be used, if `on_error` is ``"raise"``.
        OSError: if a file cannot be written, for want of room, say.
    """
    cache = default_cache_folder() if root is None else Path(root).expanduser()
    folder = cache_path(cache, source.name, graph_store_key(source, transform)).with_suffix("")
    if not is_graph_store(folder):
        lock = folder.with_name(f"{folder.name}.lock")  # waits, where the writer's own refuses
        with holding_lock(lock):
            if not is_graph_store(folder):
                settings: dict[str, Any] = {"num_workers": num_workers, "progress": progress, "on_error": on_error}
                write_graph_store(source, folder, transform, **settings)
    return OnDiskCrystals(folder)
