"""When a training that forgets is ended."""

from typing import Literal

from pydantic import Field

from versatune.params import Params


class GuardParams(Params):
    """When expansion ends because the other domains keep forgetting."""

    action: Literal["none", "stop", "rollback"] = "rollback"
    """``stop`` ends with the model as it is; ``rollback`` goes back to the best round, the one
    with the lowest loss on the target while the others were within the threshold."""
    threshold: float = Field(0.05, ge=0)
    """Allowed mean rise of the other domains' losses above their lowest, as a part of these."""
    patience: int = Field(2, ge=1)
    """Rounds above the threshold in which the rise did not shrink before the guard acts; counted
    anew once it is back within the threshold."""
