"""Whole runs by the command line: complete, killed, stopped, resumed, and refused."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from tests.training import test_board

ROOT = Path(__file__).resolve().parents[2]
#: A run of every stage in seconds: 6 batches an epoch, logged every 2.
SMALL = {
    "train.val_interval": 1,
    "data.size": 64,
    "data.demo.train": 24,
    "data.demo.test": 8,
    "train.batch_size": 4,
    "train.log_interval": 2,
    "train.num_workers": 0,
    "train.tensorboard": "true",
    "distill.head": "inherit",
    "distill.gan.width": 8,
    "distill.gan.warmup_epochs": 1,
    "stages.teacher.epochs": 1,
    "stages.baseline.epochs": 1,
    "stages.baseline_finetune": "null",
    "stages.adversarial.epochs": 2,
    "stages.finetune.epochs": 1,
    "stages.adversarial.distillers": "[gan, cosine_attention]",
}
SECONDS = 600


def command(folder, *arguments, **overrides):
    keys = {**SMALL, "data.root": folder / "data", **overrides}
    settings = [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]
    return [
        sys.executable, "-m", "gan_kd", "train", "--recipe", "demo", "--save-prefix", str(folder / "runs"),
        *settings, *arguments,
    ]  # fmt: skip


def train(folder, *arguments, **overrides):
    return subprocess.run(
        command(folder, *arguments, **overrides), cwd=ROOT, capture_output=True, text=True, timeout=SECONDS
    )


def run_folder(folder):
    return folder / "runs" / "demo" / "233"


def records(folder):
    return [json.loads(line) for line in (run_folder(folder) / "metrics.jsonl").read_text().splitlines()]


def results(folder):
    """What a run leaves that must not depend on when it was stopped."""
    run = run_folder(folder)
    weights = {str(path.relative_to(run)): mx.nd.load(str(path)) for path in sorted(run.glob("*/best.params"))}
    arrays = {f"{file}:{name}": a.asnumpy() for file, named in weights.items() for name, a in named.items()}
    return (run / "metrics.jsonl").read_bytes(), arrays


def measured(folder, *keys):
    """These keys of each network's eval.json."""
    files = run_folder(folder).glob("*/eval.json")
    return {path.parent.name: [json.loads(path.read_text())[key] for key in keys] for path in files}


