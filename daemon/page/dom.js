/* SPDX-License-Identifier: BSD-3-Clause */
/* Making and changing elements, and words for numbers.  Names come from
 * others: all text goes through textContent and setAttribute, never through
 * HTML. */

const SVG = 'http://www.w3.org/2000/svg';

export const $ = (id) => document.getElementById(id);

function fill (el, attrs, children) {
  for (const [name, value] of Object.entries(attrs ?? {}))
    if (value !== null && value !== undefined && value !== false)
      el.setAttribute(name, value === true ? '' : value);
  el.append(...children.filter((c) => c !== null && c !== undefined));
  return el;
}

export const h = (tag, attrs, ...children) =>
  fill(document.createElement(tag), attrs, children);
export const s = (tag, attrs, ...children) =>
  fill(document.createElementNS(SVG, tag), attrs, children);

/* Change only what differs, so that a screen reader says only that. */
export function setText (el, text) {
  if (el.textContent !== text)
    el.textContent = text;
}

/* A name: in the middle of other text it must not turn that around. */
export const name = (text) => h('bdi', null, text);

/* Make PARENT's children those of ITEMS: elements are found again by key, made
 * by MAKE, and brought up to date by UPDATE (element, item). */
export function list (parent, items, key, make, update) {
  const old = new Map();
  for (const el of parent.children)
    old.set(el.dataset.key, el);
  let at = parent.firstElementChild;
  for (const item of items) {
    const k = String(key(item));
    let el = old.get(k);
    if (el)
      old.delete(k);
    else {
      el = make(item);
      el.dataset.key = k;
    }
    if (el === at)
      at = at.nextElementSibling;
    else
      parent.insertBefore(el, at);
    update(el, item);
  }
  for (const el of old.values())
    el.remove();
}

/* What a part shows when it has nothing: words, and `code` between backquotes. */
export function empty (el, text) {
  el.hidden = !text;
  if (el.dataset.text === text)
    return;
  el.dataset.text = text ?? '';
  el.replaceChildren(...(text ?? '').split('`').map((part, i) =>
    i % 2 ? h('code', null, part) : part));
}

/* --- words ------------------------------------------------------------------ */

export function bytes (n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let u = 0;
  while (n >= 999.5 && u < units.length - 1) {
    n /= 1024;
    u++;
  }
  return `${u === 0 || n >= 99.5 ? Math.round(n) : n.toFixed(n >= 9.95 ? 1 : n > 0 ? 2 : 0)}\u00a0${units[u]}`;
}

export const rate = (n) => `${bytes(n)}/s`;

export function count (n, one, many = one + 's') {
  return `${n.toLocaleString('en')}\u00a0${n === 1 ? one : many}`;
}

export function percent (part, whole) {
  if (!(whole > 0))
    return null;
  const p = 100 * part / whole;
  /* 100 % only where nothing is missing. */
  return part >= whole ? 100 : Math.min(99.9, p);
}

export const percentText = (p) =>
  p === null ? '–' : `${p >= 99.95 || p === 0 ? Math.round(p) : p >= 10 ? Math.floor(p * 10) / 10 : p.toFixed(1)}\u00a0%`;

export function micros (us) {
  if (!us)
    return '–';
  if (us < 1000)
    return `${Math.round(us)}\u00a0µs`;
  return us < 1e6 ? `${(us / 1000).toFixed(us < 10000 ? 1 : 0)}\u00a0ms` : `${(us / 1e6).toFixed(1)}\u00a0s`;
}

/* SECONDS as "3 min"; nothing moves more often than it must. */
export function span (seconds) {
  const n = Math.max(0, Math.floor(seconds));
  if (n < 60)
    return 'moments';
  if (n < 3600)
    return `${Math.floor(n / 60)}\u00a0min`;
  if (n < 86400)
    return `${Math.floor(n / 3600)}\u00a0h ${Math.floor(n / 60) % 60}\u00a0min`;
  return count(Math.floor(n / 86400), 'day');
}

export const when = (t) => new Date(t * 1000).toLocaleString();
export function clock (t, now) {
  const d = new Date(t * 1000), today = new Date(now * 1000);
  return d.toDateString() === today.toDateString()
    ? d.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })
    : d.toLocaleDateString([], { month: 'short', day: 'numeric' });
}

/* --- small drawings --------------------------------------------------------------- */

/* A bar of PERCENT, and what it means for those who do not see it. */
export function bar (el, p, label) {
  let fillEl = el.firstElementChild;
  if (!fillEl) {
    el.className = 'bar';
    el.setAttribute('role', 'progressbar');
    el.setAttribute('aria-valuemin', '0');
    el.setAttribute('aria-valuemax', '100');
    el.append(fillEl = h('span'));
  }
  el.setAttribute('aria-label', label);
  el.setAttribute('aria-valuenow', String(Math.round(p ?? 0)));
  el.dataset.level = p >= 90 ? 'full' : p >= 75 ? 'much' : '';
  fillEl.style.width = `${Math.min(100, p ?? 0)}%`;
}

/* Lines of VALUES (null: a gap), WIDTH by HEIGHT, below TOP. */
export function sparkPath (values, width, height, top, room = values.length) {
  let d = '', pen = false;
  values.forEach((v, i) => {
    if (v === null) {
      pen = false;
      return;
    }
    const x = room < 2 ? width : width * (room - values.length + i) / (room - 1);
    const y = height - 1 - (height - 2) * Math.min(1, top > 0 ? v / top : 0);
    d += `${pen ? 'L' : 'M'}${x.toFixed(1)} ${y.toFixed(1)}`;
    pen = true;
  });
  return d;
}
