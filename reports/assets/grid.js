// The matrix: a tree of rows by environments. Only the rows in sight are elements; arrow keys move through all of them.

const Grid = {
  rows: [], columns: [], toggled: new Map(), few: false, drawn: new Map(), at: { row: 0, column: 0 },
  height: matchMedia('(max-width: 40rem)').matches ? 62 : 42,

  build(home) {
    this.head = el('div', { class: 'grid-head', role: 'row', 'aria-rowindex': 1 });
    this.body = el('div', { class: 'grid-body', role: 'rowgroup' });
    this.box = el('div', { class: 'grid', role: 'treegrid', 'aria-labelledby': 'matrix-head', 'aria-describedby': 'status' }, el('div', { role: 'rowgroup', class: 'grid-top' }, this.head), this.body);
    this.box.addEventListener('scroll', () => { this.pending ||= requestAnimationFrame(() => { this.pending = 0; this.draw(); }); }, { passive: true });
    this.box.addEventListener('keydown', (event) => this.key(event));
    this.box.addEventListener('click', (event) => this.click(event));
    this.box.addEventListener('focusin', (event) => this.focused(event));
    home.append(this.box);
    new ResizeObserver(() => { if (this.wide !== this.box.clientWidth) this.fit(); this.wide = this.box.clientWidth; this.draw(); }).observe(this.box);
  },

  show(chosen) {
    this.columns = chosen.columns;
    this.tree = tree(chosen.cells);
    this.few = chosen.cells.length <= 40;
    this.header();
    this.flatten();
    this.at = { row: 0, column: 0 };
    this.box.scrollTop = 0;
    this.draw(true);
  },

  isOpen(node) {
    return this.toggled.get(node.key) ?? (node.level === 1 || (this.few && node.level < 4));
  },

  flatten() {
    this.rows = [];
    const walk = (nodes, parent) => {
      for (const node of nodes.values()) {
        node.parent = parent;
        this.rows.push(node);
        if (node.kids.size && this.isOpen(node)) walk(node.kids, node);
      }
    };
    walk(this.tree, null);
  },

  header() {
    // every package that a verdict may rest on, but for those that are the same everywhere
    const others = Object.keys(VIEW.versions).filter((name) => this.columns.some((e) => ENVIRONMENTS[e].packages[name] && VIEW.primary[e] !== name)
      && (this.columns.length === 1 || new Set(this.columns.map((e) => ENVIRONMENTS[e].packages[name])).size > 1));
    this.edges = this.columns.map((e, i) => i > 0 && VIEW.primary[this.columns[i - 1]] !== VIEW.primary[e]);
    const corner = el('div', { class: 'corner', role: 'columnheader', 'aria-colindex': 1, tabindex: -1, 'data-column': 0, 'aria-label': 'question and configuration' },
      el('span', { class: 'first' }, 'framework'), el('span', {}, 'release'), others.map((name) => el('span', { class: 'minor' }, name)), el('span', { class: 'name minor' }, 'environment'));
    this.head.replaceChildren(corner, ...this.columns.map((e, i) => {
      const one = ENVIRONMENTS[e], name = VIEW.primary[e], starts = i === 0 || this.edges[i];
      const versions = others.map((other) => `${other} ${one.packages[other] ?? 'not installed'}`).join(', ');
      return el('div', { class: `column ${this.edges[i] ? 'edge' : ''}`, role: 'columnheader', 'aria-colindex': i + 2, tabindex: -1, 'data-column': i + 1, title: cut(`${one.name}: ${versions}`, 400), 'aria-label': cut(`${release(e)}${one.patched ? ', patched' : ''}${one.complete ? '' : ', not complete'}; ${versions}; environment ${one.name}`, 600) },
        el('div', { class: `first ${starts ? 'band' : ''}` }, cut(name, 30)),
        el('div', { class: 'release' }, cut(String(one.packages[name] ?? '–'), 40)),
        others.map((other) => el('div', { class: 'minor' }, cut(String(one.packages[other] ?? '–'), 40))),
        el('div', { class: 'name minor' }, (one.patched ? 'patched: ' : '') + (one.complete ? '' : '(not complete) ') + cut(one.name, 80)));
    }));
  },

  /** The first column takes the room that the others leave. */
  fit() {
    this.box.style.removeProperty('--first');
    const label = this.head.firstElementChild, column = this.head.lastElementChild;
    if (!column || column === label) return;
    const room = this.box.clientWidth - this.columns.length * column.offsetWidth;
    if (room > label.offsetWidth) this.box.style.setProperty('--first', `${Math.min(room, 760)}px`);
  },

  draw(all) {
    const size = this.rows.length;
    if (all) this.fit();
    if (all) { this.drawn.clear(); this.body.replaceChildren(); }
    this.body.style.height = `${size * this.height}px`;
    this.body.style.width = `${this.head.scrollWidth}px`;
    this.box.setAttribute('aria-rowcount', size + 1);
    this.box.setAttribute('aria-colcount', this.columns.length + 1);
    if (!size) {
      this.body.style.height = 'auto';
      this.body.style.width = 'auto';
      this.head.replaceChildren();
      this.body.replaceChildren(el('p', { class: 'empty' }, CELLS.length ? 'Nothing matches the filters.' : 'No cell was judged.'));
      return;
    }
    const top = this.box.scrollTop - this.head.offsetHeight, room = this.box.clientHeight || 600;
    const first = Math.max(0, Math.floor(top / this.height) - 4), last = Math.min(size - 1, Math.ceil((top + room) / this.height) + 8);
    const keep = new Set([this.at.row]);
    for (let i = first; i <= last; i++) keep.add(i);
    for (const [i, element] of this.drawn) if (!keep.has(i)) { element.remove(); this.drawn.delete(i); }
    let next = null;
    for (const i of [...keep].sort((a, b) => b - a)) {
      if (!this.drawn.has(i)) {
        const element = this.row(i);
        this.drawn.set(i, element);
        this.body.insertBefore(element, next);
      }
      next = this.drawn.get(i);
    }
    this.rove();
  },

  row(i) {
    const node = this.rows[i], kids = node.kids.size > 0;
    const head = el('div', { class: 'row-head', role: 'rowheader', 'aria-colindex': 1, tabindex: -1, 'data-column': 0, title: cut(node.label, 600) },
      el('span', { class: 'twist', 'aria-hidden': 'true' }, kids ? '▸' : ''), el('span', { class: 'label' }, node.tag && el('span', { class: 'tag' }, `${node.tag}: `), cut(node.level === 3 ? node.label.split(' ').join(' · ') : node.label, 400)));
    const element = el('div', { class: 'grid-row', role: 'row', 'aria-level': node.level, 'aria-rowindex': i + 2, 'aria-expanded': kids ? String(this.isOpen(node)) : undefined, 'data-row': i }, head);
    element.style.top = `${i * this.height}px`;
    element.style.height = `${this.height}px`;
    this.columns.forEach((e, c) => element.append(this.field(node, e, c)));
    return element;
  },

  field(node, e, c) {
    const found = tally(node, e);
    const box = el('div', { class: `field ${this.edges[c] ? 'edge' : ''}`, role: 'gridcell', 'aria-colindex': c + 2, tabindex: -1, 'data-column': c + 1, 'aria-label': said(found), title: `${release(e)}: ${said(found)}` });
    if (!found) {
      box.append(el('span', { class: 'v-none' }, '·'));
      return box;
    }
    const kind = VERDICTS[found.worst], n = found.counts[found.worst], whole = n === found.total;
    const inside = el('span', { class: `v-${kind.style}${whole ? '' : ' part'}` },
      el('span', {}, el('b', {}, kind.sign), node.level < 4 && ` ${n}`, !whole && el('span', { class: 'of' }, `/${found.total}`)));
    if (!whole) inside.append(this.shares(found));
    box.append(inside);
    return box;
  },

  /** A thin line with the share of every verdict; its words are the field's label. */
  shares(found) {
    const line = el('span', { class: 'share' }), colours = { pass: '--pass', wrong: '--wrong', error: '--error', timeout: '--time', 'by-design': '--design' };
    let from = 0;
    const stops = VERDICTS.map((v, i) => [v, found.counts[i]]).filter(([, n]) => n).sort(([a], [b]) => a.rank - b.rank).map(([v, n]) => {
      const to = from + (100 * n) / found.total, text = `var(${colours[v.name] || '--silent'}) ${from.toFixed(1)}% ${to.toFixed(1)}%`;
      from = to;
      return text;
    });
    line.style.background = `linear-gradient(90deg, ${stops.join(', ')})`;
    line.style.outline = '1px solid var(--surface)';
    return line;
  },

  // ---- moving about ----

  element({ row, column }) {
    const line = row < 0 ? this.head : this.drawn.get(row);
    return line?.querySelector(`[data-column="${column}"]`);
  },

  rove() {
    this.box.querySelector('[tabindex="0"]')?.setAttribute('tabindex', -1);
    this.element(this.at)?.setAttribute('tabindex', 0);
  },

  focused(event) {
    const cell = event.target.closest('[data-column]');
    if (!cell) return;
    const line = cell.closest('[data-row]');
    this.at = { row: line ? Number(line.dataset.row) : -1, column: Number(cell.dataset.column) };
    this.rove();
  },

  go(row, column) {
    this.at = { row: Math.max(-1, Math.min(this.rows.length - 1, row)), column: Math.max(0, Math.min(this.columns.length, column)) };
    const head = this.head.offsetHeight, top = this.at.row * this.height, box = this.box;
    if (this.at.row >= 0) {
      if (top < box.scrollTop) box.scrollTop = top;
      if (top + this.height + head > box.scrollTop + box.clientHeight) box.scrollTop = top + this.height + head - box.clientHeight;
    }
    this.draw();
    const element = this.element(this.at);
    if (!element) return;
    if (this.at.column > 0) {
      const label = this.head.firstElementChild.offsetWidth, left = element.offsetLeft, right = left + element.offsetWidth;
      if (left - label < box.scrollLeft) box.scrollLeft = left - label;
      if (right > box.scrollLeft + box.clientWidth) box.scrollLeft = right - box.clientWidth;
    }
    element.focus({ preventScroll: true });
  },

  key(event) {
    const { row, column } = this.at, node = this.rows[row], page = Math.max(1, Math.floor(this.box.clientHeight / this.height) - 3);
    const moves = {
      ArrowDown: () => this.go(row + 1, column), ArrowUp: () => this.go(row - 1, column),
      PageDown: () => this.go(row + page, column), PageUp: () => this.go(Math.max(row - page, 0), column),
      Home: () => this.go(event.ctrlKey ? 0 : row, 0), End: () => this.go(event.ctrlKey ? this.rows.length - 1 : row, this.columns.length),
      ArrowRight: () => (column === 0 && node?.kids.size && !this.isOpen(node) ? this.toggle(row) : this.go(row, column + 1)),
      ArrowLeft: () => (column > 0 ? this.go(row, column - 1) : node?.kids.size && this.isOpen(node) ? this.toggle(row) : node?.parent && this.go(this.rows.indexOf(node.parent), 0)),
      Enter: () => this.act(), ' ': () => this.act(),
    };
    if (!moves[event.key] || event.altKey || event.metaKey) return;
    event.preventDefault();
    moves[event.key]();
  },

  click(event) {
    const cell = event.target.closest('[data-column]');
    if (!cell) return;
    const line = cell.closest('[data-row]');
    this.at = { row: line ? Number(line.dataset.row) : -1, column: Number(cell.dataset.column) };
    this.rove();
    cell.focus({ preventScroll: true });
    this.act();
  },

  act() {
    const { row, column } = this.at, node = this.rows[row];
    if (row < 0) return column > 0 ? showEnvironment(this.columns[column - 1]) : undefined;
    if (column === 0) return node.kids.size ? this.toggle(row) : undefined;
    return tally(node, this.columns[column - 1]) ? openDetails(node, this.columns[column - 1]) : undefined;
  },

  toggle(row) {
    const node = this.rows[row];
    this.toggled.set(node.key, !this.isOpen(node));
    this.flatten();
    this.draw(true);
    this.go(row, 0);
    announce(`${clean(cut(node.label, 120))}: ${this.isOpen(node) ? plural(node.kids.size, 'row') : 'closed'}`);
  },

  all(open) {
    const walk = (nodes) => { for (const node of nodes.values()) { if (node.kids.size) this.toggled.set(node.key, open && node.level < 3); walk(node.kids); } };
    walk(this.tree);
    if (!open) for (const node of this.tree.values()) this.toggled.set(node.key, true);
    this.flatten();
    this.at = { row: 0, column: 0 };
    this.draw(true);
  },
};

