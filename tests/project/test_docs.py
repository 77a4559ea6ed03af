"""The documentation: it builds strictly, its picture is current, its commands exist."""

import contextlib
import csv
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from kedro.config import OmegaConfigLoader
from kedro.framework.cli.cli import KedroCLI
from kedro.framework.project import pipelines

from tests.project import flow
from versatune.project.commands import cli
from versatune.settings import CONFIG_LOADER_ARGS

COMMAND = re.compile(r"^\s*kedro run\b.*$", re.MULTILINE)
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:[A-Z_]+=\S+ )*(?:kedro|make|versatune|python) [^`\n]+)`")


def pages(root: Path) -> list[Path]:
    there = [root / "README.md", root / "CONTRIBUTING.md"]
    return [*there, *sorted((root / "docs").glob("*.md"))]


def all_commands(text: str) -> list[list[str]]:
    """Commands in a page's blocks and lines, in words, without comments and redirections."""
    shell = [block for language, block in BLOCK.findall(text) if not language]
    blocks = [block.replace("\\\n", " ") for block in shell]
    lines = [line for block in blocks for line in block.splitlines()]
    lines += INLINE.findall(text)
    found = []
    for name, value in re.findall(r'^([A-Z]+)="(.*)"$', "\n".join(lines), re.MULTILINE):
        lines = [line.replace(f"${name}", value) for line in lines]
    for line in lines:
        for part in re.split(r"&&|;", re.sub(r"\s#.*|>.*", "", line)):
            with contextlib.suppress(ValueError):  # an apostrophe in a log's line
                words = shlex.split(part)
                while words and (re.match(r"[A-Z_]+=", words[0]) or words[0] == "do"):
                    words = words[1:]
                found.append(words)
    return found


def commands(text: str) -> list[str]:
    """The lines that begin with ``kedro run`` in a page's blocks of code."""
    return [line.strip() for block in FENCE.findall(text) for line in COMMAND.findall(block)]


def test_the_site_builds_strictly_and_asks_no_other_host(
    project_root: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=project_root,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    fetched = re.findall(r"<(?:script|link|img)\b[^>]*(?:src|href)=\"?(https?://[^\"> ]+)", page)
    assert fetched == []
    names = {path.stem for path in (tmp_path / "site").glob("*.html")}
    assert {path.stem for path in (project_root / "docs").glob("*.md")} <= names


def test_every_page_is_in_the_navigation(project_root: Path) -> None:
    navigation = (project_root / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    named = set(re.findall(r"([\w-]+\.md)$", navigation, re.MULTILINE))
    assert named == {path.name for path in (project_root / "docs").glob("*.md")}


def test_the_picture_of_the_flow_is_that_of_the_pipelines(project_root: Path) -> None:
    written = (project_root / "docs" / "flow.svg").read_text(encoding="utf-8")
    assert written == flow.picture(project_root), (
        "run: python -m tests.project.flow > docs/flow.svg"
    )


def test_the_readme_can_be_read_in_half_a_minute(project_root: Path) -> None:
    text = (project_root / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150


def test_the_other_commands_exist(project_root: Path) -> None:
    """Each is parsed by its own program, which knows its options; none is run."""
    makefile = (project_root / "Makefile").read_text(encoding="utf-8")
    (targets,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    known = KedroCLI(project_root)
    seen = dict.fromkeys(("kedro", "make", "versatune", "python"), 0)
    for page in pages(project_root):
        for words in all_commands(page.read_text(encoding="utf-8")):
            if not words or words[0] not in seen:
                continue
            program, *rest = words
            where = f"{page.name}: {' '.join(words)}"
            seen[program] += 1
            if program == "make":
                wanted = [word for word in rest if "=" not in word]
                assert set(wanted) <= {*targets.split(), ".venv/.ready"}, where
            elif program == "python":
                assert rest[0] == "-m" and importlib.util.find_spec(rest[1]), where
            else:
                parse(known if program == "kedro" else cli, program, rest, where)
    assert min(seen.values()) >= 3, seen


def test_each_benchmark_is_run_by_a_test_or_named_as_not_run(project_root: Path) -> None:
    """A test that imports it, or a line in the contributing page that says what is tested."""
    tests = [
        f for f in (project_root / "tests").rglob("*.py") if "benchmarks" not in f.parts[-2:-1]
    ]
    tests += (project_root / "tests/unit/benchmarks").glob("test_*.py")
    imported = "".join(f.read_text("utf-8") for f in {*tests} if f.name.startswith("test_"))
    contributing = (project_root / "CONTRIBUTING.md").read_text("utf-8")
    excused = contributing.split("## Commands that the tests do not run to their end")[1]
    excused = excused.split("\n## ")[0]
    named = {
        words[2].removeprefix("tests.benchmarks.").split(".")[0]
        for page in pages(project_root)
        for words in all_commands(page.read_text(encoding="utf-8"))
        if words[:2] == ["python", "-m"] and words[2].startswith("tests.benchmarks.")
    }
    assert len(named) >= 15
    for name in named:
        run = re.search(rf"benchmarks(\.{name}\b| import \(?[^)]*?\b{name}\b)", imported)
        assert run or re.search(rf"\b{name}`", excused), name


def parse(group: click.Group, name: str, words: list[str], where: str) -> None:
    """Let click read the command. Files that a person is to write need not be there."""
    command: click.Command | None = group
    context = click.Context(group, info_name=name)
    while isinstance(command, click.Group) and words:
        command = command.get_command(context, words[0])
        words = words[1:]
    assert command is not None, where
    try:
        command.make_context(name, list(words))
    except click.UsageError as error:
        if isinstance(error, click.BadParameter) and "does not exist" in error.message:
            return
        raise AssertionError(f"{where}: {error.format_message()}") from error


def test_a_command_that_is_none_is_found(project_root: Path) -> None:
    known = KedroCLI(project_root)
    for words in (["catalog", "list"], ["run", "--pipelin", "plan"]):
        with pytest.raises(AssertionError, match=f"here: {words[0]}"):
            parse(known, "kedro", words, f"here: {' '.join(words)}")
    page = (
        "```yaml\na: 1\n```\nmake no run\n```\nA=1 make run  # all\n```\nsee `kedro catalog list`"
    )
    assert all_commands(page) == [
        ["make", "run"],
        ["kedro", "catalog", "list"],
    ]


@pytest.mark.parametrize("option", ["--pipeline", "--env"])
def test_commands_name_pipelines_and_environments_that_exist(
    project_root: Path, option: str
) -> None:
    known = {
        "--pipeline": set(pipelines),
        "--env": {
            str(path.relative_to(project_root / "conf"))
            for path in (project_root / "conf").rglob("*")
            if path.is_dir()
        },
    }[option]
    for page in pages(project_root):
        for command in commands(page.read_text(encoding="utf-8")):
            for name in re.findall(rf"{option}[ =]([\w/]+)", command):
                assert name in known or name == "NAME", f"{page.name}: {command}"


def test_commands_set_parameters_that_exist(project_root: Path) -> None:
    loader = OmegaConfigLoader(str(project_root / "conf"), **CONFIG_LOADER_ARGS)
    blocks = set(loader["parameters"]) | {"model", "data"}  # conf/smollm2's own
    seen = 0
    for page in pages(project_root):
        for command in commands(page.read_text(encoding="utf-8")):
            for given in re.findall(r"--params[ =]\"?([\w.=,/$:-]+)", command):
                for pair in given.split(","):
                    key = pair.split("=")[0].split(".")[0]
                    if key and not key.startswith("$"):
                        seen += 1
                        assert key in blocks, f"{page.name}: {command}"
    assert seen >= 5


def test_the_readmes_numbers_are_those_of_the_results(project_root: Path) -> None:
    """The newest row of a setting is its last one."""
    readme = " ".join((project_root / "README.md").read_text(encoding="utf-8").split())
    sample = (project_root / "docs/sample.md").read_text(encoding="utf-8")
    (mean,) = re.findall(r"^\| mean \| (.*) \|$", sample, re.MULTILINE)
    before, after, right_before, right = mean.split(" | ")
    assert f"mean {float(before):.2f} to {float(after):.2f}; " in readme
    assert f"accuracy {right_before} to {right} %" in readme
    rows = newest(project_root / "docs/results/settings.csv", "strategy")
    won = [
        f"{float(row['gain_over_uniform']):.1f} % ({float(row['gain_over_uniform_low']):.1f} to "
        f"{float(row['gain_over_uniform_high']):.1f})"
        for row in (rows[name, "mixing_law"] for name in ("long_wide", "long_steep"))
    ]
    assert f"it wins {won[0]} and {won[1]}; " in readme
    settings = project_root / "docs/results/settings.csv"
    of = {(row["setting"], row["strategy"]): row for row in csv.DictReader(settings.open())}

    def gain(strategy: str) -> list[str]:
        both = (of[name, strategy] for name in ("long_wide", "long_steep"))
        return [f"{float(row['gain_over_uniform']):.1f}" for row in both]

    best = "where a mix can win {} and {} % over equal shares", gain("oracle")
    doremi = "held-out DoReMi wins as much ({} and {} %)", gain("doremi_heldout")
    for words, numbers in (best, doremi):
        assert words.format(*numbers) in readme
    default = newest(project_root / "docs/results/default_budget/settings.csv", "strategy")
    budget, full = (
        {name: row for (name, of), row in default.items() if of == law}
        for law in ("mixing_law_budget", "mixing_law")
    )
    winning = [(budget.pop(name), full.pop(name)) for name in ("long_wide", "long_steep")]
    won = [float(row["gain_over_uniform"]) for pair in winning for row in pair]
    most = [float(row["oracle_gain"]) for row, _ in winning]
    behind = {
        law: sorted(
            -min(float(row["gain_over_uniform"]), float(row["gain_over_proportional"]))
            for row in rows.values()
        )
        for law, rows in (("budget", budget), ("full", full))
    }
    assert len(budget) == len(full) == 10
    worst, next_worst = behind["full"][-1], behind["full"][-2]
    assert (
        f"it wins {won[1]:.1f} of {most[0]:.1f} and {won[3]:.1f} of {most[1]:.1f} %, and is "
        f"{worst:.1f} % behind in the one and at most {next_worst:.1f} % in nine"
    ) in readme
    assert (
        f"with it, it wins {won[0]:.1f} of the {most[0]:.1f} and (here with short runs) "
        f"{won[2]:.1f} of the {most[1]:.1f} %, and is in ten others at most "
        f"{behind['budget'][-1]:.1f} % behind"
    ) in readme
    expanded = newest(project_root / "docs/results/default_budget/expansion.csv", "target", ())
    alone = {
        key: row
        for key, row in expanded.items()
        if row["strategy"] == "constrained_budget" and "+" not in row["target"]
    }
    seeds = [int(row["n_seeds"]) for row in alone.values()]
    within = [float(row["part_within_tolerance"]) for row in alone.values()]
    kept_runs = round(sum(n * part for n, part in zip(seeds, within, strict=True)))
    parts = {
        name: sorted(
            f"{float(row['part_of_target_gain']):.2f}"
            for (of_setting, _), row in alone.items()
            if of_setting == name
        )
        for name in ("sample_expand", "long_expand", "expand_long", "expand", "expand_scarce")
    }
    sample, longer, long, *short = parts.values()
    short = sorted(part for of_short in short for part in of_short)
    said = (
        f"kept in {kept_runs} of {sum(seeds)} runs of five settings, at {sample[0]} to "
        f"{sample[-1]} at the sample's size, at {longer[0]} to {longer[-1]} and {long[0]} in the "
        f"two longer ones, and at {short[0]} to {short[-1]} in two short ones"
    )
    assert said in readme
    rooms = csv.DictReader((project_root / "docs/results/headroom.csv").open())
    room = {r["setting"]: (float(r["headroom"]), float(r["oracle_gain"] or 0)) for r in rooms}
    told_of = (*room["long_wide"], *room["long_steep"])
    assert "names {:.1f} of the {:.1f} %, but only {:.1f} of the {:.1f}".format(*told_of) in readme
    own = [
        float(rows["smollm2_six", law]["gain_over_uniform"])
        for law in ("mixing_law", "mixing_law_budget")
    ]
    assert (
        "and {:.1f} % on SmolLM2-135M with six real domains, where the best of 20 static mixes "
        "gains {:.1f} % and `mixing_law` {:.1f} % (with the default budget {:.1f} % worse than "
        "equal shares)".format(*room["smollm2_six"], own[0], -own[1])
    ) in readme
    targets = newest(project_root / "docs/results/expansion.csv", "target")
    told = {
        "sample_expand": "size at {} to {} of the gain of",
        "long_expand": "longer ones at {} to {} and",
        "expand_long": "and at {}, and with two",
        "expand": "in {} of 15 runs",
    }
    kept = {}
    for setting, said in told.items():
        found = [row for (name, _), row in targets.items() if name == setting]
        parts = sorted(float(row["part_of_target_gain"]) for row in found)
        each = [int(row["n_seeds"]) * float(row["part_within_tolerance"]) for row in found]
        kept[setting] = round(sum(each))
        numbers = kept[setting], *(f"{part:.2f}" for part in (parts[0], parts[-1]))
        assert said.format(*(numbers[:1] if setting == "expand" else numbers[1:])) in readme
    wide = sum(n for setting, n in kept.items() if setting != "expand")
    assert f"every other domain kept in {wide} of 35 runs" in readme
    both = targets["expand_two", "medicine+code"]
    assert float(both["part_within_tolerance"]) == 1
    part = float(both["part_of_target_gain"])
    assert f"with two targets at once in five of five, at {part:.2f}" in readme
    real_model = targets["smollm2_six_expand", "medicine"]
    assert float(real_model["part_within_tolerance"]) == 1
    part = float(real_model["part_of_target_gain"])
    assert f"run after that: five of five, at {part:.2f}" in readme


def test_how_right_the_headroom_was_is_what_its_table_says(project_root: Path) -> None:
    said = " ".join((project_root / "docs/forecast.md").read_text(encoding="utf-8").split())
    table = csv.DictReader((project_root / "docs/results/headroom.csv").open())
    rows = [
        [float(row[key]) for key in ("headroom_low", "headroom_high", "oracle_gain")]
        for row in table
        if row["oracle_gain"]
    ]
    assert len(rows) == 15 and "In the fifteen declared settings" in said
    little = [gain for _, high, gain in rows if high < 1]
    assert len(little) == 4 and "said `uniform` four times" in said
    assert f"the best of 20 mixes gained {max(little):.2f} % at most" in said
    assert max(low for low, _, _ in rows) < 1 and "it never named `mixing_law`" in said
    assert sum(gain > 1 for _, _, gain in rows) == 2 and "two where more than 1 % could" in said
    held = sum(low <= gain <= high for low, high, gain in rows)
    assert held == 10 and "gained in ten of the fifteen" in said


VARIANTS = ("constrained_low", "constrained_budget")


def newest(
    table: Path, by: str, without: tuple[str, ...] = VARIANTS
) -> dict[tuple[str, str], dict[str, str]]:
    """The last row of each setting of our own strategies at tolerance 0, ``without`` some."""
    with table.open(encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["version"]]
    rows = [row for row in rows if row["strategy"] not in without]
    zero = [row for row in rows if float(row.get("tolerance") or 0) == 0]
    return {(row["setting"], row[by]): row for row in zero}
