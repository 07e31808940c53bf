import gzip
import json
import zipfile

import pytest

from torch_geometric_crystal.datasets.readers.json_file import load_json, peek_json

CONTENT = [{"jid": "a"}]


@pytest.fixture(params=["plain", "gzip", "zip"])
def path(request, tmp_path):
    # The name does not matter: what is inside does.
    path = tmp_path / "file.json"
    text = json.dumps(CONTENT)
    if request.param == "plain":
        path.write_text(text)
    elif request.param == "gzip":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("inside.json", text)
            archive.writestr("readme.txt", "text")
    return path


def test_each_packing_is_read(path):
    assert load_json(path) == CONTENT
    assert peek_json(path, 5) == '[{"ji'


TRUNCATED_GZIP = gzip.compress(b"[1, 2, 3]" * 100, mtime=0)[:-20]  # without the time, workers agree on the test's name


@pytest.mark.parametrize("content", [TRUNCATED_GZIP, b'[{"jid": ', b"PK\x03\x04", b"\xff\xfe"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"file.json is not a readable JSON file"):
        load_json(tmp_path / "file.json")


def test_a_gzip_file_with_wrong_content_is_named(tmp_path):
    content = bytearray(gzip.compress(b"[1, 2, 3]"))
    content[-6] ^= 0xFF
    (tmp_path / "file.json.gz").write_bytes(bytes(content))
    with pytest.raises(ValueError, match="CRC"):
        load_json(tmp_path / "file.json.gz")


def test_an_archive_of_two_json_files_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "file.zip", "w") as archive:
        archive.writestr("a.json", "[]")
        archive.writestr("b.json", "[]")
    with pytest.raises(ValueError, match="one JSON file, found 2"):
        load_json(tmp_path / "file.zip")
