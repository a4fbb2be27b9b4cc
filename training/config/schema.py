"""The job file's schema: its sections and keys, their valid values, and the faults of everything else.

A fault has a location (`train.learning_rate`), what was expected and found, and a fix. All faults of a job are
reported at once. docs/jobs.md explains the keys to users.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from marshmallow import ValidationError, fields, validates_schema

from model_store.errors import Fault, did_you_mean
from model_store.nn import INITIALIZERS
from model_store.schema.columns import TABLE_KINDS
from model_store.schema.columns.image_decoding import CROPS, MAX_IMAGE_SIDE
from model_store.schema.target_transform import TRANSFORMS
from model_store.tables.formats import TABLE_FORMATS, is_table
from model_store.tables.options import OPTION_RULES, TableOptions, find_conflict
from model_store.utils.values import describe_value, is_name
from training.config.fields import (
    SECTION_SCHEMAS,
    CheckedField,
    ChoiceField,
    SectionField,
    SectionSchema,
    flatten_messages,
    is_integer_between,
    number_field,
    one_of,
    text_field,
    validation_error,
)
from training.config.layer_spec import OUTPUT_ACTIVATIONS, LayersField
from training.config.search_schema import SearchSchema, check_search
from training.config.settings import (
    AnswersSection,
    DataSection,
    ImageSection,
    JobSettings,
    ModelSection,
    NetworkSection,
    PublishSection,
    SplitSection,
    is_image_folder,
)
from training.config.threshold_rule import METRICS, find_threshold_problem
from training.config.train_schema import TrainSchema

# Fields --------------------------------------------------------------------------------------------------------------


class KindsField(fields.Field[dict[str, str]]):
    """A table of column kinds by name."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> dict[str, str]:
        if not isinstance(value, dict):
            raise validation_error(f"expected a table such as {{ year = 'category' }}, found {describe_value(value)}")
        faults = {
            column: [
                Fault(
                    "", f"expected {one_of(TABLE_KINDS)}, found {describe_value(kind)}", did_you_mean(kind, TABLE_KINDS)
                )
            ]
            for column, kind in value.items()
            if kind not in TABLE_KINDS
        }
        if faults:
            raise ValidationError(faults)
        return value


def _file() -> CheckedField:
    return CheckedField(
        "the path of a file, relative to the job file", lambda value: isinstance(value, str) and bool(value)
    )


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) and name for name in value)


def _column_names(expected: str, single: bool) -> CheckedField:
    def is_valid(value: Any) -> bool:
        return (single and value != "") if isinstance(value, str) else _are_names(value)

    return CheckedField(expected, is_valid)


# Schemas -------------------------------------------------------------------------------------------------------------


class ModelSchema(SectionSchema):
    settings_class = ModelSection
    expected = "a name of letters, digits, '.', '_' and '-' that starts with a letter or digit, at most 100 characters"
    name = CheckedField(expected, is_name, required=True)
    description = text_field()
    examples = ChoiceField(("synthetic", "rows", "none"))


_COLUMN_KEYS = ("columns", "kinds", "optional", "asinh", "weight")


class ImageSchema(SectionSchema):
    settings_class = ImageSection
    size = CheckedField(
        f"[height, width], each from 1 to {MAX_IMAGE_SIDE}",
        lambda value: (
            isinstance(value, list)
            and len(value) == 2
            and all(is_integer_between(side, 1, MAX_IMAGE_SIDE) for side in value)
        ),
    )
    colour = ChoiceField(("rgb", "grey"))
    crop = ChoiceField(CROPS)


