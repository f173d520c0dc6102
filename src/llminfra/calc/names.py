"""Names as people write them: which card, model or precision is meant, or what is near."""

PRECISIONS = {
    "float32": "fp32",
    "float16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
    "w8a8": "int8",
    "awq": "int4",
    "gptq": "int4",
    "w4a16": "int4",
    "4bit": "int4",
    "bitsandbytes": "nf4",
    "bnb4bit": "nf4",
}
"""Other names of the formats of `memory.BITS`."""

MAKERS = ("nvidia", "geforce", "amd", "instinct", "tesla", "sxm5", "sxm4", "sxm2", "sxm", "hbm3", "gpu")
"""Words in the names of cards that tell none apart."""

SUFFIXES = (
    ("gptqint4", "int4"),
    ("gptqint8", "int8"),
    ("gptq", "int4"),
    ("awq", "int4"),
    ("w4a16", "int4"),
    ("bnb4bit", "nf4"),
    ("fp8dynamic", "fp8"),
    ("fp8", "fp8"),
    ("w8a8", "int8"),
    ("int8", "int8"),
    ("int4", "int4"),
    ("nvfp4", "nvfp4"),
)
"""How the names of quantized checkpoints end, the longest first, and the precision that this says."""

KINDS = ("hf", "it", "base")
"""Words at the end of a model's name that leave its shape as it is, as "instruct" and "chat" do anywhere in it."""

SOLD_AS = {"h10080gb": "h100", "h200141gb": "h200", "h2096gb": "h20", "mi300xoam": "mi300x"}
"""How the driver names cards that come in one size."""


def compact(name: str) -> str:
    """Return a name in lower case, with letters and digits alone."""
    return "".join([letter for letter in str(name).lower() if letter.isalpha() or letter.isdigit()])


def _without(words: tuple, name: str) -> str:
    for word in words:
        name = name.replace(word, "")
    return name


def _shape(name: str) -> str:
    """Return a compact model name without its owner and the words that leave its shape as it is."""
    short = _without(("instruct", "chat"), compact(str(name).split("/")[-1]))
    if short.startswith("metallama"):
        short = short[4:]
    for word in KINDS:
        if short.endswith(word) and len(short) > len(word):
            return short[: len(short) - len(word)]
    return short


def gpu(name: str, known: list) -> "str | None":
    """Return the known card that is meant: upper and lower case, blanks, makers and sockets do not matter. None if none is."""
    wanted = _without(MAKERS, compact(name))
    wanted = SOLD_AS.get(wanted, wanted)
    for one in known:
        if one == name or compact(one) == wanted:
            return one
    return None


def precision(name: str, known: tuple) -> "str | None":
    """Return the known precision that is meant, or None."""
    wanted = compact(name)
    return wanted if wanted in known else PRECISIONS.get(wanted)


def quantized(name: str) -> tuple:
    """Return a model's name without what says how it is quantized, and the precision that this says ("" if nothing does)."""
    short = compact(str(name).split("/")[-1])
    for ending, meant in SUFFIXES:
        if short.endswith(ending) and len(short) > len(ending):
            return short[: len(short) - len(ending)], meant
    return name, ""


def model(name: str, known: list) -> "str | None":
    """Return the known model that is meant; `known` are (name, published id). None if none is.

    An exact name or id goes first, then one that differs in case, blanks or its owner, then one of the same shape: another
    ending such as -Instruct, or a quantized checkpoint of it.
    """
    for reading in (
        lambda text: str(text).lower(),
        lambda text: compact(str(text).split("/")[-1]),
        _shape,
        lambda text: _shape(quantized(text)[0]),
    ):
        for one, published in known:
            if reading(name) in (reading(one), reading(published)):
                return one
    return None
