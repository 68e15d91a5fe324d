/* SPDX-License-Identifier: BSD-3-Clause */
/* The tree of restore points, drawn as an espalier: trained flat, from its
 * roots on the left to what venues serve on the right.
 *
 * A branch is a line of its own: a restore point, then always the child that
 * most grows from.  Other children begin branches below.  Long runs in which
 * nothing happens are folded into one mark.  Each branch lies as high as it
 * fits: those that leave on the right first, so that no line crosses another.
 */

import { $, bytes, count, empty, h, s, setText, when } from './dom.js';

const LANE = 47, LEFT = 22, TOP = 34, BEND = 26, GAP = 26;
const RUN = 4;                  /* so many in a row are folded */
const SMALL = 24;               /* trees of fewer points are not */

let nodes = new Map(), roots = [], open = new Set(), allOpen = false;
let local = new Map(), selected = null, focused = null, marks = new Map();

/* --- the points --------------------------------------------------------------- */

export function take (points) {
  nodes = new Map();
  roots = [];
  for (const p of points) {
    const n = { p, kids: [], parent: nodes.get(p.parent) ?? null };
    nodes.set(p.uuid, n);
    (n.parent ? n.parent.kids : roots).push(n);
  }
  for (const p of [...points].reverse())
    weigh(nodes.get(p.uuid));
  if (!nodes.has(selected))
    selected = null;
  render();
}

/* What hangs on a node: how much, how far, and how many venues. */
function weigh (n) {
  n.venues = n.p.venues ?? [];
  n.size = 1;
  n.height = 1;
  n.fruit = n.venues.length;
  for (const k of n.kids) {
    n.size += k.size;
    n.height = Math.max(n.height, k.height + 1);
    n.fruit += k.fruit;
  }
  n.kids.sort((a, b) => b.height - a.height || b.fruit - a.fruit || a.p.created - b.p.created);
}

/* --- layout ---------------------------------------------------------------------- */

const measure = document.createElement('canvas').getContext('2d');
let font = null;

function widthOf (text) {
  font ??= `12px ${getComputedStyle(document.body).fontFamily}`;
  measure.font = font;
  return measure.measureText(text).width;
}

/* TEXT cut to MAX pixels; never within a character. */
function cut (text, max) {
  if (widthOf(text) <= max)
    return text;
  const chars = [...text];
  while (chars.length > 1 && widthOf(chars.join('') + '…') > max)
    chars.pop();
  return chars.join('') + '…';
}

const venueText = (n) => {
  const names = n.venues.map((v) => v.replace(/\/0$/, ''));
  return names.slice(0, 2).join(', ') + (names.length > 2 ? ` +${names.length - 2}` : '');
};

const isPlain = (n) => n.kids.length === 1 && n.venues.length === 0 && n.parent !== null;

/* The marks of the branch that begins at START: nodes, and folded runs. */
function branchMarks (start, folds) {
  const line = [];
  for (let n = start; n; n = n.kids[0])
    line.push(n);
  const out = [];
  for (let i = 0; i < line.length;) {
    let end = i;
    while (folds && i > 0 && end < line.length && isPlain(line[end]))
      end++;
    if (end - i >= RUN && !open.has(line[i].p.uuid)) {
      out.push({ run: line.slice(i, end), width: 74 });
      i = end;
    } else
      for (end = Math.max(end, i + 1); i < end; i++) {
        const label = cut(line[i].p.name, 132);
        out.push({ node: line[i], label, width: Math.max(widthOf(label) + 18, 44) });
      }
  }
  return out;
}

/* Rows of taken stretches [from, to]: does it fit at DEPTH below? */
function fits (rows, block, depth, x) {
  for (let i = 1; i < depth; i++)
    if ((rows[i] ?? []).some(([a, b]) => a < x + 4 && x - 4 < b))
      return false;
  return block.rows.every((taken, i) => taken.every(([a, b]) =>
    (rows[depth + i] ?? []).every(([c, d]) => b < c || d < a)));
}

function place (into, block, depth) {
  block.rows.forEach((taken, i) => (into.rows[depth + i] ??= []).push(...taken));
  for (let i = 0; i < into.rows.length; i++)
    into.rows[i] ??= [];
  for (const m of block.marks)
    into.marks.push({ ...m, lane: m.lane + depth });
  for (const b of block.bends)
    into.bends.push({ ...b, from: b.from + depth, to: b.to + depth });
}

