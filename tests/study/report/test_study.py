"""The page of a study against numbers worked by hand, from run folders of invented numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from gan_kd.recipe import to_yaml
from gan_kd.study.job import Job
from gan_kd.study.plan import Plan, make_plan
from gan_kd.study.report.arms import LAST, read_arms, warnings
from gan_kd.study.report.study import make_study_report

# mAP after the last epoch by seed; the best epoch is 1 higher for the baseline and 2 for the others.
MAPS = {"none": (50, 52, 54), "gan": (53, 54, 57), "cosine": (50, 53, 53), "late": (40, None, None)}
RECIPE = """
inherits: demo
stages: {teacher: null, baseline: null, baseline_finetune: null, adversarial: {epochs: 12}}
teacher: {weights: t.params}
train: {batch_size: 16}
"""


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A study of four arms and three seeds, nothing run yet."""
    monkeypatch.chdir(tmp_path)
    for name in MAPS:
        Path(f"{name}.yaml").write_text(RECIPE)
    Path("none.yaml").write_text(
        "inherits: demo\nstages: {teacher: null, adversarial: null, finetune: null, baseline: {epochs: 12}}\n"
        "teacher: {weights: t.params}\ntrain: {batch_size: 16}\n"
    )
    arms = ", ".join(f"{name}: {name}.yaml" for name in MAPS)
    Path("s.yaml").write_text(f"description: A | B\narms: {{{arms}}}\nbaseline: none\nseeds: [1, 2, 3]\n")
    return make_plan("s.yaml", [], Path("runs"))


def write_run(job: Job, last: float, commit: str = "c0ffee", seen: int = 50, finished: bool = True) -> None:
    """What a run of two stages leaves: 12 and 1 epochs, `seen` batches each, a warm-up before the first."""
    job.folder.mkdir(parents=True)
    own = job.label == "none"
    first, second = job.recipe.stages
    network = {"recipe_hash": "ab", "commit": commit, "head": "own" if own else "teacher", "adapters": not own}
    lines = [] if own else [{"kind": "train", "stage": first, "epoch": 0, "step": 7}]
    start = 0 if own else 7
    for stage, epoch, step in ((first, 12, start + seen), (second, 1, start + 2 * seen)):
        lines.append({"kind": "train", "stage": stage, "epoch": epoch, "step": step, "losses": {}})
        lines.append({"kind": "eval", "stage": stage, "epoch": epoch, "step": step, "map": last - (stage == first)})
    text = "".join(json.dumps({**line, "trains": job.network}) + "\n" for line in lines)
    (job.folder / "metrics.jsonl").write_text(text)
    (job.folder / "recipe.yaml").write_text(to_yaml(job.recipe))
    (job.folder / "train.log").write_text("[Epoch 1]\n")
    (job.folder / "environment.json").write_text(json.dumps({"commands": [f"train {job}"], "commits": [commit]}))
    (job.folder / job.network).mkdir()
    (job.folder / job.network / "best.json").write_text(json.dumps(network))
    if finished:
        result = {"map": last + (1 if own else 2), "last_map": last, "parameters": 3_210_000, "macs": 1_150_000_000}
        (job.folder / job.network / "eval.json").write_text(json.dumps({**result, "machine": {"cpu": "Some CPU"}}))


def write_runs(plan: Plan) -> None:
    for job in plan.jobs:
        last = MAPS[job.label][job.seed - 1]
        if last is not None:
            write_run(job, last)


def cells(page: str, arm: str) -> list[str]:
    """The arm's row of the first table."""
    row = re.search(rf"^\| {arm} \|.*$", page, re.MULTILINE)
    assert row
    return [cell.strip().replace("\\", "") for cell in row.group().strip("|").split(" | ")]


