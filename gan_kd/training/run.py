"""A run: every stage of a recipe in order, then the evaluation of each network and the report."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import mxnet as mx

from gan_kd.data.check import preflight
from gan_kd.data.loader import Loader, worker_policy
from gan_kd.detectors.base import Detector, Parts
from gan_kd.detectors.families import family
from gan_kd.detectors.saved import describe, known_sha256, load_detector, save_detector
from gan_kd.distill import custom
from gan_kd.distributed.cluster import here
from gan_kd.errors import UsageError, all_of
from gan_kd.evaluation.evaluate import evaluate, evaluate_params, further
from gan_kd.gluon.arrays import average_statistics, set_values, stripped
from gan_kd.gluon.contexts import open_contexts, start_amp
from gan_kd.gluon.optim import Optimisation
from gan_kd.recipe import Recipe, Stage, network_in_words, recipe_hash
from gan_kd.report.report import make_report
from gan_kd.system.console import RESULT
from gan_kd.system.files import write_json
from gan_kd.system.memory import release_memory
from gan_kd.system.stop import Stopped, StopSignal
from gan_kd.system.strict_json import with_nan
from gan_kd.system.version import commit
from gan_kd.training import checkpoint, parts
from gan_kd.training.board import Board
from gan_kd.training.distillers import build_distillers, compared_places, comparing_outputs, require_given
from gan_kd.training.estimate import check_memory
from gan_kd.training.folder import RECIPE, open_folder
from gan_kd.training.last import last_epoch, write_last
from gan_kd.training.logs import MetricsFile, close_log, log, log_to
from gan_kd.training.networks import (
    Networks,
    assemble,
    build_student,
    build_teacher,
    fetch_weights,
    head_in_words,
    require_fitting_head,
    require_good_teacher,
    require_teacher_file,
    warn_of_inheritance,
)
from gan_kd.training.stage import Progress, StageTrainer
from gan_kd.training.step import Step


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
    with here().in_turn():  # images that are drawn and weights that are downloaded are there for the others then
        contexts, data, _, warmups = all_of(
            lambda: open_contexts(recipe.train.contexts),
            lambda: preflight(recipe.data),
            lambda: fetch_weights(recipe),
            lambda: custom.load_all(recipe),
        )
    if recipe.train.amp:
        start_amp()
    images = len(data[0])
    if recipe.train.batch_size > images:  # before the folder is made: the next try is then no second run
        raise UsageError(
            f"train.batch_size {recipe.train.batch_size} is more than the {images} training images of "
            f"{recipe.data.root}; lower it with --batch-size"
        )
    require_teacher_file(recipe, data[0].classes, folder)
    shapes = assemble(recipe, data[0].classes)
    require_given(recipe)
    require_fitting_head(recipe, shapes, comparing_outputs(recipe))
    memory = check_memory(recipe, shapes, contexts)
    with (
        _opened(folder, recipe, resume, warmups),
        contextlib.closing(_Run(recipe, folder, contexts, data, stop)) as run,
    ):
        if here().first:
            log_to(folder / "train.log")
        else:
            log.setLevel(logging.WARNING)  # the first worker speaks for all
        log.info("memory: %s", memory)
        warning = warn_of_inheritance(recipe)
        if warning and here().first:
            log.warning(warning)
        try:
            run.all_stages()
            return run.finish()
        except Stopped:
            log.info("stopped and saved")
            raise
        finally:
            close_log()


def _opened(folder: Path, recipe: Recipe, resume: bool, warmups: dict[str, int]) -> AbstractContextManager[Any]:
    """The run's folder, which the first worker prepares and locks and the others only read."""
    if here().first:
        return open_folder(folder, recipe, resume, warmups)
    here().require_visible(folder / RECIPE)
    return contextlib.nullcontext()


