// Asks nginx, hands what it says to the policy's plain functions, and does what they decide. In doubt, it refuses.

import crypto from 'crypto';
import fs from 'fs';
import blocked from 'blocked.js';
import bodies from 'bodies.js';
import budget from 'budget.js';
import cors from 'cors.js';
import errors from 'errors.js';
import identity from 'identity.js';
import ledger from 'ledger.js';
import models from 'models.js';
import observe from 'observe.js';
import outline from 'outline.js';
import principals from 'principals.js';
import queue from 'queue.js';
import rates from 'rates.js';
import routes from 'routes.js';
import routing from 'routing.js';
import session from 'session.js';
import usage from 'usage.js';

const RENEW_MS = 30000;
const COUNT_MS = 2000;
const OVERDUE_MS = 3000;
// How often a stream asks whether its caller still may have it.
const LOOK_MS = 200;
const TURN = 'turn';
const NEWEST = '/config/current/principals.js';
const BLOCKED = '/var/lib/gateway/blocked.json';

// Looked up once for each engine: every look at `ngx.shared` makes new objects.
const shared = { blocked: ngx.shared.blocked, buckets: ngx.shared.buckets, guesses: ngx.shared.guesses, live: ngx.shared.live,
    queue: ngx.shared.queue, slots: ngx.shared.slots, streams: ngx.shared.streams };

function sha256(text) { return crypto.createHash('sha256').update(text).digest('hex'); }

// Who asks, looked up once a request: an engine serves one at a time, and an error page begins a new one.
let asking = { r: null, caller: null };

function who(r) {
    if (asking.r !== r) asking = { r: r, caller: identified(r) };
    return asking.caller;
}

function identified(r) {
    let header = r.headersIn.Authorization;
    if (header === undefined && r.uri === '/v1/messages' && r.headersIn['X-Api-Key'] !== undefined)
        header = 'Bearer ' + r.headersIn['X-Api-Key']; // as Anthropic's libraries send it
    return identity.identify(principals, header, sha256, r.variables.fortress_relay, r.remoteAddress);
}

/**
 * js_set, before any body is read: floods count against the key's owner or the proven address; those of whoever proves
 * nothing (`-`) against the address, so they cost nobody else anything.
 */
function asker(r) {
    const caller = who(r);
    return caller ? (caller.proof === 'key' ? 'u:' + caller.user : caller.ticket) : '-' + place(r);
}

// Where a request comes from, as principals.js writes it.
function place(r) { return r.variables.fortress_relay + '|' + r.remoteAddress; }

/** js_set of a header that nginx adds to every answer: the listed origin that asks, or ''. */
function origin(r) { return cors.allowed(principals.cors_origins, r.headersIn.Origin); }

function say(r, status, headers, body) {
    Object.keys(headers).forEach(name => { r.headersOut[name] = headers[name]; });
    r.return(status, body);
}

function judged(v, verdict, reason) {
    v.fortress_verdict = verdict;
    v.fortress_reason = reason;
}

function end(r, refusal, verdict) {
    const v = r.variables;
    judged(v, verdict || 'refused', refusal.reason);
    if (refusal.status === 499) return r.return(499); // nobody hears it
    const page = v.fortress_page && session.shown(asked(r), refusal, principals.browser.provider);
    if (page) return say(r, page.status, page.headers, page.body);
    r.headersOut['Content-Type'] = 'application/json';
    say(r, refusal.status, refusal.headers, errors.body(errors.apiOf(asked(r)), refusal) + '\n');
}

// The client's path, also where an error page has moved the request elsewhere.
function asked(r) { return (r.variables.request_uri || '').split('?')[0]; }

function note(r, caller) {
    if (!caller) return;
    r.variables.fortress_principal = caller.user;
    r.variables.fortress_proof = caller.proof;
    r.variables.fortress_device = caller.device;
}

// SNI, where there is one, must be the Host; without SNI only a tunnel address is served, and nothing else is answered.
function misdirected(r) {
    const v = r.variables;
    if (!v.fortress_misdirected) return false;
    if (v.ssl_server_name) end(r, errors.made(421));
    else {
        v.fortress_reason = 'foreign-name';
        r.return(444);
    }
    return true;
}

