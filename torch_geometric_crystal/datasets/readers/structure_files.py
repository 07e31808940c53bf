"""Structure files by their paths, without targets."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch_geometric_crystal.datasets.fingerprint import hash_file, hash_text
from torch_geometric_crystal.datasets.readers.structure_file import crystal_from_file, structure_stem
from torch_geometric_crystal.datasets.source import Entry, Source, existing_file


class StructureFilesSource(Source):
    """CIF, POSCAR, xyz or pymatgen JSON files, one structure each, named after the file.

    Args:
        paths: The files.

    Raises:
        FileNotFoundError: if one is not there.
    """

    def __init__(self, paths: Sequence[str | Path]):
        self.paths = [existing_file(path) for path in paths]
        super().__init__(self.paths[0].name if len(self.paths) == 1 else f"{len(self.paths)} files")

    @property
    def target_names(self) -> tuple[str, ...]:
        """None: structure files have no targets."""
        return ()

    def fingerprint(self) -> str:
        """Hash of the names and contents."""
        return hash_text("files", *(part for path in self.paths for part in (path.name, hash_file(path))))

    def __iter__(self) -> Iterator[Entry]:
        for path in self.paths:
            name = path.stem if path.suffix.lower() == ".json" else structure_stem(path.name)
            yield Entry(name, None, crystal_from_file, str(path))
