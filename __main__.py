"""ollama-fortress: settings -> components -> outputs."""

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env

from components.fortress import Fortress, FortressArgs
from settings import ConfigRefused, load

try:
    settings = load(pulumi.get_stack(), CONFIG.get() or get_config_env())
except ConfigRefused as refusal:
    raise pulumi.RunError(str(refusal)) from None

fortress = Fortress("fortress", FortressArgs(settings=settings))

pulumi.export("endpoint", fortress.endpoint)
pulumi.export("tunnel_address", fortress.tunnel_address)
pulumi.export("ca_certificate", fortress.ca_certificate)
pulumi.export("access", [method.value for method in settings.access])
pulumi.export("users", sorted(settings.users))
pulumi.export("bundles", pulumi.Output.secret(fortress.bundles))
