"""The training of a stage: epochs of batches, with logs, evaluation, checkpoints, and a way to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mxnet.ndarray import NDArray
from tqdm import tqdm

from gan_kd.data.batch import TrainBatch
from gan_kd.data.loader import Loader
from gan_kd.data.workers import WorkerFailure
from gan_kd.distributed.cluster import here
from gan_kd.errors import Diverged, RunError
from gan_kd.gluon.optim import Position
from gan_kd.recipe import Train
from gan_kd.system.console import no_bar
from gan_kd.system.files import write_json
from gan_kd.system.stop import Stopped, StopSignal
from gan_kd.training.logs import Interval, MetricsFile, NotFinite, in_words, log, map_words, train_record
from gan_kd.training.stage import Stage

#: What is known of a batch with a loss that is not finite.
NOT_FINITE = "not-finite.json"


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

    def improves(self, network: str, map_: float) -> bool:
        """Whether parameters with this mAP, %, are the network's best so far, which is noted.

        nan is never better than a number; as long as there is none, the latest parameters are the best.
        """
        if network in self.best and not map_ > self.best[network]:
            return False
        if not math.isnan(map_):
            self.best[network] = map_
        return True

    def next_stage(self, goes_on: bool) -> Progress:
        """Where the next stage starts; the counters of a network go on where it trains the same one."""
        if goes_on:
            return Progress(self.stage + 1, step=self.step, epochs_seen=self.epochs_seen, best=self.best)
        return Progress(self.stage + 1, best=self.best)

    def position(self) -> tuple[int, ...]:
        """The part that every worker has; the rest is the first one's."""
        return self.stage, self.epoch, self.batch, self.step, self.epochs_seen


