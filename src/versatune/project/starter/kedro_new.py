"""What `kedro new --starter versatune` is made from (entry point ``kedro.starters``)."""

from kedro.framework.cli.starters import KedroStarterSpec

from versatune.project.starter import HERE

SPECS = [KedroStarterSpec("versatune", str(HERE / "template"))]
