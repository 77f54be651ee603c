from __future__ import annotations

import copy
import json
import re
import struct
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import example_results as example
import pytest

from anyorder.compare.report import page as report
from anyorder.compare.report import tables
from anyorder.compare.run.records import Noise
from anyorder.compare.stats.estimators import median
from anyorder.compare.stats.leaderboard import summarise
from anyorder.compare.stats.records import judged_by, number
from anyorder.compare.store.schema import Results
from anyorder.compare.store.storage import StorageError

SVG = "{http://www.w3.org/2000/svg}"
METHODS = ("adamw", "torch.optim:SGD", "adahessian", "mezo")


@pytest.fixture(scope="module")
def measured() -> Results:
    """A comparison that was really run, in a few seconds."""
    found = example.measured(METHODS, seeds=3, tune=3, budget="150forwards", evaluations=6)
    runs = [run for method in found.methods for run in method.runs]
    found.problem.target = median([number(run.final.metric) for run in runs])  # half reach it
    return found


class _Page(HTMLParser):
    """The numbers and the data of a page, and every tag with what it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.values: list[tuple[str, float]] = []
        self.data: Any = None
        self._caption, self._inside, self._json = "", "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "action", "style")]
        self.links += [k for k, _ in attrs if k.startswith("on")]
        self._inside = tag
        self._json = tag == "script" and found.get("id") == "data"
        if "data-value" in found:
            self.values.append((self._caption, float(found["data-value"] or "nan")))

    def handle_data(self, data: str) -> None:
        if self._inside == "caption" and data.strip():
            self._caption = data
        if self._json and data.strip():
            self.data = json.loads(data)


# --- The page ----------------------------------------------------------------------------------


def test_numbers_in_the_page_equal_the_results(measured: Results) -> None:
    page = _Page(report.html(measured))
    rows = summarise(measured)
    board = [value for caption, value in page.values if caption == "Leaderboard"]
    for row in rows:
        assert row.metric in board
        assert row.final_loss in board
        assert row.seconds in board
    ledger = [value for caption, value in page.values if caption == "Ledger of one run"]
    for method in measured.methods:
        last = sorted(run.curve[-1].seconds for run in method.runs)
        assert last[1] in ledger
        assert method.runs[0].curve[-1].calls.grads in ledger


def test_curves_in_the_page_equal_the_results(measured: Results) -> None:
    page = _Page(report.html(measured))
    charts = {chart["id"]: chart for chart in page.data["charts"]}
    assert list(charts) == ["final", "loss", "metric", "target", "best-of-k", "lr"]
    assert page.data["names"] == list(METHODS)
    for axis in ("seconds", "forwards", "steps"):
        for key, quantity in (("loss", "val_loss"), ("metric", "metric")):
            series = charts[key]["views"][axis]["series"]
            for drawn, method in zip(series, measured.methods, strict=True):
                for line, run in zip(drawn["thin"], method.runs, strict=True):
                    assert line["x"] == [getattr(point, axis) for point in run.curve]
                    assert line["y"] == [getattr(point, quantity) for point in run.curve]
    for drawn in charts["lr"]["views"]["fixed"]["series"]:
        trials = measured.methods[drawn["m"]].tunings[0].trials
        points = sorted((trial.config["lr"], trial.value) for trial in trials)
        assert [(dot["x"], dot["y"]) for dot in drawn["dots"]] == points


def test_every_section_is_there(measured: Results) -> None:
    text = report.html(measured)
    for heading in (
        "Leaderboard",
        "Progress and result",
        "Differences between methods",
        "Test data",
        "Cost",
        "Tuning",
        "Divergence and failures",
        "Pilot measurements",
        "Settings",
        "Reproduce",
    ):
        assert f">{heading}</h2>" in text
    assert "differs from finite differences by 3 %" in text
    assert "Look for a step in the loss." in text
    assert "torch.optim.sgd.SGD" in text
    assert "<dt>computer, torch</dt>" in text
    assert measured.command in text


def test_what_the_pilot_found_is_said_in_words() -> None:
    results = example.results()
    results.pilot = example.pilot(
        deterministic=False,
        noise=Noise(16, 2.31393, 0.009447),
        second_derivative="no double backward for <op>",
    )
    text = report.html(results)
    said = dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", text))
    assert said["parameters"] == "17,226"
    assert said["same seed, same loss"] == "no"
    assert said["loss of 16 batches at the initial point"] == "2.314, standard deviation 0.0094"
    assert said["second derivative"] == "no double backward for &lt;op&gt;"
    assert said["one evaluation"] == "12.3 ms"
    assert said["composite (outputs and criterion)"] == "yes"


def test_the_first_traceback_of_a_method_is_shown() -> None:
    results = example.hostile()["all failed"]
    for each in results.methods[0].runs:
        each.traceback = f"Traceback of seed {each.seed}\n  File <x>"
    text = report.html(results)
    assert "Traceback of seed 0\n  File &lt;x&gt;" in text
    assert "Traceback of seed 1" not in text


def test_the_page_loads_nothing_and_runs_only_its_own_scripts(measured: Results) -> None:
    text = report.html(measured)
    page = _Page(text)
    assert set(page.links) == {"data:,", "#main"}
    assert not {"img", "iframe", "object", "embed", "base"} & set(page.tags)
    assert page.tags.count("script") == 2  # the data and one script
    assert "@import" not in text and "url(" not in text.replace("url(#${clip})", "")
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # a name, never asked for
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1].replace("&#39;", "'")
    assert "unsafe-inline" not in policy[1]


def test_html_in_names_stays_text() -> None:
    results = example.hostile()["names"]
    text = report.html(results)
    page = _Page(text)
    assert page.tags.count("script") == 2
    assert "img" not in page.tags
    assert not any(link.startswith("on") for link in page.links)
    assert page.data["names"] == [method.name for method in results.methods]
    assert "<script>document" not in text


@pytest.mark.parametrize("name", list(example.hostile()))
def test_hostile_results_make_a_page(name: str, tmp_path: Path) -> None:
    results = example.hostile()[name]
    before = copy.deepcopy(results)
    for file in report.write(results, tmp_path / "out"):
        assert file.stat().st_size > 0
    assert results == before
    page = _Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert page.data is not None


def test_one_page_is_small(measured: Results, tmp_path: Path) -> None:
    page, *_ = report.write(measured, tmp_path)
    assert page.stat().st_size < 400_000


def test_write_replaces_and_returns_the_files(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    files = report.write(example.hostile()["one seed"], tmp_path)
    assert [str(file.relative_to(tmp_path)) for file in files] == [
        *("report.html", "report.md", "report.tex", "leaderboard.csv", "curves.csv"),
        *(f"charts/{name}.svg" for name in ("final", "loss", "metric", "target")),
    ]
    assert all(file.is_file() for file in files)
    assert "old" not in files[0].read_text(encoding="utf-8")[:50]
    note = tmp_path / "charts/.written.json"
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == {*files, note}


def test_charts_that_are_no_more_are_deleted_but_no_other_files(tmp_path: Path) -> None:
    charts = tmp_path / "charts"
    for _ in range(2):  # the second report has the same charts
        report.write(example.made_up({"a": [[1.0, 0.1]] * 3}, metric="score"), tmp_path)
    assert (charts / "metric.svg").exists()
    (charts / "loss.svg").write_text("<svg>changed</svg>")
    (charts / "mine.svg").write_text("<svg/>")
    fewer = example.made_up({"a": []})
    files = report.write(fewer, tmp_path)
    left = {path.name for path in charts.glob("*.svg")}
    assert "metric.svg" not in left
    assert left == {"loss.svg", "mine.svg", *(f.name for f in files if f.parent == charts)}


def test_a_damaged_note_of_charts_deletes_nothing(tmp_path: Path) -> None:
    report.write(example.results(), tmp_path)
    charts = tmp_path / "charts"
    before = {path.name for path in charts.glob("*.svg")}
    for text in ("{", "[1]", '{"charts/final.svg": "0"}'):
        (charts / ".written.json").write_text(text)
        report.write(example.made_up({"a": []}), tmp_path)
        assert {path.name for path in charts.glob("*.svg")} == before


def test_an_unwritable_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(StorageError, match="cannot write"):
        report.write(example.results(), tmp_path)


# --- In a browser ------------------------------------------------------------------------------


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Open the report of some results; whatever the page complains about fails the test."""
    complaints: list[str] = []
    contexts: list[Any] = []

    def opened(results: Results, width: int = 1280, scheme: str = "light") -> Any:
        page_file, *_ = report.write(results, tmp_path / f"{len(contexts)}")
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda asked: (
                None if asked.url.startswith(("file:", "data:")) else complaints.append(asked.url)
            ),
        )
        page.goto(page_file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def test_the_legend_toggles_all_charts(visit: Callable[..., Any], measured: Results) -> None:
    page = visit(measured)
    lines = "figure .line"
    assert page.locator("#figure-loss .line").count() == 4
    before = page.locator(lines).count()
    button = page.locator("#legend button", has_text="adamw")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert page.locator("#figure-loss .line").count() == 3
    assert page.locator("#figure-metric .line").count() == 3
    assert page.locator(lines).count() == before - 3  # loss, metric, best of k
    assert page.locator("tr.off").count() >= 2
    button.click()
    assert page.locator(lines).count() == before
    button.dblclick()
    assert page.locator("#figure-loss .line").count() == 1
    page.click("#everyone")
    assert page.locator("#figure-loss .line").count() == 4


def test_one_switch_changes_the_axis_of_all_charts(
    visit: Callable[..., Any], measured: Results
) -> None:
    page = visit(measured)
    assert page.locator("input[value=forwards]").is_checked()
    for axis, label in (
        ("seconds", "seconds of training"),
        ("calls", "calls"),
        ("steps", "steps"),
        ("forwards", "forward-pass equivalents"),
    ):
        page.check(f"input[value={axis}]")
        for chart in ("loss", "metric"):
            assert page.locator(f"#figure-{chart} text.label").text_content() == label
        assert page.locator("#figure-target text.label").text_content() == f"{label} to the target"


def test_marks_and_readings_are_the_numbers(visit: Callable[..., Any], measured: Results) -> None:
    page = visit(measured)
    for button in page.get_by_role("button", name="Show values outside the chart").all():
        button.click()
    places = page.locator("#figure-final .dot.seed").evaluate_all(
        "all => all.map((each) => Number(each.dataset.x))"
    )
    of = judged_by(measured).of
    ends = [of(run) for method in measured.methods for run in method.runs]
    assert sorted(places) == sorted(ends)
    plot = page.locator("#figure-loss .plot")
    plot.focus()
    page.keyboard.press("End")
    reading = page.locator("#figure-loss .reading").inner_text()
    shown = {
        float(found[1]): float(found[0])
        for found in re.findall(r"([\d.e-]+) \[([\d.e-]+), ", reading)
    }
    ends_of_lines = [
        sorted(run.curve[-1].val_loss for run in method.runs) for method in measured.methods
    ]
    for low, middle in shown.items():
        assert any(
            middle == pytest.approx(finals[1], rel=0.02)
            and low == pytest.approx(finals[0], rel=0.02)
            for finals in ends_of_lines
        )
    assert shown


def test_zoom_by_mouse_button_and_key(visit: Callable[..., Any], measured: Results) -> None:
    page = visit(measured)
    figure = page.locator("#figure-loss")
    plot = figure.locator(".plot")

    def labels() -> list[str]:
        return plot.locator("text").all_text_contents()

    everything = labels()
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 160, steps=3)
    page.mouse.up()
    assert labels() != everything
    figure.get_by_role("button", name="Undo zoom").click()
    assert labels() == everything
    figure.get_by_role("button", name="Zoom in").click()
    closer = labels()
    assert closer != everything
    plot.focus()
    page.keyboard.press("0")
    assert labels() == everything
    page.keyboard.press("+")
    assert labels() == closer
    page.keyboard.press("-")
    assert labels() == everything


