"""What retraining keeps between its runs: ``state.json``, and a folder for each retraining.

A retraining begins when something is new. It is bound to the data it saw and to the models it
compares, so a killed one is continued, not started again, as long as nothing changes. A
promotion that MLflow could not take waits in ``waiting`` until a later run registers it.
"""

import logging
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from versatune.artifacts import MANIFEST, now, read_json, write_json
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef
from versatune.retraining import news

logger = logging.getLogger(__name__)

CHALLENGER = "challenger"
CHAMPIONS = "champions"


class Registration(BaseModel, frozen=True, extra="forbid"):
    """A challenger that waits for the registry."""

    key: str
    number: int
    checkpoint: CheckpointRef
    tags: dict[str, str]
    promote: bool
    over: str | None
    """The fingerprint of the champion it was measured against; None when there was none."""


class Serving(BaseModel, frozen=True, extra="forbid"):
    """The champion when the registry last answered."""

    checkpoint: CheckpointRef
    key: str
    """What distinguishes it from other versions in the registry."""


class RetrainRun(BaseModel, frozen=True, extra="forbid"):
    """One retraining."""

    number: int
    saw: dict[str, Any]
    """Data and parameters, as :func:`versatune.retraining.news.what_is_new` compares them."""
    new: list[str]
    began: str
    finished: str | None = None
    models: dict[str, Any] | None = None
    """The champion, the opponent and where training starts, once they are chosen."""


class State(BaseModel, frozen=True, extra="forbid"):
    """The content of ``state.json``."""

    run: RetrainRun | None = None
    """The last retraining, finished or not."""
    finished: RetrainRun | None = None
    """The last one that was finished."""
    champion: Serving | None = None
    waiting: list[Registration] = []


class RunStore:
    """Reads and writes the state and the folders of the retrainings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def state(self) -> State:
        """The state on the disk. Raises VersatuneError that names a damaged file."""
        path = self.folder / "state.json"
        if not path.is_file():
            return State()
        try:
            return State.model_validate(read_json(path))
        except ValidationError as error:
            raise VersatuneError(
                f"{path} is damaged ({error.error_count()} faults); delete it to start over: "
                "the champion stays as it is."
            ) from error

    def update(self, **values: Any) -> None:
        """Replace parts of the state, in one step."""
        write_json(self.folder / "state.json", self.state.model_copy(update=values))

    def open(self, saw: Mapping[str, Any]) -> tuple[RetrainRun, bool]:
        """The retraining for the present state, and whether there is anything to do in it.

        With nothing to do it is the last finished one. An unfinished one of the same state is
        continued.
        """
        state = self.state
        last, done = state.run, state.finished
        new = news.what_is_new(done.saw if done else None, saw)
        if done is not None and not new:
            return done, False
        if last is not None and last.finished is None and last.saw == saw:
            logger.info("Continuing retraining %d, begun %s.", last.number, last.began)
            return last, True
        if last is not None and last.finished is None:
            self._give_up(last)
        run = RetrainRun(number=self._newest() + 1, saw=dict(saw), new=new, began=now())
        self.update(run=run)
        return run, True

    def finish(self, run: RetrainRun) -> None:
        """Mark the retraining as finished: the same data is no longer new."""
        done = run.model_copy(update={"finished": now()})
        self.update(run=done, finished=done)

    @property
    def current(self) -> RetrainRun:
        """The current retraining, or the last one. Only after :meth:`open`."""
        run = self.state.run
        if run is None:
            raise RuntimeError("no retraining was begun")
        return run

    def folder_of(self, number: int) -> Path:
        """Where a retraining keeps its challenger and its results."""
        return self.folder / f"{number:04d}"

    def models(self, choose: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The models of the current retraining. They are chosen once: a promotion moves the
        champion before the retraining is finished."""
        if self.current.models is None:
            models = choose()  # first, for it updates the state
            self.update(run=self.current.model_copy(update={"models": models}))
        return dict(self.current.models or {})

    def kept(self, number: int, name: str) -> Any:
        """A result that is kept."""
        return read_json(self.folder_of(number) / f"{name}.json")

    def keep(self, number: int, name: str, value: Any) -> None:
        """Write a result of a retraining."""
        write_json(self.folder_of(number) / f"{name}.json", value)

    def prune(self, keep: Collection[Path], keep_last: int) -> None:
        """Delete the models of old retrainings; their results stay.

        Kept: the folders in ``keep``, those still waiting for the registry, and the newest
        ``keep_last`` others. Models of abandoned retrainings are not kept, nor are copies from
        MLflow of a former champion.
        """
        waiting = {w.checkpoint.path.resolve() for w in self.state.waiting}
        safe = {path.resolve() for path in keep} | waiting
        models = sorted(self.folder.glob(f"[0-9]*/{CHALLENGER}"), reverse=True)
        others = [path for path in models if path.resolve() not in safe]
        whole = [path for path in others if (path / MANIFEST).is_file()]
        deleted = [path for path in others if path not in whole[:keep_last]]
        self._delete(deleted)
        champion = self.state.champion
        for copy in (self.folder / CHAMPIONS).glob("*"):
            if copy.is_file():  # a copy's lock, held while it was made
                copy.unlink()
            elif champion is None or copy.resolve() != champion.checkpoint.path.resolve():
                shutil.rmtree(copy)
        if deleted:
            logger.info("Deleted the models of %d old retrainings.", len(deleted))

    def shorten(self, keep_last: int) -> list[Registration]:
        """Give up waiting challengers that the registry would have deleted by now.

        While it is offline none is registered, and one model for each retraining would fill the
        disk. Kept are the two newest that are to be promoted (the coming champion and the one to go
        back to) and the newest ``keep_last`` of the others, one at least. A challenger that was
        measured against one that is given up takes its place: it is promoted over the same
        champion. Returns those given up.
        """
        waiting = self.state.waiting
        promoted = [w for w in waiting if w.promote][-2:]
        others = [w for w in waiting if w not in promoted]
        dropped = others[: -max(keep_last, 1)]
        kept = [w for w in waiting if w not in dropped]
        for gone in reversed([w for w in dropped if w.promote]):
            place = {"over": gone.over}
            kept = [
                w.model_copy(update=place) if w.over == gone.checkpoint.fingerprint else w
                for w in kept
            ]
        self.update(waiting=kept)
        needed = {w.checkpoint.path.resolve() for w in kept}
        paths = {w.checkpoint.path.resolve() for w in dropped} - needed
        self._delete([path for path in sorted(paths) if path.is_dir()])
        return dropped

    def _newest(self) -> int:
        """The highest number a retraining has; its folder stays when ``state.json`` is deleted."""
        run = self.state.run
        folders = [int(path.name) for path in self.folder.glob("[0-9]*") if path.name.isdigit()]
        return max([run.number if run else 0, *folders])

    def _give_up(self, run: RetrainRun) -> None:
        """Delete the model of an abandoned retraining, unless it serves or waits to.

        So any number of failed retrainings leaves at most one unfinished model.
        """
        state = self.state
        needed = [w.checkpoint.path.resolve() for w in state.waiting]
        if state.champion is not None:
            needed.append(state.champion.checkpoint.path.resolve())
        model = self.folder_of(run.number) / CHALLENGER
        if model.is_dir() and model.resolve() not in needed:
            self._delete([model])

    def _delete(self, models: Collection[Path]) -> None:
        for path in models:
            # Out of the way in one step, so that no half of a model looks like one.
            path.rename(path.with_name(f".{path.name}.discarded"))
        for doomed in self.folder.glob(f"[0-9]*/.{CHALLENGER}.discarded"):
            shutil.rmtree(doomed)
