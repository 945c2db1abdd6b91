// Whose turn it is, and who may wait. Touches no nginx object: every function here is plain and runs under any JavaScript engine.

import errors from 'errors.js';

/**
 * The place of one more request of `user`: start-time fair queueing, so that slots go round over the users.
 *   rows  those who wait: [{id, user, tag, since}]
 *   turn  the tag that was served last
 */
function tag(rows, user, turn) {
    return Math.max.apply(null, [turn].concat(rows.filter(row => row.user === user).map(row => row.tag))) + 1;
}

/** Who takes the next free slot: the smallest tag, then whoever came first; null where nobody waits. */
function next(rows) {
    return rows.reduce((best, row) => best === null || row.tag < best.tag || (row.tag === best.tag
        && (row.since < best.since || (row.since === best.since && row.id < best.id))) ? row : best, null);
}

/** May one more request of `user` wait? limits: `queue` of principals.js. Returns: Refusal, or null. */
function full(rows, user, limits) {
    if (!limits.wait_s) return errors.limited('slots', limits.slots);
    const own = rows.filter(row => row.user === user).length;
    if (own >= limits.per_user) return errors.limited('queue_per_user', limits.per_user);
    return rows.length < limits.total ? null : errors.limited('queue_total', limits.total);
}

/** An IPv4 peer as the kernel writes it in /proc/net/tcp: the bytes of the address backwards. */
function peer(address, port) {
    const hex = (number, digits) => Number(number).toString(16).toUpperCase().padStart(digits, '0');
    return address.split('.').reverse().map(part => hex(part, 2)).join('') + ':' + hex(port, 4);
}

/** Those of the rows whose connection is not established (01) in the text of /proc/net/tcp. */
function left(rows, table) { return rows.filter(row => table.indexOf(' ' + row.peer + ' 01 ') < 0); }

/** Milliseconds to the next look: whoever has waited long may wait a hundredth of that longer. */
function pause(waited) { return Math.min(250, Math.max(25, waited / 100)); }

export default { full, left, next, pause, peer, tag };
