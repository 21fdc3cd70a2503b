"""A recipe: one TOML file with every setting of the training of a set of heads."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from labkit.errors import LabkitError, first_problem
from labkit.reading import read_text
from labkit.speculative.speculator import Layers

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0)]
Source = Literal["sotu", "chat"]
PromptKind = Literal["text", "tasks", "long", "talk", "own"]
Precision = Literal["float32", "bfloat16"]
"""The number format in which weights are multiplied."""


class Frozen(BaseModel):
    """A recipe or a part of one: immutable, no unknown keys, every field explained below it."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_by_name=True,
    )

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a TOML file; raises `LabkitError` that names the first invalid field."""
        try:
            return cls.model_validate(tomllib.loads(read_text(Path(path))))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise LabkitError(f"The recipe {path} is not valid TOML: {error}.") from None
        except ValidationError as error:
            given = error.errors(include_url=False)[0]["input"]
            shown = "" if isinstance(given, dict) else f" (given: {given!r})"
            problem = first_problem(error, "the top level")
            raise LabkitError(f"The recipe {path} at {problem}{shown}.") from None


class Heads(Frozen):
    """The shape of the speculator."""

    kind: Literal["mlp", "eagle"] = "mlp"
    """``mlp``: the heads of the lecture; ``eagle``: one decoder layer over the base's features."""
    count: Annotated[int, Field(ge=1, le=8)] = 3
    """How many heads; head i (from 1) predicts the token i places after the base's own next."""
    inner_width: Positive
    """The width of every head's state; the published heads use the base model's width or more. For
    an eagle, the width of its feed-forward layer."""
    groups: Positive = 1
    """How many sets of heads stand side by side, as in those that `labkit train join` makes: to
    train such heads further; ``inner_width`` is then that of all."""
    hierarchical: bool = True
    """Whether each head reads the state and the token of the one before; Medusa's do not."""
    tied: bool = False
    """Whether all heads share their weights, except the first projection."""
    layers: Layers = ()
    """Layers of the base model, counted from 1, whose states the heads read as well as the last
    layer's."""
    context: bool = False
    """Whether a context layer over the verified positions runs before the heads (Hydra++'s prefix
    attention); a window should then hold a whole answer."""
    scale_input: bool = True
    """Whether the base model's hidden state is normalised first and scaled by 1/sqrt(2)."""
    from_base: bool = False
    """Whether an eagle starts as a copy of the base model's last layer, with its input fitted on
    what is trained on (`labkit.training.heads`), in place of random weights."""
    draft_vocabulary: Annotated[int, Field(ge=0, multiple_of=16)] = 0
    """How many tokens the finished heads may draft: the most frequent in what they were trained on
    last, so that a draft costs less; 0 is all."""

    @model_validator(mode="after")
    def _check(self) -> Heads:
        if self.kind == "eagle" and (self.tied or self.context or self.groups > 1):
            raise ValueError("an eagle cannot be tied, has no groups and needs no context layer")
        if self.groups > 1 and self.inner_width % (16 * self.groups):
            raise ValueError("inner_width must be a multiple of 16 for each group")
        if self.tied and not self.hierarchical:
            raise ValueError("tied independent heads would all predict the same")
        if self.from_base and self.kind != "eagle":
            raise ValueError("only an eagle can start from the base model's last layer")
        return self


class Loss(Frozen):
    """What the heads' predictions are compared with."""

    labels: Literal["hard", "soft"] = "hard"
    """``hard``: the next token of the text; ``soft``: the base model's whole distribution at that
    position, computed from its hidden state (distillation)."""
    sampled_vocabulary: Count = 0
    """How many tokens each step's softmax runs over: the likely ones and a random part of the rest,
    with a correction for it; 0 is the whole vocabulary, as published."""


class Optimizer(Frozen):
    """AdamW and clipping; both phases share one optimizer, as published."""

    betas: tuple[Share, Share] = (0.9, 0.95)
    """Decay rates of AdamW's two moments."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """AdamW's decoupled weight decay."""
    clip: Rate = 1.0
    """The largest allowed norm of the whole gradient."""


