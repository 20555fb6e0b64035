"""Download of PASCAL VOC and COCO in the layout that data/dataset.py reads."""

from __future__ import annotations

import logging
import os
import shutil
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from gan_kd.errors import RunError
from gan_kd.system.console import as_asked, no_bar

log = logging.getLogger("gan_kd")
_TIMEOUT = 10.0  # seconds without an answer
_CHUNK = 1 << 20  # bytes


class Archive(NamedTuple):
    """A tar or zip file on the web.

    sha1: of the file, hexadecimal. proof: a file or folder that it alone brings, put in place last: having it
    means having everything. inside: the folder of the archive that is the data set's root.
    """

    url: str
    sha1: str
    proof: str
    inside: str = "."

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


# Addresses and checksums: GluonCV's scripts/datasets/pascal_voc.py and mscoco.py.
_VOC = "http://host.robots.ox.ac.uk/pascal/VOC/"
_COCO = "http://images.cocodataset.org/"
_MAIN = "ImageSets/Main"
ARCHIVES = {
    "voc": (
        Archive(f"{_VOC}voc2007/VOCtrainval_06-Nov-2007.tar", "34ed68851bce2a36e2a223fa52c661d592c66b3c",
                f"VOC2007/{_MAIN}/trainval.txt", "VOCdevkit"),
        Archive(f"{_VOC}voc2007/VOCtest_06-Nov-2007.tar", "41a8d6e12baa5ab18ee7f8f8029b9e11805b4ef1",
                f"VOC2007/{_MAIN}/test.txt", "VOCdevkit"),
        Archive(f"{_VOC}voc2012/VOCtrainval_11-May-2012.tar", "4e443f8a2eca6b1dac8a6c57641b67dd40621a49",
                f"VOC2012/{_MAIN}/trainval.txt", "VOCdevkit"),
    ),
    "coco": (
        Archive(f"{_COCO}annotations/annotations_trainval2017.zip",
                "8551ee4bb5860311e79dace7e79cb91e432e78b3", "annotations/instances_train2017.json"),
        Archive(f"{_COCO}zips/val2017.zip", "4950dc9d00dbe1c933ee0170f5797584351d2a41", "val2017"),
        Archive(f"{_COCO}zips/train2017.zip", "10ad623668ab00c62c096f0ed636d6aff41faca5", "train2017"),
    ),
}  # fmt: skip


def download(name: str, root: Path) -> None:
    """Bring VOC 2007 and 2012 (name voc) or COCO 2017 (coco) into `root`.

    What is there already is kept: data sets, archives, and the beginning of an archive. Raises RunError where
    the network or the disk does not allow it.
    """
    fetch(ARCHIVES[name], root)


def fetch(archives: Sequence[Archive], root: Path) -> None:
    """Download and unpack those archives that are not unpacked in `root` yet, each removed once it is."""
    downloads = root / "downloads"
    for archive in archives:
        if (root / archive.proof).exists():
            log.info("%s is there already", root / archive.proof)
            continue
        try:
            downloads.mkdir(parents=True, exist_ok=True)
            file = _get(archive, downloads)
            log.info("Unpacking %s into %s", file, root)
            _unpack(archive, file, downloads / "unpacked", root)
            file.unlink()
        except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
            raise RunError(f"{archive.name} cannot be stored or unpacked in {root}: {error}") from error


def _get(archive: Archive, folder: Path) -> Path:
    """The archive in that folder, complete and with the right checksum."""
    from requests import RequestException

    from gan_kd import compat  # noqa: F401  before GluonCV, which brings MXNet

    from gluoncv.utils import check_sha1  # isort: skip
    from gluoncv.utils import download as gluoncv_download  # isort: skip

    file = folder / archive.name
    try:
        if not file.exists() or not check_sha1(str(file), archive.sha1):
            _continue(archive.url, file)
            with as_asked():
                gluoncv_download(archive.url, path=str(file), sha1_hash=archive.sha1)
    except RequestException as error:
        host = urlsplit(archive.url).hostname
        raise RunError(
            f"{archive.name} cannot be fetched from {host} ({type(error).__name__}): go online and repeat the"
            f" command, which continues where it stopped, or copy the file to {folder} first"
        ) from error
    except (RuntimeError, UserWarning) as error:  # GluonCV's for an answer other than 200, a wrong checksum
        raise RunError(f"{archive.url} does not give the expected file: {error}") from error
    return file


def _continue(url: str, file: Path) -> None:
    """Append what a file lacks, where the server can send a part; GluonCV's download would begin again.

    It also notices at once that there is no connection, for which GluonCV sets no time limit.
    """
    import requests
    from tqdm import tqdm

    have = file.stat().st_size if file.exists() else 0
    headers = {"Range": f"bytes={have}-"}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
        if answer.status_code != requests.codes.partial_content:
            return  # the whole file, the end of the file, or an error: GluonCV's download sees to it
        total = have + int(answer.headers.get("Content-Length", 0))
        options: dict[str, Any] = {
            "initial": have,
            "total": total,
            "unit": "B",
            "unit_scale": True,
            "disable": bool(no_bar()),
        }
        with open(file, "ab") as out, tqdm(desc=file.name, **options) as bar:
            for chunk in answer.iter_content(_CHUNK):
                out.write(chunk)
                bar.update(len(chunk))


def _unpack(archive: Archive, file: Path, beside: Path, root: Path) -> None:
    """Unpack into `beside`, then move everything into place, the proof last."""
    shutil.rmtree(beside, ignore_errors=True)  # of a call that was killed
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as opened:
                opened.extractall(beside)
        else:
            with tarfile.open(file) as opened_tar:
                # Python below 3.9.17 has no filters; the checksum says that the archive is the known one.
                options: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
                opened_tar.extractall(beside, **options)
        content, proof = beside / archive.inside, beside / "proof"
        os.replace(content / archive.proof, proof)
        _merge(content, root, skip=proof)
        (root / archive.proof).parent.mkdir(parents=True, exist_ok=True)
        os.replace(proof, root / archive.proof)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _merge(source: Path, target: Path, skip: Path) -> None:
    for path in source.iterdir():
        place = target / path.name
        if path.is_dir() and place.is_dir():
            _merge(path, place, skip)
        elif path != skip:
            os.replace(path, place)
