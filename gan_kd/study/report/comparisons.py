"""Comparisons of a study's arms with their error pooled, and what its decisive ones decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan

from gan_kd.report import page
from gan_kd.report.single import DASH, percent
from gan_kd.report.spread import Interval
from gan_kd.study.report.contrasts import Layout, holm, lay_out
from gan_kd.study.schema import Study

_LEVEL = 0.05  # of the tests
_INCOMPLETE = "Not complete: no two arms have two seeds in common that are measured."

#: A measure by arm and seed, %.
Maps = Mapping[str, Mapping[int, float]]


def interval_words(interval: Interval | None, between: str = " ") -> str:
    """Mean [low, high] in points, with this text between; the mean alone of one seed."""
    if interval is None:
        return DASH
    mean, low, high = (percent(value, sign=True) for value in interval[:3])
    return mean if isnan(interval.low) else f"{mean}{between}[{low}, {high}]"


def comparisons(maps: Maps, study: Study) -> list[page.Block]:
    """The section: every arm against baseline and control, the decisive comparisons, the power, what is decided."""
    layout = lay_out(maps)
    if layout is None:
        return [page.Section("Comparisons"), page.Text(_INCOMPLETE)]
    blocks: list[page.Block] = [
        page.Section("Comparisons"),
        _against(layout, study),
        page.Text(_remark(layout, study), "note"),
    ]
    if study.decisive:
        blocks.append(_decisive(layout, study))
        if len(study.decisive) > 1:
            blocks.append(page.Text(_corrected(study), "note"))
    power = (
        f"With {len(layout.seeds)} seeds and this spread a true difference of {percent(layout.detectable())} points is "
        "found with 80% power (a comparison by itself, two-sided test at 5%)."
    )
    return [*blocks, page.Text(power), page.Text(decided(maps, study))]


def decided(maps: Maps, study: Study) -> str:
    """One sentence: which decisive comparisons are told apart from 0 with Holm's correction, and which are not."""
    if not study.decisive:
        return "The study names no decisive comparison: the intervals hold each by itself, and decide nothing together."
    layout = lay_out(maps)
    if layout is None:
        return _INCOMPLETE
    known = [pair for pair in study.contrasts if _has(layout, pair)]
    sure = {pair for pair, p in zip(study.contrasts, _adjusted(layout, study.contrasts)) if p < _LEVEL}
    parts = [
        f"{_whom(layout, pair)}, by {interval_words(layout.interval(*pair, len(study.contrasts)))}"
        for pair in known
        if pair in sure
    ]
    open_ = [f"{one} − {other}" for one, other in known if (one, other) not in sure]
    missing = [f"{one} − {other}" for one, other in study.contrasts if (one, other) not in known]
    number = len(study.decisive)
    what = f"Of the decisive comparisons ({number}) decided at 5%"
    brackets = ", in brackets all at once" if number > 1 else ""
    found = [f"{what}{brackets}: {'; '.join(parts) or 'none'}"]
    found += [f"undecided: {', '.join(open_)}"] if open_ else []
    found += [f"not measured yet: {', '.join(missing)}"] if missing else []
    return f"{'; '.join(found)}."


def _against(layout: Layout, study: Study) -> page.Table:
    others = [label for label in (study.baseline, study.control) if label in layout.means]
    rows = []
    for label, mean in layout.means.items():
        against = ("" if label == other else interval_words(layout.interval(label, str(other))) for other in others)
        rows.append((label, percent(mean), *against))
    head = ("arm", f"{study.measure} %, last epoch", *(f"− {other}" for other in others))
    return page.Table(head, rows, "lr" + "r" * len(others))


def _remark(layout: Layout, study: Study) -> str:
    seeds = ", ".join(map(str, layout.seeds))
    missing = [label for label in study.arms if label not in layout.means]
    return (
        f"Over the seeds {seeds}, which all {len(layout.means)} arms here have"
        + (f" (too few of {', '.join(missing)})" if missing else "")
        + f". In brackets 95% intervals, each by itself, of the error pooled over the arms with seeds as blocks: "
        f"standard deviation of a run {percent(layout.sd)} points, {layout.df} degrees of freedom. "
        "The spread is taken to be the same in every arm."
    )


def _decisive(layout: Layout, study: Study) -> page.Table:
    rows, number = [], len(study.contrasts)
    # Of a single comparison every second column, for the others correct nothing.
    shown = slice(None) if number > 1 else slice(None, None, 2)
    head = ["95% by itself", f"95%, all {number} at once", "p", "p, Holm"][shown]
    for (one, other), adjusted in zip(study.contrasts, _adjusted(layout, study.contrasts)):
        row = [DASH] * 4
        if _has(layout, (one, other)):
            row = [
                interval_words(layout.interval(one, other)),
                interval_words(layout.interval(one, other, number)),
                f"{layout.p_value(one, other):.4f}",
                f"{adjusted:.4f}",
            ]
        rows.append((f"{one} − {other}", *row[shown]))
    return page.Table(("decisive comparison", *head), rows, "l" + "r" * len(head))


def _corrected(study: Study) -> str:
    return (
        f"All {len(study.decisive)} at once: Bonferroni's intervals, which hold together with 95% confidence. p, Holm: "
        "adjusted for their number; below 0.05 a comparison is decided. Holm's test finds a little more than these "
        "intervals show. A comparison that is not measured counts in the number."
    )


def _adjusted(layout: Layout, contrasts: Sequence[tuple[str, str]]) -> list[float]:
    """Holm's p-values; of a comparison that is not measured 1."""
    return holm([layout.p_value(*pair) if _has(layout, pair) else 1.0 for pair in contrasts])


def _has(layout: Layout, pair: tuple[str, str]) -> bool:
    return layout.means.keys() >= set(pair)


def _whom(layout: Layout, pair: tuple[str, str]) -> str:
    """In words which arm of a pair lies above the other."""
    one, other = pair
    return f"{one} {'above' if layout.means[one] > layout.means[other] else 'below'} {other}"