class Schedule(Frozen):
    """A phase: its batches and its learning rate."""

    steps: Positive
    """Optimizer steps."""
    rows: Positive
    """Sequences per step, over all processes and micro-batches together."""
    window: Positive
    """Positions per sequence. Published: 4,096 in phase 1, 256 in phase 2."""
    micro_batches: Positive = 1
    """In how many parts a step's rows are computed, to save memory; the gradient is the same."""
    learning_rate: Rate
    """The peak. The rate starts at 0, rises linearly, and falls by a cosine."""
    warmup_share: Share = 0.05
    """The share of the steps that warm up."""
    final_share: Share = 0.1
    """The learning rate at the end, as a share of the peak."""

    @model_validator(mode="after")
    def _check(self) -> Schedule:
        if self.rows % self.micro_batches:
            raise ValueError(f"rows ({self.rows}) must divide by micro_batches")
        return self

    @property
    def warmup_steps(self) -> int:
        """How many steps warm up."""
        return max(1, round(self.steps * self.warmup_share))


class Course(Optimizer):
    """The whole training of a small model from scratch: its steps, learning rate and optimizer."""

    steps: Positive
    batch_tokens: Positive
    """Tokens of a batch; the translator's count padding and both sides."""
    learning_rate: Rate
    """The peak, after the warm-up; a cosine falls from there to ``final_share`` of it."""
    warmup_steps: Annotated[int, Field(ge=1, alias="warmup")]
    final_share: Share
    checkpoint_every: Positive


class ModelRecipe(Frozen):
    """The settings of every small model that is trained from scratch."""

    seed: int
    training: Course


class TextPhase(Schedule):
    """Phase 1: ordinary text."""

    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    """Which texts; see `labkit.training.text`."""


class Generation(Frozen):
    """The text of phase 2: the base model's own answers to prompts."""

    kinds: Annotated[tuple[PromptKind, ...], Field(min_length=1)] = ("text",)
    """Where prompts come from, in equal parts. ``text``: cut from ordinary text, as published;
    ``tasks``: questions and tasks over passages of it, see `labkit.training.prompts`; ``long``:
    tasks over up to 700 words; ``talk``: tasks with the model's answer and a second question;
    ``own``: user turns that a chat model writes itself."""
    sources: Annotated[tuple[Source, ...], Field(min_length=1)] = ("sotu", "chat")
    """Which ordinary text; see `labkit.training.text`."""
    prompt_tokens: Positive = 64
    """The length of a prompt cut from text, and the longest prompt that the model writes."""
    count: Positive
    """How many prompts to train on, before duplicates are dropped."""
    held_out: Positive = 32
    """How many prompts, from documents kept out of training, to validate on; answered greedily."""
    answer_tokens: Annotated[int, Field(ge=2)] = 256
    """The longest answer, in tokens; one alone has none for a head to predict."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 is greedy; the published recipe samples at 1."""
    top_k: Positive = 10
    """When sampling: from this many most probable tokens."""
    repeats: Count = 0
    """An answer also ends when its last ``repeats`` tokens have occurred in it twice before, since
    a loop teaches nothing; 0: never."""
    precision: Precision = "float32"
    """The number format of the base model's products when it writes answers to train on. bfloat16
    is two to four times as fast on processors with instructions for it, and is float32 on others;
    near-equal logits may change places."""
    keep_hidden: bool = True
    """Whether the base model's hidden states over the answers are kept on disk for several epochs,
    or computed again in every step, as published."""


class Watch(Frozen):
    """How often to validate and to save."""

    validate_every: Positive = 50
    """Steps between two validations on held-out text."""
    checkpoint_every: Positive = 50
    """Steps between two checkpoints."""


class Recipe(Frozen):
    """Every setting that decides the weights of a set of heads."""

    name: str
    """What the heads are called."""
    base: str
    """The base model, by any name that `labkit.models.load` takes."""
    seed: Count = 0
    """Decides the initial weights, the order of the data and everything sampled."""
    precision: Precision = "float32"
    """The number format of products in training; weights, sums and moments stay in float32. A
    processor without instructions for bfloat16 takes float32."""
    heads: Heads
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    phase1: TextPhase | None = None
    phase2: Schedule | None = None
    generation: Generation | None = None
    watch: Watch = Watch()

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if self.phase1 is None and self.phase2 is None:
            raise ValueError("give a [phase1], a [phase2] or both")
        if self.phase2 is not None and self.generation is None:
            raise ValueError("[phase2] needs a [generation]")
        return self

    @property
    def answers(self) -> Generation:
        """How phase 2's text is written; raises `LabkitError` if the recipe does not say."""
        if self.generation is None:
            raise LabkitError(f"The recipe {self.name!r} has no [generation]: add one.")
        return self.generation
