"""Stages that are stopped anywhere and gone on with: the same numbers, for every network and distiller."""

import contextlib
import dataclasses
import json
import os

import mxnet as mx
import numpy as np
import pytest

from gan_kd.data.check import preflight
from gan_kd.data.dataset import DetectionDataset
from gan_kd.detectors.saved import save_detector
from gan_kd.errors import RunError, UsageError
from gan_kd.gluon.optim import Optimisation
from gan_kd.recipe import from_dict, to_yaml
from gan_kd.system.stop import Stopped, StopSignal
from gan_kd.training import checkpoint
from gan_kd.training.last import last_epoch
from gan_kd.training.networks import named_teacher
from gan_kd.training.prepare import Prepared
from gan_kd.training.run import _Run
from tests.rig import build_detector
from tests.training.datasets import Deadly, Interrupting

SIZE = 64
CPU = [mx.cpu(0)]
SGD, ADAM = {"name": "sgd", "lr": 0.001}, {"name": "adam", "lr": 0.005, "wd": 0}
#: Stages and what of the recipe they need beside the defaults.
CASES = {
    "baseline, sgd": ({"trains": "baseline", "optimizer": SGD}, {}),
    "control, adam, relu": ({"trains": "control", "optimizer": ADAM}, {"adapter": "relu"}),
    "gan, warm-up, two critic steps": (
        {"trains": "distilled", "optimizer": ADAM, "distillers": ["gan"]},
        {"gan": {"width": 4, "warmup_epochs": 1, "critic_steps": 2}},
    ),
    "gan and cosine, own head": (
        {"trains": "distilled", "optimizer": SGD, "distillers": ["gan", "cosine_attention"]},
        {"head": "student", "gan": {"width": 4, "optimizer": {"name": "sgd", "lr": 0.01}}},
    ),
    "outputs, own head": (
        {"trains": "distilled", "optimizer": ADAM, "distillers": ["outputs"]},
        {"head": "own"},
    ),
    "imitation": (
        {"trains": "distilled", "optimizer": SGD, "distillers": ["feature_imitation"]},
        {"feature_imitation": {"weight": 0.1}},
    ),
    "conditional cells, warm-up, untrained head": (
        {"trains": "distilled", "optimizer": ADAM, "distillers": ["gan"]},
        {
            "head": "untrained",
            "gan": {
                "width": 4, "kind": "cell", "condition": "teacher", "loss": "hinge", "limit": "spectral",
                "norm": "none", "input": "standard", "match": 1, "warmup_epochs": 1,
            },
        },
    ),
    "penalty": (
        {"trains": "distilled", "optimizer": ADAM, "distillers": ["gan"]},
        {"gan": {"width": 4, "limit": "penalty", "norm": "none", "critic_steps": 2}},
    ),
    "outputs, cwd and standardised imitation, own head": (
        {"trains": "distilled", "optimizer": ADAM, "distillers": ["outputs", "cwd", "feature_imitation"]},
        {"head": "own", "feature_imitation": {"input": "standard"}},
    ),
    "fine-grained imitation, own head, quiet at first": (
        {"trains": "distilled", "optimizer": ADAM, "distillers": ["fine_grained", "cosine_attention"]},
        {"head": "own", "fine_grained": {"weight": 0.1, "quiet": 2}},
    ),
}  # fmt: skip


