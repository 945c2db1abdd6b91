// Who the reader is, what is used and left, which devices are known; for admins everybody's use.

import { count, get } from './api.js';
import { byId, element } from './dom.js';

const PROOFS = { session: 'signed in', address: 'known by the tunnel', key: 'known by API key' };
const PERIODS = [['today', 'Today', 'tokens_per_day'], ['month', 'This month', 'tokens_per_month']];

function spent(used) { return used.in + used.out; }

function when(time, zone) {
    const day = { weekday: 'short', day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' };
    return new Date(time).toLocaleString('en-GB', { ...day, timeZone: zone });
}

function budget(me, [period, title, name]) {
    const own = me.budgets[name], used = spent(me[period]);
    if (!own)
        return element('div.budget', {}, element('p', {}, element('b', {}, title), `${count(used)} tokens`),
            element('p.small', {}, 'no budget'));
    const held = own.reserved ? `, ${count(own.reserved)} held by what runs` : '';
    return element('div.budget', {},
        element('p', {}, element('b', {}, title), `${count(used)} of ${count(own.limit)} tokens`),
        element('progress', { max: own.limit, value: Math.min(own.limit, used), ariaLabel: `${title}: tokens used` }),
        element('p.small', {}, `${count(own.left)} left${held}`),
        element('p.small', {}, `Renews ${when(own.renews, me.timezone)} (${me.timezone})`));
}

function rows(pairs) { return element('dl', {}, ...pairs.flatMap(([name, value]) => [element('dt', {}, name), element('dd', {}, value)])); }

function section(title, ...children) { return element('section', {}, element('h3', {}, title), ...children); }

function devices(me) {
    return element('ul.devices', {}, ...me.devices.map(name => element('li', {}, name,
        name === me.device ? element('span.tag', {}, 'this one') : null)));
}

function everybody(all) {
    const head = ['User', 'Today', 'This month', 'Of the budget'].map(name => element('th', { scope: 'col' }, name));
    const lines = Object.keys(all.users).sort((a, b) => spent(all.users[b].month) - spent(all.users[a].month)).map(name => {
        const used = all.users[name], own = used.budgets.tokens_per_month;
        return element('tr', {}, element('th', { scope: 'row' }, name), element('td', {}, count(spent(used.today))),
            element('td', {}, count(spent(used.month))),
            element('td', {}, own ? `${Math.round(100 * spent(used.month) / own.limit)} %` : 'none'));
    });
    return element('div.wide', { tabIndex: 0 }, element('table', {}, element('thead', {}, element('tr', {}, ...head)),
        element('tbody', {}, ...lines)));
}

/** Fills the panel with what the gateway says now. Throws: Failure. */
export async function show() {
    const me = await get('/fortress/me'), limits = me.limits;
    const all = me.role === 'admin' ? await get('/fortress/usage') : null;
    byId('facts').replaceChildren(
        element('p.who', {}, element('b', {}, me.user), element('span.tag', {}, me.role), PROOFS[me.proof] || me.proof),
        section('Tokens', ...PERIODS.map(each => budget(me, each))),
        section('Limits', rows([
            ['Messages a minute', count(limits.requests_per_minute)],
            ['Answers at once', `${count(me.streams)} of ${count(limits.concurrent)} now`],
            ['Longest answer', `${count(limits.answer_tokens)} tokens`],
            ['Longest wait for a free place', `${count(me.queue_wait_s)} s`],
            ['Models', me.models.map(name => (name === '*' ? 'all' : name)).join(', ')],
        ])),
        section('Devices', devices(me)),
        all ? section('Everybody', everybody(all)) : '',
        me.dashboards ? element('p', {}, element('a.out', { href: '/grafana/' }, 'Dashboards')) : '',
        me.proof === 'session' ? element('p', {}, element('a.out', { href: '/oauth2/sign_out?rd=%2F' }, 'Sign out')) : '');
    return me;
}
