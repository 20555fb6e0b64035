"""The published row beside a measured network: whose figure it is, and when there is none."""

from __future__ import annotations

import pytest

from gan_kd.recipe import load
from gan_kd.report.compare import published_for, taught_otherwise, text

VOC = "voc/mobilenet1.0-resnet50_v1"
COSINE = "ResNet50 + cosine attention"
TABLE1 = {"none": 75.4, "VGG16": 77.3, "ResNet50": 77.7, "ResNet101": 77.6, COSINE: 78.4}


@pytest.mark.parametrize(
    "recipe, network, row, column, value",
    [
        (VOC, "distilled", "MobileNetV1", "ResNet50", 77.7),
        (VOC, "baseline", "MobileNetV1", "none", 75.4),
        (VOC, "teacher", "ResNet50", "VOC07 test, mAP (%)", 80.1),
        ("voc/mobilenet1.0-resnet50_v1-cosine", "distilled", "MobileNetV1", COSINE, 78.4),
        ("voc/resnet18_v1-resnet101_v2", "distilled", "ResNet18", "ResNet101", 77.3),
        ("coco/mobilenet0.75-resnet50_v1", "distilled", "MobileNetV1_0.75", "ResNet50", 23.0),
        ("coco/mobilenet1.0-resnet50_v1", "teacher", "ResNet50", "COCO val2017, AP (%)", 30.6),
        ("gfl/resnet18_v1-resnet101_v1", "distilled", "ResNet18", "ResNet101", 37.5),
        ("gfl/tbr", "baseline", "ResNet50", "none", 40.1),
    ],
)
def test_each_network_has_its_cell(recipe, network, row, column, value):
    found = published_for(load(recipe), network, value + 1)
    assert found is not None
    assert (found["row"], found["column"], found["value"]) == (row, column, value)
    assert found["difference"] == pytest.approx(1)
    assert found["cells"][column] == value


def test_the_whole_row_is_told():
    found = published_for(load(VOC), "distilled", None)
    assert found is not None
    assert found["cells"] == TABLE1
    assert found["difference"] is None


@pytest.mark.parametrize(
    "override",
    ["teacher.weights=null,data.size=300", "eval.metric=voc10", "eval.iou=0.6", "data.val=[2012/val]"],
)
def test_what_is_not_comparable_has_no_figure(override):
    assert published_for(load(VOC, override.split(",")), "distilled", 77.0) is None


def test_networks_that_were_not_published_have_no_figure():
    assert published_for(load(VOC), "control", 77.0) is None
    assert published_for(load("mini/mobilenet0.25-mobilenet1.0"), "distilled", 77.0) is None


RESULT = {
    "network": "distilled",
    "recipe": VOC,
    "params_file": "best.params",
    "metric": "voc07",
    "images": 4952,
    "ap": {"aeroplane": 80.126, "cow": None},
    "map": 77.25,
    "summary": {},
}


def test_text_with_a_published_row():
    lines = text(RESULT, published_for(load(VOC), "distilled", 77.25)).splitlines()
    assert "aeroplane    80.13" in lines
    assert "cow              -" in lines
    assert "mAP          77.25" in lines
    assert "published     77.7" in lines
    assert "difference   -0.45" in lines
    assert any(line.startswith("MobileNetV1: none 75.4, VGG16 77.3, ResNet50 77.7") for line in lines)


def test_text_has_further_measures_of_vocs_rules():
    also = {"voc07": 77.25, "voc10": 79.5, "ap": 45.125, "ap75": 44.0}
    lines = text({**RESULT, "also": also}, None).splitlines()
    assert {"AP           45.12", "AP50         79.50", "AP75         44.00"} <= set(lines)


@pytest.mark.parametrize(
    "recipe, teacher, distillers, says",
    [
        (VOC, "resnet50_v1", ["gan"], None),
        (VOC, "resnet50_v1", None, None),  # a file of before it named them
        (VOC, "resnet101_v2", ["gan"], "it learnt from resnet101_v2, not resnet50_v1"),
        (VOC, None, None, "the file does not say which teacher it learnt from"),
        (f"{VOC}-cosine", "resnet50_v1", ["gan"], "its distillers were gan"),
        (f"{VOC}-cosine", "resnet50_v1", ["cosine_attention", "gan"], None),
    ],
)
def test_a_student_of_another_teacher_or_method_is_not_compared(recipe, teacher, distillers, says):
    taught = teacher and {"backbone": teacher, "sha256": None}
    found = taught_otherwise(load(recipe), {**RESULT, "teacher": taught, "distillers": distillers})
    assert found == (says and f"not compared with a published figure: {says}")
    if says:
        assert says in text(RESULT, None, found)
    assert taught_otherwise(load(recipe), {**RESULT, "network": "baseline", "teacher": None, "distillers": []}) is None


def test_text_without_a_published_row():
    shown = text({**RESULT, "metric": "coco", "summary": {"AP": 77.25, "AP50": 90.0}}, None)
    assert "no published figure for the distilled network of this recipe" in shown
    assert "AP50         90.00" in shown.splitlines()
    assert "AP           77.25" in shown.splitlines()
