"""JSON in another form, or invalid JSON: equal manifests would have two digests, and parsers disagree about duplicate
keys.
"""

from __future__ import annotations

from tests.attacks.forge import ValidArtifact, Variants, canonical_json, main


def hostile(artifact: ValidArtifact) -> Variants:
    text = canonical_json(artifact.manifest)
    texts = {
        "not JSON": b"{" * len(text),
        "deeply nested": b"[" * 100_000,
        "spaces": text.replace(b":", b": "),
        "a newline at the end": text + b"\n",
        "a key twice": text[:-1] + b',"training":{}}',
        "keys out of order": b'{"zzz":1,' + text[1:],
        "NaN": text.replace(b"0.75", b"NaN"),
        "a number beyond float64": text.replace(b"0.75", b"1e999"),
        "a number in another form": text.replace(b"0.75", b"0.750"),
        "a number of a million digits": text.replace(b"0.75", b"7" * 1_000_000),
        "an escape that is not needed": text.replace(b"chess", b"\\u0063hess"),
        "half a surrogate pair": text.replace(b"Who", b"\\ud800"),
        "a broken byte": text.replace(b"Who", b"\xff\xfe\xfd"),
        "UTF-16": text.decode().encode("utf-16"),
        "a byte order mark": b"\xef\xbb\xbf" + text,
    }
    return {name: artifact.forge(text) for name, text in texts.items()}


if __name__ == "__main__":
    main(hostile)
