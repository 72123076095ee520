"""Small tables of facts that the model is meant to know; written by hand for this project."""

from words import DAYS, MONTHS


def _pairs(text: str) -> dict[str, str]:
    return dict(
        part.strip().split(":") for part in text.replace("\n", " ").split(",") if part.strip()
    )


CAPITALS = _pairs("""France:Paris, Germany:Berlin, Italy:Rome, Spain:Madrid, Portugal:Lisbon, Japan:Tokyo,
China:Beijing, India:New Delhi, Russia:Moscow, Canada:Ottawa, Egypt:Cairo, Greece:Athens, Austria:Vienna,
Belgium:Brussels, Norway:Oslo, Sweden:Stockholm, Finland:Helsinki, Denmark:Copenhagen, Poland:Warsaw,
Ireland:Dublin, Hungary:Budapest, Kenya:Nairobi, Peru:Lima, Chile:Santiago, Cuba:Havana, Iran:Tehran,
Iraq:Baghdad, Turkey:Ankara, Thailand:Bangkok, Vietnam:Hanoi, Australia:Canberra, Brazil:Brasilia,
Argentina:Buenos Aires, Mexico:Mexico City, England:London, Scotland:Edinburgh, Iceland:Reykjavik,
Ukraine:Kyiv, Romania:Bucharest, Bulgaria:Sofia, Croatia:Zagreb, Serbia:Belgrade, Latvia:Riga,
Nepal:Kathmandu, Ghana:Accra, Colombia:Bogota, Ecuador:Quito, Morocco:Rabat, Jordan:Amman""")
OPPOSITES = _pairs("""hot:cold, big:small, tall:short, fast:slow, up:down, left:right, day:night, black:white,
good:bad, old:new, happy:sad, open:closed, full:empty, light:dark, hard:soft, high:low, early:late, in:out,
on:off, wet:dry, rich:poor, strong:weak, loud:quiet, clean:dirty, near:far, first:last, begin:end, buy:sell,
give:take, love:hate, push:pull, win:lose, true:false, yes:no, north:south, east:west, start:stop,
before:after, always:never, above:below, inside:outside, thick:thin, wide:narrow, deep:shallow, sweet:sour,
young:old, heavy:light, easy:difficult, right:wrong, asleep:awake, alive:dead, brave:afraid, cheap:expensive""")
PLURALS = _pairs("""mouse:mice, child:children, foot:feet, tooth:teeth, man:men, woman:women, goose:geese,
person:people, sheep:sheep, fish:fish, leaf:leaves, knife:knives, wolf:wolves, box:boxes, city:cities,
baby:babies, dog:dogs, cat:cats, book:books, house:houses, bus:buses, potato:potatoes, tomato:tomatoes,
key:keys, story:stories, tree:trees, watch:watches, ox:oxen, life:lives, deer:deer, apple:apples, bird:birds""")
PASTS = _pairs("""go:went, run:ran, eat:ate, see:saw, take:took, give:gave, make:made, write:wrote, read:read,
sing:sang, swim:swam, fly:flew, come:came, know:knew, buy:bought, think:thought, bring:brought, find:found,
sleep:slept, speak:spoke, walk:walked, play:played, work:worked, jump:jumped, drink:drank, sit:sat""")
SOUNDS = _pairs("""dog:barks, cat:meows, cow:moos, duck:quacks, lion:roars, sheep:bleats, horse:neighs,
pig:grunts, bee:buzzes, wolf:howls, snake:hisses, frog:croaks, owl:hoots, mouse:squeaks, bird:sings,
rooster:crows, donkey:brays, bear:growls""")
BABIES = _pairs("""dog:puppy, cat:kitten, cow:calf, sheep:lamb, horse:foal, pig:piglet, lion:cub, bear:cub,
duck:duckling, goat:kid, deer:fawn, frog:tadpole, goose:gosling, kangaroo:joey, hen:chick, swan:cygnet""")
HOMES = _pairs("""bee:hive, bird:nest, dog:kennel, horse:stable, spider:web, rabbit:burrow, bear:cave,
pig:sty, fox:den, fish:water, camel:desert, whale:sea, monkey:jungle, penguin:cold south, cow:barn""")
LEGS = _pairs("""dog:four, cat:four, bird:two, spider:eight, ant:six, bee:six, horse:four, cow:four,
fish:no, snake:no, person:two, chicken:two, octopus:no, beetle:six, frog:four, lion:four, duck:two""")
COLOUR_OF = _pairs("""the sky:blue, grass:green, snow:white, blood:red, a lemon:yellow, a banana:yellow,
coal:black, milk:white, an orange:orange, a carrot:orange, a strawberry:red, the sun:yellow, chocolate:brown,
a frog:green, a tomato:red, the sea:blue, a leaf:green, a raven:black, a swan:white, an elephant:grey""")
MIXES = _pairs("""blue and yellow:green, red and blue:purple, red and yellow:orange, black and white:grey,
red and white:pink""")
KINDS = _pairs("""dog:animal, cat:animal, horse:animal, eagle:bird, owl:bird, penguin:bird, shark:fish,
rose:flower, tulip:flower, oak:tree, pine:tree, apple:fruit, banana:fruit, carrot:vegetable, onion:vegetable,
hammer:tool, saw:tool, piano:musical instrument, violin:musical instrument, guitar:musical instrument,
drum:musical instrument, bee:insect, ant:insect, gold:metal, iron:metal, chair:piece of furniture,
table:piece of furniture, shirt:piece of clothing, football:sport, tennis:sport, chess:game, bread:food,
Mars:planet, Venus:planet, red:colour, Monday:day, May:month, Paris:city""")

