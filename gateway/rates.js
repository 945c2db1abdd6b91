// How much of what a caller may take in a time. Touches no nginx object: every function here is plain and runs under any JavaScript engine.

/**
 * One token bucket, kept as the time (ms) at which it is full again; undefined: it is full.
 * Returns [allowed, its new time, seconds to the next token].
 */
function take(full, perMinute, burst, now) {
    const each = 60000 / perMinute, missing = Math.min(burst * each, Math.max(0, (full || 0) - now));
    const wait = missing + each - burst * each;
    // Sums of such times are not exact to the last digit: a hundredth of a token is none.
    if (wait <= each / 100) return [true, now + missing + each, 0];
    return [false, now + missing, Math.max(1, Math.ceil(wait / 1000))];
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

export default { bucket, take };
