"""The pictures of a run as blocks of its page. Imported only to draw, for Matplotlib loads slowly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gan_kd.report import attention, diagnosis, page, photos, plots
from gan_kd.report.run import Network, Run


def detections(run: Run, folder: Path, shown: bool) -> list[page.Block]:
    """The page of images, or the sentence why there is none; `shown` False leaves it out."""
    found: list[page.Block] = [page.Section("Detections")]
    (folder / "detections.jpg").unlink(missing_ok=True)  # an earlier report's must not stay behind unlinked
    if not shown:
        text = (
            "Left out here: the licence of these images does not allow to pass them on. The run's own report has them."
        )
        return [*found, page.Text(text, "note")]
    classes = run.first("classes") or list(run.first("ap") or ())
    samples, absent = photos.choose(run)
    if samples and photos.detections(run, samples, classes, folder / "detections.jpg"):
        caption = (
            f"The {photos.MOST} highest detections scored above {photos.SCORE:g}, with the score in percent. "
            "Dashed: overlaps no object of its class by half."
        )
        alt = "Validation images with ground truth and the detections of teacher, baseline and distilled"
        found.append(page.Figure("detections.jpg", alt, caption))
    elif not absent:
        found.append(page.Text("Not run: no network was evaluated, so that there are no detections to show."))
    if absent:
        found.append(page.Text(f"{absent} image(s) chosen for this page are not on the machine that wrote it.", "note"))
    return found


def curves(networks: Sequence[Network], folder: Path) -> list[page.Block]:
    """The plots that the run has data for; a sentence stands in for each of the others."""
    found: list[page.Block] = []
    for section, draw, file, alt, caption, missing in (
        ("By class", plots.class_bars, "ap.png", "AP of each class, one bar a network",
         "Average precision at each network's best epoch.", "AP by class: no evaluation yet"),
        ("Training", plots.map_curves, "map.png", "mAP on the validation images, one line a network",
         "Ring: best epoch. Dotted: next stage of the distilled student. Dashed: not trained here.",
         "mAP over training: no evaluation during training"),
        ("", plots.losses, "losses.png", "Training losses, one line a network",
         "Losses. Pale: as logged; full: running mean.", "losses: nothing was trained yet"),
        ("", plots.critic, "critic.png", "Scores of the discriminators for teacher and student maps",
         "The adversary. D lowers L_D, the student raises it towards 0, where D cannot tell the maps apart.",
         "scores of the discriminators: no stage with an adversary was run"),
        ("", plots.learning_rate, "lr.png", "Learning rate over training, one line a network",
         "Each network's own optimiser; D's is in the recipe.", "learning rate: nothing was trained yet"),
    ):  # fmt: skip
        if section:
            found.append(page.Section(section))
        (folder / file).unlink(missing_ok=True)
        drawn = draw(networks, folder / file)
        found.append(page.Figure(file, alt, caption) if drawn else page.Text(f"Not run here: {missing}."))
    return found


def distillation(networks: Sequence[Network], folder: Path) -> list[page.Block]:
    """What the adversary and its rivals did, map by map; nothing for a run without such records."""
    (folder / "distillation.png").unlink(missing_ok=True)
    if not diagnosis.draw(networks, folder / "distillation.png"):
        return []
    alt = "Critic gap, ratios of gradients, weights at the clamp and attention's similarity, one line a feature map"
    caption = (
        "Measured on the last batch of each epoch, one line a feature map: a loss whose gradient lies far below 1 "
        "hardly moves the student there beside L_det = L_conf + L_loc, one above 1 outweighs it."
    )
    return [page.Section("Distillation, map by map"), page.Figure("distillation.png", alt, caption)]


def attention_maps(run: Run, folder: Path, shown: bool) -> list[page.Block]:
    """Where the networks look; `shown` False draws the maps without the images, and nothing is drawn without maps."""
    (folder / "attention.jpg").unlink(missing_ok=True)
    names, samples = attention.choose(run, shown)
    titles = {name: run.networks[name].title for name in names}
    if not attention.draw(names, samples, folder / "attention.jpg", titles):
        return []
    alt = f"Attention maps of {', '.join(titles.values())} for the same validation images"
    caption = (
        "Bright: where the squares of a map, summed over its channels, are largest, each map on a scale of its own. "
        "The maps are those that a network's head takes; a student that looks where its teacher does shows the "
        "teacher's picture."
    )
    return [page.Section("Attention"), page.Figure("attention.jpg", alt, caption)]
