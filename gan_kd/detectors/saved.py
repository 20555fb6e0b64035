"""A trained detector: the weights and what they are (best.params), and the latter to read (best.json) beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gan_kd.data.dataset import class_names, distinct
from gan_kd.detectors import description
from gan_kd.detectors.adapters import Adapters
from gan_kd.detectors.base import Detector
from gan_kd.detectors.families import family
from gan_kd.errors import UsageError
from gan_kd.gluon import weights
from gan_kd.recipe import Eval, Recipe, recipe_hash
from gan_kd.recipe.convert import build
from gan_kd.recipe.families import FAMILIES, OLDEST
from gan_kd.recipe.gfl import SHARED
from gan_kd.recipe.load import blaming
from gan_kd.system.files import sha256, write_file
from gan_kd.system.strict_json import dumps
from gan_kd.system.untrusted import read_json

_MAGIC = b"\x12\x01" + bytes(6)  # of a list of arrays, as MXNet writes it
# What best.json must say for the network to be built again, and of which type it is.
_NETWORK_KEYS = {
    "network": str, "backbone": str, "size": int, "classes": list, "head": str, "head_backbone": str,
    "adapters": bool, "sha256": str,
}  # fmt: skip
_ADAPTERS = ("linear", "relu")
_MOST_CHANNELS = 65536  # of a map
#: The words of distill.head in files, which are older than those of recipes.
HEADS = {"inherit": "teacher", "own": "own", "untrained": "untrained"}
_SUPPRESSION = ("nms", "nms_topk", "post_nms")  # knobs of Eval; files older than this lack them


def describe(recipe: Recipe, network: str, detector: Detector, teacher_sha256: str | None = None) -> dict[str, Any]:
    """What best.params and best.json say of a network, enough to build it and detect with it, and who taught it how.

    teacher_sha256: of the params file of a student's teacher, where it is known.
    """
    taught = network in ("control", "distilled")
    about = _network(recipe, network, detector.classes, recipe.distill.head if taught else "own")
    if about["head"] != "own":
        adapters, extractor = detector.adapters, detector.extractor
        own = [extractor.channels[index] for index in extractor.to_head]
        about["head_channels"] = own if adapters is None else adapters.channels
    return {
        **about,
        "adapters": detector.adapters is not None,
        "teacher": {"backbone": recipe.teacher.backbone, "sha256": teacher_sha256} if taught else None,
        "distillers": recipe.distillers_of(network),
        "nms": recipe.eval.nms,
        "nms_topk": recipe.eval.nms_topk,
        "post_nms": recipe.eval.post_nms,
    }


def _network(recipe: Recipe, network: str, classes: Sequence[str], head: str) -> dict[str, Any]:
    """What `restore` needs to know of a network with this head, but for what it may be told by the file."""
    of, described = family(recipe.detector), recipe.teacher if network == "teacher" else recipe.student
    with_head = described if head == "own" else recipe.teacher
    return {
        "network": network,
        "detector": recipe.detector,
        "backbone": described.backbone,
        **of.about(recipe, described),
        "size": recipe.data.size,
        "classes": list(classes),
        "head": HEADS[head],
        "head_backbone": with_head.backbone,
        **{f"head_{key}": value for key, value in of.about(recipe, with_head).items()},
        "adapter": recipe.distill.adapter,
    }


def restore(about: Mapping[str, Any], measured: Eval) -> Detector:
    """The detector that a description tells of, with random weights on the CPU, to load its file into.

    measured: its suppression of overlapping boxes.
    """
    of = family(about.get("detector", OLDEST))
    parts, adapters = of.restore(about), None
    if about["head"] != "own":
        of_head = {key.removeprefix("head_"): value for key, value in about.items() if key.startswith("head_")}
        taken, channels = [parts.extractor.levels[index] for index in parts.extractor.to_head], of_head.get("channels")
        if channels is not None and len(channels) != len(taken):
            raise UsageError(f"it does not describe a network (head_channels is {channels})")
        lent = [level._replace(channels=each) for level, each in zip(taken, channels)] if channels else None
        head, levels = of.head_for(lent, {**about, **of_head})
        own, others = ([level.channels for level in each] for each in (taken, levels))
        parts = parts._replace(head=head)
        if own != others:
            adapters = Adapters(own, others, about.get("adapter", _ADAPTERS[0]))
            adapters.initialize()
    return of.join(parts, adapters, measured)


def save_detector(detector: Detector, path: Path, meta: Mapping[str, Any]) -> None:
    """Write the weights and `meta` to `path`, and `meta` with the file's sha256 beside it (best.params, best.json).

    meta: what the network is, as of `describe`, and where it comes from. Both old files stay whole if either cannot
    be written (RunError). A crash between the two renames leaves the new weights without best.json, never with a
    wrong one.
    """
    sidecar = path.with_suffix(".json")

    def fill(beside: Path) -> None:
        def fill_weights(target: Path) -> None:
            weights.fill(detector.weights(), target)
            description.append(target, meta)
            beside.write_text(dumps({**meta, "sha256": sha256(target)}, indent=1) + "\n", encoding="utf-8")
            sidecar.unlink(missing_ok=True)

        write_file(path, fill_weights)

    write_file(sidecar, fill)


def load_detector(
    path: Path, recipe: Recipe | None = None, classes: Sequence[str] | None = None
) -> tuple[Detector, dict[str, Any]]:
    """The detector in a params file, on the CPU, and what is known of it (the keys of best.json).

    With a description beside the file or in it (as `save_detector` writes them) the file must be the one described
    and fit the recipe, if that is given, and the classes of its data, if these are. Without one, the recipe's
    networks are tried: teacher, student with its own head (called baseline), student with the teacher's head
    (called distilled); GluonCV's own files are read so. UsageError: no such file, truncated or changed, not a
    params file, or of another network.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; trained weights lie in runs/RECIPE/SEED/NETWORK/best.params")
    sidecar = path.with_suffix(".json")
    beside = sidecar.is_file()
    found = _read_description(sidecar) if beside else description.read(path)
    if beside or found is not None:
        meta = _checked(sidecar if beside else path, found)
        if classes is not None:
            require_classes(path, meta, classes)
        return _load_described(path, meta, recipe)
    if recipe is None:
        raise UsageError(f"{path}: nothing says which network it holds; put its {sidecar.name} beside it")
    return _load_by_trial(path, recipe)


