// How many tokens a request may cost, and in which day and month. Touches no nginx object: every function here is plain and runs under any JavaScript engine.

import errors from 'errors.js';
import keys from 'keys.js';

// The part of a date that a budget lasts for.
const PERIODS = { tokens_per_day: 10, tokens_per_month: 7 };
const STREAMS = ['/v1/chat/completions', '/v1/completions'];
// What a model's template puts around a prompt, in tokens.
const TEMPLATE = 256;

/** The date at `now` (ms), in the stack's time zone. offsets: [[from ms, seconds east of UTC], ...] in order of time. */
function date(offsets, now) {
    let east = offsets[0][1];
    for (let i = 1; i < offsets.length && offsets[i][0] <= now; i++) east = offsets[i][1];
    return new Date(now + east * 1000).toISOString().slice(0, 10);
}

function period(offsets, name, now) { return date(offsets, now).slice(0, PERIODS[name]); }

/** When (ms, to the second) the next day or month begins: searched for, so that it is right on every DST day too. */
function renews(offsets, name, now) {
    const today = period(offsets, name, now);
    let before = Math.floor(now / 1000), after = before + 33 * 86400;
    while (after - before > 1) {
        const middle = Math.floor((before + after) / 2);
        if (period(offsets, name, middle * 1000) > today) after = middle;
        else before = middle;
    }
    return after * 1000;
}

// Texts to embed are read one by one, each up to the context length.
function promptOf(ask, chats, bytes, grows, context) {
    if (!chats) return Math.min(bytes, context * (Array.isArray(ask.input) ? ask.input.length : 1));
    // These may become longer in the prompt than they are written.
    const more = grows || ask.template || (Array.isArray(ask.tools) && ask.tools.length);
    return bytes < context && !more ? bytes : context;
}

/**
 * What a judged body may cost. Its answer is bounded already, but by 0, which Ollama's own runner takes for no bound.
 * Changes `ask` there, and where a stream would not say its tokens.
 *   bytes     the length of the client's body
 *   grows     does it hold images, files or calls of tools
 *   context   the stack's ollama.context_length
 * Returns: {prompt, answer, hold, drop}; hold is what to reserve, drop: the caller did not ask for the usage.
 */
function plan(ask, path, bytes, grows, limits, context) {
    const key = keys.routes[path].answer, options = ask.options || {}, place = key === 'num_predict' ? options : ask;
    const wide = Math.max(context, options.num_ctx || 0), prompt = promptOf(ask, key, bytes, grows, wide);
    const unbounded = key && !(place[key] >= 1);
    if (unbounded) place[key] = limits.answer_tokens;
    const answer = key ? place[key] : 0;
    const drop = STREAMS.indexOf(path) >= 0 && ask.stream === true
        && !(ask.stream_options && ask.stream_options.include_usage === true);
    if (drop) ask.stream_options = { include_usage: true };
    return { prompt: prompt, answer: answer, drop: drop, hold: (key ? Math.min(wide, prompt + TEMPLATE) : prompt) + answer };
}

/** The refusal where this request might end above the limit. Streams that run may give back some of what they hold. */
function over(name, limit, used, held, hold, seconds) {
    const wait = used + hold <= limit ? 5 : seconds;
    return errors.refuse(429, name, 'limit ' + name + ' (' + limit + '): ' + Math.max(0, limit - used - held)
        + ' left, and this request may take ' + hold + '; ask for a shorter answer, or try again in ' + wait + ' s',
    { 'Retry-After': String(wait) });
}

export default { PERIODS, date, over, period, plan, renews };
