"""A search as it is planned and as it chooses, from run folders of invented numbers; every mistake as one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mxnet as mx
import numpy as np
import pytest

from gan_kd.commands.study import main
from gan_kd.errors import Diverged, RunError, UsageError
from gan_kd.evaluation.evaluate import check_finite
from gan_kd.evaluation.metrics import checked_detections
from gan_kd.recipe import to_yaml
from gan_kd.study.job import DIVERGED, Job
from gan_kd.study.load import sets
from gan_kd.study.plan import Plan, check_inputs, make_plan
from gan_kd.study.runner import _Runner, _Stop
from gan_kd.training.logs import NotFinite
from gan_kd.training.run import _Run
from gan_kd.training.trainer import Progress

SEARCH = """
search:
  holdout: 5
  seeds: [7, 8]
  trials:
    none: ["eval.nms=0.4 train.keep=2", "eval.nms=0.5"]
    gan: ["eval.nms=0.6", "eval.nms=0.7"]
"""


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def plan(*overrides: str, study: str = "study.yaml") -> Plan:
    return make_plan(study, overrides, Path("runs"))


def finish(job: Job, last: float) -> None:
    """What a finished run leaves of what is read here."""
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "recipe.yaml").write_text(to_yaml(job.recipe))
    (job.folder / job.network).mkdir(exist_ok=True)
    (job.folder / job.network / "eval.json").write_text(json.dumps({"map": 99, "last_map": last}))


def finish_search(none: tuple[float, ...] = (1, 2, 2, 1), gan: tuple[float, ...] = (1, 2, 3, 1)) -> None:
    """mAP of the trials' runs: first trial with both seeds, then the second."""
    runs = plan().search
    assert runs is not None and runs.teacher is not None
    finish(runs.teacher, 60)
    for arm, maps in (("none", none), ("gan", gan)):
        jobs = [job for trial in runs.of(arm) for job in trial.jobs]
        for job, value in zip(jobs, maps):
            finish(job, value)


@pytest.fixture
def searching(here: Path) -> Path:
    """The folder of the study, which has a search."""
    (here / "study.yaml").write_text((here / "study.yaml").read_text() + SEARCH)
    return here


def test_the_search_comes_first_and_alone(searching: Path) -> None:
    found = plan()
    assert found.chosen is None and found.jobs == ()
    assert [str(job) for job in found.due] == [
        "search/teacher, seed 3",
        "search/none/trial-1, seed 7", "search/none/trial-1, seed 8",
        "search/none/trial-2, seed 7", "search/none/trial-2, seed 8",
        "search/gan/trial-1, seed 7", "search/gan/trial-1, seed 8",
        "search/gan/trial-2, seed 7", "search/gan/trial-2, seed 8",
    ]  # fmt: skip
    assert str(found.due[0].folder) == "runs/large-inner/3" and found.due_teacher is found.due[0]
    assert str(found.due[3].folder) == "runs/none/search-2/7"
    check_inputs(found)


def test_no_run_of_the_search_sees_the_images_held_out(searching: Path) -> None:
    jobs = plan().due
    assert {job.recipe.data.holdout for job in jobs} == {5}
    assert {job.recipe.teacher.weights for job in jobs[1:]} == {"runs/large-inner/3/teacher/best.params"}
    assert jobs[1].recipe.eval.nms == 0.4 and jobs[1].recipe.train.keep == 2


def test_trials_may_have_settings_that_the_studys_runs_do_not_take_over(searching: Path) -> None:
    edit(searching / "study.yaml", "  holdout: 5\n", "  holdout: 5\n  set: [train.keep=7, eval.nms_topk=200]\n")
    finish_search()
    found = plan()
    assert found.search is not None and found.chosen is not None
    trials = [trial.jobs[0].recipe for trial in found.search.trials]
    assert {recipe.eval.nms_topk for recipe in trials} == {200}
    assert [recipe.train.keep for recipe in trials] == [2, 7, 7, 7], "a trial's own settings come last"
    assert {job.recipe.eval.nms_topk for job in found.jobs} == {400}
    assert found.search.teacher is not None and found.search.teacher.recipe.eval.nms_topk == 400
    assert found.chosen["gan"] == ("eval.nms=0.7",)


