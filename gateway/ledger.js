// What everybody has used: counted in shared memory, which outlives a reload, and kept in a file, which outlives the rest.

import fs from 'fs';
import budget from 'budget.js';
import principals from 'principals.js';

const FILE = '/var/lib/gateway/usage.json';
const DAY = 86400000;
const ROW = /^\d{4}-\d\d(-\d\d)?\|[a-z0-9._-]{1,32}\|(in|out)$/;
const OFFSETS = principals.clock.offsets;
const PERIODS = Object.keys(budget.PERIODS);
// Looked up once for each engine: every look at `ngx.shared` makes new objects.
const held = ngx.shared.held, usage = ngx.shared.usage;

let known = false;

// Counters: 'period|user|in' and '|out', where a period is a day or a month; 'changes', 'saved', 'at', 'read' are ours.
function counters() { if (!known && usage.add('read', 1)) read(); known = true; return usage; }

function read() {
    let text;
    try { text = fs.readFileSync(FILE, 'utf8'); } catch (e) {
        if (e.code === 'ENOENT') return;
        return aside(e);
    }
    try {
        const kept = JSON.parse(text);
        if (kept.v !== 1) throw new Error('its version is not 1');
        Object.keys(kept.counters).forEach(key => {
            if (!ROW.test(key) || !(kept.counters[key] >= 0)) throw new Error('a counter is none');
        });
        Object.keys(kept.counters).forEach(key => usage.incr(key, Math.floor(kept.counters[key]), 0));
    } catch (e) { aside(e); }
}

// Budgets begin anew, which the operator must see; the file stays for whoever wants to repair it.
function aside(error) {
    let kept = 'kept as ' + FILE + '.unreadable';
    try { fs.renameSync(FILE, FILE + '.unreadable'); } catch (e) { kept = 'and not renamed: ' + e.message; }
    ngx.log(ngx.ERR, 'usage: ' + FILE + ' cannot be read (' + error.message + '), counters begin at 0; ' + kept);
}

/** Writes the counters where they changed; the old file stays until the new one is whole. */
function save() {
    const changes = counters().get('changes') || 0, now = Date.now();
    usage.set('at', now);
    if (changes === (usage.get('saved') || 0)) return;
    // A stream counts into the day in which it was admitted, so the last one is kept.
    const oldest = [budget.date(OFFSETS, now - 2 * DAY), budget.date(OFFSETS, now - 33 * DAY).slice(0, 7)];
    const kept = {};
    usage.keys(1000000).filter(key => ROW.test(key)).sort().forEach(key => {
        const when = key.split('|')[0];
        if (when < oldest[when.length === 10 ? 0 : 1]) usage.delete(key);
        else kept[key] = usage.get(key);
    });
    try {
        fs.writeFileSync(FILE + '.new', JSON.stringify({ v: 1, counters: kept }, null, 1) + '\n', { mode: 0o600 });
        fs.renameSync(FILE + '.new', FILE);
        usage.set('saved', changes);
    } catch (e) { ngx.log(ngx.ERR, 'usage: ' + FILE + ' cannot be written: ' + e.message); }
}

/** Has nobody saved for so many milliseconds? */
function overdue(ms) { return Date.now() - (counters().get('at') || 0) > ms; }

// The day and the month of `at` (ms), found once a second.
let dated = { second: -1, names: {} };

function period(name, at) {
    const second = Math.floor(at / 1000);
    if (dated.second !== second) dated = { second: second, names: {} };
    return dated.names[name] || (dated.names[name] = budget.period(OFFSETS, name, at));
}

/** Adds what a request cost to the day and the month in which it was admitted (ms). */
function add(user, admitted, tokensIn, tokensOut) {
    if (!tokensIn && !tokensOut) return;
    counters().incr('changes', 1, 0);
    for (let i = 0; i < PERIODS.length; i++) {
        const key = period(PERIODS[i], admitted) + '|' + user + '|';
        usage.incr(key + 'in', tokensIn, 0);
        usage.incr(key + 'out', tokensOut, 0);
    }
}

function used(user, name, now) {
    const rows = counters(), key = period(name, now) + '|' + user + '|';
    return { in: rows.get(key + 'in') || 0, out: rows.get(key + 'out') || 0 };
}

// One entry per running request, with a timeout: those of a worker that died free themselves.
function reserved(user) {
    return held.items(1000000).reduce((sum, row) => row[0].indexOf(user + '|') === 0 ? sum + row[1] : sum, 0);
}

/**
 * Notes what a request may still cost. Returns: the sum of its user's, which is never too small: what a worker that died
 * held stays in it for as long as anything of that user runs. So only near a limit are the entries themselves added up.
 */
function hold(user, id, tokens) {
    const key = user + '|' + id, sum = held.incr(user, tokens - (held.get(key) || 0), 0);
    held.set(key, tokens);
    return sum;
}

function release(user, id) {
    const tokens = held.pop(user + '|' + id);
    if (tokens) held.incr(user, -tokens, 0);
}

/** Has a user any budget? */
function limited(limits) { return limits.tokens_per_day !== null || limits.tokens_per_month !== null; }

/** Takes the most that a request may cost out of its user's budgets. Returns: Refusal, or null. */
function reserve(user, limits, id, tokens, now) {
    if (!limited(limits)) return null;
    const most = hold(user, id, tokens); // before it is judged: of two workers neither overlooks the other's
    for (let i = 0; i < PERIODS.length; i++) {
        const name = PERIODS[i], spent = used(user, name, now);
        if (limits[name] === null) continue;
        const sum = spent.in + spent.out, others = (sum + most <= limits[name] ? most : reserved(user)) - tokens;
        if (sum + others + tokens <= limits[name]) continue;
        release(user, id);
        const seconds = Math.ceil((budget.renews(OFFSETS, name, now) - now) / 1000);
        return budget.over(name, limits[name], sum, others, tokens, seconds);
    }
    return null;
}

/** What one user has used today and this month, and what is left of each budget. */
function shown(user, limits, now) {
    const all = { today: used(user, 'tokens_per_day', now), month: used(user, 'tokens_per_month', now), budgets: {} };
    PERIODS.filter(name => limits[name] !== null).forEach(name => {
        const spent = used(user, name, now), running = reserved(user), sum = spent.in + spent.out;
        all.budgets[name] = { limit: limits[name], used: sum, reserved: running,
            left: Math.max(0, limits[name] - sum - running),
            renews: new Date(budget.renews(OFFSETS, name, now)).toISOString().replace('.000', '') };
    });
    return all;
}

export default { add, hold, limited, overdue, release, reserve, save, shown };
