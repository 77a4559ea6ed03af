"""The page: self-contained, safe with hostile text, and honest about what is missing."""

import base64
import gzip
import hashlib
import html
import json
import math
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from plotly.offline import get_plotlyjs

from tests.helpers.example_run import SIX, artifacts
from versatune.mixing.config import FosterParams, UniformParams
from versatune.reporting import figures, formats, tables
from versatune.reporting.colours import COLOURS, DARK, DARK_COLOURS, TEXT_CONTRAST, contrast
from versatune.reporting.page import PLOTLY, TEMPLATES
from versatune.reporting.report import render, sample_rows
from versatune.reporting.report_inputs import Artifacts

RUN = artifacts()
SHOWN = (
    *("mixture_history", "ingest_report", "knowledge_distribution", "judged_samples"),
    *("initial_mixture", "base_model", "reference_losses", "training_summary"),
    *("changed_items", "answers", "drift", "own_texts_report"),
)


def page_of(domains: tuple[str, ...] = SIX, **changes: object) -> str:
    made = artifacts(domains)
    values: dict = {
        "domains": domains,
        "figures": {
            "shares": figures.shares(made["mixture_history"], domains),
            "rejects": figures.rejects(made["ingest_report"], domains),
        },
        "results": tables.results(made["evaluation"], made["forgetting"]),
        **{name: made[name] for name in SHOWN},
        "parameters": {"seed": 3, "probe": {"api_key": "sk-1234567890abcdef"}},
        "timings": [
            {"name": "ingest.clean_domains", "seconds": 0.5, "kept": 130.0},
            {"name": "train.train_model", "seconds": 75.0, "kept": 0.0},
        ],
        "strategy": FosterParams(),
        "run": {"began": "2026-01-02T03:04:05+00:00", "command": "kedro run --env mine"},
        "models": tables.mean_losses(made["evaluation"]),
    }
    return render(Artifacts(**values | changes))


