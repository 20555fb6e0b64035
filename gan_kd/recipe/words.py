"""What pages and logs call a network of a recipe."""

from __future__ import annotations

INHERITANCE, UNTRAINED = "head inheritance", "untrained head"


def network_in_words(trains: str, head: str) -> str:
    """The name of a network for readers; `head` is the recipe's distill.head.

    Recipes written before, run folders and metrics call `control` the student that learns through the teacher's head
    from the detection loss alone; with an untrained head it is no inheritance.
    """
    if trains != "control":
        return trains
    return UNTRAINED if head == "untrained" else INHERITANCE
