// What in a conversation is more than text: what the server could fetch, and what grows in the prompt. Touches no nginx object: every function here is plain and runs under any JavaScript engine.

// Base64, or a data URL: nothing with another scheme.
const INLINE = /^(data:|[A-Za-z0-9+\/=_\s-]*$)/;
// Ollama searches by ollama.com, with the words of the conversation (middleware/web_search.go at v0.32.15).
const SEARCH = /^web_/i;

/** A key as Go's JSON decoder compares it. It folds the long s into s, and the Kelvin sign into k, as lower case does. */
function fold(text) {
    const low = text.toLowerCase();
    return low.indexOf('\u017f') < 0 ? low : low.replace(/\u017f/g, 's');
}

function inline(value) { return typeof value !== 'string' || INLINE.test(value.slice(0, 64)); }

function isObject(value) { return value !== null && typeof value === 'object' && !Array.isArray(value); }

function has(object, key, fits) { return Object.keys(object).some(name => fold(name) === key && fits(object[name])); }

// Calls of tools in a conversation, by API, and their results; a template may write either's `<` as \u003c.
const CALLS = ['tool_calls', 'arguments', 'input'], RESULTS = ['tool', 'tool_result', 'function_call_output'];
// An image, a file, or a call of a tool: none, in the body, or elsewhere.
const NONE = 0, INSIDE = 1, ELSEWHERE = 2;

function place(value) { return inline(value) ? INSIDE : ELSEWHERE; }

function within(value) {
    let found = NONE;
    if (Array.isArray(value)) {
        for (let i = 0; i < value.length && found < ELSEWHERE; i++) found = Math.max(found, within(value[i]));
    } else if (value !== null && typeof value === 'object') {
        const names = Object.keys(value);
        for (let i = 0; i < names.length && found < ELSEWHERE; i++)
            found = Math.max(found, part(fold(names[i]), value[names[i]]));
    }
    return found;
}

function part(key, inner) {
    if (key === 'content' || key === 'output') return within(inner);
    if (key === 'images') return images(inner);
    if (key === 'file_url') return place(inner);
    if (CALLS.indexOf(key) >= 0) return isObject(inner) || (inner && inner.length) ? INSIDE : NONE;
    if (key === 'role' || key === 'type') return RESULTS.indexOf(String(inner).toLowerCase()) < 0 ? NONE : INSIDE;
    if (key !== 'image_url' && key !== 'source') return NONE;
    if (isObject(inner)) return has(inner, 'url', url => !inline(url)) ? ELSEWHERE : INSIDE;
    return key === 'image_url' ? place(inner) : NONE;
}

function images(value) {
    if (!Array.isArray(value) || value.length === 0) return NONE;
    return value.every(inline) ? INSIDE : ELSEWHERE;
}

/** Does a request, of any of the three APIs, hold more than text, and does any of that lie elsewhere? */
function more(ask) { return Math.max(within(ask.messages), within(ask.input), images(ask.images)); }

/** Without the tools that the server itself would run. */
function ownTools(tools) {
    return tools.filter(tool => !isObject(tool) || !has(tool, 'type', type => SEARCH.test(String(type))));
}

export default { ELSEWHERE, fold, isObject, more, ownTools };
