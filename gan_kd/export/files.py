"""Which files are an export's, by their names: asked before MXNet is loaded."""

from __future__ import annotations

from pathlib import Path

#: Of an export's folder: what was written, and how it was checked.
RECORD = "export.json"
_ENDS = ("-symbol.json", "-0000.params", ".onnx")


def is_export(path: Path) -> bool:
    """Whether a path is an export's folder, or a file of one of its forms."""
    return path.is_dir() or (path.name.endswith(_ENDS) and (path.parent / RECORD).is_file())


def is_form(name: str) -> bool:
    """Whether a file of that name gives detections: MXNet's symbol, int8's too, and ONNX with suppression."""
    return name.endswith(("-symbol.json", "-nms.onnx"))
