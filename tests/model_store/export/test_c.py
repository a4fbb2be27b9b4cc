"""Models as C give the model's answers, hold nothing but its numbers and texts, and say how much memory they take."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.artifact.model import Model
from model_store.export.agreement import find_disagreement
from model_store.export.base import ExportError, ExportSource
from model_store.export.c.compiler import compile_and_run
from model_store.export.c.literals import comment, identifiers, string
from model_store.export.export import export, find_target
from model_store.nn import LAYERS
from model_store.schema.columns import CategoryColumn, NumberColumn, TextColumn
from model_store.schema.signature import ClassificationOutput, RegressionOutput
from tests.model_store.export.edge_rows import edge_rows
from tests.model_store.export.example_models import AGE, MADE, TRAINED, classifier, example_model, linear, made

TARGET = find_target("c")
GCC = shutil.which("gcc")
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]
pytestmark = pytest.mark.skipif(GCC is None, reason="gcc is not installed")

HOSTILE = [
    'quote " and \\',
    "*/ int x; /*",
    "// line\n#error",
    "trigraph ??/ ??'",
    "%s%n",
    "日本 \u202e reversed",
    "int",
    "int ",
    "",
    "1",
    "true",
    "x" * 5000,
    "\x7f\t\x01",
]


def source_of(model: Model, name: str = "model") -> ExportSource:
    return ExportSource(name, 1, "0" * 64, model)


def compile_strictly(folder: Path, files: dict[str, bytes], *options: str) -> None:
    """Compile the model by itself, and link the test."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    model, test = files
    subprocess.run([GCC, *STRICT, *options, "-c", model], cwd=folder, check=True)
    subprocess.run([GCC, *STRICT, *options, "-o", "test", test, "-lm"], cwd=folder, check=True)


@pytest.mark.parametrize("name", [*TRAINED, *MADE])
def test_strictly_compiled_c_gives_the_models_answers_for_a_thousand_edge_rows(name: str, tmp_path: Path) -> None:
    model = example_model(name)
    source = source_of(model, name)
    files = export(source, TARGET)
    compile_strictly(tmp_path, files)
    done = subprocess.run([tmp_path / "test"], check=True, capture_output=True, text=True)
    assert done.stdout == f"{len(model.golden.instances)} golden rows, 0 wrong outputs\n"
    rows, outputs = edge_rows(model)
    assert find_disagreement(model.signature, outputs, TARGET.answer(source, files, rows)) is None


def test_every_layer_is_carried() -> None:
    assert set(LAYERS) == TARGET.layers


