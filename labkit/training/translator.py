"""The translator: a shared BPE tokenizer and a small encoder-decoder, trained from pairs.

``python -m labkit.training.translator RECIPE --pairs FILE --out FOLDER`` trains it in about an hour
on two cores. ``FILE`` has a source, a tab and its translation on each line, and may be compressed
(``.xz``, ``.gz``). One source in a hundred, with all its translations, is kept out of training and
written to ``FOLDER/held-out.tsv``.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated

import torch
from pydantic import Field, model_validator
from tokenizers import decoders, processors
from torch import Tensor
from transformers import GenerationConfig, MarianConfig, MarianMTModel, PreTrainedTokenizerFast

from labkit.errors import LabkitError
from labkit.models.store import locked
from labkit.records.base import write_whole
from labkit.training.pretrain import Job, byte_pairs, command_parser, print_result, train_model
from labkit.training.recipe import Course, Frozen, Positive

PAD, END = "<pad>", "</s>"
PAD_ID, END_ID = 0, 1
HELD_OUT_SHARE = 100
"""One source in this many is held out, chosen by its hash."""
IGNORED = -100
"""The label of a position without a loss."""

Pair = tuple[str, str]


class TranslatorShape(Frozen):
    """The shape of the encoder-decoder."""

    vocabulary: Annotated[int, Field(ge=300)]
    width: Positive
    encoder_layers: Positive
    decoder_layers: Positive
    heads: Positive
    inner: Positive
    context: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _check(self) -> TranslatorShape:
        if self.width % self.heads:
            raise ValueError("width must divide by heads")
        return self


class Training(Course):
    """The settings of the training; ``batch_tokens`` counts padding and both sides."""

    batch_tokens: Positive


class TranslatorRecipe(Frozen):
    """Every setting but the pairs that decides the translator's weights."""

    seed: int
    longest: Positive
    """Pairs with a side of more tokens than this are left out."""
    model: TranslatorShape
    training: Training


def read_corpus(path: Path) -> list[Pair]:
    """Read every distinct pair of a file, in order; raises `LabkitError` that names the line.

    Columns after the second are ignored; Tatoeba's exports have such columns.
    """
    pairs: dict[Pair, None] = {}
    try:
        with _open(path) as lines:
            for number, line in enumerate(lines, start=1):
                columns = line.rstrip("\r\n").split("\t")
                if len(columns) < 2 or not columns[0].strip() or not columns[1].strip():
                    raise LabkitError(
                        f"Line {number} of {path} is not a pair: it needs a source, a tab and a"
                        " translation."
                    )
                pairs[columns[0].strip(), columns[1].strip()] = None
    except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError) as error:
        raise LabkitError(f"The pairs in {path} cannot be read: {error}.") from None
    if not pairs:
        raise LabkitError(f"The file {path} has no pairs.")
    return list(pairs)


def _open(path: Path) -> IO[str]:
    """Open a text file, decompressing it if its name says that it is compressed."""
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8")
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def split(pairs: Iterable[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Split pairs into those to train on and those held out.

    A source is held out by the hash of its letters. A pair that shares a text with a held-out pair
    is not trained on, so no text is in both parts.

    >>> training, held_out = split([(f"Satz {n}.", f"Sentence {n}.") for n in range(1000)])
    >>> len(training), len(held_out)
    (1000, 0)
    """
    held_out: list[Pair] = []
    rest: list[Pair] = []
    for pair in pairs:
        digest = hashlib.sha256(_letters(pair[0]).encode()).digest()
        chosen = int.from_bytes(digest[:8], "big") % HELD_OUT_SHARE == 0
        (held_out if chosen else rest).append(pair)
    seen = {_letters(text) for pair in held_out for text in pair}
    return [pair for pair in rest if not any(_letters(text) in seen for text in pair)], held_out


def _letters(text: str) -> str:
    """Return the letters of a text in lower case, so that punctuation makes no difference."""
    return re.sub(r"[\W\d_]+", " ", text.lower()).strip()


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Learn a byte-level BPE tokenizer for both languages; every encoded text ends in `END`."""
    tokenizer = byte_pairs(texts, vocabulary, [PAD, END], leading_space=True)
    # Decoding removes the leading space again.
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, END_ID)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )


