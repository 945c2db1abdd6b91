// Asks the gateway, and says in words what it refuses.

function sentence(says) { return says && says[0].toUpperCase() + says.slice(1) + (/[.!?]$/.test(says) ? '' : '.'); }

/** wait: seconds until it may be tried again; signIn: it helps to prove oneself anew. */
export class Failure extends Error {
    constructor(title, says, more) {
        super(title);
        Object.assign(this, { says: sentence(says), wait: 0, signIn: false, name: 'Failure' }, more);
    }
}

const LIMITS = {
    requests_per_minute: n => `${n} messages a minute`,
    reads_per_minute: n => `${n} look-ups a minute`,
    concurrent: n => `${n} ${n === '1' ? 'answer' : 'answers'} at the same time`,
    tokens_per_day: n => `${count(n)} tokens a day`,
    tokens_per_month: n => `${count(n)} tokens a month`,
};

export function count(number) { return Number(number).toLocaleString('en'); }

/** 75 -> '1 min 15 s': a time to wait, without more than two units. */
export function duration(seconds) {
    const days = Math.floor(seconds / 86400), hours = Math.floor(seconds / 3600) % 24, minutes = Math.floor(seconds / 60) % 60;
    const parts = days ? [[days, 'd'], [hours, 'h']] : hours ? [[hours, 'h'], [minutes, 'min']]
        : minutes ? [[minutes, 'min'], [seconds % 60, 's']] : [[seconds, 's']];
    return parts.filter(([n], i) => n || !i).map(part => part.join(' ')).join(' ');
}

/** A model's name without the tag that goes without saying. */
export function short(name) { return name.replace(/:latest$/, ''); }

function overLimit(says, wait) {
    const [, name, value] = /^limit (\w+) \((\d+)\)/.exec(says) || [], words = LIMITS[name];
    const title = words ? `Your limit is reached: ${words(value)}` : /^(slots|queue)/.test(name) ? 'The server is busy' : 'Too many requests';
    const rest = says.replace(/^limit \w+ \(\d+\)( reached)?(: )?/, '').replace(/(; |, or )?try again in \d+ s$/, '');
    return new Failure(title, rest, { wait: wait, limit: name });
}

async function refusal(reply) {
    const text = await reply.text().catch(() => '');
    let says = '';
    try { says = String(JSON.parse(text).error || ''); } catch { /* no words of the gateway: a status says enough */ }
    const wait = Number(reply.headers.get('Retry-After')) || 0, status = reply.status;
    if (status === 401)
        return new Failure('You are signed out', 'Nothing proves who you are any more. Sign in again in a new tab; '
            + 'this conversation stays here.', { signIn: true });
    if (status === 403) return new Failure('This is not open to you', says);
    if (status === 413)
        return new Failure('This is too long', 'The whole conversation goes with every message, and it has become '
            + 'longer than the server takes. Begin a new chat, or shorten the message.');
    if (status === 429) return overLimit(says, wait || 1);
    if (status >= 500) return new Failure('The server cannot answer now', says || `It says ${status}.`, { wait: wait });
    return new Failure('The server refused this', says || `It says ${status}.`);
}

/** fetch() whose every answer is a good one. Throws: Failure; AbortError where the signal says so. */
export async function request(path, options) {
    let reply;
    try {
        reply = await fetch(path, { cache: 'no-store', redirect: 'error', ...options });
    } catch (error) {
        if (error.name === 'AbortError') throw error;
        throw new Failure('The server is out of reach', 'Is this device connected, and its tunnel up?');
    }
    if (!reply.ok) throw await refusal(reply);
    return reply;
}

export async function get(path) { return (await request(path)).json(); }
