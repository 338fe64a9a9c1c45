// The page comes alive: filters, theme, printing.

document.documentElement.classList.add('js');

let announcing = 0;
function announce(text) {
  const status = document.getElementById('status'), before = status.dataset.text || '';
  status.textContent = clean(text);
  clearTimeout(announcing);
  announcing = setTimeout(() => { status.textContent = before; }, 2500);
}

function status(text) {
  clearTimeout(announcing);
  const line = document.getElementById('status');
  line.dataset.text = text;
  line.textContent = text;
}

// ---- filters ----

const distinct = (name) => [...new Set(CELLS.map((row) => TEXTS[row[FACET[name]]]))].filter(Boolean).sort();
const field = (label, control, kind = '') => el('label', { class: kind }, kind === 'check' ? [control, label] : [el('span', {}, label), control]);
const select = (name, options, any) => el('select', { name }, el('option', { value: '' }, any), options);
const option = (value, text = value) => el('option', { value }, cut(text, 60));

function buildFilters() {
  const seen = VERDICTS.filter((v, i) => ENVIRONMENTS.some((one) => one.verdicts.verdict.includes(i))).sort((a, b) => a.rank - b.rank);
  const groups = Object.entries(VIEW.versions).map(([name, versions]) => {
    const run = versions.filter((version) => ENVIRONMENTS.some((one) => String(one.packages[name]) === version)).reverse();
    return run.length ? el('optgroup', { label: cut(name, 40) }, run.map((version) => option(`${name} ${version}`))) : null;
  });
  const form = document.getElementById('filters');
  form.append(
    field('Framework', select('framework', distinct('framework').map((v) => option(v)), 'all')), field('Family', select('family', distinct('family').map((v) => option(v)), 'all')),
    field('Verdict', select('verdict', seen.map((v) => option(v.name, `${v.sign} ${v.name}`)), 'any')), field('Package version', select('version', groups, 'all')),
    field('Text in the cell’s id', el('input', { type: 'search', name: 'text', autocomplete: 'off', spellcheck: 'false', maxlength: 500 }), 'search'),
    field('Only differences', el('input', { type: 'checkbox', name: 'differs' }), 'check'), field('Only findings', el('input', { type: 'checkbox', name: 'found' }), 'check'),
    el('button', { type: 'button', class: 'button', id: 'reset', onclick: () => apply({ ...NONE }) }, 'Reset'));
  document.getElementById('open-all').addEventListener('click', () => Grid.all(true));
  document.getElementById('close-all').addEventListener('click', () => Grid.all(false));
  let soon = 0;
  form.addEventListener('input', (event) => {
    const { name, type, checked, value } = event.target;
    clearTimeout(soon);
    soon = setTimeout(() => apply({ [name]: type === 'checkbox' ? (checked ? '1' : '') : value }), type === 'search' ? 160 : 0);
  });
  form.addEventListener('submit', (event) => event.preventDefault());
}

function showFilters() {
  const form = document.getElementById('filters');
  for (const name of Object.keys(NONE)) {
    const control = form.elements[name];
    if (!control) continue;
    if (control.type === 'checkbox') control.checked = Boolean(filters[name]);
    else if (control !== document.activeElement || control.tagName === 'SELECT') control.value = filters[name];
  }
  document.getElementById('reset').disabled = !fragment();
}

/** Change some filters, keep the others; the address tells them, without a new entry in the history for every key pressed. */
function apply(changes, section) {
  filters = { ...filters, ...changes };
  history.replaceState(null, '', fragment() || location.pathname + location.search);
  show();
  if (section) document.getElementById(section).scrollIntoView();
}

let shownFindings = '';
function show() {
  const chosen = selection();
  showFilters();
  Grid.show(chosen);
  const asked = filters.finding ? ` of the finding ${clean(cut(filters.finding, 60))}` : '';
  status(`${chosen.cells.length === CELLS.length ? 'All' : `${chosen.cells.length.toLocaleString('en')} of`} ${plural(CELLS.length, 'cell')}${asked} in ${plural(chosen.columns.length, 'environment')}: ${plural(chosen.verdicts, 'verdict')}, ${plural(chosen.findings.size, 'finding')}.`);
  const now = [...chosen.findings].sort((a, b) => a - b).join();
  if (now !== shownFindings || !document.getElementById('cards').firstChild) setTimeout(drawCards, 0, chosen.findings);
  shownFindings = now;
}

// ---- colours ----

const THEMES = [['', '◐', 'as the system has them'], ['light', '○', 'light'], ['dark', '●', 'dark']];
function theme(name) {
  const [value, sign, words] = THEMES.find(([one]) => one === name) || THEMES[0];
  if (value) document.documentElement.dataset.theme = value;
  else delete document.documentElement.dataset.theme;
  const button = document.getElementById('theme');
  button.textContent = sign;
  button.title = `Colours: ${words}`;
  button.setAttribute('aria-label', `Colours: ${words}`);
  try { localStorage.setItem('truestep-theme', value); } catch { /* a file opened where nothing may be kept */ }
}

function goTo(section) {
  const place = document.getElementById(section);
  place.scrollIntoView();
  place.focus({ preventScroll: true });
}

function start() {
  let kept = '';
  try { kept = localStorage.getItem('truestep-theme') || ''; } catch { /* the same */ }
  theme(kept);
  document.getElementById('theme').addEventListener('click', () => {
    const now = THEMES.findIndex(([value]) => value === (document.documentElement.dataset.theme || ''));
    theme(THEMES[(now + 1) % THEMES.length][0]);
  });
  buildFilters();
  Grid.build(document.getElementById('grid'));
  readFragment();
  show();
  performance.mark('truestep-grid');
  addEventListener('hashchange', () => {
    if (!isFilter(location.hash)) return;
    document.getElementById('details').close();
    readFragment();
    show();
    document.getElementById('matrix').scrollIntoView();
  });
  // a section is gone to without losing the filters from the address
  for (const link of document.querySelectorAll('.top nav a, .skip')) {
    link.addEventListener('click', (event) => {
      event.preventDefault();
      goTo(link.hash.slice(1));
    });
  }
  if (['matrix', 'findings', 'rounding', 'environments'].includes(location.hash.slice(1))) setTimeout(goTo, 60, location.hash.slice(1));
  matchMedia('(max-width: 40rem)').addEventListener('change', (now) => { Grid.height = now.matches ? 62 : 42; Grid.draw(true); });
  const sheet = document.getElementById('details');
  sheet.addEventListener('click', (event) => { if (event.target === sheet) sheet.close(); });
  addEventListener('beforeprint', openForPrint);
  addEventListener('afterprint', shutAfterPrint);
  const place = document.getElementById('distribution');
  const redraw = () => { place.replaceChildren(roundingFigure(place.clientWidth)); redrawCards(); };
  let width = 0, soon = 0;
  new ResizeObserver(() => {
    if (Math.abs(place.clientWidth - width) < 2 || matchMedia('print').matches) return;
    clearTimeout(soon);
    soon = setTimeout(redraw, width ? 150 : 0);
    width = place.clientWidth;
  }).observe(place);
}

start();
