"""A week of scheduled retraining: ``python -m tests.benchmarks.retraining_week [MORE]``.

Seven real runs of the retrain pipeline with a tiny model and a tracking server on loopback, while
data arrive: one is killed, one meets a broken file, one has no tracking server, one an absurd
learning rate. ``MORE`` quiet nights follow. Prints a table, night by night, and ends in an error
unless the champion of the last day has the lowest held-out loss, MLflow explains every night, and
old models are gone.
"""

import sys
import tempfile
from pathlib import Path

from mlflow.entities import Run

from tests.helpers.scheduled import ABSURD, KEEP_LAST, Night, Nights, Told

WEEK = (
    Night("first data"),
    Night("data arrive; SIGKILL in training", killed=True),
    Night("nothing more arrives", rows=0),
    Night("a broken file arrives", broken=True),
    Night("it is mended, data arrive; no tracking server", store_down=True),
    Night("data arrive; absurd learning rate", parameters=ABSURD),
    Night("data arrive"),
)
LAST = Night("data arrive", rows=30)
COLUMNS = ("night", "what happens", "run in MLflow", "what its tags say", "loss", "champion",
           "weights files", "models, MB", "MLflow, MB")  # fmt: skip


def main(more: int = 0) -> int:
    """The week; 0 when all held."""
    root = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as folder, Nights(root, Path(folder)) as nights:
        for night in (*WEEK, *[LAST] * more):
            told = nights.run(night)
            print(f"{night.name}: exit code {told.code}, {_seconds(told)} s", flush=True)
        losses = nights.losses()
        faults = check(nights, losses)
        print(f"\n| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
        for number, told in enumerate(nights.told, start=1):
            print(_row(number, told, nights.runs_of(told), losses))
    print("\n".join(["", *(faults or ["All held."])]))
    return 1 if faults else 0


def check(nights: Nights, losses: dict[int, float]) -> list[str]:
    """What does not hold of: the best serves, every night is explained, no disk fills."""
    faults = []
    versions = {int(v.tags["retraining"]): int(v.version) for v in nights.versions()}
    best = versions[min(losses, key=lambda retraining: losses[retraining])]
    champion = nights.aliases()["champion"]
    if champion != best:
        faults.append(f"the champion is version {champion}, but {best} is better")
    for number, told in enumerate(nights.told, start=1):
        runs = nights.runs_of(told)
        if len(runs) != 1 or not explained(told, runs[0]):
            faults.append(f"night {number} is not explained in MLflow")
    last = nights.told[-1]
    # Champion, previous champion and challengers, here and in MLflow, and the base model.
    if last.weights > 2 * (2 + KEEP_LAST) + 1:
        faults.append(f"{last.weights} files of weights are left")
    if last.disk["scratch"]:
        faults.append(f"{last.disk['scratch']} bytes are left in caches")
    return faults


def explained(told: Told, run: Run) -> bool:
    """Whether a run's state and tags say what became of the night."""
    tags = run.data.tags
    if told.night.killed:
        return run.info.status == "KILLED" and bool(tags["retraining.new"])
    if told.code:
        return run.info.status == "FAILED" and bool(tags["error"])
    return run.info.status == "FINISHED" and bool(tags["retraining.decision"])


def _row(number: int, told: Told, runs: list[Run], losses: dict[int, float]) -> str:
    tags = runs[0].data.tags if runs else {}
    said = [tags[f"retraining.{key}"] for key in ("decision", "reasons") if told.code == 0]
    loss = losses.get(int(tags["retraining.number"])) if told.code == 0 else None
    cells = (
        number,
        told.night.name,
        ", ".join(run.info.status for run in runs),
        ": ".join(said) or tags.get("error") or tags.get("retraining.new"),
        f"{loss:.3f}" if loss is not None else "",
        told.champion or "not asked",
        told.weights,
        *(f"{told.disk[part] / 1e6:.2f}" for part in ("models", "mlflow")),
    )
    return f"| {' | '.join(map(str, cells))} |"


def _seconds(told: Told) -> int:
    return round((told.ended - told.began) / 1000)


if __name__ == "__main__":
    raise SystemExit(main(*map(int, sys.argv[1:])))
