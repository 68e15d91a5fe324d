/* SPDX-License-Identifier: BSD-3-Clause */
/* The parts of the page but for seats and the tree. */

import { $, bar, bytes, clock, count, empty, h, list, micros, percent, percentText, rate, s, setText, span, sparkPath, when } from './dom.js';

let selectPoint = () => {};

export function begin (select) {
  selectPoint = select;
}

/* --- how it is ---------------------------------------------------------------- */

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/* What a problem says, its name set apart: it may be of another script. */
function problemText (el, p) {
  const text = capital(p.text);
  if (el.dataset.text === text)
    return;
  el.dataset.text = text;
  const parts = p.name ? text.split(p.name) : [text];
  el.replaceChildren(...parts.flatMap((part, i) => i ? [h('bdi', null, p.name), part] : [part]), '.');
}

function headline (state) {
  const errors = state.problems.filter((p) => p.severity === 'error').length;
  const on = state.clients.connected;
  const n = state.problems.length;
  if (n === 1)
    return null;                /* the problem itself */
  if (errors)
    return `${count(errors, 'thing')} ${errors === 1 ? 'is' : 'are'} wrong` + (n > errors ? `, ${n - errors} to look at` : '');
  if (n)
    return `All is served, with ${count(n, 'thing')} to look at`;
  return on ? `All is well: ${count(on, 'seat')} ${on === 1 ? 'is' : 'are'} served`
    : 'All is well, and nobody is connected';
}

function figure (dl, items) {
  list(dl, items, (i) => i[0], (i) => h('div', null, h('dt', null, i[0]), h('dd')), (el, i) => {
    setText(el.lastElementChild, i[1]);
    el.title = i[2] ?? '';
  });
}

const sum = (l) => l.reduce((a, b) => a + b, 0);

export function wellbeing (state) {
  const errors = state.problems.some((p) => p.severity === 'error');
  $('well').dataset.state = errors ? 'bad' : state.problems.length ? 'warn' : 'good';
  setText($('title'), state.server.title || 'Espalier');
  const line = headline(state);
  if (line === null)
    problemText($('well-text'), state.problems[0]);
  else if ($('well-text').dataset.text !== line) {
    $('well-text').dataset.text = line;
    $('well-text').textContent = `${line}.`;
  }
  list($('problems'), line === null ? [] : state.problems, (p) => `${p.about} ${p.name} ${p.text}`,
    () => h('li'), (el, p) => {
      el.dataset.severity = p.severity;
      problemText(el, p);
    });
  const last = state.history.read_bytes.length - 1;
  const sm = state.summary, store = state.server.store;
  figure($('figures'), [
    ['Connected', String(state.clients.connected)],
    ['Reading', rate(state.history.read_bytes[last] ?? 0)],
    ['Writing', rate(state.history.write_bytes[last] ?? 0)],
    ['Overlays', bytes(sm.overlay_bytes), `${sm.overlays} overlays`],
    ['Restore points', String(sm.restore_points), `${bytes(sm.restore_point_bytes)} of data`],
    ['Disk free', store.size ? bytes(store.free) : '–', store.size ? `of ${bytes(store.size)}` : ''],
  ]);
  flow(state.history);
}

const ROOM = 150;               /* points of history: daemon/pulse.h */

