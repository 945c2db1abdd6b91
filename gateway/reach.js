// What in a conversation could have the server fetch something. Touches no nginx object: every function here is plain and runs under any JavaScript engine.

// Go's JSON decoder folds these two into k and s, so they could spell a key that we would not see.
const FOLDS = { '\u212a': 'k', '\u017f': 's' };
// Base64, or a data URL: nothing with another scheme.
const INLINE = /^(data:|[A-Za-z0-9+\/=_\s-]*$)/;
// Ollama searches by ollama.com, with the words of the conversation (middleware/web_search.go at v0.32.15).
const SEARCH = /^web_/i;

function fold(text) { return text.replace(/[\u212a\u017f]/g, c => FOLDS[c]).toLowerCase(); }

function inline(value) { return typeof value !== 'string' || INLINE.test(value.slice(0, 64)); }

function isObject(value) { return value !== null && typeof value === 'object' && !Array.isArray(value); }

function has(object, key, fits) { return Object.keys(object).some(name => fold(name) === key && fits(object[name])); }

/** Does a part of these messages, of any of the three APIs, name an image or a file that lies elsewhere? */
function elsewhere(value) {
    if (Array.isArray(value)) return value.some(elsewhere);
    if (!isObject(value)) return false;
    return Object.keys(value).some(name => {
        const key = fold(name), inner = value[name];
        if (key === 'content' || key === 'output') return elsewhere(inner);
        if (key === 'images') return Array.isArray(inner) && !inner.every(inline);
        if (key === 'file_url') return !inline(inner);
        if (key !== 'image_url' && key !== 'source') return false;
        return isObject(inner) ? has(inner, 'url', url => !inline(url)) : key === 'image_url' && !inline(inner);
    });
}

/** Without the tools that the server itself would run. */
function ownTools(tools) {
    return tools.filter(tool => !isObject(tool) || !has(tool, 'type', type => SEARCH.test(String(type))));
}

export default { elsewhere, fold, isObject, ownTools };