def assert_same(first, second):
    assert first[0] == second[0]
    assert first[1].keys() == second[1].keys()
    for name, array in first[1].items():
        np.testing.assert_array_equal(array, second[1][name], err_msg=name)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    done = train(folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def interrupted(folder, number, until, words):
    """Start a run and send it a signal once metrics.jsonl satisfies `until`; gives its output and exit code."""
    process = subprocess.Popen(
        words,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = time.time() + SECONDS
    while not ((run_folder(folder) / "metrics.jsonl").exists() and until(records(folder))):
        if process.poll() is not None or time.time() > deadline:
            process.kill()
            pytest.fail(process.communicate()[0])
        time.sleep(0.01)
    if number == signal.SIGKILL:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    return process.communicate(timeout=SECONDS)[0], process.returncode


def in_the_middle_of(stage, epoch):
    def reached(lines):
        last = lines[-1] if lines else {}
        return (last.get("stage"), last.get("epoch")) == (stage, epoch) and last.get("batch") in (2, 4)

    return reached


@pytest.mark.slow
def test_the_last_lines_are_the_maps_and_the_report(undisturbed):
    folder, output = undisturbed
    *maps, report = output.splitlines()[-4:]
    for network, line in zip(("teacher", "baseline", "distilled"), maps):
        assert line.startswith(f"{network} mAP="), output
        assert float(line.partition("=")[2]) >= 0
    assert Path(report.partition("report: ")[2]).is_file()


@pytest.mark.slow
def test_every_stage_is_in_the_metrics(undisturbed):
    lines = records(undisturbed[0])
    assert [line["stage"] for line in lines if line["kind"] == "eval"] == [
        "teacher", "baseline", "adversarial", "adversarial", "finetune",
    ]  # fmt: skip
    adversarial = [line for line in lines if line["stage"] == "adversarial" and line["kind"] == "train"]
    warm_up, taught = adversarial[0], adversarial[-1]
    assert warm_up["epoch"] == 0 and set(warm_up["losses"]) == {"critic"}
    assert set(taught["losses"]) == {"conf", "loc", "adversarial", "cosine_attention", "critic"}
    assert {"critic_real", "critic_fake"} <= taught.keys()


@pytest.mark.slow
def test_the_further_measures_are_of_the_detections_that_the_map_is_of(undisturbed):
    found = measured(undisturbed[0], "map", "also", "last_map", "also_last")
    assert set(found) == {"teacher", "baseline", "distilled"}
    for best, also, last, also_last in found.values():
        assert (also["voc07"], also_last["voc07"]) == (best, last)


@pytest.mark.slow
def test_every_epoch_with_distillers_is_diagnosed(undisturbed):
    found = [line for line in records(undisturbed[0]) if line["kind"] == "diagnosis"]
    assert [(line["stage"], line["epoch"], line["batch"], line["step"]) for line in found] == [
        ("adversarial", 0, 6, 6), ("adversarial", 1, 6, 12), ("adversarial", 2, 6, 18),
    ]  # fmt: skip
    assert {len(value) for line in found for value in line.values() if isinstance(value, list)} == {6}
    log = (run_folder(undisturbed[0]) / "train.log").read_text()
    assert f"[Epoch 2] Diagnosis: maps=4 2 1 1 1 1, attention_cosine={found[2]['attention_cosine'][0]:.3g} " in log


@pytest.mark.slow
def test_tensorboard_has_the_metrics(undisturbed):
    events = test_board.read_scalars(run_folder(undisturbed[0]) / "tensorboard")
    assert events == test_board.expected(records(undisturbed[0]))


def is_jpeg(value):
    return isinstance(value, bytes) and value.startswith(b"\xff\xd8")


@pytest.mark.slow
def test_tensorboard_shows_each_evaluation(undisturbed):
    events = test_board.read(run_folder(undisturbed[0]) / "tensorboard")
    shown = {(name, *key) for name, values in events.items() for key, value in values.items() if is_jpeg(value)}
    lines = [line for line in records(undisturbed[0]) if line["kind"] == "eval"]
    tags = ("detections", "attention")
    assert shown == {(line["trains"], tag, line["step"]) for line in lines for tag in tags}


@pytest.mark.slow
def test_tensorboard_changes_no_number(undisturbed, tmp_path):
    rest = {f"stages.{name}": "null" for name in ("baseline", "adversarial", "finetune")}
    done = train(tmp_path, **{"train.tensorboard": "false", **rest})
    assert done.returncode == 0, done.stderr
    assert not (run_folder(tmp_path) / "tensorboard").exists()
    (lines, arrays), (whole, expected) = results(tmp_path), results(undisturbed[0])
    assert whole.startswith(lines) and b'"eval"' in lines
    assert_same((None, arrays), (None, {name: expected[name] for name in expected if name.startswith("teacher/")}))


@pytest.mark.slow
def test_stopped_and_killed_and_resumed_equals_undisturbed(undisturbed, tmp_path):
    """With a loader process, from a folder with a space in its name, so that what is printed has to be quoted."""
    folder = tmp_path / "a folder"
    first = command(folder, **{"train.num_workers": 1})
    output = go_on_with_what_it_says(folder, first, signal.SIGTERM, ("teacher", 1))
    saved = [path.name for path in (run_folder(folder) / "checkpoints").iterdir()]
    assert any(int(name.split("-")[2]) > 0 for name in saved), "saved in the middle of an epoch"
    (run_folder(folder) / ".recipe.yaml.77").write_text("half")  # as a killed process leaves it
    words = shlex.split(output.splitlines()[-1].partition("stopped and saved; go on with: ")[2])
    assert words[-1] == "--resume"
    interrupted(folder, signal.SIGKILL, in_the_middle_of("adversarial", 1), words)
    go_on_with_what_it_says(folder, words, signal.SIGINT, ("adversarial", 2))
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL)
    refused = second_process(folder, process, words)
    assert process.wait(SECONDS) == 0
    assert refused.returncode == 2 and "another process is training into" in refused.stderr
    assert_same(results(undisturbed[0]), results(folder))
    assert not (run_folder(folder) / ".recipe.yaml.77").exists()
    assert measured(undisturbed[0], "also", "also_last") == measured(folder, "also", "also_last")
    assert test_board.read_scalars(run_folder(folder) / "tensorboard") == test_board.expected(records(undisturbed[0]))


def go_on_with_what_it_says(folder, words, number, place):
    """Start a run and stop it there; its output."""
    output, code = interrupted(folder, number, in_the_middle_of(*place), words)
    assert code == 0 and "Traceback" not in output, output
    assert output.splitlines()[-1].startswith("stopped and saved; go on with: "), output
    return output


def second_process(folder, first, words):
    """Resume the run that the first process has begun to write."""
    commands = len(json.loads((run_folder(folder) / "environment.json").read_text())["commands"])
    while len(json.loads((run_folder(folder) / "environment.json").read_text())["commands"]) == commands:
        assert first.poll() is None
        time.sleep(0.05)
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)


