// The gateway's figures as Prometheus reads them. Touches no nginx object: every function here is plain and runs under any JavaScript engine.

import audit from 'audit.js';
import figures from 'figures.js';
import models from 'models.js';

// Samples that are shown before they count: of users' models, of all, and those that each user has without a model.
const OF_MODELS = 10000, MOST = 18000, OF_EACH_USER = 18;
// What audit.js counts: the family of a key's first part, and the labels that its other parts are.
const KEYS = {
    r: ['fortress_requests_total', 'principal', 'class', 'verdict'], x: ['fortress_refusals_total', 'reason'],
    l: ['fortress_limits_hit_total', 'principal', 'limit'], t: ['fortress_tokens_total', 'principal', 'model', 'direction'],
};

/** One series with its labels; their values are text of ours, or of Ollama's. */
function series(name, labels) {
    const said = Object.keys(labels).map(key => key + '="'
        + String(labels[key]).replace(/\\/g, '\\\\').replace(/"/g, '\\"').replace(/\n/g, '\\n') + '"');
    return said.length ? name + '{' + said.join(',') + '}' : name;
}

// Each bucket holds those below it, too.
function histogram(name, key, counts) {
    const rows = [];
    let sum = 0;
    audit.BOUNDS.concat('+Inf').forEach((bound, at) => {
        sum += counts[key + at] || 0;
        rows.push(series(name + '_bucket', { le: bound }) + ' ' + sum);
    });
    return rows.concat(name + '_sum ' + (counts[key + 'sum'] || 0), name + '_count ' + sum);
}

// Each request has a line, or its line is lost. Of thousands of series no value needs to be escaped, see audit.line.
function counters(counts) {
    const lost = counts.lost || 0, rows = [['fortress_auth_failures_total', counts.u || 0], ['fortress_audit_lost_total', lost]];
    let ended = 0;
    Object.keys(counts).sort().forEach(key => {
        const parts = key.split('|'), names = KEYS[parts[0]];
        if (!names) return;
        if (parts[0] === 'r') ended += counts[key];
        let labels = '';
        for (let at = 1; at < names.length; at++) labels += names[at] + '="' + parts[at] + '",';
        rows.push([names[0] + '{' + labels.slice(0, -1) + '}', counts[key]]);
    });
    return rows.concat([['fortress_audit_lines_total', ended - lost], ['fortress_audit_files_deleted_total', counts.deleted || 0]]);
}

/** counts: {key: value}, as audit.js counts; now: [[series, value]] of this moment. Returns the text of a scrape. */
function text(counts, now) {
    const rows = {}, out = [];
    counters(counts).concat(now).forEach(row => {
        const name = row[0].split('{')[0];
        (rows[name] = rows[name] || []).push(row[0] + ' ' + row[1]);
    });
    Object.keys(figures.families).forEach(name => {
        const [kind, says, key] = figures.families[name], own = key ? histogram(name, key + '|', counts) : rows[name];
        if (own) out.push('# HELP ' + name + ' ' + says, '# TYPE ' + name + ' ' + kind, own.join('\n'));
    });
    return out.join('\n') + '\n';
}

/**
 * What is shown before it counts, because the configuration names it: {key: 0}. known: see principals.js. Prometheus
 * takes 20000 samples (render/prometheus.py), so where many users have many models, some begin only with what they count.
 * A scrape takes 30 ms of the worker where 200 users have 10 models each, and 1 ms where there are three.
 */
function born(known) {
    const counts = {}, users = Object.keys(known.users), room = Math.min(OF_MODELS, MOST - OF_EACH_USER * users.length);
    const zero = (first, ends) => ends.forEach(end => { counts[first + end] = 0; });
    zero('x|', figures.limits.concat(audit.UNPROVEN));
    zero('r||', figures.unproven);
    users.forEach(name => {
        const user = known.users[name], allowed = known.models.filter(model => models.mayUse(user.models, model));
        zero('r|' + name + '|', user.role === 'admin' ? figures.proven.concat(figures.admin) : figures.proven);
        zero('l|' + name + '|', figures.limits.filter(limit => user.limits[limit] !== null));
        allowed.slice(0, Math.max(0, room / users.length / 2)).forEach(model => zero('t|' + name + '|' + model + '|', ['in', 'out']));
    });
    return counts;
}

/** Of what Ollama said ({version, ps} or null: nothing): rows for `text`. known: declared names, see audit.named. */
function ollama(said, known) {
    if (!said) return [['fortress_ollama_up', 0]];
    const rows = [['fortress_ollama_up', 1], [series('fortress_ollama_info', { version: said.version }), 1]], bytes = {};
    said.models.forEach(each => {
        const name = audit.model(known, String(each.name)), vram = Number(each.size_vram) || 0;
        const sum = bytes[name] || (bytes[name] = [0, 0]);
        sum[0] += Math.max(0, (Number(each.size) || 0) - vram);
        sum[1] += vram;
    });
    Object.keys(bytes).forEach(name => ['ram', 'vram'].forEach((where, at) => {
        rows.push([series('fortress_ollama_model_bytes', { model: name, where: where }), bytes[name][at]]);
    }));
    return rows;
}

// One element of DER at `at`: where its inside begins, and where it ends.
function element(der, at) {
    let length = der[at + 1], from = at + 2;
    if (length > 127) {
        const digits = length - 128;
        length = 0;
        for (let i = 0; i < digits; i++) length = length * 256 + der[from++];
    }
    return { tag: der[at], from: from, end: from + length };
}

/**
 * The second (since 1970) in which the first certificate of a PEM text ends. Throws where it is none.
 * Source: RFC 5280, section 4.1: after version, serial number, algorithm and issuer comes the validity.
 */
function ends(pem) {
    const inside = pem.split('-----BEGIN CERTIFICATE-----')[1].split('-----END')[0];
    const der = Buffer.from(inside.replace(/\s/g, ''), 'base64');
    let at = element(der, element(der, 0).from).from;
    if (der[at] === 0xa0) at = element(der, at).end; // the version, which may be left out
    for (let i = 0; i < 3; i++) at = element(der, at).end;
    const last = element(der, element(der, element(der, at).from).end);
    const said = der.subarray(last.from, last.end).toString();
    // UTCTime has two digits of the year, 50 and above meaning 19xx.
    const time = last.tag === 0x17 ? (said < '50' ? '20' : '19') + said : said;
    const part = (from, digits) => Number(time.slice(from, from + digits));
    const ms = Date.UTC(part(0, 4), part(4, 2) - 1, part(6, 2), part(8, 2), part(10, 2), part(12, 2));
    if (!(ms > 0)) throw new Error('not a certificate');
    return ms / 1000;
}

export default { born, ends, ollama, series, text };
