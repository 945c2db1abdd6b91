"""What every settings model shares, and the values that many of them check the same way."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


class Settings(BaseModel):
    """A strict, immutable part of the stack config."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",  # a misspelt key is an error, never a default in disguise
        hide_input_in_errors=True,  # pydantic prints refused values, and one may be a secret
    )


def _matching(pattern: str, what: str) -> AfterValidator:
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(f"{value!r} is not {what}")
        return value

    return AfterValidator(check)


Name = Annotated[
    str,
    _matching(
        r"[a-z0-9]([a-z0-9._-]{0,30}[a-z0-9])?",
        "a name: write lower-case letters, digits, '.', '_' or '-', at most 32, beginning and ending with a letter "
        "or digit",
    ),
]
"""A user or device name. It becomes part of file names, certificates and config text, so little is allowed."""

StackName = Annotated[
    str,
    _matching(
        r"[a-z0-9][a-z0-9-]{0,30}", "a stack name: write lower-case letters, digits or '-', at most 31 characters"
    ),
]

Domain = Annotated[
    str,
    _matching(
        r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])",
        "a domain name: write it like ollama.fortress.internal, in lower case, without spaces or a trailing dot",
    ),
]

Email = Annotated[
    str,
    _matching(r"[a-z0-9.!#$%&*+/=?^_`{|}~-]{1,64}@[a-z0-9.-]{1,190}", "an e-mail address in lower case"),
]

Epoch = Annotated[
    str, _matching(r"[A-Za-z0-9-]{1,32}", "an epoch: write a short word or number in quotes, for example '2'")
]
"""A word whose change renews one family of keys."""

MODEL_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*){0,3}(:[A-Za-z0-9][A-Za-z0-9._-]*)?"

ModelPattern = Annotated[
    str,
    _matching(
        r"(?!.*\.\.)[A-Za-z0-9*][A-Za-z0-9*._:/-]{0,127}",
        "a model name or pattern: write it like llama3.2:3b or llama3.2:*, without '..'",
    ),
]
