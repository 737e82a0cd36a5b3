"""A headless Chromium for tests that look at pages the way a reader does; tests skip where there is none."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def _program(*names: str) -> str | None:
    for name in names:
        found = shutil.which(name) or shutil.which(name, path="/usr/bin")
        if found:
            return found
    return None


@contextmanager
def chromium(profile: Path, width: int = 1280, height: int = 900) -> Iterator[Any]:
    """A fresh browser with console and network logs switched on; skips the test when something is missing."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    service = pytest.importorskip("selenium.webdriver.chrome.service", reason="selenium is not installed")
    browser, driver = _program("chromium", "chromium-browser", "google-chrome"), _program("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no Chromium with chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    session = webdriver.Chrome(options=options, service=service.Service(driver))
    try:
        session.get("about:blank")
        session.get_log("performance")  # the browser's own start page asks for its own parts
        yield session
    finally:
        session.quit()


def complaints(session: Any) -> list[str]:
    """Console messages that a developer would have to explain."""
    return [entry["message"] for entry in session.get_log("browser") if entry["level"] in {"SEVERE", "WARNING"}]


def requests(session: Any) -> list[str]:
    """The URLs asked for since the last call, data: URLs left out."""
    asked = []
    for entry in session.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.append(message["params"]["request"]["url"])
    return [url for url in asked if not url.startswith("data:")]


def emulate_phone(session: Any, width: int = 360, height: int = 740) -> None:
    """The viewport of a small phone."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": True}
    session.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def emulate_scheme(session: Any, scheme: str) -> None:
    """A reader who prefers `dark` or `light`."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    session.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
