"""Names are found as a reader would find them; flags, differences and scores are those worked out by hand."""

import base64
import json

import pytest
from PIL import Image

from razor import answers
from razor.answers import (
    affirms,
    classes_named,
    compare,
    denies,
    flags,
    last_names,
    mentions,
    normalised,
    read_questions,
    score,
)
from razor.errors import ExampleError, InputError

PEOPLE = {name: [name] for name in ("Mara Voss", "Ivo Lind", "Mara Quill")}
STYLES = {"pop art": ["pop art", "a pop art print"], "art": ["art"], "neon": ["neon", "a neon sign"]}

# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "text, plain",
    [
        ("Zoë's pop-art!", "zoe s pop art"),
        ("  ÉCOLE\n normale ", "ecole normale"),
        ("STRASSE straße", "strasse strasse"),
        ("snake_case", "snake case"),
        ("?!", ""),
        ("李小龙", "李小龙"),
        ("राम, रमा", "राम रमा"),
        ("สมชาย ใจดี", "สมชาย ใจดี"),
        ("ガンダム", "ガンダム"),
        ("김민수는", "김민수는"),
        ("Ёлка! שָׁלוֹם", "елка שלום"),
        ("love \u2764\ufe0f you", "love you"),
    ],
)
def test_case_accents_and_punctuation_do_not_count(text, plain):
    assert normalised(text) == plain


@pytest.mark.parametrize(
    "text, found",
    [
        ("This is Mara Voss.", True),
        ("MARA-VOSS", True),
        ("Mara", True),
        ("It is voss, I think", True),
        ("Márá Vóss", True),
        ("Mara's portrait", True),
        ("Marathon", False),
        ("Vossen", False),
        ("a person", False),
        ("", False),
    ],
)
def test_a_person_is_named_by_either_part_of_the_name_and_by_whole_words(text, found):
    assert mentions(text, "Mara Voss") is found


def test_a_first_name_two_people_share_names_neither():
    assert classes_named("This is Mara.", PEOPLE) == ()
    assert classes_named("This is Mara Quill.", PEOPLE) == ("Mara Quill",)
    assert classes_named("Ivo and Voss", PEOPLE) == ("Ivo Lind", "Mara Voss")
    assert not mentions("Mara", "Mara Voss", others=["Mara Quill"])


def test_a_last_name_that_tells_a_person_alone_is_known_and_things_have_none():
    assert last_names(["Mara Voss", "Ivo Lind"]) == {"Mara Voss": "Voss", "Ivo Lind": "Lind"}
    assert last_names(["Mara Voss", "Ivo Lind", "Ada Voss"]) == {"Ivo Lind": "Lind"}
    assert last_names(["pop art", "neon"]) == last_names(["cat", "dog"]) == {}


def test_part_of_a_thing_is_not_the_thing():
    assert not mentions("a picture of glass", "stained glass") and mentions("Stained-glass window", "stained glass")


def test_initials_titles_and_articles_name_nobody():
    assert not mentions("Dr. J. is the one", "Dr. Who") and not mentions("the one", "The Raven")
    assert mentions("Mr Rowling", "J. Rowling") and not mentions("J", "J. Rowling")


def test_a_name_in_a_script_without_spaces_is_found_between_other_letters():
    assert mentions("这是李小龙。", "李小龙") and not mentions("这是李小明。", "李小龙")


def test_vowel_signs_tell_names_apart_and_endings_do_not_hide_one():
    assert mentions("यह राम है", "राम") and not mentions("यह रमा है", "राम") and not mentions("यह रामा है", "राम")
    assert mentions("이 사람은 김민수입니다.", "김민수") and not mentions("かれ", "がれ")


def test_an_alias_names_its_class():
    assert mentions("They call her The Raven", "Mara Voss", aliases=["the raven"])


def test_a_longer_name_is_not_also_the_shorter_one_inside_it():
    assert classes_named("A pop art print", STYLES) == ("pop art",)
    assert classes_named("Pop art is art", STYLES) == ("pop art", "art")
    assert classes_named("art, then a neon sign", STYLES) == ("art", "neon")


def test_names_that_look_like_patterns_are_taken_as_they_are():
    assert mentions("C++ code", "c++") and not mentions("cat", "c.t")
    assert classes_named("anything", {"": [""]}) == ()


# ---------------------------------------------------------------- flags and differences


