"""Read answers in words: the names in them, what is wrong with them, how two differ, and how benchmarks score them.

A name is found as a reader would find it: whatever its case, accents and punctuation, in whole words, by an alias, and
of a person by the first or the last name alone, unless two people share it.
"""

import base64
import binascii
import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import partial
from itertools import groupby
from pathlib import Path

import torch
from PIL import Image

from razor.errors import ExampleError, InputError
from razor.examples import FILE_COLUMNS, MAX_BYTES, file_inside, open_image
from razor.metrics import Measure, mean, share

PICTURE_COLUMNS = (*FILE_COLUMNS, "picture")
OPTIONS = "ABCDEF"  # columns of the options of a question
TABLES = (".csv", ".jsonl", ".txt", ".json", ".tsv")  # the last three as MME, GQA and TextVQA, and MMBench come
UNNAMED = ("", ".jpg", ".png", ".jpeg", ".webp")  # what the name of a picture may lack
MAX_QUESTIONS = 5000
NAMED = "still names it"  # the flag of an answer that names what was to be forgotten
REPEATS = 4  # times that the same words in a row are no longer a way of speaking

# Scripts written without spaces or, as Hangul, with endings: there a name may stand between other letters. Thai, Lao,
# Burmese, Khmer, kana, Chinese characters, Hangul.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_ACCENTED = ("LATIN", "GREEK", "CYRILLIC", "HEBREW", "ARABIC")  # where marks may be left out; elsewhere they are vowels
_ARTICLES = ("a", "an", "the")
_NOBODY = (*_ARTICLES, "mr", "mrs", "ms", "dr", "sir", "jr", "sr")  # ends of a name that name nobody alone
_NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"zero": "0"} | {word: str(number) for number, word in enumerate(_NUMBERS)}
_REFUSAL = re.compile(
    r"\bi (?:can ?not|can t|could not|couldn t|am unable|m unable|am not able|m not able|do not know|don t know"
    r"|am not sure|m not sure|am sorry|m sorry|won t|will not|have no idea)\b"
    r"|^(?:sorry|unknown)\b|\bas an ai\b|\bunable to (?:identify|recogni[sz]e|name|tell|say|determine)\b"
    r"|\bnot (?:able|possible|allowed) to (?:identify|recogni[sz]e|name|tell|say|determine)\b"
    r"|\bi (?:do not|don t|cannot) recogni[sz]e\b|\bnot (?:sure|certain)\b|\bno idea\b"
    r"|\bich (?:weiss|kann|erkenne) (?:\w+ ){0,3}nicht\b|\b(?:tut mir leid|keine ahnung|nicht sicher)\b"  # German
    r"|\bno (?:puedo|reconozco|lo se|estoy segur[oa])\b|\blo siento\b|^no se(?: quien\b|$)"  # Spanish
    r"|\bje ne (?:le |la )?(?:sais|peux|reconnais|suis) pas\b|^desolee?\b"  # French
    r"|\bnon (?:lo so|so|posso|riconosco|sono sicur[oa])\b|\bmi dispiace\b"  # Italian
    r"|\bnao (?:sei|posso|reconheco|tenho certeza)\b|^desculpe\b|\bsinto muito\b"  # Portuguese
    r"|不知道|无法|無法|抱歉|对不起|對不起|不认识|不認識|不确定|不確定"
    r"|わかりません|分かりません|知りません|できません|申し訳"
    r"|\bне (?:знаю|могу|узнаю|уверена?)\b|^извините\b"
)
_YES = frozenset(("yes", "yeah", "yep", "yup", "correct", "ja", "jawohl", "si", "oui", "sim", "да"))  # normalised
_NO = frozenset(("no", "nope", "not", "nein", "nicht", "non", "nao", "нет", "не"))
_YES_BEGINS, _NO_BEGINS = ("是", "对", "對", "はい"), ("不", "否", "没", "沒", "いいえ")
_PIECES = re.compile(rf"([^\W\d_]{{1,8}}?)\1{{5,}}|([{_UNSPACED}]{{2,12}}?)\2{{3,}}")  # repeated inside a word