def test_logarithmic_axes_can_be_chosen(visit: Callable[..., Any], measured: Results) -> None:
    page = visit(measured)
    button = page.locator("#figure-loss").get_by_role("button", name="Logarithmic y axis")
    pressed = button.get_attribute("aria-pressed")
    before = page.locator("#figure-loss .line").first.get_attribute("d")
    button.click()
    assert button.get_attribute("aria-pressed") != pressed
    assert page.locator("#figure-loss .line").first.get_attribute("d") != before
    page.locator("#figure-loss").get_by_role("button", name="Logarithmic x axis").click()
    assert "NaN" not in page.locator("#figure-loss svg").inner_html()


def test_everything_is_reached_by_keyboard(visit: Callable[..., Any], measured: Results) -> None:
    page = visit(measured)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator("#figure-target .plot").focus()
    page.keyboard.press("ArrowRight")
    first = page.locator("#figure-target .reading").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#figure-target .reading").inner_text() != first
    assert "seed" in first or "median" in first
    page.keyboard.press("Escape")
    assert page.locator("#figure-target .reading").is_hidden()
    page.locator("#legend button").first.focus()
    page.keyboard.press("Space")
    assert page.locator("#legend button").first.get_attribute("aria-pressed") == "false"
    page.locator("#figure-loss summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("#figure-loss .behind table").is_visible()


def test_colours_follow_the_system_until_somebody_chooses(
    visit: Callable[..., Any], measured: Results
) -> None:
    def ground(page: Any) -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light, dark = ground(visit(measured)), ground(visit(measured, scheme="dark"))
    assert light != dark
    page = visit(measured)
    page.select_option("#theme", "dark")
    assert ground(page) == dark
    page.reload()
    assert ground(page) == dark
    page.select_option("#theme", "system")
    assert ground(page) == light
    page.select_option("#theme", "dark")
    page.emulate_media(media="print")
    assert ground(page) == "rgb(255, 255, 255)"


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_sticks_out_at_the_side(
    visit: Callable[..., Any], measured: Results, width: int
) -> None:
    results = {"measured": measured, **example.hostile()}
    for name in ("measured", "twelve", "names"):
        page = visit(results[name], width=width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name


@pytest.mark.parametrize("name", list(example.hostile()))
def test_hostile_results_open_without_complaint(visit: Callable[..., Any], name: str) -> None:
    results = example.hostile()[name]
    page = visit(results)
    assert page.title() != "taken"
    assert "NaN" not in "".join(
        page.locator("figure svg").evaluate_all("all => all.map((s) => s.outerHTML)")
    )
    assert page.locator("figure").count() == len(_Page(report.html(results)).data["charts"])


def test_misses_are_crosses_apart(visit: Callable[..., Any]) -> None:
    results = example.made_up({"a": [[1.0, 0.1]] * 3, "b": [[1.0, 0.9]] * 3})
    page = visit(results)
    figure = page.locator("#figure-target")
    assert figure.locator(".lost").count() == 3
    assert figure.locator(".dot.seed").count() == 3
    edge = figure.locator(".apart").bounding_box()
    crosses = [figure.locator(".lost").nth(i).bounding_box() for i in range(3)]
    assert all(edge["x"] < box["x"] < edge["x"] + edge["width"] for box in crosses)


def test_the_leaderboard_shows_what_the_tables_hold(
    visit: Callable[..., Any], measured: Results
) -> None:
    page = visit(measured)
    names = page.locator(".board tbody .name").all_inner_texts()
    assert names == [row[1].text for row in tables.leaderboard(measured).rows]
    assert page.locator(".board tbody .name svg").count() == 4


# --- What the eye and other readers need ---------------------------------------------------------


def _eventful() -> Results:
    """Nine methods close to each other, one that is far worse, and runs with warnings."""
    runs: dict[str, list[list[float | None]]] = {
        f"m{i}": [[2.3, 0.6, 0.3, 0.2 + 0.01 * i + 0.002 * s] for s in range(3)] for i in range(9)
    }
    runs["bad"] = [[2.3, 40.0, 500.0, 900.0]] * 3
    results = example.made_up(runs)
    for one in results.methods[1].runs:
        one.warnings = ['UserWarning: <lr> was "clipped"']
    stopped = example.lost(results.methods[9].runs[0], "failed", error="no step for 10 minutes")
    stopped.stop_reason = "timeout"
    results.methods[9].runs[0] = stopped
    return results


def test_a_bad_method_is_marked_at_the_edge_until_the_full_range_is_chosen(
    visit: Callable[..., Any],
) -> None:
    page = visit(_eventful())
    figure = page.locator("#figure-loss")
    ends = figure.locator(".line").evaluate_all(
        "all => all.map((line) => line.getAttribute('d').split(' ').at(-1))"
    )

    def spread() -> float:
        lasts = figure.locator(".line").evaluate_all(
            "all => all.slice(0, 9).map((line) => Number(line.getAttribute('d').split(' ').at(-1)))"
        )
        return max(lasts) - min(lasts)

    assert len(ends) == 10
    near = spread()
    assert near > 20  # pixels
    assert figure.locator(".leaving.c1").count() >= 1  # the tenth method has the second colour
    button = figure.get_by_role("button", name="Show values outside the chart")
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert spread() < near / 10
    assert figure.locator(".leaving").count() == 0
    button.click()
    assert spread() == pytest.approx(near)
    page.locator("#legend button", has_text="bad").dblclick()  # alone, it fills the chart
    assert figure.locator(".leaving").count() == 0
    assert figure.locator(".line").count() == 1
    final = page.locator("#figure-final")
    page.click("#everyone")
    assert final.locator(".leaving").count() == 2  # the third run was lost


def test_a_target_that_no_run_reached_is_said(visit: Callable[..., Any]) -> None:
    results = example.made_up({"a": [[1.0, 0.6]] * 3, "b": [[1.0, 0.5]] * 3}, target=0.9)
    page = visit(results)
    figure = page.locator("#figure-target")
    said = "No run reached score ≥ 0.9 within 150 forwards. The closest was b with 0.5."
    assert figure.locator(".plot").inner_text() == said
    assert figure.locator("svg").count() == figure.locator("button").count() == 0
    figure.locator(".plot").hover()
    figure.locator(".plot").press("ArrowRight")
    for name in ("a", "b"):
        page.locator("#legend button", has_text=name).first.click()
    assert "hidden" in page.locator("#figure-loss .plot").inner_text()
    page.locator("#figure-loss .plot").hover()


def test_warnings_and_time_outs_stand_below_the_row_of_their_method(
    visit: Callable[..., Any],
) -> None:
    page = visit(_eventful())
    found = page.locator(".board .below details")
    assert found.locator("summary").all_inner_texts() == ["1 warning", "1 run timed out"]
    method = found.first.locator("xpath=ancestor::tr/preceding-sibling::tr[1]")
    assert method.locator(".name").inner_text() == "m1"
    assert found.first.locator("li").is_hidden()
    found.first.locator("summary").press("Enter")
    said = found.first.locator("li").inner_text()
    assert 'warning UserWarning: <lr> was "clipped"' in said
    assert "seed 0, seed 1 and seed 2" in said


def test_the_verdict_is_on_the_first_screen_of_a_phone(
    visit: Callable[..., Any], measured: Results
) -> None:
    results = copy.deepcopy(measured)
    results.warnings = ["other programs were running: times vary"] * 20
    page = visit(results, width=390)
    headline = page.locator(".headline").bounding_box()
    assert headline["y"] + headline["height"] <= 844


def test_wide_tables_scroll_with_a_hint(visit: Callable[..., Any], measured: Results) -> None:
    page = visit(measured, width=390)
    board = page.locator(".sheet.board")
    hint = page.locator(".hint:has(+ .board)")
    assert hint.is_visible()
    assert board.get_attribute("tabindex") == "0"
    assert "more" in board.get_attribute("class")
    board.evaluate("each => { each.scrollLeft = each.scrollWidth; }")
    page.wait_for_function("!document.querySelector('.board').classList.contains('more')")
    name = board.locator("tbody .name").first.bounding_box()
    assert 0 <= name["x"] < 390  # names stay while the numbers move
    narrow = visit(example.made_up({"a": [[1.0, 0.1]] * 3}))
    assert narrow.locator(".hint:has(+ .board)").is_hidden()
    assert narrow.locator(".board").get_attribute("tabindex") is None


_CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const layer = (colour) => { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); };
  const grounds = (node) => node ? [...grounds(node.parentElement), node] : [];
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0.05);
  const read = () => light(canvas.getImageData(0, 0, 1, 1).data);
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !node.checkVisibility()) continue;
    if (["SCRIPT", "OPTION", "STYLE"].includes(node.tagName)) continue;
    const drawn = node.closest("svg");
    layer("white");
    for (const each of grounds(drawn ? drawn.parentElement : node)) {
      layer(getComputedStyle(each).backgroundColor);
    }
    const below = read();
    const style = getComputedStyle(node);
    layer(drawn ? style.fill : style.color);
    const [high, low] = [below, read()].sort((a, b) => b - a);
    found.push([high / low, walker.currentNode.textContent.trim().slice(0, 40)]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(visit: Callable[..., Any], scheme: str) -> None:
    results = _eventful()
    results.warnings = ["one"]
    page = visit(results, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    contrasts = page.evaluate(_CONTRASTS)
    assert len(contrasts) > 300
    assert [each for each in contrasts if each[0] < 4.5] == []


def test_print_shows_all_tables_on_the_page(visit: Callable[..., Any], measured: Results) -> None:
    page = visit(measured, width=703)  # A4 without margins
    assert not page.locator("#figure-loss .behind table").is_visible()
    page.emulate_media(media="print")
    tables_found = page.locator("table")
    count = tables_found.count()
    assert count >= 14
    for i in range(count):
        box = tables_found.nth(i).bounding_box()
        assert box is not None
        assert box["height"] > 20
        assert box["x"] + box["width"] <= 703 + 1, (
            tables_found.nth(i).locator("caption").inner_text()
        )
    assert page.locator("#theme").is_hidden()
    assert page.locator(".tools").first.is_hidden()


def test_every_chart_has_words_a_table_and_a_name(
    visit: Callable[..., Any], measured: Results
) -> None:
    page = visit(measured)
    figures = page.locator("figure")
    assert figures.count() == 6
    for i in range(figures.count()):
        figure = figures.nth(i)
        words = figure.locator(".plot").get_attribute("aria-label")
        assert "adamw" in words
        assert figure.locator(".plot").get_attribute("tabindex") == "0"
        assert figure.locator("table th[scope=row]").count() >= 2
        drawn = figure.locator(".plot svg[aria-hidden=true]").count()
        assert drawn == 1 or "No run reached" in figure.locator(".plot").inner_text()
    assert page.locator("button:not([aria-label]):not([title])").all_inner_texts() == [
        "all",
        "copy",
    ]
    button = page.locator("#legend button").first
    button.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    style = button.evaluate("each => getComputedStyle(each).outline")
    assert "3px" in style


def test_a_chart_can_be_saved(visit: Callable[..., Any], measured: Results) -> None:
    page = visit(measured)
    figure = page.locator("#figure-loss")
    page.locator("#legend button", has_text="mezo").click()
    saved = {}
    for kind in ("SVG", "PNG"):
        with page.expect_download() as waited:
            figure.get_by_role("button", name=f"Save as {kind}").click()
        assert waited.value.suggested_filename == f"loss.{kind.lower()}"
        saved[kind] = Path(waited.value.path()).read_bytes()
    drawing = ElementTree.fromstring(saved["SVG"].decode())
    texts = [each.text for each in drawing.iter(f"{SVG}text")]
    assert {"Validation loss", "adamw", "adahessian"} <= set(texts)
    assert "mezo" not in texts  # hidden
    strokes = {each.get("stroke") for each in drawing.iter(f"{SVG}path")}
    assert any(stroke and stroke.startswith("rgb(") for stroke in strokes)
    assert saved["PNG"].startswith(b"\x89PNG")
    wide, tall = struct.unpack(">II", saved["PNG"][16:24])
    assert (wide, tall) == (2 * int(drawing.get("width", "")), 2 * int(drawing.get("height", "")))