def test_the_highest_mean_is_chosen_and_of_equal_ones_the_first(searching: Path) -> None:
    finish_search()
    found = plan()
    assert found.chosen == {"none": ("eval.nms=0.4", "train.keep=2"), "gan": ("eval.nms=0.7",)}
    assert [str(job) for job in found.due] == [
        "teacher, seed 3", "none, seed 1", "gan, seed 1", "none, seed 2", "gan, seed 2",
    ]  # fmt: skip
    none, gan = found.jobs[:2]
    assert (none.recipe.eval.nms, gan.recipe.eval.nms) == (0.4, 0.7)
    assert none.recipe.data.holdout is None
    assert gan.recipe.teacher.weights == "runs/large/3/teacher/best.params"
    assert str(gan.folder) == "runs/gan/1" and len(found.all_jobs) == 9 + 5


def test_a_run_that_is_missing_leaves_it_undecided(searching: Path) -> None:
    finish_search(gan=(1, 2, 3))
    assert plan().chosen is None


def test_a_trial_that_diverged_is_the_worst(searching: Path) -> None:
    finish_search(none=(90, 1, 2, 1))
    runs = plan().search
    assert runs is not None
    (runs.of("none")[0].jobs[1].folder / DIVERGED).write_text("the loss is nan\n")
    found = plan()
    assert found.chosen is not None and found.chosen["none"] == ("eval.nms=0.5",)
    assert found.search is not None and found.search.hopeless() == []


