"""A secret from the credentials as a catalog entry: never saved, never printed."""

from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError
from pydantic import SecretStr


class SecretDataset(AbstractDataset[Any, SecretStr]):
    """Loads the value ``api_key`` of its credentials; pydantic's SecretStr hides it in logs."""

    def __init__(
        self, *, credentials: dict[str, Any], metadata: dict[str, Any] | None = None
    ) -> None:
        self._secret = SecretStr(str(credentials.get("api_key") or ""))
        self.metadata = metadata

    def load(self) -> SecretStr:
        return self._secret

    def save(self, data: Any) -> NoReturn:  # noqa: ARG002
        raise DatasetError("a secret is not written by a pipeline")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {}
