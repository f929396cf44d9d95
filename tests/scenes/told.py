"""Whether a sentence of the service stands in a text: by the sentence's name and the facts in it, and not by its words."""

import re
from string import Formatter

from service.db.tables import Job
from tests.scenes.deaths import story


def pattern(sentence: str, **facts: object) -> str:
    """A regular expression for a sentence of `service`; what stands at its other places may be anything."""
    parts = []
    for literal, name, _, _ in Formatter().parse(sentence):
        parts.append(re.escape(literal))
        if name is not None:
            parts.append(re.escape(str(facts[name])) if name in facts else ".+?")
    return "".join(parts)


def tells(job: Job, sentence: str, **facts: object) -> bool:
    """Whether the story of a lost job has the sentence."""
    return re.search(pattern(sentence, **facts), story(job)) is not None
