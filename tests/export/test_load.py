"""Exports run where params files do: the same detections, the same mAP, and every wrong file is one sentence."""

from __future__ import annotations

import dataclasses
import json
import shutil
from functools import partial

import mxnet as mx
import numpy as np
import pytest

from gan_kd.commands import detect, evaluate
from gan_kd.errors import UsageError
from gan_kd.evaluation.evaluate import detect_rows
from gan_kd.export.load import load_exported
from gan_kd.recipe import to_yaml
from tests.export.test_run import recipe

NAME = "ssd_128_mobilenet0.25"
FORMS = {"symbol": f"{NAME}-symbol.json", "ONNX": f"{NAME}-nms.onnx", "int8": f"{NAME}-int8-symbol.json"}


@pytest.fixture
def copied(exported, tmp_path):
    """The export, to be harmed."""
    return shutil.copytree(exported.out, tmp_path / "copied")


@pytest.mark.parametrize("form", FORMS)
def test_a_form_detects_as_its_network(exported, detector, pixels, form):
    images = mx.nd.array(pixels[:4])
    expected = detect_rows(detector, images).asnumpy()
    found = load_exported(exported.out / FORMS[form]).detect(images).asnumpy()
    assert found.shape == expected.shape
    if form == "symbol":
        np.testing.assert_array_equal(found, expected)
    else:  # scores of random weights are nearly equal: rows may change places, scores may not
        np.testing.assert_allclose(found[..., 5], expected[..., 5], atol=1e-4 if form == "ONNX" else 0.1)


def test_a_folder_stands_for_the_first_of_its_forms(copied):
    assert load_exported(copied).files[0].name == FORMS["symbol"]
    (copied / FORMS["symbol"]).unlink()
    assert load_exported(copied).files[0].name == FORMS["ONNX"]
    (copied / FORMS["ONNX"]).unlink()
    assert load_exported(copied).files[0].name == FORMS["int8"]
    (copied / FORMS["int8"]).unlink()
    with pytest.raises(UsageError, match="holds no form that gives detections"):
        load_exported(copied)


@pytest.mark.parametrize("form", FORMS)
def test_the_commands_take_it_as_they_take_the_params_file(exported, params, folder, tmp_path, form, capsys):
    """mAP of few drawn images by random weights; of int8 only that there is one."""
    few = recipe(tmp_path / "drawn")
    few = dataclasses.replace(few, eval=dataclasses.replace(few.eval, nms_topk=60, post_nms=20))  # as in the export
    (tmp_path / "few.yaml").write_text(to_yaml(few), "utf-8")
    measured, detected = [], []
    for name, file in (("params", params), ("form", exported.out / FORMS[form])):
        result = tmp_path / f"{name}.json"
        arguments = ["--params", str(file), "--recipe", str(tmp_path / "few.yaml"), "--json", str(result)]
        assert evaluate.main(arguments) == 0
        measured.append(json.loads(result.read_text()))
        out = tmp_path / name
        assert detect.main([str(folder), "--params", str(file), "--out", str(out), "--threshold", "0"]) == 0
        detected.append([(out / file).read_bytes() for file in ("detections.json", "images.json")])
        assert len(list(out.iterdir())) == 14
    assert measured[0].keys() == measured[1].keys()
    assert [result["images"] for result in measured] == [10, 10]
    assert measured[0]["parameters"] == measured[1]["parameters"] and measured[0]["macs"] == measured[1]["macs"]
    assert detected[0][1] == detected[1][1]
    if form == "symbol":
        assert detected[0] == detected[1] and measured[0]["ap"] == measured[1]["ap"]
    if form == "ONNX":
        assert measured[1]["map"] == pytest.approx(measured[0]["map"], abs=1e-3)
    assert measured[1]["map"] is not None and "mAP" in capsys.readouterr().out


def changed(folder, **values):
    record = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps({**record, **values}))


def test_wrong_exports(copied):
    def refused(name, sentence):
        with pytest.raises(UsageError, match=sentence):
            load_exported(copied / name)

    refused(f"{NAME}.onnx", f"gives scores, but no detections; take {NAME}-nms.onnx")
    (copied / "other-symbol.json").touch()
    refused("other-symbol.json", "export.json names no such file")
    for file in (copied / FORMS["ONNX"], copied / f"{NAME}-0000.params"):
        file.write_bytes(file.read_bytes()[:-7])
    refused(FORMS["ONNX"], "nms.onnx: truncated or changed since it was exported")
    refused("", "0000.params: truncated or changed since it was exported")
    forms = json.loads((copied / "export.json").read_text())["forms"]
    changed(copied, forms=[{key: value for key, value in form.items() if key != "sha256"} for form in forms])
    refused(FORMS["ONNX"], "nms.onnx is truncated or no ONNX file")
    refused("", "0000.params are truncated or not MXNet's")
    changed(copied, forms=[{**forms[1], "files": ["../x-symbol.json"]}])
    refused("", "holds no form that gives detections")
    changed(copied, classes=[])
    refused(FORMS["int8"], "names no such file")
    changed(copied, forms=forms)
    refused(FORMS["int8"], "not the record of an export .the classes are none")
    (copied / "export.json").write_text("[")
    refused("", "export.json: not JSON")
    (copied / "export.json").unlink()
    refused("", "holds no export.json; name a params file, or what `export` wrote")


def test_other_classes_than_the_datas_are_refused(exported, tmp_path):
    (tmp_path / "few.yaml").write_text(to_yaml(recipe(tmp_path / "drawn", ["circle", "square"])), "utf-8")
    run = partial(evaluate.main, ["--params", str(exported.out), "--recipe", str(tmp_path / "few.yaml")])
    with pytest.raises(UsageError, match="trained on the classes circle, .* but the data has circle, square"):
        run()