def test_an_arm_without_a_number_fails_the_study(searching: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish_search()
    runs = plan().search
    assert runs is not None
    for trial in runs.of("gan"):
        (trial.jobs[0].folder / DIVERGED).write_text("the loss is nan\n")
    assert runs.hopeless() == ["gan"] and plan().chosen is None
    for job in runs.jobs:
        (job.folder / "report").mkdir()
        (job.folder / "report" / "report.html").touch()
    with pytest.raises(RunError, match="no trial of gan has a number, so that its settings cannot be chosen"):
        main(["study.yaml"])
    assert "search/gan/trial-1, seed 7: diverged before, the loss is nan" in capsys.readouterr().out


class Ended:
    """A trial that ended with an exit code, after these words."""

    def __init__(self, job: Job, code: int, words: str) -> None:
        self.job, self.code, self.words, self.cores, self.output, self.seconds = job, code, words, [0], Path("out"), 1.0

    def problem(self) -> str:
        return self.words


@pytest.mark.parametrize(
    ("code", "words", "diverged"),
    [
        (Diverged.exit_code, "whatever it said", True),
        (1, "the loss 'conf' is nan in batch 3", False),
        (1, "No space left on device", False),
        (-9, "it was ended by SIGKILL", False),
    ],
)
def test_a_trial_that_diverged_is_known_by_its_exit_code(
    code: int, words: str, diverged: bool, searching: Path
) -> None:
    found = plan()
    assert found.search is not None
    job = found.search.of("none")[0].jobs[0]
    job.folder.mkdir(parents=True)
    runner = _Runner(found, [[0]], 0, _Stop(), lambda: None, lambda line: None)
    runner.waiting = []
    ended: Any = Ended(job, code, words)
    runner.running.append(ended)
    runner._ended(ended)
    assert job.diverged == (words if diverged else None)
    assert bool(runner.failed) != diverged


def test_every_kind_of_divergence_is_one() -> None:
    """A loss, which the trainer describes; weights of a checkpoint, of an evaluation; detections."""
    assert issubclass(NotFinite, Diverged)
    with pytest.raises(Diverged, match="the detections of image 1 hold nan"):
        checked_detections(np.full((1, 6), np.nan), 1, "image 1")
    weights: Any = SimpleNamespace(metrics=None, folder=Path())
    with pytest.raises(Diverged, match="detector/w holds nan or infinite values"):
        _Run._save(weights, "teacher", Progress(), {"detector/w": mx.nd.array([float("inf")])})
    parameter = SimpleNamespace(list_ctx=lambda: [None], data=lambda _: mx.nd.array([float("nan")]))
    detector: Any = SimpleNamespace(weights=lambda: {"w": parameter})
    with pytest.raises(Diverged, match="'w' holds nan or infinite values: its training diverged"):
        check_finite(detector)


def test_other_trials_than_those_run_are_refused(searching: Path) -> None:
    finish_search()
    edit(searching / "study.yaml", "eval.nms=0.6", "eval.nms=0.3")
    with pytest.raises(UsageError, match="runs/gan/search-1/7 holds a run of another recipe than search/gan/trial-1"):
        check_inputs(plan())


def test_a_teacher_of_the_command_line_waits_for_the_search(searching: Path) -> None:
    inner = "runs/large-inner/3/teacher/best.params"
    with pytest.raises(UsageError, match=f"other.params may have seen the images .*, or name .*own teacher, {inner}"):
        plan("teacher.weights=other.params")
    found = plan(f"teacher.weights={inner}")
    assert found.teacher is None and found.due == plan().due, "the search's own, which has not seen them"
    check_inputs(found)
    finish_search()
    assert {job.recipe.teacher.weights for job in plan(f"teacher.weights={inner}").jobs} == {inner}
    found = plan("teacher.weights=other.params")
    assert found.teacher is None and found.jobs[1].recipe.teacher.weights == "other.params"
    with pytest.raises(UsageError, match=r"not there: teacher.weights other.params; put it in place"):
        check_inputs(found)


def test_a_teacher_that_is_a_file_is_refused(searching: Path) -> None:
    edit(searching / "study.yaml", "teacher: {recipe: large.yaml, seed: 3}\n", "")
    edit(searching / "gan.yaml", "inherits: base.yaml", "inherits: base.yaml\nteacher: {weights: t.params}")
    with pytest.raises(UsageError, match="its teacher t.params may have seen the images held out"):
        plan()


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("  holdout: 5\n", "", "search.holdout is missing: data.holdout of its runs; a search without a holdout would"),
        ("holdout: 5", "holdout: 1", "search.holdout is 1, but has to be at least 2"),
        ("[7, 8]", "[7, 2]", "search.seeds: 2 is a seed of the study as well"),
        ("[7, 8]", "[]", "search.seeds is empty"),
        ("[7, 8]", "[7, 7]", "search.seeds names 7 twice"),
        ("    gan: [", "    gen: [", "search.trials.gen is not an arm (did you mean gan?)"),
        ('    gan: ["eval.nms=0.6", "eval.nms=0.7"]\n', "", "search.trials.gan is missing: every arm needs trials"),
        (', "eval.nms=0.7"', "", "every arm needs the same number of trials, to be fair (now none 2, gan 1)"),
        ('["eval.nms=0.6", ', "[3, ", "search.trials.gan[0] has to be text, not 3"),
        ('["eval.nms=0.6", "eval.nms=0.7"]', "no", "search.trials.gan has to be a list"),
        ("0.6", "0.70", "search.trials.gan: trials 1 and 2 are the same settings"),
        ("eval.nms=0.6", "eval.nms='0.6", "search.trials.gan, trial 1: eval.nms='0.6 cannot be split"),
        ("eval.nms=0.6", "eval.nms", "search.trials.gan, trial 1: --set eval.nms: write KEY=VALUE"),
        ("eval.nms=0.6", "evl.nms=0.6", "evl is not a recipe key"),
        ("eval.nms=0.6", "name=x", "search.trials.gan, trial 1: name is not for a trial to set: the search does"),
        ("eval.nms=0.6", "train.seed=1", "trial 1: train.seed is not for a trial to set"),
        ("eval.nms=0.6", "teacher.weights=x.params", "trial 1: teacher.weights is not for a trial to set"),
        ("eval.nms=0.6", "data.holdout=3", "trial 1: data.holdout is not for a trial to set"),
        ("  holdout: 5\n", "  holdout: 5\n  set: [train.seed=1]\n", "search.set: train.seed is not for a trial to set"),
        ("  holdout: 5\n", "  holdout: 5\n  set: [evl.nms=1]\n", "evl is not a recipe key"),
        ("search:", "set: [data.holdout=3]\nsearch:", "data.holdout: study.yaml has a search, which alone sets it"),
        ("search:", "chosen_by: small\nsearch:", "search and chosen_by small both choose the settings"),
        ("gan: gan.yaml", "search: gan.yaml", "arms.search: a label is of letters"),
    ],
)  # fmt: skip
def test_mistakes(searching: Path, old: str, new: str, says: str) -> None:
    edit(searching / "study.yaml", old, new)
    with pytest.raises(UsageError) as refused:
        plan()
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_a_key_is_seen_in_a_map_as_well() -> None:
    assert sets(["data={holdout: 3}"], "data.holdout") and sets(["data.holdout=null"], "data.holdout")
    assert not sets(["data.size=64", "holdout.data=1"], "data.holdout")


