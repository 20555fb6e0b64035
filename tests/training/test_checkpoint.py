"""Checkpoints are whole or not there."""

import os
import subprocess
import sys

import mxnet as mx
import numpy as np
import pytest

from gan_kd.errors import RunError, UsageError
from gan_kd.gluon.arrays import set_values, stripped
from gan_kd.training import checkpoint


def arrays(value):
    return {
        "detector/weight": mx.nd.full((3, 2), value),
        "optimiser/0.count": mx.nd.array([value], dtype="int64"),
    }


ORIGIN = {"recipe": "abc", "mxnet": mx.__version__, "classes": ["cat", "dog"]}


def save(folder, number, keep=3, **state):
    state = {"progress": {"epoch": number}, "origin": ORIGIN, **state}
    return checkpoint.save(folder, f"{number:04d}-stage", arrays(number), state, keep)


def load(folder):
    return checkpoint.load_last(folder, ORIGIN)


def test_the_newest_comes_back(tmp_path):
    for number in (1, 2):
        save(tmp_path, number)
    loaded, state = load(tmp_path)
    assert state["progress"] == {"epoch": 2}
    assert loaded["optimiser/0.count"].dtype == np.int64
    np.testing.assert_array_equal(loaded["detector/weight"].asnumpy(), np.full((3, 2), 2))


def test_only_the_last_n_are_kept(tmp_path):
    for number in range(5):
        save(tmp_path, number, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0003-stage", "0004-stage"]


def test_none_where_nothing_was_saved(tmp_path):
    assert load(tmp_path) is None
    assert load(tmp_path / "absent") is None


@pytest.mark.parametrize("harm", ["flip a bit", "cut the arrays", "cut the state", "drop the arrays"])
def test_a_damaged_one_is_passed_over(tmp_path, harm, caplog):
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    target = path / ("state.json" if harm == "cut the state" else "arrays.params")
    content = bytearray(target.read_bytes())
    if harm == "flip a bit":
        content[-5] ^= 1
        target.write_bytes(content)
    elif harm == "drop the arrays":
        target.unlink()
    else:
        target.write_bytes(content[: len(content) // 2])
    _, state = load(tmp_path)
    assert state["progress"] == {"epoch": 1}
    assert "is damaged" in caplog.text


def test_a_half_written_folder_is_not_a_checkpoint(tmp_path):
    save(tmp_path, 1)
    (tmp_path / ".0002-stage.77").mkdir()
    assert load(tmp_path)[1]["progress"] == {"epoch": 1}


def test_a_full_disk_is_one_sentence_and_the_old_checkpoint_stays(tmp_path):
    """A limit on the size of files stands in for the disk: the write fails at the same place, with the same calls."""
    save(tmp_path, 1)
    program = f"""
import resource, signal, sys
sys.path.insert(0, {os.getcwd()!r})
from gan_kd import compat
import mxnet as mx
from pathlib import Path
from gan_kd.training import checkpoint
from gan_kd.gluon.arrays import set_values, stripped
from gan_kd.errors import RunError, UsageError
big = {{"detector/weight": mx.nd.ones((1000, 1000))}}
big["detector/weight"].wait_to_read()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoint.save(Path({str(tmp_path)!r}), "0002-stage", big, {{"progress": {{}}}}, 3)
except RunError as error:
    print("RunError:", error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.startswith("RunError: cannot save"), done.stderr
    assert "--resume" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["0001-stage"]
    assert load(tmp_path)[1]["progress"] == {"epoch": 1}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="cannot save"):
        save(tmp_path, 1)


@pytest.mark.parametrize(
    "other, message",
    [
        ({"recipe": "def"}, "saved with the recipe with the hash abc, but here it is def: put the checkpoints"),
        ({"mxnet": "2.0.0"}, f"saved with MXNet {mx.__version__}, but here it is 2.0.0: install that version"),
        ({"classes": ["dog", "cat"]}, "saved with the classes cat, dog, but here it is dog, cat: restore the data's"),
    ],
)
def test_one_of_another_origin_is_refused(tmp_path, other, message):
    save(tmp_path, 1)
    with pytest.raises(UsageError, match=f"0001-stage was {message}"):
        checkpoint.load_last(tmp_path, {**ORIGIN, **other})


def test_one_that_is_older_than_the_note_of_its_origin_is_taken(tmp_path):
    state = {"progress": {"epoch": 1}}
    checkpoint.save(tmp_path, "0001-stage", arrays(1), state, 3)
    assert load(tmp_path)[1]["progress"] == {"epoch": 1}


def test_a_damaged_one_makes_room_for_the_run_that_goes_on_before_it(tmp_path):
    """Kept for its later name, it would have the new ones deleted at once."""
    (save(tmp_path, 5) / "arrays.params").unlink()
    save(tmp_path, 2, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["0002-stage"]
    assert load(tmp_path)[1]["progress"] == {"epoch": 2}


@pytest.mark.parametrize("text", ["[]", "7", "null", '{"sha256": 5}', "[" * 100_000])
def test_a_state_of_another_kind_is_passed_over(tmp_path, text):
    save(tmp_path, 1)
    (save(tmp_path, 2) / "state.json").write_text(text)
    assert load(tmp_path)[1]["progress"] == {"epoch": 1}


def test_a_checkpoint_of_another_run_is_refused_in_a_sentence(tmp_path):
    save(tmp_path, 1)
    loaded, state = load(tmp_path)
    other = mx.gluon.Parameter("weight", shape=(5, 5))
    other.initialize()
    for part, named in (("detector", "weight"), ("detector", "bias"), ("bridge", "weight")):
        with pytest.raises(UsageError, match="the newest checkpoint is not of this run"), checkpoint.fitting(tmp_path):
            set_values({named: other}, stripped(part, loaded))
    with pytest.raises(UsageError, match="KeyError: 'batch'"), checkpoint.fitting(tmp_path):
        state["batch"]


def test_one_that_moves_on_keeps_its_arrays(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    moved = checkpoint.move_on(tmp_path, "0003-stage", {"progress": {"epoch": 3}, "origin": ORIGIN})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0001-stage", moved.name]
    loaded, state = load(tmp_path)
    assert state["progress"] == {"epoch": 3}
    np.testing.assert_array_equal(loaded["detector/weight"].asnumpy(), np.full((3, 2), 2))


def test_one_between_the_two_steps_of_moving_on_is_whole(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "move_folder", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.move_on(tmp_path, "0002-stage", {"progress": {"epoch": 2}, "origin": ORIGIN})
    assert load(tmp_path)[1]["progress"] == {"epoch": 2}