// Takes one of what `dict` holds for this key. Returns: Refusal, or null.
function taken(dict, key, limit) {
    const [allowed, full, wait] = rates.take(dict.get(key), limit.perMinute, limit.burst, Date.now());
    dict.set(key, full);
    return allowed ? null : errors.limited(limit.name, limit.perMinute, wait);
}

function overRate(route, caller, limits) {
    const limit = rates.bucket(route, limits);
    return taken(shared.buckets, limit.name + '|' + caller.user, limit);
}

// Whoever proves nothing: counted by the place it comes from, and only there, so that it costs nobody who is known.
function unproven(r, refusal) {
    const most = principals.failed_auth_per_minute, limit = { name: 'failed_auth_per_minute', perMinute: most, burst: most };
    return taken(shared.guesses, place(r), limit) || refusal;
}

// Where this engine found a free slot the last time: that one is mostly free again, however many streams are open.
let lately = 0;

// One entry per running stream, with a timeout: a worker that dies frees its slots by itself.
function overStreams(v, id, caller, limits) {
    // A body may have taken nearly as long as an entry lives: what it asks for begins with a whole life.
    if (shared.streams.get(v.fortress_slot || '') === id && shared.streams.replace(v.fortress_slot, id)) return null;
    for (let i = 0; i < limits.concurrent; i++, lately++) {
        const slot = caller.user + '|' + lately % limits.concurrent;
        if (!shared.streams.add(slot, id)) continue;
        v.fortress_slot = slot;
        return null;
    }
    return errors.limited('concurrent', limits.concurrent);
}

// Was this worker made with the file that lies there now? An old worker, whose streams go on, was not.
function newest() { return fs.readFileSync(NEWEST, 'utf8').indexOf(principals.id) >= 0; }

/**
 * Is this caller still one? Announced tickets are. One that is not is new, or has been removed while an old worker
 * was still reading its request: then the file on disk is no longer the one that this worker was made with.
 */
function alive(caller) {
    if (shared.live.has(caller.ticket)) return true;
    if (!newest()) return false;
    shared.live.add(caller.ticket, '1');
    return true;
}

// Who waits for a slot: each entry holds the worker that it waits in, TURN the tag that was served last.
function waiting() { return shared.queue.items().map(item => JSON.parse(item[1])).filter(row => row.id); }

// njs does not see a client leave while it waits; the kernel's own list of connections says so.
function left(rows) {
    if (rows.length === 0) return [];
    try { return queue.left(rows, fs.readFileSync('/proc/net/tcp', 'utf8')); } catch (e) { return []; } // seen at its turn
}

// What an entry says of the worker that holds it.
const HOLDER = JSON.stringify({ pid: process.pid });

// An inference slot, if one is free. During a reload two workers may take the last one: then both give it back.
function take(id) {
    const slots = shared.slots, most = principals.queue.slots;
    if (slots.size() >= most || !slots.add(id, HOLDER)) return false;
    if (slots.size() <= most) return true;
    slots.delete(id);
    return false;
}

// One look of one who waits: a few reads of shared memory as long as no slot is free. undefined means: wait on.
function look(r, row) {
    const all = shared.queue, limits = principals.queue;
    if (!shared.live.has(row.ticket)) return errors.of('no-identity');
    if (isBlocked(r, row.user)) return errors.of('blocked');
    if (!all.has(row.id)) return errors.of('left-queue');
    if (shared.slots.size() < limits.slots && queue.next(waiting()).id === row.id) {
        if (left([row]).length) return errors.of('left-queue');
        if (take(row.id)) {
            all.set(TURN, String(row.tag));
            all.delete(row.id);
            return null;
        }
    }
    return Date.now() < row.since + limits.wait_s * 1000 ? undefined : errors.limited('queue_wait_s', limits.wait_s);
}

