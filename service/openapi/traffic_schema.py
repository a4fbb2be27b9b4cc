"""The schema of `GET /traffic`."""

from __future__ import annotations

from service.openapi.json_schema import STRING, Json, array_schema, object_schema

_NUMBER: Json = {"type": "number"}
_SECONDS: Json = {"type": ["number", "null"], "description": "null without predictions; exact to a bucket of /metrics."}
_PERCENTILES: dict[str, Json] = {f"p{percent}_seconds": _SECONDS for percent in (50, 95, 99)}
_VERSION: dict[str, Json] = {"model": STRING, "version": STRING}
_SERIES = object_schema(
    "time requests_per_second failed_per_second",
    time=_NUMBER,
    requests_per_second=_NUMBER,
    failed_per_second=_NUMBER,
    **_PERCENTILES,
)

TRAFFIC = object_schema(
    "time minutes model models now versions stages errors batches series drift recent reloads",
    time=_NUMBER | {"description": "Unix time of the answer."},
    minutes={"type": "integer"},
    since=_NUMBER | {"description": "Begin of the first minute with traffic: rates of versions are from then on."},
    model=STRING,
    models=array_schema(STRING),
    now=object_schema(
        "", **{f"{name}_per_second": _NUMBER for name in ("requests", "rows", "errors")}, p95_seconds=_NUMBER
    ),
    versions=array_schema(
        object_schema(
            "model version requests failed",
            **_VERSION,
            **dict.fromkeys(("requests", "requests_per_second", "rows", "failed", "failed_share"), _NUMBER),
            **_PERCENTILES,
        )
    ),
    stages=array_schema(object_schema("stage", stage=STRING, **_PERCENTILES)),
    errors=array_schema(object_schema("code count", code=STRING, count=_NUMBER, versions=array_schema(STRING))),
    batches=array_schema(
        {
            **object_schema("from to passes", to={"type": ["integer", "null"]}, passes=_NUMBER),
            "description": "Forward passes by their number of rows.",
        }
    ),
    series=array_schema(_SERIES) | {"description": "By minute."},
    drift=array_schema(object_schema("column index limit", **_VERSION, column=STRING, index=_NUMBER, limit=_NUMBER)),
    recent=array_schema(
        object_schema("time method target status seconds", **_VERSION, time=_NUMBER, method=STRING, target=STRING)
    )
    | {"description": "The newest predictions and errors, at most 100."},
    reloads=array_schema(
        object_schema("time subject text kind", time=_NUMBER, subject=STRING, text=STRING, kind=STRING)
    ),
)
