// Decides, and touches no nginx object: every function here is plain and runs under any JavaScript engine.

// Go's JSON decoder folds these two into k and s, so they could spell a key that we would not see.
const FOLDS = { '\u212a': 'k', '\u017f': 's' };
const LEAVES = /:(.+-)?cloud$/;
const KEY = /^[0-9a-f]{64}$/;
const MODEL = /^[A-Za-z0-9][A-Za-z0-9._:\/-]{0,127}$/;

// Keys that a request may carry and that mean something to policy: any other spelling of them is refused.
const SPELLED = ['model', 'name', 'source', 'destination', 'stream', 'keep_alive', 'options', 'messages', 'prompt',
    'input', 'images', 'template', 'system', 'raw', 'format', 'tools', 'think', 'stream_options'];

class Refusal {
    constructor(status, reason, says, extra) {
        this.status = status;
        this.reason = reason;
        this.says = says;
        this.headers = extra || {};
    }
}

function refuse(status, reason, says, extra) { return new Refusal(status, reason, says, extra); }

function fold(text) {
    return text.replace(/[\u212a\u017f]/g, c => FOLDS[c]).toLowerCase();
}

// The key text of an Authorization header: null where there is none, '' where it is not one of ours.
function bearer(header) {
    if (header === undefined || header === null) return null;
    const match = /^Bearer ([^ \t,]+)$/.exec(header);
    return match && KEY.test(match[1]) ? match[1] : '';
}

// Who asks. A key that came and is wrong never falls back to the address: its sender believes to be somebody else.
function identify(known, header, sha256, relay, address) {
    const row = relay ? known.addresses[relay + '|' + address] : undefined;
    const device = row ? row.device : '';
    const key = bearer(header);
    if (key !== null) {
        const hash = key && sha256(key);
        const user = hash ? known.keys[hash] : undefined;
        if (user === undefined) return null;
        return { user: user, proof: 'key', ticket: 'k:' + hash, device: row && row.user === user ? device : '' };
    }
    if (row && known.users[row.user].keyless)
        return { user: row.user, proof: 'address', ticket: 'a:' + relay + '|' + address, device: device };
    return null;
}

// A browser page of another site must not act through a tunnel that proves its owner by itself.
function crossSite(who, domain, addresses, origin, fetchSite) {
    if (who.proof === 'key') return false;
    if (fetchSite && fetchSite !== 'same-origin' && fetchSite !== 'none') return true;
    if (!origin) return false;
    const own = [domain].concat(addresses.map(a => a.indexOf(':') < 0 ? a : '[' + a + ']'));
    return own.every(name => origin !== 'https://' + name);
}

// One token bucket. state: 'tokens time_ms' or undefined. Returns [allowed, new state, seconds until the next token].
function take(state, perMinute, burst, now) {
    let tokens = burst, then = now;
    if (state !== undefined) {
        const parts = state.split(' ');
        then = Number(parts[1]);
        tokens = Math.min(burst, Number(parts[0]) + Math.max(0, now - then) * perMinute / 60000);
    }
    if (tokens >= 1) return [true, (tokens - 1) + ' ' + now, 0];
    return [false, tokens + ' ' + now, Math.max(1, Math.ceil((1 - tokens) * 60 / perMinute))];
}

function matches(pattern, name) {
    const parts = pattern.split('*').map(part => part.replace(/[.+?^${}()|[\]\\\/]/g, '\\$&'));
    return new RegExp('^' + parts.join('.*') + '$').test(name);
}

function tagged(name) {
    return name.slice(name.lastIndexOf('/') + 1).indexOf(':') < 0 ? name + ':latest' : name;
}

// Ollama compares names without case, and takes `tiny` for `tiny:latest`: so do we.
function mayUse(patterns, name) {
    const short = name.toLowerCase(), full = tagged(short);
    return patterns.some(p => matches(p.toLowerCase(), short) || matches(p.toLowerCase(), full));
}

/**
 * The verdict on a body, and the body that goes on: written anew from what was judged, so that Ollama's decoder
 * reads exactly that.
 *   text   the client's bytes as text
 *   route  a row of routes.json
 *   user   a row of principals.json
 * Returns: Refusal, or {body, model}.
 */
function judge(text, route, user) {
    let ask;
    try { ask = JSON.parse(text); } catch (e) {
        return refuse(400, 'not-json', 'the body is not JSON');
    }
    if (ask === null || typeof ask !== 'object' || Array.isArray(ask))
        return refuse(400, 'not-an-object', 'the body must be a JSON object');
    const keys = Object.keys(ask);
    for (let i = 0; i < keys.length; i++) {
        const folded = fold(keys[i]);
        if (folded !== keys[i] && (SPELLED.indexOf(folded) >= 0 || Object.prototype.hasOwnProperty.call(ask, folded)))
            return refuse(400, 'key-spelling', 'write the key "' + folded + '" in lower case');
    }
    let first = '';
    for (let i = 0; i < route.models.length; i++) {
        const name = ask[route.models[i]];
        if (name === undefined) continue;
        if (typeof name !== 'string') return refuse(400, 'model-type', '"' + route.models[i] + '" must be a string');
        if (name === '' && route.models.length > 1) continue;
        if (!MODEL.test(name) || name.indexOf('..') >= 0) return refuse(400, 'model-name', 'this is not a model name');
        if (LEAVES.test(name.toLowerCase()))
            return refuse(403, 'leaves-this-host', 'cloud models are closed: prompts never leave this server');
        if (!mayUse(user.models, name))
            return refuse(403, 'model-not-granted', 'this model is not among those you may use');
        first = first || name;
    }
    if (!first) return refuse(400, 'no-model', 'the body names no model');
    // Pinning and unloading a model is felt by everybody.
    if (user.role !== 'admin') delete ask.keep_alive;
    return { body: JSON.stringify(ask), model: first };
}

const KINDS = {
    400: 'invalid_request_error', 401: 'authentication_error', 403: 'permission_error', 404: 'not_found_error',
    405: 'invalid_request_error', 413: 'request_too_large', 415: 'invalid_request_error', 421: 'invalid_request_error',
    429: 'rate_limit_error',
};

// A refusal in the shape that the caller's own library can read.
function errorBody(api, status, reason, says) {
    const kind = KINDS[status] || (status < 500 ? 'invalid_request_error' : 'api_error');
    if (api === 'openai') return JSON.stringify({ error: { message: says, type: kind, param: null, code: reason } });
    if (api === 'anthropic') return JSON.stringify({ type: 'error', error: { type: kind, message: says } });
    return JSON.stringify({ error: says });
}

function apiOf(path) {
    if (path === '/v1/messages') return 'anthropic';
    return path.indexOf('/v1/') === 0 ? 'openai' : 'native';
}

export default { Refusal, refuse, fold, bearer, identify, crossSite, take, mayUse, tagged, judge, errorBody, apiOf };
