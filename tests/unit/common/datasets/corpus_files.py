"""Files that users might upload as a corpus, with the expected documents or error.

`FILES` is {file name: (content, expected)}, in which `expected` is the list of documents or a part of the error.
pyarrow writes the parquet files; the others are literals.
"""

from __future__ import annotations

import gzip
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.paths import CASES

SUFFIXES = (".txt", ".jsonl", ".parquet")
Expected = list[str] | str

NOTHING = "there is no text in it; every document is null"
EMPTY = "the file is empty"
NAME_ANOTHER = "name the field that holds the text: data.text_field"
TWO = ["The tide came in.", "The tide went out."]
PLAIN = "<|endoftext|>".join(TWO)


def lines(*records: Any, end: str = "\n") -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + end for record in records).encode()


def texts(*values: Any) -> bytes:
    return lines(*({"text": value} for value in values))


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def column(values: list[Any], kind: Any = None, name: str = "text") -> bytes:
    return parquet(pa.table({name: pa.array(values, kind)}))


def named(*columns: tuple[str, list[Any]]) -> bytes:
    """Return a parquet file with these columns; several may have the same name."""
    arrays = [pa.array(values) for _, values in columns]
    return parquet(pa.Table.from_arrays(arrays, names=[name for name, _ in columns]))


def _reported() -> dict[str, tuple[bytes, Expected]]:
    """Return files from bug reports with the expected error, or the documents that the format's own library reads."""
    read = {path.name: path.read_bytes() for path in sorted(CASES.iterdir()) if path.suffix in SUFFIXES}
    expected: dict[str, Expected] = {
        "plain.txt": [text.strip() for text in read["plain.txt"].decode().split("<|endoftext|>")],
        "cr_in_json.jsonl": [
            json.loads(line)["text"] for line in read["cr_in_json.jsonl"].decode().split("\n") if line
        ],
        "polars138.parquet": pq.read_table(CASES / "polars138.parquet").column("text").to_pylist(),
        "blank.txt": NOTHING,
        "array.jsonl": "line 1 is a JSON array, but a .jsonl file has one object per line; convert the file",
        "surrogate.jsonl": "line 61: 'text' contains half a surrogate pair (\\ud83d at character 14)",
        "dupcols.parquet": "2 columns are called 'text'; rename them",
    }
    return {name: (read[name], expected[name]) for name in read}