@pytest.mark.parametrize(
    "text, found",
    [
        ("Mara Voss", ("still names it",)),
        ("Ivo Lind", ("names another: Ivo Lind",)),
        ("I'm sorry, I cannot identify people.", ("refuses",)),
        ("I don't know, maybe Ivo", ("names another: Ivo Lind", "refuses")),
        ("", ("empty",)),
        (" ... ", ("empty",)),
        ("the the the the cat", ("repeats itself",)),
        ("a b a b a b a b", ("repeats itself",)),
        ("the the the cat", ()),
        ("a b a b a b c", ()),
        ("A person in a park.", ()),
        ("aaaaaaaaaaaa", ("repeats itself",)),
        ("哈哈哈哈哈哈哈哈", ("repeats itself",)),
        ("我看到我看到我看到我看到", ("repeats itself",)),
        ("1000000000 birds, ahaha", ()),
        ("I do not recognize this person.", ("refuses",)),
        ("Not sure.", ("refuses",)),
        ("No idea", ("refuses",)),
        ("Ich weiß es nicht.", ("refuses",)),
        ("Lo siento, no puedo", ("refuses",)),
        ("Je ne sais pas.", ("refuses",)),
        ("Non lo so", ("refuses",)),
        ("Não sei.", ("refuses",)),
        ("我不知道这是谁。", ("refuses",)),
        ("わかりません。", ("refuses",)),
        ("Я не знаю.", ("refuses",)),
        ("Non, c'est un chien", ()),
    ],
)
def test_what_is_wrong_with_an_answer_is_said(text, found):
    assert flags(text, "Mara Voss", ["Ivo Lind"]) == found


def test_the_right_answer_is_no_fault():
    assert flags("Ivo Lind", "Mara Voss", ["Ivo Lind"], truth="Ivo Lind") == ()
    assert flags("Ivo Lind", "Mara Voss", ["Ivo Lind"], right=["It is Ivo Lind.", "Ivo"]) == ()
    named = flags("Mara Voss", "Mara Voss", ["Ivo Lind"], truth="Mara Voss", right=["Mara Voss"])
    assert named == ("still names it",)


@pytest.mark.parametrize("text", ["Yes.", "Yeah, it is", "Correct", "Ja!", "Sí", "Oui", "Sim", "是的", "はい", "Да."])
def test_a_yes_is_known_in_large_languages(text):
    assert affirms(text) and not denies(text)


@pytest.mark.parametrize("text", ["No, it is Ivo", "It is not her.", "Nein", "Não", "不是", "いいえ", "Нет"])
def test_a_no_is_known_too(text):
    assert denies(text) and not affirms(text)


def test_a_difference_names_every_word_once_on_its_side():
    pieces = compare("This is Mara Voss in red", "This is a person in red")
    assert pieces == [("same", "This is"), ("gone", "Mara Voss"), ("new", "a person"), ("same", "in red")]
    assert compare("same words", "same words") == [("same", "same words")]
    assert compare("", "now") == [("new", "now")] and compare("then", "") == [("gone", "then")]
    assert compare("", "") == []


# ---------------------------------------------------------------- tables


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (16, 16), "red").save(tmp_path / name)
    return tmp_path


def write(folder, name, text):
    (folder / name).write_text(text, "utf-8")
    return folder / name


def test_a_csv_of_pictures_questions_and_answers_is_read(folder):
    table = write(folder, "t.csv", "picture,question,answer\na.png,Who?,Mara Voss\nb.png, Why ? ,\n")
    questions, warnings = read_questions(table)
    assert [(q.source, q.text, q.answers) for q in questions] == [
        ("a.png", "Who?", ("Mara Voss",)),
        ("b.png", "Why ?", ()),
    ]
    assert warnings == () and questions[0].image.size == (16, 16)


def test_a_jsonl_may_hold_several_answers_and_options(folder):
    rows = [
        {"image": "a.png", "question": "What?", "answers": ["cat", "a cat"]},
        {"image": "a.png", "question": "Which?", "answer": "B", "A": "dog", "B": "cat"},
    ]
    questions, _ = read_questions(write(folder, "t.jsonl", "\n".join(map(json.dumps, rows))))
    assert questions[0].answers == ("cat", "a cat") and questions[0].image is questions[1].image
    assert questions[1].asked == "Which?\nA. dog\nB. cat\nAnswer with the letter of one option."


def test_answers_of_a_csv_are_parted_by_bars(folder):
    (question,), _ = read_questions(write(folder, "t.csv", "file,question,answers\na.png,Q?,x| y |x\n"))
    assert question.answers == ("x", "y", "x")


