"""One file to one array: every colour mode, orientation and size, against known pixels."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewstep.data.decode import decode, probe
from fewstep.errors import FewstepWarning

WHITE, RED, GREEN, BLUE = (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def rows(data: bytes, channels: int = 3) -> list:
    """The pixels as nested lists [H][W] of tuples or numbers."""
    pixels = decode(data, None, channels).transpose(1, 2, 0)
    return [[tuple(p) if channels == 3 else int(p[0]) for p in row] for row in pixels.tolist()]


def plain(mode: str, colour: object, size: tuple[int, int] = (1, 1)) -> Image.Image:
    return Image.new(mode, size, colour)


def chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def png16(values: np.ndarray, transparent: tuple[int, ...] = (), after: bytes = b"") -> bytes:
    """A 16-bit PNG: grey [H, W], grey and alpha [H, W, 2], RGB or RGBA."""

    height, width = values.shape[:2]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2] if values.ndim == 3 else 1]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    hidden = chunk(b"tRNS", np.array(transparent, ">u2").tobytes()) if transparent else b""
    turned = chunk(b"eXIf", after) if after else b""
    body = chunk(b"IHDR", head) + hidden + chunk(b"IDAT", zlib.compress(lines)) + turned
    body += chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(plain("RGB", (1, 2, 3))), (1, 2, 3)),
        (encoded(plain("RGB", (1, 2, 3)), "BMP"), (1, 2, 3)),
        (encoded(plain("RGB", (1, 2, 3)), "TIFF"), (1, 2, 3)),
        (encoded(plain("RGB", (1, 2, 3)), "WEBP", lossless=True), (1, 2, 3)),
        (encoded(plain("L", 77)), (77, 77, 77)),
        (encoded(plain("1", 1)), WHITE),
        (encoded(plain("RGBA", (255, 0, 0, 0))), WHITE),
        (encoded(plain("RGBA", (255, 0, 0, 255))), RED),
        (encoded(plain("RGBA", (255, 0, 0, 51))), (255, 204, 204)),
        (
            encoded(plain("RGBA", (255, 0, 0, 51)), "WEBP", lossless=True, exact=True),
            (255, 204, 204),
        ),
        (encoded(plain("LA", (0, 51))), (204, 204, 204)),
        (encoded(plain("CMYK", (0, 255, 255, 0)), "TIFF"), RED),
        (encoded(plain("CMYK", (0, 0, 0, 255)), "TIFF"), (0, 0, 0)),
        (encoded(plain("RGB", BLUE), transparency=BLUE), WHITE),
        (encoded(plain("L", 9), transparency=9), WHITE),
        (png16(np.array([[[65535, 0, 257 * 30]]])), (255, 0, 30)),
    ],
)
def test_colours(data: bytes, expected: tuple[int, int, int]) -> None:
    assert rows(data) == [[expected]]


def test_a_palette_with_a_transparent_entry() -> None:
    image = plain("P", 0, (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    assert rows(encoded(image)) == [[RED, GREEN, BLUE]]
    assert rows(encoded(image, transparency=1)) == [[RED, WHITE, BLUE]]
    assert rows(encoded(image, "GIF")) == [[RED, GREEN, BLUE]]
    assert probe(encoded(image)) == (1, 3, True)


def test_sixteen_bits_are_scaled_to_eight() -> None:
    ramp = np.arange(256)[None] * 257
    levels = list(range(256))
    assert rows(png16(ramp), 1) == [levels]
    assert rows(encoded(Image.fromarray(ramp.astype(np.int32)), "TIFF"), 1) == [levels]
    assert rows(encoded(Image.fromarray(ramp.astype(np.uint16)), "TIFF"), 1) == [levels]
    assert rows(png16(np.array([[128, 129, 65535 - 128]])), 1) == [[0, 1, 255]]


@pytest.mark.parametrize(("head", "full"), [("P5", 65535), ("P5", 4095), ("P6", 65535)])
def test_netpbm_pictures_of_more_bits_are_scaled_to_eight(head: str, full: int) -> None:
    levels = np.array([0, 51, 153, 255])
    values = (levels * full / 255).round().astype(">u2").repeat(3 if head == "P6" else 1)
    data = f"{head} 4 1 {full}\n".encode() + values.tobytes()
    assert rows(data, 1) == [levels.tolist()]
    assert probe(data) == (1, 4, head == "P6")
    assert rows(b"P1 4 1\n0 1 1 0", 1) == [[255, 0, 0, 255]]


def test_transparent_values_of_every_depth() -> None:
    """One value is transparent, exactly: its neighbours are not."""
    grey = np.array([[999, 1000, 1001, 65535]])
    assert rows(png16(grey, (1000,)), 1) == [[4, 255, 4, 255]]
    colour = np.stack([grey, grey, np.full_like(grey, 300)], -1)
    assert rows(png16(colour, (1000, 1000, 300))) == [
        [(3, 3, 1), WHITE, (3, 3, 1), (255, 255, 1)]  # Pillow keeps the high byte of colour
    ]
    alpha = np.array([[[0, 65535], [0, 0], [0, 257 * 51], [65535, 65535]]])
    assert rows(png16(alpha), 1) == [[0, 255, 204, 255]]
    for bits, levels in ((1, [0, 255]), (2, [0, 85, 170, 255]), (4, list(range(0, 256, 17)))):
        for value, level in enumerate(levels):
            expected = [255 if other == level else other for other in levels]
            assert rows(png_of_bits(bits, value), 1) == [expected]


def test_grey_with_transparency_is_no_colour() -> None:
    grey = np.array([[[257 * 9, 65535], [0, 0]]])
    for data in (png16(grey), encoded(plain("LA", (9, 51)))):
        assert not probe(data)[2]
    assert probe(png16(np.zeros((1, 2, 4))))[2]


def png_of_bits(bits: int, transparent: int) -> bytes:
    """One row of all grey values of a depth below 8, one of them transparent."""
    digits = "".join(f"{level:0{bits}b}" for level in range(2**bits)).ljust(8, "0")
    line = b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big")
    head = struct.pack(">IIBBBBB", 2**bits, 1, bits, 0, 0, 0, 0)
    hidden = struct.pack(">H", transparent)
    parts = [(b"IHDR", head), (b"tRNS", hidden), (b"IDAT", zlib.compress(line)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, content) for kind, content in parts)


def test_integers_that_would_be_black() -> None:
    few = np.arange(64).reshape(8, 8)
    for values in ((few * 4).astype(np.int32), few.astype(np.uint16) + 1):
        data = encoded(Image.fromarray(values), "TIFF")
        with pytest.raises(ValueError, match=r"0 \.\.\. \d+ alone, all but black"):
            decode(data, None, 1)
    twelve = encoded(Image.fromarray((few * 65).astype(np.uint16)), "TIFF")
    with pytest.warns(FewstepWarning, match="12 bits"):
        assert decode(twelve, None, 1).max() == 16
    assert not decode(encoded(Image.fromarray(few.astype(np.int32) * 0), "TIFF"), None, 1).any()


def test_float_pictures() -> None:
    values = np.array([[0.0, 0.2, 1.0]], np.float32)
    assert rows(encoded(Image.fromarray(values), "TIFF"), 1) == [[0, 51, 255]]
    for wrong in (values - 0.5, values * 255, values * np.nan):
        with pytest.raises(ValueError, match=r"outside 0 \.\.\. 1"):
            decode(encoded(Image.fromarray(wrong), "TIFF"), None, 1)


def test_grey_from_colour_is_luma() -> None:
    image = plain("RGB", 0, (4, 1))
    image.putdata([RED, GREEN, BLUE, WHITE])
    assert rows(encoded(image), 1) == [[76, 150, 29, 255]]  # ITU-R 601: 0.299, 0.587, 0.114


def test_a_cmyk_jpeg_is_not_inverted() -> None:
    red = decode(encoded(plain("CMYK", (0, 255, 255, 0), (8, 8)), "JPEG"), None, 3)
    assert np.abs(red.astype(int) - np.array(RED)[:, None, None]).max() <= 3


def test_the_first_frame_of_an_animation() -> None:
    frames = [plain("RGB", colour, (2, 2)) for colour in (RED, GREEN, BLUE)]
    for kind in ("GIF", "WEBP", "TIFF", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert rows(data) == [[RED] * 2] * 2, kind


UPRIGHT = {  # EXIF 2.32, tag 0x0112, as operations on [H, W] arrays
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.T, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_orientation(kind: str, orientation: int) -> None:
    stored = np.kron(np.arange(6).reshape(2, 3) * 50, np.ones((16, 16))).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}.get(kind, {})
    data = encoded(Image.fromarray(stored), kind, exif=exif, **options)
    expected = UPRIGHT[orientation](stored)
    pixels = decode(data, None, 1)[0]
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() <= 2
    assert probe(data)[:2] == expected.shape


def test_an_orientation_behind_the_pixels_of_a_png() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = png16(np.full((2, 5), 65535), after=exif.tobytes()[6:])
    assert decode(data, None, 1).shape == (1, 5, 2)
    assert probe(data)[:2] == (5, 2)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_an_orientation_that_is_none_turns_nothing(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    data = encoded(plain("RGB", RED, (5, 2)), kind, exif=exif)
    assert probe(data)[:2] == decode(data, None, 3).shape[1:] == (2, 5)


@pytest.mark.parametrize("exif", [b"junk", b"Exif\0\0II*\0\xff\xff\xff\xff", b""])
def test_damaged_metadata_turn_nothing(exif: bytes) -> None:
    for kind in ("JPEG", "PNG", "WEBP"):
        data = encoded(plain("L" if kind == "PNG" else "RGB", 9, (3, 2)), kind, exif=exif)
        assert decode(data, None, 1).shape == (1, 2, 3)
        assert probe(data)[:2] == (2, 3)


def test_the_centre_is_cropped() -> None:
    bands = np.repeat(np.array([RED, GREEN, BLUE], np.uint8), 10, 0)
    wide = np.broadcast_to(bands, (10, 30, 3))
    for array in (wide, wide.transpose(1, 0, 2)):
        data = encoded(Image.fromarray(np.ascontiguousarray(array)))
        for size in (1, 5, 10, 20):
            pixels = decode(data, size, 3)
            assert pixels.shape == (3, size, size)
            assert (pixels == np.array(GREEN)[:, None, None]).all()


def test_an_image_of_the_right_size_is_not_filtered() -> None:
    array = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert np.array_equal(decode(encoded(Image.fromarray(array)), 16, 3).transpose(1, 2, 0), array)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_shrinking_averages(kind: str) -> None:
    """A checkerboard of single pixels becomes even grey, a slow wave stays what it was."""
    board = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    assert np.abs(decode(encoded(Image.fromarray(board)), 32, 1).astype(int) - 127.5).max() < 2

    def wave(side: int) -> np.ndarray:
        x = (np.arange(side) + 0.5) / side
        return 127.5 + 100 * np.sin(2 * np.pi * x)[:, None] * np.cos(2 * np.pi * x)[None]

    data = encoded(Image.fromarray(np.rint(wave(512)).astype(np.uint8)), kind)
    assert np.abs(decode(data, 32, 1)[0] - wave(32)).max() < 3


def test_enlarging_stays_in_range() -> None:
    step = np.zeros((4, 4), np.uint8)
    step[:, 2:] = 255
    pixels = decode(encoded(Image.fromarray(step)), 16, 1)[0]
    assert (pixels[:, 0] == 0).all()
    assert (pixels[:, -1] == 255).all()
    assert (np.diff(pixels.astype(int).mean(0)) >= -10).all()


def test_a_path_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(encoded(plain("L", 5)))
    assert decode(path, None, 1).tolist() == [[[5]]]
