"""`models keygen | sign`: key pairs, and signatures of versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from model_store.cli.common import exit_codes, json_option, print_json, print_note, verbosity_option
from model_store.cli.group import command, main, resolve_reference
from model_store.registry.store import open_store


def signing_module() -> Any:
    """Import the signing module on first use: it takes 40 ms and needs an extra package. TrustError without it."""
    from model_store.registry import signing  # noqa: PLC0415

    return signing


@main.command("keygen")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@verbosity_option
@exit_codes()
def keygen(file: Path, as_json: bool) -> None:
    """Create a key pair to sign models with.

    The private key is written to FILE, the public key to FILE.pub.
    """
    signing = signing_module()
    key, public = signing.fingerprint(signing.generate_key(file)), signing.public_key_path(file)
    if as_json:
        print_json({"key": key, "private": str(file), "public": str(public)})
    else:
        print_note(f"Created key {key}.")
        print_note(f"Private key: {file} (keep it secret; it signs)")
        print_note(f"Public key:  {public} (it verifies)")


@command("sign")
@click.argument("model", metavar="MODEL")
@click.option(
    "--key", "key_file", metavar="FILE", type=click.Path(path_type=Path), required=True, help="The private key."
)
def sign(model: str, key_file: Path, store: str, as_json: bool) -> None:
    """Sign a version: its name and its digest."""
    signing = signing_module()
    key = signing.load_private_key(key_file)
    opened = open_store(store)
    name, number = resolve_reference(opened, model)
    version, loaded = opened.load(name, number)
    loaded.check_golden()
    by = signing.fingerprint(key.public_key())
    added = opened.add_signature(name, number, by, signing.sign(key, name, version.digest))
    if as_json:
        print_json({"name": name, "version": number, "digest": version.digest, "key": by, "added": added})
    else:
        print_note(f"{name}/{number} is {'' if added else 'already '}signed by {by}: {version.digest}")
