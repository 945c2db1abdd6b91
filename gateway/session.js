// Who asks from a browser, by a session that the login service vouches for; and what a browser's page is told. Touches no nginx object: every function here is plain and runs under any JavaScript engine.

import errors from 'errors.js';
import identity from 'identity.js';
import routing from 'routing.js';
import words from 'words.js';

const OWN = /^__Host-fortress(_|=|$)/;
const SESSION = /^__Host-fortress(_\d+)?$/; // a long one comes in numbered parts
const START = '/oauth2/start?rd=%2F';
const DASHBOARDS = '/grafana/';
// All that Grafana is asked by POST for somebody who changes nothing: a panel's question, which of its features are on,
// and how fast its pages are.
const QUESTION = /^\/grafana\/(api\/ds\/query|api\/frontend-metrics|apis\/features\.grafana\.app\/.+\/evaluate\/flags)$/;
// Grafana hands on what is below a data source's proxy: by it a reader would write to Loki, or stop it. Nothing there is encoded twice.
const AROUND = /proxy(\/|$)|%/;

/** Of a Cookie header, the login service's own cookies: nothing else goes there. */
function cookies(header) {
    return (header || '').split(';').map(part => part.trim()).filter(part => OWN.test(part)).join('; ');
}

/** Is there anything to ask the login service about? A key that came and is wrong never falls back to a cookie. */
function asks(known, header, authorization) {
    return !!known.browser && known.browser.provider && authorization === undefined
        && cookies(header).split('; ').some(part => SESSION.test(part.split('=')[0]));
}

/** The row of a path on the page's own name: the page's files, the routes that it calls, Grafana below its folder. */
function pageRouteOf(rows, known, path, raw) {
    const page = known.browser || { files: [] };
    // Grafana gets the path as the client wrote it, so that must say what nginx has read.
    if (page.dashboards && raw.indexOf(DASHBOARDS) === 0 && routing.decoded(raw.split('?')[0]) === path)
        return AROUND.test(path) ? null : { path: DASHBOARDS, methods: QUESTION.test(path) ? ['POST'] : ['GET', 'HEAD'],
            class: 'dashboards', role: 'admin', api: 'native', body: 'none' };
    if (page.files.some(each => each === path) && raw.split('?')[0] === path)
        return { path: path, methods: ['GET', 'HEAD'], class: 'read', role: 'user', api: 'native', body: 'none', file: true };
    return routing.routeOf(rows.filter(row => row.page), path, raw);
}

/**
 * Who the login service says that asks. Only its one way of saying yes counts: 202, with an address that the config has.
 *   email   as it says it; row   of the tunnel address, which only names the device
 * Returns: {user, proof, ticket, device}, null without a session, or a Refusal.
 */
function caller(known, status, email, row) {
    if (status === 401) return null;
    if (status !== 202) return errors.of('login-away');
    const name = (email || '').toLowerCase();
    if (!Object.hasOwn(known.emails, name)) return errors.of('not-in-the-list');
    const user = known.emails[name];
    return { user: user, proof: 'session', ticket: identity.session(known, name), device: row && row.user === user ? row.device : '' };
}

/** A program has no business on the page, however it proves itself. */
function service(known, caller) {
    return caller && known.users[caller.user].service ? errors.of('service') : null;
}

/** A step of the login itself, before anybody can be known: may it be made? Returns: Refusal, or null. */
function step(path, method, fetchSite) {
    if (method !== 'GET') return errors.refuse(405, 'wrong-method', 'allowed here: GET', { Allow: 'GET' });
    // Whoever is signed out by another site's page is at least annoyed. The callback always comes from another site.
    if (path === '/oauth2/sign_out' && fetchSite && fetchSite !== 'same-origin' && fetchSite !== 'none')
        return errors.of('cross-site');
    return null;
}

/** What a refusal of the login service means; null for all other paths. */
function failed(path, status) {
    if (path.indexOf('/oauth2/') !== 0 || (status < 500 && status !== 403 && status !== 401)) return null;
    if (status === 502 || status === 503 || status === 504) return errors.of('login-away');
    return errors.refuse(status === 401 ? 403 : status, 'login-failed', 'the sign-in did not work; begin it again');
}

/**
 * How a refusal is shown where a person looks at it: the page itself and the steps of a login; null for programs.
 * Returns: {status, headers, body}, where the body of a 302 is where it leads; whoever is unknown is sent to the provider, if there is one.
 */
function shown(path, refusal, provider) {
    const opened = path === '/' || path === DASHBOARDS;
    if (!opened && path.indexOf('/oauth2/') !== 0) return null;
    if (opened && refusal.status === 401 && provider) return { status: 302, headers: {}, body: START };
    const [title, says, href, link] = words[refusal.reason] || words[refusal.status] || ['This did not work', refusal.says + '.'];
    const way = href ? '<p><a href="' + href + '">' + link + '</a></p>\n' : '';
    return { status: refusal.status, headers: Object.assign({ 'Content-Type': 'text/html' }, refusal.headers),
        body: words.head + '<title>' + title + '</title>\n<h1>' + title + '</h1>\n<p>' + says + '</p>\n' + way + '</html>\n' };
}

export default { asks, caller, cookies, failed, pageRouteOf, service, shown, step };
