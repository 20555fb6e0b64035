"""Downloads from a server on this machine: fetched once, continued, checked, unpacked whole or not at all."""

from __future__ import annotations

import hashlib
import http.server
import logging
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import pytest

from gan_kd.__main__ import main
from gan_kd.data import download
from gan_kd.data.download import ARCHIVES, Archive, fetch
from gan_kd.errors import RunError

PROOF = "VOC2007/ImageSets/Main/test.txt"
FILES = {PROOF: b"000001\n", "VOC2007/JPEGImages/000001.jpg": bytes(range(256)) * 500}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves server.files; each request is noted as (path, Range header)."""

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        content = self.server.files.get(self.path.lstrip("/"))
        if content is None:
            return self.send_error(404)
        part = self.server.partial and self.headers.get("Range")
        start = int(part[len("bytes=") : -1]) if part else 0
        if part and start >= len(content):
            return self.send_error(416)
        self.send_response(206 if part else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = self.server.cut or len(content)  # where the connection breaks
        self.wfile.write(content[start:end])
        return None

    def log_message(self, *arguments):
        pass


@pytest.fixture(params=[True, False], ids=["parts", "whole"])
def server(request):
    """A web server that can send parts of a file, and one that cannot."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.files, server.partial, server.cut = [], {}, request.param, None
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def offer(server, path):
    """An Archive of a file, which the server has from now on."""
    server.files[path.name] = path.read_bytes()
    inside = "VOCdevkit" if path.suffix == ".tar" else "."
    url = f"http://127.0.0.1:{server.server_port}/{path.name}"
    return Archive(url, hashlib.sha1(path.read_bytes()).hexdigest(), PROOF, inside)


@pytest.fixture
def tar(server, tmp_path):
    source = tmp_path / "source/VOCdevkit"
    for name, content in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    with tarfile.open(tmp_path / "voc.tar", "w") as opened:
        opened.add(source, "VOCdevkit")
    return offer(server, tmp_path / "voc.tar")


def assert_complete(root):
    assert {name: (root / name).read_bytes() for name in FILES} == FILES
    assert not list((root / "downloads").iterdir())  # neither the archive nor half-unpacked files


def test_an_archive_is_fetched_and_unpacked_once(server, tar, tmp_path, caplog):
    root = tmp_path / "new/root"
    caplog.set_level(logging.INFO, "gan_kd")
    fetch([tar], root)
    assert_complete(root)
    asked = len(server.requests)
    fetch([tar], root)
    assert len(server.requests) == asked
    assert "there already" in caplog.text


@pytest.mark.parametrize("options", [["-q"], []])
def test_quiet_silences_a_download(server, tar, tmp_path, capsys, monkeypatch, options):
    """GluonCV's own words and bar, too, for a server that sends no parts."""
    monkeypatch.setattr(download, "_continue", lambda url, file: None)
    monkeypatch.setitem(download.ARCHIVES, "voc", (tar,))
    for _ in range(2):
        assert main([*options, "download", "voc", "--root", str(tmp_path / "root")]) == 0
    assert_complete(tmp_path / "root")
    shown = capsys.readouterr()
    assert (shown.out + shown.err == "") == bool(options)
    if not options:
        assert "Downloading" in shown.out and "Unpacking" in shown.out and "there already" in shown.out


def test_zip_files_join_a_folder_that_is_there(server, tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as opened:
        for name, content in FILES.items():
            opened.writestr(name, content)
    archive = offer(server, tmp_path / "images.zip")
    other = tmp_path / "root/VOC2007/JPEGImages/000002.jpg"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"of another archive")
    fetch([archive], tmp_path / "root")
    assert_complete(tmp_path / "root")
    assert other.read_bytes() == b"of another archive"


def test_a_broken_connection_is_continued(server, tar, tmp_path):
    server.cut = 50_000
    with pytest.raises(RunError, match="continues where it stopped"):
        fetch([tar], tmp_path / "root")
    part = tmp_path / "root/downloads/voc.tar"
    assert part.stat().st_size <= 50_000
    assert not (tmp_path / "root/VOC2007").exists()
    have = part.stat().st_size
    server.cut = None
    server.requests.clear()
    fetch([tar], tmp_path / "root")
    assert_complete(tmp_path / "root")
    if server.partial:
        assert server.requests == [("/voc.tar", f"bytes={have}-")]


def test_a_complete_archive_is_not_fetched_again(server, tar, tmp_path):
    downloads = tmp_path / "root/downloads"
    downloads.mkdir(parents=True)
    (downloads / "voc.tar").write_bytes(server.files["voc.tar"])
    fetch([tar], tmp_path / "root")
    assert_complete(tmp_path / "root")
    assert server.requests == []


def test_a_damaged_archive_is_fetched_anew(server, tar, tmp_path):
    downloads = tmp_path / "root/downloads"
    downloads.mkdir(parents=True)
    content = bytearray(server.files["voc.tar"])
    content[1000] ^= 1
    (downloads / "voc.tar").write_bytes(content)
    fetch([tar], tmp_path / "root")
    assert_complete(tmp_path / "root")


def test_a_wrong_checksum_is_refused_and_nothing_unpacked(server, tar, tmp_path):
    with pytest.raises(RunError, match="does not give the expected file.*hash does not match"):
        fetch([tar._replace(sha1="0" * 40)], tmp_path / "root")
    assert not (tmp_path / "root/VOC2007").exists()


def test_a_file_that_the_server_lacks(server, tar, tmp_path):
    server.files.clear()
    with pytest.raises(RunError, match="voc.tar does not give the expected file"):
        fetch([tar], tmp_path / "root")


def test_an_unpacking_that_fails_leaves_nothing(server, tmp_path):
    (tmp_path / "voc.tar").write_bytes(b"no archive")
    with pytest.raises(RunError, match="voc.tar cannot be stored or unpacked"):
        fetch([offer(server, tmp_path / "voc.tar")], tmp_path / "root")
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["downloads"]


def test_the_proof_comes_last(server, tar, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download, "_merge", full)
    with pytest.raises(RunError, match="No space left on device"):
        fetch([tar], tmp_path / "root")
    assert not (tmp_path / "root" / PROOF).exists()
    monkeypatch.undo()
    fetch([tar], tmp_path / "root")
    assert_complete(tmp_path / "root")


@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="this Python has no extraction filters")
def test_a_tar_file_cannot_write_outside(server, tar, tmp_path):
    with tarfile.open(tmp_path / "voc.tar", "a") as opened:
        opened.add(tmp_path / "source/VOCdevkit" / PROOF, "../../../outside.txt")
    with pytest.raises(RunError, match="outside"):
        fetch([offer(server, tmp_path / "voc.tar")], tmp_path / "root")
    assert not list(tmp_path.rglob("outside.txt"))


def test_offline_is_said_at_once(tmp_path):
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as closed:
        url = f"http://127.0.0.1:{closed.server_port}/voc.tar"
    start = time.monotonic()
    with pytest.raises(RunError, match="voc.tar cannot be fetched from 127.0.0.1 .*go online") as caught:
        fetch([Archive(url, "0" * 40, PROOF)], tmp_path)
    assert time.monotonic() - start < 15
    assert "\n" not in str(caught.value)


def test_the_tables_name_distinct_files():
    archives = [archive for group in ARCHIVES.values() for archive in group]
    for field in ("url", "sha1", "proof"):
        assert len({getattr(archive, field) for archive in archives}) == len(archives)
    assert all(len(bytes.fromhex(archive.sha1)) == 20 for archive in archives)
    assert all(not Path(archive.proof).is_absolute() for archive in archives)
