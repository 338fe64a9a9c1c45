// The document, what it means, and which part of it is shown. No element of the page is touched here, but for the helpers that make them.

performance.mark('truestep-start');
const { document: DOC, view: VIEW } = JSON.parse(document.getElementById('data').textContent);
const TEXTS = DOC.texts, ENVIRONMENTS = DOC.environments, CELLS = DOC.cells, FINDINGS = DOC.findings;
const FACET = Object.fromEntries(DOC.facets.map((name, i) => [name, i]));
const ADVISORIES = new Map(DOC.advisories.map((one) => [one.id, one]));

// the worst first; what gave no answer comes after what is right, and is never shown as right
const ORDER = ['wrong', 'error', 'timeout', 'by-design', 'pass', 'not-triggered', 'incompatible', 'skipped'];
const VERDICTS = DOC.verdicts.map((name) => ({
  name,
  sign: VIEW.signs[name] || '?',
  style: ORDER.includes(name) ? name : 'other',
  rank: ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length,
  red: ['wrong', 'error', 'timeout'].includes(name),
}));
const PASS = DOC.verdicts.indexOf('pass');
const VERDICT = new Map(VERDICTS.map((v) => [v.name, v]));

const facet = (cell, name) => TEXTS[CELLS[cell][FACET[name]]];
const cellId = (cell) => String(CELLS[cell][FACET.id]);

// AT[environment][cell] : where in the environment's columns its verdict stands, -1 where it was not run
const AT = ENVIRONMENTS.map((one) => {
  const at = new Int32Array(CELLS.length).fill(-1);
  one.verdicts.cell.forEach((cell, i) => { at[cell] = i; });
  return at;
});

function verdictAt(environment, cell) {
  const i = AT[environment][cell];
  if (i < 0) return null;
  const columns = ENVIRONMENTS[environment].verdicts;
  const one = {};
  for (const name of DOC.columns) one[name] = columns[name][i];
  one.kind = VERDICTS[one.verdict];
  return one;
}

// ---- words ----

const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
/** Text in which nothing hides and nothing turns direction: such characters are shown by their number. */
const clean = (text) => String(text ?? '').replace(UNSEEN, (c) => `‹U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}›`);
const cut = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
const plural = (n, noun) => `${n.toLocaleString('en')} ${noun}${n === 1 ? '' : 's'}`;
const short = (value) => (value === null || value === undefined ? 'not a number' : Math.abs(value) >= 1e5 ? value.toExponential(1) : String(+value.toFixed(3) || 0));
const exact = (value) => (value === null || value === undefined ? 'not a number' : value === 0 ? '0' : value >= 0.01 && value < 1e4 ? String(+value.toPrecision(3)) : value.toExponential(1));

function webLink(link) {
  try {
    const url = new URL(link);
    return url.protocol === 'https:' && !clean(link).includes('‹U+') ? url.href : '';
  } catch {
    return '';
  }
}

// ---- elements: text is set as text, never as markup ----

function make(space, name, attributes, children) {
  const element = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? '' : clean(value));
  }
  for (const child of children.flat(Infinity)) if (child !== null && child !== undefined && child !== false) element.append(child.nodeType ? child : clean(child));
  return element;
}
const el = (name, attributes, ...children) => make('', name, attributes, children);
const svg = (name, attributes, ...children) => make('http://www.w3.org/2000/svg', name, attributes, children);
const chip = (verdict, words = '') => el('span', { class: `chip v-${(VERDICT.get(verdict) || { style: 'other' }).style}` }, el('b', {}, (VERDICT.get(verdict) || { sign: '?' }).sign), words && ` ${words}`);

function table(head, rows) {
  return el('table', {}, el('thead', {}, el('tr', {}, head.map((name, i) => el('th', { scope: 'col', class: i ? 'n' : '' }, name)))),
    el('tbody', {}, rows.map((row) => el('tr', {}, row.map((value, i) => el(i ? 'td' : 'th', i ? { class: 'n' } : { scope: 'row' }, value))))));
}

// ---- filters: their state is the fragment of the address, so that it can be handed on ----

const NONE = { framework: '', family: '', verdict: '', version: '', text: '', differs: '', found: '', finding: '' };
let filters = { ...NONE };

function readFragment() {
  const given = new URLSearchParams(location.hash.slice(1));
  filters = { ...NONE };
  for (const name of Object.keys(NONE)) if (given.has(name)) filters[name] = given.get(name);
}

function fragment() {
  const kept = Object.entries(filters).filter(([, value]) => value);
  return kept.length ? `#${new URLSearchParams(kept)}` : '';
}

