// Which models a caller may use, and see. Touches no nginx object: every function here is plain and runs under any JavaScript engine.

import errors from 'errors.js';

// `x:cloud` and `x:7b-cloud` are answered by ollama.com (Ollama internal/modelref/modelref.go at v0.32.15).
const LEAVES = /:([^\/]*-)?cloud$/;
// A suffix there, not a tag: `x:local` means `x`, and would slip past a pattern for tags.
const SOURCE = /:local$/;
const MODEL = /^[A-Za-z0-9][A-Za-z0-9._:\/-]{0,127}$/;
// No part of a name is empty: what stands before `://` would be cut off as a scheme.
const ODD = /\.\.|[\/:]\//;
// What a name leaves out (Ollama types/model/name.go at v0.32.15): the host before three parts, the namespace before two.
const HOST = /^registry\.ollama\.ai\/(?=[^\/]+\/[^\/]+$)/, NAMESPACE = /^library\/(?=[^\/]+$)/;

function matches(pattern, name) {
    const parts = pattern.split('*'), last = parts.pop();
    let at = 0;
    if (name.indexOf(parts[0]) !== 0) return false;
    for (let i = 0; i < parts.length; i++) {
        const found = name.indexOf(parts[i], at);
        if (found < 0) return false;
        at = found + parts[i].length;
    }
    return name.length - at >= last.length && name.endsWith(last);
}

/** Ollama compares names without case, and takes `tiny` for `registry.ollama.ai/library/tiny:latest`: so do we. */
function plain(name) { return name.toLowerCase().replace(HOST, '').replace(NAMESPACE, ''); }

function tagged(name) {
    const short = plain(name);
    return short.slice(short.lastIndexOf('/') + 1).indexOf(':') < 0 ? short + ':latest' : short;
}

/** A pattern without a slash is for Ollama's own library; the star alone, as it is written, is for everything. */
function mayUse(patterns, name) {
    const full = tagged(name), short = full.replace(/:latest$/, ''), own = full.indexOf('/') < 0;
    return patterns.indexOf('*') >= 0 || patterns.map(plain).some(p => p.indexOf('*') < 0 ? tagged(p) === full
        : (own || p.indexOf('/') >= 0) && (matches(p, short) || matches(p, full)));
}

// The name that was granted last, by its user's row: a caller asks for the same one again and again.
const granted = new WeakMap();

/** Returns: Refusal, or null where this user may use the model. */
function modelOf(name, user) {
    if (granted.get(user) === name) return null;
    const refusal = decide(name, user);
    if (!refusal) granted.set(user, name);
    return refusal;
}

function decide(name, user) {
    const low = name.toLowerCase();
    if (!MODEL.test(name) || ODD.test(name) || SOURCE.test(low)) return errors.of('model-name');
    if (LEAVES.test(low)) return errors.of('leaves-this-host');
    return mayUse(user.models, name) ? null : errors.of('model-not-granted');
}

/** One model out of Ollama's own list, as OpenAI's API shows it; null where it is not there. */
function described(list, name) {
    const wanted = tagged(name), rows = (list && list.data) || [];
    return rows.find(row => tagged(String(row.id)) === wanted) || null;
}

/** One of Ollama's lists with only the rows that this user may use; `models` of the native API, `data` of OpenAI's. */
function visible(list, user) {
    ['models', 'data'].forEach(key => {
        if (Array.isArray(list[key])) list[key] = list[key].filter(row => mayUse(user.models, String(row.model || row.id)));
    });
    return list;
}

export default { described, mayUse, modelOf, tagged, visible };
