"""Word lists that the templates draw from; all chosen by hand for this project, no corpus behind them."""

NAMES = (
    "Ada Alan Alba Alex Alice Amara Amir Amy Anna Anton Aria Arun Ben Bella Bert Bob Boris Carla Carl "
    "Cara Chen Clara Cora Dana Dan David Dora Elena Eli Ella Emil Emma Eric Erik Eva Finn Flora Frank "
    "Fred Gina Grace Greta Gus Hana Hans Harry Helen Henry Hugo Ida Igor Ines Iris Ivan Ivy Jack Jada "
    "Jan Jane Jim Joan Joe John Jon Jude Julia June Kai Karl Kate Kim Kira Lars Laura Lea Leo Lena Lily "
    "Lin Lisa Liam Lola Louis Lucy Luis Luna Mara Marco Maria Mark Mary Max Maya Mei Mia Mila Milo Mina "
    "Mira Nadia Nell Nick Nina Noah Nora Olga Oscar Otto Pam Paul Peter Petra Pia Priya Raj Rita Rob "
    "Rosa Ruth Sam Sara Sean Sofia Stella Sven Tara Ted Tess Theo Tim Tina Tom Uma Vera Victor Will "
    "Wanda Yara Yuki Yusuf Zara Zoe"
).split()
BOT_NAMES = (
    "Atlas Bolt Beacon Cosmo Dot Echo Ember Fable Gizmo Harbor Iris Jasper Kepler Lumen Mango Nimbus "
    "Nova Onyx Orbit Pebble Pixel Quill Robin Sage Scout Sparky Tango Umber Vega Willow Xeno Yonder Zip"
).split()
ANIMALS = (
    "ant badger bat bear beaver bee beetle bird butterfly camel cat chicken cow crab crow deer dog "
    "dolphin donkey dragon duck eagle elephant fish fox frog giraffe goat goose hamster hare hedgehog "
    "hen horse kangaroo kitten lamb lion lizard mole monkey moose mouse octopus otter owl panda parrot "
    "penguin pig pony puppy rabbit rat raven robin seal shark sheep snail snake spider squirrel swan "
    "tiger toad turtle whale wolf worm zebra"
).split()
PLACES = (
    "barn|beach|bridge|castle|cave|city|desert|farm|field|forest|garden|harbour|hill|house|island|"
    "jungle|kitchen|lake|library|lighthouse|market|meadow|mill|mountain|museum|orchard|palace|park|"
    "river|school|sea|shop|station|tower|town|valley|village|wood|workshop|zoo"
).split("|")
FOODS = (
    "apple banana bean berry bread butter cake carrot cheese cherry corn egg fig grape honey jam lemon "
    "melon milk nut onion orange pasta pea peach pear pie plum potato rice salad soup tea tomato"
).split()
FRUITS = "apple banana cherry fig grape lemon melon orange peach pear plum".split()
VEGETABLES = "bean cabbage carrot corn leek onion pea pepper potato pumpkin turnip".split()
OBJECTS = (
    "bag ball basket bell blanket boat book bottle bowl box brush bucket button candle chair clock coat "
    "coin comb cup desk door drum flag flute hammer hat key kite ladder lamp letter map mirror needle "
    "net pan pen pencil phone picture plate pot ring rope sack scarf ship shoe spoon stick stone sword "
    "table tent torch toy train umbrella wagon watch wheel whistle window"
).split()
COLOURS = "red blue green yellow orange purple pink brown black white grey gold silver".split()
CITIES = (
    "Paris London Berlin Rome Madrid Vienna Prague Oslo Lisbon Athens Cairo Tokyo Delhi Boston Chicago "
    "Dublin Geneva Hamburg Helsinki Istanbul Kyoto Lima Lyon Milan Moscow Mumbai Munich Nairobi Naples "
    "Osaka Porto Quito Riga Santiago Seattle Seoul Sydney Toronto Turin Warsaw Zurich"
).split()
JOBS = (
    "artist baker builder captain carpenter chef dancer doctor driver farmer fisher gardener judge "
    "king lawyer librarian miller miner nurse painter pilot poet queen sailor singer smith soldier "
    "tailor teacher waiter writer"
).split()
ADJECTIVES = (
    "big bold brave bright calm clever cold curious fast friendly funny gentle happy honest hungry kind "
    "lazy little lonely loud lucky merry old patient polite proud quick quiet sad shy silly sleepy slow "
    "small smart soft strong tall tiny tired warm wise young"
).split()
VERBS = (
    "bake bring build buy carry catch check clean climb cook count dance dig draw drink eat fetch find "
    "fix fly give grow help hide jump keep learn listen look make meet move open paint plan play pull "
    "push read run sell send sing sit sleep stop swim take talk teach throw turn visit wait walk wash "
    "watch work write"
).split()
COUNTRIES = (
    "Brazil Canada Chile China Egypt France Germany Greece India Italy Japan Kenya Spain".split()
)
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = (
    "January February March April May June July August September October November December"
).split()
NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
).split()
HOBBIES = (
    "reading|cooking|swimming|running|music|painting|chess|dancing|gardening|fishing|singing|hiking|"
    "skating|sailing|baking|drawing|football|tennis|films|photography"
).split("|")
# Words that look like what people put into requests: used in random sentences and identifiers.
PLAIN = (
    "account address agent alarm amount answer batch blue branch budget cache case chain change chart "
    "city client cloud code color common copy cost count current customer data date day default detail "
    "device draft email engine error event extra factor fast field file filter final first flag format "
    "free full game global grade graph green group hello home hour house icon image index info input "
    "item job junior key label large last level light limit line link list local log long lunch mail "
    "main map market member memory message meter mode model month music name network new next night "
    "node note number offer office open order output owner page paper part path phone photo plan point "
    "price print profile project public quick quote random range rate ready record red region report "
    "request result road role room route rule sale sample score search secret server session set sign "
    "simple size small sound source space speed stage start state status step stock store stream street "
    "summer sun system tag target task team term test text theme ticket time title token total track "
    "travel tree type unit update user value video view water weather web week white window winter word "
    "work world year zone"
).split()


_ON = "bridge farm field hill island meadow mountain".split()
_AT = "beach lake market museum sea school station".split()


def at(place: str) -> str:
    """The place with its preposition: "on the hill"."""
    return f"{'on' if place in _ON else 'at' if place in _AT else 'in'} the {place}"


def article(word: str) -> str:
    """The word with "a" or "an" in front of it."""
    vowel = (word[0] in "aeiouAEIO" and not word.startswith("uni")) or word.startswith("honest")
    return ("an " if vowel else "a ") + word
