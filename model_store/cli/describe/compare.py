"""`models compare`: which of two versions is better, and what differs."""

from __future__ import annotations

import click

from model_store.cli import tables
from model_store.cli.common import print_json
from model_store.cli.group import command, resolve_reference
from model_store.cli.terminal import stdout
from model_store.evaluation.compare import compare
from model_store.registry.store import Store, open_store


@command("compare")
@click.argument("first", metavar="MODEL")
@click.argument("second", metavar="[OTHER]", required=False)
def compare_models(first: str, second: str | None, store: str, as_json: bool) -> None:
    """Compare two versions: metrics, inputs, layers, job.

    Says which one is better, and whether the difference in accuracy or RMSE is statistically significant.

    Without OTHER, MODEL is compared with the newest version; if it is the newest, with the version before.
    """
    opened = open_store(store)
    models = _choose_pair(opened, first) if second is None else (first, second)
    references = [resolve_reference(opened, model) for model in models]
    names = tuple(f"{name}/{number}" for name, number in references)
    manifests = [opened.manifest(name, number)[1] for name, number in references]
    comparison = compare((names[0], manifests[0]), (names[1], manifests[1]))
    if as_json:
        print_json({"first": names[0], "second": names[1], **comparison.as_data()})
        return
    stdout.print(comparison.verdict.summary, style="bold", soft_wrap=True)
    if comparison.verdict.method is not None:
        stdout.print(comparison.verdict.method, soft_wrap=True)
    elif comparison.same_rows is False:
        stdout.print("Their metrics were measured on different rows.")
    stdout.print()
    for part in tables.comparison_tables(comparison, (names[0], names[1])):
        tables.print_table(part)


def _choose_pair(store: Store, model: str) -> tuple[str, str]:
    """Return the versions to compare if only `model` is named: its version and the newest, or the two newest.

    UsageError if the model has only one version.
    """
    name, number = resolve_reference(store, model)
    *earlier, newest = store.versions(name)
    if number != newest:
        return f"{name}/{number}", f"{name}/{newest}"
    if not earlier:
        problem = f"expected two versions to compare, found only {name}/{newest}"
        raise click.UsageError(f"{problem}: train another version, or name one of another model after it")
    return f"{name}/{earlier[-1]}", f"{name}/{newest}"
