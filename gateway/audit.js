// The audit line of one request, and what it counts. Touches no nginx object: every function here is plain and runs under any JavaScript engine.

import models from 'models.js';

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'];
// How the libraries begin their User-Agent.
const AGENTS = { ollama: 'ollama', openai: 'openai', anthropic: 'anthropic', 'curl/': 'curl', 'mozilla/': 'browser' };
const UNPROVEN = ['no-identity', 'not-in-the-list', 'failed_auth_per_minute'];
/** Upper bounds of every histogram, in seconds; above the last one is +Inf. */
const BOUNDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];

/** The family of a client's library, from a header that it chose. */
function agent(header) {
    if (!header) return 'unknown';
    let text = header.slice(0, 16).toLowerCase();
    if (text.startsWith('async')) text = text.slice(5);
    for (const word in AGENTS) if (text.startsWith(word)) return AGENTS[word];
    return 'unknown';
}

/** Names as they are declared, by the one spelling that all of a model's spellings have in common. */
function named(declared) {
    const all = {};
    declared.forEach(name => { all[models.tagged(name)] = name; });
    return all;
}

/** The declared name of a model; one that nobody declared has a name that somebody chose. */
function model(known, asked) {
    const name = asked ? models.tagged(asked) : '';
    return name && (Object.hasOwn(known, name) ? known[name] : 'unknown');
}

function seconds(ms) { return Math.max(0, Math.round(ms)) / 1000; }

/**
 * What one line says, in its order. Nothing of it is the client's own words.
 *   v      nginx's variables at the end of the request
 *   agent  the family of its library; known  `named` models
 *   spent  {counted: [in, out], first: ms or 0} of an inference request, or null; queued  ms; now  ms
 */
function facts(v, agent, known, spent, queued, now) {
    const status = Number(v.status), duration = Number(v.request_time) || 0;
    return {
        time: new Date(now).toISOString(), request_id: v.request_id,
        principal: v.fortress_principal, proof: v.fortress_proof, device: v.fortress_device,
        relay: v.fortress_relay, address: v.remote_addr, route: v.fortress_route,
        method: METHODS.indexOf(v.request_method) < 0 ? 'unknown' : v.request_method,
        status: status >= 100 ? status : 0, // 000: never answered; 009: HTTP/0.9
        // Ollama's own 500 comes through as it is.
        verdict: status > 499 && v.fortress_verdict === 'allowed' ? 'failed' : v.fortress_verdict, reason: v.fortress_reason,
        model: model(known, v.fortress_model), agent: agent,
        tokens_in: spent ? spent.counted[0] : 0, tokens_out: spent ? spent.counted[1] : 0,
        first_token_s: spent && spent.first ? seconds(spent.first - now + duration * 1000) : null,
        duration_s: duration, queued_s: seconds(queued), bytes: Number(v.body_bytes_sent) || 0,
        completion: v.request_completion === 'OK' ? 'finished' : 'cut', tls: v.ssl_protocol || '',
    };
}

/**
 * As JSON, put together by hand: JSON.stringify takes three times as long. No value needs to be escaped: each is a number,
 * nginx's own, or a name that the configuration holds, whose characters settings/ allows.
 */
function line(f) {
    return '{"time":"' + f.time + '","request_id":"' + f.request_id + '","principal":"' + f.principal + '","proof":"' + f.proof
        + '","device":"' + f.device + '","relay":"' + f.relay + '","address":"' + f.address + '","route":"' + f.route
        + '","method":"' + f.method + '","status":' + f.status + ',"verdict":"' + f.verdict + '","reason":"' + f.reason
        + '","model":"' + f.model + '","agent":"' + f.agent + '","tokens_in":' + f.tokens_in + ',"tokens_out":' + f.tokens_out
        + ',"first_token_s":' + f.first_token_s + ',"duration_s":' + f.duration_s + ',"queued_s":' + f.queued_s
        + ',"bytes":' + f.bytes + ',"completion":"' + f.completion + '","tls":"' + f.tls + '"}\n';
}

/** Written before the first line that can be written again: how many are missing here. */
function gap(lost, now) { return JSON.stringify({ time: new Date(now).toISOString(), event: 'audit-lost', lines: lost }) + '\n'; }

/** The place of a time among BOUNDS. */
function bin(seconds) {
    let at = 0;
    while (at < BOUNDS.length && seconds > BOUNDS[at]) at++;
    return at;
}

function measured(add, name, seconds) {
    add(name + bin(seconds), 1);
    if (seconds) add(name + 'sum', seconds);
}

/**
 * What one request adds to the figures, by calls of `add(key, how much)`. A key is short, `kind|label|label`: metrics.js
 * knows what it means. `kind` is the route's class.
 */
function counted(f, kind, add) {
    const who = f.principal + '|';
    add('r|' + who + kind + '|' + f.verdict, 1);
    if (f.verdict === 'refused') {
        add('x|' + f.reason, 1);
        if (f.status === 429) add('l|' + who + f.reason, 1);
        if (UNPROVEN.indexOf(f.reason) >= 0) add('u', 1);
    }
    if (f.tokens_in || f.tokens_out) {
        add('t|' + who + f.model + '|in', f.tokens_in);
        add('t|' + who + f.model + '|out', f.tokens_out);
    }
    // What Ollama refuses (a model that is not there) is no answer that failed or was given up.
    if (kind === 'inference' && (f.verdict === 'allowed' || f.verdict === 'cut') && (f.status < 400 || f.status >= 499)) {
        measured(add, 'd|', f.duration_s);
        measured(add, 'q|', f.queued_s);
        if (f.first_token_s !== null) measured(add, 'f|', f.first_token_s);
    }
}

export default { BOUNDS, UNPROVEN, agent, bin, counted, facts, gap, line, model, named };
