// What a body means, and the body that goes on. Touches no nginx object: every function here is plain and runs under any JavaScript engine.

import errors from 'errors.js';
import models from 'models.js';

const refuse = errors.refuse;

// Go's JSON decoder folds these two into k and s, so they could spell a key that we would not see.
const FOLDS = { '\u212a': 'k', '\u017f': 's' };
const DIGEST = /^sha256:[0-9a-f]{64}$/;

// Keys that mean something to policy or to Ollama: any other spelling of one is refused.
const SPELLED = ['model', 'name', 'source', 'destination', 'stream', 'keep_alive', 'options', 'messages', 'prompt',
    'input', 'images', 'template', 'system', 'raw', 'format', 'tools', 'think', 'stream_options', 'files', 'from',
    'max_tokens', 'max_completion_tokens', 'max_output_tokens'];
// `from` and `remote_host` would have the server fetch or forward; quantizing has read beyond its file before.
const CREATE = ['model', 'name', 'files', 'template', 'system', 'parameters', 'messages', 'license', 'stream'];

function has(object, key) { return Object.prototype.hasOwnProperty.call(object, key); }

function fold(text) { return text.replace(/[\u212a\u017f]/g, c => FOLDS[c]).toLowerCase(); }

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
 * Returns: Refusal, or {ask, body, model}.
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
        const refusal = models.modelOf(ask[key], user);
        if (refusal) return refusal;
        model = model || ask[key];
    }
    if (!model) return refuse(400, 'no-model', 'the body names no model');
    const refusal = route.path === '/api/create' ? upload(ask) : null;
    if (refusal) return refusal;
    // Pinning and unloading a model is felt by everybody.
    if (user.role !== 'admin') delete ask.keep_alive;
    return { ask: ask, body: JSON.stringify(ask), model: model };
}

/** The verdict on the part of a path that the client chooses: a model's name, or a blob's digest. */
function judgeTail(route, path, user) {
    const tail = path.slice(route.path.length);
    if (route.tail === 'model') return models.modelOf(tail, user);
    return DIGEST.test(tail) ? null : refuse(400, 'digest', 'this is not a digest');
}

export default { fold, judge, judgeTail };
