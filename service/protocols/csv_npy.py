"""CSV (text/csv) and .npy (application/x-npy) request bodies, and images (image/png, image/jpeg).

Whether the first line of CSV is a header is decided in model_store/schema/row_parser.py.
"""

from __future__ import annotations

from email.message import Message
from email.utils import collapse_rfc2231_value

from model_store.errors import Fault, InputError
from model_store.schema import row_parser
from model_store.schema.row_parser import Header, RowBatch
from model_store.utils.npy import read_npy
from model_store.utils.values import describe_value, list_names
from service.http.request_body import bad_request, check_value_count
from service.protocols import tensors
from service.protocols.row_encoding import encode_rows
from service.registry.loaded_version import LoadedVersion
from service.validation.predict_request import EncodedRows
from service.validation.row_limits import TooManyRowsError

CSV, NPY = "text/csv", "application/x-npy"
IMAGES = ("image/png", "image/jpeg")
MEDIA_TYPES = (CSV, NPY, *IMAGES)
_MAX_CONTENT_TYPE_CHARACTERS = 1000
_HEADERS: dict[str, Header] = {"present": "present", "absent": "absent"}


def parse_csv_rows(body: bytes, served: LoadedVersion, content_type: str, *, max_rows: int, max_bytes: int) -> RowBatch:
    """Parse a CSV body into rows that are not encoded yet. They and their texts are counted before one is parsed."""
    header = _header_parameter(content_type)
    check_value_count(body, max_bytes, "CSV")
    table = row_parser.open_csv(body, "", served.model.signature, header)
    if table.has_more_than(max_rows):
        raise TooManyRowsError("rows", max_rows, "more")
    batch = table.read_cells()
    served.row_limit.check_cells("rows", table.names, batch.cells)
    return table.with_rows(batch)


def _header_parameter(content_type: str) -> Header | None:
    """Return the parameter `header` of text/csv, None if it was not sent. InputError if it is invalid or repeated."""
    found = _parameters(content_type, "header")
    if found is None:
        problem = "expected parameters such as header=present, found malformed ones"
    elif len(found) > 1:
        problem = f"expected the parameter header once, found {len(found)} times"
    elif found and found[0] not in _HEADERS:
        problem = f"expected header=present or header=absent, found {describe_value(found[0])}"
    else:
        return _HEADERS[found[0]] if found else None
    fix = "send text/csv; header=present if the first line names the columns, else header=absent"
    raise InputError([Fault("Content-Type", problem, fix)])


def _parameters(content_type: str, name: str) -> list[str] | None:
    """Return the values of a parameter of a Content-Type, None if its parameters are malformed."""
    if len(content_type) > _MAX_CONTENT_TYPE_CHARACTERS:
        return None
    message = Message()
    try:  # RFC 2231 has charsets and numbers in the names of parameters
        message["Content-Type"] = content_type
        return [collapse_rfc2231_value(value) for key, value in message.get_params([]) if key == name]
    except (ValueError, LookupError):
        return None


def encode_npy(body: bytes, served: LoadedVersion, max_rows: int) -> EncodedRows:
    """Encode an .npy body as the network's input. The model must take a single tensor."""
    tensor = tensors.single_input_spec(served.model.signature)
    if tensor is None:
        names = list_names(served.model.signature.names)
        raise InputError([Fault("body", f"expected the columns {names}, found one array", "send JSON or CSV")])
    try:
        array = read_npy(body)
    except MemoryError:
        raise  # the body may be valid: 500
    except Exception as e:  # a malformed header raises many types of exception
        raise bad_request(f"the body is not an .npy file: {e}", "write it with numpy.save", "broken_body") from e
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise InputError(
            [Fault("body", "expected one array of numbers, found something else", "write it with numpy.save")]
        )
    arrays = {tensor.name: array.astype(array.dtype.newbyteorder("<"))}
    return tensors.encode(served.model, arrays, max_rows)


def encode_image(body: bytes, served: LoadedVersion) -> EncodedRows:
    """Encode an image file as the network's input of one row. The model must take image files."""
    first = served.model.signature.inputs[0]
    if not first.takes_files:
        problem = f"expected rows of {list_names(served.model.signature.names)}, found an image file"
        raise InputError([Fault("Content-Type", problem, "send JSON, or ask a model that takes images")])
    return encode_rows(served, [body], "rows")
