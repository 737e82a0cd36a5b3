"""Pages in a real browser: silent, legible, sortable, enlargeable, by keyboard alone; one browser for all tests."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium, complaints, emulate_phone, emulate_scheme, requests
from test_drift_page import a_run
from test_figures import HOSTILE, fail, synthetic_run
from test_quality_page import ratios, run_of, text_row

from diag.pages import figures_of, render

MODEL = "<script>document.title='owned'</script>\"'><img src=x onerror=y> $x^$ & 模型"
LOSSES = {"a": 2.5, "b": 1.9, "c": None, "d": 10.0, "e": 2.05}  # nats of methods; the dense model has 2


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("browser") / "profile") as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A hostile page of one run, with a job that failed; one of a run with a table; one of three runs of two models."""
    home = tmp_path_factory.mktemp("pages")
    bad = fail(synthetic_run((0, 3, 5), model=MODEL), "spectra-L003-up", "<b>not</b> finite: " + "x" * 300)
    rows = [text_row("dense", None, "", 0.0, 2.0)]
    for saved, (name, loss) in enumerate(LOSSES.items()):
        row = text_row(f"=HYPERLINK({name})", None, "1-2", saved / 10 - 0.2, loss or 0.0)
        rows.append(row if loss else row | {"value": None, "status": "not_finite"})
    several = [run_of(rows), run_of(ratios(), config={"texts": ["c4"]}), a_run(5.0, model=HOSTILE)]
    for name, runs in (("one", [bad]), ("table", several[:1]), ("several", several)):
        (home / f"{name}.html").write_text(render(runs, figures_of(runs)), encoding="utf-8")
    return {path.stem: path for path in home.iterdir()}


def visit(session: Any, file: Path) -> None:
    """Open a page, which must say nothing and ask for nothing."""
    session.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    requests(session)
    session.get(file.as_uri())
    assert complaints(session) == []
    assert requests(session) == [file.as_uri()]


