"""oauth2-proxy: it sends people to a provider and says afterwards who they are. Who comes in, the gateway decides."""

from render.nginx import LOGIN_PORT
from render.syntax import template
from settings import Plan, Provider, StackSettings

_CONFIG = template(
    """\
# {{ generated }}
http_address = "{{ own | address }}:{{ port | number }}"
# Only the gateway's word about the client and the page's name is believed; the default would be everybody's.
reverse_proxy = true
trusted_proxy_ips = ["{{ gateway | address }}/32"]
real_client_ip_header = "X-Real-IP"
upstreams = ["static://202"]

provider = "{{ provider | name }}"
client_id = "{{ client_id | clientid }}"
client_secret_file = "/config/current/client-secret"
scope = "{{ scope | words }}"
{% if issuer %}
oidc_issuer_url = "{{ issuer | url }}"
{% endif %}
{% if own_ca %}
provider_ca_files = ["/config/current/provider-ca.pem"]
{% endif %}
{% if choose %}
# Whoever is signed in at the provider with several accounts is asked which, also after signing out here.
prompt = "select_account"
{% else %}
# The provider asks for consent once, not each time.
approval_prompt = "auto"
{% endif %}
# The host comes from the page that is asked for: its name, or the tunnel address.
redirect_url = "/oauth2/callback"
code_challenge_method = "S256"
insecure_oidc_skip_nonce = false
insecure_oidc_allow_unverified_email = false
skip_provider_button = true
# Any address that the provider vouches for: the gateway knows whose it is, and refuses the others.
email_domains = ["*"]
set_xauthrequest = true

cookie_name = "__Host-fortress"
cookie_secret_file = "/config/current/cookie-secret"
cookie_secure = true
cookie_httponly = true
cookie_samesite = "lax"
cookie_expire = "{{ hours | number }}h"
cookie_csrf_per_request = true
cookie_csrf_per_request_limit = 4
cookie_csrf_expire = "15m"
# No token of the provider's is kept: the address is all that is asked for.
session_cookie_minimal = true

# Requests are logged by the gateway, without the provider's codes in their queries.
request_logging = false
auth_logging = true
standard_logging = true
"""
)

# Templates of Go's, which jinja would take for its own.
_SAID = """\
# A line each and in quotes, whatever a client has written into a message: none can look like the event below.
standard_logging_format = '[{{.Timestamp}}] [{{.File}}] {{printf "%q" .Message}}'
# For the script `login`, which knows whose address that is, and writes the event: no code, token or message is in it.
auth_logging_format = 'signed-in {{.Status}} {{.Client}} {{printf "%q" .Username}}'
"""

_PEOPLE = template("""\
# {{ generated }}
# Whose address is whose, for the trail of sign-ins: all others are `unknown` there.
{% for email, user in people %}
"{{ email | email }}" {{ user | name }}
{% endfor %}
""")

_SCOPES = {Provider.GITHUB: "user:email", Provider.GOOGLE: "openid email", Provider.OIDC: "openid email"}


def config(settings: StackSettings, plan: Plan) -> str:
    """The config file; the two secrets and the authority lie in files beside it."""
    own = settings.browser
    assert own is not None, "only a stack with a provider has a login service"
    assert own.provider is not None, "only a stack with a provider has a login service"
    text = _CONFIG.render(
        own=plan.edge.login,
        port=LOGIN_PORT,
        gateway=plan.edge.gateway,
        provider=own.provider.value,
        client_id=own.client_id,
        scope=_SCOPES[own.provider],
        issuer=own.issuer_url,
        choose=own.provider is Provider.GOOGLE,
        own_ca=own.ca_file is not None,
        hours=own.session_hours,
    )
    return text + _SAID


def people(settings: StackSettings) -> str:
    """Who is named in the trail of sign-ins, in the order of their addresses."""
    return _PEOPLE.render(
        people=sorted((user.email.lower(), name) for name, user in settings.users.items() if user.email is not None)
    )
