"""What the pictures draw, read back from their data or their pixels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib import rcParams

from gan_kd.detectors.faster_rcnn import loss as faster_rcnn
from gan_kd.detectors.yolo3 import loss as yolo3
from gan_kd.errors import UsageError
from gan_kd.report import method, photos, plots
from gan_kd.report.page import COLOURS
from gan_kd.report.run import Network, read_run
from gan_kd.training.distillers import METHODS

CLASSES = ["circle", "square", "star"]


def painted(path: Path, colour: str) -> np.ndarray:
    """Columns of the picture in which `colour` was painted, as bool (W,)."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    image = cv2.imread(str(path))[..., ::-1].astype(int)
    return (np.abs(image - rgb).max(axis=2) < 3).any(axis=0)


def network(name: str, **parts: list) -> Network:
    return Network(name, True, parts.get("trains", []), parts.get("evals", []), {}, {})


def test_overlap_of_boxes() -> None:
    box = np.array([0.0, 0.0, 10.0, 10.0])
    assert photos.iou(box, box) == 1.0
    assert photos.iou(box, np.array([5.0, 0.0, 15.0, 10.0])) == pytest.approx(1 / 3)
    assert photos.iou(box, np.array([20.0, 20.0, 30.0, 30.0])) == 0.0
    assert photos.iou(np.zeros(4), np.zeros(4)) == 0.0


def test_detections_worth_drawing(run_folder: Callable[..., Path]) -> None:
    samples, absent = photos.choose(read_run(run_folder()))
    assert len(samples) == 3 and absent == 0
    boxes = photos.found_boxes(samples[0], "teacher", CLASSES)
    assert [(box.text, box.sure) for box in boxes] == [
        ("star 45", False),
        ("square 60", True),
        ("circle 90", True),
    ]
    truth = photos.truth_boxes(samples[0], CLASSES)
    assert [box.text for box in truth] == ["circle", "square (difficult)"]


def test_a_detection_of_another_class_hits_nothing() -> None:
    sample = {
        "gt": [[0, 0, 10, 10, 0, 0]],
        "detections": {"teacher": [[0, 0, 10, 10, 1, 0.9], [0, 0, 9, 10, 0, 0.5]]},
    }
    assert [box.sure for box in photos.found_boxes(sample, "teacher", CLASSES)] == [True, False]


def test_only_the_highest_detections_are_drawn() -> None:
    rows = [[0, 0, 10, 10, 0, score] for score in np.linspace(0.1, 0.99, 50)]
    boxes = photos.found_boxes({"gt": [], "detections": {"teacher": rows}}, "teacher", CLASSES)
    assert len(boxes) == photos.MOST and boxes[-1].text == "circle 99"


