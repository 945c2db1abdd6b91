// What of a body the policy has to read: all but the insides of its long strings, megabytes of images, which go on byte for byte. Touches no nginx object: every function here is plain and runs under any JavaScript engine.

import errors from 'errors.js';

// Of MEMBERS: llama-server takes cubic time for the properties of a schema, also when its sender has left.
const DEPTH = 64, DIGITS = 400, MEMBERS = 500;
// What one body may cost this engine, which serves everybody: a byte outside of strings and an escaped quote count 1, a
// string and an opening bracket 8 each, a long key its length. All of it takes about 100 ms; a chat of 6,000 messages fits.
const MOST = 262144, EACH = 7;
// A string that is longer is left out but for its head: enough for whatever the policy looks for at a string's beginning.
const LONG = 256, HEAD = 96;
// A body of so few bytes is sooner parsed as it is, and then looked through.
const SMALL = 2048;
const QUOTE = 34, COLON = 58, BACKSLASH = 92, U = 117;

// - . 0-9 and + e E
function numeric(c) { return (c >= 48 && c <= 57) || c === 45 || c === 46 || c === 43 || c === 101 || c === 69; }

// JavaScript would write an infinite one as null: 1e309 is the shortest. Nobody needs DIGITS digits.
function unkept(bytes, from, to) {
    return to - from > 4 && (to - from > DIGITS || !isFinite(Number(bytes.subarray(from, to).toString())));
}

// Is the string that ends at `end` a key? Behind much white space it is taken for one: kept whole, and counted.
function isKey(bytes, end) {
    let at = end + 1;
    while (at < end + 64 && [32, 10, 13, 9].indexOf(bytes[at]) >= 0) at++;
    return bytes[at] === COLON || at === end + 64;
}

// Where the head of a long string ends: never inside of an escape, nor of a character's bytes.
function neck(bytes, from) {
    let at = from + HEAD;
    if (bytes.subarray(from, at).indexOf(BACKSLASH) >= 0) {
        at = from;
        for (let i = 0; i < HEAD; i++) at += bytes[at] !== BACKSLASH ? 1 : bytes[at + 1] === U ? 6 : 2;
    }
    while ((bytes[at] & 0xc0) === 0x80) at++;
    return at;
}

// The same questions, asked of a small body when it has been parsed; throws the Refusal.
function check(value, depth) {
    if (typeof value === 'number' && !isFinite(value)) throw errors.of('number-size');
    if (value === null || typeof value !== 'object') return;
    if (depth === DEPTH) throw errors.of('too-deep', DEPTH);
    const keys = Object.keys(value);
    for (let i = 0; i < keys.length; i++) if (typeof value[keys[i]] !== 'string') check(value[keys[i]], depth + 1);
}

/**
 * A body as the policy reads it.
 *   bytes  Buffer
 *   mark   stands where an inside was left out; text that the client cannot know, or it could name another's inside
 * Returns: Refusal, or {ask, insides}.
 */
function read(bytes, mark) {
    const small = bytes.length <= SMALL, seen = small ? { text: bytes.toString(), insides: [] } : shorten(bytes, mark);
    if (seen instanceof errors.Refusal) return seen;
    try {
        const ask = JSON.parse(seen.text);
        if (small) check(ask, 0);
        return { ask: ask, insides: seen.insides };
    } catch (e) { return e instanceof errors.Refusal ? e : errors.of('not-json'); }
}

/** In one pass, and before anything recursive: Refusal, or {text, insides}; the text is JSON where the bytes are. */
function shorten(bytes, mark) {
    const parts = [], insides = [], members = [], size = bytes.length;
    let at = 0, kept = 0, depth = 0, spent = 0;
    while (at < size) {
        let quote = bytes.indexOf(QUOTE, at);
        if (quote < 0) quote = size;
        while (at < quote) {
            const c = bytes[at], from = at++;
            if (++spent > MOST) return errors.of('too-many-values');
            if (c === 123 || c === 91) {
                spent += EACH;
                if (++depth > DEPTH) return errors.of('too-deep', DEPTH);
                members[depth] = 0;
            } else if (c === COLON) {
                if (++members[depth] > MEMBERS) return errors.of('too-many-keys', MEMBERS);
            } else if (c === 125 || c === 93) {
                depth--;
            } else if (numeric(c)) {
                while (at < quote && at - from <= DIGITS && numeric(bytes[at])) at++;
                if (unkept(bytes, from, at)) return errors.of('number-size');
                spent += at - from - 1;
            }
        }
        if (quote === size) break;
        spent += EACH + 1;
        let end = quote;
        for (;;) { // from quote to quote: behind an even number of backslashes it is the string's end
            end = bytes.indexOf(QUOTE, end + 1);
            if (end < 0) end = size; // never closed: the parser says so
            let before = end - 1;
            while (bytes[before] === BACKSLASH && end - before < MOST) before--;
            spent += end - before - 1;
            if (end === size || (end - before) % 2) break;
            if (spent > MOST) return errors.of('too-many-values');
        }
        at = end + 1;
        if (end - quote <= LONG) continue;
        if (isKey(bytes, end)) {
            spent += end - quote;
            continue;
        }
        const from = neck(bytes, quote + 1);
        if (from >= end) continue; // nothing but escapes
        parts.push(bytes.subarray(kept, from).toString(), mark + insides.length + ';');
        insides.push(bytes.subarray(from, end));
        kept = end;
    }
    if (spent > MOST) return errors.of('too-many-values');
    parts.push((kept ? bytes.subarray(kept) : bytes).toString());
    return { text: parts.join(''), insides: insides };
}

/** The text with its insides back in it: as it is, or a Buffer. */
function whole(text, insides, mark) {
    if (!insides.length) return text;
    const pieces = text.split(mark);
    const all = [Buffer.from(pieces[0])];
    pieces.slice(1).forEach(piece => {
        const end = piece.indexOf(';');
        all.push(insides[Number(piece.slice(0, end))], Buffer.from(piece.slice(end + 1)));
    });
    return Buffer.concat(all);
}

export default { read, shorten, whole };
