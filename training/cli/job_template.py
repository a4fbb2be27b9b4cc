"""The text of a job file for a table, with a comment for each key."""

from __future__ import annotations

TEMPLATE = """\
# Training job. `train check FILE` shows what it would train, `train FILE` trains it. docs/jobs.md explains every key.

[model]
name = {model}
description = {description}
# examples = "rows"  # publish real held-out rows in the model; default: "synthetic", rows that are made up; or "none"

[data]
path = {path}
{format}target = {target}
{labels}task = "{task}"  # the target has {found}
{threshold}# The other columns and their inferred kinds:
{kinds}
{columns}
# kinds = {{ year = "category" }}  # overrides an inferred kind: {kind_names}
missing = "impute"   # fill in the median or the most frequent category; or "refuse": reject missing values
indicators = true    # whether a value is missing is a feature, or a category, of each column that 1 % of the rows lack
optional = "all"     # requests may lack any input: it is filled in, with a warning; or a list of inputs
unknown = "bucket"   # categories that training did not see count as one, with a warning; or "refuse": reject them
scale = "standard"   # scale numbers to mean 0 and standard deviation 1; or "robust", "none"
asinh = "skewed"     # scale numbers that span orders of magnitude about as their logarithms; or a list of columns
{transform}# weight = "column"    # how much each row counts: numbers of at least 0

[split]
test = {test}           # share of rows held out for evaluation
validation = {validation}     # share of rows held out for early stopping, which an ensemble does not need
{stratify}# by = "group"         # keeps the rows of a group together; or "time": holds out the latest rows
# column = {group}   # of the group or the time; a group is no input, since new groups are unknown
# test_file = "test.csv"  # a file of its own for testing, instead of a share
{calibration}
{sections}
{answers}# [publish]
# alias = "candidate"  # moves to each new version; requests keep the version that they get until `models promote`

# [search.train]       # what `train sweep FILE` tries, in place of the values above: see docs/sweeps.md
# learning_rate = {{ log_uniform = [{lowest_rate}, {highest_rate}] }}
"""


SEPARATOR_LINE = (
    "label_separator = {separator}  # a row has any number of labels; remove both if each text is a class\n"
)
THRESHOLD_LINE = "# label_threshold = 0.5  # the least probability of a predicted label\n"
AMOUNTS_HINT = '; write "regression" if they are counts or amounts, not classes'
NO_COLUMNS = "# columns = []  # without this key all columns are used, although none is of use"
TRANSFORM_LINE = (
    '# target_transform = "log"  # the target is skewed ({before:.1f}, its logarithm {after:.1f}): lowers errors in '
    "percent, not the RMSE\n"
)
STRATIFY_LINE = "stratify = true      # each part has rows of all tenths of the target\n"
CALIBRATION_LINE = (
    "# calibration = 0.1     # share of rows held out for {what} that hold the truth as often as a request asks for\n"
)
DECISION_LINES = """\
# [answers]
# threshold = "f1"     # from which probability the second label, of both as sorted, is predicted: chosen by its F1, by
#                      # "balanced_accuracy", by { precision = 0.9 } or by costs: see docs/jobs.md

"""
