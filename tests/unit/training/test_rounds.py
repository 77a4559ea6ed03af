"""The state of a mixture: plans that are functions of it, and files that hold it."""

import json

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard

from versatune.artifacts import FolderRef
from versatune.data.store import TokenizedSplit
from versatune.errors import VersatuneError
from versatune.mixing.strategies import Context, Signals, Strategy
from versatune.modeling.heldout import HeldOut
from versatune.training import TrainParams, rounds
from versatune.training.batches import RoundSampler
from versatune.training.budget import learning_by_round, rate_by_round
from versatune.training.job import MixtureInputs
from versatune.training.rounds import Mixture

START = {"law": 0.2, "medicine": 0.3, "code": 0.5}
PARAMS = {
    "rounds": 3,
    "steps_per_round": 4,
    "max_length": 64,
    "per_device_train_batch_size": 2,
    "strategy": {"name": "foster", "potential_source": "progress", "sigma": 5.0},
}


def losses(*values: float) -> dict[str, HeldOut]:
    return {
        name: HeldOut(nats_per_token=v, bits_per_byte=v, stderr=0.1, n_rows=2, n_tokens=9)
        for name, v in zip(START, values, strict=True)
    }


def begun(train: TokenizedSplit, rows_per_step: int = 2, **changes: object) -> Mixture:
    params = TrainParams.model_validate({**PARAMS, **changes})
    mixture = Mixture(params, train, MixtureInputs(initial_weights=START), rows_per_step)
    mixture.begin(losses(3.0, 3.0, 3.0), 0.5)
    return mixture


@pytest.fixture(scope="module")
def split(tiny_store: FolderRef) -> TokenizedSplit:
    return TokenizedSplit.load(tiny_store, "train")


def finish(mixture: Mixture, *values: float) -> None:
    mixture.finish(4, losses(*values), np.array([2.9, np.nan, 2.8]), 10.0, 1.0)


def test_a_loaded_state_plans_the_same_rows(split: TokenizedSplit) -> None:
    one = begun(split)
    one.rows(0)
    finish(one, 2.9, 2.5, 2.0)
    other = Mixture(one.params, split, MixtureInputs(initial_weights=START), 2)
    other.load(json.loads(json.dumps(one.state())))
    assert other.rows(1) == one.rows(1)
    assert other.state()["weights"] == one.state()["weights"]
    finish(one, 2.8, 2.4, 1.9)
    finish(other, 2.8, 2.4, 1.9)
    assert other.rows(2) == one.rows(2)
    assert other.state()["weights"] == one.state()["weights"]


def rows_of(*rows: tuple[float, float]) -> dict[str, HeldOut]:
    return {
        name: HeldOut(
            nats_per_token=sum(r) / 4, bits_per_byte=1, stderr=0.1, n_rows=2, n_tokens=4, row_nats=r
        )
        for name, r in zip(START, rows, strict=True)
    }


def steered(split: TokenizedSplit) -> Mixture:
    params = TrainParams.model_validate({**PARAMS, "strategy": {"name": "mixing_law"}})
    return Mixture(params, split, MixtureInputs(initial_weights=START), 2)


