// A stand-in for Ollama that writes down all that reaches it, and streams at the pace that the prompt asks for.

import calls from 'calls.js';

const PACE = /^\d+ \d+( \d+)?$/;
const HERE = ['tiny:latest', 'llama3.2:3b', 'other:1b'];

async function answer(r) {
    const heard = ngx.shared.heard;
    const body = await r.readRequestText();
    heard.set('n' + String(ngx.shared.count.incr('n', 1, 0)).padStart(6, '0'), JSON.stringify({
        method: r.method, uri: r.variables.request_uri, headers: r.rawHeadersIn, body: body,
    }));
    if (r.uri === '/') return r.return(200, 'Ollama is running');
    if (r.uri === '/v1/models')
        return json(r, {
            object: 'list', data: HERE.map(id => ({ id: id, object: 'model', created: 1, owned_by: 'library' })),
        });
    if (r.uri === '/api/tags' || r.uri === '/api/ps')
        return json(r, { models: HERE.map(name => ({ name: name, model: name, size: 1 })) });
    if (r.method !== 'POST') return json(r, { ok: true });
    if (heard.has('told')) return replay(r, JSON.parse(heard.get('told')));
    const asked = body.length < 10000 ? JSON.parse(body) : {};
    const said = asked.prompt || ((asked.messages || [])[0] || {}).content;
    const [chunks, pause, load] = (PACE.test(said) ? said : '3 0').split(' ').map(Number);
    if (said === 'broken') return r.return(500, '{"error":"engine"}');
    if (load) await new Promise(done => setTimeout(done, load)); // silent before the first byte, as a cold model
    r.headersOut['Content-Type'] = r.uri.indexOf('/v1/') === 0 ? 'text/event-stream' : 'application/x-ndjson';
    r.status = 200;
    r.sendHeader();
    for (let i = 0; i < chunks; i++) {
        r.send(JSON.stringify({ n: i, at: Date.now() }) + '\n');
        if (pause) await new Promise(done => setTimeout(done, pause));
    }
    r.send('{"done":true}\n');
    r.finish();
}

/** Says what the test tells it to, piece by piece: {status, type, first, times, pieces, pause, hang}. */
async function replay(r, told) {
    r.headersOut['Content-Type'] = told.type;
    r.status = told.status || 200;
    r.sendHeader();
    const pieces = Array(told.times || 0).fill(told.first).concat(told.pieces);
    for (let i = 0; i < pieces.length; i++) {
        r.send(pieces[i]);
        await new Promise(done => setTimeout(done, told.pause || 0));
    }
    if (told.hang) await new Promise(done => setTimeout(done, told.hang));
    r.finish();
}

function json(r, value) {
    r.headersOut['Content-Type'] = 'application/json';
    r.return(200, JSON.stringify(value));
}

async function told(r) {
    const value = await r.readRequestText();
    if (value === 'null') ngx.shared.heard.delete('told');
    else ngx.shared.heard.set('told', value);
    json(r, null);
}

function heard(r) {
    const dict = ngx.shared.heard;
    if (r.method === 'DELETE') dict.clear();
    json(r, dict.keys(100000).filter(key => key[0] === 'n').sort().map(key => JSON.parse(dict.get(key))));
}

/** Runs the policy's functions in this engine, the one that runs them for real: one call, or a list of them. */
async function call(r) { json(r, calls.answer(JSON.parse(await r.readRequestText()))); }

export default { answer, call, heard, told };
