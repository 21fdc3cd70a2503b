"""Models small enough to know everything about: a table of probabilities, and tiny transformers."""

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MarianConfig,
    MarianMTModel,
)

END = 0


class Table:
    """A language of letters a, b, c, ... whose next letter depends on the last one, by a table.

    Row 0 of ``table`` is the distribution of the first letter, row i that after letter i; column 0
    ends the text.
    """

    ends = frozenset([END])

    def __init__(self, table):
        self.table = torch.tensor(table)
        self.rows_computed = 0

    def begin(self, sources):
        return TableRows(self, len(sources))

    def text(self, tokens):
        return "".join(chr(ord("a") + token - 1) for token in tokens if token != END)


class TableRows:
    room = 10**6

    def __init__(self, model, many):
        self.model = model
        self.logits = model.table[:1].expand(many, -1).log()

    def advance(self, parents, tokens):
        assert len(parents) == len(tokens)
        assert int(parents.max()) < len(self.logits)
        self.model.rows_computed += len(tokens)
        self.logits = self.model.table[tokens].log()


WORDS = 40


class Tiny:
    """What `labkit.load` gives, around a randomly initialised transformers model."""

    context = 64
    eos_ids = frozenset([1, 7, 13, 19, 25, 31])  # many, so that random texts do end

    def __init__(self, module):
        self.module = module.eval()

    def encode(self, prompt):
        return [2 + int(word) for word in prompt.split()]

    def decode(self, ids):
        return " ".join(str(token - 2) for token in ids)

    def next_token_logprobs(self, source, tokens):
        """By the whole model at once, without a cache: row i is after ``tokens[:i]``."""
        ids = torch.tensor([self.encode(source)])
        written = torch.tensor([tokens], dtype=torch.long)
        if self.module.config.is_encoder_decoder:
            start = torch.zeros(1, 1, dtype=torch.long)
            logits = self.module(ids, decoder_input_ids=torch.cat([start, written], 1)).logits
            logits[..., 0] = float("-inf")  # a translator never writes padding
        else:
            logits = self.module(torch.cat([ids, written], 1)).logits[:, ids.shape[1] - 1 :]
        return logits[0].log_softmax(-1)

    def logprob(self, source, tokens):
        """log p(tokens | source)."""
        known = self.next_token_logprobs(source, tokens[:-1])
        return known.gather(1, torch.tensor(tokens)[:, None]).double().sum().item()


def llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS + 2, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        initializer_range=0.35, pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    return Tiny(LlamaForCausalLM(config))


def gpt2():
    """Unlike Llama's, its positions are absolute, so padding must not shift them."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=WORDS + 2, n_embd=32, n_layer=2, n_head=4, n_positions=64,
        initializer_range=0.35, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    return Tiny(GPT2LMHeadModel(config))


def marian():
    torch.manual_seed(0)
    config = MarianConfig(
        vocab_size=WORDS + 2, d_model=32, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64,
        decoder_ffn_dim=64, max_position_embeddings=64, init_std=0.35, pad_token_id=0,
        eos_token_id=1, decoder_start_token_id=0, forced_eos_token_id=None,
    )  # fmt: skip
    return Tiny(MarianMTModel(config))
