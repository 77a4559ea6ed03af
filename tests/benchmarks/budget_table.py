"""What ``references.budget`` leaves of the runs on mixes, for trainings of several lengths.

    python -m tests.benchmarks.budget_table [STORE]

STORE: a tokenised store; by default that of ``kedro run`` in this folder. The parameters are those
of conf/base, with other numbers of steps a round.
"""

import sys
from pathlib import Path

from kedro.config import OmegaConfigLoader

from versatune.artifacts import FolderRef
from versatune.settings import CONFIG_LOADER_ARGS
from versatune.training import TrainParams
from versatune.training.mix_budget import mix_budget
from versatune.training.reference_config import ReferenceParams

STORE = Path("data/05_model_input/tokenized")
STEPS = (400, 2000, 10000)


def main(store: Path = STORE) -> None:
    found = OmegaConfigLoader("conf", env="base", **CONFIG_LOADER_ARGS)["parameters"]
    train = TrainParams.model_validate(found["train"])
    asked = ReferenceParams.model_validate(found["references"])
    data = FolderRef.load(store)
    print("| steps | runs, without a budget | with 0.1 | measuring in the training | together |")
    print("| --- | --- | --- | --- | --- |")
    for steps in STEPS:
        longer = train.changed({"steps_per_round": steps // train.rounds})
        kept = mix_budget(data, asked, longer)
        free = mix_budget(data, asked.model_copy(update={"budget": None}), longer)
        print(
            f"| {steps:,} | {free.part:.3f} | {kept.part:.3f} | {kept.control:.3f} "
            f"| {kept.part + kept.control:.3f} |"
        )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
