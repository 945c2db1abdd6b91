// Decides, and touches no nginx object: every function here is plain and runs under any JavaScript engine.

import errors from 'errors.js';

const refuse = errors.refuse;

// Go's JSON decoder folds these two into k and s, so they could spell a key that we would not see.
const FOLDS = { '\u212a': 'k', '\u017f': 's' };
// `x:cloud` and `x:7b-cloud` are answered by ollama.com (Ollama internal/modelref/modelref.go at v0.32.15).
const LEAVES = /:([^\/]*-)?cloud$/;
// A suffix there, not a tag: `x:local` means `x`, and would slip past a pattern for tags.
const SOURCE = /:local$/;
const KEY = /^[0-9a-f]{64}$/;
const DIGEST = /^sha256:[0-9a-f]{64}$/;
const MODEL = /^[A-Za-z0-9][A-Za-z0-9._:\/-]{0,127}$/;

// Keys that mean something to policy or to Ollama: any other spelling of one is refused.
const SPELLED = ['model', 'name', 'source', 'destination', 'stream', 'keep_alive', 'options', 'messages', 'prompt',
    'input', 'images', 'template', 'system', 'raw', 'format', 'tools', 'think', 'stream_options', 'files', 'from'];
// `from` and `remote_host` would have the server fetch or forward; quantizing has read beyond its file before.
const CREATE = ['model', 'name', 'files', 'template', 'system', 'parameters', 'messages', 'license', 'stream'];

function has(object, key) { return Object.prototype.hasOwnProperty.call(object, key); }

function fold(text) { return text.replace(/[\u212a\u017f]/g, c => FOLDS[c]).toLowerCase(); }

/** The key in an Authorization header: null without one, '' where it is not one of ours. */
function bearer(header) {
    if (header === undefined || header === null) return null;
    const text = header.slice(0, 7) === 'Bearer ' ? header.slice(7) : '';
    return KEY.test(text) ? text : '';
}

/**
 * Who asks. A key that came and is wrong never falls back to the address: its sender believes to be somebody else.
 *   known   principals.js
 *   relay   name of the relay that the connection came through, or ''
 * Returns: null, or {user, proof: key|address, ticket, device}; the ticket is what revocation takes away.
 */
function identify(known, header, sha256, relay, address) {
    const place = relay + '|' + address;
    const row = relay && has(known.addresses, place) ? known.addresses[place] : undefined;
    const key = bearer(header);
    if (key !== null) {
        const hash = key && sha256(key);
        if (!hash || !has(known.keys, hash)) return null;
        const user = known.keys[hash];
        return { user: user, proof: 'key', ticket: 'k:' + hash, device: row && row.user === user ? row.device : '' };
    }
    if (row && known.users[row.user].keyless)
        return { user: row.user, proof: 'address', ticket: 'a:' + place, device: row.device };
    return null;
}

/** The tickets of everybody who may act: an open stream whose ticket is not among them is cut. */
function tickets(known) {
    const all = Object.keys(known.keys).map(hash => 'k:' + hash);
    Object.keys(known.addresses).forEach(place => {
        if (known.users[known.addresses[place].user].keyless) all.push('a:' + place);
    });
    return all;
}

/** The row of a path; `raw` is the client's own spelling. Only the plain spelling of a path is that path. */
function routeOf(rows, path, raw) {
    const written = raw.split('?')[0];
    for (let i = 0; i < rows.length; i++) {
        const row = rows[i];
        if (row.tail === undefined) {
            if (row.path === path && written === path) return row;
        } else if (path.indexOf(row.path) === 0 && decoded(written) === path) {
            return row;
        }
    }
    return null;
}

function decoded(text) {
    try { return decodeURIComponent(text); } catch (e) { return ''; }
}

function unknown() {
    return refuse(401, 'no-identity', 'no valid API key, and no tunnel address that proves you',
        { 'WWW-Authenticate': 'Bearer' });
}

/**
 * May this caller have this route at all? Whoever is unknown learns nothing about roles or methods.
 * Returns: Refusal, or null.
 */
function open(route, method, caller, known) {
    // A route that hides its other methods is no route to them.
    if (!route || (route.hides && route.methods.indexOf(method) < 0)) return errors.made(404);
    if (!caller) return unknown();
    if (route.role === 'admin' && known.users[caller.user].role !== 'admin')
        return refuse(403, 'admin-only', 'this route is for admins');
    const allowed = route.methods.join(', ');
    if (route.methods.indexOf(method) < 0)
        return refuse(405, 'wrong-method', 'allowed here: ' + allowed, { Allow: allowed });
    return null;
}

/** A page of another site must not act through a tunnel that proves its owner by itself. */
function crossSite(caller, known, origin, fetchSite) {
    if (caller.proof === 'key') return null;
    const own = [known.domain].concat(known.tunnel_addresses.map(a => a.indexOf(':') < 0 ? a : '[' + a + ']'));
    const foreign = (fetchSite && fetchSite !== 'same-origin' && fetchSite !== 'none')
        || (origin && own.every(name => origin !== 'https://' + name));
    return foreign ? refuse(403, 'cross-site', 'a page of another site cannot act for you') : null;
}

/** One token bucket. state: 'tokens time_ms' or undefined. Returns [allowed, new state, seconds to the next token]. */
function take(state, perMinute, burst, now) {
    let tokens = burst;
    if (state) {
        const parts = state.split(' ');
        tokens = Math.min(burst, Number(parts[0]) + Math.max(0, now - Number(parts[1])) * perMinute / 60000);
    }
    if (tokens >= 1) return [true, (tokens - 1) + ' ' + now, 0];
    return [false, tokens + ' ' + now, Math.max(1, Math.ceil((1 - tokens) * 60 / perMinute))];
}

