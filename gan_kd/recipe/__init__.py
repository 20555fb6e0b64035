"""The recipe of a run: schema (every knob), loading and checking, and the command line's flags for it."""

from gan_kd.recipe.convert import changes, hashed, recipe_hash, to_yaml, uncounted
from gan_kd.recipe.flags import add_arguments, contexts_from, overrides_from, recipe_from
from gan_kd.recipe.load import from_dict, load, names, show
from gan_kd.recipe.methods import (
    Adaptation,
    BoundedRegression,
    CosineAttention,
    Cwd,
    FeatureImitation,
    FineGrained,
    Gan,
    Gfl,
    InformationMap,
    Localization,
    Optimizer,
    OutputImitation,
    RegionImitation,
    Schedule,
)
from gan_kd.recipe.schema import Data, Demo, Distill, Eval, Published, Recipe, Stage, Student, Teacher, Train
from gan_kd.recipe.words import network_in_words

__all__ = [
    "Adaptation",
    "BoundedRegression",
    "CosineAttention",
    "Cwd",
    "Data",
    "Demo",
    "Distill",
    "Eval",
    "FeatureImitation",
    "FineGrained",
    "Gan",
    "Gfl",
    "InformationMap",
    "Localization",
    "Optimizer",
    "OutputImitation",
    "Published",
    "Recipe",
    "RegionImitation",
    "Schedule",
    "Stage",
    "Student",
    "Teacher",
    "Train",
    "add_arguments",
    "changes",
    "contexts_from",
    "from_dict",
    "hashed",
    "load",
    "names",
    "network_in_words",
    "overrides_from",
    "recipe_from",
    "recipe_hash",
    "show",
    "to_yaml",
    "uncounted",
]
