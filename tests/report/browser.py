"""A headless Chromium over its own protocol (Chrome DevTools Protocol): real keys, window sizes, colour schemes."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
#: Of keys that do something by themselves: (code, key code, text).
KEYS = {"Tab": ("Tab", 9, ""), "Enter": ("Enter", 13, "\r"), "Escape": ("Escape", 27, "")}


def find() -> str | None:
    """A Chromium of this machine."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One page in one browser; `size`, `dark` and `script` hold for what is opened next."""

    def __init__(self, program: str, profile: Path) -> None:
        """profile: an empty folder of the browser's own."""
        ours, theirs = os.pipe(), os.pipe()  # (read, write) of its answers, of our commands
        arguments = [
            program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank",
        ]  # fmt: skip
        # The protocol's pipes are files 3 and 4 of the browser.
        shell = ["bash", "-c", f'exec "$@" 3<&{theirs[0]} 4>&{ours[1]}', "bash", *arguments]
        self._process = subprocess.Popen(
            shell, pass_fds=(theirs[0], ours[1]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs[0])
        os.close(ours[1])
        self._read, self._write = os.fdopen(ours[0], "rb"), os.fdopen(theirs[1], "wb", buffering=0)
        self._numbers, self._rest, self._session = itertools.count(1), b"", ""
        self.errors: list[str] = []  # of the pages' scripts and policies
        [target] = [one for one in self._ask("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        attached = self._ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable")

    def close(self) -> None:
        """End the browser."""
        self._session = ""
        self._ask("Browser.close")
        self._process.wait(30)
        self._read.close()
        self._write.close()

    def open(self, page: Path, width: int, dark: bool = False, script: bool = True) -> None:
        """Load a file in a window `width` px wide and 800 px high. script: whether pages may run any."""
        self._ask("Emulation.setScriptExecutionDisabled", value=not script)
        self._ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])
        self._ask("Page.navigate", url=page.resolve().as_uri())
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        given = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in given, given["exceptionDetails"]
        return given["result"].get("value")

    def press(self, key: str, shift: bool = False) -> None:
        """Press and release a key of `KEYS`."""
        code, number, text = KEYS[key]
        for kind in ("keyDown", "keyUp"):
            self._ask(
                "Input.dispatchKeyEvent", type=kind, key=key, code=code, windowsVirtualKeyCode=number,
                modifiers=8 * shift, **({"text": text} if text and kind == "keyDown" else {}),
            )  # fmt: skip

    def picture(self, path: Path, whole: bool = True) -> None:
        """A screenshot as a PNG, of the whole page or of the window."""
        given = self._ask("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(given["data"]))

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._write.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        """The next answer or event; messages end with a zero byte."""
        while b"\0" not in self._rest:
            block = self._read.read1(1 << 20)
            assert block, "the browser ended"
            self._rest += block
        message, _, self._rest = self._rest.partition(b"\0")
        event = json.loads(message)
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(event["params"]["exceptionDetails"]))
        if event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
            self.errors.append(event["params"]["entry"]["text"])
        return event
