"""What the bundled data sets share: the file, its checksum, targets, units, citation and split."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch

from torch_geometric_crystal.checks import check_argument
from torch_geometric_crystal.datasets.crystal_dataset import CrystalDataset
from torch_geometric_crystal.datasets.fingerprint import hash_file
from torch_geometric_crystal.datasets.readers.matbench_json import MatbenchSource
from torch_geometric_crystal.datasets.source import as_names

FILES = Path(__file__).parent / "files"


class CorruptFileError(OSError):
    """A bundled file is not the one that was published."""


class BundledDataset(CrystalDataset):
    """A data set whose file is part of the package. Subclasses state the file and what is in it.

    Args:
        target: Target, or targets, to use. Default: all of `units`, in that order.
        root, transform, pre_transform, pre_filter, num_workers, dtype, cache, force_reload, log: As `CrystalDataset`.

    Attributes:
        units: Unit of each target.
        citation: What to cite.
        split_sizes: Sizes of the parts of `split`.

    Raises:
        CorruptFileError: if the file's SHA-256 is not the published one.
        ValueError: if a target is not one of `units`.
    """

    file_name: ClassVar[str]
    sha256: ClassVar[str]
    units: ClassVar[Mapping[str, str]]
    citation: ClassVar[str]
    split_sizes: ClassVar[Mapping[str, int]]
    task: ClassVar[str | None] = None

    def __init__(
        self,
        root: str | Path | None = None,
        target: str | Sequence[str] | None = None,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        num_workers: int | None = None,
        dtype: torch.dtype = torch.float32,
        cache: bool = True,
        force_reload: bool = False,
        log: bool = True,
    ):
        available = tuple(self.units)
        names = as_names(target) or available
        check_argument(set(names) <= set(available), "target", f"some of {available}", target)
        source = MatbenchSource(verified_file(FILES / self.file_name, self.sha256), names, task=self.task)
        super().__init__(
            source,
            root,
            transform=transform,
            pre_transform=pre_transform,
            pre_filter=pre_filter,
            num_workers=num_workers,
            dtype=dtype,
            cache=cache,
            force_reload=force_reload,
            log=log,
        )

    def split(self) -> dict[str, list[int]]:
        """Indices of the parts ``train``, ``val`` and ``test`` (see `split_by_hash`).

        Raises:
            ValueError: if crystals are missing, because of `pre_filter` or because this is a part of the data set.
        """
        return split_by_hash(self.structure_ids, self.split_sizes)


def split_by_hash(structure_ids: Sequence[str], sizes: Mapping[str, int]) -> dict[str, list[int]]:
    """Cut ids, sorted by the hexadecimal SHA-1 of their text, into parts of stated sizes.

    Args:
        structure_ids: Ids; their order does not matter to which part each falls in.
        sizes: Size of each part, in the order of cutting.

    Returns:
        Positions in `structure_ids` for each part, in the order of the hashes.

    Raises:
        ValueError: if the sizes do not add up to the number of ids.
    """
    total = sum(sizes.values())
    check_argument(len(structure_ids) == total, "structure_ids", f"all {total} structures", len(structure_ids))
    order = sorted(range(total), key=lambda k: hashlib.sha1(structure_ids[k].encode()).hexdigest())
    parts = {}
    first = 0
    for name, size in sizes.items():
        parts[name] = order[first : first + size]
        first += size
    return parts


def verified_file(path: Path, sha256: str) -> Path:
    """`path`, if its content has the given SHA-256.

    Raises:
        CorruptFileError: if it is not there or differs.
    """
    if not path.is_file():
        raise CorruptFileError(f"{path} is missing. Install torch_geometric_crystal again")
    found = hash_file(path)
    if found != sha256:
        raise CorruptFileError(
            f"{path} is damaged: its SHA-256 is {found}, not {sha256}. Install torch_geometric_crystal again"
        )
    return path