class DataSchema(SectionSchema):
    settings_class = DataSection

    class Meta:
        include: ClassVar = {key: CheckedField(rule.expected, rule.is_valid) for key, rule in OPTION_RULES.items()}

    path = _file()
    images = _file()
    labels = _file()
    target = _column_names("a column name, or a list of names", single=True)
    task = ChoiceField(("classification", "regression", "multi_label"))
    label_separator = CheckedField(
        "one to ten characters, such as '|'", lambda value: isinstance(value, str) and 0 < len(value) <= 10
    )
    label_threshold = number_field("a number above 0, below 1", lambda value: 0 < value < 1)
    columns = _column_names("a list of column names", single=False)
    kinds = KindsField()
    missing = ChoiceField(("impute", "refuse"))
    long_rows = ChoiceField(("refuse", "drop"))
    indicators = CheckedField("true or false", lambda value: isinstance(value, bool))
    optional = CheckedField("'all', or a list of column names", lambda value: value == "all" or _are_names(value))
    unknown = ChoiceField(("refuse", "bucket"))  # type: ignore[assignment]  # marshmallow removes fields from the class
    scale = ChoiceField(("standard", "robust", "none"))
    asinh = CheckedField("'skewed', or a list of column names", lambda value: value == "skewed" or _are_names(value))
    target_transform = ChoiceField(TRANSFORMS)
    weight = CheckedField("a column name", lambda value: isinstance(value, str) and bool(value))
    stream = CheckedField("true or false", lambda value: isinstance(value, bool))
    image = SectionField(ImageSchema)

    @validates_schema(skip_on_field_errors=False, pass_original=True)
    def _check_files(self, data: dict[str, Any], original_data: Any, **_: Any) -> None:
        if not isinstance(original_data, Mapping):
            return
        data = {**original_data, **data}  # an invalid value has its own fault, but the key is present
        path, images, labels = data.get("path"), data.get("images"), data.get("labels")
        if path is None:
            if images is None and labels is None:
                raise validation_error("missing; expected the path of a table or of an .npz file", key="path")
            for key, other in (("images", "labels"), ("labels", "images")):
                if data.get(key) is None:
                    raise validation_error(f"missing; expected the IDX file for '{other}'", key=key)
        elif images is not None or labels is not None:
            raise validation_error("expected either path, or images and labels, found both", "remove one", key="path")
        elif not isinstance(path, str) or is_image_folder(path):
            return
        elif not is_table(path) and not path.lower().endswith(".npz"):
            fix = "save a table as CSV or Parquet; for IDX files write images = ... and labels = ..."
            expected = f"a {TABLE_FORMATS}, an .npz file, or a folder of images that ends in /"
            problem = f"expected {expected}; found {describe_value(path)}"
            raise validation_error(problem, fix, key="path")
        elif is_table(path) and "target" not in data:
            raise validation_error("missing; expected the column to predict", key="target")

    @validates_schema(skip_on_field_errors=False, pass_original=True)
    def _check_images(self, data: dict[str, Any], original_data: Any, **_: Any) -> None:
        if not isinstance(original_data, Mapping):
            return
        if not is_image_folder(data.get("path")):
            if "image" in original_data:
                problem = "only for a folder of images, whose path ends in /"
                raise validation_error(problem, "remove it, or end the path with /", key="image")
            return
        if data.get("task", "classification") != "classification":
            problem = f"expected a classification by the folders of the images, found {describe_value(data['task'])}"
            raise validation_error(problem, "remove it", key="task")
        if data.get("stream"):
            raise validation_error("images are read into memory", "remove it", key="stream")

    @validates_schema(skip_on_field_errors=False)
    def _check_table_keys(self, data: dict[str, Any], **_: Any) -> None:
        if is_table(str(data.get("path", ".csv"))) and "images" not in data:
            if problem := find_conflict(TableOptions(**{key: data[key] for key in OPTION_RULES if key in data})):
                raise validation_error(problem, "write separator = ';', or remove one of them", key="decimal")
            return
        faults = {key: Fault("", "only tables have named columns", "remove it") for key in _COLUMN_KEYS if key in data}
        keys = (*OPTION_RULES, "long_rows")
        faults |= {key: Fault("", "only tables are read so", "remove it") for key in keys if key in data}
        if faults:
            raise ValidationError({key: [fault] for key, fault in faults.items()})

    @validates_schema(skip_on_field_errors=False)
    def _check_columns(self, data: dict[str, Any], **_: Any) -> None:
        target = data.get("target", [])
        targets = target if isinstance(target, list) else [target]
        for key, names in (
            ("target", targets),
            ("columns", data.get("columns", [])),
            ("optional", data.get("optional", []) if data.get("optional") != "all" else []),
            ("asinh", data.get("asinh", []) if data.get("asinh") != "skewed" else []),
        ):
            if double := next((name for i, name in enumerate(names) if name in names[:i]), None):
                raise validation_error(f"'{double}' is listed twice", "list each column once", key=key)
        if (weight := data.get("weight")) is not None:
            if weight in targets:
                raise validation_error(f"'{weight}' is the target", "choose another column", key="weight")
            if weight in data.get("columns", []):
                fix = "remove it from the columns"
                raise validation_error(f"'{weight}' is the weight of the rows, which is no input", fix, key="columns")
        if both := next((name for name in data.get("columns", []) if name in targets), None):
            raise validation_error(f"'{both}' is the target", "remove it from the columns", key="columns")
        if "optional" in data and data.get("missing") == "refuse":
            problem = "missing = 'refuse' accepts no missing values"
            raise validation_error(problem, "remove it, or write missing = 'impute'", key="optional")
        if len(targets) > 1 and data.get("task") == "classification":
            problem = f"expected one column for a classification, found {len(targets)}"
            raise validation_error(
                problem, "write task = 'multi_label' if a row may have several of them", key="target"
            )

    @validates_schema(skip_on_field_errors=False)
    def _check_labels(self, data: dict[str, Any], **_: Any) -> None:
        target, task = data.get("target"), data.get("task")
        several = isinstance(target, list) and len(target) > 1
        if "label_separator" in data:
            if task not in (None, "multi_label"):
                problem = f"only for several labels in a text, found the task '{task}'"
                raise validation_error(problem, "remove it, or write task = 'multi_label'", key="label_separator")
            if several or (isinstance(data.get("path"), str) and not is_table(data["path"])):
                problem = "only for a single target column of texts"
                raise validation_error(problem, "remove it, or the other targets", key="label_separator")
        elif task == "multi_label" and target is not None and not several and is_table(str(data.get("path", ""))):
            problem = "expected a column for each label, or one column and label_separator"
            raise validation_error(problem, "write label_separator = '|', for example", key="target")
        if "label_threshold" in data and task not in (None, "multi_label"):
            problem = f"only for several labels, found the task '{task}'"
            raise validation_error(problem, "remove it", key="label_threshold")


