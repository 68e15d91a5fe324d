/* SPDX-License-Identifier: BSD-3-Clause */
/* Seats: who is connected, what they wrote, how fast. */

import { $, bar, bytes, count, empty, h, list, percent, rate, setText, span, when, clock } from './dom.js';

/* So many are shown at first. */
const few = () => matchMedia('(max-width: 560px)').matches ? 16 : 60;
const order = new Intl.Collator(undefined, { numeric: true });
let all = [], venues = [], now = 0, total = 0, showAll = false, wanted = '';

/* --- one seat ------------------------------------------------------------------- */

function make () {
  const li = h('li', { class: 'seat' },
    h('p', { class: 'seat-top' }, h('bdi', { class: 'seat-name' }), h('bdi', { class: 'tag' })),
    h('p', { class: 'seat-flow' },
      h('span', { class: 'flow-read' }), h('span', { class: 'flow-write' })),
    h('div'),
    h('p', { class: 'seat-used' }),
    h('p', { class: 'seat-foot' }),
    h('p', { class: 'seat-note' }));
  const part = li.children;
  li.parts = {
    name: part[0].children[0], venue: part[0].children[1],
    read: part[1].children[0], write: part[1].children[1],
    bar: part[2], used: part[3], foot: part[4], note: part[5],
  };
  return li;
}

function usedText (o) {
  if (!o)
    return 'Keeps nothing';
  if (!o.quota)
    return `${bytes(o.used)} written`;
  return `${bytes(o.used)} of ${bytes(o.quota)}`;
}

function footText (c) {
  const words = [];
  if (c.connected)
    words.push(`since ${clock(c.since, now)}`, now - c.since < 60 ? 'just now' : span(now - c.since));
  else if (c.overlay?.last_seen)
    words.push(`last seen ${now - c.overlay.last_seen < 60 ? 'moments' : span(now - c.overlay.last_seen)} ago`);
  if (c.connections > 1)
    words.push(count(c.connections, 'connection'));
  if (c.address)
    words.push(c.address);
  return words.join(' · ');
}

function noteText (c) {
  if (c.overlay?.damage)
    return `Damaged: ${c.overlay.damage}`;
  if (c.errors > 0)
    return `${count(c.errors, 'request')} failed`;
  if (c.overlay?.venue_moved_to)
    return 'On an older image until it is reset';
  if (c.per_second?.misses > 0)
    return 'Waits for an image center';
  return '';
}

function update (li, c) {
  const p = li.parts, o = c.overlay;
  li.dataset.on = c.connected ? 'yes' : 'no';
  setText(p.name, c.client ?? 'Without a name');
  setText(p.venue, (c.venue ?? (c.restore_point ? `rp:${c.restore_point}` : '')) + (c.disk > 0 ? `/${c.disk}` : ''));
  p.venue.hidden = !p.venue.textContent;
  setText(p.read, c.connected ? `reads ${rate(c.per_second?.read_bytes ?? 0)}` : 'not connected');
  setText(p.write, c.connected ? `writes ${rate(c.per_second?.write_bytes ?? 0)}` : '');
  p.read.dataset.busy = c.per_second?.read_bytes > 0 ? 'yes' : '';
  p.write.dataset.busy = c.per_second?.write_bytes > 0 ? 'yes' : '';
  p.bar.hidden = !o?.quota;
  if (o?.quota)
    bar(p.bar, percent(o.used, o.quota), `Overlay: ${usedText(o)}`);
  setText(p.used, usedText(o));
  setText(p.foot, footText(c));
  p.foot.title = c.connected ? when(c.since) : '';
  setText(p.note, noteText(c));
  p.note.hidden = !p.note.textContent;
}

/* --- all -------------------------------------------------------------------------- */

function matches (c) {
  return [c.client, c.venue, c.restore_point, c.address, c.mac]
    .some((text) => text && text.toLowerCase().includes(wanted));
}

function render () {
  const found = wanted ? all.filter(matches) : all;
  const shown = showAll || wanted ? found : found.slice(0, few());
  list($('seats-list'), shown, (c) => c.export, make, update);
  $('seats-more').hidden = shown.length === found.length && !(showAll && found.length > few());
  setText($('seats-more'), showAll ? 'Show fewer' : `Show all ${found.length}`);
  let hint = null;
  if (all.length === 0)
    hint = venues.length === 0 ? 'No venue yet, so no seat can ask for one: `espalier venue add cafe --disk NAME`'
      : `Nobody is connected. Switch a machine on: its DHCP server names \`${location.origin}/boot.ipxe\` as the boot file. Or, with QEMU: \`espalier venue show ${venues[0].id} --qemu seat-1\``;
  else if (found.length === 0)
    hint = 'No seat has that in its name, venue or address.';
  else if (total > all.length && !wanted)
    hint = `${total - all.length} more that were not seen lately: \`espalier overlay list\``;
  empty($('seats-empty'), hint);
}

export function show (state, points, time) {
  now = time;
  venues = state.venues;
  total = state.clients.total;
  all = [...state.clients.clients].sort((a, b) =>
    (b.connected - a.connected) || (a.connected ? order.compare(a.client ?? '', b.client ?? '') || order.compare(a.export, b.export) : 0));
  const on = state.clients.connected;
  setText($('seats-count'), total ? `${on} connected` + (total > on ? `, ${total - on} away` : '') : '');
  $('seats-find').hidden = all.length < 12;
  render();
}

export function begin () {
  $('seats-filter').addEventListener('input', () => {
    wanted = $('seats-filter').value.trim().toLowerCase();
    render();
  });
  $('seats-more').addEventListener('click', () => {
    showAll = !showAll;
    render();
  });
}
