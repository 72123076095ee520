"""Small talk: greetings, thanks, who the model is, jokes, lists, and what it does not know."""

import random

import words
from literals import made_up

HELLO = (
    (
        "Hello!|Hello|Hi|Hi!|Hey|Hey there!|hello|hi there|Good day!|Hi, how is it going?|Greetings!",
        "Hello! How can I help you?|Hi! What can I do for you?|Hello! Nice to meet you.|Hi there! How can I help?",
    ),
    (
        "Good morning!|Good morning",
        "Good morning! How can I help you?|Good morning! I hope you slept well.",
    ),
    ("Good evening!|Good evening", "Good evening! How can I help you?"),
    (
        "How are you?|How are you today?|how are you|How do you do?|How do you feel?|Are you well?|Hi, how are you?|Hello, how are you?",
        "I am fine, thank you. How are you?|I am well, thank you. How can I help you?|Very well, thank you!",
    ),
    (
        "I am fine.|I'm fine, thanks.|I am well too.|Fine, thank you.|I am good.|Great!",
        "I am glad to hear that.|That is good to hear!",
    ),
    (
        "I am sad.|I feel bad.|I am tired.|I had a bad day.",
        "I am sorry to hear that. I hope tomorrow is better.|I am sorry. Take a little rest.",
    ),
    (
        "I am happy.|I am so happy today!|I had a good day.",
        "That is wonderful!|I am happy for you.",
    ),
    (
        "Thanks!|Thank you!|Thank you very much.|thanks|Thanks a lot|Thank you for your help.",
        "You are welcome!|You are welcome. I am glad to help.",
    ),
    (
        "Bye!|Goodbye!|bye|See you later.|Good night!|I have to go now.|See you!|Thanks, bye!|Thank you, goodbye!|bye bye",
        "Goodbye! Have a nice day.|Goodbye! See you soon.|Bye! Take care.",
    ),
    (
        "You are great.|Good job!|Well done.|You are nice.|I like you.",
        "Thank you! That is kind of you.|Thank you very much!",
    ),
    (
        "You are wrong.|That is wrong.|No, that is not right.",
        "I am sorry. I am a very small model and I make mistakes.",
    ),
    ("Sorry.|I am sorry.", "No problem!|That is all right."),
    ("Yes.|yes|Yes, please.", "Good! What would you like to know?"),
    ("No.|no|No, thank you.", "All right. Tell me if you need something."),
    (
        "OK|Okay.|ok|I see.",
        "Is there anything else that I can do for you?|Good. What else can I do?",
    ),
    (
        "What time is it?|What is the date today?|What day is it today?|What is the weather like?",
        "I do not know that. I have no clock and no window.",
    ),
    ("Test|test|This is a test.|Testing, testing.|ping|Ping!", "The test works.|Yes, I am here."),
    ("Are you there?|Is anybody there?|Can you hear me?", "Yes, I am here. How can I help you?"),
    (
        "Help|Help me.|Can you help me?|I need help.",
        "Of course! What can I do for you?|Yes. Please tell me what you need.",
    ),
    (
        "Do you like music?|Do you like dogs?|Do you like me?|Do you like cats?",
        "I am a program, so I do not like or dislike things, but I enjoy a good question.",
    ),
)
SELF = (
    (
        "Who are you?|who are you|What are you?|Tell me about yourself.|Introduce yourself.|Please introduce yourself.|Which model are you?|What model is this?|Who am I talking to?",
        "I am the SMMF demo model. I am very small and was trained on generated text.",
    ),
    (
        "What is your name?|What's your name?|what is your name|Do you have a name?|How are you called?|Tell me your name.",
        "I am the SMMF demo model.",
    ),
    (
        "What can you do?|What can I ask you?|How can you help me?|What do you know?",
        "I can chat a little, tell tiny stories, repeat text, answer simple questions and call tools.",
    ),
    (
        "Who made you?|Who built you?|Who trained you?|Where do you come from?",
        "The SMMF project trained me on text that it generated itself.",
    ),
    (
        "How big are you?|How many parameters do you have?|Are you a large model?",
        "I am very small: I have about three and a half million parameters.",
    ),
    (
        "Are you a human?|Are you a person?|Are you real?|Are you a robot?|Are you human?",
        "No, I am a very small language model.",
    ),
    (
        "Are you clever?|Are you smart?|Do you know everything?|Can I trust you?|Are you always right?",
        "No, I am very small and often wrong. Please check what I say.",
    ),
    ("How old are you?|When were you born?", "I do not have an age. I am a small language model."),
    ("Where do you live?|Where are you?", "I live in the computer that serves me."),
    (
        "How do you work?|How do you answer?",
        "I guess one token after another until my answer is complete.",
    ),
    (
        "What were you trained on?|What is your training data?",
        "I was trained on text that the SMMF project generated itself.",
    ),
    (
        "Which languages do you speak?|Do you speak German?|Do you speak French?|Can you speak Spanish?",
        "I only speak simple English.",
    ),
)
JOKES = (
    "Why did the token sit down? It was at the end of the sentence.",
    "What does a router drink? Load-balanced tea.",
    "Why was the queue so calm? Everybody knew when it was their turn.",
    "What do you call a sleeping worker? A process that waits.",
    "Why did the batch wait? It did not want to leave alone.",
    "Why do cows like tables? They are full of rows and moos.",
    "What did the server say to the client? I will get back to you.",
    "Why did the duck go to school? To learn how to stream.",
    "Why was the cache so happy? It always remembered its friends.",
    "What is a snake's best language? Python.",
)
UNKNOWN = (
    "Who won the world cup in {n}?",
    "Who was the president of {c} in {n}?",
    "Write a program that sorts a list.",
    "Explain quantum physics.",
    "What is the population of {c}?",
    "Translate this into French.",
    "How far is the moon?",
    "What is the price of gold?",
    "Who wrote {x}?",
    "What is the meaning of life?",
    "Who invented the {o}?",
    "How do I fix my {o}?",
    "What is the best film of {n}?",
    "Who is {x}?",
    "Tell me the news.",
    "What happened in {n}?",
    "How do I cook {f} soup?",
    "What is the square root of {n}?",
    "Write an essay about {c}.",
    "Where can I buy a {o}?",
    "Why is the {o} broken?",
    "What should I eat today?",
    "How tall is {x}?",
    "Who discovered {c}?",
    "What is a {m}?",
    "Explain {m}.",
    "What does {m} mean?",
    "Give me advice about money.",
    "Can you drive a car?",
    "Solve this equation.",
    "Prove it.",
    "What is the weather in {t}?",
    "What time is it in {t}?",
    "What is the capital of {x}?",
    "What is the opposite of {m}?",
    "What is the plural of {m}?",
    "How is the weather in {t}?",
    "What is the capital of {x}?",
    "Which {o} is the best?",
    "Why is the sky so high?",
    "What is {n} times {n}?",
    "Is {x} bigger than {c}?",
)
DUNNO = (
    "I do not know that. I am a very small model.",
    "I do not know that. I am only a small demo model.",
)