class SplitSchema(SectionSchema):
    settings_class = SplitSection
    test = number_field("a fraction of the rows, from 0 to below 1", lambda fraction: 0 <= fraction < 1)
    validation = number_field("a fraction of the rows, from 0 to below 1", lambda fraction: 0 <= fraction < 1)
    by = ChoiceField(("group", "time"))
    column = CheckedField("a column name", lambda value: isinstance(value, str) and bool(value))
    calibration = number_field("a fraction of the rows, from 0 to below 1", lambda fraction: 0 <= fraction < 1)
    stratify = CheckedField("true or false", lambda value: isinstance(value, bool))
    test_file = _file()

    @validates_schema
    def _check_sum(self, data: dict[str, Any], **_: Any) -> None:
        split = SplitSection(**data)
        if split.test + split.validation >= 1:
            problem = f"expected test + validation below 1, found {split.test} + {split.validation}"
            raise validation_error(problem, "the rest are the training rows", key="validation")
        if split.test + split.validation + (split.calibration or 0) >= 1:
            found = f"{split.test} + {split.validation} + {split.calibration}"
            raise validation_error(
                f"expected test + validation + calibration below 1, found {found}",
                "the rest are the training rows",
                key="calibration",
            )

    @validates_schema
    def _check_keys(self, data: dict[str, Any], **_: Any) -> None:
        if "by" in data and "column" not in data:
            raise validation_error(f"missing; expected the column of the {data['by']}", key="column")
        if "column" in data and "by" not in data:
            raise validation_error("missing; expected 'group' or 'time' for the column", key="by")
        if "by" in data and data.get("stratify"):
            problem = f"rows that are split by {data['by']} cannot be stratified"
            raise validation_error(problem, "remove it", key="stratify")
        if "test_file" in data and data.get("test"):
            problem = "expected either a fraction of the rows or a test_file, found both"
            raise validation_error(problem, "remove it", key="test")


