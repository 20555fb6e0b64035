"""What pages and logs call a network of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INHERITANCE, UNTRAINED = "head inheritance", "untrained head"


def network_in_words(trains: str, head: str) -> str:
    """The name of a network for readers; `head` is the recipe's distill.head.

    Recipes written before, run folders and metrics call `control` the student that learns through the teacher's head
    from the detection loss alone; with an untrained head it is no inheritance.
    """
    if trains != "control":
        return trains
    return UNTRAINED if head == "untrained" else INHERITANCE


def method_in_words(recipe: Mapping[str, Any]) -> str:
    """How a recipe, as plain values, distils: whose head the student has and every distiller of its stages, once."""
    head = {"inherit": "inherited"}.get(recipe["distill"]["head"], recipe["distill"]["head"])
    stages = [stage["distillers"] for stage in recipe["stages"].values() if stage["trains"] == "distilled"]
    return ", ".join(dict.fromkeys([f"{head} head", *(name for names in stages for name in names)]))
