"""A schema of one user is not felt by another, in the model's engine itself: it makes a grammar of it for one loop."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.deployment import PROMPT, Client
from tests.unit.gateway.test_schema import REFUSED, entry, lists, text

LONGEST_GAP_S = 4.0
"""What two busy cores take now and then by themselves; a schema without a bound stops everybody for minutes."""

STREAM = f"""
import httpx, json, time
key = open('/tmp/bundle/api_key').read().strip()
body = {{'model': 'tiny', 'prompt': '{PROMPT}', 'options': {{'num_predict': 4000}}}}
longest, pieces, ends = 0, 0, time.time() + 5
while time.time() < ends:
    with httpx.stream('POST', 'https://ollama.fortress.internal/api/generate', json=body, timeout=60,
                      verify='/tmp/bundle/ca.pem', headers={{'Authorization': 'Bearer ' + key}}) as answer:
        last = None
        for part in answer.iter_raw():
            now = time.time()
            longest, last, pieces = max(longest, now - (last or now)), now, pieces + 1
            if now > ends:
                break
print(json.dumps({{'status': answer.status_code, 'longest': longest, 'pieces': pieces}}))
"""

COSTLY = {
    "8 ways, three times": lists(8, 3),
    "a pattern": text("^((a?){16}){15}$"),
    "many names": entry(**{f"k{n}": {"type": "string"} for n in range(450)}),
    "a long enum": {"enum": [f"e{n}" for n in range(3900)]},
    "a long choice": {"anyOf": [{"type": "string", "maxLength": n} for n in range(1, 1900)]},
    "many of many": {"type": "array", "minItems": 100, "items": {"type": "array", "minItems": 100, "items": {}}},
}


@pytest.mark.parametrize("name", COSTLY)
def test_the_costliest_schema_that_passes_holds_nobody_up(name: str, ada: Client, bob: Client):
    with ThreadPoolExecutor(1) as beside:
        stream = beside.submit(bob.python, STREAM)
        assert ada.ask(format=COSTLY[name], options={"num_predict": 30}).status == 200
        seen = json.loads(stream.result())
    assert seen["status"] == 200
    assert seen["pieces"] > 100
    assert seen["longest"] < LONGEST_GAP_S


def test_a_schema_that_would_bring_the_engine_down_never_gets_there(ada: Client):
    for schema, _ in REFUSED.values():
        assert ada.ask(format=schema).status in (400, 413)
    assert ada.ask(format=entry(a={"type": "string"})).status == 200
