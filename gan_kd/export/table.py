"""What each form of a network costs: parameters, multiply-accumulates, bytes, images per second, mAP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gan_kd.export.forms import BATCH, Form
from gan_kd.report.page import Block, Code, Table, Text
from gan_kd.system.files import sha256
from gan_kd.system.timing import in_turn, ratios

ROUNDS = 31  # timed passes


def measure(forms: Sequence[Form], student: Form, rounds: int) -> list[dict[str, Any]]:
    """The rows, timed in turn; speed_ratio: speed by that of `student`, one of them, quartiles over the rounds."""
    seconds = in_turn({str(row): form.run for row, form in enumerate(forms)}, rounds)
    own = seconds[str(forms.index(student))]
    return [
        {
            "name": form.name,
            "files": [file.name for file in form.files],
            "parameters": form.parameters,
            "macs": form.macs,
            "sha256": {file.name: sha256(file) for file in form.files},
            "bytes": sum(file.stat().st_size for file in form.files),
            "images_per_s": BATCH / float(np.median(seconds[str(row)])),
            "speed_ratio": np.percentile(ratios(own, seconds[str(row)]), [25, 50, 75]).tolist(),
            "map": None,
        }
        for row, form in enumerate(forms)
    ]


def markdown(record: Mapping[str, Any]) -> str:
    """The page of an export's record."""
    return "\n\n".join([f"# {record['name']}", *(block.markdown() for block in _blocks(record))]) + "\n"


def table(record: Mapping[str, Any]) -> Table:
    """The rows of an export's record."""
    metric = f"mAP ({record['metric']})" if record["metric"] else "mAP"
    head = ("", "parameters", "MACs", "MB", "images/s", "speed", metric)
    rows = [
        (
            row["name"],
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['macs'] / 1e9:.3f} G",
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['images_per_s']:.1f}",
            "{1:.2f} ({0:.2f} to {2:.2f})".format(*row["speed_ratio"]),
            "-" if row["map"] is None else f"{row['map']:.2f}",
        )
        for row in record["forms"]
    ]
    return Table(head, rows, "lrrrrrr")


def _blocks(record: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = [
        Text(_described(record)),
        table(record),
        Text(
            f"Timed in turn, median of {record['rounds']} passes of {BATCH} images, {record['threads']} thread(s), "
            f"from the input to detections. Speed: by that of the {record['source']['network']} network in MXNet, "
            "median and quartiles. MACs: multiply-accumulates of an image. MB: of the form's own files."
        ),
    ]
    blocks += [Text(f"{sentence}.") for sentence in record["checks"]]
    machine = record["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("python", "numpy", "mxnet"))
    blocks.append(Text(f"{machine['cpu']}, {machine['cores']} cores; {versions}; commit {record['commit']}."))
    return [*blocks, Code(record["command"])] if record["command"] else blocks


def _described(record: Mapping[str, Any]) -> str:
    """Where the network comes from, and what it takes."""
    source, taken = record["source"], record["input"]
    run = f", recipe {source['recipe']}, seed {source['seed']}, commit {source['commit']}" if "recipe" in source else ""
    adapters = ", adapters" if source["adapters"] else ""
    heads = {"own": "its own head", "untrained": f"a head of {source['head_backbone']}'s layers"}
    head = heads.get(source["head"], f"the head of {source['head_backbone']}")
    shape, mean, std = (", ".join(map(str, taken[key])) for key in ("shape", "mean", "std"))
    return (
        f"The {source['network']} network{run}: {source['backbone']}{adapters} and {head}. Classes: "
        f"{', '.join(record['classes'])}. Input: {taken['name']} ({shape}) float32, {taken['colours']} from 0 to 255 "
        f"less {mean}, by {std}. Boxes are in its pixels."
    )


def text(record: Mapping[str, Any]) -> str:
    """The table for a terminal, and what was checked."""
    shown = table(record)
    lines = [shown.head, *shown.rows]
    widths = [max(len(str(line[column])) for line in lines) for column in range(len(shown.head))]
    aligned = (
        "  ".join(
            str(cell).ljust(width) if side == "l" else str(cell).rjust(width)
            for cell, width, side in zip(line, widths, shown.align)
        )
        for line in lines
    )
    return "\n".join([*aligned, *record["checks"]])