class StageTrainer:
    """Runs one stage from wherever `progress` stands to its end.

    Outside `stop.held` the state is whole, so that a stop or a loader's failure there can be saved: between two
    batches, and with all batches of an epoch done before its evaluation.
    """

    def __init__(
        self,
        stage: Stage,
        train: Train,
        loader: Loader,
        metrics: MetricsFile,
        progress: Progress,
        average: Callable[[], None],
        evaluate: Callable[[bool], dict[str, Any] | None],
        keep_best: Callable[[dict[str, Any]], None],
        save: Callable[[Progress, bool], None],
    ) -> None:
        """What is called at an epoch's end.

        `average` makes the network one on all devices, `evaluate` measures it, told whether the stage ends there,
        `keep_best` saves it where that is its best, `save` writes a checkpoint, told whether the arrays are still
        those of the last one.
        """
        self.stage, self.step, self.train = stage, stage.step, train
        self.loader, self.metrics, self.progress = loader, metrics, progress
        self.average, self.evaluate, self.keep_best, self.save = average, evaluate, keep_best, save
        self.epochs, self.warmup = stage.config.epochs, stage.warmup
        self.interval = Interval(progress.sums, progress.count)
        progress.sums, progress.count = {}, 0
        self._unsaved = False
        self._warned: set[str] = set()

    def run(self, stop: StopSignal) -> None:
        """Train to the end of the stage. Raises Stopped after a signal, WorkerFailure after the loader's; both saved.

        Diverged where a loss is not finite: the last checkpoint stays the good one.
        """
        try:
            self._epochs(stop)
        except NotFinite as error:
            raise self._described(error) from error

    def _epochs(self, stop: StopSignal) -> None:
        try:
            while self.progress.epoch < self.warmup + self.epochs:
                self._epoch(stop)
        except (Stopped, WorkerFailure) as error:
            if isinstance(error, WorkerFailure) and here().distributed:
                raise  # the other workers do not know of it, and without them nothing can be saved
            with stop.held():
                self._save_between()
            if isinstance(error, WorkerFailure):
                raise RunError(f"{error}; what was trained is saved: go on with --resume") from error
            raise

    def _epoch(self, stop: StopSignal) -> None:
        progress, batches = self.progress, len(self.loader)
        self.step.networks.hybridize()
        started = self._ticked = time.time()
        self._batches_before = progress.batch
        label = f"{self.stage.name} {progress.epoch + 1}/{self.warmup + self.epochs}"
        with tqdm(
            total=batches, initial=progress.batch, desc=label, unit="batch", disable=no_bar(), leave=False
        ) as bar:
            for batch in self.loader.epoch(progress.epochs_seen, progress.batch):
                with stop.held():
                    self._batch(batch, bar)
                _check(stop)
        log.info("[Epoch %d] Training cost: %.3f", self._position()["epoch"], time.time() - started)
        own = progress.epoch + 1 - self.warmup
        due = own > 0 and (own % self.train.val_interval == 0 or own == self.epochs)
        if due:
            with stop.held():
                self.average()
                self._save_between()  # whatever happens in the evaluation, the epoch is there
        result = self.evaluate(own == self.epochs) if due else None
        with stop.held():
            progress.epoch, progress.batch, progress.epochs_seen = progress.epoch + 1, 0, progress.epochs_seen + 1
            if result is not None:
                self.keep_best(result)
                self.metrics.write({"kind": "eval", **self._position(), **result})
            self.save(progress, due)
        _check(stop)

    def _batch(self, batch: TrainBatch, bar: tqdm) -> None:
        progress, last = self.progress, len(self.loader)
        losses = self._train(batch)
        self._unsaved = True
        progress.batch += 1
        progress.step += 1
        self.interval.add(progress.batch, losses)
        bar.update()
        if progress.batch % self.train.log_interval == 0 or progress.batch == last:
            self._log(bar)
        if progress.batch == last and self.step.distillers:
            self._diagnose(batch)

    def _train(self, batch: TrainBatch) -> dict[str, list[NDArray]]:
        """One batch: the distillers alone while they warm up, then all."""
        batches, epochs = len(self.loader), self.epochs
        done, warmup = self.progress.epoch * batches + self.progress.batch, self.warmup * batches
        if done < warmup:
            return self.step.warm_up(batch, Position(0, epochs * batches, epochs, done))
        return self.step(batch, Position(done - warmup, epochs * batches, epochs, warmup))

    def _log(self, bar: tqdm) -> None:
        """Close the interval: a line on the screen and in train.log, one in metrics.jsonl."""
        means = self.interval.means()
        seconds = time.time() - self._ticked
        speed = (self.progress.batch - self._batches_before) * self.train.batch_size / seconds
        position = self._position()
        log.info(
            "[Epoch %d][Batch %d], Stage: %s, Speed: %.3f samples/sec, lr: %.3g, %s",
            position["epoch"], position["batch"], self.stage.name, speed, self.step.optimisation.lr, in_words(means),
        )  # fmt: skip
        bar.set_postfix_str(f"{speed:.1f} images/s, {in_words(means)}")
        self.metrics.write(train_record(means, **position, lr=self.step.optimisation.lr))
        self.interval.clear()
        self._ticked, self._batches_before = time.time(), self.progress.batch

    def _diagnose(self, batch: TrainBatch) -> None:
        """Once an epoch, on its last batch: how the distillers stand, map by map."""
        position, found = self._position(), self.step.diagnose(batch)
        places = self.step.networks.places
        several = {"places": places} if len(set(places)) > 1 else {}
        log.info("[Epoch %d] Diagnosis: %s", position["epoch"], map_words(found, **several))
        self.metrics.write({"kind": "diagnosis", **position, **several, **found})
        if position["epoch"] > 0:  # a critic that warms up is meant to be ahead
            for text in (text for distiller in self.step.distillers for text in distiller.warnings(found)):
                if text.split("(")[0] not in self._warned:  # the numbers in brackets change, once is enough
                    self._warned.add(text.split("(")[0])
                    log.warning("[Epoch %d] %s", position["epoch"], text)

    def _position(self) -> dict[str, Any]:
        """Where a line of metrics.jsonl stands; epochs count from 1 and warm-up epochs are 0 and below."""
        progress = self.progress
        current = progress.epoch - self.warmup + (progress.batch > 0)
        return {
            "stage": self.stage.name, "trains": self.stage.config.trains, "epoch": current,
            "batch": progress.batch, "step": progress.step,
        }  # fmt: skip

    def _save_between(self) -> None:
        """Save in the middle of an epoch, the open interval included, where there is something new."""
        if self._unsaved:
            self.interval.settle()
            self.progress.sums, self.progress.count = self.interval.sums, self.interval.count
            self.save(self.progress, False)
            self._unsaved = False

    def _described(self, error: NotFinite) -> Diverged:
        """The same for the user: where it was, with all losses and images of that batch in a file of the run."""
        position = self._position()
        position["step"] -= position["batch"] - error.batch
        images = self.loader.images(self.progress.epochs_seen, error.batch - 1)
        path = self.metrics.path.with_name(NOT_FINITE)
        losses = {name: value if math.isfinite(value) else str(value) for name, value in error.losses.items()}
        if here().first:
            write_json(path, {**position, "batch": error.batch, "losses": losses, "images": images})
        more = f" and {len(images) - 2} more" if len(images) > 2 else ""
        return Diverged(
            f"{error} of epoch {position['epoch']}, stage {self.stage.name} ({', '.join(images[:2])}{more}: see "
            f"{path}): training stops and the last checkpoint stays good; start a new run with a lower learning rate "
            "or optimizer.clip_gradient"
        )


def _check(stop: StopSignal) -> None:
    """`stop.check` of all workers: one that is asked to stop stops all, at the same place."""
    stop.asked = here().any(stop.asked)
    stop.check()
