"""A stage: epochs of batches, with logs, evaluation, checkpoints, and a way to stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from mxnet.ndarray import NDArray
from tqdm import tqdm

from gan_kd.console import no_bar
from gan_kd.data.loader import Loader, TrainBatch
from gan_kd.engine.logs import Interval, MetricsFile, in_words, log, map_words, train_record
from gan_kd.engine.optim import Position
from gan_kd.engine.step import Step
from gan_kd.recipe import Stage, Train


class Stopped(Exception):
    """Ctrl-C: the run was saved and ends."""


@dataclass
class Progress:
    """How far a run is: what a checkpoint holds beside arrays."""

    #: Index of the stage in the recipe.
    stage: int = 0
    #: Epochs of it that are done, warm-up included.
    epoch: int = 0
    #: Batches of the next epoch that are done.
    batch: int = 0
    #: Batches and epochs this network has seen over its stages.
    step: int = 0
    epochs_seen: int = 0
    #: The interval under way.
    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0
    #: Best mAP by network, %.
    best: dict[str, float] = field(default_factory=dict)


class StopSignal:
    """Ctrl-C asks for a stop after this batch; a second one is a KeyboardInterrupt as usual."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> StopSignal:
        self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self._before)
        tqdm.write("stopping after this batch; a second Ctrl-C stops at once without saving")


class StageTrainer:
    """Runs one stage from wherever `progress` stands to its end."""

    def __init__(
        self,
        name: str,
        stage: Stage,
        train: Train,
        step: Step,
        loader: Loader,
        metrics: MetricsFile,
        progress: Progress,
        evaluate: Callable[[], dict[str, Any]],
        save: Callable[[Progress], None],
    ) -> None:
        """`evaluate` measures the network and keeps the best; `save` writes a checkpoint."""
        self.name, self.stage, self.train = name, stage, train
        self.step, self.loader, self.metrics, self.progress = step, loader, metrics, progress
        self.evaluate, self.save = evaluate, save
        self.warmup = max((d.warmup_epochs for d in step.distillers), default=0)
        self.interval = Interval(progress.sums, progress.count)
        progress.sums, progress.count = {}, 0

    def run(self, stop: StopSignal) -> None:
        """Train to the end of the stage. Raises Stopped after a Ctrl-C, the run saved."""
        while self.progress.epoch < self.warmup + self.stage.epochs:
            self._epoch(stop)

    def _epoch(self, stop: StopSignal) -> None:
        progress, batches = self.progress, len(self.loader)
        self.step.networks.hybridize()
        started = self._ticked = time.time()
        self._batches_before = progress.batch
        label = f"{self.name} {progress.epoch + 1}/{self.warmup + self.stage.epochs}"
        with tqdm(
            total=batches, initial=progress.batch, desc=label, unit="batch", disable=no_bar(), leave=False
        ) as bar:
            for batch in self.loader.epoch(progress.epochs_seen, progress.batch):
                losses = self._train(batch)
                progress.batch += 1
                progress.step += 1
                self.interval.add(progress.batch, losses)
                bar.update()
                if progress.batch % self.train.log_interval == 0 or progress.batch == batches:
                    self._log(bar)
                if progress.batch == batches and self.step.distillers:
                    self._diagnose(batch)
                if stop.asked:
                    break
        if progress.batch < batches:
            self._stop()
        log.info("[Epoch %d] Training cost: %.3f", self._position()["epoch"], time.time() - started)
        progress.epoch, progress.batch, progress.epochs_seen = progress.epoch + 1, 0, progress.epochs_seen + 1
        own = progress.epoch - self.warmup
        if own > 0 and (own % self.train.val_interval == 0 or own == self.stage.epochs):
            self.metrics.write({"kind": "eval", **self._position(), **self.evaluate()})
        self.save(progress)
        if stop.asked:
            raise Stopped

    def _train(self, batch: TrainBatch) -> dict[str, list[NDArray]]:
        """One batch: the distillers alone while they warm up, then all."""
        progress, batches = self.progress, len(self.loader)
        done = progress.epoch * batches + progress.batch
        if progress.epoch < self.warmup:
            return self.step.warm_up(batch, Position(done, self.warmup * batches, self.warmup))
        return self.step(batch, Position(done - self.warmup * batches, self.stage.epochs * batches, self.stage.epochs))

    def _log(self, bar: tqdm) -> None:
        """Close the interval: a line on the screen and in train.log, one in metrics.jsonl."""
        means = self.interval.means()
        seconds = time.time() - self._ticked
        speed = (self.progress.batch - self._batches_before) * self.train.batch_size / seconds
        position = self._position()
        log.info(
            "[Epoch %d][Batch %d], Stage: %s, Speed: %.3f samples/sec, lr: %.3g, %s",
            position["epoch"], position["batch"], self.name, speed, self.step.optimisation.lr, in_words(means),
        )  # fmt: skip
        bar.set_postfix_str(f"{speed:.1f} images/s, {in_words(means)}")
        self.metrics.write(train_record(means, **position, lr=self.step.optimisation.lr))
        self.interval.clear()
        self._ticked, self._batches_before = time.time(), self.progress.batch

    def _diagnose(self, batch: TrainBatch) -> None:
        """Once an epoch, on its last batch: how the distillers stand, map by map."""
        position, found = self._position(), self.step.diagnose(batch)
        log.info("[Epoch %d] Diagnosis: %s", position["epoch"], map_words(found))
        self.metrics.write({"kind": "diagnosis", **position, **found})

    def _position(self) -> dict[str, Any]:
        """Where a line of metrics.jsonl stands; epochs count from 1 and warm-up epochs are 0 and below."""
        progress = self.progress
        current = progress.epoch - self.warmup + (progress.batch > 0)
        return {
            "stage": self.name, "trains": self.stage.trains, "epoch": current,
            "batch": progress.batch, "step": progress.step,
        }  # fmt: skip

    def _stop(self) -> None:
        """Save in the middle of an epoch, the open interval included, and leave."""
        self.interval.settle()
        self.progress.sums, self.progress.count = self.interval.sums, self.interval.count
        self.save(self.progress)
        raise Stopped
