// What the schema of an answer may cost: llama-server makes a grammar of it, and walks that at each token in the one loop that answers everybody. Touches no nginx object: every function here is plain and runs under any JavaScript engine.

import errors from 'errors.js';
import reach from 'reach.js';

// Schemas that one unfolds to, where what it refers to is read again at each place: so many hold the others up for about a second.
const MOST = 4000;
// One in the other: twice as many are too deep for this engine's stack.
const DEEP = 80;
const SCALARS = ['string', 'number', 'integer', 'boolean', 'null'];
// What holds schemas by names of the caller's own, and what holds none.
const MAPS = ['properties', 'patternProperties', '$defs', 'definitions'], DATA = ['enum', 'const', 'default', 'examples'];
// Of a tool, Ollama takes these in any case, and writes them anew.
const TYPED = ['type', 'items', 'anyOf', 'enum', 'properties', '$defs'], FOLDED = TYPED.map(reach.fold);
// What repeats more than one character, and how often.
const REPEATED = /[)?*+}](?=\{([^}]*)\})/g;
// A $ref that we follow as llama-server does.
const PLAIN = /^#\/[^~%]*$/;

// How many places a pattern has in the grammar: counts around counts multiply.
function places(pattern) {
    let all = pattern.length;
    for (const [, counts] of pattern.matchAll(REPEATED)) all *= Math.max(...counts.split(',').map(n => Number(n) || 1));
    return all;
}

// May two of these ways begin alike? In a schema that leads back to itself, each level then has twice as many to go on.
function ambiguous(ways) {
    const kinds = ways.map(way => reach.isObject(way) && way.$ref === undefined && !way.anyOf && !way.oneOf
        && typeof way.type === 'string' ? way.type : 'any').filter(kind => SCALARS.indexOf(kind) < 0).sort();
    return kinds.length > 1 && kinds.join() !== 'array,object';
}

function target(root, ref) { return ref.split('/').slice(1).reduce((at, step) => at && at[step], root); }

function spend(all, parts) { if ((all.left -= parts) < 0) throw errors.of('schema-size'); }

// One schema by itself. Of allOf, a single part takes its whole's place: llama-server follows a $ref there without an end, and falls.
function check(all, node) {
    while (Array.isArray(node.allOf) && node.allOf.length === 1) Object.assign(node, { allOf: undefined }, node.allOf[0]);
    if (node.allOf !== undefined) throw errors.of('schema-parts');
    if (Array.isArray(node.type) && new Set(node.type).size < node.type.length) throw errors.of('schema-type');
    if (Object.keys(node).some(key => TYPED.indexOf(key) < 0 && FOLDED.indexOf(reach.fold(key)) >= 0))
        throw errors.of('key-spelling');
    const refers = node.$ref !== undefined, pattern = typeof node.pattern === 'string' ? node.pattern : '';
    if ((refers && !PLAIN.test(node.$ref)) || (node.$ref + pattern).indexOf(all.mark) >= 0) throw errors.of('schema-text');
    spend(all, places(pattern));
}

/**
 * Reads one schema, or throws its Refusal.
 *   all      {root, mark, left: how much more it may be, open: what is being read now -> the choices that led to it}
 *   deep     how many nodes are above this one, choices: how many of them ambiguous ones
 *   map      it is none, its keys are the caller's own names
 */
function look(all, node, deep, choices, map) {
    if (node === null || typeof node !== 'object') return;
    if (deep > DEEP) throw errors.of('schema-size');
    spend(all, 1);
    if (map || Array.isArray(node)) return Object.values(node).forEach(each => look(all, each, deep + 1, choices, false));
    if (all.open.has(node) && choices > all.open.get(node)) throw errors.of('schema-loop');
    if (all.open.has(node)) return;
    all.open.set(node, choices);
    check(all, node);
    Object.keys(node).forEach(key => {
        const value = node[key], choice = (key === 'anyOf' || key === 'oneOf') && Array.isArray(value) && ambiguous(value);
        if (DATA.indexOf(key) >= 0) spend(all, Array.isArray(value) ? value.length : 0);
        else if (key === '$ref') look(all, target(all.root, value), deep + 1, choices, false);
        else look(all, value, deep + 1, choices + (choice ? 1 : 0), MAPS.indexOf(key) >= 0);
    });
    all.open.delete(node);
}

// Whatever objects lie at this path, in any case of its keys; a star stands for any.
function at(value, path) {
    if (path.length === 0) return reach.isObject(value) ? [value] : [];
    if (value === null || typeof value !== 'object') return [];
    const keys = Object.keys(value).filter(key => path[0] === '*' || reach.fold(key) === path[0]);
    return keys.flatMap(key => at(value[key], path.slice(1)));
}

/** The refusal of the first schema that may not pass, or null. paths: of keys.json; mark: see outline.js. */
function within(ask, paths, mark) {
    const roots = (paths || []).flatMap(path => at(ask, path.split('.')));
    try {
        roots.forEach(root => look({ root: root, mark: mark, left: MOST, open: new Map() }, root, 0, 0, false));
        return null;
    } catch (refusal) { return refusal; }
}

export default { within };
