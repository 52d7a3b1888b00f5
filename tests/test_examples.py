"""Pictures and captions from every source; each bad input is refused or skipped with one sentence."""

import io
import json
import struct
import zipfile
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from razor import examples
from razor.errors import ExampleError, InputError
from razor.examples import (
    Example,
    caption_from_name,
    load_examples,
    open_image,
    read_table,
    shared_pictures,
    split_examples,
    user_task,
    varied,
)


def png(picture, form="PNG", **options):
    """The picture as the bytes of a file."""
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def zip_file(path, members, compression=zipfile.ZIP_DEFLATED):
    """A zip with these names and bytes, written as given, safe or not."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=compression)
    return path


@pytest.fixture
def write(tmp_path, picture):
    """names -> a folder of different pictures with those names."""

    def make(*names):
        for seed, name in enumerate(names):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(png(picture(seed)))
        return tmp_path

    return make


def captions(loaded):
    return {e.source: e.caption for e in loaded.examples}


# ---------------------------------------------------------------- sources


def test_folder_is_read_with_its_subfolders_and_captions_from_file_names(write):
    folder = write("red_cat-03.png", "deep/er/blue dog.png", ".hidden.png", "__MACOSX/red_cat.png")
    (folder / "notes.txt").write_text("not a picture")
    loaded = load_examples(folder)
    assert captions(loaded) == {"red_cat-03.png": "red cat", "blue dog.png": "blue dog"}
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    "name, table",
    [
        ("metadata.jsonl", '{"file_name": "1.png", "text": "a cat"}\n\n{"file_name": "2.png", "text": "a dog"}\n'),
        ("metadata.csv", 'image,caption\n1.png,a cat\n2.png,"a dog"\n'),
    ],
)
def test_folder_takes_captions_from_its_metadata_table(write, name, table):
    folder = write("1.png", "2.png")
    (folder / name).write_text(table)
    assert captions(load_examples(folder)) == {"1.png": "a cat", "2.png": "a dog"}


def test_picture_without_a_row_in_the_table_is_named_and_uses_its_file_name(write):
    folder = write("1.png", "grey_owl.png")
    (folder / "metadata.csv").write_text("file,text\n1.png,a cat\n")
    loaded = load_examples(folder)
    assert captions(loaded) == {"1.png": "a cat", "grey_owl.png": "grey owl"}
    assert loaded.warnings == ("grey_owl.png has no caption; its file name is used.",)


@pytest.mark.parametrize("with_table", [False, True])
def test_zip_is_read_in_memory(tmp_path, picture, with_table):
    members = {"set/one_cat.png": png(picture(0)), "set/dog-2.png": png(picture(1)), "__MACOSX/set/x.png": b"junk"}
    if with_table:
        members["metadata.jsonl"] = b'{"file_name": "one_cat.png", "caption": "tabby"}'
    path = zip_file(tmp_path / "set.zip", members)
    loaded = load_examples(path)
    assert captions(loaded) == {"one_cat.png": "tabby" if with_table else "one cat", "dog-2.png": "dog"}
    assert [p.name for p in tmp_path.iterdir()] == ["set.zip"]


@pytest.mark.parametrize(
    "name, text",
    [
        ("list.csv", "path,prompt,more\na/1.png,a cat,x\n2.png,a dog,y\n"),
        ("list.jsonl", '{"image": "a/1.png", "label": "a cat"}\n{"image": "2.png", "label": "a dog"}\n'),
    ],
)
def test_table_names_pictures_beside_it(write, name, text):
    folder = write("a/1.png", "2.png", "unlisted.png")
    (folder / name).write_text(text)
    assert captions(load_examples(folder / name)) == {"1.png": "a cat", "2.png": "a dog"}


def test_one_picture_is_a_set_of_one(write):
    assert captions(load_examples(write("red_cat-03.png") / "red_cat-03.png")) == {"red_cat-03.png": "red cat"}


@pytest.mark.parametrize(
    "name, caption",
    [
        ("red_cat-03.png", "red cat"),
        ("a/b/tree.jpg", "tree"),
        ("0017.png", "0017"),
        ("two  words 2.tar.png", "two words 2.tar"),
    ],
)
def test_caption_is_the_file_name_without_numbers_and_separators(name, caption):
    assert caption_from_name(name) == caption


# ---------------------------------------------------------------- decoding


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "LA", "1", "I;16"])
def test_every_mode_becomes_rgb(picture, mode):
    source = picture(0).convert("L").convert("I;16") if mode == "I;16" else picture(0).convert(mode)
    form = "TIFF" if mode in ("CMYK", "I;16") else "PNG"
    image = open_image(png(source, form), "x")
    assert image.mode == "RGB" and image.size == (16, 12)


def test_palette_and_cmyk_keep_their_colours():
    red = Image.new("RGB", (16, 16), (250, 10, 10))
    for data in (png(red.quantize(4)), png(red.convert("CMYK"), "JPEG", quality=95)):
        pixel = np.asarray(open_image(data, "x"))[8, 8].astype(int)
        assert np.abs(pixel - (250, 10, 10)).max() < 12


def test_transparent_pixels_become_white():
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    assert open_image(png(clear), "x").getpixel((3, 3)) == (255, 255, 255)


def test_exif_orientation_is_applied_and_metadata_dropped(picture):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x013B] = 6, "a secret place", "somebody"  # turned a quarter; description; artist
    upright = picture(0)
    image = open_image(png(upright, "PNG", exif=exif), "x")
    assert image.size == (12, 16)
    assert np.array_equal(np.asarray(image), np.rot90(np.asarray(upright), -1))
    assert image.info == {} and not image.getexif()


def test_large_pictures_are_kept_smaller_in_proportion():
    assert open_image(png(Image.new("RGB", (1600, 400))), "x").size == (512, 128)


def test_digest_is_of_the_pixels_not_the_file(picture):
    one, other = (Example(open_image(png(picture(0), form), "x"), "") for form in ("PNG", "BMP"))
    assert one.digest == other.digest != Example(picture(1), "").digest
    wide, tall = (Example(Image.new("RGB", size), "") for size in ((8, 16), (16, 8)))
    assert wide.digest != tall.digest


def test_animated_gif_gives_its_first_frame_and_a_warning(tmp_path):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "wave.gif", save_all=True, append_images=frames[1:])
    loaded = load_examples(tmp_path)
    assert loaded.warnings == ("wave.gif is animated; its first frame is used.",)
    red, _, blue = loaded.examples[0].image.getpixel((8, 8))
    assert red > 250 and blue < 5


# ---------------------------------------------------------------- pictures that cannot be used


def huge_png():
    """A small file that declares 30000 x 30000 pixels."""
    chunk = lambda kind, data: (  # noqa: E731
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )
    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


BAD_PICTURES = {
    "zero bytes": (lambda good: b"", r"^bad.png is an empty file\.$"),
    "corrupt": (lambda good: b"\x89PNG\r\n\x1a\n" + b"junk" * 99, r"^bad.png is not a readable picture \(\w+\)\.$"),
    "truncated": (lambda good: good[: len(good) // 2], r"^bad.png is not a readable picture \(\w+\)\.$"),
    "text": (lambda good: b"<html>not found</html>", r"^bad.png is not a readable picture \(\w+\)\.$"),
    "one pixel": (lambda good: png(Image.new("RGB", (1, 1))), r"^bad.png is 1 x 1 pixels; at least 8 x 8 are needed\."),
    "thin": (lambda good: png(Image.new("RGB", (900, 2))), r"^bad.png is 900 x 2 pixels; at least 8 x 8"),
    "huge": (lambda good: huge_png(), r"^bad.png (has 30000 x 30000 pixels|is not a readable picture)"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", BAD_PICTURES)
def test_bad_picture_is_an_error_that_names_it(picture, kind):
    spoil, sentence = BAD_PICTURES[kind]
    with pytest.raises(ExampleError, match=sentence):
        open_image(spoil(png(picture(0))), "bad.png")


@pytest.mark.parametrize("kind", BAD_PICTURES)
def test_bad_picture_among_good_ones_is_skipped_with_a_warning(write, picture, kind):
    folder = write("good.png")
    spoil, sentence = BAD_PICTURES[kind]
    (folder / "bad.png").write_bytes(spoil(png(picture(9))))
    loaded = load_examples(folder)
    assert [e.source for e in loaded.examples] == ["good.png"]
    assert len(loaded.warnings) == 1
    with pytest.raises(ExampleError, match=sentence):
        open_image(folder / "bad.png", "bad.png")


def test_picture_over_the_size_limit_is_refused(picture, monkeypatch):
    monkeypatch.setattr(examples, "MAX_BYTES", 100)
    with pytest.raises(ExampleError, match=r"^big.png is 0 MB; pictures up to 0 MB are read\.$"):
        open_image(png(picture(0)), "big.png")


def test_duplicates_are_used_once(tmp_path, picture):
    for name, form in (("a.png", "PNG"), ("b.bmp", "BMP"), ("c.png", "PNG")):
        (tmp_path / name).write_bytes(png(picture(0 if name != "c.png" else 1), form))
    loaded = load_examples(tmp_path)
    assert [e.source for e in loaded.examples] == ["a.png", "c.png"]
    assert loaded.warnings == ("b.bmp is the same picture as a.png; it is used once.",)


def test_no_more_than_the_limit_is_read(write, monkeypatch):
    monkeypatch.setattr(examples, "MAX_PICTURES", 2)
    loaded = load_examples(write("1.png", "2.png", "3.png"))
    assert len(loaded.examples) == 2 and loaded.warnings == ("Only the first 2 pictures were read.",)


# ---------------------------------------------------------------- sources that cannot be used


def test_missing_source_is_named(tmp_path):
    with pytest.raises(ExampleError, match=r"^No file or folder at '.*nowhere'; give a folder, zip"):
        load_examples(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["notes.txt", "archive.tar.gz", "noextension"])
def test_other_files_are_refused(tmp_path, name):
    (tmp_path / name).write_text("x")
    with pytest.raises(ExampleError, match=f"^{name} is not a folder, zip, csv, jsonl or picture"):
        load_examples(tmp_path / name)


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(ExampleError, match=r"^No usable picture: No pictures found; expected \.png"):
        load_examples(tmp_path)


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png"])
def test_zip_that_points_outside_itself_is_refused(tmp_path, picture, name):
    path = zip_file(tmp_path / "evil.zip", {"good.png": png(picture(0)), name: png(picture(1))})
    with pytest.raises(ExampleError, match=r"^evil.zip holds the path '.*evil.png', which points outside the archive"):
        load_examples(path)


def test_zip_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(tmp_path, picture, monkeypatch):
    monkeypatch.setattr(examples, "MAX_ZIP_BYTES", 1000)
    monkeypatch.setattr(examples, "_read", lambda *_: pytest.fail("it was unpacked"))
    path = zip_file(tmp_path / "big.zip", {"good.png": png(picture(0)), "zeros.png": bytes(5000)})
    with pytest.raises(ExampleError, match=r"^big.zip unpacks to 0 MB \(\d+ times its size\); archives up to 0 MB"):
        load_examples(path)


def test_zip_that_is_mostly_padding_is_refused(tmp_path):
    path = zip_file(tmp_path / "bomb.zip", {f"{i}.png": bytes(6_000_000) for i in range(10)})
    with pytest.raises(ExampleError, match=r"^bomb.zip unpacks to 60 MB \(\d{3,4} times its size\)"):
        load_examples(path)


def test_no_more_than_the_limit_is_unpacked_of_a_member(tmp_path, monkeypatch):
    monkeypatch.setattr(examples, "MAX_BYTES", 100)
    path = zip_file(tmp_path / "x.zip", {"a.png": bytes(5000)})
    with zipfile.ZipFile(path) as archive:
        assert len(examples._read(archive, archive.infolist()[0])) == 101


@pytest.mark.parametrize("members", [{}, {"notes.txt": b"x"}, {"__MACOSX/a.png": b"x"}])
def test_zip_without_pictures_is_refused(tmp_path, members):
    with pytest.raises(ExampleError, match=r"^No usable picture: No pictures found"):
        load_examples(zip_file(tmp_path / "none.zip", members))


def broken_member(path):
    """A zip whose picture fails its checksum."""
    data = bytearray(zip_file(path, {"a.png": b"x" * 500}, zipfile.ZIP_STORED).read_bytes())
    data[100] ^= 255
    path.write_bytes(data)


def encrypted_flag(path):
    """A zip that says its member needs a password."""
    data = bytearray(zip_file(path, {"a.png": b"x" * 500}).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


def cut_stream(path):
    """A zip whose compressed data is not deflate data."""
    data = bytearray(zip_file(path, {"a.png": bytes(range(256)) * 9}).read_bytes())
    data[35:60] = b"\xff" * 25
    path.write_bytes(data)


@pytest.mark.parametrize("spoil", [lambda p: p.write_bytes(b"no zip"), broken_member, encrypted_flag, cut_stream])
def test_broken_zip_is_one_sentence(tmp_path, spoil):
    spoil(tmp_path / "broken.zip")
    with pytest.raises(ExampleError, match=r"^broken.zip cannot be read as a zip"):
        load_examples(tmp_path / "broken.zip")


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize(
    "name, text, sentence",
    [
        ("t.csv", "a,b\n1,2\n", r"^t.csv has the columns a, b; it needs a file column \(file_name, "),
        ("t.csv", "file,b\nx.png,2\n", r"^t.csv has the columns file, b; it needs .* a caption column \(caption"),
        ("t.csv", "", r"^t.csv has the columns none"),
        ("t.jsonl", "[1, 2]\n", r"^t.jsonl has the columns none"),
        ("t.jsonl", "{broken\n", r"^t.jsonl is not a valid table: "),
    ],
)
def test_table_without_the_columns_is_refused(name, text, sentence):
    with pytest.raises(ExampleError, match=sentence):
        read_table(text, name)


def test_table_with_missing_cells_keeps_the_rest():
    assert read_table("file,text\na.png\nb.png,two\n", "t.csv") == {"a.png": "", "b.png": "two"}


def test_byte_order_mark_does_not_hide_a_column(write):
    folder = write("1.png")
    (folder / "t.csv").write_bytes("\ufefffile,text\n1.png,a cat\n".encode())
    assert captions(load_examples(folder / "t.csv")) == {"1.png": "a cat"}


def test_row_without_its_picture_is_a_warning(write):
    folder = write("1.png")
    (folder / "t.csv").write_text("file,text\n1.png,one\ngone.png,two\n")
    loaded = load_examples(folder / "t.csv")
    assert loaded.warnings == ("gone.png is named in the table but is not beside it.",)


@pytest.mark.parametrize("how", ["dots", "absolute", "symlink"])
def test_table_never_reads_outside_its_folder(write, how):
    root = write("secret.png", "mine/ok.png")
    (root / "mine/link.png").symlink_to(root / "secret.png")
    name = {"dots": "../secret.png", "absolute": str(root / "secret.png"), "symlink": "link.png"}[how]
    (root / "mine/t.csv").write_text(f"file,text\nok.png,fine\n{name},stolen\n")
    loaded = load_examples(root / "mine/t.csv")
    assert captions(loaded) == {"ok.png": "fine"} and len(loaded.warnings) == 1


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 300 + ".png", ""])
def test_impossible_file_name_in_a_table_is_a_warning(write, name):
    folder = write("ok.png")
    rows = [json.dumps({"file": n, "text": "a cat"}) for n in ("ok.png", name)]
    (folder / "t.jsonl").write_text("\n".join(rows))
    loaded = load_examples(folder / "t.jsonl")
    assert captions(loaded) == {"ok.png": "a cat"} and len(loaded.warnings) == 1


# ---------------------------------------------------------------- sets and tasks


def pictures(picture, first, count, caption="a dog"):
    return [Example(picture(i), caption, source=f"{i}.png") for i in range(first, first + count)]


@pytest.mark.parametrize("count, sizes", [(3, (1, 1, 1)), (5, (3, 1, 1)), (10, (6, 2, 2)), (48, (28, 10, 10))])
def test_split_is_60_20_20_and_its_parts_share_nothing(picture, count, sizes):
    every = pictures(picture, 0, count)
    split = split_examples(every)
    assert tuple(map(len, (split.gradient, split.search, split.test))) == sizes
    assert sorted(e.source for e in split.all()) == sorted(e.source for e in every)


def test_split_depends_on_the_seed_alone(picture):
    every = pictures(picture, 0, 12)
    assert split_examples(every, 1) == split_examples(every, 1) != split_examples(every, 2)


@pytest.mark.parametrize("count, words", [(0, "0 pictures are"), (1, "1 picture is"), (2, "2 pictures are")])
def test_too_few_pictures_cannot_be_split(picture, count, words):
    with pytest.raises(ExampleError, match=f"^{words} too few: gradients, step search and reported numbers"):
        split_examples(pictures(picture, 0, count))


def test_same_picture_in_both_sets_is_refused(picture):
    forget, retain = pictures(picture, 0, 4), pictures(picture, 3, 4)
    assert shared_pictures(forget, retain) == (retain[0],)
    with pytest.raises(ExampleError, match=r"^1 picture \(3.png, ...\) stand in both the forget and the retain set"):
        user_task(forget, retain, concept="cat")


@pytest.mark.parametrize("side", ["forget", "retain"])
def test_empty_set_is_named(picture, side):
    sets = {"forget": pictures(picture, 0, 3), "retain": pictures(picture, 5, 3)} | {side: []}
    with pytest.raises(ExampleError, match=f"^The {side} set is empty; add pictures to it"):
        user_task(**sets, concept="cat")


@pytest.mark.parametrize(
    "concept, labels, sentence",
    [
        ("  ", (), "^Say what to forget"),
        ("cat", ("dog", "owl"), r"^The concept 'cat' is none of the labels \(dog, owl\); add it to them"),
        ("cat", ("Cat", " "), "^One label leaves nothing to confuse the concept with"),
    ],
)
def test_concept_must_be_one_of_at_least_two_labels(picture, concept, labels, sentence):
    with pytest.raises(InputError, match=sentence):
        user_task(pictures(picture, 0, 3), pictures(picture, 5, 3), concept=concept, labels=labels)


def test_own_task_reads_labels_from_captions(picture):
    retain = [
        *pictures(picture, 10, 3, "a dog on grass"),
        *pictures(picture, 20, 3, "my hot dog"),
        *pictures(picture, 30, 3, "dogma"),
    ]
    task = user_task(pictures(picture, 0, 4), retain, concept="CAT", labels=["Cat", "Dog", "hot dog"])
    assert task.axes[0].classes == ("Cat", "Dog", "hot dog") and task.chance == pytest.approx(1 / 3)
    assert {e.labels["label"] for e in task.forget.all()} == {"Cat"}
    found = {e.caption: dict(e.labels) for e in task.retain.all()}
    assert found == {"a dog on grass": {"label": "Dog"}, "my hot dog": {"label": "hot dog"}, "dogma": {}}


def test_without_labels_the_retain_captions_are_the_classes(picture):
    retain = pictures(picture, 10, 3, "a dog") + pictures(picture, 20, 3, "an owl")
    task = user_task(pictures(picture, 0, 4), retain, concept="cat")
    assert task.axes[0].classes == ("cat", "a dog", "an owl")
    assert {e.labels["label"] for e in task.retain.all()} == {"a dog", "an owl"}


def test_jsonl_rows_may_hold_any_unicode(write):
    folder = write("1.png")
    (folder / "t.jsonl").write_text(json.dumps({"file": "1.png", "text": "größe 猫"}, ensure_ascii=False), "utf-8")
    assert captions(load_examples(folder / "t.jsonl")) == {"1.png": "größe 猫"}


# ---------------------------------------------------------------- a few of many


def test_a_few_of_many_are_of_every_kind():
    kinds = [{"object": "cat", "style": str(i % 12)} for i in range(96)]  # evenly spaced ones would show three styles
    pictures = [Example(None, "", labels) for labels in kinds]
    chosen = varied(pictures, 24)
    assert chosen == sorted(set(chosen))
    assert Counter(kinds[i]["style"] for i in chosen) == {str(style): 2 for style in range(12)}
    assert len({kinds[i]["style"] for i in varied(pictures, 5)}) == 5
    assert varied(pictures, 200) == list(range(96)) and varied([], 3) == []


def test_a_rare_kind_is_never_left_out():
    pictures = [Example(None, "", {"label": "many"})] * 50 + [Example(None, "", {"label": "one"})]
    assert 50 in varied(pictures, 2) and len(varied(pictures, 10)) == 10
