// How a refusal is said, in the shape that the caller's own library can read. Touches no nginx object.

import says from 'says.js';

/** A decision against a request: what the caller hears, and the reason for the audit line. */
class Refusal {
    constructor(status, reason, says, headers) { Object.assign(this, { status, reason, says, headers: headers || {} }); }
}

function refuse(status, reason, says, headers) { return new Refusal(status, reason, says, headers); }

/** The policy's own refusal for this reason; `about` stands where its words in says.json leave room. */
function of(reason, about) {
    const [status, words, headers] = says.refusals[reason];
    return refuse(status, reason, words.replace('%', about), Object.assign({}, headers));
}

/** The refusal of whoever asks for more than a limit; it names it to every API. wait: seconds, where says.json has none. */
function limited(name, value, wait) {
    const [words = '', seconds = wait, reason = name] = says.limits[name] || [];
    return refuse(429, reason, 'limit ' + name + ' (' + value + ') reached' + words + '; try again in ' + seconds + ' s',
        { 'Retry-After': String(seconds) });
}

/** The refusal for a status that nginx made itself. */
function made(status) {
    const said = says.statuses[status] || (status < 500 ? says.statuses[400] : ['failed', 'something failed here']);
    const shown = status === 494 || status === 497 ? 400 : status;
    return refuse(shown, said[0], said[1], status === 429 || status === 503 ? { 'Retry-After': '1' } : {});
}

function apiOf(path) {
    if (path === '/v1/messages') return 'anthropic';
    return path.indexOf('/v1/') === 0 ? 'openai' : 'native';
}

function body(api, refusal) {
    const kind = says.kinds[refusal.status] || (refusal.status < 500 ? 'invalid_request_error' : 'api_error');
    if (api === 'openai')
        return JSON.stringify({ error: { message: refusal.says, type: kind, param: null, code: refusal.reason } });
    if (api === 'anthropic') return JSON.stringify({ type: 'error', error: { type: kind, message: refusal.says } });
    return JSON.stringify({ error: refusal.says });
}

export default { Refusal, apiOf, body, limited, made, of, refuse };
