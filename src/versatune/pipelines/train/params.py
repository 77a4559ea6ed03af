"""Parameters of the train pipeline that the library does not know."""

from versatune.params import Params


class TrackingParams(Params):
    """What MLflow keeps besides numbers."""

    log_model: bool = True
    """Store the trained model in MLflow, once for each checkpoint; its size on disk is the model's.
    Turn it off for large models that should not be copied."""