class StopAt(StopSignal):
    """Stops at the k-th place where a stop is looked for: after batch 1, 2, 3, the epoch's end, and so on."""

    def __init__(self, k):
        super().__init__()
        self.left = k

    def check(self):
        self.left -= 1
        if self.left == 0:
            raise Stopped


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Drawn images, and a teacher with random weights."""
    return tmp_path_factory.mktemp("inputs")


def make_recipe(folder, stage, distill=None, **train):
    return from_dict(
        {
            "name": "small",
            "data": {
                "dataset": "demo", "root": str(folder / "data"), "train": ["train"], "val": ["test"],
                "classes": "annotations", "augment": "flip", "size": SIZE, "demo": {"train": 12, "test": 2},
            },
            "teacher": {"backbone": "mobilenet0.5", "init": "random", "weights": str(folder / "teacher.params")},
            "student": {"backbone": "mobilenet0.25", "init": "random"},
            "distill": distill or {},
            "stages": {"plain": {"epochs": 2, **stage}},
            "train": {"batch_size": 4, "num_workers": 0, "log_interval": 2, "val_interval": 2, **train},
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(folder):
    found = preflight(make_recipe(folder, {"trains": "baseline"}).data)
    mx.random.seed(0)
    meta = {
        "network": "teacher", "backbone": "mobilenet0.5", "size": SIZE, "classes": list(found[0].classes),
        "head": "own", "head_backbone": "mobilenet0.5", "adapters": False,
    }  # fmt: skip
    save_detector(build_detector("mobilenet0.5", SIZE, found[0].classes), folder / "teacher.params", meta)
    return found


def ready(data):
    return Prepared(CPU, data, {}, "", None, None)


def run(recipe, folder, data, stop=None):
    """Train in a folder, from its last checkpoint on; whether it was stopped."""
    folder.mkdir(exist_ok=True)
    with stop or StopSignal() as signals, contextlib.closing(_Run(recipe, folder, ready(data), signals)) as started:
        try:
            started.all_stages()
        except Stopped:
            return True
    return False


def results(recipe, folder, data):
    arrays, state = checkpoint.load_last(folder / "checkpoints", checkpoint.origin(recipe, data[0].classes))
    return (
        (folder / "metrics.jsonl").read_text(),
        state["progress"],
        {name: array.asnumpy() for name, array in arrays.items()},
    )


def assert_same(one, other):
    assert one[:2] == other[:2]
    assert one[2].keys() == other[2].keys()
    for name, array in one[2].items():
        np.testing.assert_array_equal(array, other[2][name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_stopped_after_some_batches_again_and_again_equals_undisturbed(case, folder, data, tmp_path):
    """In one case with two loader processes; the log's interval is open at some of the stops."""
    recipe = make_recipe(folder, *CASES[case], num_workers=2 if case == "gan, warm-up, two critic steps" else 0)
    assert not run(recipe, tmp_path / "undisturbed", data)
    stops = 0
    for k in (1, 2, 4):
        stops += run(recipe, tmp_path / "stopped", data, StopAt(k))
    assert stops == 3
    assert not run(recipe, tmp_path / "stopped", data)
    assert_same(results(recipe, tmp_path / "undisturbed", data), results(recipe, tmp_path / "stopped", data))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["gan and cosine, own head", "gan, warm-up, two critic steps"])
def test_a_checkpoint_with_numbered_moments_equals_undisturbed(case, folder, data, tmp_path, monkeypatch):
    """As it was before moments had the names of files."""
    recipe = make_recipe(folder, *CASES[case])
    assert not run(recipe, tmp_path / "undisturbed", data)
    by_name = Optimisation.state

    def by_number(optimisation):
        keys = {name: str(number) for number, name in enumerate(optimisation.names)}
        split = ((*key.rpartition("."), array) for key, array in by_name(optimisation).items())
        return {f"{keys[name]}.{part}": array for name, _, part, array in split}

    with monkeypatch.context() as patch:
        patch.setattr(Optimisation, "state", by_number)
        assert run(recipe, tmp_path / "stopped", data, StopAt(6))
    saved, _ = checkpoint.load_last(tmp_path / "stopped" / "checkpoints", checkpoint.origin(recipe, data[0].classes))
    assert {"optimiser/0.count", "adversarial/optimiser/0.count"} & saved.keys()
    assert not run(recipe, tmp_path / "stopped", data)
    assert_same(results(recipe, tmp_path / "undisturbed", data), results(recipe, tmp_path / "stopped", data))


def test_a_signal_in_an_evaluation_keeps_the_epoch_before_it(folder, data, tmp_path):
    recipe = make_recipe(folder, {"trains": "baseline", "epochs": 1})
    assert not run(recipe, tmp_path / "undisturbed", data)
    assert run(recipe, tmp_path / "stopped", (data[0], Interrupting(data[1], 1)))
    assert results(recipe, tmp_path / "stopped", data)[1]["batch"] == 3
    assert not run(recipe, tmp_path / "stopped", data)
    assert_same(results(recipe, tmp_path / "undisturbed", data), results(recipe, tmp_path / "stopped", data))


def finished(recipe, folder, data):
    """The eval.json of the student of a run that is gone on with to its end."""
    with StopSignal() as signals, contextlib.closing(_Run(recipe, folder, ready(data), signals)) as started:
        started.all_stages()
        (folder / "recipe.yaml").write_text(to_yaml(recipe))
        started.finish()
    return json.loads((folder / "baseline" / "eval.json").read_text())


