// Writes the audit trail and counts. nginx's own log drops lines without a word on a full disk; here each loss is known.

import fs from 'fs';
import audit from 'audit.js';
import errors from 'errors.js';
import principals from 'principals.js';
import routes from 'routes.js';

const FILE = '/var/log/gateway/audit.json';
const GAPS = 'fortress_chunk_gap_seconds';
// Lines that are missing since the last one that could be written.
const MISSING = 'missing';
const KINDS = {};
const MODELS = audit.named(principals.models);

routes.routes.forEach(route => { KINDS[route.path] = route.class; });

// A full table of figures stops no request: it is as large as the configuration's users, models and reasons need.
function add(series, much) {
    try { ngx.shared.figures.incr(series, much, 0); } catch (e) { ngx.log(ngx.ERR, 'figures: ' + series + ': ' + e.message); }
}

/**
 * Appends whole lines, in one write. By path, each time (3 us, of which opening is 2): an engine that is not used again
 * is thrown away without a word, so a file that it kept open would stay open; and after a rotation every worker, the
 * old ones too, goes on in the new file.
 *   text  one line, or '' for only what is missing
 */
function write(text) {
    const missing = ngx.shared.figures.get(MISSING) || 0;
    try {
        fs.appendFileSync(FILE, missing ? audit.gap(missing, Date.now()) + text : text);
        if (missing) add(MISSING, -missing);
        if (text) add('fortress_audit_lines_total', 1);
    } catch (e) {
        mend();
        if (!text) return;
        if (!missing) ngx.log(ngx.ERR, 'audit: ' + FILE + ' cannot be written, lines are lost: ' + e.message);
        add(MISSING, 1);
        add('fortress_audit_lost_total', 1);
    }
}

// Of a line that had room only in part, spaces are left: so the next one begins as a line of its own.
function mend() {
    try {
        const fd = fs.openSync(FILE, 'r+');
        try {
            const size = fs.fstatSync(fd).size, from = Math.max(0, size - 16384), end = Buffer.alloc(size - from);
            fs.readSync(fd, end, 0, end.length, from);
            const torn = end.length - end.lastIndexOf(10) - 1;
            if (torn) fs.writeSync(fd, ' '.repeat(torn - 1) + '\n', size - torn);
        } finally { fs.closeSync(fd); }
    } catch (e) { /* there is no file, or no way to it: nothing is torn */ }
}

/** Is the trail one that must be written, and cannot be? Returns: Refusal, or null. */
function shut() {
    return principals.audit.strict && ngx.shared.figures.get(MISSING)
        ? errors.refuse(503, 'audit-away', 'the audit trail cannot be written, so nothing is answered', { 'Retry-After': '1' })
        : null;
}

/** Notes when a piece of an answer came, in its meter: `first`, `last`, `gaps`. */
function chunk(own, now) {
    if (own.last) {
        const gap = Math.max(0, now - own.last) / 1000, at = audit.bin(gap);
        own.gaps[at] = (own.gaps[at] || 0) + 1;
        own.gapped += gap;
    } else own.first = now;
    own.last = now;
}

/** The line of a request that has ended, and what it counts. */
function ended(r, spent, queued) {
    const v = r.variables, family = audit.agent(r.headersIn['User-Agent']);
    const facts = audit.facts(v, family, MODELS, spent, queued, Date.now());
    write(audit.line(facts));
    audit.counted(facts, KINDS[facts.route] || 'other').forEach(row => add(row[0], row[1]));
    if (!spent || !spent.gapped) return;
    Object.keys(spent.gaps).forEach(at => add(GAPS + '|' + at, spent.gaps[at]));
    add(GAPS + '|sum', spent.gapped);
}

export default { FILE, MISSING, chunk, ended, shut, write };
