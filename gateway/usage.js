// What an answer cost, read from its own bytes while they pass. Touches no nginx object: every function here is plain and runs under any JavaScript engine.

// What a chunk of content has. No content can spell these words: inside of JSON's strings every quote is escaped.
const CONTENT = ['"choices":[{', '"content_block_delta"', '.delta"'];
const SPENT = /"usage":\{[^}]*:[1-9]/;
const FAILED = /^(data: )?\{("type":"error",)?"error":/;
const NUMBER = /"(prompt_eval_count|prompt_tokens|input_tokens|eval_count|completion_tokens|output_tokens)":(\d+)/g;
// The end of an event that says the request again, with whatever keys its tools have.
const ECHO = /"type":"response\.(created|in_progress)"\}$/;
// A line above this is never held whole (embeddings, long answers in one piece): only its counts are kept.
const LINE = 65536;
// Ollama's chunks name `choices` within their first 250 bytes.
const HEAD = 4096;
const LEAD = 'data: ', CHOICES = '"choices":[';

/**
 * The state of one answer.
 *   prompt, answer  the most tokens that it can cost
 *   drop            the caller did not ask for the chunk with the usage
 */
function meter(prompt, answer, drop) {
    return { prompt: prompt, answer: answer, drop: drop, part: '', long: null, chunks: 0, bytes: 0, in: 0, out: 0,
        final: false, failed: false, held: null, inside: false, gap: false };
}

function has(line, word) { return line.indexOf(word) >= 0; } // five times as fast as a regular expression

// Only such a line can hold counts, and is parsed.
function counts(line) {
    return has(line, '"done":true') || has(line, '"prompt_eval_count":') || (has(line, '"usage":{') && SPENT.test(line));
}

// How an ordinary chunk's line ends. It is looked at no further: that would be half of what a chunk costs.
function plain(line) { return line.endsWith('"done":false}') || line.endsWith('"finish_reason":null}]}'); }

function number(a, b, c) { return Math.floor(Math.max(0, a || b || c || 0)) || 0; }

function note(m, line) {
    let said;
    try { said = JSON.parse(line.slice(line.indexOf('{'))); } catch (e) { return; }
    const u = said.usage || (said.message && said.message.usage) || (said.response && said.response.usage) || said;
    const into = number(u.prompt_eval_count, u.prompt_tokens, u.input_tokens);
    const out = number(u.eval_count, u.completion_tokens, u.output_tokens);
    if (!into && !out && !said.done) return; // the caller's own tools and schemas, said again
    m.in = into;
    m.out = out;
    m.final = said.type !== 'message_start';
}

function scan(m, text) {
    text.replace(NUMBER, (all, name, digits) => {
        const side = /^(prompt|input)/.test(name) ? 'in' : 'out';
        m.long[side] = Math.max(m.long[side], Number(digits));
        m.long.found = true;
    });
}

function read(m, line) {
    if (m.long) {
        scan(m, line);
        if (m.long.found && !ECHO.test(line)) { m.in = m.long.in; m.out = m.long.out; m.final = true; }
        m.long = null;
    } else if (plain(line)) m.chunks++;
    else if (counts(line)) note(m, line);
    else if (FAILED.test(line)) m.failed = true;
    else if (line[0] === '{' || (line[0] === 'd' && CONTENT.some(word => has(line, word)))) m.chunks++;
}

/** Read one piece of the answer; lines may be split or come together. Keeps less than LINE characters. */
function count(m, data, last) {
    if (!data.length && !m.part) return;
    m.bytes += data.length;
    const lines = (m.part + data.toString()).split('\n');
    m.part = lines.pop();
    for (let i = 0; i < lines.length; i++) read(m, lines[i]);
    if (m.part.length > LINE) {
        m.long = m.long || { in: 0, out: 0, found: false };
        scan(m, m.part);
        m.part = m.part.slice(-64);
    }
    if (last && m.part) read(m, m.part);
}

// May this beginning of a line still become the chunk with the usage?
function undecided(line) {
    const text = line.toString(), at = text.indexOf(CHOICES);
    if (text.slice(0, LEAD.length) !== LEAD.slice(0, text.length) || text.length > HEAD) return false;
    const next = text[at + CHOICES.length];
    return at < 0 || next === undefined || next === ']';
}

/** What leaves of one piece: all of it, but for the chunk with the usage where the caller did not ask for it. */
function pass(m, data, last) {
    if (!m.held && !m.inside && !m.gap && data[data.length - 1] === 10 && data.indexOf(CHOICES + ']') < 0) return data;
    let rest = m.held ? Buffer.concat([m.held, data]) : data;
    const kept = [];
    m.held = null;
    while (rest.length) {
        const end = rest.indexOf(10) + 1, line = end ? rest.subarray(0, end) : rest;
        rest = rest.subarray(line.length);
        if (!m.inside) {
            const empty = m.gap && line.length === 1 && end;
            m.gap = end > 0 && line.indexOf(CHOICES + ']') > 0 && line.indexOf('"usage":{') > 0;
            if (m.gap || empty) continue;
            if (!end && !last && undecided(line)) {
                m.held = Buffer.from(line);
                break;
            }
        }
        m.inside = !end;
        kept.push(line);
    }
    return kept.length === 1 ? kept[0] : Buffer.concat(kept);
}

/**
 * What the answer has cost so far: [in, out]. Without Ollama's own count, so where it was cut or goes on, a chunk of
 * content counts as one token, and the prompt at its ceiling: Ollama says neither before the end.
 */
function tokens(m) {
    if (m.final) return [m.in, m.out];
    const made = m.chunks || (m.failed ? 0 : m.bytes);
    return [made && !m.in ? m.prompt : m.in, Math.min(made, m.answer)];
}

export default { count, meter, pass, tokens };
