"""`models copy`."""

from __future__ import annotations

from pathlib import Path

from model_store.registry.store import Store, open_store
from tests.model_store.cli.conftest import read_json


def test_copy_says_where_each_version_is_and_what_callers_get(models, store: Store, tmp_path: Path) -> None:
    prod = str(tmp_path / "prod")
    done = models("copy", "chess/1", "chess/2", prod).stderr
    assert f"Copied chess/1 to {prod}/chess/1.npz." in done
    assert f"Copied chess/2 to {prod}/chess/2.npz." in done
    assert "Requests without a version get version 2 there (newest, as the alias default was never set)." in done
    models("alias", "chess", "default", "2", "--store", prod)
    done = models("copy", "chess/3", prod, "--as", "chess").stderr
    assert "Requests without a version get version 2 there (alias default)." in done
    assert f"To serve it: models promote chess 3 --store {prod}" in done
    assert (
        f"chess/3 is at {prod}/chess/3.npz already: {store.load('chess', 3)[0].digest}"
        in models("copy", "chess", prod).stderr
    )
    assert "copied" in models("show", "chess/3", "--store", prod).stdout


def test_copy_renders_the_report_for_its_new_reference(models, store: Store, tmp_path: Path) -> None:
    prod = tmp_path / "prod"
    store.add_report(store.load("chess", 3)[0], "<p>")
    (found,) = read_json(models("copy", "chess/3", str(prod), "--as", "go", "--json"))
    assert found["report"] == str(prod / "go" / "1.html")
    assert "<title>go/1: report</title>" in (prod / "go" / "1.html").read_text()
    assert found == {
        "source": "chess/3",
        "name": "go",
        "version": 1,
        "digest": store.load("chess", 3)[0].digest,
        "copied": True,
        "signed_by": [],
        "path": str(prod / "go" / "1.npz"),
        "report": str(prod / "go" / "1.html"),
        "default": True,
    }
    assert open_store(prod).publication("go", 1).copies[0].source == store.load("chess", 3)[0].location


def test_copy_of_an_unknown_version_copies_nothing(models, tmp_path: Path) -> None:
    assert "no version 9" in models("copy", "chess/1", "chess/9", str(tmp_path / "prod"), code=5).stderr
    assert not (tmp_path / "prod").exists()


def test_versions_of_several_models_are_not_copied_under_one_name(models, store: Store, tmp_path: Path) -> None:
    store.publish("go", store.load("chess", 1)[1])
    prod = str(tmp_path / "prod")
    assert "--as needs versions of one model" in models("copy", "chess/1", "go", prod, "--as", "x", code=2).stderr
    assert not Path(prod).exists()
    models("copy", "chess/1", "chess/3", prod, "--as", "x")
    assert open_store(prod).versions("x") == [1, 2]
