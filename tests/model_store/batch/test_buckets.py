"""Batch jobs whose inputs and outputs are objects of a bucket."""

from __future__ import annotations

import io
from typing import Any

import obstore
import pytest
from obstore.store import from_url
from pyarrow import parquet

from model_store.batch.job import BatchJob, score_here
from model_store.batch.plan import BatchOptions, Part, Plan, ScoredModel, make_plan
from model_store.errors import ConflictError, InputError
from model_store.storage.input_files import list_input_files
from tests.model_store.batch.batch_inputs import make_table
from tests.model_store.conftest import BUCKETS, chess
from tests.model_store.s3 import S3

MODEL = ScoredModel("chess", 1, "ab" * 32)


@pytest.fixture(params=BUCKETS)
def server(request: pytest.FixtureRequest) -> S3:
    found: S3 = request.getfixturevalue(request.param)
    return found


def put(url: str, key: str, data: bytes) -> None:
    obstore.put(from_url(url, client_options={"allow_http": True}), key, data)


def put_inputs(url: str) -> None:
    for name, rows in (("in/a.parquet", 25), ("in/more/b.parquet", 10)):
        buffer = io.BytesIO()
        parquet.write_table(make_table(rows), buffer, row_group_size=10)
        put(url, name, buffer.getvalue())
    put(url, "in/c.csv", b"age,town\n" + b"30,Bath\n,York\n" * 50)
    put(url, "in/_SUCCESS", b"")


def plan_of(*patterns: str) -> Plan:
    return make_plan(MODEL, list_input_files(patterns), BatchOptions(("age",), range_bytes=200), lambda table: None)


def score(job: BatchJob, parts: list[Part]) -> list[Any]:
    return list(score_here(job, parts, chess()))


def test_objects_are_scored_into_objects_once(server: S3) -> None:
    url = server.url
    put_inputs(url)
    plan = plan_of(f"{url}/in/**/*.parquet", f"{url}/in/*.csv")
    assert [planned.file.location.removeprefix(url) for planned in plan.files] == [
        "/in/a.parquet", "/in/c.csv", "/in/more/b.parquet",
    ]  # fmt: skip
    job = BatchJob(plan, f"{url}/out/")
    parts = job.missing_parts()
    assert [part.number for part in parts] == list(range(8))
    first = score(job, parts[::2])
    assert job.finish() == 4
    again = BatchJob(plan, f"{url}/out")
    assert [result.written for result in score(again, parts)] == [False, True] * 4
    assert (sum(result.rows for result in first), again.finish()) == (sum(r.rows for r in first), 0)
    outputs = list_input_files([f"{url}/out/"])
    assert [file.name for file in outputs] == [part.key for part in parts]
    rows = [row for file in outputs for row in parquet.read_table(file.open()).to_pylist()]
    assert len(rows) == 25 + 100 + 10
    model = chess()
    ages = make_table(25).to_pylist()
    expected = model.predict([[row["age"], row["town"]] for row in ages])
    assert [row["probability_yes"] for row in rows[:25]] == [one["probabilities"]["yes"] for one in expected]


def test_an_object_that_changes_is_not_read(s3: S3) -> None:
    put_inputs(s3.url)
    plan = plan_of(f"{s3.url}/in/c.csv")
    job = BatchJob(plan, f"{s3.url}/out")
    put(s3.url, "in/c.csv", b"age,town\n30,Bath\n" * 50)
    results = score(job, job.missing_parts())
    assert all("the file has changed since the job began" in result.store_error for result in results)
    with pytest.raises(ConflictError, match=r"in/c\.csv has changed since the job began"):
        BatchJob(plan_of(f"{s3.url}/in/c.csv"), f"{s3.url}/out")


def test_a_lost_response_of_a_put_is_no_second_part(s3: S3) -> None:
    put_inputs(s3.url)
    job = BatchJob(plan_of(f"{s3.url}/in/a.parquet"), f"{s3.url}/out")
    s3.responses_to_lose = 1
    assert [result.written for result in score(job, job.missing_parts())] == [True] * 3
    assert job.finish() == 0


def test_a_bucket_that_fails_is_an_error_of_the_part(s3: S3) -> None:
    put_inputs(s3.url)
    job = BatchJob(plan_of(f"{s3.url}/in/a.parquet"), f"{s3.url}/out")
    parts = job.missing_parts()
    s3.forbidden = True
    (result, *_) = score(job, parts[:1])
    assert "a.parquet" in result.store_error
    s3.forbidden = False
    assert [result.written for result in score(job, parts)] == [True] * 3


def test_only_the_ranges_of_a_row_group_are_fetched(s3: S3) -> None:
    buffer = io.BytesIO()
    parquet.write_table(make_table(200_000), buffer, row_group_size=20_000)
    put(s3.url, "in/a.parquet", buffer.getvalue())
    job = BatchJob(plan_of(f"{s3.url}/in/a.parquet"), f"{s3.url}/out")
    parts, s3.sent = job.missing_parts(), 0
    assert score(job, parts[4:5])[0].written
    assert s3.sent < 0.25 * len(buffer.getvalue())


def test_a_pattern_without_objects_is_an_error(s3: S3) -> None:
    with pytest.raises(InputError, match="expected files, found none"):
        list_input_files([f"{s3.url}/in/*.parquet"])
