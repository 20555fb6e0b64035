"""A run: every stage of a recipe in order, then the evaluation of each network and the report."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from gan_kd.data.check import preflight
from gan_kd.data.loader import Loader
from gan_kd.data.transforms import TrainTransform
from gan_kd.distill import custom
from gan_kd.distill.base import Distiller
from gan_kd.engine import checkpoint
from gan_kd.engine.arrays import average_statistics, prefixed, set_values, stripped, values
from gan_kd.engine.available import release_memory
from gan_kd.engine.board import Board
from gan_kd.engine.contexts import open_contexts
from gan_kd.engine.evaluate import evaluate, evaluate_params
from gan_kd.engine.files import write_json
from gan_kd.engine.folder import commit, open_folder
from gan_kd.engine.logs import MetricsFile, close_log, log, log_to
from gan_kd.engine.memory import check_memory
from gan_kd.engine.networks import (
    build_distillers,
    build_student,
    build_teacher,
    describe,
    fetch_weights,
    head_in_words,
)
from gan_kd.engine.optim import Optimisation
from gan_kd.engine.saved import load_detector, save_detector
from gan_kd.engine.step import Networks, Step
from gan_kd.engine.train import Progress, StageTrainer, Stopped, StopSignal
from gan_kd.errors import RunError, UsageError, UserError
from gan_kd.models.ssd import Detector
from gan_kd.recipe import Recipe, Stage, recipe_hash
from gan_kd.report.report import make_report


def train(recipe: Recipe, prefix: Path, resume: bool) -> Path | None:
    """Run the recipe in `prefix`/NAME/SEED and give the path of the report; None where Ctrl-C ended it early.

    UsageError or RunError, one sentence, for everything that a user can mend.
    """
    folder = prefix / recipe.name / str(recipe.train.seed)
    contexts, data, *_ = _all_of(
        lambda: open_contexts(recipe.train.contexts),
        lambda: preflight(recipe.data),
        lambda: fetch_weights(recipe),
        lambda: custom.load_all(recipe),
    )
    images = len(data[0])
    if recipe.train.batch_size > images:  # before the folder is made: the next try is then no second run
        raise UsageError(
            f"train.batch_size {recipe.train.batch_size} is more than the {images} training images of "
            f"{recipe.data.root}; lower it with --batch-size"
        )
    memory = check_memory(recipe, data[0].classes, contexts)
    with open_folder(folder, recipe, resume), contextlib.closing(_Run(recipe, folder, contexts, data)) as run:
        log_to(folder / "train.log")
        log.info("memory: %s", memory)
        try:
            run.all_stages()
            return run.finish()
        except Stopped:
            log.info("stopped and saved; go on with: the same command and --resume")
            return None
        finally:
            close_log()


def _all_of(*needs: Callable[[], Any]) -> list[Any]:
    """What each of the functions gives; where some cannot, one sentence that names everything that is missing."""
    given, missing = [], []
    for need in needs:
        try:
            given.append(need())
        except UserError as error:
            missing.append(error)
    if len(missing) > 1:
        raise UsageError("; and ".join(str(error).rstrip(".") for error in missing))
    if missing:
        raise missing[0]
    return given


class _Run:
    """The state that stages share."""

    def __init__(self, recipe: Recipe, folder: Path, contexts: list[mx.Context], data: Any) -> None:
        self.recipe, self.folder, self.contexts = recipe, folder, contexts
        self.train_set, self.val_set = data
        saved = checkpoint.load_last(folder / "checkpoints")
        self.arrays, state = saved if saved else ({}, {"progress": {}, "metrics_bytes": 0, "teacher_map": None})
        self.progress = Progress(**state["progress"])
        self.board = self._open_board() if recipe.train.tensorboard else None
        self.metrics = MetricsFile(folder / "metrics.jsonl", state["metrics_bytes"], self.board)
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
        """Train what is left to train; raises Stopped after a Ctrl-C."""
        stages = list(self.recipe.stages.items())
        networks, trained = None, None
        with StopSignal() as stop:
            for index, (name, stage) in enumerate(stages):
                if index < self.progress.stage:
                    continue
                if stage.trains != trained:
                    networks = None  # the memory of one stage's networks is the next one's
                    release_memory()
                    networks, trained = self._build(stage), stage.trains
                assert networks is not None
                self._stage(name, stage, networks, stop)
                following = stages[index + 1][1].trains if index + 1 < len(stages) else None
                self._next_stage(goes_on=following == stage.trains)

    def _build(self, stage: Stage) -> Networks:
        """The networks of a stage on the run's devices: new, or as the checkpoint left them."""
        classes = self.train_set.classes
        if stage.trains == "teacher":
            networks = Networks(build_teacher(self.recipe, classes))
        else:
            if self.recipe.needs_teacher:
                self._require_teacher()
            networks = build_student(self.recipe, classes, stage.trains, self.teacher)
            if self.teacher is not None and stage.trains != "baseline":
                log.info(head_in_words(self.recipe, stage.trains, networks.detector, self.teacher))
        for block in (networks.detector, networks.bridge, networks.teacher):
            if block is not None:
                block.collect_params().reset_ctx(self.contexts)
        if self.progress.step:
            for part, parameters in _trained(networks).items():
                set_values(parameters, stripped(part, self.arrays))
        self._close_loader()
        anchors = networks.detector.head.anchors(networks.detector.extractor.sizes)
        self.loader = Loader(
            self.train_set,
            TrainTransform(self.recipe.data.size, anchors, self.recipe.data.augment),
            self.recipe.train.batch_size,
            self.recipe.train.num_workers,
            self.recipe.train.seed,
            train=True,
        )
        return networks

    def _require_teacher(self) -> None:
        """Load the trained teacher and measure it once a run: a bad teacher is found now, not after the training."""
        if self.teacher is not None:
            return
        best = self.folder / "teacher" / "best.params"
        if best.exists():
            self.teacher = load_detector(best, self.recipe)[0]
        else:
            self.teacher = build_teacher(self.recipe, self.train_set.classes)
        self.teacher.extractor.freeze()
        if self.teacher_map is None:
            self.teacher.collect_params().reset_ctx(self.contexts)
            self.teacher_map = self._evaluate(self.teacher)["map"]
            if not best.exists():
                self._save_best("teacher", self.teacher, None, 0, self.teacher_map)
        log.info("teacher %s: mAP=%.2f", self.recipe.teacher.backbone, self.teacher_map)
        if self.teacher_map < self.recipe.teacher.min_map:
            raise RunError(
                f"the teacher's mAP of {self.teacher_map:.2f} is below teacher.min_map "
                f"{self.recipe.teacher.min_map:g}: were its weights loaded, and are these its classes and data? "
                "A student is not trained from it"
            )

    def _stage(self, name: str, stage: Stage, networks: Networks, stop: StopSignal) -> None:
        assert self.loader is not None
        distillers = build_distillers(self.recipe, stage, networks, self.contexts)
        optimisation = Optimisation(networks.parameters(), stage.optimizer, stage.schedule, self.contexts)
        if self.progress.epoch or self.progress.batch:
            optimisation.load_state(stripped("optimiser", self.arrays))
            for distiller in distillers:
                distiller.load_state(stripped(distiller.name, self.arrays))
        self.arrays = {}

        def measure() -> dict[str, Any]:
            average_statistics(networks.detector.collect_params().values())
            result = self._evaluate(networks.detector)
            if result["map"] > self.progress.best.get(stage.trains, -1.0):
                self.progress.best[stage.trains] = result["map"]
                self._save_best(stage.trains, networks.detector, name, self.progress.epoch, result["map"])
            return result

        def save(progress: Progress) -> None:
            self._save(name, progress, _arrays(networks, optimisation, distillers))

        log.info("stage %s trains the %s network for %d epochs", name, stage.trains, stage.epochs)
        StageTrainer(
            name, stage, self.recipe.train, Step(networks, distillers, optimisation, self.contexts), self.loader,
            self.metrics, self.progress, measure, save,
        ).run(stop)  # fmt: skip

    def _next_stage(self, goes_on: bool) -> None:
        """Move on; the counters of a network go on as long as the next stage trains the same one."""
        following = Progress(stage=self.progress.stage + 1, best=self.progress.best)
        if goes_on:
            following.step, following.epochs_seen = self.progress.step, self.progress.epochs_seen
        self.progress = following

    def _evaluate(self, detector: Detector) -> dict[str, Any]:
        """mAP and AP by class in percent, on the recipe's test split."""
        recipe = self.recipe
        result = evaluate(
            detector, self.val_set, self.contexts, recipe.eval, recipe.data.size, recipe.train.num_workers
        )
        log.info("Validation: %s, mAP=%.2f", ", ".join(f"{k}={v:.2f}" for k, v in result.ap.items()), result.map)
        return {"map": result.map, "ap": result.ap}

    def _save_best(self, network: str, detector: Detector, stage: str | None, epoch: int, map_: float) -> None:
        meta = {
            **describe(self.recipe, network, detector),
            "stage": stage, "epoch": epoch, "map": map_, "recipe": self.recipe.name,
            "recipe_hash": recipe_hash(self.recipe), "commit": commit(), "seed": self.recipe.train.seed,
        }  # fmt: skip
        save_detector(detector, self.folder / network / "best.params", meta)

    def _save(self, stage: str, progress: Progress, arrays: dict[str, mx.nd.NDArray]) -> None:
        for name, array in arrays.items():
            # A loss can stay finite over weights that are not: ReLU turns nan into 0.
            if not np.isfinite(array.asnumpy()).all():
                raise RunError(
                    f"{name} holds nan or infinite values after epoch {progress.epoch} of stage {stage}: training "
                    "stops and the last checkpoint stays good; start a new run with a lower learning rate"
                )
        position = f"{progress.stage:02d}-{progress.epoch:04d}-{progress.batch:06d}-{stage}"
        state = {
            "progress": dataclasses.asdict(progress),
            "metrics_bytes": self.metrics.bytes,
            "teacher_map": self.teacher_map,
        }
        checkpoint.save(self.folder / "checkpoints", position, arrays, state, self.recipe.train.keep)

    def finish(self) -> Path:
        """Evaluate the best parameters of every network, write the report, print the last lines."""
        self.teacher = None
        lines = []
        for network in ("teacher", "baseline", "control", "distilled"):
            best = self.folder / network / "best.params"
            if best.exists():
                release_memory()
                result = evaluate_params(self.recipe, best, self.contexts, self.val_set)
                write_json(self.folder / network / "eval.json", {**result, "last_map": self._last_map(network)})
                lines.append(f"{network} mAP={result['map']:.2f}")
        report = make_report(self.folder)
        for line in (*lines, f"report: {report}"):
            log.info(line)
        return report

    def _last_map(self, network: str) -> float | None:
        """mAP of a network's last epoch, beside that of its best; None for a teacher that was not trained here."""
        records = [json.loads(line) for line in self.metrics.path.read_text().splitlines()]
        maps = [record["map"] for record in records if record["kind"] == "eval" and record["trains"] == network]
        return maps[-1] if maps else None


def _arrays(networks: Networks, optimisation: Optimisation, distillers: list[Distiller]) -> dict[str, mx.nd.NDArray]:
    """Everything in arrays that a stage under way is made of."""
    arrays = prefixed("optimiser", optimisation.state())
    for name, parameters in _trained(networks).items():
        arrays.update(prefixed(name, values(parameters)))
    for distiller in distillers:
        arrays.update(prefixed(distiller.name, distiller.state()))
    return arrays


def _trained(networks: Networks) -> dict[str, dict[str, mx.gluon.Parameter]]:
    """The parameters of what a stage trains, by the name of the part."""
    parts = {"detector": networks.detector.weights()}
    if networks.bridge is not None:
        parts["bridge"] = networks.bridge._collect_params_with_prefix()
    return parts