@dataclass(frozen=True, eq=False)
class Question:
    """One question about one picture."""

    image: Image.Image
    text: str
    answers: tuple[str, ...] = ()  # right ones, those of several people where several were asked
    options: Mapping[str, str] = field(default_factory=dict)  # letter -> text, to choose from
    source: str = ""  # the picture's file name
    path: str = ""  # the same as the table has it, with its folder

    @property
    def asked(self) -> str:
        """What the model is asked: the question and, a line each, its options."""
        if not self.options:
            return self.text
        lines = [f"{letter}. {text}" for letter, text in self.options.items()]
        return "\n".join([self.text, *lines, "Answer with the letter of one option."])


# ---------------------------------------------------------------- names


def normalised(text: str) -> str:
    """The words of a text alone: "Zoë's pop-art!" -> "zoe s pop art"."""
    kept, letter = [], " "
    for c in unicodedata.normalize("NFKD", text):
        if unicodedata.category(c).startswith("M"):
            if letter.isalnum() and not unicodedata.name(letter, "").startswith(_ACCENTED):
                kept.append(c)
        else:
            letter = c
            kept.append(c if c.isalnum() else " ")
    return " ".join(unicodedata.normalize("NFC", "".join(kept)).casefold().split())


def mentions(text: str, name: str, *, aliases: Sequence[str] = (), others: Sequence[str] = ()) -> bool:
    """Whether the text names this class.

    Args:
        aliases: other phrases that name it.
        others: names of the other classes: a first name it shares with one of them does not name it, and a longer name
            that holds its own is not it.
    """
    known = {other: (other,) for other in others if other != name}
    return name in classes_named(text, known | {name: (name, *aliases)})


