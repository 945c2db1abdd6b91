// Reads an answer while it comes: one JSON object a line.

import { Failure, request } from './api.js';

const CUT = 'The answer was cut off';

/** The lines of a body as they arrive, whatever pieces they come in. */
export async function* objects(body) {
    const reader = body.getReader(), text = new TextDecoder();
    let rest = '';
    try {
        for (;;) {
            const { done, value } = await reader.read();
            const lines = (rest + text.decode(value, { stream: !done })).split('\n');
            rest = done ? '' : lines.pop();
            for (const line of lines) if (line.trim()) yield JSON.parse(line);
            if (done) return;
        }
    } finally {
        reader.cancel().catch(() => {}); // it is gone already, where it broke
    }
}

/**
 * Asks a model, and yields what it says: {thinking, content} piece by piece, at last {done, ...}.
 * Throws: Failure, also where the stream ends before it says so; AbortError where the signal stops it.
 */
export async function* chat(body, signal, begun) {
    const reply = await request('/api/chat', {
        method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body), signal: signal,
    });
    begun();
    try {
        for await (const said of objects(reply.body)) {
            if (said.error) throw new Failure(CUT, String(said.error));
            yield { ...said.message, done: said.done === true, reason: said.done_reason, tokens: said.eval_count };
            if (said.done) return;
        }
    } catch (error) {
        if (error.name === 'AbortError' || error instanceof Failure) throw error;
    }
    throw new Failure(CUT, 'What is here is not all of it: the connection broke.');
}
