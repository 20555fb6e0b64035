"""Studies as they are read: order and recipes of the runs, and every mistake as one sentence."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from gan_kd.errors import UsageError
from gan_kd.recipe import add_arguments, recipe_from, to_yaml
from gan_kd.study.job import Job
from gan_kd.study.load import load, show
from gan_kd.study.plan import check_inputs, make_plan

WEIGHTS = "teacher.weights='other.params'"


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def start(job: Job, text: str = "") -> None:
    """Leave what a run leaves first."""
    job.folder.mkdir(parents=True)
    (job.folder / "recipe.yaml").write_text(text or to_yaml(job.recipe))


def test_the_teacher_first_then_seed_by_seed(here: Path) -> None:
    plan = make_plan("study.yaml", [], Path("runs"))
    assert [str(job) for job in plan.all_jobs] == [
        "teacher, seed 3", "none, seed 1", "gan, seed 1", "none, seed 2", "gan, seed 2",
    ]  # fmt: skip
    assert [job.network for job in plan.all_jobs] == ["teacher", "baseline", "distilled", "baseline", "distilled"]
    assert [str(job.folder) for job in plan.all_jobs[:2]] == ["runs/large/3", "runs/none/1"]
    check_inputs(plan)


def test_an_arm_may_have_fewer_seeds(here: Path) -> None:
    edit(here / "study.yaml", "seeds: [1, 2]", "seeds: [1, 2]\nfewer_seeds: {gan: [2]}")
    plan = make_plan("study.yaml", [], Path("runs"))
    assert [str(job) for job in plan.jobs] == ["none, seed 1", "none, seed 2", "gan, seed 2"]


def test_a_job_is_what_its_command_line_trains(here: Path) -> None:
    edit(here / "study.yaml", "seeds: [1, 2]", "seeds: [1, 2]\nset: [train.keep=1, eval.nms=0.4]")
    job = make_plan("study.yaml", ["train.keep=2"], Path("runs")).jobs[1]
    assert job.recipe.teacher.weights == "runs/large/3/teacher/best.params" and "teacher" not in job.recipe.stages
    assert (job.recipe.train.keep, job.recipe.eval.nms, job.recipe.train.seed) == (2, 0.4, 1)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    parser.add_argument("--save-prefix")
    assert recipe_from(parser.parse_args(job.arguments(resume=False)[3:])) == job.recipe


def test_weights_of_the_command_line_replace_the_teacher(here: Path) -> None:
    plan = make_plan("study.yaml", [WEIGHTS], Path("runs"))
    assert plan.teacher is None and plan.jobs[0].recipe.teacher.weights == "other.params"
    with pytest.raises(UsageError, match=r"not there: teacher.weights other.params; put it in place"):
        check_inputs(plan)
    (here / "other.params").touch()
    check_inputs(plan)


def test_folders_below_the_current_one_are_named_from_it(here: Path) -> None:
    plan = make_plan(str(here / "study.yaml"), [], here / "runs")
    assert str(here) not in plan.command + " ".join(plan.jobs[1].arguments(resume=True))


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("arms:", "arm:", "study.yaml: arm is not a study key (did you mean arms?)"),
        ("arms: {none: none.yaml, gan: gan.yaml}\n", "", "study.yaml: arms is missing: label of each arm"),
        ("gan: gan.yaml", "gan: 3", "study.yaml: arms.gan has to be text, not 3"),
        ("gan: gan.yaml", "a/b: gan.yaml", "study.yaml: arms.a/b: a label is of letters"),
        ("gan: gan.yaml", "teacher: gan.yaml", "study.yaml: arms.teacher: a label is of letters"),
        ("gan: gan.yaml", "gan: gone.yaml", "there is no recipe file gone.yaml"),
        ("gan: gan.yaml", "gan: dmo", "there is no recipe dmo (did you mean demo?)"),
        ("gan: gan.yaml", "gan: none.yaml", "none and gan would both run in runs/none/1: recipe none is given twice"),
        ("baseline: none", "baseline: nonne", "study.yaml: baseline nonne is not an arm (did you mean none?)"),
        ("baseline: none", "baseline: none\ncontrol: gen", "study.yaml: control gen is not an arm (did you mean gan?)"),
        ("baseline: none", "baseline: none\ncontrol: none", "study.yaml: control none is the baseline"),
        ("[1, 2]", "[1, 2, 1]", "study.yaml: seeds names 1 twice"),
        ("[1, 2]", "[]", "study.yaml: seeds is empty"),
        ("[1, 2]", "[1, -2]", "study.yaml: seeds[1] is -2, but has to be at least 0"),
        ("[1, 2]", "[1]\nseeds: [2]", "study.yaml is not a readable study: line 6: key seeds is given twice"),
        ("[1, 2]", "[1, 2]\nfewer_seeds: {gen: [1]}", "study.yaml: fewer_seeds.gen is not an arm (did you mean gan?)"),
        ("[1, 2]", "[1, 2]\nfewer_seeds: {gan: []}", "study.yaml: fewer_seeds.gan is empty"),
        ("[1, 2]", "[1, 2]\nfewer_seeds: {gan: [3]}", "fewer_seeds.gan: 3 is not among the study's seeds"),
        ("[1, 2]", "[1, 2]\nfewer_seeds: {none: [1]}", "fewer_seeds.none: the baseline needs every seed"),
        (
            "[1, 2]",
            "[1, 2]\nfewer_seeds: {gan: [1]}\ndecisive: [gan - none]",
            "study.yaml: decisive gan - none: gan has one seed in fewer_seeds, too few for an interval",
        ),
        ("seed: 3", "sed: 3", "study.yaml: teacher.sed is not a study key (did you mean teacher.seed?)"),
        ("large.yaml", "none.yaml", "study.yaml: teacher.recipe none.yaml trains no teacher"),
        ("seeds:", "set: [train.seed=4]\nseeds:", "--set train.seed: a study's seeds are those of its file"),
        ("seeds:", "set: [train.sed=4]\nseeds:", "train.sed is not a recipe key (did you mean train.seed?)"),
        ("seeds:", "set: [name=one]\nseeds:", "would both run in runs/one/1"),
    ],
)  # fmt: skip
def test_mistakes(here: Path, old: str, new: str, says: str) -> None:
    edit(here / "study.yaml", old, new)
    with pytest.raises(UsageError) as refused:
        make_plan("study.yaml", [], Path("runs"))
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_no_such_study(here: Path) -> None:
    with pytest.raises(UsageError, match="there is no study file gone.yaml"):
        load("gone.yaml")
    with pytest.raises(UsageError, match=r"there is no study stdy \(did you mean study\?\)"):
        load("stdy", shipped=here)


def test_shipped_studies_are_listed(here: Path) -> None:
    assert "no study" in show(here / "none")
    shipped = here / "shipped"
    shipped.mkdir()
    (here / "study.yaml").rename(shipped / "small.yaml")
    assert show(shipped) == "small  Does the adversary help?"
    assert load("small", shipped=shipped)[1].seeds == [1, 2]


def test_missing_inputs_are_told_at_once(here: Path) -> None:
    given = ["student.init=gone/student.params", "data.dataset=folder", "data.classes=gone.txt"]
    with pytest.raises(UsageError) as refused:
        check_inputs(make_plan("study.yaml", given, Path("runs")))
    for text in ("student.init gone/student.params", "data.root data", "data.classes gone.txt"):
        assert text in str(refused.value)


def test_a_run_of_another_recipe_is_refused_by_name(here: Path) -> None:
    job = make_plan("study.yaml", [], Path("runs")).jobs[2]
    start(job)
    check_inputs(make_plan("study.yaml", ["train.keep=7"], Path("runs")))  # changes no number
    with pytest.raises(UsageError, match=r"runs/none/2 holds a run of another recipe than none, seed 2 .*nms: 0.4"):
        check_inputs(make_plan("study.yaml", ["eval.nms=0.4"], Path("runs")))


def test_a_foreign_folder_is_refused(here: Path) -> None:
    plan = make_plan("study.yaml", [], Path("runs"))
    start(plan.jobs[0], "nothing: of ours\n")
    with pytest.raises(UsageError, match="runs/none/1/recipe.yaml is not the recipe of a run"):
        check_inputs(plan)