/** An inference slot: null, where one is free and nobody waits; else Refusal, or a promise of the one or the other. */
function enqueue(r, id, caller) {
    const v = r.variables, limits = principals.queue, rows = shared.queue.size() ? waiting() : [];
    if (rows.length === 0 && take(id)) return null;
    const full = queue.full(rows, caller.user, limits);
    if (full) return full;
    const all = shared.queue, turn = Number(all.get(TURN) || 0), row = {
        id: id, pid: process.pid, user: caller.user, ticket: caller.ticket, since: Date.now(),
        tag: queue.tag(rows, caller.user, turn), peer: queue.peer(v.realip_remote_addr, v.realip_remote_port),
    };
    all.set(TURN, String(turn)); // lives as long as whoever waits
    all.set(id, JSON.stringify(row));
    v.fortress_waits = String(row.since);
    return served(r, row);
}

async function served(r, row) {
    let said;
    while ((said = look(r, row)) === undefined)
        await new Promise(done => setTimeout(done, queue.pause(Date.now() - row.since)));
    r.variables.fortress_served = String(Date.now());
    if (said) running.looked = NaN; // a refusal is no stream to be cut
    return said;
}

/**
 * js_periodic: takes over whom the operator has blocked, when the file is another one than last time. What cannot be
 * read changes nothing: the last known list stays in force.
 */
function heed() {
    const list = shared.blocked;
    let id = 'none';
    try {
        const file = fs.statSync(BLOCKED, { throwIfNoEntry: false });
        if (file) id = [file.ino, file.mtimeMs, file.size].join(' ');
        if (id === list.get('id')) return;
        const rows = file ? blocked.read(fs.readFileSync(BLOCKED, 'utf8')) : {}, keys = Object.keys(rows);
        keys.forEach(key => { list.set(key, String(rows[key])); });
        list.keys(1000000).forEach(key => { if (key[1] === ':' && rows[key] === undefined) list.delete(key); });
        list.set('any', keys.length ? '1' : '');
        list.set('bad', '');
        list.set('id', id);
    } catch (e) {
        if (list.get('bad') === id) return; // said once for each file
        list.set('bad', id);
        ngx.log(ngx.ERR, BLOCKED + ' is not used, the list before it stays in force: ' + e.message);
    }
}

function isBlocked(r, user) {
    const list = shared.blocked, now = Date.now();
    if (!list.get('any')) return false;
    return blocked.holds(list.get('a:' + r.remoteAddress), now) || blocked.holds(list.get('u:' + user), now);
}

// A blocked address is refused whoever asks from it. Right after a start nobody has read the list yet.
function barred(r, caller) {
    const list = shared.blocked, mute = observe.shut();
    if (mute) return mute;
    if (!list.has('id')) heed();
    if (!list.has('id')) return errors.of('no-block-list');
    return isBlocked(r, caller ? caller.user : '') ? errors.of('blocked') : null;
}

// The meter of the request that this engine serves.
let running = null;

// After the body's verdict: reserves what the request may cost, and starts its meter. Returns: Refusal, or null.
function meter(r, id, caller, route, size, verdict) {
    const now = Date.now(), user = principals.users[caller.user];
    const plan = budget.plan(verdict.ask, route.path, size, verdict.grows, user.limits, principals.context_length);
    const refusal = ledger.reserve(caller.user, user.limits, id, plan.hold, now);
    if (refusal) return refusal;
    running = { r: r, id: id, user: caller.user, ticket: caller.ticket, slot: r.variables.fortress_slot, admitted: now,
        seen: now, looked: now, renewed: now, hold: ledger.limited(user.limits) ? plan.hold : 0, counted: [0, 0],
        first: 0, last: 0, gaps: {}, gapped: 0, of: usage.meter(plan.prompt, plan.answer, plan.drop) };
    return null;
}

function metered(r) { return running && running.r === r ? running : null; }

// Adds what has come since the last time, so that a crash loses little; a guess is put right when Ollama has counted.
function settle(own, now) {
    const [tokensIn, tokensOut] = usage.tokens(own.of);
    ledger.add(own.user, own.admitted, tokensIn - own.counted[0], tokensOut - own.counted[1]);
    own.counted = [tokensIn, tokensOut];
    own.seen = now;
    if (ledger.overdue(OVERDUE_MS)) keep();
}

