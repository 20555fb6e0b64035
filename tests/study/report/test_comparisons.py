"""Comparisons, other measures and the search in a study's page, against numbers worked by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from gan_kd.errors import UsageError
from gan_kd.recipe import to_yaml
from gan_kd.study.job import DIVERGED, Job
from gan_kd.study.plan import Plan, make_plan
from gan_kd.study.report.comparisons import comparisons, decided
from gan_kd.study.report.study import make_study_report
from gan_kd.study.schema import Study

ARMS = {"a": "a.yaml", "b": "b.yaml", "c": "c.yaml"}
# As in test_contrasts.py: means 2, 4, 6, residual standard deviation root 2, two degrees of freedom.
MAPS = {"a": {1: 1.0, 2: 3.0}, "b": {1: 4.0, 2: 4.0}, "c": {1: 4.0, 2: 8.0}}
FINAL = "inherits: demo\nstages: {teacher: null, adversarial: null, finetune: null}\nteacher: {weights: t.params}\n"
STUDY = "arms: {a: a.yaml, b: b.yaml}\nbaseline: a\nseeds: [1, 2]\n"
SEARCH = """
search: {holdout: 5, seeds: [7], trials: {a: [eval.nms=0.4, eval.nms=0.5], b: [eval.nms=0.4, eval.nms=0.5]}}
"""


def text(maps: dict[str, dict[int, float]], study: Study) -> str:
    return "\n".join(block.markdown() for block in comparisons(maps, study)).replace("\\", "")


def test_every_arm_against_baseline_and_control() -> None:
    """Half width 4.30265 x root 2 = 6.085."""
    page = text(MAPS, Study(ARMS, "a", [1, 2], control="b"))
    assert "| arm | map %, last epoch | − a | − b |" in page
    assert "| a | 2.00 |  | −2.00 [−8.08, +4.08] |" in page
    assert "| c | 6.00 | +4.00 [−2.08, +10.08] | +2.00 [−4.08, +8.08] |" in page
    assert "Over the seeds 1, 2, which all 3 arms here have." in page
    assert "standard deviation of a run 1.41 points, 2 degrees of freedom" in page
    assert "points is found with 80% power" in page and "names no decisive comparison" in page


def test_decisive_comparisons_are_corrected() -> None:
    """c - a: t 2.828 with df 2, p = 1 - t / sqrt(2 + t^2) = 0.1056, twice that 0.2111; b - a: t 1.414, p 0.2929.

    Both at once: 6.205347 x root 2 = 8.776.
    """
    page = text(MAPS, Study(ARMS, "a", [1, 2], decisive=["b - a", "c - a"]))
    assert "| c − a | +4.00 [−2.08, +10.08] | +4.00 [−4.78, +12.78] | 0.1056 | 0.2111 |" in page
    assert "| b − a | +2.00 [−4.08, +8.08] | +2.00 [−6.78, +10.78] | 0.2929 | 0.2929 |" in page
    assert (
        "Of the decisive comparisons (2) decided at 5%, in brackets all at once: none; undecided: b − a, c − a." in page
    )


def test_the_sentence_names_what_is_decided_open_and_missing() -> None:
    """Two arms, differences 10.1 and 9.9: p is 0.0064, three times that 0.019.

    All three at once: t(1 - 0.05 / 6, 1) = 38.19 times 0.1.
    """
    maps = {"a": {1: 1.0, 2: 2.0}, "b": {1: 11.1, 2: 11.9}, "c": {1: 4.0}}
    study = Study(ARMS, "a", [1, 2], decisive=["a - b", "c - a", "c - b"])
    assert decided(maps, study) == (
        "Of the decisive comparisons (3) decided at 5%, in brackets all at once: a below b, by −10.00 [−13.82, −6.18]; "
        "not measured yet: c − a, c − b."
    )
    page = text(maps, study)
    assert "| c − a | – | – | – | – |" in page and "(too few of c)" in page


def test_too_little_is_said() -> None:
    study = Study(ARMS, "a", [1, 2], decisive=["b - a"])
    assert "no two arms have two seeds in common" in text({"a": {1: 1.0}, "b": {}}, study)
    assert decided({}, study).startswith("Not complete")


def finish(job: Job, last: float, **more: object) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "recipe.yaml").write_text(to_yaml(job.recipe))
    (job.folder / "metrics.jsonl").write_text("")
    (job.folder / "train.log").write_text("[Epoch 1]\n")
    (job.folder / "environment.json").write_text(json.dumps({"commands": [f"train {job}"], "commits": ["c0ffee"]}))
    (job.folder / job.network).mkdir(exist_ok=True)
    result = {"map": last, "last_map": last, **more}
    (job.folder / job.network / "eval.json").write_text(json.dumps(result))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        Path(f"{name}.yaml").write_text(FINAL)
    return tmp_path


def plan(text: str) -> Plan:
    Path("s.yaml").write_text(text)
    return make_plan("s.yaml", [], Path("runs"))


def page(plan: Plan, out: Path | None = None) -> str:
    return make_study_report(plan, out).with_suffix(".md").read_text().replace("\\", "")


def test_the_page_compares_with_the_measure_of_the_study(here: Path) -> None:
    """Arm b lies 1 and 3 above a by voc10, and below it by the recipe's own."""
    study = plan(f"{STUDY}measure: voc10\ndecisive: [b - a]\n")
    for job in study.jobs:
        ahead = 0 if job.label == "a" else 2 * job.seed - 1
        also = {"voc07": 1.0, "voc10": 40.0 + ahead, "ap": 20.0}
        finish(job, 50.0 - ahead, also=also, also_last={**also, "ap": None})
    told = page(study)
    assert "| a | 40.00 |  |" in told and "| b | 42.00 | +2.00 [−10.71, +14.71] |" in told
    assert "**Of the decisive comparisons (1) decided at 5%: none; undecided: b − a.**" in told
    assert "| decisive comparison | 95% by itself | p |" in told and "Holm" not in told
    assert "voc07 %,<br>last epoch | voc07 %,<br>best epoch | voc10 %,<br>last epoch" in told
    assert "| b | 1.00 ± 0.00 | 1.00 ± 0.00 | 42.00 ± 1.41 | 42.00 ± 1.41 | 20.00 ± 0.00 |" in told