def test_a_network_without_the_sample_is_named_so(run_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = run_folder(networks=("teacher", "baseline"))
    run = read_run(folder)
    samples, _ = photos.choose(run)
    assert photos.detections(run, samples, CLASSES, tmp_path / "page.jpg")
    image = cv2.imread(str(tmp_path / "page.jpg"))
    panels = np.array_split(image[40:240], 4, axis=1)  # the first image, without the titles
    dark = [(panel.max(axis=2) < 100).mean() for panel in panels]
    assert dark[3] > 0.01 > dark[0]  # the remark's frame stands in the column of the network that was not run


def test_one_class_more_than_there_are_colours() -> None:
    label = len(photos.PALETTE)
    names = [f"class {k}" for k in range(label + 1)]
    [box] = photos.truth_boxes({"gt": [[0, 0, 5, 5, label, 0]]}, names)
    assert box.text == f"class {label}" and photos.PALETTE[box.label % label] == photos.PALETTE[0]


def test_curves_keep_to_their_colours_and_leave_matplotlib_alone(run_folder: Callable[..., Path]) -> None:
    folder = run_folder()
    networks = [read_run(folder).networks[name] for name in ("teacher", "baseline")]
    before = dict(rcParams)
    assert plots.map_curves(networks, folder / "map.png")
    assert painted(folder / "map.png", COLOURS["teacher"]).sum() > 50
    assert painted(folder / "map.png", COLOURS["baseline"]).sum() > 50
    assert painted(folder / "map.png", COLOURS["distilled"]).sum() == 0
    assert dict(rcParams) == before


def test_a_teacher_from_elsewhere_is_a_line_over_the_whole_width(tmp_path: Path) -> None:
    teacher = network("teacher")
    teacher.eval = {"map": 80.1}
    evals = [{"step": step, "map": 40.0} for step in (10, 20)]
    assert plots.map_curves([teacher, network("baseline", evals=evals)], tmp_path / "map.png")
    line, curve = (painted(tmp_path / "map.png", COLOURS[name]) for name in ("teacher", "baseline"))
    assert np.flatnonzero(line)[0] < np.flatnonzero(curve)[0]


def test_nothing_to_draw_writes_nothing(tmp_path: Path) -> None:
    empty = [
        network("teacher"),
        network("distilled", trains=[{"step": 1, "lr": None, "losses": {"conf": None}}]),
    ]
    for draw in (plots.map_curves, plots.losses, plots.critic, plots.learning_rate, plots.class_bars):
        assert not draw(empty, tmp_path / "plot.png")
    assert not plots.seed_curves([empty], tmp_path / "plot.png")
    assert not (tmp_path / "plot.png").exists()


def test_eighty_classes_wrap_into_rows(tmp_path: Path) -> None:
    teacher = network("teacher")
    teacher.eval = {"map": 50.0, "ap": {f"class {k}": float(k) for k in range(80)}}
    assert plots.class_bars([teacher], tmp_path / "eighty.png")
    teacher.eval["ap"] = {f"class {k}": float(k) for k in range(20)}
    assert plots.class_bars([teacher], tmp_path / "twenty.png")
    eighty, twenty = (cv2.imread(str(tmp_path / f"{name}.png")) for name in ("eighty", "twenty"))
    assert eighty.shape[1] == twenty.shape[1] and 3 < eighty.shape[0] / twenty.shape[0] < 4


def test_labels_that_would_overlap_are_pushed_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    networks = [network(name, evals=[{"step": 9, "map": 50.0}]) for name in ("teacher", "baseline", "distilled")]
    assert plots.map_curves(networks, tmp_path / "map.png")
    [axes] = drawn[0].axes
    drawn[0].draw_without_rendering()
    boxes = sorted(text.get_window_extent().bounds[1::2] for text in axes.texts)
    assert len(boxes) == 3
    assert all(low + height <= above for (low, height), (above, _) in zip(boxes, boxes[1:]))


def test_a_rate_that_falls_to_zero_does_not_flatten_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    rates = [{"step": step, "lr": rate} for step, rate in enumerate((1e-3, 1e-4, 1e-9, 0.0))]
    assert plots.learning_rate([network("teacher", trains=rates)], tmp_path / "lr.png")
    [axes] = drawn[0].axes
    low, top = axes.get_ylim()
    assert axes.get_yscale() == "log" and low > 1e-7 and top > 1e-3
    assert axes.texts[-1].get_position()[1] == 0  # its label stands at the foot of the axis


def test_the_picture_of_the_method(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert method.main([str(tmp_path / "results" / "method.png")]) == 0
    image = cv2.imread(str(tmp_path / "results" / "method.png"))
    assert image.shape[1] > 1600
    border = np.concatenate([image[:4].ravel(), image[-4:].ravel(), image[:, :4].ravel(), image[:, -4:].ravel()])
    assert border.min() == 255  # nothing is cut off at an edge
    assert method.main([str(tmp_path / "method.svg")]) == 0
    first = (tmp_path / "method.svg").read_bytes()
    method.draw(tmp_path / "method.svg")
    assert (tmp_path / "method.svg").read_bytes() == first
    assert method.main([]) == 2 and method.main([str(tmp_path / "method.gif")]) == 2
    assert ".png or .svg" in capsys.readouterr().err
    with pytest.raises(UsageError):
        method.draw(tmp_path / "method.gif")


def test_samples_are_the_same_images_for_all_networks(run_folder: Callable[..., Path]) -> None:
    folder = run_folder()
    other = json.loads((folder / "teacher" / "eval.json").read_text())
    other["samples"] = other["samples"][:1]
    (folder / "teacher" / "eval.json").write_text(json.dumps(other))
    samples, _ = photos.choose(read_run(folder))
    assert [sorted(sample["detections"]) for sample in samples] == [
        ["baseline", "distilled", "teacher"], ["baseline", "distilled"], ["baseline", "distilled"],
    ]  # fmt: skip


def test_losses_of_every_family_and_method_have_titles_in_words() -> None:
    methods = METHODS.keys() - {"gan", "localization"}  # whose losses have names of their own
    assert {*methods, *yolo3.LOSSES, *faster_rcnn.NAMES} <= plots.LOSSES.keys()