def known_sha256(path: Path) -> str | None:
    """The sha256 that best.json gives of a params file; None without one."""
    try:
        return str(read_json(path.with_suffix(".json"))["sha256"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def teacher_of(meta: Mapping[str, Any], recipe: Recipe) -> dict[str, Any] | None:
    """Who taught the student that `load_detector` described: backbone, and sha256 of its params file or None.

    None for a network without a teacher, and where nothing says which it was. Older files do not name it, but the
    backbone of the head that it lent them, and the hash of their recipe.
    """
    if meta["network"] not in ("control", "distilled") or meta.get("teacher") is not None:
        return meta.get("teacher")
    if meta["head"] != "own" and not meta.get("tried"):
        return {"backbone": meta["head_backbone"], "sha256": None}
    if meta.get("recipe_hash") == recipe_hash(recipe):
        return {"backbone": recipe.teacher.backbone, "sha256": None}
    return None


def require_classes(path: Path, meta: Mapping[str, Any], classes: Sequence[str]) -> None:
    """UsageError where the network in a params file was trained on other classes than these, or in another order."""
    if list(meta["classes"]) != list(classes):
        raise UsageError(
            f"{path} was trained on the classes {', '.join(meta['classes'])}, but the data has {', '.join(classes)}: "
            "name the former in data.classes, or take a file of the latter"
        )


def _read_description(sidecar: Path) -> Any:
    try:
        return read_json(sidecar)
    except (OSError, ValueError) as error:
        raise UsageError(f"{sidecar}: not JSON ({error}); copy it and its .params file again") from error


def _checked(file: Path, meta: Any) -> dict[str, Any]:
    """A description as it stands in `file`; UsageError where it is none."""
    missing = [key for key in _NETWORK_KEYS if not isinstance(meta, dict) or key not in meta]
    if missing:
        raise UsageError(f"{file}: it does not describe a network ({', '.join(missing)} missing)")
    wrong = [key for key, kind in _NETWORK_KEYS.items() if type(meta[key]) is not kind]
    if meta.get("adapter", _ADAPTERS[0]) not in _ADAPTERS:  # absent in files older than the choice
        wrong.append("adapter")
    if meta["head"] not in HEADS.values():
        wrong.append("head")
    if meta.get("detector", OLDEST) not in FAMILIES:
        wrong.append("detector")
    if not _are_channels(meta.get("head_channels")):
        wrong.append("head_channels")
    # Absent in older files, too.
    wrong += [key for key in ("taps", "head_taps", "distillers") if not _are_names(meta.get(key))]
    wrong += [] if _is_teacher(meta.get("teacher")) else ["teacher"]
    if wrong:
        raise UsageError(f"{file}: it does not describe a network ({wrong[0]} is {meta[wrong[0]]!r})")
    distinct([str(name) for name in meta["classes"]], str(file))
    return meta


def _are_names(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(name, str) for name in value))


def _are_channels(value: Any) -> bool:
    return value is None or (
        isinstance(value, list) and all(type(number) is int and 0 < number <= _MOST_CHANNELS for number in value)
    )


def _is_teacher(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, dict) and isinstance(value.get("backbone"), str) and _is_text(value.get("sha256"))


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _load_described(path: Path, meta: dict[str, Any], recipe: Recipe | None) -> tuple[Detector, dict[str, Any]]:
    if sha256(path) != meta["sha256"]:
        raise UsageError(
            f"{path}: truncated or changed since it was saved (sha256 differs from {path.stem}.json); "
            "copy both files again"
        )
    if recipe is not None:
        backbones = (recipe.teacher.backbone, recipe.student.backbone)
        if meta["backbone"] not in backbones:
            raise UsageError(
                f"{path}: params file of another network, {meta['backbone']}; recipe {recipe.name} has "
                f"{' and '.join(backbones)}"
            )
        kind = meta.get("detector", OLDEST)
        if kind != recipe.detector:
            raise UsageError(
                f"{path}: params file of another network, a detector {kind}; recipe {recipe.name} has {recipe.detector}"
            )
        roles = [role for role in (recipe.teacher, recipe.student) if role.backbone == meta["backbone"]]
        tapped = [family(recipe.detector).about(recipe, role).get("taps") for role in roles]
        if "taps" in meta and meta["taps"] not in tapped:
            raise UsageError(
                f"{path}: its {meta['backbone']} is tapped at {', '.join(meta['taps'] or ())}, but not in recipe "
                f"{recipe.name}; set taps to the same outputs there"
            )
        if meta["size"] != recipe.data.size:
            raise UsageError(
                f"{path}: trained at {meta['size']} px, but recipe {recipe.name} has {recipe.data.size} px; "
                f"add --set data.size={meta['size']}"
            )
        _require_shared(path, meta.get("gfl"), recipe)
    own = {key: meta[key] for key in _SUPPRESSION if key in meta}
    measured = recipe.eval if recipe is not None else build(Eval, own, str(path))
    with blaming(path):
        detector = restore(meta, measured)
    detector.load(path, f"the {meta['network']} {meta['backbone']}")
    return detector, meta


def _require_shared(path: Path, found: Any, recipe: Recipe) -> None:
    """UsageError where a GFL has other settings than the recipe's networks, teacher and student alike, have."""
    for key in SHARED if isinstance(found, dict) else ():
        here, wanted = found.get(key), getattr(recipe.gfl, key)
        if here != wanted:
            shown, other = ("null" if value is None else value for value in (here, wanted))
            raise UsageError(
                f"{path}: trained with gfl.{key} {shown}, but recipe {recipe.name} has {other}; add --set "
                f"gfl.{key}={shown}"
            )


def _load_by_trial(path: Path, recipe: Recipe) -> tuple[Detector, dict[str, Any]]:
    with path.open("rb") as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise UsageError(f"{path}: not a params file (MXNet's begin otherwise)")
    arrays = weights.read(path, f"a network of recipe {recipe.name}")
    refusals = []
    for detector, meta in _candidates(recipe):
        parameters = detector.weights()
        what = f"the {meta['network']} {meta['backbone']}, the nearest network of recipe {recipe.name}"
        try:
            weights.assign(parameters, arrays, path, what)
        except UsageError as error:
            shapes = {name: array.shape for name, array in weights.renamed(parameters, arrays).items()}
            alike = sum(shapes.get(name) == parameter.shape for name, parameter in parameters.items())
            refusals.append((alike, error))
        else:
            return detector, {**meta, "sha256": sha256(path), "tried": True}
    raise max(refusals, key=lambda refusal: refusal[0])[1]


def _candidates(recipe: Recipe) -> Iterator[tuple[Detector, dict[str, Any]]]:
    """Teacher, student with its own head, student with the teacher's. Nothing says who taught it."""
    classes = class_names(recipe.data)
    lent = "untrained" if recipe.distill.head == "untrained" else "inherit"
    for network, head in (("teacher", "own"), ("baseline", "own"), ("distilled", lent)):
        about = _network(recipe, network, classes, head)
        detector = restore(about, recipe.eval)
        yield detector, {**about, "adapters": detector.adapters is not None}
