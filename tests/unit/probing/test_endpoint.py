"""The endpoint judge and the served sampler against servers that misbehave."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.hostile_server import chat, garbage, half, late, serving, status
from tests.helpers.probing import first_samples
from versatune.errors import VersatuneError
from versatune.probing.config import EndpointParams, JudgeParams
from versatune.probing.judges import open_judge
from versatune.probing.judges.base import About
from versatune.probing.judges.endpoint import ANSWERS, Endpoint, train
from versatune.probing.judges.probabilities import parse
from versatune.samplers.config import SamplingParams, ServerParams
from versatune.samplers.served import ServerSampler
from versatune.work import make_folder

DOMAINS = {"law": "Courts and contracts.", "medicine": "Health.", "other": "All else."}
GOOD = chat('{"law": 0.7, "medicine": 0.2, "other": 0.1}')


def endpoint(url: str, keep: Path, key: str = "", **changed) -> Endpoint:
    server = {"url": url, "model": "m", "timeout": 2, "max_retries": 3, "concurrency": 4}
    limits = {n: changed.pop(n) for n in list(changed) if n in ServerParams.model_fields}
    params = EndpointParams(server={**server, **limits}, **changed)
    return Endpoint(DOMAINS, params, About(keep=keep, api_key=key))


@pytest.mark.parametrize(
    "content",
    [
        '{"law": 0.5, "medicine": 0.25, "other": 0.25}',
        'Sure:\n```json\n{"law": 50, "medical": 25, "general": 25}\n```',
        '{"probabilities": {"law": 2, "medicine": 1, "other": 1}}',
    ],
)
def test_answers_are_understood(content):
    assert parse(content, list(DOMAINS)) == pytest.approx([0.5, 0.25, 0.25])


def test_a_domain_left_out_has_no_probability():
    assert parse('{"law": 1}', list(DOMAINS)) == [1, 0, 0]
    assert parse('<think>{law?}</think>\n{"law": 1}', list(DOMAINS)) == [1, 0, 0]


@pytest.mark.parametrize(
    "content",
    ["law", "", "{law: 1}", "{}", '{"law": -1}', '{"law": 0}', '{"law": "much"}', "[1, 2]",
     '{"law": 0.5, "cooking": 0.5}', '{"law": NaN}', '{"law": {"medicine": 1}, "x": 2}',
     '<think>{"law": 1} perhaps', '[THINK]{"law": 1}', '<|channel|>analysis {"law": 1}'],
)  # fmt: skip
def test_anything_else_is_no_answer(content):
    with pytest.raises(ValueError, match=r"."):
        parse(content, list(DOMAINS))


def test_good_answers_are_counted_kept_and_not_asked_again(tmp_path):
    with serving(lambda _: GOOD) as server:
        judge = endpoint(server.url, tmp_path)
        found = judge.judge(["a", "b", "a"])
        assert found.probabilities == pytest.approx(np.tile([0.7, 0.2, 0.1], (3, 1)))
        assert found.facts == {"prompt_tokens": 120, "completion_tokens": 27}
        assert len(server.requests) == 2
        again = endpoint(server.url, tmp_path).judge(["a", "b", "a"])
        assert again.probabilities == pytest.approx(found.probabilities)
        assert len(server.requests) == 2
        endpoint(server.url, tmp_path, temperature=1.0).judge(["a"])
        assert len(server.requests) == 3


def test_the_question_holds_domains_text_and_schema(tmp_path):
    with serving(lambda _: GOOD) as server:
        endpoint(server.url, tmp_path, max_chars=100).judge(["x" * 300])
        body = server.requests[0]["body"]
    assert "- law: Courts and contracts." in body["messages"][0]["content"]
    assert body["messages"][1]["content"].count("x") == 101  # with the x of "Text"
    number = {"type": "number", "minimum": 0}
    schema = {
        "type": "object",
        "properties": {"law": number, "medicine": number, "other": number},
        "required": ["law", "medicine", "other"],
        "additionalProperties": False,
    }
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "topics", "strict": True, "schema": schema},
    }
    assert list(body["response_format"]["json_schema"]["schema"]["properties"]) == list(DOMAINS)


def test_a_server_that_counts_no_tokens(tmp_path):
    def uncounted(handler, _):
        message = {"role": "assistant", "content": '{"law": 1}'}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
        handler.send(200, json.dumps({**body, "choices": [choice]}).encode())

    with serving(lambda _: uncounted) as server:
        found = endpoint(server.url, tmp_path).judge(["a"])
    assert found.probabilities.tolist() == [[1, 0, 0]]
    assert found.facts == {"prompt_tokens": 0, "completion_tokens": 0}


def test_refused_and_unparseable_answers_are_told_apart_and_left_out(tmp_path):
    replies = [
        GOOD,
        chat("I can't help with that."),
        chat(None, refusal="no"),
        chat("", finish="content_filter"),
    ]
    with serving(lambda i: replies[i]) as server:
        found = endpoint(server.url, tmp_path, concurrency=1).judge(["a", "b", "c", "d"])
    assert found.status == ["ok", "unparseable", "refused", "refused"]
    assert np.isnan(found.probabilities[1:]).all()
    assert not np.isnan(found.probabilities[0]).any()


def test_a_thought_is_no_answer_and_what_to_set_is_said(tmp_path, caplog):
    """Beside the content, in it, begun by the prompt; long, or in place of an answer."""
    answer = '{"law": 0, "medicine": 1, "other": 0}'
    thought = 'Perhaps {"law": 1, "medicine": 0, "other": 0}'
    replies = [
        chat(answer, reasoning_content=thought),
        chat(answer, reasoning=thought),
        chat(f"{thought}</think>{answer}"),
        chat(f"<thinking>{thought}</thinking>\n{answer}"),
        chat(f"```json\n{answer}\n``` The", finish="length"),
        chat(None, finish="length", reasoning_content=thought),
        chat(thought, finish="length"),
        chat("", reasoning_content=answer),
        chat(None, reasoning=answer),
        chat(None),
    ]
    with serving(lambda i: replies[i]) as server:
        judge = endpoint(server.url, tmp_path, concurrency=1)
        found = judge.judge([str(i) for i in range(10)])
    assert found.status == ["ok"] * 5 + ["unparseable"] * 4 + ["refused"]
    assert found.probabilities[:5].tolist() == [[0, 1, 0]] * 5
    assert (
        "2 of 10 answers ended at the limit of 256 tokens without an answer; a model that thinks "
        "needs more: raise probe.judge.endpoint.max_tokens; 2 of 10 answers came as a thought "
        "without content: switch off the model's thinking, or the server's reasoning parser."
    ) in caplog.text


@pytest.mark.parametrize(
    "trouble",
    [
        status(500),
        status(503),
        status(429, retry_after="0.1"),
        half,
        late(3, GOOD),
    ],
    ids=["500", "503", "429", "dies half way", "timeout"],
)
def test_passing_trouble_is_waited_out(tmp_path, trouble):
    with serving(lambda i: trouble if i < 2 else GOOD) as server:
        found = endpoint(server.url, tmp_path, timeout=1, concurrency=2).judge(["a", "b"])
        assert found.status == ["ok", "ok"]
        assert len(server.requests) >= 4


def test_the_servers_wish_to_wait_is_honoured(tmp_path):
    with serving(lambda i: GOOD if i else status(429, retry_after="1.2")) as server:
        endpoint(server.url, tmp_path).judge(["a"])
        first, second = (r["at"] for r in server.requests)
    assert second - first >= 1.1


@pytest.mark.parametrize("body", [b"<html>busy</html>", b"{}", b'{"choices": []}', b"", b"[1"])
def test_garbage_stops_with_a_sentence_and_loses_nothing(tmp_path, body):
    with serving(lambda i: GOOD if i < 3 else garbage(body)) as server:
        judge = endpoint(server.url, tmp_path, concurrency=1, max_retries=0)
        with pytest.raises(VersatuneError, match=r"no answer to 2 of 5 texts.*run again"):
            judge.judge(list("abcde"))
    assert len((tmp_path / ANSWERS).read_text().splitlines()) == 3


def test_a_server_that_dies_half_way_is_gone_on_with(tmp_path):
    dead = {"now": True}
    with serving(lambda i: status(500) if dead["now"] and i >= 6 else GOOD) as server:
        judge = endpoint(server.url, tmp_path, concurrency=2, max_retries=0)
        with pytest.raises(VersatuneError, match="no answer to 4 of 10"):
            judge.judge(list("abcdefghij"))
        dead["now"] = False
        asked = len(server.requests)
        assert judge.judge(list("abcdefghij")).ok.all()
        assert len(server.requests) - asked == 4


def test_few_failures_are_counted_not_fatal(tmp_path):
    with serving(lambda i: status(500) if i == 0 else GOOD) as server:
        judge = endpoint(server.url, tmp_path, concurrency=1, max_retries=0)
        found = judge.judge(list("abcdefghij"))
    assert found.status.count("failed") == 1
    assert found.ok.sum() == 9


def test_a_line_cut_off_by_a_crash_is_asked_again(tmp_path):
    with serving(lambda _: GOOD) as server:
        endpoint(server.url, tmp_path).judge(["a", "b"])
        file = tmp_path / ANSWERS
        file.write_text(file.read_text()[:-30])
        assert endpoint(server.url, tmp_path).judge(["a", "b"]).ok.all()
        assert len(server.requests) == 3
        assert endpoint(server.url, tmp_path).judge(["a", "b"]).ok.all()
        assert len(server.requests) == 3


def test_a_prompt_the_servers_filter_turns_down_is_refused_and_no_more(tmp_path):
    """As Azure does it: 400 with a code, where other servers end their answer early."""

    def filtered(handler, _: dict) -> None:
        handler.send(400, b'{"error": {"message": "filtered", "code": "content_filter"}}')

    with serving(lambda i: filtered if i == 1 else GOOD) as server:
        judge = endpoint(server.url, tmp_path, concurrency=1)
        assert judge.judge(["a", "b", "c"]).status == ["ok", "refused", "ok"]
        assert judge.judge(["a", "b", "c"]).status == ["ok", "refused", "ok"]
        assert len(server.requests) == 3


@pytest.mark.parametrize("code", [400, 401, 403, 404])
def test_hopeless_answers_stop_at_once(tmp_path, code):
    with serving(lambda _: status(code)) as server:
        judge = endpoint(server.url, tmp_path, concurrency=1)
        with pytest.raises(VersatuneError, match=rf"refuses model 'm': {code}"):
            judge.judge(["a", "b", "c"])
        assert len(server.requests) <= 2


REFUSALS = {
    "max_tokens": {
        "message": "Unsupported parameter: 'max_tokens' is not supported with this model. "
        "Use 'max_completion_tokens' instead.",
        "type": "invalid_request_error",
        "param": "max_tokens",
        "code": "unsupported_parameter",
    },
    "temperature": {
        "message": "Unsupported value: 'temperature' does not support 0 with this model. Only the "
        "default (1) value is supported.",
        "type": "invalid_request_error",
        "param": "temperature",
        "code": "unsupported_value",
    },
}
"""What servers answer for models that think, as they were seen."""


def test_what_the_model_does_not_take_is_asked_for_otherwise(tmp_path, caplog):
    def thinker(handler, body):
        if refused := next((name for name in REFUSALS if name in body), None):
            handler.send(400, json.dumps({"error": REFUSALS[refused]}).encode())
        else:
            GOOD(handler, body)

    with serving(lambda _: thinker) as server:
        judge = endpoint(server.url, tmp_path, concurrency=1)
        found = judge.judge(["a", "b", "c"])
        bodies = [request["body"] for request in server.requests]
    assert found.status == ["ok"] * 3
    assert len(bodies) == 5
    assert all(body["max_completion_tokens"] == 256 for body in bodies[1:])
    assert not any("max_tokens" in body for body in bodies[1:])
    assert not any("temperature" in body for body in bodies[2:])
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(said) == 2
    assert "takes no max_tokens for model 'm'; it is asked for as max_completion_tokens" in said[0]
    assert "takes no temperature for model 'm'; it is left to the server" in said[1]


def test_a_length_that_is_too_long_is_refused_as_it_is(tmp_path):
    told = {"message": "'max_tokens' or 'max_completion_tokens' is too large: 256."}
    body = json.dumps({"error": told}).encode()
    with serving(lambda _: lambda handler, _: handler.send(400, body)) as server:
        with pytest.raises(VersatuneError, match="is too large: 256"):
            endpoint(server.url, tmp_path, concurrency=1).judge(["a"])
        assert len(server.requests) == 1


def test_no_server_at_all(tmp_path):
    judge = endpoint("http://127.0.0.1:9/v1", tmp_path, max_retries=0)
    with pytest.raises(VersatuneError, match=r"127.0.0.1:9/v1 gave no answer to 1 of 1"):
        judge.judge(["a"])


def test_a_model_must_be_named(tmp_path):
    with pytest.raises(VersatuneError, match=r"probe.judge.endpoint.server.model is empty"):
        endpoint("http://127.0.0.1:9/v1", tmp_path, model="")


def test_requests_are_many_but_not_too_many(tmp_path):
    with serving(lambda _: late(0.2, GOOD)) as server:
        endpoint(server.url, tmp_path, concurrency=3).judge(list("abcdefghi"))
        assert server.busiest == 3


def test_requests_keep_to_the_rate(tmp_path):
    with serving(lambda _: GOOD) as server:
        endpoint(server.url, tmp_path, requests_per_minute=600).judge(list("abcdef"))
        times = [r["at"] for r in server.requests]
    assert times[-1] - times[0] >= 0.45


def test_further_tries_keep_to_the_rate_too(tmp_path):
    with serving(lambda i: GOOD if i else status(429, retry_after="0.01")) as server:
        endpoint(server.url, tmp_path, requests_per_minute=100).judge(["a"])
        first, second = (r["at"] for r in server.requests)
    assert second - first >= 0.55


def test_the_key_is_sent_and_never_written(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    with serving(lambda _: GOOD) as server:
        endpoint(server.url, tmp_path, key="sk-secret-7").judge(["a"])
        assert server.authorisations == {"Bearer sk-secret-7"}
    assert "sk-secret-7" not in caplog.text
    assert "sk-secret-7" not in (tmp_path / ANSWERS).read_text()


def made(folder, clean, params):
    piece = train(clean, params, About(DOMAINS, keep=folder / "answers"))
    return make_folder(piece, folder / "j")


def test_training_measures_the_endpoints_errors(tmp_path, clean):
    def reply(_: int):
        def answer(handler, body) -> None:
            text = body["messages"][1]["content"]
            best = max(DOMAINS, key=lambda d: sum(w in text for w in HINTS[d]))
            chat(json.dumps({best: 1}))(handler, body)

        return answer

    with serving(reply) as server:
        params = EndpointParams(server={"url": server.url, "model": "m"}, labelled_per_domain=10)
        ref = made(tmp_path, clean, params)
        assert len(server.requests) == 30
        again = made(tmp_path, clean, params)
        assert len(server.requests) == 30
    assert ref == again
    facts = dict(ref.metadata)
    assert facts.pop("accuracy") > 0.9
    assert facts == {
        "kind": "endpoint",
        "name": "m at an endpoint",
        "domains": list(DOMAINS),
        "descriptions": DOMAINS,
        "labelled_rows": 30,
        "labelled_without_answer": 0,
        "labelled_failed": 0,
        "prompt_tokens": 1200,
        "completion_tokens": 270,
    }
    about = About(keep=tmp_path / "answers")
    opened = open_judge(ref, JudgeParams(kind="endpoint", endpoint=params), about)
    assert opened.system == Endpoint(DOMAINS, params, about).system


def test_a_judge_made_anew_pays_for_no_answer_twice(tmp_path, clean):
    """One row more or another number of labelled rows: kept answers are of texts, not of a run."""
    with serving(lambda _: GOOD) as server:
        settings = {"server": {"url": server.url, "model": "m"}}
        few = EndpointParams(labelled_per_domain=119, **settings)
        made(tmp_path, clean, few)
        asked = len(server.requests)
        texts = {r["body"]["messages"][1]["content"] for r in server.requests}
        assert asked == len(texts)
        more = EndpointParams(labelled_per_domain=120, **settings)
        ref = made(tmp_path, clean, more)
        assert ref.metadata["labelled_rows"] == 360
        assert len(server.requests) - asked <= 3


def test_rows_without_an_answer_are_asked_about_again_by_the_next_run(tmp_path, clean):
    with serving(lambda i: GOOD if i else status(500)) as server:
        server_params = {"url": server.url, "model": "m", "max_retries": 0}
        params = EndpointParams(server=server_params, labelled_per_domain=10)
        given = (tmp_path, clean, params)
        ref = made(*given)
        assert (ref.metadata["labelled_rows"], ref.metadata["labelled_failed"]) == (29, 1)
        piece = train(clean, params, About(DOMAINS, keep=tmp_path / "answers"))
        assert not piece.enough(ref)
        asked = len(server.requests)
        ref = made(*given)
        assert (ref.metadata["labelled_rows"], ref.metadata["labelled_failed"]) == (30, 0)
        assert piece.enough(ref)
        assert len(server.requests) - asked == 1
        assert made(*given) == ref
        assert len(server.requests) - asked == 1


HINTS = {
    "law": ["court", "judge", "clause", "tort"],
    "medicine": ["dose", "drug", "patient", "fever"],
    "other": ["river", "poem", "bread", "song"],
}


def test_a_judge_that_never_answers_in_json_is_refused(tmp_path, clean):
    with serving(lambda _: chat("It is about law.")) as server:
        params = EndpointParams(server={"url": server.url, "model": "m"}, labelled_per_domain=10)
        with pytest.raises(VersatuneError, match=r"fewer than two rows of law .*\(0 of 30"):
            made(tmp_path, clean, params)
    with serving(lambda _: chat(None, "length", reasoning_content="Well")) as server:
        params = EndpointParams(server={"url": server.url, "model": "m"}, labelled_per_domain=10)
        with pytest.raises(VersatuneError, match=r"30 of 30 answers ended at .*raise probe\.judge"):
            made(tmp_path, clean, params)


def completion(text: str | None, finish: str = "stop", **more: str):
    choice = {"index": 0, "text": text, "finish_reason": finish, "logprobs": None, **more}
    body = {"id": "x", "object": "text_completion", "created": 0, "model": "m"}
    usage = {"prompt_tokens": 1, "completion_tokens": 5, "total_tokens": 6}
    answer = json.dumps({**body, "choices": [choice], "usage": usage}).encode()
    return lambda handler, _: handler.send(200, answer)


def sampler(url: str, **changed) -> ServerSampler:
    server = {"url": url, "model": "m", "timeout": 2, "max_retries": 0, "concurrency": 4}
    return ServerSampler(SamplingParams(source="server", server=server, **changed))


def test_served_samples_ask_for_the_models_own_distribution(tmp_path):
    with serving(lambda i: completion(f"text {i}", "length" if i == 1 else "stop")) as server:
        samples = first_samples(tmp_path / "s", sampler(server.url), 0, 4, 8)
        assert [s.index for s in samples] == list(range(8))
        assert sum(not s.ended for s in samples) == 1
        assert {s.n_tokens for s in samples} == {5}
        body = server.requests[0]["body"]
        assert (body["temperature"], body["top_p"], body["prompt"]) == (1, 1, "")
        assert "top_k" not in body
        assert len({r["body"]["seed"] for r in server.requests}) == 8
        assert first_samples(tmp_path / "s", sampler(server.url), 0, 4, 8) == samples
        assert len(server.requests) == 8


def test_a_served_sample_that_fails_is_tried_again_never_left_out(tmp_path):
    with serving(lambda i: garbage(b"{}") if i in (1, 4) else completion(f"text {i}")) as server:
        samples = first_samples(tmp_path / "s", sampler(server.url), 0, 4, 4)
        assert len(samples) == 4
    with (
        serving(lambda _: status(500)) as server,
        pytest.raises(VersatuneError, match=r"no answer to 4 of 4 requests"),
    ):
        first_samples(tmp_path / "t", sampler(server.url), 0, 4, 4)


def test_a_server_that_takes_thoughts_out_of_its_texts_is_refused(tmp_path):
    with (
        serving(lambda i: completion(f"text {i}", reasoning_content="so")) as server,
        pytest.raises(VersatuneError, match="switch off the server's reasoning parser"),
    ):
        first_samples(tmp_path / "s", sampler(server.url), 0, 4, 4)


def test_a_server_that_does_not_sample_is_refused(tmp_path):
    with (
        serving(lambda _: completion("the same")) as server,
        pytest.raises(VersatuneError, match="it does not sample"),
    ):
        first_samples(tmp_path / "s", sampler(server.url), 0, 4, 4)
    assert not list((tmp_path / "s").glob("wave_*"))
