"""Prompts to train on: tasks over real passages, questions, sums, code, translation, letters.

Heads learn the base model's answers, so what they learn depends on what it is asked. Prompts that
the model wrote itself are all of one kind; these add others. Every prompt is a template filled
with pieces drawn by seed, so a thousand or a hundred thousand of them are one call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def _listed(text: str) -> list[str]:
    """The pieces of a text between semicolons."""
    return [" ".join(piece.split()) for piece in text.split(";")]


TOPICS = _listed("""
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
solar power; wind power; nuclear power; batteries; electric cars; bicycles; glaciers; caves;
tides; fog; rainbows; mushrooms; seeds; moss; spiders; ants; butterflies; owls; salmon; sharks;
turtles; bats; wolves; goats; donkeys; pigeons; glass; paper; ink; rope; soap; candles; umbrellas;
buttons; zippers; mirrors; locks; bells; kites; puzzles; card games; board games; crosswords;
circuses; fairs; parades; weddings; birthdays; holidays; tipping; queues; elevators; subways;
ferries; airports; canals; tunnels; traffic lights; postal services; newspapers; radio plays;
podcasts; comic books; cartoons; puppetry; ballet; tango; choirs; guitars; trumpets; opera houses;
street art; pottery; knitting; sewing; carpentry; plumbing; welding; beekeeping; farming; fishing;
bread; noodles; dumplings; salads; pickles; honey; salt; vinegar; breakfast; picnics; food safety;
first aid; eyeglasses; dentistry; blood types; the immune system; muscles; bones; the brain;
stress; habits; procrastination; empathy; gratitude; courage; honesty; gossip; small talk; letters
of complaint; job applications; contracts; mortgages; pensions; stock markets; inflation rates;
advertising; brands; supply chains; warehouses; robots; drones; smartphones; passwords; spam;
video games; virtual reality; spreadsheets; fonts; copyright; patents; juries; treaties; borders;
passports; censuses; castles; pyramids; samurai; Vikings; pirates; the Renaissance; the
Enlightenment; the French Revolution; the space race; the Great Depression; the Magna Carta; the
Panama Canal; Antarctica; the Amazon; the Sahara; the Himalayas
""")

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

ACTIONS = _listed("""
clean a cast-iron pan; choose a bicycle; learn the names of trees; repair a leaking tap; pack for
a week in the mountains; plan a surprise party; train a puppy; write a will; move to another city;
grow herbs on a balcony; sleep better; quit a job politely; learn to swim as an adult; bake bread
without yeast; paint a small room; read faster; give a toast at a wedding; prepare for an exam;
save money on groceries; cook for twelve people; start a book club; fix a flat tyre; remember
people's names; ask for a pay rise; teach a child to read; organise a bookshelf; make new friends;
run five kilometres; take better photographs; learn a new alphabet; write a short story; tune a
guitar; build a birdhouse; keep a diary; choose a used car; make good coffee; remove a stain from
a carpet; host a quiz night; apologise to a friend; speak in front of a large group; visit a
museum with children; learn to juggle; arrange flowers; plan a garden; reduce waste at home; find
a flat; set up a home office; keep bees; wash a woollen jumper; read a map; start a small shop;
negotiate a price; cross a desert; sharpen a knife; iron a shirt; survive a long flight; write a
thank-you note; interview a witness; keep a secret; raise chickens; mend a torn coat; clear a
blocked drain; learn the piano without a teacher; draw a face; explain death to a child; stop
biting my nails; put up a tent in the rain; carry a sofa downstairs
""")

ACTION_FORMS = (
    "How do I {a}?",
    "What is the best way to {a}?",
    "I want to {a}, but I have little time. What do you suggest?",
    "Write a checklist for somebody who wants to {a}.",
    "What can go wrong when you {a}, and how is it avoided?",
    "Describe in four steps how to {a}.",
    "My sister says that anybody can {a}. Is she right?",
    "What do I need to {a}? Give me a list of things with prices.",
    "Tell me a funny story about a man who tried to {a}.",
    "Which is harder: to {a} or to {b}? Give reasons.",
    "Yesterday I failed to {a}. Cheer me up and tell me what to do next.",
    "How long does it take to {a}?",
    "Write a conversation between two friends, one of whom wants to {a}.",
    "Plan a weekend for me on which I will {a} and {b}.",
    "Is it a good idea to {a} in winter? Why or why not?",
    "Give me three unusual tips on how to {a}.",
    "Pretend to be a radio host and interview me on how to {a}.",
)

ROLES = (
    "a ship's captain",
    "a librarian",
    "a nurse on the night shift",
    "a detective",
    "a gardener",
    "a robot that has just been switched on",
    "a travel guide",
    "a judge",
    "a chef",
    "a historian",
    "an astronaut",
    "a carpenter",
    "a sceptical scientist",
    "a football coach",
    "a shopkeeper",
    "a poet of the old school",
)

ROLE_FORMS = (
    "You are {r}. {q}",
    "Answer as {r} would: {q}",
    "{q} Answer in the voice of {r}.",
    "{q} Use no more than {n} words.",
    "{q} Answer with a numbered list of {m} points.",
    "{q} First give the short answer, then explain.",
    "I am {r}. {q}",
    "{q} Please keep it simple, my English is not very good.",
    "{q} Answer in {m} sentences.",
    "Be brief. {q}",
    "{q} Give an example.",
    "{q} Put the answer into a table with {m} rows.",
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

NOTE_TASKS = (
    "Use only the notes below to answer.\n\n{x}\n\nQuestion: What does note {n} say?",
    "Answer from the documents, and say which one you used.\n\n{x}\n\nWhat is said about {w}?",
    "{x}\n\nUsing the numbered passages above, explain what they have to do with {w}.",
    "Here are some search results.\n\n{x}\n\nWhich of them mentions {w}? Quote it.",
    "{x}\n\nDo these notes agree with each other? Answer yes or no and explain.",
    "Given this context:\n\n{x}\n\nAnswer the question: who or what is {w}?",
    "Write one sentence on each of these notes.\n\n{x}",
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


SUBJECTS = _listed("""
my neighbour; the teacher; a young doctor; our grandmother; the old fisherman; two students; the
baker; every tourist; the new manager; an honest lawyer; the children; somebody at the door; my
best friend; the bus driver; the girl in the red coat; nobody in the village; the museum; this
company; the committee
""")
VERBS = _listed("""
has lost; wants to sell; forgot; is looking for; bought; repaired; cannot find; will bring; has
never seen; talked about; paid too much for; is painting; hid; invented; dreams of; gave away;
closed; found
""")
OBJECTS = _listed("""
the key to the cellar; a bag of oranges; an old bicycle; the train tickets; a letter from Vienna;
the blue umbrella; three boxes of books; a house by the lake; the answer; a cheap hotel; the
winter coat; a map of the city; the birthday cake; a broken radio; the last piece of bread; a box
of photographs
""")
ENDINGS = _listed("""
; yesterday; on Monday morning; because it was raining; without telling anybody; for the second
time; in spite of the noise; after dinner; at the market; before the shop opened; but did not say
why; last summer
""")

FOREIGN = {
    "German": (
        "Der Zug nach Hamburg fährt heute nicht.",
        "Wir haben gestern lange im Garten gesessen.",
        "Bitte bringen Sie Ihren Ausweis mit.",
        "Mein Bruder sucht eine Wohnung in der Stadt.",
        "Das Fenster ist offen, und es ist kalt.",
        "Wo kann ich hier Brot kaufen?",
    ),
    "French": (
        "Le magasin est fermé le dimanche.",
        "Nous cherchons un restaurant pas trop cher.",
        "Elle a perdu ses lunettes dans le bus.",
        "Je voudrais un billet pour Lyon, s'il vous plaît.",
        "Les enfants jouent dans la rue.",
        "Il fait trop chaud pour dormir.",
    ),
    "Spanish": (
        "La biblioteca abre a las nueve.",
        "No encuentro las llaves del coche.",
        "Mi abuela vive cerca del mar.",
        "Queremos dos cafés y un vaso de agua.",
        "El tren llega con una hora de retraso.",
        "Ayer llovió todo el día.",
    ),
}

SENTENCE_TASKS = (
    "Translate into {l}: {x}",
    "How do you say this in {l}? {x}",
    "Put the following into {l}, and then back into English: {x}",
    "Rewrite this sentence in a more formal tone: {x}",
    "Rewrite this as a question: {x}",
    "Continue the story: {x}",
    "Is this sentence about the past, the present or the future? {x}",
    "Find the subject, the verb and the object: {x}",
    "Put this into the past tense: {x}",
    "What might have happened before this? {x}",
    "Write three different sentences that mean the same as this one: {x}",
    "Give the sentiment of this sentence, positive, negative or neutral: {x}",
    "Which word in this sentence is the most important, and why? {x}",
    "Turn this into a headline: {x}",
    "Write the opposite of this: {x}",
)


def task_prompts(passages: Sequence[str], count: int, seed: int) -> list[str]:
    """``count`` distinct prompts of all kinds, in random order; the same for the same arguments.

    ``passages`` are longer texts; tasks over a passage cut 25 to 110 words out of one of them.
    """
    rng = np.random.default_rng(seed)
    makers: tuple[tuple[float, Callable[[], str]], ...] = (
        (0.20, lambda: _question(rng)),
        (0.10, lambda: _how_to(rng)),
        (0.10, lambda: _in_a_manner(rng)),
        (0.18, lambda: _over_passage(rng, passages)),
        (0.08, lambda: _over_notes(rng, passages)),
        (0.12, lambda: _sum(rng)),
        (0.08, lambda: _code(rng)),
        (0.05, lambda: _letter(rng)),
        (0.02, lambda: _phrase(rng)),
        (0.07, lambda: _over_sentence(rng)),
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


def _how_to(rng: np.random.Generator) -> str:
    form = _pick(rng, ACTION_FORMS)
    return form.format(a=_pick(rng, ACTIONS), b=_pick(rng, ACTIONS))


def _in_a_manner(rng: np.random.Generator) -> str:
    """A question with a wish how to answer it."""
    question = _question(rng) if rng.random() < 0.6 else _how_to(rng)
    count, points = 10 * int(rng.integers(2, 13)), int(rng.integers(2, 8))
    return _pick(rng, ROLE_FORMS).format(r=_pick(rng, ROLES), q=question, n=count, m=points)


def _excerpt(rng: np.random.Generator, passages: Sequence[str], least: int, most: int) -> str:
    words = _pick(rng, passages).split()
    length = int(rng.integers(least, most))
    start = int(rng.integers(max(1, len(words) - length)))
    return " ".join(words[start : start + length])


def _over_notes(rng: np.random.Generator, passages: Sequence[str]) -> str:
    """Numbered notes, one of whose words is asked after."""
    notes = [_excerpt(rng, passages, 12, 36) for _ in range(int(rng.integers(2, 5)))]
    number = int(rng.integers(len(notes)))
    word = _pick(rng, [w.strip(".,;:!?\"'") for w in notes[number].split() if len(w) > 4] or ["it"])
    shown = "\n".join(f"[{place}] {note}" for place, note in enumerate(notes, start=1))
    return _pick(rng, NOTE_TASKS).format(x=shown, n=number + 1, w=word)


def _sentence(rng: np.random.Generator) -> str:
    parts = [_pick(rng, kind) for kind in (SUBJECTS, VERBS, OBJECTS, ENDINGS)]
    text = " ".join(filter(None, parts))
    return text[0].upper() + text[1:] + "."


def _over_sentence(rng: np.random.Generator) -> str:
    if rng.random() < 0.3:
        language = _pick(rng, list(FOREIGN))
        return f"Translate from {language} into English: " + " ".join(
            _pick(rng, FOREIGN[language]) for _ in range(int(rng.integers(1, 4)))
        )
    language = _pick(rng, ("French", "German", "Spanish", "Italian", "Dutch", "Portuguese"))
    text = " ".join(_sentence(rng) for _ in range(int(rng.integers(1, 4))))
    return _pick(rng, SENTENCE_TASKS).format(x=text, l=language)


def _over_passage(rng: np.random.Generator, passages: Sequence[str]) -> str:
    passage = _excerpt(rng, passages, 25, 111)
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
        f"A train goes {a * 10} km in {b} hours. How fast is it on average?",
        f"A rectangle is {a} cm long and {b} cm wide. Find its area and its perimeter.",
        f"{who} reads {a} pages a day. The book has {a * b} pages, and {c} are read. How many days"
        " are left?",
        f"{who} and {other} share {a + b} {thing}, and {who} gets {a}. What share has {other}?",
        f"Solve for x: {a}x + {b} = {a * c + b}.",
        f"Which is larger: {a}/{b} or {b}/{c}? Explain.",
        f"The price of {thing} rose from {a} to {a + c} euros. By how many percent is that?",
        f"There are {a} red and {b} blue {thing} in a bag. {who} takes one without looking. How"
        " probable is a red one?",
        f"{who} earns {a} euros an hour and works {b} hours a week. How much is that in {c} weeks?",
        f"Write {a * 3} as a sum of three numbers in a row.",
        f"What is the average of {a}, {b} and {c}?",
        f"A tank holds {a * 10} litres and loses {b} litres an hour. When is it empty? Think"
        " first.",
        f"{who} starts at {1 + a % 12} o'clock and works for {b} minutes, rests for {c} minutes,"
        f" and works for {b} more. How long did {who} work?",
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
