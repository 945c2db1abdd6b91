// The policy's plain functions by their names, for tests that call them with JSON: in njs, or under Node to see what is run.

import crypto from 'crypto';
import audit from 'audit.js';
import blocked from 'blocked.js';
import bodies from 'bodies.js';
import bounds from 'bounds.js';
import budget from 'budget.js';
import cors from 'cors.js';
import errors from 'errors.js';
import identity from 'identity.js';
import metrics from 'metrics.js';
import models from 'models.js';
import outline from 'outline.js';
import queue from 'queue.js';
import rates from 'rates.js';
import reach from 'reach.js';
import routing from 'routing.js';
import session from 'session.js';
import trail from 'trail.js';
import usage from 'usage.js';

const POLICY = Object.assign({}, trail, metrics, audit, blocked, bodies, bounds, budget, cors, errors, identity, models, queue, rates, reach,
    routing, session, usage, { identified, judge, measured, outlined, planned, tallied });
const MARK = 'mark-that-no-test-writes:';

/** Who asks, with the hash that the gateway takes. */
function identified(known, header, relay, address) {
    const sha256 = text => crypto.createHash('sha256').update(text).digest('hex');
    return identity.identify(known, header, sha256, relay, address);
}

/** What a meter makes of pieces in base64: what left, piece by piece, and the tokens. */
function measured(drop, pieces, whole) {
    const m = usage.meter(1000, 500, drop), left = [];
    pieces.forEach((piece, i) => {
        const data = Buffer.from(piece, 'base64'), last = whole && i === pieces.length - 1;
        usage.count(m, data, last);
        left.push((drop ? usage.pass(m, data, last) : data).toString('base64'));
    });
    return { left: left, tokens: usage.tokens(m), kept: m.part.length };
}

/** What a request adds to the figures, in the order in which it is added. */
function tallied(facts, kind) {
    const rows = [];
    audit.counted(facts, kind, (key, much) => { rows.push([key, much]); });
    return rows;
}

function planned(ask, path, limits, context) {
    const bytes = Buffer.byteLength(JSON.stringify(ask)), grows = reach.more(ask) > 0;
    return { plan: budget.plan(ask, path, bytes, grows, limits, context), ask: ask };
}

/** The verdict on a body, and the body that would go on. */
function judge(text, route, user) {
    const verdict = bodies.judge(Buffer.from(text), route, user, MARK);
    if (!verdict.ask) return verdict;
    return { model: verdict.model, body: outline.whole(JSON.stringify(verdict.ask), verdict.insides, MARK).toString() };
}

/** A body in base64: what the policy sees of it, and whether the same bytes come out again. */
function outlined(base64) {
    const bytes = Buffer.from(base64, 'base64'), seen = outline.shorten(bytes, MARK);
    if (!seen.insides) return seen;
    const whole = Buffer.from(outline.whole(seen.text, seen.insides, MARK));
    return { text: seen.text, left: seen.insides.map(inside => inside.length), whole: whole.toString('base64') };
}

function run(asked) {
    try { return { value: POLICY[asked.name].apply(null, asked.args) }; } catch (e) { return { error: String(e) }; }
}

/** One call {name, args}, or a list of them. Returns {value} or {error} of each. */
function answer(asked) { return Array.isArray(asked) ? asked.map(run) : run(asked); }

export default { answer };
