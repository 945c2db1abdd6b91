// The policy's plain functions by their names, for tests that call them with JSON: in njs, or under Node to see what is run.

import crypto from 'crypto';
import blocked from 'blocked.js';
import bodies from 'bodies.js';
import bounds from 'bounds.js';
import budget from 'budget.js';
import cors from 'cors.js';
import errors from 'errors.js';
import identity from 'identity.js';
import models from 'models.js';
import queue from 'queue.js';
import rates from 'rates.js';
import reach from 'reach.js';
import routing from 'routing.js';
import usage from 'usage.js';

const POLICY = Object.assign({ identified, measured, planned },
    blocked, bodies, bounds, budget, cors, errors, identity, models, queue, rates, reach, routing, usage);

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

function planned(ask, path, limits, context) {
    return { plan: budget.plan(ask, path, JSON.stringify(ask), limits, context), ask: ask };
}

function run(asked) {
    try { return { value: POLICY[asked.name].apply(null, asked.args) }; } catch (e) { return { error: String(e) }; }
}

/** One call {name, args}, or a list of them. Returns {value} or {error} of each. */
function answer(asked) { return Array.isArray(asked) ? asked.map(run) : run(asked); }

export default { answer };
