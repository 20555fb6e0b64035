"""The loader: the same batches from any number of workers, and what happens when something goes wrong."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from gan_kd.data import images
from gan_kd.data.loader import Loader
from gan_kd.data.pixels import ValTransform, render
from gan_kd.data.sizes import Bounded, Square
from gan_kd.data.workers import WorkerFailure, WorkerPolicy
from gan_kd.detectors.ssd.transform import SSDTrainTransform
from gan_kd.errors import RunError, UsageError, UserError

SIZE = 32
TRAIN = SSDTrainTransform(SIZE, np.array([[x, y, 12, 12] for x in (8, 16, 24) for y in (8, 16, 24)]))
PHOTOS = 13


class Photos:
    """JPEG files with one object each; every process that reads one leaves its number in a folder."""

    def __init__(self, folder: Path) -> None:
        self.pids = folder / "pids"
        self.pids.mkdir(exist_ok=True)
        files = [folder / f"{number}.jpg" for number in range(PHOTOS)]
        self.records = [SimpleNamespace(image=file, width=50, height=40) for file in files]
        rng = np.random.default_rng(0)
        for record in self.records:
            cv2.imwrite(str(record.image), rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))

    def __len__(self) -> int:
        return len(self.records)

    def image(self, index: int, reduction: int = 1) -> np.ndarray:
        (self.pids / str(os.getpid())).touch()
        return images.read(self.records[index].image, reduction)

    def label(self, index: int) -> np.ndarray:
        return np.array([[5, 5, 5 + 3 * index, 30, index % 3, 0]], np.float32)

    def readers(self) -> set[int]:
        return {int(file.name) for file in self.pids.iterdir()}


class Failing(Photos):
    """Fails at photo 5 in a chosen way."""

    def __init__(self, folder: Path, way: str) -> None:
        super().__init__(folder)
        self.way = way

    def image(self, index: int, reduction: int = 1) -> np.ndarray:
        if index == 5:
            if self.way == "user error":
                raise UsageError("5.jpg: not a JPEG")
            if self.way == "bug":
                raise KeyError("surprise")
            if self.way == "exit":
                os._exit(3)
            if self.way == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.way == "sleep":
                time.sleep(600)
        return super().image(index, reduction)


class Snooping(Photos):
    """Reports what its process has loaded."""

    def image(self, index: int, reduction: int = 1) -> np.ndarray:
        raise UsageError(f"mxnet={'mxnet' in sys.modules} gluoncv={'gluoncv' in sys.modules}")


def copies(batches: object) -> list[list[np.ndarray]]:
    """The arrays of each batch: of a TrainBatch images, truth and targets, of a ValBatch images and indices."""
    return [
        [array.copy() for array in (*batch[:2], *getattr(batch, "targets", ()))]
        for batch in batches  # type: ignore[attr-defined]
    ]


def assert_equal(left: list[list[np.ndarray]], right: list[list[np.ndarray]]) -> None:
    assert len(left) == len(right) > 0
    for one, other in zip(left, right):
        for a, b in zip(one, other):
            np.testing.assert_array_equal(a, b)


def running(pid: int) -> bool:
    """A process that has ended but that nobody has waited for does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_ended(pids: set[int]) -> None:
    deadline = time.monotonic() + 20
    while any(running(pid) for pid in pids):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.05)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_training_batches_do_not_depend_on_workers(tmp_path: Path, num_workers: int) -> None:
    photos = Photos(tmp_path)
    alone = Loader(photos, TRAIN, 4, num_workers=0, seed=233, train=True)
    expected = [copies(alone.epoch(epoch)) for epoch in range(3)]
    with Loader(photos, TRAIN, 4, num_workers, seed=233, train=True) as loader:
        assert len(loader) == len(alone) == PHOTOS // 4
        for epoch in (0, 1, 2, 0):
            assert_equal(copies(loader.epoch(epoch)), expected[epoch])
        assert_equal(copies(loader.epoch(1, start_batch=2)), expected[1][2:])
        assert list(loader.epoch(1, start_batch=3)) == []
    assert_equal(copies(alone.epoch(2, start_batch=1)), expected[2][1:])
    assert len(photos.readers() - {os.getpid()}) == num_workers
    shapes = [array.shape for array in expected[0][0]]
    assert shapes == [(4, 3, SIZE, SIZE), (4, 1, 5), (4, 9), (4, 9, 4)]
    assert all(array.dtype == np.float32 for array in expected[0][0])


