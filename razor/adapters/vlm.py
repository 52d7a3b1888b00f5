"""Vision-language models through transformers: a vision tower, a projector, and a language model that answers.

What is editable is found by structure. A picture is run once: attention that runs on it is the image tower, as far as
what the language model reads depends on it (LLaVA leaves out the last block of its vision tower); linear layers that
run outside those blocks, after the first of them, are the projector; attention beside the word embeddings is the
language model. Pictures reach the language model as tokens among those of the question, and a model that reads them in
another way is refused.
"""

import copy
import inspect
import math
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from razor.adapters.answering import VlmBench
from razor.adapters.interview import WRITTEN
from razor.adapters.questions import PLAIN, Questions
from razor.errors import InputError, ModelError, RazorError
from razor.examples import Task
from razor.memory import enough_memory
from razor.patches import Patch, fingerprint, model_lock
from razor.units import Slice, Unit, find_attention, find_units, parameters_of, tower_of

ADVICE = "Load the model in half precision, or use smaller pictures"
SHOWN = 40  # letters of a question in an error
ACTIVATIONS = 8 * 2**30  # bytes one forward may keep for its backward, unless at_once says otherwise
ACTIVATION = 34  # bytes of them a token, layer and number of width (arXiv:2205.05198, equation 1, in half precision)
FORMS = 512  # texts, each for pictures of one size, whose tokens are remembered
AT_ONCE = 8192  # tokens beyond which a forward gains nothing
UNKEPT = 4  # times as many tokens fit into a forward that keeps nothing for a backward
CACHED = 2048  # tokens of such a forward on a CPU, whose caches hold no more
SMALL = 128  # places of a picture up to which a step takes many pictures


@dataclass(frozen=True)
class Prompt:
    """One question about one picture, as the model reads it; on the CPU."""

    ids: Tensor  # (tokens,), the picture's token repeated once for each of its places
    beside: Mapping[str, Tensor]  # what else the processor says of each token, (tokens,) each
    picture: Mapping[str, Tensor]  # the picture and its sizes, in the form of the processor
    places: int  # tokens that stand for the picture


