"""The endpoint judge and the served sampler against a real server: ``transformers serve``."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.probing import first_samples
from versatune.errors import VersatuneError
from versatune.modeling.checkpoints import CheckpointRef
from versatune.probing.config import EndpointParams
from versatune.probing.judges.base import About
from versatune.probing.judges.endpoint import ANSWERS, Endpoint
from versatune.samplers.config import SamplingParams
from versatune.samplers.served import ServerSampler

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("uvicorn", reason="needs the extra `serving`")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    program = str(Path(sys.executable).parent / "transformers")
    with log.open("w") as out:
        server = subprocess.Popen(
            [program, "serve", "--host", "127.0.0.1", "--port", str(port)],
            stdout=out,
            stderr=out,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
    try:
        for _ in range(600):
            if server.poll() is not None:
                pytest.fail(f"the server ended: {log.read_text()[-2000:]}")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail(f"the server did not come up: {log.read_text()[-2000:]}")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(timeout=20)


def sampler(url: str, model: Path) -> ServerSampler:
    server = {"url": url, "model": str(model), "concurrency": 2, "timeout": 60}
    # the random model answers its own begin token with nothing but begin tokens
    return ServerSampler(
        SamplingParams(source="server", server=server, prompt="the court", max_new_tokens=12)
    )


def test_samples_come_from_a_real_server(url, tmp_path, tiny_checkpoint: CheckpointRef):
    # this server samples only models whose own generation config says so
    model = tmp_path / "sampling"
    shutil.copytree(tiny_checkpoint.path, model)
    file = model / "generation_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "do_sample": True, "top_k": 0}))
    samples = first_samples(tmp_path / "s", sampler(url, model), 0, 4, 4)
    assert [s.index for s in samples] == [0, 1, 2, 3]
    assert all(0 < s.n_tokens <= 12 for s in samples)
    assert len({s.text for s in samples}) > 1


def test_a_real_server_that_decodes_greedily_is_found_out(
    url, tmp_path, tiny_checkpoint: CheckpointRef
):
    with pytest.raises(VersatuneError, match="it does not sample"):
        first_samples(tmp_path / "s", sampler(url, tiny_checkpoint.path), 0, 4, 4)


def test_a_model_that_babbles_is_counted_unparseable(url, tmp_path, tiny_checkpoint: CheckpointRef):
    server = {"url": url, "model": str(tiny_checkpoint.path), "concurrency": 2, "timeout": 60}
    params = EndpointParams(server=server, response_format="text", max_tokens=16)
    judge = Endpoint({"law": "Courts.", "code": "Programs."}, params, About(keep=tmp_path))
    found = judge.judge(["the court", "the loop", "a list"])
    assert set(found.status) <= {"unparseable", "refused"}
    assert found.facts["prompt_tokens"] > 0
    assert len((tmp_path / ANSWERS).read_text().splitlines()) == 3
