// How a refusal is said, in the shape that the caller's own library can read. Touches no nginx object.

// What nginx itself refuses, by the status it refuses with: [reason for the audit line, words for the caller].
const SAYS = {
    400: ['bad-request', 'this is not a request that can be read'],
    404: ['unknown-route', 'there is nothing here'],
    405: ['wrong-method', 'this method is not allowed here'],
    408: ['timeout', 'the request did not arrive in time'],
    413: ['too-large', 'the body is larger than this route allows'],
    414: ['too-large', 'the address is too long'],
    421: ['wrong-name', 'this name is not served on this connection'],
    429: ['flood', 'too many requests at once; slow down'],
    494: ['too-large', 'the headers are too large'],
    497: ['plain-http', 'this port speaks TLS only'],
    502: ['upstream-away', 'the model server is not there right now; try again soon'],
    503: ['upstream-busy', 'the model server is busy; try again soon'],
    504: ['upstream-slow', 'the model server did not answer in time'],
};

const DECLARED = 'models come and go by their lines under `models:` in the stack file, never through the gateway';

const KINDS = {
    400: 'invalid_request_error', 401: 'authentication_error', 403: 'permission_error', 404: 'not_found_error',
    405: 'invalid_request_error', 413: 'request_too_large', 415: 'invalid_request_error', 421: 'invalid_request_error',
    429: 'rate_limit_error',
};

/** A decision against a request: what the caller hears, and the reason for the audit line. */
class Refusal {
    constructor(status, reason, says, headers) {
        this.status = status;
        this.reason = reason;
        this.says = says;
        this.headers = headers || {};
    }
}

function refuse(status, reason, says, headers) { return new Refusal(status, reason, says, headers); }

/** The refusal for a status that nginx made itself. */
function made(status) {
    const said = SAYS[status] || (status < 500 ? SAYS[400] : ['failed', 'something failed here']);
    const shown = status === 494 || status === 497 ? 400 : status;
    return refuse(shown, said[0], said[1], status === 429 || status === 503 ? { 'Retry-After': '1' } : {});
}

function apiOf(path) {
    if (path === '/v1/messages') return 'anthropic';
    return path.indexOf('/v1/') === 0 ? 'openai' : 'native';
}

function body(api, refusal) {
    const kind = KINDS[refusal.status] || (refusal.status < 500 ? 'invalid_request_error' : 'api_error');
    if (api === 'openai')
        return JSON.stringify({ error: { message: refusal.says, type: kind, param: null, code: refusal.reason } });
    if (api === 'anthropic') return JSON.stringify({ type: 'error', error: { type: kind, message: refusal.says } });
    return JSON.stringify({ error: refusal.says });
}

export default { DECLARED, Refusal, apiOf, body, made, refuse };
