"""What a file is by its first octets, whatever its name and its declared type say."""

import re

OCTETS = 4096  # that `sniff` wants to see, if there are as many
TEXT = "text/plain"
UNKNOWN = "application/octet-stream"

PE = "application/vnd.microsoft.portable-executable"
ELF = "application/x-executable"
OLE = "application/x-ole-storage"
ZIP = "application/zip"
JAR = "application/java-archive"
SCRIPT = "text/x-script"
HTML = "text/html"

_OOXML = "application/vnd.openxmlformats-officedocument."

# At offset, these octets: that type. The first that fits counts.
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x7fELF", ELF),
    (0, b"PK\x03\x04", ZIP),
    (0, b"PK\x05\x06", ZIP),
    (0, b"%PDF-", "application/pdf"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", OLE),
    (0, b"Rar!\x1a\x07", "application/vnd.rar"),
    (0, b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (0, b"\x1f\x8b\x08", "application/gzip"),
    (4, b"1AY&SY", "application/x-bzip2"),
    (0, b"\xfd7zXZ\x00", "application/x-xz"),
    (0, b"\x28\xb5\x2f\xfd", "application/zstd"),
    (0, b"\x60\xea", "application/x-arj"),
    (7, b"**ACE**", "application/x-ace-compressed"),
    (2, b"-lh", "application/x-lzh-compressed"),
    (0, b"MSCF\x00\x00\x00\x00", "application/vnd.ms-cab-compressed"),
    (0, b"ISc(", "application/x-installshield"),
    (0, b"ITSF\x03\x00\x00\x00", "application/vnd.ms-htmlhelp"),
    (0, b"xar!", "application/x-xar"),
    (257, b"ustar", "application/x-tar"),
    (0, b"L\x00\x00\x00\x01\x14\x02\x00", "application/x-ms-shortcut"),
    (0, b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d\xae\xb1\x53\x78\xd0\x29\x96\xd3", "application/onenote"),
    (0, b"{\\rt", "application/rtf"),
    (0, b"\x78\x9f\x3e\x22", "application/vnd.ms-tnef"),
    (0, b"\xfe\xed\xfa\xce", "application/x-mach-binary"),
    (0, b"\xfe\xed\xfa\xcf", "application/x-mach-binary"),
    (0, b"\xce\xfa\xed\xfe", "application/x-mach-binary"),
    (0, b"\xcf\xfa\xed\xfe", "application/x-mach-binary"),
    (0, b"dex\n03", "application/vnd.android.dex"),
    (0, b"\x00asm", "application/wasm"),
    (0, b"vhdxfile", "application/x-vhdx"),
    (0, b"conectix", "application/x-vhd"),
    (0, b"SQLite format 3\x00", "application/vnd.sqlite3"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (0, b"\x00\x00\x01\x00", "image/vnd.microsoft.icon"),
    (0, b"8BPS", "image/vnd.adobe.photoshop"),
    (0, b"%!PS", "application/postscript"),
    (0, b"OggS", "audio/ogg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"MThd", "audio/midi"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (0, b"FWS", "application/vnd.adobe.flash.movie"),
    (0, b"CWS", "application/vnd.adobe.flash.movie"),
    (0, b"ZWS", "application/vnd.adobe.flash.movie"),
    (0, b"wOFF", "font/woff"),
    (0, b"wOF2", "font/woff2"),
)
_SHOWN = frozenset(kind for _, _, kind in _MAGIC) | {PE, "image/webp", "image/bmp", "audio/wav", "video/mp4", JAR}
_BY_FIRST = {octet: tuple(entry for entry in _MAGIC if entry[0] or entry[1][0] == octet) for octet in range(256)}

_BINARY = bytes((*range(0x09), *range(0x0E, 0x1B), *range(0x1C, 0x20)))
_MARKUP = re.compile(
    rb"(?:\xef\xbb\xbf)?[ \t\r\n]{0,512}<(?:!doctype html|html|head|body|script|iframe|table|meta|title|h1|div|a href)\b",
    re.IGNORECASE,
)
_SVG = re.compile(rb"<svg[\s>]", re.IGNORECASE)
_HTA = re.compile(rb"<hta:application", re.IGNORECASE)


def sniff(head: bytes, declared: str) -> str:
    """The media type that the first octets show, IANA's name where there is one, lower case.

    `declared` is believed only where the octets say nothing against it: text stays the text it is called, and binary of a
    kind that has no mark of its own stays what it is called. Nothing at all is what it is declared.
    """
    if not head:
        return declared
    found = _marked(head)
    if found:
        return found
    if _is_binary(head[:1024]):
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16, told by its byte order mark
            return declared if declared.startswith("text/") else TEXT
        return UNKNOWN if declared in _SHOWN or declared.startswith("text/") else declared
    return _kind_of_text(head, declared)


def _is_binary(octets: bytes) -> bool:
    return len(octets.translate(None, _BINARY)) < len(octets)


def _marked(head: bytes) -> str:
    for at, mark, kind in _BY_FIRST[head[0]]:
        if head.startswith(mark, at):
            return _kind_of_zip(head) if kind is ZIP else kind
    if head.startswith(b"MZ") and (len(head) < 64 or _is_binary(head[:64])):  # noqa: PLR2004 - the DOS header
        return PE
    if head.startswith(b"\xca\xfe\xba\xbe"):  # a Java class, or Mach-O for several processors: it counts them here
        return "application/java-vm" if int.from_bytes(head[4:8], "big") > 30 else "application/x-mach-binary"  # noqa: PLR2004
    if head.startswith(b"RIFF"):
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}.get(head[8:12], "")
    if head.startswith(b"BM") and head[6:10] == b"\x00\x00\x00\x00":
        return "image/bmp"
    if head[4:8] == b"ftyp":
        return {b"avif": "image/avif", b"heic": "image/heic", b"M4A ": "audio/mp4"}.get(head[8:12], "video/mp4")
    return ""


def _kind_of_zip(head: bytes) -> str:
    """What the first entries' names tell of a ZIP: an office document, a Java archive, or just a ZIP."""
    if head[30:38] == b"mimetype":  # OpenDocument 1.3 part 2, 3.3; EPUB 3.3: stored first and plain
        stored = re.match(rb"[a-z]+/[a-z0-9.+-]{1,80}", head[38:])
        return stored.group().decode("ascii") if stored else ZIP
    if b"META-INF/" in head or b"AndroidManifest.xml" in head:
        return "application/vnd.android.package-archive" if b"AndroidManifest.xml" in head else JAR
    if b"[Content_Types].xml" in head or b"_rels/.rels" in head:
        for folder, kind in (
            (b"word/", "wordprocessingml.document"),
            (b"xl/", "spreadsheetml.sheet"),
            (b"ppt/", "presentationml.presentation"),
        ):
            if folder in head:
                return _OOXML + kind
        return "application/x-ooxml"
    return ZIP


def _kind_of_text(head: bytes, declared: str) -> str:
    if head.startswith(b"#!"):
        return SCRIPT
    if _MARKUP.match(head) or _HTA.search(head, 0, 1024):
        return HTML
    if _SVG.search(head, 0, 1024):
        return "image/svg+xml"
    if declared.startswith(("text/", "message/")):
        # What is called HTML but begins with words is shown as HTML all the same.
        return declared
    return (
        TEXT
        if declared in _SHOWN or declared == UNKNOWN or declared.startswith(("image/", "audio/", "video/"))
        else declared
    )
