"""The commands on files from strangers: an exit code, one line, and nothing half made."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gan_kd.__main__ import main
from gan_kd.recipe import to_yaml
from tests.fuzz import annotations as marks
from tests.fuzz import images, texts, weights


@pytest.fixture
def data(tmp_path):
    """A sound set of two images in VOC's layout and a recipe of it; what is damaged lies in there."""
    marks.xml(tmp_path / "data")
    (tmp_path / "recipe.yaml").write_text(
        "inherits: demo\n"
        f"data: {{dataset: folder, root: {tmp_path / 'data'}, classes: [cat, dog], train: [train], val: [val]}}\n"
        "train: {batch_size: 2, num_workers: 0}\n"
    )
    return tmp_path


def refused(capsys, *arguments: object) -> tuple[int, str]:
    """The exit code and the one line of a command."""
    code = main([str(argument) for argument in arguments])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and lines[0].isprintable(), lines
    return code, lines[0]


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_train_and_check_with_a_bomb_among_the_images(data, capsys):
    (data / "data/JPEGImages/a.jpg").unlink()
    (data / "data/JPEGImages/a.png").write_bytes(images._png(60_000, 60_000))
    before = files(data)
    assert main(["check", "--recipe", str(data / "recipe.yaml")]) == 1
    assert "has 60000 x 60000 px, more than the 100 million pixels" in capsys.readouterr().out
    code, line = refused(capsys, "train", "--recipe", data / "recipe.yaml", "--save-prefix", data / "runs")
    assert code == 2 and "60000 x 60000 px" in line
    assert files(data) == before


def test_train_with_entities_in_an_annotation(data, capsys):
    (data / "data/Annotations/b.xml").write_bytes(marks._typed(marks._entity("a", "cat"), "&a;"))
    code, line = refused(capsys, "train", "--recipe", data / "recipe.yaml", "--save-prefix", data / "runs")
    assert code == 2 and "b.xml: is not XML (it has a document type" in line
    assert not (data / "runs").exists()


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(data, capsys):
    (data / "data/Annotations/b.xml").unlink()
    (data / "data/JPEGImages/b.jpg").unlink()
    os.mkfifo(data / "data/Annotations/b.xml")
    os.mkfifo(data / "data/JPEGImages/b.jpg")
    assert main(["check", "--recipe", str(data / "recipe.yaml")]) == 1
    said = capsys.readouterr().out
    assert "b.xml: is not XML (not a regular file)" in said and "b.jpg: is not a file" in said


def test_links_that_the_user_made_are_followed(data, capsys):
    images_folder = data / "data/JPEGImages"
    images_folder.rename(data / "elsewhere")
    images_folder.symlink_to(data / "elsewhere")
    assert main(["check", "--recipe", str(data / "recipe.yaml")]) == 0


def test_a_recipe_that_grows(data, capsys):
    (data / "recipe.yaml").write_text(texts._LAUGHS)
    for command in ("train", "check"):
        code, line = refused(capsys, command, "--recipe", data / "recipe.yaml")
        assert code == 2 and "more than 100000 values, aliases written out" in line


@pytest.mark.parametrize("harm", ["-1 axes", "2^32 rows", "2^61 arrays", "a pickle", "NaN"])
def test_eval_of_a_params_file_that_hurts_mxnet(data, capsys, harm):
    site = weights.params(data / "weights")
    file = site.sound[0][0]
    file.write_bytes(site.hurtful[harm])
    result = data / "result.json"
    code, line = refused(capsys, "eval", "--recipe", data / "recipe.yaml", "--params", file, "--json", result)
    assert code == 2 and str(file) in line
    assert not result.exists()


def test_eval_of_a_detector_of_a_billion_pixels(data, capsys):
    site = weights.detector(data / "detector")
    described = site.sound[0][0]
    described.write_text(json.dumps({**json.loads(described.read_bytes()), "size": 10**9}))
    params = described.with_suffix(".params")
    code, line = refused(capsys, "eval", "--recipe", data / "recipe.yaml", "--params", params)
    assert code == 2 and "1000000000 px" in line


def test_a_report_of_a_damaged_run(data, capsys):
    texts.runs(data / "run")
    (data / "run/recipe.yaml").write_text("name: x\n")
    code, line = refused(capsys, "report", data / "run")
    assert code == 2 and "recipe.yaml is not the recipe of a run" in line


def test_resuming_a_run_with_a_damaged_environment(data, capsys):
    from gan_kd.recipe import load

    recipe = data / "recipe.yaml"
    folder = data / "runs/recipe/233"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(to_yaml(load(recipe)))
    (folder / "environment.json").write_text('{"commands": 7}')
    code, line = refused(capsys, "train", "--recipe", recipe, "--save-prefix", data / "runs", "--resume")
    assert code == 2 and "environment.json is damaged" in line
