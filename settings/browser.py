"""The page in the browser: where it is found, and who vouches for the people that open it."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from settings.base import Domain, Epoch, Matching, Settings, or_also, set_secret

SET_SECRET = set_secret("browser.client_secret")
PRIVATE_TOP_LEVELS = ("internal", "local", "localhost", "lan", "home", "corp", "test", "example", "invalid", "arpa")
"""Ends of names that no public registry sells: Google accepts none of them as a redirect address."""


class Provider(StrEnum):
    """Who vouches for an e-mail address."""

    GITHUB = "github"
    GOOGLE = "google"
    OIDC = "oidc"


class BrowserSettings(Settings):
    """`browser: {}` alone is the page for keyless users; with a provider everybody with an `email` may sign in."""

    domain: Domain | None = Field(
        default=None, description="The page's name; without it `chat.` and the stack's domain. A certificate names it."
    )
    port: int = Field(
        default=8443, ge=1, le=65535, description="The page's port at the tunnel address, for devices without the name."
    )
    provider: Provider | None = Field(default=None, description="Who signs people in; nothing: keyless users only.")
    client_id: Annotated[str, Matching(r"[A-Za-z0-9._:/@-]{1,255}", "a client id as providers write it")] | None = None
    client_secret: SecretStr | None = Field(
        default=None,
        description=f"Encrypted: `{SET_SECRET}` asks for it.",
        json_schema_extra=or_also({"type": "object", "properties": {"secure": {"type": "string"}}}),
    )
    issuer_url: (
        Annotated[
            str,
            Matching(
                r"https://([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:]{2,39}\])(:[1-9][0-9]{0,4})?(/[A-Za-z0-9._~/-]*)?",
                "the issuer of an OpenID provider: write it as its own /.well-known/openid-configuration says it, like "
                "https://login.example.com/realms/home, without a query",
            ),
        ]
        | None
    ) = Field(default=None, description="Of `provider: oidc`.")
    ca_file: Path | None = Field(
        default=None,
        description="PEM authorities of your own provider; without it the public ones are believed.",
    )
    session_hours: int = Field(default=8, ge=1, le=168, description="A sign-in holds for so long.")
    epoch: Epoch = Field(default="1", description="Change it to end every session.")

    @model_validator(mode="after")
    def _all_that_a_provider_needs_and_nothing_else(self) -> Self:
        given = [
            name for name in ("client_id", "client_secret", "issuer_url", "ca_file") if getattr(self, name) is not None
        ]
        if self.provider is None:
            if given:
                raise ValueError(
                    f"{given[0]} is written, but no provider that it is for; add provider: github, google or oidc, or "
                    f"delete {given[0]}"
                )
            return self
        word = self.provider.value
        if self.client_id is None:
            raise ValueError(
                f"provider is {word}, but there is no client_id; register an application there (docs/login.md says "
                "how) and write the id that it is given"
            )
        if self.client_secret is None:
            raise ValueError(f"provider is {word}, but there is no client_secret; run `{SET_SECRET}`")
        if not re.fullmatch(r"[\x21-\x7e]{1,512}|\(encrypted\)", self.client_secret.get_secret_value()):
            raise ValueError(
                "client_secret holds a space, a line end or nothing at all, so it was not copied whole; run "
                f"`{SET_SECRET}` again"
            )
        if self.provider is Provider.OIDC and self.issuer_url is None:
            raise ValueError("provider is oidc, but there is no issuer_url; write it like https://login.example.com")
        for name in ("issuer_url", "ca_file"):
            if self.provider is not Provider.OIDC and name in given:
                raise ValueError(f"{name} is for provider: oidc; {word} is known, so delete {name}")
        return self