class _Run:
    """The state that stages share."""

    def __init__(self, recipe: Recipe, folder: Path, contexts: list[mx.Context], data: Any, stop: StopSignal) -> None:
        self.recipe, self.folder, self.contexts, self.stop = recipe, folder, contexts, stop
        self.train_set, self.val_set = data
        self.origin = checkpoint.origin(recipe, self.train_set.classes)
        saved = checkpoint.load_last(folder / "checkpoints", self.origin)
        self.arrays, state = saved if saved else ({}, {"progress": {}, "metrics_bytes": 0, "teacher_map": None})
        with checkpoint.fitting(folder):
            self.progress = Progress(**state["progress"])
            state = {key: state[key] and float(state[key]) for key in ("metrics_bytes", "teacher_map")}
        self.board = self._open_board() if recipe.train.tensorboard and here().first else None
        self.metrics = MetricsFile(folder / "metrics.jsonl", int(state["metrics_bytes"]), self.board)
        self.teacher_map: float | None = state["teacher_map"]
        self.teacher: Detector | None = None
        self.loader: Loader | None = None

    def close(self) -> None:
        """End the loader's processes and the event files."""
        self._close_loader()
        if self.board is not None:
            self.board.close()

    def _close_loader(self) -> None:
        if self.loader is not None:
            self.loader.close()

    def _open_board(self) -> Board:
        """TensorBoard's files, from where the run goes on."""
        trained = [stage.trains for stage in self.recipe.stages.values()][self.progress.stage :]
        return Board(self.folder / "tensorboard", {network: self.progress.step for network in trained[:1]})

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
                networks, trained = self._build(stage), stage.trains
            assert networks is not None
            self._stage(name, stage, networks)
            following = stages[index + 1][1].trains if index + 1 < len(stages) else None
            self._next_stage(goes_on=following == stage.trains)

    def _build(self, stage: Stage) -> Networks:
        """The networks of a stage on the run's devices: new, or as the checkpoint left them."""
        classes = self.train_set.classes
        if stage.trains == "teacher":
            loss = family(self.recipe.detector).detection_loss(self.recipe)
            networks = Networks(build_teacher(self.recipe, classes), loss)
        else:
            # Not before the stages that train it.
            to_come = list(self.recipe.stages.values())[self.progress.stage :]
            if self.recipe.needs_teacher and all(later.trains != "teacher" for later in to_come):
                self._require_teacher()
            places = compared_places(self.recipe, stage.trains)
            networks = build_student(self.recipe, classes, stage.trains, self.teacher, places)
            if self.teacher is not None and stage.trains != "baseline":
                log.info(head_in_words(self.recipe, stage.trains, networks.detector, self.teacher))
        for block in (networks.detector, networks.bridge, networks.teacher, networks.teacher_head):
            if block is not None:
                block.collect_params().reset_ctx(self.contexts)
        if self.progress.step:
            with checkpoint.fitting(self.folder):
                for part, parameters in parts.trained(networks).items():
                    set_values(parameters, stripped(part, self.arrays))
        self._close_loader()
        detector = networks.detector
        parts_ = Parts(detector.extractor, detector.head, detector.sizes)
        self.loader = Loader(
            self.train_set,
            family(self.recipe.detector).train_transform(self.recipe, parts_),
            self.recipe.train.batch_size,
            self.recipe.train.num_workers,
            self.recipe.train.seed,
            train=True,
            share=(here().rank, here().size),
            policy=worker_policy(self.recipe.train),
        )
        return networks

    def _require_teacher(self) -> None:
        """Load the trained teacher and measure it once a run: a bad teacher is found now, not after the training."""
        if self.teacher is not None:
            return
        best = self.folder / "teacher" / "best.params"
        if best.exists() or self.recipe.trains("teacher"):  # what a run trains it never replaces by an untrained one
            self.teacher = load_detector(best, self.recipe, self.train_set.classes)[0]
        else:
            self.teacher = build_teacher(self.recipe, self.train_set.classes)
        self.teacher.extractor.freeze()
        if not here().first:
            return
        if self.teacher_map is None:
            self.teacher.collect_params().reset_ctx(self.contexts)
            self.teacher_map = self._evaluate(self.teacher)["map"]
        if not best.with_suffix(".json").exists():  # killed between the two files, there is only the first
            self._save_best("teacher", self.teacher, None, 0, self.teacher_map)
        log.info("teacher %s: mAP=%.2f", self.recipe.teacher.backbone, self.teacher_map)
        require_good_teacher(self.recipe, self.teacher_map)

    def _stage(self, name: str, stage: Stage, networks: Networks) -> None:
        assert self.loader is not None
        distillers = build_distillers(self.recipe, stage, networks, self.contexts)
        optimisation = Optimisation(networks.parameters(distillers), stage.optimizer, stage.schedule, self.contexts)
        if self.progress.epoch or self.progress.batch:
            with checkpoint.fitting(self.folder):
                optimisation.load_state(stripped("optimiser", self.arrays))
                parts.load_distillers(distillers, self.arrays)
        self.arrays = {}
        here().require_equal(
            f"stage {name}", parts.everything(networks, optimisation, distillers), self.progress.position()
        )

        def measure(last: bool) -> dict[str, Any] | None:
            return self._evaluate(networks.detector, stage.trains, last) if here().first else None

        def keep_best(result: dict[str, Any]) -> None:
            if self.progress.improves(stage.trains, result["map"]):
                self._save_best(stage.trains, networks.detector, name, self.progress.epoch, result["map"])

        def save(progress: Progress, same_arrays: bool) -> None:
            self._save(name, progress, None if same_arrays else parts.arrays(networks, optimisation, distillers))

        log.info("stage %s trains the %s network for %d epochs", name, self._named(stage.trains), stage.epochs)
        step = Step(networks, distillers, optimisation, self.contexts, self.recipe.train.sync_bn)
        StageTrainer(
            name, stage, self.recipe.train, step, self.loader, self.metrics, self.progress,
            lambda: average_statistics(networks.detector.collect_params().values()), measure, keep_best, save,
        ).run(self.stop)  # fmt: skip

    def _next_stage(self, goes_on: bool) -> None:
        """Move on; the counters of a network go on as long as the next stage trains the same one."""
        following = Progress(stage=self.progress.stage + 1, best=self.progress.best)
        if goes_on:
            following.step, following.epochs_seen = self.progress.step, self.progress.epochs_seen
        self.progress = following

    def _evaluate(self, detector: Detector, trained: str | None = None, last: bool = False) -> dict[str, Any]:
        """mAP and AP by class in percent, on the recipe's test split; pictures of the network `trained` here.

        last: a stage ends here, and more of it is measured and kept, before a checkpoint says that it is over.
        """
        recipe = self.recipe
        result = evaluate(
            detector, self.val_set, self.contexts, recipe.eval, recipe.train.num_workers,
            policy=worker_policy(recipe.train),
        )  # fmt: skip
        log.info("Validation: %s, mAP=%.2f", ", ".join(f"{k}={v:.2f}" for k, v in result.ap.items()), result.map)
        if last and trained is not None:
            write_last(self.folder / trained, self.progress.step, further(self.val_set, result, recipe.eval))
        if self.board is not None and trained is not None:
            from gan_kd.training.panels import panels  # Matplotlib, for a run that asks for pictures only

            pictures = panels(trained, detector, self.val_set, result.detections, self.contexts[0])
            self.board.show(trained, self.progress.step, pictures)
        return {"map": result.map, "ap": result.ap}

    def _save_best(self, network: str, detector: Detector, stage: str | None, epoch: int, map_: float) -> None:
        teacher = known_sha256(self.folder / "teacher" / "best.params")
        meta = {
            **describe(self.recipe, network, detector, teacher),
            "stage": stage, "epoch": epoch, "map": map_, "recipe": self.recipe.name,
            "recipe_hash": recipe_hash(self.recipe), "commit": commit(), "seed": self.recipe.train.seed,
        }  # fmt: skip
        save_detector(detector, self.folder / network / "best.params", meta)

    def _save(self, stage: str, progress: Progress, arrays: dict[str, mx.nd.NDArray] | None) -> None:
        """A checkpoint, by the first worker; arrays: None where those of the newest one are the network's."""
        if not here().first:
            return
        parts.require_finite(arrays or {}, f"epoch {progress.epoch + (progress.batch > 0)} of stage {stage}")
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
        """Evaluate the best parameters of every network, write the report, print the last lines."""
        if not here().first:
            return self.folder
        self.teacher = None
        lines = []
        for network in ("teacher", "baseline", "control", "distilled"):
            best = self.folder / network / "best.params"
            if best.exists():
                release_memory()
                result = evaluate_params(self.recipe, best, self.contexts, self.val_set)
                write_json(self.folder / network / "eval.json", {**result, **last_epoch(self.folder, network)})
                lines.append(f"{self._named(network)} mAP={with_nan(result['map']):.2f}")
        with self.stop.held():  # some seconds, after which there is nothing left to stop
            report = make_report(self.folder)
            for line in (*lines, f"report: {report}"):
                log.log(RESULT, line)
        return report

    def _named(self, network: str) -> str:
        return network_in_words(network, self.recipe.distill.head)
