"""The command line's flags as overrides of a recipe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from gan_kd import recipe as recipes
from gan_kd.__main__ import main
from gan_kd.commands import detect
from gan_kd.commands import evaluate as evaluation
from gan_kd.errors import UsageError
from gan_kd.recipe import Recipe


def asked(*words: str) -> Recipe:
    return recipes.recipe_from(parse(*words))


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    recipes.add_arguments(parser)
    return parser.parse_args(words)


def test_flags_set_their_keys() -> None:
    words = "--gpus 1,2 --batch-size 8 -j 2 --data-shape 300 --dataset-root 2012 --data.on-error skip --seed 7"
    more = "--tensorboard --log-interval 5 --val-interval 3 --set teacher.weights=t.params --set train.keep=9"
    recipe = asked(*words.split(), *more.split())
    assert recipe.train.contexts == ["gpu:1", "gpu:2"]
    train = {
        "batch_size": 8,
        "num_workers": 2,
        "seed": 7,
        "log_interval": 5,
        "val_interval": 3,
        "keep": 9,
        "tensorboard": True,
    }
    assert {key: getattr(recipe.train, key) for key in train} == train
    assert (recipe.data.size, recipe.data.root, recipe.data.on_error) == (300, "2012", "skip")


def test_no_flags_no_overrides() -> None:
    assert recipes.overrides_from(parse()) == []


@pytest.mark.parametrize(
    ("words", "contexts"),
    [
        (("--gpus", "0"), ["gpu:0"]),
        (("--gpus", ""), ["cpu:0"]),
        (("--contexts", "cpu:0, cpu:1"), ["cpu:0", "cpu:1"]),
    ],
)
def test_devices(words: tuple[str, ...], contexts: list[str]) -> None:
    assert asked(*words).train.contexts == contexts


@pytest.mark.parametrize(
    ("text", "contexts"),
    [("0", ["gpu:0"]), ("0, 1", ["gpu:0", "gpu:1"]), (" 03", ["gpu:3"]), ("", ["cpu:0"]), (" ", ["cpu:0"])],
)
def test_gpus_mean_the_same_to_every_command(
    text: str, contexts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked("--gpus", text).train.contexts == contexts
    params = tmp_path / "best.params"
    params.touch()
    words = ["--params", str(params), "--gpus", text]
    assert evaluation._recipe(evaluation._parser().parse_args([*words, "--recipe", "demo"])).train.contexts == contexts
    given: list[Any] = []
    monkeypatch.setattr("gan_kd.detection.run.detect", lambda *arguments: given.extend(arguments))
    detect.main(["image.jpg", "--out", "out", *words])
    assert given[5] == contexts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "--gpus 'a': write GPU numbers, as in 0,1, or '' for the CPU"),
        *((text, f"--gpus '{text}': write GPU numbers") for text in ("all", "-1", "0,", ",", "0;1", "²", "9" * 30)),
        ("0,00", "--gpus '0,00' names a GPU twice"),
    ],
)
def test_wrong_gpus_are_one_sentence_in_every_command(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = tmp_path / "best.params"
    params.touch()
    of_file = ["--params", str(params), f"--gpus={text}"]
    for command in (
        ["train", f"--gpus={text}"],
        ["check", f"--gpus={text}"],
        ["eval", "--recipe", "demo", *of_file],
        ["detect", "image.jpg", "--out", str(tmp_path), *of_file],
    ):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {message}") and error.count("\n") == 1


def test_dataset_brings_its_usual_places() -> None:
    recipe = asked("--dataset", "coco", "--dataset-root", "here")
    assert recipe.data.root == "here" and recipe.data.val == ["val2017"] and recipe.data.classes == "coco"
    assert recipe.eval.metric == "coco" and recipe.published is None
    mini = ["--recipe", "mini/mobilenet0.25-mobilenet1.0"]
    assert asked(*mini, "--dataset", "voc") == asked(*mini)  # its own: nothing to change
    assert asked(*mini, "--dataset", "folder", "--dataset-root", "x").data.classes == "annotations"


@pytest.mark.parametrize(("total", "split"), [(340, (221, 119)), (34, (22, 12)), (3, (2, 1)), (2, (1, 1))])
def test_epochs_keep_the_stages_shares(total: int, split: tuple[int, int]) -> None:
    stages = asked("--epochs", str(total)).stages
    assert (stages["adversarial"].epochs, stages["finetune"].epochs) == split
    assert (stages["baseline"].epochs, stages["baseline_finetune"].epochs) == split


def test_switches_of_training() -> None:
    assert not asked().train.amp and not asked().train.sync_bn
    assert asked("--amp", "--gpus", "0").train.amp
    assert asked("--syncbn").train.sync_bn


def test_lr_is_sgds() -> None:
    stages = asked("--lr", "1e-2").stages
    assert stages["finetune"].optimizer.lr == stages["baseline_finetune"].optimizer.lr == 0.01
    assert stages["adversarial"].optimizer.lr == 0.0005


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--epochs", "1"), "--epochs 1 is less than the 2 stages of the baseline"),
        (("--epochs", "x"), "--epochs x has to be a whole number"),
        (("--lr", "fast"), "optimizer.lr has to be a number, not fast"),
        (("--batch-size", "x"), "train.batch_size has to be a whole number, not x"),
        (("--data.on-error", "go"), "data.on_error cannot be go (one of: stop, skip)"),
        (("--recipe", "demoo"), "there is no recipe demoo (did you mean demo?)"),
        (("--lr", "1", "--set", "stages.finetune.optimizer.name=adam", "--set",
          "stages.baseline_finetune.optimizer.name=adam"), "--lr is SGD's, which no stage uses"),
    ],
)  # fmt: skip
def test_wrong_flags(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError) as error:
        asked(*words)
    assert message in str(error.value)


def test_gpus_and_contexts_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse("--gpus", "0", "--contexts", "cpu:0")
    assert "not allowed with argument --gpus" in capsys.readouterr().err
