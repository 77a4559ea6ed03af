"""The declared settings by real training: run them, then write the tables and pages.

    python -m tests.benchmarks.settings run [--settings equal,sizes] [--minutes 60] [--out FOLDER]
        [--given model=MODEL,data=FOLDER] [--labels uniform,mix_00] [--seeds 40,41]
    python -m tests.benchmarks.settings tables [--out FOLDER] [--results FOLDER]
    python -m tests.benchmarks.settings pages

``run`` goes on where it was stopped; one thread. Its log is FOLDER/runs.jsonl, which several
processes can share that make different runs (``--labels``, ``--seeds``).
``tables`` writes docs/results/*.csv: a setting with runs in the log anew, others stay as they are;
``--results`` writes them elsewhere, where a log has some of the strategies alone.
``pages`` writes docs/settings.md from the CSVs.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.settings import RESULTS

if TYPE_CHECKING:
    from tests.benchmarks.settings.campaign import Campaign
    from tests.benchmarks.settings.schedule import Planned

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

OUT = Path("data/results/settings")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["run", "tables", "pages"])
    parser.add_argument(
        "--settings", help="comma-separated, SETTING/TARGET for one target; all by default"
    )
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--phases", type=int, default=99, help="only the first ones of each")
    parser.add_argument("--labels", help="only these strategies, comma-separated")
    parser.add_argument("--without", default="", help="not these strategies")
    parser.add_argument("--seeds", default="", help="only these seeds, comma-separated")
    parser.add_argument("--given", help="model=FOLDER,data=FOLDER for the settings of real models")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the tables")
    given = parser.parse_args()
    if given.command == "pages":
        from tests.benchmarks.settings.pages import write_pages

        write_pages()
        return
    names = given.settings.split(",") if given.settings else None
    if given.command == "tables":
        from tests.benchmarks.settings.tables import write_tables

        write_tables(given.out, given.results)
        return
    only, without, seeds = (
        set(filter(None, (x or "").split(","))) for x in (given.labels, given.without, given.seeds)
    )

    def wanted(run: "Planned") -> bool:
        label = run.label not in without and (not only or run.label in only)
        return label and (not seeds or str(run.seed) in seeds)

    import torch

    from tests.benchmarks.settings.campaign import Campaign
    from tests.benchmarks.settings.memory import do_once

    torch.set_num_threads(1)
    do_once()
    real = dict(part.split("=", 1) for part in (given.given or "").split(",") if part)
    campaign = Campaign(given.out, names, real)
    run(campaign, time.monotonic() + 60 * given.minutes, given.phases, wanted)


def run(
    campaign: "Campaign", until: float, phases: int, wanted: "Callable[[Planned], bool]"
) -> None:
    """All settings' first phases, then all second ones, and so on."""
    for phase in range(min(phases, campaign.phases)):
        for done in campaign.phase(phase, wanted):
            print(done, flush=True)
            if time.monotonic() > until:
                return


if __name__ == "__main__":
    main()