def classes_named(text: str, classes: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The classes that a text names, in the order it names them.

    Longer names go first: "a pop art print" names "pop art", not "art" too.

    Args:
        classes: class -> the phrases that name it, its own name among them.
    """
    meant = _phrases(classes)
    if not meant:
        return ()
    longest_first = "|".join(map(re.escape, sorted(meant, key=len, reverse=True)))
    letter = rf"[^ {_UNSPACED}]"
    found = re.finditer(rf"(?<!{letter})({longest_first})(?!{letter})", normalised(text))
    named = (meant[match[1]] for match in found)
    return tuple(dict.fromkeys(name for name in named if name is not None))


def last_names(names: Sequence[str]) -> dict[str, str]:
    """Person -> the last name that tells them from the others by itself; without things, and where several have it."""
    meant = _phrases({name: (name,) for name in names})
    lasts = {name: name.split()[-1] for name in names}
    return {name: last for name, last in lasts.items() if last != name and meant.get(normalised(last)) == name}


def _phrases(classes: Mapping[str, Sequence[str]]) -> dict[str, str | None]:
    """Normalised phrase -> the class it names; None where it is a part of several people's names."""
    whole = {normalised(phrase): name for name, phrases in classes.items() for phrase in phrases}
    parts: dict[str, str | None] = {}
    for name in classes:
        for part in _parts(name):
            parts[part] = None if parts.get(part, name) != name else name
    return {phrase: name for phrase, name in (parts | whole).items() if phrase}


def _parts(name: str) -> set[str]:
    """First and last name of a person, who is known by capitals; initials and the parts of a thing name nobody."""
    words = name.split()
    ends = {words[0], words[-1]} if len(words) > 1 else set()
    if not all(word[0].isupper() for word in ends):
        return set()
    return {part for part in map(normalised, ends) if len(part) > 1 and part not in _NOBODY}


# ---------------------------------------------------------------- flags and differences


def flags(
    text: str,
    name: str,
    others: Sequence[str] = (),
    *,
    aliases: Sequence[str] = (),
    truth: str = "",
    right: Sequence[str] = (),
) -> tuple[str, ...]:
    """What is wrong with an answer of a model that was to forget `name`, in words; () where nothing is.

    Args:
        others, aliases: see mentions.
        truth: the class that the picture shows; to name it is right, unless it is the one to forget.
        right: answers that are right, and may name other classes.
    """
    classes = {other: (other,) for other in others} | {name: (name, *aliases)}
    allowed = {truth, *(found for answer in right for found in classes_named(answer, classes))} - {name}
    named = [found for found in classes_named(text, classes) if found not in allowed]
    words = normalised(text).split()
    wrong = [f"names another: {found}" for found in named if found != name]
    return (
        *((NAMED,) if name in named else ()),
        *wrong,
        *(("refuses",) if _REFUSAL.search(" ".join(words)) else ()),
        *(("empty",) if not words else ()),
        *(("repeats itself",) if _repeats(words) else ()),
    )


def affirms(text: str) -> bool:
    """Whether an answer to a yes-or-no question begins with a yes, in one of the large languages."""
    plain = normalised(text)
    return bool(_YES & {*plain.split()[:1]}) or plain.startswith(_YES_BEGINS)


def denies(text: str) -> bool:
    """Whether it begins with a no, or says not."""
    plain = normalised(text)
    return not affirms(text) and (bool(_NO & {*plain.split()[:1]}) or " not " in plain or plain.startswith(_NO_BEGINS))


def _repeats(words: Sequence[str]) -> bool:
    """Some run of words comes REPEATS times in a row, or some letters far more often inside a word."""
    if _PIECES.search(" ".join(words)):
        return True
    for size in range(1, len(words) // REPEATS + 1):
        same = [a == b for a, b in zip(words, words[size:], strict=False)]
        if any(alike and len(list(run)) >= size * (REPEATS - 1) for alike, run in groupby(same)):
            return True
    return False


def compare(before: str, after: str) -> list[tuple[str, str]]:
    """Two answers word by word: ("same" | "gone" | "new", words), in reading order, what is gone before what is new."""
    first, second = before.split(), after.split()
    pieces = []
    for kind, i, i_end, j, j_end in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        if kind == "equal":
            pieces.append(("same", " ".join(first[i:i_end])))
            continue
        sides = (("gone", first[i:i_end]), ("new", second[j:j_end]))
        pieces += [(side, " ".join(words)) for side, words in sides if words]
    return pieces


# ---------------------------------------------------------------- tables


def read_questions(
    source: str | Path, pictures: Mapping[str, Path] | None = None
) -> tuple[tuple[Question, ...], tuple[str, ...]]:
    """Questions from a table, and one sentence per row or picture that is not as told.

    A row of a csv or jsonl has a picture, a question, and may have an answer, several answers (parted by | in a csv)
    and options A to F. The files of MME (.txt), GQA and TextVQA (.json) and MMBench (.tsv) are read as published.

    Args:
        pictures: file name -> where the picture is; default: in the table's folder or below it.

    Raises:
        ExampleError: no such table, not the format its name says, or no row that can be used.
    """
    path = Path(source)
    if path.suffix.lower() not in TABLES or not path.is_file():
        raise ExampleError(
            f"No table of questions at {str(source)!r}; give a .csv or .jsonl file, or one as MME (.txt), GQA or "
            "TextVQA (.json) or MMBench (.tsv) come."
        )
    rows = _rows(path)
    columns = list(rows[0]) if rows and isinstance(rows[0], dict) else []
    picture = next((column for column in PICTURE_COLUMNS if column in columns), None)
    if picture is None or "question" not in columns:
        raise ExampleError(
            f"{path.name} has the columns {', '.join(map(str, columns)) or 'none'}; it needs a picture "
            f"({', '.join(PICTURE_COLUMNS)}) and a question (question)."
        )
    by_name = lambda name: pictures.get(Path(name).name)  # noqa: E731
    find = partial(file_inside, path.parent) if pictures is None else by_name
    questions, warnings, opened = [], [], {}
    for number, row in enumerate(rows[:MAX_QUESTIONS], start=1):
        try:
            questions.append(_question(row, picture, find, opened))
        except ExampleError as error:
            warnings.append(f"Row {number}: {error}")
    if not questions:
        raise ExampleError(f"No row of {path.name} can be used. {warnings[0]}")
    animated = [Path(name).name for name, image in opened.items() if image.info.get("animated")]
    warnings += [f"{name} is animated; its first frame is used." for name in animated]
    if len(rows) > MAX_QUESTIONS:
        warnings.append(f"Only the first {MAX_QUESTIONS} rows were read.")
    return tuple(questions), tuple(warnings)


def _rows(path: Path) -> list:
    text = path.read_text("utf-8-sig", "replace")
    try:
        return _READERS[path.suffix.lower()](text, path.stem)
    except (json.JSONDecodeError, RecursionError, csv.Error) as error:
        raise ExampleError(f"{path.name} is not a valid table: {error}.") from error


def _mme_rows(text: str, stem: str) -> list[dict]:
    """A line a question: picture, question and answer parted by tabs; no picture in a file named as its picture."""
    lines = [line.split("\t")[:3] for line in text.splitlines() if line.strip()]
    whole = [[stem, *line] if len(line) == 2 else line for line in lines]
    return [dict(zip(("image", "question", "answer"), line, strict=False)) for line in whole]


def _json_rows(text: str, stem: str) -> list:
    """Questions of GQA by number, or those of TextVQA in a list."""
    found = json.loads(text)
    if isinstance(found, dict):
        found = found["data"] if isinstance(found.get("data"), list) else [*found.values()]
    rows = found if isinstance(found, list) else []
    picture = lambda row: next((row[key] for key in ("imageId", "image_id", "image") if key in row), None)  # noqa: E731
    return [{**row, "image": picture(row)} if isinstance(row, dict) else row for row in rows]


def _mmbench_rows(text: str, stem: str) -> list[dict]:
    """Questions with their picture inside, in base64, or the number of the question that has it."""
    before = csv.field_size_limit(2 * MAX_BYTES)
    try:
        rows = {row.get("index"): row for row in csv.DictReader(io.StringIO(text), delimiter="\t")}
    finally:
        csv.field_size_limit(before)
    made = []
    for number, row in rows.items():
        held = row.get("image") or ""
        asked = "\n".join(part for part in (row.get("hint"), row.get("question")) if part and row.get("question"))
        packed = rows[held].get("image") if held in rows else held
        made.append({**row, "question": asked, "image": _unpacked(packed or ""), "named": f"{stem} {number}"})
    return made


def _unpacked(text: str) -> bytes:
    """A picture from base64; nothing where it is none."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


_READERS: dict[str, Callable[[str, str], list]] = {
    ".csv": lambda text, stem: list(csv.DictReader(io.StringIO(text))),
    ".jsonl": lambda text, stem: [json.loads(line) for line in text.splitlines() if line.strip()],
    ".txt": _mme_rows,
    ".json": _json_rows,
    ".tsv": _mmbench_rows,
}


def _question(
    row: object, picture: str, find: Callable[[str], Path | None], opened: dict[str, Image.Image]
) -> Question:
    """The question of one row; pictures are decoded once and kept in `opened`.

    Args:
        find: the file behind the name of a picture.

    Raises:
        ExampleError: no picture, no question, or a picture that cannot be read.
    """
    if not isinstance(row, dict) or not row.get(picture):
        raise ExampleError("it names no picture.")
    if isinstance(row[picture], list):
        raise ExampleError(f"it names {len(row[picture])} pictures in a list; give one picture a question.")
    held = row[picture] if isinstance(row[picture], bytes) else None
    name = str(row["named"] if held else row[picture]).strip()
    short = Path(name).name
    text = str(row.get("question") or "").strip()
    if not text:
        raise ExampleError(f"the question about {short} is empty.")
    if name not in opened:
        file = held or next(filter(None, (find(name + suffix) for suffix in UNNAMED)), None)
        if file is None:
            raise ExampleError(f"{short} is named in the table but is not beside it.")
        opened[name] = open_image(file, short)
    options = {letter: str(row[letter]).strip() for letter in OPTIONS if row.get(letter) not in (None, "")}
    return Question(opened[name], text, _right_answers(row), options, short, name)


def _right_answers(row: Mapping) -> tuple[str, ...]:
    several = row.get("answers") or ()
    if isinstance(several, str):
        several = several.split("|")
    found = [row.get("answer"), *(several if isinstance(several, list | tuple) else [several])]
    return tuple(text for answer in found if answer is not None and (text := str(answer).strip()))


# ---------------------------------------------------------------- scores


def score(benchmark: str, questions: Sequence[Question], said: Sequence[str]) -> dict[str, Measure]:
    """Shares of right answers by the rule of a benchmark: "accuracy", of MME also "accuracy+".

    Args:
        benchmark: one of RULES.
        said: the answer to each question.

    Raises:
        InputError: an unknown benchmark, or a question without a right answer.
    """
    if benchmark not in RULES:
        raise InputError(f"No scoring rule {benchmark!r}; choose one of {', '.join(RULES)}.")
    for question in questions:
        if not question.answers:
            raise InputError(f"{question.text!r} has no right answer in the table; add one to score it.")
    return RULES[benchmark](questions, said)


def _mme(questions: Sequence[Question], said: Sequence[str]) -> dict[str, Measure]:
    """accuracy: of questions. accuracy+: of pictures all of whose questions were answered right (arXiv:2306.13394)."""
    by_picture: dict[str, list[bool]] = {}
    for question, text in zip(questions, said, strict=True):
        if not (right := _yes_or_no(question.answers[0])):
            raise InputError(
                f"The right answer {question.answers[0]!r} to {question.text!r} is neither yes nor no, which MME asks "
                "for; mend the table, or choose another rule."
            )
        by_picture.setdefault(question.path or question.source, []).append(_yes_or_no(text) == right)
    hits = [hit for hits in by_picture.values() for hit in hits]
    return {"accuracy": share(hits), "accuracy+": share([all(hits) for hits in by_picture.values()])}


def _yes_or_no(text: str) -> str:
    """The "yes" or "no" among the first four letters, as the benchmark's own code reads an answer, or ""."""
    start = text.strip().lower()[:4]
    return next((word for word in ("yes", "no") if word in start), "")


def _accuracy(
    rule: Callable[[Question, str], float], questions: Sequence[Question], said: Sequence[str]
) -> dict[str, Measure]:
    values = [rule(question, text) for question, text in zip(questions, said, strict=True)]
    whole = all(value in (0, 1) for value in values)  # then the interval is not empty where all are right
    return {"accuracy": share(values) if whole else mean(torch.tensor(values))}


def _gqa(question: Question, text: str) -> bool:
    """The same words, articles apart (arXiv:1902.09506)."""
    return _same(text, question.answers[0])


def _mmbench(question: Question, text: str) -> bool:
    """The letter of the right option, or its text and that of no other (arXiv:2307.06281, without asking a model)."""
    right = question.answers[0].strip().upper()
    if right not in question.options:
        raise InputError(
            f"The right answer {question.answers[0]!r} to {question.text!r} is none of the letters of its options "
            f"({', '.join(question.options) or 'it has none'}); mend the table."
        )
    return _chosen(text, question.options) == right


def _chosen(text: str, options: Mapping[str, str]) -> str:
    """The letter of the one option that a text chooses, or ""."""
    alone = text.strip(" \n.,:;()[]").upper()
    if alone in options:
        return alone
    # An A before another word is an article, as in "A cat".
    letters = set(re.findall(r"(?<![\w'’])(?!A\s+(?!(?:is|and|or)\b)\w)([A-Z])(?![\w'’])", text)) & options.keys()
    named = letters or set(classes_named(text, {letter: (words,) for letter, words in options.items()}))
    return named.pop() if len(named) == 1 else ""


def _textvqa(question: Question, text: str) -> float:
    """min(1, people who said so / 3), mean over leaving each person out (arXiv:1904.08920, as VQA, arXiv:1505.00468).

    Where fewer than four were asked, all the others must agree.
    """
    agree = [_same(text, answer) for answer in question.answers]
    if len(agree) == 1:
        return float(agree[0])
    needed = min(3, len(agree) - 1)
    return sum(min(1, (sum(agree) - left_out) / needed) for left_out in agree) / len(agree)


def _same(text: str, answer: str) -> bool:
    """Plainly the same words; an empty answer never is."""
    return bool(_plain(text)) and _plain(text) == _plain(answer)


def _plain(text: str) -> str:
    """The words without articles and apostrophes, numbers in digits without commas, as VQA compares them."""
    text = re.sub(r"(?<=\d),(?=\d)|['\u2019]", "", text)
    return " ".join(_DIGITS.get(word, word) for word in normalised(text).split() if word not in _ARTICLES)


RULES: dict[str, Callable[[Sequence[Question], Sequence[str]], dict[str, Measure]]] = {
    "mme": _mme,
    "gqa": partial(_accuracy, _gqa),
    "mmbench": partial(_accuracy, _mmbench),
    "textvqa": partial(_accuracy, _textvqa),
}
