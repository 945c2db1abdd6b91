"""What every settings model shares, and the values that many of them check the same way."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.config import JsonDict
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


class Settings(BaseModel):
    """A strict, immutable part of the stack config."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",  # a misspelt key is an error, never a default in disguise
        hide_input_in_errors=True,  # pydantic prints refused values, and one may be a secret
    )


@dataclass(frozen=True)
class Matching:
    """The whole value matches a pattern; editors learn of it by the JSON schema."""

    pattern: str
    what: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | {"pattern": f"^{self.pattern}$"}

    def _check(self, value: str) -> str:
        if not re.fullmatch(self.pattern, value):
            raise ValueError(f"{value!r} is not {self.what}")
        return value


Name = Annotated[
    str,
    Matching(
        r"[a-z0-9]([a-z0-9._-]{0,30}[a-z0-9])?",
        "a name: write lower-case letters, digits, '.', '_' or '-', at most 32, beginning and ending with a letter "
        "or digit",
    ),
]
"""A user or device name. It becomes part of file names, certificates and config text, so little is allowed."""

StackName = Annotated[
    str,
    Matching(
        r"[a-z0-9][a-z0-9-]{0,30}", "a stack name: write lower-case letters, digits or '-', at most 31 characters"
    ),
]

Domain = Annotated[
    str,
    Matching(
        r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])",
        "a domain name: write it like ollama.fortress.internal, in lower case, without spaces or a trailing dot",
    ),
]

EMAIL = r"[a-z0-9.!#$%&*+/=?^_`{|}~-]{1,64}@[a-z0-9.-]{1,190}"

Email = Annotated[str, Matching(EMAIL, "an e-mail address in lower case")]

Origin = Annotated[
    str,
    Matching(
        r"(?!http://[^/]*:80$)(?!https://[^/]*:443$)"
        r"[a-z][a-z0-9+.-]{0,30}://([a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?|\[[0-9a-f:]{2,39}\])(:[1-9][0-9]{0,4})?",
        "an origin: write it as the browser sends it, like https://chat.example.com or http://localhost:3000, in lower "
        "case, without a path and without the scheme's own port; '*' and 'null' would be every page there is",
    ),
]
"""A site whose pages may call the gateway from a browser, with a key."""

Epoch = Annotated[
    str, Matching(r"[A-Za-z0-9-]{1,32}", "an epoch: write a short word or number in quotes, for example '2'")
]
"""A word whose change renews one family of keys."""


def differs(where: str, epoch: str, previous: str, family: str = "") -> None:
    """Is it another word? family: what stands before `epoch` in the two fields' names, like `ca_`."""
    if epoch == previous:
        raise ValueError(
            f"{where}, the same word as {family}epoch, so nothing would be renewed. Write the word that {family}epoch "
            f"had before, or delete previous_{family}epoch"
        )


def set_secret(place: str) -> str:
    """The command that asks for one secret of the config and encrypts it. place: like `browser.client_secret`."""
    return f"pulumi config set --secret --path 'ollama-fortress:{place}'"


MODEL_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*){0,3}(:[A-Za-z0-9][A-Za-z0-9._-]*)?"

REGISTRY = "registry.ollama.ai/"


def _without_the_registry(value: str) -> str:
    if "*" in value and value.lower().startswith(REGISTRY):
        short = value[len(REGISTRY) :]
        raise ValueError(
            f"{value!r} would fit no model: names are judged without Ollama's own registry. Leave it out: write "
            f"{short if short != '*' else 'library/*'!r}, or '*' for every model"
        )
    return value


ModelPattern = Annotated[
    str,
    Matching(
        r"(?!.*\.\.)[A-Za-z0-9*][A-Za-z0-9*._:/-]{0,127}",
        "a model name or pattern: write it like llama3.2:3b or llama3.2:*, without '..'",
    ),
    AfterValidator(_without_the_registry),
]


def or_also(other: JsonDict) -> Callable[[JsonDict], None]:
    """For a field that a validator fills from a shorter form too: the JSON schema must know that form."""

    def change(schema: JsonDict) -> None:
        kept = {key: schema.pop(key) for key in list(schema) if key not in ("description", "default", "title")}
        schema["anyOf"] = [kept, other]

    return change


def or_each(other: JsonDict) -> Callable[[JsonDict], None]:
    """The same for the elements of a list, or the values of an object."""

    def change(schema: JsonDict) -> None:
        if "items" in schema:
            schema["items"] = {"anyOf": [schema["items"], other]}
        by_name = schema.get("patternProperties", {})
        assert isinstance(by_name, dict)
        for pattern, value in by_name.items():
            by_name[pattern] = {"anyOf": [value, other]}
            schema["additionalProperties"] = False

    return change
