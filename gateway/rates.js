// How much of what a caller may take in a time. Touches no nginx object: every function here is plain and runs under any JavaScript engine.

import errors from 'errors.js';

/** One token bucket. state: 'tokens time_ms' or undefined. Returns [allowed, new state, seconds to the next token]. */
function take(state, perMinute, burst, now) {
    let tokens = burst;
    if (state) {
        const parts = state.split(' ');
        tokens = Math.min(burst, Number(parts[0]) + Math.max(0, now - Number(parts[1])) * perMinute / 60000);
    }
    if (tokens >= 1) return [true, (tokens - 1) + ' ' + now, 0];
    return [false, tokens + ' ' + now, Math.max(1, Math.ceil((1 - tokens) * 60 / perMinute))];
}

/** Which bucket a request is taken from: cheap reads are counted apart, so that polling never eats inference. */
function bucket(route, limits) {
    // A dashboard is some hundred files and questions, of an admin.
    if (route.class === 'dashboards') return { name: 'dashboards_per_minute', perMinute: 1200, burst: 600 };
    if (route.class !== 'read')
        return { name: 'requests_per_minute', perMinute: limits.requests_per_minute, burst: limits.burst };
    const reads = limits.reads_per_minute;
    return { name: 'reads_per_minute', perMinute: reads, burst: Math.max(limits.burst, Math.ceil(reads / 2)) };
}

/** Said to whoever fails to prove itself too often from one place; a caller that proves itself is never counted here. */
function guessing(seconds) {
    return errors.refuse(429, 'failed_auth_per_minute',
        'too many requests without a valid key from this address; try again in ' + seconds + ' s',
        { 'Retry-After': String(seconds) });
}

function limited(name, value, seconds) {
    return errors.refuse(429, name, 'limit ' + name + ' (' + value + ') reached; try again in ' + seconds + ' s',
        { 'Retry-After': String(seconds) });
}

export default { bucket, guessing, limited, take };
