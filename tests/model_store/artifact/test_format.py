"""Each MUST of docs/artifact-format.md has a test of the same name, and a script in tests/attacks that breaks it."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from model_store.artifact import npz
from model_store.errors import ArtifactError
from tests.attacks.forge import ValidArtifact, Variants, valid_artifact

ROOT = Path(__file__).parents[3]
# The module of each rule's script: the sections of the specification have a folder each.
SCRIPTS = {
    path.stem: f"tests.attacks.{path.parent.name}.{path.stem}"
    for path in sorted((ROOT / "tests" / "attacks").glob("*/*.py"))
}
FRAME = "expected the header that follows from the manifest|expected an artifact, found another kind"
DIRECTORY = "directory: expected the one that follows from the manifest|expected [0-9]+ bytes, found [0-9]+$"

AssertRejected = Callable[[str, str], None]


@pytest.fixture(scope="module")
def artifact() -> ValidArtifact:
    return valid_artifact()


def hostile(rule: str, artifact: ValidArtifact) -> Variants:
    variants: Variants = importlib.import_module(SCRIPTS[rule]).hostile(artifact)
    return variants


@pytest.fixture
def assert_rejected(artifact: ValidArtifact, tmp_path: Path) -> AssertRejected:
    """Return a function that asserts that each hostile file of a rule raises an ArtifactError that matches."""

    def check(rule: str, words: str) -> None:
        path = tmp_path / "hostile.npz"
        for variant, data in hostile(rule, artifact).items():
            assert data != artifact.data, variant
            path.write_bytes(data)
            with pytest.raises(ArtifactError) as caught:
                npz.read(path)
            message = str(caught.value)
            assert message.startswith(f"{path}: "), variant
            assert re.search(words, message.removeprefix(f"{path}: ")), (variant, message)

    return check


@contextmanager
def artifact_error_message() -> Iterator[list[str]]:
    """Collect the message of an ArtifactError if one is raised: not every reader checks everything."""
    messages: list[str] = []
    try:
        yield messages
    except ArtifactError as e:
        messages.append(str(e))


def rules() -> dict[str, str]:
    """Return the rules of the document by name."""
    text = (ROOT / "docs" / "artifact-format.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^- `([a-z0-9_]+)`: (.*?)(?=^- |^$|\Z)", text, re.MULTILINE | re.DOTALL))


def test_every_rule_has_a_test_and_an_attack() -> None:
    assert list(rules()) == [name.removeprefix("test_") for name in globals() if name.removeprefix("test_") in rules()]
    assert {rule for rule in rules() if not rule.startswith("readers_")} == set(SCRIPTS)


def test_no_must_is_outside_the_rules() -> None:
    assert [rule for rule, text in rules().items() if "MUST" not in text] == []
    text = (ROOT / "docs" / "artifact-format.md").read_text(encoding="utf-8")
    after_the_introduction = text.partition("\n## ")[2]
    assert after_the_introduction.count("MUST") == sum(rule.count("MUST") for rule in rules().values())


def test_a_second_writer_made_from_the_specification_writes_the_same_bytes(artifact: ValidArtifact) -> None:
    assert artifact.forge() == artifact.data


def test_attack_scripts_write_their_hostile_files(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.attacks.members.crcs_are_true", str(tmp_path)]
    subprocess.run(words, check=True, cwd=ROOT, capture_output=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        "crcs_are_true-of-an-array.npz",
        "crcs_are_true-of-the-manifest.npz",
        "crcs_are_true-in-the-header-alone.npz",
    }


def test_file_is_regular_and_below_4_gib(assert_rejected: AssertRejected, tmp_path: Path) -> None:
    assert_rejected(
        "file_is_regular_and_below_4_gib", r"found a file of|found the end of the file|expected \d+ bytes, found"
    )
    os.mkfifo(tmp_path / "pipe")  # without a writer: a blocking reader hangs here
    (tmp_path / "loop").symlink_to("loop")
    for name in ("missing", "pipe", "loop", ".", "/dev/zero"):
        with pytest.raises(ArtifactError, match=r"expected a (readable )?file"):
            npz.read(tmp_path / name)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**32)  # a sparse file
    with pytest.raises(ArtifactError, match="found a file of 4294967296 bytes"):
        npz.read(tmp_path / "large")


def test_manifest_comes_first(assert_rejected: AssertRejected) -> None:
    assert_rejected(
        "manifest_comes_first", "expected a manifest of 1 to 8388608 bytes first|expected an artifact, found another"
    )


def test_members_are_those_the_manifest_lists(assert_rejected: AssertRejected) -> None:
    assert_rejected("members_are_those_the_manifest_lists", f"{FRAME}|{DIRECTORY}")


def test_members_are_sorted(assert_rejected: AssertRejected) -> None:
    assert_rejected("members_are_sorted", FRAME)


def test_nothing_lies_between(assert_rejected: AssertRejected) -> None:
    assert_rejected("nothing_lies_between", f"{FRAME}|{DIRECTORY}|__manifest__: expected")


def test_nothing_follows_the_end_record(assert_rejected: AssertRejected) -> None:
    assert_rejected("nothing_follows_the_end_record", DIRECTORY)


def test_members_are_stored(assert_rejected: AssertRejected) -> None:
    assert_rejected("members_are_stored", FRAME)


def test_headers_say_nothing_else(assert_rejected: AssertRejected) -> None:
    assert_rejected("headers_say_nothing_else", f"{FRAME}|{DIRECTORY}")


def test_crcs_are_true(assert_rejected: AssertRejected) -> None:
    assert_rejected("crcs_are_true", f"{FRAME}|{DIRECTORY}|expected the CRC-32 of its data")


def test_sizes_are_true(assert_rejected: AssertRejected) -> None:
    assert_rejected("sizes_are_true", f"{FRAME}|expected a manifest of 1 to|__manifest__: expected")


def test_zip64_is_not_used(assert_rejected: AssertRejected) -> None:
    assert_rejected("zip64_is_not_used", f"{FRAME}|{DIRECTORY}|expected a manifest of 1 to")


def test_arrays_lie_on_multiples_of_64(
    assert_rejected: AssertRejected, artifact: ValidArtifact, tmp_path: Path
) -> None:
    assert_rejected("arrays_lie_on_multiples_of_64", FRAME)
    (tmp_path / "whole.npz").write_bytes(artifact.data)
    for array in npz.read(tmp_path / "whole.npz").network.arrays().values():
        assert array.ctypes.data % 64 == 0


def test_directory_repeats_the_headers(assert_rejected: AssertRejected) -> None:
    assert_rejected("directory_repeats_the_headers", DIRECTORY)


def test_npy_headers_are_canonical(assert_rejected: AssertRejected) -> None:
    assert_rejected("npy_headers_are_canonical", FRAME)


def test_nothing_is_pickled(assert_rejected: AssertRejected) -> None:
    assert_rejected("nothing_is_pickled", f"{FRAME}|{DIRECTORY}|dtype: expected")


def test_arrays_are_little_endian_floats(assert_rejected: AssertRejected) -> None:
    assert_rejected("arrays_are_little_endian_floats", "dtype: expected")


def test_arrays_have_1_to_8_dimensions_and_an_element(assert_rejected: AssertRejected) -> None:
    words = rf"modules\.0\.bias\.shape(\.0)?: expected|{FRAME}|expected \d+ bytes and a directory|integers of 64 bits"
    assert_rejected("arrays_have_1_to_8_dimensions_and_an_element", words)


def test_arrays_are_finite(assert_rejected: AssertRejected) -> None:
    assert_rejected("arrays_are_finite", r"(modules\.\d\.\w+|golden\.outputs): expected finite numbers")


def test_hashes_are_true(assert_rejected: AssertRejected, artifact: ValidArtifact, tmp_path: Path) -> None:
    assert_rejected(
        "hashes_are_true",
        r"modules\.0\.weights: expected SHA-256|bias: expected SHA-256|expected 64 hexadecimal digits",
    )
    path = tmp_path / "hostile.npz"
    path.write_bytes(hostile("hashes_are_true", artifact)["one bit"])
    npz.read(path, verify=False)  # checks only the frame


def test_manifest_has_8_mib_at_most(assert_rejected: AssertRejected) -> None:
    assert_rejected("manifest_has_8_mib_at_most", "expected a manifest of 1 to 8388608 bytes first")


def test_manifest_is_canonical_json(assert_rejected: AssertRejected) -> None:
    assert_rejected("manifest_is_canonical_json", "manifest: expected (canonical )?JSON")


def test_integers_have_64_bits(assert_rejected: AssertRejected) -> None:
    assert_rejected("integers_have_64_bits", "manifest: expected JSON, found an error: .*(integers of 64 bits|digits)")


def test_manifest_has_these_fields_and_no_others(assert_rejected: AssertRejected) -> None:
    assert_rejected(
        "manifest_has_these_fields_and_no_others", r"manifest(\.[a-z0-9.]+)?: (expected|Missing|unknown field)"
    )


def test_format_is_1(assert_rejected: AssertRejected) -> None:
    assert_rejected("format_is_1", r"manifest\.format: expected 1, found")


def test_lists_have_10000_items_at_most(assert_rejected: AssertRejected) -> None:
    assert_rejected("lists_have_10000_items_at_most", "expected (a list|an object) of 1 to 10000")


def test_array_names_are_plain(assert_rejected: AssertRejected) -> None:
    assert_rejected("array_names_are_plain", r"manifest\.arrays\..*: expected letters, digits, '_' between dots")


def test_layers_are_of_the_closed_table(assert_rejected: AssertRejected) -> None:
    assert_rejected("layers_are_of_the_closed_table", r"modules\.[01](\.\w+)*: expected")


def test_layers_and_arrays_agree(assert_rejected: AssertRejected) -> None:
    assert_rejected("layers_and_arrays_agree", r"modules\.[0-9]\.(weights|bias|constant|index): expected")


def test_rows_cost_2_33_operations_at_most(assert_rejected: AssertRejected) -> None:
    assert_rejected("rows_cost_2_33_operations_at_most", r"modules: expected at most 8589934592 operations a row")


def test_arrays_of_a_row_have_64_mib_at_most(assert_rejected: AssertRejected) -> None:
    assert_rejected("arrays_of_a_row_have_64_mib_at_most", r"modules: expected at most 67108864 bytes of a row")


def test_signature_fits_the_network(assert_rejected: AssertRejected) -> None:
    assert_rejected("signature_fits_the_network", r"(signature|modules)(\.[a-z0-9_.]+)?: .*expected")


def test_golden_is_whole(assert_rejected: AssertRejected) -> None:
    assert_rejected("golden_is_whole", r"manifest\.golden: expected both")


def test_answers_are_whole(assert_rejected: AssertRejected) -> None:
    assert_rejected("answers_are_whole", r"manifest\.answers(\.\w+)*: |answers(\.\w+)+: expected")


def test_readers_raise_artifact_error_alone(artifact: ValidArtifact, tmp_path: Path) -> None:
    """Messages have no control characters and a limited length."""
    path = tmp_path / "hostile.npz"
    ugly = "\x1b[31m" + "x" * 1_000_000 + "\n"
    arrays = {**artifact.manifest["arrays"], ugly: artifact.manifest["arrays"]["modules.0.bias"]}
    for data in (
        artifact.with_manifest_value("dtype", ugly),
        artifact.with_manifest_value("arrays", arrays),
        artifact.with_manifest_value("layers/0/type", ugly),
        artifact.with_manifest_value("signature/inputs/0/kind", ugly),
    ):
        path.write_bytes(data)
        for reader in (npz.read, npz.read_manifest, npz.read_digest):
            with artifact_error_message() as messages:
                reader(path)
            assert "".join(messages).isprintable()
            assert len("".join(messages)) < 1500


@pytest.mark.slow
def test_readers_spend_nothing_on_claims(artifact: ValidArtifact, tmp_path: Path) -> None:
    """Read all hostile files, and costly manifests, within 512 MB of additional address space."""
    costly = {
        "empty objects": b"[" + b",".join([b"{}"] * 2_700_000) + b"]",
        "empty lists": b"[" + b",".join([b"[]"] * 2_700_000) + b"]",
        "numbers": b"[" + b",".join([b"1.5"] * 2_000_000) + b"]",
        "keys": b"{" + b",".join(b'"%07d":0' % i for i in range(600_000)) + b"}",
    }
    files = {name: artifact.forge(text) for name, text in costly.items()}
    files |= {f"{rule}-{variant}": data for rule in SCRIPTS for variant, data in hostile(rule, artifact).items()}
    for i, data in enumerate(files.values()):
        (tmp_path / f"{i}.npz").write_bytes(data)
    reader = "import resource, signal, sys; from pathlib import Path; from model_store import errors\n"
    reader += "from model_store.artifact import npz\n"
    reader += "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
    reader += "resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20),) * 2)\n"
    reader += "for path in Path(sys.argv[1]).iterdir():\n"
    reader += "    signal.alarm(20)\n"
    reader += "    try: npz.read(path)\n"
    reader += "    except errors.ArtifactError as e: assert not isinstance(e.__cause__, MemoryError), path\n"
    reader += "    else: raise SystemExit(f'{path} was read')\n"
    done = subprocess.run(
        [sys.executable, "-c", reader, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