// ---- what is in a field ----

function openDetails(node, e) {
  const sheet = document.getElementById('details'), one = ENVIRONMENTS[e];
  const list = node.cells.filter((cell) => AT[e][cell] >= 0).map((cell) => ({ cell, ...verdictAt(e, cell) })).sort((a, b) => a.kind.rank - b.kind.rank);
  const packages = Object.keys(VIEW.versions).filter((name) => one.packages[name]).map((name) => `${name} ${one.packages[name]}`).join(' · ');
  const items = el('ul', { class: 'cells' }), more = el('button', { type: 'button', class: 'button' });
  const CHUNK = 50;
  let shown = 0;
  const some = () => {
    items.append(...list.slice(shown, shown + CHUNK).map((row) => cellItem(row, one)));
    shown += CHUNK;
    more.hidden = shown >= list.length;
    more.textContent = `Show ${Math.min(CHUNK, list.length - shown)} more of ${list.length - shown}`;
  };
  more.addEventListener('click', some);
  some();
  sheet.replaceChildren(
    el('div', { class: 'sheet-head' }, el('h2', { id: 'details-head' }, cut(node.label, 2000)), el('button', { type: 'button', class: 'close', 'aria-label': 'Close', autofocus: true, onclick: () => sheet.close() }, '×'),
      el('p', {}, el('b', {}, one.name), ` · ${packages}`, one.patched ? ' · patched' : ''), el('p', {}, said(tally(node, e)))),
    items, el('p', { class: 'cells' }, more));
  sheet.showModal();
  sheet.scrollTop = 0;
}