TERMS = {
    "router": "A router accepts requests over HTTP and sends each one to a worker that can answer it.",
    "worker": "A worker is a process that holds a model and generates tokens with it.",
    "controller": "The controller starts the routers and workers, watches them, and restarts them when they die.",
    "engine": "An engine is the code inside a worker that runs the model, one step at a time.",
    "token": "A token is a small piece of text, such as a word or a part of a word. Models read and write tokens.",
    "tokenizer": "A tokenizer cuts text into tokens and joins tokens back into text.",
    "batch": "A batch is a group of requests that a model computes together in one step.",
    "batching": "Batching means computing several requests together, so that more tokens are made per second.",
    "continuous batching": "With continuous batching, requests join and leave the batch between steps, so nobody waits for the slowest one.",
    "scheduler": "The scheduler decides which waiting request runs next and on which worker.",
    "queue": "A queue holds the requests that wait for a free slot.",
    "slot": "A slot is room for one running request on a worker.",
    "latency": "Latency is the time that a request takes from start to end.",
    "throughput": "Throughput is the amount of work done per second, for example tokens per second.",
    "prefill": "Prefill is the first step of a request. The model reads the whole prompt and fills its cache.",
    "decode": "Decode is the part of a request in which the model writes one token after another.",
    "prompt": "A prompt is the text that a model is given to answer or to continue.",
    "context length": "The context length is the largest number of tokens that a model can look at in one request.",
    "KV cache": "A KV cache keeps the keys and values of earlier tokens, so that they are not computed again.",
    "streaming": "Streaming means sending each piece of an answer as soon as it is ready.",
    "replica": "A replica is one of several workers that serve the same model.",
    "load balancing": "Load balancing spreads requests over several workers, so that none has too much to do.",
    "temperature": "Temperature sets how random the choice of the next token is. Zero always takes the most likely token.",
    "top_p": "With top_p, the next token is chosen only from the most likely ones that together reach that probability.",
    "seed": "A seed starts the random numbers, so that the same request gives the same answer again.",
    "model": "A model is a set of learned numbers that turns tokens into a guess about the next token.",
    "embedding": "An embedding is a list of numbers that stands for the meaning of a text.",
    "API": "An API is the set of requests that a program accepts from other programs.",
    "endpoint": "An endpoint is an address at which a server accepts one kind of request.",
    "GPU": "A GPU is a chip that does many calculations at once, which suits large models.",
    "server": "A server is a program that waits for requests and answers them.",
    "client": "A client is a program that sends requests to a server.",
    "shared memory": "Shared memory is memory that several processes can read and write without copying.",
    "ring buffer": "A ring buffer is a fixed piece of memory that is written and read in a circle.",
    "back-pressure": "Back-pressure slows a fast writer down when the reader cannot keep up.",
    "timeout": "A timeout is the longest time that someone waits before giving up.",
    "health check": "A health check asks a server whether it is alive and ready.",
    "tool call": "A tool call is an answer in which the model asks the program to run a function.",
    "stop sequence": "A stop sequence is a text that ends the answer as soon as the model writes it.",
    "system prompt": "A system prompt tells the model how to behave before the user speaks.",
    "quantization": "Quantization stores a model with smaller numbers, so that it needs less memory.",
    "fine-tuning": "Fine-tuning trains a finished model a little more on special data.",
    "failover": "Failover moves the work of a broken worker to a healthy one.",
    "checkpoint": "A checkpoint is a saved copy of a model's weights.",
    "weights": "Weights are the numbers that a model has learned.",
    "SMMF": "SMMF is a framework that serves many models behind one OpenAI-compatible endpoint.",
    "HTTP": "HTTP is the language that browsers and servers use to talk to each other.",
    "JSON": "JSON is a simple text format for data, made of names, values, lists and objects.",
    "Python": "Python is a programming language that is easy to read.",
    "computer": "A computer is a machine that follows instructions and works with data.",
}
# What a question is followed by its answer; the last word of a short form is what "one word" asks for.
GENERAL = {
    "How many days are in a week?": ("There are seven days in a week.", "Seven."),
    "How many months are in a year?": ("There are twelve months in a year.", "Twelve."),
    "How many hours are in a day?": ("There are twenty-four hours in a day.", "Twenty-four."),
    "How many minutes are in an hour?": ("There are sixty minutes in an hour.", "Sixty."),
    "How many seconds are in a minute?": ("There are sixty seconds in a minute.", "Sixty."),
    "How many days are in a year?": (
        "There are 365 days in a year, or 366 in a leap year.",
        "365.",
    ),
    "How many letters are in the alphabet?": (
        "There are twenty-six letters in the alphabet.",
        "26.",
    ),
    "How many fingers are on one hand?": ("There are five fingers on one hand.", "Five."),
    "How many wheels does a bicycle have?": ("A bicycle has two wheels.", "Two."),
    "How many wheels does a car have?": ("A car has four wheels.", "Four."),
    "How many sides does a triangle have?": ("A triangle has three sides.", "Three."),
    "How many sides does a square have?": ("A square has four sides.", "Four."),
    "How many planets are there?": ("There are eight planets around the sun.", "Eight."),
    "How many continents are there?": ("There are seven continents.", "Seven."),
    "What are the seasons?": ("The four seasons are spring, summer, autumn and winter.", "Spring."),
    "What are the primary colours?": ("The primary colours are red, yellow and blue.", "Red."),
    "Which planet do we live on?": ("We live on the planet Earth.", "Earth."),
    "What is the largest ocean?": ("The largest ocean is the Pacific Ocean.", "Pacific."),
    "What is the largest planet?": ("The largest planet is Jupiter.", "Jupiter."),
    "What is the largest animal?": ("The largest animal is the blue whale.", "Whale."),
    "What is the tallest animal?": ("The tallest animal is the giraffe.", "Giraffe."),
    "What is the fastest land animal?": ("The fastest land animal is the cheetah.", "Cheetah."),
    "What is the highest mountain?": ("The highest mountain is Mount Everest.", "Everest."),
    "What do bees make?": ("Bees make honey.", "Honey."),
    "What do cows give us?": ("Cows give us milk.", "Milk."),
    "What is frozen water called?": ("Frozen water is called ice.", "Ice."),
    "What do we breathe?": ("We breathe air.", "Air."),
    "What is the first letter of the alphabet?": ("The first letter of the alphabet is A.", "A."),
    "What is the last letter of the alphabet?": ("The last letter of the alphabet is Z.", "Z."),
    "Where does the sun rise?": ("The sun rises in the east.", "East."),
    "Where does the sun set?": ("The sun sets in the west.", "West."),
    "What shines at night?": ("The moon and the stars shine at night.", "Moon."),
    "What do plants need?": ("Plants need water, air and light.", "Water."),
    "What is water made of?": ("Water is made of hydrogen and oxygen.", "Hydrogen."),
    "At what temperature does water boil?": ("Water boils at 100 degrees Celsius.", "100."),
    "At what temperature does water freeze?": ("Water freezes at 0 degrees Celsius.", "0."),
    "What are the days of the week?": (
        f"The days of the week are {', '.join(DAYS[:-1])} and Sunday.",
        "Monday.",
    ),
    "What are the months of the year?": (
        f"The months are {', '.join(MONTHS[:-1])} and December.",
        "January.",
    ),
    "Is the earth round?": ("Yes, the earth is round like a ball.", "Yes."),
    "Is fire cold?": ("No, fire is hot.", "No."),
    "Can fish fly?": ("No, most fish cannot fly. They swim.", "No."),
    "Can birds fly?": ("Yes, most birds can fly.", "Yes."),
    "Can a penguin fly?": ("No, a penguin cannot fly, but it swims very well.", "No."),
    "Is ice cold?": ("Yes, ice is cold.", "Yes."),
}
