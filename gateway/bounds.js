// How much one request may ask of the model, and with which options. Touches no nginx object: every function here is plain and runs under any JavaScript engine.

import errors from 'errors.js';
import keys from 'keys.js';

const SAMPLING = keys.options.sampling, ALL = SAMPLING.concat(keys.options.runner);

/** A whole number of at most `most`; what is absent, or unbounded by a negative number, is `most`. */
function clamp(value, most) {
    return value === undefined || value === null || value < 0 || value > most ? most : Math.floor(value);
}

/** Can JavaScript have read this number as it was written? Above 2^53 a seed would be another one. */
function exact(value) { return typeof value === 'number' && Math.abs(value) <= Number.MAX_SAFE_INTEGER; }

function typed(key, value) {
    if (keys.options.lists.indexOf(key) >= 0) return Array.isArray(value) && value.every(item => typeof item === 'string');
    return keys.options.switches.indexOf(key) >= 0 ? typeof value === 'boolean' : exact(value);
}

/** The options that go on: users shape their own answer, only admins move the runner that everybody shares. */
function options(given, user) {
    const out = {}, allowed = user.role === 'admin' ? ALL : SAMPLING;
    for (const key of Object.keys(given)) {
        let value = given[key];
        if (value === null || allowed.indexOf(key) < 0) continue; // to Ollama, null is absent
        if (!typed(key, value)) return errors.of('option-type', key);
        // Each other context loads the model anew, for everybody: a user gets the stack's, or the one wider one. And for
        // so many tokens that it shall not repeat, the runner takes memory at once.
        if (key === 'repeat_last_n' || (key === 'num_ctx' && user.role === 'admin')) value = clamp(value, user.limits.context_tokens);
        else if (key === 'num_ctx') value = value > user.stack_ctx ? user.num_ctx : null;
        if (value !== null) out[key] = value;
    }
    return out;
}

/**
 * Bounds the answer in `ask`, which has been judged: written also where it is absent, since Ollama's own bound is ten
 * contexts. row: of keys.json. Returns: the bound, 0 where the route gives no answer.
 */
function bound(ask, row, user) {
    if (!row.answer) return 0;
    let holder = ask;
    if (row.answer === 'num_predict') holder = ask.options = ask.options || {};
    // Ollama 0.32.15 does not know OpenAI's newer word: whoever bounds himself by it is bounded by the older one.
    const said = holder[row.answer] === undefined || holder[row.answer] === null ? holder.max_completion_tokens : holder[row.answer];
    holder[row.answer] = clamp(said, user.limits.answer_tokens);
    if (holder.max_completion_tokens !== undefined) holder.max_completion_tokens = holder[row.answer];
    return holder[row.answer];
}

export default { ALL, bound, clamp, exact, options };
