"""`models verify | keygen | sign`."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_store.registry.store import Store
from tests.model_store.cli.conftest import read_json


@pytest.mark.parametrize(("model", "count"), [(None, 3), ("chess", 3), ("chess/2", 1)])
def test_verify_checks_one_version_or_all(models, model: str | None, count: int) -> None:
    arguments = ["verify"] if model is None else ["verify", model]
    assert len(models(*arguments).stdout.splitlines()) == count
    found = read_json(models(*arguments, "--json"))
    assert len(found) == count
    assert all(one["ok"] for one in found)


def test_verify_names_a_damaged_file(models, store: Store) -> None:
    path = store.path("chess", 2)
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[:-1])
    found = read_json(models("verify", "--json", code=5))
    assert [one["ok"] for one in found] == [True, False, True]
    assert str(path) in found[1]["error"]
    assert "chess/2  damaged  " in models("verify", "chess", code=5).stdout


def test_a_folder_that_cannot_be_read_is_reported_beside_the_other_models(models, store: Store) -> None:
    (store.root / "go").symlink_to("go")
    *others, damaged = read_json(models("verify", "--json", code=5))
    assert [one["ok"] for one in others] == [True] * 3
    assert (damaged["name"], damaged["version"], damaged["verdict"]) == ("go", None, "unreadable")
    assert "go/  unreadable  " in models("verify", code=5).stdout
    listed = read_json(models("list", "--json"))
    assert [one["name"] for one in listed] == ["chess", "go"]
    assert listed[0]["error"] is None
    assert "Too many levels of symbolic links" in listed[1]["error"]


def test_sign_and_verify_with_keys(models, store: Store, tmp_path: Path) -> None:
    mine, theirs = str(tmp_path / "mine.pem"), str(tmp_path / "theirs.pem")
    made = read_json(models("keygen", mine, "--json"))
    assert (made["private"], made["public"]) == (mine, f"{mine}.pub")
    assert "keep it secret" in models("keygen", theirs).stderr
    assert "never overwritten" in models("keygen", mine, code=2).stderr
    nowhere = str(tmp_path / "nowhere" / "key")
    assert "cannot write the key: No such file" in models("keygen", nowhere, code=2).stderr
    for arguments in (("sign", "chess/1"), ("verify", "chess/1")):
        assert "expected a key file that can be read" in models(*arguments, "--key", nowhere, code=2).stderr
    models("alias", "chess", "champion", "2")
    signed = read_json(models("sign", "chess/champion", "--key", mine, "--json"))
    assert (signed["version"], signed["key"], signed["added"]) == (2, made["key"], True)
    assert signed["digest"] == store.load("chess", 2)[0].digest
    assert "already" in models("sign", "chess/2", "--key", mine).stderr
    assert read_json(models("show", "chess/2", "--json"))["signed_by"] == [made["key"]]
    assert made["key"] in models("show", "chess/2").stdout

    (one,) = read_json(models("verify", "chess/2", "--key", f"{mine}.pub", "--json"))
    assert (one["ok"], one["signed_by"]) == (True, made["key"])
    assert read_json(models("verify", "chess/2", "--key", f"{theirs}.pub", "--key", f"{mine}.pub", "--json"))[0]["ok"]
    found = read_json(models("verify", "chess", "--key", f"{mine}.pub", "--json", code=5))
    assert [one["verdict"] for one in found] == ["untrusted", "ok", "untrusted"]
    assert "chess/2  untrusted  " in models("verify", "chess/2", "--key", f"{theirs}.pub", code=5).stdout
    assert "found a private key" in models("verify", "chess", "--key", mine, code=2).stderr
    assert all(one["ok"] for one in read_json(models("verify", "--json")))


def test_a_damaged_version_is_neither_signed_nor_trusted(models, store: Store, tmp_path: Path) -> None:
    key = str(tmp_path / "key.pem")
    models("keygen", key)
    models("sign", "chess/2", "--key", key)
    path = store.path("chess", 2)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    assert "expected" in models("sign", "chess/2", "--key", key, code=5).stderr
    assert read_json(models("verify", "chess/2", "--key", f"{key}.pub", "--json", code=5))[0]["verdict"] == "damaged"
