"""A page in headless Chromium, driven over the DevTools protocol through a pipe, with Python's own library alone."""

import base64
import json
import os
import pathlib
import shutil
import subprocess
import tempfile


def find_chromium():
    """The browser's path, or None."""
    return next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)


class Page:
    """with Page(path) as page: page.evaluate("1 + 1")"""

    def __init__(self, path, width=1200, height=900, scale=1, dark=False):
        self._folder = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        to_browser, from_us = os.pipe()
        to_us, from_browser = os.pipe()

        def place_pipes():  # the browser reads 3 and writes 4
            read_end, write_end = os.dup(to_browser), os.dup(from_browser)
            os.dup2(read_end, 3)
            os.dup2(write_end, 4)

        self._process = subprocess.Popen(
            [find_chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--hide-scrollbars", f"--user-data-dir={self._folder.name}", "--remote-debugging-pipe", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            close_fds=False, preexec_fn=place_pipes)
        os.close(to_browser)
        os.close(from_browser)
        self._out = os.fdopen(from_us, "wb")
        self._in = os.fdopen(to_us, "rb")
        self._left, self._count, self._session, self.events = b"", 0, None, []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.send(f"{domain}.enable")
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Page.navigate", url=pathlib.Path(path).resolve().as_uri())
        self._wait("Page.loadEventFired")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._session = None
        try:
            self.send("Browser.close")
        except (EOFError, OSError):
            pass
        self._out.close()
        self._in.close()
        self._process.wait(30)
        self._folder.cleanup()

    def _read(self):
        while b"\0" not in self._left:
            piece = os.read(self._in.fileno(), 1 << 16)
            if not piece:
                raise EOFError("the browser has ended")
            self._left += piece
        message, _, self._left = self._left.partition(b"\0")
        return json.loads(message)

    def _wait(self, method):
        while not any(event["method"] == method for event in self.events):
            self.events.append(self._read())

    def send(self, method, **params):
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def evaluate(self, expression):
        """The value of a JavaScript expression; an exception there is one here."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def type(self, element, value):
        """Sets an input as a user would: its value, then the event."""
        self.evaluate(f"(() => {{ const input = document.getElementById({json.dumps(element)});"
                      f" input.value = {json.dumps(str(value))};"
                      " input.dispatchEvent(new Event('input', {bubbles: true})); })()")

    def problems(self):
        """Exceptions and console errors so far, and requests of anything but the page itself."""
        found = []
        for event in self.events:
            if event["method"] == "Runtime.exceptionThrown":
                found.append(json.dumps(event["params"]["exceptionDetails"]))
            elif event["method"] == "Runtime.consoleAPICalled" and event["params"]["type"] == "error":
                found.append(json.dumps(event["params"]["args"]))
            elif event["method"] == "Network.requestWillBeSent":
                url = event["params"]["request"]["url"]
                if not url.startswith(("file:", "about:", "data:")):
                    found.append(f"a request of {url}")
        return found

    def picture(self, path, clip=None):
        """A PNG of the whole page, or of {x, y, width, height}."""
        options = {"clip": {**clip, "scale": 1}} if clip else {}
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True, **options)["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))

    def print_to(self, path):
        data = self.send("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))
