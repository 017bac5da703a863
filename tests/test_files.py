"""Atomic writes."""

import pytest
from etils import epath

from contextssl_jax.storage.files import write_atomic


def test_failed_write_keeps_the_old_content(tmp_path):
    file = epath.Path(tmp_path / "note.json")
    write_atomic(file, "old")
    write_atomic(file, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["note.json"]
    (tmp_path / "note.json.new").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomic(file, "newer")
    assert file.read_text() == "new"
