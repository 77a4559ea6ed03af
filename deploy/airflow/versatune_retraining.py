"""The retrain pipeline as an Airflow 3 DAG: one task, the same child process as cron's.

Tried with Airflow 3.3.2 and the pins of ``requirements.txt`` beside this file (Python 3.11).

Copy this file to the dags folder and set, for the scheduler and its workers:

VERSATUNE_PROJECT    the project's folder (needed)
VERSATUNE_CRON       when (default: 0 2 * * *)
VERSATUNE_ENV        the configuration environment

The command is a constant: what differs reaches it only by the environment, never as text that
the shell would read.
"""

import datetime
import os

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG(
    dag_id="versatune_retraining",
    description="Scheduled retraining; ends in seconds when nothing is new.",
    schedule=os.environ.get("VERSATUNE_CRON", "0 2 * * *"),
    start_date=datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC),
    catchup=False,
    max_active_runs=1,
    tags=["versatune"],
):
    BashOperator(
        task_id="retrain",
        bash_command=(
            'exec "$VERSATUNE_PROJECT/.venv/bin/python" "$VERSATUNE_PROJECT/deploy/run_pipeline.py"'
            ' --pipeline retrain ${VERSATUNE_ENV:+--env "$VERSATUNE_ENV"}'
        ),
        append_env=True,
        retries=0,
        execution_timeout=datetime.timedelta(hours=12),
    )
