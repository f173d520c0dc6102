"""A company that exists for one grading: its documents, and questions whose answers are known, all drawn."""

from __future__ import annotations

import random
from dataclasses import dataclass

NAMES = [
    "Harrow",
    "Tessel",
    "Brackwater",
    "Ondine",
    "Kestrel",
    "Murmur",
    "Palisade",
    "Quillon",
    "Sorrel",
    "Thornbury",
    "Umbra",
    "Vantage",
    "Wexcombe",
    "Yarrow",
    "Zephyrine",
    "Larkspur",
]
DAYS = ["Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays"]

FACTS = {
    "On call": [
        (
            "The rota changes hands every {n} days, always at noon.",
            "After how many days does the {service} pager move to the next engineer?",
        ),
        (
            "Whoever is paged acknowledges within {n} minutes.",
            "How fast must an engineer react to an alert of {service}?",
        ),
    ],
    "Capacity": [
        (
            "A worker holds {n} connections before new ones are turned away.",
            "How many clients can one {service} process serve at once?",
        ),
        ("Disks are enlarged once they are {n} percent full.", "At what fill level does {service} get more storage?"),
    ],
    "Backups": [
        (
            "Old copies are kept for {n} weeks and then destroyed.",
            "For how long can a lost file of {service} still be restored?",
        ),
        (
            "A restore is rehearsed every {n} days on a spare machine.",
            "How often do they practise recovering {service} from its backups?",
        ),
    ],
    "Costs": [
        ("Each team is charged {n} euros for a million calls.", "What does a department pay for using {service}?"),
        ("The yearly licence amounts to {n} thousand euros.", "How expensive is the annual subscription of {service}?"),
    ],
    "Releases": [
        (
            "New versions first reach {n} percent of all users.",
            "Which share of the customers gets an update of {service} before the others?",
        ),
        (
            "A release is rolled back when {n} in a thousand requests fail.",
            "What error rate undoes a deployment of {service}?",
        ),
    ],
    "Access": [
        (
            "Keys expire after {n} days and are renewed by their owners.",
            "How long does a credential for {service} stay valid?",
        ),
        ("After {n} failed attempts an account is locked.", "How many wrong passwords does {service} tolerate?"),
    ],
}
FILLER = {
    "On call": "The engineer on duty keeps a laptop at hand. Handover takes place in the team's channel, with a list of open incidents. "
    "Nobody is on duty twice in a row. Time off after a night call is agreed with the lead. The escalation path ends with the head of operations.",
    "Capacity": "Growth is reviewed with the product managers. Load tests run against a copy of the busiest hour. "
    "Autoscaling adds workers slowly and removes them more slowly still. A queue in front absorbs short peaks. Limits are raised by a merge request that two engineers approve.",
    "Backups": "Snapshots are taken at night and copied to another region. Encryption keys are stored elsewhere. "
    "The checksum of every copy is compared on the next morning. Deleting one by hand needs a second person. The storage class is the cheapest that still allows quick reads.",
    "Costs": "The invoice is split by the tags on each request. Untagged traffic is paid by platform. "
    "Finance publishes the figures in the first week of a month. Budgets are a matter for department heads. Discounts are negotiated centrally by the purchasing group.",
    "Releases": "Changes are merged by the author after review. The pipeline builds, tests and signs an image. "
    "Feature flags are removed when nobody has touched them for a while. The changelog is written for customers, not for engineers. Nothing ships on the day before a holiday.",
    "Access": "Accounts follow the staff directory. Group membership is requested through the portal and approved by the owner. "
    "Service accounts never belong to a person. Administrators use separate logins. Every session is recorded in the audit trail.",
}
TROUBLES = (
    "the spindle was not aligned|the token could not be parsed|the upstream refused the handshake|the ledger was locked by another writer|"
    "the certificate had no chain|the schema version was unknown|the queue was paused by an operator|the payload exceeded its envelope|"
    "the clock of the sender was ahead|the tenant had been archived|the shard was being moved|the signature was from a retired key"
)
UNRELATED = [
    "How do I bake a sourdough bread?",
    "Who painted the Mona Lisa?",
    "What is the capital of Australia?",
    "How tall is Mount Everest?",
    "When do tulips bloom in Holland?",
    "Which chord follows a dominant seventh?",
    "How many players are in a volleyball team?",
    "What do penguins eat in winter?",
    "Why is the sky blue at noon?",
    "How is a violin tuned?",
    "Who wrote Don Quixote?",
    "What is the best season to visit Patagonia?",
    "How do bees find their way home?",
    "Which planet has the largest moon?",
    "How long should spaghetti boil?",
    "What colour do red and yellow paint make?",
]


@dataclass(frozen=True)
class Question:
    """A question, the document that answers it, the sentence that does, and the figure in it."""

    text: str
    document: str
    sentence: str
    figure: str

    @property
    def direct(self) -> str:
        """A question that any search answers: it has the words and the figure of the sentence."""
        service = self.document.removeprefix("handbooks/").removesuffix(".md")
        return f"What does the handbook of {service} say: {self.sentence}"


@dataclass
class World:
    """Documents, {id, text, roles}, and questions: in other words than the documents, and by the codes of errors."""

    documents: list[dict]
    questions: list[Question]
    codes: list[Question]

    def document(self, id: str) -> dict:
        """The document with this id."""
        return next(one for one in self.documents if one["id"] == id)


def world(draw: random.Random, services: int = 5, codes: int = 160) -> World:
    """Draw a company with so many services, a handbook each, and a catalogue of so many error codes. Everybody in staff may read them."""
    figures = draw.sample(range(11, 980), 2 * len(FACTS) * services)
    documents, questions = [], []
    for service in draw.sample(NAMES, services):
        id = f"handbooks/{service.lower()}.md"
        parts = [f"# {service}", f"This handbook is for those who run {service}. It is reviewed by its owners."]
        for section in draw.sample(list(FACTS), len(FACTS)):
            filler = FILLER[section].split(". ")
            sentences = [one if one.endswith(".") else f"{one}." for one in draw.sample(filler, len(filler))]
            for statement, asked in FACTS[section]:
                figure = str(figures.pop())
                fact = statement.format(n=figure)
                sentences.insert(draw.randrange(len(sentences) + 1), fact)
                questions.append(Question(asked.format(service=service), id, fact, figure))
            half = draw.randrange(3, 6)
            parts += [f"## {section}", " ".join(sentences[:half]), " ".join(sentences[half:])]
        documents.append({"id": id, "text": "\n\n".join(parts) + "\n", "roles": ["staff"]})
    lines, asked_codes = [], []
    for number in draw.sample(range(1000, 9999), codes):
        code = f"{draw.choice('QXVZ')}{draw.choice('XKTW')}-{number}"
        line = f"- {code}: {draw.choice(TROUBLES.split('|'))}."
        lines.append(line)
        asked_codes.append(Question(f"What is wrong when {code} is reported?", "errors.md", line, str(number)))
    catalogue = "# Error catalogue\n\nEvery code that a service reports is listed here.\n\n" + "\n".join(lines) + "\n"
    documents.append({"id": "errors.md", "text": catalogue, "roles": ["staff"]})
    draw.shuffle(questions)
    return World(documents, questions, asked_codes)


def flat(text: str) -> str:
    """The text with single spaces."""
    return " ".join(text.split())


def holds(passage: dict, question: Question) -> bool:
    """Whether a passage that was found answers the question."""
    return passage["document"] == question.document and flat(question.sentence) in flat(passage["text"])
