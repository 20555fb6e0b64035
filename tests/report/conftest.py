"""A run folder as training writes it, of invented numbers and drawn images, so that no test has to train."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

CLASSES = ["circle", "square", "star"]
MAPS = {"teacher": 81.0, "baseline": 62.0, "control": 64.0, "distilled": 68.5}
STAGES = {
    "teacher": ["teacher"],
    "baseline": ["baseline"],
    "control": ["control"],
    "distilled": ["adversarial", "finetune"],
}
MACHINE = {"cpu": "Some CPU", "cores": 2, "mxnet": "1.9.1", "numpy": "1.26.4", "python": "3.11.9"}


def recipe(seed: int, networks: tuple[str, ...]) -> dict[str, Any]:
    """The keys of a resolved recipe that a report reads."""
    stages = {stage: {"trains": name, "epochs": 4, "distillers": []} for name in networks for stage in STAGES[name]}
    if "adversarial" in stages:
        stages["adversarial"]["distillers"] = ["gan"]
    return {
        "name": "mini/small-large",
        "description": "A student of a quarter of the width on drawn shapes.",
        "published": None,
        "data": {
            "dataset": "demo",
            "root": "data/demo",
            "train": ["train"],
            "val": ["test"],
            "size": 300,
            "classes": CLASSES,
        },
        "teacher": {"backbone": "mobilenet1.0", "weights": None},
        "student": {"backbone": "mobilenet0.25"},
        "stages": stages,
        "train": {"batch_size": 16, "seed": seed, "contexts": ["cpu:0"]},
        "eval": {"metric": "voc07"},
    }


def records(name: str, best: float, rng: np.random.Generator) -> list[dict[str, Any]]:
    """metrics.jsonl of one network: 40 batches an epoch, 4 epochs a stage."""
    found: list[dict[str, Any]] = []
    step, total = 0, 160 * len(STAGES[name])
    for stage in STAGES[name]:
        for epoch in range(1, 5):
            for batch in range(2, 42, 2):
                step += 2
                decay = float(np.exp(-3 * step / total))
                losses = {
                    "conf": 1.4 + 4 * decay + 0.3 * rng.random(),
                    "loc": 0.7 + 2 * decay + 0.2 * rng.random(),
                }
                record = {
                    "kind": "train",
                    "stage": stage,
                    "trains": name,
                    "epoch": epoch,
                    "batch": batch,
                    "step": step,
                }
                record |= {"lr": 0.001 if epoch < 4 else 0.0001, "losses": losses}
                if stage == "adversarial":
                    gap = 4 * decay + 0.1 * rng.random()
                    losses |= {"adversarial": 1 + gap, "critic": -gap}
                    record |= {"critic_real": 1.0, "critic_fake": 1 + gap}
                found.append(record)
            value = best * (1 - float(np.exp(-4 * step / total)))
            ap = {label: value + shift for label, shift in zip(CLASSES, (4.0, 1.0, -5.0))}
            position = {"stage": stage, "trains": name, "epoch": epoch, "step": step}
            if stage == "adversarial":
                found.append({"kind": "diagnosis", **position, "batch": 40, **diagnosis(epoch)})
            found.append({"kind": "eval", **position, "map": value, "ap": ap})
    return found


def diagnosis(epoch: int) -> dict[str, list[float]]:
    """Lists of one number a map: the 2x2 map's critic, which has no BatchNorm, far ahead of the others."""
    return {
        "maps": [16, 8, 2, 1],
        "attention_cosine": [0.6 + 0.08 * epoch, 0.8, 0.9, 1.0],
        "gradient_detection": [0.4, 0.3, 0.2, 0.0],  # no object of the last map's size in the batch
        "gradient_adversarial": [1e-4 * epoch, 2e-4, 0.5, 0.01],
        "critic_gap": [0.01 * epoch, 0.02, 20.0 * epoch, 0.5],
        "critic_at_bound": [0.05, 0.04, 0.1 * epoch, 0.2],
        "gradient_cosine_attention": [1e-3, 2e-3, 2e-3, 0.0],
    }


