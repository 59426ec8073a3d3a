"""A report in a real browser: no message on its console, nothing wider than a phone, two colours."""

import json
import re
import shutil
import subprocess

import pytest
from conftest import nlpkit, write_lines

BROWSER = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
FLAGS += ["--allow-file-access-from-files", "--window-size=1800,900", "--dump-dom"]
WRAPPER = """<!doctype html><meta charset="utf-8"><body>
<iframe id="phone" src="report.html" width="360" height="800" style="color-scheme: light"></iframe>
<iframe id="desk" src="report.html" width="1280" height="800" style="color-scheme: dark"></iframe>
<script>
addEventListener("load", () => {
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument;
    found[frame.id] = {
      width: page.documentElement.scrollWidth,
      page: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
      text: frame.contentWindow.getComputedStyle(page.body).color,
      marks: page.querySelectorAll("mark").length,
      figures: [...page.querySelectorAll("svg")].map(one => one.getBoundingClientRect().width),
    };
  }
  document.body.textContent = JSON.stringify(found);
});
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="no browser here")
def test_a_browser_shows_the_page(tmp_path):
    long = "郑阿姨在文汇路遇见了林先生" * 30
    found = [{"start": 0, "end": 3, "label": "name" * 20, "score": 1.0}]
    line = {"text": long, "entities": [{"start": 4, "end": 7, "label": "address"}]}
    lines = [{**line, "prediction": {"entities": found}}] * 30
    names = [f"{'long_name_of_a_system_' * 4}{number}.jsonl" for number in (1, 2, 3)]
    files = [write_lines(tmp_path / name, lines) for name in names]
    nlpkit("report", *files, "--task", "ner", "-o", tmp_path / "report.html")
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(WRAPPER, encoding="utf-8")
    command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", wrapper.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "CONSOLE" not in done.stderr
    shown = json.loads(re.search(r"\{.*\}", done.stdout)[0])
    phone = shown["phone"]
    desk = shown["desk"]
    assert phone["width"] <= 360
    assert desk["width"] <= 1280
    assert (phone["page"], phone["text"]) == ("rgb(255, 255, 255)", "rgb(31, 35, 40)")
    assert (desk["page"], desk["text"]) == ("rgb(18, 22, 27)", "rgb(230, 237, 243)")
    assert phone["marks"] == desk["marks"] > 0
    assert all(0 < width <= 360 for width in phone["figures"])
