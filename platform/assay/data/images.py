"""Checks and decodes files that may be anything: good images, damaged or hostile ones, or not images at all.

`inspect` checks everything and explains why a file is unfit; `decode` is the fast version for content that passed.
Both produce the same pixels: upright, 8 bits, grey or RGB, without transparency. Nothing here has state.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from assay.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 64 * 2**20
"""The largest picture that is decoded; checked before any pixel is decoded."""
PNG_LEVEL = 2
"""For zlib: a photograph takes a third of the time of the usual level 6, for a tenth more bytes."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
_PHOTOMETRIC = 262
_MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"RIFF": "WEBP",
}


class Rejected(Exception):  # noqa: N818
    """The content is unfit; the message is one line with the reason."""


@dataclass(frozen=True)
class ImageFacts:
    """What `inspect` found. `width` and `height` are those of the upright picture, `mode` is that of the file.

    Attributes:
        identity: 32 bytes that follow from the upright 8-bit pixels alone: equal pixels, equal images.
        file_bytes: the size of the content.
        orientation: the EXIF orientation by which the picture was turned upright, 1 if it was not turned.
    """

    format: str
    mode: str
    width: int
    height: int
    channels: int
    conversions: tuple[str, ...]
    identity: bytes
    file_bytes: int
    orientation: int = 1


@dataclass
class _Picture:
    """A decoded picture (mode L or RGB, upright) and how it was made."""

    image: Image.Image
    format: str
    mode: str
    conversions: list[str]
    orientation: int


def inspect(content: bytes) -> ImageFacts:
    """Decode `content` completely and describe it.

    Raises:
        Rejected: it is empty, truncated, damaged, not an image, animated, too large, or has no faithful 8-bit form.
    """
    with _reasons(content):
        if not content:
            raise Rejected("empty file")
        picture = _read(content)
        _require_end(content, picture.format)
        identity = _identity(picture.image)
    image = picture.image
    return ImageFacts(
        picture.format,
        picture.mode,
        image.width,
        image.height,
        1 if image.mode == "L" else 3,
        tuple(picture.conversions),
        identity,
        len(content),
        picture.orientation,
    )


def _identity(image: Image.Image) -> bytes:
    """sha256 over the shape and the pixels. Colour whose channels are all equal counts as grey: it is saved as both."""
    pixels = np.asarray(image)
    if pixels.ndim == 3 and all((pixels[..., 0] == pixels[..., other]).all() for other in (1, 2)):
        pixels = pixels[..., 0]
    shape = (*pixels.shape, 1)[:3]
    return hashlib.sha256(struct.pack(">3I", *shape) + pixels.tobytes()).digest()


def decode(content: bytes, channels: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The pixels, uint8 [channels, height, width], contiguous and writable.

    With 3 `channels`, grey is repeated; with 1, colour becomes luminance (ITU-R 601-2). Raises `Rejected`. Thread-safe.
    """
    with _reasons(content):
        image = _read(content).image
        if channels == 1:
            return np.array(image if image.mode == "L" else image.convert("L"))[None]
        pixels = np.asarray(image)
        if pixels.ndim == 2:
            return np.repeat(pixels[None], 3, axis=0)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def canonical(content: bytes, facts: ImageFacts) -> bytes:
    """The bytes to keep: the original if nothing was converted, else a lossless PNG of the converted pixels."""
    if not facts.conversions:
        return content
    with _reasons(content):
        return encode_png(_read(content).image)


def read_image(path: Path, channels: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A file as a batch of one for a served model, uint8 [1, channels, height, width], as `decode` returns it.

    Raises:
        InputError: the file cannot be read; names it and the reason.
    """
    try:
        return decode(path.read_bytes(), channels)[None]
    except Rejected as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def encode(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """A PNG of uint8 [channels, height, width], of 1 or 3 channels."""
    return encode_png(Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)))


def encode_png(image: Image.Image) -> bytes:
    """A PNG of the bare pixels, without metadata."""
    target = io.BytesIO()
    bare = Image.frombytes(image.mode, image.size, image.tobytes())
    bare.save(target, "PNG", compress_level=PNG_LEVEL)
    return target.getvalue()


