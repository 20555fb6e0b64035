"""The page of a study: its arms side by side, seed by seed, with what every number comes from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gan_kd.report import page
from gan_kd.report.single import DASH, count, head_in_words, percent
from gan_kd.report.spread import Interval
from gan_kd.report.summary import mean_spread
from gan_kd.study.plan import Plan
from gan_kd.study.record import keep
from gan_kd.study.report import labelfree
from gan_kd.study.report.arms import BEST, LAST, OTHER_MEASURES, Arm, read_arms, seed_by_seed, warnings
from gan_kd.study.report.comparisons import comparisons, decided, interval_words
from gan_kd.study.report.evidence import evidence, files, linked
from gan_kd.study.report.searched import searched

# Okabe and Ito's colours again, in an order in which neighbours differ most.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#59636e", "#000000")
REMARK = (
    "mAP after the last epoch was not chosen by the images that it is measured on; that of the best epoch was, which "
    "flatters every arm a little. ±: standard deviation over the seeds (n − 1). Differences are counted seed by seed "
    "against {baseline}; in brackets Student's 95% interval of their mean, for each arm by itself: of twenty arms "
    "without an effect one is expected to miss 0. Parameters and MACs (multiply-accumulates for one image) are those "
    "of the network as it is deployed."
)
UNDECIDED = "Not complete: the search has not chosen the settings of every arm yet, so that no arm has run."


def make_study_report(plan: Plan, out: Path | None = None) -> Path:
    """Write report.html and report.md of a study as far as its runs are; the path of report.html.

    They go into `out`, with copies of each run's recipe, metrics, log and environment in `out/ARM/seed-S`, else into
    the study's folder, linked to the runs. Raises UsageError for a run folder that cannot be read.
    """
    folder = out or plan.folder
    folder.mkdir(parents=True, exist_ok=True)
    if out is not None:
        keep(plan, out)
    arms = read_arms(plan) if plan.jobs else []
    blocks = [
        *([page.Text(plan.study.description)] if plan.study.description else []),
        *(_results(plan, arms, folder, out) if plan.jobs else [page.Text(UNDECIDED, "lead")]),
        *searched(plan, folder, out),
        *evidence(plan, arms, folder, out),
    ]
    return page.write(folder, f"Study {plan.name}", blocks)


def _results(plan: Plan, arms: Sequence[Arm], folder: Path, out: Path | None) -> list[page.Block]:
    """What the arms reached, from the finding to the curves."""
    from gan_kd.study.report import plots as study_plots

    study = plan.study
    baseline = next(arm for arm in arms if arm.label == study.baseline)
    control = next((arm for arm in arms if arm.label == study.control), None)
    colours = {arm.label: PALETTE[i % len(PALETTE)] for i, arm in enumerate(arms)}
    drawn = study_plots.curves(arms, colours, folder / "map.png")
    compared = study_plots.differences(arms, baseline, colours, folder / "differences.png")
    findings = [finding(arms, baseline)]
    if control:
        findings.append(finding([arm for arm in arms if arm is not baseline], control))
    maps = {arm.label: arm.by_seed(study.measure) for arm in arms}
    return [
        *([page.Text(decided(maps, study), "lead")] if study.decisive else []),
        *(page.Text(text, "" if study.decisive else "lead") for text in findings),
        *(page.Text(text, "warning") for text in warnings(arms, baseline)),
        page.Section("Arms"),
        _arms(arms, baseline, control, colours),
        page.Text(REMARK.format(baseline=baseline.label) + _teacher(arms), "note"),
        *_other_measures(arms, colours),
        *([_differences_figure(baseline)] if compared else []),
        *comparisons(maps, study),
        *_label_free(folder),
        page.Section("Seed by seed"),
        _seeds(plan, arms, baseline, folder, out),
        page.Section("Over the training"),
        _curves_figure() if drawn else page.Text("Not run here: no evaluation yet."),
    ]


def _label_free(folder: Path) -> list[page.Block]:
    """The label-free test's table, where the test was run for this page's folder or for the one above it."""
    found = labelfree.read(folder) or labelfree.read(folder.parent)
    if found is None:
        return []
    return [
        page.Section("Label-free test"),
        labelfree.table(found),
        page.Text(labelfree.remark(found), "note"),
        page.Code(found["command"], "sh"),
    ]


def finding(arms: Sequence[Arm], baseline: Arm) -> str:
    """Which arms lie above the baseline after the last epoch, which below, which neither, and which are missing."""
    rivals = [(arm, arm.interval(baseline, LAST)) for arm in arms if arm is not baseline]
    known = [(arm.label, interval) for arm, interval in rivals if interval is not None]
    sure = [(label, interval) for label, interval in known if interval.seeds > 1]
    above = [_named(*one) for one in sure if one[1].low > 0]
    below = [_named(*one) for one in sure if one[1].high < 0]
    apart = [_named(*one) for one in sure if one[1].low <= 0 <= one[1].high]
    single = [_named(*one) for one in known if one[1].seeds == 1]
    missing = [arm.label for arm, interval in rivals if interval is None]
    if not known:
        return f"Not complete: no arm has a seed that is measured both in it and in {baseline.label}."
    lines = []
    if sure:
        whom = "; ".join(above) if above else "no arm"
        lines.append(f"Above {baseline.label} with 95% confidence, in mAP after the last epoch: {whom}.")
    if below:
        lines.append(f"Below it: {'; '.join(below)}.")
    if apart:
        lines.append(f"Not told apart from it: {'; '.join(apart)}.")
    if single:
        lines.append(f"Of one seed only, which says little, against {baseline.label}: {'; '.join(single)}.")
    if missing:
        lines.append(f"Not compared yet: {', '.join(missing)}.")
    return " ".join(lines)


def _named(label: str, interval: Interval) -> str:
    return f"{label} {interval_words(interval)}"


def _arms(arms: Sequence[Arm], baseline: Arm, control: Arm | None, colours: dict[str, str]) -> page.Table:
    compared = [(baseline, LAST), (baseline, BEST), *([(control, LAST)] if control else [])]
    rows = []
    for arm in arms:
        own = "baseline" if arm is baseline else "control"
        rows.append((
            arm.label,
            *(mean_spread(arm.maps(which)) if arm.maps(which) else DASH for which in (LAST, BEST)),
            f"{len(arm.maps(LAST))} of {len(arm.cells)}",
            *(own if arm is other else interval_words(arm.interval(other, which), "\n") for other, which in compared),
            count(arm.first("parameters")),
            count(arm.first("macs")),
            head_in_words(arm.first("head"), arm.first("adapters")),
            arm.status,
        ))  # fmt: skip
    differences = (f"− {other.label},\n{which} epoch" for other, which in compared)
    maps = ("mAP %,\nlast epoch", "mAP %,\nbest epoch")
    head = ("arm", *maps, "seeds", *differences, "parameters", "MACs", "head", "status")
    return page.Table(head, rows, "lrrr" + "r" * len(compared) + "rrll", colours)


def _other_measures(arms: Sequence[Arm], colours: dict[str, str]) -> list[page.Block]:
    """A table of the measures that the final evaluation took beside the recipe's own, where it took any."""
    shown = [
        (measure, which)
        for measure in OTHER_MEASURES
        for which in (LAST, BEST)
        if any(arm.by_seed(measure, which) for arm in arms)
    ]
    if not shown:
        return []
    rows = []
    for arm in arms:
        found = [list(arm.by_seed(measure, which).values()) for measure, which in shown]
        rows.append((arm.label, *(mean_spread(values) if values else DASH for values in found)))
    head = ("arm", *(f"{measure} %,\n{which} epoch" for measure, which in shown))
    remark = (
        "voc07: 11 points at an overlap of 0.50; voc10: area under the curve there, AP50; ap75: the area at 0.75; ap: "
        "its mean over overlaps of 0.50 to 0.95. ±: as above."
    )
    return [page.Table(head, rows, "l" + "r" * len(shown), colours), page.Text(remark, "note")]


