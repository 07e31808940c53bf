"""What every test gets: seeds, pictures without a screen, kernels without a GPU, and a cache not the user's."""

import errno
import os
import random

import filelock
import numpy as np
import pytest
import torch

os.environ["MPLBACKEND"] = "Agg"
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when kernels are defined: they run on the CPU, slowly


@pytest.fixture(autouse=True)
def _seeded():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (third-party code draws from the global generator)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _default_dtype_is_restored():
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)


@pytest.fixture(autouse=True, scope="session")
def _cache_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(
    params=[OSError(errno.ENOLCK, "No locks available"), NotImplementedError("no flock")], ids=["ENOLCK", "no flock"]
)
def no_locks(request, monkeypatch):
    """A file system that does not lock files."""

    def refuse(self, timeout=None):
        raise request.param

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
