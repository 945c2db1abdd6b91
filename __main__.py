"""ollama-fortress: settings -> components -> outputs."""

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env, get_config_secret_keys_env, is_config_secret

from components.fortress import Fortress, FortressArgs
from settings import ConfigRefused, load, refuse_plain

config = CONFIG.get() or get_config_env()
held = {key for key in config if is_config_secret(key)} | {*get_config_secret_keys_env()}
try:
    refuse_plain(config, held)
    settings = load(pulumi.get_stack(), config)
except ConfigRefused as refusal:
    raise pulumi.RunError(str(refusal)) from None

fortress = Fortress("fortress", FortressArgs(settings=settings))

pulumi.export("endpoint", fortress.endpoint)
pulumi.export("tunnel_address", fortress.tunnel_address)
pulumi.export("ca_certificate", fortress.ca_certificate)
pulumi.export("access", [method.value for method in settings.access])
pulumi.export("users", sorted(settings.users))
pulumi.export("bundles", pulumi.Output.secret(fortress.bundles))
