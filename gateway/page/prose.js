// Shows what a model writes: paragraphs, headings, lists, quotes and code, made of elements and text nodes only.
// Nothing becomes a link or an image: a model may have read something that wants words carried away by a click.
// Whatever it writes costs time in proportion to its length, so that no answer can hold up the page.

import { element } from './dom.js';

const FENCE = /^ {0,3}(```+|~~~+)([^`]*)$/;
const HEADING = /^(#{1,6})\s+(.*)/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])\s+(.*)/;
const RULE = /^ {0,3}([-*_])( ?\1){2,} *$/;
const DEEPEST = 6;

function fenceOf(line) { return line.length < 200 ? FENCE.exec(line) : null; }

function itemOf(line) {
    const found = ITEM.exec(line);
    return found && { indent: found[1].length, mark: found[2], words: found[3] };
}

// Does this line end a paragraph without an empty one before it?
function begins(line) { return fenceOf(line) || HEADING.test(line) || ITEM.test(line) || line.startsWith('>'); }

/** Text as blocks, in order: {kind, source}, and of code its language. */
export function blocks(text) {
    const lines = text.replace(/\r/g, '').split('\n'), found = [];
    let at = 0;
    const take = test => {
        const from = at;
        while (at < lines.length && test(lines[at], at - from)) at++;
        return lines.slice(from, at).join('\n');
    };
    const add = (kind, source, more) => found.push({ kind: kind, source: source, ...more });
    while (at < lines.length) {
        const line = lines[at], fence = fenceOf(line);
        if (!line.trim()) at++;
        else if (fence) {
            at++;
            const own = fence[1], ends = each => each.trim().startsWith(own) && !each.trim().replace(/[`~]/g, '');
            add('code', take(each => !ends(each)), { language: fence[2].trim().split(' ')[0] });
            at++;
        } else if (HEADING.test(line)) add('heading', take((each, i) => !i));
        else if (RULE.test(line)) add('rule', take((each, i) => !i));
        else if (line.startsWith('>')) add('quote', take(each => each.startsWith('>')));
        else if (line.startsWith('|')) add('table', take(each => each.startsWith('|')));
        else if (ITEM.test(line)) add('list', take(inList(line)));
        else add('paragraph', take((each, i) => each.trim() && (!i || !begins(each))));
    }
    return found;
}

// Items of one kind, with what is indented below them; one empty line does not end a list that goes on.
function inList(first) {
    const own = itemOf(first), ordered = /\d/.test(own.mark);
    let empty = 0;
    return line => {
        if (!line.trim()) return ++empty < 2;
        const item = itemOf(line);
        if (item && item.indent < own.indent + 2 ? /\d/.test(item.mark) !== ordered : empty && !/^(\t| {2})/.test(line))
            return false;
        empty = 0;
        return true;
    };
}

/** A line's `code`, **strong** and *weak* words; marks that have no partner stay as they are. */
function inline(text) { return pair(text.split(/(`+|\*+)/)); }

// tokens: text and marks by turns, text first.
function pair(tokens) {
    const made = [], alone = new Set();
    for (let i = 0; i < tokens.length; i++) {
        const mark = tokens[i], code = mark[0] === '`';
        const opens = i % 2 && !alone.has(mark) && (code || mark.length < 4 && /^\S/.test(tokens[i + 1] || tokens[i + 2] || ''));
        const end = opens ? tokens.indexOf(mark, i + 1) : -1;
        if (end < 0) {
            if (opens) alone.add(mark);
            if (mark) made.push(mark);
            continue;
        }
        const inner = tokens.slice(i + 1, end);
        made.push(code ? element('code', {}, inner.join('').trim())
            : element(mark === '*' ? 'em' : 'strong', {}, ...pair(inner)));
        i = end;
    }
    return made;
}

function items(source, depth) {
    const made = [], lines = source.split('\n'), indent = itemOf(lines[0]).indent;
    lines.forEach(line => {
        const item = itemOf(line);
        if (item && item.indent < indent + 2) made.push([item.words]);
        else made[made.length - 1].push(line.replace(/^(\t| {1,4})/, ''));
    });
    return made.map(own => {
        const inner = blocks(own.join('\n'));
        const plain = inner.length === 1 && inner[0].kind === 'paragraph';
        return element('li', {}, ...plain ? inline(inner[0].source) : inner.map(each => draw(each, depth + 1)));
    });
}

function code(block) {
    const copy = element('button.quiet', { type: 'button' }, 'Copy');
    copy.addEventListener('click', async () => {
        copy.textContent = await navigator.clipboard.writeText(block.source).then(() => 'Copied', () => 'Not allowed');
        setTimeout(() => { copy.textContent = 'Copy'; }, 1500);
    });
    return element('figure', {}, element('figcaption', {}, block.language || 'text', copy),
        element('pre', { tabIndex: 0 }, element('code', {}, block.source)));
}

function draw(block, depth) {
    const source = block.source, inner = text => blocks(text).map(each => draw(each, depth + 1));
    if (depth > DEEPEST) return element('p', {}, source);
    switch (block.kind) {
    case 'code': return code(block);
    case 'table': return element('pre', { tabIndex: 0 }, source); // columns line up where all letters are of one width
    case 'rule': return element('hr');
    case 'quote': return element('blockquote', {}, ...inner(source.replace(/^> ?/gm, '')));
    case 'heading': {
        const [, marks, words] = HEADING.exec(source);
        return element('h' + Math.min(6, marks.length + 2), {}, ...inline(words));
    }
    case 'list': {
        const first = itemOf(source).mark;
        return /\d/.test(first) ? element('ol', { start: parseInt(first, 10) }, ...items(source, depth))
            : element('ul', {}, ...items(source, depth));
    }
    default: return element('p', {}, ...inline(source));
    }
}

/** Draws text that grows: blocks that are as they were the last time stay as they are, with what is marked in them. */
export function writer(place) {
    let drawn = [];
    return text => {
        const now = blocks(text), shown = now.map(block => JSON.stringify(block));
        let same = 0;
        while (same < drawn.length && drawn[same] === shown[same]) same++;
        while (place.children.length > same) place.lastChild.remove();
        place.append(...now.slice(same).map(block => draw(block, 0)));
        drawn = shown;
    };
}