const isFilter = (hash) => [...new URLSearchParams(hash.slice(1)).keys()].some((name) => name in NONE);

/**
 * What the filters leave: columns (environments), cells, findings, and how many verdicts.
 * With a verdict or finding asked for, a cell stays when it has that anywhere, with its other columns, so that releases can be compared.
 */
function selection() {
  const text = filters.text.trim().toLowerCase();
  let columns = VIEW.columns.filter((e) => !filters.version || Object.entries(ENVIRONMENTS[e].packages).some(([k, v]) => `${k} ${v}` === filters.version));
  const verdict = filters.verdict ? DOC.verdicts.indexOf(filters.verdict) : -1;
  const asked = filters.finding ? new Set(FINDINGS.flatMap((f, i) => (f.fingerprint === filters.finding ? [i] : []))) : null;
  const cells = [];
  for (let cell = 0; cell < CELLS.length; cell++) {
    if (filters.framework && facet(cell, 'framework') !== filters.framework) continue;
    if (filters.family && facet(cell, 'family') !== filters.family) continue;
    if (text && !cellId(cell).toLowerCase().includes(text)) continue;
    let seen = false, hit = verdict < 0, found = !filters.found && !asked, first = -1, differs = false;
    for (const e of columns) {
      const i = AT[e][cell];
      if (i < 0) continue;
      const now = ENVIRONMENTS[e].verdicts.verdict[i], finding = ENVIRONMENTS[e].verdicts.finding[i];
      seen = true;
      if (now === verdict) hit = true;
      if (finding >= 0 && (asked ? asked.has(finding) : true)) found = true;
      if (first >= 0 && now !== first) differs = true;
      first = now;
    }
    if (seen && hit && found && (differs || !filters.differs)) cells.push(cell);
  }
  columns = columns.filter((e) => cells.some((cell) => AT[e][cell] >= 0));
  const findings = new Set();
  let verdicts = 0;
  for (const e of columns) {
    const own = ENVIRONMENTS[e].verdicts;
    for (const cell of cells) {
      const i = AT[e][cell];
      if (i < 0) continue;
      verdicts++;
      const f = own.finding[i];
      if (f >= 0 && (!asked || asked.has(f)) && (verdict < 0 || own.verdict[i] === verdict)) findings.add(f);
    }
  }
  return { columns, cells, findings, verdicts };
}

/** framework -> question -> configuration -> cell, of the cells that are shown. A node: {key, level, label, tag, cells, kids}. */
function tree(cells) {
  const roots = new Map();
  const under = (map, key, make) => { if (!map.has(key)) map.set(key, make()); return map.get(key); };
  for (const cell of cells) {
    const row = CELLS[cell];
    const names = [row[FACET.framework], `${row[FACET.family]}/${row[FACET.question]}`, row[FACET.configuration]];
    const labels = [facet(cell, 'framework'), facet(cell, 'question') || facet(cell, 'family'), facet(cell, 'configuration')];
    let map = roots, path = '';
    names.forEach((name, depth) => {
      path += `|${name}`;
      const key = path;
      const node = under(map, name, () => ({ key, level: depth + 1, label: labels[depth], tag: depth === 1 && facet(cell, 'family') !== labels[0] ? facet(cell, 'family') : '', cells: [], kids: new Map() }));
      node.cells.push(cell);
      map = node.kids;
    });
    map.set(cell, { key: `${path}|${cell}`, level: 4, label: cellId(cell), tag: '', cells: [cell], kids: new Map() });
  }
  return roots;
}

/** How many cells of a node have each verdict in an environment; null where none was run. */
function tally(node, environment) {
  const cache = (node.cache ||= new Map());
  if (!cache.has(environment)) {
    const counts = new Uint32Array(VERDICTS.length), at = AT[environment], verdict = ENVIRONMENTS[environment].verdicts.verdict;
    let total = 0;
    for (const cell of node.cells) if (at[cell] >= 0) { counts[verdict[at[cell]]]++; total++; }
    let worst = -1;
    counts.forEach((n, v) => { if (n && (worst < 0 || VERDICTS[v].rank < VERDICTS[worst].rank)) worst = v; });
    cache.set(environment, total ? { counts, total, worst } : null);
  }
  return cache.get(environment);
}

const said = (found) => (found ? VERDICTS.map((v, i) => [v, found.counts[i]]).filter(([, n]) => n).sort(([a], [b]) => a.rank - b.rank).map(([v, n]) => `${n} ${v.name}`).join(', ') : 'not run');
const release = (e) => `${VIEW.primary[e]} ${ENVIRONMENTS[e].packages[VIEW.primary[e]] ?? ''}`.trim();
