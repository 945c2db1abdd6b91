"""The stack file as JSON schema: editors complete its keys and underline what the program would refuse.

Made from the types in this folder, so it cannot know another key than they do.
"""

from typing import Any

from settings.load import PROJECT
from settings.stack import StackSettings


def stack_file() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of `stacks/Pulumi.<stack>.yaml`."""
    own = StackSettings.model_json_schema()
    keys = {f"{PROJECT}:{name}": value for name, value in own["properties"].items() if name != "stack"}
    required = sorted(f"{PROJECT}:{name}" for name in own["required"] if name != "stack")
    # Keys of other namespaces (docker:..., pulumi:...) are Pulumi's business; a misspelt one of ours is an error.
    config = {
        "type": "object",
        "properties": keys,
        "required": required,
        "propertyNames": {"anyOf": [{"enum": sorted(keys)}, {"not": {"pattern": f"^{PROJECT}:"}}]},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ollama-fortress stack file",
        "description": "One environment. Made from settings/ by `make golden`.",
        "type": "object",
        "properties": {"config": config},
        "required": ["config"],
        "$defs": own["$defs"],
    }
