"""What a run measures of its networks, and what it keeps of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mxnet as mx

from gan_kd.data.dataset import DetectionDataset
from gan_kd.data.loader import worker_policy
from gan_kd.detectors.base import Detector
from gan_kd.detectors.saved import describe, known_sha256, save_detector
from gan_kd.evaluation.evaluate import evaluate, evaluate_params, further
from gan_kd.recipe import Recipe, network_in_words, recipe_hash
from gan_kd.report.report import make_report
from gan_kd.system.console import RESULT
from gan_kd.system.files import write_json
from gan_kd.system.memory import release_memory
from gan_kd.system.stop import StopSignal
from gan_kd.system.strict_json import with_nan
from gan_kd.system.version import commit
from gan_kd.training.board import Board
from gan_kd.training.last import last_epoch, write_last
from gan_kd.training.logs import log


class Results:
    """The measurements of a run, in its folder. board: for pictures, where the run asks for them."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        val_set: DetectionDataset,
        contexts: Sequence[mx.Context],
        board: Board | None,
    ) -> None:
        self.recipe, self.folder, self.val_set, self.contexts, self.board = recipe, folder, val_set, contexts, board

    def best(self, network: str) -> Path:
        """The file of a network's best parameters."""
        return self.folder / network / "best.params"

    def measure(
        self, detector: Detector, trained: str | None = None, step: int = 0, last: bool = False
    ) -> dict[str, Any]:
        """mAP and AP by class in percent, on the recipe's test split; pictures of the network `trained` here.

        step: batches that it was trained on. last: a stage ends here, and more of it is measured and kept, before a
        checkpoint says that it is over.
        """
        recipe = self.recipe
        result = evaluate(
            detector, self.val_set, self.contexts, recipe.eval, recipe.train.num_workers,
            policy=worker_policy(recipe.train),
        )  # fmt: skip
        log.info("Validation: %s, mAP=%.2f", ", ".join(f"{k}={v:.2f}" for k, v in result.ap.items()), result.map)
        if last and trained is not None:
            write_last(self.folder / trained, step, further(self.val_set, result, recipe.eval))
        if self.board is not None and trained is not None:
            from gan_kd.training.panels import panels  # Matplotlib, for a run that asks for pictures only

            pictures = panels(trained, detector, self.val_set, result.detections, self.contexts[0])
            self.board.show(trained, step, pictures)
        return {"map": result.map, "ap": result.ap}

    def save_best(self, network: str, detector: Detector, stage: str | None, epoch: int, map_: float) -> None:
        """Write the parameters of a network with what is known of them."""
        meta = {
            **describe(self.recipe, network, detector, known_sha256(self.best("teacher"))),
            "stage": stage, "epoch": epoch, "map": map_, "recipe": self.recipe.name,
            "recipe_hash": recipe_hash(self.recipe), "commit": commit(), "seed": self.recipe.train.seed,
        }  # fmt: skip
        save_detector(detector, self.best(network), meta)

    def finish(self, stop: StopSignal) -> Path:
        """Evaluate the best parameters of every network, write the report, print the last lines; the report's path."""
        lines = []
        for network in ("teacher", "baseline", "control", "distilled"):
            if self.best(network).exists():
                release_memory()
                result = evaluate_params(self.recipe, self.best(network), self.contexts, self.val_set)
                write_json(self.folder / network / "eval.json", {**result, **last_epoch(self.folder, network)})
                lines.append(f"{network_in_words(network, self.recipe.distill.head)} mAP={with_nan(result['map']):.2f}")
        with stop.held():  # some seconds, after which there is nothing left to stop
            report = make_report(self.folder)
            for line in (*lines, f"report: {report}"):
                log.log(RESULT, line)
        return report
