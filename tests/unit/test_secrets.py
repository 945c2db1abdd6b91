"""A secret in plain text is refused wherever the config may hold one, by `fortress` and by the program itself."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from fortress import paths, stack_file
from settings import PROJECT, ConfigRefused, refuse_plain
from settings.base import set_secret
from settings.secrets import places

PLACES = {
    "browser.client_secret",
    "observability.alerts.email.password",
    "observability.alerts.ntfy.token",
    "observability.alerts.ntfy.url",
    "observability.alerts.telegram.bot_token",
    "observability.alerts.webhook.url",
    "observability.object_storage.secret_key",
}
SECRET = "0ur-s3cret"


def config(place: str, value: Any) -> dict[str, Any]:
    """One key of the config with one value deep inside it."""
    key, *parts = place.split(".")
    for part in reversed(parts):
        value = {part: value}
    return {f"{PROJECT}:{key}": value}


def test_every_secret_of_the_settings_is_known():
    assert {".".join(path) for path in places()} == PLACES


@pytest.mark.parametrize("place", sorted(PLACES))
@pytest.mark.parametrize("as_text", [False, True], ids=["YAML", "JSON as text"])
def test_a_stack_file_with_a_plain_secret_is_refused_with_the_command_that_encrypts_it(
    place: str, as_text: bool, tmp_path: Path
):
    file = tmp_path / "Pulumi.home.yaml"

    def write(value: Any) -> None:
        written = config(place, value)
        texts = {key: json.dumps(inner) for key, inner in written.items()}
        file.write_text(yaml.safe_dump({"config": texts if as_text else written}))

    write(SECRET)
    with pytest.raises(ConfigRefused) as refused:
        stack_file.read(file)
    assert f"{place}: is a secret in plain text; delete that line, run `{set_secret(place)}`" in str(refused.value)
    assert SECRET not in str(refused.value)
    if not as_text:
        write({"secure": "v1:abc"})
        assert stack_file.read(file)
    # YAML makes a number of a password of digits; it is no less a secret.
    write(12345678)
    with pytest.raises(ConfigRefused, match="plain text"):
        stack_file.read(file)


@pytest.mark.parametrize("place", sorted(PLACES))
def test_the_program_takes_a_secret_only_where_pulumi_holds_its_key_as_one(place: str):
    handed_over = {key: json.dumps(value) for key, value in config(place, SECRET).items()}
    refuse_plain(handed_over, held=set(handed_over))
    with pytest.raises(ConfigRefused, match="plain text"):
        refuse_plain(handed_over, held={f"{PROJECT}:users"})


def test_the_pages_name_the_command_of_each():
    pages = "".join((paths.CHECKOUT / "docs" / name).read_text() for name in ("observability.md", "login.md"))
    assert [place for place in sorted(PLACES) if set_secret(place) not in pages] == []
