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
    const text = String(header).slice(0, 16).toLowerCase().replace(/^async/, '');
    const word = Object.keys(AGENTS).filter(each => text.indexOf(each) === 0)[0];
    return word ? AGENTS[word] : 'unknown';
}

/** Names as they are declared, by the one spelling that all of a model's spellings have in common. */
function named(declared) {
    const all = {};
    declared.forEach(name => { all[models.tagged(name.toLowerCase())] = name; });
    return all;
}

/** The declared name of a model; one that nobody declared has a name that somebody chose. */
function model(known, asked) {
    const name = asked ? models.tagged(asked.toLowerCase()) : '';
    return name && (Object.prototype.hasOwnProperty.call(known, name) ? known[name] : 'unknown');
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
        verdict: v.fortress_verdict, reason: v.fortress_reason,
        model: model(known, v.fortress_model), agent: agent,
        tokens_in: spent ? spent.counted[0] : 0, tokens_out: spent ? spent.counted[1] : 0,
        first_token_s: spent && spent.first ? seconds(spent.first - now + duration * 1000) : null,
        duration_s: duration, queued_s: seconds(queued), bytes: Number(v.body_bytes_sent) || 0,
        completion: v.request_completion === 'OK' ? 'finished' : 'cut', tls: v.ssl_protocol || '',
    };
}

/** Whatever a value holds, one line is one JSON object. */
function line(facts) { return JSON.stringify(facts) + '\n'; }

/** Written before the first line that can be written again: how many are missing here. */
function gap(lost, now) { return line({ time: new Date(now).toISOString(), event: 'audit-lost', lines: lost }); }

/** The place of a time among BOUNDS. */
function bin(seconds) {
    let at = 0;
    while (at < BOUNDS.length && seconds > BOUNDS[at]) at++;
    return at;
}

function measured(rows, name, seconds) {
    rows.push([name + '|' + bin(seconds), 1], [name + '|sum', seconds]);
}

/**
 * What one request adds to the figures: rows of [series, how much]. A histogram's series are `name|<bucket>` and
 * `name|sum`, each bucket for itself. `kind` is the route's class.
 */
function counted(f, kind) {
    const who = '{principal="' + f.principal + '",', rows = [];
    rows.push(['fortress_requests_total' + who + 'class="' + kind + '",verdict="' + f.verdict + '"}', 1]);
    if (f.verdict === 'refused') {
        rows.push(['fortress_refusals_total{reason="' + f.reason + '"}', 1]);
        if (f.status === 429) rows.push(['fortress_limits_hit_total' + who + 'limit="' + f.reason + '"}', 1]);
        if (UNPROVEN.indexOf(f.reason) >= 0) rows.push(['fortress_auth_failures_total', 1]);
    }
    if (f.tokens_in || f.tokens_out) {
        const of = 'fortress_tokens_total' + who + 'model="' + f.model + '",direction="';
        rows.push([of + 'in"}', f.tokens_in], [of + 'out"}', f.tokens_out]);
    }
    if (kind === 'inference' && (f.verdict === 'allowed' || f.verdict === 'cut')) {
        measured(rows, 'fortress_request_seconds', f.duration_s);
        measured(rows, 'fortress_queue_seconds', f.queued_s);
        if (f.first_token_s !== null) measured(rows, 'fortress_first_token_seconds', f.first_token_s);
    }
    return rows;
}

export default { BOUNDS, agent, bin, counted, facts, gap, line, model, named };
