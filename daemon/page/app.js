/* SPDX-License-Identifier: BSD-3-Clause */
/* The page: asks for the state every two seconds while somebody looks, and
 * gives it to its parts.  Nothing here changes anything on the server. */

import { $, clock } from './dom.js';
import * as parts from './parts.js';
import * as seats from './seats.js';
import * as tree from './tree.js';

const EVERY = 2000, PATIENCE = 8000;    /* milliseconds */

let etag = null, state = null, points = null, treeTag = null;
let lostSince = null, timer = null, asking = false;

/* --- the connection --------------------------------------------------------- */

function sayLive (kind, text) {
  $('live').dataset.kind = kind;
  if ($('live-text').textContent !== text)
    $('live-text').textContent = text;
}

function sayLost () {
  lostSince ??= Date.now() / 1000;
  const at = new Date(lostSince * 1000).toLocaleTimeString();
  sayLive('lost', state ? `No answer since ${at}: what is shown is old`
    : `No answer since ${at}`);
  document.body.classList.add('lost');
}

function sayFound () {
  lostSince = null;
  sayLive('live', 'Live');
  document.body.classList.remove('lost');
}

/* --- asking ------------------------------------------------------------------ */

async function fetchState () {
  const ask = new AbortController();
  const patience = setTimeout(() => ask.abort(), PATIENCE);
  try {
    const url = treeTag ? `api/state?tree=${encodeURIComponent(treeTag)}` : 'api/state';
    const answer = await fetch(url, {
      cache: 'no-store', signal: ask.signal,
      headers: etag ? { 'If-None-Match': etag } : {},
    });
    if (answer.status !== 304 && !answer.ok)
      throw new Error(`HTTP ${answer.status}`);
    const date = Date.parse(answer.headers.get('Date')) / 1000;
    const body = answer.status === 304 ? null : await answer.json();
    if (body)
      etag = answer.headers.get('ETag');
    return { body, now: date || Date.now() / 1000 };
  } finally {
    clearTimeout(patience);
  }
}

function take (body) {
  state = body;
  treeTag = body.tree.tag;
  if (body.tree.points) {
    points = body.tree.points;
    etag = null;                /* it is of the answer that has the tree */
    tree.take(points);
  }
}

function show (now) {
  document.title = state.problems.length
    ? `(${state.problems.length}) ${state.server.title || 'Espalier'}`
    : state.server.title || 'Espalier';
  $('main').hidden = false;
  const fresh = points.length === 0 && state.venues.length === 0;
  parts.wellbeing(state, now);
  parts.firstSteps(fresh);
  for (const id of ['seats', 'tree', 'venues', 'hydration', 'cache', 'boots'])
    $(id).hidden = fresh;
  $('centers').hidden = fresh && state.centers.length === 0;
  document.querySelector('.columns').hidden = fresh && state.centers.length === 0;
  parts.servers(state, now);
  parts.foot(state);
  if (fresh) {
    parts.centers(state);
    return;
  }
  seats.show(state, points, now);
  tree.hydrate(state.hydration);
  parts.venues(state, points, now);
  parts.centers(state);
  parts.hydration(state);
  parts.cache(state);
  parts.boots(state, now);
}

async function ask () {
  if (asking)
    return;
  asking = true;
  clearTimeout(timer);
  try {
    const { body, now } = await fetchState();
    if (body)
      take(body);
    sayFound();
    show(now);
  } catch (error) {
    if (error instanceof TypeError || error.name === 'AbortError' || /^HTTP /.test(error.message))
      sayLost();
    else {
      console.error(error);     /* a fault of this page: let it be seen */
      sayLive('lost', 'This page failed: reload it');
    }
  } finally {
    asking = false;
    if (!document.hidden)
      timer = setTimeout(ask, EVERY);
  }
}

document.addEventListener('visibilitychange', () => {
  clearTimeout(timer);
  if (document.hidden)
    sayLive('paused', `Paused at ${clock(Date.now() / 1000, Date.now() / 1000)}`);
  else
    ask();
});
parts.begin((uuid) => tree.select(uuid, true));
tree.begin();
seats.begin();
ask();