def press(session: Any, key: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    ActionChains(session).send_keys(getattr(Keys, key)).perform()


def focused(session: Any) -> str:
    return str(session.execute_script("const e = document.activeElement; return e.ariaLabel || e.textContent"))


def soon_focused(session: Any, label: str) -> bool:
    """A dialog's close event, which gives the focus back, comes a moment after the dialog is closed."""
    for _ in range(100):
        if focused(session) == label:
            return True
        time.sleep(0.02)
    return False


def test_a_hostile_page_is_silent_legible_and_asks_for_nothing(session: Any, pages: dict[str, Path]) -> None:
    visit(session, pages["one"])
    assert session.title == f"{MODEL} · spectra · tdmoe-diag"
    assert session.execute_script("return document.querySelector('h1').textContent") == MODEL
    assert session.execute_script("return document.querySelectorAll('script ~ script, b, h1 img').length") == 0
    images = "return [...document.images].map(image => image.complete && image.naturalWidth > 0)"
    assert session.execute_script(images) == [True] * 4

    colours = (
        "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor].map(c => c.match(/\\d+/)[0])"
    )
    found = {}
    for scheme in ("light", "dark"):
        emulate_scheme(session, scheme)
        ink, paper = map(int, session.execute_script(colours))
        found[scheme] = paper - ink
    assert found["light"] > 180 and found["dark"] < -180
    assert complaints(session) == [] and requests(session) == []


@pytest.mark.parametrize("name", ["one", "several"])
def test_nothing_is_wider_than_a_phone(session: Any, pages: dict[str, Path], name: str) -> None:
    visit(session, pages[name])
    for width in (390, 360):
        emulate_phone(session, width)
        session.execute_script("document.querySelectorAll('details').forEach(part => part.open = true)")
        assert session.execute_script("return document.documentElement.scrollWidth") <= width


def column(session: Any, heading: str) -> list[str]:
    """The texts of the first table's column of that heading, without notes, down the lines."""
    script = """
        const table = document.querySelector('.block table');
        const place = [...table.tHead.rows[0].cells].findIndex(cell => cell.innerText.trim() === arguments[0]);
        return [...table.tBodies[0].rows].map(row => row.cells[place].childNodes[0].textContent.trim());
    """
    return list(session.execute_script(script, heading))


def test_tables_sort_by_keyboard_numbers_as_numbers_and_empty_last(session: Any, pages: dict[str, Path]) -> None:
    visit(session, pages["table"])
    button = session.find_element("css selector", ".block thead th:nth-child(4) button")
    assert button.text == "wikitext2"
    before = column(session, "wikitext2")
    truth = [value for value in (2.0, *LOSSES.values()) if value is not None]
    perplexities = pytest.approx([math.exp(loss) for loss in sorted(truth)], rel=1e-3)
    states = []
    for _ in range(3):
        button.send_keys("\n")
        listed = [text.split(" ±")[0] for text in column(session, "wikitext2")]
        states.append((button.find_element("xpath", "..").get_attribute("aria-sort"), listed))
    (up, ascending), (down, descending), (none, original) = states
    assert (up, down, none) == ("ascending", "descending", None)
    assert [float(text) for text in ascending[:-1]] == perplexities
    assert ascending[-1] == "—" and descending == [*reversed(ascending[:-1]), "—"]
    assert original == [text.split(" ±")[0] for text in before]

    session.find_element("css selector", ".block thead th:nth-child(3) button").send_keys(" ")
    assert column(session, "bits saved") == [f"{sign}{n}.0 %".replace(" ", "\xa0") for sign, n in
                                             (("−", 20), ("−", 10), ("", 0), ("", 0), ("", 10), ("", 20))]  # fmt: skip
    first = session.find_element("css selector", ".block thead th:first-child button")
    first.click()
    first.click()
    names = column(session, "model")
    assert names == sorted(names, reverse=True) and len(set(names)) == 6
    assert len(session.find_elements("css selector", "[aria-sort]")) == 1
    texts = {
        "−0.047 (0.1)": -0.047,
        "+31.2\xa0%": 31.2,
        "1.2 × 10⁻⁴": 1.2e-4,
        "−∞": -math.inf,
        "35.3°": 35.3,
        "3 of 6": 3,
        "3,000": 3000,
        "−1,234,567.5 ± 2": -1234567.5,
    }
    read = session.execute_script("return arguments[0].map(text => String(numberOf(text)))", list(texts))
    assert [float(number.replace("Infinity", "inf")) for number in read] == pytest.approx(list(texts.values()))
    words = ["", "L3 gate", "0-3", "2026-01-02", "2.4.1", "−", "dense", "0,12", "1,2,3", "12,34"]
    assert session.execute_script("return arguments[0].every(t => Number.isNaN(numberOf(t)))", words)


def test_figures_enlarge_by_keyboard_and_escape_leads_back(session: Any, pages: dict[str, Path]) -> None:
    visit(session, pages["table"])
    button = session.find_element("css selector", "figure button")
    label = button.get_attribute("aria-label")
    assert label == "Enlarge figure: Perplexity"
    shown = "return document.querySelector('dialog').open"
    assert session.execute_script(shown) is False
    button.send_keys("\n")
    assert session.execute_script(shown) is True
    assert focused(session) == "Close"
    same = """
        const [small, large] = [document.querySelector('figure img'), document.querySelector('dialog img')];
        return small.src === large.src && small.alt === large.alt && large.clientWidth > 1.5 * small.clientWidth
    """
    assert session.execute_script(same)
    press(session, "ESCAPE")
    assert session.execute_script(shown) is False
    assert soon_focused(session, label)
    session.find_element("css selector", "figure img").click()
    assert session.execute_script(shown) is True
    press(session, "ENTER")  # on Close
    assert session.execute_script(shown) is False
    assert soon_focused(session, label)
    assert complaints(session) == [] and requests(session) == []


def test_the_keyboard_can_skip_to_the_content(session: Any, pages: dict[str, Path]) -> None:
    visit(session, pages["several"])
    press(session, "TAB")
    assert focused(session) == "Skip to the content"
    press(session, "ENTER")
    assert session.execute_script("return document.activeElement.tagName") == "MAIN"


def test_a_tables_link_saves_it_as_csv(session: Any, pages: dict[str, Path], tmp_path: Path) -> None:
    visit(session, pages["table"])
    allowed = {"behavior": "allow", "downloadPath": str(tmp_path), "eventsEnabled": False}
    session.execute_cdp_cmd("Browser.setDownloadBehavior", allowed)
    link = session.find_element("css selector", ".block .download a")
    link.click()
    file = tmp_path / str(link.get_attribute("download"))
    for _ in range(200):
        if file.exists():
            break
        time.sleep(0.02)
    assert file.name == "pico-moe-quality-perplexity.csv"
    with file.open(newline="", encoding="utf-8-sig") as text:
        rows = list(csv.DictReader(text))
    assert [row["model"] for row in rows] == ["dense", *(f"'=HYPERLINK({name})" for name in LOSSES)]
    assert [row["bits saved"] for row in rows][-1] == "20.0 %"
    assert rows[0]["wikitext2"] == "7.39" and float(rows[0]["wikitext2, standard error"]) > 0
    assert complaints(session) == []


def test_paper_gets_what_was_folded_and_no_controls(session: Any, pages: dict[str, Path]) -> None:
    visit(session, pages["several"])
    session.execute_script("""
        addEventListener('beforeprint', () => {
          const controls = [...document.querySelectorAll('nav, .enlarge, .download, .skip')];
          const left = [document.querySelectorAll('details:not([open])'), controls.filter(e => e.checkVisibility())];
          document.title = left.map(part => part.length).join(' ');
        });
    """)
    closed = "return document.querySelectorAll('details:not([open])').length"
    before = session.execute_script(closed)
    assert before > 0
    session.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    session.execute_cdp_cmd("Page.printToPDF", {})
    session.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert session.title == "0 0"
    assert session.execute_script(closed) == before
