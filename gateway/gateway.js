// Asks nginx, hands what it says to policy.js, and does what that decides. In doubt, it refuses.

import crypto from 'crypto';
import policy from 'policy.js';
import principals from 'principals.js';
import routes from 'routes.js';

const SAYS = {
    400: ['bad-request', 'this is not a request that can be read'],
    404: ['unknown-route', 'there is nothing here'],
    408: ['timeout', 'the request did not arrive in time'],
    413: ['too-large', 'the body is larger than this route allows'],
    414: ['too-large', 'the address is too long'],
    421: ['wrong-name', 'this name is not served on this connection'],
    429: ['flood', 'too many requests at once; slow down'],
    494: ['too-large', 'the headers are too large'],
    497: ['plain-http', 'this port speaks TLS only'],
    502: ['upstream-away', 'the model server is not there right now; try again soon'],
    503: ['upstream-busy', 'the model server is busy; try again soon'],
    504: ['upstream-slow', 'the model server did not answer in time'],
};

function sha256(text) { return crypto.createHash('sha256').update(text).digest('hex'); }

// The relay that a connection came through, by its fixed address; only that one's word about addresses counts.
function relayOf(r) {
    return r.variables.fortress_relay;
}

function who(r) {
    let header = r.headersIn.Authorization;
    if (header === undefined && r.uri === '/v1/messages' && r.headersIn['X-Api-Key'] !== undefined)
        header = 'Bearer ' + r.headersIn['X-Api-Key']; // as Anthropic's libraries send it
    return policy.identify(principals, header, sha256, relayOf(r), r.remoteAddress);
}

/** js_set, before any body is read: floods count against the key's owner, or against the address. */
function floodKey(r) {
    const caller = who(r);
    return caller && caller.proof === 'key' ? 'u:' + caller.user : relayOf(r) + '|' + r.remoteAddress;
}

function end(r, refusal) {
    r.variables.fortress_verdict = 'refused';
    r.variables.fortress_reason = refusal.reason;
    r.headersOut['Content-Type'] = 'application/json';
    Object.keys(refusal.headers).forEach(name => { r.headersOut[name] = refusal.headers[name]; });
    r.return(refusal.status, policy.errorBody(policy.apiOf(r.uri), refusal.status, refusal.reason, refusal.says) + '\n');
}

function limited(name, says, seconds) {
    return policy.refuse(429, name, says, { 'Retry-After': String(seconds) });
}

function overRate(user, name, route) {
    const limits = user.limits, read = route.class === 'read';
    const perMinute = read ? limits.reads_per_minute : limits.requests_per_minute;
    const burst = read ? Math.max(limits.burst, Math.ceil(limits.reads_per_minute / 2)) : limits.burst;
    const key = (read ? 'r:' : 'i:') + name;
    const dict = ngx.shared.rates;
    const [allowed, state, wait] = policy.take(dict.get(key), perMinute, burst, Date.now());
    dict.set(key, state);
    if (allowed) return null;
    const limit = read ? 'reads_per_minute' : 'requests_per_minute';
    return limited(limit, 'limit ' + limit + ' (' + perMinute + ') reached; try again in ' + wait + ' s', wait);
}

// One entry per running stream, with a timeout: a worker that dies frees its slots by itself.
function takeSlot(user, name) {
    for (let i = 0; i < user.limits.concurrent; i++) {
        const slot = name + '|' + i;
        if (ngx.shared.streams.add(slot, '1', principals.stream_timeout_s * 1000)) return slot;
    }
    return '';
}

/**
 * js_access: let one request pass, or end it here. Fails closed.
 * Reads  key and tunnel address; never an identity header.
 * Writes $fortress_principal, _proof, _device, _model, _verdict, _reason for the audit line, $fortress_body for
 *        Ollama, $fortress_slot and $fortress_ticket for the end of the stream. Never key or prompt.
 */
