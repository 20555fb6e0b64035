"""Reports as they are written: whole, self-contained, honest about what is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
import yaml

from gan_kd.errors import UsageError
from gan_kd.report import page, summary
from gan_kd.report.report import main, make_report, summarise
from gan_kd.report.run import read_run
from gan_kd.report.summary import make_summary, mean_spread

VOID = {"meta", "img", "br", "link", "input"}


class Reader(HTMLParser):
    """Checks that tags close in order, and keeps what the page loads, its text and its tables' rows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        assert tag not in ("link", "iframe")
        self.loads += [value for key, value in attrs if key in ("src", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_whole_run(run_folder: Callable[..., Path]) -> None:
    folder = run_folder(networks=("teacher", "baseline", "control", "distilled"))
    path = make_report(folder)
    assert path == folder / "report" / "report.html"
    html, markdown = path.read_text(), (folder / "report" / "report.md").read_text()
    reader = Reader(html)
    assert len(reader.loads) == 8 and all(load.startswith("data:image/") for load in reader.loads)
    assert "url(" not in html and "@import" not in html
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", markdown)
    drawn = ["detections.jpg", "attention.jpg", "ap.png", "map.png", "losses.png", "critic.png", "lr.png"]
    assert pictures == [*drawn, "distillation.png"]
    links = re.findall(r"(?<!!)\[[^\]]*\]\(([^)]+)\)", markdown)
    assert all((folder / "report" / unquote(target)).is_file() for target in (*pictures, *links)) and len(links) == 3
    values = {name: json.loads((folder / name / "eval.json").read_text())["map"] for name in ("baseline", "distilled")}
    for text in (markdown, reader.text):
        assert f"+{values['distilled'] - values['baseline']:.2f}" in text
        assert "python -m gan_kd train --recipe mini/small-large --seed 233" in text
        assert "c0ffee" in text and "Some CPU" in text and "0123456789abcdef" in text and "3.21 M" in text
        assert "seed" in text and "mobilenet0.25" in text and "voc07" in text
    assert str(folder) not in html + markdown  # the page is to be committed: no path of the machine
    assert sum(file.stat().st_size for file in path.parent.iterdir()) < 3e6


def test_the_finding_names_the_method(run_folder: Callable[..., Path], tmp_path: Path) -> None:
    """Each distiller once, in the order of training, and whose head the student has."""
    folders = [run_folder(seed=seed) for seed in (1, 2)]
    text = make_report(folders[0]).with_suffix(".md").read_text()
    assert "The distilled student (inherited head, gan) reaches" in text
    for folder in folders:
        source = folder / "recipe.yaml"
        values = {**yaml.safe_load(source.read_text()), "distill": {"head": "own"}}
        values["stages"]["adversarial"]["distillers"] = ["outputs", "cwd"]
        values["stages"]["finetune"]["distillers"] = ["outputs"]
        source.write_text(yaml.safe_dump(values, sort_keys=False))
    text = make_report(folders[0]).with_suffix(".md").read_text()
    assert "The distilled student (own head, outputs, cwd) reaches" in text
    text = make_summary(folders, folders, tmp_path / "summary").with_suffix(".md").read_text()
    assert "the distilled student (own head, outputs, cwd) differs from" in text


def test_the_sum_of_localization_distillation_is_told(run_folder: Callable[..., Path]) -> None:
    folder = run_folder()
    assert "box terms" not in make_report(folder).with_suffix(".md").read_text()
    source = folder / "recipe.yaml"
    values = {**yaml.safe_load(source.read_text()), "distill": {"localization": {"ld": {"reference": 8}}}}
    values["stages"]["adversarial"]["distillers"] = ["localization"]
    source.write_text(yaml.safe_dump(values, sort_keys=False))
    told = "16 images on cpu:0; box terms of Localization Distillation are sums over 8 images, whatever the batch"
    assert told in make_report(folder).with_suffix(".md").read_text()


def test_further_measures_where_a_network_has_them(run_folder: Callable[..., Path]) -> None:
    """None of the teacher, which was not trained in this run; a file of an old run has no such key at all."""
    folder = run_folder()
    make_report(folder)
    assert "AP50" not in (folder / "report" / "report.md").read_text()
    found = {
        "baseline": {"voc07": 61.0, "voc10": 62.5, "ap": 33.25, "ap75": 31.0},
        "distilled": {"voc10": 64.0, "ap": 33.0, "ap75": 32.5},
    }
    for name in ("teacher", "baseline", "distilled"):
        file = folder / name / "eval.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "also_last": found.get(name)}))
    Reader(make_report(folder).read_text())
    text = (folder / "report" / "report.md").read_text()
    head, _, *rows = (line.split(" | ") for line in text.splitlines() if line.startswith("| "))
    assert head[4] == "AP, AP50, AP75 %, last epoch" and head[5] == "parameters"
    shown = ["–, –, –", "33.25, 62.50, 31.00", "33.00, 64.00, 32.50", "−0.25, +1.50, +1.50", ""]
    assert [row[4] for row in rows[:5]] == shown
    assert rows[1][5] == "3.21 M" and "mean over the ten IoU thresholds" in text


def test_coco_has_its_own_further_measures(run_folder: Callable[..., Path]) -> None:
    folder = run_folder()
    for name, ap50, ap75 in (("baseline", 50.0, 30.0), ("distilled", 51.0, 33.0)):
        file = folder / name / "eval.json"
        summary = {"AP": 29.0, "AP50": ap50, "AP75": ap75, "APs": 3.0}
        file.write_text(json.dumps({**json.loads(file.read_text()), "also_last": {"ap": 33.0}, "summary": summary}))
    make_report(folder)
    text = (folder / "report" / "report.md").read_text()
    head, _, *rows = (line.split(" | ") for line in text.splitlines() if line.startswith("| "))
    assert head[4] == "AP50, AP75 %, best epoch"
    assert [row[4] for row in rows[:5]] == ["–, –", "50.00, 30.00", "51.00, 33.00", "+1.00, +3.00", ""]


@pytest.mark.parametrize(
    ("head", "title", "shown"),
    [("teacher", "head inheritance", "inherited"), ("untrained", "untrained head", "untrained")],
)
def test_the_student_with_a_taken_head_is_called_by_its_method(
    run_folder: Callable[..., Path], tmp_path: Path, head: str, title: str, shown: str
) -> None:
    """Files call it control, as those of older runs do, whose recipes say head: teacher."""
    folders = [run_folder(seed=seed, networks=("teacher", "baseline", "control")) for seed in (1, 2)]
    for folder in folders:
        source = folder / "recipe.yaml"
        assert "trains: control" in source.read_text()
        source.write_text(
            yaml.safe_dump({**yaml.safe_load(source.read_text()), "distill": {"head": head}}, sort_keys=False)
        )
        best = folder / "control" / "best.json"
        best.write_text(json.dumps({**json.loads(best.read_text()), "head": head, "adapters": True}))
        text = make_report(folder).with_suffix(".md").read_text()
        assert f"| {title} | mobilenet0.25 |" in text and f"{title}: the student with 1x1 adapters" in text
        assert f"control: {title}, 4 epochs" in text and f"{shown}, adapters |" in text and f", {title} 6" in text
    summary = make_summary(folders, folders, tmp_path / "summary").with_suffix(".md").read_text()
    assert f"| {title} |" in summary and f"control: {title}, 4 epochs" in summary


def test_the_same_run_gives_the_same_report(run_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = run_folder(networks=("teacher",))
    one, two = (make_report(folder, tmp_path / name).read_bytes() for name in ("one", "two"))
    assert one == two


def test_a_distilled_student_without_a_baseline(run_folder: Callable[..., Path]) -> None:
    folder = run_folder(networks=("teacher", "distilled"))
    make_report(folder)
    text = (folder / "report" / "report.md").read_text()
    assert "**Without a baseline to compare with: teacher" in text and ", distilled" in text


def test_a_run_under_way(run_folder: Callable[..., Path]) -> None:
    folder = run_folder(networks=("teacher", "baseline"))
    (folder / "baseline" / "eval.json").unlink()
    make_report(folder)
    text = (folder / "report" / "report.md").read_text()
    assert "Without distillation: teacher" in text
    assert "distilled: not run here: the recipe does not train it." in text
    assert "baseline: not evaluated on its own yet; mAP from the training log." in text
    assert "Not run here: scores of the discriminators" in text
    assert "| distilled | mobilenet0.25 | – | – | – | – | – |" in text


def test_a_run_that_has_only_started(run_folder: Callable[..., Path]) -> None:
    folder = run_folder()
    (folder / "metrics.jsonl").write_text("")
    (folder / "environment.json").unlink()
    for name in ("teacher", "baseline", "distilled"):
        for file in ("best.json", "eval.json"):
            (folder / name / file).unlink()
    Reader(make_report(folder).read_text())
    text = (folder / "report" / "report.md").read_text()
    assert "teacher, baseline, distilled without an mAP" in text and "teacher: not run here yet" in text
    assert not list((folder / "report").glob("*.png")) and "command was not recorded" in text


def test_images_of_another_machine_are_counted_not_drawn(run_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = run_folder()
    for image in (tmp_path / "images").iterdir():
        image.unlink()
    make_report(folder)
    text = (folder / "report" / "report.md").read_text()
    assert "3 image(s) chosen for this page are not on the machine" in text and "detections.jpg" not in text


def test_images_can_be_left_out(run_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = run_folder()
    make_report(folder, tmp_path / "out")
    assert (tmp_path / "out" / "detections.jpg").exists()
    make_report(folder, tmp_path / "out", photos=False)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "licence" in text and "detections.jpg" not in text
    assert not (tmp_path / "out" / "detections.jpg").exists()


def test_an_image_that_does_not_decode_leaves_the_others(run_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = run_folder()
    make_report(folder)
    before = cv2.imread(str(folder / "report" / "detections.jpg")).shape
    (tmp_path / "images" / "0.jpg").write_bytes(b"no image")
    make_report(folder)
    after = cv2.imread(str(folder / "report" / "detections.jpg")).shape
    assert before[1] == after[1] and before[0] - after[0] == pytest.approx(300 * 180 / 240 + 6, abs=2)


def test_nan_in_the_log_leaves_gaps(run_folder: Callable[..., Path]) -> None:
    folder = run_folder(networks=("teacher",))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["kind"] == "train" and line["step"] % 4:
            line["losses"]["conf"] = float("nan")
    (folder / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    make_report(folder)
    assert np.ptp(cv2.imread(str(folder / "report" / "losses.png"))) > 100


def test_the_published_row_stands_beside_a_comparable_run_only(run_folder: Callable[..., Path]) -> None:
    folder = run_folder()
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe["published"] = {"table": 1, "row": "MobileNetV1", "column": "ResNet50"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    make_report(folder)
    text = (folder / "report" / "report.md").read_text()
    assert "is not comparable" in text and "77.7" not in text
    recipe["data"] = {
        "dataset": "voc",
        "train": ["2007/trainval"],
        "val": ["2007/test"],
        "size": 512,
        "classes": "voc",
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    make_report(folder)
    text = (folder / "report" / "report.md").read_text()
    distilled = json.loads((folder / "distilled" / "eval.json").read_text())["map"]
    assert f"| distilled | {distilled:.2f} | 77.7 | {distilled - 77.7:+.1f} |".replace("-", "−") in text
    assert "This run trained on 2007/trainval." in text


def test_results_of_one_run(run_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run_folder()
    [path] = main([tmp_path / "runs"], tmp_path / "results")
    folder = tmp_path / "results" / "mini-small-large"
    assert path == folder / "report.html" and capsys.readouterr().out == f"report: {path}\n"
    assert {"recipe.yaml", "metrics.jsonl", "train.log", "report.md", "map.png"} <= {f.name for f in folder.iterdir()}
    assert "[train.log](train.log)" in (folder / "report.md").read_text()


def test_results_of_several_seeds(run_folder: Callable[..., Path], tmp_path: Path) -> None:
    folders = [run_folder(seed=1), run_folder(seed=2), run_folder(seed=3, networks=("teacher", "baseline"))]
    maps = [json.loads((folder / "baseline" / "eval.json").read_text())["map"] for folder in folders]
    paths = main([tmp_path / "runs"], tmp_path / "results")
    folder = tmp_path / "results" / "mini-small-large"
    assert paths == [*(folder / f"seed-{seed}" / "report.html" for seed in (1, 2, 3)), folder / "report.html"]
    Reader(paths[-1].read_text())
    text = (folder / "report.md").read_text()
    assert f"| baseline | {np.mean(maps):.2f} ± {np.std(maps, ddof=1):.2f} |" in text
    assert "(2 of 3 runs)" in text and "it is better in 2 of 2" in text
    assert "The recipes of these runs differ, beyond the seed, in stages.adversarial" in text
    assert "[seed 2](seed-2/report.md)" in text and "--seed 3" in text


@pytest.mark.parametrize(
    "part, key, value, named",
    [
        ("eval", "batch_size", 7, False),
        ("train", "worker_timeout", 9.0, False),
        ("train", "on_worker_failure", "stop", False),
        ("train", "contexts", ["cpu:0", "cpu:1"], False),
        ("data", "root", "elsewhere", False),
        ("train", "batch_size", 7, True),
        ("eval", "nms", 0.5, True),
    ],
)
def test_seeds_differ_in_what_counts_in_a_recipes_hash_alone(
    part: str, key: str, value: object, named: bool, run_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folders = [run_folder(seed=seed, networks=("teacher", "baseline")) for seed in (1, 2)]
    recipe = yaml.safe_load((folders[1] / "recipe.yaml").read_text())
    recipe[part][key] = value
    (folders[1] / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    warnings = summary._warnings([read_run(folder) for folder in folders])
    assert any(f"beyond the seed, in {part}.{key}." in text for text in warnings) == named


def test_the_page_over_the_seeds_alone(run_folder: Callable[..., Path], tmp_path: Path) -> None:
    """In the order of the seeds, which is not that of the folders' names."""
    folders = [run_folder(seed=seed) for seed in (2, 10)]
    paths = summarise([tmp_path / "runs"], tmp_path / "results")
    folder = tmp_path / "results" / "mini-small-large"
    assert paths == [folder / "report.html"]
    files = [path.name for path in (folder / "seed-10").iterdir()]
    assert sorted(files) == ["metrics.jsonl", "recipe.yaml", "train.log"]
    maps = [
        [json.loads((of / name / "eval.json").read_text())["map"] for name in ("teacher", "baseline")] for of in folders
    ]
    leads = [teacher - baseline for teacher, baseline in maps]
    text = (folder / "report.md").read_text()
    assert f"The teacher differs from the student alone by +{np.mean(leads):.1f} ± " in text
    assert f"points, in the closest seed by +{min(leads):.1f}." in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith(("| 2 |", "| 10 |"))]
    assert [row[4] for row in rows] == [f"+{lead:.2f}" for lead in leads]
    assert "[seed 10](seed-10/train.log)" in text
    assert summarise([tmp_path / "runs"]) == [folders[0].parent / "report" / "report.html"]
    assert "[seed 10](../10/train.log)" in (folders[0].parent / "report" / "report.md").read_text()


def test_seeds_of_a_student_that_is_not_distilled(run_folder: Callable[..., Path], tmp_path: Path) -> None:
    folders = [run_folder(seed=seed, networks=("teacher", "baseline")) for seed in (1, 2)]
    maps = [json.loads((folder / "baseline" / "eval.json").read_text())["map"] for folder in folders]
    text = main(folders, tmp_path / "results")[-1].with_suffix(".md").read_text()
    assert f"baseline {np.mean(maps):.1f} ± {np.std(maps, ddof=1):.1f}.**" in text
    assert "**Without distillation, mAP in percent: teacher " in text and "Not complete" not in text


def test_an_evaluation_after_the_training_only(run_folder: Callable[..., Path]) -> None:
    folder = run_folder(networks=("teacher", "baseline"))
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["kind"] == "train"))
    text = make_report(folder).with_suffix(".md").read_text()
    assert "mAP over training: no evaluation during training" in text and "](losses.png)" in text


def test_copies_below_the_runs_are_no_runs(run_folder: Callable[..., Path], tmp_path: Path) -> None:
    run_folder()
    first = main([tmp_path / "runs"], tmp_path / "runs" / "results")
    assert main([tmp_path / "runs"], tmp_path / "elsewhere") != first  # not refused as two runs of one seed
    copy = tmp_path / "runs" / "results" / "mini-small-large"
    assert main([copy]) == [copy / "report" / "report.html"]  # named by itself it is one


def test_two_runs_of_one_seed_are_refused(run_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = run_folder()
    twin = folder.parent / "twin"
    twin.mkdir()
    (twin / "recipe.yaml").write_text((folder / "recipe.yaml").read_text())
    with pytest.raises(UsageError, match="both seed 233 of mini/small-large"):
        main([tmp_path / "runs"])


def test_mean_and_spread_of_what_is_there() -> None:
    assert mean_spread([1.0, 3.0]) == "2.00 ± 1.41"
    assert mean_spread([-1.5], 1, sign=True) == "−1.5"
    assert mean_spread([None, 4.0, 4.0]) == "4.00 ± 0.00 (2 of 3 runs)"
    assert mean_spread([None]) == "not run"


def test_text_of_a_user_stays_text(tmp_path: Path) -> None:
    evil = "<script>|`*_[x](y)"
    blocks: list[page.Block] = [
        page.Text(evil),
        page.Table((evil,), [(evil,)], "l"),
        page.Code("````\n" + evil, "", evil),
    ]
    reader = Reader(page.write(tmp_path, evil, blocks).read_text())
    assert reader.text.count(evil) == 7  # title and heading, paragraph, two cells, summary, code
    markdown = (tmp_path / "report.md").read_text()
    assert "\n`````\n````\n" in markdown and "\\<script\\>\\|" in markdown