class NetworkSchema(SectionSchema):
    settings_class = NetworkSection
    layers = LayersField()
    output = ChoiceField(tuple(OUTPUT_ACTIVATIONS))
    initializer = ChoiceField(tuple(INITIALIZERS))
    parametrization = ChoiceField(("standard", "ntk"))
    clip_outputs = CheckedField("true or false", lambda value: isinstance(value, bool))
    dtype = ChoiceField(("float32", "float64"))


class ThresholdField(fields.Field[Any]):
    """How the threshold of two classes is chosen: see `choose_threshold`."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> Any:
        if problem := find_threshold_problem(value):
            fix = did_you_mean(value, METRICS) if isinstance(value, str) else ""
            raise validation_error(f"{problem}, found {describe_value(value)}", fix)
        return value


class AnswersSchema(SectionSchema):
    settings_class = AnswersSection
    temperature = CheckedField("true or false", lambda value: isinstance(value, bool))
    threshold = ThresholdField()


class PublishSchema(SectionSchema):
    settings_class = PublishSection
    alias = CheckedField(
        "a name of letters, digits, '.', '_' and '-' that is neither a number nor 'latest'",
        lambda value: is_name(value) and not value.isdigit() and value != "latest",
    )


class JobSchema(SectionSchema):
    settings_class = JobSettings
    model = SectionField(ModelSchema, required=True)
    data = SectionField(DataSchema, required=True)
    split = SectionField(SplitSchema)
    network = SectionField(NetworkSchema)
    train = SectionField(TrainSchema)
    answers = SectionField(AnswersSchema)
    publish = SectionField(PublishSchema)
    search = SectionField(SearchSchema)

    @validates_schema
    def _check_split(self, data: dict[str, Any], **_: Any) -> None:
        section, split = data["data"], data.get("split", SplitSection())
        faults: dict[str, list[Fault]] = {}
        if split.by is not None and (section.path is None or not is_table(section.path)):
            faults["by"] = [Fault("", "only tables have named columns", "remove it")]
        targets = section.target if isinstance(section.target, list) else [section.target]
        if split.column is not None and split.column in targets:
            faults["column"] = [Fault("", f"'{split.column}' is the target", "choose another column")]
        if split.test_file is not None:
            suffix = Path(section.path or "").suffix.lower()
            if section.path is None:
                faults["test_file"] = [Fault("", "only for a data.path, found images and labels", "remove it")]
            elif is_image_folder(section.path) != is_image_folder(split.test_file):
                problem = f"expected a folder of images as data.path is, found {split.test_file!r}"
                if not is_image_folder(section.path):
                    problem = f"expected a {suffix} file, as data.path is, found {split.test_file!r}"
                faults["test_file"] = [Fault("", problem, "end folders, and no files, with /")]
            elif Path(split.test_file).suffix.lower() != suffix and not is_image_folder(section.path):
                problem = f"expected a {suffix} file, as data.path is, found {split.test_file!r}"
                faults["test_file"] = [Fault("", problem, "convert the file")]
        if faults:
            raise ValidationError({"split": faults})


SECTION_SCHEMAS.update(
    model=ModelSchema,
    data=DataSchema,
    split=SplitSchema,
    network=NetworkSchema,
    train=TrainSchema,
    answers=AnswersSchema,
    publish=PublishSchema,
    search=SearchSchema,
)


def validate(job: Mapping[str, Any]) -> JobSettings | list[Fault]:
    """Return the settings of a job, or all its faults in the order of the file's keys."""
    schema = JobSchema()
    try:
        settings: JobSettings = schema.load(job)
    except ValidationError as error:
        order = list(_locations(job))
        faults = list(flatten_messages(error.messages))
        return sorted(faults, key=lambda fault: order.index(fault.location) if fault.location in order else len(order))
    if settings.search is not None and (faults := check_search(job, settings.search.space, schema.load)):
        return faults
    return settings


def _locations(value: Any, location: str = "") -> list[str]:
    items: list[tuple[Any, Any]] = []
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    locations = [location] if location else []
    for key, inner in items:
        locations += _locations(inner, f"{location}.{key}".removeprefix("."))
    return locations
