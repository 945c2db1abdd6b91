// What a body means, and the body that goes on. Touches no nginx object: every function here is plain and runs under any JavaScript engine.

import bounds from 'bounds.js';
import errors from 'errors.js';
import keys from 'keys.js';
import models from 'models.js';
import reach from 'reach.js';
import text from 'text.js';

const refuse = errors.refuse;
const DIGEST = /^sha256:[0-9a-f]{64}$/;

// Counts of tokens, where absent or unbounded is not nothing.
const COUNTS = /^max_.*tokens$/;

function has(object, key) { return Object.prototype.hasOwnProperty.call(object, key); }

// Go's decoder takes a key in any case: one that it would read as another key is refused.
function spelling(object, known) {
    const written = Object.keys(object);
    for (let i = 0; i < written.length; i++) {
        const folded = reach.fold(written[i]);
        if (folded !== written[i] && (known.indexOf(folded) >= 0 || has(object, folded)))
            return refuse(400, 'key-spelling', 'write the keys of the body in lower case');
    }
    return null;
}

function only(object, known) {
    const out = {};
    known.forEach(key => { if (has(object, key)) out[key] = object[key]; });
    return out;
}

// The objects inside a body that Ollama obeys; null is absent to it. Refusal, or null.
function nested(ask, name, known) {
    if (!has(ask, name) || ask[name] === null) return null;
    if (!reach.isObject(ask[name])) return refuse(400, name + '-type', '"' + name + '" must be an object');
    return spelling(ask[name], known);
}

// What a body may ask for beyond its model: changes `ask` into what goes on. Refusal, or null.
function limit(ask, row, user) {
    const wrong = nested(ask, 'options', bounds.ALL) || nested(ask, 'stream_options', keys.stream_options.keys);
    if (wrong) return wrong;
    const numbers = Object.keys(ask).filter(key => typeof ask[key] === 'number' || COUNTS.test(key));
    const inexact = numbers.filter(key => ask[key] !== null && !bounds.exact(ask[key]))[0];
    if (inexact) return refuse(400, 'number-type', '"' + inexact + '" must be a number of at most 2^53');
    if (reach.elsewhere([ask.messages, ask.input, { images: ask.images }]))
        return refuse(400, 'image-url', 'images go in the body, as base64 or a data: URL; nothing is fetched from here');
    if (Array.isArray(ask.tools)) ask.tools = reach.ownTools(ask.tools);
    if (ask.stream_options) ask.stream_options = only(ask.stream_options, keys.stream_options.keys);
    if (ask.options) ask.options = bounds.options(ask.options, user);
    if (ask.options instanceof errors.Refusal) return ask.options;
    // Pinning and unloading a model is felt by everybody.
    if (user.role !== 'admin') delete ask.keep_alive;
    bounds.bound(ask, row, user);
    return null;
}

// What may be made from uploaded blobs: nothing that names another model, another server or another file.
function upload(ask, known) {
    if (Object.keys(ask).some(key => known.indexOf(key) < 0))
        return refuse(400, 'create-key', 'create takes only: ' + known.join(', '));
    const files = ask.files;
    if (files === null || typeof files !== 'object' || Array.isArray(files) || Object.keys(files).length === 0
        || Object.keys(files).some(name => !DIGEST.test(String(files[name]))))
        return refuse(400, 'create-files', '"files" must name uploaded blobs by their sha256: digests');
    return null;
}

/**
 * The verdict on a body, and the body that goes on: written anew from what was judged and with the keys that are known,
 * so that of two equal keys, and of whatever else two decoders could read differently, Ollama sees what was judged.
 *   body   the client's bytes as text
 *   route  a row of routes.json
 *   user   a row of principals.js
 * Returns: Refusal, or {ask, body, model}.
 */
function judge(body, route, user) {
    const flaw = text.flaw(body);
    if (flaw) return flaw;
    let ask;
    try { ask = JSON.parse(body); } catch (e) { return refuse(400, 'not-json', 'the body is not JSON'); }
    if (!reach.isObject(ask)) return refuse(400, 'not-an-object', 'the body must be a JSON object');
    const row = keys.routes[route.path];
    const twin = spelling(ask, row.keys.concat(row.closed));
    if (twin) return twin;
    let model = '';
    for (let i = 0; i < route.models.length; i++) {
        const key = route.models[i];
        if (!has(ask, key) || ask[key] === '') continue;
        if (typeof ask[key] !== 'string') return refuse(400, 'model-type', '"' + key + '" must be a string');
        const refusal = models.modelOf(ask[key], user);
        if (refusal) return refusal;
        model = model || ask[key];
    }
    if (!model) return refuse(400, 'no-model', 'the body names no model');
    const kept = only(ask, row.keys);
    const refusal = (route.path === '/api/create' ? upload(ask, row.keys) : null) || limit(kept, row, user);
    return refusal || { ask: kept, body: JSON.stringify(kept), model: model };
}

/** The verdict on the part of a path that the client chooses: a model's name, or a blob's digest. */
function judgeTail(route, path, user) {
    const tail = path.slice(route.path.length);
    if (route.tail === 'model') return models.modelOf(tail, user);
    return DIGEST.test(tail) ? null : refuse(400, 'digest', 'this is not a digest');
}

export default { judge, judgeTail };
