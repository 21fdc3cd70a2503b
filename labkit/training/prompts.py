"""Prompts to train on: tasks over real passages, questions, sums, code, translation, letters.

Heads learn the base model's answers, so what they learn depends on what it is asked. Prompts that
the model wrote itself are all of one kind; these add others. Every prompt is a template filled
with pieces drawn by seed, so a thousand or a hundred thousand of them are one call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

TOPICS = """
photosynthesis; the water cycle; plate tectonics; black holes; the moon's phases; vaccines;
antibiotics; the human heart; sleep; memory; dreams; allergies; inflation; supply and demand;
compound interest; budgeting; insurance; trade unions; elections; constitutions; the Roman
Republic; ancient Egypt; the Silk Road; the printing press; the industrial revolution; railways;
the telegraph; the telephone; radio; computers; the internet; search engines; machine learning;
neural networks; encryption; databases; operating systems; compilers; sorting algorithms; graph
theory; prime numbers; probability; statistics; calculus; geometry; algebra; Newton's laws;
gravity; electricity; magnetism; light; sound; heat; entropy; atoms; chemical bonds; acids and
bases; the periodic table; metals; plastics; recycling; climate change; forests; oceans; coral
reefs; rivers; deserts; bees; birds; whales; dogs; cats; horses; elephants; dinosaurs; evolution;
genetics; cells; bacteria; viruses; fungi; gardening; composting; tomatoes; bread baking; coffee;
tea; chocolate; cheese; soup; vegetarian cooking; olive oil; rice; spices; nutrition; vitamins;
running; swimming; cycling; yoga; football; chess; hiking; camping; photography; painting;
sculpture; architecture; bridges; cathedrals; poetry; novels; theatre; film; jazz; opera; the
violin; the piano; drums; folk songs; languages; grammar; spelling; translation; public speaking;
teamwork; leadership; time management; job interviews; remote work; small businesses; marketing;
customer service; negotiation; friendship; parenting; grief; anger; happiness; ethics; logic;
philosophy; religion; museums; libraries; schools; universities; travel by train; maps; the
compass; sailing; lighthouses; volcanoes; earthquakes; storms; snow; the seasons; calendars;
clocks; money; banks; taxes; maps of the stars; telescopes; satellites; rockets; Mars; the sun;
solar power; wind power; nuclear power; batteries; electric cars; bicycles
""".replace("\n", " ").split(";")
TOPICS = [topic.strip() for topic in TOPICS]

PEOPLE = (
    "a child of eight",
    "a new student",
    "my grandmother",
    "a busy manager",
    "a group of friends",
    "a beginner",
    "a teenager",
    "somebody who has never heard of it",
    "an engineer",
    "a teacher",
)

QUESTIONS = (
    "What is {t}?",
    "Explain {t} to {p}.",
    "Why does {t} matter?",
    "How does {t} work?",
    "Give me five facts about {t}.",
    "Write a short paragraph about {t}.",
    "What are common mistakes people make about {t}?",
    "Describe the history of {t} in a few sentences.",
    "Compare {t} and {u}.",
    "What do {t} and {u} have in common?",
    "Write a short story about {t}.",
    "Write a poem about {t}.",
    "Write a limerick about {t}.",
    "List the advantages and disadvantages of {t}.",
    "What should I read to learn about {t}?",
    "Write three quiz questions about {t}, with answers.",
    "Give me a lesson plan about {t} for {p}.",
    "I want to learn about {t}. Where do I start?",
    "Write an advertisement for a course on {t}.",
    "Write a dialogue between {p} and an expert on {t}.",
    "What is the most surprising thing about {t}?",
    "Define {t} in one sentence.",
    "Make an outline for an essay on {t}.",
    "Who should care about {t}, and why?",
    "Give step by step instructions that have to do with {t}.",
    "Can you recommend some activities related to {t}?",
    "Tell me a joke about {t}.",
    "How has {t} changed over the last hundred years?",
    "What would the world be without {t}?",
    "Write an email to a colleague about {t}.",
    "Write a speech about {t} for {p}.",
    "Summarize what is known about {t} in three bullet points.",
    "Is {t} more important than {u}?",
    "What questions would {p} ask about {t}?",
    "Describe a day in the life of an expert on {t}.",
)

PASSAGE_TASKS = (
    "Summarize the following text:\n\n{x}",
    "{x}\n\nWhat is the main point of this passage?",
    "Rewrite this in simpler words:\n\n{x}",
    "List the key points of this text.\n\n{x}",
    "Read the passage and answer: who is speaking, and about what?\n\n{x}",
    "Give this text a title and explain your choice.\n\n{x}",
    "Continue this text:\n\n{x}",
    "Correct the grammar of the following:\n\n{x}",
    "Make this text shorter:\n\n{x}",
    "Translate the following into French:\n\n{x}",
    "Translate the following into German:\n\n{x}",
    "Translate the following into Spanish:\n\n{x}",
    "What is the tone of this passage? Is it positive or negative?\n\n{x}",
    "Write three questions that this text answers.\n\n{x}",
    "Turn this passage into a news report:\n\n{x}",
    "Reply to the following message:\n\n{x}",
    "Use the context to answer the question.\n\nContext: {x}"
    "\n\nQuestion: What does the writer want?",
    "Based on the text below, what happened and why?\n\n{x}\n\nAnswer in two sentences.",
    "Which names, places and dates are mentioned here?\n\n{x}",
    "Do you agree with this? {x}",
    "Write a formal letter that says the same as this:\n\n{x}",
    "Explain this to {p}:\n\n{x}",
)

CODE_TASKS = (
    "reverses a string",
    "counts the words in a text",
    "checks whether a number is prime",
    "computes the factorial of a number",
    "returns the n-th Fibonacci number",
    "sorts a list of names",
    "finds the largest number in a list",
    "removes duplicates from a list",
    "merges two sorted lists",
    "reads a CSV file and prints its columns",
    "converts Celsius to Fahrenheit",
    "validates an email address",
    "counts vowels in a sentence",
    "finds the longest word",
    "computes the average of a list",
    "draws a triangle of stars",
    "shuffles a deck of cards",
    "flattens a nested list",
    "finds the greatest common divisor",
    "implements binary search",
    "implements a stack",
    "implements a queue with two stacks",
    "parses a date",
    "counts how often each letter occurs",
    "checks whether two words are anagrams",
    "transposes a matrix",
    "rolls two dice a thousand times",
    "converts a number to Roman numerals",
    "finds all divisors of a number",
    "checks a password's strength",
)

CODE_FORMS = (
    "Write a {l} function that {c}.",
    "Show me how to write {l} code that {c}, with comments.",
    "Write a {l} program that {c} and explain how it works.",
    "Write tests for a {l} function that {c}.",
    "What is the time complexity of a function that {c}? Show it in {l}.",
)

LETTERS = (
    "Write an email to my {r} {w}.",
    "Help me write a polite message to my {r} {w}.",
    "Draft a short letter to my {r} {w}.",
    "How should I tell my {r} that I want to do this: {w}?",
)
RECEIVERS = (
    "landlord",
    "teacher",
    "neighbour",
    "boss",
    "doctor",
    "cousin",
    "bank",
    "customer",
    "team",
    "best friend",
    "daughter",
    "coach",
    "client",
    "former colleague",
    "local council",
)
WISHES = (
    "to ask for a later deadline",
    "to apologise for being late",
    "to thank them for their help",
    "to invite them to a party",
    "to complain about noise at night",
    "to cancel an appointment",
    "to ask for a recommendation",
    "to report a broken window",
    "to congratulate them",
    "to ask for a refund",
    "to suggest a meeting next week",
    "to say that I am ill today",
    "to propose a new project",
    "to ask about opening hours",
    "to explain a mistake that I made",
)

THINGS = (
    "apples",
    "books",
    "tickets",
    "chairs",
    "pencils",
    "eggs",
    "stamps",
    "bottles",
    "coins",
    "cards",
)
NAMES = (
    "Ana",
    "Ben",
    "Chidi",
    "Dora",
    "Emil",
    "Fatima",
    "Goran",
    "Hana",
    "Ivan",
    "Juno",
    "Kofi",
    "Lena",
)
PHRASES = (
    "Where is the station?",
    "I would like a cup of coffee.",
    "The weather is lovely today.",
    "My brother lives in the north.",
    "We are looking for a quiet hotel.",
    "She has read this book twice.",
    "Can you help me, please?",
    "The meeting starts at nine o'clock.",
    "I forgot my umbrella.",
    "They will arrive tomorrow evening.",
    "This soup is too salty.",
    "How much does the red one cost?",
)


def task_prompts(passages: Sequence[str], count: int, seed: int) -> list[str]:
    """``count`` distinct prompts of all kinds, in random order; the same for the same arguments.

    ``passages`` are longer texts; tasks over a passage cut 25 to 110 words out of one of them.
    """
    rng = np.random.default_rng(seed)
    makers: tuple[tuple[float, Callable[[], str]], ...] = (
        (0.36, lambda: _question(rng)),
        (0.30, lambda: _over_passage(rng, passages)),
        (0.12, lambda: _sum(rng)),
        (0.10, lambda: _code(rng)),
        (0.07, lambda: _letter(rng)),
        (0.05, lambda: _phrase(rng)),
    )
    shares = np.array([share for share, _ in makers])
    found: dict[str, None] = {}
    for kind in rng.choice(len(makers), size=4 * count, p=shares / shares.sum()):
        found[makers[kind][1]()] = None
        if len(found) == count:
            break
    return list(found)


def _pick(rng: np.random.Generator, items: Sequence[str]) -> str:
    return items[int(rng.integers(len(items)))]


def _question(rng: np.random.Generator) -> str:
    form = _pick(rng, QUESTIONS)
    text = form.format(t=_pick(rng, TOPICS), u=_pick(rng, TOPICS), p=_pick(rng, PEOPLE))
    return text[0].upper() + text[1:]


def _over_passage(rng: np.random.Generator, passages: Sequence[str]) -> str:
    words = _pick(rng, passages).split()
    length = int(rng.integers(25, 111))
    start = int(rng.integers(max(1, len(words) - length)))
    passage = " ".join(words[start : start + length])
    return _pick(rng, PASSAGE_TASKS).format(x=passage, p=_pick(rng, PEOPLE))


def _sum(rng: np.random.Generator) -> str:
    a, b, c = (int(n) for n in rng.integers(2, 60, size=3))
    who, other, thing = _pick(rng, NAMES), _pick(rng, NAMES), _pick(rng, THINGS)
    forms = (
        f"{who} has {a} {thing} and buys {b} more. {other} takes {c} of them. How many are left?",
        f"A shop sells {thing} at {a} for {b} euros. What do {a * c} {thing} cost?",
        f"What is {a} times {b}? Show your work.",
        f"What is {a * b} divided by {a}?",
        f"Compute {a} + {b} * {c} step by step.",
        f"{who} walks {a} km a day for {b} days. How far does {who} walk in all?",
        f"A box holds {a} {thing}. How many boxes does {who} need for {a * b + c} {thing}?",
        f"What is {a}% of {b * 10}?",
        f"The sum of two numbers is {a + b} and one of them is {a}. What is the other?",
        f"{who} is {a} years old. In {b} years {other} will be twice as old."
        f" How old is {other} now?",
    )
    return _pick(rng, forms)


def _code(rng: np.random.Generator) -> str:
    language = _pick(rng, ("Python", "Python", "Python", "JavaScript", "Java", "C"))
    return _pick(rng, CODE_FORMS).format(l=language, c=_pick(rng, CODE_TASKS))


def _letter(rng: np.random.Generator) -> str:
    return _pick(rng, LETTERS).format(r=_pick(rng, RECEIVERS), w=_pick(rng, WISHES))


def _phrase(rng: np.random.Generator) -> str:
    language = _pick(rng, ("French", "German", "Spanish", "Italian", "Portuguese"))
    first, second = _pick(rng, PHRASES), _pick(rng, PHRASES)
    return f"Translate into {language}: {first} {second}"