def test_the_table_of_arms(plan: Plan) -> None:
    """Differences 3, 2, 3: mean 2.667, s 0.5774, half width 4.3027 x s / root 3 = 1.434. Of 0, 1, -1: 2.484."""
    write_runs(plan)
    page = make_study_report(plan).with_suffix(".md").read_text()
    assert cells(page, "none")[1:] == [
        "52.00 ± 2.00", "53.00 ± 2.00", "3 of 3", "baseline", "baseline", "3.21 M", "1.15 G", "own",
        "measured",
    ]  # fmt: skip
    assert cells(page, "gan")[1:] == [
        "54.67 ± 2.08", "56.67 ± 2.08", "3 of 3", "+2.67<br>[+1.23, +4.10]", "+3.67<br>[+2.23, +5.10]", "3.21 M",
        "1.15 G", "inherited, adapters", "measured",
    ]  # fmt: skip
    assert cells(page, "cosine")[4] == "+0.00<br>[−2.48, +2.48]"
    assert cells(page, "late")[1:5] == ["40.00", "42.00", "1 of 3", "−10.00"]
    assert cells(page, "late")[-1] == "under way"


def test_an_arm_of_fewer_seeds_is_compared_over_its_own(plan: Plan) -> None:
    text = Path("s.yaml").read_text()
    Path("s.yaml").write_text(text + "fewer_seeds: {late: [2]}\n")
    plan = make_plan("s.yaml", [], Path("runs"))
    for job in plan.jobs:
        write_run(job, 40 if job.label == "late" else float(MAPS[job.label][job.seed - 1] or 0))
    page = make_study_report(plan).with_suffix(".md").read_text()
    assert cells(page, "late")[1:5] == ["40.00", "42.00", "1 of 1", "−12.00"] and cells(page, "late")[-1] == "measured"
    assert re.findall(r"^\| (\d) \| (\w+) \|", page, re.MULTILINE) == [
        (str(seed), arm) for seed in (1, 2, 3) for arm in MAPS if arm != "late" or seed == 2
    ]


def test_an_untrained_head_is_told_from_an_inherited_one(plan: Plan) -> None:
    write_runs(plan)
    for job in plan.jobs:
        best = job.folder / job.network / "best.json"
        if job.label == "cosine":
            best.write_text(json.dumps({**json.loads(best.read_text()), "head": "untrained"}))
    page = make_study_report(plan).with_suffix(".md").read_text()
    assert cells(page, "cosine")[-2] == "untrained, adapters" and cells(page, "none")[-2] == "own"


def test_the_finding_says_which_arms_lie_above(plan: Plan) -> None:
    write_runs(plan)
    page = make_study_report(plan).with_suffix(".md").read_text().replace("\\", "")
    assert (
        "**Above none with 95% confidence, in mAP after the last epoch: gan +2.67 [+1.23, +4.10]. "
        "Not told apart from it: cosine +0.00 [−2.48, +2.48]. "
        "Of one seed only, which says little, against none: late −10.00.**"
    ) in page


def test_a_control_is_compared_with_as_well(plan: Plan) -> None:
    """Differences to cosine of the same seed: 3, 1, 4, mean 2.667, s 1.528, half width 3.795."""
    write_runs(plan)
    text = Path("s.yaml").read_text()
    Path("s.yaml").write_text(text + "control: cosine\n")
    page = make_study_report(make_plan("s.yaml", [], Path("runs"))).with_suffix(".md").read_text().replace("\\", "")
    assert cells(page, "gan")[6] == "+2.67<br>[−1.13, +6.46]"
    assert cells(page, "cosine")[6] == "control" and cells(page, "none")[4:6] == ["baseline", "baseline"]
    assert (
        "**Above cosine with 95% confidence, in mAP after the last epoch: no arm. Not told apart from it: gan" in page
    )


def test_the_finding_says_that_none_lies_above_and_which_below(plan: Plan) -> None:
    for job in plan.jobs[:12]:
        if job.label in ("none", "cosine"):
            write_run(job, 50 if job.label == "none" else 40 + job.seed)
    page = make_study_report(plan).with_suffix(".md").read_text().replace("\\", "")
    assert "last epoch: no arm. Below it: cosine −8.00 [−10.48, −5.52]. Not compared yet: gan, late." in page


def test_every_number_links_to_its_run(plan: Plan) -> None:
    write_runs(plan)
    html = make_study_report(plan)
    page = html.with_suffix(".md").read_text()
    links = [unquote(address) for address in re.findall(r"\]\(([^)]+)\)", page)]
    assert all((html.parent / address).is_file() for address in links)
    assert "| 2 | gan | [54.00](../../gan/2/train.log) | [56.00](../../gan/2/train.log) | +2.00 | +3.00 |" in page
    assert "| 3 | late | – | – | – | – | – | – | – | not run |" in page
    assert 'href="../../gan/2/metrics.jsonl"' in html.read_text()
    for text in ("train none, seed 1", "Some CPU", "c0ffee", "seeds: [1, 2, 3]", "study s.yaml --save-prefix runs"):
        assert text in page
    assert str(Path.cwd()) not in page + html.read_text()