async function admit(r) {
    const v = r.variables;
    const route = routes.routes.find(row => row.path === r.uri);
    // Only the plain spelling of a path is that path, whatever nginx would make of another one.
    if (!route || v.request_uri.split('?')[0] !== route.path)
        return end(r, policy.refuse(404, 'unknown-route', SAYS[404][1]));
    v.fortress_route = route.path;
    const caller = who(r);
    if (!caller) return end(r, policy.refuse(401, 'no-identity', 'no valid API key, and no tunnel address that proves you',
        { 'WWW-Authenticate': 'Bearer' }));
    const user = principals.users[caller.user];
    v.fortress_principal = caller.user;
    v.fortress_proof = caller.proof;
    v.fortress_device = caller.device;
    if (route.role === 'admin' && user.role !== 'admin')
        return end(r, policy.refuse(403, 'admin-only', 'this route is for admins'));
    if (route.methods.indexOf(r.method) < 0)
        return end(r, policy.refuse(405, 'wrong-method', 'allowed here: ' + route.methods.join(', '),
            { Allow: route.methods.join(', ') }));
    if (policy.crossSite(caller, principals.domain, principals.tunnel_addresses, r.headersIn.Origin,
        r.headersIn['Sec-Fetch-Site']))
        return end(r, policy.refuse(403, 'cross-site', 'a page of another site cannot act for you'));
    const over = overRate(user, caller.user, route);
    if (over) return end(r, over);
    if (route.class === 'inference') {
        const slot = takeSlot(user, caller.user);
        if (!slot) return end(r, limited('concurrent', 'limit concurrent (' + user.limits.concurrent + ') reached', 1));
        v.fortress_slot = slot;
        v.fortress_ticket = caller.ticket;
    }
    if (route.models) {
        if (r.headersIn['Content-Encoding'] !== undefined)
            return end(r, policy.refuse(415, 'encoded-body', 'send the body without Content-Encoding'));
        const verdict = policy.judge(await r.readRequestText(), route, user);
        if (verdict instanceof policy.Refusal) return end(r, verdict);
        v.fortress_model = verdict.model;
        v.fortress_body = verdict.body;
    }
    v.fortress_verdict = 'allowed';
    v.fortress_reason = '';
}

/** js_content of the error page: what nginx itself refused, in the caller's shape. */
function failed(r) {
    const status = Number(r.variables.status) || 400;
    const said = SAYS[status] || [status < 500 ? 'bad-request' : 'failed', status < 500 ? SAYS[400][1] : 'something failed here'];
    const headers = status === 429 || status === 503 ? { 'Retry-After': '1' } : {};
    end(r, policy.refuse(status === 494 ? 431 : status === 497 ? 400 : status, said[0], said[1], headers));
}

/**
 * js_body_filter: every chunk leaves at once; a stream whose key or address row is gone is cut.
 * An old worker holds streams after a reload; what it learns of the new principals stands in `live`.
 */
function watch(r, data, flags) {
    const ticket = r.variables.fortress_ticket;
    if (ticket) {
        const live = ngx.shared.live;
        if (live.get('ready') !== undefined && live.get(ticket) === undefined) throw new Error('revoked: stream is cut');
    }
    r.sendBuffer(data, { last: flags.last, flush: true });
}

/** js_periodic: the newest configuration says which keys and address rows are alive. */
function announce() {
    const live = ngx.shared.live;
    const wanted = { ready: true };
    Object.keys(principals.keys).forEach(hash => { wanted['k:' + hash] = true; });
    Object.keys(principals.addresses).forEach(row => {
        if (principals.users[principals.addresses[row].user].keyless) wanted['a:' + row] = true;
    });
    Object.keys(wanted).forEach(name => { live.add(name, '1'); });
    live.keys(100000).forEach(name => { if (!wanted[name]) live.delete(name); });
}

/** js_set, used only in the log format, so it runs once at every end of a request: gives the stream's slot back. */
function completion(r) {
    const slot = r.variables.fortress_slot;
    if (slot) ngx.shared.streams.delete(slot);
    return r.variables.request_completion === 'OK' ? 'finished' : 'cut';
}

export default { admit, announce, completion, failed, floodKey, watch };
