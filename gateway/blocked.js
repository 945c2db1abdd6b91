// Whom the operator has shut out (`fortress block`). Touches no nginx object: every function here is plain and runs under any JavaScript engine.

/**
 * The list as `fortress block` wrote it: 'u:<user>' or 'a:<address>' -> the second until which it holds, 0: for good.
 * Throws where it is not whole: half a list would let somebody in.
 */
function read(text) {
    const list = JSON.parse(text), rows = {};
    if (list.v !== 1) throw new Error('not a list of version 1');
    [['u:', list.users], ['a:', list.addresses]].forEach(([kind, names]) => {
        Object.keys(names).forEach(name => {
            const until = names[name].until;
            if (!Number.isInteger(until) || until < 0) throw new Error('no time at ' + name);
            rows[kind + name] = until;
        });
    });
    return rows;
}

/** Does a row, as text, still hold at this time? */
function holds(until, now) { return until !== undefined && (until === '0' || Number(until) > now / 1000); }

export default { holds, read };