def test_a_holdout_of_the_command_line_is_refused(searching: Path) -> None:
    with pytest.raises(UsageError, match="data.holdout: study.yaml has a search"):
        plan("data.holdout=4")


@pytest.fixture
def later(searching: Path) -> Path:
    """A study whose settings the other one's search chooses."""
    text = "arms: {gan: gan.yaml}\nbaseline: gan\nseeds: [4]\nchosen_by: study.yaml\n"
    (searching / "later.yaml").write_text(f"{text}teacher: {{recipe: large.yaml, seed: 3}}\n")
    return searching


def test_settings_chosen_by_another_study(later: Path) -> None:
    with pytest.raises(UsageError, match="chosen_by study.yaml: its search in runs is not finished; first run python"):
        plan(study="later.yaml")
    finish_search()
    found = plan(study="later.yaml")
    assert found.search is None and found.jobs[0].recipe.eval.nms == 0.7
    assert [str(job) for job in found.due] == ["teacher, seed 3", "gan, seed 4"]


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("arms: {gan:", "arms: {gam: none.yaml, gan:", "its search has no arm gam (did you mean gan?)"),
        ("chosen_by: study.yaml", "chosen_by: small", "chosen_by small: that study has no search"),
        ("chosen_by: study.yaml", "chosen_by: gone.yaml", "there is no study file gone.yaml"),
        ("[4]", "[4, 8]", "its search took seed 8, and settings must not be chosen on the study's seeds"),
    ],
)
def test_mistakes_of_chosen_by(later: Path, old: str, new: str, says: str) -> None:
    finish_search()
    edit(later / "later.yaml", old, new)
    with pytest.raises(UsageError) as refused:
        plan(study="later.yaml")
    assert says in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text, says",
    [
        ("decisive: [gan - nine]", "decisive gan - nine: nine is not an arm (did you mean none?)"),
        ("decisive: [gan-none]", "decisive gan-none: write ARM - ARM, with blanks around the minus"),
        ("decisive: [gan - gan]", "decisive gan - gan: it compares an arm with itself"),
        ("decisive: [gan - none, none - gan]", "decisive gan - none: these two arms are compared twice"),
        ("measure: voc11", "measure cannot be voc11 (did you mean voc10?)"),
    ],
)
def test_mistakes_of_comparisons(here: Path, text: str, says: str) -> None:
    (here / "study.yaml").write_text((here / "study.yaml").read_text() + text)
    with pytest.raises(UsageError) as refused:
        plan()
    assert says in str(refused.value)
