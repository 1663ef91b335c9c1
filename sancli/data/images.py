"""One file -> one RGB picture, for scan, training, evaluation and prediction alike.

What is done, so that a picture means the same everywhere: the content decides the format, never the name; of
several frames the first is taken; EXIF rotation is applied; transparency is laid over white; 16-bit and float
grey are scaled to 8 bits by a fixed rule, never by the picture's own range.
"""

import importlib.util
import io
import logging
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError, features

from sancli.config import PrepareConfig
from sancli.data import native_stderr
from sancli.data.modes import UnknownScale, to_rgb
from sancli.data.sniff import HEAD_BYTES, what_is
from sancli.errors import printable

ENDINGS: dict[str, tuple[str, ...]] = {  # the first is given to a file whose own ending is wrong
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "MPO": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "DIB": (".dib", ".bmp"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "HEIF": (".heic", ".heif", ".hif"),
}
"""Endings, in lower case, of each format that is read."""
READS_HEIC = importlib.util.find_spec("pillow_heif") is not None
"""The library is there: it comes with the extra heic."""
SUFFIXES = tuple(
    dict.fromkeys(
        ending for kind, endings in ENDINGS.items() if kind != "HEIF" or READS_HEIC for ending in endings
    )
)
"""Files with these endings are taken for images; others are counted and ignored."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM", "AVIF")
"""Never EPS: it starts Ghostscript. MPO comes with JPEG, and breaks Image.open when it is listed."""
MAX_FILE_BYTES = 2**31
Picture = str | Path | Image.Image
"""A file's name, or what Pillow has opened."""
ORIENTATION = 0x0112
TURNS = {  # EXIF orientation -> what makes the picture upright; 1 and unknown values are as they should be
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ADVICE = {
    "HEIC": 'HEIC (iPhone) image; convert it to JPEG, or pip install "sancli[heic]"',
    "EPS": "EPS is a program for a printer and is not run; convert it to PNG",
    "JPEG XL": "JPEG XL image; convert it to PNG or JPEG",
    "JPEG 2000": "JPEG 2000 image; convert it to PNG or JPEG",
    "Photoshop": "Photoshop file; export it as PNG",
    "Git LFS pointer": "a Git LFS pointer instead of the image; run git lfs pull",
}


class BadImage(Exception):  # noqa: N818 -- said of the file
    """A file that is no usable image; `reason` says why in a few words."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Decoded:
    """A picture, and what the file said about it."""

    image: Image.Image
    """RGB and upright."""
    format: str
    mode: str
    """As stored: L, RGB, CMYK, I;16, ..."""
    turned: bool
    """EXIF asked for a rotation or a reflection."""


def open_picture(picture: Picture, *, enough_px: int | None = None) -> Image.Image:
    """The picture in a file, or one that Pillow has opened, in RGB and upright.

    Args:
        picture: What Pillow has opened belongs to the caller and is decoded in full.
        enough_px: As `decode`, for a file.

    Raises:
        BadImage: As `load_image`.
    """
    if isinstance(picture, Image.Image):
        try:
            return upright_rgb(picture)[0]
        except (OSError, UnknownScale) as error:
            raise BadImage(str(error)) from None
    return load_image(Path(picture), enough_px=enough_px)


def load_image(
    path: Path, *, max_pixels: int = PrepareConfig.max_pixels, enough_px: int | None = None
) -> Image.Image:
    """The picture in a file, in RGB and upright.

    Args:
        path: The file.
        max_pixels: Larger ones are refused.
        enough_px: As `decode`.

    Raises:
        BadImage: It cannot be read or is no image; nothing else is ever raised, whatever the file holds.
    """
    return decode(read_file(path), max_pixels=max_pixels, enough_px=enough_px).image


def read_file(path: Path, *, limit: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of a regular file, up to `limit` of them; never waits on a fifo or a device.

    Raises:
        BadImage: It is not there, not a regular file, too large, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BadImage("not a regular file")
            if status.st_size > limit:
                raise BadImage(f"too large: {status.st_size:,} bytes, limit {limit:,}")
            return file.read()
    except PermissionError:
        raise BadImage("permission denied") from None
    except FileNotFoundError:
        raise BadImage("not found") from None
    except IsADirectoryError:
        raise BadImage("not a regular file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise BadImage(f"cannot be read ({getattr(error, 'strerror', None) or error})") from None


def decode(
    data: bytes, *, max_pixels: int = PrepareConfig.max_pixels, enough_px: int | None = None
) -> Decoded:
    """The picture in the bytes of a file, in RGB and upright.

    Args:
        data: All of the file.
        max_pixels: Larger pictures are refused.
        enough_px: A JPEG is decoded at 1/2, 1/4 or 1/8 of its size, in about half the time, where its short
            side still has so many pixels then. None: always in full.

    Raises:
        BadImage: With the reason in words; nothing else is ever raised.
    """
    kind = what_is(data[:HEAD_BYTES])
    said: list[str] = []
    try:
        with pillow_limits(max_pixels), _silenced(kind, said):
            return _decode(data, max_pixels, enough_px, _formats(kind))
    except BadImage:
        raise
    except UnknownScale as error:
        raise BadImage(str(error)) from None
    except Exception as error:  # fuzzing brings ten kinds out of Pillow, and none may stop a run
        raise BadImage(_reason(error, said, kind=kind, size=len(data), max_pixels=max_pixels)) from None


def _silenced(kind: str | None, said: list[str]) -> AbstractContextManager[None]:
    """Of all the decoders, libtiff alone writes to descriptor 2."""
    return native_stderr.captured(said) if kind == "TIFF" else nullcontext()


def _formats(kind: str | None) -> tuple[str, ...]:
    """What Pillow may take the file for. The decoder of HEIC is another library's: it sees nothing else."""
    if kind != "HEIC" or not READS_HEIC:
        return FORMATS
    import pillow_heif

    pillow_heif.register_heif_opener()
    return ("HEIF",)


def _decode(data: bytes, max_pixels: int, enough_px: int | None, formats: tuple[str, ...]) -> Decoded:
    with Image.open(io.BytesIO(data), formats=formats) as image:
        if image.width * image.height > max_pixels:  # before anything of that size is in memory
            raise BadImage(_too_large(image.width * image.height, max_pixels))
        image_format, mode = str(image.format), image.mode
        if enough_px is not None:
            image.draft(None, (enough_px, enough_px))  # does nothing but to a JPEG
        picture, turned = upright_rgb(image)
    return Decoded(picture, image_format, mode, turned)


def upright_rgb(image: Image.Image) -> tuple[Image.Image, bool]:
    """An image that Pillow has opened as a picture in RGB, upright; and whether EXIF asked for a turn."""
    image.load()
    turn = TURNS.get(_orientation(image))  # after load: Pillow turns a TIFF by itself, and then says 1
    picture = to_rgb(image)
    return (picture if turn is None else picture.transpose(turn)), turn is not None


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation; 1 where its block is damaged, which says nothing about the picture."""
    with suppress(Exception):
        return int(image.getexif().get(ORIENTATION, 1))
    return 1


def has_frames(data: bytes) -> bool:
    """Whether a readable image holds more pictures than the first, which alone is used."""
    kind = what_is(data[:HEAD_BYTES])
    if kind not in ("GIF", "TIFF", "WebP", "PNG", "AVIF", "HEIC"):
        return False
    with (
        suppress(Exception),  # the second picture may be damaged, which is nobody's concern
        pillow_limits(PrepareConfig.max_pixels),
        _silenced(kind, []),
        Image.open(io.BytesIO(data), formats=_formats(kind)) as image,
    ):
        return bool(getattr(image, "is_animated", False))
    return False


def _reason(error: Exception, said: list[str], *, kind: str | None, size: int, max_pixels: int) -> str:
    text = str(error)
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        pixels = re.search(r"\((\d+) pixels\)", text)
        return _too_large(int(pixels[1]) if pixels else 2 * max_pixels, max_pixels)
    if isinstance(error, UnidentifiedImageError):
        return _not_an_image(kind, size)
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return f"truncated (the file ends after {size:,} bytes, inside the picture)"
    detail = " ".join(said[-1:]) or text or type(error).__name__
    return f"damaged {kind or 'image'} ({_short(detail)})"


def _not_an_image(kind: str | None, size: int) -> str:
    if kind == "AVIF" and not features.check("avif"):
        return "AVIF image, which this Pillow was built without; convert it to JPEG"
    if kind in ADVICE and not (kind == "HEIC" and READS_HEIC):
        return ADVICE[kind]
    if kind in ("HEIC", "WebP", *ENDINGS):
        return f"damaged {kind} (its header cannot be read)"
    if size == 0:
        return "not an image (the file is empty)"
    return f"not an image ({f'looks like {kind}' if kind else f'{size:,} bytes of no known format'})"


def _too_large(pixels: int, max_pixels: int) -> str:
    return f"too large: {pixels / 1e6:,.0f} Mpx, limit {max_pixels / 1e6:,.0f}; raise with --max-pixels"


def _short(text: str) -> str:
    """One safe line that is the same in every run: no addresses, nor the name that libtiff makes up."""
    text = re.sub(r" at 0x[0-9a-f]+|^tempfile\.tif: ", "", printable(" ".join(text.split())))
    return text[:100].rstrip(".")


logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its warnings reach the screen by themselves
_guard = threading.Lock()
_inside = 0
_settings = ExitStack()


@contextmanager
def pillow_limits(max_pixels: int) -> Iterator[None]:
    """Holds Pillow to `max_pixels` and keeps its warnings off the screen, in any number of threads.

    Both are settings of the process: the first thread to come in makes them, the last to leave restores them.
    """
    global _inside
    with _guard:
        if _inside == 0:
            _settings.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            _settings.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
            Image.MAX_IMAGE_PIXELS = max_pixels
        _inside += 1
    try:
        yield
    finally:
        with _guard:
            _inside -= 1
            if _inside == 0:
                _settings.close()
