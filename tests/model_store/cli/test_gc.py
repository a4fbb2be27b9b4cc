"""`models gc | rm`."""

from __future__ import annotations

from model_store.registry.store import Store
from tests.model_store.cli.conftest import read_json


def test_gc_lists_what_it_would_delete_and_deletes_it(models, store: Store) -> None:
    assert "nothing to delete" in models("gc", "--grace", "0s").stderr
    left = store.root / "chess" / ".tmp-01"
    left.write_bytes(b"0123456789")
    assert "nothing to delete" in models("gc").stderr
    assert "Would delete 1 object, 10 bytes." in models("gc", "--grace", "0s", "--dry-run").stderr
    assert left.exists()
    found = read_json(models("gc", "--grace", "0s", "--json"))
    assert [(one["key"], one["size"]) for one in found] == [("chess/.tmp-01", 10)]
    assert not left.exists()
    for grace in ("1", "h", "1y", "-1h", "1.5h", "99999999d"):
        assert "expected a duration such as" in models("gc", "--grace", grace, code=2).stderr


def test_rm_asks_for_confirmation(models, store: Store) -> None:
    assert "--yes" in models("rm", "chess/2", code=2).stderr
    assert "chess: expected a version to remove; add it: chess/1" in models("rm", "chess", "--yes", code=2).stderr
    assert store.versions("chess") == [1, 2, 3]
    assert "Removed chess/2" in models("rm", "chess/2", "--yes").stderr
    assert read_json(models("rm", "chess/3", "--yes", "--json")) == {"name": "chess", "removed": 3}
    assert store.versions("chess") == [1]
    models("alias", "chess", "champion", "1")
    assert "alias 'champion' points to it" in models("rm", "chess/1", "--yes", code=5).stderr
