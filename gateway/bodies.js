// What a body means, and the body that goes on. Touches no nginx object: every function here is plain and runs under any JavaScript engine.

import bounds from 'bounds.js';
import errors from 'errors.js';
import keys from 'keys.js';
import models from 'models.js';
import outline from 'outline.js';
import reach from 'reach.js';
import schema from 'schema.js';

const DIGEST = /^sha256:[0-9a-f]{64}$/;

// Go's decoder takes a key in any case: one that it would read as another key is refused.
function spelling(object, known, closed) {
    const written = Object.keys(object);
    for (let i = 0; i < written.length; i++) {
        if (known.indexOf(written[i]) >= 0) continue;
        const folded = reach.fold(written[i]);
        if (folded !== written[i] && (known.indexOf(folded) >= 0 || closed.indexOf(folded) >= 0 || Object.hasOwn(object, folded)))
            return errors.of('key-spelling');
    }
    return null;
}

function only(object, known) {
    const out = {}, written = Object.keys(object);
    for (let i = 0; i < written.length; i++) if (known.indexOf(written[i]) >= 0) out[written[i]] = object[written[i]];
    return out;
}

// The objects inside a body that Ollama obeys; null is absent to it. Refusal, or null.
function nested(ask, name, known) {
    if (!Object.hasOwn(ask, name) || ask[name] === null) return null;
    if (!reach.isObject(ask[name])) return errors.refuse(400, name + '-type', '"' + name + '" must be an object');
    return spelling(ask[name], known, []);
}

// What a body may ask for beyond its model: changes `ask` into what goes on. Refusal, or null.
function limit(ask, row, user, more) {
    const wrong = nested(ask, 'options', bounds.ALL) || nested(ask, 'stream_options', keys.stream_options.keys);
    if (wrong) return wrong;
    // Counts of tokens too, whatever they are: where one is absent or unbounded is not nothing.
    for (const key of Object.keys(ask)) {
        const value = ask[key];
        if ((typeof value === 'number' || key.slice(-7) === '_tokens') && value !== null && !bounds.exact(value))
            return errors.of('number-type', key);
    }
    if (more === reach.ELSEWHERE) return errors.of('image-url');
    if (Array.isArray(ask.tools)) ask.tools = reach.ownTools(ask.tools);
    if (ask.stream_options) ask.stream_options = only(ask.stream_options, keys.stream_options.keys);
    if (ask.options) ask.options = bounds.options(ask.options, user);
    if (ask.options instanceof errors.Refusal) return ask.options;
    // Pinning, unloading and loading anew is felt by everybody, and so is a template: Ollama runs it as long as it loops.
    if (user.role !== 'admin') ['keep_alive', 'shift', 'template'].forEach(key => { delete ask[key]; });
    bounds.bound(ask, row, user);
    return null;
}

// What may be made from uploaded blobs: nothing that names another model, another server or another file.
function upload(ask, known) {
    if (Object.keys(ask).some(key => known.indexOf(key) < 0)) return errors.of('create-key', known.join(', '));
    const digests = reach.isObject(ask.files) ? Object.values(ask.files) : [];
    return digests.length && digests.every(digest => DIGEST.test(String(digest))) ? null : errors.of('create-files');
}

/**
 * The verdict on a body, and what goes on: to be written anew from what was judged and with the keys that are known, so
 * that of two equal keys, and of whatever else two decoders could read differently, Ollama sees what was judged.
 *   bytes  the client's body, a Buffer
 *   route  a row of routes.json
 *   user   a row of principals.js
 *   mark   see outline.js, which puts the insides back into what is written
 * Returns: Refusal, or {ask, insides, model, grows: it holds images, files or calls of tools}.
 */
function judge(bytes, route, user, mark) {
    const seen = outline.read(bytes, mark);
    if (seen instanceof errors.Refusal) return seen;
    const ask = seen.ask, row = keys.routes[route.path];
    if (!reach.isObject(ask)) return errors.of('not-an-object');
    const twin = spelling(ask, row.keys, row.closed);
    if (twin) return twin;
    let model = '';
    for (let i = 0; i < route.models.length; i++) {
        const key = route.models[i];
        if (!Object.hasOwn(ask, key) || ask[key] === '') continue;
        if (typeof ask[key] !== 'string') return errors.of('model-type', key);
        const refusal = models.modelOf(ask[key], user);
        if (refusal) return refusal;
        model = model || ask[key];
    }
    if (!model) return errors.of('no-model');
    const kept = only(ask, row.keys);
    const more = reach.more(kept);
    const refusal = (route.path === '/api/create' ? upload(ask, row.keys) : null) || limit(kept, row, user, more)
        || schema.within(kept, row.schemas, mark);
    return refusal || { ask: kept, insides: seen.insides, model: model, grows: more > 0 };
}

/** The verdict on the part of a path that the client chooses: a model's name, or a blob's digest. */
function judgeTail(route, path, user) {
    const tail = path.slice(route.path.length);
    return route.tail === 'model' ? models.modelOf(tail, user) : DIGEST.test(tail) ? null : errors.of('digest');
}

export default { judge, judgeTail };