/** As one word for a shell. */
const quoted = (id) => (/^[\w@%+=:,./-]+$/.test(id) ? id : `'${id.replaceAll("'", `'"'"'`)}'`);

function cellItem(row, environment) {
  const check = TEXTS[row.check], reason = TEXTS[row.reason], finding = row.finding >= 0 ? FINDINGS[row.finding] : null;
  const figures = check && reason.includes('tolerance') ? `plain PyTorch: ${exact(row.noise)}` : check ? `${check} of step ${row.step + 1}: ${exact(row.figure)} (tolerance ${exact(row.bound)}, plain PyTorch ${exact(row.noise)})` : '';
  const id = cellId(row.cell), run = `truestep run ${quoted(id)}${environment.patched ? ' --patch' : ''}`;
  return el('li', {}, chip(row.kind.name), el('div', { class: 'id' }, id),
    el('div', { class: 'said' }, `${row.kind.name}${reason ? `: ${cut(reason, 12000)}` : ''}`, figures && [el('br', {}), figures]),
    el('div', { class: 'actions' }, finding && el('button', { type: 'button', class: 'link', onclick: () => { document.getElementById('details').close(); showCard(row.finding); } }, 'Finding: ', cut(finding.advisory || finding.diagnosis?.words || finding.reason || 'not known', 60)),
      row.kind.name !== 'skipped' && command(run)));
}

function showEnvironment(e) {
  const line = document.getElementById(`environment-${e}`);
  line.scrollIntoView({ block: 'center' });
  line.focus({ preventScroll: true });
}
