"""A headless Chromium in front of the tester's WebUI, and the panel in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
SMALL_JOB = {"steps": "3", "width": "128", "height": "128"}
PATIENCE = 90_000  # milliseconds for one job
FINISHED = """([id, old]) => {
    const text = document.querySelector(id).innerText;
    return text !== old && text.includes("Time taken");
}"""


@contextmanager
def browsing() -> Iterator[Any]:
    """A browser. Skipped, saying so, where there is none to drive."""
    driver = pytest.importorskip("playwright.sync_api", reason="the panel was not tried: install playwright")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("the panel was not tried: no Chromium found, name one in CHROMIUM")
    with driver.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


def open_page(browser: Any, url: str) -> Any:
    """A page of the WebUI of its own, loaded and ready."""
    page = browser.new_page(viewport={"width": 1500, "height": 1600})
    page.goto(url)
    page.wait_for_selector("#txt2img_generate", timeout=PATIENCE)
    page.wait_for_timeout(2000)  # the WebUI's scripts go on arranging the page after it shows
    return page


def send_to_txt2img(page: Any, picture: Path) -> None:
    """PNG Info, then "Send to txt2img"."""
    page.click('button:has-text("PNG Info")')
    page.set_input_files("#pnginfo_image input[type=file]", picture)
    page.wait_for_timeout(2500)
    page.click("#tab_pnginfo #txt2img_tab")
    page.wait_for_timeout(3000)


class Panel:
    """The InstantStyle accordion of one tab, and the job settings around it."""

    def __init__(self, page: Any, tab: str = "txt2img") -> None:
        self.page, self.tab = page, tab
        self._ids = f"#script_{tab}_instantstyle_"

    def open(self) -> None:
        self.page.click(f"{self._ids}enabled .label-wrap")
        self.page.wait_for_timeout(1500)

    def locate(self, name: str, unit: int = 1) -> Any:
        return self.page.locator(f"{self._ids}unit{unit}_{name}")

    def status(self) -> str:
        return self.page.inner_text(f"{self._ids}status")

    @property
    def download_button(self) -> Any:
        return self.page.locator(f"{self._ids}download")

    def drop(self, file: Path, unit: int = 1, field: str = "image") -> None:
        self.locate(field, unit).locator("input[type=file]").first.set_input_files(file)
        self.locate(field, unit).locator("img").first.wait_for()

    def paint(self, file: Path) -> None:
        """Drop a picture on the brush, draw a stroke over it, and take that for the region."""
        brush = self.locate("brush")
        brush.locator("input[type=file]").set_input_files(file)
        canvas = brush.locator("canvas").last
        canvas.wait_for()
        self.page.wait_for_timeout(1500)
        canvas.scroll_into_view_if_needed()
        at = canvas.bounding_box()
        middle, left, width = at["y"] + at["height"] / 2, at["x"], at["width"]
        self.page.mouse.move(left + 0.3 * width, middle)
        self.page.mouse.down()
        self.page.mouse.move(left + 0.7 * width, middle, steps=8)
        self.page.mouse.up()
        self.page.wait_for_timeout(500)
        self.locate("brush_use").click()
        self.locate("mask").locator("img").wait_for()

    def drop_more(self, *files: Path) -> None:
        self.page.locator(f"{self._ids}unit1").get_by_text("More pictures of the same style").click()
        self.locate("more_pictures").locator("input[type=file]").first.set_input_files(files)
        self.page.wait_for_timeout(1000)

    def unfold(self, group: str) -> None:
        """Open one of a tab's folded groups: reference, weight."""
        self.locate(f"more_{group}").locator(".label-wrap").first.click()
        self.page.wait_for_timeout(500)

    def choose(self, name: str, label: str) -> None:
        self.locate(name).get_by_text(label, exact=True).click()
        self.page.wait_for_timeout(700)

    def type(self, name: str, text: str) -> None:
        field = self.locate(name).locator("textarea, input[type=number]").first
        field.fill(text)
        field.blur()

    def value(self, name: str) -> str:
        return self.locate(name).locator("textarea, input[type=number], input").first.input_value()

    def chips(self) -> dict[str, bool]:
        """The words seen in the reference, and whether each is picked."""
        labels = self.locate("words").locator("label").all()
        return {label.inner_text(): label.locator("input").is_checked() for label in labels}

    def analyse(self) -> list[str]:
        """Press the button and wait for the words."""
        self.locate("analyse").click()
        self.locate("words").locator("label").first.wait_for(timeout=PATIENCE)
        self.page.wait_for_timeout(500)
        return list(self.chips())

    def click_chip(self, word: str) -> None:
        self.choose("words", word)
        self.page.wait_for_timeout(500)

    @property
    def meter(self) -> Any:
        return self.locate("meter").first

    def bars(self) -> dict[str, tuple[float, float]]:
        """Each phrase of the meter, its numbers before and after."""
        rows = self.meter.locator(".instantstyle-leak").all()
        told = {row.locator(".instantstyle-phrase").inner_text(): row.locator(".instantstyle-numbers") for row in rows}
        return {phrase: tuple(map(float, numbers.inner_text().split("→"))) for phrase, numbers in told.items()}

    def make_small(self, prompt: str) -> None:
        self.page.fill(f"#{self.tab}_prompt textarea", prompt)
        for name, value in SMALL_JOB.items():
            self.page.fill(f"#{self.tab}_{name} input[type=number]", value)

    def generate(self) -> tuple[str, str]:
        """Press Generate and wait; the infotext and the message under the picture."""
        old = self.page.inner_text(f"#html_log_{self.tab}")
        self.page.click(f"#{self.tab}_generate")
        self.page.wait_for_function(FINISHED, arg=[f"#html_log_{self.tab}", old], timeout=PATIENCE)
        return self.page.inner_text(f"#html_info_{self.tab}"), self.page.inner_text(f"#html_log_{self.tab}")
