// Pages of which other sites may call with a key. Touches no nginx object: every function here is plain and runs under any JavaScript engine.

// A keyless caller is refused for a foreign page whatever is listed; cookies never count, so credentials are never allowed.
// The star stands for what libraries add of their own (x-stainless-os, anthropic-beta); it never covers Authorization.
const HEADERS = 'Authorization, Content-Type, X-Api-Key, *';

/** The origin to name in the answer, or '': nginx then sends no such header. */
function allowed(origins, origin) { return origins.some(each => each === origin) ? origin : ''; }

/** The headers of the answer to a browser that asks before it sends, still without a key; null where it does not ask. */
function preflight(origins, route, method, origin) {
    if (method !== 'OPTIONS' || !route || !allowed(origins, origin)) return null;
    return {
        'Access-Control-Allow-Methods': route.methods.join(', '),
        'Access-Control-Allow-Headers': HEADERS,
        'Access-Control-Max-Age': '600',
    };
}

export default { allowed, preflight };