def _teacher(arms: Sequence[Arm]) -> str:
    """What the teachers reach, as the arms measured them."""
    runs = [cell.run for arm in arms for cell in arm.cells if cell.run and cell.job.recipe.needs_teacher]
    maps = {run.networks["teacher"].map for run in runs} - {None}
    if not maps:
        return ""
    backbones = ", ".join(dict.fromkeys(str(run.recipe["teacher"]["backbone"]) for run in runs))
    return f" The teacher ({backbones}): {mean_spread(list(maps))} % mAP."


def _differences_figure(baseline: Arm) -> page.Figure:
    alt = f"Differences of mAP to {baseline.label}, a dot for each seed, a diamond with its interval for their mean"
    return page.Figure("differences.png", alt, "Circles: single seeds. Diamond and line: mean and its 95% interval.")


def _curves_figure() -> page.Figure:
    alt = "mAP over the epochs of training, a thin line for each seed, a thick one for the mean of each arm"
    return page.Figure("map.png", alt, "Thin: single seeds. Thick: their mean, where every seed was evaluated.")


def _seeds(plan: Plan, arms: Sequence[Arm], baseline: Arm, folder: Path, out: Path | None) -> page.Table:
    rows = []
    for seed, cells in seed_by_seed(arms).items():
        for arm, cell in cells:
            rows.append((
                str(seed), arm.label,
                linked(percent(cell.map(LAST)), cell.job, "report/report.html", folder, out),
                linked(percent(cell.map(BEST)), cell.job, "report/report.html", folder, out),
                *(_difference(arm, baseline, which, seed) for which in (LAST, BEST)),
                *(linked(text, cell.job, file, folder, out) for text, file in files(cell)),
                cell.status,
            ))  # fmt: skip
    head = (
        "seed", "arm", "mAP %, last epoch", "mAP %, best epoch", f"− {baseline.label}, last",
        f"− {baseline.label}, best", "log", "metrics", "recipe", "status",
    )  # fmt: skip
    return page.Table(head, rows, "rlrrrrllll")


def _difference(arm: Arm, baseline: Arm, which: str, seed: int) -> str:
    return "" if arm is baseline else percent(arm.differences(baseline, which).get(seed), sign=True)
