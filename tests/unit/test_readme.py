"""What the README tells to type is what the bundle's own page tells."""

import re

import pytest

from fortress import paths
from settings import SshSettings
from tests.unit.test_bundle import device, files, settings

README = (paths.CHECKOUT / "README.md").read_text()
LONGEST_INTERFACE = 15
"""Linux has no longer name for one, and wg-quick takes it from the file."""
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAbc+/=="


def test_the_readmes_way_into_the_tunnel_is_the_one_of_the_bundles_page():
    [block] = [block for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if "wg-quick" in block]
    page = files(settings(browser={}), devices=(device("laptop"), device("phone")))["README.md"]
    assert [line for line in block.splitlines() if line not in page.splitlines()] == []


def test_no_command_gives_wg_quick_a_name_that_it_refuses():
    named = re.findall(r"wg-quick up (\S+)", README + files()["README.md"])
    assert named
    assert all(re.fullmatch(rf"[a-z]{{1,{LONGEST_INTERFACE}}}", name) for name in named)


@pytest.mark.parametrize(
    "line", [KEY, f"server.example.com {KEY}", f"[server.example.com]:2222 {KEY}", f"{KEY} root@server"]
)
def test_the_line_of_ssh_keyscan_is_taken_as_it_stands(line: str):
    assert SshSettings.model_validate({"address": "server.example.com", "host_key": line}).host_key == KEY


def test_the_readmes_own_line_is_one_that_the_settings_take():
    [line] = re.findall(r'host_key: "(.*?)\.\.\."', README)
    assert SshSettings.model_validate({"address": "server.example.com", "host_key": line}).host_key in line


@pytest.mark.parametrize("line", [f"# {KEY}", f"{KEY}\n{KEY}", "server.example.com", f"a b {KEY}", "", "ssh-dss AAAA"])
def test_what_is_no_such_line_is_refused_with_the_command(line: str):
    with pytest.raises(ValueError, match=r"is not a host's key: write the line that `ssh-keyscan"):
        SshSettings.model_validate({"address": "server.example.com", "host_key": line})
