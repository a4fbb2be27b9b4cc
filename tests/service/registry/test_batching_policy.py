"""Requests share a forward pass if that takes less time than one pass each."""

from __future__ import annotations

from service.registry.batching_policy import BatchingPolicy


def test_target_is_a_block_before_any_measurement() -> None:
    assert BatchingPolicy(8).target_batch_rows == 8


def test_target_is_a_block_if_a_block_takes_as_long_as_a_row() -> None:
    batching = BatchingPolicy(8)
    batching.record_pass(1, 0.010)
    batching.record_pass(8, 0.011)
    assert batching.target_batch_rows == 8


def test_target_is_one_row_if_time_grows_with_the_rows() -> None:
    batching = BatchingPolicy(8)
    batching.record_pass(1, 0.010)
    for _ in range(32):
        assert batching.target_batch_rows == 8
        batching.record_pass(8, 0.079)
    assert batching.target_batch_rows == 1


def test_delayed_passes_are_ignored() -> None:
    batching = BatchingPolicy(8)
    for _ in range(3):
        batching.record_pass(1, 0.010)
        batching.record_pass(8, 0.011)
        batching.record_pass(8, 5.0)
    assert batching.target_batch_rows == 8


def test_a_delayed_first_pass_does_not_end_batching_for_ever() -> None:
    """One row each takes twice the time of shared passes, and no shared pass would be measured again."""
    batching = BatchingPolicy(8)
    batching.record_pass(1, 0.010)
    batching.record_pass(8, 5.0)
    assert batching.target_batch_rows == 8
    for _ in range(40):
        batching.record_pass(8, 0.011)
    assert batching.target_batch_rows == 8


def test_passes_of_mostly_padding_are_ignored() -> None:
    batching = BatchingPolicy(8)
    batching.record_pass(1, 0.010)
    batching.record_pass(2, 0.020)
    assert batching.target_batch_rows == 8
