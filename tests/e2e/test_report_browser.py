"""The report in a real headless Chromium: it draws, says what the parquet says, reads anywhere."""

import html
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.faults.forks import Done
from tests.helpers.example_run import SIX, artifacts, compared
from versatune.evaluation.comparison import summarise
from versatune.reporting import comparison_page as comparison
from versatune.reporting import figures, tables
from versatune.reporting.colours import COLOURS, DARK
from versatune.reporting.page import Setup
from versatune.reporting.report import render
from versatune.reporting.report_inputs import Artifacts

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]

HOSTILE = '</script><script>document.title="broken"</script><img src=x onerror="console.error(1)">'

PROBE = """
<script>
document.addEventListener("drawn", () => {{
{actions}
const result = {{
  charts: Object.fromEntries([...document.querySelectorAll(".plot")].map((plot) => [
    plot.id, plot.data.map((t) => ({{type: t.type, name: t.name, x: t.x, y: t.y, z: t.z}}))])),
  svgs: [...document.querySelectorAll(".plot")]
    .map((plot) => plot.querySelectorAll("svg.main-svg").length),
  points: document.querySelectorAll(".plot .scatterlayer .trace").length,
  overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  wide: [...document.querySelectorAll(".plot svg.main-svg")]
    .filter((s) => s.getBoundingClientRect().right > window.innerWidth + 1).length,
  panels: [...document.querySelectorAll(".plot")].filter((plot) => plot.layout.meta.grid)
    .flatMap(({{_fullLayout: drawn}}) => Object.keys(drawn)
      .filter((k) => /^xaxis/.test(k)).map((k) => drawn[k].domain)),
  losses: [...document.querySelectorAll("#result table")[0].tBodies[0].rows]
    .map((r) => [r.cells[0].textContent, ...[1, 2].map((i) => Number(r.cells[i].dataset.value))]),
  shown: [...document.querySelectorAll("#samples tbody tr")].filter((r) => !r.hidden).length,
  requests: performance.getEntriesByType("resource").map((e) => e.name),
  title: document.title,
  paper: getComputedStyle(document.body).backgroundColor,
  lines: document.getElementById("plot-shares")?.data.map((t) => t.line?.color),
  other: document.getElementById("theme").textContent,
  heads: [...document.querySelectorAll(".hoverlayer .legendtitletext")].map((e) => e.textContent),
  saved: window.saved ?? [],
}};
const note = document.createElement("pre");
note.id = "probe-result";
note.textContent = JSON.stringify(result);
document.body.append(note);
}});
</script>
"""


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Artifacts as they come back from their files."""
    folder = tmp_path_factory.mktemp("artifacts")
    made = artifacts()
    made["judged_samples"].loc[:2, "text"] = HOSTILE
    for name in ("mixture_history", "evaluation", "forgetting", "judged_samples"):
        made[name].to_parquet(folder / f"{name}.parquet")
        made[name] = pd.read_parquet(folder / f"{name}.parquet")
    return made


@pytest.fixture(scope="module")
def page(stored: dict[str, Any]) -> str:
    history = stored["mixture_history"]
    results = tables.results(stored["evaluation"], stored["forgetting"])
    losses, accuracies = tables.only_losses(results), tables.only_accuracies(results)
    return render(
        Artifacts(
            domains=SIX,
            figures={
                "loss_before_after": figures.before_after(losses, SIX, "loss"),
                "accuracy_before_after": figures.before_after(accuracies, SIX, "accuracy"),
                "shares": figures.shares(history, SIX, "tokens"),
                "held_out_losses": figures.held_out_losses(
                    history, SIX, stored["reference_losses"]
                ),
                "potential_and_forgetting": figures.potential_and_forgetting(history, SIX),
                "knowledge": figures.knowledge(stored["knowledge_distribution"], SIX),
                "rejects": figures.rejects(stored["ingest_report"], SIX),
            },
            results=results,
            mixture_history=history,
            ingest_report=stored["ingest_report"],
            knowledge_distribution=stored["knowledge_distribution"],
            judged_samples=stored["judged_samples"],
            initial_mixture=stored["initial_mixture"],
            base_model=stored["base_model"],
            parameters={"block": {f"parameter_{i}": i for i in range(250)}},
        )
    )


@pytest.fixture(scope="module")
def wide(page: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return look(page, tmp_path_factory.mktemp("wide"))


def look(page: str, folder: Path, width: int = 1280, actions: str = "") -> dict[str, Any]:
    """Open the page in a frame of ``width`` pixels, act in it, and hand back what is seen there.

    A frame, because Chromium's own window has a least width. The console must stay empty.
    """
    assert CHROMIUM is not None
    inside = page.replace("</body>", PROBE.format(actions=actions) + "</body>")
    inside = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", inside)
    (folder / "page.html").write_text(inside, encoding="utf-8")
    outer = (
        f'<iframe id="f" src="page.html" style="width:{width}px;height:5000px;border:0"></iframe>'
        "<script>const waiting = setInterval(() => { const seen = document.getElementById('f')"
        ".contentDocument.getElementById('probe-result'); if (!seen) return;"
        " clearInterval(waiting); document.body.append(seen.cloneNode(true)); }, 50);</script>"
    )
    (folder / "outer.html").write_text(outer, encoding="utf-8")
    done = chromium(
        folder, "--allow-file-access-from-files", "--dump-dom", f"file://{folder / 'outer.html'}"
    )
    assert "CONSOLE" not in done.stderr, console(done.stderr)
    found = re.search(r'<pre id="probe-result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


def chromium(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    return subprocess.run(
        [
            CHROMIUM,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--enable-logging=stderr", "--v=0", "--virtual-time-budget=10000"),
            *(f"--user-data-dir={folder / 'profile'}", "--window-size=1300,5000"),
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )


def console(log: str) -> str:
    return "\n".join(line for line in log.splitlines() if "CONSOLE" in line)


def test_every_chart_is_drawn(wide: dict[str, Any]) -> None:
    assert len(wide["charts"]) == 7
    assert all(n >= 1 for n in wide["svgs"])
    assert wide["points"] > 60


def test_the_drawn_numbers_are_those_of_the_parquet(
    wide: dict[str, Any], stored: dict[str, Any]
) -> None:
    history = stored["mixture_history"]
    shares, losses = wide["charts"]["plot-shares"], wide["charts"]["plot-held_out_losses"]
    for i, domain in enumerate(SIX):
        rows = history[history["domain"] == domain]
        trained = rows[rows["round"] > 0]
        assert shares[2 * i]["y"] == trained["weight"].tolist()
        assert shares[2 * i + 1]["y"] == trained["realised_share_tokens"].tolist()
        assert losses[2 * i]["y"] == rows["validation_loss"].tolist()
    forgetting = stored["forgetting"].query("metric == 'nats_per_token'")
    expected = forgetting[["domain", "base", "tuned"]].to_numpy().tolist()
    assert [[row[0].strip(), *row[1:]] for row in wide["losses"]] == expected
    results = tables.results(stored["evaluation"], stored["forgetting"])
    for kind, rows in (
        ("loss", tables.only_losses(results)),
        ("accuracy", tables.only_accuracies(results)),
    ):
        pairs = [trace["x"] for trace in wide["charts"][f"plot-{kind}_before_after"][::3]]
        assert pairs == rows[["base", "tuned"]].to_numpy().tolist()
    both = wide["charts"]["plot-potential_and_forgetting"]
    known, left_out = wide["charts"]["plot-knowledge"][1:], wide["charts"]["plot-rejects"]
    shares_of = stored["knowledge_distribution"]["domains"]
    counts = tables.reject_counts(stored["ingest_report"]).groupby("domain")["rows"].sum()
    for i, domain in enumerate(SIX):
        trained = history[(history["domain"] == domain) & (history["round"] > 0)]
        assert both[i]["y"] == trained["learnable_potential"].tolist()
        assert both[len(SIX) + i]["y"] == trained["forgetting_degree"].tolist()
        assert known[i]["x"] == [shares_of[domain]["share"]]
        assert sum(left_out[i]["x"]) == counts[domain]


def test_the_page_of_a_real_run_shows_what_its_files_hold(
    finished: Path, forked: Callable[..., Done], tmp_path: Path
) -> None:
    # Other tests train here with other parameters.
    done = forked("--params", "train.resume=restart")
    assert done.code == 0, done.output[-4000:]
    data = finished / "data" / "test"
    seen = look((data / "08_reporting" / "report.html").read_text("utf-8"), tmp_path)
    assert len(seen["charts"]) == 9 and all(n >= 1 for n in seen["svgs"])
    assert seen["requests"] == [] and seen["overflow"] == 0
    history = pd.read_parquet(data / "07_model_output" / "mixture_history.parquet")
    for i, domain in enumerate(SIX):
        rows = history[history["domain"] == domain]
        drawn = seen["charts"]["plot-shares"][2 * i]
        assert drawn["y"] == rows.loc[rows["round"] > 0, "weight"].tolist()
    found = pd.read_parquet(data / "07_model_output" / "forgetting.parquet")
    losses = found[found["metric"] == "nats_per_token"][["domain", "base", "tuned"]]
    shown = {row[0].strip(): row[1:] for row in seen["losses"]}
    assert shown == {row.domain: [row.base, row.tuned] for row in losses.itertuples()}


def test_nothing_is_fetched_and_nothing_foreign_runs(wide: dict[str, Any]) -> None:
    assert wide["requests"] == []
    assert wide["title"].startswith("versatune report")


def test_the_page_as_written_draws_under_its_own_policy(page: str, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    done = chromium(tmp_path, "--dump-dom", f"file://{file}")
    assert "CONSOLE" not in done.stderr, console(done.stderr)
    assert done.stdout.count('class="main-svg"') >= 7


def test_a_phone_gets_one_column_and_no_sideways_scrolling(page: str, tmp_path: Path) -> None:
    seen = look(page, tmp_path, width=390)
    assert seen["overflow"] == 0 and seen["wide"] == 0
    assert all(panel[0] == 0 and panel[1] == pytest.approx(1) for panel in seen["panels"])


def test_tables_sort_and_texts_are_filtered(page: str, tmp_path: Path) -> None:
    seen = look(
        page,
        tmp_path,
        actions="""
        const tuned = document.querySelectorAll("#result table")[0].tHead.rows[0].cells[2];
        tuned.querySelector("button").click();
        tuned.querySelector("button").click();
        const choice = document.getElementById("sample-domain");
        choice.value = "code";
        choice.dispatchEvent(new Event("change"));
        """,
    )
    values = [row[2] for row in seen["losses"]]
    assert values == sorted(values, reverse=True) and len(values) == 6
    assert 0 < seen["shown"] <= 20


def test_the_page_and_its_charts_turn_dark_and_back(page: str, tmp_path: Path) -> None:
    def seen_after(what: str, actions: str = "", page: str = page) -> dict[str, Any]:
        (tmp_path / what).mkdir(exist_ok=True)
        return look(page, tmp_path / what, actions=actions)

    click = 'document.getElementById("theme").click();'
    light, dark = seen_after("nothing"), seen_after("a click", click)
    assert light["paper"] == "rgb(255, 255, 255)" and light["other"] == "Dark"
    assert dark["paper"] == "rgb(20, 24, 31)" and dark["other"] == "Light"
    asked = [line for line in light["lines"] if line]
    assert asked == list(COLOURS[: len(SIX)])
    assert [line for line in dark["lines"] if line] == [DARK[line] for line in asked]
    assert dark["charts"] == light["charts"], "the numbers stay"
    assert seen_after("a click")["lines"] == dark["lines"], "the choice is remembered"
    assert seen_after("a click", click)["lines"] == light["lines"]
    wish = "<script>window.matchMedia = () => ({matches: true, addEventListener() {}});</script>"
    wished = page.replace("<script>", f"{wish}<script>", 1)
    assert seen_after("the system's wish", page=wished)["lines"] == dark["lines"]


def test_the_hover_says_which_round(page: str, tmp_path: Path) -> None:
    hover = 'Plotly.Fx.hover(document.getElementById("plot-shares"), {xval: 5, yval: 0.1}, "xy");'
    assert look(page, tmp_path, actions=hover)["heads"] == ["round 5"]


def test_a_table_can_be_taken_along(page: str, stored: dict[str, Any], tmp_path: Path) -> None:
    seen = look(
        page,
        tmp_path,
        actions="""
        window.saved = [];
        const Real = Blob;
        window.Blob = function (parts, type) {
          window.saved.push(parts[0]);
          return new Real(parts, type);
        };
        document.addEventListener("click", (event) => event.preventDefault());
        for (const link of document.querySelectorAll("a.get")) {
          window.saved.push(link.download);
          link.click();
        }
        """,
    )
    names, texts = seen["saved"][::2], seen["saved"][1::2]
    assert names[0] == "before-and-after.csv" and len(names) == len(set(names)) >= 4
    found = pd.read_csv(io.StringIO(texts[0].removeprefix("\ufeff")))
    expected = stored["forgetting"].query("metric == 'nats_per_token'")
    assert found["domain"].tolist() == expected["domain"].tolist()
    assert found["tuned"].tolist() == expected["tuned"].tolist()
    assert found["verdict"].tolist() == expected["verdict"].tolist()
    assert found.filter(like="interval").shape[1] == 2  # the change, and its interval
    change = 100 * (expected["tuned"] / expected["base"] - 1)
    assert found["change, % (95 % interval)"].tolist() == pytest.approx(change.tolist())
    tasks = pd.read_csv(io.StringIO(texts[names.index("benchmark-tasks.csv")]))
    shown = tables.only_accuracies(tables.results(stored["evaluation"], stored["forgetting"]))
    assert tasks["base, %"].tolist() == pytest.approx((100 * shown["base"]).tolist())
    points = tasks["change, points (95 % interval)"].tolist()
    assert points == pytest.approx((100 * shown["change"]).tolist())
    samples = pd.read_csv(io.StringIO(texts[names.index("texts-the-base-model-wrote.csv")]))
    assert HOSTILE in samples["text"].iloc[0] and len(samples) > 60


def test_it_prints_within_the_paper(page: str, tmp_path: Path) -> None:
    file, target = tmp_path / "report.html", tmp_path / "report.pdf"
    file.write_text(page, encoding="utf-8")
    chromium(tmp_path, f"--print-to-pdf={target}", f"file://{file}")
    content = target.read_bytes()
    assert content.startswith(b"%PDF")
    assert 4 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 12, "parameters in two columns"


@pytest.fixture(scope="module")
def comparison_page() -> str:
    made = compared()
    return comparison.render(
        comparison.Compared(
            domains=SIX,
            summary=summarise(made["comparison"], "uniform", "medicine"),
            baseline="uniform",
            target="medicine",
            n_seeds=3,
            budget="3 rounds of 2 steps each",
            setup=Setup(command="kedro run --pipeline compare"),
            figures={
                "comparison_loss": figures.differences(made["comparison"], SIX, "uniform"),
                "comparison_accuracy": figures.differences(
                    made["comparison"], SIX, "uniform", "accuracy"
                ),
                "comparison_shares": figures.shares_by_strategy(made["comparison_history"], SIX),
            },
        )
    )


def test_a_comparison_is_drawn_and_fetches_nothing(comparison_page: str, tmp_path: Path) -> None:
    seen = look(comparison_page, tmp_path)
    assert len(seen["charts"]) == 3 and all(n >= 1 for n in seen["svgs"])
    assert seen["requests"] == [] and seen["overflow"] == 0
    # expand in medicine, the third panel: 0.5 below uniform with each seed
    means = [t for t in seen["charts"]["plot-comparison_loss"] if t["name"] == "expand"]
    assert means[2]["x"] == pytest.approx([-0.5])


def test_a_comparison_on_a_phone(comparison_page: str, tmp_path: Path) -> None:
    seen = look(comparison_page, tmp_path, width=390)
    assert seen["overflow"] == 0 and seen["wide"] == 0
    assert all(panel[0] == 0 and panel[1] == pytest.approx(1) for panel in seen["panels"])
