import errno
import os
import resource
import signal
import stat

import numpy as np
import pytest
import torch

from torch_geometric_crystal.datasets import atomic_write
from torch_geometric_crystal.datasets.atomic_write import remove_leftovers


def test_the_new_content_replaces_the_old(tmp_path):
    path = tmp_path / "folder" / "file"
    for content in (b"old", b"new"):
        with atomic_write(path) as file:
            file.write(content)
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["file"]


def test_readers_see_the_old_file_until_the_block_ends(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_an_error_in_the_block_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail_halfway():
        with atomic_write(path) as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_halfway()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_file_gets_the_usual_permissions(tmp_path):
    with atomic_write(tmp_path / "file") as file:
        file.write(b"x")
    (tmp_path / "other").write_bytes(b"x")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


SAVERS = {
    "torch": lambda file: torch.save({"x": torch.zeros(300_000)}, file),
    "numpy": lambda file: np.savez(file, x=np.zeros(300_000)),
    "bytes": lambda file: file.write(bytes(1_000_000)),
}


@pytest.mark.parametrize("saver", SAVERS)
def test_a_file_larger_than_allowed_raises_oserror_and_leaves_the_old_one(tmp_path, saver):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught, atomic_write(path) as file:
            SAVERS[saver](file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_found_at_the_flush_to_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), atomic_write(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_leftovers_of_killed_writers_are_removed_and_other_files_are_not(tmp_path):
    kept = ["file", "file.tmp", ".other.abc.tmp", ".file.notes"]
    for name in [*kept, ".file.abc.tmp"]:
        (tmp_path / name).write_bytes(b"x")
    remove_leftovers(tmp_path / "file")
    assert sorted(os.listdir(tmp_path)) == sorted(kept)