/** Which bucket a request is taken from: cheap reads are counted apart, so that polling never eats inference. */
function bucket(route, limits) {
    if (route.class !== 'read')
        return { name: 'requests_per_minute', perMinute: limits.requests_per_minute, burst: limits.burst };
    const reads = limits.reads_per_minute;
    return { name: 'reads_per_minute', perMinute: reads, burst: Math.max(limits.burst, Math.ceil(reads / 2)) };
}

function limited(name, value, seconds) {
    return refuse(429, name, 'limit ' + name + ' (' + value + ') reached; try again in ' + seconds + ' s',
        { 'Retry-After': String(seconds) });
}

function matches(pattern, name) {
    const parts = pattern.split('*');
    if (parts.length === 1) return pattern === name;
    const first = parts[0], last = parts[parts.length - 1];
    if (name.length < first.length + last.length || name.indexOf(first) !== 0
        || name.slice(name.length - last.length) !== last) return false;
    let at = first.length;
    const end = name.length - last.length;
    for (let i = 1; i < parts.length - 1; i++) {
        const found = name.indexOf(parts[i], at);
        if (found < 0 || found + parts[i].length > end) return false;
        at = found + parts[i].length;
    }
    return true;
}

function tagged(name) {
    return name.slice(name.lastIndexOf('/') + 1).indexOf(':') < 0 ? name + ':latest' : name;
}

/** Ollama compares names without case, and takes `tiny` for `tiny:latest`: so do we. */
function mayUse(patterns, name) {
    const short = name.toLowerCase(), full = tagged(short);
    return patterns.map(pattern => pattern.toLowerCase())
        .some(p => matches(p, short) || matches(p, full) || (p.indexOf('*') < 0 && tagged(p) === full));
}

/** Returns: Refusal, or null where this user may use the model. */
function modelOf(name, user) {
    if (!MODEL.test(name) || name.indexOf('..') >= 0 || SOURCE.test(name.toLowerCase()))
        return refuse(400, 'model-name', 'this is not a model name');
    if (LEAVES.test(name.toLowerCase()))
        return refuse(403, 'leaves-this-host', 'cloud models are closed: prompts never leave this server');
    if (!mayUse(user.models, name))
        return refuse(403, 'model-not-granted', 'this model is not among those you may use');
    return null;
}

function spelling(ask) {
    const keys = Object.keys(ask);
    for (let i = 0; i < keys.length; i++) {
        const folded = fold(keys[i]);
        if (folded !== keys[i] && (SPELLED.indexOf(folded) >= 0 || has(ask, folded)))
            return refuse(400, 'key-spelling', 'write the keys of the body in lower case');
    }
    return null;
}

// What may be made from uploaded blobs: nothing that names another model, another server or another file.
function upload(ask) {
    if (Object.keys(ask).some(key => CREATE.indexOf(key) < 0))
        return refuse(400, 'create-key', 'create takes only: ' + CREATE.join(', '));
    const files = ask.files;
    if (files === null || typeof files !== 'object' || Array.isArray(files) || Object.keys(files).length === 0
        || Object.keys(files).some(name => !DIGEST.test(String(files[name]))))
        return refuse(400, 'create-files', '"files" must name uploaded blobs by their sha256: digests');
    return null;
}

/**
 * The verdict on a body, and the body that goes on: written anew from what was judged, so that of two equal keys, and
 * of whatever else two decoders could read differently, Ollama sees exactly what was judged.
 *   text   the client's bytes as text
 *   route  a row of routes.json
 *   user   a row of principals.js
 * Returns: Refusal, or {body, model}.
 */
function judge(text, route, user) {
    let ask;
    try { ask = JSON.parse(text); } catch (e) { return refuse(400, 'not-json', 'the body is not JSON'); }
    if (ask === null || typeof ask !== 'object' || Array.isArray(ask))
        return refuse(400, 'not-an-object', 'the body must be a JSON object');
    const twin = spelling(ask);
    if (twin) return twin;
    let model = '';
    for (let i = 0; i < route.models.length; i++) {
        const key = route.models[i];
        if (!has(ask, key) || ask[key] === '') continue;
        if (typeof ask[key] !== 'string') return refuse(400, 'model-type', '"' + key + '" must be a string');
        const refusal = modelOf(ask[key], user);
        if (refusal) return refusal;
        model = model || ask[key];
    }
    if (!model) return refuse(400, 'no-model', 'the body names no model');
    const refusal = route.path === '/api/create' ? upload(ask) : null;
    if (refusal) return refusal;
    // Pinning and unloading a model is felt by everybody.
    if (user.role !== 'admin') delete ask.keep_alive;
    return { body: JSON.stringify(ask), model: model };
}

/** The verdict on the part of a path that the client chooses: a model's name, or a blob's digest. */
function judgeTail(route, path, user) {
    const tail = path.slice(route.path.length);
    if (route.tail === 'model') return modelOf(tail, user);
    return DIGEST.test(tail) ? null : refuse(400, 'digest', 'this is not a digest');
}

/** One model out of Ollama's own list, as OpenAI's API shows it; null where it is not there. */
function described(list, name) {
    const wanted = tagged(name.toLowerCase());
    const rows = (list && list.data) || [];
    for (let i = 0; i < rows.length; i++)
        if (tagged(String(rows[i].id).toLowerCase()) === wanted) return rows[i];
    return null;
}

export default {
    bearer, bucket, crossSite, described, fold, identify, judge, judgeTail, limited, mayUse, modelOf, open, routeOf,
    tagged, take, tickets, unknown,
};
