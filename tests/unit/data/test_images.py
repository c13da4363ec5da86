"""Every kind of content gives the right pixels or a reason, and nothing else."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import skimage
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from assay.data.images import Rejected, canonical, decode, inspect
from tests.support.bad_images import bad_contents, chunk, encoded, noise, png, rotated_jpeg

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # decoders warn of damaged tags

PHOTOS = Path(skimage.__file__).parent / "data"
RNG = np.random.default_rng(1)


@pytest.mark.parametrize(
    ("file", "mode", "channels"),
    [("astronaut.png", "RGB", 3), ("camera.png", "L", 1), ("rocket.jpg", "RGB", 3), ("horse.png", "RGBA", 3)],
)
def test_real_photographs_are_good(file: str, mode: str | None, channels: int) -> None:
    content = (PHOTOS / file).read_bytes()
    facts = inspect(content)
    assert facts.channels == channels
    assert mode is None or facts.mode == mode
    assert decode(content, 3).shape == (3, facts.height, facts.width)


def test_a_real_multi_page_tiff_is_rejected() -> None:
    with pytest.raises(Rejected, match="frames"):
        inspect((PHOTOS / "multipage.tif").read_bytes())


def test_plain_content_is_kept_byte_by_byte_and_decodes_exactly() -> None:
    pixels = noise(RNG)
    content = encoded(Image.fromarray(pixels), "PNG")
    facts = inspect(content)
    assert facts.conversions == ()
    assert canonical(content, facts) is content
    assert np.array_equal(decode(content, 3), pixels.transpose(2, 0, 1))
    assert np.array_equal(decode(content, 1)[0], np.asarray(Image.fromarray(pixels).convert("L")))


def test_grey_is_repeated_for_three_channels() -> None:
    pixels = noise(RNG, channels=1)
    content = encoded(Image.fromarray(pixels), "PNG")
    assert np.array_equal(decode(content, 3), np.stack([pixels] * 3))
    decode(content, 3)[0, 0, 0] = 7  # writable


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_its_pixels_however_it_was_saved(channels: int) -> None:
    pixels = noise(RNG, channels=channels)
    image = Image.fromarray(pixels)
    deep = encoded(Image.fromarray(pixels.astype(np.uint16) * 257), "PNG") if channels == 1 else encoded(image, "PNG")
    sideways = encoded(image.transpose(Image.Transpose.ROTATE_90), "TIFF", tiffinfo={274: 6})
    same = [
        encoded(image, "PNG"),
        encoded(image, "PNG", compress_level=0, pnginfo=_text("a comment")),
        encoded(image.convert("RGB"), "PNG"),
        encoded(image.convert("RGBA"), "PNG"),
        encoded(image, "BMP"),
        encoded(image, "WEBP", lossless=True),
        deep,
        sideways,
    ]
    facts = [inspect(content) for content in same]
    assert len({fact.identity for fact in facts}) == 1
    assert [fact.file_bytes for fact in facts] == [len(content) for content in same]
    assert inspect(canonical(sideways, facts[-1])).identity == facts[0].identity
    changed = pixels.copy()
    changed.flat[7] ^= 1
    others = [changed, np.flip(pixels, 0), pixels.reshape(32, 24, *pixels.shape[2:])]
    assert len({inspect(encoded(Image.fromarray(other), "PNG")).identity for other in [pixels, *others]}) == 4


def _text(comment: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", comment)
    return info


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_orientation_turns_the_picture_upright(orientation: int) -> None:
    # One bright corner shows how the picture is turned; JPEG blurs, so the corner is a block.
    upright = np.zeros((32, 48, 3), dtype=np.uint8)
    upright[:16, :16] = 255
    lay = {
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, 1),
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: np.rot90(p, -1),
    }
    content = rotated_jpeg(np.ascontiguousarray(lay[orientation](upright)), orientation)
    facts = inspect(content)
    assert (facts.height, facts.width) == (32, 48)
    assert facts.conversions == (f"turned upright (EXIF orientation {orientation})",)
    assert np.abs(decode(content, 3).astype(int) - upright.transpose(2, 0, 1)).max() < 8


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "WEBP"])
def test_orientation_counts_once_in_every_format(kind: str) -> None:
    pixels = noise(RNG, 20, 30)
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(Image.fromarray(pixels), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    facts = inspect(content)
    assert (facts.height, facts.width) == (30, 20)
    assert facts.conversions == ("turned upright (EXIF orientation 6)",)
    assert np.array_equal(decode(content, 3), np.rot90(pixels, -1).transpose(2, 0, 1))


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk_becomes_the_right_colours(kind: str) -> None:
    ink = np.zeros((16, 16, 4), dtype=np.uint8)
    ink[..., 0], ink[..., 3] = 255, 51  # full cyan, a fifth of black
    options = {"quality": 100} if kind == "JPEG" else {}
    content = encoded(Image.frombytes("CMYK", (16, 16), ink.tobytes()), kind, **options)
    assert inspect(content).conversions == ("CMYK to RGB",)
    assert np.abs(decode(content, 3)[:, 8, 8].astype(int) - [0, 204, 204]).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    content = encoded(Image.fromarray(values), kind)
    facts = inspect(content)
    assert facts.channels == 1
    assert facts.conversions == ("16-bit to 8-bit grey",)
    assert np.array_equal(decode(content, 1)[0], values >> 8)
    assert len(np.unique(decode(content, 1))) > 50


def test_big_endian_and_32_bit_containers_of_16_bits() -> None:
    values = np.array([[0, 257, 25700, 65535]], dtype=np.int32)
    wide = encoded(Image.fromarray(values), "TIFF")
    assert decode(wide, 1).tolist() == [[[0, 1, 100, 255]]]
    with pytest.raises(Rejected, match="32-bit"):
        inspect(encoded(Image.fromarray(values * 2), "TIFF"))


def test_a_grey_picture_of_16_bits_is_one_image_however_it_was_saved() -> None:
    grey = RNG.integers(0, 65536, (16, 16, 1), dtype=np.uint16)
    opaque = np.full_like(grey, 65535)
    colour = np.repeat(grey, 3, axis=2)

    def deep(kind: int, *channels: np.ndarray) -> bytes:
        rows = np.concatenate(channels, axis=2).astype(">u2")
        return png(16, 16, 16, kind, b"".join(b"\0" + row.tobytes() for row in rows))

    facts = [inspect(deep(0, grey)), inspect(deep(4, grey, opaque)), inspect(deep(2, colour))]
    facts += [inspect(deep(6, colour, opaque)), inspect(encoded(Image.fromarray(grey[..., 0]), "TIFF"))]
    assert len({fact.identity for fact in facts}) == 1
    assert [fact.channels for fact in facts] == [1, 1, 3, 3, 1]


def test_16_bit_colour_is_noted() -> None:
    content = png(2, 2, 16, 2, (b"\0" + b"\x80\x12" * 6) * 2)
    assert inspect(content).conversions == ("16-bit to 8-bit colour",)
    assert set(decode(content, 3).ravel().tolist()) == {128}


def test_transparency_is_put_on_white() -> None:
    pixels = np.zeros((1, 3, 4), dtype=np.uint8)
    pixels[0, :, 0], pixels[0, :, 3] = 200, [0, 128, 255]
    content = encoded(Image.fromarray(pixels, "RGBA"), "PNG")
    assert inspect(content).conversions == ("transparency put on white",)
    found = decode(content, 3)[:, 0].T.astype(int)
    assert np.abs(found - [[255, 255, 255], [227, 127, 127], [200, 0, 0]]).max() <= 1
    grey = encoded(Image.fromarray(np.array([[[0, 0], [0, 255]]], dtype=np.uint8), "LA"), "PNG")
    assert inspect(grey).channels == 1
    assert decode(grey, 1).tolist() == [[[255, 0]]]


def test_palettes_grey_and_coloured() -> None:
    colour = Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], dtype=np.uint8)).quantize(4)
    content = encoded(colour, "PNG")
    assert (inspect(content).channels, inspect(content).conversions) == (3, ("palette to RGB",))
    assert decode(content, 3)[:, 0].T.tolist() == [[255, 0, 0], [0, 0, 255]]
    pixels = noise(RNG, channels=1)
    grey = Image.fromarray(pixels, "P")
    grey.putpalette([value for value in range(256) for _ in range(3)])
    assert inspect(encoded(grey, "PNG")).channels == 1
    assert np.array_equal(decode(encoded(grey, "PNG"), 1)[0], pixels)
    one_bit = encoded(Image.fromarray(pixels > 128), "PNG")
    assert np.array_equal(decode(one_bit, 1)[0], (pixels > 128) * 255)


def test_canonical_bytes_hold_the_converted_pixels_and_no_metadata() -> None:
    content = rotated_jpeg(noise(RNG), 6)
    facts = inspect(content)
    kept = canonical(content, facts)
    assert inspect(kept).conversions == ()
    assert not Image.open(io.BytesIO(kept)).getexif()
    assert np.array_equal(decode(kept, 3), decode(content, 3))


@pytest.mark.parametrize("kind", bad_contents(RNG))
def test_bad_content_is_rejected_with_one_line(kind: str) -> None:
    with pytest.raises(Rejected) as caught:
        inspect(bad_contents(RNG)[kind][1])
    assert str(caught.value)
    assert "\n" not in str(caught.value)


def test_each_cut_of_a_file_is_rejected() -> None:
    image = Image.fromarray(noise(RNG, 9, 9))
    for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"):
        content = encoded(image, kind)
        for end in range(0, len(content) - 1, 7):
            if kind in ("GIF", "TIFF") and end > len(content) * 0.9:
                continue  # what follows the pixels there: trailers and tags
            with pytest.raises(Rejected):
                inspect(content[:end])


def test_a_text_chunk_bomb_is_rejected() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("bomb", "0" * (1 << 22), zip=True)
    with pytest.raises(Rejected):
        inspect(encoded(Image.fromarray(noise(RNG)), "PNG", pnginfo=info))


def test_the_limit_of_pixels_holds_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.data.images.MAX_PIXELS", 100)
    content = png(11, 10, 8, 0, b"no pixels at all")
    with pytest.raises(Rejected, match="11 x 10"):
        inspect(content)
    with pytest.raises(Rejected, match="11 x 10"):
        decode(content, 1)


def test_broken_exif_with_intact_pixels_is_kept() -> None:
    pixels = noise(RNG)
    content = encoded(Image.fromarray(pixels), "PNG")
    at = content.index(b"IDAT") - 4
    damaged = content[:at] + chunk(b"eXIf", b"II*\0garbage") + content[at:]
    assert np.array_equal(decode(damaged, 3), pixels.transpose(2, 0, 1))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_give_pixels_or_a_reason(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"]))
    content = bytearray(encoded(Image.fromarray(noise(np.random.default_rng(3), 8, 8)), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        facts = inspect(bytes(content))
    except Rejected:
        return
    assert decode(bytes(content), facts.channels).shape == (facts.channels, facts.height, facts.width)


def test_decoding_is_thread_safe() -> None:
    contents = [encoded(Image.fromarray(noise(RNG)), kind) for kind in ("PNG", "JPEG", "TIFF", "WEBP")] * 25
    alone = [decode(content, 3) for content in contents]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda content: decode(content, 3), contents))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
