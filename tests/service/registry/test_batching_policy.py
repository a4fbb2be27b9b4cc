"""The pace: requests share a pass where that costs less than a pass for each."""

from __future__ import annotations

from service.registry.batching_policy import BatchingPolicy


def test_requests_share_a_block_until_more_is_known() -> None:
    assert BatchingPolicy(8).target_batch_rows == 8


def test_requests_share_a_block_that_takes_no_longer_than_a_row() -> None:
    batching = BatchingPolicy(8)
    batching.record_pass(1, 0.010)
    batching.record_pass(8, 0.011)
    assert batching.target_batch_rows == 8


def test_requests_are_answered_one_by_one_where_each_row_takes_its_time() -> None:
    batching = BatchingPolicy(8)
    batching.record_pass(1, 0.010)
    batching.record_pass(8, 0.079)
    assert batching.target_batch_rows == 1


def test_a_pass_that_something_else_held_up_says_nothing() -> None:
    batching = BatchingPolicy(8)
    for _ in range(3):
        batching.record_pass(1, 0.010)
        batching.record_pass(8, 0.011)
        batching.record_pass(8, 5.0)
    assert batching.target_batch_rows == 8


def test_a_block_that_is_mostly_padding_says_nothing() -> None:
    batching = BatchingPolicy(8)
    batching.record_pass(1, 0.010)
    batching.record_pass(2, 0.020)
    assert batching.target_batch_rows == 8
