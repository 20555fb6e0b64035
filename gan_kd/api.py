"""The package from Python in five functions: load, split, distill, evaluate, export.

from gan_kd.api import distill, evaluate, export, load, split

MXNet is loaded by the first call, not by the import. Mistakes are `gan_kd.errors.UserError`, as on the command line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from gan_kd import compat
from gan_kd.commands.evaluate import recipe_of_run
from gan_kd.errors import UsageError
from gan_kd.recipe import Recipe
from gan_kd.recipe import load as load_recipe
from gan_kd.system.console import screen
from gan_kd.system.paths import expanded

if TYPE_CHECKING:
    from gluoncv.model_zoo.ssd import SSD
    from PIL.Image import Image

    from gan_kd.detectors.base import Detector, Extractor, Head
    from gan_kd.evaluation.evaluate import Evaluation

AnyRecipe = Union[str, Path, Recipe]  # a shipped name, a .yaml file, or the recipe itself


@dataclass(frozen=True)
class TrainedDetector:
    """A trained network: images in, boxes out.

    params: the file of its weights. network: the Gluon block, on the CPU unless an evaluation moved it. about: what
    best.json says of it.
    """

    params: Path
    network: Detector
    about: Mapping[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels."""
        return self.network.classes

    @property
    def size(self) -> int:
        """Side of the network input, px: of a square one, else the height for a usual photo."""
        return self.network.sizes.typical[0]

    def __call__(self, *images: np.ndarray | Image | str | Path) -> list[np.ndarray]:
        """What is found in each image, as one batch: (K, 6) float32 x0, y0, x1, y1, class, score, by falling score.

        images: files, or arrays and images of Pillow as of `gan_kd.data.images.as_rgb`: uint8 RGB (H, W, 3) or gray,
        others are refused. Boxes are in the image's pixels. RunError for a file that is no image, UsageError for an
        array that is none.
        """
        import mxnet as mx

        from gan_kd.data.images import as_rgb, read
        from gan_kd.data.pixels import ValTransform
        from gan_kd.evaluation.evaluate import detect_rows

        if not images:
            return []
        pixels = [
            read(Path(image)) if isinstance(image, (str, Path)) else as_rgb(image, f"image {number}")
            for number, image in enumerate(images, 1)
        ]
        sizes, context = self.network.sizes, self.network.head.contexts[0]
        inputs, scales = zip(*map(ValTransform(sizes), pixels))
        extents = sizes.extents(np.array([image.shape[:2] for image in pixels]))
        # As one batch where they are of one size.
        batches = [slice(k, k + 1) for k in range(len(pixels))] if sizes.padded else [slice(None)]
        arrays = [[mx.nd.array(x, ctx=context) for x in (np.stack(inputs[part]), extents[part])] for part in batches]
        rows = np.concatenate([detect_rows(self.network, *each).asnumpy() for each in arrays])
        found = []
        for image, scale, table in zip(pixels, scales, rows):
            table = table[table[:, 4] >= 0]
            last = np.tile(image.shape[1::-1], 2) - 1
            table[:, :4] = np.clip(table[:, :4] * np.tile(scale, 2), 0, last)
            found.append(table)
        return found


def load(params: str | Path, recipe: AnyRecipe | None = None) -> TrainedDetector:
    """The detector in a params file.

    recipe: needed where no best.json lies beside the file to say what it holds, as for GluonCV's own files.
    """
    compat.set_default_threads()
    from gan_kd.detectors.saved import load_detector

    path = expanded(params)
    network, about = load_detector(path, None if recipe is None else load_recipe(recipe))
    return TrainedDetector(path, network, about)


def split(detector: TrainedDetector | SSD) -> tuple[Extractor, Head]:
    """Extractor and head of a detector, or of a GluonCV SSD: `head(*extractor(x))` are its class and box predictions.

    Nothing is copied (paper, algorithm, step 1). UsageError where adapters lie between the two.
    """
    from gan_kd.detectors.ssd import network as ssd

    if not isinstance(detector, TrainedDetector):
        return ssd.split(detector)
    network = detector.network
    if network.adapters is not None:
        raise UsageError(
            f"{detector.params}: adapters lie between its extractor and head; take network.extractor, "
            "network.adapters and network.head"
        )
    return network.extractor, network.head


def distill(
    recipe: AnyRecipe,
    teacher: TrainedDetector | str | Path | None = None,
    overrides: Sequence[str] = (),
    save_prefix: str | Path = "runs",
    resume: bool = False,
) -> TrainedDetector:
    """Run a recipe as `python -m gan_kd train` does, and give its distilled student.

    teacher: a trained one, or its params file, instead of the recipe's. overrides: 'a.b=value', as for --set. The run
    lies in save_prefix/NAME/SEED. KeyboardInterrupt where Ctrl-C ended it; it is saved then.
    """
    weights = teacher.params if isinstance(teacher, TrainedDetector) else teacher
    given = [] if weights is None else [f"teacher.weights={json.dumps(str(weights))}"]
    asked = load_recipe(recipe, [*given, *overrides])
    if not asked.trains("distilled"):
        raise UsageError(f"recipe {asked.name} trains no distilled student")
    compat.set_default_threads(asked.train.num_workers)
    from gan_kd.system.stop import StopSignal
    from gan_kd.training.run import train

    with screen(), StopSignal() as stop:
        train(asked, Path(save_prefix), resume, stop)
    return load(Path(save_prefix, asked.name, str(asked.train.seed), "distilled", "best.params"))


def evaluate(detector: TrainedDetector, recipe: AnyRecipe | None = None, overrides: Sequence[str] = ()) -> Evaluation:
    """Measure a detector on a recipe's test split: `.map` and `.ap` in percent, `.detections` of each image.

    recipe: that of the run whose folder holds the params file, by default. The network moves to its devices.
    """
    asked = load_recipe(recipe_of_run(detector.params) if recipe is None else recipe, overrides)
    compat.set_default_threads(asked.train.num_workers)
    from gan_kd.data.dataset import open_split
    from gan_kd.detectors.families import family
    from gan_kd.detectors.saved import require_classes
    from gan_kd.evaluation.evaluate import evaluate
    from gan_kd.gluon.contexts import open_contexts

    contexts, dataset = open_contexts(asked.train.contexts), open_split(asked.data, "val")
    require_classes(detector.params, detector.about, dataset.classes)
    network, how = detector.network, asked.eval
    network.collect_params().reset_ctx(contexts)
    measured = family(asked.detector).join(network.parts(), network.adapters, how)
    return evaluate(measured, dataset, contexts, how, asked.train.num_workers)


def export(detector: TrainedDetector, out: str | Path, formats: Sequence[str] = ("mxnet", "onnx")) -> dict[str, Any]:
    """Write a detector into a folder in forms for products, checked against it; returns what export.json then holds."""
    compat.set_default_threads()
    from gan_kd.export.run import export

    return export(detector.params, Path(out), formats)