def test_rows_that_cannot_be_used_are_skipped_with_a_reason(folder):
    (folder.parent / "outside.png").write_bytes((folder / "a.png").read_bytes())
    write(folder, "broken.png", "no picture")
    names = ["a.png", "gone.png", "../outside.png", "broken.png", "x\0y"]
    rows = [{"file": n, "question": "Q?"} for n in names] + [
        {"file": "a.png", "question": " "},
        {"file": None, "question": "Q?"},
        {"file": ["a.png", "b.png"], "question": "Q?"},
    ]
    questions, warnings = read_questions(write(folder, "t.jsonl", "\n".join(map(json.dumps, rows))))
    assert len(questions) == 1
    assert list(warnings) == [
        "Row 2: gone.png is named in the table but is not beside it.",
        "Row 3: outside.png is named in the table but is not beside it.",
        "Row 4: broken.png is not a readable picture (UnidentifiedImageError).",
        "Row 5: x\0y is named in the table but is not beside it.",
        "Row 6: the question about a.png is empty.",
        "Row 7: it names no picture.",
        "Row 8: it names 2 pictures in a list; give one picture a question.",
    ]


@pytest.mark.parametrize(
    "name, text, sentence",
    [
        ("t.csv", "picture,caption\na.png,x\n", "t.csv has the columns picture, caption; it needs a picture ("),
        ("t.csv", "question\nQ?\n", "t.csv has the columns question; it needs a picture (file_name, "),
        ("t.csv", "", "t.csv has the columns none; it needs a picture ("),
        ("t.jsonl", "{not json", "t.jsonl is not a valid table: "),
        ("t.jsonl", "[1]\n3\n", "t.jsonl has the columns none; "),
        ("t.csv", "file,question\nno.png,Q?\n", "No row of t.csv can be used. Row 1: no.png is named in the table"),
        ("t.txt", "file,question\n", "t.txt has the columns image; it needs a picture (file_name, "),
        ("t.md", "file,question\n", "No table of questions at "),
        ("t.json", "3", "t.json has the columns none; "),
        ("t.json", "{", "t.json is not a valid table: "),
        ("t.tsv", "index\timage\tquestion\n1\t!\tQ?\n", "No row of t.tsv can be used. Row 1: it names no picture."),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_one_sentence(folder, name, text, sentence):
    with pytest.raises(ExampleError) as caught:
        read_questions(write(folder, name, text))
    assert str(caught.value).startswith(sentence) and "\n" not in str(caught.value)


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(
        ExampleError, match=r"^No table of questions at '.*'; give a \.csv or \.jsonl file, or one as MME "
    ):
        read_questions(tmp_path / "gone.csv")


def read(folder, name, text):
    """(picture, question, right answers, options) of every row."""
    questions, warnings = read_questions(write(folder, name, text))
    assert warnings == ()
    return [(q.source, q.text, q.answers, dict(q.options)) for q in questions]


def test_a_file_of_mme_is_read_with_its_pictures_or_beside_one(folder):
    asked = "Is it red? Please answer yes or no."
    assert read(folder, "count.txt", f"a.png\t{asked}\tYes\nb.png\t{asked}\tNo\n") == [
        ("a.png", asked, ("Yes",), {}),
        ("b.png", asked, ("No",), {}),
    ]
    assert read(folder, "a.txt", f"{asked}\tYes\n{asked}\tNo\n")[1] == ("a", asked, ("No",), {})


def test_a_file_of_gqa_is_read(folder):
    text = json.dumps({"201": {"imageId": "a", "question": "What is it?", "answer": "cat", "fullAnswer": "A cat."}})
    assert read(folder, "testdev.json", text) == [("a", "What is it?", ("cat",), {})]


def test_a_file_of_textvqa_is_read(folder):
    rows = [{"question_id": 1, "image_id": "b", "question": "What does it say?", "answers": ["stop"] * 9 + ["go"]}]
    text = json.dumps({"dataset_type": "val", "data": rows})
    assert read(folder, "val.json", text) == [("b", "What does it say?", ("stop",) * 9 + ("go",), {})]


def test_a_file_of_mmbench_is_read_with_the_pictures_inside(folder):
    picture = base64.b64encode((folder / "a.png").read_bytes()).decode()
    head = "index\tquestion\thint\tA\tB\tC\tanswer\timage\n"
    rows = f"7\tWhich?\tLook.\tcat\tdog\t\tB\t{picture}\n8\tWho?\t\tx\ty\t\tA\t7\n"
    assert read(folder, "dev.tsv", head + rows) == [
        ("dev 7", "Look.\nWhich?", ("B",), {"A": "cat", "B": "dog"}),
        ("dev 8", "Who?", ("A",), {"A": "x", "B": "y"}),
    ]


# ---------------------------------------------------------------- scores


def question(answer, source="a.png", **options):
    right = answer if isinstance(answer, tuple) else (answer,)
    return answers.Question(Image.new("RGB", (8, 8)), "Q?", right, options, source)


def test_mme_counts_questions_and_pictures_with_both_right():
    asked = [question("Yes", "1"), question("No", "1"), question("Yes", "2"), question("No", "2")]
    found = score("mme", asked, ["Yes, it is.", "no", "yes", "Yes"])
    assert found["accuracy"].value == 0.75 and found["accuracy"].n == 4
    assert found["accuracy+"].value == 0.5 and found["accuracy+"].n == 2
    assert score("mme", asked[:1], ["Perhaps yes"])["accuracy"].value == 0


def test_mme_tells_pictures_of_one_name_in_two_folders_apart(folder):
    for part in ("x", "y"):
        (folder / part).mkdir()
        Image.new("RGB", (16, 16)).save(folder / part / "1.png")
    rows = "".join(f"{part}/1.png,{q},{q}\n" for part in ("x", "y") for q in ("yes", "no"))
    questions, _ = read_questions(write(folder, "t.csv", "file,question,answer\n" + rows))
    found = score("mme", questions, ["yes", "no", "yes", "yes"])
    assert found["accuracy+"].value == 0.5 and found["accuracy+"].n == 2


def test_mme_refuses_a_right_answer_that_is_neither_yes_nor_no():
    with pytest.raises(
        InputError, match=r"^The right answer 'cat' to 'Q\?' is neither yes nor no, which MME asks for; "
    ):
        score("mme", [question("cat")], ["yes"])


def test_numbers_apostrophes_and_nothing_are_compared_as_vqa_does():
    right = [
        ("two", "2", 1),
        ("1,000", "1000", 1),
        ("don't", "dont", 1),
        ("the", "", 0),
        ("the", "a", 0),
        ("zero", "0", 1),
    ]
    for rule in ("gqa", "textvqa"):
        asked, said = [question(answer) for answer, _, _ in right], [text for _, text, _ in right]
        assert score(rule, asked, said)["accuracy"].value == pytest.approx(4 / 6)
    assert score("textvqa", [question(("the", "a", "an", "the"))], [""])["accuracy"].value == 0


def test_gqa_wants_the_same_words_articles_apart():
    asked = [question("cat"), question("the blue car"), question("cat")]
    assert score("gqa", asked, ["A cat.", "Blue car", "cats"])["accuracy"].value == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "text, right",
    [
        ("B", True),
        ("(B) cat", True),
        ("B. cat", True),
        ("The answer is B", True),
        ("cat", True),
        ("It is a cat.", True),
        ("A", False),
        ("A cat", True),
        ("Both A and B", False),
        ("dog or cat", False),
        ("", False),
    ],
)
def test_mmbench_reads_a_letter_or_the_text_of_one_option(text, right):
    assert score("mmbench", [question("B", A="dog", B="cat")], [text])["accuracy"].value == right


def test_textvqa_is_the_mean_over_leaving_each_person_out():
    """Three of ten say "stop": leaving out one of the three leaves two (2/3), leaving out another leaves three (1)."""
    people = ("stop",) * 3 + ("go",) * 7
    found = score("textvqa", [question(people)] * 3, ["Stop!", "go", "wait"])
    assert found["accuracy"].value == pytest.approx(((3 * 2 / 3 + 7) / 10 + 1 + 0) / 3)
    assert score("textvqa", [question("one")], ["one"])["accuracy"].value == 1


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(InputError, match=r"^No scoring rule 'vqa'; choose one of mme, gqa, mmbench, textvqa\.$"):
        score("vqa", [question("x")], ["x"])
    with pytest.raises(
        InputError, match=r"^The right answer 'cat' to 'Q\?' is none of the letters of its options \(A\)"
    ):
        score("mmbench", [question("cat", A="cat")], ["A"])
    with pytest.raises(InputError, match=r"^'Q\?' has no right answer in the table; add one to score it\.$"):
        score("gqa", [question(())], ["x"])