class VlmAdapter:
    """A vision-language model as the library sees it. Shared by all sessions; only Patch.applied writes to it.

    Args:
        questions: how an axis is asked about and a class named.
        at_once: tokens in one forward with a gradient; default what 8 GB hold.
        batch: retain pictures per inner step unless the settings say otherwise; default 32 where a picture takes few
            tokens, else 8.

    Raises:
        ModelError: a model that cannot be edited, or a processor that does not fit it.
    """

    family = "vlm"
    # The vision tower serves every answer, and in mini-vlm its edits cost the others far more; but the alignment of a
    # picture's tokens is decided there.
    growing = ("language",)
    forget_losses: Mapping[str, Sequence[str]] = {"answer": growing, "alignment": ("image",)}
    embeds = False
    reruns = False

    def __init__(
        self,
        model: nn.Module,
        processor,
        *,
        name: str,
        questions: Questions | None = None,
        at_once: int | None = None,
        batch: int | None = None,
    ):
        self.model, self.processor, self.name = model.eval().requires_grad_(False), processor, name
        self.tokenizer, self.questions = processor.tokenizer, questions or PLAIN
        self._refuse_other_kinds()
        self.image_token, self._image_id = self._picture_token()
        self._refuse_larger_tokenizer()
        text = model.config.get_text_config()
        self._context: int | None = getattr(text, "max_position_embeddings", None)
        fits = ACTIVATIONS // (ACTIVATION * text.hidden_size * text.num_hidden_layers)
        self.at_once = at_once or min(AT_ONCE, fits)
        ends = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
        self._pad = next((number for number in ends if number is not None), 0)
        self._forms: dict[tuple[str, tuple[int, int]], Prompt] = {}  # see _formed; without pixels
        self._alone: bool | None = None  # the processor makes the same of a picture without a text; None: not tried
        ill = f"The processor of {name} does not fit it ({{}}); use the processor the model was saved with."
        with _in_words(f"trying {name} on a picture", ModelError, ill):
            picture = self._formed(Image.new("RGB", (64, 64), "grey"), self._tried("What is this?"))
            self._find_parts(picture)
        if not self.units(towers=("language",)):  # stored as codes of few bits
            self.growing = ("image",)
            self.forget_losses = dict.fromkeys(self.forget_losses, self.growing)
        self.batch = batch or (32 if picture.places <= SMALL else 8)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    # What the method asks for

    def units(self, kinds: Sequence[str] = ("head", "mlp"), towers: Sequence[str] | None = None) -> list[Unit]:
        """Everything that can be edited: of the vision tower only blocks the language model reads.

        Parts whose weights are stored as codes of 8 or 4 bits have no units.
        """
        parameters = dict(self.model.named_parameters())
        rows = find_units(self.model, self._rows, kinds)
        image = [u for u in rows if u.tower == "image" and u.layer in self._read_layers]
        projector = [
            Unit(f"projector.{i}.mlp", "mlp", "projector", i, -1, (Slice(weight),))
            for i, weight in enumerate(self._projector)
            if "mlp" in kinds
        ]
        found = [*image, *projector, *(u for u in rows if u.tower == "language")]
        whole = [u for u in found if all(parameters[s.parameter].is_floating_point() for s in u.slices)]
        return [u for u in whole if towers is None or u.tower in towers]

    def tower_of(self, parameter: str) -> str:
        """Which tower a parameter belongs to."""
        return tower_of(self.towers, parameter)

    def fingerprint(self) -> str:
        """A hash of all weights, taken once: only a patch changes them, and that undoes itself."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self.model)

    def bench(
        self,
        task: Task,
        *,
        batch: int | None = None,
        mismatch_weight: float = 1.0,
        seed: int = 0,
        beneath: Patch = Patch(),
    ) -> VlmBench:
        """The task, made ready to run on this model as it is with `beneath` applied."""
        with beneath.applied(self.model):
            return VlmBench(
                self, task, batch=batch or self.batch, mismatch_weight=mismatch_weight, seed=seed, beneath=beneath
            )

    # Pictures and words

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """Whole pictures as the vision tower reads them, (n, 3, height, width), on the CPU.

        Raises:
            ModelError: the model reads a picture as a list of patches or crops.
        """
        made = [self.processor.image_processor(images=[i], return_tensors="pt")["pixel_values"] for i in images]
        if made[0].ndim < 4 or any(p.ndim == 4 and len(p) > 1 for p in made):
            raise ModelError(f"{self.name} reads a picture in parts, not as one array of pixels.")
        return torch.cat([p if p.ndim == 4 else p[:, 0] for p in made])  # of several crops, the whole comes first

    def as_read(self, picture: Image.Image) -> Image.Image:
        """The whole picture in the shape in which the vision tower reads it; where that is its own, just as it is."""
        reader, picture = self.processor.image_processor, picture.convert("RGB")
        try:
            (pixels,) = self.pixels([picture])
        except ModelError:  # in parts
            return picture
        mean, spread = (
            torch.tensor(getattr(reader, key, None) or (0.5,) * 3)[:, None, None] for key in ("image_mean", "image_std")
        )
        shown = (pixels.float() * spread + mean).clamp(0, 1) * 255
        return Image.fromarray(shown.round().to(torch.uint8).permute(1, 2, 0).numpy())

    def prompts(self, pictures: Sequence[Image.Image], questions: Sequence[str], *, room: int = 0) -> list[Prompt]:
        """One question about each picture, as the model reads it.

        Args:
            room: tokens to leave free for the answer.

        Raises:
            InputError: no picture or several for a question, an empty question, one with the picture's own token in
                it, or one that is too long.
        """
        if len(pictures) != len(questions):
            raise InputError(
                f"{len(questions)} questions came with {len(pictures)} pictures; give one picture for each question."
            )
        return [self._prompt(p, q, room) for p, q in zip(pictures, questions, strict=True)]

    def answer_ids(self, answer: str) -> Tensor:
        """The tokens of an answer as they follow a question, (tokens,); the mark of its end is not among them.

        Raises:
            InputError: there are none, or a special token is in it.
        """
        self._refuse_special(answer, f"The name {answer!r}")
        opening = self._text("?")
        said = answer.strip() if opening[-1:].isspace() else f" {answer.strip()}"
        before, whole, alone = (
            self.tokenizer(text, add_special_tokens=False).input_ids for text in (opening, opening + said, said)
        )
        # Some tokenizers write a text otherwise where it begins than where it goes on.
        ids = whole[len(before) :] if whole[: len(before)] == before else alone
        if not answer.strip() or not ids:
            raise InputError(
                f"The tokenizer of {self.name} makes nothing of the answer {answer!r}; give one with letters in it."
            )
        return torch.tensor(ids)

    def features(self, prompts: Sequence[Prompt]) -> list[Tensor]:
        """What the language model reads of each picture, (places, width) each, with a graph where gradients are on."""
        found: dict[int, Tensor] = {}
        for rows in self.picture_batches(prompts):
            given = self._pictures([prompts[i] for i in rows])
            made = self._encode(given)
            found |= dict(zip(rows, made.split([prompts[i].places for i in rows]), strict=True))
        return [found[i] for i in range(len(prompts))]

    def picture_batches(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Numbers of prompts whose pictures run through the vision tower together."""
        return self._together(prompts, _picture_shape, lambda p: p.places)

    def logits(self, prompts: Sequence[Prompt], features: Sequence[Tensor], answers: Sequence[Tensor]) -> Tensor:
        """Scores of the next token after each question and after every token of its answer, all in one forward.

        Args:
            features: (places, width) of each prompt's picture.
            answers: (tokens,) each, may be empty.

        Returns:
            (n, longest answer + 1, vocabulary) float32, with a graph where gradients are on; what stands beyond the
            end of a shorter answer is of no meaning.
        """
        # Padded at the end, where causal attention does not look.
        rows = [torch.cat([p.ids, answer]) for p, answer in zip(prompts, answers, strict=True)]
        ids = pad_sequence(rows, batch_first=True, padding_value=self._pad)
        starts = torch.tensor([len(p.ids) - 1 for p in prompts])
        kept = ids.shape[1] - int(starts.min())
        found = self._read(prompts, features, ids, kept, use_cache=False).logits[:, -kept:]
        places = starts[:, None] + torch.arange(1 + max(map(len, answers)))
        places = places.clamp(max=ids.shape[1] - 1) - (ids.shape[1] - kept)
        return found[torch.arange(len(rows))[:, None], places].float()

    def token_logprobs(
        self, prompts: Sequence[Prompt], features: Sequence[Tensor], answers: Sequence[Tensor]
    ) -> list[Tensor]:
        """Log-probability of every token of each answer, (tokens,) each; arguments and graph as in `logits`."""
        scores = self.logits(prompts, features, answers).log_softmax(-1)
        return [
            row[: len(answer)].gather(1, answer[:, None].to(row.device))[:, 0]
            for row, answer in zip(scores, answers, strict=True)
        ]

    @torch.no_grad()
    def choice_scores(
        self,
        prompts: Sequence[Prompt],
        features: Sequence[Tensor],
        answers: Sequence[Tensor],
        right: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Log-probability of each of several answers to each prompt, (n, answers), on the CPU.

        A question is run once; each beginning that answers share goes on from there.

        Args:
            right: an answer to each prompt, for two more columns: its log-probability, and that of what is likeliest to
                be said instead, its tokens up to any place and another one there.
        """
        scores = torch.empty(len(prompts), len(answers) + 2 * (right is not None))
        beginnings: dict[tuple[int, ...], list[int]] = {}
        for number, answer in enumerate(answers):
            beginnings.setdefault(tuple(answer[:-1].tolist()), []).append(number)
        for rows in self.batches(prompts):
            part = [prompts[i] for i in rows]
            ids = torch.stack([p.ids for p in part])
            asked = self._read(part, [features[i] for i in rows], ids, 1, use_cache=True)
            first = asked.logits[:, -1:].float().log_softmax(-1)
            for beginning, numbers in beginnings.items():
                found = self._go_on(asked, first, torch.tensor([beginning] * len(rows), dtype=torch.long))
                for number in numbers:
                    told = answers[number].to(found.device).expand(len(rows), -1)[..., None]
                    scores[rows, number] = found.gather(2, told)[..., 0].sum(1).cpu()
            if right is not None:
                told = [right[i] for i in rows]
                found = self._go_on(asked, first, pad_sequence([t[:-1] for t in told], batch_first=True))
                scores[rows, -2:] = torch.stack(_said_and_instead(found, told), 1).cpu()
        return scores

    def batches(self, prompts: Sequence[Prompt], more: int = 0) -> list[list[int]]:
        """Numbers of prompts of one length, to run together without a gradient and without padding.

        Args:
            more: tokens that each will grow by.
        """
        return self._together(prompts, lambda p: len(p.ids), lambda p: len(p.ids) + more)

    @torch.no_grad()
    def name_logprobs(
        self, pictures: Sequence[Image.Image], questions: Sequence[str], name: str
    ) -> list[list[tuple[str, float]]]:
        """Each token of a name and its log-probability as the answer to each question."""
        ids = self.answer_ids(name)
        prompts = self.prompts(pictures, questions, room=len(ids))
        tokens = self._pieces(ids.tolist())
        found: dict[int, list[float]] = {}
        with model_lock(self.model), enough_memory(f"scoring a name in {len(prompts)} answers", ADVICE):
            for rows in self.batches(prompts, len(ids)):
                part = [prompts[i] for i in rows]
                values = self.token_logprobs(part, self.features(part), [ids] * len(rows))
                found |= dict(zip(rows, torch.stack(values).tolist(), strict=True))
        return [list(zip(tokens, found[i], strict=True)) for i in range(len(prompts))]

    @torch.no_grad()
    def answer(
        self,
        pictures: Sequence[Image.Image],
        questions: Sequence[str],
        *,
        max_new_tokens: int = WRITTEN,
        stop: Callable[[], bool] = lambda: False,
    ) -> list[str]:
        """What the model writes about each picture; see `write`.

        Raises:
            InputError: see `prompts`.
            ModelError: memory ran out.
        """
        prompts = self.prompts(pictures, questions, room=max_new_tokens)
        return self.write(prompts, max_new_tokens=max_new_tokens, stop=stop)

    @torch.no_grad()
    def write(
        self,
        prompts: Sequence[Prompt],
        features: Sequence[Tensor] | None = None,
        *,
        max_new_tokens: int = WRITTEN,
        stop: Callable[[], bool] = lambda: False,
    ) -> list[str]:
        """What the model writes after each prompt, the likeliest token at every place, so the same every time.

        Args:
            features: (places, width) of each prompt's picture, where known; the pictures are not run again then.
            stop: asked before every token; True ends it all.

        Returns:
            One answer a question, without spaces around it; none at all when stopped.

        Raises:
            ModelError: memory ran out.
        """
        said, ended = {}, False

        def end(ids: Tensor, *_, **__) -> Tensor:
            nonlocal ended
            ended = ended or stop()
            return torch.full((len(ids),), ended, device=ids.device)

        count = f"{len(prompts)} question{'s' if len(prompts) != 1 else ''}"
        with model_lock(self.model), enough_memory(f"answering {count}", ADVICE):
            for rows in self._together(
                prompts, lambda p: (len(p.ids), _picture_shape(p)), lambda p: len(p.ids) + max_new_tokens
            ):
                if ended or stop():
                    return []
                part = [prompts[i] for i in rows]
                ids = torch.stack([p.ids for p in part]).to(self.device)
                seen = (
                    self._pictures(part) if features is None else self._read_already(part, [features[i] for i in rows])
                )
                written = self.model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    **self._beside(part, ids.shape[1]),
                    **seen,
                    max_new_tokens=max_new_tokens,
                    pad_token_id=self._pad,
                    do_sample=False,
                    num_beams=1,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    stopping_criteria=[end],
                )
                texts = self.tokenizer.batch_decode(written[:, ids.shape[1] :], skip_special_tokens=True)
                said |= dict(zip(rows, (text.strip() for text in texts), strict=True))
        return [] if ended else [said[i] for i in range(len(prompts))]

    # One forward

    def _encode(self, picture: Mapping[str, Tensor]) -> Tensor:
        """Tokens of pictures, those of one after those of another, (places, width), with a graph."""
        given = {name: tensor for name, tensor in picture.items() if name in self._encoder_takes}
        made = self.model.get_image_features(**given, return_dict=True).pooler_output
        self._as_list = not isinstance(made, Tensor)  # the form in which the language model wants them back
        return torch.cat([tokens.reshape(-1, tokens.shape[-1]) for tokens in made])

    def _read(self, prompts: Sequence[Prompt], features: Sequence[Tensor], ids: Tensor, kept: int, **more):
        """The language model's output on rows of tokens that begin with the prompts; scores of the last `kept`."""
        given = {**self._read_already(prompts, features), "logits_to_keep": kept}
        return self.model(
            input_ids=ids.to(self.device),
            **{name: value for name, value in given.items() if name in self._model_takes},
            **self._beside(prompts, ids.shape[1]),
            **more,
        )

    def _read_already(self, prompts: Sequence[Prompt], features: Sequence[Tensor]) -> dict:
        """The pictures of prompts as the model takes them when they were run through the vision tower before."""
        made = torch.cat([tokens.to(self.device) for tokens in features])
        image = BaseModelOutputWithPooling(pooler_output=[made] if self._as_list else made)
        sizes = {name: t for name, t in self._pictures(prompts).items() if not t.is_floating_point()}
        return {"mm_encoder_outputs": {"image": image}, **sizes}

    def _go_on(self, asked, first: Tensor, ids: Tensor) -> Tensor:
        """Log-probabilities at every place of answers that begin with these tokens, (n, tokens + 1, vocabulary).

        Args:
            asked: the model's output on the questions, with its cache.
            first: log-probabilities after the questions, (n, 1, vocabulary).
            ids: (n, tokens), may be of no tokens.
        """
        if not ids.shape[1]:
            return first
        cache = {self._cache: _branched(getattr(asked, self._cache))}
        found = self.model(input_ids=ids.to(self.device), use_cache=True, **cache)
        return torch.cat([first, found.logits.float().log_softmax(-1)], 1)

    def _pictures(self, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        """The pictures of prompts as the model takes them; those that hold pixels must be of one shape."""
        found = {}
        for name in prompts[0].picture:
            made = torch.cat([p.picture[name] for p in prompts]).to(self.device)
            found[name] = made.to(self.dtype) if made.is_floating_point() else made
        return found

    def _beside(self, prompts: Sequence[Prompt], length: int) -> dict[str, Tensor]:
        """What is said of each token of rows of this length; 0, plain text, of what follows the prompts."""
        found = {}
        for name in prompts[0].beside:
            found[name] = torch.zeros(len(prompts), length, dtype=prompts[0].beside[name].dtype)
            for row, p in zip(found[name], prompts, strict=True):
                row[: len(p.ids)] = p.beside[name]
        return {name: rows.to(self.device) for name, rows in found.items()}

    def _together(
        self, prompts: Sequence[Prompt], alike: Callable[[Prompt], Hashable], size: Callable[[Prompt], int]
    ) -> list[list[int]]:
        """Numbers of prompts that are alike, as many at a time as fit into a forward that keeps nothing."""
        groups: dict[Hashable, list[int]] = {}
        for number, prompt in enumerate(prompts):
            groups.setdefault(alike(prompt), []).append(number)
        found = []
        for rows in groups.values():
            most = UNKEPT * self.at_once if self.device.type != "cpu" else min(CACHED, UNKEPT * self.at_once)
            count = max(1, most // size(prompts[rows[0]]))
            found += [rows[start : start + count] for start in range(0, len(rows), count)]
        return found

    # Questions

    def _text(self, question: str) -> str:
        """A question about a picture in the form the model was taught, before the picture's token is repeated."""
        if not getattr(self.processor, "chat_template", None):
            return f"USER: {self.image_token}\n{question}\nASSISTANT:"
        said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
        return self.processor.apply_chat_template(said, add_generation_prompt=True, tokenize=False)

    def _prompt(self, picture: Image.Image, question: str, room: int) -> Prompt:
        if not isinstance(picture, Image.Image):
            came = f"{len(picture)} pictures" if picture else "no picture"
            raise InputError(f"The question {question!r} came with {came}; a question is about one picture.")
        if not question.strip():
            raise InputError("A question is empty; ask something about the picture, such as 'Who is this?'.")
        self._refuse_special(question, "A question")
        size = f"{picture.width} x {picture.height} pixels"
        ill = f"{self.name} cannot take a picture of {size} ({{}}); give one of another size or shape."
        with _in_words("reading a picture", InputError, ill):
            prompt = self._formed(picture.convert("RGB"), self._text(question.strip()))
        length = len(prompt.ids)
        over = length + room - (self._context or length + room)
        if over > 0:
            raise InputError(
                f"The question {question.strip()[:SHOWN]!r} takes {length} tokens with its picture, and {self.name} "
                f"reads {self._context}, {room} of them kept for the answer; shorten it by {over} "
                f"token{'s' if over != 1 else ''} (a token is part of a word)."
            )
        return prompt

    def _refuse_special(self, text: str, what: str) -> None:
        if self.image_token in text:
            raise InputError(f"{what} holds {self.image_token!r}, which stands for the picture itself; leave it out.")
        for mark in self._special:
            if mark in text:
                raise InputError(
                    f"{what} holds {mark!r}, which the tokenizer of {self.name} reads as a mark of its own; leave it "
                    "out."
                )

    @cached_property
    def _special(self) -> tuple[str, ...]:
        """The special tokens of the tokenizer."""
        added = [str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        return tuple(filter(None, dict.fromkeys([*self.tokenizer.all_special_tokens, *added])))

    def _pieces(self, ids: Sequence[int]) -> list[str]:
        """What each token of an answer writes; of a letter in several the last has it, and those before an ellipsis."""
        pieces, shown = [], ""
        for end in range(1, len(ids) + 1):
            text = self.tokenizer.decode(ids[:end])
            whole = end == len(ids) or not text.endswith("\ufffd")
            pieces.append(text[len(shown) :] if whole else "\u2026")
            shown = text if whole else shown
        return pieces

    def _formed(self, picture: Image.Image, text: str) -> Prompt:
        """What the processor makes of a picture and a text.

        The tokens are the same for every picture of one size, so a text is run once for a size and then only the
        picture, where the first one gave the same pixels that way.
        """
        place = text, picture.size
        if form := self._forms.get(place):
            return replace(form, picture=form.picture | self._pixels(picture))
        start = self.tokenizer.bos_token
        begun = {"add_special_tokens": False} if start and text.startswith(start) else {}
        given = dict(self.processor(images=[picture], text=[text], return_tensors="pt", **begun))
        ids = given.pop("input_ids")[0]
        taken = {name: t for name, t in given.items() if name in (*self._model_takes, *self._encoder_takes)}
        for name in ("attention_mask", "labels"):  # all ones; of no use
            taken.pop(name, None)
        beside = {name: t[0] for name, t in taken.items() if t.shape == (1, len(ids))}
        inputs = {name: t for name, t in taken.items() if name not in beside}
        made = Prompt(ids, beside, inputs, int((ids == self._image_id).sum()))
        pixels = {name: t for name, t in inputs.items() if t.is_floating_point()}
        if self._alone is None:
            alone = self._pixels(picture)
            self._alone = alone.keys() == pixels.keys() and all(torch.equal(alone[n], t) for n, t in pixels.items())
        if self._alone:
            if len(self._forms) >= FORMS:
                self._forms.clear()
            self._forms[place] = replace(made, picture={n: t for n, t in inputs.items() if n not in pixels})
        return made

    def _pixels(self, picture: Image.Image) -> dict[str, Tensor]:
        """A picture as the vision tower takes it, without a text; {} where the processor has no part for that."""
        reader = getattr(self.processor, "image_processor", None)
        given = reader(images=[picture], return_tensors="pt") if reader else {}
        return {name: t for name, t in given.items() if isinstance(t, Tensor) and t.is_floating_point()}

    # Parts of the model

    def _refuse_other_kinds(self) -> None:
        takes = lambda name: tuple(inspect.signature(getattr(type(self.model), name)).parameters)  # noqa: E731
        self._encoder_takes = takes("get_image_features") if hasattr(self.model, "get_image_features") else ()
        self._model_takes = takes("forward")
        self._cache = next((name for name in ("cache", "past_key_values") if name in self._model_takes), "")
        if any(p.is_meta for p in self.model.parameters()):
            raise ModelError(
                f"Some weights of {self.name} are not in the memory of a device, so that no gradient reaches them; "
                "load it whole, over several cards, or in 8 or 4 bits."
            )
        if not self._encoder_takes or not self._cache or "mm_encoder_outputs" not in self._model_takes:
            raise self._unlike("its pictures do not reach the language model as tokens made beforehand")

    def _picture_token(self) -> tuple[str, int]:
        """The token that stands for a picture, and its number."""
        token = getattr(self.processor, "image_token", None) or "<image>"
        number = self.tokenizer.get_vocab().get(token)
        expected = getattr(self.model.config, "image_token_id", number)
        use = "use the processor the model was saved with."
        if number is None:
            raise ModelError(f"The tokenizer of {self.name} has no token {token!r} to stand for a picture; {use}")
        if number != expected:
            raise ModelError(
                f"The tokenizer of {self.name} numbers {token!r} {number} and the model expects {expected}; {use}"
            )
        return token, number

    def _refuse_larger_tokenizer(self) -> None:
        rows = self.model.get_input_embeddings().weight.shape[0]
        highest = max(n for n in self.tokenizer.get_vocab().values() if n != self._image_id)
        if highest >= rows:
            raise ModelError(
                f"The tokenizer of {self.name} has {highest + 1} tokens and the model knows {rows}; use the processor "
                "the model was saved with."
            )

    def _tried(self, question: str) -> str:
        """`_text`, where the chat template does not leave out the question."""
        text = self._text(question)
        if question not in text:
            raise ModelError(
                f"The chat template of {self.name} leaves out the question; use the processor the model was saved with."
            )
        return text

    def _find_parts(self, picture: Prompt) -> None:
        """Towers, rows and projector, from one picture run through the vision tower; see the head of this file."""
        words = self.model.get_input_embeddings()
        language = next(path for path, m in self.model.named_modules() if m is words).rpartition(".")[0]
        attention = {a.path for a in find_attention(self.model)}
        linear = {path for path, m in self.model.named_modules() if isinstance(m, nn.Linear)}
        ran, made = self._ran(attention | linear, picture)
        if made != picture.places:
            raise ModelError(
                f"The processor of {self.name} does not fit it: it leaves {picture.places} places for a picture of "
                f"which the model makes {made} tokens; use the processor the model was saved with."
            )
        seeing = [path for path in ran if path in attention]
        image = [_apart(path, language) for path in seeing]
        self._rows = {"image": _under(image), "language": _under([language]), "": ""}  # what else there is has no units
        self._read_layers = {
            u.layer
            for u in find_units(self.model, self._rows, ("head",))
            if any(ran[path] and u.slices[0].parameter.startswith(f"{path}.") for path in seeing)
        }
        if not self._read_layers:
            raise self._unlike("its vision tower has no attention heads that can be edited one by one")
        blocks = parameters_of(find_units(self.model, self._rows, ("layer",)))
        order = list(ran)
        behind = [path for path in order[order.index(seeing[0]) :] if path in linear and ran[path]]
        between = [path for path in behind if f"{path}.weight" not in blocks]
        self._projector = [f"{path}.weight" for path in between]
        self.towers: Mapping[str, str] = {
            "image": rf"(?!{_under(between)}){self._rows['image']}",
            "projector": _under(between),
            "language": "",
        }
        if not self._reads_tokens_alone(picture, language):
            raise self._unlike("it reads more of a picture than its tokens")
        if not self._reads_in_order(picture):
            raise self._unlike("it reads an answer that is given whole otherwise than one it writes token by token")

    def _ran(self, paths: set[str], picture: Prompt) -> tuple[dict[str, bool], int]:
        """Which of these modules a picture runs through, in order, and whether its tokens depend on what each gave.

        Returns:
            path -> whether they do, and how many tokens there are.
        """
        calls: list[tuple[str, Tensor]] = []

        def note(module: nn.Module, _args: tuple, output: object) -> None:
            calls.append((names[module], output[0] if isinstance(output, tuple) else output))

        names = {module: path for path, module in self.model.named_modules() if path in paths}
        handles = [module.register_forward_hook(note) for module in names]
        try:
            with model_lock(self.model), torch.enable_grad():
                given = self._pictures([picture])
                for tensor in given.values():
                    tensor.requires_grad_(tensor.is_floating_point())
                tokens = self._encode(given)
        finally:
            for handle in handles:
                handle.remove()
        found = dict.fromkeys((path for path, _ in calls), False)
        grads = torch.autograd.grad(tokens.sum(), [out for _, out in calls], allow_unused=True)
        for (path, _), grad in zip(calls, grads, strict=True):
            found[path] |= grad is not None
        return found, len(tokens)

    def _reads_tokens_alone(self, picture: Prompt, language: str) -> bool:
        """Tokens made beforehand enter the language model as those of the picture itself do."""
        whole = {**self._pictures([picture]), **self._beside([picture], len(picture.ids))}
        ids = picture.ids[None].to(self.device)
        with torch.no_grad(), model_lock(self.model):
            features = self.features([picture])
            itself = self._entered(language, lambda: self.model(input_ids=ids, **whole))
            try:
                beforehand = self._entered(language, lambda: self._read([picture], features, ids, 1))
            except (AttributeError, TypeError, ValueError, KeyError):  # it looks for more than the tokens
                return False
        return len(itself) == len(beforehand) and all(map(_alike, itself, beforehand))

    @torch.no_grad()
    def _reads_in_order(self, picture: Prompt) -> bool:
        """No token is read with an eye on those after it, and a cache goes on as the whole would."""
        told = self.answer_ids("What is this?")
        ids = told[:2]
        with model_lock(self.model):
            features = self.features([picture])
            scores = self.logits([picture] * 2, features * 2, [ids, told[-2:]])
            likely = scores[0, : len(ids)].log_softmax(-1).gather(1, ids[:, None].to(scores.device)).sum().cpu()
            goes_on = self.choice_scores([picture], features, [ids])[0, 0]
        return _alike(*scores[:, 0], 1e-3) and _alike(goes_on, likely, 5e-2)

    def _entered(self, language: str, run: Callable[[], object]) -> list[Tensor]:
        """What the first part of the language model beyond the word embeddings is called with; it is not run."""
        words, seen = self.model.get_input_embeddings(), []

        def enter(_module, args: tuple, kwargs: dict) -> None:
            seen.extend(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
            raise _Entered

        inside = self.model.get_submodule(language).named_modules(prefix=language)
        leaves = [m for path, m in inside if m is not words and not any(m.children()) and self._speaks(path)]
        handles = [m.register_forward_pre_hook(enter, with_kwargs=True) for m in leaves]
        try:
            run()
        except _Entered:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return seen

    def _speaks(self, path: str) -> bool:
        """A module of the language model, also where it is not a part of its own."""
        return tower_of(self.towers, f"{path}.") == "language"

    def _unlike(self, why: str) -> ModelError:
        return ModelError(
            f"{self.name} ({type(self.model).__name__}) cannot be edited here: {why}; choose a model built like "
            "LLaVA-1.5, LLaVA-NeXT, Qwen2-VL or Qwen2.5-VL."
        )


class _Entered(Exception):
    """Raised where a forward has gone far enough."""


def _picture_shape(prompt: Prompt) -> Hashable:
    return tuple(sorted((name, tuple(tensor.shape)) for name, tensor in prompt.picture.items()))


def _apart(path: str, language: str) -> str:
    """The largest part of the model that holds the module and not the language model."""
    parts, others = path.split("."), language.split(".")
    shared = next(i for i, part in enumerate(parts) if part not in others[i : i + 1])
    return ".".join(parts[: shared + 1])


def _under(paths: Sequence[str]) -> str:
    """A pattern of the parameters of these parts of a model; of none where there are no paths, of all for [""]."""
    if not any(paths):
        return "" if paths else "(?!)"
    return rf"(?:{'|'.join(map(re.escape, dict.fromkeys(paths)))})\."


def _said_and_instead(found: Tensor, told: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """See `choice_scores`, (n,) each.

    Args:
        found: log-probabilities at every place of the answers, (n, longest answer, vocabulary).
        told: (tokens,) each.
    """
    ids = pad_sequence(list(told), batch_first=True).to(found.device)[..., None]
    lengths = torch.tensor([len(answer) for answer in told], device=found.device)
    beyond = torch.arange(ids.shape[1], device=found.device) >= lengths[:, None]
    each = found.gather(2, ids)[..., 0].masked_fill(beyond, 0)
    other = found.scatter(2, ids, -math.inf).amax(2).masked_fill(beyond, -math.inf)
    return each.sum(1), (each.cumsum(1) - each + other).amax(1)


def _branched(cache: Cache) -> Cache:
    """The same states of the tokens so far, to go on from without changing them."""
    branch = copy.copy(cache)
    # These replace their tensors when they grow; others write into them.
    plain = (DynamicLayer, DynamicSlidingWindowLayer)
    branch.layers = [copy.copy(s) if type(s) in plain else copy.deepcopy(s) for s in cache.layers]
    return branch


@contextmanager
def _in_words(doing: str, kind: type[RazorError], said: str) -> Iterator[None]:
    """Whatever a processor or a first forward raises becomes one sentence; it is of many kinds, by what is wrong.

    Args:
        doing: see enough_memory.
        said: the sentence, with {} where the first line of the error goes.
    """
    try:
        with enough_memory(doing, ADVICE):
            yield
    except RazorError:
        raise
    except Exception as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:240]
        raise kind(said.replace("{}", line)) from error


def _alike(a: Tensor, b: Tensor, share: float = 1e-2) -> bool:
    """Equal but for the rounding of a device that is not the same every time, up to this share of the largest."""
    if a.shape != b.shape or not a.is_floating_point():
        return torch.equal(a, b)
    return bool((a - b).abs().max() <= share * a.abs().max())
