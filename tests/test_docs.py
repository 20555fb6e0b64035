"""README and docs: what they name is there, every command parses, every number has a file behind it."""

from __future__ import annotations

import argparse
import dataclasses
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn, get_type_hints

import mxnet as mx
import numpy as np
import pytest

from gan_kd.__main__ import COMMANDS
from gan_kd.distill.base import Distiller
from gan_kd.recipe import Recipe, load, recipe_from
from gan_kd.recipe.load import names
from gan_kd.study import load as studies

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
MOST_LINES, WIDEST = 130, 120
# Folders of the checkout; what else looks like a path is the reader's own (runs, data, product).
OURS = ("gan_kd", "scripts", "tests", "results", "docs")
# Titles of sections whose numbers are settings or calculations.
NOT_MEASURED = re.compile("calculated|silent|CPUs and GPUs|Licence")
SECTIONS = ("data", "teacher", "student", "distill", "train", "eval")


class Command(NamedTuple):
    """A command of a page: the words behind `python -m gan_kd`, or a script and its words."""

    page: str
    words: tuple[str, ...]


BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def blocks(page: Path, kind: str = "") -> list[str]:
    return [text for name, text in BLOCK.findall(page.read_text("utf-8")) if name == kind]


def prose(page: Path) -> str:
    return BLOCK.sub("", page.read_text("utf-8"))


def code(page: Path) -> list[str]:
    """What stands in backquotes within sentences, which may break a line."""
    return [" ".join(text.split()) for text in re.findall(r"`([^`]+)`", prose(page))]


def commands_of(page: Path) -> Iterator[Command]:
    """Commands in blocks, their variables put in, and those within a sentence."""
    for block in blocks(page):
        variables: dict[str, str] = {}
        for line in block.replace("\\\n", " ").splitlines():
            for name, value in variables.items():
                line = line.replace(f"${name}", value)
            words = shlex.split(line, comments=True)
            if len(words) == 1 and re.match(r"[a-z]+=", words[0]):
                name, _, value = words[0].partition("=")
                variables[name] = value
            elif words:
                yield Command(page.name, tuple(words[words[0] == "OMP_NUM_THREADS=1" :]))
    for text in code(page):
        words = shlex.split(text) if re.match("(python|bash) ", text) else []
        if words and words != ["python", "-m", "gan_kd"]:
            yield Command(page.name, tuple(words))


COMMAND_LINES = sorted({command for page in PAGES for command in commands_of(page)})


class Parsed(Exception):
    """Raised in the place of the work that follows a command's arguments."""


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[argparse.Namespace]:
    """What is parsed from now on; the command ends there."""
    found: list[argparse.Namespace] = []
    parse = argparse.ArgumentParser.parse_args

    def and_stop(self: argparse.ArgumentParser, *arguments: Any) -> NoReturn:
        found.append(parse(self, *arguments))
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", and_stop)
    return found


def as_train(words: list[str]) -> list[str]:
    """The arguments of `train` that train_voc.sh or train_coco.sh makes of its own."""
    dataset = "voc" if words[0].endswith("voc.sh") else "coco"
    row, rest = (words[1], words[2:]) if words[1:] and words[1][0] != "-" else ("mobilenet1.0-resnet50_v1", words[1:])
    if "--demo" in rest:
        return ["--recipe", "demo", *(word for word in rest if word != "--demo")]
    return ["--recipe", row if row.startswith(("faster_rcnn/", "yolo3/")) else f"{dataset}/{row}", *rest]


def parse(name: str, words: list[str], parsed: list[argparse.Namespace]) -> None:
    with pytest.raises(Parsed):
        COMMANDS[name](words)
    if name in ("train", "check"):
        recipe_from(parsed[0])
    elif name == "eval":
        load(parsed[0].recipe or "own/voc", parsed[0].set)
    elif name == "study" and parsed[0].study is not None:
        studies.load(parsed[0].study)
    elif name == "recipes" and parsed[0].show is not None:
        load(parsed[0].show)


