"""The retrain pipeline as a Dagster job: by the clock, and when new data arrives.

One op starts ``kedro run`` as a child, so a job is one MLflow run and one line of log after the
other. Settings are environment variables:

VERSATUNE_PROJECT    the project's folder (default: this checkout)
VERSATUNE_KEDRO      the kedro to run (default: .venv/bin/kedro of the project)
VERSATUNE_PIPELINE   the pipeline (default: retrain)
VERSATUNE_ENV        the configuration environment
VERSATUNE_CRON       when (default: 0 2 * * *, every night at two)
VERSATUNE_TIMEZONE   whose two o'clock (default: UTC)
VERSATUNE_WATCH      folders or globs with the domains' sources, split by ":" (default: data/01_raw)
VERSATUNE_SETTLE     seconds without a change before new data counts as whole (default: 120)
VERSATUNE_TIMEOUT    seconds after which a run is stopped (default: 43200, twelve hours)
"""

import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import run_pipeline  # noqa: E402
import watch  # noqa: E402

PROJECT = Path(os.environ.get("VERSATUNE_PROJECT", HERE.parents[1]))
WATCHED = os.environ.get("VERSATUNE_WATCH", "data/01_raw").split(":")
SETTLE = float(os.environ.get("VERSATUNE_SETTLE", "120"))
TIMEOUT = float(os.environ.get("VERSATUNE_TIMEOUT", "43200"))
LAST_LINES = 40
OVER = "dagster/max_runtime"
"""Tag that lets Dagster give up a run it believes to be at work, as after a power cut: without it
such a run would block all that come after."""


@dg.op(description="`kedro run` as a child process; its log is the op's log.")
def run_kedro(context: dg.OpExecutionContext) -> None:
    """Fails when the pipeline fails, with its last lines."""
    last: deque[str] = deque(maxlen=LAST_LINES)

    def log(line: str) -> None:
        last.append(line)
        context.log.info(line)

    command = run_pipeline.kedro_run(
        PROJECT,
        os.environ.get("VERSATUNE_PIPELINE", "retrain"),
        os.environ.get("VERSATUNE_ENV") or None,
    )
    context.log.info(" ".join(command))
    code = run_pipeline.run(command, cwd=PROJECT, log=log, timeout=TIMEOUT)
    if code:
        raise dg.Failure(
            f"the pipeline ended with exit code {code}",
            metadata={"last_lines": dg.MetadataValue.text("\n".join(last)), "exit_code": code},
            allow_retries=False,
        )


@dg.job(
    executor_def=dg.in_process_executor,
    description="Scheduled retraining; ends in seconds when nothing is new.",
    tags={OVER: str(int(TIMEOUT) + 600)},
)
def retraining() -> None:
    run_kedro()


nightly = dg.ScheduleDefinition(
    name="nightly",
    job=retraining,
    cron_schedule=os.environ.get("VERSATUNE_CRON", "0 2 * * *"),
    execution_timezone=os.environ.get("VERSATUNE_TIMEZONE", "UTC"),
    default_status=dg.DefaultScheduleStatus.RUNNING,
)


@dg.sensor(
    job=retraining,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts a retraining when files of the domains changed and came to rest.",
)
def new_data(
    context: dg.SensorEvaluationContext,
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """The first look only notes what is there: the schedule takes care of that."""
    seen, newest = watch.state(PROJECT, WATCHED)
    if seen == context.cursor:
        yield dg.SkipReason("nothing changed")
    elif context.cursor is None:
        context.update_cursor(seen)
        yield dg.SkipReason("the first look")
    elif time.time() - newest < SETTLE:
        yield dg.SkipReason("files are still being written")
    else:
        context.update_cursor(seen)
        yield dg.RunRequest(run_key=seen)


defs = dg.Definitions(jobs=[retraining], schedules=[nightly], sensors=[new_data])
