"""`models export`: write a version as files that another platform runs."""

from __future__ import annotations

import os
from pathlib import Path

import click

from model_store.cli.common import print_json, print_note
from model_store.cli.group import command, resolve_reference
from model_store.cli.tables import format_bytes
from model_store.export.base import ExportSource
from model_store.export.export import TARGETS, export, find_target, write_files
from model_store.registry.store import open_store


@command("export")
@click.argument("model", metavar="MODEL")
@click.option("--to", "target_name", type=click.Choice(sorted(TARGETS)), required=True, help="The platform.")
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    help="File to write; a folder if it ends with a slash, exists, or the target has several files.  "
    "[default: NAME-VERSION.onnx, or the folder NAME-VERSION-TARGET]",
)
@click.option("--force", is_flag=True, help="Overwrite files that exist with another content.")
def export_command(model: str, target_name: str, output: str | None, force: bool, store: str, as_json: bool) -> None:
    """Write a version as files that another platform runs.

    The export answers the model's golden rows first. If an answer is not the model's to 1e-5, nothing is written.
    """
    opened = open_store(store)
    name, number = resolve_reference(opened, model)
    version, loaded = opened.load(name, number)
    source, target = ExportSource(name, number, version.digest, loaded), find_target(target_name)
    files = export(source, target)
    if len(files) == 1 and not (output is not None and _is_folder(output)):
        paths = {Path(output or file): content for file, content in files.items()}
    else:
        folder = Path(output or f"{source.stem}-{target_name}")
        folder.mkdir(exist_ok=True)
        paths = {folder / file: content for file, content in files.items()}
    write_files(paths, force=force)
    notes = target.notes(source, files)
    if as_json:
        sizes = [{"path": str(path), "bytes": len(content)} for path, content in paths.items()]
        print_json({"name": name, "version": number, "target": target_name, "files": sizes, "notes": notes})
        return
    for path, content in paths.items():
        print_note(f"Wrote {path}, {format_bytes(len(content))}.")
    for note in notes:
        print_note(note)


def _is_folder(output: str) -> bool:
    return output.endswith(os.sep) or Path(output).is_dir()
