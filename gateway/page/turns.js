// The conversation as it is seen: questions, answers that grow, and what went wrong with them.

import { byId, drawing, element } from './dom.js';
import { count, duration, short } from './api.js';
import { writer } from './prose.js';

const page = byId('page'), turns = byId('turns'), latest = byId('latest');
let follow = true;

page.addEventListener('scroll', () => {
    follow = page.scrollHeight - page.scrollTop - page.clientHeight < 48;
    latest.hidden = follow;
});
latest.addEventListener('click', toEnd);

export function toEnd() {
    page.scrollTop = page.scrollHeight;
}

function moved() { if (follow) toEnd(); }

/** Said once to who listens instead of looking. */
export function say(text) { byId('said').textContent = text; }

export function clear() { turns.replaceChildren(); }

export function question(words) {
    const made = element('li.question', {}, element('h2.unseen', {}, 'You'), element('p', {}, words));
    turns.append(made);
    toEnd();
    return made;
}

/** An answer that is to come, as functions that fill it. */
export function answer(model) {
    const waits = element('p.waits', {}), words = element('div.prose', {}), note = element('p.note', { hidden: true });
    const thought = element('p', {}), thinks = element('details.thought', { hidden: true },
        element('summary', {}, 'Thoughts'), thought);
    const place = element('li.answer', {}, element('h2', {}, short(model)), thinks, words, waits, note);
    const draw = writer(words);
    let text = '', thoughts = '', asked = 0;

    function show() {
        asked = 0;
        draw(text);
        thought.textContent = thoughts;
        thinks.hidden = !thoughts;
        moved();
    }

    function finish() {
        cancelAnimationFrame(asked);
        show();
        waits.remove();
        place.classList.remove('grows');
    }

    place.classList.add('grows');
    turns.append(place);
    return {
        get text() { return text; },

        waiting(says) {
            waits.replaceChildren(element('span.dots', {}, element('i'), element('i'), element('i')), says);
            moved();
        },

        // Drawn once a frame, however many pieces have come.
        add(piece) {
            text += piece.content || '';
            thoughts += piece.thinking || '';
            if (text) waits.remove();
            else waits.lastChild.textContent = 'Thinking';
            asked = asked || requestAnimationFrame(show);
        },

        end(says) {
            finish();
            const copy = element('button.quiet', { type: 'button', title: 'Copy the answer' }, drawing('M9 9h11v11H9zM5 15H4V4h11v1'), 'Copy');
            copy.addEventListener('click', async () => {
                say(await navigator.clipboard.writeText(text).then(() => 'Copied', () => 'The browser does not allow it'));
            });
            note.replaceChildren(says, ...text ? [copy] : []);
            note.hidden = false;
            moved();
        },

        /** What went wrong; `again` is called where the reader wants to try once more. */
        fail(failure, again) {
            finish();
            const left = element('span', {}), retry = element('button', { type: 'button' }, 'Try again');
            const box = element('div.failure', {}, element('p', {}, element('strong', {}, failure.message)),
                element('p', {}, failure.says), failure.limit ? element('p', {}, 'Limit ', element('code', {}, failure.limit)) : null,
                element('p.act', {}, failure.signIn
                    ? element('a', { href: '/', target: '_blank', rel: 'noopener' }, 'Sign in again') : null, retry, left));
            retry.addEventListener('click', () => {
                place.remove();
                again();
            });
            place.append(box);
            countDown(failure.wait, left, retry);
            moved();
        },

        /** No second try any more: the conversation has gone on. */
        settle() { place.querySelector('.act')?.remove(); },
    };
}

// The end is a time, not a number of ticks: a tab in the background is given few of them.
function countDown(seconds, left, retry) {
    const end = Date.now() + seconds * 1000;
    const tick = () => {
        const rest = Math.ceil((end - Date.now()) / 1000);
        retry.disabled = rest > 0;
        left.textContent = rest > 0 ? `possible in ${duration(rest)}` : '';
        if (rest > 0 && left.isConnected) setTimeout(tick, 250);
    };
    tick();
}

/** What stands below a finished answer. */
export function summary(stopped, tokens, milliseconds, reason) {
    const took = `${(milliseconds / 1000).toFixed(1)} s`;
    if (stopped) return `Stopped after ${took}`;
    return [tokens ? `${count(tokens)} ${tokens === 1 ? 'token' : 'tokens'}` : '', took, reason === 'length' ? 'ended at the longest answer allowed' : '']
        .filter(Boolean).join(' · ');
}