/**
 * js_access: let one request pass, or end it here. Fails closed.
 * Reads  key and tunnel address; never an identity header.
 * Writes $fortress_principal, _proof, _device, _model, _verdict, _reason for the audit line, _body and _upstream for
 *        Ollama, _slot for the end of the stream. Never key or prompt.
 */
function admit(r) {
    if (misdirected(r)) return null;
    return decide(r, who(r), routing.routeOf(routes.routes, r.uri, r.variables.request_uri), '', null, null);
}

/** js_access of the browser's page and of what it calls: as `admit`, with the session of a login as one more proof. */
async function enter(r) {
    if (misdirected(r)) return;
    const v = r.variables, route = session.pageRouteOf(routes.routes, principals, r.uri, v.request_uri);
    let said = who(r), denied = session.service(principals, said), body = null;
    if (!said && !barred(r, null) && session.asks(principals, r.headersIn.Cookie, r.headersIn.Authorization)) {
        // Begun before anything is awaited: njs never finishes a body read that begins later.
        const read = route && route.models ? r.readRequestArrayBuffer() : null;
        const reply = await r.subrequest('/-/session');
        if (read) body = await read;
        const proved = session.caller(principals, reply.status, reply.headersOut['X-Auth-Request-Email'],
            principals.addresses[place(r)]);
        if (proved instanceof errors.Refusal) denied = proved;
        else said = proved;
    }
    await decide(r, said, route, v.fortress_page, denied, body);
}

/** js_access of the login's own steps: nobody can be known yet; whoever is blocked does not begin. */
function step(r) {
    if (misdirected(r)) return;
    const v = r.variables;
    v.fortress_route = r.uri;
    const refusal = barred(r, null) || session.step(r.uri, r.method, r.headersIn['Sec-Fetch-Site']);
    if (refusal) return end(r, refusal);
    judged(v, 'allowed', 'login');
}

/** js_set: the cookies that the login service gets. */
function cookies(r) { return session.cookies(r.headersIn.Cookie); }

/** js_header_filter of the login's last step, and of signing out: both lead back to the page, whatever was asked for. */
function home(r) { if (r.headersOut.Location !== undefined) r.headersOut.Location = '/'; }

/**
 * May this caller have this route, now? Else the request ends here.
 *   page   the browser's page, '' on the API's own name; denied   a refusal that is known already
 *   body   its bytes, where it has been read
 */
async function decide(r, said, route, page, denied, body) {
    const v = r.variables, caller = said && alive(said) ? said : null;
    note(r, caller);
    if (route) v.fortress_route = route.path;
    const shut = barred(r, caller) || denied;
    const preflight = shut || page ? null : cors.preflight(principals.cors_origins, route, r.method, r.headersIn.Origin);
    if (preflight) {
        judged(v, 'allowed', 'preflight');
        return say(r, 204, preflight);
    }
    const closed = shut || routing.open(route, r.method, caller, principals)
        || (route.file ? null // may be opened from anywhere, and says nothing about the caller
            : identity.crossSite(caller, principals, r.headersIn.Origin, r.headersIn['Sec-Fetch-Site'], page));
    if (closed) return end(r, closed.status === 401 || closed.reason === 'not-in-the-list' ? unproven(r, closed) : closed);
    const user = principals.users[caller.user], id = v.request_id;
    const crowded = () => route.class === 'inference' ? overStreams(v, id, caller, user.limits) : null;
    const over = (!route.file && overRate(route, caller, user.limits)) || crowded();
    if (over) return end(r, over);
    if (route.tail) {
        const refusal = bodies.judgeTail(route, r.uri, user);
        if (refusal) return end(r, refusal);
        v.fortress_upstream = r.uri;
        if (route.tail === 'model') v.fortress_model = r.uri.slice(route.path.length);
    }
    if (route.models) {
        v.fortress_model = 'unknown';
        if (r.headersIn['Content-Encoding'] !== undefined) return end(r, errors.of('encoded-body'));
        const bytes = Buffer.from(body || await r.readRequestArrayBuffer());
        const verdict = bodies.judge(bytes, route, user, id);
        // A body that came slowly may have outlived its entry among the streams.
        const late = (alive(caller) ? barred(r, caller) : errors.of('no-identity')) || crowded();
        if (late) return end(r, late);
        if (verdict instanceof errors.Refusal) return end(r, verdict);
        v.fortress_model = verdict.model;
        const spent = route.class === 'inference' ? meter(r, id, caller, route, bytes.length, verdict) : null;
        if (spent) return end(r, spent);
        v.fortress_body = outline.whole(JSON.stringify(verdict.ask), verdict.insides, id);
    }
    const slot = route.class === 'inference' ? enqueue(r, id, caller) : null, refusal = slot && await slot;
    if (refusal) return end(r, refusal);
    judged(v, 'allowed', '');
}

