"""A language model of under a megabyte, made here: random weights, real inference, meaningless words.

It lets a machine that reaches no model hub try everything from the tunnel to the last chunk. The weights take few
values, so the packed file is small enough to travel as a command's stdin.
"""

import random
import struct
import zlib
from functools import cache
from io import BytesIO

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
U32, F32, STRING, ARRAY, I32 = 4, 6, 8, 9, 5
EMBEDDING, BLOCKS, HEADS, FEED_FORWARD, CONTEXT = 64, 2, 4, 128, 2048
NORMAL_TOKEN, CONTROL_TOKEN = 1, 3
SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
CHAT = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"


@cache
def tiny_gguf() -> bytes:
    """The file's bytes; the same on every machine."""
    tokens, kinds, merges = _vocabulary()
    tensors = _tensors(len(tokens))
    metadata = [
        ("general.architecture", STRING, "llama"),
        ("general.name", STRING, "ollama-fortress tiny"),
        ("llama.context_length", U32, CONTEXT),
        ("llama.embedding_length", U32, EMBEDDING),
        ("llama.block_count", U32, BLOCKS),
        ("llama.feed_forward_length", U32, FEED_FORWARD),
        ("llama.attention.head_count", U32, HEADS),
        ("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        ("llama.rope.dimension_count", U32, EMBEDDING // HEADS),
        ("llama.vocab_size", U32, len(tokens)),
        ("tokenizer.ggml.model", STRING, "gpt2"),
        ("tokenizer.ggml.pre", STRING, "default"),
        ("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)),
        ("tokenizer.ggml.token_type", ARRAY, (I32, kinds)),
        ("tokenizer.ggml.merges", ARRAY, (STRING, merges)),
        ("tokenizer.ggml.eos_token_id", U32, 0),
        ("tokenizer.chat_template", STRING, CHAT),
    ]
    out = BytesIO()
    out.write(MAGIC + struct.pack("<IQQ", VERSION, len(tensors), len(metadata)))
    for key, kind, value in metadata:
        out.write(_string(key) + struct.pack("<I", kind) + _value(kind, value))
    offset = 0
    for name, shape, data in tensors:
        out.write(_string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape))
        out.write(struct.pack("<IQ", 0, offset))  # type 0: f32
        offset += len(data) + -len(data) % ALIGNMENT
    out.write(b"\0" * (-out.tell() % ALIGNMENT))
    for _, _, data in tensors:
        out.write(data + b"\0" * (-len(data) % ALIGNMENT))
    return out.getvalue()


def packed() -> bytes:
    """The file as gzip, the same from every Python: gzip.compress writes another header byte in 3.11 than in 3.13."""
    raw = tiny_gguf()
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = squeeze.compress(raw) + squeeze.flush()
    return b"\x1f\x8b\x08\0\0\0\0\0\x02\xff" + body + struct.pack("<II", zlib.crc32(raw), len(raw))


def _vocabulary() -> tuple[list[str], list[int], list[str]]:
    """The end token, every byte in GPT-2's spelling, and syllables with and without a space ahead."""
    spelled = _byte_spelling()
    space = spelled[ord(" ")]
    merges = [f"{syllable[0]} {syllable[1]}" for syllable in SYLLABLES]
    merges += [f"{space} {syllable}" for syllable in SYLLABLES]
    tokens = ["<|end|>", *spelled, *SYLLABLES, *(space + syllable for syllable in SYLLABLES)]
    return tokens, [CONTROL_TOKEN] + [NORMAL_TOKEN] * (len(tokens) - 1), merges


def _byte_spelling() -> list[str]:
    """GPT-2's printable stand-in for each of the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    spelling = {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [spelling[byte] for byte in range(256)]


def _tensors(vocabulary: int) -> list[tuple[str, tuple[int, ...], bytes]]:
    """Shapes as ggml writes them: the row's length first."""
    draw = random.Random("ollama-fortress")  # noqa: S311 - weights, not secrets
    wide, deep = (EMBEDDING, FEED_FORWARD), (FEED_FORWARD, EMBEDDING)
    made: list[tuple[str, tuple[int, ...], bytes]] = [
        ("token_embd.weight", (EMBEDDING, vocabulary), _weights(draw, EMBEDDING * vocabulary, 0.5))
    ]
    for block in range(BLOCKS):
        shapes = {
            **{f"attn_{part}": (EMBEDDING, EMBEDDING) for part in ("q", "k", "v", "output")},
            "ffn_gate": wide,
            "ffn_up": wide,
            "ffn_down": deep,
        }
        made += [(f"blk.{block}.{part}_norm.weight", (EMBEDDING,), _ones(EMBEDDING)) for part in ("attn", "ffn")]
        made += [
            (f"blk.{block}.{part}.weight", shape, _weights(draw, shape[0] * shape[1], 0.125))
            for part, shape in shapes.items()
        ]
    made.append(("output_norm.weight", (EMBEDDING,), _ones(EMBEDDING)))
    made.append(("output.weight", (EMBEDDING, vocabulary), _output(draw, vocabulary)))
    return made


def _weights(draw: random.Random, count: int, size: float) -> bytes:
    return struct.pack(f"<{count}f", *draw.choices((-size, size), k=count))


def _ones(count: int) -> bytes:
    return struct.pack(f"<{count}f", *[1.0] * count)


def _output(draw: random.Random, vocabulary: int) -> bytes:
    """Rows of zeros for the end token and the single bytes: what is said is syllables, and it goes on."""
    silent = 1 + 256
    spoken = _weights(draw, EMBEDDING * (vocabulary - silent), 0.5)
    return b"\0" * (4 * EMBEDDING * silent) + spoken


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(kind: int, value: object) -> bytes:
    if kind == STRING:
        return _string(str(value))
    if kind == ARRAY:
        assert isinstance(value, tuple)
        element, items = value
        return struct.pack("<IQ", element, len(items)) + b"".join(_value(element, item) for item in items)
    return struct.pack({U32: "<I", I32: "<i", F32: "<f"}[kind], value)