@pytest.mark.slow
def test_a_second_run_into_the_same_folder_is_refused(undisturbed):
    before = results(undisturbed[0])
    done = train(undisturbed[0])
    assert done.returncode == 2
    assert "already holds a run" in done.stderr and "--resume" in done.stderr
    assert_same(before, results(undisturbed[0]))


@pytest.mark.slow
def test_resuming_a_finished_run_changes_nothing(undisturbed):
    before = results(undisturbed[0])
    done = train(undisturbed[0], "--resume")
    assert done.returncode == 0, done.stderr
    assert_same(before, results(undisturbed[0]))


@pytest.mark.slow
def test_resuming_with_another_recipe_is_refused(undisturbed):
    done = train(undisturbed[0], "--resume", **{"distill.gan.width": 16})
    assert done.returncode == 2
    assert "another recipe" in done.stderr and "width: 16" in done.stderr


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    """A learning rate at which the student diverges, after a teacher that was trained and saved."""
    done = train(tmp_path, **{"stages.baseline.optimizer": "{name: sgd, lr: 1e21}"})
    assert done.returncode == 3
    assert re.search(r"the loss '(conf|loc)' is (nan|inf) in batch [1-6] of epoch 1, stage baseline", done.stderr)
    assert "Traceback" not in done.stderr
    last = max((run_folder(tmp_path) / "checkpoints").iterdir())
    assert (
        json.loads((last / "state.json").read_text())["progress"]["stage"] == 0
        and (run_folder(tmp_path) / "teacher" / "best.params").exists()
    )


def refusals():
    yield "no checkpoint", ["--resume"], {}, 2, "nothing to resume"
    yield "a GPU that is not there", ["--gpus", "7"], {}, 2, "GPU 7 cannot be used"
    yield "more in a batch than images", [], {"train.batch_size": 100}, 2, "train.batch_size 100"
    yield (
        "a teacher too weak",
        [],
        {"teacher.min_map": 99, "stages.baseline": "null"},
        1,
        "below teacher.min_map",
    )


@pytest.mark.parametrize(
    "arguments, overrides, code, says", [r[1:] for r in refusals()], ids=[r[0] for r in refusals()]
)
def test_what_cannot_run_is_one_sentence(tmp_path, arguments, overrides, code, says):
    done = train(tmp_path, *arguments, **overrides)
    assert done.returncode == code, done.stderr
    assert says in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert code == 1 or not run_folder(tmp_path).exists()
