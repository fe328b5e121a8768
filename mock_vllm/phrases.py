"""The words answers are made of. `{topic}` is a word of the prompt; the rest is drawn from the lists."""

OPENINGS = (
    "Here is what matters most about {topic}.",
    "The short answer on {topic} is that it depends on the {noun}.",
    "In brief, {topic} is a question of the {adjective} {noun}.",
    "A useful way to think about {topic} is to start with the {noun}.",
    "When people ask about {topic}, they usually mean the {noun}.",
    "Let us look at {topic} step by step.",
    "The {adjective} part of {topic} is the {noun}.",
    "There are two sides to {topic}: the {noun} and the {noun2}.",
    "To answer plainly, {topic} {verb} the {noun}.",
    "Most of what is written about {topic} {verb} only the {noun}.",
    "For {topic}, the {adjective} {noun} is a good place to begin.",
    "Think of {topic} as a {adjective} {noun} with a {noun2} behind it.",
)

SENTENCES = (
    "First, check that the {noun} {verb} the {noun2}.",
    "The {adjective} {noun} {verb} a {noun2} of its own.",
    "In practice, a {adjective} {noun} is worth more than a {adjective2} {noun2}.",
    "That is why the {noun} should come before the {noun2}.",
    "A careful reader will notice that {topic} {verb} the {noun2}.",
    "If the {noun} changes, the {noun2} changes with it.",
    "Each {noun} has a {noun2}, and each {noun2} has a cost.",
    "It helps to write down the {noun} before you change the {noun2}.",
    "With a {adjective} {noun}, {topic} becomes much easier to explain.",
    "The same is true of every {adjective} {noun}.",
    "Keep the {noun} small, and let the {noun2} grow when it must.",
    "Nothing in the {noun} depends on the {noun2}, so either can go first.",
    "The {noun} tells you how much, and the {noun2} tells you for whom.",
    "Where the {noun} is {adjective}, the {noun2} can be {adjective2}.",
    "Over time, the {adjective} {noun} {verb} the whole {noun2}.",
    "One {adjective} {noun} is enough for most teams.",
    "Ask what the {noun} costs, and who pays for the {noun2}.",
    "For {topic}, a {adjective} estimate beats a precise guess.",
)

CLOSINGS = (
    "That is all there is to {topic}.",
    "In the end, {topic} comes down to the {noun}.",
    "Start small, measure, and adjust the {noun}.",
    "If in doubt, trust the {adjective} {noun}.",
    "Everything else about {topic} follows from that.",
    "I hope this helps with {topic}.",
)

NOUNS = (
    "answer", "budget", "cache", "claim", "context", "count", "detail", "engine", "example", "figure",
    "habit", "history", "idea", "invoice", "ledger", "limit", "map", "measure", "method", "model",
    "number", "order", "pattern", "plan", "price", "queue", "reason", "record", "result", "rule",
    "sample", "scale", "signal", "source", "story", "token", "trace", "unit", "value", "window",
)  # fmt: skip

ADJECTIVES = (
    "brief", "calm", "careful", "clear", "common", "daily", "direct", "early", "exact", "fair",
    "familiar", "final", "first", "gentle", "good", "honest", "large", "local", "modest", "open",
    "plain", "practical", "quiet", "ready", "recent", "regular", "shared", "simple", "small", "steady",
    "strong", "sound", "useful", "warm", "whole", "wide",
)  # fmt: skip

VERBS = (
    "carries", "changes", "checks", "counts", "covers", "defines", "explains", "follows", "guides", "holds",
    "includes", "keeps", "limits", "marks", "measures", "moves", "needs", "orders", "pays for", "predicts",
    "records", "repeats", "shapes", "shows", "stores", "supports", "tracks", "weighs",
)  # fmt: skip

# Too common to be what a prompt is about.
COMMON_WORDS = frozenset((
    "about", "above", "after", "again", "against", "also", "another", "answer", "because", "been", "before",
    "being", "between", "both", "does", "doing", "down", "during", "each", "explain", "every", "from",
    "give", "have", "having", "here", "hers", "himself", "into", "itself", "just", "list", "make", "many",
    "more", "most", "much", "must", "name", "once", "only", "other", "over", "please", "same", "shall",
    "should", "show", "some", "such", "sure", "tell", "than", "that", "their", "them", "then", "there",
    "these", "they", "thing", "this", "those", "through", "under", "until", "very", "want", "well", "were",
    "what", "when", "where", "which", "while", "will", "with", "word", "words", "would", "write", "your",
    "yours",
))  # fmt: skip