def test_measures_of_the_last_epoch_survive_a_stop_before_the_run_is_finished(folder, data, tmp_path):
    """One more mAP than the log has; an old run, or one whose file is of another epoch, has none."""
    recipe = make_recipe(folder, {"trains": "baseline", "epochs": 1})
    assert run(recipe, tmp_path, data, StopAt(4)), "with the last checkpoint saved"
    kept = tmp_path / "baseline" / "last.json"
    content = json.loads(kept.read_text())
    assert content["step"] == 3 and set(content["also"]) == {"voc07", "voc10", "ap", "ap75"}
    measured = finished(recipe, tmp_path, data)
    # The only epoch is the best one as well.
    assert measured["also_last"] == content["also"] == pytest.approx(measured["also"])
    assert measured["also_last"]["voc07"] == measured["last_map"]
    for text in (json.dumps({**content, "step": 2}), "{", "[]", "{}"):
        kept.write_text(text)
        assert last_epoch(tmp_path, "baseline") == {"last_map": measured["last_map"], "also_last": None}
    kept.unlink()
    measured = finished(recipe, tmp_path, data)
    assert measured["also_last"] is None and measured["last_map"] is not None
    assert last_epoch(tmp_path, "teacher") == {"last_map": None, "also_last": None}


def test_the_last_epoch_is_measured_not_the_best(folder, data, tmp_path, monkeypatch):
    recipe = make_recipe(folder, {"trains": "baseline", "epochs": 3}, val_interval=1)
    measured = []
    monkeypatch.setattr("gan_kd.training.results.further", lambda *_: measured.append(0) or {"ap": 7.0})
    assert not run(recipe, tmp_path, data)
    assert len(measured) == 1, "not of every epoch, which would take its time"
    assert json.loads((tmp_path / "baseline" / "last.json").read_text()) == {"step": 9, "also": {"ap": 7.0}}


def test_what_stops_before_the_first_batch_leaves_no_checkpoint(folder, data, tmp_path):
    recipe = make_recipe(folder, {"trains": "baseline", "epochs": 1})
    first = np.random.default_rng([recipe.train.seed, 0]).permutation(12)[0]
    assert run(recipe, tmp_path / "run", (Interrupting(data[0], first), data[1]))
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not run(recipe, tmp_path / "run", data)


def test_a_worker_that_dies_stops_the_run_and_what_was_trained_is_saved(folder, data, tmp_path):
    recipe = make_recipe(folder, {"trains": "baseline", "epochs": 1}, num_workers=1, on_worker_failure="stop", seed=1)
    assert not run(recipe, tmp_path / "undisturbed", data)
    deadly = Deadly(data[0].classes, data[0].records)
    with pytest.raises(RunError, match=r"worker 1 of 1 .* died with exit code 3, with .*\.jpg.* in hand.*--resume"):
        run(recipe, tmp_path / "stopped", (deadly, data[1]))
    assert results(recipe, tmp_path / "stopped", data)[1]["batch"] > 0, "the image is not in the first batch"
    assert not run(recipe, tmp_path / "stopped", data)
    assert_same(results(recipe, tmp_path / "undisturbed", data), results(recipe, tmp_path / "stopped", data))


def test_a_loss_that_is_not_finite_is_named_with_its_batch_and_images(folder, data, tmp_path):
    recipe = make_recipe(folder, {"trains": "baseline", "optimizer": {"lr": 1e25}})
    with pytest.raises(RunError, match=r"the loss '(conf|loc)' is (nan|inf) in batch .*not-finite\.json\)") as raised:
        run(recipe, tmp_path, data)
    found = json.loads((tmp_path / "not-finite.json").read_text())
    batch, order = found["batch"], np.random.default_rng([recipe.train.seed, 0]).permutation(12)
    assert found["images"] == [str(data[0].records[index].image) for index in order[4 * batch - 4 : 4 * batch]]
    assert f"in batch {batch} of epoch 1, stage plain ({found['images'][0]}, " in str(raised.value)
    assert batch == found["step"] > 1 and set(found["losses"]) == {"conf", "loc"}
    assert {"nan", "inf"} & set(found["losses"].values())
    assert not (tmp_path / "checkpoints").exists()