/** js_access of whatever has no location: nothing here, for everybody; the audit line still says who asked. */
function nothing(r) {
    if (misdirected(r)) return;
    note(r, who(r));
    end(r, routes.declared.indexOf(asked(r)) < 0 ? errors.made(404) : errors.of('never'));
}

/** Of the error pages /-/error/<status>, js_access and for subrequests js_content: what nginx itself refused, in the caller's shape. */
function failed(r) {
    const status = Number(r.uri.slice(r.uri.lastIndexOf('/') + 1)) || 500;
    const refusal = (r.variables.fortress_page && session.failed(asked(r), status)) || errors.made(status);
    const v = r.variables, route = routing.routeOf(routes.routes, asked(r), asked(r));
    if (route && refusal.status === 405) refusal.headers.Allow = route.methods.join(', ');
    // Where nginx refused before the policy was asked.
    if (route && v.fortress_route === 'unknown') v.fortress_route = route.path;
    if (!v.fortress_principal && status !== 400) note(r, who(r));
    end(r, refusal, refusal.status >= 500 ? 'failed' : 'refused');
}

// Answers what is `shown` of one of Ollama's lists, which it is asked for by a path that no client can reach.
async function ask(r, path, shown) {
    const reply = await r.subrequest('/-' + path);
    if (reply.status !== 200) return end(r, errors.made(reply.status === 504 ? 504 : 502), 'failed');
    const value = shown(JSON.parse(reply.responseText));
    return value ? answer(r, value) : end(r, errors.of('no-such-model'));
}

function answer(r, value) { say(r, 200, { 'Content-Type': 'application/json' }, JSON.stringify(value) + '\n'); }

/** js_content of the lists of models: a caller sees what it may use. */
function list(r) { return ask(r, r.uri, all => models.visible(all, principals.users[r.variables.fortress_principal])); }

/** js_content of /v1/models/<name>: answered here from Ollama's list, so that no chosen path goes on. */
function describe(r) { return ask(r, '/v1/models', all => models.described(all, r.variables.fortress_model)); }

/**
 * js_body_filter: every chunk leaves at once; a stream whose key or address row is gone, or blocked, is cut. After a reload the
 * old worker still holds its streams and its old principals: `live` is written by the newest worker only.
 */
function watch(r, data, flags) {
    const now = Date.now(), own = metered(r);
    if (own && Math.abs(now - own.looked) > LOOK_MS) check(r, own, now);
    if (own && r.status < 400) {
        if (data.length) observe.chunk(own, now);
        usage.count(own.of, data, flags.last);
        if (own.of.drop) data = usage.pass(own.of, data, flags.last);
        if (Math.abs(now - own.seen) > COUNT_MS) { // a clock may go back
            settle(own, now);
            if (own.hold) ledger.hold(own.user, own.id, Math.max(0, own.hold - own.counted[0] - own.counted[1]));
        }
    }
    if (data.length || flags.last) r.sendBuffer(data, { last: flags.last, flush: true });
}

// Throws where the stream's caller may not have it any more.
function check(r, own, now) {
    const why = !shared.live.has(own.ticket) ? 'revoked'
        : isBlocked(r, own.user) ? 'blocked'
        // Who reads slowly holds up Ollama, and whoever waits for it.
        : now - (Number(r.variables.fortress_served) || own.admitted) > principals.longest_answer_ms ? 'too-long'
        : observe.alone(now) && leaving() ? 'stopping' : '';
    if (why) {
        judged(r.variables, 'cut', why);
        throw new Error(why + ': stream is cut');
    }
    own.looked = now;
    if (Math.abs(now - own.renewed) < RENEW_MS) return;
    own.renewed = now;
    shared.streams.set(own.slot, own.id);
    shared.slots.set(own.id, HOLDER);
}

