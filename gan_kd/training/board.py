"""TensorBoard: the records of metrics.jsonl as scalars, and pictures.

tensorboardX is loaded only for a run that asks for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gan_kd.errors import RunError

#: Of a record, what is its place and no measurement.
POSITION = ("kind", "stage", "trains", "epoch", "batch", "step", "maps", "places")


class Picture(NamedTuple):
    """A JPEG file and its sides, px."""

    height: int
    width: int
    jpeg: bytes


class Board:
    """Event files in `folder`/NETWORK: TensorBoard draws the networks of a run, whose tags agree, over each other.

    Written record by record and in this thread (tensorboardX's SummaryWriter queues them), so that a killed run has
    lost nothing that its last checkpoint knows.
    """

    def __init__(self, folder: Path, done: Mapping[str, int]) -> None:
        """Go on after the `done` batches of each network; TensorBoard drops what is there of later ones."""
        self.folder, self.done = folder, done
        self._writers: dict[str, Any] = {}

    def write(self, record: Mapping[str, Any]) -> None:
        """Add the scalars of a record of metrics.jsonl. RunError where they cannot be written."""
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(record)]
        self._write(record["trains"], record["step"], values)

    def show(self, network: str, step: int, pictures: Mapping[str, Picture]) -> None:
        """Add pictures by tag to a network, after so many of its batches. RunError where they cannot be written."""
        from tensorboardX.proto.summary_pb2 import Summary

        values = [
            Summary.Value(
                tag=tag,
                image=Summary.Image(
                    height=picture.height, width=picture.width, colorspace=3, encoded_image_string=picture.jpeg
                ),
            )
            for tag, picture in pictures.items()
        ]
        self._write(network, step, values)

    def _write(self, network: str, step: int, values: list[Any]) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        event = Event(wall_time=time.time(), step=step, summary=Summary(value=values))
        try:
            writer = self._writer(network)
            writer.write_event(event)
            writer.flush()
        except OSError as error:
            raise RunError(
                f"cannot write {self.folder}: {error.strerror}; make room and go on with --resume"
            ) from error

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, network: str) -> Any:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        if network not in self._writers:
            (self.folder / network).mkdir(parents=True, exist_ok=True)
            # tensorboardX's own name has seconds only: a second start within one would overwrite the first's file.
            writer = EventsWriter(str(self.folder / network / "events"), f".{time.time_ns()}")
            start = SessionLog(status=SessionLog.START)
            writer.write_event(Event(wall_time=time.time(), step=self.done.get(network, 0) + 1, session_log=start))
            self._writers[network] = writer
        return self._writers[network]


def scalars(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """(tag, value) of what a record measured, where it is finite: `lr`, `losses/conf`, `ap/cat`, `critic_gap/1_16x16`.

    A list holds one number a map: the tags count the maps from 1 and give their sides, and their places where these
    differ, as in `critic_gap/4_neck_16x16`.
    """
    sides = [f"{side}x{side}" for side in record.get("maps", ())]
    maps = [f"{k}_{'_'.join(words)}" for k, words in enumerate(zip(*filter(None, (record.get("places"), sides))), 1)]
    for name, value in record.items():
        if name in POSITION:
            continue
        if isinstance(value, list):
            value = dict(zip(maps, value))
        named = {f"{name}/{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
        yield from ((tag, float(v)) for tag, v in named.items() if v is not None and math.isfinite(v))
