"""Canonical JSON follows RFC 8785, as JavaScript's own JSON.stringify writes it."""

import json
import math
import random
import shutil
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.utils import canonical_json as canonical_json_module
from model_store.utils.canonical_json import canonical_json

NODE = shutil.which("node")
# RFC 8785, appendix B: the bits of a double, and its form.
NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}
DATA = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**64)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize(("bits", "text"), NUMBERS.items())
def test_numbers_have_the_form_of_the_rfc(bits: str, text: str) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical_json(number) == text


def test_the_examples_of_the_rfc() -> None:
    data = json.loads(
        r'{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],'
        r'"string": "\u20ac$\u000F\u000aA\'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}'.replace(
            "\\'", "'"
        )
    )
    assert canonical_json(data) == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        r'"string":"€$\u000f\nA'
        "'"
        r'B\"\\\\\"/"}'
    )
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    ordered = ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    assert list(json.loads(canonical_json(dict.fromkeys(keys)))) == ordered


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [-math.inf], [0.5, math.nan]])
def test_numbers_that_are_not_finite_are_rejected(value: object) -> None:
    with pytest.raises(ValueError, match="expected a finite number"):
        canonical_json(value)


def test_other_types_are_rejected() -> None:
    with pytest.raises(TypeError, match="expected JSON data, found tuple"):
        canonical_json([(1,)])


@given(DATA)
def test_canonical_json_is_json_of_the_same_data(data: object) -> None:
    found = canonical_json(data)
    assert canonical_json(json.loads(found)) == found
    assert " " not in found or '"' in found


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_numbers_are_those_of_javascript() -> None:
    """200,000 doubles: of random bits, of every magnitude near the exponents' thresholds, and integers."""
    rng = random.Random(8785)
    numbers = [struct.unpack("<d", rng.randbytes(8))[0] for _ in range(80_000)]
    numbers += [rng.random() * 10.0 ** rng.randint(-10, 25) for _ in range(80_000)]
    numbers += [float(rng.randint(-(10 ** rng.randint(1, 24)), 10 ** rng.randint(1, 24))) for _ in range(40_000)]
    numbers = [number for number in numbers if math.isfinite(number)]
    given: list[int | float] = [*numbers, *[rng.getrandbits(64) for _ in range(1000)], 2**53, 2**53 + 1, 0.0, -0.0]
    script = "process.stdout.write(JSON.stringify(JSON.parse(require('fs').readFileSync(0, 'utf8'))))"
    done = subprocess.run(
        [str(NODE), "-e", script], input=json.dumps(given), capture_output=True, text=True, check=True
    )
    assert done.stdout == canonical_json(given)
    floats = [*numbers, 0.0, -0.0]  # written together, not one by one
    assert canonical_json(floats) == f"[{','.join(map(canonical_json, floats))}]"
    assert done.stdout.startswith(canonical_json(numbers)[:-1])


@pytest.mark.parametrize("exponent", range(-9, 24))
def test_doubles_are_the_same_together_as_alone(exponent: int) -> None:
    """orjson writes them together, with other exponents than ECMAScript."""
    rng = random.Random(exponent)
    numbers = [sign * rng.choice([1.0, rng.random(), 1.25]) * 10.0**exponent for sign in (1, -1) for _ in range(50)]
    numbers += [0.0, -0.0, 10.0, -10.0, 1e-10, -1e-10]
    alone = list(map(canonical_json, numbers))
    assert canonical_json(numbers) == f"[{','.join(alone)}]"
    keys = [f"{i}%s" for i in range(len(numbers))]
    members = sorted(f'"{key}":{text}' for key, text in zip(keys, alone, strict=True))
    assert sorted(canonical_json(dict(zip(keys, numbers, strict=True)))[1:-1].split(",")) == members


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_any_doubles_are_the_same_together_as_alone(numbers: list[float]) -> None:
    assert canonical_json(numbers) == f"[{','.join(map(canonical_json, numbers))}]"


def test_keys_are_encoded_once_for_any_number_of_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """With top_k, each row has the same labels in its own order: 10,000 rows of 100 labels encoded 1,000,000 keys."""
    encoded: list[str] = []
    encode = canonical_json_module.encode_basestring
    monkeypatch.setattr(canonical_json_module, "encode_basestring", lambda key: encoded.append(key) or encode(key))
    keys = [f"label {i} of this test" for i in range(20)]
    rows = [dict.fromkeys(random.Random(seed).sample(keys, 20), 0.5) for seed in range(50)]
    assert len({canonical_json(row) for row in rows}) == 1
    assert sorted(encoded) == sorted(keys)