class Padded:
    """The image in the upper left corner, and a target of the batch's size."""

    sizes, images = Bounded(20, 32, 8), 1

    def arrays(self, height: int, width: int, objects: int) -> list[tuple[tuple[int, ...], type]]:
        return [((height // 8, width // 8), np.int32)]

    def write(self, sample, rng, image, targets):
        ValTransform(self.sizes).write(sample, rng, image, targets)
        targets[0][:] = rng.integers(0, 9, targets[0].shape)
        return sample.label()[:, :5]


def test_batches_of_different_sizes_do_not_depend_on_workers(tmp_path: Path) -> None:
    photos = Photos(tmp_path)
    for index in (0, 3, 4, 8, 9, 12):  # upright ones
        photos.records[index].width, photos.records[index].height = 40, 80
        cv2.imwrite(str(photos.records[index].image), np.full((80, 40, 3), 10 * index, np.uint8))
    made = []
    for workers in (0, 2):
        with Loader(photos, Padded(), 2, workers, seed=1, train=True) as loader:
            made.append([copies(loader.epoch(epoch)) for epoch in (0, 1)])
            sizes = [(batch.images.shape[2:], batch.extents.tolist()) for batch in loader.epoch(0)]
    for one, other in zip(*made):
        assert_equal(one, other)
    # 13 images: three batches of each kind; of the seven wide ones one is left out.
    assert sorted(size for size, _ in sizes) == 3 * [(24, 32)] + 3 * [(32, 16)]
    assert all(extent == ([20, 25] if size == (24, 32) else [32, 16]) for size, each in sizes for extent in each)
    assert all(array.shape == (2, size[0] // 8, size[1] // 8) for (*_, array), (size, _) in zip(made[0][0], sizes))
    assert made[0][0][0][2].dtype == np.int32


class Corners:
    """Of every image the places of its objects, and of them the first corner: regions of two arrays and one."""

    def __init__(self, value: float) -> None:
        self.value = value

    def arrays(self, height: int, width: int) -> list:
        return [((height // 8, width // 8), np.float32), ((2,), np.int32)][: 1 + int(self.value == 1)]

    def write(self, objects: np.ndarray, height: int, width: int, arrays: Sequence[np.ndarray]) -> None:
        arrays[0][:] = 0
        for x0, y0, x1, y1, _ in objects // 8:
            arrays[0][int(y0) : int(y1) + 1, int(x0) : int(x1) + 1] = self.value
        if len(arrays) > 1:
            arrays[1][:] = objects[0, :2] if len(objects) else -1


def test_regions_do_not_depend_on_workers(tmp_path: Path) -> None:
    photos, regions = Photos(tmp_path), [Corners(1), Corners(2)]

    def batches(num_workers: int) -> list[list[np.ndarray]]:
        with Loader(photos, TRAIN, 4, num_workers, seed=1, train=True, regions=regions) as loader:
            batch = next(loader.epoch(0))
            assert [[array.shape for array in one] for one in batch.regions] == [[(4, 4, 4), (4, 2)], [(4, 4, 4)]]
            assert len(batch.targets) == 2
            np.testing.assert_array_equal(batch.regions[0][1], batch.truth[:, 0, :2].astype(np.int32))
            np.testing.assert_array_equal(2 * batch.regions[0][0], batch.regions[1][0])
            return [[array.copy() for one in batch.regions for array in one] for batch in loader.epoch(1)]

    alone = batches(0)
    assert_equal(alone, batches(2))
    with Loader(photos, TRAIN, 4, 0, seed=1, train=True, share=(1, 2), regions=regions) as half:
        np.testing.assert_array_equal(next(half.epoch(1)).regions[1][0], alone[0][2][2:])


def test_systems_without_memory_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    photos = Photos(tmp_path)
    with Loader(photos, TRAIN, 4, num_workers=2, seed=1, train=True) as loader:
        assert_equal(copies(loader.epoch(0)), copies(Loader(photos, TRAIN, 4, 0, 1, train=True).epoch(0)))


def test_a_sample_follows_from_seed_epoch_and_index(tmp_path: Path) -> None:
    photos = Photos(tmp_path)
    with Loader(photos, TRAIN, 4, num_workers=2, seed=7, train=True) as loader:
        order = loader.order(5)
        pixels, truth, own, boxes = copies(loader.epoch(5, start_batch=1))[0]
    index = int(order[6])
    rng = np.random.default_rng([7, 5, index + 1])
    look, label = TRAIN.draw(photos.label(index), 50, 40, rng, reducible=True)
    image = np.empty((3, SIZE, SIZE), np.float32)
    render(photos.image(index, look.reduction), look, image)
    classes, offsets = TRAIN.targets(label[:, :4], label[:, 4])
    np.testing.assert_array_equal(pixels[2], image)
    np.testing.assert_array_equal(truth[2], label[:, :5] if len(label) else np.full((1, 5), -1))
    np.testing.assert_array_equal(own[2], classes)
    np.testing.assert_array_equal(boxes[2], offsets)


def test_training_order_changes_with_seed_and_epoch_and_drops_the_rest(tmp_path: Path) -> None:
    loaders = [Loader(Photos(tmp_path), TRAIN, 4, 0, seed, train=True) for seed in (1, 2)]
    orders = [loader.order(epoch) for loader in loaders for epoch in (0, 1)]
    for order in orders:
        assert len(order) == 12 and len(set(order)) == 12 and set(order) <= set(range(PHOTOS))
    assert len({tuple(order) for order in orders}) == 4
    np.testing.assert_array_equal(loaders[0].order(1), loaders[0].order(1))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_evaluation_keeps_the_order_and_the_rest(tmp_path: Path, num_workers: int) -> None:
    photos, transform = Photos(tmp_path), ValTransform(Square(SIZE))
    with Loader(photos, transform, 5, num_workers, seed=0, train=False) as loader:
        batches = copies(loader.epoch(0))
        assert len(loader) == len(batches) == 3
    assert [indices.tolist() for _, indices in batches] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12]]
    images = np.concatenate([images for images, _ in batches])
    np.testing.assert_array_equal(images, [transform(photos.image(index))[0] for index in range(PHOTOS)])


def test_a_batch_is_valid_until_the_next_is_asked_for(tmp_path: Path) -> None:
    photos = Photos(tmp_path)
    alone = copies(Loader(photos, TRAIN, 1, 0, seed=1, train=True).epoch(0))
    with Loader(photos, TRAIN, 1, num_workers=2, seed=1, train=True) as loader:
        for batch, expected in zip(loader.epoch(0), alone):
            time.sleep(0.02)  # the workers fill all memory that they may
            assert_equal(copies([batch]), [expected])


def test_an_abandoned_epoch_leaves_no_trace(tmp_path: Path) -> None:
    photos = Photos(tmp_path)
    expected = copies(Loader(photos, TRAIN, 2, 0, seed=1, train=True).epoch(1))
    with Loader(photos, TRAIN, 2, num_workers=2, seed=1, train=True) as loader:
        abandoned = loader.epoch(0)
        next(abandoned)
        assert_equal(copies(loader.epoch(1)), expected)
        with pytest.raises(RuntimeError, match="another was started"):
            next(abandoned)


def test_workers_load_no_mxnet(tmp_path: Path) -> None:
    """Nor do they hang when MXNet's threads have run in the parent, as a fork of it does."""
    import gluoncv  # noqa: F401
    import mxnet as mx

    mx.nd.dot(mx.nd.ones((200, 200)), mx.nd.ones((200, 200))).wait_to_read()
    loader = Loader(Snooping(tmp_path), TRAIN, 4, num_workers=1, seed=0, train=True)
    with loader, pytest.raises(UsageError, match="^mxnet=False gluoncv=False$"):
        next(loader.epoch(0))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    "way, kind, message",
    [
        ("user error", UsageError, "^5.jpg: not a JPEG$"),
        ("bug", RunError, r"5\.jpg: cannot be made ready for the network: KeyError: 'surprise'$"),
    ],
)
def test_a_photo_that_fails(tmp_path: Path, num_workers: int, way: str, kind: type[UserError], message: str) -> None:
    with Loader(Failing(tmp_path, way), ValTransform(Square(SIZE)), 4, num_workers, seed=0, train=False) as loader:
        next(loader.epoch(0))  # abandoned, with the failure on its way
        for _ in range(2):  # and usable after it
            batches = loader.epoch(0)
            assert next(batches).indices.tolist() == [0, 1, 2, 3]
            with pytest.raises(kind, match=message):
                next(batches)


@pytest.mark.parametrize(
    "way, message",
    [
        ("exit", "died with exit code 3, with "),
        ("kill", r"died with exit code -9 \(SIGKILL\), mostly for lack of memory"),
    ],
)
@pytest.mark.parametrize("restart, end", [(False, "in hand: look"), (True, "in hand, as 2 did before it at the same")])
def test_a_worker_that_dies(tmp_path: Path, way: str, message: str, restart: bool, end: str) -> None:
    """Those in its place die of the same photo."""
    photos, policy = Failing(tmp_path, way), WorkerPolicy(restart=restart)
    with Loader(photos, ValTransform(Square(SIZE)), 4, num_workers=2, seed=0, train=False, policy=policy) as loader:
        with pytest.raises(WorkerFailure, match=rf"worker 2 of 2 \(process \d+\) {message}.*5.jpg, .*7.jpg {end}"):
            list(loader.epoch(0))
        wait_until_ended(photos.readers())
        with pytest.raises(RuntimeError, match="closed"):
            next(loader.epoch(0))


def test_a_worker_that_hangs(tmp_path: Path) -> None:
    photos, policy = Failing(tmp_path, "sleep"), WorkerPolicy(timeout=5, restart=False)
    with Loader(photos, ValTransform(Square(SIZE)), 4, num_workers=2, seed=0, train=False, policy=policy) as loader:
        with pytest.raises(WorkerFailure, match=r"worker 2 of 2 \(process \d+\) made nothing for 5 s, with .*5.jpg"):
            list(loader.epoch(0))
        wait_until_ended(photos.readers())


@pytest.mark.parametrize("sent, timeout", [(signal.SIGKILL, 60), (signal.SIGSTOP, 5)])
def test_another_worker_makes_the_same_batches(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sent: signal.Signals, timeout: float
) -> None:
    """In the place of one that died, or hangs, with up to three shares in hand."""
    photos = Photos(tmp_path)
    expected = copies(Loader(photos, TRAIN, 2, 0, seed=1, train=True).epoch(1))
    policy = WorkerPolicy(timeout)
    with Loader(photos, TRAIN, 2, num_workers=2, seed=1, train=True, policy=policy) as loader:
        list(loader.epoch(0))
        victim = (photos.readers() - {os.getpid()}).pop()
        os.kill(victim, sent)
        assert_equal(copies(loader.epoch(1)), expected)
        assert len(photos.readers() - {os.getpid()}) >= 3
    assert f"(process {victim}) " in caplog.text and "another takes its place" in caplog.text
    wait_until_ended(photos.readers() - {os.getpid()})


def test_too_large_a_batch(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="batch size is 14.*only 13 training images"):
        Loader(Photos(tmp_path), TRAIN, 14, num_workers=2, seed=0, train=True)


def test_signals_are_for_the_parent(tmp_path: Path) -> None:
    """Workers are out of the terminal's reach, and ignore what is sent to all processes of a job."""
    photos = Photos(tmp_path)
    with Loader(photos, TRAIN, 2, num_workers=2, seed=0, train=True) as loader:
        batches = loader.epoch(0)
        next(batches)
        for pid in photos.readers():
            assert os.getsid(pid) != os.getsid(0)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.kill(pid, number)
        assert len(list(batches)) == len(loader) - 1
        assert len(list(loader.epoch(1))) == len(loader)


def test_nothing_is_left_after_closing_or_forgetting(tmp_path: Path) -> None:
    def files() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    photos, before = Photos(tmp_path), files()
    loader = Loader(photos, TRAIN, 2, num_workers=2, seed=0, train=True)
    next(loader.epoch(0))
    loader.close()
    loader.close()
    wait_until_ended(photos.readers())
    loader = Loader(photos, TRAIN, 2, num_workers=2, seed=0, train=True)
    next(loader.epoch(0))
    assert files() > before
    del loader
    assert files() == before
    assert len(photos.readers()) == 4
    wait_until_ended(photos.readers())


SCRIPT = """
import sys, time
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
from test_loader import TRAIN, Photos
from gan_kd.data.loader import Loader
loader = Loader(Photos(Path({folder!r})), TRAIN, 2, num_workers=2, seed=0, train=True)
batches = loader.epoch(0)
next(batches)
print("ready", flush=True)
{ending}
"""


def start_script(folder: Path, ending: str) -> subprocess.Popen:
    """A script without `if __name__ == "__main__"` that has an epoch under way when it ends."""
    here = Path(__file__).resolve()
    script = folder / "script.py"
    script.write_text(
        SCRIPT.format(root=str(here.parents[2]), tests=str(here.parent), folder=str(folder), ending=ending)
    )
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-W", "error", script], stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("ending, code, error", [("", 0, ""), ("sys.exit(4)", 4, ""), ("1 / 0", 1, "Zero")])
def test_the_end_of_a_program_ends_the_workers(tmp_path: Path, ending: str, code: int, error: str) -> None:
    script = start_script(tmp_path, ending)
    output, errors = script.communicate(timeout=60)
    assert (script.returncode, output) == (code, "ready\n")
    assert error in errors if error else errors == ""
    wait_until_ended(Photos(tmp_path).readers())


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_workers_notice_that_the_parent_was_killed(tmp_path: Path, sent: signal.Signals) -> None:
    with start_script(tmp_path, "time.sleep(600)") as script:
        assert script.stdout is not None and script.stdout.readline() == "ready\n"
        script.send_signal(sent)
        script.wait(timeout=20)
        pids = Photos(tmp_path).readers()
        assert len(pids) == 2
        wait_until_ended(pids)