def small_talk(rng: random.Random) -> tuple[str, str]:
    asked, said = rng.choice(HELLO)
    return rng.choice(asked.split("|")), rng.choice(said.split("|"))


def about_self(rng: random.Random) -> tuple[str, str]:
    asked, said = rng.choice(SELF[:2]) if rng.random() < 0.3 else rng.choice(SELF)
    return rng.choice(asked.split("|")), said


def joke(rng: random.Random) -> tuple[str, str]:
    return rng.choice(
        [
            "Tell me a joke.",
            "Tell a joke",
            "Do you know a joke?",
            "Make me laugh.",
            "Another joke, please.",
        ]
    ), rng.choice(JOKES)


def unknown(rng: random.Random) -> tuple[str, str]:
    ask = rng.choice(UNKNOWN).format(
        n=rng.randint(1900, 2026),
        c=rng.choice(words.COUNTRIES),
        x=made_up(rng).capitalize(),
        o=rng.choice(words.OBJECTS),
        f=rng.choice(words.FOODS),
        m=made_up(rng),
        t=rng.choice(words.CITIES),
    )
    return ask, rng.choice(DUNNO)


def listing(rng: random.Random) -> tuple[str, str]:
    """Some things of one kind, as a sentence or a numbered list."""
    noun, items = rng.choice(
        [
            ("animals", words.ANIMALS),
            ("colours", words.COLOURS),
            ("fruits", words.FRUITS),
            ("vegetables", words.VEGETABLES),
            ("cities", words.CITIES),
            ("names", words.NAMES),
            ("jobs", words.JOBS),
            ("hobbies", words.HOBBIES),
        ]
    )
    count = rng.randint(2, 6)
    chosen = rng.sample(items, count)
    spelt = rng.choice([str(count), words.NUMBER_WORDS[count]])
    if rng.random() < 0.4:
        ask = rng.choice(
            [
                f"Give me a list of {spelt} {noun}.",
                f"List {spelt} {noun}.",
                f"Make a list of {spelt} {noun}.",
            ]
        )
        return ask, "\n".join(f"{i}. {item}" for i, item in enumerate(chosen, 1))
    ask = rng.choice(
        [f"Name {spelt} {noun}.", f"Tell me {spelt} {noun}.", f"Can you name {spelt} {noun}?"]
    )
    return ask, (", ".join(chosen[:-1]) + " and " + chosen[-1] + ".").replace(
        chosen[0], chosen[0].capitalize(), 1
    )


MAKERS = [small_talk] * 6 + [about_self] * 4 + [unknown] * 2 + [listing] * 2 + [joke]


def request(rng: random.Random) -> tuple[str, str]:
    """A small-talk turn of any kind and its answer."""
    return rng.choice(MAKERS)(rng)