class Outline(HTMLParser):
    """Tags, attributes and text outside of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, _tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        (self.scripts if self._inside == "script" else self.text).append(data)


PAGE = page_of()
OUTLINE = Outline(PAGE)


def test_nothing_is_loaded_from_anywhere() -> None:
    for tag, attributes in OUTLINE.tags:
        assert tag not in {"link", "iframe", "img", "object", "base"}, tag
        for name in ("src", "href", "action", "data"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
    styles = re.findall(r"<style>(.*?)</style>", PAGE, re.DOTALL)
    assert styles and not re.search(r"url\(|@import", "".join(styles))
    policy = next(a["content"] for t, a in OUTLINE.tags if "http-equiv" in a)
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")


def test_plotly_is_embedded_once_in_its_small_build_with_its_licence() -> None:
    (packed,) = re.findall(r'<script type="application/gzip" id="plotly">(.*?)</script>', PAGE)
    script = gzip.decompress(base64.b64decode(packed))
    assert script == PLOTLY.read_bytes() and b"Licensed under the MIT license" in script
    assert PAGE.count("MIT licence, copyright Plotly") == 1
    allowed = base64.b64encode(hashlib.sha256(script).digest()).decode()
    policy = next(a["content"] for t, a in OUTLINE.tags if "http-equiv" in a)
    assert policy is not None and f"'sha256-{allowed}'" in policy
    assert len(PAGE.encode()) < 1_000_000
    assert "Permission is hereby granted" in PLOTLY.with_name("LICENSE").read_text("utf-8")


def test_the_build_of_plotly_is_of_the_version_that_draws_the_previews() -> None:
    whole = re.search(r"plotly\.js v([\d.]+)", get_plotlyjs()[:500])
    small = re.search(r"minified\) v([\d.]+)", PLOTLY.read_text("utf-8")[:500])
    assert whole and small and whole[1] == small[1]


def test_every_colour_of_the_style_has_one_for_the_dark() -> None:
    css = re.search(r"<style>(.*?)</style>", PAGE, re.DOTALL)
    assert css is not None and "color-scheme: light dark" in css[1]
    bare = re.sub(r"light-dark\([^)]*\)|outline: [^;]*;", "", css[1])
    assert not re.findall(r"#[0-9a-f]{3,8}\b", bare), "a colour that does not change"
    body = next(a for t, a in OUTLINE.tags if t == "body")
    assert json.loads(body["data-dark"] or "") == DARK
    dots = [a["style"] for t, a in OUTLINE.tags if t == "i" and "light-dark" in (a["style"] or "")]
    assert f"background:light-dark({COLOURS[0]},{DARK_COLOURS[0]})" in dots
    assert [a for t, a in OUTLINE.tags if t == "button" and a.get("id") == "theme"]


def contrasts(theme: int) -> dict[str, float]:
    """Of text on its ground, as the style says: rules that set both, and text on the page."""
    css = (TEMPLATES / "report.css").read_text("utf-8")
    pair = re.compile(r"light-dark\((#[0-9a-f]{3,6}), (#[0-9a-f]{3,6})\)")

    def full(short: str) -> str:
        return short if len(short) == 7 else "#" + "".join(2 * c for c in short[1:])

    names = {
        name: full(found[theme + 1])
        for name, value in re.findall(r"--(\w+): (light-dark\([^)]*\))", css)
        if (found := pair.fullmatch(value))
    }
    seen = {
        name: contrast(names[name], names[ground])
        for name in ("ink", "muted", "good", "bad", "mixed")
        for ground in ("paper", "soft")
    }
    for rule in re.findall(r"(?m)^\.?[\w.]+ \{[^}]*\}", css):
        ground, text = (
            re.search(rf"[; {{]{key}: (light-dark\([^)]*\))", rule)
            for key in ("background", "color")
        )
        if ground:
            colours = [pair.fullmatch(m[1]) if m else None for m in (ground, text)]
            back = full(colours[0][theme + 1]) if colours[0] else ""
            front = full(colours[1][theme + 1]) if colours[1] else names["ink"]
            seen[rule.split(" {")[0]] = contrast(front, back)
    return seen


@pytest.mark.parametrize("theme", [0, 1])
def test_text_has_the_contrast_of_level_aa_in_both_themes(theme: int) -> None:
    found = contrasts(theme)
    assert {"muted", ".warning", ".chip", ".chip.better", ".chip.worse"} <= set(found)
    assert min(found.values()) >= TEXT_CONTRAST, found


def test_sections_without_content_are_not_there() -> None:
    assert 'href="#forecast"' not in PAGE and 'id="forecast"' not in PAGE
    assert 'href="#probe"' in PAGE and 'id="probe"' in PAGE
    bare = render(Artifacts(domains=SIX))
    assert "#probe" not in bare.partition("<main>")[0] and 'id="probe"' not in bare
    with_forecast = page_of(forecast=RUN["forecast"])
    assert 'href="#forecast"' in with_forecast and 'id="forecast"' in with_forecast


def test_a_reader_sees_the_verdict_first() -> None:
    heading = re.search(r"<h1[^>]*>(.*?)</h1>", PAGE)
    assert heading is not None
    losses = tables.only_losses(tables.results(RUN["evaluation"], RUN["forgetting"]))
    fall = 1 - losses["tuned"].mean() / losses["base"].mean()
    assert heading[1] == (
        f"Mean held-out loss fell by {100 * fall:.1f} %. 4 of 6 domains improved, but law got "
        "worse by more than noise."
    )


def test_tables_hold_the_numbers_of_the_artifacts() -> None:
    values = [a["data-value"] for t, a in OUTLINE.tags if t == "td" and "data-value" in a]
    for row in tables.results(RUN["evaluation"], RUN["forgetting"]).itertuples():
        assert str(row.base) in values and str(row.tuned) in values
    assert str(RUN["ingest_report"]["code"]["train_tokens"]) in values


def test_rows_stand_there_as_they_are_trained_on() -> None:
    report = json.loads(json.dumps(RUN["ingest_report"]))
    text = "<s>who?<b>\n⟦the <i>court</s>⟧"
    report["law"]["examples"] = [
        {"row": "law.jsonl:3", "tokens": 9, "supervised_tokens": 4, "text": text}
    ]
    page = page_of(ingest_report=report)
    shown = "&lt;s&gt;who?&lt;b&gt;\n<mark>the &lt;i&gt;court&lt;/s&gt;</mark></pre>"
    assert shown in page and "4 of 9 tokens supervised" in page
    assert "<mark>" not in PAGE.partition("</style>")[2]


def test_credentials_do_not_appear() -> None:
    assert "sk-1234567890abcdef" not in PAGE and "probe.api_key" in PAGE


HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "{{ 7 * 7 }}",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    made = artifacts((text, "code"))
    asked = {"question": text, "truth": text, "base": text, "tuned": text, "prompt": text}
    samples = RUN["judged_samples"].head(3).assign(text=text, flag=text)
    report = json.loads(json.dumps(RUN["ingest_report"]))
    report["law"]["rejected"] = {text: {"count": 1, "examples": [{"where": text, "detail": text}]}}
    parameters = {text: text, "train": {"strategy": {"name": text, "target": text}}}
    page = page_of(
        (text, "code"),
        judged_samples=samples,
        ingest_report=report,
        parameters=parameters,
        base_model={"name": text, "fingerprint": text},
        timings=[{"name": text, "seconds": 1.0}],
        run={"began": text, "command": text},
        training_summary={"device": text, "peak_memory_bytes": 1},
        changed_items=made["changed_items"].assign(**asked),
        answers=made["answers"].assign(**asked),
    )
    outline = Outline(page)
    assert len([t for t, _ in outline.tags if t == "script"]) == 4  # two figures, two programs
    assert not [t for t, _ in outline.tags if t in {"img", "svg"}]
    assert not [a for _, a in outline.tags if {"onerror", "onload"} & set(a)]
    assert html.escape("7 * 7") in page or text != HOSTILE[3]
    for script in outline.scripts[:2]:
        json.loads(script)


def test_what_is_missing_is_said() -> None:
    text = " ".join(Outline(render(Artifacts(domains=SIX))).text)
    for words in (
        "No verdict: base and tuned model were not both evaluated.",
        "Held-out loss was not measured for both models.",
        "There is no history of the mixture: nothing was trained.",
        "There is no ingest report.",
        "No timings were recorded.",
    ):
        assert words in text


def test_a_known_distribution_has_no_texts_and_needs_none() -> None:
    nothing = pd.DataFrame(columns=["index", "text", "domain", "confidence", "status"])
    assert "No sampled texts were kept." in page_of(judged_samples=nothing)


def test_numbers_that_are_not_finite_become_a_dash() -> None:
    results = tables.results(RUN["evaluation"], RUN["forgetting"])
    results.loc[0, ["tuned", "relative", "low"]] = [math.nan, math.inf, -math.inf]
    page = page_of(results=results)
    assert "nan" not in " ".join(Outline(page).text).lower().split()
    assert "–" in page


def test_texts_are_chosen_evenly_and_those_without_a_judgement_shown() -> None:
    samples = RUN["judged_samples"].copy()
    samples.loc[:40, "domain"] = None
    samples.loc[:40, ["confidence", "status"]] = [None, "refused"]
    rows = sample_rows(samples, 14)
    counts = pd.Series([row["domain"] for row in rows]).value_counts()
    assert set(counts) == {2} and len(counts) == 7
    assert [r["notes"][0] for r in rows if r["domain"] == "not judged"] == ["refused", "refused"]


def test_texts_that_two_judges_differ_about_come_first() -> None:
    samples = RUN["judged_samples"].assign(second=None, domain="law", status="ok", flag=None)
    samples.loc[[5, 7, 9], "second"] = ["law", "code", "other"]
    rows = sample_rows(samples, 4)
    notes = [row["notes"] for row in rows]
    assert notes == [["second judge: code"], ["second judge: other"], [], []]
    assert rows[2]["text"] == samples["text"].iloc[0]


def test_the_page_tells_of_an_audit() -> None:
    audit = {"name": "people, in labels.csv", "n": 1300, "alike": 0.943}
    page = page_of(knowledge_distribution={**RUN["knowledge_distribution"], "audit": audit})
    assert "A second judge (people, in labels.csv) looked at 1,300 of them" in page
    assert "agree on 94 % of the texts" in page
    assert "A second judge" not in page_of()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.23, "0.2 s"), (12.4, "12 s"), (59.7, "1 min 0 s"), (75, "1 min 15 s"), (7260, "2 h 1 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert formats.duration(seconds) == text


def test_formats() -> None:
    assert formats.percent(-0.1234, signed=True) == "−12.3 %"
    assert formats.points(0.05) == "+5.0"
    assert formats.points(-1e-5) == "0.0" and formats.number(0.0004, signed=True) == "0.000"
    assert formats.thousands(1234567) == "1,234,567"
    assert formats.number(None) == formats.percent(math.inf) == formats.thousands("x") == "–"
    assert formats.span(-0.1, 0.2) == "−10.0 to +20.0"
    assert formats.span(-math.inf, 0.2) == ""
    assert [formats.comma(["a", "b", "c"][:n]) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]


def test_a_task_called_like_its_domain_is_not_told_twice() -> None:
    assert ">law_choice <small>acc</small></td>" in PAGE
    results = tables.results(RUN["evaluation"], RUN["forgetting"])
    alike = results.assign(task=results["domain"].where(results["metric"] == "acc", "held_out"))
    page = page_of(results=alike)
    assert ">task</button>" in PAGE and ">task</button>" not in page
    assert "</i>law</span> <small>acc</small></th>" in page


def said_by(page: str) -> str:
    return re.sub(r"[ \n]+", " ", " ".join(Outline(page).text))


def test_what_a_result_stands_on_is_on_the_page() -> None:
    text = said_by(PAGE)
    for words in (
        "After 200 training steps (160,000 tokens), measured on 1,440 rows held out of "
        "training and steering and 900 questions.",
        "2026-01-02 03:04:05+00:00",
        "kedro run --env mine",
        "CPU, 1 thread",
        "160,000 trained on",
        "3.00 GiB",
        "none. No other mixture was trained with the same budget",
        "This run took 1 min 16 s. Stages that it kept from earlier runs had taken 2 min 10 s",
    ):
        assert words in text, words


def test_time_of_earlier_runs_is_not_in_the_time_of_this_one() -> None:
    tile = re.search(r"<dt>this run took</dt><dd>(.*?)</dd><dd class=\"note\">(.*?)</dd>", PAGE)
    assert tile is not None
    assert tile.groups() == ("1 min 16 s", "kept stages took 2 min 10 s before")


def test_warnings_stand_under_the_verdict_once() -> None:
    header = PAGE[PAGE.index("<header>") : PAGE.index("</header>")]
    assert "Intervals too wide to decide on: law ±0.060." in header
    assert PAGE.count("too wide to decide on") == 1
    history = RUN["mixture_history"].assign(learnable_potential=0.0)
    late = json.loads(json.dumps(RUN["reference_losses"]))
    late["domains"]["law"] |= {"at_limit": True, "steps_run": 40}
    header = page_of(mixture_history=history, reference_losses=late).split("</header>")[0]
    assert header.count("Every gamma was 0 in every round") == 1
    assert header.count("The reference runs of law ended at their limit of 40 steps") == 1


def test_uniform_shares_are_not_said_to_come_from_the_probe() -> None:
    run = re.search(r'<p class="run">(.*?)</p>', page_of(strategy=UniformParams()))
    assert run is not None
    assert run[1].endswith("shares: the same for every domain, fixed (strategy uniform).")


def test_warnings_about_what_a_training_did_not_use_say_so() -> None:
    late = json.loads(json.dumps(RUN["reference_losses"]))
    late["domains"]["law"] |= {"at_limit": True, "steps_run": 40}
    header = page_of(strategy=UniformParams(), reference_losses=late).split("</header>")[0]
    assert "Probe (its shares were not used for training): intervals too wide" in header
    assert "References (no share follows them): the reference runs of law ended at" in header
    fostered = page_of(reference_losses=late).split("</header>")[0]
    assert "were not used" not in fostered and "The reference runs of law" in fostered


def test_questions_that_changed_and_answers_are_shown_a_few_a_domain() -> None:
    assert PAGE.count(">became wrong</span>") == PAGE.count(">became right</span>") == 3 * len(SIX)
    text = said_by(PAGE)
    assert "Question 1 of law?" in text and "Question 9 of law?" not in text
    assert "What is law?" in text and "(nothing)" in text
    none = page_of(changed_items=RUN["changed_items"].head(0), answers=None)
    assert "No question became right or wrong." in none and "What is law?" not in none


def test_chance_stands_beside_the_accuracies() -> None:
    evaluation = RUN["evaluation"].assign(chance=math.nan)
    evaluation.loc[evaluation["task"] == "law_choice", "chance"] = 0.25
    results = tables.results(evaluation, RUN["forgetting"])
    assert tables.only_accuracies(results)["chance"].tolist()[0] == 0.25
    page = page_of(results=results)
    assert ">chance</button>" in page and ">chance</button>" not in PAGE
    assert 'data-value="0.25"><b>25 %</b>' in page


def test_files_apart_have_a_table_and_no_part_in_the_result() -> None:
    def beside(table: pd.DataFrame) -> pd.DataFrame:
        own = table[table["task"] == "law_choice"].assign(task="unseen (apart)")
        nats = own[own["metric"] == "acc"].assign(metric="answer_nats")
        return pd.concat([table, own, nats], ignore_index=True)

    results = tables.results(beside(RUN["evaluation"]), beside(RUN["forgetting"]))
    plain = tables.results(RUN["evaluation"], RUN["forgetting"])
    assert tables.only_accuracies(results)["task"].tolist() == (
        tables.only_accuracies(plain)["task"].tolist()
    )
    (row,) = tables.apart(results)
    changed = RUN["forgetting"].set_index(["task", "metric"])["change"]
    assert (row["domain"], row["task"]) == ("law", "unseen")
    assert row["accuracy"]["change"] == row["nats"]["change"] == changed["law_choice", "acc"]
    page = page_of(results=results)
    assert "Shown separately" in page and "Shown separately" not in PAGE
    assert said_by(page).count("unseen") == 1


def test_what_was_trained_is_said_in_words() -> None:
    said = re.search(r'<p class="run">(.*?)</p>', PAGE)
    assert said is not None
    assert said[1] == (
        "Base model: pretrained on the sample, fine-tuned on 6 domains; "
        "strategy foster; starting shares: those the probe found."
    )


def test_the_page_shows_drift_beside_the_held_out_change() -> None:
    text = " ".join(" ".join(Outline(page_of()).text).split())
    change = tables.drift(RUN["drift"], tables.results(RUN["evaluation"], RUN["forgetting"]))
    assert change["relative"].notna().all() and list(change["domain"]) == list(SIX)
    part = text.split("Drift from the base model")[1].split("Benchmark tasks")[0]
    shown = f"{100 * change['relative'][1]:+.1f}".replace("-", "\u2212")
    assert "0.100" in part and "0.080 to 0.120" in part and shown in part
    assert "Drift from the base model" not in page_of(drift=None)
    empty = RUN["drift"].iloc[:0]
    assert "Drift from the base model" not in page_of(drift=empty)
    nothing = tables.drift(RUN["drift"], tables.results(RUN["evaluation"], RUN["forgetting"])[:0])
    assert nothing["relative"].isna().all()


def test_the_page_counts_the_rows_that_the_model_wrote() -> None:
    text = " ".join(" ".join(Outline(page_of()).text).split())
    part = text.split("Rows that the base model wrote itself")[1].split("Texts in a domain")[0]
    assert "61 13 12 7 too short" in part and part.count("61") == 1
    assert "wrote itself" not in page_of(own_texts_report={}, drift=None)


def test_the_page_says_which_part_of_the_way_was_taken() -> None:
    table = [
        {"part": part, "domain": name, "validation_loss": 2 - part, "since_base_stderr": 0.0}
        for part in (0.0, 0.5, 1.0)
        for name in SIX
    ]
    found = {"part": 0.5, "why": "the best of those within the tolerance", "table": table}
    page = page_of(training_summary={**RUN["training_summary"], "interpolation": found})
    text = " ".join(" ".join(Outline(page).text).split())
    assert "is 50 % of the way from the base model to the trained one: the best of" in text
    part = text.split("Between base and trained model")[1]
    assert part.count("1.500") == len(SIX)
    assert "Between base and trained" not in page_of()
