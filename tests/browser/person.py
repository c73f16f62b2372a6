"""A person at a browser: sees, clicks, types and chooses by the text on the page."""

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.support import wait_until

PAGES = {
    "payments": ("/", "USD"),
    "stack": ("/stack", "core-api"),
    "queue": ("/queue", "connector"),
    "try": ("/try", "A burst"),
    "psp": ("/psp", "USD"),
    "logs": ("/logs", "router"),
    "rates": ("/rates", "Payments per second"),
}
"""Each page's path, and what it shows once it has read its sources and a payment was made."""
WIDTHS = (1280, 400)
SCHEMES = ("light", "dark")
SEE_SECONDS_MAX = 60  # the machine of a check is shared and slow at times
_OPEN_SECONDS_MAX = 5
_TEXT = "return document.body.innerText"
_OVERFLOW = "return document.documentElement.scrollWidth - window.innerWidth"
# Calls back in the second consecutive frame without a transition; traffic arrows never stop.
_SETTLED = """
    const isOver = (one) =>
        one.playState !== "running" || one.effect.getComputedTiming().iterations === Infinity;
    const look = (still) => requestAnimationFrame(() => {
        const now = document.getAnimations().every(isOver) ? still + 1 : 0;
        now > 1 ? arguments[0]() : look(now);
    });
    look(0);
"""
# Clickable elements that a click in the middle does not hit, even after scrolling.
_UNREACHABLE = """
    const scope = document.querySelector(".q-dialog") ?? document.body;
    const kinds = "a[href], button:enabled, input, summary, [role=switch]";
    const isHit = (element) => {
        element.scrollIntoView({block: "center", inline: "center"});
        const box = element.getBoundingClientRect();
        const hit = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
        return (element.closest("label") ?? element).contains(hit);
    };
    const missed = [...scope.querySelectorAll(kinds)]
        .filter((element) => element.checkVisibility() && element.offsetWidth && !isHit(element))
        .map((element) => element.outerHTML.slice(0, 200));
    window.scrollTo(0, 0);
    return missed;
"""


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium; the test is skipped if there is none."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        assert not os.environ.get("BROWSER_REQUIRED"), "chromium or chromedriver is missing"
        pytest.skip("chromium and chromedriver are not on PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Its sandbox needs privileges that builders lack; its pages are our own.
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        browser.set_page_load_timeout(SEE_SECONDS_MAX)
        browser.set_script_timeout(SEE_SECONDS_MAX)
        yield browser
    finally:
        browser.quit()


@dataclass
class Person:
    """One tab of the browser, with a width and a colour scheme."""

    browser: Any
    url: str
    screenshots: Path
    width: int = 1280
    scheme: str = "light"

    def set_screen(self, width: int, scheme: str = "light") -> None:
        """Sets the screen's width and colour scheme."""
        self.width, self.scheme = width, scheme
        size = {"width": width, "height": 860, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    def opens(self, path: str) -> None:
        """Opens an address."""
        self.browser.get(self.url + path)

    def text(self) -> str:
        """All text on the page."""
        return str(self.browser.execute_script(_TEXT))

    def sees(self, *texts: str) -> str:
        """Waits until all of these texts are on the page; returns the page's text."""

        def found() -> str:
            text = self.text()
            return text if all(one in text for one in texts) else ""

        with contextlib.suppress(AssertionError):
            return wait_until(found, seconds_max=SEE_SECONDS_MAX)
        raise AssertionError(f"{texts} not within {SEE_SECONDS_MAX} s in:\n{self.text()}")

    def no_longer_sees(self, text: str) -> None:
        """Waits until this text is gone."""
        wait_until(lambda: text not in self.text(), seconds_max=SEE_SECONDS_MAX, what=f"no {text}")

    def finds(self, xpath: str, *, seconds_max: float = SEE_SECONDS_MAX) -> WebElement:
        """The first such element that is visible."""

        def found() -> WebElement | None:
            with contextlib.suppress(WebDriverException):
                for element in self.browser.find_elements(By.XPATH, xpath):
                    if element.is_displayed():
                        return element  # type: ignore[no-any-return]
            return None

        return wait_until(found, seconds_max=seconds_max, what=xpath)

    def clicks(self, name: str) -> None:
        """Clicks a button, link, switch or option, which may be redrawn before the click."""
        kinds = ("self::button", "self::a", "@role='option'", "@role='switch'")
        named = f"[normalize-space()='{name}' or @aria-label='{name}']"
        xpath = f"//*[{' or '.join(kinds)}]{named}"

        self._clicks(xpath)

    def _clicks(self, xpath: str) -> None:
        """Clicks the element, scrolled to the middle, where no message covers it."""
        middle = "arguments[0].scrollIntoView({block: 'center'})"

        def clicked() -> bool:
            with contextlib.suppress(WebDriverException):
                element = self.finds(xpath)
                self.browser.execute_script(middle, element)
                element.click()
                return True
            return False

        wait_until(clicked, seconds_max=SEE_SECONDS_MAX, what=f"a click on {xpath}")

    def types(self, label: str, text: str) -> None:
        """Fills a field."""
        field = self.finds(f"//input[@aria-label='{label}']")
        # Earlier, on a busy machine, the console would not get the text.
        script = "return window.did_handshake"
        wait_until(lambda: self.browser.execute_script(script), what="the page's connection")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text or Keys.DELETE)

    def chooses(self, label: str, option: str) -> None:
        """Chooses an option of a menu, typing it first in a long one."""
        typed = f"//input[@aria-label='{label}'][not(@readonly)]"
        xpath = f"//*[@role='option'][normalize-space()='{option}']"

        def opened() -> bool:
            self._clicks(f"//label[.//*[@aria-label='{label}']]")
            with contextlib.suppress(AssertionError, WebDriverException):  # it was redrawn
                for field in self.browser.find_elements(By.XPATH, typed):
                    field.send_keys(option)
                return self.finds(xpath, seconds_max=_OPEN_SECONDS_MAX) is not None
            return False

        wait_until(opened, seconds_max=SEE_SECONDS_MAX, what=f"the menu {label}")
        self._clicks(xpath)
        menu = (By.CLASS_NAME, "q-menu")
        closed = f"the menu {label} to close"
        wait_until(lambda: not self.browser.find_elements(*menu), what=closed)

    @contextlib.contextmanager
    def another_tab(self) -> Iterator[None]:
        """Switches to another tab during the block."""
        first = self.browser.current_window_handle
        self.browser.switch_to.new_window("tab")
        self.set_screen(self.width, self.scheme)
        try:
            yield
        finally:
            self.browser.close()
            self.browser.switch_to.window(first)

    def check_layout(self, name: str) -> None:
        """On a wide and on a narrow screen nothing sticks out, and a click reaches everything.

        Leaves a picture of each, in light and dark.
        """
        self.screenshots.mkdir(parents=True, exist_ok=True)
        for width, scheme in itertools.product(WIDTHS, SCHEMES):
            self.set_screen(width, scheme)
            self.browser.execute_async_script(_SETTLED)
            assert self.browser.execute_script(_OVERFLOW) <= 0, f"wider than {width}"
            assert self.browser.execute_script(_UNREACHABLE) == [], width
            self.browser.save_screenshot(str(self.screenshots / f"{name}-{width}-{scheme}.png"))

    def console_errors(self) -> list[str]:
        """Errors in the browser's own console, except those of a stopped server."""
        errors = [one["message"] for one in self.browser.get_log("browser")]
        return [one for one in errors if "Uncaught" in one or "Refused to" in one]
