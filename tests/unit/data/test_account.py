"""One account of rows from file to training row, and one limit for what both stages lose."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from versatune.artifacts import FolderRef
from versatune.data.clean import clean
from versatune.data.config import CleanParams, Domains, TokenizeParams
from versatune.data.ingest_report import ingest_report
from versatune.data.tokenize import tokenize
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef, load_tokenizer
from versatune.work import make_folder


def row(prompt: str, answer: str) -> str:
    return json.dumps({"prompt": prompt, "completion": answer})


def sound(name: str, count: int, start: int = 0) -> list[str]:
    return [row(f"{name} {n}?", f"the {n}") for n in range(start, start + count)]


def long(count: int) -> list[str]:
    return [row(f"long {n}?", "court " * 200 + str(n)) for n in range(count)]


def ingest(
    folder: Path, checkpoint: CheckpointRef, law: list[str], code: list[str], **params: Any
) -> dict[str, Any]:
    """Clean and tokenise two domains; the report."""
    domains = {}
    for name, content in (("law", law), ("code", code)):
        path = folder / f"{name}.jsonl"
        path.write_text("".join(f"{line}\n" for line in content), encoding="utf-8")
        domains[name] = {"description": name, "sources": [{"path": str(path)}]}
    params = {"near_duplicate_threshold": None, **params}
    piece = clean(Domains.model_validate(domains), CleanParams(seed=0, **params))
    cleaned: FolderRef = make_folder(piece, folder / "clean")
    tokens = TokenizeParams(max_length=64)
    store = make_folder(
        tokenize(cleaned, checkpoint.path, load_tokenizer, tokens), folder / "store"
    )
    return ingest_report(cleaned, store)


@pytest.mark.parametrize(
    ("broken", "dropped", "stops"), [(2, 3, False), (3, 3, True), (0, 5, False), (0, 6, True)]
)
def test_the_limit_holds_for_the_sum_of_both_stages(
    tmp_path: Path, tiny_checkpoint: CheckpointRef, broken: int, dropped: int, stops: bool
) -> None:
    law = ["{"] * broken + long(dropped) + sound("law", 100 - broken - dropped)
    if not stops:
        report = ingest(tmp_path, tiny_checkpoint, law, sound("code", 40))["domains"]["law"]
        assert {r: e["count"] for r, e in report["rejected"].items()} == {
            reason: n for reason, n in (("bad_json", broken), ("too_long", dropped)) if n
        }
        assert report["train_rows"] + report["validation_rows"] == 95
        return
    with pytest.raises(VersatuneError) as caught:
        ingest(tmp_path, tiny_checkpoint, law, sound("code", 40))
    message = str(caught.value)
    assert (
        f"domains.law: 6 of 100 rows can't be used (6.0% of what was read), {dropped} of" in message
    )
    assert f"{dropped} x too_long, first {tmp_path}/law.jsonl:{broken + 1} (" in message
    assert "Raise tokenize.max_length, set tokenize.overflow: truncate" in message
    assert "raise ingest.max_reject_rate (now 0.05)" in message


def test_rows_left_out_hide_no_loss(tmp_path: Path, tiny_checkpoint: CheckpointRef) -> None:
    """All of 40 rows that are drawn of 400 would be too long, and 40 of 400 are but a tenth."""
    with pytest.raises(VersatuneError, match=r": \d+ of the 40 rows that were tokenised can't be"):
        ingest(
            tmp_path,
            tiny_checkpoint,
            long(200) + sound("law", 200),
            sound("code", 40),
            max_rows=40,
            max_reject_rate=0.2,
        )


def test_the_log_says_what_both_stages_lost(
    tmp_path: Path, tiny_checkpoint: CheckpointRef, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="versatune"):
        law = long(82) + sound("law", 17) + ["{"]
        ingest(tmp_path, tiny_checkpoint, law, sound("code", 40), max_reject_rate=0.9)
    said = [record.getMessage() for record in caplog.records]
    assert not any("0 rejected" in line.replace("80 rejected", "") for line in said)
    (dropped,) = [line for line in said if "tokenising dropped" in line]
    assert dropped.startswith(
        f"law: tokenising dropped 82 (too_long) rows, first {tmp_path}/law.jsonl:1 ("
    )
    account = [line for line in said if line.startswith("law: 100 rows read")][-1]
    assert "83 (82 too_long, 1 bad_json) rejected; " in account
    warned = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warned) == 1 and warned[0].startswith("domains.law has few rows: 1")


@pytest.mark.parametrize("rows", [3, 4])
def test_a_domain_of_few_rows_is_warned_of(
    tmp_path: Path, tiny_checkpoint: CheckpointRef, caplog: pytest.LogCaptureFixture, rows: int
) -> None:
    ingest(tmp_path, tiny_checkpoint, sound("law", rows), sound("code", 200))
    (warned,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert f"domains.law has few rows: {rows - 2} to train on, 2 to measure" in warned


def test_a_domain_of_two_rows_is_refused(tmp_path: Path, tiny_checkpoint: CheckpointRef) -> None:
    with pytest.raises(VersatuneError, match=r"domains\.law: 2 rows .* can't be divided in three"):
        ingest(tmp_path, tiny_checkpoint, sound("law", 2), sound("code", 200))


def test_duplicates_of_another_domain_are_named_with_both_places(
    tmp_path: Path, tiny_checkpoint: CheckpointRef, caplog: pytest.LogCaptureFixture
) -> None:
    text = " ".join(f"word{n}" for n in range(120))
    law = [*sound("law", 30), row(text, "yes")]
    code = [*sound("code", 30), *sound("law", 2, 5), row(text + " .", "yes"), *sound("code", 1)]
    with caplog.at_level(logging.INFO, logger="versatune"):
        report = ingest(tmp_path, tiny_checkpoint, law, code, near_duplicate_threshold=0.85,
                        max_reject_rate=1)["domains"]  # fmt: skip
    assert report["law"]["duplicates_of"] == {}
    assert report["code"]["duplicates"] == {"exact": 3, "near": 1}
    assert report["code"]["duplicates_of"] == {
        "law": {
            "count": 3,
            "examples": [
                {"where": f"{tmp_path}/code.jsonl:{a}", "of": f"{tmp_path}/law.jsonl:{b}"}
                for a, b in ((31, 6), (32, 7), (33, 31))
            ],
        }
    }
    assert "3 duplicates, 1 near duplicates (duplicates of other domains: 3 of law)" in caplog.text


LINE = st.one_of(
    st.sampled_from(["{", row("x", ""), '{"text": "lost"}']),
    st.builds(row, st.sampled_from([f"what {n}" for n in range(6)]), st.sampled_from("ab")),
    st.sampled_from(long(3)),
    st.builds(lambda n: row("court " * 80 + str(n), "a"), st.integers(0, 3)),
)


@given(law=st.lists(LINE, max_size=25), code=st.lists(LINE, max_size=25))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_row_is_found_again_with_file_and_line(
    tmp_path: Path, tiny_checkpoint: CheckpointRef, law: list[str], code: list[str]
) -> None:
    law, code = sound("law", 20) + law, sound("code", 20) + code
    found = ingest(
        tmp_path, tiny_checkpoint, law, code, max_reject_rate=1, max_examples=100, max_rows=40
    )
    for name, written in (("law", law), ("code", code)):
        entry = found["domains"][name]
        rejected = sum(r["count"] for r in entry["rejected"].values())
        lost = sum(entry["duplicates"].values()) + entry["leaked"]
        lost += entry["left_out_by_weight"] + entry["left_out_by_limit"]
        kept = entry["train_rows"] + entry["validation_rows"]
        assert entry["read"] == len(written) == rejected + lost + kept
        assert entry["train_rows"] == entry["train_examples"] > 0  # no documents here
        others = sum(o["count"] for o in entry["duplicates_of"].values())
        assert others <= sum(entry["duplicates"].values())
        for reason, places in entry["rejected"].items():
            for place in places["examples"]:
                line = written[int(place["where"].rsplit(":", 1)[1]) - 1]
                assert {
                    "bad_json": line == "{",
                    "empty_output": '"completion": ""' in line,
                    "missing_column": "lost" in line,
                    "too_long": "long" in line,
                    "prompt_too_long": "court" in line,
                }[reason]
