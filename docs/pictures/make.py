"""Make the pictures of the README anew, from what a command prints and writes.

Needs Playwright and Chromium: python docs/pictures/make.py
"""

import io
import os
import pty
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
COLUMNS = 96


def in_a_terminal(*arguments: str, folder: str) -> str:
    """Return what `mlpinfer` prints on a terminal with colours."""
    reader, writer = pty.openpty()
    environment = os.environ | {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    process = subprocess.Popen(
        [sys.executable, "-m", "mlpinfer", *arguments],
        stdin=writer,
        stdout=writer,
        stderr=writer,
        cwd=folder,
        env=environment,
    )
    os.close(writer)
    pieces = []
    while True:
        try:
            piece = os.read(reader, 65_536)
        except OSError:  # the terminal is gone when the process is
            break
        if not piece:
            break
        pieces.append(piece)
    assert process.wait() == 0
    return b"".join(pieces).decode().replace("\r\n", "\n")


with tempfile.TemporaryDirectory() as folder:
    command = ["score", "--batch-size", "100", "--errors", "3", "--report", "report.html"]
    console = Console(record=True, width=COLUMNS, force_terminal=True, file=io.StringIO())
    console.print(f"[bold]$ mlpinfer {' '.join(command)}[/bold]", highlight=False)
    console.print(Text.from_ansi(in_a_terminal(*command, folder=folder)))
    drawing = Path(folder) / "terminal.svg"
    console.save_svg(str(drawing), title="mlpinfer")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 1180})
        page.goto((Path(folder) / "report.html").as_uri())
        page.screenshot(path=HERE / "report.png")
        page.route("https://**", lambda route: route.abort())  # fonts, which this machine has of its own
        page.goto(drawing.as_uri())
        page.locator("svg").screenshot(path=HERE / "terminal.png")
        browser.close()
