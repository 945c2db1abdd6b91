// Writes the audit trail and counts. nginx's own log drops lines without a word on a full disk; here each loss is known.

import fs from 'fs';
import audit from 'audit.js';
import errors from 'errors.js';
import principals from 'principals.js';
import routes from 'routes.js';

const FILE = '/var/log/gateway/audit.json';
// A stop leaves 30 s (components/gateway.py); what runs then is killed, and nobody writes its line.
const GRACE_MS = 20000;
// Lines that are missing since the last one that could be written.
const MISSING = 'missing';
const KEPT = '/var/lib/gateway/missing';
const KINDS = {}, figures = ngx.shared.figures; // looked up once for each engine
const MODELS = audit.named(principals.models);

routes.routes.forEach(route => { KINDS[route.path] = route.class; });

function add(key, much) { figures.incr(key, much, 0); }

/**
 * Appends whole lines, in one write. By path, each time (3 us, of which opening is 2): an engine that is not used again
 * is thrown away without a word, so a file that it kept open would stay open; and after a rotation every worker, the
 * old ones too, goes on in the new file.
 *   text  one line, or '' for only what is missing
 */
function write(text) {
    const missing = figures.get(MISSING) || 0;
    try {
        fs.appendFileSync(FILE, missing ? audit.gap(missing, Date.now()) + text : text);
        if (missing) add(MISSING, -missing);
    } catch (e) {
        mend();
        if (!text) return;
        if (!missing) ngx.log(ngx.ERR, 'audit: ' + FILE + ' cannot be written, lines are lost: ' + e.message);
        add(MISSING, 1);
        add('lost', 1);
    }
}

/** The number of missing lines outlasts a restart: written over in its place, for which a full disk has room. */
function remember() {
    try {
        fs.appendFileSync(KEPT, '');
        const before = fs.readFileSync(KEPT, 'utf8'), fd = fs.openSync(KEPT, 'r+');
        if (figures.add('remembered', 1)) add(MISSING, Number(before) || 0);
        try { fs.writeSync(fd, String(figures.get(MISSING) || 0).padStart(12, '0'), 0); } finally { fs.closeSync(fd); }
    } catch (e) { /* the figures have told of it */ }
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
    return principals.audit.strict && figures.get(MISSING) ? errors.of('audit-away') : null;
}

/** js_periodic of the newest worker, see exporter.js: it is there, and keeps what a kill would forget. */
function beat(now) { figures.set('beat', now); remember(); }

/** Has no worker said so for so long that a stop is about to end in a kill? After a reload the newest one says it. */
function alone(now) { return now - (figures.get('beat') || now) > GRACE_MS; }

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
    try {
        audit.counted(facts, KINDS[facts.route] || 'other', add);
        if (!spent || !spent.gapped) return;
        for (const at in spent.gaps) add('g|' + at, spent.gaps[at]);
        add('g|sum', spent.gapped);
    } catch (e) { ngx.log(ngx.ERR, 'figures: ' + e.message); } // no room: the users and models of a config need far less
}

export default { FILE, MISSING, alone, beat, chunk, ended, shut, write };
