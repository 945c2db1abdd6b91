// Answers a scrape, and tends the audit files. Only the locations that need it load it: each open stream has a copy of what the policy loads.

import fs from 'fs';
import audit from 'audit.js';
import blocked from 'blocked.js';
import ledger from 'ledger.js';
import metrics from 'metrics.js';
import observe from 'observe.js';
import principals from 'principals.js';
import trail from 'trail.js';

const NOW = '/config/current/';
const CERTIFICATES = { server: 'tls/server.pem', hop_client: 'hop/client.pem', hop_authority: 'hop/ca.pem' };
const FOLDER = '/var/log/gateway/';
// Ollama is asked no oftener, whoever scrapes.
const ASKED_MS = 5000, HOUR_MS = 3600000;

async function asked(r) {
    const [ps, version] = await Promise.all(['ps', 'version'].map(path => r.subrequest('/-/api/' + path)));
    if (ps.status !== 200 || version.status !== 200) return null;
    try {
        return { version: JSON.parse(version.responseText).version, models: JSON.parse(ps.responseText).models || [] };
    } catch (e) { return null; }
}

// What Ollama said last, at most ASKED_MS ago; rows of the scrape. Whoever scrapes while it is asked gets what is known.
async function ollama(r) {
    const kept = ngx.shared.asked;
    if (kept.add('asked', '1', ASKED_MS)) kept.set('said', JSON.stringify(await asked(r)), 10 * ASKED_MS);
    const said = kept.get('said');
    return said ? metrics.ollama(JSON.parse(said), audit.named(principals.models)) : [];
}

function budgets(now) {
    const rows = [];
    Object.keys(principals.users).forEach(user => {
        const all = ledger.shown(user, principals.users[user].limits, now).budgets;
        Object.keys(all).forEach(name => {
            const labels = { principal: user, period: name.replace('tokens_per_', '') };
            rows.push([metrics.series('fortress_budget_used_ratio', labels), all[name].used / all[name].limit]);
        });
    });
    return rows;
}

// As they lie there: nginx has loaded them, for a switch of the files is followed by a reload.
function certificates() {
    const rows = [];
    Object.keys(CERTIFICATES).forEach(name => {
        try {
            const ends = metrics.ends(fs.readFileSync(NOW + CERTIFICATES[name], 'utf8'));
            rows.push([metrics.series('fortress_certificate_expires_timestamp_seconds', { certificate: name }), ends]);
        } catch (e) { ngx.log(ngx.ERR, 'metrics: ' + CERTIFICATES[name] + ': ' + e.message); }
    });
    return rows;
}

function blocks(now) {
    const rows = ngx.shared.blocked.items(1000000).filter(row => row[0][1] === ':' && blocked.holds(row[1], now));
    return ['user', 'address'].map(kind => [metrics.series('fortress_blocked', { kind: kind }),
        rows.filter(row => row[0][0] === kind[0]).length]);
}

/** js_content of /metrics. */
async function scrape(r) {
    const shared = ngx.shared, now = Date.now(), counts = metrics.born(principals), there = await ollama(r);
    shared.figures.items(1000000).forEach(row => { counts[row[0]] = row[1]; });
    r.headersOut['Content-Type'] = 'text/plain; version=0.0.4; charset=utf-8';
    r.return(200, metrics.text(counts, [
        ['fortress_queue_length', shared.queue.keys(1000000).filter(key => key !== 'turn').length],
        ['fortress_slots', principals.queue.slots], ['fortress_slots_used', shared.slots.size()],
        ['fortress_streams', shared.streams.size()],
        [metrics.series('fortress_policy_info', { id: principals.id.slice(0, 16) }), 1],
    ].concat(budgets(now), there, certificates(), blocks(now))));
}

function beginning(file) {
    const fd = fs.openSync(file, 'r'), bytes = Buffer.alloc(64);
    try { return bytes.subarray(0, fs.readSync(fd, bytes, 0, 64, 0)).toString(); } finally { fs.closeSync(fd); }
}

/**
 * js_periodic of the newest worker: sets the audit file aside when it is large or of yesterday, deletes the oldest then
 * and once an hour, and tries again where it could not be written. The old workers go on by the file's name, so in the new one.
 */
function tend() {
    if (fs.readFileSync(NOW + 'principals.js', 'utf8').indexOf(principals.id) < 0) return;
    const now = Date.now();
    observe.beat(now);
    if (ngx.shared.figures.get(observe.MISSING)) observe.write('');
    const limits = principals.audit, file = fs.statSync(observe.FILE, { throwIfNoEntry: false });
    const turn = file && trail.due(file.size, beginning(observe.FILE), limits, now);
    // Files age where nobody asks anything, too.
    if (!turn && Math.abs(now - (ngx.shared.figures.get('swept') || 0)) < HOUR_MS) return;
    ngx.shared.figures.set('swept', now);
    try {
        if (turn) fs.renameSync(observe.FILE, FOLDER + trail.freeName(fs.readdirSync(FOLDER), now));
        const kept = trail.aside(fs.readdirSync(FOLDER)).map(name => ({ name: name, size: fs.statSync(FOLDER + name).size }));
        trail.surplus(kept, limits, now).forEach(name => {
            fs.unlinkSync(FOLDER + name);
            ngx.shared.figures.incr('deleted', 1, 0);
        });
    } catch (e) { ngx.log(ngx.ERR, 'audit: the file cannot be set aside: ' + e.message); }
}

export default { scrape, tend };
