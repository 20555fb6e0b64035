"""TensorBoard's event files read back: what metrics.jsonl says, and no step twice after a resume."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gan_kd.errors import RunError
from gan_kd.training.board import Board, Picture, scalars
from gan_kd.training.logs import MetricsFile

TRAIN = {
    "kind": "train", "stage": "adversarial", "trains": "distilled", "epoch": 1, "batch": 2, "step": 2, "lr": 1e-3,
    "losses": {"conf": 1.5, "critic": -0.25}, "critic_real": 0.1,
}  # fmt: skip
DIAGNOSIS = {
    "kind": "diagnosis", "stage": "adversarial", "trains": "distilled", "epoch": 1, "batch": 2, "step": 2,
    "maps": [16, 8], "critic_gap": [0.1, 70.0],
}  # fmt: skip
EVAL = {"kind": "eval", "stage": "adversarial", "trains": "distilled", "epoch": 1, "batch": 0, "step": 2, "map": 61.5,
        "ap": {"cat": 71.0, "cow": float("nan")}}  # fmt: skip


def read(folder):
    """{network: {(tag, step): value}} as TensorBoard has them: a start drops what is there from its step on.

    Of a picture, its JPEG file.
    """
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    found = {}
    for path in sorted(folder.glob("*/*tfevents*")):
        values, rest = found.setdefault(path.parent.name, {}), path.read_bytes()
        while rest:
            (length,) = struct.unpack("<Q", rest[:8])
            event, rest = Event.FromString(rest[12 : 12 + length]), rest[16 + length :]
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                for key in [key for key in values if key[1] >= event.step]:
                    del values[key]
            for value in event.summary.value:
                assert (value.tag, event.step) not in values
                picture = value.HasField("image")
                values[value.tag, event.step] = value.image.encoded_image_string if picture else value.simple_value
    return found


def read_scalars(folder):
    """The same without pictures."""
    return {
        name: {key: value for key, value in values.items() if isinstance(value, float)}
        for name, values in read(folder).items()
    }


def expected(records):
    """The same from records of metrics.jsonl; events hold float32."""
    found = {}
    for record in records:
        named = {(tag, record["step"]): float(np.float32(value)) for tag, value in scalars(record)}
        found.setdefault(record["trains"], {}).update(named)
    return found


def test_tags_and_values_of_every_kind_of_record():
    assert dict(scalars(TRAIN)) == {"lr": 1e-3, "losses/conf": 1.5, "losses/critic": -0.25, "critic_real": 0.1}
    assert dict(scalars(DIAGNOSIS)) == {"critic_gap/1_16x16": 0.1, "critic_gap/2_8x8": 70.0}
    several = {**DIAGNOSIS, "places": ["backbone", "neck"]}
    assert dict(scalars(several)) == {"critic_gap/1_backbone_16x16": 0.1, "critic_gap/2_neck_8x8": 70.0}
    assert dict(scalars(EVAL)) == {"map": 61.5, "ap/cat": 71.0}  # a class without ground truth has no AP


def test_events_are_the_lines_of_metrics_jsonl(tmp_path):
    records = [{**TRAIN, "trains": "baseline"}, TRAIN, DIAGNOSIS, EVAL, {**TRAIN, "step": 4, "lr": 5e-4}]
    metrics = MetricsFile(tmp_path / "metrics.jsonl", 0, Board(tmp_path / "tensorboard", {}))
    for record in records:
        metrics.write(record)
    # Not closed: a killed process would not close it either.
    lines = [json.loads(line) for line in metrics.path.read_text().splitlines()]
    assert len(lines) == 5 and read(tmp_path / "tensorboard") == expected(lines)
    assert set(read(tmp_path / "tensorboard")) == {"baseline", "distilled"}


def test_a_resumed_run_has_no_step_twice(tmp_path):
    """Killed after batch 6 of the distilled network, its last checkpoint after batch 4."""
    board = Board(tmp_path, {})
    board.write({**TRAIN, "trains": "baseline", "step": 8})
    for step in (2, 4, 6):
        board.write({**TRAIN, "step": step, "lr": 1.0})
    board.close()
    board = Board(tmp_path, {"distilled": 4})
    for step in (5, 8):  # logged at other batches than before
        board.write({**TRAIN, "step": step, "lr": 2.0})
    board.close()
    found = read(tmp_path)
    assert {step: value for (tag, step), value in found["distilled"].items() if tag == "lr"} == {2: 1, 4: 1, 5: 2, 8: 2}
    assert set(found["baseline"]) == {(tag, 8) for tag, _ in scalars(TRAIN)}


def test_pictures_stand_beside_the_scalars_of_their_network(tmp_path):
    picture = Picture(48, 64, b"a JPEG file")
    board = Board(tmp_path, {})
    board.show("distilled", 2, {"detections": picture, "attention": picture})
    board.write(EVAL)
    board.close()
    board = Board(tmp_path, {"distilled": 0})  # resumed before it: what was shown is dropped, and shown again
    board.show("distilled", 2, {"detections": picture._replace(jpeg=b"the same")})
    board.close()
    assert read(tmp_path) == {"distilled": {("detections", 2): b"the same"}}


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "tensorboard").write_text("a file")
    with pytest.raises(RunError, match="cannot write .*tensorboard"):
        Board(tmp_path / "tensorboard", {}).write(TRAIN)


def test_a_run_that_does_not_ask_loads_nothing_for_it():
    program = (
        "import gan_kd.training.run, sys; names = 'tensorboardX', 'gan_kd.training.panels', 'gan_kd.report.photos'; "
        "print([name for name in names if name in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
