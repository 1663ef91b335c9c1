"""One file, one RGB picture: what is right is read alike, what is wrong is a BadImage with a reason."""

import io
import os
import random
import struct
import sys
import threading
import warnings
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from sancli.data import images
from sancli.data.images import BadImage, decode, has_frames, load_image
from sancli.data.sniff import what_is

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
WRITES = {  # what Pillow can write in each format, by mode
    "JPEG": ("1", "L", "RGB", "CMYK", "YCbCr"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "WEBP": ("L", "LA", "P", "RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "DIB": ("1", "L", "P", "RGB"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "RGBX"),
    "GIF": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "PPM": ("1", "L", "RGB", "I;16", "I"),
    "AVIF": ("L", "RGB", "RGBA"),
}


def ramp(width=40, height=30):
    """Smooth, coloured, different in every corner: a wrong turn or scale shows."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 5, y * 7, 200 - x * 2], axis=-1).astype(np.uint8))


def saved(image, image_format="PNG", **options):
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def grey16(mode="I;16"):
    values = np.linspace(0, 65535, 40 * 30).reshape(30, 40)
    return Image.fromarray(values.astype(np.uint16 if mode == "I;16" else np.int32))


def reason(data, **options):
    with pytest.raises(BadImage) as caught:
        decode(data, **options)
    return caught.value.reason


def distance(one, other):
    return float(np.abs(np.asarray(one, np.float32) - np.asarray(other, np.float32)).mean())


@pytest.mark.parametrize(("image_format", "mode"), [(f, m) for f, modes in WRITES.items() for m in modes])
def test_every_mode_that_a_format_can_hold_is_read_with_its_colours(image_format, mode):
    source = grey16(mode) if mode.startswith("I") else ramp().convert(mode)
    data = saved(source, image_format, **{"quality": 95} if image_format in ("JPEG", "AVIF") else {})
    right = {"1": source.convert("RGB"), "L": ramp().convert("L").convert("RGB")}.get(mode, ramp())
    if mode == "LA":
        right = ramp().convert("L").convert("RGB")
    if mode.startswith("I"):
        right = Image.fromarray((np.asarray(source) // 257).astype(np.uint8)).convert("RGB")
    picture = decode(data).image
    assert (picture.mode, picture.size) == ("RGB", (40, 30))
    # 4 grey levels of mean colour; palettes of 256 and chroma at half size stay under it too
    assert (
        distance(picture.resize((1, 1), Image.Resampling.BOX), right.resize((1, 1), Image.Resampling.BOX))
        <= 4
    )
    assert distance(picture, right) <= (20 if mode == "P" else 8)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits", "jpeg", "zstd"])
def test_compressed_tiffs_are_read(compression):
    assert distance(decode(saved(ramp(), "TIFF", compression=compression)).image, ramp()) < 4


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_rotation_is_applied_once_and_an_unknown_value_is_as_is(image_format):
    upright = ramp()
    back = {  # what undoes the turn that each value asks for
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = {1: upright, 99: upright} | {value: upright.transpose(turn) for value, turn in back.items()}
    for orientation, image in stored.items():
        exif = Image.Exif()
        exif[images.ORIENTATION] = orientation
        options = {"quality": 95} if image_format == "JPEG" else {}
        if image_format == "WEBP":
            options = {"lossless": True}
        decoded = decode(saved(image, image_format, exif=exif, **options))
        assert decoded.image.size == upright.size, orientation
        assert distance(decoded.image, upright) < 3, orientation


def test_damaged_exif_does_not_cost_the_picture():
    data = saved(ramp(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\x01" * 30)
    assert decode(data).image.size == (40, 30)


def test_transparency_is_laid_over_white():
    hidden = Image.new("RGBA", (4, 4), (0, 0, 255, 0))
    hidden.putpixel((0, 0), (255, 0, 0, 255))
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([0, 0, 255, 255, 0, 0])
    palette.putpixel((0, 0), 1)
    key = Image.new("RGB", (4, 4), (0, 0, 255))
    key.putpixel((0, 0), (255, 0, 0))
    for data in (saved(hidden), saved(palette, transparency=0), saved(key, transparency=(0, 0, 255))):
        picture = decode(data).image
        assert picture.getpixel((0, 0)) == (255, 0, 0)
        assert picture.getpixel((3, 3)) == (255, 255, 255)
    grey = Image.new("LA", (4, 4), (0, 128))
    assert decode(saved(grey)).image.getpixel((0, 0)) == (127, 127, 127)


def test_sixteen_bits_and_floats_are_scaled_by_a_fixed_rule_or_refused():
    for data in (saved(grey16()), saved(grey16(), "TIFF"), saved(grey16("I"), "TIFF")):
        picture = np.asarray(decode(data).image)
        assert picture[0, 0].tolist() == [0, 0, 0]
        assert picture[-1, -1].tolist() == [255, 255, 255]
        assert abs(float(picture.mean()) - 127.5) < 1
    unit = Image.fromarray(np.linspace(0, 1, 40 * 30, dtype=np.float32).reshape(30, 40))
    assert abs(float(np.asarray(decode(saved(unit, "TIFF")).image).mean()) - 127.5) < 1
    for values in ([[0, 255.0]], [[-0.1, 1]], [[0, float("nan")]]):
        assert "mode F" in reason(saved(Image.fromarray(np.array(values, np.float32)), "TIFF"))
    assert "mode I" in reason(saved(Image.fromarray(np.array([[-5, 70000]], np.int32)), "TIFF"))


def test_the_first_of_several_frames_is_taken():
    frames = [ramp(), Image.new("RGB", (40, 30), "red")]
    for image_format in ("GIF", "TIFF", "PNG", "WEBP"):
        data = saved(frames[0], image_format, save_all=True, append_images=frames[1:])
        assert distance(decode(data).image, ramp()) < 8, image_format
        assert has_frames(data), image_format
        assert not has_frames(saved(ramp(), image_format)), image_format


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 2000), (4000, 3)])
@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"])
def test_extreme_shapes_are_read(image_format, size):
    assert decode(saved(Image.new("RGB", size, "teal"), image_format)).image.size == size


def test_the_content_decides_not_the_ending(tmp_path):
    for image_format in ("PNG", "GIF", "WEBP", "BMP", "AVIF"):
        path = tmp_path / f"{image_format}.jpg"
        path.write_bytes(saved(ramp(), image_format))
        assert load_image(path).size == (40, 30)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not an image (the file is empty)"),
        (b"x", "not an image (1 bytes of no known format)"),
        (b"just some words\n", "not an image (looks like text)"),
        (b"<!DOCTYPE html><html>", "not an image (looks like HTML)"),
        (b"\n\n  <html><body>404", "not an image (looks like HTML)"),
        (b"%PDF-1.7\n", "not an image (looks like PDF)"),
        (b'<?xml version="1.0"?><svg width="9">', "not an image (looks like SVG)"),
        (b"PK\x03\x04" + bytes(60), "not an image (looks like zip)"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS is a program for a printer"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\xff\xd8\xff\xe0", "damaged JPEG"),
        (bytes(300), "not an image (300 bytes of no known format)"),
    ],
)
def test_what_is_no_image_is_named_for_what_it_is(data, words):
    assert words in reason(data)


def iphone(image, **options):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    return saved(image, "HEIF", **options)


def test_heic_is_read_by_its_content_upright_and_damage_is_named():  # row 8
    exif = Image.Exif()
    exif[images.ORIENTATION] = 6
    data = iphone(ramp(), exif=exif.tobytes())
    found = decode(data)
    assert (found.format, found.image.mode, found.image.size) == ("HEIF", "RGB", (30, 40))
    assert distance(found.image, ramp().transpose(Image.Transpose.ROTATE_270)) < 3
    assert not has_frames(data)
    assert has_frames(iphone(ramp(), save_all=True, append_images=[ramp().rotate(180)]))
    for keep in (0.5, 0.9):
        assert "damaged HEIC" in reason(data[: int(len(data) * keep)])
    assert reason(iphone(ramp(200, 100)), max_pixels=10_000).startswith("too large")
    rand = random.Random(0)
    for _ in range(200):
        mutant = bytearray(data)
        mutant[rand.randrange(len(data))] = rand.randrange(256)
        with suppress(BadImage):
            decode(bytes(mutant))


def test_without_its_library_heic_is_named_with_both_ways_out(monkeypatch):  # row 8
    monkeypatch.setattr(images, "READS_HEIC", False)
    for data in (HEIC, iphone(ramp())):
        assert reason(data) == 'HEIC (iPhone) image; convert it to JPEG, or pip install "sancli[heic]"'


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF"])
def test_a_file_cut_short_is_refused(image_format):
    data = saved(Image.effect_noise((64, 48), 80).convert("RGB"), image_format)
    for keep in (0.5, 0.9):
        words = reason(data[: int(len(data) * keep)])
        assert "truncated" in words or "damaged" in words, words
    if image_format in ("JPEG", "PNG", "BMP"):
        cut = data[: len(data) // 2]
        assert reason(cut) == f"truncated (the file ends after {len(cut):,} bytes, inside the picture)"


def png_header(width, height):
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name, body):
        import zlib

        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")


def test_a_bomb_is_refused_before_it_is_decoded_by_one_rule(recwarn):
    assert reason(png_header(30_000, 30_000)) == "too large: 900 Mpx, limit 89; raise with --max-pixels"
    assert reason(png_header(12_000, 12_000)) == "too large: 144 Mpx, limit 89; raise with --max-pixels"
    assert reason(saved(ramp()), max_pixels=1199) == "too large: 0 Mpx, limit 0; raise with --max-pixels"
    assert decode(saved(ramp()), max_pixels=1200).image.size == (40, 30)
    assert not recwarn.list


def test_a_raised_limit_is_obeyed_and_pillows_own_comes_back():
    before = Image.MAX_IMAGE_PIXELS
    data = saved(Image.new("1", (10_000, 9_500)))
    assert "95 Mpx" in reason(data)
    assert decode(data, max_pixels=10**8).image.size == (10_000, 9_500)
    assert before == Image.MAX_IMAGE_PIXELS


def test_ghostscript_is_never_started(tmp_path, monkeypatch):
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    path = tmp_path / "x.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(BadImage, match="EPS"):
        load_image(path)
    assert not (tmp_path / "started").exists()


def test_what_is_not_a_readable_regular_file_is_named_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "folder.jpg").mkdir()
    for name, words in (
        ("fifo.jpg", "not a regular"),
        ("folder.jpg", "not a regular"),
        ("no.jpg", "not found"),
    ):
        with pytest.raises(BadImage, match=words):
            load_image(tmp_path / name)
    with pytest.raises(BadImage, match="not a regular"):
        load_image("/dev/zero")


def damaged_tiff():
    data = bytearray(saved(Image.effect_noise((64, 64), 50), "TIFF", compression="tiff_lzw"))
    data[200:260] = b"\xff" * 60
    return bytes(data)


def test_libtiff_is_kept_off_the_screen_and_its_words_are_the_reason(capfd):
    sys.stderr.write("before\n")
    words = reason(damaged_tiff())
    sys.stderr.write("after\n")
    assert capfd.readouterr().err == "before\nafter\n"
    assert words.startswith("damaged TIFF (")


def test_a_progress_bar_in_another_thread_stays_whole(capfd):
    stop, wrote = threading.Event(), []

    def bar():
        while not stop.is_set():
            sys.stderr.write(f"{len(wrote)}\n")
            wrote.append(None)

    thread = threading.Thread(target=bar)
    thread.start()
    for _ in range(50):
        reason(damaged_tiff())
    stop.set()
    thread.join()
    assert capfd.readouterr().err == "".join(f"{i}\n" for i in range(len(wrote)))


def test_threads_share_the_limits_and_leave_the_process_as_it_was():
    good, filters = saved(ramp(), "TIFF"), warnings.filters[:]
    wrong = []

    def work():
        wrong.extend(distance(decode(good).image, ramp()) for _ in range(30))
        wrong.extend("144 Mpx" not in reason(png_header(12_000, 12_000)) for _ in range(30))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 240
    assert not any(wrong)
    assert warnings.filters == filters


def mutants(count, seed=0):
    """Good files of every format with bytes changed, cut out, doubled or missing at the end."""
    rand = random.Random(seed)
    noise = Image.effect_noise((31, 23), 90).convert("RGB")
    exif = Image.Exif()
    exif[images.ORIENTATION], exif[0x010F] = 6, "someone"
    seeds = [saved(noise.convert(m) if m[0] != "I" else grey16(m), f) for f, ms in WRITES.items() for m in ms]
    seeds += [saved(noise, f, exif=exif) for f in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")]
    seeds += [saved(noise, "TIFF", compression=c) for c in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")]
    for _ in range(count):
        data = bytearray(rand.choice(seeds))
        for _ in range(rand.choice((1, 1, 2, 8))):
            at = rand.randrange(len(data) or 1)
            change = rand.randrange(4)
            if change == 0 and data:
                data[at] = rand.randrange(256)
            elif change == 1:
                data[at : at + 4] = struct.pack("<I", rand.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF)))
            elif change == 2:
                del data[at : at + rand.randrange(1, 20)]
            elif len(data) > 2 and rand.random() < 0.3:
                data = data[:at]
        yield bytes(data)


def check_mutants(count, seed):
    read = 0
    for data in mutants(count, seed):
        try:
            read += decode(data, max_pixels=10**7).image.mode == "RGB"
        except BadImage as error:
            words = error.reason
            if not words.isprintable() or not 0 < len(words) < 200:
                raise AssertionError(words) from error
    return read


def test_mutated_files_give_a_picture_or_a_reason_and_nothing_else(capfd):
    assert 0 < check_mutants(1500, seed=0) < 1500
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_a_long_campaign_of_mutated_files():
    for seed in range(1, 40):
        check_mutants(5000, seed)


def test_kinds_that_share_a_container_are_told_apart():
    assert what_is(saved(ramp(), "AVIF")[:100]) == "AVIF"
    assert what_is(saved(ramp(), "WEBP")[:100]) == "WebP"
    assert what_is(HEIC) == "HEIC"
    assert what_is(b"\0\0\0\x20ftypisom" + bytes(60)) == "video (MP4 or MOV)"


@pytest.mark.parametrize(
    ("enough_px", "size"),
    [(None, (645, 480)), (241, (645, 480)), (240, (323, 240)), (61, (162, 120)), (9, (81, 60))],
)
def test_a_large_jpeg_is_decoded_no_larger_than_is_enough(enough_px, size):
    data = saved(ramp(645, 480), "JPEG")
    assert decode(data, enough_px=enough_px).image.size == size


@pytest.mark.parametrize("mode", WRITES["JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_decoded_small_looks_like_the_whole_one(mode, orientation):
    y, x = np.mgrid[0:320, 0:400]
    smooth = Image.fromarray(np.stack([x / 2, y * 0.7, 255 - x / 2], axis=-1).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(smooth.convert(mode), "JPEG", quality=95, exif=exif)
    whole, small = decode(data).image, decode(data, enough_px=80).image
    assert small.mode == "RGB"
    assert small.size == tuple(side // 4 for side in whole.size)
    assert distance(small, whole.reduce(4)) <= 1


@pytest.mark.parametrize("image_format", sorted(set(WRITES) - {"JPEG"}))
def test_other_formats_are_always_decoded_in_full(image_format):
    data = saved(ramp(160, 120), image_format)
    assert decode(data, enough_px=15).image.size == (160, 120)


def test_decoding_small_hides_neither_damage_nor_size():
    data = saved(ramp(645, 480), "JPEG")
    with pytest.raises(BadImage, match="truncated"):
        decode(data[: len(data) // 2], enough_px=9)
    with pytest.raises(BadImage, match="too large"):
        decode(data, max_pixels=645 * 480 - 1, enough_px=9)