@pytest.mark.parametrize("command", COMMAND_LINES, ids=lambda command: f"{command.page}: {shlex.join(command.words)}")
def test_a_command_parses(command, parsed, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for page in PAGES:  # the recipes that a page writes out, under the names by which it trains them
        for block in blocks(page, "yaml"):
            Path("mine.yaml").write_text(block)
    words = list(command.words)
    if words[:3] == ["python", "-m", "gan_kd"]:
        parse(words[3], words[4:], parsed)
    elif words[:2] == ["python", "scripts/parity_workers.py"]:
        assert (ROOT / words[1]).is_file() and len(words) == 2  # takes no arguments
    elif words[0] == "python":
        monkeypatch.setattr(sys, "argv", [str(ROOT / words[1]), *words[2:]])
        monkeypatch.setattr(sys, "path", [str(ROOT / "scripts"), *sys.path])
        with pytest.raises(Parsed):
            runpy.run_path(sys.argv[0], run_name="__main__")
    elif words[0] == "bash" and words[1].startswith("scripts/train_") and words[1] != "scripts/train_dist.sh":
        parse("train", as_train(words[1:]), parsed)
    elif words[:2] == ["bash", "scripts/train_dist.sh"]:
        with pytest.raises(Parsed):
            COMMANDS["dist"](words[2:])
        job = parsed.pop()
        parse("train", ["--recipe", job.recipe, *job.options], parsed)
    elif words[:2] == ["bash", "scripts/setup.sh"]:
        usage = subprocess.run(["bash", ROOT / words[1], "--help"], capture_output=True, text=True, check=True).stdout
        assert all(word in usage for word in words[2:])
    elif words[0] == "bash":
        assert (ROOT / words[1]).is_file() and len(words) == 2
    else:
        assert words[0] in ("source", "cp"), words


def test_the_readme_is_read_in_five_minutes():
    lines = README.read_text("utf-8").splitlines()
    assert 90 <= len(lines) <= MOST_LINES
    assert [line for line in lines if len(line) > WIDEST] == []
    assert sum(bool(re.match(r"\|\s*-+", line)) for line in lines) == 2  # results, and where to read on
    assert [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in README.read_text("utf-8")] == []


def test_prose_is_not_wide():
    """Tables may be: a cell has no line break."""
    wide = [
        f"{page.name}:{number}"
        for page in PAGES
        for number, line in enumerate(page.read_text("utf-8").splitlines(), 1)
        if len(line) > WIDEST and not line.startswith("|")
    ]
    assert wide == []


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", text.replace("`", "").lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text("utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.M)
    defined = set(re.findall(r"^\[([^\]]+)\]: ", text, re.M))
    wrong = [name for name in re.findall(r"\]\[([^\]]+)\]", text) if name not in defined]
    for target in targets:
        name, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            wrong.append(target)
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_recipes_and_keys_that_are_named_exist(page):
    shipped, wrong = set(names()), []
    folders = {name.partition("/")[0] for name in shipped if "/" in name}
    for text in code(page):
        for word in text.split():
            first = word.partition("/")[0]
            if first in OURS and "/" in word and not any(mark in word for mark in "{…"):
                ok = (ROOT / word).exists()
            elif first in folders and re.fullmatch(r"[a-z]+/[\w.-]+", word):
                ok = word in shipped
            elif word.partition(".")[0] in SECTIONS and re.match(r"[a-z]+\.(?!log|json)\w", word):
                ok = is_key(re.split("[=:]", word)[0].split("."))
            else:
                continue
            if not ok:
                wrong.append(word)
    assert wrong == []


def is_key(parts: list[str], of: Any = Recipe) -> bool:
    """Whether a path of names leads to a key of the recipe."""
    if not parts:
        return True
    if not dataclasses.is_dataclass(of):
        return False
    kinds = get_type_hints(of)
    return parts[0] in kinds and is_key(parts[1:], kinds[parts[0]])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_section_with_measured_numbers_names_their_file(page):
    """Measured: written with a decimal point, and neither a version nor within code."""
    silent = []
    for section in re.split("^##? ", prose(page), flags=re.M):
        title, _, text = section.partition("\n")
        text = re.sub(r"`[^`]*`|arXiv [\d.]+|abs/[\d.]+|(MXNet|Python) [\d.]+|Net(V\d_)?[\d.]+", "", text)
        if re.search(r"\d\.\d", text) and "results/" not in text and not NOT_MEASURED.search(title):
            silent.append(title)
    assert silent == []


def test_recipes_that_are_written_out_load(tmp_path):
    for page in PAGES:
        for block in blocks(page, "yaml"):
            file = tmp_path / "mine.yaml"
            file.write_text(block)
            assert load(file).trains("distilled")


def test_the_distiller_that_is_written_out_gives_its_loss() -> None:
    (source,) = blocks(ROOT / "docs" / "distillers.md", "python")
    module: dict[str, Any] = {}
    exec(source, module)
    assert issubclass(module["ChannelMeans"], Distiller)
    rng = np.random.default_rng(0)
    sides = [[rng.standard_normal((2, 3, side, side)) for side in (4, 1)] for _ in range(2)]
    teacher, student = ([mx.nd.array(array) for array in maps] for maps in sides)
    losses = module["ChannelMeans"](None, weight=2.0).losses(SimpleNamespace(teacher=teacher, student=student), 5)
    expected = sum(((real - fake).mean(axis=(2, 3)) ** 2).sum() for real, fake in zip(*sides)) * 2.0 / 5
    assert losses["channel_means"].shape == (1,)
    assert losses["channel_means"].asscalar() == pytest.approx(expected, rel=1e-5)