def attention(shift: int) -> list[list[str]]:
    """An 8x8 and a 4x4 map, bright in a sixteenth of their area, as eval.json keeps them."""
    maps = []
    for side in (8, 4):
        cells = np.full((side, side), 20, np.uint8)
        part, column = side // 4, (1 + shift) % 4 * side // 4
        cells[part : 2 * part, column : column + part] = 255
        maps.append([row.tobytes().hex() for row in cells])
    return maps


def samples(folder: Path, jitter: float, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Three drawn images with their objects, and detections off by about `jitter` px."""
    found = []
    for index, (width, height) in enumerate([(240, 180), (180, 240), (200, 200)]):
        image = rng.integers(150, 200, (height, width, 3), dtype=np.uint8)
        cv2.circle(image, (60, 60), 40, (60, 90, 220), -1)
        cv2.rectangle(image, (110, 110), (170, 170), (90, 200, 60), -1)
        cv2.imwrite(str(folder / f"{index}.jpg"), image)
        gt = [[20, 20, 100, 100, 0, 0], [110, 110, 170, 170, 1, 1]]
        found_boxes = [
            [*(np.array(box[:4]) + rng.normal(0, jitter, 4)).tolist(), box[4], 0.9 - 0.3 * i]
            for i, box in enumerate(gt)
        ]
        noise = [[5.0, 120.0, 60.0, 175.0, 2, 0.45], [0.0, 0.0, 30.0, 30.0, 2, 0.05]]
        about = {"id": f"{index}", "image": str(folder / f"{index}.jpg"), "width": width, "height": height}
        found.append({**about, "gt": gt, "detections": found_boxes + noise})
    return found


def write_run(root: Path, seed: int = 233, networks: tuple[str, ...] = ("teacher", "baseline", "distilled")) -> Path:
    """Write runs/mini/small-large/SEED below `root`; the folder."""
    rng = np.random.default_rng(seed)
    folder, images = root / "runs" / "mini" / "small-large" / str(seed), root / "images"
    folder.mkdir(parents=True)
    images.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe(seed, networks), sort_keys=False))
    (folder / "train.log").write_text("[Epoch 0][Batch 1], Speed: 20.0 samples/sec\n")
    environment = {
        "commands": [f"python -m gan_kd train --recipe mini/small-large --seed {seed}"],
        "python": "3.11.9",
    }
    (folder / "environment.json").write_text(json.dumps(environment))
    lines = []
    for name in networks:
        best = MAPS[name] + float(rng.normal(0, 1))
        lines += records(name, best, rng)
        final = lines[-1]
        origin = {
            "recipe": "mini/small-large",
            "recipe_hash": "ab" * 32,
            "commit": "c0ffee" * 6,
            "seed": seed,
            "network": name,
        }
        (folder / name).mkdir()
        described = {
            **origin,
            "backbone": "mobilenet0.25",
            "classes": CLASSES,
            "head": "own",
            "sha256": "0123456789abcdef" * 4,
        }
        described |= {"stage": STAGES[name][-1], "epoch": 4, "map": final["map"]}
        (folder / name / "best.json").write_text(json.dumps(described))
        measured = {
            **origin,
            "metric": "voc07",
            "map": final["map"],
            "ap": final["ap"],
            "images": 200,
            "machine": MACHINE,
        }
        measured |= {
            "parameters": 3_210_000,
            "macs": 1_150_000_000,
            "images_per_s": 41.5,
            "last_map": final["map"] - 0.5,
        }
        measured["samples"] = samples(images, 20 / (MAPS[name] - 55), np.random.default_rng(5))
        for sample in measured["samples"][:2]:
            sample["attention"] = attention(len(name))
        (folder / name / "eval.json").write_text(json.dumps(measured))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def run_folder(tmp_path: Path) -> Callable[..., Path]:
    """`run_folder(seed=233, networks=(...))` writes a run below the test's own folder."""
    return lambda **options: write_run(tmp_path, **options)