def _read(content: bytes) -> _Picture:
    image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise Rejected(f"too many pixels: {image.width} x {image.height}; at most {MAX_PIXELS} are read")
    if image.width == 0 or image.height == 0:
        raise Rejected("no pixels")
    conversions: list[str] = []
    kind = image.format or ""
    if kind == "MPO":  # written by phones: the picture comes first, then previews and depth maps
        kind = "JPEG"
        conversions.append("first picture of several (MPO)")
    elif getattr(image, "is_animated", False):
        raise Rejected(f"animated or multi-page: {getattr(image, 'n_frames', 2)} frames")
    mode = image.mode
    tiles = getattr(image, "tile", None)
    raw = str(tiles[0][3]) if tiles else ""
    # Pillow turns a TIFF upright on loading and drops the tag; in other formats the tag may come after the pixels.
    orientation = _orientation(image) if kind == "TIFF" else 1
    image.load()
    flat = _flatten(image, raw, conversions)
    if kind != "TIFF":
        orientation = _orientation(image)
        if orientation in _UPRIGHT:
            flat = flat.transpose(_UPRIGHT[orientation])
    if orientation not in _UPRIGHT:
        return _Picture(flat, kind, mode, conversions, 1)
    conversions.append(f"turned upright (EXIF orientation {orientation})")
    return _Picture(flat, kind, mode, conversions, orientation)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 if it is missing. Unreadable EXIF with intact pixels counts as missing."""
    if image.format in ("BMP", "GIF"):
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) else 1


def _flatten(image: Image.Image, raw: str, conversions: list[str]) -> Image.Image:
    """Mode L or RGB without transparency; each change is added to `conversions`. `raw`: the decoder's raw mode."""
    mode = image.mode
    if mode.startswith("I"):
        return _grey_of_16_bits(image, raw, conversions)
    reduced = ";16" in raw  # Pillow itself keeps the high bytes of 16-bit colour
    if reduced:
        conversions.append("16-bit to 8-bit colour")
        if mode == "RGB":
            image.info.pop("transparency", None)  # a 16-bit key colour, meaningless for the reduced values
    if image.has_transparency_data:
        return _over_white(image, raw, conversions)
    if mode in ("L", "RGB"):
        return image
    if mode == "P":
        target = "L" if _grey_palette(image) else "RGB"
        conversions.append(f"palette to {'grey' if target == 'L' else 'RGB'}")
        return image.convert("RGB").getchannel(0) if target == "L" else image.convert("RGB")
    if mode == "1":
        conversions.append("1-bit to grey")
        return image.convert("L")
    if mode in ("CMYK", "YCbCr", "RGBX"):
        conversions.append(f"{mode} to RGB")
        return image.convert("RGB")
    if mode == "F":
        raise Rejected("floating-point values: they have no fixed range; convert them to 8 or 16 bits")
    raise Rejected(f"colour mode {mode} is not supported")


def _over_white(image: Image.Image, raw: str, conversions: list[str]) -> Image.Image:
    grey = image.mode in ("1", "L", "LA", "La") or raw.startswith("LA")  # of 16 bits, Pillow makes RGBA
    grey |= image.mode == "P" and _grey_palette(image)
    if image.mode == "P":
        conversions.append(f"palette to {'grey' if grey else 'RGB'}")
    conversions.append("transparency put on white")
    white = Image.new("RGBA", image.size, "white")
    flat = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return flat.getchannel(0) if grey else flat


def _grey_palette(image: Image.Image) -> bool:
    colours = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def _grey_of_16_bits(image: Image.Image, raw: str, conversions: list[str]) -> Image.Image:
    """8-bit grey of a mode I;16, I;16B or I image. Pillow's own conversion clips at 255 instead of scaling."""
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise Rejected(f"32-bit values from {low} to {high}; at most 16 bits, 0 to 65535, have a known range")
    if "I;12" in raw:
        conversions.append("12-bit to 8-bit grey")
        eight = values >> 4
    else:
        conversions.append("16-bit to 8-bit grey")
        eight = values >> 8  # as Pillow reduces colour: a picture is the same, saved as grey or as colour
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PHOTOMETRIC) == 0:  # zero is white, which Pillow respects only for 8 bits
        eight = 255 - eight
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        conversions.append("transparency put on white")
        eight = np.where(values == transparent, 255, eight)
    return Image.fromarray(eight.astype(np.uint8))


def _require_end(content: bytes, kind: str) -> None:
    """Reject what decoders forgive: a PNG whose chunks do not match their checksums, a JPEG without its end."""
    if kind == "PNG":
        Image.open(io.BytesIO(content), formats=("PNG",)).verify()
    elif kind == "JPEG" and content.find(b"\xff\xd9", _first_scan(content)) < 0:
        raise Rejected("truncated JPEG: the end is missing")


def _first_scan(content: bytes) -> int:
    """Where a JPEG's compressed data begin: after all headers, whose thumbnail has its own end marker."""
    position = 2
    while position + 4 <= len(content):
        if content[position] != 0xFF:
            return position
        marker = content[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        (length,) = struct.unpack_from(">H", content, position + 2)
        if marker == 0xDA:
            return position + 2 + int(length)
        position += 2 + int(length)
    return position


@contextmanager
def _reasons(content: bytes) -> Iterator[None]:
    """Turn whatever a decoder raises into a reason: hostile bytes make it raise nearly everything."""
    try:
        yield
    except Rejected:
        raise
    except UnidentifiedImageError:
        raise Rejected(_guess(content)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Rejected(f"too many pixels; at most {MAX_PIXELS} are read") from None
    except MemoryError:
        raise Rejected("needs more memory to decode than is available") from None
    except Exception as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise Rejected(f"damaged or truncated {_format_of(content) or 'image'}: {detail}") from None


def _format_of(content: bytes) -> str | None:
    return next((name for magic, name in _MAGIC.items() if content.startswith(magic)), None)


def _guess(content: bytes) -> str:
    """Why Pillow found no image in the content."""
    kind = _format_of(content)
    if kind is not None:
        return f"damaged or truncated {kind}: the header is not readable"
    start = content[:512].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page, not an image"
    return f"not an image of a known format ({', '.join(FORMATS)})"
