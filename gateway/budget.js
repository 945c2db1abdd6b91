// How many tokens a request may cost, and in which day and month. Touches no nginx object: every function here is plain and runs under any JavaScript engine.

import errors from 'errors.js';

// The part of a date that a budget lasts for.
const PERIODS = { tokens_per_day: 10, tokens_per_month: 7 };
const ANSWER = {
    '/api/generate': 'num_predict', '/api/chat': 'num_predict', '/v1/chat/completions': 'max_tokens',
    '/v1/completions': 'max_tokens', '/v1/messages': 'max_tokens', '/v1/responses': 'max_output_tokens',
};
const STREAMS = ['/v1/chat/completions', '/v1/completions'];
// A prompt with one of these may become longer than it is written.
const GROWS = /"(images|image|image_url|input_image|template)"/;
// What a model's template puts around a prompt, in tokens.
const TEMPLATE = 256;
const MOST = 10000000;

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

function bounded(n) { return typeof n === 'number' && n >= 1 && n <= MOST; }

function plain(value) { return value !== null && typeof value === 'object' && !Array.isArray(value); }

function promptOf(ask, path, body, context) {
    const bytes = Buffer.byteLength(body);
    if (!ANSWER[path]) return Math.min(bytes, context * (Array.isArray(ask.input) ? Math.max(1, ask.input.length) : 1));
    return bytes < context && !GROWS.test(body) ? bytes : context;
}

/** Where Ollama looks for the longest answer, and what the caller wrote there; it reads no max_completion_tokens. */
function answerOf(ask, path) {
    const place = ANSWER[path] === 'num_predict' ? (plain(ask.options) ? ask.options : {}) : ask;
    const said = [place[ANSWER[path]], path === '/v1/chat/completions' ? ask.max_completion_tokens : 0].filter(bounded);
    return [place, said.length ? Math.floor(Math.min.apply(null, said)) : 0];
}

/**
 * What a judged body may cost. Changes `ask` where Ollama must be told: to bound the answer of a caller with a
 * budget, and to count the tokens of a stream that would not say them.
 *   context  the stack's ollama.context_length, which bounds what the caller left unbounded
 * Returns: {prompt, answer, hold, drop, changed}; hold is what to reserve, drop: the usage was not asked for.
 */
function plan(ask, path, body, limits, context) {
    const limited = Object.keys(PERIODS).some(name => limits[name] !== null), key = ANSWER[path];
    const wide = Math.max(context, plain(ask.options) && bounded(ask.options.num_ctx) ? ask.options.num_ctx : 0);
    const prompt = promptOf(ask, path, body, wide);
    let answer = 0, changed = false;
    if (key) {
        const [place, said] = answerOf(ask, path);
        answer = said || (limited ? context : MOST);
        if (limited && place[key] !== answer) {
            place[key] = answer;
            if (place !== ask) ask.options = place;
            changed = true;
        }
    }
    const drop = STREAMS.indexOf(path) >= 0 && ask.stream === true
        && !(plain(ask.stream_options) && ask.stream_options.include_usage === true);
    if (drop) ask.stream_options = { include_usage: true };
    const hold = Math.min(wide, prompt + (key ? TEMPLATE : 0)) + answer;
    return { prompt: prompt, answer: answer, hold: key ? hold : prompt, drop: drop, changed: changed || drop };
}

/** Refused where this request might end above the limit. Streams that run may give back some of what they hold. */
function over(name, limit, used, held, hold, seconds) {
    if (used + held + hold <= limit) return null;
    const wait = used + hold <= limit ? 5 : seconds;
    return errors.refuse(429, name, 'limit ' + name + ' (' + limit + '): ' + Math.max(0, limit - used - held)
        + ' left, and this request may take ' + hold + '; ask for a shorter answer, or try again in ' + wait + ' s',
    { 'Retry-After': String(wait) });
}

export default { PERIODS, date, over, period, plan, renews };
