"""The page: one file that asks for nothing, trusts no text, and never lets a partial table look complete."""

import base64
import csv
import hashlib
import io
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from test_figures import HOSTILE, fail, synthetic_run

from diag.pages import figures_for, render
from reports.download import csv_text
from reports.formats import lead
from reports.tables import Cell, Column, Table, table_of


class Outline(HTMLParser):
    """Tags with their attributes in order, and the text of the page outside style sheet and script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.style = ""
        self.script = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.style += data
        elif self._inside == "script":
            self.script += data
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(run: dict[str, Any]) -> str:
    return render([run], [figures_for(run)])


def words(page: str) -> str:
    return " ".join(Outline(page).text.split())


@pytest.fixture(scope="module")
def page() -> str:
    return page_of(synthetic_run())


def test_rendering_twice_gives_the_same_bytes(page: str) -> None:
    assert page == page_of(synthetic_run())


def test_policy_allows_exactly_our_style_sheet_and_script(page: str) -> None:
    outline = Outline(page)
    policy = next(meta["content"] for meta in outline.all("meta") if meta.get("http-equiv"))
    style, script = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (outline.style, outline.script)
    )
    assert policy == (
        f"default-src 'none'; img-src data:; script-src 'sha256-{script}'; style-src 'sha256-{style}'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert outline.all("script") == outline.all("style") == [{}]
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function|fetch|import", outline.script
    )
    assert not [tag for tag, _ in outline.tags if tag in {"button", "dialog", "template", "iframe", "form"}]
    assert not [tag for tag, attributes in outline.tags if "style" in attributes]
    assert not [name for _, attributes in outline.tags for name in attributes if name.startswith("on")]


def test_nothing_is_fetched(page: str) -> None:
    outline = Outline(page)
    for _, attributes in outline.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            if name in attributes:
                assert re.match(r"data:|#", attributes[name] or "")
    assert "url(" not in outline.style
    assert "@import" not in outline.style


def test_every_figure_has_alternative_text_a_caption_and_a_table_below(page: str) -> None:
    outline = Outline(page)
    assert len(outline.all("img")) == 3
    assert all(len(image["alt"] or "") > 20 for image in outline.all("img"))
    after = re.sub(r"\s+", " ", page.split("</figure>")[1])
    assert re.match(r" <details> <summary>[^<]+</summary> <div class=\"scroll[^>]*> <table>", after)
    assert page.count("<figcaption>") == 3


def test_tables_are_captioned_and_scoped(page: str) -> None:
    outline = Outline(page)
    assert len(outline.all("table")) == len(outline.all("caption"))
    assert all(heading.get("scope") in {"row", "col", "colgroup"} for heading in outline.all("th"))
    assert outline.all("html")[0]["lang"] == "en"
    assert [tag for tag, _ in outline.tags if tag == "h1"] == ["h1"]


def test_scrolling_tables_are_named_groups_and_no_landmarks(page: str) -> None:
    runs = [synthetic_run(), synthetic_run((1, 2)), synthetic_run(model="other")]
    for shown in (page, render(runs, [[]] * 3)):
        outline = Outline(shown)
        boxes = [box for box in outline.all("div") if "scroll" in str(box.get("class"))]
        assert len(boxes) == len(outline.all("table")) > 3
        assert {(box["role"], box["tabindex"]) for box in boxes} == {("group", "0")}
        for tag in ("div", "a", "nav"):
            labels = [attributes["aria-label"] for attributes in outline.all(tag) if "aria-label" in attributes]
            assert len(labels) == len(set(labels)), tag
        assert not [attributes for _, attributes in outline.tags if attributes.get("role") == "region"]


def test_hostile_text_stays_text() -> None:
    run = synthetic_run(projections=("gate", "<img src=x onerror=y>"), model=HOSTILE)
    run["config"]["<b>"] = [HOSTILE, {"</style>": 1}]
    run["versions"]["<i>"] = "'\"><svg/onload=x>"
    run["command_line"] = f"tdmoe-diag spectra --model '{HOSTILE}'"
    run["jobs"][1] |= {"message": "</li><script>alert(1)</script>"}
    run = fail(run, "spectra-L003-gate", "<script>alert(2)</script> in /home/ann/models/a.safetensors \u202e")
    page = page_of(run)
    outline = Outline(page)
    tags = {tag for tag, _ in outline.tags}
    assert not tags & {"b", "i", "svg"}
    assert outline.all("script") == outline.all("style") == [{}]
    assert len(outline.all("img")) == len(figures_for(run))
    assert "<script>alert(2)</script> in …/a.safetensors ⟨U+202E⟩" in words(page)
    assert not set("\u202e\u2066") & set(page)


def test_no_path_of_the_machine_reaches_the_page() -> None:
    run = synthetic_run()
    run["config"] |= {"out": "/home/ann/runs/x", "model": "/Users/ann"}
    run["command_line"] = "tdmoe-diag spectra --model /home/ann/models/q --out=/home/ann/runs/x"
    run["jobs"][0]["message"] = "cannot read /home/ann/models/q/model.safetensors"
    page = page_of(run)
    assert "ann" not in re.findall(r"\w+", words(page))
    assert "--model …/q --out=…/x" in words(page)


def test_failed_and_pending_jobs_stand_before_the_answer_and_in_the_tables() -> None:
    run = fail(synthetic_run(), "spectra-L003-up", "3 values are not finite")
    page = page_of(fail(run, "spectra-L000-gate", "", state="pending"))
    text = words(page)
    assert "Incomplete: 2 of 6 jobs did not finish" in text
    assert page.index("3 values are not finite") < page.index(">Answer</h2>")
    assert "4 of 6 jobs" in text
    assert "The run is incomplete" in text
    assert re.search(r"3 up — failed — failed — failed", text)
    assert re.search(r"0 gate — pending", text)


def test_a_complete_run_has_no_alarm(page: str) -> None:
    assert "Incomplete" not in page
    assert "incomplete" not in page


def test_an_empty_value_is_a_dash_with_its_status_and_never_zero() -> None:
    run = synthetic_run((0,), ("gate",))
    row = run["tables"]["spectra"][0]
    row |= {"alpha_density": None, "status": "insufficient_tail"}
    text = words(page_of(run))
    assert "— insufficient tail" in text
    row |= {"alpha": None, "alpha_null": None, "r2": None, "status": "insufficient_points"}
    text = words(page_of(run))
    assert re.search(r"0 gate — insufficient points 0\.101 \(0\.050\)", text)
    assert "0.000" not in text
    assert "None" not in text
    assert "nan" not in re.findall(r"\w+", text)


def test_a_run_that_measured_nothing_says_so() -> None:
    page = page_of(fail(synthetic_run((0,), ("gate",)), "spectra-L000-gate", "no such tensor"))
    assert "nothing of this run has a result yet" in words(page)
    assert "no such tensor" in words(page)
    assert not Outline(page).all("img")


def test_the_published_value_stands_beside_ours_only_where_there_is_one(page: str) -> None:
    assert "alpha (baseline) paper" not in words(page)
    run = synthetic_run()
    run["tables"]["spectra"][2]["alpha_paper"] = 0.402
    text = words(page_of(run))
    assert "alpha (baseline) paper" in text
    assert "0.102 (0.050) 0.402" in text
    assert "−0.300 (layer 0, gate, input)" in text


def test_long_tables_fold_and_every_link_leads_somewhere() -> None:
    run = synthetic_run(range(20), ("gate",))
    outline = Outline(render([run], [[]]))
    assert len(outline.all("details")) == 3
    targets = {attributes["id"] for _, attributes in outline.tags if "id" in attributes}
    links = [attributes["href"] for attributes in outline.all("a") if str(attributes["href"]).startswith("#")]
    assert len(links) == len(("content", "answer", "exponents", "depth", "measurements", "method"))
    assert {str(link)[1:] for link in links} <= targets


def test_how_it_was_measured_is_complete(page: str) -> None:
    text = words(page)
    for said in ("tdmoe-diag spectra --model pico-moe", "0123abcd", "version of numpy 2.4", "layers 0, 3", "seed 0",
                 "Marchenko–Pastur", "OLS standard error", "2026-01-02T03:04:05+00:00", "device cpu"):  # fmt: skip
        assert said in text


def test_a_command_without_a_page_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"no page for command 'models'; there is one for: .*spectra"):
        render([synthetic_run() | {"command": "models"}], [[]])


@pytest.mark.parametrize(
    ("sentence", "head"),
    [("Truncation: a quarter: of it", "Truncation:"), ("In 8 (null: Gaussian) it holds.", ""), ("No colon.", ""),
     ("It is so. Truncation: no", ""), ("x" * 101 + ": y", ""), ("At 12:30 it ended", "")],
)  # fmt: skip
def test_the_clause_before_a_colon_leads(sentence: str, head: str) -> None:
    assert lead(sentence) == (head, sentence[len(head) :])


def test_a_tables_csv_holds_raw_rows_or_what_is_shown_and_no_formula() -> None:
    rows = [
        {
            "method": "=cmd|' /C calc'!A0",
            "value": -0.125,
            "text": "-1+1|x",
            "layers": "0,2",
            "done": True,
            "none": None,
        },
        {"method": "@SUM(1)", "value": 2e-7, "text": "+0.04 ± 0.01", "layers": "5", "later": "/home/ann/x/y.bin"},
    ]
    raw = table_of(rows, [Column("method", lambda row: row["method"])], "of rows")
    assert list(csv.reader(io.StringIO(csv_text(raw)))) == [
        ["method", "value", "text", "layers", "done", "none", "later"],
        ["'=cmd|' /C calc'!A0", "-0.125", "'-1+1|x", "0,2", "True", "", ""],
        ["'@SUM(1)", "2e-07", "+0.04 ± 0.01", "5", "", "", "…/y.bin"],
    ]
    lines = [
        [Cell("\t=1"), Cell("−0.05"), Cell("+1.5 (+1 to +2)", "not =finite")],
        [Cell("+HYPERLINK(1)"), Cell("—"), Cell("−7", "=A1")],
        [Cell("24.8\N{NO-BREAK SPACE}%"), Cell("−0.1 ± 0.02"), Cell("3", "167 ± 11")],
    ]
    shown = Table("as shown", ["-name", "b", "c"], lines, groups=[("", 1), ("g, h", 2)])
    assert list(csv.reader(io.StringIO(csv_text(shown)))) == [
        ["'-name", "g, h: b", "g, h: b, standard error", "g, h: c", "g, h: c, note", "g, h: c, note, standard error"],
        ["'\t=1", "-0.05", "", "+1.5 (+1 to +2)", "not =finite", ""],
        ["'+HYPERLINK(1)", "", "", "-7", "'=A1", ""],
        ["24.8 %", "-0.1", "0.02", "3", "167", "11"],
    ]
    assert csv_text(Table("nothing", ["a"], [])) == "a\n"


def test_every_table_has_its_csv(page: str) -> None:
    outline = Outline(page)
    links = [a for a in outline.all("a") if "download" in a]
    assert len(links) == len(outline.all("table")) == len({link["download"] for link in links})
    for link in links:
        assert re.fullmatch(r"[A-Za-z0-9.-]+\.csv", str(link["download"]))
        kind, content = str(link["href"]).split(",")
        assert kind == "data:text/csv;charset=utf-8;base64" and len(base64.b64decode(content).splitlines()) > 1
    rows = synthetic_run()["tables"]["spectra"]
    whole = next(str(link["href"]) for link in links if link["download"] == "pico-moe-spectra-measurements.csv")
    found = list(csv.DictReader(io.StringIO(base64.b64decode(whole.split(",")[1]).decode("utf-8-sig"))))
    assert [float(row["alpha"]) for row in found] == [row["alpha"] for row in rows]
    assert list(found[0]) == list(rows[0])