FILES: dict[str, tuple[bytes, Expected]] = {
    **_reported(),
    # Files without text:
    "empty.txt": (b"", EMPTY),
    "empty.jsonl": (b"", EMPTY),
    "empty.parquet": (b"", EMPTY),
    "packed-empty.txt": (gzip.compress(b""), EMPTY),
    "bom-only.txt": (b"\xef\xbb\xbf", NOTHING),
    "separators.txt": (b"<|endoftext|> \n<|endoftext|>", NOTHING),
    "zero-width.txt": ("\u200b\u2060\ufeff\u00ad".encode(), NOTHING),
    "controls.txt": (b"\x01\x02\x1f\x7f\r\n", NOTHING),
    "blank-lines.jsonl": ("\n\r\n \t\n\u3000\n".encode(), NOTHING),
    "blank-texts.jsonl": (texts("", " ", "\u3000\u00a0", "\u200b"), NOTHING),
    "blank-texts.parquet": (column(["", " ", "\u3000\u00a0", "\u200b"]), NOTHING),
    "nulls.jsonl": (texts(None, None), NOTHING),
    "nulls.parquet": (column([None, None], pa.string()), NOTHING),
    "type-null.parquet": (column([None, None], pa.null()), NOTHING),
    "no-rows.parquet": (column([], pa.string()), NOTHING),
    # A null is skipped like a blank document:
    "some-nulls.jsonl": (texts(TWO[0], None, " ", TWO[1]), TWO),
    "some-nulls.parquet": (column([TWO[0], None, " ", TWO[1]]), TWO),
    # Line endings:
    "crlf.txt": (b"one\r\ntwo<|endoftext|>\r\nthree\rfour", ["one\ntwo", "three\nfour"]),
    "crlf.jsonl": (lines(*({"text": text} for text in TWO), end="\r\n"), TWO),
    "no-last-end.jsonl": (texts(*TWO).rstrip(b"\n"), TWO),
    "cr.jsonl": (texts(*TWO).replace(b"\n", b"\r"), "separated by CR; convert the line ends to LF"),
    "in-string.jsonl": (texts("a\r\nb\u2028c\u2029d\u0085e"), ["a\r\nb\u2028c\u2029d\u0085e"]),
    "in-string.parquet": (column(["a\r\nb\u2028c\u2029d\u0085e"]), ["a\r\nb\u2028c\u2029d\u0085e"]),
    "in-text.txt": ("a\u2028b\u0085c\x0bd\x0ce".encode(), ["a\u2028b\u0085c\x0bd\x0ce"]),
    "raw-cr-in-string.jsonl": (b'{"text": "a\rb"}\n', "line 1 is not valid JSON (Invalid control character"),
    "around.jsonl": ('\ufeff\n{"text": "a"}\n\u3000\n\r\n {"text": " b "} \r\n'.encode(), ["a", "b"]),
    "two-on-a-line.jsonl": (b'{"text": "a"} {"text": "b"}\n', "the line contains a second value; write one object"),
    "pretty.jsonl": (json.dumps({"text": "a"}, indent=1).encode(), "line 1 is not valid JSON"),
    # Byte order marks and other encodings:
    "bom.txt": (b"\xef\xbb\xbf" + PLAIN.encode(), TWO),
    "bom.jsonl": (b"\xef\xbb\xbf" + texts(*TWO), TWO),
    "bom-within.jsonl": (texts("a") + b"\xef\xbb\xbf" + texts("b"), "line 2 begins with a byte order mark"),
    "utf-16.txt": (PLAIN.encode("utf-16"), "this is UTF-16 text, not text; save it as UTF-8"),
    "utf-16-be.jsonl": (b"\xfe\xff" + '{"text": "a"}'.encode("utf-16-be"), "this is UTF-16 text, not JSON Lines"),
    "utf-16-no-bom.txt": (PLAIN.encode("utf-16-le"), "byte 2 is NUL, so the file is UTF-16 or not text"),
    "utf-16-no-bom.jsonl": ('{"text": "a"}'.encode("utf-16-le"), "line 1 contains a NUL byte"),
    "latin-1.txt": ("über".encode("latin-1") * 20, "not UTF-8 text: byte 1 (invalid start byte); save it as UTF-8"),
    "latin-1.jsonl": (texts("a") + '{"text": "é"}\n'.encode("latin-1"), "line 2 is not UTF-8 (byte 11:"),
    "cut-off.txt": (("caf" + "é" * 20).encode()[:-1], "not UTF-8 text: byte 42 (unexpected end of data)"),
    "nul.txt": (b"a" * 99 + b"\0 and more", "byte 100 is NUL"),
    "nul-escape.jsonl": (b'{"text": "a\\u0000b"}\n', ["a\0b"]),
    "nul-within.parquet": (column(["a\0b"]), ["a\0b"]),
    # Surrogates alone and in pairs, and escapes that look like them:
    "low.jsonl": (b'{"text": "a\\uDC00"}\n', "line 1: 'text' contains half a surrogate pair (\\udc00 at character 2)"),
    "swapped.jsonl": (b'{"text": "\\ude00\\ud83d"}\n', "half a surrogate pair (\\ude00 at character 1)"),
    "pair.jsonl": (b'{"text": "\\ud83d\\ude00 \\\\ud83d"}\n', ["\U0001f600 \\ud83d"]),
    "elsewhere.jsonl": (b'{"id": "\\ud83d", "text": "fine"}\n', ["fine"]),
    # Values that are not strings:
    "list.jsonl": (texts("a", ["b"]), f"line 2: 'text' is a list, expected text; {NAME_ANOTHER}"),
    "object.jsonl": (texts({"en": "a"}), "line 1: 'text' is an object, expected text"),
    "number.jsonl": (texts(7), "line 1: 'text' is a number, expected text"),
    "zero.jsonl": (texts(0), "line 1: 'text' is a number, expected text"),
    "false.jsonl": (texts(False), "line 1: 'text' is true or false, expected text"),
    "list.parquet": (column([["a"]]), f"'text' is a list (list<element: string>), expected text; {NAME_ANOTHER}"),
    "object.parquet": (column([{"en": "a"}]), "column 'text' is an object (struct<en: string>), expected text"),
    "map.parquet": (column([[("a", "b")]], pa.map_(pa.string(), pa.string())), "column 'text' is an object (map<"),
    "number.parquet": (column([7]), "column 'text' is a number (int64), expected text"),
    "float.parquet": (column([0.5]), "column 'text' is a number (double), expected text"),
    "false.parquet": (column([False]), "column 'text' is true or false (bool), expected text"),
    "bytes.parquet": (column([b"a"]), "column 'text' is bytes (binary), expected text"),
    "time.parquet": (column([0], pa.timestamp("s")), "column 'text' is a time (timestamp"),
    "numbers-by-code.parquet": (
        parquet(pa.table({"text": pa.array([7, 7]).dictionary_encode()})), "column 'text' is a number (",
    ),
    "json-type.parquet": (column(['{"a": 1}'], pa.json_()), "column 'text' is an object (extension<arrow.json>)"),
    # All string types of Arrow:
    "string.parquet": (column(TWO, pa.string()), TWO),
    "large.parquet": (column(TWO, pa.large_string()), TWO),
    "view.parquet": (column(TWO, pa.string_view()), TWO),
    "by-code.parquet": (column([*TWO, TWO[0]], pa.dictionary(pa.int32(), pa.string())), [*TWO, TWO[0]]),
    "large-by-code.parquet": (column(TWO, pa.dictionary(pa.int32(), pa.large_string())), TWO),
    "row-groups.parquet": (parquet(pa.table({"text": TWO * 9}), row_group_size=2, compression="zstd"), TWO * 9),
    # Choice of field or column:
    "other-field.jsonl": (lines({"id": 1, "story": "a"}), "line 1 has no field 'text' (it has id, story)"),
    "later-field.jsonl": (texts("a") + lines({}), "line 2 has no field 'text' (it has none)"),
    "other-column.parquet": (
        named(("id", [1]), ("story", ["a"])), "no column 'text' (it has id, story; text is in story)",
    ),
    "no-text-column.parquet": (named(("id", [1]),), "no column 'text' (it has id)"),
    "others-twice.parquet": (named(("id", [1, 2]), ("text", TWO), ("id", [3, 4])), TWO),
    "twice-with-numbers.parquet": (named(("text", ["a"]), ("text", [1])), "2 columns are called 'text'"),
    "dotted.parquet": (named(("text.raw", ["no", "no"]), ("text", TWO), ("texts", ["no", "no"])), TWO),
    "twice.jsonl": (texts("a") + b'{"text": "a", "id": 1, "text": "b"}\n', "line 2 has the field 'text' more"),
    "twice-elsewhere.jsonl": (lines({"text": '"text"', "of": {"text": 1}, "id": "text"}), ['"text"']),
    "others-twice.jsonl": (b'{"id": 1, "text": "a", "id": 2}\n', ["a"]),
    # Lines that are not JSON objects:
    "strings.jsonl": (lines("a", "b"), "line 1 is a string, expected an object with the field 'text'"),
    "null-lines.jsonl": (b"null\n", "line 1 is null, expected an object"),
    "arrays.jsonl": (lines({"text": "a"}, ["b"]), "line 2 is a JSON array"),
    "pretty-array.jsonl": (json.dumps([{"text": "a"}], indent=1).encode(), "line 1 is a JSON array"),
    "plain-text.jsonl": (PLAIN.encode(), "line 1 is not valid JSON (Expecting value at character 1); write one JSON"),
    "csv.jsonl": (b"id,text\n1,a\n", "line 1 is not valid JSON"),
    "cut-off.jsonl": (texts(*TWO)[:-8], "line 2 is not valid JSON"),
    "deep.jsonl": (b'{"text": ' + b"[" * 100_000, "line 1 is n"),
    # Files in other formats:
    "pdf.txt": (b"%PDF-1.7\n% tiny\n", "this is a PDF, not text; extract its text into a .txt file"),
    "pdf.jsonl": (b"%PDF-1.7\n% tiny\n", "this is a PDF, not JSON Lines"),
    "pdf.parquet": (b"%PDF-1.7\n% tiny\n", "this is a PDF, not a parquet file"),
    "docx.txt": (b"PK\x03\x04" + b"x" * 40, "this is a ZIP archive, or a document in one"),
    "rtf.txt": (rb"{\rtf1\ansi Once.}", "this is an RTF document"),
    "bzip2.txt": (b"BZh91AY&SY" + b"x" * 9, "packed with bzip2, not text"),
    "no-bzip2.txt": (b"BZh is how the cat sneezed.", ["BZh is how the cat sneezed."]),
    "zstd.jsonl": (b"\x28\xb5\x2f\xfd" + b"x" * 40, "packed with zstd"),
    "png.txt": (b"\x89PNG\r\n\x1a\n" + b"x" * 40, "this is a PNG picture, not text"),
    "parquet.txt": (column(TWO), "this is a parquet file, not text; give it a name that ends in .parquet"),
    "parquet.jsonl": (column(TWO), "this is a parquet file, not JSON Lines"),
    "text.parquet": (PLAIN.encode(), "not a parquet file: it does not begin with PAR1"),
    "short.parquet": (b"PAR1", "not a readable parquet file"),
    "cut-off.parquet": (column(TWO)[:-20], "not a readable parquet file (it does not end with PAR1"),
    "garbled.parquet": (b"PAR1" + b"x" * 40 + b"PAR1", "not a readable parquet file"),
    "lines-in.txt": (texts("a"), ['{"text": "a"}']),
    # Gzip, with and without the suffix .gz:
    "packed.txt": (gzip.compress(PLAIN.encode()), TWO),
    "packed.txt.gz": (gzip.compress(PLAIN.encode()), TWO),
    "plain.txt.gz": (PLAIN.encode(), TWO),
    "packed.jsonl.gz": (gzip.compress(texts(TWO[0])) + gzip.compress(texts(TWO[1])), TWO),
    "packed.parquet.gz": (gzip.compress(column(TWO)), TWO),
    "packed.parquet": (gzip.compress(column([["a"]])), "column 'text' is a list"),
    "cut-off.txt.gz": (gzip.compress(PLAIN.encode())[:-9], "the gzip is cut off"),
    "damaged.jsonl.gz": (gzip.compress(texts(*TWO))[:-8] + b"x" * 8, "the gzip is damaged"),
    "packed-pdf.txt.gz": (gzip.compress(b"%PDF-1.7\n% tiny\n"), "this is a PDF"),
    "packed-twice.txt.gz": (gzip.compress(gzip.compress(PLAIN.encode())), "packed with gzip twice, not text"),
}  # fmt: skip
