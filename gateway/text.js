// What can be said of a body's text before anything recursive reads it. Touches no nginx object: every function here is plain and runs under any JavaScript engine.

import errors from 'errors.js';

const DEPTH = 64;
// Whatever begins a string, opens or closes, or is a number of five characters and more: 1e309 is the shortest too large one.
const MARK = '["[\\]{}]|[0-9][0-9.eE+-]{4,400}';

// Where the string that began before `at` ends: jumps from quote to quote, as an image is megabytes without one.
function closing(text, at) {
    for (;;) {
        const quote = text.indexOf('"', at);
        let backslashes = 0;
        while (quote > 0 && text[quote - 1 - backslashes] === '\\') backslashes++;
        if (quote < 0 || backslashes % 2 === 0) return quote;
        at = quote + 1;
    }
}

/** Is this too deep, or does it hold a number that JavaScript reads as infinite and would write as null? Refusal or null. */
function flaw(text) {
    const mark = new RegExp(MARK, 'g');
    let depth = 0, found;
    while ((found = mark.exec(text)) !== null) {
        const token = found[0];
        if (token === '"') {
            mark.lastIndex = closing(text, mark.lastIndex) + 1;
            if (mark.lastIndex === 0) return null; // never closed: the parser says so
        } else if (token === '{' || token === '[') {
            if (++depth > DEPTH) return errors.refuse(400, 'too-deep', 'the body is nested more than ' + DEPTH + ' deep');
        } else if (token === '}' || token === ']') {
            depth--;
        } else if (token.length > 400 || !isFinite(Number(token))) {
            return errors.refuse(400, 'number-size', 'the body holds a number that no decoder can keep');
        }
    }
    return null;
}

export default { flaw };
