"""The translator: a shared BPE tokenizer and a small encoder-decoder, trained from pairs.

``python -m labkit.training.translator RECIPE --pairs FILE --out FOLDER`` trains it in about an hour
on two cores. ``FILE`` has a source, a tab and its translation on each line, and may be compressed
(``.xz``, ``.gz``). One source in a hundred, with all its translations, is kept out of training and
written to ``FOLDER/held-out.tsv``.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import lzma
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from tokenizers import decoders, processors
from torch import Tensor
from transformers import GenerationConfig, MarianConfig, MarianMTModel, PreTrainedTokenizerFast

from labkit.errors import LabkitError
from labkit.models.store import locked
from labkit.records.base import write_whole
from labkit.training.recipe import Frozen, ModelRecipe, Positive
from labkit.training.tiny import byte_pairs, command_parser, print_result, train_model

PAD, END = "<pad>", "</s>"
PAD_ID, END_ID = 0, 1
HELD_OUT_SHARE = 100
"""One source in this many is held out, chosen by its hash."""
IGNORED = -100
"""The label of a position without a loss."""

Pair = tuple[str, str]
Encoded = tuple[Tensor, Tensor]
"""A pair as token ids, int64: source and target, each ending in `END_ID`."""


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


class TranslatorRecipe(ModelRecipe):
    """Every setting but the pairs that decides the translator's weights."""

    longest: Positive
    """Pairs with a side of more tokens than this are left out."""
    model: TranslatorShape


def read_corpus(path: Path) -> list[Pair]:
    """Read every distinct pair of a file, in order; raises `LabkitError` that names the line.

    Columns after the second are ignored; Tatoeba's exports have such columns.
    """
    pairs: dict[Pair, None] = {}
    open_as: Any = {".xz": lzma.open, ".gz": gzip.open}.get(path.suffix, open)
    try:
        with open_as(path, "rt", encoding="utf-8") as lines:
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


def split(pairs: Iterable[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Split pairs into those to train on and those held out.

    A source is held out by the hash of its letters. A pair that shares a text with a held-out pair
    is not trained on, so no text is in both parts.

    >>> training, held_out = split([(f"Satz {n}.", f"Sentence {n}.") for n in range(1000)])
    >>> len(training), len(held_out)
    (1000, 0)
    """
    pairs = list(pairs)
    held_out = []
    for pair in pairs:
        digest = hashlib.sha256(_letters(pair[0]).encode()).digest()
        if int.from_bytes(digest[:8], "big") % HELD_OUT_SHARE == 0:
            held_out.append(pair)
    seen = {_letters(text) for pair in held_out for text in pair}
    return [pair for pair in pairs if seen.isdisjoint(map(_letters, pair))], held_out


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


def encode(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerFast, longest: int
) -> list[Encoded]:
    """Encode ``pairs``, without those with a side of more than ``longest`` tokens."""
    sources, targets = (
        tokenizer([pair[side] for pair in pairs], return_attention_mask=False)["input_ids"]
        for side in (0, 1)
    )
    return [
        (torch.tensor(source), torch.tensor(target))
        for source, target in zip(sources, targets, strict=True)
        if max(len(source), len(target)) <= longest
    ]


def batches(pairs: Iterable[Encoded], tokens: int) -> list[list[Encoded]]:
    """Group pairs in batches of at most ``tokens`` padded tokens, both sides counted.

    Pairs of equal lengths share a batch, so there is hardly any padding; the order given decides
    which pairs of the same lengths.
    """
    made: list[list[Encoded]] = [[]]
    widest = 0  # source
    for pair in sorted(pairs, key=lambda pair: (len(pair[1]), len(pair[0]))):
        source, target = map(len, pair)
        widest = max(widest, source)
        if made[-1] and (widest + target) * (len(made[-1]) + 1) > tokens:
            made.append([])
            widest = source
        made[-1].append(pair)
    return made


def shuffled(pairs: Sequence[Encoded], tokens: int, seed: int) -> Iterator[list[Encoded]]:
    """Yield each step's batch: all of an epoch in random order, then those of the next epoch."""
    for epoch in itertools.count():
        generator = torch.Generator().manual_seed(seed * 1009 + epoch)
        order = torch.randperm(len(pairs), generator=generator).tolist()
        made = batches([pairs[number] for number in order], tokens)
        for number in torch.randperm(len(made), generator=generator).tolist():
            yield made[number]


def batch_loss(model: MarianMTModel, pairs: Sequence[Encoded]) -> Tensor:
    """Return the mean cross-entropy in nats per target token over ``pairs``."""
    pad = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
    sources = pad([source for source, _ in pairs], padding_value=PAD_ID)  # (B, S)
    labels = pad([target for _, target in pairs], padding_value=IGNORED)  # (B, T)
    return model(input_ids=sources, attention_mask=(sources != PAD_ID).long(), labels=labels).loss


def held_out_loss(model: MarianMTModel, pairs: Sequence[Encoded], tokens: int) -> float:
    """Return the cross-entropy in nats per target token over all ``pairs``, without dropout."""
    model.eval()
    total = count = 0.0
    with torch.inference_mode():
        for batch in batches(pairs, tokens):
            size = sum(len(target) for _, target in batch)
            total += batch_loss(model, batch).item() * size
            count += size
    model.train()
    return total / count


def train(recipe: TranslatorRecipe, corpus: Path, out: Path) -> dict[str, float]:
    """Train by ``recipe`` on the pairs in ``corpus``; the finished model goes to ``out/model``.

    Returns what `train_model` does and the number of ``pairs`` trained on. Raises `LabkitError` if
    another process is training in ``out``.
    """
    training, held_out = split(read_corpus(corpus))
    with locked(out):
        lines = (f"{source}\t{translation}\n" for source, translation in held_out)
        write_whole(out / "held-out.tsv", "".join(lines))
        texts = (text for pair in training for text in pair)
        tokenizer = train_tokenizer(texts, recipe.model.vocabulary)
        pairs, unseen = (
            encode(part, tokenizer, recipe.longest) if part else [] for part in (training, held_out)
        )
        if not pairs or not unseen:
            raise LabkitError(
                f"Of the {len(training) + len(held_out)} pairs in {corpus}, {len(pairs)} are left "
                f"to train on and {len(unseen)} to judge by: give a larger corpus."
            )
        model = build_model(recipe.model, recipe.seed).train()
        tokens = recipe.training.batch_tokens
        steps = enumerate(shuffled(pairs, tokens, recipe.seed))

        def loss_at(step: int) -> Tensor:
            batch = next(batch for at, batch in steps if at == step)
            torch.manual_seed(recipe.seed * 1_000_003 + step)  # what dropout draws
            return batch_loss(model, batch)

        return train_model(
            "translator",
            recipe,
            model,
            tokenizer,
            out,
            loss_at=loss_at,
            held_out=lambda: held_out_loss(model, unseen, tokens),
            more=lambda _loss: {"pairs": len(pairs)},
        )


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
