"""The published tables beside made-up runs, every figure worked by hand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from gan_kd.recipe import load, to_yaml
from gan_kd.report import page
from gan_kd.report.cells import Source, collect
from gan_kd.report.compare import published_for
from gan_kd.report.report import main
from gan_kd.report.run import read_run
from gan_kd.report.tables import make_tables

ONE = "voc/mobilenet1.0-resnet50_v1"
NONE = ("stages.adversarial=null", "stages.finetune=null", "published.column=none", "name=voc/alone")
TAUGHT = ("stages.baseline=null", "stages.baseline_finetune=null")
SHORT = ("stages.adversarial.epochs=4", "stages.baseline.epochs=4")


def write(
    root: Path, seed: int, maps: dict[str, float], overrides: tuple[str, ...] = (), recipe: str = ONE
) -> tuple[Path, Source]:
    """A run folder below `root` with a final evaluation of each network in `maps`."""
    found = load(recipe, [*overrides, f"train.seed={seed}"])
    folder = root / "runs" / found.name / str(seed)
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(to_yaml(found))
    (folder / "train.log").write_text("[Epoch 1], mAP=70\n")
    records = [{"kind": "eval", "trains": name, "step": 10, "map": value, "ap": {}} for name, value in maps.items()]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for network, value in maps.items():
        (folder / network).mkdir()
        (folder / network / "eval.json").write_text(
            json.dumps({"map": value, "ap": {"cat": value}, "commit": "c0ffee" * 6})
        )
    return folder, Source(read_run(folder), folder / "report" / "report.html", folder)


def rows(root: Path, *sources: Source, not_run: str | None = None) -> dict[tuple[str, ...], list[str]]:
    """Cells behind student and teacher of each row of the published tables, by table, student, teacher, number."""
    text = make_tables(sources, root, not_run).with_suffix(".md").read_text()
    found: dict[tuple[str, ...], list[str]] = {}
    for table in ("1", "2"):
        part = text.split(f"## Table {table}\n")[1].split("\n## ")[0]
        for line in part.splitlines():
            cells = [cell.replace("\\", "").replace("<br>", " ") for cell in line.strip("| ").split(" | ")]
            if line.startswith("|") and cells[0] not in ("student", ":--"):
                number = sum(key[:3] == (table, cells[0], cells[1]) for key in found)
                found[(table, cells[0], cells[1], str(number))] = cells[2:]
    return found


def test_three_seeds_of_a_cell(tmp_path: Path) -> None:
    """Differences 1, 2, 3: mean 2, s = 1, half width t(0.975, 2) / sqrt 3 = 4.30265 / 1.73205 = 2.484."""
    pairs = [(75.0, 76.0), (76.0, 78.0), (77.0, 80.0)]
    sources = [
        write(tmp_path, seed, {"baseline": alone, "distilled": taught})[1]
        for seed, (alone, taught) in zip((1, 2, 3), pairs)
    ]
    found = rows(tmp_path, *sources)
    paper, measured, apart, gain, interval, seeds, status = found[("1", "MobileNetV1", "ResNet50", "0")]
    # Mean of 76, 78, 80: 78, s = 2; the paper has 77.7, and 75.4 for the student alone.
    assert (status, paper, measured, apart) == ("measured", "77.7", "78.00 ± 2.00", "+0.30")
    assert (gain, interval) == ("+2.3", "+2.00 [−0.48, +4.48]")
    assert re.sub(r"\([^)]*\)", "", seeds) == "3: [1], [2], [3]"
    alone = found[("1", "MobileNetV1", "none", "0")]
    assert (alone[1], alone[2], alone[6]) == ("76.00 ± 1.00", "+0.60", "measured")
    text = (tmp_path / "tables.md").read_text()
    assert "**2 of 25 published cells measured, 0 measured small" in text and "0 under way, 23 not run here." in text
    assert text.count("| same run |") == 3 and "may be copied rather than trained" in text


def test_a_small_run_has_its_number_but_no_difference(tmp_path: Path) -> None:
    one = write(tmp_path, 1, {"baseline": 60.0, "distilled": 61.5}, SHORT)[1]
    paper, measured, apart, _, gain, _, status = rows(tmp_path, one)[("1", "MobileNetV1", "ResNet50", "0")]
    assert status == "measured small, not comparable: other stages.adversarial.epochs"
    assert (paper, measured, apart, gain) == ("77.7", "61.50", "not comparable", "+1.50 (one seed)")
    text = (tmp_path / "tables.md").read_text()
    assert "in stages.adversarial.epochs 4 (221)." in text
    assert "0 of 25 published cells measured, 2 measured small" in text.replace("\\", "")


def test_small_runs_are_not_mixed_with_others(tmp_path: Path) -> None:
    taught = [
        write(tmp_path, 1, {"distilled": 78.0})[1],
        write(tmp_path, 2, {"distilled": 50.0}, SHORT)[1],
        write(tmp_path, 3, {"distilled": 40.0}, (*SHORT, "data.train=[2007/trainval]"))[1],
    ]
    found = rows(tmp_path, *taught)
    shown = [found[("1", "MobileNetV1", "ResNet50", str(number))][1] for number in range(3)]
    assert shown == ["78.00", "50.00", "40.00"]
    assert "1 of 25 published cells measured, 0 measured small" in (tmp_path / "tables.md").read_text()


@pytest.mark.parametrize(
    "override",
    ["data.size=300,teacher.weights=ssd300.params", "data.val=[2012/val]", "eval.metric=voc10",
     "distill.gan.clamp=0.01", "data.holdout=5", "stages.finetune=null", "teacher.min_map=70", "student.init=random"],
)  # fmt: skip
def test_what_makes_a_run_small(tmp_path: Path, override: str) -> None:
    one = write(tmp_path, 1, {"distilled": 70.0}, tuple(override.split(",")))[1]
    assert rows(tmp_path, one)[("1", "MobileNetV1", "ResNet50", "0")][6].startswith("measured small")


def test_what_may_differ_is_named_without_the_path(tmp_path: Path) -> None:
    free = ("train.batch_size=32", "train.contexts=[cpu:0]", "data.root=/elsewhere/voc", "eval.batch_size=8")
    files = ("teacher.weights=/elsewhere/ssd.params", "student.init=/elsewhere/mobilenet.params")
    one = write(tmp_path, 1, {"distilled": 77.0}, (*free, *files))[1]
    assert rows(tmp_path, one)[("1", "MobileNetV1", "ResNet50", "0")][6] == "measured"
    text = (tmp_path / "tables.md").read_text().replace("\\", "")
    for named in ("train.batch_size 32 (64)", "teacher.weights ssd.params (zoo)", "student.init mobilenet.params"):
        assert named in text
    assert "/elsewhere" not in text and str(tmp_path) not in text + (tmp_path / "tables.html").read_text()


def test_the_log_is_no_final_evaluation(tmp_path: Path) -> None:
    folder, source = write(tmp_path, 1, {})
    record = {"kind": "eval", "trains": "distilled", "step": 1, "map": 71.25, "ap": {}}
    (folder / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    found = rows(tmp_path, source._replace(run=read_run(folder)))
    cell = found[("1", "MobileNetV1", "ResNet50", "0")]
    assert cell[6] == "under way" and cell[1] == "–" and cell[5].startswith("0 under way: [1]")
    text = (tmp_path / "tables.md").read_text()
    assert "2 under way, 23 not run here" in text and "71.25" not in text


def test_why_a_cell_was_not_run(tmp_path: Path) -> None:
    cell = ("2", "MobileNetV2", "ResNet50", "0")
    assert rows(tmp_path)[cell][6] == (
        "not run here (no run of recipe coco/mobilenetv2_1.0-resnet50_v1 in the folders given)"
    )
    found = rows(tmp_path, not_run="no GPU that MXNet supports")
    assert len(found) == 19
    assert {cells[6] for cells in found.values()} == {"not run here (no GPU that MXNet supports)"}
    assert found[cell][0] == "24.6" and found[cell][3] == "+2.6"
    assert "Faster R-CNN" in (tmp_path / "tables.md").read_text()


def test_the_baseline_of_column_none_with_the_same_seed_is_subtracted(tmp_path: Path) -> None:
    sources = [
        write(tmp_path, 1, {"distilled": 78.0}, TAUGHT)[1],
        write(tmp_path, 2, {"distilled": 79.0}, TAUGHT)[1],
        write(tmp_path, 1, {"baseline": 75.5}, NONE)[1],
        write(tmp_path, 3, {"baseline": 70.0}, NONE)[1],
    ]
    found = rows(tmp_path, *sources)
    assert found[("1", "MobileNetV1", "ResNet50", "0")][4] == "+2.50 (one seed) 1 of 2 seeds have a baseline"
    assert found[("1", "MobileNetV1", "none", "0")][1] == "72.75 ± 3.89"  # 5.5 / sqrt 2
    text = (tmp_path / "tables.md").read_text()
    assert "[voc/alone, seed 1](runs/voc/alone/1/report/report.md)" in text


def test_a_baseline_of_another_schedule_is_not_subtracted(tmp_path: Path) -> None:
    taught = write(tmp_path, 1, {"distilled": 78.0}, TAUGHT)[1]
    alone = write(tmp_path, 1, {"baseline": 60.0}, (*NONE, "stages.baseline.epochs=5"))[1]
    found = rows(tmp_path, taught, alone)
    assert found[("1", "MobileNetV1", "ResNet50", "0")][4] == "no baseline of this seed and schedule"


def test_own_baseline_comes_first_and_a_seed_counts_once(tmp_path: Path) -> None:
    both = write(tmp_path, 1, {"baseline": 75.0, "distilled": 78.0})[1]
    alone = write(tmp_path, 1, {"baseline": 76.0}, NONE)[1]
    found = rows(tmp_path, both, alone)
    assert found[("1", "MobileNetV1", "ResNet50", "0")][4] == "+3.00 (one seed)"
    assert found[("1", "MobileNetV1", "none", "0")][1] == "76.00"
    assert "not counted: another run of this seed is" in (tmp_path / "tables.md").read_text()


def test_a_control_student_beside_changes_no_cell(tmp_path: Path) -> None:
    place = "published={table: 1, row: MobileNetV1, column: ResNet50}"  # which the shipped recipe leaves to others
    one = write(tmp_path, 1, {"control": 77.5, "distilled": 78.0}, (place,), recipe=f"{ONE}-control")[1]
    cell = rows(tmp_path, one)[("1", "MobileNetV1", "ResNet50", "0")]
    assert (cell[0], cell[1], cell[6]) == ("77.7", "78.00", "measured")


def test_every_cell_has_a_comparable_recipe() -> None:
    cells = collect([])
    assert len(cells) == 25
    for cell in cells:
        network = "baseline" if cell.column == "none" else "distilled"
        found = published_for(cell.recipe, network, None)
        assert found is not None and found["value"] == cell.published


@pytest.mark.parametrize("out", [None, "results & more"])
def test_the_command_links_every_number_to_files(tmp_path: Path, out: str | None) -> None:
    write(tmp_path, 1, {"baseline": 75.0, "distilled": 78.0})
    write(tmp_path, 2, {"baseline": 76.0, "distilled": 78.0})
    write(tmp_path, 1, {"baseline": 40.0}, recipe="mini/mobilenet0.25-mobilenet1.0")
    command = [sys.executable, "-m", "gan_kd", "report", str(tmp_path / "runs"), "--not-run", "no <GPU>"]
    done = subprocess.run(
        command + (["--out", str(tmp_path / out)] if out else []), capture_output=True, text=True, check=True
    )
    folder = tmp_path / (out or "runs")
    assert done.stdout.splitlines()[-1] == f"report: {folder / 'tables.html'}"
    markdown, html = ((folder / f"tables.{kind}").read_text() for kind in ("md", "html"))
    targets = re.findall(r"(?<!\\)\]\(([^)]+)\)", markdown), re.findall(r'href="([^"#]+)"', html)
    for found in targets:
        assert all((folder / unquote(target)).is_file() for target in found)
        names = {Path(unquote(target)).name.partition(".")[0] for target in found}
        assert names == {"report", "train", "recipe"}
    assert len(targets[0]) == len(targets[1]) == 4 * (1 + 1 + 3)  # seed, number, files of 2 cells of 2 runs
    assert "no &lt;GPU&gt;" in html and "without a place in the tables" in html


def test_a_link_in_a_cell_stays_one_link() -> None:
    table = page.Table(("a",), [[["<b>: ", page.Link("](x)|", "a (b)/report.html")]]], "l")
    assert table.markdown().splitlines()[2] == r"| \<b\>: [\](x)\|](a%20%28b%29/report.md) |"
    assert '&lt;b&gt;: <a href="a%20%28b%29/report.html">](x)|</a>' in table.html(Path())


def test_one_run_without_a_place_has_no_tables(tmp_path: Path) -> None:
    folder, _ = write(tmp_path, 1, {"baseline": 40.0}, recipe="mini/mobilenet0.25-mobilenet1.0")
    assert main([folder]) == [folder / "report" / "report.html"]
    placed, _ = write(tmp_path, 1, {"baseline": 75.0})
    assert main([placed]) == [placed / "report" / "report.html", placed / "report" / "tables.html"]
