"""What a killed process left half-written goes, and nothing else; what is no file is not replaced."""

import os

import pytest

from gan_kd.errors import RunError
from gan_kd.system.files import remove_unfinished, write_json


def test_unfinished_files_and_folders_are_removed(tmp_path):
    kept = [tmp_path / name for name in (".lock", "recipe.yaml", "teacher/best.params", "photo.jpg.1", ".git/x.1")]
    gone = [
        tmp_path / name for name in (".recipe.yaml.12", "teacher/.best.params.7", "checkpoints/.00-0001.34/state.json")
    ]
    for path in kept + gone:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    remove_unfinished(tmp_path)
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in gone) and not (tmp_path / "checkpoints/.00-0001.34").exists()


def test_a_pipe_or_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RunError, match="cannot save .*pipe: it is not a regular file"):
        write_json(tmp_path / "pipe", {})
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
