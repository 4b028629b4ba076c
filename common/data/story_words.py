"""The word lists of `common.data.stories`. Every entry of a list fits every sentence that uses the list."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_SHE = "Lily Mia Anna Sue Lucy Emma Ella Zoe Nora Ruby Rosie Molly Daisy Amy Kate Clara Ivy Tina Jane Mara Sara Bella"
_HE = "Tom Ben Tim Max Sam Jack Leo Finn Noah Oscar Toby Billy Charlie Dan Fred George Hugo Jim Luke Pete Will Otto"
NAMES = tuple((name, "she") for name in _SHE.split()) + tuple((name, "he") for name in _HE.split())
AGES = ("little", "young", "small", "tiny")
ANIMALS = _words("fox bear rabbit mouse cat dog pig duck frog squirrel hedgehog turtle elephant lion goat lamb")
WILD = _words("bird kitten puppy owl deer rabbit duckling hedgehog squirrel turtle butterfly lamb fox foal")
ELDERS = (
    ("mom", "she"),
    ("dad", "he"),
    ("grandma", "she"),
    ("grandpa", "he"),
    ("aunt", "she"),
    ("uncle", "he"),
    ("big sister", "she"),
    ("big brother", "he"),
)
PLACES = (
    "the park",
    "the river",
    "the forest",
    "the beach",
    "the farm",
    "the garden",
    "the old bridge",
    "the hill",
    "the lake",
    "the meadow",
    "the pond",
    "the big tree",
    "the playground",
    "the market",
    "the barn",
    "the apple trees",
)
THINGS = _words(
    "ball kite boat drum doll truck hat box bell book wagon train scarf cup lamp spoon basket balloon button ring "
    "blanket shell car bucket whistle puzzle crown mirror key stone"
)
COLOURS = _words("red blue green yellow pink purple orange white brown golden silver striped")
SIZES = _words("big small tiny huge little pretty soft old new shiny strange lovely")
TRAITS = _words("kind brave curious happy shy clever silly gentle quiet friendly careful cheerful")
HOBBIES = (
    "sing",
    "run",
    "dance",
    "draw pictures",
    "climb trees",
    "look at the stars",
    "pick flowers",
    "read books",
    "help others",
    "tell jokes",
    "build towers",
    "swim",
    "jump in puddles",
    "play hide and seek",
    "feed the ducks",
    "watch the clouds",
)
CLOTHES = ("hat", "scarf", "coat", "shirt", "sweater", "belt")
WEATHER = ("sunny", "warm", "cold", "windy", "bright", "cloudy", "quiet", "snowy", "foggy", "lovely")
TIMES = ("morning", "day", "afternoon", "evening")
SAD = ("very sad", "so sad", "a little sad", "sad and alone", "worried", "very upset")
ANGRY = ("angry", "very angry", "cross and tired", "upset", "red in the face")
QUEASY = ("bad inside", "funny in the tummy", "a little guilty", "sorry", "unsure")
SPOTS = (
    "under the bed",
    "behind the door",
    "in the kitchen",
    "near the fence",
    "in the long grass",
    "on the stairs",
    "beside the well",
    "in the shed",
    "behind the wall",
    "under the table",
)
HIDING = (
    "under a bush",
    "behind a rock",
    "in a hollow log",
    "under some leaves",
    "between two roots",
    "near a puddle",
    "behind a fence",
    "beside a flower",
    "in a small hole",
)
SMALL_THINGS = (
    "feather",
    "leaf",
    "snail",
    "stick",
    "pebble",
    "spider",
    "pine cone",
    "flower",
    "nut",
    "piece of string",
    "ladybug",
    "worm",
)
NOISES = ("soft noise", "loud noise", "funny sound", "tiny voice", "strange sound", "quiet cry", "little squeak")
HOW = ("slowly", "quietly", "gently", "happily", "carefully", "patiently", "with care", "with a smile", "softly")
PLAYED = ("played", "danced", "ran around", "sang songs", "rolled in the grass", "made up games")
SKILLS = (
    "ride a bike",
    "swim",
    "whistle",
    "tie a knot",
    "climb the rope",
    "bake bread",
    "skip stones",
    "jump over the stream",
    "write a letter",
    "play the drum",
    "fly a kite",
    "count to one hundred",
    "stand on one leg",
    "catch a ball",
)
FAILED = ("fell down", "got stuck", "made a big mess", "had to stop", "lost count of what to do", "bumped a knee")
TROUBLES = (
    "stuck in the mud",
    "caught in a net",
    "lost and hungry",
    "too weak to walk",
    "trapped under a branch",
    "wet and cold",
    "tangled in a string",
    "afraid to come down",
)
TOOLS = ("a rope", "some string", "a long stick", "a warm towel", "a pair of scissors", "a small ladder", "some glue")
FOODS = ("bread", "soup", "berries", "apples", "cake", "cookies", "milk and honey", "carrots", "pie", "nuts", "cheese")
EYES = ("big", "bright", "thankful", "round", "warm", "shiny")
GOOD = ("kind", "brave", "strong", "helpful", "good", "gentle")
STORMS = (
    "it began to rain",
    "the wind blew hard",
    "thunder rolled over the hills",
    "it started to snow",
    "big drops fell from the clouds",
    "lightning lit up the trees",
)
SHELTERS = ("under a big leaf", "in an old shed", "in a little cave", "under a bridge", "beneath a tall tree")
PASTIMES = ("sang a song", "told stories", "counted the drops", "played a clapping game", "named all their friends")
LIGHTS = ("umbrella", "lamp", "blanket", "lantern", "coat")
SIGHTS = ("rainbow", "family of ducks", "puddle as big as a house", "butterfly", "bright new flower", "happy snail")
MADE = (
    "paper crown",
    "birthday cake",
    "wooden boat",
    "flower necklace",
    "picture book",
    "little house",
    "paper dragon",
    "bird house",
    "clay pot",
    "song book",
)
STEPS = ("cut and folded", "mixed and stirred", "painted and waited", "measured twice", "pressed and pulled")
MISHAPS = (
    "one side broke",
    "the paint ran everywhere",
    "a corner got wet",
    "the cat sat on it",
    "it lost its shape",
    "the top came off",
)
SHINY = ("shiny", "bright", "strange", "pretty", "new", "small and round")
MORALS = {
    "lost": ("friends help each other", "it is all right to ask for help", "two can find more than one"),
    "share": ("it is good to share", "a turn for each is fair", "playing together is the most fun"),
    "learn": ("trying again is brave", "being patient is worth it", "nobody can do everything at first"),
    "help_animal": (
        "being kind makes everyone happy",
        "nobody is too little to help",
        "every animal needs a friend",
    ),
    "storm": ("everyone is afraid sometimes", "holding hands makes you brave", "the sun comes back after the rain"),
    "make": (
        "a present made with love is the best",
        "broken things can be fixed",
        "small things can bring big joy",
    ),
    "find": ("telling the truth feels good", "it is right to give things back", "a friend is worth more than a thing"),
}
"""The closing sentences of each plot: {plot: morals}."""
AFTER = (
    "were best friends",
    "played together every day",
    "always helped each other",
    "met every week",
    "shared all they had",
    "went on many more adventures",
    "told the story again and again",
)
