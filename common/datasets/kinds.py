"""Recognises by name or first bytes files that cannot be a corpus, and describes how to convert them.

Uploads, configurations and `tidal datasets upload` use the same messages. Errors inside a file of the right kind are
found by `reading`.
"""

from __future__ import annotations

import codecs

SUFFIXES = (".txt", ".jsonl", ".parquet")
GZIP_SUFFIX = ".gz"
HEAD_BYTES = 16
"""Number of bytes from the beginning of a file that `content_problem` needs."""

_EXTRACT = "extract its text into a .txt file"
_UNPACK = "unpack it and upload the text file that is in it"
_ONE_OBJECT = "write one JSON object per line into a .jsonl file"
_TABLE = "convert it to .jsonl or .parquet"
_RENAME = "if it is plain text, give it a name that ends in .txt"

_ADVICE = {
    _ONE_OBJECT: "json json5 geojson ipynb yaml yml",
    "if it has one JSON object per line, give it a name that ends in .jsonl": "ndjson ldjson jsonlines",
    _TABLE: "csv tsv tab xls xlsx ods sqlite sqlite3 db sql arrow feather orc avro h5 hdf5 pkl pickle npy npz",
    _RENAME: "md markdown rst text log tex html htm xhtml xml srt vtt py js ts c cpp h java rs go ini cfg toml",
    _EXTRACT: "pdf doc docx odt rtf epub mobi djvu pages ppt pptx odp ps",
    _UNPACK: "zip tar tgz 7z rar bz2 xz zst lz4 lzma br z",
    "a corpus is text": "png jpg jpeg gif webp bmp tiff svg mp3 wav flac ogg mp4 mkv avi mov webm "
    "exe dll so bin iso pt pth ckpt safetensors gguf onnx",
}
_ADVICE_BY_SUFFIX = {f".{suffix}": advice for advice, suffixes in _ADVICE.items() for suffix in suffixes.split()}

GZIP_MAGIC = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"
_MAGIC = (
    (b"%PDF-", "a PDF", _EXTRACT),
    (b"PK\x03\x04", "a ZIP archive, or a document in one (.docx, .xlsx, .epub)", "extract the text into a .txt file"),
    (b"\xd0\xcf\x11\xe0", "an Office document", _EXTRACT),
    (b"{\\rtf", "an RTF document", _EXTRACT),
    (b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (b"Rar!\x1a", "a RAR archive", _UNPACK),
    (GZIP_MAGIC, "packed with gzip twice", "unpack it once"),
    (b"\xfd7zXZ", "packed with xz", "unpack it, or pack it with gzip"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "unpack it, or pack it with gzip"),
    (b"BZh", "packed with bzip2", "unpack it, or pack it with gzip"),
    (b"\x89PNG", "a PNG picture", "a corpus is text"),
    (b"\xff\xd8\xff", "a JPEG picture", "a corpus is text"),
    (b"GIF8", "a GIF picture", "a corpus is text"),
    (b"SQLite format 3", "an SQLite database", _TABLE),
    (b"ARROW1", "an Arrow file", "convert it to .parquet"),
    (PARQUET_MAGIC, "a parquet file", "give it a name that ends in .parquet, and the format parquet"),
    (codecs.BOM_UTF16_LE, "UTF-16 text", "save it as UTF-8"),
    (codecs.BOM_UTF16_BE, "UTF-16 text", "save it as UTF-8"),
)
_BZIP2_BLOCK = b"1AY&SY"
"""Bytes 4 to 10 of a bzip2 file. They are checked as well, because a text may also begin with `BZh`, the magic
number."""


def file_name_problem(file_name: str) -> str | None:
    """Return why a file of this name cannot be a corpus and what to do, or None if its name does not exclude it."""
    name = file_name.lower().removesuffix(GZIP_SUFFIX)
    suffix = name[name.rfind(".") :] if "." in name else ""
    advice = _ADVICE_BY_SUFFIX.get(suffix)
    if advice is None:
        return None
    return f"a {suffix} file cannot be a corpus; use {', '.join(SUFFIXES)}; {advice}"


def content_problem(head: bytes, kind: str) -> str | None:
    """Return why a file that begins with `head` cannot have the format `kind` and what to do, or None if it can."""
    for magic, name, advice in _MAGIC:
        if not head.startswith(magic) or (magic == b"BZh" and not head.startswith(_BZIP2_BLOCK, 4)):
            continue
        if magic == PARQUET_MAGIC and kind == "parquet":
            return None
        if kind == "parquet":
            return f"this is {name}, not a parquet file; {advice}"
        return f"this is {name}, not {'text' if kind == 'txt' else 'JSON Lines'}; {advice}"
    if kind == "parquet":
        return "not a parquet file: it does not begin with PAR1; convert it to parquet, or select its actual format"
    return None
