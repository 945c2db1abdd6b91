// Makes elements. Every text becomes a text node, so that no word of a model, or of the server, is ever read as HTML.

/** element('p.note', {hidden: true}, 'text', child): tag and classes, properties, then children. */
export function element(kind, properties, ...children) {
    const [tag, ...classes] = kind.split('.');
    const made = Object.assign(document.createElement(tag), properties);
    if (classes.length) made.className = classes.join(' ');
    made.append(...children.filter(child => child !== null && child !== undefined));
    return made;
}

export function byId(id) { return document.getElementById(id); }

const SVG = 'http://www.w3.org/2000/svg';

/** A drawing of one path, in the colour of the text around it. */
export function drawing(path) {
    const made = document.createElementNS(SVG, 'svg'), line = document.createElementNS(SVG, 'path');
    made.setAttribute('viewBox', '0 0 24 24');
    made.setAttribute('aria-hidden', 'true');
    line.setAttribute('d', path);
    made.append(line);
    return made;
}
