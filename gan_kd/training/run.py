"""A run: every stage of a recipe in order, then the evaluation of each network and the report."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mxnet as mx

from gan_kd.data.batch import Regions
from gan_kd.data.loader import Loader
from gan_kd.detectors.base import Detector
from gan_kd.detectors.families import family
from gan_kd.detectors.saved import load_detector
from gan_kd.distributed.cluster import here
from gan_kd.gluon.arrays import average_statistics, set_values, stripped
from gan_kd.recipe import Recipe, network_in_words
from gan_kd.system.memory import release_memory
from gan_kd.system.stop import Stopped, StopSignal
from gan_kd.training import checkpoint
from gan_kd.training.board import Board
from gan_kd.training.distillers import compared_places
from gan_kd.training.folder import opened
from gan_kd.training.logs import MetricsFile, close_log, log, log_to
from gan_kd.training.networks import Networks, build_student, build_teacher, head_in_words, require_good_teacher
from gan_kd.training.prepare import Prepared, open_loader, prepare
from gan_kd.training.results import Results
from gan_kd.training.stage import Stage
from gan_kd.training.trainer import Progress, StageTrainer


def train(recipe: Recipe, prefix: Path, resume: bool, stop: StopSignal) -> Path:
    """Run the recipe in `prefix`/NAME/SEED and give the path of the report.

    Raises Stopped after a signal, the run saved; UsageError or RunError, one sentence, for everything that a user can
    mend. stop: entered. Of the workers of a distributed job (`gan_kd.distributed.launch`) the first evaluates and
    writes; to the others the path is that of the run.
    """
    # Workers stop together: after the batch after which one of them asks for it.
    with stop.held() if here().distributed else contextlib.nullcontext(), here().joined():
        return _train(recipe, prefix, resume, stop)


def _train(recipe: Recipe, prefix: Path, resume: bool, stop: StopSignal) -> Path:
    folder = prefix / recipe.name / str(recipe.train.seed)
    ready = prepare(recipe, folder)
    with opened(folder, recipe, resume, ready.warmups), contextlib.closing(_Run(recipe, folder, ready, stop)) as run:
        if here().first:
            log_to(folder / "train.log")
        else:
            log.setLevel(logging.WARNING)  # the first worker speaks for all
        log.info("memory: %s", ready.memory)
        if here().first and ready.warning:
            log.warning(ready.warning)
        try:
            run.all_stages()
            return run.finish()
        except Stopped:
            log.info("stopped and saved")
            raise
        finally:
            close_log()


class _Run:
    """The state that stages share."""

    def __init__(self, recipe: Recipe, folder: Path, ready: Prepared, stop: StopSignal) -> None:
        self.recipe, self.folder, self.contexts, self.stop = recipe, folder, ready.contexts, stop
        self.train_set, val_set = ready.data
        self.origin = checkpoint.origin(recipe, self.train_set.classes)
        saved = checkpoint.load_last(folder / "checkpoints", self.origin)
        self.arrays, state = saved if saved else ({}, {"progress": {}, "metrics_bytes": 0, "teacher_map": None})
        with checkpoint.fitting(folder):
            self.progress = Progress(**state["progress"])
            state = {key: state[key] and float(state[key]) for key in ("metrics_bytes", "teacher_map")}
        # TensorBoard's files, from where the run goes on.
        trained = [stage.trains for stage in recipe.stages.values()][self.progress.stage :]
        steps = {network: self.progress.step for network in trained[:1]}
        self.board = Board(folder / "tensorboard", steps) if recipe.train.tensorboard and here().first else None
        self.metrics = MetricsFile(folder / "metrics.jsonl", int(state["metrics_bytes"]), self.board)
        self.results = Results(recipe, folder, val_set, self.contexts, self.board)
        self.teacher_map: float | None = state["teacher_map"]
        self.named = ready.teacher
        self.teacher: Detector | None = None
        self.loader: Loader | None = None

    def close(self) -> None:
        """End the loader's processes and the event files."""
        self._close_loader()
        if self.board is not None:
            self.board.close()

    def all_stages(self) -> None:
        """Train what is left to train; raises Stopped after a signal."""
        stages = list(self.recipe.stages.items())
        networks, trained = None, None
        for index, (name, stage) in enumerate(stages):
            if index < self.progress.stage:
                continue
            if stage.trains != trained:
                networks = None  # the memory of one stage's networks is the next one's
                release_memory()
                networks, trained = self._build(stage.trains), stage.trains
            assert networks is not None
            self._stage(name, networks)
            following = stages[index + 1][1].trains if index + 1 < len(stages) else None
            self.progress = self.progress.next_stage(goes_on=following == stage.trains)

    def _build(self, network: str) -> Networks:
        """The networks of the stages that train `network` on the run's devices: new, or as the checkpoint left them."""
        recipe, classes = self.recipe, self.train_set.classes
        if network == "teacher":
            networks = Networks(build_teacher(recipe, classes), family(recipe.detector).detection_loss(recipe))
        else:
            # Not before the stages that train it.
            to_come = list(recipe.stages.values())[self.progress.stage :]
            if recipe.needs_teacher and all(later.trains != "teacher" for later in to_come):
                self._require_teacher()
            networks = build_student(recipe, classes, network, self.teacher, compared_places(recipe, network))
            if self.teacher is not None and network != "baseline":
                log.info(head_in_words(recipe, network, networks.detector, self.teacher))
        networks.move(self.contexts)
        if self.progress.step:
            with checkpoint.fitting(self.folder):
                for part, parameters in networks.trained().items():
                    set_values(parameters, stripped(part, self.arrays))
        self._close_loader()
        return networks

    def _open_loader(self, detector: Detector, regions: Sequence[Regions]) -> Loader:
        """The loader of a detector's training images; the one that is open where nothing of it changes."""
        if self.loader is None or regions or self.loader.regions:
            self._close_loader()
            self.loader = open_loader(self.recipe, self.train_set, detector, regions)
        return self.loader

    def _close_loader(self) -> None:
        if self.loader is not None:
            self.loader.close()
            self.loader = None

    def _require_teacher(self) -> None:
        """Load the trained teacher and measure it once a run: a bad teacher is found now, not after the training."""
        if self.teacher is not None:
            return
        best, classes = self.folder / "teacher" / "best.params", self.train_set.classes
        if best.exists() or self.recipe.trains("teacher"):  # what a run trains it never replaces by an untrained one
            self.teacher = load_detector(best, self.recipe, classes)[0]
        else:
            self.teacher = self.named or build_teacher(self.recipe, classes)
        self.teacher.extractor.freeze()
        if not here().first:
            return
        if self.teacher_map is None:
            self.teacher.collect_params().reset_ctx(self.contexts)
            self.teacher_map = self.results.measure(self.teacher)["map"]
        if not best.with_suffix(".json").exists():  # killed between the two files, there is only the first
            self.results.save_best("teacher", self.teacher, None, 0, self.teacher_map)
        log.info("teacher %s: mAP=%.2f", self.recipe.teacher.backbone, self.teacher_map)
        require_good_teacher(self.recipe, self.teacher_map)

    def _stage(self, name: str, networks: Networks) -> None:
        stage = Stage(self.recipe, name, networks, self.contexts)
        loader = self._open_loader(networks.detector, stage.regions)
        detector, trained = networks.detector, stage.config.trains
        if self.progress.epoch or self.progress.batch:
            with checkpoint.fitting(self.folder):
                stage.load(self.arrays)
        self.arrays = {}
        here().require_equal(f"stage {name}", stage.everything(), self.progress.position())

        def measure(last: bool) -> dict[str, Any] | None:
            return self.results.measure(detector, trained, self.progress.step, last) if here().first else None

        def keep_best(result: dict[str, Any]) -> None:
            if self.progress.improves(trained, result["map"]):
                self.results.save_best(trained, detector, name, self.progress.epoch, result["map"])

        def save(progress: Progress, same_arrays: bool) -> None:
            self._save(name, progress, None if same_arrays else stage.arrays())

        words = network_in_words(trained, self.recipe.distill.head)
        log.info("stage %s trains the %s network for %d epochs", name, words, stage.config.epochs)
        train, metrics, progress = self.recipe.train, self.metrics, self.progress
        hooks = partial(average_statistics, detector.collect_params().values()), measure, keep_best, save
        StageTrainer(stage, train, loader, metrics, progress, *hooks).run(self.stop)

    def _save(self, stage: str, progress: Progress, arrays: dict[str, mx.nd.NDArray] | None) -> None:
        """A checkpoint, by the first worker; arrays: None where those of the newest one are the network's."""
        if not here().first:
            return
        checkpoint.require_finite(arrays or {}, f"epoch {progress.epoch + (progress.batch > 0)} of stage {stage}")
        position = f"{progress.stage:02d}-{progress.epoch:04d}-{progress.batch:06d}-{stage}"
        state = {
            "progress": dataclasses.asdict(progress),
            "metrics_bytes": self.metrics.synced_bytes(),
            "teacher_map": self.teacher_map,
            "origin": self.origin,
        }
        if arrays is None:
            checkpoint.move_on(self.folder / "checkpoints", position, state)
        else:
            checkpoint.save(self.folder / "checkpoints", position, arrays, state, self.recipe.train.keep)
        log.debug("saved the checkpoint %s", position)

    def finish(self) -> Path:
        """Evaluate what was trained and write the report; its path."""
        if not here().first:
            return self.folder
        self.teacher = self.named = None
        return self.results.finish(self.stop)
