"""Folders of images for tests: good ones of many kinds, and ten kinds of bad ones."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = ("apple", "berry", "cherry")
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def noise(rng: np.random.Generator, height: int = 24, width: int = 32, channels: int = 3) -> Pixels:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return rng.integers(0, 256, shape, dtype=np.uint8)


def rotated_jpeg(pixels: Pixels, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(pixels), "JPEG", quality=95, exif=exif)


def png(width: int, height: int, depth: int, colour: int, raw: bytes, extra: bytes = b"") -> bytes:
    """A PNG made by hand. `raw`: rows with their filter bytes; `extra`: chunks before the data."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), extra, chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _good(rng: np.random.Generator, index: int) -> tuple[str, bytes]:
    """(file name, content) of a good image; eight kinds in turn."""
    pixels = noise(rng)
    image = Image.fromarray(pixels)
    name = f"good-{index:04d}"
    makers: tuple[Callable[[], tuple[str, bytes]], ...] = (
        lambda: (f"{name}.png", encoded(image, "PNG")),
        lambda: (f"{name}.jpg", encoded(image, "JPEG")),
        lambda: (f"{name}.jpeg", rotated_jpeg(pixels, 6)),
        lambda: (f"{name}-cmyk.jpg", encoded(image.convert("CMYK"), "JPEG")),
        lambda: (f"{name}-16.png", encoded(Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), "PNG")),
        lambda: (f"{name}-palette.png", encoded(image.quantize(16), "PNG")),
        lambda: (f"{name}-really-png.jpg", encoded(image, "PNG")),
        lambda: (f"{name}.bmp", encoded(image, "BMP")),
    )
    return makers[index % len(makers)]()


def bad_contents(rng: np.random.Generator) -> dict[str, tuple[str, bytes]]:
    """kind -> (extension, content) of everything bad that is a regular file."""
    image = Image.fromarray(noise(rng))
    whole_png, whole_jpeg = encoded(image, "PNG"), encoded(image, "JPEG")
    middle = len(whole_png) // 2
    broken = whole_png[:middle] + bytes([whole_png[middle] ^ 0xFF]) + whole_png[middle + 1 :]
    frames = [Image.fromarray(noise(rng)) for _ in range(3)]
    return {
        "empty": (".jpg", b""),
        "truncated-jpeg": (".jpg", whole_jpeg[: len(whole_jpeg) // 2]),
        "truncated-png": (".png", whole_png[:middle]),
        "text": (".jpg", f"no image at all {rng.integers(2**31)}\n".encode()),
        "html": (".png", b"<!DOCTYPE html><html><body>404</body></html>" + bytes(rng.integers(32, 127, 8).tolist())),
        "bomb": (".png", png(60_000, 60_000, 8, 2, rng.bytes(16))),
        "broken-sum": (".png", broken),
        "animated": (".gif", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])),
        "float": (".tiff", encoded(Image.fromarray(rng.random((8, 8), dtype=np.float32)), "TIFF")),
    }


BAD_KINDS = (*bad_contents(np.random.default_rng(0)), "broken-link")


def make_folder(path: Path, good: int, bad: int, seed: int = 0) -> list[str]:
    """Write `good` different good images over three classes and `bad` bad ones of ten kinds in turn.

    Returns the relative paths of the bad ones, sorted.
    """
    rng = np.random.default_rng(seed)
    for name in CLASSES:
        (path / name).mkdir(parents=True)
    for index in range(good):
        name, content = _good(rng, index)
        folder = path / CLASSES[index // 8 % len(CLASSES)]
        (folder / name).write_bytes(content)
    names = []
    for index in range(bad):
        kind = BAD_KINDS[index % len(BAD_KINDS)]
        folder = CLASSES[index % len(CLASSES)]
        if kind == "broken-link":
            name = f"{folder}/bad-{index:04d}-{kind}.jpg"
            (path / name).symlink_to(path / "nowhere")
        else:
            suffix, content = bad_contents(rng)[kind]
            name = f"{folder}/bad-{index:04d}-{kind}{suffix}"
            (path / name).write_bytes(content)
        names.append(name)
    return sorted(names)


def picture(seed: int, height: int = 24, width: int = 32) -> bytes:
    """A PNG of its own for each seed."""
    return encoded(Image.fromarray(noise(np.random.default_rng(seed), height, width)), "PNG")


def coco(entries: dict[str, list[tuple[int, list[float]]]], **more: Any) -> dict[str, Any]:
    """A COCO file of 32 x 24 images: file name -> [(category, bbox)]; the categories are those of CLASSES."""
    images = [{"id": i, "file_name": name, "width": 32, "height": 24} for i, name in enumerate(entries)]
    boxes = [(i, *box) for i, name in enumerate(entries) for box in entries[name]]
    annotations = [
        {"id": n, "image_id": i, "category_id": category, "bbox": bbox, "iscrowd": 0}
        for n, (i, category, bbox) in enumerate(boxes)
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories, **more}


def coco_folder(path: Path, count: int = 12) -> dict[str, Any]:
    """Write `count` different images with one or two boxes each and `annotations.json`; its content."""
    path.mkdir(parents=True)
    entries = {}
    for index in range(count):
        (path / f"{index:02d}.png").write_bytes(picture(index))
        entries[f"{index:02d}.png"] = [(index % 3, [1, 2, 10, 8]), (0, [12, 4, 6, 6])][: 1 + index % 2]
    (path / "annotations.json").write_text(json.dumps(coco(entries)))
    return coco(entries)


def style_folder(path: Path, contents: int = 4, styles: int = 2) -> None:
    """Write `contents` and `styles` different images into their folders."""
    for name, count, start in (("content", contents, 0), ("style", styles, 100)):
        (path / name).mkdir(parents=True)
        for index in range(count):
            (path / name / f"{index}.png").write_bytes(picture(start + index))
