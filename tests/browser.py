"""A headless Chromium, driven through its debugging pipe (messages of JSON, each ended by a zero
byte: https://chromedevtools.github.io/devtools-protocol/)."""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import time

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--remote-debugging-pipe",
    "--no-first-run",
]


class Page:
    """A tab."""

    def __init__(self, to_browser, from_browser):
        self.to_browser = to_browser
        self.from_browser = from_browser
        self.numbers = itertools.count(1)
        self.session = None

    def open(self, url):
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        attached = self.command("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        self.command("Page.enable")
        self.command("Page.navigate", url=url)

    def command(self, method, **parameters):
        """The result of a command; events are passed over."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.to_browser.write(json.dumps(message).encode() + b"\0")
        self.to_browser.flush()
        while True:
            answer = json.loads(self._message())
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def _message(self):
        parts = bytearray()
        while (byte := self.from_browser.read(1)) != b"\0":
            assert byte, "the browser went away"
            parts += byte
        return bytes(parts)

    def value(self, expression):
        """The value of an expression of JavaScript."""
        found = self.command("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, expression, seconds=60):
        """Waits for an expression to be true; returns its value."""
        deadline = time.monotonic() + seconds
        while not (value := self.value(expression)):
            assert time.monotonic() < deadline, f"never true: {expression}"
            time.sleep(0.05)
        return value

    def click(self, selector):
        """The left button in the middle of an element."""
        place = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        x, y = self.value(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({place})")
        for kind in ("mousePressed", "mouseReleased"):
            self.command(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1
            )

    def type(self, text):
        """Into what has the focus."""
        self.command("Input.insertText", text=text)


@contextlib.contextmanager
def page(folder):
    """A page of a browser whose files lie in a folder."""
    ours, its_out = os.pipe()
    its_in, to_it = os.pipe()

    def place_pipes():
        """3 is read and 4 written by the browser."""
        kept = [os.dup(its_in), os.dup(its_out)]
        os.dup2(kept[0], 3)
        os.dup2(kept[1], 4)

    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder}"]
    browser = subprocess.Popen(
        command,
        preexec_fn=place_pipes,
        close_fds=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(its_in)
    os.close(its_out)
    with open(to_it, "wb") as to_browser, open(ours, "rb") as from_browser:
        try:
            yield Page(to_browser, from_browser)
        finally:
            browser.kill()
            browser.wait()
