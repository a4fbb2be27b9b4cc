"""Each defence has a test that fails without it: remove the defence from a copy of the project, and run the test.

SECURITY.md says what each defence is for. A test that passes without its defence proves nothing; this finds it.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COPIED = ("model_store", "service", "training", "tests", "examples", "pyproject.toml")
DOCUMENT, STRESS_DOCUMENT = ROOT / "SECURITY.md", ROOT / "docs" / "stress-tests.md"


@dataclass(frozen=True)
class Defence:
    """`line` of `file` is the defence. With `without` in its place, `test` fails."""

    file: str
    line: str
    without: str
    test: str


KEYS, CHECKS = "service/security/api_keys.py", "tests/service/security/test_api_keys.py"
ACCESS = "tests/service/security/test_access_control.py"
GRPC = "tests/service/grpc"
PAGES, ALIASES = "tests/service/security/test_pages.py", "tests/service/routes/test_aliases.py"
IMAGES = "tests/model_store/schema/columns/test_image_decoding.py"
DEFENCES = {
    "no rows of millions of values are made up for an export": Defence(
        "model_store/export/base.py", "if values > _MAX_MADE_UP_VALUES:",
        "if False:",
        "tests/model_store/export/test_export.py::test_no_rows_of_millions_of_values_are_made_up",
    ),
    "QuickJS has a bounded memory": Defence(
        "model_store/export/javascript/target.py", "    context.set_memory_limit(",
        "    print(",
        "tests/model_store/export/test_javascript.py::test_the_memory_of_quickjs_is_bounded",
    ),
    "a network that takes an interpreter too long is not exported to JavaScript": Defence(
        "model_store/export/javascript/target.py", "if found > _MAX_ROW_OPERATIONS:",
        "if False:",
        "tests/model_store/export/test_javascript.py::test_a_network_that_takes_an_interpreter_too_long_is_refused",
    ),
    "the tables of a model file have few rows": Defence(
        "model_store/cli/tables.py", "if self.max_rows is not None and self.row_count >= self.max_rows:",
        "if False:",
        "tests/model_store/cli/test_tables.py::"
        "test_a_comparison_shows_the_first_differences_and_counts_the_others",
    ),
    "the records of versions are parsed for a part of a second of a request": Defence(
        "service/pages/overview.py", "if self._clock() < deadline:",
        "if True:",
        "tests/service/pages/test_overview.py::test_records_in_memory_are_parsed_for_half_a_second_of_a_request",
    ),
    "an export has as many golden rows as training writes, whatever their answers repeat": Defence(
        "model_store/export/base.py", "Golden(model.golden.instances[:count], model.golden.outputs[:count])",
        "model.golden",
        "tests/model_store/export/test_export.py::test_the_golden_rows_of_an_export_cost_as_much_as_those_of_training",
    ),
    "the exports that the service keeps have a bounded size": Defence(
        "service/routes/model_pages.py", "RecentTexts(_MAX_MODULES, _MAX_MODULE_BYTES)",
        "RecentTexts(_MAX_MODULES, 1 << 40)",
        "tests/service/routes/test_model_pages.py::test_exports_are_kept_up_to_a_size",
    ),
    "the texts of a model count before a browser gets it": Defence(
        "service/pages/model_page.py", "weights + sum(len(str(text)) for group in texts for text in group)",
        "weights",
        "tests/service/routes/test_model_pages.py::test_the_texts_of_a_model_count_for_its_export",
    ),
    "a pickle is read only with trust": Defence(
        "model_store/importing/sklearn/pipeline.py", "    if not trust:",
        "    if False:",
        "tests/model_store/importing/test_sklearn_import.py::test_a_pickle_runs_nothing_without_trust",
    ),
    "a skops file has only trusted types": Defence(
        "model_store/importing/sklearn/skops_file.py", "if not untrusted:",
        "if True:",
        "tests/model_store/importing/test_sklearn_import.py::test_types_that_skops_does_not_trust_are_named",
    ),
    "a skops file starts no processes": Defence(
        "model_store/importing/sklearn/pipeline.py", "    _run_in_one_process(estimator)\n",
        "",
        "tests/model_store/importing/test_sklearn_import.py::"
        "test_no_estimator_starts_the_processes_that_its_file_asks_for",
    ),
    "the members that a skops file reads have a bounded size, each time that one is read": Defence(
        "model_store/importing/sklearn/skops_file.py", "        if found > self.limit:",
        "        if False:",
        "tests/model_store/importing/test_sklearn_import.py::"
        "test_a_member_of_a_skops_file_counts_each_time_that_it_is_read",
    ),
    "a state_dict is read with weights only": Defence(
        "model_store/importing/pytorch_weights.py", "weights_only=True)\n",
        "weights_only=False)\n",
        "tests/model_store/importing/test_pytorch_import.py::"
        "test_a_state_dict_of_a_convolutional_network_answers_as_pytorch",
    ),
    "an ONNX file has few bytes besides numbers": Defence(
        "model_store/importing/onnx/file.py", "    if size > MAX_STRUCTURE_BYTES:",
        "    if False:",
        "tests/model_store/importing/test_onnx_import.py::"
        "test_a_file_of_many_small_messages_is_refused_before_it_is_parsed",
    ),
    "an ONNX file reads no other file": Defence(
        "model_store/importing/onnx/file.py", "tensor.data_location == onnx.TensorProto.EXTERNAL",
        "False",
        "tests/model_store/importing/test_onnx_import.py::test_external_data_is_refused_with_the_fix",
    ),
    "no attribute of an ONNX node reads another file": Defence(
        "model_store/importing/onnx/file.py", "*_tensors_of_nodes(path, graph)",
        "",
        "tests/model_store/importing/test_onnx_import.py::test_no_attribute_of_a_node_reads_another_file",
    ),
    "functions of an ONNX file are ignored": Defence(
        "model_store/importing/onnx/file.py", "    del model.functions[:], model.training_info[:]",
        "    del model.training_info[:]",
        "tests/model_store/importing/test_onnx_import.py::test_functions_of_a_file_are_ignored",
    ),
    "a constant of an ONNX graph has a bounded size": Defence(
        "model_store/importing/onnx/graph.py",
        "                self.budget.spend(folded_values(node.op_type, attributes, inputs))\n",
        "",
        "tests/model_store/importing/test_onnx_import.py::test_a_constant_that_a_few_bytes_claim_is_refused",
    ),
    "the nodes of an ONNX file have one budget": Defence(
        "model_store/importing/budget.py", "        if values > self.left:",
        "        if False:",
        "tests/model_store/importing/test_onnx_import.py::test_a_small_file_has_a_budget_for_all_of_its_nodes",
    ),
    "any damage of an ONNX node is an error of the file": Defence(
        "model_store/importing/onnx/graph.py", "        except Exception as error:  # attributes",
        "        except ZeroDivisionError as error:  # attributes",
        "tests/model_store/importing/test_onnx_import.py::test_a_damaged_file_is_an_error_of_the_file",
    ),
    "links of a Keras file are not followed": Defence(
        "model_store/importing/keras_file.py", "if isinstance(link, h5py.HardLink) else None",
        "if link is not None else None",
        "tests/model_store/importing/test_keras_import.py::test_weights_in_other_files_are_not_read",
    ),
    "an archive unpacks to a bounded size": Defence(
        "model_store/importing/files.py", "sum(member.file_size for member in members)) > (limit",
        "0) > (limit",
        "tests/model_store/importing/test_keras_import.py::"
        "test_an_archive_that_unpacks_to_too_much_is_refused",
    ),
    "other methods than deflate are refused": Defence(
        "model_store/importing/files.py", "if member.compress_type not in _METHODS",
        "if False",
        "tests/model_store/importing/test_costs.py::"
        "test_an_archive_with_another_method_than_deflate_is_refused",
    ),
    "an array of HDF5 has its bytes in the file": Defence(
        "model_store/importing/keras_file.py", "data.chunks is not None or data.id.get_storage_size() < data.nbytes:",
        "False:",
        "tests/model_store/importing/test_costs.py::test_an_array_of_hdf5_without_its_bytes_is_refused",
    ),
    "layers of a configuration have a budget": Defence(
        "model_store/importing/keras_file.py", "value = budget.step(value, read)",
        "value = read()",
        "tests/model_store/importing/test_costs.py::test_layers_of_a_configuration_have_a_budget",
    ),
    "a skops file loads nothing whose size is a number": Defence(
        "model_store/importing/sklearn/skops_file.py", "if loader is not None and loader not in _LOADERS:",
        "if False:",
        "tests/model_store/importing/test_costs.py::"
        "test_a_generator_whose_size_is_a_number_is_refused_before_it_is_made",
    ),
    "nodes of a skops file with one id have one size": Defence(
        "model_store/importing/sklearn/skops_file.py", "(loader, size, read)) != (loader, size, read):",
        "(loader, size, read)) is None:",
        "tests/model_store/importing/test_costs.py::test_a_list_that_holds_itself_many_times_by_its_id_is_refused",
    ),
    "the features of a pipeline have a budget": Defence(
        "model_store/importing/sklearn/pipeline.py", "            self.budget.spend_features(3 * shape_values(",
        "            int(3 * shape_values(",
        "tests/model_store/importing/test_costs.py::"
        "test_categories_have_a_budget",
    ),
    "the shape of a signature has a budget": Defence(
        "model_store/importing/pytorch_weights.py", "        budget.spend_row(stored)\n",
        "",
        "tests/model_store/importing/test_costs.py::test_the_shape_of_a_signature_has_a_budget",
    ),
    "a model that answers differently is not published": Defence(
        "model_store/importing/publication.py", "    if not largest <= TOLERANCE:",
        "    if False:",
        "tests/model_store/importing/test_keras_import.py::test_answers_that_differ_are_refused",
    ),
    "no text of a model leaves its string in exported C": Defence(
        "model_store/export/c/literals.py", "chr(b) if 32 <= b < 127 and b not in _NOT_PLAIN", "chr(b) if True",
        "tests/model_store/export/test_c.py::test_hostile_texts_stay_in_their_strings_and_comments",
    ),
    "no text of a model leaves its comment in exported C": Defence(
        "model_store/export/c/literals.py", 'c if " " <= c <= "~" and c not in "*?', 'c if c <= "~" and c not in "?',
        "tests/model_store/export/test_c.py::test_hostile_texts_stay_in_their_strings_and_comments",
    ),
    "no text of a model leaves its string in exported Python": Defence(
        "model_store/export/python/target.py", "repr(text)[1:-1].replace('\"', '\\\\\"')", "repr(text)[1:-1]",
        "tests/model_store/export/test_python.py::test_hostile_texts_stay_texts",
    ),
    "rows of unknown keys encode no column": Defence(
        "model_store/schema/signature.py", "elif faults.total:", "elif False:",
        "tests/model_store/schema/test_signature.py::test_rows_of_unknown_keys_encode_no_column",
    ),
    "a generation forgets only failures of versions that it has": Defence(
        "service/registry/generations.py", "self._loader.forget_failure(name, number)",
        "self._loader.clear_failures()",
        "tests/service/registry/test_generation_switch.py::"
        "test_a_generation_forgets_only_failures_of_versions_that_it_has",
    ),
    "a journal of a sweep is a regular file": Defence(
        "training/sweep/storage.py", "open_regular(self._journal).close()\n            for", "for",
        "tests/training/sweep/test_study.py::test_a_journal_that_is_no_regular_file_is_an_error",
    ),
    "operations of a journal that cannot be applied are an error of the journal": Defence(
        "training/sweep/storage.py", "        except Exception as error:", "        except ZeroDivisionError as error:",
        "tests/training/sweep/test_study.py::test_an_operation_that_cannot_be_applied_is_an_error_of_the_journal",
    ),
    "a long row is compared with the training range in pieces": Defence(
        "service/inference/range_warnings.py", "range(0, inputs.shape[1], _BLOCK_VALUES)", "range(0, 1)",
        "tests/service/inference/test_range_warnings.py::test_a_long_row_is_compared_in_pieces",
    ),
    "models are described by the bytes of their schemas": Defence(
        "service/openapi/described_models.py", "size = max(least, _measured_bytes(served))", "size = least",
        "tests/service/routes/test_wide_models.py::test_models_are_described_as_far_as_the_document_has_room",
    ),
    "one long time does not set the memory of the others": Defence(
        "training/data/column_splitting.py", "distinct = sorted(set(texts))", "distinct = np.unique(texts).tolist()",
        "tests/training/data/test_column_splitting.py::test_one_long_cell_does_not_lengthen_the_others",
    ),
    "wide labels are rejected by the header": Defence(
        "training/data/readers.py", "if dtype.itemsize > _MAX_VALUE_BYTES:", "if False:",
        "tests/training/data/test_readers.py::test_wide_labels_are_rejected_before_they_are_read",
    ),
    "parts of a checkpoint agree on the epochs": Defence(
        "training/engine/checkpoint.py", "if len(set(counts.values())) > 1:", "if False:",
        "tests/training/engine/test_checkpoint.py::"
        "test_parts_of_a_checkpoint_that_disagree_on_the_epochs_are_an_error_of_the_checkpoint",
    ),
    "targets of labels are allocated if they fit in memory": Defence(
        "training/data/multi_label.py", "check_memory(rows * labels * _BYTES_PER_VALUE)", "pass",
        "tests/training/data/test_multi_label.py::"
        "test_labels_that_do_not_fit_in_memory_are_an_error_before_they_are_allocated",
    ),
    "a report cuts a nested job": Defence(
        "model_store/report/sections.py", "{_format_toml(limit_nesting(value, _MAX_JOB_LEVELS))}",
        "{_format_toml(value)}", "tests/model_store/report/test_sections.py::test_a_deeply_nested_job_is_cut",
    ),
    "a text that a request repeats is parsed once": Defence(
        "model_store/utils/values.py", "in dict.fromkeys(texts) if text not in known)", "in texts)",
        "tests/model_store/schema/test_row_parser.py::test_a_text_that_a_request_repeats_is_parsed_once",
    ),
    "few texts of a binary tensor are parsed for an example": Defence(
        "service/routes/row_repair.py", "tensors.first_texts(data, stop)[start:]",
        "tensors.first_texts(data, _MAX_TEXTS)[start:stop]",
        "tests/service/routes/test_error_examples.py::test_few_texts_of_a_binary_tensor_are_parsed_for_an_example",
    ),
    "only the first cells of golden rows are checked": Defence(
        "model_store/artifact/model.py", "min(by_cost, by_cells,", "min(by_cost,",
        "tests/model_store/artifact/test_model.py::test_only_the_first_cells_of_golden_rows_are_checked",
    ),
    "a thread closes a connection that lists close": Defence(
        "service/server/gunicorn_compat.py", "            req.force_close()", "            pass",
        "tests/service/server/test_gunicorn_compat.py::test_a_thread_closes_a_connection_that_lists_close",
    ),
    "columns of a request share parsed texts": Defence(
        "model_store/schema/columns/base.py", "return self._known_texts.setdefault(key, {})", "return {}",
        "tests/model_store/schema/test_row_parser.py::test_columns_of_a_request_share_parsed_texts",
    ),
    "columns of a CSV body share parsed texts": Defence(
        "model_store/schema/row_parser.py", "known = by_key.setdefault(key, {})", "known = {}",
        "tests/model_store/schema/test_row_parser.py::test_columns_of_a_request_share_parsed_texts",
    ),
    "a header of CSV is compared by hash": Defence(
        "model_store/schema/row_parser.py", "counts, known = Counter(header), {", "counts, known = header, {",
        "tests/model_store/schema/test_row_parser.py::test_the_cost_of_a_header_grows_with_its_length_alone",
    ),
    "few unknown names of a header are compared with missing ones": Defence(
        "model_store/schema/row_parser.py", "for name in unknown[:_MAX_MISSPELT]} if optional",
        "for name in unknown} if optional",
        "tests/model_store/schema/test_row_parser.py::test_the_cost_of_a_header_grows_with_its_length_alone",
    ),
    "lines of CSV count as values": Defence(
        "service/http/request_body.py", "else max(others))", "else 0)",
        "tests/service/http/test_request_body.py::test_lines_of_csv_count_as_values_also_empty_ones",
    ),
    "rows of CSV are counted before they are parsed": Defence(
        "service/protocols/csv_npy.py", "if table.has_more_than(max_rows):", "if len(table.read().rows) > max_rows:",
        "tests/service/routes/test_row_limits.py::test_rows_are_counted_before_a_value_is_converted",
    ),
    "no host is decoded": Defence(
        "service/http/request_head.py",
        'return f"{request.scheme}://{request.host}{quote(request.script_root, safe=_SAFE_IN_PATH)}"',
        'return request.root_url.rstrip("/")',
        "tests/service/http/test_hostile_headers.py::test_no_host_is_an_error_of_the_service",
    ),
    "malformed parameters are an error of the client": Defence(
        "service/protocols/csv_npy.py", "except (ValueError, LookupError):", "except ZeroDivisionError:",
        "tests/service/http/test_hostile_headers.py::test_no_value_of_a_header_is_an_error_of_the_service",
    ),
    "keys in a path are not logged": Defence(
        "service/telemetry/request_record.py",
        'return _API_KEY.sub("fp_[key]", text) if "fp_" in text or "%" in text else text',
        "return text",
        f"{ACCESS}::test_a_key_in_the_path_the_method_or_the_request_id_is_never_logged",
    ),
    "requests without a key are counted for no model": Defence(
        "service/app.py", 'if keys.has_scope(authorization, "predict") else None', "",
        f"{ACCESS}::test_a_rejected_request_without_a_key_is_counted_for_no_model",
    ),
    "unknown methods share the name of a span": Defence(
        "service/telemetry/tracing.py", "record.method if record.method in _METHODS else 'HTTP'", "record.method",
        "tests/service/telemetry/test_tracing.py::test_unknown_methods_share_the_name_of_a_span",
    ),
    "a store is listed for a share of the time": Defence(
        "service/registry/registry.py",
        "max(seconds, self._sync_interval.min_seconds()) if seconds else 0", "seconds",
        "tests/service/registry/test_failed_sync.py::test_a_store_that_is_costly_to_list_is_listed_less_often",
    ),
    "few broken versions of a model are tried": Defence(
        "service/registry/store_sync.py", "if is_due and loads >= _MAX_OLDER_LOADS:", "if False:",
        "tests/service/registry/test_failed_sync.py"
        "::test_few_broken_versions_of_a_model_are_tried_and_others_are_followed",
    ),
    "failed loads count for the interval between syncs": Defence(
        "service/registry/registry.py",
        "if new == old:\n            self._sync_interval", "if False:\n            self._sync_interval",
        "tests/service/registry/test_failed_sync.py"
        "::test_versions_that_cannot_be_loaded_count_for_the_interval_between_syncs",
    ),
    "pixels of an image are bounded by its header": Defence(
        "model_store/schema/columns/image_file.py", "    _check_size(width, height)\n    components", "    components",
        f"{IMAGES}::test_the_pixels_are_bounded_before_a_decoder_sees_the_file",
    ),
    "texts and profiles do not reach the decoder": Defence(
        "model_store/schema/columns/image_file.py", "if name in _PNG_PARTS:", "if True:",
        f"{IMAGES}::test_compressed_texts_and_profiles_do_not_reach_the_decoder",
    ),
    "parts of an image file are limited": Defence(
        "model_store/schema/columns/image_file.py", "yield from range(most)", "yield from iter(int, 1)",
        f"{IMAGES}::test_the_parts_of_a_file_are_counted",
    ),
    "scans of a JPEG are limited": Defence(
        "model_store/schema/columns/image_file.py", "if scans > _MAX_SCANS:", "if False:",
        f"{IMAGES}::test_the_scans_of_a_jpeg_are_bounded_and_counted",
    ),
    "pixels of a request are limited": Defence(
        "service/validation/row_limits.py", "if total > self.image_pixels:", "if False:",
        "tests/service/protocols/test_image_files.py"
        "::test_the_pixels_of_a_request_are_counted_before_one_is_decoded",
    ),
    "markers are found in linear time": Defence(
        "model_store/schema/columns/image_file.py", 'rb"\\xff([^', 'rb"\\xff+([^',
        f"{IMAGES}::test_markers_in_a_run_of_fill_bytes_are_found_in_linear_time",
    ),
    "padding, components and scans of a JPEG count": Defence(
        "model_store/schema/columns/image_file.py",
        "padded_width * padded_height * max(_PIXEL_BYTES, components)", "width * height * _PIXEL_BYTES",
        f"{IMAGES}::test_padding_components_and_scans_of_a_narrow_jpeg_are_counted",
    ),
    "rejected image files count": Defence(
        "model_store/schema/columns/image_decoding.py", "self.pixels = rejected_pixels(", "self.pixels = 0 * (",
        "tests/service/protocols/test_image_files.py::test_files_that_are_rejected_count",
    ),
    "pixels are converted in pieces": Defence(
        "model_store/schema/columns/image_decoding.py", "max(1, _PIECE_PIXELS // image.width)", "image.height",
        f"{IMAGES}::test_pixels_are_converted_in_pieces",
    ),
    "no image is decoded if another one is invalid": Defence(
        "model_store/schema/columns/array.py", "for i, file in files if not rejected else []:", "for i, file in files:",
        f"{IMAGES}::test_every_invalid_image_is_reported_and_none_decoded",
    ),
    "no image is decoded for an example": Defence(
        "model_store/schema/columns/array.py", "return [{B64_KEY: _WHITE_PIXEL}] if is_encoded(value) else", "return",
        "tests/service/protocols/test_image_files.py::test_an_image_is_not_decoded_for_the_example_of_an_error",
    ),
    "characters of texts are limited": Defence(
        "service/validation/row_limits.py", "if total > self.text_characters and count:", "if False:",
        "tests/service/routes/test_text_limits.py::test_every_protocol_limits_the_characters_of_texts",
    ),
    "texts that are parsed are limited": Defence(
        "service/validation/row_limits.py", "total += column.parse_characters(text)", "pass",
        "tests/service/routes/test_text_limits.py::test_every_protocol_limits_the_texts_that_are_parsed",
    ),
    "cells of CSV are counted before they are parsed": Defence(
        "service/protocols/csv_npy.py", 'served.row_limit.check_cells("rows", table.names, batch.cells)', "pass",
        "tests/service/routes/test_text_limits.py::test_every_protocol_limits_the_texts_that_are_parsed",
    ),
    "texts of binary tensors are counted": Defence(
        "service/http/request_body.py", "if count > max_bytes // _MIN_BYTES_PER_VALUE:", "if False:",
        "tests/service/routes/test_text_limits.py::test_the_texts_of_binary_tensors_are_counted_before_one_is_read",
    ),
    "a plain number is not searched for signs and units": Defence(
        "model_store/schema/columns/number_text.py", "if self._plain.fullmatch(text):", "if False:",
        "tests/model_store/schema/test_number_text.py"
        "::test_a_plain_number_is_read_without_a_search_for_signs_and_units",
    ),
    "no example is made of a large row": Defence(
        "model_store/artifact/model.py", "if self.example_values > MAX_EXAMPLE_VALUES:", "if False:",
        "tests/service/registry/test_example_request.py::test_no_example_is_made_of_a_large_row",
    ),
    "an example that is too long is not made": Defence(
        "service/routes/error_examples.py", "if _min_row_bytes(served) <= _MAX_BODY_BYTES:", "if True:",
        "tests/service/routes/test_wide_models.py::"
        "test_an_error_of_a_wide_model_is_short_and_no_row_is_repaired",
    ),
    "few tensors are compared with all names of a model": Defence(
        "service/routes/row_repair.py", "if unknown <= _MAX_UNKNOWN_NAMES else", "if True else",
        "tests/service/routes/test_wide_models.py::"
        "test_only_unknown_tensors_are_compared_with_the_names_of_a_model",
    ),
    "the page describes a bounded number of bytes": Defence(
        "service/openapi/described_models.py", "if size <= left:", "if True:",
        "tests/service/routes/test_wide_models.py::test_models_are_described_as_far_as_the_document_has_room",
    ),
    "the schemas of a model that cannot fit are not made": Defence(
        "service/openapi/described_models.py", "if least > left:", "if False:",
        "tests/service/routes/test_wide_models.py::test_a_model_that_cannot_fit_is_not_measured",
    ),
    "statistics with many bins are not monitored": Defence(
        "model_store/schema/columns/scaled_numbers.py", "== len(counts) <= _MAX_BINS", "== len(counts)",
        "tests/service/routes/test_wide_models.py::test_statistics_with_many_bins_are_not_monitored",
    ),
    "messages about a damaged alias quote nothing of it": Defence(
        "model_store/registry/alias_log.py", "found {len(data)} other bytes", "found {data!r}",
        "tests/model_store/registry/test_store.py::test_no_byte_of_a_file_that_a_link_leads_to_is_shown",
    ),
    "a line of a table file has a limit": Defence(
        "model_store/tables/text_file.py", "text.readline(MAX_LINE_CHARACTERS)", "text.readline()",
        "tests/training/data/test_odd_files.py::test_a_line_that_is_no_row_takes_bounded_memory",
    ),
    "the parts of keys in a job file are counted": Defence(
        "model_store/utils/toml.py", "if work > _MAX_KEY_WORK:", "if False:",
        "tests/training/config/test_schema.py::test_a_job_file_that_takes_long_to_parse_is_rejected",
    ),
    "rows need no more memory than there is": Defence(
        "training/available_memory.py", "if available is not None and needed > available:", "if False:",
        "tests/training/test_available_memory.py::test_arrays_that_do_not_fit_name_the_memory_that_they_need",
    ),
    "cells that a workbook leaves out are counted": Defence(
        "model_store/tables/spreadsheet.py", "if padded > max(MIN_PADDED_CELLS, MAX_PADDING * cell_count):",
        "if False:",
        "tests/training/data/test_odd_files.py::test_a_workbook_does_not_leave_out_most_of_its_cells",
    ),
    "values that JSON lines leave out are counted": Defence(
        "model_store/tables/json_lines.py", "if cells > max(MIN_SPARSE_CELLS, MAX_SPARSITY * values):", "if False:",
        "tests/training/data/test_odd_files.py::test_json_lines_do_not_leave_out_most_of_their_values",
    ),
    "the names of nested JSON values have a limit": Defence(
        "model_store/tables/json_lines.py", "if prefix and len(prefix) + len(key) > MAX_NAME_CHARACTERS:", "if False:",
        "tests/training/data/test_odd_files.py::test_names_of_nested_json_values_have_a_limit",
    ),
    "repeated texts of a dictionary are counted": Defence(
        "model_store/tables/arrow_file.py",
        "if repeated > max(MIN_REPEATED_CHARACTERS, MAX_REPETITION * sum(lengths)):", "if False:",
        "tests/training/data/test_hostile_tables.py::test_rows_share_the_texts_of_a_dictionary",
    ),
    "a batch of a wide Arrow table has few rows": Defence(
        "model_store/tables/arrow_file.py", "_BATCH_CELLS // max(1, len(columns))", "rows",
        "tests/training/data/test_hostile_tables.py::test_a_batch_of_a_wide_table_has_few_rows",
    ),
    "the rows of an Arrow stream are counted": Defence(
        "model_store/tables/arrow_file.py", "return sum(batch.num_rows for batch in _record_batches(reader))",
        "return sum(map(len, _record_batches(reader))) if hasattr(reader, 'num_record_batches') else 0",
        "tests/training/data/streaming/test_dataset.py::test_an_arrow_file_of_empty_columns_is_streamed",
    ),
    "a text of many rows is parsed once": Defence(
        "training/data/type_inference.py", "distinct = {cell for cell in cells if cell is not None}",
        "distinct = [cell for cell in cells if cell is not None]",
        "tests/training/data/test_type_inference.py::test_each_distinct_cell_is_parsed_once",
    ),
    "texts of Parquet are read as dictionaries": Defence(
        "model_store/tables/arrow_file.py", "read_dictionary=texts", "read_dictionary=[]",
        "tests/training/data/test_hostile_tables.py::test_rows_share_the_texts_of_a_dictionary",
    ),
    "bytes of Parquet are read as dictionaries": Defence(
        "model_store/tables/arrow_file.py", "if _is_text_or_bytes(self.column_type(name))",
        "if _is_text(self.column_type(name))",
        "tests/model_store/batch/test_parquet_memory.py::test_rows_share_the_bytes_of_a_dictionary",
    ),
    "repeated values of a kept column are counted": Defence(
        "model_store/batch/parquet_memory.py",
        "> max(MIN_REPEATED_CHARACTERS, MAX_REPETITION * int(lengths.sum())):", "> max(1 << 60, 0):",
        "tests/model_store/batch/test_parquet_memory.py::test_a_small_file_of_long_values_is_an_error",
    ),
    "a kept column is no larger than its bytes in the file allow": Defence(
        "model_store/batch/parquet_memory.py", "> max(_MIN_CHECKED_BYTES, MAX_REPETITION * compressed):",
        "> max(1 << 60, 0):",
        "tests/model_store/batch/test_parquet_memory.py::test_different_values_that_compress_well_are_an_error",
    ),
    "texts in lists are not kept": Defence(
        "model_store/batch/parquet_memory.py", "if name in unbounded", "if False",
        "tests/model_store/batch/test_parquet_memory.py::test_texts_and_bytes_in_other_types_are_not_kept",
    ),
    "a batch of wide rows has few of them": Defence(
        "model_store/batch/parquet_memory.py", "_BATCH_BYTES * metadata.num_rows // max(1, size)", "most",
        "tests/model_store/batch/test_parquet_memory.py::test_a_batch_of_wide_rows_has_few_of_them",
    ),
    "repeated values are written a few megabytes at a time": Defence(
        "model_store/batch/parquet_memory.py", 'int(np.searchsorted(ends, before + _BATCH_BYTES, "right"))',
        "table.num_rows",
        "tests/model_store/batch/test_parquet_memory.py::test_repeated_values_are_written_a_few_megabytes_at_a_time",
    ),
    "the plan in an output folder has values of its types": Defence(
        "model_store/batch/plan.py", "if not any(_is_of_type(value, one)", "if not any(True",
        "tests/model_store/batch/test_plan.py::test_a_value_of_another_type_in_a_plan_is_an_error_of_the_plan",
    ),
    "only known types of Arrow are read": Defence(
        "model_store/tables/arrow_file.py", "used = _is_supported(kind) and not", "used = not",
        "tests/training/data/test_hostile_tables.py::test_arrow_columns_of_other_types_are_ignored",
    ),
    "the batches of an Arrow file are validated": Defence(
        "model_store/tables/arrow_file.py", "selected.validate(full=True)", "pass",
        "tests/training/data/test_hostile_tables.py::test_invalid_values_of_an_arrow_file_are_its_error",
    ),
    "a workbook unpacks to a bounded multiple of its bytes": Defence(
        "model_store/tables/spreadsheet.py", "max(MIN_UNPACKED_BYTES, MAX_EXPANSION * size)", "MAX_UNPACKED_BYTES",
        "tests/training/data/test_hostile_tables.py::test_a_workbook_unpacks_to_a_bounded_multiple_of_its_size",
    ),
    "the tags of a workbook are counted": Defence(
        "model_store/tables/spreadsheet.py", "if count > most:", "if False:",
        "tests/training/data/test_hostile_tables.py::test_a_workbook_unpacks_to_a_bounded_multiple_of_its_size",
    ),
    "the parts of a workbook without cells have few bytes": Defence(
        "model_store/tables/spreadsheet.py", "if member.file_size > MAX_PART_BYTES:", "if False:",
        "tests/training/data/test_hostile_tables.py::test_the_parts_of_a_workbook_without_cells_are_small",
    ),
    "the parts of a workbook without cells have few tags": Defence(
        "model_store/tables/spreadsheet.py", "most = min(most, MAX_PART_TAGS)", "pass",
        "tests/training/data/test_hostile_tables.py::test_the_parts_of_a_workbook_without_cells_are_small",
    ),
    "a part of a workbook is read for one sheet": Defence(
        "model_store/tables/spreadsheet.py", "if len(set(targets)) < len(targets):", "if False:",
        "tests/training/data/test_hostile_tables.py::test_a_part_of_a_workbook_is_read_for_one_sheet",
    ),
    "a workbook has no XML entities": Defence(
        "model_store/tables/spreadsheet.py", "if _ENTITY.search(tail + block):", "if False:",
        "tests/training/data/test_hostile_tables.py::test_a_workbook_has_no_xml_entities",
    ),
    "the parts of a workbook are stored or deflated": Defence(
        "model_store/tables/spreadsheet.py", "if member.compress_type not in _COMPRESSIONS:",
        "if False:",
        "tests/training/data/test_hostile_tables.py::test_the_parts_of_a_workbook_are_stored_or_deflated",
    ),
    "the cells of a workbook have a limit": Defence(
        "model_store/tables/spreadsheet.py", "len(value) > MAX_CELL_CHARACTERS:", "False:",
        "tests/training/data/test_hostile_tables.py::test_a_workbook_has_no_longer_cells_than_excel_allows",
    ),
    "blank lines in succession have a limit": Defence(
        "model_store/tables/text_file.py", "if blank > MAX_BLANK_LINES:", "if False:",
        "tests/training/data/test_hostile_tables.py::test_a_file_of_blank_lines_is_read_no_further_than_a_limit",
    ),
    "a file that is compressed a hundredfold is streamed earlier": Defence(
        "training/data/streaming/dataset.py", "_BOMB_FACTOR if expanded > _MAX_COMPRESSION", "1 if False and expanded",
        "tests/training/data/streaming/test_dataset.py::"
        "test_a_file_that_is_compressed_a_hundredfold_is_streamed_earlier",
    ),
    "a file of many short rows is streamed": Defence(
        "training/data/streaming/dataset.py", """block.count(b"\\n") * _ROW_BYTES""", "0",
        "tests/training/data/streaming/test_dataset.py::test_a_file_of_many_short_rows_is_streamed",
    ),
    "a checkpoint is not decompressed": Defence(
        "training/engine/checkpoint.py", "check_stored(archive, os.fstat(file.fileno()).st_size)", "pass",
        "tests/training/engine/test_checkpoint.py::test_a_checkpoint_takes_no_more_memory_than_its_file",
    ),
    "a sheet of a workbook has a limit": Defence(
        "model_store/tables/spreadsheet.py", "if number > MAX_ROWS or cell_count > MAX_CELLS:", "if number > MAX_ROWS:",
        "tests/training/data/test_odd_files.py::"
        "test_a_workbook_that_leaves_out_rows_has_no_more_than_excel_allows",
    ),
    "a small body decompresses to a bounded size": Defence(
        "service/http/request_body.py", "min(max_bytes, max(_UNCOUNTED_BYTES, _MAX_COMPRESSION * len(body)))",
        "max_bytes",
        "tests/service/http/test_request_body.py::test_a_body_that_was_compressed_a_hundredfold_is_413",
    ),
    "an embedding lists no features that no array has": Defence(
        "model_store/nn/layers/embeddings.py", "self.chosen = np.array(self.positions)",
        "self.chosen = np.array(self.positions); np.arange(self.input_size)",
        "tests/model_store/nn/test_tabular_layers.py::"
        "test_embeddings_take_no_memory_for_the_features_that_they_pass_on",
    ),
    "an average keeps few outputs": Defence(
        "model_store/nn/average.py", "outputs = iter(outputs)", "outputs = iter(list(outputs))",
        "tests/model_store/nn/test_average.py::test_few_outputs_of_members_are_in_memory_at_a_time",
    ),
    "a small file of many cells is streamed": Defence(
        "training/data/streaming/dataset.py", "table.count_rows() * row_bytes", "0",
        "tests/training/data/streaming/test_dataset.py::"
        "test_a_small_file_that_expands_to_a_large_one_is_streamed",
    ),
    "a small file of many columns is streamed": Defence(
        "training/data/streaming/dataset.py", "* _CELL_BYTES", "* 0",
        "tests/training/data/streaming/test_dataset.py::test_an_arrow_file_of_empty_columns_is_streamed",
    ),
    "a listing of a bucket has a limit": Defence(
        "model_store/storage/bucket.py", "if seen > MAX_LISTED_OBJECTS:", "if False:",
        "tests/model_store/storage/test_bucket.py::test_a_listing_that_does_not_end_is_an_error",
    ),
    "a listing of a bucket has a time limit": Defence(
        "model_store/storage/bucket.py", "asyncio.timeout(MAX_LISTING_SECONDS):", "asyncio.timeout(None):",
        "tests/model_store/storage/test_hostile_bucket.py"
        "::test_a_listing_that_never_ends_is_an_error_and_sends_no_further_request",
    ),
    "the response of a collector is not read": Defence(
        "service/telemetry/tracing.py", "/v1/traces\", session=session)", "/v1/traces\")",
        "tests/service/telemetry/test_tracing.py::test_the_body_of_a_collectors_response_is_not_read",
    ),
    "costly scrapes take a share of a processor": Defence(
        "service/telemetry/metrics.py", "if time.monotonic() < self._reuse_until:", "if False:",
        "tests/service/telemetry/test_metrics.py::test_costly_scrapes_take_a_share_of_a_processor",
    ),
    "scrapes wait for health checks": Defence(
        "service/server/event_loop.py", "UNLOGGED_ROUTES - {METRICS_PATH}", "UNLOGGED_ROUTES",
        "tests/service/server/event_worker/test_event_worker.py::test_a_flood_of_scrapes_does_not_delay_health_checks",
    ),
    "few golden rows of many features are checked": Defence(
        "model_store/artifact/model.py", "by_cells, MAX_ARRAY_BYTES // self.row_bytes)", "by_cells)",
        "tests/model_store/artifact/test_model.py::test_check_golden_of_many_categories_encodes_few_rows",
    ),
    "Flask requires a key": Defence(
        "service/app.py", 'access.check(request.endpoint or "", authorization, environ["SERVER_PORT"])', '""',
        f"{ACCESS}::test_every_other_endpoint_requires_a_key",
    ),
    "the fast path requires a key": Defence(
        "service/server/fast_path.py",
        'self._keys.require_scope(head.uncached_headers.get("AUTHORIZATION"), self._scope)', '""',
        "tests/service/server/test_fast_path.py::test_keys_are_required_on_the_fast_path_too",
    ),
    "a key is valid for its scopes only": Defence(
        KEYS, "if granted & _SCOPE_BITS[scope]:", "if granted:",
        f"{CHECKS}::test_a_key_is_valid_for_its_scopes_only"
    ),
    "every key is compared in constant time": Defence(
        KEYS, "hmac.compare_digest(known, digest)", "(known == digest)",
        f"{CHECKS}::test_every_key_is_compared_in_constant_time",
    ),
    "expired and revoked keys grant nothing": Defence(
        KEYS, "_bits(key) if key.is_active(now) else 0", "_bits(key)",
        f"{CHECKS}::test_a_revoked_key_is_rejected_and_other_keys_of_its_name_are_valid",
    ),
    "no key is valid while the key file is invalid": Defence(
        KEYS, "self._replace_keys([])", "pass",
        f"{CHECKS}::test_no_key_is_valid_while_the_file_is_empty_or_invalid",
    ),
    "a vanished key file leaves the last valid keys in force": Defence(
        KEYS, "keep = e.errno == errno.ENOENT or", "keep =",
        f"{CHECKS}::test_the_last_valid_keys_stay_in_force_when_the_file_vanishes",
    ),
    "messages about a malformed head quote nothing of it": Defence(
        "service/server/gunicorn_compat.py", 'else problem\n', 'else str(error)\n',
        "tests/service/server/event_worker/test_secrets_in_heads.py::"
        "test_the_head_of_a_rejected_request_is_neither_logged_nor_returned",
    ),
    "log lines have visible characters only": Defence(
        "service/telemetry/logging.py", "printable(record.message, max_length=_MAX_MESSAGE_CHARACTERS)",
        "record.message",
        "tests/service/telemetry/test_logging.py::test_a_log_line_has_visible_characters_only_and_a_bounded_length",
    ),
    "a terminal gets visible characters only": Defence(
        "model_store/cli/terminal.py", "render_str(printable(text), **options)", "render_str(text, **options)",
        "tests/model_store/cli/test_hostile_strings.py::test_no_command_shows_characters_that_are_not_visible",
    ),
    "configured files are regular files": Defence(
        "model_store/utils/regular_file.py", "if not stat.S_ISREG(mode):", "if False:",
        "tests/model_store/utils/test_regular_file.py::test_a_pipe_or_a_device_is_refused_without_waiting",
    ),
    "messages quote nothing of a key file": Defence(
        KEYS, "with commas between and no spaces", "found {scopes}",
        f"{CHECKS}::test_a_secret_in_a_key_file_is_not_quoted",
    ),
    "401 and 403 reveal nothing about models": Defence(
        "service/routes/error_handlers.py", "if known and 400 <=", "if 400 <=",
        f"{ACCESS}::test_401_and_403_have_the_protocols_error_format_and_no_details_of_models",
    ),
    "errors show an example only to callers with a key": Defence(
        "service/routes/error_handlers.py", "if known and 400 <=", "if 400 <=",
        f"{ACCESS}::test_an_unknown_static_file_reveals_nothing_of_the_models",
    ),
    "the key comes before the listener": Defence(
        "service/security/access_control.py", "if self.keys.is_known(authorization):", "if True:",
        "tests/service/security/test_strangers.py::test_a_stranger_gets_the_same_responses_whatever_is_served",
    ),
    "errors show an example only to keys of its scope": Defence(
        "service/routes/error_handlers.py", '.has_scope(request.headers.get("Authorization"), scope)',
        '.is_known(request.headers.get("Authorization"))',
        "tests/service/security/test_strangers.py::test_a_key_learns_nothing_of_the_models_outside_its_scope",
    ),
    "readiness without a key has only the status": Defence(
        "service/routes/health.py", 'if keys.is_known(request.headers.get("Authorization")) and', "if",
        f"{ACCESS}::test_readiness_without_a_key_has_only_the_status",
    ),
    "only the admin port serves metrics and the repository": Defence(
        "service/security/access_control.py", 'return self.required_scope(endpoint) == "predict" or', "return True or",
        f"{ACCESS}::test_only_the_admin_port_serves_metrics_and_the_repository",
    ),
    "the repository requires an admin port": Defence(
        "service/config.py", 'if values.get("admin") and values.get("admin_port") == 0:', "if False:",
        f"{ACCESS}::test_the_repository_is_closed_by_default_and_requires_an_admin_port",
    ),
    "a forwarded prefix is believed of trusted proxies only": Defence(
        "service/http/request_head.py", ' and self._is_trusted(environ.get("REMOTE_ADDR", "")):', ":",
        "tests/service/http/test_request_head.py::test_a_prefix_is_believed_of_trusted_proxies_only",
    ),
    "pages of other origins cannot load or unload models": Defence(
        "service/app.py", "            check_no_foreign_page(environ)\n", "            pass\n",
        "tests/service/security/test_cross_site.py::test_a_page_of_another_origin_cannot_use_the_repository",
    ),
    "the repository accepts no body that a form can send": Defence(
        "service/http/cross_site.py", 'if media_type not in {"", "application/json"}:', "if False:",
        "tests/service/security/test_cross_site.py::test_the_repository_accepts_no_body_that_a_form_can_send",
    ),
    "other hosts are rejected": Defence(
        "service/app.py", 'hosts.check(environ.get("HTTP_HOST"))', "pass",
        "tests/service/security/test_cross_site.py::test_only_trusted_hosts_are_served",
    ),
    "other hosts are rejected on the fast path": Defence(
        "service/server/fast_path.py", 'if not self._hosts.is_trusted(headers.get("HOST")):', "if False:",
        "tests/service/security/test_cross_site.py::test_both_paths_of_the_real_server_check_the_host",
    ),
    "pages of other origins can read nothing": Defence(
        "service/http/cross_origin.py", "if origin not in self._origins:", "if origin is None:",
        "tests/service/security/test_cross_origin.py::test_another_origin_may_read_none",
    ),
    "pages of other origins can use neither metrics nor the repository": Defence(
        "service/app.py", 'return access.required_scope(request.endpoint or "") == "predict"', "return True",
        "tests/service/security/test_cross_origin.py::test_no_origin_may_use_metrics_and_the_repository",
    ),
    "no model file is accepted from a client": Defence(
        "service/protocols/open_inference_metadata.py", 'startswith("file:")', 'startswith("nothing:")',
        f"{ACCESS}::test_the_repository_accepts_no_file_from_a_client",
    ),
    "a call over gRPC needs a key before its message is read": Defence(
        "service/grpc/calls.py", "self._access.check(method.endpoint, authorization, port)", '""',
        f"{GRPC}/test_keys.py::test_a_stranger_is_refused_before_the_message_is_read",
    ),
    "the repository has a gRPC listener of its own": Defence(
        "service/grpc/calls.py", "if not self._has_repository:", "if False:",
        f"{GRPC}/test_calls.py::test_a_listener_without_the_repository_says_which_has_it",
    ),
    "messages that arrive slowly over gRPC are bounded": Defence(
        "service/grpc/slow_uploads.py", "if len(self._began) > self._limit:", "if False:",
        f"{GRPC}/test_slow_clients.py::test_slow_uploads_beyond_the_limit_are_ended_and_quick_calls_answered",
    ),
    "a message over gRPC arrives in time": Defence(
        "service/grpc/slow_uploads.py", "asyncio.timeout(READ_TIMEOUT_SECONDS)", "asyncio.timeout(60)",
        f"{GRPC}/test_slow_clients.py::test_a_message_that_does_not_arrive_in_time_is_given_up",
    ),
    "the fields of a message over gRPC are counted before it is parsed": Defence(
        "service/grpc/codec.py", "if len(data) > _UNCOUNTED_BYTES and count_fields(data, limit) > limit:", "if False:",
        f"{GRPC}/test_call_errors.py::test_a_wrong_request_is_refused_with_what_is_wrong",
    ),
    "a compressed message over gRPC is refused": Defence(
        "service/grpc/server.py", '("grpc.compression_enabled_algorithms_bitset", 1)', '("grpc.so_reuseport", 1)',
        f"{GRPC}/test_call_errors.py::test_a_compressed_message_is_refused_before_it_is_decompressed",
    ),
    "too many tensors over gRPC are refused before objects are made of them": Defence(
        "service/grpc/codec.py", "if len(given) > expected + InputError.MAX_FAULTS:", "if False:",
        f"{GRPC}/test_call_errors.py::test_too_many_tensors_are_refused_before_objects_are_made_of_them",
    ),
    "a shape over gRPC has few dimensions": Defence(
        "service/grpc/codec.py", "if len(tensor.shape) > MAX_DIMENSIONS:", "if False:",
        f"{GRPC}/test_call_errors.py::test_a_shape_of_millions_of_dimensions_does_not_become_a_list",
    ),
    "only ModelInfer has large messages over gRPC": Defence(
        "service/grpc/codec.py", "if kind is not ModelInferRequest and len(data) > _UNCOUNTED_BYTES:", "if False:",
        f"{GRPC}/test_call_errors.py::test_a_large_health_check_is_refused_unparsed",
    ),
    "pages run no script of their own": Defence(
        "service/http/responses.py", "script-src 'self';", "script-src 'self' 'unsafe-inline';",
        f"{PAGES}::test_no_page_may_load_or_run_anything_but_the_services_own_files",
    ),
    "pages have a policy": Defence(
        "service/http/responses.py",
        '        headers["Content-Security-Policy"] = PAGE_SECURITY_POLICY\n',
        '        del headers["Content-Security-Policy"]\n',
        f"{PAGES}::test_no_page_may_load_or_run_anything_but_the_services_own_files",
    ),
    "pages that are turned off are not found": Defence(
        "service/routes/page_frame.py", 'if not current_app.extensions["settings"].pages:', "if False:",
        f"{PAGES}::test_turned_off_there_is_no_page_and_no_file_of_one",
    ),
    "pages that are turned off are JSON": Defence(
        "service/routes/page_frame.py", "bool(settings.pages) and prefers_page", "prefers_page",
        f"{PAGES}::test_turned_off_there_is_no_page_and_no_file_of_one",
    ),
    "scripts of pages that are turned off are not found": Defence(
        "service/app.py", '"static" if settings.pages else None', '"static"',
        f"{PAGES}::test_turned_off_there_is_no_page_and_no_file_of_one",
    ),
    "the page of all models requires a key": Defence(
        "service/routes/pages.py", '        check_access("pages.overview")\n', "",
        f"{PAGES}::test_without_a_key_every_page_is_the_form_that_asks_for_one",
    ),
    "the page of the traffic requires its scope": Defence(
        "service/security/access_control.py", '    "pages.traffic_page": "metrics",\n', "",
        f"{PAGES}::test_a_page_is_shown_to_keys_of_its_scope_alone",
    ),
    "moves of aliases require the scope admin": Defence(
        "service/security/access_control.py", '    "aliases.move": "admin",\n', "",
        f"{ALIASES}::test_moves_require_the_scope_admin",
    ),
    "rollbacks require the scope admin": Defence(
        "service/security/access_control.py", '    "aliases.rollback": "admin",\n', "",
        f"{ALIASES}::test_moves_require_the_scope_admin",
    ),
    "protection of aliases requires the scope admin": Defence(
        "service/security/access_control.py", '    "aliases.protect": "admin",\n', "",
        f"{ALIASES}::test_moves_require_the_scope_admin",
    ),
    "moves of aliases are off by default": Defence(
        "service/routes/aliases.py", "if not settings.admin:", "if False:",
        f"{ALIASES}::test_moves_are_off_by_default",
    ),
    "the date of a file may be any": Defence(
        "model_store/storage/local.py", "seconds = min(max(status.st_mtime, _FIRST_SECOND), _LAST_SECOND)",
        "seconds = status.st_mtime",
        "tests/model_store/storage/test_local.py::test_a_file_of_any_date_is_a_version",
    ),
    "image files become one byte for each value": Defence(
        "model_store/schema/columns/array.py", "np.uint8 if all(map(is_encoded, values)) else np.float64",
        "np.float64",
        f"{IMAGES}::test_files_of_large_images_take_little_more_than_their_features",
    ),
    "arrays are encoded some rows at a time": Defence(
        "model_store/schema/signature.py", "count = max(1, _ENCODED_VALUES // max(1, column.width))",
        "count = len(values)",
        f"{IMAGES}::test_files_of_large_images_take_little_more_than_their_features",
    ),
    "random numbers of a large array have few digits": Defence(
        "model_store/importing/publication.py", "if column.width > _EXACT_VALUES:", "if False:",
        "tests/model_store/importing/test_costs.py::test_random_numbers_of_a_large_array_have_few_digits",
    ),
    "calls over gRPC beyond a limit are shed": Defence(
        "service/grpc/turns.py", "if self._counts.total() > MAX_WAITING:", "if False:",
        f"{GRPC}/test_turns.py::test_of_too_many_calls_the_newest_of_the_busiest_client_is_shed",
    ),
    "calls over gRPC are answered in turn by the address of their client": Defence(
        "service/grpc/turns.py", "            self._waiting.move_to_end(address)\n", "",
        f"{GRPC}/test_turns.py::test_a_client_with_many_calls_keeps_no_other_waiting",
    ),
    "calls over gRPC are answered in turn by connection": Defence(
        "service/grpc/turns.py", "            connections.move_to_end(port)\n", "",
        f"{GRPC}/test_turns.py::test_the_connections_of_an_address_are_served_in_turn",
    ),
    "a client over gRPC that goes on while its calls are shed loses its connections": Defence(
        "service/grpc/turns.py", "if count > MAX_UNANSWERED]", "if False]",
        f"{GRPC}/test_turns.py::test_the_connections_of_a_client_that_goes_on_are_closed",
    ),
    "gRPC refuses no call within the streams of a connection": Defence(
        "service/grpc/server.py", '("grpc.http.overload_protection", 0)', '("grpc.so_reuseport", 1)',
        f"{GRPC}/test_turns.py::test_calls_beyond_the_streams_of_a_connection_wait_in_the_client",
    ),
    "responses that clients over gRPC do not read are bounded": Defence(
        "service/grpc/calls.py", "if len(data) > SMALL_BYTES and", "if False and",
        f"{GRPC}/test_call_errors.py::test_large_responses_are_shed_while_clients_do_not_read",
    ),
    "clients over gRPC that read no responses lose their connections": Defence(
        "service/grpc/connections.py", "    if total <= limit:", "    if True:",
        f"{GRPC}/test_slow_clients.py::test_clients_that_read_no_responses_lose_their_connections",
    ),
    "the rows of an image file count": Defence(
        "model_store/schema/columns/image_file.py", " + _PIXELS_PER_ROW * self.height", "",
        f"{IMAGES}::test_the_rows_of_a_narrow_image_count",
    ),
    "silent connections to gRPC make room for new clients": Defence(
        "service/grpc/connections.py", "if len(clients) <= max_connections * 3 // 4:", "if True:",
        f"{GRPC}/test_slow_clients.py::test_silent_connections_make_room_for_new_clients",
    ),
    "a client with many watchers shuts out no other address": Defence(
        "service/grpc/watchers.py", "if count < counts[address] + 2:", "if True:",
        f"{GRPC}/test_slow_clients.py::test_a_client_with_many_watchers_shuts_out_no_other_address",
    ),
    "a truncated body is rejected": Defence(
        "service/http/request_body.py", "elif len(body) < announced:", "elif False:",
        "tests/service/http/test_request_body.py::test_a_body_shorter_than_its_content_length_is_400",
    ),
    "a body has a size limit": Defence(
        "service/http/request_body.py", "if announced is not None and announced > max_bytes:", "if False:",
        "tests/service/http/test_request_body.py::test_a_body_over_the_limit_is_413_before_it_is_read",
    ),
    "rows are limited by the values of the response": Defence(
        "service/validation/row_limits.py", "self.output_values // values)", "self.inference_rows)",
        "tests/service/routes/test_row_limits.py::test_every_protocol_has_the_limit_of_the_model",
    ),
    "intervals count as values of the response": Defence(
        "service/validation/row_limits.py", "self.row_values * (1 + values)", "self.row_values",
        "tests/service/routes/test_levels.py::test_intervals_count_as_values_of_the_response",
    ),
    "a level that the calibration rows do not promise is refused": Defence(
        "model_store/artifact/asked_answers.py", "conformal.rows < (needed := rows_needed(value))", "not (needed := 1)",
        "tests/service/routes/test_levels.py::test_what_a_model_cannot_promise_is_refused",
    ),
    "rows that are explained are limited": Defence(
        "service/validation/row_limits.py", "if rows > self.explained_rows:", "if False:",
        "tests/service/routes/test_explain.py::test_more_rows_than_are_explained_are_413",
    ),
    "an explanation of one row that is too costly is refused": Defence(
        "service/validation/row_limits.py",
        'return 0, "the explanation of one row takes more operations than SERVE_MAX_OPERATIONS"', "by_cost = 1",
        "tests/service/routes/test_explain.py::test_explanations_that_are_off_or_too_costly_are_refused",
    ),
    "rows that are explained count by their operations": Defence(
        "service/validation/row_limits.py",
        "return min(self.max_explained_rows, by_cost, by_values)", "return min(self.max_explained_rows, by_values)",
        "tests/service/routes/test_explain.py::test_rows_that_are_explained_count_by_their_operations",
    ),
    "a backward pass keeps bounded memory": Defence(
        "model_store/nn/integrated_gradients.py", "return 2 * _kept_bytes(network) <= MAX_KEPT_BYTES", "return True",
        "tests/model_store/nn/test_integrated_gradients.py::test_a_network_that_keeps_too_much_memory_is_refused",
    ),
    "the row to compare with is checked as rows are": Defence(
        "service/protocols/explain_request.py", 'limit.check_rows(f"{location}.baseline", rows)', "pass",
        "tests/service/protocols/test_image_files.py::test_the_pixels_of_a_row_to_compare_with_are_limited",
    ),
    "rows with a receipt are limited by what it costs": Defence(
        "service/validation/row_limits.py", "values *= RECEIPT_VALUES", "pass",
        "tests/service/routes/test_row_limits.py::test_a_receipt_counts_as_values_of_the_response",
    ),
    "equal probabilities are not sorted": Defence(
        "model_store/schema/top_k.py", "before <= missing[:, np.newaxis]", "before > 0",
        "tests/model_store/schema/test_top_k.py::test_equal_values_are_not_sorted",
    ),
    "only range warnings that are sent are formatted": Defence(
        "service/inference/range_warnings.py", "is_first)[: InputError.MAX_FAULTS - len(found)].tolist():",
        "is_first).tolist():",
        "tests/service/inference/test_range_warnings.py::test_as_many_values_are_formatted_as_a_response_has",
    ),
    "small outputs of the V2 protocol are rendered together": Defence(
        "service/protocols/open_inference.py", "if waiting and values + array.size > BLOCK_VALUES:", "if waiting:",
        "tests/service/routes/test_wide_models.py::test_a_response_of_many_targets_is_rendered_in_few_parts",
    ),
    "a large response is rendered in blocks of rows": Defence(
        "service/protocols/row_blocks.py", "BLOCK_VALUES = 2**15", "BLOCK_VALUES = 2**40",
        "tests/service/server/event_worker/test_large_responses.py::test_the_largest_response_takes_little_more_than_its_own_memory",
    ),
    "the pieces of a large response count as output": Defence(
        "service/server/admission.py", "output_bytes += sum(map(len, connection.send_pieces))", "pass",
        "tests/service/server/event_worker/test_large_responses.py"
        "::test_a_client_that_does_not_read_keeps_no_other_waiting_and_counts_as_output",
    ),
    "a forwarded prefix has no escaped dot": Defence(
        "service/http/request_head.py", "%(?![01]|2[ef]|5c|7f)", "%(?![01]|5c|7f)",
        "tests/service/http/test_request_head.py::test_anything_but_a_path_is_no_prefix",
    ),
    "rows are limited by the network's operations": Defence(
        "service/validation/row_limits.py", "model.network.row_cost.max_rows(self.max_operations),", "",
        "tests/service/routes/test_row_limits.py::test_the_limit_counts_operations",
    ),
    "the calls of a layer count as operations": Defence(
        "model_store/nn/cost.py", "LAYER_OPERATIONS + CALL_OPERATIONS * calls)", "LAYER_OPERATIONS)",
        "tests/model_store/nn/test_cost.py::test_pooling_counts_a_call_for_each_place_in_a_window",
    ),
    "the vectors of a layer count as operations": Defence(
        "model_store/nn/cost.py", "layer.value(dtype) * values + layer.vector * vectors", "layer.value(dtype) * values",
        "tests/model_store/nn/test_cost.py::test_a_vector_of_few_values_costs_more_than_they_do",
    ),
    "rows are limited by their encoded size": Defence(
        "service/validation/row_limits.py", "MAX_ARRAY_BYTES // model.row_bytes,", "",
        "tests/service/routes/test_row_limits.py::test_the_limit_counts_the_labels_of_categories",
    ),
    "rows are limited by their cells": Defence(
        "service/validation/row_limits.py", "self.max_cells // len(model.signature.inputs),", "",
        "tests/service/routes/test_row_limits.py::test_the_limit_counts_cells_also_those_that_a_request_leaves_out",
    ),
    "later values that were filled in are counted without a text": Defence(
        "model_store/schema/columns/base.py",
        "if k == InputError.MAX_FAULTS or locations.rows[i] >= self._end:", "if k < 0:",
        "tests/model_store/schema/test_signature.py"
        "::test_the_cost_of_filled_and_unknown_values_grows_with_the_columns_alone",
    ),
    "a column that no row has is encoded once": Defence(
        "model_store/schema/signature.py",
        "block = column.encode(column.missing_values(1), locations, FaultCollector())",
        "block = column.encode(column.missing_values(count), locations, FaultCollector())",
        "tests/model_store/schema/test_signature.py::test_a_column_that_no_row_has_is_encoded_once",
    ),
    "few unknown categories are compared for the example of an error": Defence(
        "service/routes/row_repair.py", "most = 1 if is_category and compared >= _MAX_COMPARED else None",
        "most = None",
        "tests/service/routes/test_error_examples.py::test_few_unknown_categories_are_compared_for_the_example",
    ),
    "a model whose folder cannot be read hides no other": Defence(
        "model_store/registry/store.py",
        'found = read_all_indexes(self.storage, "*/aliases/*/*", "*/*", unreadable=unreadable)',
        'found = read_all_indexes(self.storage, "*/aliases/*/*", "*/*")',
        "tests/model_store/storage/test_local.py::test_a_model_whose_folder_cannot_be_read_hides_no_other",
    ),
    "files that others write to are not mapped": Defence(
        "model_store/artifact/npz.py", "content = file.map() if mapped else file.copy()", "content = file.map()",
        "tests/model_store/storage/test_truncated_files.py::test_truncation_by_another_process_is_an_error",
    ),
    "a service whose models are all unloaded is not ready": Defence(
        "service/registry/registry.py", "served.name not in self.unloaded_models for served in", "True for served in",
        "tests/service/protocols/test_open_inference_repository.py::test_a_service_whose_models_are_all_unloaded_is_not_ready",
    ),
    "a lock is not waited for in silence": Defence(
        "model_store/utils/file_lock.py", "if wait and waited >= _SILENT_SECONDS and not warned:", "if False:",
        "tests/model_store/storage/test_artifact_cache.py::test_a_lock_that_another_process_holds_is_waited_for_aloud_and_not_for_ever",
    ),
    "a key that is sent twice is rejected": Defence(
        "service/http/request_body.py", "if has_duplicate_keys(body, parsed):", "if False:",
        "tests/service/http/test_request_body.py::test_a_key_that_is_sent_twice_is_rejected_by_name",
    ),
    "a key that is sent twice is rejected on the fast path": Defence(
        "service/server/fast_path.py", " or has_duplicate_keys(body, parsed):", ":",
        "tests/service/server/test_fast_path_equals_flask.py::test_the_fast_path_responds_as_flask_does",
    ),
    "what begins no request is rejected at once": Defence(
        "service/server/request_reader.py", "_check_request_start(bytes(self.buffer[:MAX_REQUEST_LINE_BYTES]))", "pass",
        "tests/service/server/test_request_reader.py::test_what_begins_no_request_is_rejected_at_once",
    ),
    "malformed chunks are rejected": Defence(
        "service/server/request_reader.py", 'if buffer[:2] != b"\\r\\n":', "if False:",
        "tests/service/server/test_request_reader.py::"
        "test_a_malformed_chunked_body_cannot_be_read_and_ends_the_connection",
    ),
    "bodies of small chunks are decoded in turns": Defence(
        "service/server/request_reader.py", "for _ in range(3 * CHUNKS_PER_READ):", "while True:",
        "tests/service/server/event_worker/test_event_loop.py::test_a_body_of_small_chunks_does_not_delay_other_requests",
    ),
    "requests that wait too long are shed": Defence(
        "service/server/admission.py", "- connection.arrived_at > MAX_QUEUE_SECONDS",
        "- connection.arrived_at > 1e9",
        "tests/service/server/event_worker/test_event_worker.py::"
        "test_a_request_queued_for_too_long_is_shed_and_its_connection_kept",
    ),
    "health checks are served one per turn": Defence(
        "service/server/event_loop.py", "self._queue_of(connection, request.head.path).append(connection)",
        "(self.queue.append if request.head.path in '/a/b/c' else self.queue.appendleft)(connection)",
        "tests/service/server/event_worker/test_event_worker.py::test_a_flood_of_health_checks_does_not_delay_other_requests",
    ),
    "a load does not block the event loop": Defence(
        "service/registry/on_demand.py", "if not may_wait:", "if False:",
        "tests/service/server/event_worker/test_background_loading.py::test_loading_a_version_does_not_delay_other_requests",
    ),
    "loads for requests take a share of a processor": Defence(
        "service/registry/on_demand.py", "return 0 if left > 0 else", "return 0 if True else",
        "tests/service/registry/test_on_demand.py"
        "::test_versions_asked_for_in_turn_are_loaded_for_a_share_of_the_time",
    ),
    "no request waits for a load beyond the budget": Defence(
        "service/registry/on_demand.py", "self._check_budget(*key)\n        if not may_wait:", "if not may_wait:",
        "tests/service/registry/test_on_demand.py::test_the_event_loop_queues_no_request_beyond_the_budget",
    ),
    "a sync for a request is followed by a pause": Defence(
        "service/registry/on_demand.py", "ended + max(EARLY_SYNC_SECONDS, pause)", "ended",
        "tests/service/registry/test_on_demand.py"
        "::test_requests_that_wait_for_a_sync_share_it_and_the_next_one_begins_after_a_pause",
    ),
    "requests wait together for a switch": Defence(
        "service/registry/switch_barrier.py",
        "not self.has_no_pending_proposal and self._clock() - self._words[_PROPOSED_AT] < seconds * _SECOND",
        "not self.has_no_pending_proposal",
        "tests/service/registry/test_on_demand.py::test_requests_wait_together_for_a_switch_that_does_not_come",
    ),
    "a version without its record is no change for another worker": Defence(
        "service/registry/store_sync.py", "old.publication(each) if old else each.publication", "each.publication",
        "tests/service/registry/test_generation_switch.py"
        "::test_workers_in_turn_find_nothing_new_in_a_version_without_its_record",
    ),
    "evicted versions keep their copies": Defence(
        "service/registry/version_cache.py", "self._evicted[evicted] = oldest.digest", "pass",
        "tests/service/registry/test_registry.py"
        "::test_evicted_version_is_loaded_again_from_its_copy_unverified_and_unchecked",
    ),
    "copies of evicted versions take a bounded room": Defence(
        "model_store/storage/artifact_cache.py", "+ (size := unused[digest].stat().st_size) <= MAX_SPARE_BYTES",
        "+ (size := 0) <= MAX_SPARE_BYTES",
        "tests/model_store/storage/test_artifact_cache.py"
        "::test_remove_unused_copies_spares_the_first_ones_within_a_limit",
    ),
    "a version that cannot be loaded is not retried at once": Defence(
        "service/registry/on_demand.py", "if self._loader.in_backoff(*key):", "if False:",
        "tests/service/server/event_worker/test_background_loading.py::test_a_version_that_cannot_be_loaded_is_503_and_is_not_retried_at_once",
    ),
    "requests that wait for a load do not count toward the input limit": Defence(
        "service/server/event_worker.py", "loop.admission.release_input_bytes(connection)", "pass",
        "tests/service/server/event_worker/test_blocking_executor.py::test_waiting_requests_are_bounded_and_do_not_count_toward_the_input_limit",
    ),
    "buffered input is bounded": Defence(
        "service/server/admission.py", "if connection.input_bytes:  # else it is shed already", "if False:",
        "tests/service/server/event_worker/test_memory_limits.py::test_input_is_bounded_for_all_connections_together",
    ),
    "large uploads shed no small request": Defence(
        "service/server/admission.py", "filter(self.is_large, self.connections)", "self.connections",
        "tests/service/server/event_worker/test_memory_limits.py::test_large_uploads_shed_no_small_request",
    ),
    "large requests take at most half of the time while small ones wait": Defence(
        "service/server/event_worker.py", "(not loop.queue or self._large_request_seconds <= 0)", "True",
        "tests/service/server/event_worker/test_event_worker.py::"
        "test_large_requests_take_at_most_half_of_the_time_while_small_ones_wait",
    ),
    "only the proxy sets X-Forwarded-Proto": Defence(
        "examples/edge/nginx.conf", "proxy_set_header X-Forwarded-Proto https;", "",
        "tests/edge/test_edge.py::test_a_client_cannot_set_forwarded_headers",
    ),
    "only the proxy sets Forwarded": Defence(
        "examples/edge/nginx.conf", 'proxy_set_header Forwarded "";', "",
        "tests/edge/test_edge.py::test_a_client_cannot_set_forwarded_headers",
    ),
    "the proxy has the service's limit of body size": Defence(
        "examples/edge/nginx.conf", "client_max_body_size 8m;", "client_max_body_size 0;",
        "tests/edge/test_edge.py::test_a_body_over_the_limit_is_rejected_before_it_is_sent",
    ),
    "an artifact's arrays match their hashes": Defence(
        "model_store/artifact/npz.py", "if hashlib.sha256(_byte_view(array)).hexdigest() != sha256:", "if False:",
        "tests/model_store/artifact/test_format.py::test_hashes_are_true",
    ),
    "a model holds no row of its data": Defence(
        "training/pipeline/golden_rows.py", 'if examples == "rows":', "if True:",
        "tests/training/pipeline/test_golden_rows.py::test_a_model_holds_no_row_of_its_data_by_default",
    ),
    "an artifact's numbers are finite": Defence(
        "model_store/artifact/npz.py", "    if not finite:\n", "    if False:\n",
        "tests/model_store/artifact/test_format.py::test_arrays_are_finite",
    ),
    "signatures are verified": Defence(
        "model_store/registry/signing.py", "            key.verify(signature, signed_message(name, digest))\n",
        "            pass\n",
        "tests/service/registry/test_signature_policy.py::test_a_foreign_signature_or_one_for_another_name_is_refused",
    ),
    "a misspelt name is compared with few others": Defence(
        "model_store/similar_names.py", "if len(names) <= 4 * _NEIGHBOURS:", "if True:",
        "tests/model_store/test_similar_names.py::test_comparisons_are_bounded",
    ),
    "a network runs on as many rows as fit": Defence(
        "model_store/nn/sequential.py", "batch = self.row_cost.batch_rows", "batch = 1 << 30",
        "tests/model_store/nn/test_cost.py::test_the_arrays_of_a_batch_stay_in_the_cache",
    ),
    "an array of a row has bounded bytes": Defence(
        "model_store/nn/from_config.py", "(found := network.row_cost.bytes) > MAX_ARRAY_BYTES", "False",
        "tests/model_store/nn/test_cost.py::test_a_network_with_a_larger_array_for_a_row_is_rejected",
    ),
    "values of float64 count at their slowest arguments": Defence(
        "model_store/nn/cost.py", "self.float32 if dtype == np.float32 else self.float64", "self.float32",
        "tests/model_store/nn/test_cost.py::test_float64_counts_its_slowest_arguments",
    ),
    "waves count cosines of large angles": Defence(
        "model_store/nn/cost.py", "cosine = 120 if dtype == np.float32 else 1_000", "cosine = 10",
        "tests/model_store/nn/test_cost.py::test_waves_count_cosines_of_large_angles",
    ),
    "an activation runs in pieces": Defence(
        "model_store/nn/layers/activations.py", "return apply_in_pieces(self.activation, inputs)",
        "return self.activation(inputs)",
        "tests/model_store/nn/test_cost.py::test_an_activation_needs_no_more_than_its_outputs",
    ),
    "the noise of small samples is no drift": Defence(
        "service/inference/drift.py", "(false_alarm_quantile(freedom) - freedom) * noise", "0.0",
        "tests/service/inference/test_drift.py::test_six_columns_without_drift_have_an_index_around_zero_and_no_alarm",
    ),
    "lost counts end no process": Defence(
        "service/telemetry/mmap_counters.py", "except (CountsUnavailableError, OSError) as e:",
        "except ZeroDivisionError as e:",
        "tests/service/telemetry/test_mmap_counters.py::test_a_removed_directory_stops_the_scrape_and_nothing_else",
    ),
    "a cache in the store is rejected": Defence(
        "model_store/storage/artifact_cache.py", 'if "://" not in location and Path(', "if False and Path(",
        "tests/service/server/test_lost_store.py::test_a_cache_in_the_store_ends_the_start",
    ),
    "a cache that others can write to is rejected": Defence(
        "model_store/storage/artifact_cache.py", "or stat.S_IMODE(status.st_mode) & 0o022:", "or False:",
        "tests/model_store/storage/test_artifact_cache.py::test_a_cache_writable_by_others_is_rejected",
    ),
    "under overload many connections are accepted in a turn": Defence(
        "service/server/acceptor.py", "if now - self._backlog_since > OVERLOAD_SECONDS:", "if False:",
        "tests/service/server/event_worker/test_memory_limits.py::test_overload_does_not_leave_connections_in_the_backlog",
    ),
    "idle connections are closed for new ones": Defence(
        "service/server/admission.py", "not waits_for_next, connection.deadline", "connection.deadline",
        "tests/service/server/event_worker/test_memory_limits.py::test_idle_clients_do_not_shut_out_new_ones",
    ),
    "a process without descriptors allows fewer connections": Defence(
        "service/server/acceptor.py", "self._on_fd_exhaustion(e)", "pass",
        "tests/service/server/event_worker/test_memory_limits.py::test_without_descriptors_the_connection_limit_is_lowered",
    ),
    "the connection limit is restored": Defence(
        "service/server/admission.py", "        self.connection_limit = MAX_CONNECTIONS\n        return True",
        "        return True",
        "tests/service/server/event_worker/test_memory_limits.py::test_the_connection_limit_is_restored_once_descriptors_suffice",
    ),
    "a shortage of the whole system closes no connection": Defence(
        "service/server/acceptor.py", "if e.errno == errno.EMFILE:", "if True:",
        "tests/service/server/event_worker/test_memory_limits.py::test_a_passing_shortage_of_the_system_closes_no_connection",
    ),
    "accepting pauses during a shortage": Defence(
        "service/server/acceptor.py", "self._pause(e)", "pass",
        "tests/service/server/event_worker/test_memory_limits.py::test_accepting_pauses_while_the_system_is_short",
    ),
    "an internal error closes one connection": Defence(
        "service/server/event_loop.py", "except Exception:  # noqa: BLE001 - a fault of ours",
        "except ZeroDivisionError:  #",
        "tests/service/server/event_worker/test_event_loop.py::test_an_internal_error_closes_its_own_connection_only",
    ),
    "labels of versions are bounded": Defence(
        "service/telemetry/metrics.py", "full = len(self._version_labels) >= MAX_LABELLED_VERSIONS", "full = False",
        "tests/service/telemetry/test_request_record.py::test_versions_beyond_the_limit_share_a_label",
    ),
    "labels of models are bounded": Defence(
        "service/telemetry/metrics.py", "if len(self._labelled_models) < MAX_LABELLED_VERSIONS:", "if True:",
        "tests/service/telemetry/test_request_record.py::test_models_beyond_the_limit_share_a_label",
    ),
    "the reference page is rendered once": Defence(
        "service/routes/docs.py", "if not pages or pages[0][0]() is not snapshot:", "if True:",
        "tests/service/routes/test_wide_models.py::test_the_page_of_a_snapshot_is_rendered_once_for_all_hosts",
    ),
    "values of the page of a network are bounded": Defence(
        "service/pages/network.py", "if values > self._left:", "if False:",
        "tests/service/pages/test_network.py::test_values_beyond_the_budget_are_counted_and_left_out",
    ),
    "layers of the page of a network are bounded": Defence(
        "service/pages/activations.py", "if i < MAX_LAYERS:", "if True:",
        "tests/service/pages/test_network.py::test_of_many_layers_the_first_are_shown",
    ),
    "no output of a layer is kept": Defence(
        "service/pages/activations.py", "in enumerate(steps):", "in enumerate(list(steps)):",
        "tests/service/pages/test_network.py::test_few_outputs_of_a_row_are_in_memory_at_a_time",
    ),
    "each network of an ensemble runs once": Defence(
        "service/pages/activations.py", "known if i == member else network(rows)", "network(rows)",
        "tests/service/pages/test_network.py::test_each_network_of_an_ensemble_runs_once",
    ),
    "activations are those of one row": Defence(
        "service/pages/activations.py", "if isinstance(rows, list) and len(rows) > 1:", "if False:",
        "tests/service/pages/test_network.py::test_an_invalid_request_is_refused_with_its_location",
    ),
    "a network is described once": Defence(
        "service/routes/network.py", 'if layers is None or layers["member"] != member:', "if True:",
        "tests/service/pages/test_network.py::test_a_version_is_described_once",
    ),
    "the largest body fits into the limit of waiting input": Defence(
        "service/config.py", "self.max_body_bytes + _MAX_FRAMING_BYTES)", "0)",
        "tests/service/test_config.py::test_the_largest_body_with_its_head_fits_into_the_limit_of_waiting_input",
    ),
    "integers have 64 bits": Defence(
        "model_store/artifact/manifest.py", "if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:", "if False:",
        "tests/model_store/artifact/test_format.py::test_integers_have_64_bits",
    ),
    "version numbers of aliases are bounded": Defence(
        "model_store/registry/alias_log.py", '0 < found["version"] < MAX_VERSION', '0 < found["version"]',
        "tests/model_store/registry/test_aliases.py"
        "::test_a_revision_with_another_version_than_a_number_is_rejected",
    ),
    "too little memory for a body is no fault of the client": Defence(
        "service/http/request_body.py", "    except MemoryError:\n        raise  # the body may be valid: 500\n", "",
        "tests/service/http/test_request_body.py::test_too_little_memory_for_a_body_is_500",
    ),
    "too little memory for an array is no fault of the client": Defence(
        "service/protocols/csv_npy.py", "    except MemoryError:\n        raise  # the body may be valid: 500\n", "",
        "tests/service/protocols/test_csv_npy.py::test_too_little_memory_for_an_array_is_500",
    ),
    "the shape of an array is checked before memory is allocated": Defence(
        "service/protocols/csv_npy.py", "array = read_npy(body)",
        "import io, numpy as np; array = np.lib.format.read_array(io.BytesIO(body))",
        "tests/service/protocols/test_csv_npy.py"
        "::test_a_shape_that_the_body_does_not_have_is_rejected_without_allocating_it",
    ),
    "an archive of arrays is not read": Defence(
        "service/protocols/csv_npy.py", "array = read_npy(body)",
        "import io, numpy as np; array = np.load(io.BytesIO(body))",
        "tests/service/protocols/test_csv_npy.py::test_an_archive_of_arrays_is_rejected_unread",
    ),
    "the mean of the noise is subtracted from the drift": Defence(
        "service/inference/drift.py", "population_stability_index(expected, found) - freedom * noise",
        "population_stability_index(expected, found)",
        "tests/service/inference/test_drift.py::test_without_drift_the_mean_index_is_near_zero",
    ),
    "old versions that clients ask for take no memory for drift": Defence(
        "service/inference/drift.py", "if self._is_monitored(served):", "if True:",
        "tests/service/inference/test_drift.py::test_requests_for_old_versions_leave_no_cells",
    ),
    "the memory of a version's drift is freed with it": Defence(
        "service/inference/drift.py", "self._counters.drop_internal_gauges(released)", "pass",
        "tests/service/inference/test_drift.py::test_cells_of_versions_that_are_no_longer_monitored_are_freed",
    ),
    "means of arrays are compared with a margin for rounding": Defence(
        "model_store/schema/columns/array.py", "dtype, margin)", "dtype, 0.0)",
        "tests/service/inference/test_drift.py::test_arrays_of_a_constant_mean_have_no_drift",
    ),
    "a prediction is finite after its scaling": Defence(
        "model_store/schema/signature.py", "self._check_finite(values)", "pass",
        "tests/model_store/schema/test_signature.py::test_a_prediction_that_is_not_finite_raises",
    ),
    "rows that Flask handles again are not counted before": Defence(
        "service/server/fast_path.py", "if has_failed:", "if False:",
        "tests/service/server/test_fast_path.py::test_rows_that_flask_handles_again_are_counted_once",
    ),
    "requests that overload sheds are counted for their model": Defence(
        "service/server/error_responses.py",
        'self._recorder.served_at(head.path, head.uncached_headers.get("AUTHORIZATION"))', "None",
        "tests/service/server/event_worker/test_event_worker.py::test_requests_rejected_by_overload_are_counted_for_their_model",
    ),
    "counts without space are logged": Defence(
        "service/telemetry/cell_file.py", "            except OSError as e:\n                self._private = True",
        "            except ZeroDivisionError as e:\n                self._private = True",
        "tests/service/telemetry/test_cell_file.py"
        "::test_without_space_counting_continues_in_private_memory_and_is_logged",
    ),
}  # fmt: skip


def run(folder: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "mnist"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.mark.slow
def test_the_tests_of_all_defences_pass(copy: Path) -> None:
    done = run(copy, *sorted({defence.test for defence in DEFENCES.values()}))
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFENCES)
def test_the_test_of_a_defence_fails_without_it(copy: Path, name: str) -> None:
    defence = DEFENCES[name]
    path = copy / defence.file
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace(defence.line, defence.without), encoding="utf-8")
    try:
        done = run(copy, defence.test)
    finally:
        path.write_text(whole, encoding="utf-8")
    if re.search(r"\d skipped", done.stdout):
        pytest.skip("this machine cannot run the test")
    assert done.returncode == 1, done.stdout + done.stderr  # failed, and was found
    assert re.search(r"^FAILED ", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.parametrize("name", DEFENCES)
def test_the_line_of_a_defence_occurs_once(name: str) -> None:
    defence = DEFENCES[name]
    assert (ROOT / defence.file).read_text(encoding="utf-8").count(defence.line) == 1, defence.line


def exists(test: str) -> bool:
    """True if there is a test of that name, given as `tests/file.py::test_name`."""
    file, _, name = test.partition("::")
    if not (ROOT / file).is_file():
        return False
    found = ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in found)


def named_tests(mark: str = "", document: Path = DOCUMENT) -> list[str]:
    """Return the tests in the tables of SECURITY.md or another document, or those of the rows with a mark."""
    rows = [row for row in document.read_text(encoding="utf-8").splitlines() if row.startswith("| ") and mark in row]
    return re.findall(r"`(tests/[\w/]+\.py::test_\w+)`", "\n".join(rows))


def test_every_test_that_security_md_names_exists() -> None:
    named = named_tests()
    assert len(named) > 40
    assert [test for test in named if not exists(test)] == []
    assert not exists("tests/test_defences.py::test_that_is_not_there")


def test_every_test_of_the_stress_tests_document_exists_and_its_marks_are_true() -> None:
    named = named_tests(document=STRESS_DOCUMENT)
    assert len(named) > 10
    assert [test for test in named if not exists(test)] == []
    assert set(named_tests("✂", STRESS_DOCUMENT)) <= {defence.test for defence in DEFENCES.values()}


def test_security_md_marks_the_defences_that_are_removed() -> None:
    marked = named_tests("✂")
    assert len(marked) == len(set(marked))
    assert set(marked) == {defence.test for defence in DEFENCES.values()}
