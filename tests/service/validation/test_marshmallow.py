"""What predict_request.py relies on without marshmallow documenting it: an upgrade that changes it fails here."""

from __future__ import annotations

from typing import Any

import pytest
from marshmallow import Schema, ValidationError, fields

from service.validation.predict_request import InstancesField, ModelNameField, PredictSchema
from tests.service.conftest import price


class Rejecting(fields.Field[Any]):
    message = object()

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        raise ValidationError([self.message])  # type: ignore[list-item]


def test_a_message_may_be_any_object_and_is_passed_on_unchanged() -> None:
    """Faults are passed as messages: a text alone would lose their locations and fixes."""
    schema = Schema.from_dict({"a": Rejecting(), "b": Rejecting()})()
    with pytest.raises(ValidationError) as caught:
        schema.load({"a": 1, "b": 2})
    assert caught.value.messages_dict.keys() == {"a", "b"}
    for (message,) in caught.value.messages_dict.values():
        assert message is Rejecting.message


def test_each_schema_has_its_own_fields() -> None:
    """The constructor sets the model and its name on them."""
    first, second = price(), price()
    one, other = PredictSchema("one", first), PredictSchema("other", second)
    for schema, of, name in ((one, first, "one"), (other, second, "other")):
        instances, model = schema.fields["instances"], schema.fields["model"]
        assert isinstance(instances, InstancesField)
        assert isinstance(model, ModelNameField)
        assert instances.model is not None
        assert (instances.model(), model.expected_name) == (of, name)


@pytest.mark.parametrize(("body", "found"), [({}, "none"), ({"instances": None}, "null")])
def test_missing_and_null_values_are_reported_by_make_error(body: dict[str, Any], found: str) -> None:
    with pytest.raises(ValidationError) as caught:
        PredictSchema().load(body)
    ((fault,),) = caught.value.messages_dict.values()
    assert fault.problem == f"expected a list of rows, found {found}"
