// Which route a request means, and whether this caller may have it at all. Touches no nginx object: every function here is plain and runs under any JavaScript engine.

import errors from 'errors.js';

/** The row of a path; `raw` is the client's own spelling. Only the plain spelling of a path is that path. */
function routeOf(rows, path, raw) {
    const written = raw.split('?')[0];
    for (let i = 0; i < rows.length; i++) {
        const row = rows[i];
        if (row.tail === undefined ? row.path === path && written === path : path.indexOf(row.path) === 0 && decoded(written) === path)
            return row;
    }
    return null;
}

function decoded(text) {
    try { return decodeURIComponent(text); } catch (e) { return ''; }
}

/**
 * May this caller have this route at all? Whoever is unknown learns nothing about roles or methods.
 * Returns: Refusal, or null.
 */
function open(route, method, caller, known) {
    // A route that hides its other methods is no route to them.
    if (!route || (route.hides && route.methods.indexOf(method) < 0)) return errors.made(404);
    if (!caller) return errors.of('no-identity');
    if (route.role === 'admin' && known.users[caller.user].role !== 'admin') return errors.of('admin-only');
    const allowed = route.methods.join(', ');
    if (route.methods.indexOf(method) < 0)
        return errors.refuse(405, 'wrong-method', 'allowed here: ' + allowed, { Allow: allowed });
    return null;
}

export default { decoded, open, routeOf };