@pytest.mark.parametrize("name", TRAINED)
def test_the_object_has_the_sizes_that_its_head_says_and_allocates_nothing(name: str, tmp_path: Path) -> None:
    source = source_of(example_model(name), name)
    files = TARGET.files(source)
    compile_strictly(tmp_path, files, "-Os")
    sizes = subprocess.run(["size", "-A", f"{name}.o"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    section = {line.split()[0]: int(line.split()[1]) for line in sizes.splitlines() if line.startswith(".")}
    ram, flash = TARGET.notes(source, files)
    buffers = int(re.match(r"RAM: (\d+) bytes of static buffers", ram)[1])
    assert buffers <= section[".bss"] < buffers + 64
    assert not section.get(".data")
    constants = int(re.match(r"Flash: (\d+) bytes of constants", flash)[1])
    assert constants <= sum(size for name, size in section.items() if name.startswith(".rodata")) + section.get(
        ".data.rel.ro.local", 0
    ) + section.get(".data.rel.ro", 0)
    symbols = subprocess.run(["nm", "-u", f"{name}.o"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    functions = set(re.findall(r"U (\w+)", symbols)) - {"_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}
    mathematics = {"exp", "expf", "tanh", "tanhf", "hypotf", "cosf", "sin", "cos", "fmod", "asinh", "expm1f", "sqrt"}
    assert functions <= mathematics | {"strncmp", "strlen", "memcpy", "memset"}


def hostile_model() -> Model:
    """A model each of whose texts tries to leave its string, its comment or its identifier."""
    columns: list[Any] = [NumberColumn(name, 1.0, 2.0, fill=1.0) for name in HOSTILE]
    columns.append(CategoryColumn("*/", tuple(HOSTILE), "bucket", HOSTILE[0]))
    columns.append(TextColumn('"', 8, ""))
    model = classifier(*columns, output=ClassificationOutput("*/", tuple(HOSTILE[:3])))
    return replace(model, description="*/ #error description ??/\n#error")


def test_hostile_texts_stay_in_their_strings_and_comments(tmp_path: Path) -> None:
    model = hostile_model()
    source = source_of(model, "a.b-c")
    files = export(source, TARGET)
    assert list(files) == ["a_b_c.c", "a_b_c_test.c"]
    for content in files.values():
        assert content.isascii()
        assert b"??" not in content
        assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", content)
    compile_strictly(tmp_path, files)
    subprocess.run([tmp_path / "test"], check=True)
    rows, outputs = edge_rows(model)
    assert find_disagreement(model.signature, outputs, TARGET.answer(source, files, rows)) is None


def test_literals_hold_any_text() -> None:
    text = "".join(map(chr, [*range(1, 0x250), 0x202E, 0x1F427])) + "??/ */ \\" + "9"
    main = f"#include <stdio.h>\n/* {comment(text)} */\nint main(void) {{ fputs({string(text)}, stdout); return 0; }}\n"
    assert compile_and_run({"main.c": main.encode("ascii")}, "main.c").decode() == text
    assert identifiers("C_", ["int", "a b", "a-b", "A B", "", "é", "a_b_2"]) == [
        "C_INT", "C_A_B", "C_A_B_2", "C_A_B_3", "C", "C_2", "C_A_B_2_2",
    ]  # fmt: skip


def test_labels_are_texts_of_numbers_and_booleans() -> None:
    model = classifier(AGE, output=ClassificationOutput("n", (3, -7, "true")))
    text = TARGET.files(source_of(model))["model.c"].decode()
    assert 'const char *const labels[3] = {\n    "3",\n    "-7",\n    "true"};' in text


@pytest.mark.parametrize(
    ("call", "result"),
    [
        ("encode_text(COLUMN_TOWN, NULL, input)", "VALUE_MISSING"),
        ('encode_text(COLUMN_TOWN, " Bath ", input)', "ENCODED"),
        ('encode_text(COLUMN_TOWN, "Paris", input)', "UNKNOWN_CATEGORY"),
        ('encode_text(COLUMN_TOWN, "\\xff\\xfe", input)', "UNKNOWN_CATEGORY"),
        ("encode_text(COLUMN_AGE, NULL, input)", "NOT_A_COLUMN"),
        ("encode_number(COLUMN_AGE, NAN, input)", "VALUE_MISSING"),
        ("encode_number(COLUMN_AGE, INFINITY, input)", "TOO_LARGE"),
        ("encode_number(COLUMN_AGE, 1e300, input)", "TOO_LARGE"),
        ("encode_number(-1, 1, input)", "NOT_A_COLUMN"),
        ('encode_text(COLUMN_TITLE, "\\xff", input)', "NOT_A_TEXT"),
        ('encode_text(COLUMN_TITLE, "caf\\xc3", input)', "NOT_A_TEXT"),
        ('encode_text(COLUMN_TITLE, "\\xce\\xa3", input)', "NOT_A_TEXT"),
        ("encode_text(COLUMN_TITLE, NULL, input)", "VALUE_MISSING"),
        ('encode_text(COLUMN_TITLE, " NaN ", input)', "VALUE_MISSING"),
    ],
)
def test_values_that_the_model_rejects_have_a_result_of_their_own(call: str, result: str) -> None:
    model = classifier(CategoryColumn("town", ("Bath", "York")), AGE, TextColumn("title", 4))
    files = TARGET.files(source_of(model))
    main = f'#include "model.c"\nint main(void) {{ static float input[INPUTS]; return {call} != {result}; }}\n'
    compile_and_run({**files, "main.c": main.encode()}, "main.c")


def test_several_models_link_into_one_program_with_a_prefix_each(tmp_path: Path) -> None:
    names = ["categories", "several labels", "quantile", "images", "texts"]
    calls = declarations = ""
    for i, name in enumerate(names):
        (tmp_path / f"m{i}.c").write_bytes(TARGET.files(source_of(example_model(name)))["model.c"])
        subprocess.run([GCC, *STRICT, f"-DPREFIX=m{i}_", "-c", f"m{i}.c"], cwd=tmp_path, check=True)
        declarations += f"void m{i}_predict(const float *input, float *output);\n"
        calls += f"m{i}_predict(input, output); "
    main = f"{declarations}int main(void) {{ static float input[9999], output[9]; {calls}return 0; }}\n"
    (tmp_path / "main.c").write_text(main)
    objects = [f"m{i}.o" for i in range(len(names))]
    subprocess.run([GCC, *STRICT, "-o", "program", "main.c", *objects, "-lm"], cwd=tmp_path, check=True)
    subprocess.run([tmp_path / "program"], check=True)


def test_a_category_with_a_nul_is_an_error_that_names_the_column() -> None:
    model = classifier(CategoryColumn("town", ("Ba\0th", "York")), AGE)
    with pytest.raises(ExportError, match="column town: expected a text without NUL"):
        TARGET.files(source_of(model))


def test_without_a_compiler_nothing_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ExportError, match=r"expected a C compiler .* install gcc or clang"):
        export(source_of(example_model("xor")), TARGET)


def test_an_export_with_another_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = example_model("vectors")
    wrong = replace(model, golden=replace(model.golden, outputs=model.golden.outputs + np.float32(1e-3)))
    with pytest.raises(ExportError, match=r"c gives another answer for golden row 0: .* nothing was written"):
        export(source_of(wrong), TARGET)


def test_a_program_that_fails_is_an_error_with_its_message() -> None:
    with pytest.raises(ExportError, match=r"exit code 1: .*error"):
        compile_and_run({"main.c": b"#error no\n"}, "main.c")


def test_many_columns_and_targets(tmp_path: Path) -> None:
    columns = [NumberColumn(f"x{i}", 1.0, 2.0) for i in range(500)]
    output = RegressionOutput(tuple(f"y{i}" for i in range(300)), (1.0,) * 300, (2.0,) * 300)
    source = source_of(made(columns, output, [linear(500, 300)]))
    compile_strictly(tmp_path, export(source, TARGET))
    subprocess.run([tmp_path / "test"], check=True)