/* A branch and all that leaves it; lanes count from its own. */
function layout (start, x0, folds) {
  const block = { rows: [[]], marks: [], bends: [] };
  let x = x0;
  const items = branchMarks(start, folds);
  for (const m of items) {
    block.marks.push({ ...m, x, lane: 0 });
    x += m.width;
  }
  const last = items[items.length - 1];
  const end = x + GAP + (last.node?.venues.length ? Math.max(0, widthOf(venueText(last.node)) + 40 - last.width) : 0);
  block.rows[0].push([x0 - BEND, end]);
  for (const m of block.marks)  /* its venues stand below it */
    if (m.node?.venues.length && m.node.kids.length)
      (block.rows[1] ??= []).push([m.x - 6, m.x + m.width]);
  for (const m of [...block.marks].reverse())
    for (const kid of m.node?.kids.slice(1) ?? []) {
      const child = layout(kid, m.x + BEND, folds);
      let depth = 1;
      while (!fits(block.rows, child, depth, m.x))
        depth++;
      for (let i = 1; i < depth; i++)
        (block.rows[i] ??= []).push([m.x - 4, m.x + 4]);
      block.bends.push({ x: m.x, from: 0, to: depth, node: kid });
      place(block, child, depth);
    }
  return block;
}

function layoutAll () {
  const all = { rows: [], marks: [], bends: [] };
  const folds = !allOpen && nodes.size > SMALL;
  for (const root of roots)
    place(all, layout(root, LEFT, folds), all.rows.length);
  return all;
}

/* --- drawing ---------------------------------------------------------------------- */

const yOf = (lane) => TOP + lane * LANE;
const thick = (n) => (1.6 + 0.62 * Math.log2(1 + n.size)).toFixed(2);

function drawLine (from, to) {
  return s('path', { class: 'twig', 'data-to': (to.node ?? to.run[to.run.length - 1]).p.uuid, d: `M${from.x} ${yOf(from.lane)}H${to.x}`, 'stroke-width': thick(to.node ?? to.run[0]) });
}

function drawBend (b) {
  const y = yOf(b.from), y2 = yOf(b.to), r = 16;
  return s('path', { class: 'twig', 'data-to': b.node.p.uuid, d: `M${b.x} ${y}V${y2 - r}Q${b.x} ${y2} ${b.x + r} ${y2}H${b.x + BEND}`, 'stroke-width': thick(b.node) });
}

function drawFruit (n, x, y, leaf, width) {
  const text = venueText(n), w = widthOf(text) + 16;
  const room = leaf ? w : Math.min(w, Math.max(40, width - 8));
  const shown = room < w ? cut(text, room - 16) : text;
  const cx = leaf ? x + 15 : x - 4, cy = leaf ? y - 10 : y + 11;
  return s('g', { class: 'fruit-tag' },
    s('rect', { x: cx, y: cy, width: room, height: 20, rx: 10 }),
    s('text', { x: cx + room / 2, y: cy + 14, 'text-anchor': 'middle' }, shown));
}

function stateOf (n) {
  const part = local.get(n.p.uuid);
  return part !== undefined && part < 1 ? 'absent' : n.p.kind === 'in-place' ? 'place' : 'here';
}

function labelFor (n) {
  return `${n.p.name}, ${bytes(n.p.data_bytes)}` +
    (n.venues.length ? `, serves ${venueText(n)}` : '') +
    (n.kids.length > 1 ? `, ${n.kids.length} branches` : '');
}

function drawNode (m) {
  const n = m.node, y = yOf(m.lane), leaf = n.kids.length === 0;
  const g = s('g', { class: 'node', role: 'treeitem', tabindex: '-1', 'aria-level': n.p.depth, 'aria-label': labelFor(n), 'aria-selected': 'false', 'data-uuid': n.p.uuid },
    s('rect', { class: 'reach', x: m.x - 10, y: y - 26, width: Math.max(30, m.width - 2), height: 42 }),
    s('circle', { class: n.venues.length ? 'bud fruit' : 'bud', cx: m.x, cy: y, r: n.venues.length ? 7.5 : n.parent ? 4.6 : 6.2 }),
    s('text', { class: 'name', x: m.x - 4, y: y - 13, direction: 'ltr', 'unicode-bidi': 'isolate' }, m.label));
  if (n.venues.length)
    g.append(drawFruit(n, m.x, y, leaf, m.width));
  g.dataset.state = stateOf(n);
  return g;
}