def test_a_checkpoint_of_another_class_list_is_refused(folder, data, tmp_path):
    """The recipe says `annotations`, which are others now."""
    recipe = make_recipe(folder, {"trains": "baseline", "epochs": 1})
    assert run(recipe, tmp_path, data, StopAt(1))
    other = DetectionDataset(["circle", "square", "star", "disc"], data[0].records)
    with pytest.raises(UsageError, match="the classes circle, square, star, triangle, but here it is circle.* disc"):
        run(recipe, tmp_path, (other, data[1]))
    changed = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, batch_size=2))
    with pytest.raises(UsageError, match="the recipe with the hash"):
        run(changed, tmp_path, data)


def test_metrics_that_were_cut_are_refused(folder, data, tmp_path):
    recipe = make_recipe(folder, {"trains": "baseline", "epochs": 1})
    assert run(recipe, tmp_path, data, StopAt(2))
    os.truncate(tmp_path / "metrics.jsonl", 7)
    with pytest.raises(RunError, match="metrics.jsonl has 7 bytes, but [0-9]+ when the last checkpoint was saved"):
        run(recipe, tmp_path, data)


def test_a_teacher_whose_description_was_not_written_any_more_gets_it(folder, data, tmp_path):
    """As a run killed between its two files leaves it."""
    recipe = make_recipe(folder, {"trains": "control"})
    assert run(recipe, tmp_path, data, StopAt(1))
    description = tmp_path / "teacher" / "best.json"
    expected = json.loads(description.read_text())
    description.unlink()
    assert run(recipe, tmp_path, data, StopAt(1))
    assert json.loads(description.read_text()) == expected


def test_a_teacher_of_other_classes_is_refused_before_any_training(folder, data, tmp_path):
    recipe = make_recipe(folder, {"trains": "control"})
    named_teacher(recipe, data[0].classes, tmp_path)
    with pytest.raises(UsageError, match="teacher.params was trained on the classes circle, .* but the data has cat"):
        named_teacher(recipe, ["cat"], tmp_path)
    (folder / "teacher.params").rename(folder / "away.params")
    try:
        with pytest.raises(UsageError, match="teacher.params: no such file"):
            named_teacher(recipe, data[0].classes, tmp_path)
        (tmp_path / "teacher").mkdir()
        (tmp_path / "teacher" / "best.params").touch()
        named_teacher(recipe, data[0].classes, tmp_path)  # the run has its own copy
    finally:
        (folder / "away.params").rename(folder / "teacher.params")


class Failing(DetectionDataset):
    """Fails, in a way that nobody foresees, where it is read."""

    def __init__(self, dataset):
        super().__init__(dataset.classes, dataset.records)

    def image(self, index, reduction=1):
        raise ZeroDivisionError


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_fault_in_an_evaluation_costs_no_epoch(folder, data, tmp_path, epochs):
    """Only the evaluation is made again, and the run goes on to the same numbers."""
    recipe = make_recipe(folder, {"trains": "baseline", "epochs": epochs}, val_interval=1)
    assert not run(recipe, tmp_path / "undisturbed", data)
    with pytest.raises(RunError, match="ZeroDivisionError"):
        run(recipe, tmp_path / "failed", (data[0], Failing(data[1])))
    assert results(recipe, tmp_path / "failed", data)[1]["batch"] == 3
    assert not run(recipe, tmp_path / "failed", (Failing(data[0]) if epochs == 1 else data[0], data[1]))
    assert_same(results(recipe, tmp_path / "undisturbed", data), results(recipe, tmp_path / "failed", data))
    for one in ("undisturbed", "failed"):
        assert (tmp_path / one / "baseline" / "best.params").is_file()


def test_a_run_whose_map_does_not_exist_ends_with_its_networks_and_report(folder, data, tmp_path):
    """All objects of val are difficult: the latest parameters are the best ones."""
    recipe = make_recipe(folder, {"trains": "baseline", "epochs": 2}, val_interval=1)
    records = [r._replace(difficult=np.ones_like(r.difficult)) for r in data[1].records]
    measured = finished(recipe, tmp_path, (data[0], DetectionDataset(data[1].classes, records)))
    assert measured["map"] is None and measured["last_map"] is None
    assert json.loads((tmp_path / "baseline" / "best.json").read_text())["epoch"] == 2
    assert (tmp_path / "baseline" / "best.params").is_file() and (tmp_path / "report" / "report.html").is_file()
