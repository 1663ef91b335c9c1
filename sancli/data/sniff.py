"""What a file really is, by its first bytes: the name lies, the content does not."""

HEAD_BYTES = 1024
"""More than any of the marks below needs."""

HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
MARKS: tuple[tuple[bytes, str], ...] = (  # bytes at the start of the file, and what has them
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
    (b"%PDF", "PDF"),
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"8BPS", "Photoshop"),
    (b"\0\0\1\0", "Windows icon"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"Rar!\x1a\x07", "RAR"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"version https://git-lfs", "Git LFS pointer"),
    (b"\x1aE\xdf\xa3", "video (Matroska or WebM)"),
)
TEXT_MARKS: tuple[tuple[bytes, str], ...] = (  # anywhere in the first bytes of a text, in lower case
    (b"<svg", "SVG"),
    (b"<!doctype html", "HTML"),
    (b"<html", "HTML"),
    (b"<head", "HTML"),
    (b"<body", "HTML"),
    (b"<?xml", "XML"),
)


def what_is(head: bytes) -> str | None:
    """The kind of file that begins with `head`; None where nothing is recognised."""
    if not head:
        return "an empty file"
    if kind := next((name for mark, name in MARKS if head.startswith(mark)), None):
        return kind
    if head[:4] == b"RIFF":
        return "WebP" if head[8:12] == b"WEBP" else "audio or video (RIFF)"
    if head[4:8] == b"ftyp":
        return _base_media(head[8:12], head[8:40])
    if head[257:262] == b"ustar":
        return "tar"
    if len(head) > 2 and head[:1] == b"P" and head[1:2] in b"1234567fF" and head[2:3].isspace():
        return "PPM"
    lowered = head[:HEAD_BYTES].lower()
    if kind := next((name for mark, name in TEXT_MARKS if mark in lowered), None):
        return kind
    return "text" if _is_text(head) else None


def _base_media(brand: bytes, brands: bytes) -> str:
    """HEIC, AVIF and MP4 share one container; AVIF may call itself mif1 first."""
    if b"avif" in brands or b"avis" in brands:
        return "AVIF"
    return "HEIC" if brand in HEIC_BRANDS else "video (MP4 or MOV)"


def _is_text(head: bytes) -> bool:
    if b"\0" in head or len(head) < 2:
        return False
    printable = sum(byte >= 32 or byte in b"\t\n\r\f" for byte in head)
    try:
        head[:-4].decode("utf-8")  # a character may be cut at the end
    except UnicodeDecodeError:
        return False
    return printable == len(head)