function drawRun (m) {
  const y = yOf(m.lane), n = m.run.length;
  const g = s('g', { class: 'run', role: 'treeitem', tabindex: '-1', 'aria-level': m.run[0].p.depth, 'aria-expanded': 'false', 'aria-label': `${n} restore points, ${m.run[0].p.name} to ${m.run[n - 1].p.name}: unfold`, 'data-run': m.run[0].p.uuid },
    s('title', null, `${m.run[0].p.name} … ${m.run[n - 1].p.name}`),
    s('rect', { x: m.x - 6, y: y - 11, width: 54, height: 22, rx: 11 }),
    s('text', { x: m.x + 21, y: y + 4.5, 'text-anchor': 'middle' }, `+ ${n}`));
  return g;
}

function drawMarks (all) {
  const twigs = s('g', { class: 'twigs', 'aria-hidden': 'true' }), items = [];
  const before = new Map();     /* the last mark of each branch so far */
  marks = new Map();
  for (const m of all.marks) {
    const first = m.node ?? m.run[0];
    const from = first.parent && first.parent.kids[0] === first ? before.get(first.parent.p.uuid) : null;
    if (from)
      twigs.append(drawLine(from, m));
    before.set((m.node ?? m.run[m.run.length - 1]).p.uuid, m);
    const g = m.node ? drawNode(m) : drawRun(m);
    for (const n of m.run ?? [m.node])
      marks.set(n.p.uuid, { g, m });
    items.push(g);
  }
  for (const b of all.bends)
    twigs.prepend(drawBend(b));
  return [twigs, ...items];
}

function render () {
  const frame = $('tree-frame'), all = layoutAll();
  const width = Math.max(200, ...all.rows.flat().map(([, b]) => b)) + 12;
  const height = Math.max(1, all.rows.length) * LANE + 18;
  frame.hidden = nodes.size === 0;
  frame.replaceChildren(s('svg', { class: 'tree', width, height, viewBox: `0 0 ${width} ${height}`, role: 'tree', 'aria-label': 'Restore points' }, ...drawMarks(all)));
  const venues = roots.reduce((n, r) => n + r.fruit, 0);
  setText($('tree-count'), nodes.size ? `${count(nodes.size, 'restore point')}, ${venues} served` : '');
  const foldable = nodes.size > SMALL;
  $('tree-fold').hidden = !foldable;
  setText($('tree-fold'), allOpen ? 'Fold long runs' : 'Unfold all');
  legend();
  focused = marks.has(focused) ? focused : roots[0]?.p.uuid ?? null;
  marks.get(focused)?.g.setAttribute('tabindex', '0');
  light(selected);
  if (nodes.size === 0)
    empty($('tree-detail'), 'No restore point yet: `espalier root add NAME IMAGE` adds the first.');
  else
    detail(selected ? nodes.get(selected) : null);
}

function legend () {
  const any = (f) => [...nodes.values()].some(f);
  const items = [['fruit', 'served by a venue']];
  if (any((n) => stateOf(n) === 'absent'))
    items.push(['absent', 'not all of it is here yet']);
  if (any((n) => stateOf(n) === 'place'))
    items.push(['place', 'stays where it is']);
  $('tree-legend').replaceChildren(...items.map(([kind, text]) => h('li', { 'data-kind': kind }, text)));
  $('tree-legend').hidden = nodes.size === 0;
}

/* --- details ---------------------------------------------------------------------- */

function row (dl, label, value) {
  if (value !== null && value !== undefined && value !== '')
    dl.append(h('div', null, h('dt', null, label), h('dd', null, h('bdi', null, String(value)))));
}

function detail (n) {
  const el = $('tree-detail');
  delete el.dataset.text;
  if (!n) {
    empty(el, 'Point at a restore point to read about it. Arrow keys walk along the branches.');
    return;
  }
  const p = n.p, dl = h('dl', { class: 'figures' });
  row(dl, 'Made', when(p.created));
  row(dl, 'Disk', bytes(p.size));
  row(dl, 'Own data', p.kind === 'in-place' ? 'in place' : bytes(p.data_bytes));
  if (local.has(p.uuid))
    row(dl, 'Of it here', `${Math.floor(100 * local.get(p.uuid))}\u00a0%`);
  row(dl, 'Over', p.parent_name ?? 'nothing: a root');
  row(dl, 'Served as', n.venues.map((v) => v.replace(/\/0$/, '')).join(', '));
  row(dl, 'Brings', p.resources.map((r) => r.name + (r.version ? ` ${r.version}` : '')).join(', '));
  row(dl, 'Grown from it', n.size > 1 ? count(n.size - 1, 'restore point') : '');
  el.replaceChildren(h('h3', null, h('bdi', null, p.name)), p.note ? h('p', { class: 'note' }, h('bdi', null, p.note)) : '', dl);
}