def test_without_other_measures_no_table_of_them(here: Path) -> None:
    study = plan(STUDY)
    for job in study.jobs:
        finish(job, 50.0 + job.seed)
    told = page(study)
    assert "voc10" not in told and "## Comparisons" in told and "Label-free" not in told


@pytest.mark.parametrize("place", ["out", "."])
def test_the_label_free_tests_table_is_shown(here: Path, place: str) -> None:
    """Of the report's folder, or of the one above it."""
    study = plan(STUDY)
    (here / "out").mkdir()
    curve = [{"step": step, "conf": conf, "loc": 2.0, "attention": [0.5, 0.6]} for step, conf in ((0, 6.8), (80, 3.4))]
    found = {
        "rows": [{"method": "outputs", "seed": 1, "curve": curve, "cosine": [0.1, 0.2], "common": [0.3, 0.4]}],
        "teacher": {"conf": 2.7, "loc": 1.5}, "steps": 80, "images": 64, "maps": [12, 6], "command": "label it",
    }  # fmt: skip
    (here / place / "label-free.json").write_text(json.dumps(found))
    told = page(study, here / "out")
    assert "| outputs | 3.40 | 2.00 | 0.50 0.60 | 0.10 0.20 | 0.30 0.40 |" in told and "label it" in told
    (here / place / "label-free.json").write_text("{}")
    with pytest.raises(UsageError, match="label-free.json is not what scripts/label_free.py writes"):
        page(study, here / "out")


def test_a_search_under_way_has_its_trials_and_no_arms(here: Path) -> None:
    study = plan(STUDY + SEARCH)
    assert study.search is not None
    finish(study.search.trials[0].jobs[0], 30.0)
    told = page(study)
    assert "**Not complete: the search has not chosen the settings of every arm yet, so that no arm has run.**" in told
    assert "| a | 1 | eval.nms=0.4 | [30.00](../../a/search-1/7/train.log) | 30.00 |  | [log]" in told
    assert "| b | 2 | eval.nms=0.5 | – | – |  |  |" in told and "## Arms" not in told
    assert "train search/a/trial-1, seed 7" in told


def test_a_finished_search_shows_and_copies_every_trial(here: Path) -> None:
    text = f"{STUDY}{SEARCH}teacher: {{recipe: large.yaml, seed: 3}}\n"
    Path("large.yaml").write_text(
        "inherits: demo\nstages: {baseline: null, baseline_finetune: null, adversarial: null, finetune: null}\n"
    )
    for name in ("a", "b"):
        Path(f"{name}.yaml").write_text(FINAL.replace("teacher: {weights: t.params}\n", ""))
    study = plan(text)
    assert study.search is not None and study.search.teacher is not None
    finish(study.search.teacher, 61.5)
    for trial, last in zip(study.search.trials, (30.0, 31.0, 33.0, 32.0)):
        finish(trial.jobs[0], last)
    (study.search.trials[2].jobs[0].folder / DIVERGED).write_text("the loss 'conf' is nan in batch 3\n")
    study = plan(text)
    told = page(study, Path("out"))
    assert "| a | 2 | eval.nms=0.5 | [31.00](search/a/trial-2-seed-7/train.log) | 31.00 | chosen |" in told
    assert "| b | 1 | eval.nms=0.4 | [diverged](search/b/trial-1-seed-7/train.log) | – |  |" in told
    assert "| b | 2 | eval.nms=0.5 | [32.00](search/b/trial-2-seed-7/train.log) | 32.00 | chosen |" in told
    assert "search/b/trial-1, seed 7 diverged, and counts as the worst: the loss 'conf' is nan in batch 3" in told
    assert "without one of every 5 training images" in told
    assert "Its teacher, large-inner, was trained without those images as well: mAP 61.50 % after the last" in told
    assert "[log of its training](search/teacher-seed-3/train.log)" in told and "## Arms" in told
    copied = {path.name for path in Path("out/search/b/trial-1-seed-7").iterdir()}
    assert copied == {"recipe.yaml", "train.log", "metrics.jsonl", "environment.json", "baseline-eval.json", DIVERGED}
    for address in re.findall(r"\]\(([^)]+)\)", told):
        assert (Path("out") / unquote(address)).is_file()
    assert [job.recipe.eval.nms for job in study.jobs[:2]] == [0.5, 0.5]


def test_settings_of_another_search_are_named(here: Path) -> None:
    first = plan(STUDY + SEARCH)
    assert first.search is not None
    for trial in first.search.trials:
        finish(trial.jobs[0], 30.0)
    Path("later.yaml").write_text("arms: {b: b.yaml}\nbaseline: b\nseeds: [1]\nchosen_by: s.yaml\n")
    told = page(make_plan("later.yaml", [], Path("runs")))
    assert "The search of the study s chose these settings." in told and "| b | eval.nms=0.4 |" in told
