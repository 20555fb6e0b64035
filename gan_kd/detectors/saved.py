"""A trained detector: the weights and what they are (best.params), and the latter to read (best.json) beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gan_kd.data.dataset import class_names, distinct
from gan_kd.detectors import description
from gan_kd.detectors.adapters import Adapters
from gan_kd.detectors.ssd import zoo
from gan_kd.detectors.ssd.network import Detector, join, split
from gan_kd.errors import UsageError
from gan_kd.gluon import weights
from gan_kd.recipe import Eval, Recipe, recipe_hash
from gan_kd.recipe.convert import build
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
#: The words of distill.head in files, which are older than those of recipes.
HEADS = {"inherit": "teacher", "own": "own", "untrained": "untrained"}
_SUPPRESSION = ("nms", "nms_topk", "post_nms")  # knobs of Eval; files older than this lack them


def build_detector(
    backbone: str,
    size: int,
    classes: Sequence[str],
    head_backbone: str | None = None,
    measured: Eval | None = None,
    adapter: str = "linear",
    taps: Sequence[str] | None = None,
    head_taps: Sequence[str] | None = None,
) -> Detector:
    """A detector with random weights on the CPU, to load a file into.

    head_backbone: the backbone of the teacher whose head it has, trained before or not, with adapters where channels
    differ (None: its own head). measured: its suppression of overlapping boxes (None: the default of recipes).
    adapter: their kind. taps, head_taps: of the two backbones, as `zoo.build` takes them.
    """
    extractor, head = split(zoo.build(backbone, size, classes, taps=taps))
    adapters = None
    if head_backbone is not None:
        teacher, head = split(zoo.build(head_backbone, size, classes, taps=head_taps))
        adapters = Adapters(extractor.channels, teacher.channels, adapter)
        adapters.initialize()
    measured = measured or Eval()
    return join(
        extractor,
        head,
        adapters if adapters is not None and adapters.needed else None,
        measured.nms,
        measured.nms_topk,
        measured.post_nms,
    )


def save_detector(detector: Detector, path: Path, meta: Mapping[str, Any]) -> None:
    """Write the weights and `meta` to `path`, and `meta` with the file's sha256 beside it (best.params, best.json).

    meta: what the network is (network, backbone, size, classes, head, head_backbone, adapters, adapter, nms, nms_topk,
    post_nms) and where it comes from. Both old files stay whole if either cannot be written (RunError). A crash
    between the two renames leaves the new weights without best.json, never with a wrong one.
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
    # Absent in older files, too.
    wrong += [key for key in ("taps", "head_taps", "distillers") if not _are_names(meta.get(key))]
    wrong += [] if _is_teacher(meta.get("teacher")) else ["teacher"]
    if wrong:
        raise UsageError(f"{file}: it does not describe a network ({wrong[0]} is {meta[wrong[0]]!r})")
    distinct([str(name) for name in meta["classes"]], str(file))
    return meta


def _are_names(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(name, str) for name in value))


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
        roles = [role for role in (recipe.teacher, recipe.student) if role.backbone == meta["backbone"]]
        if "taps" in meta and all(zoo.taps_of(role.backbone, role.taps) != meta["taps"] for role in roles):
            raise UsageError(
                f"{path}: its {meta['backbone']} is tapped at {', '.join(meta['taps'] or ())}, but not in recipe "
                f"{recipe.name}; set taps to the same outputs there"
            )
        if meta["size"] != recipe.data.size:
            raise UsageError(
                f"{path}: trained at {meta['size']} px, but recipe {recipe.name} has {recipe.data.size} px; "
                f"add --set data.size={meta['size']}"
            )
    teacher = meta["head_backbone"] if meta["head"] != "own" else None
    own = {key: meta[key] for key in _SUPPRESSION if key in meta}
    measured = recipe.eval if recipe is not None else build(Eval, own, str(path))
    adapter = meta.get("adapter", _ADAPTERS[0])
    taps = meta.get("taps"), meta.get("head_taps")  # absent in files older than the choice
    detector = build_detector(meta["backbone"], meta["size"], meta["classes"], teacher, measured, adapter, *taps)
    detector.load(path, f"the {meta['network']} {meta['backbone']}")
    return detector, meta


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
    teacher, student = recipe.teacher, recipe.student
    classes = class_names(recipe.data)
    lent = HEADS["untrained" if recipe.distill.head == "untrained" else "inherit"]
    for network, body, head in (
        ("teacher", teacher, None),
        ("baseline", student, None),
        ("distilled", student, teacher),
    ):
        adapter = recipe.distill.adapter
        taps, head_taps = body.taps, head.taps if head else None
        head_backbone = head.backbone if head else None
        detector = build_detector(
            body.backbone, recipe.data.size, classes, head_backbone, recipe.eval, adapter, taps, head_taps
        )
        yield (
            detector,
            {
                "network": network,
                "backbone": body.backbone,
                "taps": zoo.taps_of(body.backbone, taps),
                "size": recipe.data.size,
                "classes": list(classes),
                "head": "own" if head_backbone is None else lent,
                "head_backbone": (head or body).backbone,
                "head_taps": zoo.taps_of((head or body).backbone, (head or body).taps),
                "adapters": detector.adapters is not None,
                "adapter": adapter,
            },
        )