def build_model(shape: TranslatorShape, seed: int) -> MarianMTModel:
    """Return the untrained model, float32, all embeddings one table; the same for the same seed."""
    config = MarianConfig(
        vocab_size=shape.vocabulary,
        d_model=shape.width,
        encoder_layers=shape.encoder_layers,
        decoder_layers=shape.decoder_layers,
        encoder_attention_heads=shape.heads,
        decoder_attention_heads=shape.heads,
        encoder_ffn_dim=shape.inner,
        decoder_ffn_dim=shape.inner,
        activation_function="swish",
        dropout=shape.dropout,
        max_position_embeddings=shape.context,
        scale_embedding=True,
        share_encoder_decoder_embeddings=True,
        tie_word_embeddings=True,
        pad_token_id=PAD_ID,
        eos_token_id=END_ID,
        bos_token_id=END_ID,
        decoder_start_token_id=PAD_ID,
        forced_eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MarianMTModel(config)
    model.generation_config = GenerationConfig(
        pad_token_id=PAD_ID, eos_token_id=END_ID, decoder_start_token_id=PAD_ID
    )
    return model


@dataclass(frozen=True)
class Encoded:
    """Pairs as token ids: two lists of int64 tensors, each ending in `END_ID`."""

    sources: list[Tensor]
    targets: list[Tensor]

    @classmethod
    def of(cls, pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerFast, longest: int) -> Encoded:
        """Encode ``pairs``, without those with a side of more than ``longest`` tokens."""
        sides = [
            tokenizer([pair[side] for pair in pairs], return_attention_mask=False)["input_ids"]
            for side in (0, 1)
        ]
        kept = [
            (torch.tensor(source), torch.tensor(target))
            for source, target in zip(*sides, strict=True)
            if max(len(source), len(target)) <= longest
        ]
        return cls([source for source, _ in kept], [target for _, target in kept])

    def batches(self, tokens: int, order: Tensor) -> list[list[int]]:
        """Group pair numbers in batches of at most ``tokens`` padded tokens, both sides counted.

        Pairs of equal lengths share a batch, so there is hardly any padding; ``order``, a
        permutation, decides which pairs of the same lengths.
        """

        def lengths(number: int) -> tuple[int, int]:
            return len(self.targets[number]), len(self.sources[number])

        batches: list[list[int]] = []
        batch: list[int] = []
        widest = (0, 0)
        for number in sorted(order.tolist(), key=lengths):
            target, source = lengths(number)
            grown = max(widest[0], target), max(widest[1], source)
            if batch and sum(grown) * (len(batch) + 1) > tokens:
                batches.append(batch)
                batch, grown = [], (target, source)
            batch.append(number)
            widest = grown
        return [*batches, batch]


def batch_loss(model: MarianMTModel, pairs: Encoded, numbers: Sequence[int]) -> Tensor:
    """Return the mean cross-entropy in nats per target token over the pairs ``numbers``."""
    sources = _padded([pairs.sources[number] for number in numbers], PAD_ID)  # (B, S)
    labels = _padded([pairs.targets[number] for number in numbers], IGNORED)  # (B, T)
    return model(input_ids=sources, attention_mask=(sources != PAD_ID).long(), labels=labels).loss


def _padded(rows: list[Tensor], value: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)


class Shuffled:
    """The pairs of each step: all batches of an epoch in random order, then the next epoch."""

    def __init__(self, pairs: Encoded, tokens: int, seed: int) -> None:
        self.pairs, self.tokens, self.seed = pairs, tokens, seed
        self._epoch = -1
        self._first = 0
        self._batches: list[list[int]] = []

    def at(self, step: int) -> list[int]:
        """Return the pair numbers of ``step``; steps must come in order."""
        while step >= self._first + len(self._batches):
            self._first += len(self._batches)
            self._epoch += 1
            generator = torch.Generator().manual_seed(self.seed * 1009 + self._epoch)
            order = torch.randperm(len(self.pairs.sources), generator=generator)
            batches = self.pairs.batches(self.tokens, order)
            shuffled = torch.randperm(len(batches), generator=generator)
            self._batches = [batches[number] for number in shuffled.tolist()]
        return self._batches[step - self._first]


def held_out_loss(model: MarianMTModel, pairs: Encoded, tokens: int) -> float:
    """Return the cross-entropy in nats per target token over all ``pairs``, without dropout."""
    model.eval()
    total = count = 0.0
    with torch.inference_mode():
        for numbers in pairs.batches(tokens, torch.arange(len(pairs.sources))):
            size = sum(len(pairs.targets[number]) for number in numbers)
            total += batch_loss(model, pairs, numbers).item() * size
            count += size
    model.train()
    return total / count


def train(recipe: TranslatorRecipe, corpus: Path, out: Path) -> dict[str, float]:
    """Train by ``recipe`` on the pairs in ``corpus``; the finished model goes to ``out/model``.

    Returns ``loss`` (held out, nats per token, of the weights as saved), ``pairs`` trained on and
    ``seconds`` spent training, over all runs. Raises `LabkitError` if another process is training
    in ``out``.
    """
    training, held_out = split(read_corpus(corpus))
    with locked(out):
        lines = (f"{source}\t{translation}\n" for source, translation in held_out)
        write_whole(out / "held-out.tsv", "".join(lines))
        plan = recipe.training
        texts = (text for pair in training for text in pair)
        tokenizer = train_tokenizer(texts, recipe.model.vocabulary)
        pairs = Encoded.of(training, tokenizer, recipe.longest)
        unseen = Encoded.of(held_out, tokenizer, recipe.longest)
        model = build_model(recipe.model, recipe.seed).train()
        shuffled = Shuffled(pairs, plan.batch_tokens, recipe.seed)

        def loss_at(step: int) -> Tensor:
            torch.manual_seed(recipe.seed * 1_000_003 + step)  # what dropout draws
            return batch_loss(model, pairs, shuffled.at(step))

        job = Job(
            name="translator",
            model=model,
            tokenizer=tokenizer,
            course=plan,
            loss_at=loss_at,
            held_out=lambda: held_out_loss(model, unseen, plan.batch_tokens),
            recipe=recipe.model_dump(mode="json"),
        )
        return train_model(job, out, lambda _loss: {"pairs": len(pairs.sources)})


def main(arguments: Sequence[str] | None = None) -> None:
    """Train from the command line."""
    parser = command_parser("Train the German to English translator.")
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--threads", type=int, help="threads that torch uses")
    given = parser.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    print_result(lambda: train(TranslatorRecipe.load(given.recipe), given.pairs, given.out))


if __name__ == "__main__":
    main()
