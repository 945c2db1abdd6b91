// Who asks. Touches no nginx object: every function here is plain and runs under any JavaScript engine.

import errors from 'errors.js';

// Of a key: 32 bytes in hexadecimal. What else it may be, its hash decides, which only a key of ours has.
const DIGITS = 64;

/** The key in an Authorization header: null without one, '' where it is not one of ours. */
function bearer(header) {
    if (header === undefined || header === null) return null;
    const text = header.slice(0, 7) === 'Bearer ' ? header.slice(7) : '';
    return text.length === DIGITS ? text : '';
}

/**
 * Who asks. A key that came and is wrong never falls back to the address: its sender believes to be somebody else.
 *   known   principals.js
 *   relay   name of the relay that the connection came through, or ''
 * Returns: null, or {user, proof: key|address, ticket, device}; the ticket is what revocation takes away.
 */
function identify(known, header, sha256, relay, address) {
    const place = relay + '|' + address;
    const row = relay && Object.hasOwn(known.addresses, place) ? known.addresses[place] : undefined;
    const key = bearer(header);
    if (key !== null) {
        const hash = key && sha256(key);
        if (!hash || !Object.hasOwn(known.keys, hash)) return null;
        const user = known.keys[hash];
        return { user: user, proof: 'key', ticket: 'k:' + hash, device: row && row.user === user ? row.device : '' };
    }
    if (row && known.users[row.user].keyless)
        return { user: row.user, proof: 'address', ticket: 'a:' + place, device: row.device };
    return null;
}

/** The ticket of a session: with a new browser.epoch, address or user it is another one. */
function session(known, mail) { return 's:' + known.browser.epoch + '|' + known.emails[mail] + '|' + mail; }

/** The tickets of everybody who may act: an open stream whose ticket is not among them is cut. */
function tickets(known) {
    const keyless = Object.keys(known.addresses).filter(place => known.users[known.addresses[place].user].keyless);
    return Object.keys(known.keys).map(hash => 'k:' + hash).concat(keyless.map(place => 'a:' + place),
        Object.keys(known.emails).map(mail => session(known, mail)));
}

/**
 * A page of another site must not act through a tunnel, or a cookie, that proves its owner by itself.
 *   page   host and port of the browser's page, where the request came to it: then no other origin is its own
 */
function crossSite(caller, known, origin, fetchSite, page) {
    if (caller.proof === 'key') return null;
    const own = page ? [page] : [known.domain].concat(known.tunnel_addresses.map(a => a.indexOf(':') < 0 ? a : '[' + a + ']'));
    const foreign = (fetchSite && fetchSite !== 'same-origin' && fetchSite !== 'none')
        || (origin && own.every(name => origin !== 'https://' + name));
    return foreign ? errors.of('cross-site') : null;
}

export default { bearer, crossSite, identify, session, tickets };
