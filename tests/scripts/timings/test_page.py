"""benchmark.json adds up over calls, and the page is made of it."""

import json

import pytest

from gan_kd.errors import RunError, UsageError
from gan_kd.system.timing import Result
from scripts.timings import growth, page

REACHED = Result("a_ratio", "theirs / ours", [6.0, 5.5, 7.0], 5, details={"ours, s": 0.25}, notes=["One thread."])
MISSED = Result("b_over_c", "b / c", [1.2, 1.3], 1.05, at_least=False)
ABSENT = Result("d_ratio", "d / e", [], 2, notes=["torch is not installed."])


def record(result, command="python scripts/benchmark.py --only x"):
    return {"result": page.plain(result), "environment": page.environment(command)}


def test_results_of_several_calls_add_up(tmp_path):
    out = tmp_path / "new/folder"
    records = page.open_records(out)
    assert records == {}
    records["a_ratio"] = record(REACHED, "python scripts/benchmark.py --only a")
    page.write(out, records)
    again = page.open_records(out)
    again.update({"b_over_c": record(MISSED), "d_ratio": record(ABSENT)})
    text = page.write(out, again).read_text()
    assert "1 of 2 figures that were measured reach their aim" in text
    assert "| a\\_ratio | 6.00 | 5.75 to 6.50 | at least 5 | yes |" in text
    assert "| b\\_over\\_c | 1.25 | 1.23 to 1.27 | at most 1.05 | no |" in text
    assert "| d\\_ratio | not run |  | at least 2 |  |" in text
    assert "torch is not installed." in text and "| ours, s | 0.25 |" in text
    assert "benchmark.py --only a." in text and "--only x." in text
    assert (out / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    assert list(json.loads((out / "benchmark.json").read_text())) == ["a_ratio", "b_over_c", "d_ratio"]


def test_the_environment_says_what_the_figure_depends_on(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    here = page.environment("command")
    assert here["OMP_NUM_THREADS"] == "3" and here["packages"]["mxnet"].startswith("1.9")
    assert here["packages"]["gluoncv"].startswith("0.10")
    assert 1 <= here["cores used"] <= here["cores"] and here["memory, GiB"] > 0.1


def test_growth_is_on_the_page_and_says_what_is_extrapolated(tmp_path):
    points = [
        {"grows": "batch", "batch": batch, "size": 64, "classes": classes, "contexts": contexts, "workers": workers,
         "seconds": 0.1 * batch, "images/s": 10.0, "bytes": 3e8 * batch}
        for batch, classes, contexts, workers in (
            (1, 1, ["cpu:0"], None), (2, 1, ["cpu:0"], None), (2, 9, ["cpu:0"], None), (2, 1, ["cpu:0", "cpu:1"], None),
            (2, 1, ["cpu:0"], 1),
        )
    ]  # fmt: skip
    fitted = growth.fit(points)
    grown = {"backbone": "net", "points": points, "fit": fitted, "extrapolation": growth.extrapolate(fitted, 10**6)}
    text = page.write(tmp_path, {"growth": {"growth": grown, "environment": page.environment("c")}}).read_text()
    assert "This next" not in text and "nothing here was measured on a GPU" in text
    assert "| batch | 2 | 64 | 9 | cpu:0 | noise | 10.0 | 0.56 |" in text
    assert "| batch | 2 | 64 | 1 | cpu:0, cpu:1 | noise | 10.0 | 0.56 |  |  |" in text


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', '{"a": {"result": {"key": "a"}}}'])
def test_a_foreign_file_is_refused(tmp_path, content):
    (tmp_path / "benchmark.json").write_text(content)
    with pytest.raises(UsageError, match="not a file of this benchmark"):
        page.open_records(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="--out .*file/out cannot be used"):
        page.open_records(tmp_path / "file/out")