def test_strategies_get_paired_errors_and_what_is_left_to_learn(
    split: TokenizedSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row's loss halved: no error at all, however different the rows. Else by hand."""
    mixture = steered(split)
    mixture.begin(rows_of((8.0, 2.0), (4.0, 4.0), (4.0, 4.0)), 0.5)
    seen: list[Signals] = []
    real = Strategy.update
    monkeypatch.setattr(Strategy, "update", lambda s, x: (seen.append(x), real(s, x))[1])
    for rows in ((4.0, 1.0), (2.0, 2.0), (1.0, 3.0)), ((4.0, 1.0), (1.0, 2.0), (2.0, 2.0)):
        mixture.rows(mixture.round)
        mixture.finish(4, rows_of(*rows), np.full(3, 2.0), 1.0, 0.1)
    # Code: parts of the sum .5, .5 and then .25, .75: sqrt(2 / 1 * 2 * .25^2) = .5.
    np.testing.assert_allclose(seen[0].since_base_stderr, [0, 0, 0.5], atol=1e-12)
    # Medicine: .5, .5 and then 1/3, 2/3: sqrt(2 * 2 * (1/6)^2) = 1/3; code is back at .5, .5.
    np.testing.assert_allclose(seen[1].since_base_stderr, [0, 1 / 3, 0], atol=1e-12)
    assert seen[0].learning is not None and seen[0].learning_left is not None
    parts = learning_by_round(mixture.params)
    assert seen[0].learning == pytest.approx(parts[0])
    assert seen[0].learning_left == pytest.approx(parts[1] + parts[2])
    assert seen[1].learning_left == pytest.approx(parts[2])
    assert [s.rate for s in seen] == rate_by_round(mixture.params)[:2].tolist()
    # Passes so far are the history's.
    for signals in seen:
        rows = mixture.history[3 * signals.round : 3 * signals.round + 3]
        np.testing.assert_array_equal(signals.passes, [row["epochs_seen"] for row in rows])


def test_a_resumed_mixture_pairs_with_the_rows_measured_before(split: TokenizedSplit) -> None:
    one = steered(split)
    one.begin(rows_of((8.0, 2.0), (4.0, 4.0), (4.0, 4.0)), 0.5)
    one.rows(0)
    one.finish(4, rows_of((4.0, 1.1), (3.0, 3.1), (1.0, 3.0)), np.full(3, 2.0), 1.0, 0.1)
    other = steered(split)
    other.load(json.loads(json.dumps(one.state())))
    for mixture in (one, other):
        mixture.rows(1)
        mixture.finish(8, rows_of((3.0, 1.0), (2.9, 3.0), (0.5, 2.0)), np.full(3, 2.0), 1.0, 0.1)
    assert one.state()["weights"] == other.state()["weights"]
    assert one.state()["strategy"] == other.state()["strategy"]
    assert one.history[-1]["reason"] == other.history[-1]["reason"]


def test_runs_on_other_domains_are_refused(split: TokenizedSplit) -> None:
    params = TrainParams.model_validate({**PARAMS, "strategy": {"name": "mixing_law"}})
    mixture = Mixture(
        params, split, MixtureInputs(initial_weights=START, traces={"domains": ["law", "code"]}), 2
    )
    with pytest.raises(VersatuneError, match="runs are of law, code"):
        mixture.begin(losses(3.0, 3.0, 3.0), 0.5)


@pytest.mark.parametrize(
    ("processes", "accumulated", "size"), [(1, 1, 8), (1, 8, 1), (2, 1, 4), (2, 2, 2), (4, 2, 1)]
)
def test_rows_do_not_depend_on_how_a_step_is_divided(
    split: TokenizedSplit, processes: int, accumulated: int, size: int
) -> None:
    """Each step has its 8 rows of the plan, whichever process and batch takes them."""
    mixture = begun(split, rows_per_step=8)
    shards = [
        list(
            BatchSamplerShard(
                RoundSampler(mixture.rows, size, 4 * accumulated * processes), processes, rank
            )
        )
        for rank in range(processes)
    ]
    for step in range(4):
        batches = slice(step * accumulated, (step + 1) * accumulated)
        taken = [row for shard in shards for batch in shard[batches] for row in batch]
        assert sorted(taken) == sorted(mixture.rows(0)[step * 8 : (step + 1) * 8])


def test_without_packing_each_step_keeps_its_rows_and_its_batches_hold_like_lengths(
    split: TokenizedSplit,
) -> None:
    """Sorting over steps would make steps of short rows, of few domains and of heavy tokens."""
    mixture = begun(split, rows_per_step=8, packing=False)
    rows = mixture.rows(0)
    planned = mixture.planner.plan_round(
        list(START.values()), mixture.planner.initial_state(), 32
    ).examples.tolist()
    for start in range(0, 32, 8):
        step = [i for (i,) in rows[start : start + 8]]
        assert sorted(step) == sorted(planned[start : start + 8])
        assert split.lengths[step].tolist() == sorted(split.lengths[step].tolist(), reverse=True)
    one_by_one = begun(split, rows_per_step=8, packing=False, per_device_train_batch_size=1)
    assert one_by_one.rows(0) == rows


def test_rows_of_another_round_are_a_mistake(split: TokenizedSplit) -> None:
    with pytest.raises(RuntimeError, match="round 1 in round 0"):
        begun(split).rows(1)


def test_the_history_counts_by_hand(split: TokenizedSplit) -> None:
    mixture = begun(split)
    examples = [i for row in mixture.rows(0) for i in row]
    finish(mixture, 2.9, 2.5, 2.0)
    rows = mixture.history[3:]
    assert [row["domain"] for row in rows] == list(START)
    for j, row in enumerate(rows):
        own = [i for i in examples if split.starts[j] <= i < split.starts[j + 1]]
        assert row["realised_share_rows"] == pytest.approx(len(own) / len(examples))
        tokens = split.lengths[own].sum() / split.lengths[examples].sum()
        assert row["realised_share_tokens"] == pytest.approx(tokens)
        assert row["epochs_seen"] == pytest.approx(len(own) / len(split.rows(j)))
        assert row["weight"] == START[row["domain"]]
        assert row["tokens_per_second"] == pytest.approx(split.lengths[examples].sum() / 10)
        # A second of measuring, planning and updating on top.
        assert (row["seconds"], row["measurement_seconds"]) == (10, pytest.approx(1, abs=0.5))
    assert [row["train_loss"] for row in rows] == [2.9, None, 2.8]


def test_the_sampler_divides_rows_into_batches() -> None:
    asked: list[int] = []

    def plan(round_: int) -> list[tuple[int, ...]]:
        asked.append(round_)
        return [(i,) for i in range(6)]

    sampler = RoundSampler(plan, batch_size=2, n_batches=3)
    sampler.set_epoch(4)
    assert list(sampler) == [[(0,), (1,)], [(2,), (3,)], [(4,), (5,)]]
    assert (len(sampler), asked) == (3, [4])


def test_safety_and_speed_are_no_part_of_the_fingerprint() -> None:
    plain = TrainParams()
    moved = TrainParams(save_total_limit=9, dataloader_num_workers=3)
    assert plain.fingerprint_fields() == moved.fingerprint_fields()
    assert plain.fingerprint_fields() != TrainParams(seed=1).fingerprint_fields()


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"rounds": 0}, "rounds"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"strategy": {"name": "nonsense"}}, "strategy"),
        ({"lora": {"r": 4}, "dtype": "bfloat16"}, "lora with dtype bfloat16"),
        ({"batch_size": 4}, "batch_size"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        TrainParams.model_validate(wrong)


def test_the_history_has_all_its_columns_from_the_base_model_on(split: TokenizedSplit) -> None:
    mixture = begun(split)
    of_steps = {"learning_rate": 0.5, "grad_norm": 2.0, "mfu": None, "peak_memory_bytes": 7}
    shares = [f"realised_share_{unit}" for unit in ("rows", "tokens", "supervised_tokens")]
    nothing = [*shares, "train_loss", "learnable_potential", "forgetting_degree"]
    assert mixture.history[0] == {
        **dict.fromkeys([*nothing, "since_base_stderr", "tokens_per_second", *of_steps]),
        **{"round": 0, "step": 0, "domain": "law", "weight": 0.2, "epochs_seen": 0.0},
        **{"validation_loss": 3.0, "validation_stderr": 0.1, "validation_bits_per_byte": 3.0},
        **{"seconds": 0.5, "measurement_seconds": 0.5, "reason": "the base model"},
    }
    mixture.rows(0)
    trained = np.array([2.9, np.nan, 2.8])
    decision = mixture.finish(4, losses(2.9, 2.5, 2.0), trained, 10.0, 1.0, of_steps)
    row = mixture.history[3]
    assert row.keys() == mixture.history[0].keys()
    assert decision.reason and row["reason"] == decision.reason
    assert {key: row[key] for key in of_steps} == of_steps
    # Progress of law: 0.1 of 3.
    assert row["learnable_potential"] == pytest.approx(0.1 / 3) and row["forgetting_degree"] == 0
    assert (row["round"], row["step"], row["validation_loss"]) == (1, 4, 2.9)
    mixture.rows(1)
    mixture.finish(8, losses(2.9, 2.5, 2.0), np.full(3, 2.0), 10.0, 1.0)
    assert {key: mixture.history[6][key] for key in of_steps} == dict.fromkeys(of_steps)


def test_the_work_of_steps_is_that_of_their_rows(split: TokenizedSplit) -> None:
    mixture = begun(split)
    examples = [i for row in mixture.rows(0)[2:6] for i in row]  # two rows a step
    work = mixture.work(1, 3)
    lengths = split.lengths[examples].astype(float)
    assert work.tokens == lengths.sum() and work.squares == (lengths**2).sum()
    assert work.supervised == split.supervised[examples].sum()


@pytest.mark.parametrize("action", ["stop", "rollback"])
def test_what_a_guard_ends_goes_back_only_if_it_says_so(split: TokenizedSplit, action: str) -> None:
    guard = {"action": action, "threshold": 0.05, "patience": 1}
    strategy = {
        "name": "expand",
        "rule": "paper",
        "target": "law",
        "potential_source": "progress",
        "guard": guard,
    }
    mixture = begun(split, strategy=strategy)
    assert mixture.rolls_back is False and mixture.ended is None
    for values in ((2.9, 3.0, 3.0), (2.8, 4.0, 4.0)):
        mixture.rows(mixture.round)
        finish(mixture, *values)
    assert mixture.ended is not None and mixture.ended.startswith("guard: ")
    assert (mixture.rolls_back, mixture.best_round) == (action == "rollback", 1)
    other = Mixture(mixture.params, split, MixtureInputs(initial_weights=START), 2)
    other.load(json.loads(json.dumps(mixture.state())))
    assert (other.ended, other.rolls_back) == (mixture.ended, mixture.rolls_back)
    assert other.best_round == 1


@pytest.mark.parametrize("unit", ["rows", "tokens", "supervised_tokens"])
def test_proportional_shares_count_in_the_unit(split: TokenizedSplit, unit: str) -> None:
    mixture = begun(split, unit=unit, strategy={"name": "proportional"})
    sizes = {"tokens": split.lengths, "supervised_tokens": split.supervised}.get(unit)
    counts = [len(split.rows(j)) if sizes is None else sizes[split.rows(j)].sum() for j in range(3)]
    assert mixture.state()["weights"] == pytest.approx([n / sum(counts) for n in counts])


def test_strategies_know_the_passes_and_the_learning_of_the_whole_run(
    split: TokenizedSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3 rounds of 4 steps of 2 rows of 64 tokens, over the tokens of each domain."""
    seen: list[Context] = []
    real = rounds.make_strategy
    monkeypatch.setattr(rounds, "make_strategy", lambda p, c: (seen.append(c), real(p, c))[1])
    mixture = begun(split, unit="tokens")
    tokens = [split.lengths[split.rows(j)].sum() for j in range(3)]
    assert seen[0].passes == pytest.approx([3 * 4 * 2 * 64 / n for n in tokens])
    assert seen[0].learning == pytest.approx(learning_by_round(mixture.params).sum())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("initial_weights", "the initial mixture"),
        ("detected_shares", "the detected shares"),
        ("reference_losses", "the references"),
    ],
)
def test_numbers_of_fewer_domains_are_refused(
    split: TokenizedSplit, given: str, words: str
) -> None:
    params = TrainParams.model_validate(PARAMS)
    mixture = Mixture(params, split, MixtureInputs(**{given: {"law": 1.0}}), 2)
    with pytest.raises(VersatuneError, match=f"^{words} name no value for medicine, code"):
        mixture.begin(losses(3.0, 3.0, 3.0), 0.5)


def test_gamma_is_measured_against_the_references(split: TokenizedSplit) -> None:
    params = TrainParams.model_validate({**PARAMS, "strategy": {"name": "foster"}})
    known = MixtureInputs(
        initial_weights=START, reference_losses={"code": 2.0, "law": 1.5, "medicine": 1.0}
    )
    mixture = Mixture(params, split, known, 2)
    assert mixture.base_losses == []
    mixture.begin(losses(3.0, 3.0, 3.0), 0.5)
    assert mixture.base_losses == [3.0, 3.0, 3.0]
    mixture.rows(0)
    assert mixture.planning_seconds > 0
    finish(mixture, 2.0, 2.0, 2.0)
    gamma = [row["learnable_potential"] for row in mixture.history[3:]]
    assert gamma == pytest.approx([0.25, 0.5, 0.0])


def test_inverse_starts_from_what_was_detected(split: TokenizedSplit) -> None:
    params = TrainParams.model_validate({**PARAMS, "strategy": {"name": "inverse"}})
    detected = {"code": 0.2, "law": 0.5, "medicine": 0.3}
    mixture = Mixture(params, split, MixtureInputs(detected_shares=detected), 2)
    mixture.begin(losses(3.0, 3.0, 3.0), 0.5)
    assert mixture.domains == ("law", "medicine", "code")
    assert mixture.state()["weights"] == pytest.approx([0.25, 0.35, 0.4])
