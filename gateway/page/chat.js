// The page's own part: what is asked when, and which buttons can be pressed. The conversation is in this memory only.

import { duration, Failure, get, short } from './api.js';
import { byId, element } from './dom.js';
import { show as showPanel } from './panel.js';
import { chat } from './stream.js';
import * as turns from './turns.js';

const form = byId('ask'), words = byId('words'), send = byId('send'), model = byId('model'), panel = byId('panel');
// What the template of a model may put around a prompt, as the gateway reckons it.
const TEMPLATE_TOKENS = 256;
// Tokens. Less is no answer: then the gateway says what is left.
const LEAST_ANSWER = 16;
// Where there is a keyboard anyway; elsewhere one would pop up.
const TYPES = matchMedia('(pointer: fine)').matches;

let me = null;
let history = [];
let running = null; // AbortController of the answer that comes
let failed = null; // the answer that may still be tried again

function ready() {
    send.classList.toggle('running', Boolean(running));
    send.setAttribute('aria-label', running ? 'Stop' : 'Send');
    send.disabled = !running && !(model.value && words.value.trim());
    byId('new').disabled = !byId('turns').children.length;
}

function grow() {
    words.style.height = 'auto';
    words.style.height = words.scrollHeight + 'px';
}

/** The longest answer that the budgets leave; nothing where they leave as much as the limits do. */
function room(body) {
    const budgets = Object.values(me.budgets);
    if (!budgets.length) return {};
    const prompt = Math.min(me.limits.context_tokens, new TextEncoder().encode(body).length + 64) + TEMPLATE_TOKENS;
    const left = Math.min(...budgets.map(budget => budget.left)) - prompt;
    return left >= LEAST_ANSWER && left < me.limits.answer_tokens ? { options: { num_predict: left } } : {};
}

// While nothing comes: for how long, and whether for a free place or for the model itself.
function watch(shown) {
    const began = Date.now();
    let queued = false, looks = 0;
    const tick = setInterval(async () => {
        const seconds = Math.round((Date.now() - began) / 1000);
        shown.waiting(queued ? `All places are taken: waiting for a free one, ${seconds} of at most ${me.queue_wait_s} s`
            : `Waiting for the first word, ${seconds} s`);
        if (looks++ % 2) return;
        const now = await get('/fortress/me').catch(() => null); // only to tell more
        const waits = Boolean(now && now.waiting);
        if (waits && !queued) turns.say('All places are taken: waiting for a free one');
        queued = waits;
    }, 1000);
    shown.waiting('Waiting for the first word');
    return () => clearInterval(tick);
}

async function converse(text) {
    if (failed) failed.settle();
    failed = null;
    byId('welcome').hidden = true;
    turns.question(text);
    await ask(text);
}

async function ask(text) {
    const own = running = new AbortController(), mine = history, began = Date.now();
    const shown = turns.answer(model.value), settled = watch(shown);
    const body = { model: model.value, messages: [...mine, { role: 'user', content: text }], stream: true };
    let last = {}, trouble = null;
    ready();
    try {
        if (Object.keys(me.budgets).length) me = await get('/fortress/me');
        for await (const piece of chat({ ...body, ...room(JSON.stringify(body)) }, own.signal, settled)) {
            shown.add(piece);
            last = piece;
        }
    } catch (error) { trouble = error; }
    settled();
    if (mine !== history) return; // a new chat has begun
    const stopped = own.signal.aborted;
    running = null;
    if (stopped || !trouble) finished(shown, body, stopped, Date.now() - began, last);
    else {
        if (!(trouble instanceof Failure)) trouble = new Failure('Something failed in this page', String(trouble));
        shown.fail(trouble, () => ask(text));
        failed = shown;
        turns.say(`${trouble.message}. ${trouble.says}`);
    }
    ready();
}

function finished(shown, body, stopped, milliseconds, last) {
    history = [...body.messages, ...shown.text ? [{ role: 'assistant', content: shown.text }] : []];
    shown.end(turns.summary(stopped, last.tokens, milliseconds, last.reason));
    turns.say(stopped ? 'Stopped' : `${short(body.model)}: ${shown.text}`);
}

function stop() { if (running) running.abort(); }

function fresh() {
    stop();
    running = failed = null;
    history = [];
    turns.clear();
    byId('welcome').hidden = false;
    turns.say('A new chat');
    words.focus();
    ready();
}

form.addEventListener('submit', event => {
    event.preventDefault();
    const text = words.value.trim();
    if (TYPES) words.focus(); // a button that is disabled meanwhile would lose it
    if (running) return stop();
    if (!text || !model.value) return;
    words.value = '';
    grow();
    converse(text);
});
words.addEventListener('input', () => {
    grow();
    ready();
});
words.addEventListener('keydown', event => {
    // An input method takes Enter for its own; Safari says so by the old code alone.
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    if (!running) form.requestSubmit();
});
document.addEventListener('keydown', event => { if (event.key === 'Escape' && !panel.open) stop(); });
byId('new').addEventListener('click', fresh);
byId('account').addEventListener('click', async () => {
    byId('facts').replaceChildren(element('p', {}, 'Asking the server'));
    panel.showModal();
    byId('facts').focus();
    try { me = await showPanel(); } catch (error) {
        byId('facts').replaceChildren(element('p.failure', {}, `${error.message}. ${error.says || ''}`));
    }
});
// A click beside the panel closes it.
panel.addEventListener('click', event => { if (event.target === panel) panel.close(); });

function welcome(names) {
    byId('hello').textContent = `Hello, ${me.user}.`;
    byId('where').textContent = names.length ? `Ask ${names[0]}${names[1] ? ', or choose another model above' : ''}. Your `
        + 'words go through the tunnel to this server and no further.'
        : 'There is no model for you here yet. You may use: ' + me.models.join(', ') + '. Whoever runs the server adds '
            + 'models under “models” in its stack file.';
    byId('welcome').hidden = false;
}

async function start() {
    const page = byId('page');
    page.querySelectorAll('.failure').forEach(old => old.remove());
    try {
        me = await get('/fortress/me');
        const names = ((await get('/api/tags')).models || []).map(each => each.name).sort();
        model.replaceChildren(...names.map(name => element('option', { value: name }, short(name))));
        if (!names.length) model.append(element('option', { value: '' }, 'no model'));
        model.disabled = words.disabled = !names.length;
        byId('account').disabled = false;
        welcome(names.map(short));
        if (names.length && TYPES) words.focus();
    } catch (error) {
        const again = element('button', { type: 'button' }, 'Try again');
        again.addEventListener('click', start);
        page.prepend(element('div.failure', {}, element('p', {}, element('strong', {}, error.message)),
            element('p', {}, error.says || ''), element('p.act', {},
                error.signIn ? element('a', { href: '/' }, 'Sign in again') : null, again,
                error.wait ? element('span', {}, `possible in ${duration(error.wait)}`) : null)));
        turns.say(`${error.message}. ${error.says || ''}`);
    }
    ready();
}

start();
