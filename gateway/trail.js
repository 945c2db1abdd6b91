// When the audit file is set aside, and which old ones go. Touches no nginx object: every function here is plain and runs under any JavaScript engine.

const DAY = 86400000;
const ASIDE = /^audit-\d{8}T\d{6}Z\.json$/;
// So many files go at once because of their age: a clock that jumps far ahead takes no more with it.
const AGED = 2;

function stamp(now) { return new Date(now).toISOString().replace(/[-:]|\.\d+/g, ''); }

function named(now) { return 'audit-' + stamp(now) + '.json'; }

/**
 * Is it time? size: bytes; first: the beginning of the file's first line; limits: `audit` of principals.js.
 * A clock that has jumped back makes no new file.
 */
function due(size, first, limits, now) {
    if (size >= limits.file) return true;
    const day = (/^{"time":"(\d{4}-\d\d-\d\d)T/.exec(first) || [])[1];
    return size > 0 && day !== undefined && day < new Date(now).toISOString().slice(0, 10);
}

/** Files that were set aside, oldest first: their names are in order whatever the clock does. */
function aside(names) { return names.filter(name => ASIDE.test(name)).sort(); }

/** The name for one more: of this second, or of the one after the last name's. */
function freeName(names, now) {
    const last = aside(names).pop(), name = named(now);
    if (last === undefined || last < name) return name;
    const at = last.replace(/^audit-(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z\.json$/, '$1-$2-$3T$4:$5:$6Z');
    return named(new Date(at).getTime() + 1000);
}

/** Names to delete. files: [{name, size}], oldest first, without the one that is being written. */
function surplus(files, limits, now) {
    const oldest = named(now - limits.days * DAY), gone = [];
    let sum = files.reduce((all, file) => all + file.size, limits.file), aged = 0;
    for (let i = 0; i < files.length; i++) {
        const full = sum > limits.files;
        if (!full && (files[i].name > oldest || aged === AGED)) break;
        if (!full) aged++;
        gone.push(files[i].name);
        sum -= files[i].size;
    }
    return gone;
}

export default { aside, due, freeName, surplus };
