"""Run folders in every state: finished, under way, damaged, or none at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gan_kd.errors import UsageError
from gan_kd.report.run import find_runs, read_run


def rewrite(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_difference_and_part_of_the_lead(run_folder: Callable[..., Path]) -> None:
    folder = run_folder()
    for name, value in (("teacher", 80.0), ("baseline", 60.0), ("distilled", 65.0)):
        rewrite(folder / name / "eval.json", map=value, last_map=value - (name == "distilled"))
    run = read_run(folder)
    assert (run.difference, run.last_difference, run.gap_closed) == (5.0, 4.0, 25.0)


def test_no_lead_no_part_of_it(run_folder: Callable[..., Path]) -> None:
    """Nor of one below a point, of which a seed's chance would make hundreds of percent."""
    folder = run_folder()
    alone = json.loads((folder / "baseline" / "eval.json").read_text())["map"]
    for lead in (-3, 0, 0.9):
        rewrite(folder / "teacher" / "eval.json", map=alone + lead)
        assert read_run(folder).gap_closed is None


def test_without_an_evaluation_the_log_counts(run_folder: Callable[..., Path]) -> None:
    folder = run_folder()
    (folder / "distilled" / "eval.json").unlink()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    maps = [line["map"] for line in lines if line["kind"] == "eval" and line["trains"] == "distilled"]
    network = read_run(folder).networks["distilled"]
    assert (network.map, network.last_map) == (max(maps), maps[-1])
    assert "training log" in network.status


def test_a_half_written_last_line_is_silently_left_out_and_others_are_named(
    run_folder: Callable[..., Path],
) -> None:
    folder = run_folder(networks=("teacher",))
    metrics = folder / "metrics.jsonl"
    whole = metrics.read_text()
    metrics.write_text(whole[:-20])
    run = read_run(folder)
    assert run.problems == [] and len(run.networks["teacher"].evals) == 3
    metrics.write_text('{"kind": "tra\n' + whole)
    assert read_run(folder).problems == ["metrics.jsonl: 1 unreadable line(s) left out"]


def test_nan_is_not_a_measurement(run_folder: Callable[..., Path]) -> None:
    folder = run_folder(networks=("teacher",))
    metrics = folder / "metrics.jsonl"
    metrics.write_text('{"kind": "eval", "trains": "teacher", "step": 1, "map": NaN, "ap": {"circle": NaN}}\n')
    rewrite(folder / "teacher" / "eval.json", map=float("nan"), last_map=None, ap={"circle": None, "square": 3.0})
    teacher = read_run(folder).networks["teacher"]
    assert teacher.map is None and teacher.last_map is None and teacher.ap == {"square": 3.0}


def test_further_measures_are_read_as_far_as_they_are_numbers(run_folder: Callable[..., Path]) -> None:
    folder = run_folder(networks=("teacher",))
    assert read_run(folder).networks["teacher"].also_last == {}
    for value, expected in ((None, {}), ([3], {}), ({"voc10": 3, "ap": float("nan"), "voc07": None}, {"voc10": 3.0})):
        rewrite(folder / "teacher" / "eval.json", also_last=value)
        assert read_run(folder).networks["teacher"].also_last == expected


def test_damaged_files_are_left_out_and_named(run_folder: Callable[..., Path]) -> None:
    folder = run_folder()
    (folder / "teacher" / "eval.json").write_text('{"map": 3')
    (folder / "metrics.jsonl").unlink()
    run = read_run(folder)
    assert run.networks["teacher"].eval == {} and run.networks["baseline"].map is not None
    assert [problem.split(" ")[0] for problem in run.problems] == ["metrics.jsonl", "teacher/eval.json"]


def test_states_of_a_network(run_folder: Callable[..., Path]) -> None:
    folder = run_folder(networks=("teacher", "baseline"))
    for file in ("best.json", "eval.json"):
        (folder / "baseline" / file).unlink()
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(line for line in lines if '"eval"' not in line))
    networks = read_run(folder).networks
    assert networks["teacher"].status == "evaluated"
    assert networks["baseline"].status == "in training, no evaluation yet"
    assert networks["distilled"].status == "not run here: the recipe does not train it"
    (folder / "metrics.jsonl").write_text("")
    assert read_run(folder).networks["baseline"].status == "not run here yet"


def test_environment_of_one_entry_a_start(run_folder: Callable[..., Path]) -> None:
    folder = run_folder()
    starts = [{"command": f"train {k}", "commit": f"c{k}", "machine": {"cores": k}} for k in (1, 2)]
    (folder / "environment.json").write_text(json.dumps(starts))
    environment = read_run(folder).environment
    assert environment == {
        "commands": ["train 1", "train 2"],
        "commits": ["c1", "c2"],
        "machine": {"cores": 2},
    }


def test_what_is_no_run_is_refused(tmp_path: Path, run_folder: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match="no recipe.yaml"):
        read_run(tmp_path)
    with pytest.raises(UsageError, match="holds no run"):
        find_runs([tmp_path])
    with pytest.raises(UsageError, match="not a folder"):
        find_runs([tmp_path / "nothing"])
    folder = run_folder()
    for text in ("- a list", "a: [", "name: x\ndata: 3\n"):
        (folder / "recipe.yaml").write_text(text)
        with pytest.raises(UsageError, match="not the recipe of a run"):
            read_run(folder)


def test_runs_are_found_at_any_depth_but_not_among_the_results(run_folder: Callable[..., Path], tmp_path: Path) -> None:
    runs = [run_folder(seed=1, networks=("teacher",)), run_folder(seed=2, networks=("teacher",))]
    (tmp_path / "results" / "mini").mkdir(parents=True)
    (tmp_path / "results" / "mini" / "recipe.yaml").write_text("name: copy\n")
    assert find_runs([tmp_path, runs[0]], exclude=tmp_path / "results") == runs