/* The way from the root to UUID is lit. */
function light (uuid) {
  const svg = $('tree-frame').firstElementChild, way = new Set();
  for (let n = nodes.get(uuid); n; n = n.parent)
    way.add(n.p.uuid);
  for (const path of svg?.querySelectorAll('.twig') ?? [])
    path.classList.toggle('lit', way.has(path.dataset.to));
  for (const g of svg?.querySelectorAll('.node') ?? []) {
    g.setAttribute('aria-selected', String(g.dataset.uuid === uuid));
    g.classList.toggle('lit', way.has(g.dataset.uuid));
  }
}

/* --- what people do ------------------------------------------------------------------ */

function focus (uuid) {
  const mark = marks.get(uuid);
  if (!mark)
    return;
  marks.get(focused)?.g.setAttribute('tabindex', '-1');
  focused = uuid;
  mark.g.setAttribute('tabindex', '0');
  mark.g.focus();
}

export function select (uuid, show = false) {
  if (!nodes.has(uuid))
    return;
  selected = uuid;
  const mark = marks.get(uuid);
  if (mark?.m.run) {            /* it is folded away */
    open.add(mark.m.run[0].p.uuid);
    render();
  }
  light(uuid);
  detail(nodes.get(uuid));
  if (!show)
    return;
  $('tree').scrollIntoView({ block: 'start', behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth' });
  const at = marks.get(uuid)?.m, frame = $('tree-frame');
  if (at)
    frame.scrollTo({ left: at.x - frame.clientWidth / 2, top: yOf(at.lane) - frame.clientHeight / 2 });
}

function unfold (run) {
  open.add(run);
  render();
  focus(run);
}

/* The mark to which KEY leads from node N. */
function step (n, key) {
  const m = marks.get(n.p.uuid).m;
  const end = m.run ? m.run[m.run.length - 1] : n, start = m.run ? m.run[0] : n;
  const line = n.parent ? n.parent.kids : roots;
  switch (key) {
  case 'ArrowRight': return end.kids[0];
  case 'ArrowLeft': return start.parent;
  case 'ArrowDown': return end.kids[1] ?? line[line.indexOf(n) + 1];
  case 'ArrowUp': return line[line.indexOf(n) - 1];
  case 'Home': return roots[0];
  default: return undefined;
  }
}

function onKey (event) {
  const g = event.target.closest('.node, .run');
  const n = g && nodes.get(g.dataset.uuid ?? g.dataset.run);
  if (!n)
    return;
  if ((event.key === 'Enter' || event.key === ' ') && g.dataset.run) {
    event.preventDefault();
    unfold(g.dataset.run);
    return;
  }
  const to = step(n, event.key);
  if (!to)
    return;
  event.preventDefault();
  const mark = marks.get(to.p.uuid);
  focus(mark?.m.run ? mark.m.run[0].p.uuid : to.p.uuid);
}

export function begin () {
  const frame = $('tree-frame');
  const at = (event) => event.target.closest?.('.node, .run');
  frame.addEventListener('keydown', onKey);
  frame.addEventListener('focusin', (event) => {
    const g = at(event);
    if (g?.dataset.uuid)
      select(g.dataset.uuid);
  });
  frame.addEventListener('pointerover', (event) => {
    const g = at(event);
    if (g?.dataset.uuid && event.pointerType === 'mouse')
      select(g.dataset.uuid);
  });
  frame.addEventListener('click', (event) => {
    const g = at(event);
    if (g?.dataset.run)
      unfold(g.dataset.run);
    else if (g?.dataset.uuid)
      focus(g.dataset.uuid);
  });
  $('tree-fold').addEventListener('click', () => {
    allOpen = !allOpen;
    open = new Set();
    render();
  });
}

/* How much of delayed restore points is here: only marks change. */
export function hydrate (list) {
  const was = local;
  local = new Map(list.map((d) => [d.uuid, d.bytes ? d.local_bytes / d.bytes : 1]));
  for (const [uuid, { g, m }] of marks)
    if (m.node && local.get(uuid) !== was.get(uuid))
      g.dataset.state = stateOf(m.node);
  if (local.size !== was.size || list.some((d) => (d.local_bytes < d.bytes) !== ((was.get(d.uuid) ?? 1) < 1)))
    legend();
}
