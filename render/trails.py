"""How old the lines of a trail may grow, for images/trails/write-down. The audit trail's is in principals.js."""

from render.syntax import template
from settings import StackSettings

FILE = "trail"

_AGE = template("""\
# {{ generated }}
{{ days | number }}
""")


def age(settings: StackSettings) -> str:
    """Days."""
    return _AGE.render(days=settings.observability.audit_files_days)
