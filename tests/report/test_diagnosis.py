"""The curves map by map and the attention maps: what is drawn, read back from the figure or the pixels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.axes import Axes

from gan_kd.report import attention, diagnosis, page, pictures
from gan_kd.report.run import Network, read_run


@pytest.fixture
def panels(run_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Axes]]:
    """`panels(change)` draws a run whose diagnosis records went through `change`; its axes by title."""

    def draw(change: Callable[[dict], dict] = lambda record: record) -> dict[str, Axes]:
        drawn = []
        monkeypatch.setattr(diagnosis, "save", lambda figure, path: drawn.append(figure))
        network = read_run(run_folder()).networks["distilled"]
        network.diagnoses = [change(dict(record)) for record in network.diagnoses]
        assert diagnosis.draw([network], Path("unused.png"))
        return {axes.get_title(loc="left"): axes for axes in drawn[0].axes if axes.get_visible()}

    return draw


def curves(axes: Axes) -> list[list[float]]:
    """Values of the lines of more than one point that are no rules over the whole width."""
    values = (np.asarray(line.get_ydata(), float) for line in axes.lines if line.get_marker() == "o")
    return [value.tolist() for value in values]


def test_a_panel_a_measurement_and_a_line_a_map(panels: Callable[..., dict[str, Axes]]) -> None:
    drawn = panels()
    assert list(drawn) == [
        "critic gap, D(student) − D(teacher)", "gradient of L_adv beside L_det's",
        "gradient of cosine attention beside L_det's", "weights of D that stand at the clamp",
        "attention of student and teacher",
    ]  # fmt: skip
    gap, adversarial, _, bound, cosine = drawn.values()
    np.testing.assert_allclose(curves(gap)[2], [20, 40, 60, 80])
    assert gap.get_yscale() == adversarial.get_yscale() == "log" and bound.get_yscale() == "linear"
    np.testing.assert_allclose(curves(adversarial)[0], np.array([1, 2, 3, 4]) * 1e-4 / 0.4)
    assert curves(adversarial)[3] == []  # L_det has no gradient there to compare with
    np.testing.assert_allclose(curves(bound)[2], [0.1, 0.2, 0.3, 0.4])
    assert len(curves(cosine)[0]) == 4 and curves(cosine)[3] == []  # over one cell attention is always alike
    labels = [text.get_text() for text in gap.texts if "×" in text.get_text()]
    assert sorted(labels) == ["16×16", "1×1", "2×2", "8×8"]


def test_maps_of_several_places_are_told_apart(panels: Callable[..., dict[str, Axes]]) -> None:
    places = ["backbone", "backbone", "neck", "neck"]
    gap = panels(lambda record: {**record, "places": places})["critic gap, D(student) − D(teacher)"]
    labels = [text.get_text() for text in gap.texts if "×" in text.get_text()]
    assert sorted(labels) == ["backbone 16×16", "backbone 8×8", "neck 1×1", "neck 2×2"]


def test_a_gap_that_changes_sign_is_drawn(panels: Callable[..., dict[str, Axes]]) -> None:
    gap = panels(lambda record: {**record, "critic_gap": [-0.5, 0.02, 20.0, float("nan")]})[
        "critic gap, D(student) − D(teacher)"
    ]
    assert gap.get_yscale() == "symlog" and gap.get_ylim()[0] <= -0.5
    assert [len(values) for values in curves(gap)] == [4, 4, 4, 0]


def test_a_method_without_a_critic_has_its_gradient_alone(panels: Callable[..., dict[str, Axes]]) -> None:
    kept = ("step", "maps", "gradient_detection", "gradient_feature_imitation")
    drawn = panels(
        lambda record: {
            key: value for key, value in {**record, "gradient_feature_imitation": [1e-3] * 4}.items() if key in kept
        }
    )
    assert list(drawn) == ["gradient of imitation beside L_det's"]


def test_regions_of_localization_distillation_are_drawn(panels: Callable[..., dict[str, Axes]]) -> None:
    found = {"main_region": [0.01] * 4, "main_edges": [0.3, 0.2, 0.1, None], "gradient_ld": [1e-3] * 4}
    kept = ("step", "maps", "gradient_detection")
    drawn = panels(lambda record: {**{key: record[key] for key in kept}, **found})
    titles = ["gradient of main LD beside L_det's", "priors in the main region"]
    assert list(drawn) == [*titles, "edges in the main region, student and teacher"]
    assert [len(line) for line in curves(drawn["edges in the main region, student and teacher"])] == [4, 4, 4, 0]


def test_records_of_another_make_are_left_out(tmp_path: Path) -> None:
    network = Network("distilled", True, [], [], {}, {}, [{"step": 1, "maps": [16], "critic_gap": None}])
    assert not diagnosis.draw([network], tmp_path / "none.png")
    network.diagnoses = [{"step": 1}]
    assert not diagnosis.draw([network], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_attention_is_drawn_where_it_is(run_folder: Callable[..., Path], tmp_path: Path) -> None:
    run = read_run(run_folder(networks=("teacher", "baseline", "control", "distilled")))
    names, samples = attention.choose(run, photos=False)
    assert names == ["teacher", "distilled", "baseline", "control"] and len(samples) == 2
    bright = np.argwhere(attention.decode(samples[0]["attention"]["teacher"][0]) == 1)
    np.testing.assert_array_equal(bright, [[2, 0], [2, 1], [3, 0], [3, 1]])
    assert attention.draw(names, samples[:1], tmp_path / "attention.jpg")
    image = cv2.imread(str(tmp_path / "attention.jpg")).astype(int).sum(axis=2)
    body = image[round(attention.TOP * attention.DPI) :]
    first = body[:, : round(attention.WIDTH * attention.DPI)]
    row, column = np.argwhere(first > 600).mean(axis=0) / first.shape
    assert row == pytest.approx(3 / 8, abs=0.02) and column == pytest.approx(1 / 8, abs=0.02)


def test_attention_of_runs_before_it_was_kept(run_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = run_folder()
    for name in ("teacher", "baseline", "distilled"):
        measured = json.loads((folder / name / "eval.json").read_text())
        for sample in measured["samples"]:
            sample.pop("attention", None)
        (folder / name / "eval.json").write_text(json.dumps(measured))
    names, samples = attention.choose(read_run(folder), photos=True)
    assert names == [] and not attention.draw(names, samples, tmp_path / "attention.jpg")


def test_attention_is_drawn_without_the_images_where_those_are_left_out(
    run_folder: Callable[..., Path], tmp_path: Path
) -> None:
    run, picture, widths = read_run(run_folder()), tmp_path / "attention.jpg", []
    for photos in (True, False):
        section, figure = pictures.attention_maps(run, tmp_path, photos)
        assert isinstance(section, page.Section) and isinstance(figure, page.Figure)
        widths.append(cv2.imread(str(picture)).shape[1])
    assert widths[1] / widths[0] == pytest.approx(6 / 7, abs=0.01)  # two maps of three networks, the images gone
    for image in (tmp_path / "images").iterdir():
        image.unlink()
    assert pictures.attention_maps(run, tmp_path, True) == [] and not picture.exists()
    assert pictures.attention_maps(run, tmp_path, False) != [] and picture.exists()


def test_a_run_without_distillers_has_no_such_section(run_folder: Callable[..., Path], tmp_path: Path) -> None:
    for seed, networks, blocks in ((1, ("teacher", "distilled"), 2), (2, ("teacher", "baseline"), 0)):
        run = read_run(run_folder(seed=seed, networks=networks))
        assert len(pictures.distillation(list(run.networks.values()), tmp_path)) == blocks
        assert (tmp_path / "distillation.png").exists() is (blocks > 0)  # one of an earlier report does not stay
