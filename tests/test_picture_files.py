"""A picture's file says how it was drawn, to us and to other programs, and a foreign or forged one is refused."""

import io
import json
import os
import struct
import time
import zlib

import pytest
from PIL import Image, PngImagePlugin

from razor.errors import InputError
from razor.examples import Axis
from razor.picture_files import ABANDONED, FORMAT, MAX_BYTES, MAX_TEXT, Album, PictureInfo, Spec, png_bytes, read_png

SPEC = Spec("a neon cat", 123456789, 20, 4.5, 64)
INFO = PictureInfo(SPEC, "mini-sd", "0123456789abcdef", "edited", "fedcba9876543210", {"task": {"concept": "neon"}})
PICTURE = Image.new("RGB", (64, 64), (10, 20, 30))


def png(text=None, key="razor", size=(64, 64), **changes):
    """A PNG with a text chunk of one's own."""
    plain = {"format": FORMAT, **vars(SPEC), **{k: v for k, v in vars(INFO).items() if k != "spec"}} | changes
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text(key, json.dumps(plain) if text is None else text)
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "png", pnginfo=chunks)
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_what_was_written_is_read_back_and_the_pixels_are_untouched():
    data = png_bytes(PICTURE, INFO)
    assert read_png(data) == INFO
    with Image.open(io.BytesIO(data)) as image:
        assert image.tobytes() == PICTURE.tobytes()


def test_other_programs_find_the_words_they_know():
    with Image.open(io.BytesIO(png_bytes(PICTURE, INFO))) as image:
        said = image.info["parameters"]
    assert said == (
        "a neon cat\nSteps: 20, CFG scale: 4.5, Seed: 123456789, Size: 64x64, Model: mini-sd, "
        "Model hash: 0123456789abcdef, RAZOR: edited"
    )


def test_a_prompt_in_any_language_survives():
    info = PictureInfo(Spec("кот <img src=x> 猫", 1, 1, 1.0, 64), "m", "", "original")
    data = png_bytes(PICTURE, info)
    assert read_png(data) == info and b"iTXt" in data
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["parameters"].startswith("кот <img src=x> 猫\n")


def test_a_foreign_picture_is_refused_in_one_sentence():
    file = io.BytesIO()
    PICTURE.save(file, "png")
    with pytest.raises(InputError) as refused:
        read_png(file.getvalue(), "holiday.png")
    assert str(refused.value) == (
        "holiday.png does not say how it was drawn: it was not drawn here, or a program has removed the text since. "
        "Give a PNG that was downloaded from the pairs or the grid."
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is not a PNG"),
        (b"GIF89a" + b"\0" * 60, "is not a PNG"),
        (png()[:20], "is not a PNG"),
        (png()[:60], "does not say|cannot be read"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)), "60000 x 60000"),
        (b"\0" * (MAX_BYTES + 1), "pictures up to 32 MB are read"),
        (png("x" * (MAX_TEXT + 1)), "carries 400,001 characters"),
        (png("[" * 100_000), "cannot be used"),
        (png("{"), "cannot be used"),
        (png("[]"), "another format"),
        (png(format="razor-picture-9"), "another format"),
        (png(prompt=7), "prompt is no text"),
        (png(prompt="x" * 2001), "prompt is no text of up to 2000"),
        (png(prompt=" "), "an empty prompt"),
        (png(seed=-1), "seed is no whole number"),
        (png(seed=2**63), "seed is no whole number"),
        (png(seed=True), "seed is no whole number"),
        (png(steps=2.5), "steps is no whole number from 1 to 200"),
        (png(steps=201), "steps is no whole number"),
        (png(guidance="4"), "guidance is no number from 0 to 50"),
        (png(guidance=float("nan")), "NaN is no number"),
        (png(guidance=1e999), "Infinity is no number"),
        (png(side=0), "side is no whole number"),
        (png(size=(32, 64)), "resized from 64 to 32 x 64"),
        (png(fingerprint="../../etc"), "a hash that is none"),
        (png(recipe="drop"), "cannot be used"),
    ],
)
def test_a_broken_or_forged_file_is_refused(data, said):
    with pytest.raises(InputError, match=said):
        read_png(data, "x.png")


def test_a_text_bomb_is_never_unpacked_whole():
    bomb = chunk(b"zTXt", b"razor\0\0" + zlib.compress(b"a" * 50_000_000))
    plain = png("{}", key="other")
    with pytest.raises(InputError, match=r"cannot be read as a PNG|does not say"):
        read_png(plain[:33] + bomb + plain[33:])


# Albums ---------------------------------------------------------------------------------------------------------------


def test_an_album_finds_what_it_keeps_and_lets_the_longest_unused_go(tmp_path):
    album = Album(tmp_path, most=2)
    first = album.keep("a", b"1").path
    album.keep("b", b"2")
    assert album.find("a").path == first and album.find("c") is None
    album.keep("c", b"3")  # "b" was used longest ago
    assert album.find("b") is None and album.find("a") and len(list(first.parent.iterdir())) == 2


def test_the_folder_is_private_made_late_and_gone_at_the_end(tmp_path):
    album = Album(tmp_path)
    assert not list(tmp_path.iterdir())
    path = album.keep("a", b"1").path
    assert path.parent.stat().st_mode & 0o077 == 0 and len(path.stem) == 32
    album.close()
    assert not list(tmp_path.iterdir()) and album.find("a") is None
    assert not album.keep("b", b"2").path.is_file()


def test_a_picture_whose_file_was_deleted_is_no_longer_found(tmp_path):
    album = Album(tmp_path)
    album.keep("a", b"1").path.unlink()
    assert album.find("a") is None


def test_what_a_judge_saw_stays_with_the_picture(tmp_path):
    album, axes = Album(tmp_path), (Axis("style", {"neon": ()}),)
    album.keep("a", b"1")
    album.judged("a", axes, {"style": "neon"})
    assert album.find("a").saw == {"style": "neon"} and album.find("a").axes == axes


def test_folders_of_a_process_that_crashed_are_deleted(tmp_path):
    left, new, other = tmp_path / "razor-pictures-left", tmp_path / "razor-pictures-new", tmp_path / "uploads"
    for folder in (left, new, other):
        folder.mkdir()
    old = time.time() - ABANDONED - 60
    os.utime(left, (old, old))
    os.utime(other, (old, old))
    Album(tmp_path).keep("a", b"1")
    assert not left.exists() and new.exists() and other.exists()