// What a dead worker held is given back. Not by its silence: a model that loads may be silent for many minutes.
function reap() {
    const runs = pid => fs.existsSync('/proc/' + pid);
    left(waiting()).forEach(row => { shared.queue.delete(row.id); });
    if (!runs(process.pid)) return; // processes are hidden here: the entries' own timeouts remain
    [shared.slots, shared.queue].forEach(dict => dict.items().forEach(item => {
        const pid = JSON.parse(item[1]).pid;
        if (pid && !runs(pid)) dict.delete(item[0]);
    }));
}

/** js_periodic: who is gone holds nothing, and the newest worker says which keys and address rows are alive. */
function announce() {
    reap();
    if (!newest()) return;
    const live = shared.live, wanted = new Set(identity.tickets(principals));
    wanted.forEach(ticket => { live.add(ticket, '1'); });
    live.keys(1000000).forEach(ticket => { if (!wanted.has(ticket)) live.delete(ticket); });
}

// Milliseconds that the request waited for its turn.
function queued(v) { return v.fortress_waits ? (Number(v.fortress_served) || Date.now()) - Number(v.fortress_waits) : 0; }

/**
 * js_periodic: the newest worker keeps the counters of all; the old ones count into the same memory. A worker that
 * shuts down has no periodic any more: there it is called while streams go on, and when the last one ends.
 */
function keep() { if (newest()) ledger.save(); }

// Does this worker shut down? nginx says so in its title.
function leaving() { return fs.readFileSync('/proc/self/cmdline', 'utf8').indexOf('shutting down') >= 0; }

/** js_content of the gateway's own routes: what a caller is and has left; for admins, what everybody has used. */
function own(r) {
    const now = Date.now(), v = r.variables, name = v.fortress_principal, user = principals.users[name];
    if (r.uri === '/fortress/usage') {
        const rows = Object.keys(principals.users).map(each => [each, ledger.shown(each, principals.users[each].limits, now)]);
        return answer(r, { timezone: principals.clock.timezone, users: Object.fromEntries(rows) });
    }
    const streams = shared.streams.keys(1000000).filter(slot => slot.indexOf(name + '|') === 0).length;
    const waits = waiting().filter(row => row.user === name).length;
    answer(r, Object.assign({ user: name, role: user.role, proof: v.fortress_proof, device: v.fortress_device || null,
        devices: user.devices, models: user.models, limits: user.limits, streams: streams, waiting: waits,
        queue_wait_s: principals.queue.wait_s, dashboards: user.role === 'admin' && !!(principals.browser || {}).dashboards, timezone: principals.clock.timezone },
    ledger.shown(name, user.limits, now)));
}

/**
 * js_set, used only by the log, so it runs once at every end of a request: counts what it cost, writes its line, then
 * gives back what it held. Returns '': nginx itself logs nothing. A caller that leaves while Ollama reads the prompt pays it: Ollama notices that only at the first token.
 */
function completion(r) {
    const v = r.variables, id = v.request_id, slot = v.fortress_slot, spent = metered(r);
    if (spent) {
        if (v.status === '499' && !spent.of.bytes && Number(v.upstream_bytes_sent) > 0) spent.of.in = spent.of.prompt;
        settle(spent, 0);
        running = null;
    }
    if (v.fortress_waits) shared.queue.delete(id);
    shared.slots.delete(id);
    // Not by the meter: behind an error page another engine ends the request.
    if (v.fortress_principal) ledger.release(v.fortress_principal, id);
    if (slot && shared.streams.get(slot) === id) shared.streams.delete(slot);
    if (spent && shared.streams.size() === 0 && leaving()) keep();
    observe.ended(r, spent, queued(v));
    return '';
}

export default { admit, announce, asker, completion, cookies, describe, enter, failed, heed, home, keep, list, nothing,
    origin, own, step, watch };