def test_out_holds_copies_and_links_to_them(plan: Plan) -> None:
    write_runs(plan)
    page = make_study_report(plan, Path("results/s")).with_suffix(".md").read_text()
    assert "[54.00](gan/seed-2/train.log)" in page and "runs/" not in "".join(re.findall(r"\]\(([^)]+)\)", page))
    copied = sorted(path.name for path in Path("results/s/gan/seed-2").iterdir())
    known = ["distilled-best.json", "distilled-eval.json"]
    assert copied == [*known, "environment.json", "metrics.jsonl", "recipe.yaml", "train.log"]
    assert {"map.png", "differences.png"} < {path.name for path in Path("results/s").iterdir()}


def test_a_run_under_way_is_no_number(plan: Plan) -> None:
    write_run(plan.jobs[0], 50)
    write_run(plan.jobs[1], 53, finished=False)
    page = make_study_report(plan).with_suffix(".md").read_text()
    assert "Not complete: no arm has a seed that is measured both in it and in none." in page
    assert cells(page, "gan")[1:4] == ["–", "–", "0 of 3"] and cells(page, "gan")[-1] == "under way"
    assert "under way: finetune, epoch 1 of 1" in page
    curve = read_arms(plan)[1].cells[0].curve
    assert curve == {12: 52.0, 13: 53.0}


def test_nothing_run_is_a_page_that_says_so(plan: Plan) -> None:
    page = make_study_report(plan).with_suffix(".md").read_text()
    assert "Not complete" in page and "Not run here: no evaluation yet." in page


def told(plan: Plan) -> str:
    arms = read_arms(plan)
    return "\n".join(warnings(arms, arms[0]))


def test_equal_schedules_and_commits_are_no_warning(plan: Plan) -> None:
    """A critic's warm-up before the student learns is none of the student's images."""
    write_runs(plan)
    assert told(plan) == ""
    assert {cell.images for arm in read_arms(plan) for cell in arm.cells if cell.measured} == {2 * 50 * 16}


def test_other_commits_images_and_schedules_are_warned_of(plan: Plan) -> None:
    stages = RECIPE.replace("baseline_finetune: null", "baseline_finetune: null, finetune: {epochs: 2}")
    Path("gan.yaml").write_text(stages.replace("batch_size: 16", "batch_size: 8") + "data: {size: 96}\n")
    plan = make_plan("s.yaml", [], Path("runs"))
    write_run(plan.jobs[0], 50)
    write_run(plan.jobs[1], 50)
    write_run(plan.jobs[2], 50, commit="decaf", seen=40)
    text = told(plan)
    assert (
        "gan differs from none in data.size (96, not 128); train.batch_size (8, not 16); stage 2.epochs (2, not 1)."
        in text
    )
    assert "images seen in training are none 1,600; gan 800; cosine 1,280." in text
    assert "different commits: c0ffee, decaf." in text


def test_another_teacher_and_another_recipe_are_warned_of(plan: Plan) -> None:
    for k, job in enumerate(plan.jobs[1:3]):
        write_run(job, 50)
        (job.folder / "teacher").mkdir()
        (job.folder / "teacher" / "best.json").write_text(json.dumps({"sha256": f"{k}"}))
    assert "The arms of seed 1 learned from different teachers." in told(plan)
    changed = make_plan("s.yaml", ["distill.gan.width=8"], Path("runs"))
    assert "gan, seed 1 was made with another recipe than the study gives: now width: 8." in told(changed)


def test_differences_need_both_seeds(plan: Plan) -> None:
    write_run(plan.jobs[0], 50)
    write_run(plan.jobs[5], 51)
    none, gan, *_ = read_arms(plan)
    assert gan.maps(LAST) == [51.0] and gan.differences(none, LAST) == {} and gan.interval(none, LAST) is None
