/* SPDX-License-Identifier: BSD-3-Clause */
/* The theme, set before anything is drawn: what the system prefers, or what
 * was chosen here. */
'use strict';
(function () {
  const names = ['auto', 'light', 'dark'];
  let chosen = 'auto';

  function apply () {
    if (chosen === 'auto')
      delete document.documentElement.dataset.theme;
    else
      document.documentElement.dataset.theme = chosen;
    const shown = document.getElementById('theme-name');
    if (shown)
      shown.textContent = chosen;
  }

  /* Storage may be forbidden: then the choice lasts as long as the page. */
  try {
    const kept = localStorage.getItem('espalier-theme');
    if (names.includes(kept))
      chosen = kept;
  } catch { /* see above */ }
  apply();
  document.addEventListener('DOMContentLoaded', () => {
    apply();
    document.getElementById('theme').addEventListener('click', () => {
      chosen = names[(names.indexOf(chosen) + 1) % names.length];
      apply();
      try { localStorage.setItem('espalier-theme', chosen); } catch { /* see above */ }
    });
  });
}());