function flow (history) {
  const W = 520, H = 96, top = Math.max(...history.read_bytes, ...history.write_bytes, 1);
  const busy = sum(history.read_bytes) + sum(history.write_bytes) > 0;
  $('flow').hidden = !busy;
  if (!busy)
    return;
  setText($('flow-words'), `The last ${Math.max(1, Math.round(history.read_bytes.length * history.seconds / 60))} min, at most ${rate(top)}`);
  const read = sparkPath(history.read_bytes, W, H, top, ROOM);
  const written = sparkPath(history.write_bytes, W, H, top, ROOM);
  const x0 = W * (ROOM - history.read_bytes.length) / (ROOM - 1);
  $('flow-chart').replaceChildren(
    s('svg', { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': `Throughput: clients read up to ${rate(Math.max(...history.read_bytes))} and wrote up to ${rate(Math.max(...history.write_bytes))}` },
      s('path', { class: 'area', d: `${read}L${W} ${H}L${x0.toFixed(1)} ${H}Z` }),
      s('path', { class: 'line read', d: read }),
      s('path', { class: 'line write', d: written })),
    h('p', { class: 'keys' }, h('span', { class: 'key read' }, 'reading'), h('span', { class: 'key write' }, 'writing')));
}

/* --- a store without anything ------------------------------------------------------ */

export function firstSteps (fresh) {
  $('first').hidden = !fresh;
  if (!fresh || $('first-steps').children.length)
    return;
  const step = (words, code) => h('li', null, h('span', null, words), h('code', null, code));
  $('first-steps').append(
    step('Take in the disk of a machine that is set up as you like it. Any image that QEMU reads will do, and physical disks.', 'espalier root add windows-11 disk.vhdx'),
    step('Give it to a venue: the name that machines ask for.', 'espalier venue add cafe --disk windows-11'),
    step('Switch a machine on. Its DHCP server names this boot file:', `${location.origin}/boot.ipxe`));
}

/* --- venues --------------------------------------------------------------------------- */

function venueRow () {
  const li = h('li', { class: 'row' },
    h('p', { class: 'row-top' }, h('bdi', { class: 'row-name' }), h('span', { class: 'row-state' })),
    h('p', { class: 'row-words' }, h('bdi')),
    h('ul', { class: 'tips' }),
    h('p', { class: 'row-foot' }));
  li.parts = { name: li.children[0].children[0], state: li.children[0].children[1],
    words: li.children[1], tips: li.children[2], foot: li.children[3] };
  return li;
}

function tipItem () {
  const button = h('button', { type: 'button', class: 'link' }, h('bdi'));
  const li = h('li', null, h('span', { class: 'tip-disk' }), button, h('span', { class: 'quiet' }));
  button.addEventListener('click', () => selectPoint(li.dataset.key.split(' ')[1]));
  return li;
}

export function venues (state, points, now) {
  const on = new Map();
  for (const c of state.clients.clients)
    if (c.connected && c.venue)
      on.set(c.venue, (on.get(c.venue) ?? 0) + 1);
  setText($('venues-count'), state.venues.length ? String(state.venues.length) : '');
  list($('venues-list'), state.venues, (v) => v.id, venueRow, (li, v) => {
    const p = li.parts, n = on.get(v.id) ?? 0;
    setText(p.name, v.id);
    setText(p.state, n ? `${n} connected` : 'nobody connected');
    p.state.dataset.on = n ? 'yes' : '';
    setText(p.words.firstChild, v.description ?? '');
    p.words.hidden = !v.description;
    list(p.tips, v.disks, (d) => `${d.disk} ${d.tip}`, tipItem, (el, d) => {
      setText(el.children[0], v.disks.length > 1 ? `disk ${d.disk}` : 'serves');
      setText(el.children[1].firstChild, d.tip_name ?? 'a restore point that is gone');
      setText(el.children[2], d.size ? bytes(d.size) : '');
    });
    setText(p.foot, v.revision > 1 ? `revision ${v.revision}, changed ${span(now - v.changed)} ago` : `made ${span(now - v.created)} ago`);
    p.foot.title = when(v.changed);
  });
  empty($('venues-empty'), state.venues.length ? null
    : `No venue yet. Machines ask for a venue by name; make one of a restore point: \`espalier venue add cafe --disk ${points[points.length - 1]?.name ?? 'NAME'}\``);
}

/* --- centers, nodes ------------------------------------------------------------------------ */

function simpleRow () {
  const li = h('li', { class: 'row' },
    h('p', { class: 'row-top' }, h('bdi', { class: 'row-name' }), h('span', { class: 'row-state' })),
    h('p', { class: 'row-words' }, h('bdi')),
    h('div'),
    h('p', { class: 'row-foot' }));
  li.parts = { name: li.children[0].children[0], state: li.children[0].children[1],
    words: li.children[1], bar: li.children[2], foot: li.children[3] };
  return li;
}

function answers (p, out, known) {
  setText(p.state, !known ? 'not asked yet' : out ? 'does not answer' : 'answers');
  p.state.dataset.on = known ? out ? 'bad' : 'yes' : '';
}

export function centers (state) {
  setText($('centers-count'), state.centers.length ? String(state.centers.length) : '');
  list($('centers-list'), state.centers, (c) => c.name, simpleRow, (li, c) => {
    const p = li.parts, l = c.live;
    setText(p.name, c.name);
    answers(p, l?.out, l && (l.requests > 0 || l.out));
    setText(p.words.firstChild, c.url ?? '');
    p.words.classList.add('mono');
    const words = [];
    if (l?.first_byte_us)
      words.push(`first byte after ${micros(l.first_byte_us)}`);
    if (l?.bytes_second)
      words.push(`up to ${rate(l.bytes_second)}`);
    if (l?.bytes)
      words.push(`${bytes(l.bytes)} received`);
    if (l?.errors)
      words.push(`${count(l.errors, 'error')}`);
    setText(p.foot, words.join(' · '));
    p.foot.hidden = words.length === 0;
  });
  empty($('centers-empty'), state.centers.length ? null
    : 'None: everything is on this server. A center keeps restore points for many servers: `espalier center add NAME URL`');
}

/* --- the site's other servers --------------------------------------------------------------- */

export function servers (state, now) {
  const others = (state.server.servers ?? []).filter((o) => o.state !== 'self');
  $('servers').hidden = others.length === 0;
  setText($('servers-count'), others.length ? String(others.length) : '');
  list($('servers-list'), others, (o) => o.url, simpleRow, (li, o) => {
    const p = li.parts, silent = o.state === 'silent';
    setText(p.name, o.url);
    answers(p, silent, o.answered || o.why);
    p.words.hidden = !o.why;
    setText(p.words.firstChild, o.why ?? '');
    setText(p.foot, !silent ? count(o.connections, 'connection')
      : o.answered ? `last heard ${clock(o.answered, now)}` : 'never heard');
  });
}

/* --- what is fetched ----------------------------------------------------------------------- */

const arriving = (d) => d.live?.per_second ? ['center_bytes', 'dir_bytes', 'cluster_bytes', 'memory_bytes']
  .reduce((n, k) => n + d.live.per_second[k], 0) : 0;

export function hydration (state) {
  const missing = state.hydration.filter((d) => d.local_bytes < d.bytes)
    .sort((a, b) => arriving(b) - arriving(a) || a.name.localeCompare(b.name));
  const n = state.hydration.length;
  setText($('hydration-count'), n ? `${n - missing.length} of ${n} complete` : '');
  list($('hydration-list'), missing.slice(0, 12), (d) => d.uuid, simpleRow, (li, d) => {
    const p = li.parts, done = percent(d.local_bytes, d.bytes), speed = arriving(d);
    setText(p.name, d.name);
    setText(p.state, percentText(done));
    p.words.hidden = true;
    bar(p.bar, done, `${d.name}: local`);
    p.bar.classList.add('grow');
    const words = [`${bytes(d.local_bytes)} of ${bytes(d.bytes)} here`];
    if (speed > 0)
      words.push(`fetching ${rate(speed)}`);
    else if (d.wished)
      words.push('asked for');
    if (d.live?.failed)
      words.push(`${count(d.live.failed, 'segment')} failed`);
    setText(p.foot, words.join(' · '));
  });
  empty($('hydration-empty'), missing.length > 12 ? `${missing.length - 12} more: \`espalier rp list\``
    : missing.length ? null
      : n ? 'All that came from image centers is on this server.'
        : 'Nothing here comes from an image center.');
}

/* --- caches ----------------------------------------------------------------------------------- */

const tierNames = { memory: 'Memory', dir: 'Directory', cluster: 'Cluster nodes' };

function tierRow () {
  const li = simpleRow();
  li.parts.words.remove();
  li.parts.bar.className = 'spark';
  return li;
}

/* Hits of all look-ups in steps of five points; a gap where nobody looked. */
function hitRates (tier) {
  const rates = [];
  for (let i = tier.hits.length % 5; i + 5 <= tier.hits.length; i += 5) {
    const hits = sum(tier.hits.slice(i, i + 5)), misses = sum(tier.misses.slice(i, i + 5));
    rates.push(hits + misses ? hits / (hits + misses) : null);
  }
  return rates;
}

export function cache (state) {
  list($('cache-list'), state.cache.tiers, (t) => t.name, tierRow, (li, t) => {
    const p = li.parts, past = state.history.tiers[t.name];
    const hits = sum(past?.hits ?? []), misses = sum(past?.misses ?? []);
    const recent = hits + misses > 0;
    const part = recent ? percent(hits, hits + misses) : percent(t.hits, t.hits + t.misses);
    setText(p.name, tierNames[t.name] ?? t.name);
    setText(p.state, part === null ? 'not used yet' : `${percentText(part)} hits${recent ? '' : ' so far'}`);
    const line = past ? sparkPath(hitRates(past), 240, 30, 1, ROOM / 5) : '';
    p.bar.hidden = !line.includes('L') || hits === 0;
    p.bar.replaceChildren(s('svg', { viewBox: '0 0 240 30', preserveAspectRatio: 'none', role: 'img', 'aria-label': `Hit rate of the last minutes: ${percentText(part)}` },
      s('path', { class: 'line leaf', d: line })));
    const words = [`${t.hits.toLocaleString('en')} hits, ${count(t.misses, 'miss', 'misses')}`];
    if (t.max)
      words.push(`${bytes(t.bytes)} of ${bytes(t.max)}`);
    if (t.errors)
      words.push(count(t.errors, 'error'));
    if (t.lies)
      words.push(`${t.lies} damaged, replaced`);
    setText(p.foot, words.join(' · '));
  });
  list($('nodes-list'), state.cache.nodes, (n) => n.name, simpleRow, (li, n) => {
    const p = li.parts;
    setText(p.name, n.name);
    answers(p, n.out, true);
    p.words.hidden = true;
    p.bar.hidden = true;
    setText(p.foot, [`answers in ${micros(n.answer_us)}`, `${percentText(percent(n.hits, n.hits + n.misses))} hits`,
      n.timeouts ? count(n.timeouts, 'time-out') : null].filter(Boolean).join(' · '));
  });
  empty($('cache-empty'), state.cache.tiers.length + state.cache.nodes.length ? null
    : 'No server caches anything. Several servers share what they fetch by `espalier serve --cache-nodes LIST`, those of one host by `--cache-dir DIR`.');
}

/* --- boots --------------------------------------------------------------------------------------- */

const ways = { menu: 'menu', iscsi: 'iSCSI', http: 'HTTP', nbdroot: 'kernel, root over NBD', refused: 'refused', failed: 'failed' };

export function boots (state, now) {
  list($('boots-list'), state.boots, (b) => `${b.time} ${b.client} ${b.what}`, simpleRow, (li, b) => {
    const p = li.parts;
    setText(p.name, b.client);
    setText(p.state, ways[b.what] ?? b.what);
    p.state.dataset.on = b.what === 'refused' || b.what === 'failed' ? 'bad' : '';
    setText(p.words.firstChild, b.venue ?? '');
    p.words.hidden = !b.venue;
    p.bar.hidden = true;
    setText(p.foot, `${clock(b.time, now)} · ${b.address}`);
    p.foot.title = when(b.time);
  });
  empty($('boots-empty'), state.boots.length ? null
    : `No machine has booted since espalierd was started. The boot file of DHCP is \`${location.origin}/boot.ipxe\``);
}

export function foot (state) {
  const store = state.server.store, stack = state.server.stack;
  setText($('foot'), `Espalier ${state.server.version} · store ${store.path}` +
    (stack.state === 'up' && stack.since ? ` · disk server since ${when(stack.since)}` : '') +
    (stack.restarts ? `, restarted ${stack.restarts === 1 ? 'once' : `${stack.restarts} times`}` : ''));
}
