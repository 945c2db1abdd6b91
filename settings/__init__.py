"""Stack config as types: every option with its default, its bounds and its refusals."""

from settings.browser import BrowserSettings, Provider
from settings.load import PROJECT, ConfigRefused, load
from settings.network import Plan, Subnet
from settings.observability import Form, ObservabilitySettings
from settings.secrets import refuse_plain
from settings.stack import (
    Access,
    Engine,
    GatewaySettings,
    HostSettings,
    Model,
    OllamaSettings,
    SshSettings,
    StackSettings,
    WireguardSettings,
)
from settings.users import Device, Limits, User

__all__ = [
    "PROJECT",
    "Access",
    "BrowserSettings",
    "ConfigRefused",
    "Device",
    "Engine",
    "Form",
    "GatewaySettings",
    "HostSettings",
    "Limits",
    "Model",
    "ObservabilitySettings",
    "OllamaSettings",
    "Plan",
    "Provider",
    "SshSettings",
    "StackSettings",
    "Subnet",
    "User",
    "WireguardSettings",
    "load",
    "refuse_plain",
]
