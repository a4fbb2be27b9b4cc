"""`models list | show`: the models of a store, and all about one version."""

from __future__ import annotations

from itertools import chain
from typing import Any

import click

from model_store.artifact import npz
from model_store.cli import tables
from model_store.cli.common import print_json, print_note
from model_store.cli.group import command, resolve_reference
from model_store.cli.terminal import stdout
from model_store.errors import ArtifactError, ModelStoreError
from model_store.evaluation.record import TrainingRecord
from model_store.registry.alias_log import DEFAULT_ALIAS, why_default
from model_store.registry.store import Store, open_store
from model_store.schema.signature_json import read_signature


@command("list")
@click.argument("name", required=False)
def list_models(name: str | None, store: str, as_json: bool) -> None:
    """List the models, or the versions of the model NAME.

    "default" is the version that requests without a version get: that of the alias default, or the newest one while
    that alias is not set. A service with SERVE_FOLLOW=newest ignores the alias. A version without a record of its
    publication has the date of its file.
    """
    opened = open_store(store)
    if name is not None:
        _list_versions(opened, name, as_json)
        return
    models = [_summary(opened, name, state) for name, state in opened.state().items()]
    if as_json:
        print_json(models)
        return
    table = tables.new_table("model", ">default", "follows", "versions", "published", "aliases", "description")
    for model in models:
        aliases = ", ".join(f"{alias} → {number}" for alias, number in model["aliases"].items())
        description = model["error"] or model["description"]
        follows = "alias default" if model["follows"] == DEFAULT_ALIAS else model["follows"]
        published = model["published"] and tables.publication_date(model["published"])
        row = (model["name"], str(model["serves"]), follows, _ranges(model["versions"]), published)
        table.add_row(*row, aliases, description)
    tables.print_table(table)
    if not models:
        print_note(f"No models in {store} yet. Publish one with `train JOB.toml`.")


@command("show")
@click.argument("model", metavar="MODEL")
def show(model: str, store: str, as_json: bool) -> None:
    """Show a version: inputs, output, layers, metrics, job."""
    opened = open_store(store)
    name, number = resolve_reference(opened, model)
    version, manifest = opened.manifest(name, number)
    all_aliases, default = opened.aliases(name), opened.resolve(name)
    aliases = [alias for alias, version in all_aliases.items() if version == number]
    signed_by = opened.signing_keys(name, number)
    published = opened.publication(name, number).as_dict()
    file_size, page = opened.size_bytes(name, number), opened.report_location(name, number)
    try:
        signature = read_signature(manifest["signature"])
        network = npz.network_without_weights(manifest)
    except ValueError as e:
        raise ArtifactError(f"{version.location}: {e}") from e
    if as_json:
        layers = tables.layer_data(network)
        print_json(
            {
                "name": name,
                "version": number,
                "description": manifest["description"],
                "default": default == number,
                "serves": default,
                "follows": DEFAULT_ALIAS if DEFAULT_ALIAS in all_aliases else "newest",
                "digest": version.digest,
                "published": published,
                "bytes": file_size,
                "path": version.location,
                "report": page,
                "aliases": aliases,
                "signed_by": signed_by,
                "inputs": [column.public_details() for column in signature.inputs],
                "output": signature.output.public_details(),
                "layers": layers,
                "parameters": sum(layer["parameters"] for layer in layers),
                "manifest": manifest,
            }
        )
        return
    training = signature.restore_label_order(manifest["training"])
    stdout.print(f"{name}/{number}", style="bold")
    head = [
        ("description", manifest["description"]),
        ("aliases", aliases),
        ("published", tables.describe_publication(published, "UTC")),
        *(("copied", tables.describe_copy(copy)) for copy in published["copies"]),
        ("default", f"{'this version' if default == number else f'version {default}'} ({why_default(all_aliases)})"),
        ("output", tables.describe_output(signature)),
        ("digest", version.digest),
        ("signed by", signed_by),
        ("size", tables.format_bytes(file_size)),
        ("file", version.location),
        ("report", page),
        ("dtype", manifest["dtype"]),
        ("producer", manifest["producer"]),
    ]
    tables.print_table(tables.key_value_table(head))
    tables.print_table(tables.inputs_table(signature))
    tables.print_table(tables.layers_table(network))
    titles = {"metrics": "Metrics", "baseline": "Baseline", "linear": "Linear model"}
    titles |= {"data": "Data", "split": "Split", "job": "Job"}
    parts = {key: tables.training_tables(training.get(key), title) for key, title in titles.items()}
    record = TrainingRecord.parse(training)
    parts["linear"] += tables.diagnostics_tables(record)
    for part in chain.from_iterable(parts.values()):
        tables.print_table(part)
    # The results of the held-out rows are thousands of characters of base64, for `models compare`.
    rest = {key: value for key, value in training.items() if key not in {*titles, "diagnostics", "held_out", "notes"}}
    for part in [*tables.training_tables(rest, "Training"), tables.notes_table(record.notes)]:
        tables.print_table(part)


def _list_versions(store: Store, name: str, as_json: bool) -> None:
    aliases = store.aliases(name)
    versions: list[dict[str, Any]] = [
        {
            "name": name,
            "version": number,
            "published": store.publication(name, number).as_dict(),
            "aliases": [alias for alias, version in aliases.items() if version == number],
            "signed_by": store.signing_keys(name, number),
        }
        for number in store.versions(name)
    ]
    if as_json:
        print_json(versions)
        return
    table = tables.new_table(">version", "published (UTC)", "aliases", "signed by")
    for version in versions:
        lists = (", ".join(version[key]) for key in ("aliases", "signed_by"))
        table.add_row(str(version["version"]), tables.describe_publication(version["published"]), *lists)
    tables.print_table(table)


def _summary(store: Store, name: str, state: dict[str, Any]) -> dict[str, Any]:
    """Return one model of the list. A damaged file or alias becomes its `error`; other models are listed as usual."""
    serves, description, published, error = None, None, None, None
    try:
        serves = store.resolve(name)
        description = store.manifest(name, serves)[1]["description"]
        published = store.publication(name, serves).as_dict()
    except ModelStoreError as e:
        error = str(e)
    error = error or "; ".join([*state["unreadable"].values(), *state["damaged"].values()]) or None
    versions, aliases = list(state["versions"]), state["aliases"]
    follows = DEFAULT_ALIAS if DEFAULT_ALIAS in {*aliases, *state["unreadable"]} else "newest"
    about = {"name": name, "serves": serves, "follows": follows, "versions": versions, "published": published}
    about |= {"aliases": aliases}
    return {**about, "description": description, "error": error}


def _ranges(numbers: list[int]) -> str:
    """Return ascending numbers as ranges: "1-3, 5"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)
