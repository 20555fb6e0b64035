"""The kinds of files that come from strangers, with the number of cases of each."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.site import Site


class Kind(NamedTuple):
    """How many cases, what the files are, the parser without our checks, and the function that makes a folder of them.

    It is named MODULE.FUNCTION, as only some need MXNet, which takes seconds to load.
    """

    cases: int
    files: str
    parser: str
    maker: str

    def make(self, folder: Path) -> Site:
        """Sound files of this kind in a folder, and how to read them."""
        module, function = self.maker.split(".")
        return getattr(importlib.import_module(f"tests.fuzz.{module}"), function)(folder)


KINDS = {
    "params": Kind(500, ".params", "mx.nd.load", "weights.params"),
    "checkpoint": Kind(150, "checkpoint (arrays, state.json)", "mx.nd.load, json", "weights.checkpoint"),
    "detector": Kind(50, "best.json, best.params", "json", "weights.detector"),
    "export": Kind(120, "export (export.json, symbol, params)", "json", "weights.exported"),
    "xml": Kind(300, "VOC annotation", "ElementTree", "annotations.xml"),
    "list": Kind(60, "VOC list of images, class list", "str.splitlines", "annotations.lists"),
    "coco": Kind(250, "COCO annotation", "json", "annotations.coco"),
    "jpeg": Kind(250, "JPEG", "cv2.imdecode", "images.jpeg"),
    "png": Kind(150, "PNG", "cv2.imdecode", "images.png"),
    "bmp": Kind(70, "BMP", "cv2.imdecode", "images.bmp"),
    "webp": Kind(70, "WebP", "cv2.imdecode", "images.webp"),
    "recipe": Kind(250, "recipe", "yaml.safe_load", "texts.recipes"),
    "study": Kind(80, "study", "yaml.safe_load", "texts.studies"),
    "run": Kind(150, "run folder (metrics.jsonl, environment.json, ...)", "json", "texts.runs"),
}
